"""Chapter 9, the inpainting game of a recogniser: which map marks the part of another person that was put in?

After J. R. Williford, B. B. May and J. Byrne, "Explainable face recognition", ECCV 2020, with parts of photographs in
place of painted regions. Chapter 7 plays it with a classifier and drawn twins: `studies.inpainting`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from torch import Tensor

from matching.faces import realigned
from studies import matching
from studies.figures import contact_sheet
from studies.report import joined
from studies.shares import share, share_interval
from studies.transplant import PART_BOXES, part_alpha, score_move, transplants
from xfrlib.intervals import Estimate, Interval, mean_interval
from xfrlib.match import unit_embeddings
from xfrlib.models import Backbone
from xfrlib.plots import percent
from xfrlib.prediction import as_floats
from xfrlib.tables import in_text, verdict

FALSE_ALARMS = (0.01, 0.05)  # shares of the pixels outside the part


class Rounds(NamedTuple):
    """n rounds for a recogniser: probe and mate are two pictures of A; twin and non-mate are these with a part of B.

    The two parts come from two pictures of B, so that twin and non-mate have B in common and not a picture of B.
    """

    cases: pd.DataFrame  #: as `studies.transplant.choose_cases` makes them
    probes: Tensor  #: (n, 3, H, W) in [0, 1]
    twins: Tensor  #: (n, 3, H, W) in [0, 1], the probes with B's part
    regions: Tensor  #: (n, H, W) bool, where the part is at least half opaque
    templates: Tensor  #: (n, 3, D): mate; non-mate, the mate with B's part; the mate with A's part of a third picture
    decided: Tensor  #: (n,) bool: see `rounds_of`

    def played(self) -> Rounds:
        """The rounds that are decided."""
        chosen = self.decided.nonzero().flatten()
        cases = self.cases.iloc[chosen.numpy()].reset_index(drop=True)
        return Rounds(cases, *(value[chosen] for value in self[1:]))


@torch.no_grad()
def rounds_of(recogniser: Backbone, pictures: Tensor, mates: Tensor, cases: pd.DataFrame) -> Rounds:
    """The rounds of `cases`, whose columns point to `pictures` (m, 3, 112, 112); `mates` has one more of each person.

    A round is decided where the part changes the answer, and its owner does it: the probe is nearer to the mate, the
    twin to the non-mate, and the probe with A's own part of another picture still to the mate.
    """
    of_mates = cases.assign(picture=len(pictures) + cases["target"], donor=len(pictures) + cases["rival"])
    probe, mate = (transplants(torch.cat([pictures, mates]), some) for some in (cases, of_mates))
    cut = [realigned(as_floats(some), recogniser) for some in (probe.images, probe.transplanted, probe.control)]
    shapes = realigned(probe.regions[:, None].float().expand(-1, 3, -1, -1), recogniser)[:, 0] >= 0.5
    pasted = (mate.images, mate.transplanted, mate.control)
    each = [unit_embeddings(recogniser, realigned(as_floats(some), recogniser)) for some in pasted]
    templates = torch.stack(each, dim=1)
    way = templates[:, 0] - templates[:, 1]
    own, twin, control = (torch.einsum("nd,nd->n", unit_embeddings(recogniser, some), way) for some in cut)
    return Rounds(probe.cases, cut[0], cut[1], shapes, templates, (own > 0) & (twin < 0) & (control > 0))


def game_maps(
    recogniser: Backbone, rounds: Rounds, others: Tensor, *, masks: int, seed: int, fggb: int, progress: bool = True
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Maps of the probes (n, H, W) that say why the mate and not the non-mate; and those that know whom, for the seam.

    All but SDD of `studies.matching.MATCH_MAPS`, since SDD ranks as the CAM difference where there is one non-mate;
    "fggb" for the first `fggb` rounds; and "parts", the places of all parts, which knows nothing of the round. For the
    seam, the mate with A's own other part takes the place of the non-mate, or of the mate if the probe is nearer to it.
    `others` (n, 2, D) are the templates of two other people.
    """
    count, places = len(rounds.cases), torch.arange(5 * len(rounds.cases)).view(-1, 5)
    gallery = matching.TemplateGallery(recogniser, torch.cat([rounds.templates, others], dim=1).flatten(0, 1)).eval()
    with torch.no_grad():
        looks = gallery(rounds.probes).view(count, count, 5)[torch.arange(count), torch.arange(count)]
    swapped = (looks[:, 2] > looks[:, 0])[:, None]
    pairs = places[:, [0, 1, 3, 4]], torch.where(swapped, places[:, [2, 0, 3, 4]], places[:, [0, 2, 3, 4]])
    found = []
    for pair in pairs:
        maps = matching.maps_by_method(
            gallery, rounds.probes, pair, batch_size=32, masks=masks, seed=seed, progress=progress
        )
        del maps["sdd"]
        if fggb:
            some = rounds.probes[:fggb], pair[:fggb]
            maps["fggb"] = matching.feature_guided_gradients(gallery, *some, progress=progress)
        found.append(maps)
    of_pair, of_seam = found
    places_of_parts = torch.stack([part_alpha(part) for part in PART_BOXES]).amax(dim=0)
    blind = realigned(places_of_parts.expand(1, 3, -1, -1), recogniser)[:, 0]
    of_pair |= {"parts": blind.expand(count, -1, -1)}
    return of_pair, {name: maps for name, maps in of_seam.items() if name not in ("cam", "wrong_pair")}


def marked(values: Tensor, regions: Tensor, share: float) -> Tensor:
    """The pixels (n, H, W) that a map ranks above all but a `share` of those outside the part."""
    levels = [one[~region].quantile(1 - share) for one, region in zip(values, regions, strict=True)]
    return values > torch.stack(levels)[:, None, None]


@torch.no_grad()
def game_scores(recogniser: Backbone, rounds: Rounds, maps: Mapping[str, Tensor]) -> pd.DataFrame:
    """How every map (n, H, W), or of the first rounds alone, does in every round: a row for each, with `method`.

    `area` is that under the ROC curve, of pixels inside and outside the part; a half is a guess. For each share of
    `FALSE_ALARMS`, ``found <share>`` is the share of the part that is `marked`, and ``turned <share>`` is whether the
    probe, with the twin's pixels pasted where it is marked, is nearer to the non-mate than to the mate.
    """
    tables = []
    for name, values in maps.items():
        count = len(values)
        cases, regions, templates = rounds.cases[:count], rounds.regions[:count], rounds.templates[:count]
        area = score_move(torch.zeros_like(values), values, regions, shares=False)["auc"].to_numpy()
        table = cases.reset_index(drop=True).assign(method=name, area=area)
        for part in FALSE_ALARMS:
            chosen = marked(values, regions, part)
            pasted = torch.where(chosen[:, None], rounds.twins[:count], rounds.probes[:count])
            own, other = (unit_embeddings(recogniser, pasted)[:, None] * templates[:, :2]).sum(dim=2).T
            inside = (chosen & regions).sum(dim=(1, 2)) / regions.sum(dim=(1, 2))
            table[f"found {part:g}"], table[f"turned {part:g}"] = inside.numpy(), (other > own).numpy()
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


class GameResult(NamedTuple):
    """What came of the game: means over the rounds, with intervals over who counts as one draw."""

    tried: int
    rounds: int
    identities: int
    units: int  #: who count as one draw
    by_part: dict[str, int]
    fggb_rounds: int
    scores: dict[tuple[str, str], Estimate | Interval]  #: by map and column of `game_scores`, and "above seam"
    area_minus: dict[str, Estimate]  #: the area of the CAM difference less that of another map, over rounds of both


def game_result(scores: pd.DataFrame, seams: pd.DataFrame, families: ArrayLike, *, tried: int) -> GameResult:
    """Means of `game_scores` with intervals over `families` (people,); how the CAM difference compares by area, and by
    how much the area of each map is above its area for the seam alone, whose scores are `seams`."""
    table = scores.assign(family=np.asarray(families)[scores["target"].to_numpy(int)])
    found: dict[tuple[str, str], Estimate | Interval] = {}
    minus: dict[str, Estimate] = {}
    round_ = ["picture", "kind", "part"]
    wide = table.pivot(index=[*round_, "family"], columns="method", values="area").reset_index()
    above = table.merge(seams[[*round_, "method", "area"]], on=[*round_, "method"], suffixes=("", " of the seam"))
    for method, rows in table.groupby("method", sort=False):
        both, pair = wide.dropna(subset=[method]), above[above["method"] == method]
        if both["family"].nunique() < 2:
            continue
        for column in [name for name in rows if str(name).startswith(("area", "found", "turned"))]:
            of_kind = share_interval if str(column).startswith("turned") else mean_interval
            found[str(method), str(column)] = of_kind(rows[column].astype(float), rows["family"])
        if len(pair):
            found[str(method), "above seam"] = mean_interval(pair["area"] - pair["area of the seam"], pair["family"])
        if method != "difference":
            minus[str(method)] = mean_interval(both["difference"] - both[method], both["family"])
    counts = table["method"].value_counts()
    by_part = {str(part): int(count) for part, count in wide["part"].value_counts(sort=False).items()}
    people, units = table["target"].nunique(), table["family"].nunique()
    return GameResult(tried, len(wide), people, units, by_part, int(counts.get("fggb", 0)), found, minus)


def game_rows(game: GameResult, titles: Mapping[str, str]) -> list[dict[str, str]]:
    """A row for each map of `titles`, for a reader; a cell is empty where there is no number."""
    few, more = map(percent, FALSE_ALARMS)
    columns = {"area under the ROC curve": "area", "above its own seam": "above seam"}
    columns |= {f"found at {few}": f"found {FALSE_ALARMS[0]:g}", f"found at {more}": f"found {FALSE_ALARMS[1]:g}"}
    columns |= {f"turned at {more}": f"turned {FALSE_ALARMS[1]:g}"}

    def cell(name: str, column: str) -> str:
        found = game.scores.get((name, column))
        if found is None:
            return ""
        return in_text(found, signed=column == "above seam") if column[0] == "a" else share(found)

    return [
        {"map": title} | {head: cell(name, column) for head, column in columns.items()}
        for name, title in titles.items()
    ]


def game_words(game: GameResult, titles: Mapping[str, str]) -> str:
    """How the CAM difference compares with the other maps by the area, and which maps are above their own seam."""
    if not game.area_minus:
        return "Nothing is compared: all rounds are of one person or family."
    less, more, alike = (
        joined(titles[name] for name, one in game.area_minus.items() if verdict(one) == word)
        for word in ("better", "worse", "undecided")
    )
    seams = joined(
        title for name, title in titles.items()
        if (name, "above seam") in game.scores and verdict(game.scores[name, "above seam"]) == "better"
    )  # fmt: skip
    return (
        f"By the area, these maps do less well than the {titles['difference']}: {less}. These do better: {more}. For "
        f"these neither is shown: {alike}. Better than for the seam alone: {seams}."
    )


def game_figure(rounds: Rounds, maps: Mapping[str, Tensor], titles: Mapping[str, str]) -> Figure:
    """A round of each part, a row each: the probe, its twin, and what the maps of `titles` paste, with the part's line.

    Pasting stops at the larger share of `FALSE_ALARMS`; what is not pasted is faded.
    """
    rows = rounds.cases.groupby("part", sort=False).head(1)
    tiles, above = [], []
    for row, part in zip(rows.index.tolist(), rows["part"], strict=True):
        probe, twin, region = rounds.probes[row], rounds.twins[row], rounds.regions[row]
        chosen = [marked(maps[name][row : row + 1], region[None], max(FALSE_ALARMS))[0] for name in titles]
        faded = 0.75 + 0.25 * probe.mean(dim=0)
        tiles += [probe, twin, *(torch.where(pixels, twin, faded) for pixels in chosen)]
        above += ["probe", f"twin: another's {part}", *(f"what {title} pastes" for title in titles.values())]
    columns = 2 + len(titles)
    outlines = rounds.regions[rows.index.repeat(columns).to_numpy(copy=True)]
    return contact_sheet(torch.stack(tiles), above, columns=columns, outlines=outlines)

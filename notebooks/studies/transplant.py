"""Ground truth on any faces: a part of one person's picture put into another's, and where a map moves for it.

A picture of A receives a part of a picture of B. Where the network's log-odds of B against A rise for it, the reason
lies in that part, whoever the two are: an explanation of "B against A" must *move into* the part. The seam and the
middle of the face would draw a map there as well, so every transplant has a control: A's own part, from another picture
of A, put in with the same seam. Parts are fixed regions of the five-point alignment to 112 x 112 pixels
(`facedata.align.TEMPLATE`): pictures must be aligned to it.

Y. Goyal et al., "Counterfactual visual explanations", ICML 2019, replace a region of a picture by one of another class
to *find* an explanation, in feature maps; here the region is given, pixels are replaced, and explanations are tested.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from scipy.stats import rankdata
from torch import Tensor, nn

from facedata.align import ALIGNED_SIDE
from matching.face_parts import transplant_part
from studies.part_scores import energy_in
from studies.score_tables import MeanScores
from xfrlib.intervals import Estimate, Interval
from xfrlib.judge import blurred
from xfrlib.prediction import all_logits, log_odds
from xfrlib.tables import in_text

PART_BOXES = {  # left, top, right, bottom in pixels of the alignment, of the half-transparent line
    "eyes": (25, 34, 87, 61),  # with the brows
    "nose": (43, 57, 69, 81),
    "mouth": (35, 82, 77, 103),
}
FEATHER = 3.0  # standard deviation of the soft edge, in pixels of the alignment
RIVAL_KINDS = ("look-alike", "stranger")
MOVES = {"inflow": "inflow", "auc": "AUC", "energy": "energy", "pointing": "pointing game"}  # scores, for a reader


def part_alpha(part: str, size: tuple[int, int] = (ALIGNED_SIDE, ALIGNED_SIDE), *, feather: float = FEATHER) -> Tensor:
    """Opacity of a part's region, with a soft edge: (H, W) in [0, 1], 0.5 about the sides of the region.

    `feather` is the standard deviation of the edge (a box blurred by a Gaussian), in pixels of the alignment's width.
    """
    if part not in PART_BOXES:
        raise ValueError(f"no region for {part!r}: choose from {', '.join(PART_BOXES)}")
    if not feather > 0:
        raise ValueError(f"feather = {feather}: must be above 0, or the seam is a hard edge")
    scale = [side / ALIGNED_SIDE for side in (size[1], size[0])]  # x, y
    left, top, right, bottom = (round(edge * scale[i % 2]) for i, edge in enumerate(PART_BOXES[part]))
    box = torch.zeros(1, *size)
    box[:, top:bottom, left:right] = 1
    return blurred(box[None], feather * scale[0], reach=4)[0, 0].clamp(0, 1)


def choose_cases(
    labels: ArrayLike,
    logits: Tensor,
    *,
    pictures: int,
    parts: Sequence[str] = tuple(PART_BOXES),
    groups: ArrayLike | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Whose part goes into which picture: as many pictures of each person, two rivals a picture, every part.

    Parameters
    ----------
    labels : (n,) the person in each picture.
    logits : (n, N) of those pictures, of one network or the mean over several: the look-alike of a picture is the class
        of the highest logit beside its person. A stranger is drawn from all others.
    pictures : how many pictures receive parts; they are taken in turn from all people, in an order drawn by `seed`.
    parts : names of `PART_BOXES`.
    groups : (n,) duplicates of a picture share a number of at least 0; no part comes from a duplicate.
    seed : of that order, of the strangers, and of the pictures that parts are taken from.

    Returns
    -------
    A row per case: `picture`, `donor` (a picture of the rival) and `own` (another picture of the target), as positions
    in `labels`; `target`, `rival`; `kind`, one of `RIVAL_KINDS`; `part`.

    Raises
    ------
    ValueError
        If fewer than three people have a picture, or nobody has two: there would be no stranger, or no control.
    """
    who, rng = np.asarray(labels), np.random.default_rng(seed)
    same = np.full(len(who), -1) if groups is None else np.asarray(groups)
    people = np.unique(who)
    if logits.shape[0] != len(who) or same.shape != who.shape:
        raise ValueError(f"{len(who)} labels, logits {tuple(logits.shape)} and {len(same)} groups do not fit")
    turn = pd.Series(who).groupby(who).cumcount().to_numpy()
    rows: list[dict[str, object]] = []
    taken = 0
    lot = rng.permutation(len(people))[np.searchsorted(people, who)]
    for picture in np.lexsort((lot, turn)):
        own = np.flatnonzero((who == who[picture]) & ((same != same[picture]) | (same < 0)))
        own = own[own != picture]
        if taken == pictures or len(people) < 3:
            break
        if not len(own):
            continue
        taken += 1
        others = people[people != who[picture]]
        nearest = others[int(logits[picture, torch.from_numpy(others)].argmax())]
        stranger = rng.choice(others[others != nearest])
        for kind, rival in zip(RIVAL_KINDS, (nearest, stranger), strict=True):
            case = {
                "picture": picture,
                "target": who[picture],
                "rival": rival,
                "kind": kind,
            }
            case |= {
                "donor": rng.choice(np.flatnonzero(who == rival)),
                "own": rng.choice(own),
            }
            rows += [case | {"part": part} for part in parts]
    if not rows:
        raise ValueError("a transplant needs three people with a picture, one of them with two that are no duplicates")
    return pd.DataFrame(rows)


class Transplants(NamedTuple):
    """The pictures of n cases, and the regions in which they were changed."""

    cases: pd.DataFrame  #: see `choose_cases`
    images: Tensor  #: (n, 3, H, W) uint8, A as he is
    transplanted: Tensor  #: (n, 3, H, W) uint8, with B's part
    control: Tensor  #: (n, 3, H, W) uint8, with the same part of another picture of A
    regions: Tensor  #: (n, H, W) bool, where the part is at least half opaque
    classes: Tensor  #: (n, 2) int64: B, who is explained, against A

    def select(self, rows: ArrayLike) -> Transplants:
        """The cases at `rows` (positions, or a mask)."""
        index = np.arange(len(self.cases))[np.asarray(rows)]
        return Transplants(
            self.cases.iloc[index].reset_index(drop=True),
            *(value[index] for value in self[1:]),
        )


def transplants(
    pictures: Tensor,
    cases: pd.DataFrame,
    *,
    feather: float = FEATHER,
    match_colour: bool = True,
) -> Transplants:
    """Make the pictures of all cases: (m, 3, H, W) in [0, 1], to which `cases` (see `choose_cases`) points."""
    size = (pictures.shape[2], pictures.shape[3])
    alphas = {part: part_alpha(part, size, feather=feather) for part in cases["part"].unique()}
    alpha = torch.stack([alphas[part] for part in cases["part"]])
    picture, donor, own = (torch.tensor(cases[name].to_numpy()) for name in ("picture", "donor", "own"))
    made = [
        torch.cat([
            (255 * transplant_part(pictures[a], pictures[b], opacity, match_colour=match_colour)).round().byte()
            for a, b, opacity in zip(picture.split(64), source.split(64), alpha.split(64), strict=True)
        ])
        for source in (donor, own)
    ]  # fmt: skip
    classes = torch.from_numpy(cases[["rival", "target"]].to_numpy().astype(np.int64))
    images = (255 * pictures).round().byte()[picture]
    return Transplants(cases.reset_index(drop=True), images, made[0], made[1], alpha >= 0.5, classes)


@torch.no_grad()
def odds_moved(
    model: nn.Module,
    made: Transplants,
    *,
    threshold: float = 1.0,
    temperature: float = 1.0,
    batch_size: int = 64,
    progress: bool = True,
) -> pd.DataFrame:
    """What each transplant and its control do to the log-odds log(p_B / p_A) of one network.

    Returns the cases with the columns `before`; `rise` and `control_rise`, what B's part and A's own other part add;
    and `moved`: the rise is at least `threshold`, and the control moved the odds, either way, by less than half of it:
    a control that fell would draw the map away from the part. Log-odds are those of softmax(z / temperature). Costs
    three passes a case.
    """

    def odds(images: Tensor) -> Tensor:
        return log_odds(all_logits(model, images, batch_size, progress=progress), made.classes)[:, 0] / temperature

    before = odds(made.images)
    rise, control = ((odds(images) - before).numpy() for images in (made.transplanted, made.control))
    moved = (rise >= threshold) & (np.abs(control) < threshold / 2)
    return made.cases.assign(before=before.numpy(), rise=rise, control_rise=control, moved=moved)


def map_change(before: Tensor, after: Tensor, *, shares: bool) -> Tensor:
    """How a map changed: after less before, both (B, H, W).

    `shares` divides each map by its sum first, for maps that are nowhere negative and have no unit (SDD, scaled to a
    largest value of 1, or the size of a gradient). Maps in logits (CAM, M_B - M_A) stay as they are: the mean of
    the change of M_B - M_A is what the log-odds gained.
    """
    if before.shape != after.shape or before.ndim != 3:
        raise ValueError(f"expected two maps (B, H, W), got {tuple(before.shape)} and {tuple(after.shape)}")
    first, second = before.double(), after.double()
    if shares:
        if bool((first < 0).any() or (second < 0).any()):
            raise ValueError("a map has negative values, so that it has no shares: give shares=False")
        first, second = (m / m.sum(dim=(1, 2), keepdim=True) for m in (first, second))
    return second - first


def score_move(before: Tensor, after: Tensor, regions: Tensor, *, shares: bool) -> pd.DataFrame:
    """Whether a map moved into the part: two maps (B, H, W) and bool (B, H, W) -> a row for each.

    All of them look at the change alone (`map_change`). The `inflow` is the sum of the change inside, divided by all
    that rose or all that fell in the picture, whichever is more: in [-1, 1]; 1 where the map rose inside and nowhere
    else; 0 for a map that does not look at the picture. The `auc` is how often a pixel inside rose more than one
    outside, ties half; by chance 0.5. The `energy` is the share of the positive change that lies inside, in [0, 1]; by
    chance the area of the region. And `pointing` is whether the largest change lies inside (the share of them, where
    several are equal).

    A transplant and its control should differ in `inflow` and `auc`. They need not in `energy` and `pointing`: a map
    without a fault changes in the part alone, whatever comes in. So for those two take the control for `before`: it has
    the seam as well. `energy` is NaN where nothing rose.
    """
    change = map_change(before, after, shares=shares)
    values, inside = change.flatten(1).numpy(), regions.flatten(1).numpy()
    highest = values == values.max(axis=1, keepdims=True)
    count = inside.sum(axis=1)
    ranks = (rankdata(values, axis=1) * inside).sum(axis=1)
    most = np.maximum(values.clip(min=0).sum(axis=1), -values.clip(max=0).sum(axis=1))
    return pd.DataFrame({
        "inflow": (values * inside).sum(axis=1) / np.where(most > 0, most, 1),
        "auc": (ranks - count * (count + 1) / 2) / (count * (inside.shape[1] - count)),
        "energy": energy_in(change, regions).numpy(),
        "pointing": (highest & inside).sum(axis=1) / highest.sum(axis=1),
    })  # fmt: skip


def score_transplants(
    table: pd.DataFrame,
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    control: Mapping[str, Tensor],
    regions: Tensor,
    *,
    shares: Collection[str],
) -> pd.DataFrame:
    """Hold the maps of several methods to n transplants and their controls: a row per case and method.

    `table` holds what is known of each case and is repeated; `before`, `after` and `control` are method -> maps
    (n, H, W) of the three pictures; `shares` names the methods whose maps have no unit (`map_change`). Added are
    `method`; `inflow` and `auc` of the transplant; `seam_inflow` and `seam_auc` of the control; and `energy` and
    `pointing` of the change from the control to the transplant (see `score_move` for the reason).
    """
    rows = []
    for method in after:
        maps = {
            "before": before[method],
            "after": after[method],
            "control": control[method],
        }
        moves = {
            name: score_move(maps[first], maps[second], regions, shares=method in shares)
            for name, (first, second) in {
                "own": ("before", "after"), "seam": ("before", "control"), "beyond": ("control", "after"),
            }.items()
        }  # fmt: skip
        rows.append(
            table.reset_index(drop=True).assign(
                method=method,
                **{name: moves["own"][name] for name in ("inflow", "auc")},
                **{f"seam_{name}": moves["seam"][name] for name in ("inflow", "auc")},
                **{name: moves["beyond"][name] for name in ("energy", "pointing")},
            )
        )
    return pd.concat(rows, ignore_index=True)


def prior_changes(regions: Tensor) -> dict[str, Tensor]:
    """Two changes that know nothing of the part, for regions (n, H, W): the same everywhere, and a hill at the centre.

    Both are (n, H, W); the hill is a Gaussian whose standard deviation is a quarter of the picture.
    """
    y, x = (torch.linspace(-2, 2, length) for length in regions.shape[1:])
    hill = torch.exp(-(y[:, None] ** 2 + x**2) / 2).expand(len(regions), -1, -1)
    return {"uniform": torch.ones_like(hill), "centre": hill}


def move_rows(scores: MeanScores, above_seam: MeanScores, kind: str, titles: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows for a reader: whether each map moved for the part of a `kind` of rival, and for the control.

    `scores` has the means of `inflow` and `auc`, those of the control (`seam_inflow`, `seam_auc`), `energy` and
    `pointing`; `above_seam` the differences of the first two to the control, for maps that can differ from it.
    """

    def mean(found: Estimate | Interval) -> str:
        return in_text(found).partition(" ")[0]

    rows = []
    for name, title in titles.items():
        row: dict[str, Any] = {"map": title}
        for score in ("inflow", "auc"):
            difference = above_seam.get((kind, name, score))
            row[MOVES[score]] = mean(scores[kind, name, score])
            row[f"{MOVES[score]}, control"] = mean(scores[kind, name, f"seam_{score}"]) if difference else ""
            row[f"{MOVES[score]}, difference"] = difference or ""
        row |= {MOVES[score]: scores[kind, name, score] for score in ("energy", "pointing")}
        rows.append(row)
    return rows

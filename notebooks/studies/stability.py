"""Chapter 12: how far a map follows a face that moves, and how far the networks of one recipe agree."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
import torch.nn.functional as F
from torch import Tensor

from studies.shares import share_interval
from xfrlib.geometry import Geometry, read_at, upsampled
from xfrlib.intervals import Estimate, Interval, mean_interval
from xfrlib.prediction import margin
from xfrlib.tables import in_text, verdict

TOLD_APART = ("higher", "lower", "not told apart")
BETWEEN = "another network"  # what is held to a map, in the column `against`
Moved = Mapping[tuple[str, int], Mapping[str, Estimate]]  # by method and pixels: similarity with the unmoved picture's
Seeds = Mapping[tuple[str, str, str], Estimate]  # by method, what a map is held to, and measure


def shifted_back(maps: Tensor, moved: Tensor, shift: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The part of the face that both maps show: maps (B, H, W) of the pictures and of the translated ones.

    Returns two times ``(B, H - |down|, W - |right|)``, pixel by pixel of the same place.
    """
    own, theirs = maps, moved
    for axis, step in zip((-2, -1), shift, strict=True):
        length = maps.shape[axis] - abs(step)
        if length < 1:
            raise ValueError(f"shift = {shift} leaves nothing of {tuple(maps.shape[-2:])}")
        own = own.narrow(axis, max(0, -step), length)
        theirs = theirs.narrow(axis, max(0, step), length)
    return own, theirs


def between_cells(maps: Tensor, geometry: Geometry, cells: Sequence[int]) -> Tensor:
    """The part of maps (..., H, W) from the place of the first of `cells` (h, w) to that of the last.

    Beyond them a coarse map is held, because it has no neighbour to look at.
    """
    rows, columns = (slice(max(0, math.ceil(at[0])), math.floor(at[-1]) + 1) for at in geometry.centres(cells))
    return maps[..., rows, columns]


def on_the_grid(maps: Tensor, geometry: Geometry, cells: Sequence[int]) -> Tensor:
    """Maps (B, H, W) averaged over the width of a cell around the place of each of `cells` (h, w), and laid again."""
    half = [round(stride / 2) for stride in geometry.stride]
    around = F.avg_pool2d(maps, [2 * side + 1 for side in half], 1, half, count_include_pad=False)
    means = read_at(around, Geometry((1, 1), (0, 0)), *geometry.centres(cells))
    return upsampled(means, maps.shape[-2:], geometry)


def decisions(
    before: Tensor,
    after: Sequence[tuple[int, Tensor]],
    classes: Tensor,
    families: Sequence[int],
    *,
    temperature: float,
) -> pd.DataFrame:
    """What a step does to the decision: a row for each step and picture.

    Parameters
    ----------
    before : Tensor
        (n, N) logits of the unmoved pictures.
    after : sequence of (int, Tensor)
        The step in pixels and the logits of the moved pictures.
    classes, families
        (n,) the class explained, and who counts as one draw with the person shown (`NotebookRun.families`).
    temperature : float
        Of the network.

    Returns
    -------
    pandas.DataFrame
        `pixels`, `family`, and the changes of the class's calibrated margin (`log_odds`) and of its probability in
        `points`; `changed`, 1 where another class is now predicted.
    """

    def odds(logits: Tensor) -> tuple[Tensor, Tensor]:
        z = logits / temperature
        return margin(z, classes).float(), z.softmax(dim=1).gather(1, classes[:, None])[:, 0]

    unmoved, sure = odds(before)
    tables = []
    for pixels, logits in after:
        moved, probability = odds(logits)
        tables.append(
            pd.DataFrame({
                "pixels": pixels,
                "family": families,
                "log_odds": (moved - unmoved).double().numpy(),
                "points": 100 * (probability - sure).double().numpy(),
                "changed": (moved <= 0).double().numpy(),
            })
        )  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def over_people(table: pd.DataFrame, columns: Sequence[str]) -> dict[str, Estimate]:
    """Means of columns on one network, with intervals over people: each `family` counts as one draw."""
    return {column: mean_interval(table[column], table["family"]) for column in columns}


def decided(table: pd.DataFrame) -> dict[str, Estimate | Interval]:
    """Means of the columns of `decisions`, with intervals over people."""
    shares = {"changed": share_interval(table["changed"], table["family"])}
    return {**over_people(table, ("log_odds", "points")), **shares}


def overlap_less(table: pd.DataFrame, method: str, other: str) -> Estimate:
    """Overlap of one method less that of another, which has rows of the same pictures in the same order."""
    own, theirs = (table[table["method"] == name].reset_index(drop=True) for name in (method, other))
    return mean_interval(own["overlap"] - theirs["overlap"], own["family"])


def moved_findings(
    at: Moved,
    against_disc: Mapping[str, Estimate],
    decision: Mapping[int, Mapping[str, Estimate | Interval]],
    again: Estimate,
    *,
    stride: int,
) -> str:
    """What to notice of a step to the side.

    Parameters
    ----------
    at : mapping
        Similarity of explainers and of the references "disc" and "the grid alone", by pixels.
    against_disc : mapping
        Overlap of explainers at half a cell, less the disc's.
    decision : mapping
        `decided`, by pixels.
    again : Estimate
        SDD's overlap at a whole cell less that at half a cell, paired.
    stride : int
        Pixels from a cell to the next.
    """
    half = stride // 2
    overlap = {key: found["overlap"] for key, found in at.items()}
    sdd, grid, disc = overlap["sdd_sum", half], overlap["the grid alone", half].value, overlap["disc", half].value
    rest = (
        f"The grid alone would cost {1 - grid:.2f} of the {1 - sdd.value:.2f} that is lost at half a cell. The rest "
        "may come from the network, which sees the face in another place, or from the padding; this check cannot tell."
    )
    fits_again = verdict(
        again,
        (
            "So part of the loss comes from the sampling of the grid.",
            f"So the maps are even less alike there. {rest}",
            f"So the two are not told apart. {rest}",
        ),
    )
    said = {name: verdict(against_disc[name], TOLD_APART) for name in ("sdd_sum", "cam")}
    return (
        f"After a step of {half} pixels, half a cell, SDD's region overlaps with itself by {in_text(sdd)}, "
        f"CAM's by {in_text(overlap['cam', half])}. The grid alone would leave {grid:.2f}, and a disc that does not "
        f"follow the face {disc:.2f}. Against that disc, SDD's overlap is {said['sdd_sum']}, CAM's {said['cam']}. A "
        f"step of one pixel costs SDD {1 - overlap['sdd_sum', 1].value:.2f}. At a whole cell ({stride} pixels) "
        f"the grid fits again. There SDD has {in_text(overlap['sdd_sum', stride])}, the disc "
        f"{overlap['disc', stride].value:.2f}. SDD's overlap there less that at half a cell, paired, is "
        f"{in_text(again)}. {fits_again} The decision itself, at {half} pixels: the calibrated margin changes by "
        f"{in_text(decision[half]['log_odds'], 1)}, the probability by {in_text(decision[half]['points'], 1)} points, "
        f"and {in_text(decision[half]['changed'], 0, factor=100, unit=' %')} of the pictures get another name."
    )


def agreed(agreement: pd.DataFrame, column: str) -> Estimate:
    """Mean of a column of one method's similarities, all `against` one thing, with an interval over people.

    Within a network the interval is over networks too. Pairs of networks share members, so that they are no draws: an
    agreement between networks has an interval over people alone, with these networks given.
    """
    within = (agreement["against"] != BETWEEN).all()
    return mean_interval(agreement[column], agreement["family"], agreement["network"] if within else None)


def less_same_person(agreement: pd.DataFrame) -> Estimate:
    """Overlap of a method's maps between networks less that with another picture of the person, within a network.

    `agreement` has the method's similarities: `overlap`, `network`, `family`, and `against`, which says what is held to
    each map, in the same order of pictures. The interval is over people alone, as in `agreed`.
    """
    sides = (BETWEEN, "same person")
    between, within = (agreement[agreement["against"] == one].reset_index(drop=True) for one in sides)
    return agreed(between.assign(overlap=between["overlap"] - within["overlap"]), "overlap")


def seed_findings(seeds: Seeds, between: Estimate, titles: Mapping[str, str]) -> str:
    """What to notice of another seed: `between` is `less_same_person` of SDD."""
    overlap = {(name, other): found for (name, other, measure), found in seeds.items() if measure == "overlap"}
    best = max((name for name, other in overlap if other == BETWEEN), key=lambda name: overlap[name, BETWEEN].value)
    words = (
        "So the picture says more about the map than the seed does.",
        "So a second training changes the map of a picture more than a second picture of the person does. The map is "
        "as much about this network as about this face.",
        "These data cannot tell which of the two changes the map more.",
    )
    return (
        f"On two networks of one recipe, SDD's regions overlap by {in_text(overlap['sdd_sum', BETWEEN])}, "
        f"CAM's by {in_text(overlap['cam', BETWEEN])}. The overlap is largest for {titles[best]} "
        f"({in_text(overlap[best, BETWEEN])}). Within one network, SDD's regions on two pictures of the same "
        f"person overlap by {in_text(overlap['sdd_sum', 'same person'])}, on two people by "
        f"{in_text(overlap['sdd_sum', 'another person'])}. SDD's overlap between networks less that between two "
        f"pictures of the person, paired, is {in_text(between)}, for these networks. {verdict(between, words)}"
    )

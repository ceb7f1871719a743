"""Chapter 9: how far a map follows a face that moves, and how far the networks of one recipe agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from torch import Tensor

from xfrlib.intervals import Interval, bootstrap_interval, crossed_interval
from xfrlib.plots import percent
from xfrlib.prediction import margin
from xfrlib.tables import in_text, verdict

TOLD_APART = ("higher", "lower", "not told apart")
Moved = Mapping[tuple[str, int], Mapping[str, Interval]]  # by method and pixels: similarity with the unmoved picture's
Seeds = Mapping[tuple[str, str, str], Interval]  # by method, what a map is held to, and measure


def shifted_back(maps: Tensor, moved: Tensor, shift: tuple[int, int], *, margin: int = 0) -> tuple[Tensor, Tensor]:
    """The part of the face that both maps show: maps (B, H, W) of the pictures and of the translated ones.

    Returns two times ``(B, H - |down| - 2 margin, W - |right| - 2 margin)``, pixel by pixel of the same place.
    A `margin` of half a cell leaves out where the upsampling of a coarse map has no neighbour to look at.
    """
    own, theirs = maps, moved
    for axis, step in zip((-2, -1), shift, strict=True):
        length = maps.shape[axis] - abs(step) - 2 * margin
        if length < 1:
            raise ValueError(f"shift = {shift} and margin = {margin} leave nothing of {tuple(maps.shape[-2:])}")
        own = own.narrow(axis, max(0, -step) + margin, length)
        theirs = theirs.narrow(axis, max(0, step) + margin, length)
    return own, theirs


def decisions(
    before: Tensor,
    after: Sequence[tuple[int, Tensor]],
    classes: Tensor,
    labels: Sequence[int],
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
    classes, labels
        (n,) the class explained, and the person shown.
    temperature : float
        Of the network.

    Returns
    -------
    pandas.DataFrame
        `pixels`, `label`, and the changes of the class's calibrated log-odds against its best rival (`log_odds`) and of
        its probability in `points`; `changed`, 1 where another class now leads.
    """

    def odds(logits: Tensor) -> tuple[Tensor, Tensor]:
        z = logits / temperature
        return margin(z, classes).float(), z.softmax(dim=1).gather(1, classes[:, None])[:, 0]

    lead, sure = odds(before)
    tables = []
    for pixels, logits in after:
        leads, probability = odds(logits)
        tables.append(
            pd.DataFrame({
                "pixels": pixels,
                "label": labels,
                "log_odds": (leads - lead).double().numpy(),
                "points": 100 * (probability - sure).double().numpy(),
                "changed": (leads <= 0).double().numpy(),
            })
        )  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def over_people(table: pd.DataFrame, columns: Sequence[str], **resampling: Any) -> dict[str, Interval]:
    """Means of columns with intervals over the people in `label`."""
    return {column: bootstrap_interval(table[column], table["label"], **resampling) for column in columns}


def paired(table: pd.DataFrame, method: str, other: str, **resampling: Any) -> Interval:
    """Overlap of one method less that of another, which has rows of the same pictures in the same order."""
    own, theirs = (table[table["method"] == name].reset_index(drop=True) for name in (method, other))
    return bootstrap_interval(own["overlap"] - theirs["overlap"], own["label"], **resampling)


def moved_findings(
    at: Moved,
    against_disc: Mapping[str, Interval],
    decision: Mapping[int, Mapping[str, Interval]],
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
        Means of `decisions`, by pixels.
    stride : int
        Pixels to a cell.
    """
    half = stride // 2
    overlap = {key: found["overlap"] for key, found in at.items()}
    sdd, grid, disc = overlap["sdd_sum", half], overlap["the grid alone", half].value, overlap["disc", half].value
    if overlap["sdd_sum", stride].value - sdd.value > 0.02:
        fits_again = "more than at half a cell, so that part of the loss is the sampling of the grid."
    else:
        fits_again = (
            f"no more than at half a cell. The grid alone would cost {1 - grid:.2f} of the {1 - sdd.value:.2f} that is "
            "lost at half a cell. The rest is what the network does with a face in another place, or the padding; this "
            "check does not tell them apart."
        )
    said = {name: verdict(against_disc[name], TOLD_APART) for name in ("sdd_sum", "cam")}
    return (
        f"A step of {half} pixels, half a cell, leaves SDD's top region an overlap of {in_text(sdd)} with itself, "
        f"CAM's {in_text(overlap['cam', half])}, where the grid alone would leave {grid:.2f}, and a disc that does not "
        f"follow the face {disc:.2f}. Against that disc SDD's overlap is {said['sdd_sum']}, CAM's {said['cam']}. A "
        f"step of one pixel costs SDD {1 - overlap['sdd_sum', 1].value:.2f}. At a whole cell ({stride} pixels), where "
        f"the grid fits again, SDD has {in_text(overlap['sdd_sum', stride])}, the disc "
        f"{overlap['disc', stride].value:.2f}: {fits_again} The decision moves too: at {half} pixels the calibrated "
        f"log-odds change by {in_text(decision[half]['log_odds'], 1)} and the probability by "
        f"{in_text(decision[half]['points'], 1)} points, and {percent(decision[half]['changed'].value)} of the "
        "pictures get another name."
    )


def over_networks(table: pd.DataFrame, column: str, **resampling: Any) -> Interval:
    """Mean of a column with an interval over people, and over networks where there are several."""
    return crossed_interval(table[column], table["label"], table["network"], **resampling)


def less_same_person(agreement: pd.DataFrame, **resampling: Any) -> Interval:
    """Overlap of a method's maps between networks less that with another picture of the person, within a network.

    `agreement` has the method's similarities: `overlap`, `network`, `label`, and `against`, which says what is held to
    each map, in the same order of pictures.
    """
    sides = ("another network", "same person")
    between, within = (agreement[agreement["against"] == one].reset_index(drop=True) for one in sides)
    return over_networks(between.assign(overlap=between["overlap"] - within["overlap"]), "overlap", **resampling)


def seed_findings(seeds: Seeds, between: Interval, titles: Mapping[str, str]) -> str:
    """What to notice of another seed: `between` is `less_same_person` of SDD."""
    overlap = {(name, other): found for (name, other, measure), found in seeds.items() if measure == "overlap"}
    best = max((name for name, other in overlap if other == "another network"),
               key=lambda name: overlap[name, "another network"].value)  # fmt: skip
    words = (
        "So the picture says more about the map than the seed does.",
        "So a second training changes the map of a picture more than a second picture of the person does: the map is "
        "as much about this network as about this face.",
        "Which of the two changes the map more cannot be told here.",
    )
    return (
        f"Two networks of one recipe agree about SDD's top region to {in_text(overlap['sdd_sum', 'another network'])}, "
        f"about CAM's to {in_text(overlap['cam', 'another network'])}; most about that of {titles[best]} "
        f"({in_text(overlap[best, 'another network'])}). Within one network, SDD's regions on two pictures of the same "
        f"person overlap by {in_text(overlap['sdd_sum', 'same person'])}, on two persons by "
        f"{in_text(overlap['sdd_sum', 'another person'])}. SDD's overlap between networks less that between two "
        f"pictures of the person, paired, is {in_text(between)}. {verdict(between, words)}"
    )

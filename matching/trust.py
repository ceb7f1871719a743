"""How far a map may be trusted on one pair: is its region worth more than a disc, and does it rank cells rightly?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from matching.face_parts import Score
from matching.maps import MatchMaps
from xfrlib.controls import disc
from xfrlib.geometry import Geometry
from xfrlib.judge import fill_picture, perturbed
from xfrlib.regions import pixel_count, top_fraction_mask

FILL, FRACTION = "grey", 0.2  # of what is covered, and of the picture
LEAST_SIMILARITY = 0.005  # similarity; what is less is 0.00 for a reader, and no gain
LEAST_RANK, MOST_SHIFTS = 0.2, 0.1  # of rank correlation; share of moved copies of the map that may do as well


@dataclass(frozen=True)
class Trust:
    """What was measured of a map; similarities, or leads over the non-mates where there are any."""

    score: float  #: of the unchanged picture
    deleted: tuple[float, float]  #: what deleting the region takes of the score, and what deleting the disc takes
    kept: tuple[float, float]  #: what is left of the score where only the region is kept, and only the disc
    rank: float  #: Spearman's correlation of the map's cells with what covering each takes, in [-1, 1]
    by_chance: float  #: share of the circularly moved copies of the map that agree as well
    passes: int
    show: bool
    reason: str  #: a sentence


@torch.no_grad()
def judge(score: Score, image: Tensor, maps: MatchMaps, cells: Tensor) -> Trust:
    """Judge a map of a picture (3, H, W) by `score`, whose last column is what the map explains.

    `cells` (h, w) are those of the map. Deletion and retention of the top 20 % of `MatchMaps.log_sdd` are
    compared with a centred disc of the same size; then each cell is covered by itself. What covers is grey, which
    no map and no table of parts has seen. Costs 5 passes and one for each cell.
    """
    region = top_fraction_mask(maps.log_sdd[None], FRACTION)
    size = (image.shape[1], image.shape[2])
    centre = torch.from_numpy(disc(pixel_count(FRACTION, size), size))[None]
    masks = torch.cat([region, centre, ~region, ~centre])
    pictures = perturbed(image.expand(4, -1, -1, -1), masks, FILL)
    whole, *changed = score(torch.cat([image[None], pictures]))[:, -1].double().tolist()
    squares = cell_squares(maps.geometry, (cells.shape[0], cells.shape[1]), size)
    filling = fill_picture(image[None], FILL)
    parts = [perturbed(image.expand(len(part), -1, -1, -1), part, filling) for part in squares.split(16)]
    effects = whole - torch.cat([score(part)[:, -1] for part in parts]).double().view(cells.shape)
    rank, by_chance = rank_agreement(cells, effects)
    deleted, kept = (whole - changed[0], whole - changed[1]), (changed[2], changed[3])
    show, reason = trust_verdict(deleted, kept, rank, by_chance)
    return Trust(whole, deleted, kept, rank, by_chance, 5 + len(squares), show, reason)


def trust_verdict(
    deleted: tuple[float, float], kept: tuple[float, float], rank: float, by_chance: float
) -> tuple[bool, str]:
    """Whether a map should be shown, and why: see `Trust`."""
    better = [first - second >= LEAST_SIMILARITY for first, second in (deleted, kept)]
    faults = []
    if not all(better):
        measures = (
            "in neither of two measures" if not any(better) else f"only when {'deleted' if better[0] else 'kept'}"
        )
        faults.append(f"its top {100 * FRACTION:.0f}\u00a0% beat a centred disc {measures}")
    if not (rank >= LEAST_RANK and by_chance <= MOST_SHIFTS):
        chance = (
            f"and {100 * by_chance:.0f}\u00a0% of moved copies agree as well"
            if rank >= LEAST_RANK
            else "which is little"
        )
        faults.append(f"its rank correlation with the truth per cell is {rank:.2f}, {chance}")
    if faults:
        return False, f"Do not rely on this map: {'; '.join(faults)}."
    return True, (
        f"This map passes: its top {100 * FRACTION:.0f}\u00a0% beat a centred disc both when deleted and when kept, "
        f"and its rank correlation with the truth per cell is {rank:.2f}."
    )


def cell_squares(geometry: Geometry, cells: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The square of a stride around the place where each cell looks, cut off at the border: bool (h * w, H, W)."""
    sides = []
    for centres, stride, pixels in zip(geometry.centres(cells), geometry.stride, size, strict=True):
        first = (centres - stride / 2).round()[:, None]
        sides.append((torch.arange(pixels) >= first) & (torch.arange(pixels) < first + stride))
    return (sides[0][:, None, :, None] & sides[1][None, :, None, :]).flatten(0, 1)


def rank_agreement(cells: Tensor, effects: Tensor) -> tuple[float, float]:
    """Spearman's correlation of two maps (h, w), and the share of the first's circular shifts that reach it.

    Neighbouring cells are alike, so that a table of significance would promise too much; a moved copy is as smooth.
    (0, 1) where a map is flat.
    """
    values, truth = (one.double().numpy() for one in (cells, effects))
    if np.ptp(values) == 0 or np.ptp(truth) == 0:
        return 0.0, 1.0
    moves = [(down, right) for down in range(values.shape[0]) for right in range(values.shape[1])]
    moved = [stats.spearmanr(np.roll(values, move, (0, 1)).ravel(), truth.ravel()).statistic for move in moves]
    return float(moved[0]), float(np.mean(np.array(moved[1:]) >= moved[0]))

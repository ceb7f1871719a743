"""Shapley values of the parts of a picture: exact, by a pass for each set of parts."""

from __future__ import annotations

from math import factorial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from matching.face_parts import Score
from xfrlib.judge import fill_picture, perturbed


@torch.no_grad()
def covered_scores(score: Score, image: Tensor, masks: Tensor, *, fill: str = "blur", batch_size: int = 16) -> Tensor:
    """The scores of a picture (3, H, W) with each set of its P parts shown and the others covered: (2^P, S) float64.

    Bit i of a row's number says that part i is shown. What is no part is always shown. Costs 2^P passes.
    """
    filling, found = fill_picture(image[None], fill), []
    shown = (torch.arange(2 ** len(masks))[:, None] >> torch.arange(len(masks))) & 1
    for rows in shown.split(batch_size):
        covered = torch.einsum("np,phw->nhw", (1 - rows).float(), masks.float()) > 0
        found.append(score(perturbed(image.expand(len(rows), -1, -1, -1), covered, filling)))
    return torch.cat(found).double()


def shapley(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shapley's (1953) value of each of P players in a game of all its 2^P coalitions: (2^P, ...) -> (P, ...).

    Bit i of a row's number says that player i takes part. A player's value is what it adds, on average over all orders
    in which they may come; the values add up to the last row less the first. Raises `ValueError` for another number of
    rows.
    """
    rows, players = np.arange(len(values)), len(values).bit_length() - 1
    if len(values) != 2**players:
        raise ValueError(f"{len(values)} values: a game of P players has 2^P of them")
    size = np.array([number.bit_count() for number in rows.tolist()])
    found = []
    for player in range(players):
        without = rows[(rows >> player) & 1 == 0]
        orders = [factorial(s) * factorial(players - 1 - s) / factorial(players) for s in size[without].tolist()]
        found.append(np.tensordot(orders, values[without | (1 << player)] - values[without], axes=1))
    return np.stack(found)

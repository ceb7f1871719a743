"""What each named part of a face is worth to a similarity: exact Shapley values over eight parts."""

from __future__ import annotations

from collections.abc import Callable
from math import factorial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facedata.align import TEMPLATE, similarity_transform
from xfrlib.judge import fill_picture

PARTS = ("eyebrows", "eyes", "nose", "mouth", "cheeks", "chin", "forehead", "ears")
Score = Callable[[Tensor], Tensor]  # pictures (n, 3, H, W) -> scores (n, S)


def part_masks(template: NDArray[np.float64], size: int) -> Tensor:
    """The pixels of each of `PARTS`, which do not overlap: bool (8, size, size).

    They are simple shapes around the places of eyes, nose and mouth in an aligned picture, in which these lie at
    `template` (5, 2). Eyes, nose and mouth were found in the picture; where the other parts end is the shapes' alone.
    Hair, neck and what is behind the face are no part.
    """
    rows, columns = np.mgrid[:size, :size].reshape(2, -1)
    matrix = similarity_transform(template)  # to ArcFace's 112x112, in whose pixels all that follows is
    x, y = (np.column_stack([columns, rows]) @ matrix[:, :2].T + matrix[:, 2]).T.reshape(2, size, size)
    side = np.abs(x - TEMPLATE[:2, 0].mean())

    def ellipse(across: float, down: float, half_width: float, half_height: float) -> NDArray[np.bool_]:
        return ((side - across) / half_width) ** 2 + ((y - down) / half_height) ** 2 <= 1

    head = np.where(y < 56, ellipse(0, 56, 41, 48), ellipse(0, 56, 41, 62))
    shapes = {  # each takes what the ones before it left
        "eyes": ellipse(17.6, 51.6, 11.5, 7),
        "eyebrows": ellipse(18.5, 41, 15, 7.5),
        "nose": (y >= 46) & (y <= 81) & (side <= 4.5 + 0.27 * (y - 46)),
        "mouth": ellipse(0, 92.3, 21, 10),
        "forehead": head & (y < 46),
        "chin": head & (y > 92.3) & (side < 27),
        "cheeks": head,
        "ears": (side >= 36) & (side <= 55) & (y >= 42) & (y <= 80),
    }
    free, masks = np.ones((size, size), bool), {}
    for name, shape in shapes.items():
        masks[name] = shape & free
        free &= ~shape
    return torch.from_numpy(np.stack([masks[name] for name in PARTS]))


@torch.no_grad()
def covered_scores(score: Score, image: Tensor, masks: Tensor, *, fill: str = "blur", batch_size: int = 32) -> Tensor:
    """The scores of a picture (3, H, W) with each set of its P parts shown and the others covered: (2^P, S) float64.

    Bit i of a row's number says that part i is shown. What is no part is always shown. Costs 2^P passes.
    """
    filling, image, found = fill_picture(image[None], fill), image[None], []
    shown = (torch.arange(2 ** len(masks))[:, None] >> torch.arange(len(masks))) & 1
    for rows in shown.split(batch_size):
        covered = torch.einsum("np,phw->nhw", (1 - rows).float(), masks.float()) > 0
        found.append(score(torch.where(covered[:, None], filling, image)))
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

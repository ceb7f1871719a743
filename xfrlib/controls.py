"""Controls: regions of as many pixels as that of a map, which know less than it does."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfrlib.geometry import upsampled
from xfrlib.profile import did_you_mean
from xfrlib.regions import Mask, pixel_count, top_fraction_mask


def disc(count: int, size: tuple[int, int]) -> Mask:
    """The `count` pixels nearest to the middle of a picture of `size` (H, W): bool (H, W)."""
    y, x = np.ogrid[: size[0], : size[1]]
    distance = (y - (size[0] - 1) / 2) ** 2 + (x - (size[1] - 1) / 2) ** 2
    return (distance.ravel().argsort(kind="stable").argsort() < count).reshape(size)


class Draw(NamedTuple):
    """What one draw of a control may look at: it hangs on seed, control, draw and picture alone, not on the batch."""

    rng: np.random.Generator  #: of this draw and this picture alone
    picture: int  #: its place in the whole set
    pixels: int  #: how many are wanted
    own: Mask  #: (n, H, W), the regions of the map under test for the whole set
    labels: NDArray[np.int64]  #: (n,), the identities of the whole set

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the pictures."""
        return self.own.shape[1], self.own.shape[2]


class Control(NamedTuple):
    """A control: what a reader calls it, how a draw (H, W) bool is made, and whether all draws are one."""

    title: str
    mask: Callable[[Draw], Mask]
    fixed: bool = False


def random_map(draw: Draw, grid: tuple[int, int] = (7, 7)) -> Mask:
    """The top of a random `grid` of normal numbers, drawn as tiles: our reading of the paper's "random CAM"."""
    noise = torch.from_numpy(draw.rng.standard_normal((1, *grid), dtype=np.float32))
    return top_fraction_mask(upsampled(noise, draw.size), draw.pixels / (draw.size[0] * draw.size[1]))[0].numpy()


def scattered(draw: Draw) -> Mask:
    """Single pixels drawn without replacement."""
    places = np.arange(draw.size[0] * draw.size[1]).reshape(draw.size)
    return np.isin(places, draw.rng.choice(places.size, draw.pixels, replace=False))


def box(draw: Draw) -> Mask:
    """A square at a random place, and the rest of the pixels in the column beside it (2 509: 50 x 50 and 9)."""
    height, width = draw.size
    side = min(int(draw.pixels**0.5), height)
    columns = -(-draw.pixels // side)
    if columns > width:
        raise ValueError(f"a box of {draw.pixels} pixels does not fit into {height} x {width}")
    top, left = draw.rng.integers(height - side + 1), draw.rng.integers(width - columns + 1)
    mask = np.zeros(draw.size, dtype=bool)
    filled = np.arange(side * columns) < draw.pixels
    mask[top : top + side, left : left + columns] = filled.reshape(columns, side).T
    return mask


def shifted(draw: Draw) -> Mask:
    """The picture's own region, moved circularly by a quarter to three quarters of each side."""
    shift = [int(draw.rng.integers(-(-side // 4), 3 * side // 4 + 1)) for side in draw.size]
    return np.roll(draw.own[draw.picture], shift, axis=(0, 1))


def another_picture(draw: Draw, same: bool) -> Mask:
    """The region of another picture: of the same identity, or of another one."""
    others = np.setdiff1d(np.flatnonzero((draw.labels == draw.labels[draw.picture]) == same), draw.picture)
    if not len(others):
        lacks = (
            f"picture {draw.picture} is the only one of its identity" if same else "every picture is of one identity"
        )
        raise ValueError(f"{lacks}: there is no other map to compare with")
    return draw.own[draw.rng.choice(others)]


# A new control is a function above and a line here: evaluation and tables take it up by themselves.
CONTROLS = {
    "random_map": Control("random map", random_map),
    "scattered": Control("scattered pixels", scattered),
    "box": Control("one box", box),
    "shifted": Control("own map, shifted", shifted),
    "same_identity": Control("another picture's map, same person", partial(another_picture, same=True)),
    "other_identity": Control("another person's map", partial(another_picture, same=False)),
    "disc": Control("centred disc", lambda draw: disc(draw.pixels, draw.size), fixed=True),
}


def control_masks(
    name: str, draw: int, indices: list[int], *, own: Mask, labels: NDArray[np.int64], fraction: float, seed: int
) -> Tensor:
    """Masks of draw number `draw` of one of `CONTROLS`, for the pictures at `indices`: (len(indices), H, W) bool.

    `own` and `labels` are those of `Draw`.
    """
    if name not in CONTROLS:
        raise ValueError(f"unknown control {name!r}{did_you_mean(name, list(CONTROLS))}")
    count = pixel_count(fraction, (own.shape[1], own.shape[2]))
    seeds = [[seed, zlib.crc32(name.encode()), draw, index] for index in indices]
    draws = (Draw(np.random.default_rng(s), i, count, own, labels) for s, i in zip(seeds, indices, strict=True))
    return torch.from_numpy(np.stack([CONTROLS[name].mask(one) for one in draws]))

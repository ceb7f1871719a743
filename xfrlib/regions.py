"""Which pixels are looked at: the top fraction of a map, and the controls of as many pixels beside it.

Every draw of a control is a function of (seed, control, draw, index of the picture) alone, so that the batch size, the
order and a resumed run do not change it."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


def pixel_count(fraction: float, size: tuple[int, int]) -> int:
    """Number of pixels in `fraction` of a picture of `size` (H, W): round(fraction * H * W)."""
    if not 0 < fraction < 1:
        raise ValueError(f"fraction = {fraction!r}: must lie between 0 and 1, both excluded")
    return round(fraction * size[0] * size[1])


def top_fraction_mask(maps: Tensor, fraction: float = 0.2) -> Tensor:
    """The `fraction` of pixels with the highest values, counted, not thresholded.

    A threshold at the percentile would remove everything or almost nothing where many values are equal. Equal values
    are taken in reading order (top row first, left to right).

    Parameters
    ----------
    maps : (B, H, W) float, any scale; only the order matters.
    fraction : float between 0 and 1.

    Returns
    -------
    (B, H, W) bool, exactly round(fraction * H * W) True in each picture.

    Raises
    ------
    ValueError
        If `maps` has another shape or a NaN (naming the sample), or `fraction` is out of range.
    """
    if maps.ndim != 3:
        raise ValueError(f"expected maps (B, H, W), got {tuple(maps.shape)}")
    bad = maps.isnan().flatten(1).any(1)
    if bad.any():
        raise ValueError(f"sample {int(bad.nonzero()[0])} of the batch has NaN in its map, so its pixels have no order")
    count = pixel_count(fraction, (maps.shape[1], maps.shape[2]))
    order = maps.flatten(1).argsort(dim=1, descending=True, stable=True)
    mask = torch.zeros(order.shape, dtype=torch.bool, device=maps.device)
    return mask.scatter_(1, order[:, :count], True).view(maps.shape)


Mask = NDArray[np.bool_]


def scattered(rng: np.random.Generator, count: int, size: tuple[int, int]) -> Mask:
    """`count` single pixels drawn without replacement."""
    mask = np.zeros(size[0] * size[1], dtype=bool)
    mask[rng.choice(mask.size, count, replace=False)] = True
    return mask.reshape(size)


def box(rng: np.random.Generator, count: int, size: tuple[int, int]) -> Mask:
    """A square at a random place, and what is left of `count` in the column beside it (2 509: 50 x 50 and 9)."""
    side = min(int(count**0.5), size[0])
    columns = -(-count // side)
    if columns > size[1]:
        raise ValueError(f"a box of {count} pixels does not fit into {size[0]} x {size[1]}")
    top, left = rng.integers(size[0] - side + 1), rng.integers(size[1] - columns + 1)
    mask = np.zeros(size, dtype=bool)
    mask[top : top + side, left : left + columns] = (np.arange(side * columns) < count).reshape(columns, side).T
    return mask


def random_map(rng: np.random.Generator, count: int, size: tuple[int, int], grid: tuple[int, int] = (7, 7)) -> Mask:
    """The top of a random `grid` of normal numbers upsampled as a CAM is: our reading of the paper's "random CAM"."""
    noise = torch.from_numpy(rng.standard_normal((1, 1, *grid), dtype=np.float32))
    upsampled = F.interpolate(noise, size=size, mode="bilinear", align_corners=False)[0]
    return top_fraction_mask(upsampled, count / (size[0] * size[1]))[0].numpy()


def disc(count: int, size: tuple[int, int]) -> Mask:
    """The `count` pixels nearest to the middle of the picture."""
    y, x = np.ogrid[: size[0], : size[1]]
    distance = (y - (size[0] - 1) / 2) ** 2 + (x - (size[1] - 1) / 2) ** 2
    mask = np.zeros(distance.size, dtype=bool)
    mask[distance.ravel().argsort(kind="stable")[:count]] = True
    return mask.reshape(size)


def shifted(rng: np.random.Generator, own: Mask) -> Mask:
    """The picture's own region, moved circularly by a quarter to three quarters of each side."""
    shift = [int(rng.integers(-(-side // 4), 3 * side // 4 + 1)) for side in own.shape]
    return np.roll(own, shift, axis=(0, 1))


def other_identity(rng: np.random.Generator, index: int, masks: Mask, labels: NDArray[np.int64]) -> Mask:
    """The region of a picture of another identity: masks (n, H, W), labels (n,) of the whole set."""
    others = np.flatnonzero(labels != labels[index])
    if not len(others):
        raise ValueError("every picture is of one identity: there is no map of another identity to compare with")
    return masks[rng.choice(others)]


def same_identity(rng: np.random.Generator, index: int, masks: Mask, labels: NDArray[np.int64]) -> Mask:
    """The region of another picture of the same identity: masks (n, H, W), labels (n,) of the whole set."""
    others = np.flatnonzero(labels == labels[index])
    others = others[others != index]
    if not len(others):
        raise ValueError(f"picture {index} is the only one of its identity: there is no other map of it")
    return masks[rng.choice(others)]


RANDOM: dict[str, Callable[[np.random.Generator, int, tuple[int, int]], Mask]] = {
    "scattered": scattered,
    "box": box,
    "random_map": random_map,
}


CONTROLS = (*RANDOM, "shifted", "same_identity", "other_identity", "disc")


def control_masks(
    name: str, draw: int, indices: list[int], *, own: Mask, labels: NDArray[np.int64], fraction: float, seed: int
) -> Tensor:
    """Masks of one draw of one control for the pictures `indices`: bool (len(indices), H, W).

    `own` (n, H, W) holds the regions of the map under test for the whole set, `labels` (n,) its identities.
    """
    size = (own.shape[1], own.shape[2])
    count = pixel_count(fraction, size)
    masks = []
    for index in indices:
        rng = np.random.default_rng([seed, zlib.crc32(name.encode()), draw, index])
        if name in RANDOM:
            masks.append(RANDOM[name](rng, count, size))
        elif name == "shifted":
            masks.append(shifted(rng, own[index]))
        elif name == "other_identity":
            masks.append(other_identity(rng, index, own, labels))
        elif name == "same_identity":
            masks.append(same_identity(rng, index, own, labels))
        elif name == "disc":
            masks.append(disc(count, size))
        else:
            raise ValueError(f"unknown control {name!r}; known: {', '.join(CONTROLS)}")
    return torch.from_numpy(np.stack(masks))


class Ellipse(NamedTuple):
    """An upright ellipse: its height over its width, and how far its middle lies below and right of the picture's, in
    shares of the sides."""

    aspect: float = 1.0
    down: float = 0.0
    right: float = 0.0


def ellipse(count: int, size: tuple[int, int], shape: Ellipse = Ellipse()) -> Mask:  # noqa: B008 - it cannot change
    """The `count` pixels of a picture of `size` (H, W) that an ellipse of that shape reaches first: bool (H, W).

    `Ellipse()` is the centred disc (`xfrlib.regions.disc`). An ellipse that the border cuts is larger, so
    that the number of pixels stays `count`. Raises `ValueError` for an aspect or a count that cannot be.
    """
    if not 0 < shape.aspect < float("inf"):
        raise ValueError(f"aspect = {shape.aspect!r}: must be a positive number, the height over the width")
    if not 0 < count < size[0] * size[1]:
        raise ValueError(f"count = {count!r}: a picture of {size[0]} x {size[1]} has 1 to {size[0] * size[1] - 1}")
    y, x = np.ogrid[: size[0], : size[1]]
    below = y - (size[0] - 1) / 2 - shape.down * size[0]
    beside = x - (size[1] - 1) / 2 - shape.right * size[1]
    distance = below**2 / shape.aspect + beside**2 * shape.aspect
    mask = np.zeros(distance.size, dtype=bool)
    mask[distance.ravel().argsort(kind="stable")[:count]] = True
    return mask.reshape(size)

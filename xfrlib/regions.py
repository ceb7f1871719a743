"""Which pixels are looked at: the top fraction of a map."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfrlib.checks import is_number, need_none, need_tensor

Mask = NDArray[np.bool_]


def pixel_count(fraction: float, size: tuple[int, int]) -> int:
    """Number of pixels in `fraction` of a picture of `size` (H, W): round(fraction * H * W)."""
    if not (is_number(fraction) and 0 < fraction < 1):
        raise ValueError(f"fraction = {fraction!r}: must lie between 0 and 1, both excluded")
    return round(fraction * size[0] * size[1])


def top_fraction_mask(maps: Tensor, fraction: float = 0.2) -> Tensor:
    """The `fraction` of pixels with the highest values, counted, not thresholded: (B, H, W) -> bool (B, H, W).

    Exactly round(fraction * H * W) are True in each picture. A threshold at the percentile would remove everything or
    almost nothing where many values are equal; these are taken in reading order (top row first, left to right). A map
    from 0 up that ends inside the fraction warns: exact zeros, of an SDD map that underflowed or of a rectified map,
    have no order. Raises `ValueError` for another shape, a NaN (naming the sample) and a fraction out of range.
    """
    need_tensor("maps", maps, "(B, H, W)")
    if maps.ndim != 3 or 0 in maps.shape[1:]:
        raise ValueError(f"expected maps (B, H, W), got {tuple(maps.shape)}")
    need_none(maps.isnan().flatten(1).any(1), "sample {} of the batch has NaN in its map, so its pixels have no order")
    count = pixel_count(fraction, (maps.shape[1], maps.shape[2]))
    order = maps.flatten(1).argsort(dim=1, descending=True, stable=True)
    high, last, low = maps.flatten(1).gather(1, order[:, [0, max(count - 1, 0), -1]]).T
    if bool(((high > 0) & (last == 0) & (low == 0)).any()):
        said = "fewer pixels than the fraction are above 0, and zeros have no order: rank an SDD map by log_sdd"
        warnings.warn(said, stacklevel=2)
    mask = torch.zeros(order.shape, dtype=torch.bool, device=maps.device)
    return mask.scatter_(1, order[:, :count], True).view(maps.shape)

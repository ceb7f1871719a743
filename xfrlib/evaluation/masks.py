"""From a map to the pixels it ranks highest."""

from __future__ import annotations

import torch
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

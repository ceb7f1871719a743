"""From a map to the pixels it ranks highest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
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


def clones(regions: Sequence[Mapping[str, NDArray[np.bool_]]], *, least: float = 0.999) -> dict[str, str]:
    """Maps whose regions are those of an earlier map, whatever their name: {clone: the first map like it}.

    Two maps are alike if, on every network, their regions share at least `least` of their pixels over all pictures:
    rounding moves a pixel at the edge of a region now and then, another method moves many.

    Parameters
    ----------
    regions : for each network, name -> masks (n, H, W) bool; the same names in the same order, all of one number of
        pixels.
    least : share of the pixels, above 0 and at most 1.
    """

    def alike(a: str, b: str) -> bool:
        return all((one[a] & one[b]).sum() >= least * one[a].sum() for one in regions)

    found: dict[str, str] = {}
    originals: list[str] = []
    for name in regions[0]:
        like = next((other for other in originals if alike(other, name)), None)
        if like is None:
            originals.append(name)
        else:
            found[name] = like
    return found

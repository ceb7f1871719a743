"""Where a map lies on its picture, and pictures that are moved."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

PADDINGS = {"reflect": "reflect", "edge": "replicate"}


def upsampled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (h, w), (B, h, w) or (B, K, h, w) laid over a picture of `size` (H, W), which takes the place of (h, w).

    Bilinear, with ``align_corners=False``.
    """
    batch = maps if maps.ndim == 4 else maps.unsqueeze(-3)
    batch = batch if batch.ndim == 4 else batch[None]
    return F.interpolate(batch, size=size, mode="bilinear", align_corners=False).reshape(*maps.shape[:-2], *size)


def translated(images: Tensor, shift: tuple[int, int], *, padding: str = "reflect") -> Tensor:
    """Move pictures by whole pixels; what comes into view is padded.

    Parameters
    ----------
    images : Tensor
        (B, C, H, W).
    shift : tuple of int
        (down, right) in pixels.
    padding : {"reflect", "edge"}
        The picture mirrored at its border, or its border repeated.

    Raises
    ------
    ValueError
        For an unknown padding, or a shift of the size of the picture.
    """
    if padding not in PADDINGS:
        raise ValueError(f"padding = {padding!r}: use one of {', '.join(PADDINGS)}")
    height, width = images.shape[-2:]
    reach = max(abs(step) for step in shift)
    if reach >= min(height, width):
        raise ValueError(f"shift = {shift}: must be less than the picture, {height} x {width}")
    wide = F.pad(images, (reach,) * 4, mode=PADDINGS[padding])
    top, left = reach - shift[0], reach - shift[1]
    return wide[..., top : top + height, left : left + width]

"""Where a map lies on its picture, and pictures that are moved."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

PADDINGS = {"reflect": "reflect", "edge": "replicate"}


# --- the picture's place


def translated(images: Tensor, shift: tuple[int, int], *, padding: str = "reflect") -> Tensor:
    """Move pictures (B, C, H, W) by `shift` (down, right) pixels; what comes into view is padded.

    padding: "reflect", the picture mirrored at its border, or "edge", its border repeated.
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

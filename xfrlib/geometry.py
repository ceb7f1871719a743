"""Where a map lies on its picture."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def upsampled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (h, w), (B, h, w) or (B, K, h, w) laid over a picture of `size` (H, W), which takes the place of (h, w).

    Bilinear, with ``align_corners=False``.
    """
    batch = maps if maps.ndim == 4 else maps.unsqueeze(-3)
    batch = batch if batch.ndim == 4 else batch[None]
    return F.interpolate(batch, size=size, mode="bilinear", align_corners=False).reshape(*maps.shape[:-2], *size)

"""What a classifier says of many pictures, and how often it is right."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from xfrlib.models.classifier import FaceClassifier


@torch.no_grad()
def all_logits(model: FaceClassifier, images: Tensor, batch_size: int = 64) -> Tensor:
    """Logits (n, N) on the CPU of pictures (n, 3, H, W) in [0, 1]."""
    device = next(model.parameters()).device
    return torch.cat([model(batch.to(device)).cpu() for batch in images.split(batch_size)])


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share in [0, 1] of rows of logits (n, N) whose largest entry is the label's, labels (n,)."""
    return float((logits.argmax(1) == labels).double().mean())


@torch.no_grad()  # not inference_mode: a caller may put the logits into a loss, as calibration does
def predict(model: nn.Module, loader: Iterable[Any], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Logits (n, N) float32 and labels (n,) of all pictures of a loader, on the CPU, in the loader's order.

    The loader yields (images (B, 3, H, W) RGB in [0, 1], labels (B,), ...). The model computes in evaluation mode
    and in float32; its mode is put back.
    """
    was_training = model.training
    model.eval()
    try:
        pairs = [(model(batch[0].to(device)).float().cpu(), batch[1].cpu()) for batch in loader]
    finally:
        model.train(was_training)
    if not pairs:
        raise ValueError("The loader is empty: there is no picture to predict.")
    return torch.cat([logits for logits, _ in pairs]), torch.cat([labels for _, labels in pairs])

"""What a classifier says of many pictures: logits, accuracy, margin, log-odds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

_TURN = RLock()  # modes and hooks belong to a network, or to a part that two networks share, not to a thread


def as_floats(images: Tensor) -> Tensor:
    """Pictures in [0, 1]: float ones as they are, uint8 ones divided by 255."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, one thread at a time; afterwards each module is in the mode that it was in."""
    with _TURN:
        modes = {module: module.training for module in model.modules() if hasattr(module, "training")}
        try:
            if any(modes.values()):  # else there is nothing to do, and each module costs
                try:
                    model.eval()
                except NotImplementedError as error:
                    raise ValueError("an exported program has no evaluation mode: give its original module") from error
            yield
        finally:
            for module in (module for module, mode in modes.items() if module.training != mode):
                module.training = not module.training


@torch.no_grad()  # not inference_mode: a caller may put the logits into a loss, as calibration does
def predict(model: nn.Module, loader: Iterable[Any], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Logits (n, N) float32 and labels (n,), on the CPU, of all pictures of a loader, in its order.

    The loader yields (images (B, 3, H, W) RGB in [0, 1], labels (B,), ...). `model`, on `device`, is `in_evaluation`.
    """
    with in_evaluation(model):
        pairs = [(model(batch[0].to(device)).float().cpu(), batch[1].cpu()) for batch in loader]
    if not pairs:
        raise ValueError("The loader is empty: there is no picture to predict.")
    return torch.cat([logits for logits, _ in pairs]), torch.cat([labels for _, labels in pairs])


def all_logits(model: nn.Module, images: Tensor, batch_size: int = 64, *, progress: bool = False) -> Tensor:
    """Logits (n, N) float32 on the CPU of pictures (n, 3, H, W), uint8 or float in [0, 1]."""
    parts = tqdm(images.split(batch_size), "logits", unit="batch", mininterval=1, leave=False, disable=not progress)
    batches = ((as_floats(batch), torch.empty(0)) for batch in parts)
    return predict(model, batches, next(model.parameters()).device)[0]


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share in [0, 1] of rows of logits (n, N) whose largest entry is the label's, labels (n,)."""
    return float((logits.argmax(1) == labels).cpu().double().mean())


def margin(logits: Tensor, classes: Tensor) -> Tensor:
    """Logit of each picture's class less that of its best rival: (n, N), (n,) -> (n,) float64."""
    logits, own = logits.double(), classes[:, None]
    return logits.gather(1, own)[:, 0] - logits.scatter(1, own, -torch.inf).amax(dim=1)


def log_odds(logits: Tensor, pairs: Tensor) -> Tensor:
    """log(p_t / p_c) of each rival c, z_t - z_c: (n, N), integers (n, K), the target t first -> (n, K - 1) float64."""
    found = logits.double().gather(1, pairs)
    return found[:, :1] - found[:, 1:]

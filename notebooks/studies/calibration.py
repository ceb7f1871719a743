"""Chapter 2: does a probability mean what it says?"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def expected_calibration_error(probabilities: Tensor, right: Tensor, *, bins: int = 10) -> float:
    """How far confidence and accuracy lie apart, in [0, 1].

    Pictures are put into `bins` of equal width by their probability; the distances of mean probability and accuracy are
    averaged with the numbers of pictures as weights (Guo et al. 2017, equation 3).

    Parameters
    ----------
    probabilities : Tensor
        (n,) of the predicted classes, in [0, 1].
    right : Tensor
        (n,) bool, whether they were right.
    bins : int
        How many.
    """
    place = (probabilities * bins).long().clamp(max=bins - 1)
    gap = torch.zeros(bins, dtype=torch.float64)
    gap.index_add_(0, place, probabilities.double() - right.double())
    return float(gap.abs().sum() / len(probabilities))


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T for which softmax(z / T) has the lowest cross-entropy: logits (n, N), labels (n,) of held-out pictures.

    Temperature scaling (Guo et al., "On calibration of modern neural networks", ICML 2017). A network that is right on
    every held-out picture would get T = 0 and be sure of everything; as in Platt's scaling the targets are therefore
    not 1 but (n + 1) / (n + 2), the rest spread over all classes (Platt 1999, section 2.2).
    """
    from scipy.optimize import minimize_scalar

    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        got = f"{tuple(logits.shape)}, {tuple(labels.shape)}"
        raise ValueError(f"expected logits (n, N) and labels (n,), n of at least 1, got {got}")
    z, smoothing = logits.cpu().double(), 1 / (len(labels) + 2)

    def loss(log_temperature: float) -> float:
        scaled = z / math.exp(log_temperature)
        return float(F.cross_entropy(scaled, labels.cpu().long(), label_smoothing=smoothing))

    return math.exp(minimize_scalar(loss, bounds=(math.log(0.01), math.log(100)), method="bounded").x)

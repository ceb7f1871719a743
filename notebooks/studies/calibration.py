"""Chapter 2: does a probability mean what it says?"""

from __future__ import annotations

import torch
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

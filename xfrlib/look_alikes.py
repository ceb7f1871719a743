"""Which people look most like one another to a network: those whose mean embeddings point the same way."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def embeddings(features: Tensor) -> Tensor:
    """The average of feature maps (B, C, h, w) over positions, scaled to length 1: (B, C)."""
    return F.normalize(features.mean(dim=(2, 3)), dim=1)


def look_alikes(embeddings: Tensor, labels: Sequence[int], target: int) -> list[int]:
    """The people of `labels` but `target`, those most like `target` first: by the cosine of mean embeddings.

    Embeddings are (n, C), each of length 1; a negative label is nobody of interest. The mean over people is subtracted
    first. Rows of the output weight would not do instead: training turns those of look-alikes away from each other.
    """
    own = torch.as_tensor(labels)
    people = own[own >= 0].unique()
    means = torch.stack([embeddings[own == label].mean(dim=0) for label in people])
    means = F.normalize(means - means.mean(dim=0), dim=1)
    order = (means @ means[people == target][0]).argsort(descending=True, stable=True)
    return [label for label in people[order].tolist() if label != target]

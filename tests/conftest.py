"""What several tests share: a small classifier with an exact map, and pictures for it."""

import pytest
import torch
from torch import nn


class TinyBackbone(nn.Module):
    """Two convolutions with PReLU: (B, 3, H, W) -> (B, 6, H/4, W/4)."""

    out_channels = 6
    name = "tiny"

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.PReLU(), nn.Conv2d(5, 6, 3, stride=2, padding=1), nn.PReLU()
        )

    def forward(self, images):
        return self.layers(images)


@pytest.fixture
def classifier():
    from xfrlib import FaceClassifier

    with torch.random.fork_rng():
        torch.manual_seed(3)
        backbone = TinyBackbone()
    model = FaceClassifier(backbone, 7, seed=1)
    model.head.weight.data *= 6  # decisions that are not all alike
    return model.eval()


@pytest.fixture
def images():
    return torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))

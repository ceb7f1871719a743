"""The identity classifier whose class activation maps are exact: feature map, average pooling, one linear layer."""

from typing import cast

import torch
from torch import Tensor, nn

from xfrlib.models.backbone import Backbone
from xfrlib.models.weights import seeded


class FaceClassifier(nn.Module):
    """Backbone map, global average pooling, one linear layer with bias (Zhou et al. 2016, CVPR, section 2).

    The head is drawn from ``seed``. What the backbone has for embeddings only takes no part in the logits; its
    parameters are frozen here, so that no optimiser changes them and no distributed run waits for their gradients.
    """

    def __init__(self, backbone: nn.Module, num_classes: int, *, seed: int = 0) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes is {num_classes}; a classifier needs at least 2 identities.")
        self.backbone = backbone
        with seeded(seed):
            self.head = nn.Linear(cast(int, backbone.out_channels), num_classes)
        if isinstance(backbone, Backbone):
            for name in backbone.embedding_layers:
                layer = getattr(backbone, name)
                if layer is not None:
                    layer.requires_grad_(False)

    @property
    def weight(self) -> Tensor:
        """Weights of the linear layer, (N, C)."""
        return self.head.weight

    @property
    def bias(self) -> Tensor:
        """Biases of the linear layer, (N,)."""
        return self.head.bias

    @property
    def num_classes(self) -> int:
        """Number of identities N."""
        return self.head.out_features

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] -> last convolutional map (B, C, h, w)."""
        return self.backbone(images)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] -> logits (B, N)."""
        return self.head(torch.mean(self.features(images), dim=(2, 3)))

"""The identity classifier whose class activation maps are exact, and its file: weights, backbone and identities."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from xfrlib.models.backbones import Backbone
from xfrlib.models.checkpoints import load_backbone
from xfrlib.models.weights import load_tensors, read_safetensors, save_weights, seeded


class FaceClassifier(nn.Module):
    """Backbone map, global average pooling, one linear layer with bias (Zhou et al. 2016, CVPR, section 2).

    The backbone is any module with a map of ``out_channels`` channels; the head is drawn from ``seed``. What a backbone
    has for embeddings only is frozen here: no optimiser changes it, no distributed run waits for its gradients.
    """

    def __init__(self, backbone: nn.Module, num_classes: int, *, seed: int = 0) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes is {num_classes}; a classifier needs at least 2 identities.")
        self.backbone, self.num_classes = backbone, num_classes
        with seeded(seed):
            self.head = nn.Linear(cast(int, backbone.out_channels), num_classes)
        for name in getattr(backbone, "embedding_layers", ()):
            getattr(backbone, name).requires_grad_(False)

    @property
    def weight(self) -> Tensor:
        """Weights of the linear layer, (N, C)."""
        return self.head.weight

    @property
    def bias(self) -> Tensor:
        """Biases of the linear layer, (N,)."""
        return self.head.bias

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] -> last convolutional map (B, C, h, w)."""
        return self.backbone(images)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] -> logits (B, N)."""
        pooled = torch.mean(self.features(images), dim=(2, 3))
        if (channels := pooled.shape[1]) != self.head.in_features:
            wanted = f"the head takes {self.head.in_features}"
            raise ValueError(f"The backbone's map has {channels} channels, {wanted}: set out_channels of the backbone.")
        return self.head(pooled)


def save_classifier(path: Path, model: FaceClassifier, identities: Sequence[str]) -> str:
    """Write `model` with the names of its classes, in order of their index; returns the file's SHA-256."""
    if len(identities) != model.num_classes:
        raise ValueError(f"{len(identities)} names for {model.num_classes} classes")
    backbone = cast(Backbone, model.backbone)
    names = {"backbone": backbone.name, "identities": json.dumps(list(identities))}
    return save_weights(model, path, {**names, **backbone.input_metadata()})


def load_classifier(path: Path) -> FaceClassifier:
    """Read what `save_classifier` wrote, input and origin of the backbone too; ValueError for a file without names."""
    tensors, metadata = read_safetensors(path)
    if not {"backbone", "identities"} <= metadata.keys():
        raise ValueError(f"{path} is no classifier of this package: it does not name its backbone and its identities")
    backbone = load_backbone(metadata["backbone"])
    backbone.set_input(metadata, path)
    model = FaceClassifier(backbone, len(json.loads(metadata["identities"])))
    load_tensors(model, tensors, source=path, mend=lambda _: "Choose the model it was made for.")
    return model.eval()

"""A fine-tuned classifier as one file: its weights, the name of its backbone and the identities that it knows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from safetensors import safe_open

from xfrlib.models import load_backbone
from xfrlib.models.classifier import FaceClassifier
from xfrlib.models.weights import load_weights, save_weights


def save_classifier(path: str | Path, model: FaceClassifier, identities: Sequence[str]) -> str:
    """Write `model` with the names of its classes, in order of their index; returns the file's SHA-256."""
    if len(identities) != model.num_classes:
        raise ValueError(f"{len(identities)} names for {model.num_classes} classes")
    return save_weights(model, path, {"backbone": str(model.backbone.name), "identities": json.dumps(list(identities))})


def load_classifier(path: str | Path) -> FaceClassifier:
    """Read what `save_classifier` wrote. Raises `ValueError` for a file without its names."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    if not {"backbone", "identities"} <= metadata.keys():
        raise ValueError(f"{path} is no classifier of this package: it does not name its backbone and its identities")
    model = FaceClassifier(load_backbone(metadata["backbone"]), len(json.loads(metadata["identities"])))
    load_weights(model, path)
    return model.eval()

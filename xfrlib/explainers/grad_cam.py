"""Explainers of grad-cam on the last feature map."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from xfrlib.explainers.job import Job, explained_output, library_module
from xfrlib.models.classifier import FaceClassifier
from xfrlib.profile import did_you_mean

FINER_WEIGHTS = ("fixed", "differentiated", "equal")


class _LastMap(nn.Module):
    """The classifier with its last map as a layer of its own, where the graph begins.

    grad-cam's hooks go to that layer, so none touches the network, and its backward pass ends there: a Grad-CAM of the
    last map costs one forward pass through the backbone and none backward.
    """

    def __init__(self, model: FaceClassifier) -> None:
        super().__init__()
        self.model, self.last_map = model, nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.model.features(images)
        return self.model.head(self.last_map(features.requires_grad_()).mean(dim=(2, 3)))


def _grad_cam(job: Job, method: str, targets: list[Callable[[Tensor], Tensor]], rectify: bool) -> Tensor:
    """A method of grad-cam on the last map, without the rectifying and the scaling to [0, 1] that the library adds."""
    library = library_module("pytorch_grad_cam")

    class Signed(getattr(library, "GradCAM" if method == "FinerCAM" else method)):  # type: ignore[misc]
        def compute_cam_per_layer(self, images: Tensor, targets: Any, eigen_smooth: bool) -> Any:
            kept = self.activations_and_grads
            gradients = kept.gradients[0].numpy() if self.uses_gradients else None
            layer = self.target_layers[0]
            return self.get_cam_image(images, layer, targets, kept.activations[0].numpy(), gradients, eigen_smooth)

        def aggregate_multi_layers(self, maps: Any) -> Any:
            return maps

    network = _LastMap(job.model)
    layers = [network.last_map]
    finer = library.FinerCAM(network, layers, base_method=Signed) if method == "FinerCAM" else None
    base = finer.base_cam if finer else Signed(network, layers)
    base.batch_size = job.batch_size
    try:  # not "with": grad-cam's exit swallows every IndexError
        maps = torch.from_numpy((finer or base)(job.images, targets))
    finally:
        base.activations_and_grads.release()
    return job.upsampled(maps.clamp(min=0) if rectify else maps)


def _targets(job: Job, output: str) -> list[Callable[[Tensor], Tensor]]:
    def target_of(row: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda logits: explained_output(logits[None], row[None], output)[0]

    return [target_of(row) for row in job.classes]


def grad_cam_explainer(method: str) -> Callable[..., Tensor]:
    def make(job: Job, *, output: str = "centred_logit", rectify: bool = False) -> Tensor:
        return _grad_cam(job, method, _targets(job, output), rectify)

    return make


def score_cam(job: Job, *, output: str = "centred_logit", rectify: bool = False) -> Tensor:
    module = library_module("pytorch_grad_cam.score_cam")
    bars, module.tqdm = module.tqdm, SimpleNamespace(tqdm=iter)  # a bar for every picture, with no switch
    try:
        return _grad_cam(job, "ScoreCAM", _targets(job, output), rectify)
    finally:
        module.tqdm = bars


def finer_cam(
    job: Job, *, alpha: float = 1.0, weights: str = "fixed", centre: bool = True, rectify: bool = False
) -> Tensor:
    """Grad-CAM of the mean over rivals of (target's logit - alpha rival's logit), weighted by their probabilities.

    weights: "fixed" holds the weights constant; "differentiated" is grad-cam's `FinerWeightedTarget`, whose gradient
    also runs through the softmax of the weights, so that a rival of less probability may be added and not subtracted;
    "equal" is the plain mean. With one rival and a pooled head all three are (CAM_t - alpha CAM_c) / (h w), which
    with alpha = 1 is the exponent of SDD with s = 1.
    """
    if weights not in FINER_WEIGHTS:
        raise ValueError(f"weights = {weights!r}{did_you_mean(weights, list(FINER_WEIGHTS))}")
    finer = library_module("pytorch_grad_cam.utils.model_targets").FinerWeightedTarget

    def target_of(row: list[int]) -> Callable[[Tensor], Tensor]:
        def target(logits: Tensor) -> Tensor:
            logits = logits - logits.mean() if centre else logits
            if weights == "differentiated":
                return finer(row[0], row[1:], alpha)(logits)
            rivals = logits[row[1:]]
            shares = torch.softmax(rivals.detach() * (weights == "fixed"), dim=0)
            return logits[row[0]] - alpha * (shares * rivals).sum()

        return target

    return _grad_cam(job, "FinerCAM", [target_of(row) for row in job.classes.tolist()], rectify)

"""Class activation maps (Zhou et al., CVPR 2016) and the check that a network can have them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from xfrlib.geometry import Geometry, map_geometry
from xfrlib.prediction import in_evaluation


def class_activation_maps(features: Tensor, weight: Tensor, classes: Tensor) -> Tensor:
    r"""Signed class activation maps of several classes from one feature map, in one contraction.

    .. math:: M_c(x, y) = \sum_k W_{ck} f_k(x, y)

    so that the mean of :math:`M_c` over positions is the logit of class c less its bias
    (Zhou et al., "Learning deep features for discriminative localization", CVPR 2016, eq. 2).

    Parameters
    ----------
    features : Tensor
        (B, C, h, w) float, the last convolutional map, input of the global average pooling.
    weight : Tensor
        (N, C) float, of the linear layer after the pooling, as given: nothing is centred, rectified or normalised.
    classes : Tensor
        (B, K) integers, 0 to N - 1, the classes wanted for each picture.

    Returns
    -------
    Tensor
        (B, K, h, w) float, in units of the logit.
    """
    if features.ndim != 4 or weight.ndim != 2 or classes.ndim != 2:
        raise ValueError(
            "expected features (B, C, h, w), weight (N, C), classes (B, K); got "
            f"{tuple(features.shape)}, {tuple(weight.shape)}, {tuple(classes.shape)}"
        )
    if features.shape[1] != weight.shape[1] or features.shape[0] != classes.shape[0]:
        raise ValueError(
            f"sizes disagree: features {tuple(features.shape)}, weight {tuple(weight.shape)}, "
            f"classes {tuple(classes.shape)}"
        )
    if classes.numel() and (int(classes.min()) < 0 or int(classes.max()) >= weight.shape[0]):
        raise ValueError(
            f"classes must lie in 0 to {weight.shape[0] - 1}, got {int(classes.min())} to {int(classes.max())}"
        )
    return torch.einsum("bkc,bchw->bkhw", weight[classes], features)


def centred(weight: Tensor) -> Tensor:
    """Output weights (N, C) less their mean over classes: no probability changes, and maps become comparable."""
    return weight - weight.mean(dim=0)


@dataclass(frozen=True)
class PooledFeatures:
    """What a network that ends in average pooling and one linear layer yields in one forward pass."""

    features: Tensor  #: (B, C, h, w)
    logits: Tensor  #: (B, N)
    weight: Tensor  #: (N, C)
    geometry: Geometry  #: where the cells of `features` look on the picture

    def maps(self, classes: Tensor, *, centre: bool = True) -> Tensor:
        """`class_activation_maps` of `classes` (B, K), of centred weights unless `centre` is False: (B, K, h, w)."""
        return class_activation_maps(self.features, centred(self.weight) if centre else self.weight, classes)


@torch.no_grad()
def pooled_features(model: nn.Module, images: Tensor) -> PooledFeatures:
    """Feature map, logits and output weights of any network that ends in global average pooling and one linear layer.

    The network runs once, in evaluation mode; its modes and hooks are put back even if it fails. The map is found by
    what it does, not by its name: it is the last 4-dimensional output of a module whose mean over positions equals the
    input of the last linear layer.

    `images` is (B, 3, H, W), as `model` expects them.

    Raises
    ------
    ValueError
        If `model` has no linear layer at its end, or no map whose average is that layer's input. The message says
        which of the two is missing. Also for a NaN or infinite value in the map, naming the sample.
    """
    linear = next((m for m in reversed(list(model.modules())) if isinstance(m, nn.Linear)), None)
    if linear is None:
        raise ValueError(
            f"{type(model).__name__} has no linear layer: a CAM needs average pooling and one linear layer at the end"
        )
    logits, pooled, maps = _passed(model, linear, images)
    if pooled is None or logits.ndim != 2 or logits.shape[1] != linear.out_features:
        raise ValueError(
            f"the last linear layer of {type(model).__name__} does not give its logits: "
            "a CAM needs it to be the last step"
        )
    bad = ~torch.isfinite(pooled).flatten(1).all(dim=1)
    if bad.any():
        samples = ", ".join(map(str, bad.nonzero().flatten().tolist()[:5]))
        raise ValueError(
            f"sample {samples} of the batch has a NaN or infinite value in its feature map: "
            "pictures must be finite, in [0, 1], and so must the weights"
        )
    for last in range(len(maps) - 1, -1, -1):
        means = maps[last].mean(dim=(2, 3))
        least = 1e-4 * float(means.abs().max())
        if means.shape == pooled.shape and torch.allclose(means, pooled, rtol=1e-3, atol=least):
            break
    else:
        raise ValueError(
            f"{type(model).__name__} does not feed the global average of a convolutional map to its last linear layer "
            f"(input {tuple(pooled.shape)}): replace its head by average pooling "
            "and one linear layer, e.g. xfrlib.FaceClassifier"
        )
    geometry = map_geometry(model, images, lambda pictures: _passed(model, linear, pictures)[2][last])
    return PooledFeatures(maps[last], logits, linear.weight, geometry)


def _passed(model: nn.Module, linear: nn.Linear, images: Tensor) -> tuple[Any, Tensor | None, list[Tensor]]:
    """One pass: what `model` returns, what last went into `linear`, and the maps that have its channels, in order."""
    pooled: list[Tensor] = []
    maps: list[Tensor] = []

    def keep_input(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        pooled.append(inputs[0])

    def keep_map(_: nn.Module, __: object, output: Any) -> None:
        is_map = isinstance(output, Tensor) and output.ndim == 4 and output[0, 0].numel() > 1
        if is_map and output.shape[1] == linear.in_features:
            maps.append(output)

    handles = [linear.register_forward_pre_hook(keep_input)]
    handles += [module.register_forward_hook(keep_map) for module in model.modules()]
    try:
        with in_evaluation(model):
            return model(images), pooled[-1] if pooled else None, maps
    finally:
        for handle in handles:
            handle.remove()

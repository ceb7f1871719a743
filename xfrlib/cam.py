"""Class activation maps (Zhou et al., CVPR 2016) and the check that a network can have them."""

from __future__ import annotations

import sys
from collections import deque
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from xfrlib.checks import answer, need_classes, need_finite, need_logits, need_network, need_pictures, need_tensor
from xfrlib.geometry import Geometry, map_geometry
from xfrlib.prediction import in_evaluation


def class_activation_maps(features: Tensor, weight: Tensor, classes: Tensor) -> Tensor:
    r"""Signed class activation maps of several classes from one feature map: (B, K, h, w), in units of the logit.

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
    """
    need_tensor("features", features, "(B, C, h, w)")
    need_tensor("weight", weight, "(N, C)")
    need_tensor("classes", classes, "(B, K)")
    if features.dtype != weight.dtype or not weight.is_floating_point():
        raise ValueError(f"features and weight must be floats of one kind, got {features.dtype} and {weight.dtype}")
    axes = (features.ndim, weight.ndim, classes.ndim)
    if axes != (4, 2, 2) or features.shape[1] != weight.shape[1] or len(features) != len(classes):
        shapes = ", ".join(str(tuple(given.shape)) for given in (features, weight, classes))
        raise ValueError(f"expected features (B, C, h, w), weight (N, C), classes (B, K); got {shapes}")
    maps = torch.einsum("bkc,bchw->bkhw", weight[need_classes("classes", classes, len(weight))], features)
    need_finite(maps, "its maps: features and weight must be finite, and half precision must not overflow")
    return maps


def centred(weight: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
    """Output weights (N, C), or `rows` of them, less the mean of all: no probability changes, maps are comparable."""
    return weight[rows] - weight.mean(dim=0)


@dataclass(frozen=True)
class PooledFeatures:
    """What a network that ends in average pooling and one linear layer yields in one forward pass."""

    features: Tensor  #: (B, C, h, w)
    logits: Tensor  #: (B, N)
    weight: Tensor  #: (N, C)
    geometry: Geometry  #: where the cells of `features` look on the picture

    def maps(self, classes: Tensor, *, centre: bool = True) -> Tensor:
        """`class_activation_maps` of `classes` (B, K), of centred weights unless `centre` is False: (B, K, h, w)."""
        # Only the rows wanted: a centred copy of a head of many classes costs more than the pass.
        rows, at = need_classes("classes", torch.as_tensor(classes), len(self.weight)).unique(return_inverse=True)
        with torch.autocast(self.features.device.type, enabled=False):  # it would round the maps
            return class_activation_maps(self.features, centred(self.weight, rows) if centre else self.weight[rows], at)


@torch.no_grad()
def pooled_features(model: nn.Module, images: Tensor) -> PooledFeatures:
    """Feature map, logits and output weights of any network that ends in global average pooling and one linear layer.

    Both are found by what they do. The layer, linear or a 1 x 1 convolution, is the last one called whose output is
    that of the network, but for a shift of a whole row, as log_softmax makes it. The map is the last one before it
    whose mean over positions is the layer's input; what goes into a pooling comes first. The network runs once on
    `images` (B, 3, H, W), uncompiled and in evaluation mode; its modes are put back even if it fails. Threads take
    turns. What it computed in half precision is float32 from here on. `ValueError` says what was found where the
    network ends in another way, and names a sample with a NaN or infinite value.
    """
    need_pictures(images)
    watched = _Watch(model, images, _STEPS.pop(need_network(model), None))
    try:
        layer = _head(images, watched)
        pooling, step = _pooled_map(images, watched, layer)
    except ValueError:
        if watched.only:  # it ends otherwise than the last time: now all is kept
            return pooled_features(model, images)
        raise
    _STEPS[model], last = {layer.step, step}, watched.steps[step:]
    way = [(pooling, step), *(way for way in watched.ways if way[0] <= step)]
    geometry = map_geometry(model, images, lambda pictures: _Watch(model, pictures).map(pooling, last), way)
    features, weight = (_wide(part).to(watched.output.device) for part in (watched.map(pooling, last), layer.weight))
    return PooledFeatures(features, _wide(watched.output), weight, geometry)


_KEPT = 16  # maps of each kind: the last ones of a network are small
_STEPS: WeakKeyDictionary[nn.Module, set[int]] = WeakKeyDictionary()  # layer and map of a network, kept alone next time
_POOLING = ("mean", "adaptive_avg_pool2d", "avg_pool2d")


class _Layer(NamedTuple):
    """A linear layer that was called: its place among the steps, input (B, C), weight (N, C), output (B, N)."""

    step: int
    pooled: Tensor
    weight: Tensor
    output: Tensor


class _Watch(TorchFunctionMode):
    """What a network does on `images`: the functions that it calls in this thread; of steps `only`, layers and maps."""

    def __init__(self, model: nn.Module, images: Tensor, only: set[int] | None = None) -> None:
        super().__init__()
        self.model, self.only, self.name = model, only, type(getattr(model, "_orig_mod", model)).__name__
        self.steps, self.ways, self.layers = list[str](), list[tuple[int, str]](), list[_Layer]()
        # What came out of functions, and what went into poolings, with the step; of each the last.
        self.maps = tuple(deque[tuple[int, Tensor]](maxlen=_KEPT) for _ in range(2))
        # If nothing was compiled yet, the compiler need not be loaded to keep it away.
        eager = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
        with in_evaluation(model), eager, self:
            self.output = answer(model, images)

    def map(self, pooling: int, last: list[str]) -> Tensor:
        """What came out of (0) or went into (1) the first of the `last` steps; the way to it may differ."""
        if self.steps[-len(last) :] != last:
            raise ValueError(f"{self.name} takes other steps when it is called again: let it do the same each time")
        return dict(self.maps[pooling])[len(self.steps) - len(last)]

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        source, weight, *_ = given = [*args, *(kwargs or {}).values(), None, None]
        name, step = getattr(function, "__name__", "").split(".")[0].strip("_"), len(self.steps)
        seen = isinstance(source, Tensor) and isinstance(result, Tensor | tuple) and name != "get"
        self.steps += [name] * seen
        if seen and source.ndim == 4 and name not in ("view", "reshape"):  # it may say where the cells of a map look
            self.ways.append((step, f"{name} {[getattr(one, 'shape', (0, one))[1:] for one in given]}"))
        if not (seen and isinstance(result, Tensor)) or (self.only and step not in self.only):
            return result
        plain = isinstance(weight, Tensor) and source.is_floating_point()  # nothing quantised
        pointwise = plain and name == "conv2d" and weight.shape[1:] == (source.shape[1], 1, 1)
        if (pointwise and source.shape[2:] == result.shape[2:]) or (plain and name == "linear" and result.ndim == 2):
            # Copies, as what follows may write into the output.
            ends = [(part.mean(dim=(2, 3)) if part.ndim == 4 else part).clone() for part in (source, result)]
            self.layers.append(_Layer(step, ends[0], weight.flatten(1), ends[1]))
        if source.ndim == 4 and source.is_floating_point() and (pointwise or name in _POOLING):
            self.maps[1].append((step, source))
        if result.ndim == 4 and result.is_floating_point() and result.shape[2:].numel() > 1:
            self.maps[0].append((step, result))
        return result


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _need_seen(watched: _Watch) -> None:
    """Name, by a `ValueError`, the first part of a network in which no layer is seen, if there is one."""
    for name, part in watched.model.named_modules(prefix=watched.name):
        kinds = {"TorchScript": isinstance(part, torch.jit.ScriptModule), "quantised": hasattr(part, "_packed_params")}
        kinds["in DataParallel"] = isinstance(part, nn.DataParallel) and not watched.layers  # it has threads of its own
        for kind in (kind for kind, is_so in kinds.items() if is_so):
            raise ValueError(f"{name} is {kind}, where no layer is seen: explain what it was made from")


def _head(images: Tensor, watched: _Watch) -> _Layer:
    """The layer whose output is that of the network, or a `ValueError` that says what there is in its place."""
    need_logits(output := watched.output, images)
    for layer in reversed(watched.layers):
        if layer.output.shape == output.shape and _same_but_for_shifts(layer.output, output):
            return layer
    _need_seen(watched)
    wide = [layer for layer in watched.layers if layer.output.shape[1] == output.shape[1]]
    if whole := [layer for layer in wide if len(layer.output) == len(images)]:
        steps = ", ".join(watched.steps[whole[-1].step + 1 :][:5]) or "outside torch"
        found = f"changes the output of its last linear layer ({steps}): let it return that output itself"
    elif wide:
        found = f"gives its linear layer {len(wide[-1].output)} of {len(images)} pictures: explain the network inside"
    elif watched.layers:
        found = "does not return the output of its last linear layer: a CAM needs it to be the last step"
    else:
        found = "has no linear layer: a CAM needs average pooling and one linear layer at the end"
    raise ValueError(f"{watched.name} {found}")


def _pooled_map(images: Tensor, watched: _Watch, layer: _Layer) -> tuple[int, int]:
    """Which map of `watched` has the layer's input as its mean; a `ValueError` if none has."""
    pooled, small = layer.pooled, False
    for pooling in (1, 0):
        for step, found in reversed(watched.maps[pooling]):
            means = _wide(found).mean(dim=(2, 3)).to(pooled.device)
            if step > layer.step or means.shape != pooled.shape:
                continue
            close = max(1e-3, *(2 * torch.finfo(part.dtype).eps for part in (pooled, found)))
            if torch.allclose(means, _wide(pooled), rtol=close, atol=close / 10 * float(means.abs().max())):
                if found.shape[2:].numel() > 1:
                    return pooling, step
                small = True
    if small:
        size = " x ".join(map(str, images.shape[2:]))
        raise ValueError(f"the last map of {watched.name} is 1 x 1 for pictures of {size}: give larger ones")
    _need_seen(watched)
    fault = "does not feed the global average of a convolutional map to its last linear layer"
    mend = "replace its head by average pooling and one linear layer, e.g. xfrlib.FaceClassifier"
    raise ValueError(f"{watched.name} {fault} (input {tuple(pooled.shape)}): {mend}")


def _same_but_for_shifts(first: Tensor, second: Tensor) -> bool:
    """Whether the rows of both (B, N) are equal but for a constant a row, within the rounding of their precision."""
    rounding = max(torch.finfo(part.dtype).eps * float(part.abs().max()) for part in (first, second))
    ours, theirs = (_wide(part) - _wide(part).mean(dim=1, keepdim=True) for part in (first, second))
    return float((ours - theirs).abs().max()) <= 1e-4 * float(ours.abs().max()) + rounding

"""Class activation maps with smaller cells than the last map has, from a network that is not trained anew."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.module import register_module_forward_hook

from xfrlib.cam import centred, class_activation_maps
from xfrlib.explainers.job import Job
from xfrlib.explainers.registry import explainer
from xfrlib.geometry import translated
from xfrlib.models.classifier import FaceClassifier
from xfrlib.sdd import DEFAULT, Divergence, scaled_directed_divergence


@torch.no_grad()
def blocks_with_cells(model: FaceClassifier, images: Tensor, cells: int) -> list[str]:
    """Names of the backbone's blocks whose output for `images` (B, 3, H, W) has `cells` cells a side, in their order.

    A block is a module two levels below the classifier, ``backbone.<stage>.<number>``.
    """
    names = {module: name for name, module in model.named_modules() if name.count(".") == 2}
    found: list[str] = []

    def note(module: torch.nn.Module, _: object, output: Tensor) -> None:
        if module in names and output.ndim == 4 and output.shape[-1] == cells:
            found.append(names[module])

    with register_module_forward_hook(note):
        model(images)
    return found


def layer_activation_maps(model: FaceClassifier, images: Tensor, classes: Tensor, layer: str) -> Tensor:
    r"""Signed maps of several classes from any layer: the gradient of each logit times the layer's output.

    .. math:: M_c(x, y) = h w \sum_k \frac{\partial z_c}{\partial a_k(x, y)} \, a_k(x, y)

    after LayerCAM (Jiang et al., IEEE TIP 30, 2021) without its rectifications, in units of the logit: at the last map
    it is `class_activation_maps`. Logits are taken less their mean over all classes, as with centred weights. One
    forward pass, and K backward passes that end at the layer.

    Parameters
    ----------
    model : FaceClassifier
        In evaluation mode.
    images : Tensor
        (B, 3, H, W) float, RGB in [0, 1], on the device of `model`.
    classes : Tensor
        (B, K) integers, the classes wanted for each picture.
    layer : str
        Name of a module of `model`; its output is (B, C, h, w).

    Returns
    -------
    Tensor
        (B, K, h, w) float.

    Raises
    ------
    ValueError
        For a layer that there is not.
    """
    module = dict(model.named_modules()).get(layer)
    if module is None:
        raise ValueError(f"layer = {layer!r}: the classifier has no such module; blocks_with_cells lists blocks")
    kept: list[Tensor] = []

    def begin_here(_: object, __: object, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[-1]

    with module.register_forward_hook(begin_here), torch.enable_grad():
        logits = model(images)
        wanted = (logits - logits.mean(dim=1, keepdim=True)).gather(1, classes).sum(dim=0)
        slopes = [torch.autograd.grad(own, kept[-1], retain_graph=True)[0] for own in wanted]
    output = kept[-1].detach()
    maps = torch.stack([(slope * output).sum(dim=1) for slope in slopes], dim=1)
    return maps * output.shape[2] * output.shape[3]


@torch.no_grad()
def stitched_activation_maps(model: FaceClassifier, images: Tensor, classes: Tensor) -> Tensor:
    """Class activation maps with cells of half the size, from four moved copies of each picture ("shift and stitch").

    The picture is moved by a quarter of a cell down or up, and right or left (Long et al., CVPR 2015, section 3.2). The
    middles of the cells of the four maps are then those of a grid twice as fine, and each map fills every other row and
    column of it. What comes into view is mirrored. Costs four passes.

    Parameters
    ----------
    model : FaceClassifier
        In evaluation mode; its last map has cells of a multiple of 4 pixels.
    images : Tensor
        (B, 3, H, W) float, RGB in [0, 1], on the device of `model`.
    classes : Tensor
        (B, K) integers, the classes wanted for each picture, as with centred weights.

    Returns
    -------
    Tensor
        (B, K, 2 h, 2 w) float, in units of the logit.

    Raises
    ------
    ValueError
        If a quarter of a cell is no whole number of pixels.
    """
    height, width = model.features(images[:1]).shape[2:]
    quarter, left = divmod(images.shape[2], 4 * height)
    if left:
        raise ValueError(
            f"{images.shape[2]} pixels in {height} cells: a quarter of a cell is no whole number of pixels"
        )
    weight = centred(model.weight)
    fine = weight.new_empty(*classes.shape, 2 * height, 2 * width)
    for row, down in enumerate((quarter, -quarter)):
        for column, right in enumerate((quarter, -quarter)):
            features = model.features(translated(images, (down, right)))
            fine[..., row::2, column::2] = class_activation_maps(features, weight, classes)
    return fine


_FINER: dict[str, Any] = {"contrastive": True, "logarithm": True, "compared": False}


@explainer("SDD of an earlier layer", "after Jiang et al. 2021, IEEE TIP 30", "xfrlib", **_FINER)
def sdd_earlier_layer(job: Job, *, layer: str = "backbone", divergence: Divergence = DEFAULT) -> Tensor:
    """`layer`: one of `blocks_with_cells`; "backbone" is the last map, so that this is `sdd_sum`."""
    maps = layer_activation_maps(job.model, job.images, job.classes, layer)
    return scaled_directed_divergence(maps, divergence, size=job.size, log=True)


@explainer("SDD, stitched", "after Long et al. 2015, CVPR", "xfrlib", passes=(4, 0), **_FINER)
def sdd_stitched(job: Job, *, divergence: Divergence = DEFAULT) -> Tensor:
    maps = stitched_activation_maps(job.model, job.images, job.classes)
    return scaled_directed_divergence(maps, divergence, size=job.size, log=True)

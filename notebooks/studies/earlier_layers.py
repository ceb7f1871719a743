"""Chapters 8 and 10: class activation maps of an earlier layer, with smaller cells than the last map has."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.modules.module import register_module_forward_hook

from xfrlib.geometry import Geometry, cell_geometry
from xfrlib.models.classifier import FaceClassifier


def layer_geometry(model: FaceClassifier, images: Tensor, layer: str) -> Geometry:
    """Where the cells of the output of the module named `layer` look on pictures of the size of `images`."""
    kept: list[Tensor] = []

    def output_of(pictures: Tensor) -> Tensor:
        with _named(model, layer).register_forward_hook(lambda _, __, output: kept.append(output)):
            model(pictures)
        return kept[-1]

    return cell_geometry(output_of, images)


def _named(model: FaceClassifier, layer: str) -> torch.nn.Module:
    module = dict(model.named_modules()).get(layer)
    if module is None:
        raise ValueError(f"layer = {layer!r}: the classifier has no such module; blocks_with_cells lists blocks")
    return module


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
        Name of a module of `model`; its output is (B, C, h, w), and so the maps are (B, K, h, w).
    """
    module = _named(model, layer)
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

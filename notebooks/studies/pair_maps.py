"""Chapter 8: maps of "why t and not c" for many pairs of classes, and the layer in which another map is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from studies.earlier_layers import blocks_with_cells
from xfrlib.cam import pooled_features
from xfrlib.explainers import explain_with
from xfrlib.explanation import explain_features
from xfrlib.models.classifier import FaceClassifier
from xfrlib.prediction import as_floats
from xfrlib.profile import did_you_mean
from xfrlib.run import ParameterError
from xfrlib.sdd import DEFAULT, Divergence

CONTRAST = {  # what is compared, and how a reader sees it
    "sdd": "SDD",
    "local_softmax": "SDD, local softmax",
    "exp_cam": "exp(CAM)",
    "difference": "CAM difference",
    "cam": "CAM",
    "layercam": "LayerCAM",
    "saliency": "saliency",
    "guided_backpropagation": "guided backpropagation",
}


@torch.no_grad()
def contrast_maps(
    model: nn.Module,
    images: Tensor,
    classes: Tensor,
    pictures: Tensor | None = None,
    *,
    batch_size: int = 32,
    forms: Sequence[str] = ("sum",),
    divergence: Divergence = DEFAULT,
    registered: bool = True,
) -> dict[str, Tensor]:
    """Maps of n cases, each a picture and two classes: every map (n, H, W) float, on the CPU.

    Parameters
    ----------
    images : (m, 3, H, W) uint8 RGB.
    classes : (n, 2) integers, target and rival.
    pictures : (n,) which of `images` each case is about, in ascending order; None: case i is about picture i.
    forms : of SDD. With one rival "product" is the same map as "sum".
    divergence : its form is set to each of `forms`.

    Returns
    -------
    "cam", the target's map M_t, and "difference", M_t - M_c, signed and of centred weights, in units of the logit.
    "sdd", in (0, 1], and "log_sdd", its logarithm, for the form "sum"; any other form stands under its name.
    """
    device = next(model.parameters()).device
    pictures = torch.arange(len(images)) if pictures is None else pictures
    size = (images.shape[2], images.shape[3])
    found: dict[str, list[Tensor]] = {}
    for start in range(0, len(images), batch_size):
        pooled = pooled_features(model, as_floats(images[start : start + batch_size].to(device)))
        cases = (pictures >= start) & (pictures < start + batch_size)
        rows, pair = (pictures[cases] - start).to(device), classes[cases].to(device)
        repeated = replace(pooled, features=pooled.features[rows], logits=pooled.logits[rows])
        made: dict[str, Tensor] = {}
        for form in forms:
            e = explain_features(
                repeated,
                size=size,
                target=pair[:, 0],
                competitors=pair[:, 1:],
                divergence=replace(divergence, form=form),
                registered=registered,
            )
            name = "sdd" if form == "sum" else form
            made |= {name: e.sdd, f"log_{name}": e.log_sdd}
        cams = e.upsampled_cams
        made |= {"cam": cams[:, 0], "difference": cams[:, 0] - cams[:, 1]}
        for name, value in made.items():
            found.setdefault(name, []).append(value.cpu())
    return {name: torch.cat(values) for name, values in found.items()}


def compared_maps(
    model: FaceClassifier,
    images: Tensor,
    classes: Tensor,
    *,
    divergence: Divergence = DEFAULT,
    batch_size: int = 64,
) -> dict[str, Tensor]:
    """Every map of `CONTRAST`, in its order, of the first class against the second: each (n, H, W) float, on the CPU.

    Parameters
    ----------
    model : FaceClassifier
        In evaluation mode.
    images : Tensor
        (n, 3, H, W) uint8 RGB.
    classes : Tensor
        (n, 2) integers.
    divergence : Divergence
        Its delta is that of exp(CAM) too.
    batch_size : int
        Of the explainers that take a gradient.
    """
    maps = contrast_maps(model, images, classes, forms=("sum", "local_softmax"), divergence=divergence)
    sharp = divergence.delta * maps["cam"]
    maps["exp_cam"] = (sharp - sharp.amax(dim=(1, 2), keepdim=True)).exp()
    pictures = as_floats(images)
    for name in CONTRAST:
        if name not in maps:
            maps[name] = explain_with(
                name, model, pictures, classes, output="contrast", batch_size=batch_size, progress=False
            )
    return {name: maps[name] for name in CONTRAST}


def middle_layer(model: FaceClassifier, name: str, side: int, device: torch.device) -> str:
    """The module called `name`, or, if that is empty, the first block of the backbone with cells of 8 pixels.

    Raises `ParameterError` for pictures of `side` pixels where there is no such module.
    """
    fine = blocks_with_cells(model, torch.zeros(1, 3, side, side, device=device), side // 8)
    known = [other for other, _ in model.named_modules() if other.count(".") <= 2]
    if name not in ("", *known):
        raise ParameterError(f"layer = {name!r}: the classifier has no such module{did_you_mean(name, known)}")
    if not name and not fine:
        raise ParameterError("no block of the backbone has cells of 8 pixels: name one as the parameter layer")
    return name or fine[0]

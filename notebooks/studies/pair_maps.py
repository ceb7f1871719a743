"""Maps of "why t and not c" of the last layer, for many pairs of classes from one forward pass a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from xfrlib.cam import PooledFeatures, pooled_features
from xfrlib.explanation import explain_features
from xfrlib.geometry import upsampled
from xfrlib.prediction import as_floats
from xfrlib.sdd import DEFAULT, Divergence


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
        repeated = PooledFeatures(pooled.features[rows], pooled.logits[rows], pooled.weight)
        made: dict[str, Tensor] = {}
        for form in forms:
            e = explain_features(
                repeated,
                size=size,
                target=pair[:, 0],
                competitors=pair[:, 1:],
                divergence=replace(divergence, form=form),
            )
            name = "sdd" if form == "sum" else form
            made |= {name: e.sdd, f"log_{name}": e.log_sdd}
        cams = upsampled(e.cams, size)
        made |= {"cam": cams[:, 0], "difference": cams[:, 0] - cams[:, 1]}
        for name, value in made.items():
            found.setdefault(name, []).append(value.cpu())
    return {name: torch.cat(values) for name, values in found.items()}

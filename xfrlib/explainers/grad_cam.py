"""Grad-CAM and its successors on the last feature map: Grad-CAM++, LayerCAM, Score-CAM, Finer-CAM."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from xfrlib.explainers.job import Job, Scored, captum_module, explained_output
from xfrlib.explainers.registry import explainer
from xfrlib.geometry import upsampled
from xfrlib.models.classifier import FaceClassifier
from xfrlib.profile import did_you_mean

FINER_WEIGHTS = ("fixed", "differentiated", "equal")
Output = str | Callable[[Tensor, Tensor], Tensor]


def _drawn(job: Job, maps: Tensor, rectify: bool) -> Tensor:
    return upsampled(maps.clamp(min=0) if rectify else maps, job.size)


@explainer("Grad-CAM", "Selvaraju et al. 2017, arXiv 1610.02391", "captum")
def gradcam(job: Job, *, output: Output = "centred_logit", rectify: bool = False) -> Tensor:
    """With a pooled head it is CAM over the number of positions."""
    method = captum_module("captum.attr").LayerGradCam(Scored(job.model, output), job.model.backbone)
    return _drawn(job, method.attribute(job.images, additional_forward_args=job.classes)[:, 0], rectify)


def layer_slopes(
    model: FaceClassifier, images: Tensor, layer: str, scores: Callable[[Tensor], Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Output of a layer, and the gradients of numbers of the logits with respect to it.

    captum and grad-cam keep both to themselves. One forward pass, and J backward passes that end at the layer.

    Parameters
    ----------
    model : FaceClassifier
        In evaluation mode.
    images : (B, 3, H, W) float
        RGB in [0, 1], on the device of `model`.
    layer : str
        Name of a module of `model` with output (B, C, h, w).
    scores : callable
        Logits (B, N) -> J numbers of each picture, (J, B).

    Returns
    -------
    (B, C, h, w), and a list of J of the same shape.

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
        numbers = scores(model(images))
        slopes = [torch.autograd.grad(own.sum(), kept[-1], retain_graph=True)[0] for own in numbers]
    return kept[-1].detach(), slopes


def _at_the_last_map(job: Job, output: str) -> tuple[Tensor, Tensor]:
    """The last map (b, C, h, w) and the gradient of what is explained with respect to it."""
    features, (slope,) = layer_slopes(
        job.model, job.images, "backbone", lambda logits: explained_output(logits, job.classes, output)[None]
    )
    return features, slope


@explainer("Grad-CAM++", "Chattopadhyay et al. 2018, arXiv 1710.11063", "xfrlib", name="gradcam++")
def gradcam_plus_plus(job: Job, *, output: str = "centred_logit", rectify: bool = False) -> Tensor:
    """The weight of a channel is the sum of its positive slopes, each weighted as in equation 19."""
    features, slope = _at_the_last_map(job, output)
    total = features.sum(dim=(2, 3), keepdim=True)
    shares = slope**2 / (2 * slope**2 + total * slope**3 + 1e-6)
    weights = (slope.clamp(min=0) * shares).sum(dim=(2, 3), keepdim=True)
    return _drawn(job, (weights * features).sum(dim=1), rectify)


@explainer("LayerCAM", "Jiang et al. 2021, IEEE TIP 30", "xfrlib")
def layercam(job: Job, *, output: str = "centred_logit", rectify: bool = False) -> Tensor:
    features, slope = _at_the_last_map(job, output)
    return _drawn(job, (slope.clamp(min=0) * features).sum(dim=1), rectify)


@explainer("Score-CAM", "Wang et al. 2020, arXiv 1910.01279", "xfrlib", slow=True, passes=("1 + channels", 0))
@torch.no_grad()
def scorecam(job: Job, *, output: str = "centred_logit", rectify: bool = False) -> Tensor:
    """The weights are a softmax of the scores of the picture seen through each channel, scaled to [0, 1]."""
    features, scored = job.model.features(job.images), Scored(job.model, output)
    # The authors' code aligns the corners of these masks; the map itself is drawn as all others are.
    masks = F.interpolate(features, size=job.size, mode="bilinear", align_corners=True)
    low, high = masks.amin(dim=(2, 3), keepdim=True), masks.amax(dim=(2, 3), keepdim=True)
    masks = (masks - low) / (high - low + 1e-8)
    scores = [
        torch.cat([scored(image * some, row.expand(len(some), -1)) for some in own[:, None].split(job.batch_size)])
        for image, row, own in zip(job.images, job.classes, masks, strict=True)
    ]
    weights = torch.stack(scores).softmax(dim=1)
    return _drawn(job, (weights[:, :, None, None] * features).sum(dim=1), rectify)


@explainer("Finer-CAM", "Zhang et al. 2025, arXiv 2501.11309", "captum", contrastive=True)
def finercam(
    job: Job, *, alpha: float = 1.0, weights: str = "fixed", centre: bool = True, rectify: bool = False
) -> Tensor:
    """Grad-CAM of the mean over rivals of (target's logit - alpha rival's logit), weighted by their probabilities.

    weights: "fixed" holds the weights constant; in "differentiated", as the authors' code, the gradient also runs
    through the softmax of the weights, so that a rival of less probability may be added and not subtracted; "equal" is
    the plain mean. With one rival and a pooled head all three are (CAM_t - alpha CAM_c) / (h w), which with alpha = 1
    is the exponent of SDD with s = 1.
    """
    if weights not in FINER_WEIGHTS:
        raise ValueError(f"weights = {weights!r}{did_you_mean(weights, list(FINER_WEIGHTS))}")

    def difference(logits: Tensor, classes: Tensor) -> Tensor:
        logits = logits - logits.mean(dim=1, keepdim=True) if centre else logits
        rivals = logits.gather(1, classes[:, 1:])
        shares = torch.softmax(rivals * (weights != "equal"), dim=1)
        shares = shares if weights == "differentiated" else shares.detach()
        return logits.gather(1, classes[:, :1])[:, 0] - alpha * (shares * rivals).sum(dim=1)

    return gradcam(job, output=difference, rectify=rectify)

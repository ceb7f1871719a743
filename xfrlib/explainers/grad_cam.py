"""CAM, Grad-CAM and its successors on the last feature map: Grad-CAM++, LayerCAM, Score-CAM, Finer-CAM."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from xfrlib.cam import pooled_features
from xfrlib.explainers.job import Job, Scored, captum_module, explained_output
from xfrlib.explainers.registry import explainer
from xfrlib.geometry import upsampled
from xfrlib.profile import did_you_mean

FINER_WEIGHTS = ("fixed", "equal")


@explainer("CAM", "Zhou et al. 2016, CVPR", "xfrlib")
def cam(job: Job, *, centre: bool = True) -> Tensor:
    return upsampled(pooled_features(job.model, job.images).maps(job.classes[:, :1], centre=centre)[:, 0], job.size)


@explainer("exp(CAM)", "control: CAM as sharp as SDD", "xfrlib", logarithm=True)
def exp_cam(job: Job, *, centre: bool = True, delta: float = 1.0) -> Tensor:
    """log of exp(delta CAM), largest value 0: the exponential comes after the upsampling, so it ranks as CAM does."""
    maps = delta * cam(job, centre=centre)
    return maps - maps.amax(dim=(1, 2), keepdim=True)


def grad_cam(job: Job, output: str | Callable[[Tensor, Tensor], Tensor], *, rectify: bool = False) -> Tensor:
    """Grad-CAM of what `Scored` knows by `output`; `rectify` sets negative values to zero before the upsampling."""
    method = captum_module("captum.attr").LayerGradCam(Scored(job.model, output), job.model.backbone)
    maps = method.attribute(job.images, additional_forward_args=job.classes, relu_attributions=rectify)
    return upsampled(maps[:, 0], job.size)


@explainer("Grad-CAM", "Selvaraju et al. 2017, arXiv 1610.02391", "captum")
def gradcam(job: Job, *, output: str = "centred_logit") -> Tensor:
    """With a pooled head it is CAM over the number of positions."""
    return grad_cam(job, output)


def _slopes(job: Job, output: str) -> tuple[Tensor, Tensor]:
    """The last map (b, C, h, w), and the slope of what is explained in each channel, (b, C, 1, 1): alike at all places.

    captum keeps the two to itself, and grad-cam rectifies and scales what it makes of them.
    """
    with torch.no_grad():
        features = job.model.features(job.images)
    pooled = features.mean(dim=(2, 3)).requires_grad_()
    explained = explained_output(job.model.head(pooled), job.classes, output)
    (slopes,) = torch.autograd.grad(explained.sum(), pooled)
    return features, slopes[:, :, None, None] / features[0, 0].numel()


@explainer("Grad-CAM++", "Chattopadhyay et al. 2018, arXiv 1710.11063", "xfrlib", name="gradcam++")
def gradcam_plus_plus(job: Job, *, output: str = "centred_logit") -> Tensor:
    """The weight of a channel is the sum of its positive slopes over places, each weighted as in equation 19."""
    features, slopes = _slopes(job, output)
    total = features.sum(dim=(2, 3), keepdim=True)
    shares = slopes**2 / (2 * slopes**2 + total * slopes**3 + 1e-6)  # grad-cam's guard against 0 / 0
    weights = features[0, 0].numel() * slopes.clamp(min=0) * shares
    return upsampled((weights * features).sum(dim=1), job.size)


@explainer("LayerCAM", "Jiang et al. 2021, IEEE TIP 30", "xfrlib")
def layercam(job: Job, *, output: str = "centred_logit") -> Tensor:
    features, slopes = _slopes(job, output)
    return upsampled((slopes.clamp(min=0) * features).sum(dim=1), job.size)


@explainer("Score-CAM", "Wang et al. 2020, arXiv 1910.01279", "xfrlib", slow=True, passes=("1 + channels", 0))
@torch.no_grad()
def scorecam(job: Job, *, output: str = "centred_logit") -> Tensor:
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
    return upsampled((weights[:, :, None, None] * features).sum(dim=1), job.size)


@explainer("Finer-CAM", "Zhang et al. 2025, arXiv 2501.11309", "captum", contrastive=True)
def finercam(job: Job, *, alpha: float = 1.0, weights: str = "fixed", centre: bool = True) -> Tensor:
    """Grad-CAM of the mean over rivals of (target's logit - alpha rival's logit), weighted by their probabilities.

    weights: "fixed" holds them constant, "equal" is the plain mean. In the authors' code the gradient also runs through
    the softmax of the weights, so that a rival of less probability may be added and not subtracted. With one rival and
    a pooled head all are (CAM_t - alpha CAM_c) / (h w), which with alpha = 1 is the exponent of SDD with s = 1.
    """
    if weights not in FINER_WEIGHTS:
        raise ValueError(f"weights = {weights!r}{did_you_mean(weights, list(FINER_WEIGHTS))}")

    def difference(logits: Tensor, classes: Tensor) -> Tensor:
        logits = logits - logits.mean(dim=1, keepdim=True) if centre else logits
        rivals = logits.gather(1, classes[:, 1:])
        shares = torch.softmax(rivals.detach() * (weights == "fixed"), dim=1)
        return logits.gather(1, classes[:, :1])[:, 0] - alpha * (shares * rivals).sum(dim=1)

    return grad_cam(job, difference)

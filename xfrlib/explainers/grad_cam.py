"""CAM, Grad-CAM and its successors on the last feature map: Grad-CAM++, LayerCAM, Score-CAM, Finer-CAM."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from xfrlib.explainers.job import Job, Scored, explained_output, explainer
from xfrlib.geometry import upsampled

# numpy adds the channels up in grad-cam's order: torch's moves a pixel at the edge of a region now and then, and the
# results of runs that cannot be repeated stand.
Channels = NDArray[np.float32]


@explainer("CAM", "Zhou et al. 2016, CVPR", "xfrlib")
def cam(job: Job, *, centre: bool = True) -> Tensor:
    maps = job.pooled.maps(job.classes[:, :1], centre=centre)
    return upsampled(maps[:, 0], job.size, job.geometry)


@explainer("exp(CAM)", "control: CAM as sharp as SDD", "xfrlib", logarithm=True)
def exp_cam(job: Job, *, centre: bool = True, delta: float = 1.0) -> Tensor:
    """log of exp(delta CAM), largest value 0: the exponential comes after the upsampling, so it ranks as CAM does."""
    maps = delta * cam(job, centre=centre)
    return maps - maps.amax(dim=(1, 2), keepdim=True)


def last_map(job: Job, output: str | Callable[[Tensor], Tensor]) -> tuple[Channels, Channels]:
    """The last map, and the gradient of `output`, named or of the logits (b, N), with respect to it: (b, C, h, w)."""
    features = job.pooled.features.clone().requires_grad_()
    score = F.linear(features.mean(dim=(2, 3)), job.pooled.weight.detach())
    logits = job.pooled.logits + (score - score.detach())  # the network's own, to the bit, and the slope of its head
    explained = explained_output(logits, job.classes, output) if isinstance(output, str) else output(logits)
    (slopes,) = torch.autograd.grad(explained.sum(), features)
    return features.detach().cpu().numpy(), slopes.cpu().numpy()


def drawn(job: Job, channels: Channels, *, rectify: bool = False) -> Tensor:
    """The sum over weighted channels (b, C, h, w), in the size of the pictures."""
    maps = torch.from_numpy(channels.sum(axis=1)).to(job.images.device)
    return upsampled(maps.clamp(min=0) if rectify else maps, job.size, job.geometry)


@explainer("Grad-CAM", "Selvaraju et al. 2017, arXiv 1610.02391", "xfrlib")
def gradcam(job: Job, *, output: str | Callable[[Tensor], Tensor] = "centred_logit", rectify: bool = False) -> Tensor:
    """With a pooled head it is CAM over the number of positions. `rectify`, as published: no map below zero."""
    features, slopes = last_map(job, output)
    return drawn(job, slopes.mean(axis=(2, 3), keepdims=True) * features, rectify=rectify)


@explainer("Grad-CAM++", "Chattopadhyay et al. 2018, arXiv 1710.11063", "xfrlib", name="gradcam++")
def gradcam_plus_plus(job: Job, *, output: str = "centred_logit") -> Tensor:
    """The weight of a channel is the sum of its positive slopes over places, each weighted as in equation 19."""
    features, slopes = last_map(job, output)
    square, total = slopes**2, features.sum(axis=(2, 3), keepdims=True)
    shares = square / (2 * square + total * (square * slopes) + 1e-6)  # grad-cam's guard against 0 / 0
    weights = (np.maximum(slopes, 0) * shares).sum(axis=(2, 3), keepdims=True)
    return drawn(job, weights * features)


@explainer("LayerCAM", "Jiang et al. 2021, IEEE TIP 30", "xfrlib")
def layercam(job: Job, *, output: str = "centred_logit") -> Tensor:
    features, slopes = last_map(job, output)
    return drawn(job, np.maximum(slopes, 0) * features)


@explainer("Score-CAM", "Wang et al. 2020, arXiv 1910.01279", "xfrlib", slow=True, passes=("1 + channels", 0))
@torch.no_grad()
def scorecam(job: Job, *, output: str = "centred_logit") -> Tensor:
    """The weights are a softmax of the scores of the picture seen through each channel, scaled to [0, 1]."""
    features, scored = job.pooled.features, Scored(job.model, output)
    if job.geometry:
        masks = upsampled(features, job.size, job.geometry)
    else:  # as the authors' code has it
        masks = F.interpolate(features, size=job.size, mode="bilinear", align_corners=True)
    low, high = masks.amin(dim=(2, 3), keepdim=True), masks.amax(dim=(2, 3), keepdim=True)
    masks = (masks - low) / (high - low + 1e-8)
    scores = [
        torch.cat([scored(image * some, row.expand(len(some), -1)) for some in own[:, None].split(job.batch_size)])
        for image, row, own in zip(job.images, job.classes, masks, strict=True)
    ]
    weights = torch.stack(scores).cpu().softmax(dim=1)
    return drawn(job, (weights[:, :, None, None] * features.cpu()).numpy())


@explainer("Finer-CAM", "Zhang et al. 2025, arXiv 2501.11309", "xfrlib", contrastive=True)
def finercam(job: Job, *, alpha: float = 1.0, centre: bool = True) -> Tensor:
    """Grad-CAM of the mean over rivals of (target's logit - alpha rival's logit), weighted by their probabilities.

    The weights are held constant. In the authors' code the gradient also runs through the softmax, so that a rival of
    less probability may be added and not subtracted. With one rival it is (CAM_t - alpha CAM_c) / (h w), which with
    alpha = 1 is the exponent of SDD with s = 1.
    """

    def difference(logits: Tensor) -> Tensor:
        logits = logits - logits.mean(dim=1, keepdim=True) if centre else logits
        rivals = logits.gather(1, job.classes[:, 1:])
        return logits.gather(1, job.classes[:, :1])[:, 0] - alpha * (rivals.detach().softmax(1) * rivals).sum(dim=1)

    return gradcam(job, output=difference)

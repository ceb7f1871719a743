"""Chapter 7: explainers that it teaches, and that the comparisons of the book, fixed before, lack."""

from __future__ import annotations

import warnings
from unittest.mock import patch

import torch
from torch import Tensor, nn

from xfrlib.explainers import explainer
from xfrlib.explainers.grad_cam import gradcam
from xfrlib.explainers.gradients import PRELU, guided_backpropagation
from xfrlib.explainers.job import Job, Scored, library_module
from xfrlib.judge import fill_picture


@explainer("Guided Grad-CAM", "Selvaraju et al. 2017, arXiv 1610.02391", PRELU, compared=False, passes=(2, 1))
def guided_gradcam(job: Job, *, output: str = "centred_logit", rectify: bool = True) -> Tensor:
    """With `rectify`, as published, a picture in which no place speaks for the target gets a map of zeros."""
    return gradcam(job, output=output, rectify=rectify) * guided_backpropagation(job, output=output)


@explainer("DeepLIFT", "Shrikumar et al. 2017, arXiv 1704.02685", PRELU, compared=False, passes=(2, 2))
def deep_lift(job: Job, *, fill: str = "black", output: str = "centred_logit") -> Tensor:
    """Sum over channels, signed, with the rescale rule (section 3.5.1); a map sums to the change of output from `fill`.

    captum's table of layers lacks PReLU, which would be passed over without a word, and its rule for max-pooling loses
    the sum on the 1x1 pools that only subsample in IR networks. Here PReLU has the rule and such a pool the plain
    gradient, for as long as the call takes.
    """
    captum, module = library_module("captum.attr"), library_module("captum.attr._core.deep_lift")

    def pool(layer: nn.MaxPool2d, inputs: Tensor, outputs: Tensor, after: Tensor, before: Tensor, eps: float) -> Tensor:
        return after if layer.kernel_size == 1 else module.maxpool2d(layer, inputs, outputs, after, before, eps=eps)

    method, maps = captum.DeepLift(Scored(job.model, output)), []
    together = max(1, job.batch_size // 2)  # a picture and its reference go through the network together
    rules = {nn.PReLU: module.nonlinear, nn.MaxPool2d: pool}
    with patch.dict(module.SUPPORTED_NON_LINEAR, rules), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Setting forward, backward hooks")
        for images, classes in zip(job.images.split(together), job.classes.split(together), strict=True):
            given = images.requires_grad_(), fill_picture(images, fill).detach()
            maps.append(method.attribute(*given, additional_forward_args=classes).sum(dim=1).detach())
    return torch.cat(maps)

"""Gradients with respect to the picture: saliency, guided backpropagation, DeepLIFT, integrated gradients."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from unittest.mock import patch

import torch
from torch import Tensor, nn

from xfrlib.explainers.grad_cam import gradcam
from xfrlib.explainers.job import Job, Scored, captum_module, explainer
from xfrlib.judge import fill_picture

_PRELU = "captum, its rule extended to PReLU"


@explainer("Saliency", "Simonyan et al. 2013, arXiv 1312.6034", "captum", passes=(1, 1))
def saliency(job: Job, *, output: str = "centred_logit") -> Tensor:
    """Largest absolute gradient of the three channels."""
    method = captum_module("captum.attr").Saliency(Scored(job.model, output))
    return method.attribute(job.images.requires_grad_(), additional_forward_args=job.classes).amax(dim=1)


@explainer("Guided backpropagation", "Springenberg et al. 2014, arXiv 1412.6806", _PRELU, passes=(1, 1))
def guided_backpropagation(job: Job, *, output: str = "centred_logit") -> Tensor:
    """Largest absolute channel of the guided gradient, with the guided rule on PReLU too: R = max(0, PReLU'(x) R').

    captum's hooks pass over any PReLU without a word: on these networks the result would be the plain gradient. PReLU'
    is 1 for x > 0 and the learned slope else; with slope 0 this is guided backpropagation as published. Where a slope
    is negative, a unit that is off turns the sign of what it passes on before the rule is applied.
    """
    captum, common = captum_module("captum.attr"), captum_module("captum._utils.common")

    class GuidedPReLU(captum.GuidedBackprop):  # type: ignore[name-defined]
        def _register_hooks(self, module: nn.Module) -> None:
            if isinstance(module, nn.PReLU):
                self.backward_hooks.extend(common._register_backward_hook(module, self._backward_hook, self))
            else:
                super()._register_hooks(module)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Setting backward hooks on ReLU")
        method = GuidedPReLU(Scored(job.model, output))
        return method.attribute(job.images.requires_grad_(), additional_forward_args=job.classes).abs().amax(dim=1)


@explainer("Guided Grad-CAM", "Selvaraju et al. 2017, arXiv 1610.02391", _PRELU, compared=False, passes=(2, 1))
def guided_gradcam(job: Job, *, output: str = "centred_logit", rectify: bool = True) -> Tensor:
    """With `rectify`, as published, a picture in which no place speaks for the target gets a map of zeros."""
    return gradcam(job, output=output, rectify=rectify) * guided_backpropagation(job, output=output)


def _signed(job: Job, together: int, attribute: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Sum over channels of what `attribute` makes of `together` pictures and their classes at a time: (b, H, W)."""
    parts = zip(job.images.split(max(1, together)), job.classes.split(max(1, together)), strict=True)
    return torch.cat([attribute(images, classes).sum(dim=1).detach() for images, classes in parts])


@explainer("DeepLIFT", "Shrikumar et al. 2017, arXiv 1704.02685", _PRELU, compared=False, passes=(2, 2))
def deep_lift(job: Job, *, fill: str = "black", output: str = "centred_logit") -> Tensor:
    """Sum over channels, signed, with the rescale rule (section 3.5.1); a map sums to the change of output from `fill`.

    captum's table of layers lacks PReLU, which would be passed over without a word, and its rule for max-pooling loses
    the sum on the 1x1 pools that only subsample in IR networks. Here PReLU has the rule and such a pool the plain
    gradient, for as long as the call takes.
    """
    captum, module = captum_module("captum.attr"), captum_module("captum.attr._core.deep_lift")

    def pool(layer: nn.MaxPool2d, inputs: Tensor, outputs: Tensor, after: Tensor, before: Tensor, eps: float) -> Tensor:
        return after if layer.kernel_size == 1 else module.maxpool2d(layer, inputs, outputs, after, before, eps=eps)

    method = captum.DeepLift(Scored(job.model, output))

    def attribute(images: Tensor, classes: Tensor) -> Tensor:
        given = images.requires_grad_(), fill_picture(images, fill).detach()
        return method.attribute(*given, additional_forward_args=classes)

    rules = {nn.PReLU: module.nonlinear, nn.MaxPool2d: pool}
    with patch.dict(module.SUPPORTED_NON_LINEAR, rules), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Setting forward, backward hooks")
        # A picture and its reference go through the network together.
        return _signed(job, job.batch_size // 2, attribute)


@explainer("Integrated gradients", "Sundararajan et al. 2017, arXiv 1703.01365", "captum", passes=("steps", "steps"))
def integrated_gradients(job: Job, *, steps: int = 32, fill: str = "black", output: str = "centred_logit") -> Tensor:
    """Sum over channels, signed; the path starts at `fill`. The sum of a map is the change of the output along it."""
    method = captum_module("captum.attr").IntegratedGradients(Scored(job.model, output))

    def attribute(images: Tensor, classes: Tensor) -> Tensor:
        settings = {"n_steps": steps, "internal_batch_size": max(job.batch_size, len(images))}
        return method.attribute(images, fill_picture(images, fill), additional_forward_args=classes, **settings)

    return _signed(job, job.batch_size // steps, attribute)

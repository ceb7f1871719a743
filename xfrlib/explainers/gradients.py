"""Explainers by gradients with respect to the picture, through captum."""

from __future__ import annotations

import warnings
from unittest.mock import patch

import torch
from torch import Tensor, nn

from xfrlib.explainers.grad_cam import grad_cam_explainer
from xfrlib.explainers.job import Job, Scored, library_module
from xfrlib.judge import fill_picture


def saliency(job: Job, *, output: str = "centred_logit") -> Tensor:
    """Largest absolute gradient of the three channels."""
    method = library_module("captum.attr").Saliency(Scored(job.model, output))
    return method.attribute(job.images.requires_grad_(), additional_forward_args=job.classes).amax(dim=1)


def guided_backpropagation(job: Job, *, output: str = "centred_logit") -> Tensor:
    """Largest absolute channel of the guided gradient, with the guided rule on PReLU too.

    captum's rule is that a gradient which leaves a ReLU towards the picture is kept where it is positive, R = max(0,
    ReLU'(x) R'), and its hooks pass over any PReLU without a word: on these networks the result would be the plain
    gradient. Here the same hook sits on PReLU as well: R = max(0, PReLU'(x) R'), where PReLU' is 1 for x > 0 and the
    learned slope else. With slope 0 this is guided backpropagation as published. A slope may be negative: there a unit
    that is off turns the sign of what it passes on, as in the plain gradient, before the rule is applied.
    """
    captum, common = library_module("captum.attr"), library_module("captum._utils.common")

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


def deep_lift(job: Job, *, fill: str = "black", output: str = "centred_logit") -> Tensor:
    """Sum over channels, signed, of DeepLIFT with the rescale rule; the reference picture is `fill`.

    The rule sends the difference of the output from its value at the reference back through each non-linearity in the
    ratio of what came out to what went in, so that a map sums to that difference (Shrikumar et al. 2017, arXiv
    1704.02685, section 3.5.1). captum keeps a table of the layers it has a rule for. PReLU is not in it and would be
    passed over without a word, and its rule for max-pooling loses the sum on the 1x1 pools that only subsample in IR
    networks. Here PReLU has the rule and such a pool the plain gradient, for as long as the call takes.
    """
    captum, module = library_module("captum.attr"), library_module("captum.attr._core.deep_lift")

    def pool(layer: nn.MaxPool2d, inputs: Tensor, outputs: Tensor, after: Tensor, before: Tensor, eps: float) -> Tensor:
        return after if layer.kernel_size == 1 else module.maxpool2d(layer, inputs, outputs, after, before, eps=eps)

    rules = {nn.PReLU: module.nonlinear, nn.MaxPool2d: pool}
    method, maps = captum.DeepLift(Scored(job.model, output)), []
    together = max(1, job.batch_size // 2)  # a picture and its reference go through the network together
    with patch.dict(module.SUPPORTED_NON_LINEAR, rules), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Setting forward, backward hooks")
        for images, classes in zip(job.images.split(together), job.classes.split(together), strict=True):
            given = images.requires_grad_(), fill_picture(images, fill).detach()
            maps.append(method.attribute(*given, additional_forward_args=classes).sum(dim=1).detach())
    return torch.cat(maps)


def integrated_gradients(job: Job, *, steps: int = 32, fill: str = "black", output: str = "centred_logit") -> Tensor:
    """Sum over channels, signed; the path starts at `fill`. The sum of a map is the change of the output along it."""
    method = library_module("captum.attr").IntegratedGradients(Scored(job.model, output))
    together = max(1, job.batch_size // steps)
    maps = []
    for images, classes in zip(job.images.split(together), job.classes.split(together), strict=True):
        attributions = method.attribute(
            images,
            fill_picture(images, fill),
            additional_forward_args=classes,
            n_steps=steps,
            internal_batch_size=max(job.batch_size, len(images)),
        )
        maps.append(attributions.sum(dim=1).detach())
    return torch.cat(maps)


def guided_grad_cam(job: Job, *, output: str = "centred_logit", rectify: bool = True) -> Tensor:
    """Grad-CAM of the last map times guided backpropagation (Selvaraju et al. 2017, section 3.2).

    With `rectify`, as published, a picture in which no place speaks for the target gets a map of zeros.
    """
    coarse = grad_cam_explainer("GradCAM")(job, output=output, rectify=rectify)
    return coarse * guided_backpropagation(job, output=output)

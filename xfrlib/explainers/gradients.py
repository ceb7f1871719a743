"""Gradients with respect to the picture: saliency, guided backpropagation, integrated gradients."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from xfrlib.explainers.job import Job, Scored, explainer, library_module
from xfrlib.judge import fill_picture

PRELU = "captum, its rule extended to PReLU"


@explainer("Saliency", "Simonyan et al. 2013, arXiv 1312.6034", "captum", passes=(1, 1))
def saliency(job: Job, *, output: str = "centred_logit") -> Tensor:
    """Largest absolute gradient of the three channels."""
    method = library_module("captum.attr").Saliency(Scored(job.model, output))
    return method.attribute(job.images.requires_grad_(), additional_forward_args=job.classes).amax(dim=1)


@explainer("Guided backpropagation", "Springenberg et al. 2014, arXiv 1412.6806", PRELU, passes=(1, 1))
def guided_backpropagation(job: Job, *, output: str = "centred_logit") -> Tensor:
    """Largest absolute channel of the guided gradient, with the guided rule on PReLU too: R = max(0, PReLU'(x) R').

    captum's hooks pass over any PReLU without a word: on these networks the result would be the plain gradient. PReLU'
    is 1 for x > 0 and the learned slope else; with slope 0 this is guided backpropagation as published. Where a slope
    is negative, a unit that is off turns the sign of what it passes on before the rule is applied.
    """
    captum, common = library_module("captum.attr"), library_module("captum._utils.common")
    if not any(isinstance(part, nn.ReLU | nn.PReLU) for part in job.model.modules()):
        raise ValueError("guided backpropagation needs ReLU or PReLU: without any, it is the plain gradient")

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


@explainer("Integrated gradients", "Sundararajan et al. 2017, arXiv 1703.01365", "captum", passes=("steps", "steps"))
def integrated_gradients(job: Job, *, steps: int = 32, fill: str = "black", output: str = "centred_logit") -> Tensor:
    """Sum over channels, signed; the path starts at `fill`. The sum of a map is the change of the output along it."""
    method = library_module("captum.attr").IntegratedGradients(Scored(job.model, output))
    together, maps = max(1, job.batch_size // steps), []
    for images, classes in zip(job.images.split(together), job.classes.split(together), strict=True):
        settings = {"n_steps": steps, "internal_batch_size": max(job.batch_size, len(images))}
        start = fill_picture(images, fill)
        maps.append(method.attribute(images, start, additional_forward_args=classes, **settings).sum(dim=1).detach())
    return torch.cat(maps)

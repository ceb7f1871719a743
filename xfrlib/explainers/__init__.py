"""Other explainers under one signature, so that all are judged on the same networks, pictures and pixel counts.

captum and grad-cam do the work wherever they have the method. This module gives them the network, the number to explain
and the random numbers, and takes back a map that is neither rectified nor scaled unless that is asked for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from xfrlib.explainers.class_activation import cam, exp_cam, sdd
from xfrlib.explainers.grad_cam import finer_cam, grad_cam_explainer, score_cam
from xfrlib.explainers.gradients import (
    deep_lift,
    guided_backpropagation,
    guided_grad_cam,
    integrated_gradients,
    saliency,
)
from xfrlib.explainers.job import OUTPUTS, Job, draw_seed, restored
from xfrlib.explainers.rise import rise
from xfrlib.explainers.surrogates import kernel_shap, lime
from xfrlib.models.classifier import FaceClassifier
from xfrlib.profile import did_you_mean

__all__ = ["EXPLAINERS", "OUTPUTS", "Explainer", "explain_with", "passes_per_picture"]


@dataclass(frozen=True)
class Explainer:
    """What a reader and a table must know of a method. `EXPLAINERS` holds one for each name."""

    title: str
    make: Callable[..., Tensor]  # (job, **budget) -> (b, H, W)
    source: str  # the paper
    library: str  # whose code computes the map
    contrastive: bool = False  # compares the target with the rivals
    compared: bool = True  # False: chapter 7 teaches it, but the comparisons of the book, fixed before, lack it
    slow: bool = False  # many passes a picture: for a stated sample of the pictures
    logarithm: bool = False  # the map is the logarithm of the published one, which underflows; exp gives it back
    cost: str = "1 forward"  # passes a picture in words; C is the number of channels of the last map
    passes: Callable[[Mapping[str, Any]], tuple[int, int]] = lambda budget: (1, 0)

    @property
    def budget(self) -> dict[str, Any]:
        """The method's own settings and their defaults."""
        parameters = inspect.signature(self.make).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


_HEAD = "1 forward; backward through the head only"
_SDD = {
    "source": "Shadman et al. 2025, arXiv 2505.03837; Verenich et al. 2021",
    "library": "xfrlib",
    "contrastive": True,
    "logarithm": True,
}

EXPLAINERS: dict[str, Explainer] = {
    "cam": Explainer("CAM", cam, "Zhou et al. 2016, CVPR", "xfrlib"),
    "exp_cam": Explainer("exp(CAM)", exp_cam, "control: CAM as sharp as SDD", "xfrlib", logarithm=True),
    "gradcam": Explainer(
        "Grad-CAM", grad_cam_explainer("GradCAM"), "Selvaraju et al. 2017, arXiv 1610.02391", "grad-cam", cost=_HEAD
    ),
    "gradcam++": Explainer(
        "Grad-CAM++",
        grad_cam_explainer("GradCAMPlusPlus"),
        "Chattopadhyay et al. 2018, arXiv 1710.11063",
        "grad-cam",
        cost=_HEAD,
    ),
    "layercam": Explainer(
        "LayerCAM", grad_cam_explainer("LayerCAM"), "Jiang et al. 2021, IEEE TIP 30", "grad-cam", cost=_HEAD
    ),
    "scorecam": Explainer(
        "Score-CAM",
        score_cam,
        "Wang et al. 2020, arXiv 1910.01279",
        "grad-cam",
        slow=True,
        cost="1 + C forward",
        passes=lambda budget: (1 + budget["channels"], 0),
    ),
    "finercam": Explainer(
        "Finer-CAM", finer_cam, "Zhang et al. 2025, arXiv 2501.11309", "grad-cam", contrastive=True, cost=_HEAD
    ),
    "saliency": Explainer(
        "Saliency",
        saliency,
        "Simonyan et al. 2013, arXiv 1312.6034",
        "captum",
        cost="1 forward, 1 backward",
        passes=lambda budget: (1, 1),
    ),
    "guided_backpropagation": Explainer(
        "Guided backpropagation",
        guided_backpropagation,
        "Springenberg et al. 2014, arXiv 1412.6806",
        "captum, its rule extended to PReLU",
        cost="1 forward, 1 backward",
        passes=lambda budget: (1, 1),
    ),
    "guided_gradcam": Explainer(
        "Guided Grad-CAM",
        guided_grad_cam,
        "Selvaraju et al. 2017, arXiv 1610.02391",
        "grad-cam and captum, its rule extended to PReLU",
        compared=False,
        cost="2 forward, 1 backward",
        passes=lambda budget: (2, 1),
    ),
    "deep_lift": Explainer(
        "DeepLIFT",
        deep_lift,
        "Shrikumar et al. 2017, arXiv 1704.02685",
        "captum, its rule extended to PReLU",
        compared=False,
        cost="2 forward, 1 backward of both",
        passes=lambda budget: (2, 2),
    ),
    "integrated_gradients": Explainer(
        "Integrated gradients",
        integrated_gradients,
        "Sundararajan et al. 2017, arXiv 1703.01365",
        "captum",
        cost="steps forward, steps backward",
        passes=lambda budget: (budget["steps"], budget["steps"]),
    ),
    "rise": Explainer(
        "RISE",
        rise,
        "Petsiuk et al. 2018, arXiv 1806.07421",
        "xfrlib (neither library has it)",
        slow=True,
        cost="masks forward",
        passes=lambda budget: (budget["masks"], 0),
    ),
    "lime": Explainer(
        "LIME",
        lime,
        "Ribeiro et al. 2016, arXiv 1602.04938",
        "captum",
        slow=True,
        cost="samples forward",
        passes=lambda budget: (budget["samples"], 0),
    ),
    "kernel_shap": Explainer(
        "KernelSHAP",
        kernel_shap,
        "Lundberg and Lee 2017, arXiv 1705.07874",
        "captum",
        slow=True,
        cost="samples forward",
        passes=lambda budget: (budget["samples"], 0),
    ),
    "sdd_sum": Explainer("SDD, sum", sdd("sum"), **_SDD),  # type: ignore[arg-type]
    "sdd_product": Explainer("SDD, product", sdd("product"), **_SDD),  # type: ignore[arg-type]
    "sdd_local_softmax": Explainer("SDD, local softmax", sdd("local_softmax"), **_SDD),  # type: ignore[arg-type]
}


def explain_with(
    name: str,
    model: FaceClassifier,
    images: Tensor,
    classes: Tensor,
    *,
    seed: int = 0,
    indices: Sequence[int] | None = None,
    batch_size: int = 64,
    progress: bool = True,
    **budget: Any,
) -> Tensor:
    """Explain `classes` on `images` by one of `EXPLAINERS`: (B, 3, H, W) -> maps (B, H, W), larger is more important.

    Signed maps stay signed. Where `EXPLAINERS[name].logarithm` is set the map is a logarithm: it orders pixels as the
    published map does and does not underflow. The network runs in evaluation mode; modes, hooks, gradients and
    `requires_grad` of its parameters, and torch's random state, are afterwards what they were, even if it fails.

    Parameters
    ----------
    model : classifier whose last map is averaged and fed to one linear layer, on the device to compute on.
    images : (B, 3, H, W) float, RGB in [0, 1], on any device; the maps come back to it.
    classes : (B, K) integers, the target first, then its rivals; (B,) where the method uses no rivals.
    seed, indices : a picture's random numbers depend on the name, the seed and its index in the whole set alone
        (None: its place in `images`), not on the batch it came with.
    batch_size : most pictures, whole or perturbed, that go through the network together.
    **budget : the method's own settings, `EXPLAINERS[name].budget`. Several methods take `output`, what is explained:
        "centred_logit" (the target's logit less the mean of all logits, which a common shift of the logits leaves
        alone), "logit", "contrast" (the target's logit less the mean of the rivals'), or "probability".

    Raises
    ------
    ValueError
        For an unknown name or setting, shapes or classes that cannot be, or a map with NaN or infinite values.
    ImportError
        If captum or grad-cam is not installed: the sentence names the extra.
    """
    if name not in EXPLAINERS:
        raise ValueError(f"unknown explainer {name!r}{did_you_mean(name, list(EXPLAINERS))}")
    explainer = EXPLAINERS[name]
    for setting in budget:
        if setting not in explainer.budget:
            raise ValueError(f"{name} has no setting {setting!r}{did_you_mean(setting, list(explainer.budget))}")
    contrastive = explainer.contrastive or budget.get("output") == "contrast"
    classes = _checked(name, model, images, classes, contrastive, batch_size)
    indices = range(len(images)) if indices is None else indices
    if len(indices) != len(images):
        raise ValueError(f"indices has {len(indices)} entries for {len(images)} images")
    device = next(model.parameters()).device
    step = 1 if explainer.slow else batch_size
    with (
        restored(model),
        tqdm(total=len(images), desc=name, unit="picture", mininterval=1, disable=not progress) as bar,
    ):
        maps = torch.empty(len(images), *images.shape[2:])
        for start in range(0, len(images), step):
            part = slice(start, start + step)
            seeds = [draw_seed(name, seed, index) for index in indices[part]]
            # A clone is an ordinary tensor even where the caller works in inference mode.
            job = Job(model, images[part].to(device).clone(), classes[part].to(device).clone(), seeds, batch_size)
            maps[part] = explainer.make(job, **budget).detach().cpu()
            bar.update(len(seeds))
    _need_finite(maps, f"the map of {name}")
    return maps.to(images.device)


def passes_per_picture(name: str, model: FaceClassifier, **budget: Any) -> tuple[int, int]:
    """Forward and backward passes through the backbone that one picture costs."""
    explainer = EXPLAINERS[name]
    return explainer.passes({"channels": model.head.in_features, **explainer.budget, **budget})


def _checked(
    name: str, model: nn.Module, images: Tensor, classes: Tensor, contrastive: bool, batch_size: int
) -> Tensor:
    """`classes` as (B, K), or a sentence that says what does not fit."""
    if not isinstance(model, FaceClassifier):
        raise ValueError(f"expected a xfrlib.FaceClassifier, whose last map is averaged, got {type(model).__name__}")
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(f"images must be float (B, 3, H, W) in [0, 1], got {images.dtype} {tuple(images.shape)}")
    _need_finite(images, "images")
    if batch_size < 1:
        raise ValueError(f"batch_size = {batch_size}: must be at least 1")
    classes = classes[:, None] if classes.ndim == 1 else classes
    if classes.ndim != 2 or len(classes) != len(images) or classes.is_floating_point() or classes.dtype == torch.bool:
        raise ValueError(
            f"classes must be integers ({len(images)}, K), the target first, got {classes.dtype} {tuple(classes.shape)}"
        )
    if classes.numel() and (int(classes.min()) < 0 or int(classes.max()) >= model.num_classes):
        raise ValueError(
            f"classes must lie in 0 to {model.num_classes - 1}, got {int(classes.min())} to {int(classes.max())}"
        )
    if contrastive and classes.shape[1] < 2:
        raise ValueError(f"{name} compares the target with rivals: give classes (B, K) with K of at least 2")
    for index, row in enumerate(classes.tolist()):
        if len(set(row)) < len(row):
            raise ValueError(f"classes of sample {index}: {row} must be distinct")
    return classes.long()


def _need_finite(values: Tensor, what: str) -> None:
    for index, sound in enumerate(torch.isfinite(values).flatten(1).all(1).tolist()):
        if not sound:
            raise ValueError(f"sample {index} of {what} has a NaN or infinite value")

"""All explainers under one signature, so that all are judged on the same networks, pictures and pixel counts.

captum does the work wherever it has the method: it gets the network, the number to explain and the random numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from xfrlib.explainers import grad_cam, gradients, rise, lime_and_shap, sdd  # noqa: F401  # isort: skip
from xfrlib.checks import answer, need_classes, need_count, need_finite, need_logits, need_network, need_pictures
from xfrlib.explainers.job import EXPLAINERS, Explainer, Job, draw_seed, explainer, restored
from xfrlib.models.classifier import FaceClassifier
from xfrlib.prediction import in_evaluation
from xfrlib.profile import did_you_mean

__all__ = ["EXPLAINERS", "Explainer", "explain_with", "explainer"]


def explain_with(
    name: str, model: nn.Module, images: Tensor, classes: Tensor, *, seed: int = 0,
    indices: Sequence[int] | None = None, batch_size: int = 64, registered: bool = True, progress: bool = True,
    **budget: Any,
) -> Tensor:  # fmt: skip
    """Explain `classes` on `images` by one of `EXPLAINERS`: maps (B, H, W), larger where it matters more.

    A map is signed where the method is, and a logarithm where `EXPLAINERS[name].logarithm` is set: that orders pixels
    as the published map does and does not underflow. The network runs in evaluation mode; modes, hooks, gradients and
    `requires_grad` of its parameters, and torch's random state, are afterwards what they were, even if it fails.
    Raises `ValueError` for an unknown name or setting, for classes or pictures that do not fit, for a network without
    what the method needs, and for a map with NaN or infinite values; `ImportError` names the extra to install.

    Parameters
    ----------
    model : torch.nn.Module
        Pictures to logits (B, N). Methods of the last map need a network that `xfrlib.explain` takes. Saliency,
        integrated gradients, LIME, KernelSHAP and RISE need no map, and take a vision transformer too.
    images : Tensor
        (B, 3, H, W) float, RGB in [0, 1], on any device; the maps come back to it.
    classes : Tensor
        (B, K) integers, the target first, then its rivals; (B,) where the method uses no rivals.
    seed, indices : int, sequence of int
        Random numbers depend on `name`, `seed` and a picture's index (None: its place in `images`), not on its batch.
    batch_size : int
        Most pictures, whole or perturbed, that go through the network together.
    registered : bool
        As in `xfrlib.explain`, for explainers of the last map; the others have no cells.
    **budget
        The method's own settings, `EXPLAINERS[name].budget`. Several methods take `output`, what is explained:
        "centred_logit" (the target's logit less the mean of all logits, which a common shift of the logits leaves
        alone), "logit", "contrast" (the target's logit less the mean of the rivals'), or "probability".
    """
    if name not in EXPLAINERS:
        raise ValueError(f"unknown explainer {name!r}{did_you_mean(name, list(EXPLAINERS))}")
    method = EXPLAINERS[name]
    for setting, value in budget.items():
        if setting not in method.budget:
            raise ValueError(f"{name} has no setting {setting!r}{did_you_mean(setting, list(method.budget))}")
        if type(method.budget[setting]) is int:
            need_count(setting, value)
    classes = _checked(name, model, images, classes, method.contrastive or budget.get("output") == "contrast")
    need_count("batch_size", batch_size)
    indices = range(len(images)) if indices is None else indices
    if len(indices) != len(images):
        raise ValueError(f"indices has {len(indices)} entries for {len(images)} images")
    device = next(model.parameters(), images).device
    step = 1 if method.slow else batch_size
    bar = tqdm(total=len(images), desc=name, unit="picture", mininterval=1, disable=not progress)
    with restored(model), bar:
        maps = torch.empty(len(images), *images.shape[2:])
        for start in range(0, len(images), step):
            part = slice(start, start + step)
            seeds = [draw_seed(name, seed, index) for index in indices[part]]
            # A clone is an ordinary tensor even where the caller works in inference mode.
            whole, wanted = images[part].to(device).clone(), classes[part].to(device).clone()
            job = Job(model, whole, wanted, seeds, batch_size, registered)
            maps[part] = method.make(job, **budget).detach().cpu()
            bar.update(len(seeds))
    need_finite(maps, f"the map of {name}")
    return maps.to(images.device)


def _checked(name: str, model: nn.Module, images: Tensor, classes: Tensor, contrastive: bool) -> Tensor:
    """`classes` as (B, K), or a sentence that says what does not fit."""
    need_network(model)
    need_pictures(images, unit=f"{name} takes")
    classes = classes[:, None] if classes.ndim == 1 else classes
    if classes.ndim != 2 or len(classes) != len(images):
        raise ValueError(f"classes must be ({len(images)}, K), the target first, got {tuple(classes.shape)}")
    classes = need_classes("classes", classes, _class_count(model, images[:1]))
    if contrastive and classes.shape[1] < 2:
        raise ValueError(f"{name} compares the target with rivals: give classes (B, K) with K of at least 2")
    for index, row in enumerate(classes.tolist()):
        if len(set(row)) < len(row):
            raise ValueError(f"classes of sample {index}: {row} must be distinct")
    return classes


def _class_count(model: nn.Module, image: Tensor) -> int:
    """N of the logits (B, N): a classifier of ours says it, any other network is asked about one picture."""
    if isinstance(model, FaceClassifier):
        return model.num_classes
    with torch.no_grad(), in_evaluation(model):
        need_logits(logits := answer(model, image.to(next(model.parameters(), image).device)), image)
    return int(logits.shape[1])

"""Scaled directed divergence under the signature of all explainers."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from xfrlib.cam import pooled_features
from xfrlib.explainers.job import Job
from xfrlib.explainers.registry import explainer
from xfrlib.profile import FORMS
from xfrlib.sdd import Divergence, scaled_directed_divergence

_SOURCE = "Shadman et al. 2025, arXiv 2505.03837; Verenich et al. 2021"


def _sdd(form: str) -> Callable[..., Tensor]:
    def make(
        job: Job,
        *,
        centre: bool = True,
        delta: float = Divergence.delta,
        scale: float = Divergence.scale,
        scale_min: float = Divergence.scale_min,
        scale_max: float = Divergence.scale_max,
    ) -> Tensor:
        divergence = Divergence(delta, scale, scale_min, scale_max, form)
        maps = pooled_features(job.model, job.images).maps(job.classes, centre=centre)
        return scaled_directed_divergence(maps, divergence, size=job.size, log=True)

    return make


for _form in FORMS:
    _title = f"SDD, {_form.replace('_', ' ')}"
    explainer(_title, _SOURCE, "xfrlib", name=f"sdd_{_form}", contrastive=True, logarithm=True)(_sdd(_form))

"""Scaled directed divergence under the signature of all explainers."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from xfrlib.explainers.job import Job, explainer
from xfrlib.profile import FORMS
from xfrlib.sdd import DEFAULT, Divergence, scaled_directed_divergence

_SOURCE = "Shadman et al. 2025, arXiv 2505.03837; Verenich et al. 2021"


def _sdd(
    form: str, job: Job, *, centre: bool = True, delta: float = DEFAULT.delta, scale: float = DEFAULT.scale,
    scale_min: float = DEFAULT.scale_min, scale_max: float = DEFAULT.scale_max,
) -> Tensor:  # fmt: skip
    divergence = Divergence(delta, scale, scale_min, scale_max, form)
    maps = job.pooled.maps(job.classes, centre=centre)
    return scaled_directed_divergence(maps, divergence, size=job.size, geometry=job.geometry, log=True)


for _form in FORMS:
    _title = "SDD" if _form == "sum" else f"SDD, {_form.replace('_', ' ')}"
    explainer(_title, _SOURCE, "xfrlib", name=f"sdd_{_form}", contrastive=True, logarithm=True)(partial(_sdd, _form))

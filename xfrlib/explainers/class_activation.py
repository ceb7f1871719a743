"""Class activation maps and their divergence under the signature of all explainers."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from xfrlib.cam import pooled_features
from xfrlib.explainers.job import Job
from xfrlib.explanation import explain_features
from xfrlib.sdd import Divergence


def cam(job: Job, *, centre: bool = True) -> Tensor:
    pooled = pooled_features(job.model, job.images)
    return job.upsampled(pooled.maps(job.classes[:, :1], centre=centre)[:, 0])


def exp_cam(job: Job, *, centre: bool = True, delta: float = 1.0) -> Tensor:
    """log of exp(delta CAM), largest value 0: the exponential comes after the upsampling, so it ranks as CAM does."""
    maps = delta * cam(job, centre=centre)
    return maps - maps.amax(dim=(1, 2), keepdim=True)


def sdd(form: str) -> Callable[..., Tensor]:
    def make(
        job: Job,
        *,
        centre: bool = True,
        delta: float = 1.0,
        scale: float = 1.0,
        scale_min: float = 1.0,
        scale_max: float = 50.0,
    ) -> Tensor:
        return explain_features(
            pooled_features(job.model, job.images),
            size=(job.images.shape[2], job.images.shape[3]),
            target=job.classes[:, 0],
            competitors=job.classes[:, 1:],
            centre=centre,
            divergence=Divergence(delta, scale, scale_min, scale_max, form),
        ).log_sdd

    return make

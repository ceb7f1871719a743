"""Scaled directed divergence: what the target's map has and its rivals' maps have not."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from xfrlib.checks import is_number, need_finite, need_none
from xfrlib.geometry import Geometry, upsampled
from xfrlib.profile import FORMS

EXPONENTIALS = ("after", "before")


@dataclass(frozen=True)
class Divergence:
    """The constants of scaled directed divergence that the paper's copies leave open; `ValueError` names a bad one."""

    delta: float = 1.0  #: amplification, per unit of logit; above 0
    scale: float = 1.0  #: k of the scale s; above 0
    scale_min: float = 1.0  #: the least s; above 0
    scale_max: float = 50.0  #: the largest s
    #: "sum"; "product" of the exponentials; "local_softmax": exp(delta s M_t) over itself plus all exp(delta M_c)
    form: str = "sum"

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ValueError(f"form = {self.form!r}: use one of {', '.join(FORMS)}")
        for name in ("delta", "scale", "scale_min"):
            if not (is_number(getattr(self, name)) and 0 < getattr(self, name) < float("inf")):
                raise ValueError(f"{name} = {getattr(self, name)!r}: must be a positive number")
        if not (is_number(self.scale_max) and self.scale_min <= self.scale_max):
            raise ValueError(f"scale_max = {self.scale_max!r}: must not be below scale_min = {self.scale_min!r}")


DEFAULT = Divergence()


def scaled_directed_divergence(
    maps: Tensor,
    divergence: Divergence = DEFAULT,
    *,
    target: int = 0,
    size: tuple[int, int] | None = None,
    geometry: Geometry | None = None,
    exponential: str = "after",
    log: bool = False,
) -> Tensor:
    r"""Scaled directed divergence of one class against its competitors: (B, h, w), or (B, H, W) with `size`.

    .. math::
        D_c = s M_t - M_c, \qquad
        \mathrm{SDD}_t = \sum_{c \ne t} e^{\delta D_c}, \qquad
        s = \mathrm{clip}\Big(k \frac{\mathrm{mean}_{c \ne t} \overline{|M_c|}}{\overline{|M_t|}}, s_{min}, s_{max}\Big)

    after Verenich et al. (2021) and section 3 of Shadman et al., "Explainable face recognition via improved
    localization" (2025). The paper's copy leaves k, s_min, delta and the joining of the exponentials open: they are
    `divergence`. `ValueError` names a sample with NaN or infinite values or whose target map is zero everywhere.

    Parameters
    ----------
    maps : Tensor
        (B, K, h, w) float, signed class activation maps, K >= 2. The scale is computed on them as they come.
    target : int
        Index of the target class, 0 to K - 1; the others are the competitors.
    size : tuple of int, optional
        (H, W) to which the maps are upsampled.
    geometry : Geometry, optional
        Where their cells look on it (`xfrlib.geometry`); None draws them as libraries do.
    exponential : {"after", "before"}
        With `size`: taken after the upsampling of the maps, or before it, in their own cells. Where all cells around
        a pixel underflow, their logarithms are upsampled in their place, so that pixels keep an order.
    log : bool
        Return the logarithm, whose largest value is 0 in each picture and not 1. Rank pixels by it: a sharp map
        underflows to exact zeros away from its peak.
    """
    if maps.ndim != 4 or maps.shape[1] < 2:
        raise ValueError(f"expected maps (B, K, h, w), K at least 2: a target and a rival; got {tuple(maps.shape)}")
    if exponential not in EXPONENTIALS:
        raise ValueError(f"exponential = {exponential!r}: use one of {', '.join(EXPONENTIALS)}")
    if not -maps.shape[1] <= target < maps.shape[1]:
        raise ValueError(f"target = {target}: there are {maps.shape[1]} maps")
    need_finite(maps, "its maps")
    maps = maps.roll(-target, dims=1)  # the target first, whatever its place was
    before = size is not None and exponential == "before"
    if before:
        # In float32 small values would underflow; a device without float64 leaves the work, and the result, to the CPU.
        maps = (maps.cpu() if maps.device.type == "mps" else maps).double()
    s = sdd_scale(maps, divergence)[:, None, None]
    if size is not None and not before:
        maps = upsampled(maps, size, geometry)
    ours, rivals = divergence.delta * s * maps[:, 0], divergence.delta * maps[:, 1:]
    if divergence.form == "sum":
        result = ours + torch.logsumexp(-rivals, dim=1)
    elif divergence.form == "product":
        result = rivals.shape[1] * ours - rivals.sum(dim=1)
    else:
        result = F.logsigmoid(ours - torch.logsumexp(rivals, dim=1))
    result = _from_zero(result)
    if size is not None and before:
        fine = upsampled(result.exp(), size, geometry)
        result = _from_zero(torch.where(fine > 0, fine.log(), upsampled(result, size, geometry)))
    return result if log else result.exp()


def sdd_scale(maps: Tensor, divergence: Divergence = DEFAULT, *, clamped: bool = True) -> Tensor:
    """The factor s of the target's map: maps (B, K, h, w), the target's first -> (B,), within its bounds or not."""
    sizes = maps.abs().mean(dim=(2, 3))
    need_none(sizes[:, 0] == 0, "sample {} of the batch has a target map that is zero everywhere: it has no scale")
    s = divergence.scale * sizes[:, 1:].mean(dim=1) / sizes[:, 0]
    return s.clamp(divergence.scale_min, divergence.scale_max) if clamped else s


def _from_zero(logarithms: Tensor) -> Tensor:
    """Each picture's largest value becomes 0: (B, H, W)."""
    return logarithms - logarithms.amax(dim=(1, 2), keepdim=True)

"""Scaled directed divergence: what the target's map has and its rivals' maps have not."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from xfrlib.profile import FORMS


def scaled_directed_divergence(
    maps: Tensor,
    *,
    target: int = 0,
    delta: float = 1.0,
    scale: float = 1.0,
    scale_min: float = 1.0,
    scale_max: float = 50.0,
    form: str = "sum",
    size: tuple[int, int] | None = None,
    log: bool = False,
) -> Tensor:
    r"""Scaled directed divergence of one class against its competitors.

    .. math::
        D_c = s M_t - M_c, \qquad
        \mathrm{SDD}_t = \sum_{c \ne t} e^{\delta D_c}, \qquad
        s = \mathrm{clip}\Big(k \frac{\mathrm{mean}_{c \ne t} \overline{|M_c|}}{\overline{|M_t|}}, s_{min}, s_{max}\Big)

    after Verenich et al. (2021) and section 3 of Shadman et al., "Explainable face recognition via improved
    localization" (2025). The paper's copy leaves k, s_min, delta and the joining of the exponentials open: they are
    arguments here, and the book shows what they do.

    Parameters
    ----------
    maps : (B, K, h, w) float
        Signed class activation maps, K >= 2. The scale is computed on them as they come.
    target : int
        Index in 0 to K - 1 of the target class; the others are the competitors.
    delta : float > 0
        Amplification, per unit of logit.
    scale, scale_min, scale_max : float > 0
        The k, s_min and s_max above.
    form : "sum", "product" or "local_softmax"
        "product" multiplies the exponentials; "local_softmax" is exp(delta s M_t) over itself plus the sum of
        exp(delta M_c).
    size : (H, W), optional
        Upsample the maps to this size first (bilinear, align_corners=False): the exponential comes last.
    log : bool
        Return the logarithm. Rank pixels by it: a sharp map underflows to exact zeros away from its peak.

    Returns
    -------
    (B, h, w), or (B, H, W) with `size`. Each picture's largest value is 1 (with `log`: 0).

    Raises
    ------
    ValueError
        For fewer than two maps, NaN or infinite values, a target map that is zero everywhere (naming the sample), or
        an argument out of range.
    """
    if maps.ndim != 4 or maps.shape[1] < 2:
        raise ValueError(
            f"expected maps (B, K, h, w) with K of at least 2 (a target and a rival), got {tuple(maps.shape)}"
        )
    if form not in FORMS:
        raise ValueError(f"form = {form!r}: use one of {', '.join(FORMS)}")
    for name, value in {"delta": delta, "scale": scale, "scale_min": scale_min}.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} = {value!r}: must be a positive number")
    if not scale_min <= scale_max:
        raise ValueError(f"scale_max = {scale_max!r}: must not be below scale_min = {scale_min!r}")
    if not -maps.shape[1] <= target < maps.shape[1]:
        raise ValueError(f"target = {target}: there are {maps.shape[1]} maps")
    _name_samples(~torch.isfinite(maps).flatten(1).all(1), "has a NaN or infinite value in its maps")

    maps = maps.roll(-target, dims=1)  # the target first, whatever its place was
    s = sdd_scale(maps, scale=scale, scale_min=scale_min, scale_max=scale_max)[:, None, None]
    if size is not None:
        maps = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    ours, rivals = delta * s * maps[:, 0], delta * maps[:, 1:]
    if form == "sum":
        result = ours + torch.logsumexp(-rivals, dim=1)
    elif form == "product":
        result = rivals.shape[1] * ours - rivals.sum(dim=1)
    else:
        result = F.logsigmoid(ours - torch.logsumexp(rivals, dim=1))
    result = result - result.amax(dim=(1, 2), keepdim=True)
    return result if log else result.exp()


def sdd_scale(maps: Tensor, *, scale: float = 1.0, scale_min: float = 1.0, scale_max: float = 50.0) -> Tensor:
    """The factor s of the target's map (the first), one per picture: maps (B, K, h, w) -> (B,)."""
    sizes = maps.abs().mean(dim=(2, 3))
    _name_samples(sizes[:, 0] == 0, "has a target map that is zero everywhere, so no scale can be computed")
    return (scale * sizes[:, 1:].mean(dim=1) / sizes[:, 0]).clamp(scale_min, scale_max)


def _name_samples(bad: Tensor, what: str) -> None:
    if bad.any():
        raise ValueError(
            f"sample {', '.join(str(i) for i in bad.nonzero().flatten().tolist()[:5])} of the batch {what}"
        )

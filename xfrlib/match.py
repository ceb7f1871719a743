"""Why do two pictures match? The similarity of a recogniser's embeddings as an exact sum over places."""

from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from xfrlib.checks import answer, need_none, need_tensor
from xfrlib.explanation import LaidMaps
from xfrlib.geometry import Geometry, map_geometry
from xfrlib.prediction import in_evaluation
from xfrlib.sdd import DEFAULT, Divergence, scaled_directed_divergence


@runtime_checkable
class Recogniser(Protocol):
    """What a ``torch.nn.Module`` needs for `xfrlib.explain_match`; a `Backbone` with an embedding head has it."""

    size: int  #: pixels of a side of its aligned pictures

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, size, size) RGB in [0, 1] -> last map (B, C, h, w)."""

    def embed(self, feature_map: Tensor) -> Tensor:
        """(B, C, h, w) -> embedding (B, D), not yet of unit length; affine in evaluation mode."""


@dataclass(frozen=True)
class MatchExplanation(LaidMaps):
    """Why each of B probes is as similar as it is to K templates, its mate's first; `cams` are in units of similarity.

    The mean of a CAM over its places, and its constant, add up to its similarity.
    """

    similarities: Tensor  #: (B, K) cosine of the probe's embedding and each template, in [-1, 1]
    constants: Tensor  #: (B, K) the part of each that belongs to no place: that of the head's offset
    chosen: Tensor  #: (B, K - 1) which of the nonmates given the others are


@torch.no_grad()
def template(recogniser: Recogniser, images: Tensor) -> Tensor:
    """One template from all pictures of a person, (n, 3, size, size) RGB in [0, 1]: (D,), of unit length.

    It is the mean of their embeddings, each of unit length, and brought to unit length again.
    """
    return _unit("the mean embedding", unit_embeddings(recogniser, images).mean(dim=0))


@torch.no_grad()
def unit_embeddings(recogniser: Recogniser, images: Tensor) -> Tensor:
    """Embeddings of unit length: (n, 3, size, size) RGB in [0, 1] -> (n, D)."""
    _check("images", images, recogniser)
    with in_evaluation(cast(nn.Module, recogniser)):
        embeddings = torch.cat([recogniser.embed(recogniser(part)) for part in images.split(32)])
    return _unit("images", embeddings)


@torch.inference_mode(False)
@torch.no_grad()
def explain_match(
    recogniser: Recogniser, probe: Tensor, mate: Tensor, nonmates: Tensor | None = None, *, top_k: int | None = None,
    registered: bool = True, divergence: Divergence = DEFAULT,
) -> MatchExplanation:  # fmt: skip
    r"""Explain how similar each probe is to its mate, and what sets the mate apart from others, in one forward pass.

    The head is affine, :math:`e = \sum_u A_u f_u + a` over the places u of the last map f, and so is the similarity

    .. math:: \cos(e, t) = \frac{1}{|e|} \Big( \sum_u (A_u f_u) \cdot t + a \cdot t \Big)

    to a template t of unit length, but for the length of e, the same for all templates. A place's term times the number
    of places is its value in the CAM of t; the last term is the constant. `ValueError` for a head that is not affine.

    Parameters
    ----------
    recogniser : Recogniser
        A backbone with an embedding head, or any module with its two steps. It runs as `explain` runs a network.
    probe : Tensor
        (B, 3, size, size) float, RGB in [0, 1], aligned as the recogniser wants it.
    mate : Tensor
        (D,), or (B, D) with one for each probe: the `xfrlib.match.template` it is compared with, of any length.
    nonmates : Tensor, optional
        (K - 1, D) or (B, K - 1, D), templates of others; those most similar to the probe are the best rivals. None:
        a map of zeros stands for them, so that `sdd` orders places as the mate's map does.
    top_k : int, optional
        Templates compared, from 2, the mate's among them: of `nonmates` the most similar to each probe; None: all.
    registered : bool
        Lay maps where their cells look; False: as CAM libraries do.
    divergence : Divergence
        The constants of `xfrlib.scaled_directed_divergence`. `delta` is per unit of similarity: at 1 the exponentials
        hardly bend, and `sdd` orders places much as the mate's map less the mean of the others.
    """
    _check("probe", probe, recogniser)
    module = cast(nn.Module, recogniser)
    with in_evaluation(module):
        features = answer(recogniser, probe)
        embeddings, offset = recogniser.embed(features), recogniser.embed(torch.zeros_like(features[:1]))[0]
        unit = _unit("probe", embeddings)
        check_affine(recogniser, features)
        own = _fitting("mate", mate, unit)
        others = own[:, :0] if nonmates is None else _fitting("nonmates", nonmates, unit)
        chosen = torch.arange(others.shape[1], device=unit.device).expand(len(unit), -1)
        if top_k is not None:
            if top_k not in range(2, others.shape[1] + 2):
                raise ValueError(f"top_k = {top_k!r}: must be from 2 to {others.shape[1] + 1}, the templates given")
            chosen = torch.einsum("bnd,bd->bn", others, unit).topk(top_k - 1, dim=1).indices
        templates = torch.cat([own, others.take_along_dim(chosen[..., None], dim=1)], dim=1)
        with torch.enable_grad():  # the gradient of (A f) . t is A^T t, whatever the map f
            anywhere = features.new_zeros(templates.shape[:2].numel(), *features.shape[1:]).requires_grad_()
            (weights,) = torch.autograd.grad((recogniser.embed(anywhere) * templates.flatten(0, 1)).sum(), anywhere)
        geometry = map_geometry(module, probe, recogniser)
    lengths = embeddings.norm(dim=1)[:, None]
    cams = torch.einsum("bkchw,bchw->bkhw", weights.unflatten(0, templates.shape[:2]), features)
    cams = cams * (cams.shape[2:].numel() / lengths[..., None, None])
    size = (probe.shape[2], probe.shape[3])
    laid = geometry if registered else Geometry.drawn(cams.shape[2:], size)
    compared = torch.cat([cams, torch.zeros_like(cams)], dim=1) if nonmates is None else cams
    compared = compared - compared.mean(dim=1, keepdim=True)  # the scale would multiply what all of them share
    log_sdd = scaled_directed_divergence(compared, divergence, size=size, geometry=laid, log=True)
    similarities, constants = torch.einsum("bkd,bd->bk", templates, unit), templates @ offset / lengths
    return MatchExplanation(cams, log_sdd.exp(), log_sdd, laid, similarities, constants, chosen)


@torch.no_grad()
def check_affine(recogniser: Recogniser, feature_map: Tensor) -> None:
    """`ValueError` unless the head is affine: head(f + g) + head(0) = head(f) + head(g) within rounding.

    f is the first of maps (B, C, h, w) that the recogniser gave; g is its negative, and then noise of its size.
    """
    f = feature_map[:1]
    noise = torch.randn(f.shape, generator=torch.Generator().manual_seed(0)).to(f) * f.std()
    none, of_f, *others = recogniser.embed(torch.cat([0 * f, f, 0 * f, -f, f + noise, noise]))  # weights are read once
    for both, of_g in (others[:2], others[2:]):
        off = float((both + none - of_f - of_g).norm() / max(of_f.norm(), of_g.norm()))
        if not off <= 1e-3:
            fault = f"the head of {type(recogniser).__name__} is not affine: on a sum of two maps it is {off:.1%} off"
            needs = "behind averages, linear layers and normalisation with fixed statistics alone"
            raise ValueError(f"{fault}. A similarity is a sum over places {needs}.")


def _check(name: str, images: Tensor, recogniser: Recogniser) -> None:
    if not isinstance(recogniser, Recogniser):
        needs = "`size`, a call that gives the last map, and `embed` from there to the embedding"
        raise ValueError(f"{type(recogniser).__name__} is no recogniser: it needs {needs}")
    shape = (3, recogniser.size, recogniser.size)
    need_tensor(name, images, f"of pictures of {shape}")
    if images.ndim != 4 or images.shape[1:] != shape or not len(images):
        raise ValueError(f"{name} has the shape {tuple(images.shape)}; expected one or more pictures of {shape}")


def _unit(name: str, vectors: Tensor) -> Tensor:
    """Vectors (..., D) brought to length 1."""
    lengths = vectors.norm(dim=-1, keepdim=True)
    bad = ~(torch.isfinite(lengths) & (lengths > 0)).flatten()
    need_none(bad, f"{name}, row {{}}: the embedding is zero, NaN or infinite and has no direction to compare")
    return vectors / lengths


def _fitting(name: str, given: Tensor, unit: Tensor) -> Tensor:
    """The templates given, for all probes or for each, as (B, k, D) of unit length; `unit` (B, D) are the probes'."""
    need_tensor(name, given, "of templates")
    rows, (count, width) = given[..., None, :] if name == "mate" and given.ndim else given, unit.shape
    each = rows.ndim == 3 and len(rows) == count
    if not (each or rows.ndim == 2) or not rows.is_floating_point() or rows.shape[-1] != width or not rows.shape[-2]:
        wanted = f"templates of {width} numbers, for all probes or for each of {count}"
        raise ValueError(f"{name} has the shape {tuple(given.shape)}; expected {wanted}")
    return _unit(name, rows.to(unit)).expand(count, -1, -1)

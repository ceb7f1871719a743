"""One call from pictures to maps: the classes compared, their CAMs and the SDD map, in a single forward pass."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from xfrlib.cam import PooledFeatures, pooled_features
from xfrlib.checks import need_classes
from xfrlib.geometry import Geometry, upsampled
from xfrlib.regions import top_fraction_mask
from xfrlib.sdd import DEFAULT, Divergence, scaled_directed_divergence

Classes = int | Sequence[int] | Tensor


@dataclass(frozen=True)
class LaidMaps:
    """Maps of K classes or templates, the target's first, on each of B pictures, and what the target's has beyond."""

    cams: Tensor  #: (B, K, h, w) signed, in units of the score that they explain
    sdd: Tensor  #: (B, H, W) in [0, 1], the largest value of each picture is 1: to look at
    log_sdd: Tensor  #: (B, H, W) at most 0: to rank pixels by
    geometry: Geometry  #: where the cells of `cams` are laid on the picture

    @property
    def upsampled_cams(self) -> Tensor:
        """`cams` laid over the picture: (B, K, H, W)."""
        return upsampled(self.cams, self.sdd.shape[1:], self.geometry)

    def mask(self, fraction: float = 0.2) -> Tensor:
        """The `xfrlib.top_fraction_mask` of `log_sdd`: (B, H, W) bool."""
        return top_fraction_mask(self.log_sdd, fraction)


@dataclass(frozen=True)
class Explanation(LaidMaps):
    """Why each of B pictures was given its class. K classes are compared, the target first; `cams` are in logits."""

    classes: Tensor  #: (B, K) int64
    probabilities: Tensor  #: (B, K) softmax probabilities of those classes, in [0, 1]
    logits: Tensor  #: (B, N) of all classes


def explain(
    model: nn.Module,
    images: Tensor,
    *,
    top_k: int = 5,
    target: Classes | None = None,
    competitors: Classes | None = None,
    centre: bool = True,
    registered: bool = True,
    divergence: Divergence = DEFAULT,
) -> Explanation:
    """Explain the decision of `model` on `images` by CAM and scaled directed divergence, in one forward pass.

    Parameters
    ----------
    model : torch.nn.Module
        Ends in global average pooling and one linear layer (`xfrlib.FaceClassifier`, torchvision's and timm's
        ResNets, ...). It runs in evaluation mode without gradients; its modes are put back.
    images : Tensor
        (B, 3, H, W) float, RGB in [0, 1]; channel order and normalisation belong to the model.
    top_k : int
        Number of classes compared, 2 to N, the target among them (the paper: 5). Unused where `competitors` is given.
    target : int or sequence of int or Tensor, optional
        The class explained, one or (B,); None is the predicted one.
    competitors : sequence of int or Tensor, optional
        (K - 1,) or (B, K - 1), the rivals. None: the classes of highest probability beside the target.
    centre : bool
        Subtract from the output weights their mean over classes first. That changes no probability, and makes the
        maps a function of the decision; False gives the raw maps of the paper.
    registered : bool
        Lay maps where their cells look; False: as CAM libraries do, mostly half a cell too far right and down.
    divergence : Divergence
        The open constants of `scaled_directed_divergence`.

    Raises
    ------
    ValueError
        If the model's end is of another kind, or an argument cannot be: the message names it.
    """
    settings: Any = {"top_k": top_k, "target": target, "competitors": competitors, "centre": centre}
    settings |= {"registered": registered, "divergence": divergence}
    return explain_features(pooled_features(model, images), size=(images.shape[2], images.shape[3]), **settings)


@torch.no_grad()
def explain_features(
    pooled: PooledFeatures,
    *,
    size: tuple[int, int],
    top_k: int = 5,
    target: Classes | None = None,
    competitors: Classes | None = None,
    centre: bool = True,
    registered: bool = True,
    divergence: Divergence = DEFAULT,
    exponential: str = "after",
) -> Explanation:
    """`explain` for a forward pass that has been made, of pictures of `size` (H, W): another setting costs no new pass.

    `exponential` is that of `xfrlib.scaled_directed_divergence`, the others are those of `explain`.
    """
    classes = select_classes(pooled.logits, top_k=top_k, target=target, competitors=competitors)
    cams = pooled.maps(classes, centre=centre)
    laid = pooled.geometry if registered else Geometry.drawn(cams.shape[2:], size)
    log_sdd = scaled_directed_divergence(cams, divergence, size=size, geometry=laid, exponential=exponential, log=True)
    probabilities = pooled.logits.softmax(dim=1).gather(1, classes)
    return Explanation(cams, log_sdd.exp(), log_sdd, laid, classes, probabilities, pooled.logits)


def select_classes(
    logits: Tensor, *, top_k: int = 5, target: Classes | None = None, competitors: Classes | None = None
) -> Tensor:
    """The classes to compare for each picture, the target first: logits (B, N) -> (B, K). Arguments as in `explain`."""
    count, n_classes = logits.shape
    if n_classes < 2:
        raise ValueError(f"the classifier has {n_classes} class: an explanation against rivals needs at least two")
    first = logits.argmax(dim=1) if target is None else _per_sample("target", target, (count,), logits)
    if competitors is None:
        if not isinstance(top_k, numbers.Integral) or not 2 <= top_k <= n_classes:
            raise ValueError(f"top_k = {top_k}: must be between 2 and the number of classes, {n_classes}")
        others = logits.scatter(1, first[:, None], -torch.inf).topk(top_k - 1, dim=1).indices
    else:
        if not (given := _indices("competitors", competitors)).ndim or not given.shape[-1]:
            raise ValueError("competitors is no list of rival classes, or an empty one: name at least one")
        others = _per_sample("competitors", given, (count, given.shape[-1]), logits)
        for index, (own, rivals) in enumerate(zip(first.tolist(), others.tolist(), strict=True)):
            if own in rivals or len(set(rivals)) < len(rivals):
                raise ValueError(f"competitors of sample {index} must be distinct, without the target {own}: {rivals}")
    return torch.cat([first[:, None], others], dim=1)


def _indices(name: str, value: Any) -> Tensor:
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be class indices, got {value!r}: give a name's place among them") from error


def _per_sample(name: str, value: Any, shape: tuple[int, ...], logits: Tensor) -> Tensor:
    tensor = need_classes(name, _indices(name, value).to(logits.device), logits.shape[1])
    try:
        return tensor.broadcast_to(shape)
    except RuntimeError as error:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; it must broadcast to {shape}") from error

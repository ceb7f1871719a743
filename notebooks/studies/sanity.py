"""Chapter 12: what a map does when the network, its labels, its seed or the picture's place changes."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from xfrlib.artifacts import fingerprint
from xfrlib.explainers.job import draw_seed
from xfrlib.models.weights import seeded
from xfrlib.plots import percent
from xfrlib.regions import top_fraction_mask

PADDINGS = {"reflect": "reflect", "edge": "replicate"}


def map_similarity(first: Tensor, second: Tensor, *, fraction: float = 0.2) -> pd.DataFrame:
    """How alike two maps of each picture are: two times (B, H, W), signs as they are -> one row a picture.

    Columns: ``correlation``, Spearman's over all pixels, equal values sharing their mean rank, in [-1, 1] and NaN
    where a map is constant; ``overlap``, the share of the `fraction` of highest pixels that both have, in [0, 1] and
    `fraction` by chance. Neither changes when a map is put through an increasing function, such as the exponential.
    """
    if first.shape != second.shape or first.ndim != 3:
        raise ValueError(f"expected two times (B, H, W), got {tuple(first.shape)} and {tuple(second.shape)}")
    ranks = [rankdata(maps.detach().cpu().flatten(1).numpy(), axis=1) for maps in (first, second)]
    a, b = (r - r.mean(axis=1, keepdims=True) for r in ranks)
    size = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    correlation = np.divide((a * b).sum(axis=1), size, out=np.full(len(a), np.nan), where=size > 0)
    masks = [top_fraction_mask(maps.detach().cpu(), fraction) for maps in (first, second)]
    shared = (masks[0] & masks[1]).sum(dim=(1, 2)) / masks[0].sum(dim=(1, 2))
    return pd.DataFrame({"correlation": correlation, "overlap": shared.double().numpy()})


def centre_map(size: tuple[int, int]) -> Tensor:
    """A map that knows only where the middle of the picture is: minus the distance from it, (H, W)."""
    y, x = (torch.arange(side, dtype=torch.float32) - (side - 1) / 2 for side in size)
    return -(y[:, None].square() + x.square()).sqrt()


def in_turn(units: ArrayLike) -> NDArray[np.int64]:
    """Places of `units` (n,) that take one of each unit, then a second of each, and so on, in the order given."""
    given = pd.Series(np.asarray(units))
    return np.argsort(given.groupby(given).cumcount().to_numpy(), kind="stable")


def other_pictures(labels: Sequence[int] | np.ndarray, *, same_identity: bool, seed: int = 0) -> np.ndarray:
    """For each picture the index of another one, of the same identity or of another, drawn from `seed`: (n,).

    Raises `ValueError` naming the picture for which there is none.
    """
    labels, rng = np.asarray(labels), np.random.default_rng(seed)
    partners = np.empty(len(labels), dtype=int)
    for index, label in enumerate(labels):
        others = np.flatnonzero((labels == label) == same_identity)
        others = others[others != index]
        if not len(others):
            which = "the same" if same_identity else "another"
            raise ValueError(f"picture {index}: there is no other picture of {which} identity; give more pictures")
        partners[index] = rng.choice(others)
    return partners


# --- the network's parameters


def blocks_from_the_head(model: nn.Module, images: Tensor) -> list[str]:
    """Names of the blocks with parameters that a forward pass uses, the last used first.

    A block is what stands in a numbered list of blocks ("backbone.body.5"), else the module around a layer ("head",
    "backbone.conv1"). What the logits do not need, as the embedding layers of a released recogniser, is left out.
    """
    twin = copy.deepcopy(model).eval()  # so that no hook of ours ever touches the network itself
    called: list[str] = []
    for name, module in twin.named_modules():
        if any(True for _ in module.parameters(recurse=False)):
            module.register_forward_pre_hook(lambda _, __, name=name: called.append(_block_of(name)))
    with torch.no_grad():
        twin(images[:1])
    return list(dict.fromkeys(reversed(called)))


def _block_of(layer: str) -> str:
    parts = layer.split(".")
    number = next((i for i, part in enumerate(parts[:-1]) if part.isdigit()), None)
    return ".".join(parts[:-1] if number is None else parts[: number + 1]) or layer


def randomise(module: nn.Module) -> None:
    """Draw all parameters of a module anew as torch does for a new layer; BatchNorm forgets its statistics too.

    Raises `ValueError` for a layer that has parameters and no ``reset_parameters``.
    """
    for name, layer in module.named_modules():
        if not any(True for _ in layer.parameters(recurse=False)):
            continue
        if not callable(getattr(layer, "reset_parameters", None)):
            raise ValueError(
                f"layer {name!r} ({type(layer).__name__}) has no reset_parameters: it cannot be drawn anew"
            )
        layer.reset_parameters()


def cascade(
    model: nn.Module, images: Tensor, *, seed: int = 0, stops: int | None = None
) -> Iterator[tuple[str, nn.Module]]:
    """Randomise a copy of the network block by block, from the head down to the picture; pairs (block, network).

    The "cascading randomisation" of Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018, section 3. The
    network yielded has all blocks from the head down to the named one drawn anew; it is one copy that goes on
    changing, so use it before asking for the next. `model` itself, its modes and torch's random numbers stay as they
    are, whatever happens in between. `images` (B, 3, H, W) show the order of the blocks. With `stops`, so many pairs
    are yielded, evenly spaced, the first and the last block among them.
    """
    blocks = blocks_from_the_head(model, images)
    if stops is not None and stops < 2:
        raise ValueError(f"stops = {stops}: must be at least 2, the head and the whole network")
    shown = set(np.linspace(0, len(blocks) - 1, min(stops or len(blocks), len(blocks))).round().astype(int).tolist())
    twin = copy.deepcopy(model).eval()
    for place, name in enumerate(blocks):
        # not `seed` itself: a head is often trained from the very numbers that a small seed gives, and stays near them
        with seeded(draw_seed("cascade", seed, place)):
            randomise(twin.get_submodule(name))
        if place in shown:
            yield name, twin


# --- its labels


def learned_head(pooled: Tensor, labels: Tensor, num_classes: int, *, penalty: float = 1e-3) -> nn.Linear:
    """A linear layer that learned `labels` (n,) from averaged features (n, C): multinomial logistic regression.

    scikit-learn's, with an L2 `penalty` on the weights so weak that the labels can be learned by heart. Every class
    must have a picture.
    """
    if len(set(labels.tolist())) != num_classes or num_classes < 2:
        raise ValueError(f"{len(set(labels.tolist()))} of {num_classes} classes have a picture: give one of each")
    fitted = LogisticRegression(C=1 / penalty, max_iter=2000).fit(pooled.cpu().double().numpy(), labels.cpu().numpy())
    weight, bias = fitted.coef_, fitted.intercept_
    if len(weight) == 1:  # of two classes it gives the second one's only
        weight, bias = (np.concatenate([-one, one]) / 2 for one in (weight, bias))
    head = nn.Linear(pooled.shape[1], num_classes)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias))
    return head.to(pooled.device)


def with_head(model: nn.Module, head: nn.Linear) -> nn.Module:
    """A copy of the classifier with another last layer, in evaluation mode."""
    twin = copy.deepcopy(model).eval()
    twin.head = copy.deepcopy(head)
    return twin


def translated(images: Tensor, shift: tuple[int, int], *, padding: str = "reflect") -> Tensor:
    """Move pictures by whole pixels; what comes into view is padded.

    Parameters
    ----------
    images : Tensor
        (B, C, H, W).
    shift : tuple of int
        (down, right) in pixels.
    padding : {"reflect", "edge"}
        The picture mirrored at its border, or its border repeated.

    Raises
    ------
    ValueError
        For an unknown padding, or a shift of the size of the picture.
    """
    if padding not in PADDINGS:
        raise ValueError(f"padding = {padding!r}: use one of {', '.join(PADDINGS)}")
    height, width = images.shape[-2:]
    reach = max(abs(step) for step in shift)
    if reach >= min(height, width):
        raise ValueError(f"shift = {shift}: must be less than the picture, {height} x {width}")
    wide = F.pad(images, (reach,) * 4, mode=PADDINGS[padding])
    top, left = reach - shift[0], reach - shift[1]
    return wide[..., top : top + height, left : left + width]


def by_heart(
    options: Mapping[str, Any], some: Tensor, taught: Tensor, *, epochs: int, rate: float, checkpoint: Path
) -> dict[str, Any]:
    """Options of `xfrlib.training.fine_tune` for pictures that are to be known by heart.

    Those of the profile, but for the number of epochs, the rate, which is constant and one for all layers, and no
    augmentation. `some` and `taught`, numbers and labels of the pictures, name the training.
    """
    return {
        **options,
        "epochs": epochs,
        "lr_step": epochs,
        "learning_rate": rate,
        "backbone_learning_rate": None,
        "augmentation": "none",
        "freeze": "nothing",
        "log": None,
        "tensorboard": None,
        "checkpoint": checkpoint,
        "fingerprint": fingerprint(options["fingerprint"], some.tolist(), taught.tolist()),
    }


# --- words and tables


def means(similarity: pd.DataFrame) -> dict[str, float]:
    """Mean correlation and overlap of `map_similarity`."""
    return {column: float(similarity[column].mean()) for column in ("correlation", "overlap")}


def heat(cascade: pd.DataFrame, measure: str, *references: Mapping[str, pd.DataFrame]) -> NDArray[np.float64]:
    """Mean similarity with the original map: (methods, stops of the cascade and references).

    `cascade` has a row for each `method`, `block` and picture; `references` are tables by method, in their order.
    """
    methods, blocks = list(references[0]), list(cascade["block"].unique())
    stops = cascade.pivot_table(index="method", columns="block", values=measure).loc[methods, blocks]
    ends = np.array([[reference[name][measure].mean() for reference in references] for name in methods])
    return np.hstack([stops.to_numpy(), ends])


def stop_names(blocks: Sequence[str]) -> list[str]:
    """The stops of a cascade, for a reader: "head", "… to stage1.0", ..., "whole network"."""
    return ["head", *(f"… to {block.removeprefix('backbone.')}" for block in blocks[1:-1]), "whole network"]


def whole_findings(
    check: Mapping[str, Mapping[str, pd.DataFrame]], knows: Mapping[str, float], *, pictures: int, epochs: int
) -> str:
    """What two whole networks know of true and permuted labels, and what became of the maps of SDD and CAM.

    `check` has similarities with the maps after true labels, by method and by what is compared.
    """
    sdd, cam = ({k: f"{t['overlap'].mean():.2f}" for k, t in check[name].items()} for name in ("sdd_sum", "cam"))
    too_little = (
        "That is less than the 95 % which the study asks for. So this check does not count yet: it needs other "
        "values of `label_epochs` and `label_rate`. "
    )
    return (
        f"After {epochs} epochs the network with true labels knows {percent(knows['true labels'])} of {pictures} "
        f"pictures by heart, the one with permuted labels {percent(knows['permuted labels'])}. "
        f"{too_little if knows['permuted labels'] < 0.95 else ''}**What to notice.** SDD's regions after permuted and "
        f"after true labels overlap by {sdd['permuted labels']}, CAM's by {cam['permuted labels']}. "
        f"Another training on true labels reaches {sdd['true labels again']} and {cam['true labels again']}, two "
        f"people's maps {sdd['two strangers']} and {cam['two strangers']}."
    )

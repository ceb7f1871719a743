"""Spoilt arguments of the functions that take tensors, and what must hold of a result all the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from bad_kinds import ANYTHING, NUMBERS, Case, Kind, holds
from hypothesis import strategies as st
from test_any_model import Net
from torch import Tensor

from xfrlib import (
    Divergence,
    FaceClassifier,
    class_activation_maps,
    deletion_retention,
    explain,
    explain_match,
    should_show,
    top_fraction_mask,
)
from xfrlib.models.backbones import IResNet
from xfrlib.models.weights import seeded

PICTURES, SIDE, CLASSES = 3, 16, 5
Draw = Callable[[st.SearchStrategy[Any]], Any]


# --- spoilt tensors


def cast(draw: Draw, value: Tensor) -> Any:
    """Another kind of number."""
    kinds = (torch.uint8, torch.int64, torch.bool, torch.float16, torch.bfloat16, torch.float64, torch.complex64)
    return value.to(draw(st.sampled_from(kinds)))


def scaled(draw: Draw, value: Tensor) -> Any:
    """Another range."""
    return value * draw(st.sampled_from([-1.0, 0.0, 2.0, 255.0, -7, 1e30, 1e38, 1e-30]))


def holed(draw: Draw, value: Tensor) -> Any:
    """A value that is no number, or far out."""
    value = value.clone()
    if value.is_floating_point() and value.numel():
        place = draw(st.integers(0, value.numel() - 1))
        value.view(-1)[place] = draw(st.sampled_from([torch.nan, torch.inf, -torch.inf, 1e37]))
    return value


def less(draw: Draw, value: Tensor) -> Any:
    """An axis less, or shorter, even empty."""
    if not value.ndim:
        return value
    axis = draw(st.integers(0, value.ndim - 1))
    if draw(st.booleans()) and value.shape[axis]:
        return value.select(axis, 0).contiguous()
    return value.narrow(axis, 0, draw(st.integers(0, value.shape[axis]))).contiguous()


def more(draw: Draw, value: Tensor) -> Any:
    """An axis more, longer, or elsewhere."""
    axis = draw(st.integers(0, max(0, value.ndim - 1)))
    if not value.ndim or draw(st.booleans()):
        return value[None].contiguous()
    if draw(st.booleans()):
        return torch.cat([value, value], axis)
    return value.transpose(axis, 0).contiguous()


def other(draw: Draw, value: Tensor) -> Any:
    """No tensor."""
    array = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    return draw(st.one_of(st.sampled_from([array, value.tolist(), list(value) if value.ndim else 1]), ANYTHING))


@st.composite
def spoilt(draw: Draw, value: Tensor) -> Any:
    """A tensor after one or two of these."""
    for change in draw(st.lists(st.sampled_from([cast, scaled, holed, less, more, other]), min_size=1, max_size=2)):
        value = change(draw, value) if isinstance(value, Tensor) else value
    return value


# --- the functions, each with good arguments and with what holds of its result


class Call(NamedTuple):
    """A function, its good arguments, how some are spoilt, and the check of a result."""

    function: Callable[..., Any]
    good: dict[str, Any]
    spoils: dict[str, st.SearchStrategy[Any]]
    check: Callable[[Any, dict[str, Any]], None]
    words: tuple[str, ...] = ()  #: other names of the arguments in a sentence


def rand(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)))


with seeded(0):
    OWN = FaceClassifier(IResNet("tiny", {4: 1, 6: 1}, embedding_size=3), CLASSES).eval()
    RECOGNISER = IResNet("tiny", {4: 1}, stem_stride=1, embedding_size=3).eval()
RECOGNISER.size = 14
MODELS = {"own": OWN, "foreign": Net().eval()}
IMAGES = rand(PICTURES, 3, SIDE, SIDE)
MASKS = torch.zeros(PICTURES, SIDE, SIDE, dtype=torch.bool)
MASKS[:, 2:7, 3:9] = True
LOGITS = rand(PICTURES, CLASSES)


def check_mask(mask: Tensor, given: dict[str, Any]) -> None:
    maps, fraction = given["maps"], given["fraction"]
    count = round(fraction * maps.shape[1] * maps.shape[2])
    holds(mask.dtype == torch.bool and mask.shape == maps.shape, "shape")
    for chosen, row in zip(mask.flatten(1), maps.flatten(1), strict=True):
        holds(int(chosen.sum()) == count, "number of pixels")
        holds(not 0 < count < len(row) or row[chosen].min() >= row[~chosen].max(), "a higher pixel is left out")


def check_maps(maps: Tensor, given: dict[str, Any]) -> None:
    features, weight, classes = (given[name] for name in ("features", "weight", "classes"))
    holds(bool(maps.isfinite().all()), "values that are no numbers")
    near = 0.05 if maps.dtype in (torch.float16, torch.bfloat16) else 1e-4
    for found, f, row in zip(maps.double(), features.double(), classes.tolist(), strict=True):
        for one, c in zip(found, row, strict=True):
            parts = weight[c].double()[:, None, None] * f
            least = torch.finfo(maps.dtype).tiny + near * parts.abs().sum(0)
            holds(((one - parts.sum(0)).abs() <= least).all(), "another sum")


def check_explanation(found: Any, given: dict[str, Any]) -> None:
    for name in ("cams", "sdd", "log_sdd", "probabilities", "logits"):
        holds(bool(getattr(found, name).isfinite().all()), f"{name}: values that are no numbers")
    holds(bool((found.sdd.amax((1, 2)) == 1).all()) and found.sdd.min() >= 0, "range of the map")
    holds(all(len(set(row)) == len(row) for row in found.classes.tolist()), "a class twice")
    model = given["model"]
    bias = (model.head if model is OWN else model.fc).bias.detach()
    scores = (found.logits - bias).double().gather(1, found.classes)
    means = found.cams.double().mean((2, 3))
    size = 1 + float(scores.abs().max())
    holds(torch.allclose(means[:, :1] - means, scores[:, :1] - scores, atol=1e-3 * size), "maps do not add up")


def check_table(table: Any, given: dict[str, Any]) -> None:
    holds(bool(np.isfinite(table.to_numpy(float)).all()), "values that are no numbers")
    if given["fill"] in ("black", "grey") if isinstance(given["fill"], str) else False:
        images, value = given["images"], 0.5 * (given["fill"] == "grey")
        changed = torch.where(given["masks"][:, None], torch.full_like(images, value), images)
        with torch.no_grad():
            rows = given["model"](changed).double().softmax(1)
        wanted = rows[torch.arange(len(rows)), torch.from_numpy(table["predicted"].to_numpy())]
        holds(np.allclose(wanted, table["deletion_probability"], atol=1e-5), "another probability")


def check_judgements(found: Any, given: dict[str, Any]) -> None:
    holds(len(found) == len(given["images"]), "number of judgements")
    for one in found:
        holds(np.isfinite([one.deletion, one.retention]).all(), "values that are no numbers")
        seen = [x if abs(x) >= 0.05 else 0.0 for x in (one.deletion, one.retention)]
        holds(one.show == (min(seen) > given["threshold"]), "verdict")


def check_match(found: Any, given: dict[str, Any]) -> None:
    for name in ("cams", "sdd", "log_sdd", "similarities", "constants"):
        holds(bool(getattr(found, name).isfinite().all()), f"{name}: values that are no numbers")
    holds(bool((found.similarities.abs() <= 1.001).all()), "similarity")
    sums = found.cams.mean((2, 3)) + found.constants
    holds(torch.allclose(sums, found.similarities, atol=1e-3), "maps do not add up")


def check_constants(found: Any, given: dict[str, Any]) -> None:
    numbers = [getattr(found, name) for name in ("delta", "scale", "scale_min")]
    holds(all(0 < number < float("inf") for number in numbers) and found.scale_max >= found.scale_min, "impossible")


FILLS = st.one_of(st.sampled_from(["grey", "mean", "blur", "pink"]), ANYTHING, spoilt(rand(3, 1, 1)))
JUDGED: dict[str, st.SearchStrategy[Any]] = {
    "images": spoilt(IMAGES), "masks": spoilt(MASKS), "fill": FILLS, "mean": spoilt(rand(3)),
    "logits": spoilt(LOGITS), "temperature": ANYTHING, "pairs": spoilt(torch.tensor(PICTURES * [[0, 1, 2]])),
}  # fmt: skip
GOOD = {"model": OWN, "images": IMAGES, "masks": MASKS, "fill": "black", "mean": None, "logits": None,
        "temperature": 1.0, "pairs": None}  # fmt: skip
CALLED = {
    "top_fraction_mask": Call(
        top_fraction_mask, {"maps": rand(PICTURES, 8, 8), "fraction": 0.2},
        {"maps": spoilt(rand(PICTURES, 8, 8)), "fraction": ANYTHING}, check_mask, ("map",),
    ),
    "class_activation_maps": Call(
        class_activation_maps,
        {"features": rand(2, 4, 3, 3), "weight": rand(5, 4), "classes": torch.tensor([[0, 1], [4, 2]])},
        {"features": spoilt(rand(2, 4, 3, 3)), "weight": spoilt(rand(5, 4)),
         "classes": spoilt(torch.tensor([[0, 1], [4, 2]]))}, check_maps,
    ),
    "explain": Call(
        explain, {"model": OWN, "images": IMAGES, "top_k": 3, "target": None, "competitors": None},
        {"images": spoilt(IMAGES), "top_k": ANYTHING, "target": st.one_of(ANYTHING, spoilt(torch.tensor([0, 1, 2]))),
         "competitors": st.one_of(ANYTHING, spoilt(torch.tensor([[3, 4]])))},
        check_explanation, ("pictures",),
    ),
    "deletion_retention": Call(deletion_retention, GOOD, JUDGED, check_table, ("pictures",)),
    "should_show": Call(
        should_show, {**GOOD, "threshold": 0.0}, {**JUDGED, "threshold": ANYTHING}, check_judgements, ("pictures",),
    ),
    "explain_match": Call(
        explain_match,
        {"recogniser": RECOGNISER, "probe": rand(2, 3, 14, 14), "mate": rand(3), "nonmates": rand(2, 3) - 0.5},
        {"probe": spoilt(rand(2, 3, 14, 14)), "mate": spoilt(rand(3)), "nonmates": spoilt(rand(2, 3) - 0.5)},
        check_match, ("images",),
    ),
    "Divergence": Call(
        Divergence, {}, {"delta": NUMBERS, "scale": NUMBERS, "scale_min": ANYTHING, "scale_max": ANYTHING,
                         "form": ANYTHING}, check_constants,
    ),
}  # fmt: skip


@st.composite
def cases(draw: Draw, call: Call) -> Case:
    """One or two arguments spoilt; of a network, our own or a foreign one."""
    names = draw(st.lists(st.sampled_from(sorted(call.spoils)), min_size=1, max_size=2, unique=True))
    given = call.good | {name: draw(call.spoils[name]) for name in names}
    if "model" in given:
        given["model"] = MODELS[draw(st.sampled_from(sorted(MODELS)))]

    def attempt(folder: Path) -> None:
        call.check(call.function(**given), given)

    shown = {
        name: (given[name].dtype, tuple(given[name].shape)) if isinstance(given[name], Tensor) else given[name]
        for name in names
    }
    named = tuple(call.good) or names  # sizes that disagree may be told of either side
    return Case(attempt, (*named, *call.words), f"{type(given.get('model')).__name__} {shown}")


CALLS = {name: Kind(cases(call)) for name, call in CALLED.items()}

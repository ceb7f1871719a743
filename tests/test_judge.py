"""One loop deletes and retains for all chapters: held to the loops that chapters 10 and 12 had, written out naively."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from studies.sensitivity import balance
from xfrlib import FaceClassifier, deletion_retention
from xfrlib.judge import evaluate, perturbed

Fills = Mapping[str, "str | Tensor"]
PEOPLE = np.array([0, 0, 1, 1, 2])


@pytest.fixture
def regions() -> dict[str, np.ndarray]:
    """Four of 51 of 256 pixels: two maps that agree on some pictures, a constant one, and the first once more."""
    generator = np.random.default_rng(0)
    first, second = np.zeros((2, 5, 256), dtype=bool)
    for masks in (first, second):
        for mask in masks:
            mask[generator.permutation(256)[:51]] = True
    second[[0, 3]] = first[[0, 3]]
    constant = np.broadcast_to(first[4], first.shape)
    flat = {"first": first, "second": second, "constant": constant, "again": first}
    return {name: masks.reshape(5, 16, 16) for name, masks in flat.items()}


@pytest.fixture
def fills(images: Tensor) -> Fills:
    return {"grey": "grey", "blur": "blur", "the next picture": images.roll(1, dims=0)}


def judged(model: FaceClassifier, images: Tensor, regions: Mapping[str, np.ndarray], fills: Fills, size: int):
    with torch.no_grad():
        logits = model(images)
    return evaluate(
        model, images, PEOPLE, regions, logits=logits, fills=fills, temperature=2.0, batch_size=size, controls=(),
        network=3, pairs=logits.topk(3, dim=1).indices, progress=False,
    )  # fmt: skip


def margin(logits: Tensor, classes: Tensor) -> Tensor:
    """Of the first of `classes`, over whoever is the best rival in these logits."""
    z, own = logits.double(), classes[:, :1]
    return z.gather(1, own)[:, 0] - z.scatter(1, own, -torch.inf).amax(dim=1)


def lead(logits: Tensor, classes: Tensor) -> Tensor:
    """Of the first of `classes`, over the mean of the others."""
    z = torch.stack([row[own] for row, own in zip(logits.double(), classes, strict=True)])
    return z[:, 0] - z[:, 1:].mean(dim=1)


SCORES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"lead_drop": lead, "margin_drop": margin}


@torch.no_grad()
def region_after_region(
    model: nn.Module, images: Tensor, regions: Mapping[str, np.ndarray], fills: Fills, size: int, score: str
) -> Tensor:
    """The loop that chapter 10 had: falls (n, regions, 2) of a score in deletion and retention, means over fills."""
    columns = []
    for masks in map(torch.tensor, regions.values()):
        parts = []
        for start in range(0, len(images), size):
            here = slice(start, start + size)
            batch, before = images[here], model(images[here])
            classes, drops = before.topk(3, dim=1).indices, torch.zeros(len(batch), 2, dtype=torch.float64)
            for fill in fills.values():
                for kind, removed in enumerate((masks[here], ~masks[here])):
                    if isinstance(fill, Tensor):
                        changed = torch.where(removed[:, None], fill[here], batch)
                    else:
                        changed = perturbed(batch, removed, fill)
                    fall = SCORES[score](before, classes) - SCORES[score](model(changed), classes)
                    drops[:, kind] += fall / 2.0 / len(fills)
            parts.append(drops)
        columns.append(torch.cat(parts))
    return torch.stack(columns, dim=1)


def distinct_regions(
    model: nn.Module, images: Tensor, regions: Mapping[str, np.ndarray], fills: Fills, size: int
) -> pd.DataFrame:
    """The loop that chapter 12 had: in each batch every distinct region of a picture goes through the network once."""
    tables, names = [], list(regions)
    stack = np.stack(list(regions.values()), axis=1)
    for start in range(0, len(images), size):
        batch, picture, distinct = images[start : start + size], [], []
        row_of = np.empty((len(batch), len(names)), dtype=int)
        for index, masks in enumerate(stack[start : start + size]):
            different, inverse = np.unique(masks.reshape(len(names), -1), axis=0, return_inverse=True)
            row_of[index] = len(picture) + inverse.ravel()
            picture += [index] * len(different)
            distinct.append(torch.from_numpy(different.reshape(-1, *masks.shape[1:])))
        which, once = torch.tensor(picture), torch.cat(distinct)
        for name, fill in fills.items():
            shown = fill[start : start + size][which] if isinstance(fill, Tensor) else fill
            pairs = model(batch[which]).topk(3, dim=1).indices
            answers = deletion_retention(model, batch[which], once, fill=shown, temperature=2.0, pairs=pairs)
            for place, region in enumerate(names):
                rows = answers.iloc[row_of[:, place]].reset_index(drop=True)
                tables.append(rows.assign(image=range(start, start + len(batch)), method=region, fill=name))
    return pd.concat(tables, ignore_index=True)


@pytest.mark.parametrize("size", [2, 3, 5, 64])
def test_the_loop_is_that_of_one_region_after_the_other(
    classifier: FaceClassifier, images: Tensor, regions: dict[str, np.ndarray], fills: Fills, size: int
) -> None:
    """Batches of 2 and 3 of 5 pictures leave a partial one; one fill is pictures."""
    table = judged(classifier, images, regions, fills, size)
    means = table.groupby(["image", "method"], sort=False).mean(numeric_only=True)
    naive = {score: region_after_region(classifier, images, regions, fills, size, score) for score in SCORES}
    for place, name in enumerate(regions):
        own = means.xs(name, level="method").sort_index()
        for score, falls in naive.items():
            np.testing.assert_allclose(own[[f"deletion_{score}", f"retention_{score}"]], falls[:, place], atol=1e-5)
        by_lead = naive["lead_drop"][:, place]
        np.testing.assert_allclose(balance(own), by_lead[:, 0] - by_lead[:, 1], atol=1e-5)
    assert (naive["lead_drop"] - naive["margin_drop"]).abs().max() > 0.01, "the best rival is another afterwards"


@pytest.mark.parametrize("size", [2, 3, 5, 64])
def test_the_loop_is_that_of_distinct_regions(
    classifier: FaceClassifier, images: Tensor, regions: dict[str, np.ndarray], fills: Fills, size: int
) -> None:
    keys = ["image", "method", "fill"]
    table = judged(classifier, images, regions, fills, size).sort_values(keys, ignore_index=True)
    naive = distinct_regions(classifier, images, regions, fills, size).sort_values(keys, ignore_index=True)
    pd.testing.assert_frame_equal(table[naive.columns], naive, check_dtype=False, rtol=1e-4, atol=1e-4)
    assert table["label"].tolist() == PEOPLE[table["image"]].tolist() and set(table["network"]) == {3}
    assert (table["correct"] == (table["label"] == table["predicted"])).all()


def test_a_region_that_many_share_costs_its_passes_once(
    classifier: FaceClassifier, images: Tensor, regions: dict[str, np.ndarray], fills: Fills
) -> None:
    passes = []
    with classifier.register_forward_hook(lambda _, inputs, __: passes.append(len(inputs[0]))):
        table = judged(classifier, images, regions, fills, 3)
    distinct = sum(len({masks[i].tobytes() for masks in regions.values()}) for i in range(5))
    assert distinct == 5 + 3 + 4  # of "first"; of "second" where it differs; of "constant" where it is not "first"
    assert sum(passes) == 5 + 2 * len(fills) * distinct and len(table) == 5 * len(regions) * len(fills)
    first, again = (table[table["method"] == name].drop(columns="method") for name in ("first", "again"))
    pd.testing.assert_frame_equal(first.reset_index(drop=True), again.reset_index(drop=True))

"""A planted shortcut: made people of whom some always carry a sign that has nothing to do with their faces.

A network that learns from such pictures can name the carriers by the sign instead of the face. Whether it does is
measured by intervention, the sign put in or taken away with all else as it is; whether an explainer shows it can then
be scored, for the pixels of the sign are known. After J. Adebayo et al., "Debugging tests for model explanations",
NeurIPS 2020, and their "Post hoc explanations may be ineffective for detecting unknown spurious correlation", ICLR
2022, with face pictures, and with a control network to which the same sign means nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import TensorDataset

from madefaces.face_paint import SIZE
from madefaces.people import Identity, make_families, picture_seed, render

SIGNS = ("corner", "glasses")
PLANS = ("shortcut", "control", "none")
SIDE = 16  # pixels of the corner's square: one cell of a 7 x 7 map
CORNER = (225, 40, 175)  # a pink that no background, skin or cloth of these faces has
GLASSES = (1.0, 0.64, 0.9, 0.8, 0.5, 1.0)  # genes of the planted pair: red, wide and thick; the first says "present"


class Planted(NamedTuple):
    """n pictures in two versions that differ in the sign alone."""

    without: NDArray[np.uint8]  #: (n, 112, 112, 3) RGB
    with_sign: NDArray[np.uint8]  #: (n, 112, 112, 3) RGB
    mask: NDArray[np.bool_]  #: (n, 112, 112), True exactly where the two can differ


def plant(people: Sequence[Identity], seeds: Sequence[int], sign: str = "corner") -> Planted:
    """Pictures of made people with and without a sign: one person and one nuisance seed for each picture.

    "corner" is a pink square of `SIDE` pixels in the upper left corner, over whatever is there. "glasses" is a pair of
    red glasses that the renderer paints; people who wear glasses of their own have none in the version without, and
    what an occluder hides belongs to no mask. Raises ValueError for an unknown sign.
    """
    if sign not in SIGNS:
        raise ValueError(f"sign = {sign!r}: use one of {', '.join(SIGNS)}")
    if sign == "corner":
        without, _ = render(people, seeds)
        with_sign = without.copy()
        with_sign[:, :SIDE, :SIDE] = CORNER
        mask = np.zeros((len(without), SIZE, SIZE), dtype=bool)
        mask[:, :SIDE, :SIDE] = True
        return Planted(without, with_sign, mask)
    bare = [_with_glasses(who, (0.0, *who.genes["glasses"][1:])) for who in people]
    without, _ = render(bare, seeds)
    with_sign, _ = render([_with_glasses(who, GLASSES) for who in people], seeds)
    return Planted(without, with_sign, (without != with_sign).any(axis=3))


def _with_glasses(person: Identity, genes: tuple[float, ...]) -> Identity:
    return replace(person, genes=person.genes | {"glasses": genes})


def shortcut_people(families: int = 4, family_size: int = 3, *, seed: int = 0) -> tuple[list[Identity], list[int]]:
    """Made people, and the carriers among them: the first of each family, so that each has look-alikes without the
    sign. Raises ValueError for families of fewer than two."""
    if family_size < 2:
        raise ValueError(f"family_size is {family_size}: a carrier needs a look-alike, give at least 2")
    return make_families(families, family_size, seed=seed), list(range(0, families * family_size, family_size))


def carries(plan: str, labels: Sequence[int], carriers: Sequence[int], *, seed: int = 0) -> NDArray[np.bool_]:
    """Which training pictures get the sign: (n,) bool for labels (n,).

    "shortcut": all pictures of the carriers and no other. "control": as many pictures, drawn by lot with no regard to
    who is in them, so that the sign is as familiar to the network and means nothing. "none": no picture.
    """
    if plan not in PLANS:
        raise ValueError(f"plan = {plan!r}: use one of {', '.join(PLANS)}")
    of_carriers = np.isin(np.asarray(labels), np.asarray(carriers))
    if plan == "control":
        return np.random.default_rng([seed, 1]).permutation(of_carriers)
    return of_carriers if plan == "shortcut" else np.zeros_like(of_carriers)


def shortcut_pictures(
    people: Sequence[Identity], numbers: Sequence[int], *, sign: str = "corner", seed: int = 0
) -> tuple[Planted, NDArray[np.int64]]:
    """The pictures of the given numbers of every person, in both versions, and their labels (n,).

    Training, validation and test take other numbers: no two pictures share light, pose or background.
    """
    labels = np.repeat(np.arange(len(people)), len(numbers))
    seeds = [picture_seed(seed, int(label), number) for label in range(len(people)) for number in numbers]
    return plant([people[int(label)] for label in labels], seeds, sign), labels


def training_set(pictures: Planted, labels: NDArray[np.int64], signed: NDArray[np.bool_]) -> TensorDataset:
    """What `xfrlib.training.fine_tune` takes: (image (3, H, W) in [0, 1], label), with the sign where `signed`."""
    if not len(pictures.without) == len(labels) == len(signed):
        raise ValueError(f"{len(pictures.without)} pictures, {len(labels)} labels, {len(signed)} choices: not one each")
    chosen = np.where(signed[:, None, None, None], pictures.with_sign, pictures.without)
    return TensorDataset(as_batch(chosen), torch.from_numpy(labels))


def as_batch(pictures: NDArray[np.uint8]) -> Tensor:
    """(n, H, W, 3) whole numbers -> (n, 3, H, W) in [0, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous().float() / 255

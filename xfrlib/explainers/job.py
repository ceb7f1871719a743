"""What all explainers share: their registry, the pictures of a call, the number explained, a network left as found."""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xfrlib.cam import PooledFeatures, pooled_features
from xfrlib.checks import need_module
from xfrlib.geometry import Geometry
from xfrlib.prediction import in_evaluation
from xfrlib.profile import did_you_mean

OUTPUTS = ("centred_logit", "logit", "contrast", "probability")
Make = Callable[..., Tensor]
library_module = partial(need_module, who="this explainer", extra="xfrlib[explainers]")


@dataclass(frozen=True)
class Job:
    """Pictures explained together: images (b, 3, H, W) and classes (b, K) on the network's device, a seed for each."""

    model: nn.Module
    images: Tensor
    classes: Tensor
    seeds: list[int]
    batch_size: int
    registered: bool  #: maps are laid where their cells look; else as libraries do

    @cached_property
    def pooled(self) -> PooledFeatures:
        """The last map and what follows it, for explainers that need them; `ValueError` where the network has none."""
        return pooled_features(self.model, self.images)

    @property
    def geometry(self) -> Geometry | None:
        """Where the cells of the last map look; None lays maps as libraries do."""
        return self.pooled.geometry if self.registered else None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        return self.images.shape[2], self.images.shape[3]


@dataclass(frozen=True)
class Explainer:
    """What a reader and a table must know of a method."""

    title: str
    source: str  #: the paper
    library: str  #: whose code computes the map
    make: Make  #: ``(job, **budget)`` -> (b, H, W)
    contrastive: bool = False  #: compares the target with the rivals
    compared: bool = True  #: False: a chapter teaches it, but the comparisons of the book, fixed before, lack it
    slow: bool = False  #: many passes a picture: for a stated sample of the pictures
    logarithm: bool = False  #: the map is the logarithm of the published one, which underflows; exp gives it back
    #: Forward and backward passes a picture: a number, the setting that says it, or "1 + channels" of the last map. A
    #: gradient that ends at the last map counts as none.
    passes: tuple[int | str, int | str] = (1, 0)

    @property
    def budget(self) -> dict[str, Any]:
        """The method's own settings and their defaults."""
        parameters = inspect.signature(self.make).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


EXPLAINERS: dict[str, Explainer] = {}


def explainer(title: str, source: str, library: str, *, name: str = "", **facts: Any) -> Callable[[Make], Make]:
    """Enter a function into `EXPLAINERS`, under its own name or `name`; the others are fields of `Explainer`.

    It decorates ``(job, *, setting=default, ...)``: a `xfrlib.explainers.job.Job` of b pictures -> maps (b, H, W),
    larger where it matters more, neither rectified nor scaled. Nothing else has to name it.
    """

    def register(make: Make) -> Make:
        EXPLAINERS[name or make.__name__] = Explainer(title, source, library, make, **facts)
        return make

    return register


def explained_output(logits: Tensor, classes: Tensor, output: str) -> Tensor:
    """One number a picture: logits (B, N) and classes (B, K), the target first -> (B,). See `explain_with`."""
    if output not in OUTPUTS:
        raise ValueError(f"output = {output!r}{did_you_mean(output, list(OUTPUTS))}")
    own = (logits.softmax(dim=1) if output == "probability" else logits).gather(1, classes[:, :1])[:, 0]
    if output == "centred_logit":
        return own - logits.mean(dim=1)
    return own - logits.gather(1, classes[:, 1:]).mean(dim=1) if output == "contrast" else own


class Scored(nn.Module):
    """The network up to the number that is explained: (B, 3, H, W) and (B, K) -> (B,), as captum wants it."""

    def __init__(self, model: nn.Module, output: str) -> None:
        super().__init__()
        self.model, self.output = model, output

    def forward(self, images: Tensor, classes: Tensor) -> Tensor:
        return explained_output(self.model(images), classes, self.output)


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and gradients for the pictures alone inside; afterwards the network is as it was."""
    with in_evaluation(model), torch.inference_mode(False), torch.enable_grad():
        required = {parameter: parameter.requires_grad for parameter in model.parameters()}
        try:
            model.requires_grad_(False)  # no explainer needs the gradients of weights: half of a backward pass
            yield
        finally:
            for parameter, needs in required.items():
                parameter.requires_grad_(needs)


def draw_seed(name: str, seed: int, index: int) -> int:
    """The seed of an explainer's random numbers for one picture: 63 bits from its name, `seed` and the index."""
    words = [zlib.crc32(name.encode()), seed, int(index)]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)

"""The registry of explainers. A new one is a function with `@explainer` above it: nothing else has to name it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Make = Callable[..., Tensor]  # (job, *, setting=default, ...) -> (b, H, W)


@dataclass(frozen=True)
class Explainer:
    """What a reader and a table must know of a method."""

    title: str
    source: str  #: the paper
    library: str  #: whose code computes the map
    make: Make
    contrastive: bool = False  #: compares the target with the rivals
    compared: bool = True  #: False: a chapter teaches it, but the comparisons of the book, fixed before, lack it
    slow: bool = False  #: many passes a picture: for a stated sample of the pictures
    logarithm: bool = False  #: the map is the logarithm of the published one, which underflows; exp gives it back
    #: Forward and backward passes a picture: a number, the setting that says it, or "1 + channels" of the last map. A
    #: gradient that ends at the last map or an earlier layer counts as none.
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
    larger where it matters more, neither rectified nor scaled.
    """

    def register(make: Make) -> Make:
        EXPLAINERS[name or make.__name__] = Explainer(title, source, library, make, **facts)
        return make

    return register

"""The settings that decide what is learnt, and which pictures go through the network at each step."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch

from xfrlib.profile import FREEZES, PRECISIONS


def training_precision(precision: str, device: torch.device | str) -> str:
    """What training steps will use, "bf16" or "fp32"; "auto" takes bf16 where the device has instructions for it."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; choose one of {', '.join(PRECISIONS)}.")
    if precision != "auto":
        return precision
    kind = torch.device(device).type
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    able = torch.cpu.get_capabilities() if kind == "cpu" else {}
    return "bf16" if able.get("avx512_bf16") or able.get("amx_bf16") else "fp32"


@dataclass(frozen=True)
class Recipe:
    """The settings of `fine_tune` that decide what is learnt, checked."""

    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 0.005
    weight_decay: float = 0.01
    lr_step: int = 10
    lr_gamma: float = 0.1
    backbone_learning_rate: float | None = None
    accumulation: int = 1
    freeze: str = "nothing"
    augmentation: str = "none"
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 2), ("lr_step", 1), ("accumulation", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}.")
        for name in ("learning_rate", "lr_gamma", "backbone_learning_rate"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} is {value}; it must be above 0 and finite.")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay is {self.weight_decay}; it must be at least 0 and finite.")
        if self.freeze not in FREEZES:
            raise ValueError(f"freeze is {self.freeze!r}; choose one of {', '.join(FREEZES)}.")


class Share(NamedTuple):
    """Pictures that one process puts through the network at once: `keys` of (index, seed) into an `Augmented` set.

    total: pictures of the whole step, over all shares of all processes; last: the weights move after this one.
    """

    keys: list[tuple[int, int]]
    total: int
    last: bool


class Steps:
    """The order of the training pictures, `begin` by `begin`: a batch sampler of one process's shares of every step.

    The steps are those of one process with the whole batch. A last batch with fewer than two pictures for each process
    is left out of the epoch, because one picture gives BatchNorm poor statistics or none; the order is drawn anew each
    epoch, so that it is another one each time.
    """

    def __init__(self, pictures: int, recipe: Recipe, process: int = 0, processes: int = 1) -> None:
        self.pictures, self.recipe, self.process, self.processes = pictures, recipe, process, processes
        self.shares: list[Share] = []

    def begin(self, epoch: int) -> None:
        """Draw the order of an epoch, a function of the recipe's seed and the epoch alone."""
        generator = torch.Generator().manual_seed(_epoch_seed(self.recipe.seed, epoch))
        order = torch.randperm(self.pictures, generator=generator)
        seeds = torch.randint(2**62, (self.pictures,), generator=generator)
        keys = list(zip(order.tolist(), seeds.tolist(), strict=True))
        self.shares = []
        for start in range(0, self.pictures, self.recipe.batch_size):
            step = keys[start : start + self.recipe.batch_size]
            own = step[self.process :: self.processes]
            parts = min(self.recipe.accumulation, len(own) // 2)
            if len(step) >= 2 * self.processes:
                self.shares += [Share(own[i::parts], len(step), i == parts - 1) for i in range(parts)]

    @property
    def per_epoch(self) -> int:
        """How often the weights move in an epoch."""
        whole, rest = divmod(self.pictures, self.recipe.batch_size)
        return whole + (rest >= 2 * self.processes)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """The keys of each share: what a DataLoader asks of a batch sampler."""
        return (share.keys for share in self.shares)

    def __len__(self) -> int:
        return len(self.shares)


def _epoch_seed(seed: int, epoch: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {epoch}".encode()).digest()[:6], "big")

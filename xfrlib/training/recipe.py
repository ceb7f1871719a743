"""The settings that decide what is learnt, and which pictures go through the network at each step."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

import xfrlib.models
from xfrlib import artifacts
from xfrlib.data.faces import data_hash, read_manifest
from xfrlib.profile import PRECISIONS, Profile

if TYPE_CHECKING:
    from xfrlib.run import NotebookRun


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
    """The settings of `fine_tune` that decide what is learnt: the fields of a profile, within the profile's limits.

    Source: arXiv 2505.03837 (AdamW 0.005, 20 epochs, StepLR 10 / 0.1). The paper does not give batch_size,
    weight_decay and augmentation: these are ours.

    Parameters
    ----------
    epochs : int
        Passes over the training pictures.
    batch_size : int
        Pictures of one step of the weights, over all processes.
    learning_rate : float
        Of every parameter, or of the head only where backbone_learning_rate is given.
    weight_decay : float
        Of AdamW.
    lr_step, lr_gamma : int, float
        After every lr_step epochs the learning rates are multiplied by lr_gamma.
    backbone_learning_rate : float, optional
        Of the backbone, where it is not the head's.
    accumulation : int
        Parts that a process puts through the network one after the other, to save memory. Only BatchNorm, which sees a
        part at a time, tells the difference between processes, parts and a whole batch: between epochs its statistics
        are averaged over processes, and with freeze="batchnorm" the losses agree.
    freeze : {"nothing", "batchnorm", "backbone"}
        BatchNorm's statistics stay as they are; or only the head learns.
    augmentation : {"none", "flip", "photometric"}
        How training pictures are changed at random, see `xfrlib.training.augmentation`.
    precision : {"auto", "fp32", "bf16"}
        See `training_precision`.
    seed : int
        With the epoch, it decides the order of the pictures and every random change of them.
    """

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
        Profile(name="recipe", title="recipe", dataset="synthetic", **vars(self))  # refuses what is no setting


def fine_tuning_options(run: NotebookRun) -> dict[str, Any]:
    """All options of `fine_tune` for a profile: its recipe, and where checkpoint and metrics are written.

    The fingerprint covers the data and the code that the weights depend on, so that a checkpoint of other pictures or
    of an older program is never taken for this run's.
    """
    manifest = read_manifest(run.need("manifest.csv", "01_data_preparation"))
    code = [*Path(__file__).parent.glob("*.py"), *Path(xfrlib.models.__file__).parent.glob("*.py")]
    return {
        **{field.name: getattr(run.profile, field.name) for field in fields(Recipe)},
        "device": run.device,
        "num_workers": run.profile.num_workers,
        "compile": run.profile.compile,
        "checkpoint": run.output("checkpoint.pt"),
        "log": run.output("training_log.csv"),
        "tensorboard": run.output("tensorboard"),
        "fingerprint": artifacts.fingerprint(data_hash(manifest), *sorted(code)),
    }


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
        digest = hashlib.sha256(f"{self.recipe.seed} {epoch}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:6], "big"))
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

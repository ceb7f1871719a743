"""What decides what is learnt: settings, how pictures are changed, and which go through the network at each step."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from xfrlib import artifacts, models
from xfrlib.data.faces import data_hash, read_manifest
from xfrlib.models.weights import seeded
from xfrlib.profile import Profile

if TYPE_CHECKING:
    from xfrlib.run import NotebookRun


def _changes(name: str) -> nn.Module:
    """How a training picture is changed. Each strength is ours; the paper does not say whether it augments at all."""
    from torchvision.transforms import v2

    flip = v2.RandomHorizontalFlip()
    photometric = (  # what cameras and crops vary
        v2.RandomAffine(5, translate=(0.04, 0.04), scale=(0.95, 1.05), interpolation=v2.InterpolationMode.BILINEAR),
        v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
        v2.RandomGrayscale(0.05),
    )
    return nn.Sequential(*{"none": (), "flip": (flip,), "photometric": (flip, *photometric)}[name])


def training_precision(precision: str, device: torch.device | str) -> str:
    """What training steps will use, "bf16" or "fp32"; "auto" takes bf16 where the device has instructions for it."""
    if precision != "auto":
        return precision
    kind = torch.device(device).type
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    able = torch.cpu.get_capabilities() if kind == "cpu" else {}
    return "bf16" if able.get("avx512_bf16") or able.get("amx_bf16") else "fp32"


@dataclass(frozen=True)
class Recipe:
    """The settings of `fine_tune` that decide what is learnt: fields of `Profile`, which says what they mean.

    The paper (arXiv 2505.03837) gives AdamW at 0.005, 20 epochs and StepLR 10 / 0.1; batch_size (of a step over all
    processes), weight_decay and augmentation are ours. Only BatchNorm, which sees one part of the accumulation at a
    time, tells processes and parts from a whole batch: between epochs its statistics are averaged over processes.
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
        Profile(name="recipe", title="recipe", dataset="synthetic", **vars(self))  # has the limits


def fine_tuning_options(run: NotebookRun) -> dict[str, Any]:
    """All options of `fine_tune` for a profile; the fingerprint is that of the data and of the code of the weights."""
    manifest = read_manifest(run.need("manifest.csv", "01_data_preparation"))
    return {
        **{name: getattr(run.profile, name) for name in (*vars(Recipe()), "num_workers", "compile")},
        "device": run.device,
        "checkpoint": run.output("checkpoint.pt"),
        "log": run.output("training_log.csv"),
        "tensorboard": run.output("tensorboard"),
        "fingerprint": artifacts.fingerprint(data_hash(manifest), sys.modules[str(__package__)], models),
    }


class Augmented(Dataset[tuple[Tensor, int]]):
    """Training pictures changed at random: item (i, seed), all of whose draws are the seed's, is (image, label)."""

    def __init__(self, dataset: Dataset[Any], name: str = "none") -> None:
        self.dataset, self.changes = dataset, _changes(name)

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]  # torch's Dataset does not declare __len__

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        index, seed = key
        with seeded(seed):
            image, label = self.dataset[index][:2]
            return self.changes(image), label


class Steps:
    """The order of the training pictures, `begin` by `begin`: a batch sampler of one process's share of every step.

    The steps are those of one process with the whole batch, but for a last one of fewer than two pictures a process,
    of which BatchNorm gets poor statistics or none. A share is a list of keys (index, seed) into an `Augmented` set.
    """

    def __init__(self, pictures: int, recipe: Recipe, process: int = 0, processes: int = 1) -> None:
        self.pictures, self.seed, self.own = pictures, recipe.seed, slice(process, None, processes)
        whole, rest = divmod(pictures, recipe.batch_size)
        sizes = [recipe.batch_size] * whole + [rest]
        self.sizes = [size for size in sizes if size >= 2 * processes]  # of each step, over all processes
        self.shares: list[list[tuple[int, int]]] = []

    def begin(self, epoch: int) -> None:
        """Draw the order of an epoch, a function of the recipe's seed and the epoch alone."""
        digest = hashlib.sha256(f"{self.seed} {epoch}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:6], "big"))
        order = torch.randperm(self.pictures, generator=generator)
        seeds = torch.randint(2**62, (self.pictures,), generator=generator)
        keys = iter(zip(order.tolist(), seeds.tolist(), strict=True))
        self.shares = [list(islice(keys, size))[self.own] for size in self.sizes]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.shares)

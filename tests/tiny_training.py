"""A fine-tuning of a second, for the tests that need it in processes of its own: killed, and divided among several."""

import argparse
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import Dataset

from xfrlib.models import FaceClassifier
from xfrlib.models.backbones import IResNet
from xfrlib.models.weights import seeded
from xfrlib.training import FineTuning, fine_tune

Row = tuple[Tensor, int, int]


class Coloured(Dataset[Row]):
    """Noisy pictures of 16 x 16 whose brightest channel is the label; mirrored at random when ``flip``."""

    def __init__(
        self, count: int, *, seed: int = 0, noise: float = 0.5, flip: bool = False, seconds: float = 0, deadly: int = 0
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(count) % 3
        self.images = noise * torch.rand(count, 3, 16, 16, generator=generator)
        self.images += 0.5 * nn.functional.one_hot(self.labels, 3)[:, :, None, None]
        self.images /= max(1, 0.5 + noise)  # in [0, 1]
        self.flip, self.seconds, self.deadly = flip, seconds, deadly
        self.read = 0

    @property
    def table(self) -> pd.DataFrame:
        return pd.DataFrame({"label": self.labels.numpy()})

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Row:
        self.read += 1
        if self.read == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        image = self.images[index]
        if self.flip and torch.rand(()) < 0.5:
            image = image.flip(2)
        return image, int(self.labels[index]), index


def tiny(seed: int = 0) -> FaceClassifier:
    with seeded(seed):
        backbone = IResNet("tiny", {4: 1}, embedding_size=3)
    return FaceClassifier(backbone, 3, seed=seed)


def train(
    folder: Path, *, seconds: float = 0, kill_while_saving: int = 0, deadly: int = 0, **settings: Any
) -> FineTuning:
    """Train in ``folder`` and leave ``weights.safetensors`` and ``history.json`` there.

    seconds: that reading one picture takes. kill_while_saving: number of the checkpoint that is written by half only,
    because the process is killed; 0 for none. deadly: likewise of the picture whose reading kills who reads it.
    """
    torch.set_num_threads(1)
    saves = 0
    whole_save = torch.save

    def half_save(state: Any, path: Path) -> None:
        nonlocal saves
        saves += 1
        whole_save(state, path)
        if saves == kill_while_saving:
            os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = half_save
    model = tiny()
    data, held_out = Coloured(14, flip=True, noise=0.9, seconds=seconds, deadly=deadly), Coloured(7, seed=1, noise=0.9)
    recipe = {"epochs": 6, "batch_size": 4, "lr_step": 2, "precision": "fp32", "augmentation": "flip"} | settings
    tuning = fine_tune(
        model, data, held_out, device="cpu", checkpoint=folder / "checkpoint.pt", log=folder / "log.csv",
        progress=False, **recipe,
    )  # fmt: skip
    if int(os.environ.get("RANK", 0)) == 0:
        save_file(model.state_dict(), folder / "weights.safetensors")
        rows = tuning.history.drop(columns="seconds").to_dict("list")
        (folder / "history.json").write_text(json.dumps({"processes": tuning.processes, **rows}))
    return tuning


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("settings", type=json.loads)
    given = parser.parse_args()
    train(given.folder, **given.settings)

"""What is measured: each `Work` on its network and pictures, beside its own passes and beside other libraries."""

from __future__ import annotations

import copy
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import neighbours
import numpy as np
import torch
from neighbours import if_installed
from PIL import Image
from timing import Beside, Work
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset, TensorDataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from madefaces import heads as in_depth
from madefaces.people import make_families, render
from recognisers import load_recogniser
from xfrlib import FaceClassifier, deletion_retention, explain, explain_match, load_backbone, top_fraction_mask
from xfrlib.cam import pooled_features
from xfrlib.controls import control_masks
from xfrlib.data.faces import open_folder
from xfrlib.explanation import explain_features
from xfrlib.geometry import map_geometry
from xfrlib.judge import evaluate, fill_picture, perturbed
from xfrlib.training import fine_tune, training_precision

sys.path.append(str(Path(__file__).resolve().parents[1] / "notebooks"))  # what is imported from there is the chapters'
from studies.cell_truth import cell_effects, cell_squares

CLASSES = 530  # people of the paper
MAPS, SHARE = 6, 0.2  # one map and five random draws; the fifth that is deleted
STEPS = 20  # of a curve
BATCH = 8  # changed pictures that go through the network together, whoever makes them: on a CPU larger ones are slower


def made_faces(count: int) -> Tensor:
    """Pictures of made people, (count, 3, 112, 112) in [0, 1], three to a family."""
    people = make_families(-(-count // 3), 3, seed=0)[:count]
    return torch.from_numpy(render(people, range(count))[0]).permute(0, 3, 1, 2).float() / 255


def classifier(name: str) -> FaceClassifier:
    """A network with random weights, in evaluation mode."""
    return FaceClassifier(load_backbone(name), CLASSES).eval()


def passes(model: nn.Module, images: Tensor, count: int = 1) -> Callable[[], object]:
    """`count` forward passes of the same pictures, and nothing else."""

    def run() -> None:
        with torch.no_grad():
            for _ in range(count):
                model(images)

    return run


def maps(name: str, count: int = 8) -> Work:
    """CAMs of five classes and SDD."""
    model, images = classifier(name), made_faces(count)
    classes, pooled = explain(model, images).classes, pooled_features(model, images)
    beside = {
        "bare": Beside("one forward pass", passes(model, images), 1.05, passes=True),
        "torchcam": Beside("torch-cam", _way("torchcam", neighbours.torchcam_maps, model, images, classes), 1.0),
        "captum": Beside("captum", _way("captum", neighbours.captum_maps, model, images, classes)),
        "gradcam": Beside("grad-cam", _way("pytorch_grad_cam", neighbours.gradcam_maps, model, images, classes), 15.0),
    }
    parts = {
        "the pass, and finding the last map in it": lambda: pooled_features(model, images),
        "maps, divergence, laying them over the picture": lambda: explain_features(pooled, size=(112, 112)),
    }
    return Work("CAMs of five classes and SDD", name, count, lambda: explain(model, images), beside, parts)


def deletion(name: str, count: int = 8, fill: str = "black") -> Work:
    """Deletion and retention of a fifth, by SDD's region and five random ones."""
    model, images = classifier(name), made_faces(count)
    found = explain(model, images)
    regions, labels = {"sdd": found.mask(SHARE).numpy()}, np.arange(count)
    settings: dict[str, Any] = {"logits": found.logits, "controls": ("random_map",), "draws": MAPS - 1}
    settings |= {"fills": (fill,), "fraction": SHARE, "batch_size": count, "progress": False}
    noise = torch.randn(MAPS - 1, count, 112, 112, generator=torch.Generator().manual_seed(0))
    several, best = torch.cat([found.log_sdd.exp()[None], noise.sigmoid()]), found.classes[:, 0]
    drawn = {"own": regions["sdd"], "labels": labels, "fraction": SHARE, "seed": 0}

    def draw() -> None:
        for number in range(MAPS - 1):
            control_masks("random_map", number, list(range(count)), **drawn)

    def fill_all() -> None:
        masks = found.mask(SHARE)
        for removed in (masks, ~masks):
            for _ in range(MAPS):
                perturbed(images, removed, fill)

    beside = {"bare": Beside(f"{2 * MAPS} forward passes", passes(model, images, 2 * MAPS), 1.10, passes=True)}
    if fill == "linear":
        beside["gradcam"] = Beside(
            "grad-cam's ROAD", _way("pytorch_grad_cam", neighbours.gradcam_road, model, images, several, best)
        )
    else:
        run = _way("quantus", neighbours.quantus_deletion, model, images, several, best)
        beside["quantus"] = Beside("Quantus", run)
    title = f"deletion and retention of a fifth, one map and five random ones, {fill}"
    parts = {"drawing the random regions": draw, "putting the fill in": fill_all}
    return Work(title, name, count, lambda: evaluate(model, images, labels, regions, **settings), beside, parts)


def cells(name: str, count: int = 2) -> Work:
    """What each cell is worth, by covering it with each of three fills."""
    model, images = classifier(name), made_faces(count)
    place, mean = map_geometry(model, images, model.features), images.mean(dim=0)
    squares, fills = cell_squares(place, (7, 7), (112, 112)), {"blur": "blur", "mean": mean, "grey": "grey"}
    classes = explain(model, images).classes
    fillings = [fill.expand_as(images) if isinstance(fill, Tensor) else fill_picture(images, fill)
                for fill in fills.values()]  # fmt: skip
    covered = torch.where(squares[:, None], fillings[0][:1], images[:1])

    def bare() -> None:
        passes(model, images)()
        for part in covered.split(BATCH):
            passes(model, part, len(fills) * count)()

    def cover() -> None:
        for filling in fillings:
            for image, other in zip(images, filling, strict=True):
                torch.where(squares[:, None], other, image)

    beside = {
        "bare": Beside(f"{count * (len(fills) * len(squares) + 1)} passes of one picture", bare, 1.10, passes=True),
        "captum": Beside(
            "captum's Occlusion", _way("captum", neighbours.captum_cells, model, images, classes, fillings, BATCH), 1.0
        ),
    }
    run = partial(cell_effects, model, images, squares, fills, batch_size=BATCH, progress=False)
    return Work("worth of each of 49 cells, three fills", name, count, run, beside, {"covering the cells": cover})


def curves(name: str, count: int = 4) -> Work:
    """Deletion and insertion at twenty shares, in the order of a map."""
    model, images = classifier(name), made_faces(count)
    shares = [step / STEPS for step in range(1, STEPS)]
    best = explain(model, images).classes[:, 0]

    def ours() -> None:
        found, rows = explain(model, images), torch.arange(count).repeat(len(shares))
        masks = torch.cat([found.mask(share) for share in shares])
        for place, some in zip(torch.arange(len(rows)).split(BATCH), rows.split(BATCH), strict=True):
            known: dict[str, Any] = {"logits": found.logits[some], "pairs": found.classes[some]}
            deletion_retention(model, images[some], masks[place], **known)

    ranking, many = explain(model, images).log_sdd, images.repeat(len(shares), 1, 1, 1)

    def bare() -> None:
        passes(model, images)()
        for part in many.split(BATCH):
            passes(model, part, 2)()

    beside = {
        "bare": Beside(f"{count * (2 * len(shares) + 1)} passes of one picture", bare, 1.10, passes=True),
        "torchcam": Beside(
            "torch-cam", _way("torchcam", neighbours.torchcam_curves, model, images, best, STEPS, BATCH), 2.0
        ),
    }
    parts = {
        "regions": lambda: [top_fraction_mask(ranking, share) for share in shares],
    }
    return Work("deletion and insertion curves, 20 steps", name, count, ours, beside, parts)


def match(name: str, templates: int = 10_000) -> Work:
    """A probe against many templates: the best rivals found among them, and its match explained."""
    recogniser, probe = load_recogniser(name), made_faces(1)
    with torch.no_grad():
        width = recogniser.embedding(probe).shape[1]
    everyone = torch.randn(templates, width, generator=torch.Generator().manual_seed(0))
    mate, others = everyone[0], everyone[1:]
    bare = Beside("one forward pass to the embedding", passes(_Embedding(recogniser), probe), 1.05, passes=True)
    explained = partial(explain_match, recogniser, probe, mate, others, top_k=5)
    parts = {"the same match without rivals": lambda: explain_match(recogniser, probe, mate)}
    return Work(f"a match explained, {templates} templates", name, 1, explained, {"bare": bare}, parts)


class _Embedding(nn.Module):
    def __init__(self, recogniser: Any) -> None:
        super().__init__()
        self.recogniser = recogniser

    def forward(self, images: Tensor) -> Tensor:
        return self.recogniser.embedding(images)


@contextmanager
def folder_of(count: int, suffix: str, size: int) -> Iterator[Path]:
    """Made faces on disk, `<person>/<number><suffix>`, of `size` pixels a side."""
    root = Path(tempfile.mkdtemp())
    try:
        pixels = render(make_families(8, 3, seed=0) * -(-count // 24), range(24 * -(-count // 24)))[0][:count]
        for number, picture in enumerate(pixels):
            path = root / f"person_{number % 24:02d}" / f"{number}{suffix}"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(picture).resize((size, size)).save(path)
        yield root
    finally:
        shutil.rmtree(root)


def training(name: str, folder: Path, batch: int = 32) -> Work:
    """An epoch of fine-tuning from files, beside the same steps on tensors in memory."""
    dataset, model = open_folder(folder), FaceClassifier(load_backbone(name), CLASSES)
    images, labels = (torch.stack([torch.as_tensor(row[part]) for row in dataset]) for part in (0, 1))
    held_out, precision = Subset(dataset, [0]), training_precision("auto", "cpu")

    def ours() -> None:
        fine_tune(copy.deepcopy(model), dataset, held_out, device="cpu", epochs=1, batch_size=batch, progress=False)

    def bare() -> None:
        network = copy.deepcopy(model).train()
        optimiser = torch.optim.AdamW(network.parameters(), lr=0.005)
        for pictures, truth in DataLoader(TensorDataset(images, labels), batch, shuffle=True):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                logits = network(pictures)
            nn.functional.cross_entropy(logits.float(), truth).backward()
            optimiser.step()
            optimiser.zero_grad()

    def read() -> None:
        for row in range(len(dataset)):
            dataset[row]

    beside = {"bare": Beside("a loop over tensors in memory", bare, 1 / 0.95, passes=True)}
    return Work(f"an epoch of fine-tuning, {precision}", name, len(dataset), ours, beside, {"reading pictures": read})


def datasets(folder: Path) -> tuple[Any, Any]:
    """Our data set of a folder and torchvision's with the same transforms."""
    steps = [transforms.Resize(112, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(112)]
    return open_folder(folder), ImageFolder(folder, transforms.Compose([*steps, transforms.ToTensor()]))


def reading(folder: Path, title: str, batch: int = 64) -> Work:
    """Pictures from disk to batches of tensors."""
    mine, theirs = datasets(folder)

    def all_of(dataset: Any) -> Callable[[], object]:
        return lambda: [None for _ in DataLoader(dataset, batch)]

    beside = {"torchvision": Beside("ImageFolder of torchvision", all_of(theirs), 1.0)}
    return Work(f"reading pictures, {title}", "", len(mine), all_of(mine), beside)


def faces(count: int = 96) -> Work:
    """Made faces, drawn on one core."""
    people = (make_families(8, 3, seed=0) * -(-count // 24))[:count]
    return Work("drawing made faces", "", count, lambda: render(people, range(count)), rate=300.0)


def heads(count: int = 8) -> Work:
    """Heads in three dimensions, drawn on one core, each of another person; shapes are loaded in the first round."""
    people = make_families(-(-count // 2), 2, seed=0, kind=in_depth.HEADS)[:count]
    return Work("drawing made heads", "", count, lambda: in_depth.render(people, range(count)), rate=10.0)


def _way(module: str, function: Callable[..., object], *arguments: Any) -> Callable[[], object] | None:
    return if_installed(module, partial(function, *arguments))

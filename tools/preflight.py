"""Before a long run: do data, checkpoint, disk and device suffice, and how long will it take?

python tools/preflight.py --profile paper
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import nn

from facedata.reasons import why_unused
from facedata.scan import list_faces
from xfrlib import artifacts
from xfrlib.artifacts import in_sentences
from xfrlib.controls import CONTROLS
from xfrlib.models import Backbone, load_backbone
from xfrlib.models.classifier import FaceClassifier
from xfrlib.run import NotebookRun, command_line_run
from xfrlib.tables import MAPS
from xfrlib.training.learner import Learner, make_accelerator
from xfrlib.training.recipe import Recipe

_SPARE_BYTES = 500e6  # manifests, tables, figures, the site


class Check(NamedTuple):
    """One thing that a run needs: what was found, and whether it suffices; if not, `found` says what to do."""

    name: str
    found: str
    enough: bool


def matrix_rate(device: torch.device, dtype: torch.dtype, size: int = 0, seconds: float = 1.0) -> float:
    """Floating-point operations a second of a product of two square matrices: what the device can do at best."""
    size = size or (8192 if device.type == "cuda" else 1024)
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 * _rate(lambda: left @ right, device, seconds)


def training_rate(
    model: FaceClassifier, recipe: Recipe, device: torch.device, *, batch_size: int = 0, compile: bool = False,
    seconds: float = 3.0,
) -> float:  # fmt: skip
    """Pictures a second of whole training steps of `fine_tune` on random pictures in memory; the weights change."""
    learner = Learner(model, recipe, make_accelerator(device), compile=compile)
    learner.learning_mode()
    size = batch_size or recipe.batch_size
    images, labels = torch.rand(size, 3, 112, 112), torch.arange(size) % model.num_classes
    return size * _rate(lambda: learner.step(images, labels, size), device, seconds)


@torch.no_grad()
def inference_rate(model: nn.Module, device: torch.device, batch_size: int, seconds: float = 2.0) -> float:
    """Pictures a second of passes in evaluation mode and float32, on random pictures on the device."""
    model.eval().to(device)
    images = torch.rand(batch_size, 3, 112, 112, device=device)
    return batch_size * _rate(lambda: model(images), device, seconds)


def _rate(work: Callable[[], Any], device: torch.device, seconds: float) -> float:
    """How often a second `work` is done, after one run to warm up."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    work()
    wait()
    count, started = 0, perf_counter()
    while count == 0 or perf_counter() - started < seconds:
        work()
        wait()
        count += 1
    return count / (perf_counter() - started)


def all_checks(run: NotebookRun) -> tuple[list[Check], float]:
    """All checks of a profile, and the hours that its notebooks will take; infinite where it cannot be told."""
    data, identities, pictures = _data(run)
    checkpoint, backbone = _checkpoint(run)
    model = FaceClassifier(backbone, max(identities, 2))
    device, hours = _device(run, model, pictures)
    return [data, checkpoint, _disk(model), device], hours


def _data(run: NotebookRun) -> tuple[Check, int, int]:
    """Identity folders and pictures by their names alone: the first notebook reads every file."""
    settings = run.profile
    if settings.dataset == "synthetic":
        identities = settings.families * settings.family_size
        return Check("data", "made on the spot", True), identities, identities * settings.pictures_per_identity
    try:
        files = list_faces(root := run.faces_root())
    except (FileNotFoundError, ValueError) as error:
        return Check("data", str(error), False), settings.identities or 2, settings.pictures or 0
    counts = Counter(file["identity"] for file in files if not file["status"])
    kept = [min(n, settings.max_images or n) for n in counts.values() if n >= settings.min_images]
    found, why = f"{sum(kept)} pictures of {len(kept)} people in {root}", why_unused(files)
    found += f" (left out: {why})" if why else ""
    if len(kept) < settings.top_k:
        mend = f"at least top_k = {settings.top_k} people with min_images = {settings.min_images} pictures are needed"
        check = Check("data", f"{found}: {mend}", False)
        return check, settings.identities or len(kept), settings.pictures or sum(kept)
    wanted = {"people": (settings.identities, len(kept)), "pictures": (settings.pictures, sum(kept))}
    missing = [f"{want - have} {name} of {want}" for name, (want, have) in wanted.items() if want and have < want]
    found += f"; missing {' and '.join(missing)}, which the results will show" if missing else ""
    return Check("data", found, True), len(kept), sum(kept)


def _checkpoint(run: NotebookRun) -> tuple[Check, Backbone]:
    try:
        backbone = run.backbone()
    except (ValueError, OSError) as error:
        return Check("checkpoint", str(error), False), load_backbone(run.profile.backbone)
    source = backbone.checkpoint_source or "none: the weights are random"
    return Check("checkpoint", f"{source}, fits {backbone.name}", True), backbone


def _disk(model: nn.Module) -> Check:
    """A checkpoint holds the weights, the best of them and two moments of each, and a new one is written beside it."""
    root = artifacts.build_root()
    root.mkdir(parents=True, exist_ok=True)
    need = 4 * sum(p.numel() for p in model.parameters()) * (2 * 4 + 1) + _SPARE_BYTES
    free = shutil.disk_usage(root).free
    found = f"{free / 1e9:.1f} GB free in {root}, {need / 1e9:.1f} GB needed"
    return Check("disk", found if free > need else f"{found}: make room, or set XFR_BUILD to another disk", free > need)


def _device(run: NotebookRun, model: FaceClassifier, pictures: int) -> tuple[Check, float]:
    """Times a few steps. On a CPU with few pictures at once, because a whole batch of IR-101 takes a minute there."""
    settings, device = run.profile, run.device
    name = artifacts.device_name(device)
    recipe = Recipe(batch_size=settings.batch_size, accumulation=settings.accumulation, freeze=settings.freeze,
                    precision=settings.precision)  # fmt: skip
    few = device.type != "cuda"
    devices = max(1, torch.cuda.device_count())
    try:
        learning = training_rate(model, recipe, device, batch_size=8 if few else 0) * devices
        looking = inference_rate(model, device, 8 if few else settings.eval_batch_size) * devices
    except torch.OutOfMemoryError:
        mend = "raise accumulation, or lower batch_size or eval_batch_size"
        return Check("device", f"{name}: its memory does not hold a step; {mend}", False), float("inf")
    train, validation, test = (pictures * share for share in settings.fractions)
    draws = settings.draws * (len(CONTROLS) - 1) + 1  # the disc is the same in every draw
    passes = settings.networks * validation * settings.epochs + test * 2 * len(settings.fills) * (len(MAPS) + draws)
    hours = (settings.networks * train * settings.epochs / learning + passes / looking) / 3600
    found = f"{devices} x {name}: {learning:.1f} pictures a second in training, {looking:.1f} without"
    found += f"; the whole takes about {_duration(hours)}" if pictures else ""
    if hours > settings.hours:
        mend = f"the profile allows hours = {settings.hours:g}. Use a faster device, or raise it in the profile"
        return Check("device", f"{found}; {mend}", False), hours
    return Check("device", found, True), hours


def _duration(hours: float) -> str:
    if hours < 2:
        return f"{60 * hours:.0f} min"
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} days"


@in_sentences()
def main(arguments: list[str] | None = None) -> None:
    """Print the checks; leave ``preflight.json`` if all is well, else stop with code 1."""
    run = command_line_run("preflight", "python tools/preflight.py", __doc__, arguments)
    print(f"Checking what the profile {run.profile.name} needs", flush=True)
    checks, hours = all_checks(run)
    for check in checks:
        print(f"  {'ok ' if check.enough else 'NOT'}  {check.name}: {check.found}")
    if not all(check.enough for check in checks):
        sys.exit(f"The profile {run.profile.name} cannot run yet; see the lines marked NOT.")
    run.write_json("preflight.json", {"hours": hours, "checks": {check.name: check.found for check in checks}})


if __name__ == "__main__":
    main()

"""The training loop, on one device or on several through Accelerate; resumable after each epoch, best weights kept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from xfrlib.artifacts import remove_leftovers, write_atomic
from xfrlib.models.classifier import FaceClassifier
from xfrlib.training.learner import Learner, make_accelerator
from xfrlib.training.recipe import Augmented, Recipe, Steps


@dataclass
class FineTuning:
    """What a fine-tuning gave. Accuracies lie in [0, 1]; epochs count from 1."""

    #: a row an epoch: epoch, learning_rate (the head's), train_loss, train_accuracy (both in training mode),
    #: validation_loss, validation_accuracy, seconds
    history: pd.DataFrame
    best_epoch: int
    best_validation_accuracy: float
    device: str  #: this and the next two: of the last epoch trained
    precision: str  #: "bf16" or "fp32", what the training steps used; evaluation is always fp32
    processes: int
    note: str  #: what was done with the checkpoint


def fine_tune(
    model: FaceClassifier,
    train: Dataset[Any],
    validation: Dataset[Any],
    *,
    device: torch.device | str | None = None,
    num_workers: int = 0,
    compile: bool = False,
    checkpoint: Path | None = None,
    log: Path | None = None,
    tensorboard: Path | None = None,
    fingerprint: str = "",
    progress: bool = True,
    **recipe: Any,
) -> FineTuning:
    """Fine-tune the classifier; it is left on its device with the best weights, in evaluation mode.

    Best is the highest validation accuracy; among equals the lowest validation loss, then the earlier epoch. Under
    ``accelerate launch`` every process calls this with the same arguments, and the work is divided among them.

    Parameters
    ----------
    train, validation : Dataset
        Items are (image (3, H, W) RGB in [0, 1], label, ...).
    device, num_workers, compile
        "cpu", or None for what Accelerate finds: the process's GPU, else the CPU; processes that read pictures beside
        each training process, on which no result depends; whether torch.compile is used, which pays on a GPU.
    checkpoint : Path, optional
        Written after each epoch, whole or not at all. A later call continues from it where recipe, initial weights,
        sizes of the data and ``fingerprint`` (whatever else the result depends on) are the same; else it says so, sets
        the file aside as ``<name>.other`` and starts anew. epochs may be raised. On a CPU, with the same number of
        threads and processes, the continued run ends with the weights of an unbroken one, bit for bit.
    log, tensorboard : Path, optional
        CSV of the history, rewritten after each epoch; folder for the same numbers as TensorBoard reads them.
    **recipe
        Fields of `Recipe`.
    """
    chosen = Recipe(**recipe)
    pictures = Augmented(train, chosen.augmentation)
    accelerator = make_accelerator(device, tensorboard)
    main, process, processes = accelerator.is_main_process, accelerator.process_index, accelerator.num_processes
    _check_data(model, {"train": (train, 2 * processes), "validation": (validation, 1)})
    sizes = [len(pictures), len(validation)]  # type: ignore[arg-type]
    settings = _settings(model, chosen, sizes, fingerprint)
    learner = Learner(model, chosen, accelerator, compile=compile)
    note = learner.restore(checkpoint, settings) if checkpoint is not None else ""
    hidden = not (progress and main)
    if note and not hidden:
        tqdm.write(note)
    done, epochs = len(learner.history), chosen.epochs
    if main and log is not None:
        remove_leftovers(log)

    def write_log() -> None:
        if main and log is not None:
            with write_atomic(log) as part:
                pd.DataFrame(learner.history).to_csv(part, index=False)

    gpu, validated = accelerator.device.type == "cuda", range(process, sizes[1], processes)
    workers: dict[str, Any] = {"num_workers": num_workers, "pin_memory": gpu, "persistent_workers": num_workers > 0}
    steps = Steps(len(pictures), chosen, process, processes)
    loader = DataLoader(pictures, batch_sampler=steps, **workers)
    held_out = DataLoader(Subset(validation, validated), max(chosen.batch_size // processes, 1), **workers)
    if tensorboard is not None and done < epochs:  # purge_step hides what a killed run wrote of an epoch now done again
        accelerator.init_trackers(tensorboard.name, init_kwargs={"tensorboard": {"purge_step": done + 1}})
    # smoothing=0: the mean rate since the start, validation included, so that the time left is that of the run.
    shown: dict[str, Any] = {"unit": "batch", "smoothing": 0, "mininterval": 1, "disable": hidden}
    try:
        with (
            tqdm(None, "fine-tuning", epochs * len(steps.sizes), initial=done * len(steps.sizes), **shown) as bar,
            torch.random.fork_rng(devices=[accelerator.device] if gpu else []),
        ):
            for epoch in range(done + 1, epochs + 1):
                started = perf_counter()
                steps.begin(epoch)
                torch.manual_seed(epoch)  # for what a network itself may draw
                row = learner.train_epoch(loader, steps, epoch, bar) | learner.validate(held_out)
                row |= {"seconds": round(perf_counter() - started, 3)}
                learner.close_epoch({"epoch": epoch} | row)
                bar.set_postfix_str(f"epoch {epoch}: validation accuracy {row['validation_accuracy']:.1%}")
                if main and checkpoint is not None:
                    learner.save(checkpoint, settings)
                write_log()
                accelerator.log(row, step=epoch)
                accelerator.wait_for_everyone()
    # Torch tells the loss of a worker by any of these, at any moment; an error inside of one is "Caught ...".
    except (RuntimeError, ConnectionError, EOFError) as error:
        why = str(error) or type(error).__name__
        if not num_workers or why.startswith("Caught ") or (isinstance(error, RuntimeError) and "worker (" not in why):
            raise
        mend = "num_workers = 0 does without, and a run that has a checkpoint goes on after its last epoch"
        raise ChildProcessError(f"a process that reads pictures has died ({why}): {mend}") from error
    write_log()  # it is there even if nothing was left to train
    for tracker in accelerator.trackers:
        tracker.finish()
    learner.finish()
    best, table = learner.best, pd.DataFrame(learner.history)
    return FineTuning(table, int(best["epoch"]), best["validation_accuracy"], **learner.how, note=note)


def _check_data(model: FaceClassifier, sets: dict[str, tuple[Dataset[Any], int]]) -> None:
    """Sizes, and labels where the data set has a ``table`` of them: finding out later costs an epoch."""
    for name, (dataset, least) in sets.items():
        if (count := len(dataset)) < least:  # type: ignore[arg-type]  # torch's Dataset does not declare __len__
            found = f"{name} has {count or 'no'} picture(s) for all processes together"
            raise ValueError(f"{found}; give at least {least}.")
        labels = set(getattr(dataset, "table", {}).get("label", ()))
        if name == "train" and len(labels) == 1:
            raise ValueError("train holds pictures of a single identity; a classifier needs at least 2.")
        if labels and not 0 <= min(labels) <= max(labels) < model.num_classes:
            found = f"{name} has labels from {min(labels)} to {max(labels)}"
            mend = "Build FaceClassifier with the number of identities of the data."
            raise ValueError(f"{found}, but the model has {model.num_classes} classes. {mend}")


def _settings(model: FaceClassifier, recipe: Recipe, pictures: list[int], fingerprint: str) -> dict[str, Any]:
    """Everything that decides the weights after a given epoch; ``epochs`` is not among it."""
    weights = hashlib.sha256()
    for key, value in model.state_dict().items():
        weights.update(key.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    facts = {"initial_weights": weights.hexdigest(), "pictures": json.dumps(pictures), "fingerprint": fingerprint}
    return {key: value for key, value in vars(recipe).items() if key != "epochs"} | facts

"""The training loop, on one device or on several through Accelerate; resumable after each epoch, best weights kept."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from xfrlib.artifacts import device_name, remove_leftovers, write_atomic
from xfrlib.models.classifier import FaceClassifier
from xfrlib.prediction import predict
from xfrlib.training.augmentation import Augmented
from xfrlib.training.recipe import Recipe, Steps, training_precision

_LOG = logging.getLogger(__name__)


@dataclass
class FineTuning:
    """What a fine-tuning gave. Accuracies lie in [0, 1]; epochs count from 1.

    history: one row per epoch: epoch, learning_rate (the head's), train_loss, train_accuracy (both over the epoch, in
        training mode), validation_loss, validation_accuracy, seconds.
    resumed_from: epochs that were found done in the checkpoint; 0 for a run from the start.
    device, precision, processes: of the last epoch trained. precision is "bf16" or "fp32", what the training steps
        used; evaluation is always fp32.
    """

    history: pd.DataFrame
    best_epoch: int
    best_validation_accuracy: float
    device: str
    precision: str
    processes: int
    resumed_from: int
    note: str


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
    after_epoch: Callable[[dict[str, float]], None] | None = None,
    **recipe: Any,
) -> FineTuning:
    """Fine-tune the classifier; it is left on its device with the best weights, in evaluation mode.

    Under ``accelerate launch`` every process calls this with the same arguments and the work is divided among them;
    else one device does it all. The code is the same.

    train, validation: data sets of (image (3, H, W) RGB in [0, 1], label, ...).
    Best: highest validation accuracy; among equals the lowest validation loss, then the earlier epoch.
    device: "cpu", or None for what Accelerate finds: the process's GPU, else the CPU.
    num_workers: processes that read and change pictures beside each training process; no result depends on it.
    compile: put the network through torch.compile first, which takes a minute and pays on a GPU.
    checkpoint: written after each epoch, whole or not at all. A later call continues from it where recipe, initial
        weights, sizes of the data and ``fingerprint`` (whatever else the result depends on) are the same. Where one
        differs, it says so, sets the file aside as ``<name>.other`` and starts anew. ``epochs`` may be raised: the
        epochs already done are kept. On a CPU, with the same number of threads and processes, the continued run ends
        with the weights of an unbroken one, bit for bit, wherever it was killed.
    log: CSV of the history, rewritten after each epoch; tensorboard: folder for the same numbers as TensorBoard reads
        them.
    after_epoch: called in every process with each new row of the history, once the checkpoint is written.

    recipe: fields of `Recipe`.
        batch_size: pictures of one step of the weights, over all processes. accumulation: parts that a process puts
            through the network one after the other, to save memory. Only BatchNorm, which sees a part at a time, tells
            the difference between processes, parts and a whole batch: between epochs its statistics are averaged over
            processes, and with freeze="batchnorm" the losses agree.
        learning_rate: of every parameter, or of the head only where backbone_learning_rate is given; both are
            multiplied by lr_gamma after every lr_step epochs. The paper does not give batch_size, weight_decay and
            augmentation: these are ours.
        freeze: "nothing"; "batchnorm": its statistics stay as they are; "backbone": only the head learns.
        augmentation: a name of `xfrlib.profile.AUGMENTATIONS`.
        precision: "fp32", "bf16", or "auto" for bf16 where the device has it.
        seed: with the epoch, it decides the order of the pictures and every random change of them. torch's global
            generators are put back at the end.

    Raises ValueError for impossible settings, empty data or a single identity; TypeError for an unknown setting;
    FloatingPointError, naming epoch, batch and learning rate, when the loss is not finite.
    Source: recipe of arXiv 2505.03837 (AdamW 0.005, 20 epochs, StepLR 10 / 0.1).
    """
    chosen = Recipe(**recipe)
    pictures = Augmented(train, chosen.augmentation)
    _check_data(model, train, validation)
    accelerator = Accelerator(cpu=device is not None and torch.device(device).type == "cpu", mixed_precision="no")
    if len(pictures) < 2 * accelerator.num_processes:
        raise ValueError(
            f"train has {len(pictures)} picture(s); each of {accelerator.num_processes} process(es) needs 2."
        )
    progress &= accelerator.is_main_process
    settings = _settings(model, chosen, (len(pictures), _length(validation)), fingerprint)
    run = _Run(model, chosen, accelerator, compile=compile)
    note = run.restore(checkpoint, settings) if checkpoint is not None else ""
    if note:
        _say(note, progress)
    resumed_from = len(run.history)

    steps = Steps(len(pictures), chosen, accelerator.process_index, accelerator.num_processes)
    gpu = accelerator.device.type == "cuda"
    workers: dict[str, Any] = {"num_workers": num_workers, "pin_memory": gpu, "persistent_workers": num_workers > 0}
    loader = DataLoader(pictures, batch_sampler=steps, **workers)
    own = range(accelerator.process_index, _length(validation), accelerator.num_processes)
    held_out = DataLoader(Subset(validation, own), max(chosen.batch_size // accelerator.num_processes, 1), **workers)
    with (
        _TensorBoard(tensorboard if accelerator.is_main_process else None, resumed_from, chosen.epochs) as board,
        # smoothing=0: the mean rate since the start, validation included, so that the time left is that of the run.
        tqdm(
            total=chosen.epochs * steps.per_epoch, initial=resumed_from * steps.per_epoch, desc="fine-tuning",
            unit="batch", smoothing=0, mininterval=1, disable=not progress,
        ) as bar,
        torch.random.fork_rng(devices=[accelerator.device] if gpu else []),
    ):  # fmt: skip
        for epoch in range(resumed_from + 1, chosen.epochs + 1):
            started = perf_counter()
            steps.begin(epoch)
            torch.manual_seed(epoch)  # for what a network itself may draw
            row = run.train_epoch(loader, steps, epoch, bar) | run.validate(held_out)
            run.close_epoch({"epoch": epoch} | row | {"seconds": round(perf_counter() - started, 3)})
            bar.set_postfix_str(f"epoch {epoch}: validation accuracy {row['validation_accuracy']:.1%}")
            if accelerator.is_main_process:
                if checkpoint is not None:
                    run.save(checkpoint, settings)
                _write_log(log, run.history)
                board.add(run.history[-1])
            accelerator.wait_for_everyone()
            if after_epoch is not None:
                after_epoch(dict(run.history[-1]))
    if accelerator.is_main_process:
        _write_log(log, run.history)  # the log is there even if nothing was left to train
    run.finish()
    best = run.best
    return FineTuning(
        pd.DataFrame(run.history), int(best["epoch"]), best["validation_accuracy"], **run.how,
        resumed_from=resumed_from, note=note,
    )  # fmt: skip


class _Run:
    """Model, optimiser, schedule, history and best weights of one fine-tuning, in one process."""

    def __init__(self, model: FaceClassifier, recipe: Recipe, accelerator: Accelerator, *, compile: bool) -> None:
        self.accelerator, self.recipe = accelerator, recipe
        self.device = accelerator.device
        # channels_last is the layout of GPU convolutions; training with it on a CPU crashes in torch 2.15.
        self.format = torch.channels_last if self.device.type == "cuda" else torch.contiguous_format
        self.model = model.to(self.device, memory_format=self.format)  # type: ignore[call-overload]
        frozen = list(model.backbone.parameters()) if recipe.freeze == "backbone" else []
        self.frozen_here = [parameter for parameter in frozen if parameter.requires_grad]
        for parameter in self.frozen_here:
            parameter.requires_grad_(False)
        self.how = {
            "device": device_name(self.device),
            "precision": training_precision(recipe.precision, self.device),
            "processes": accelerator.num_processes,
        }
        rate = recipe.learning_rate if recipe.backbone_learning_rate is None else recipe.backbone_learning_rate
        groups: list[dict[str, Any]] = [
            {"params": list(model.head.parameters()), "lr": recipe.learning_rate},
            {"params": [p for p in model.backbone.parameters() if p.requires_grad], "lr": rate},
        ]
        self.optimiser = torch.optim.AdamW([g for g in groups if g["params"]], weight_decay=recipe.weight_decay)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.optimiser, recipe.lr_step, recipe.lr_gamma)
        # Weights are shared: what the prepared network learns is the model's.
        self.network: nn.Module = accelerator.prepare_model(torch.compile(self.model) if compile else self.model)
        self.history: list[dict[str, float]] = []
        self.best_state: dict[str, Tensor] = {}

    @property
    def best(self) -> dict[str, float]:
        """The best row so far; min takes the first of equals, hence the earlier epoch."""
        return min(self.history, key=lambda row: (-row["validation_accuracy"], row["validation_loss"]))

    def learning_mode(self) -> None:
        """Training mode, but for what is frozen."""
        self.network.train()
        for module in self.model.backbone.modules():
            if self.recipe.freeze == "backbone" or (
                self.recipe.freeze == "batchnorm" and isinstance(module, _BatchNorm)
            ):
                module.eval()

    def part(self, images: Tensor, labels: Tensor, total: int, *, last: bool) -> tuple[Tensor, Tensor]:
        """Gradients of one share of a step over `total` pictures, and the step after the last; (summed loss, logits).

        DistributedDataParallel averages gradients over processes, so that the factor makes the step's mean exact
        even where the shares are of unequal size.
        """
        images = images.to(self.device, non_blocking=True, memory_format=self.format)
        labels = labels.to(self.device, non_blocking=True)
        bf16 = self.how["precision"] == "bf16"
        with nullcontext() if last else self.accelerator.no_sync(self.network):
            with torch.autocast(self.device.type, torch.bfloat16) if bf16 else nullcontext():
                logits = self.network(images)
            loss = functional.cross_entropy(logits.float(), labels, reduction="sum")
            self.accelerator.backward(loss * (self.accelerator.num_processes / total))
        if last:
            self.optimiser.step()
            self.optimiser.zero_grad()
        return loss.detach(), logits.detach()

    def train_epoch(self, loader: DataLoader[Any], steps: Steps, epoch: int, bar: Any) -> dict[str, float]:
        """One pass over the training pictures."""
        self.learning_mode()
        rate = self.optimiser.param_groups[0]["lr"]
        sums = torch.zeros(3, dtype=torch.float64)  # loss, right, seen
        number = 1
        for share, (images, labels) in zip(steps.shares, loader, strict=True):
            loss, logits = self.part(images, labels, share.total, last=share.last)
            if not math.isfinite(loss.item()):
                raise FloatingPointError(
                    f"The loss is {loss.item()} in epoch {epoch}, batch {number}, at learning rate {rate:g}. "
                    "Lower learning_rate by a factor of 10, or set precision='fp32'; pictures must lie in [0, 1]."
                )
            right = (logits.argmax(1).cpu() == labels).sum()
            sums += torch.tensor([loss.item(), right, len(labels)], dtype=torch.float64)
            number += share.last
            bar.update(share.last)
        self.schedule.step()
        self._average_buffers()
        loss_sum, right_sum, seen = self._over_processes(sums)
        return {"learning_rate": rate, "train_loss": loss_sum / seen, "train_accuracy": right_sum / seen}

    def validate(self, loader: DataLoader[Any]) -> dict[str, float]:
        """Loss and accuracy on the validation pictures, in float32."""
        sums = torch.zeros(3, dtype=torch.float64)
        if len(loader):  # more processes than validation pictures leave some without any
            logits, labels = predict(self.model, loader, self.device)
            loss = functional.cross_entropy(logits.double(), labels, reduction="sum")
            sums += torch.tensor([loss, (logits.argmax(1) == labels).sum(), len(labels)], dtype=torch.float64)
        loss_sum, right, seen = self._over_processes(sums)
        return {"validation_loss": loss_sum / seen, "validation_accuracy": right / seen}

    def _over_processes(self, sums: Tensor) -> list[float]:
        return self.accelerator.reduce(sums.to(self.device), "sum").tolist()

    def _average_buffers(self) -> None:
        """BatchNorm's running statistics, which each process gathers from its own share."""
        if self.accelerator.num_processes > 1:
            for buffer in self.model.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.accelerator.reduce(buffer, "mean"))

    def close_epoch(self, row: dict[str, float]) -> None:
        """Add a row to the history, and keep the weights if it is the best."""
        self.history.append(row)
        if self.best is row:
            self.best_state = {key: value.detach().cpu().clone() for key, value in self.model.state_dict().items()}

    def finish(self) -> None:
        """Put the best weights into the model, and give back what was frozen."""
        self.model.load_state_dict(self.best_state)
        self.model.eval()
        for parameter in self.frozen_here:
            parameter.requires_grad_(True)

    def save(self, path: Path, settings: dict[str, Any]) -> None:
        """Write all that the next epoch depends on; random numbers and data order follow from seed and epoch."""
        state = {
            "settings": settings,
            "how": self.how,
            "history": self.history,
            "model": self.model.state_dict(),
            "best": self.best_state,
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        with write_atomic(path) as part:
            torch.save(state, part)

    def restore(self, path: Path, settings: dict[str, Any]) -> str:
        """Take over the state in ``path`` if it is of the same run. Returns a sentence that says what was done.

        All processes of one machine and of several read the same file, so that ``path`` must lie on a shared disk.
        """
        if self.accelerator.is_main_process:
            remove_leftovers(path)
        found = [path.exists()]
        broadcast_object_list(found)  # the main process's view counts
        if not found[0]:
            return ""
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            other, history = state["settings"], state["history"]
        except Exception as error:
            raise ValueError(f"The checkpoint {path} cannot be read ({error}). Delete it to start anew.") from error
        differs = [key for key in settings if other.get(key) != settings[key]]
        reason = ""
        if differs:
            reason = f"is of another run ({', '.join(differs)} differ)"
        elif len(history) > self.recipe.epochs:
            reason = f"holds {len(history)} epochs, {self.recipe.epochs} are wanted"
        if reason:
            aside = path.with_name(f"{path.name}.other")
            self.accelerator.wait_for_everyone()
            if self.accelerator.is_main_process:
                path.replace(aside)
            return f"{path.name} {reason}: fine-tuning starts anew, and the file is kept as {aside.name}."
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.history, self.best_state = history, state["best"]
        if len(history) == self.recipe.epochs:
            self.how = state["how"]
            return f"{path.name} holds all {self.recipe.epochs} epochs: nothing to train."
        changed = ", ".join(f"{key} {state['how'][key]} before, {value} now" for key, value in self.how.items()
                            if state["how"][key] != value)  # fmt: skip
        return f"{path.name} holds {len(history)} of {self.recipe.epochs} epochs: fine-tuning continues" + (
            f" ({changed})." if changed else "."
        )


class _TensorBoard:
    """Writes rows of the history for TensorBoard; without a folder, or with nothing left to train, it does nothing."""

    def __init__(self, folder: Path | None, done: int, epochs: int) -> None:
        self.folder = folder if done < epochs else None
        self.done = done

    def __enter__(self) -> _TensorBoard:
        if self.folder is not None:
            from torch.utils.tensorboard import SummaryWriter  # takes seconds to import

            # purge_step hides what a killed run wrote of an epoch that is now done again.
            self.writer = SummaryWriter(self.folder, purge_step=self.done + 1)
        return self

    def add(self, row: dict[str, float]) -> None:
        if self.folder is not None:
            for name, value in row.items():
                if name != "epoch":
                    self.writer.add_scalar(name, value, int(row["epoch"]))
            self.writer.flush()

    def __exit__(self, *_: object) -> None:
        if self.folder is not None:
            self.writer.close()


def _length(dataset: Dataset[Any] | Sequence[Any]) -> int:
    return len(dataset)  # type: ignore[arg-type]  # torch's Dataset does not declare __len__


def _check_data(model: FaceClassifier, train: Dataset[Any], validation: Dataset[Any]) -> None:
    """Sizes, and labels where the data set has a ``table`` of them: finding out later costs an epoch."""
    if _length(train) < 2:
        raise ValueError(f"train has {_length(train)} picture(s); at least 2 are needed.")
    if _length(validation) < 1:
        raise ValueError("validation has no picture; without one the best epoch cannot be chosen.")
    for name, dataset in (("train", train), ("validation", validation)):
        table = getattr(dataset, "table", None)
        if table is None or "label" not in table:
            continue
        labels = set(table["label"])
        if name == "train" and len(labels) < 2:
            raise ValueError("train holds pictures of a single identity; a classifier needs at least 2.")
        if min(labels) < 0 or max(labels) >= model.num_classes:
            raise ValueError(
                f"{name} has labels from {min(labels)} to {max(labels)}, but the model has {model.num_classes} classes "
                f"(0 to {model.num_classes - 1}). Build FaceClassifier with the number of identities of the data."
            )


def _settings(model: FaceClassifier, recipe: Recipe, sizes: tuple[int, int], fingerprint: str) -> dict[str, Any]:
    """Everything that decides the weights after a given epoch; ``epochs`` is not among it."""
    digest = hashlib.sha256()
    for key, value in model.state_dict().items():
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    chosen = {key: value for key, value in asdict(recipe).items() if key != "epochs"}
    return chosen | {
        "initial_weights": digest.hexdigest(),
        "pictures": json.dumps(sizes),
        "fingerprint": fingerprint,
    }


def _write_log(path: Path | None, history: list[dict[str, float]]) -> None:
    if path is not None and history:
        with write_atomic(path) as part:
            pd.DataFrame(history).to_csv(part, index=False)


def _say(text: str, progress: bool) -> None:
    """To the reader where a progress bar is shown, else to the log."""
    if progress:
        tqdm.write(text)
    else:
        _LOG.info(text)

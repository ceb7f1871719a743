"""The training loop, on one device or on several through Accelerate; resumable after each epoch, best weights kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
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

if TYPE_CHECKING:
    import pandas as pd
    from accelerate import Accelerator

_STATEFUL = ("model", "optimiser", "schedule")  # of a Learner


@dataclass
class FineTuning:
    """What a fine-tuning gave. Accuracies lie in [0, 1]; epochs count from 1.

    A row of the history is an epoch: epoch, learning_rate (the head's), train_loss, train_accuracy (both over the
    epoch, in training mode), validation_loss, validation_accuracy, seconds.
    """

    history: pd.DataFrame
    best_epoch: int
    best_validation_accuracy: float
    device: str  #: this and the next two: of the last epoch trained
    precision: str  #: "bf16" or "fp32", what the training steps used; evaluation is always fp32
    processes: int
    resumed_from: int  #: epochs that were found done in the checkpoint; 0 for a run from the start
    note: str  #: what was done with the checkpoint


def make_accelerator(device: torch.device | str | None) -> Accelerator:
    """What divides the work among processes, on their GPUs; on the CPU for device "cpu" and where there is no GPU.

    Raises ImportError that says what to install where a package that only training needs is missing.
    """
    try:
        accelerate, _ = import_module("accelerate"), import_module("pandas")
    except ImportError as error:
        raise ImportError(f'fine-tuning needs {error.name}: pip install "xfrlib[train]"') from error
    return accelerate.Accelerator(cpu=device is not None and torch.device(device).type == "cpu", mixed_precision="no")


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

    Best is the highest validation accuracy; among equals the lowest validation loss, then the earlier epoch. Under
    ``accelerate launch`` every process calls this with the same arguments and the work is divided among them; else one
    device does it all. torch's global generators are put back at the end.

    Parameters
    ----------
    train, validation : Dataset
        Items are (image (3, H, W) RGB in [0, 1], label, ...).
    device : torch.device or str, optional
        "cpu", or None for what Accelerate finds: the process's GPU, else the CPU.
    num_workers : int
        Processes that read and change pictures beside each training process; no result depends on it.
    compile : bool
        Put the network through torch.compile first, which takes a minute and pays on a GPU.
    checkpoint : Path, optional
        Written after each epoch, whole or not at all. A later call continues from it where recipe, initial weights,
        sizes of the data and ``fingerprint`` (whatever else the result depends on) are the same. Where one differs, it
        says so, sets the file aside as ``<name>.other`` and starts anew. epochs may be raised: those already done are
        kept. On a CPU, with the same number of threads and processes, the continued run ends with the weights of an
        unbroken one, bit for bit, wherever it was killed.
    log, tensorboard : Path, optional
        CSV of the history, rewritten after each epoch; folder for the same numbers as TensorBoard reads them.
    after_epoch : callable, optional
        Called in every process with each new row of the history, once the checkpoint is written.
    **recipe
        Fields of `Recipe`.

    Raises
    ------
    ValueError, TypeError
        For impossible settings, empty data or a single identity; for an unknown setting.
    FloatingPointError
        When the loss is not finite, naming epoch, batch and learning rate.
    """
    chosen = Recipe(**recipe)
    pictures = Augmented(train, chosen.augmentation)
    accelerator = make_accelerator(device)
    main, process, processes = accelerator.is_main_process, accelerator.process_index, accelerator.num_processes
    hidden = not (progress and main)
    sizes = len(pictures), len(validation)  # type: ignore[arg-type]  # torch's Dataset does not declare __len__
    _check_data(model, sizes, {"train": train, "validation": validation}, processes)
    settings = _settings(model, chosen, sizes, fingerprint)
    learner = Learner(model, chosen, accelerator, compile=compile)
    note = learner.restore(checkpoint, settings) if checkpoint is not None else ""
    if note and not hidden:
        tqdm.write(note)
    done, epochs = len(learner.history), chosen.epochs

    steps = Steps(len(pictures), chosen, process, processes)
    gpu = accelerator.device.type == "cuda"
    workers: dict[str, Any] = {"num_workers": num_workers, "pin_memory": gpu, "persistent_workers": num_workers > 0}
    loader = DataLoader(pictures, batch_sampler=steps, **workers)
    own = Subset(validation, range(process, sizes[1], processes))
    held_out = DataLoader(own, max(chosen.batch_size // processes, 1), **workers)
    total, initial = epochs * len(steps), done * len(steps)
    with (
        _tensorboard(tensorboard if main and done < epochs else None, done) as board,
        # smoothing=0: the mean rate since the start, validation included, so that the time left is that of the run.
        tqdm(
            None, "fine-tuning", total, unit="batch", initial=initial, smoothing=0, mininterval=1, disable=hidden
        ) as bar,
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
            if main:
                if checkpoint is not None:
                    learner.save(checkpoint, settings)
                learner.write_log(log)
                if board is not None:
                    for name, value in row.items():
                        board.add_scalar(name, value, epoch)
                    board.flush()
            accelerator.wait_for_everyone()
            if after_epoch is not None:
                after_epoch(dict(learner.history[-1]))
    if main:
        learner.write_log(log)  # the log is there even if nothing was left to train
    learner.finish()
    best, history = learner.best, learner.table()
    return FineTuning(
        history, int(best["epoch"]), best["validation_accuracy"], **learner.how, resumed_from=done, note=note
    )


class Learner:
    """Model, optimiser, schedule, history and best weights of one fine-tuning, in one process."""

    def __init__(self, model: FaceClassifier, recipe: Recipe, accelerator: Accelerator, *, compile: bool) -> None:
        self.accelerator, self.recipe = accelerator, recipe
        self.device = accelerator.device
        # channels_last is the layout of GPU convolutions; training with it on a CPU crashes in torch 2.15.
        self.format = torch.channels_last if self.device.type == "cuda" else torch.contiguous_format
        self.model = model.to(self.device, memory_format=self.format)  # type: ignore[call-overload]
        learning = [parameter for parameter in model.backbone.parameters() if parameter.requires_grad]
        self.frozen_here = learning if recipe.freeze == "backbone" else []
        for parameter in self.frozen_here:
            parameter.requires_grad_(False)
        precision = training_precision(recipe.precision, self.device)
        self.how = {"device": device_name(self.device), "precision": precision, "processes": accelerator.num_processes}
        groups: list[dict[str, Any]] = [{"params": list(model.head.parameters()), "lr": recipe.learning_rate}]
        if learning and not self.frozen_here:
            groups.append({"params": learning, "lr": recipe.backbone_learning_rate or recipe.learning_rate})
        self.optimiser = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
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
        frozen = {"nothing": (), "batchnorm": (_BatchNorm,), "backbone": (nn.Module,)}[self.recipe.freeze]
        for module in self.model.backbone.modules():
            if isinstance(module, frozen):
                module.eval()

    def step(self, images: Tensor, labels: Tensor, total: int) -> Tensor:
        """One step of the weights with this process's share of its `total` pictures; sums of loss, right and seen."""
        sums = torch.zeros(3, dtype=torch.float64)
        parts = min(self.recipe.accumulation, len(labels) // 2)  # BatchNorm needs two pictures
        bf16 = self.how["precision"] == "bf16"
        for i in range(parts):
            pictures = images[i::parts].to(self.device, non_blocking=True, memory_format=self.format)
            truth = labels[i::parts].to(self.device, non_blocking=True)
            with nullcontext() if i == parts - 1 else self.accelerator.no_sync(self.network):
                with torch.autocast(self.device.type, torch.bfloat16) if bf16 else nullcontext():
                    logits = self.network(pictures)
                loss = functional.cross_entropy(logits.float(), truth, reduction="sum")
                # DistributedDataParallel averages over processes; the factor makes the mean exact for unequal shares.
                self.accelerator.backward(loss * (self.accelerator.num_processes / total))
            right = (logits.argmax(1) == truth).sum()
            sums += torch.tensor([loss.item(), right, len(truth)], dtype=torch.float64)
        self.optimiser.step()
        self.optimiser.zero_grad()
        return sums

    def train_epoch(self, loader: DataLoader[Any], steps: Steps, epoch: int, bar: Any) -> dict[str, float]:
        """One pass over the training pictures."""
        self.learning_mode()
        rate = self.optimiser.param_groups[0]["lr"]
        sums = torch.zeros(3, dtype=torch.float64)
        for number, (size, (images, labels)) in enumerate(zip(steps.sizes, loader, strict=True), start=1):
            sums += self.step(images, labels, size)
            if not sums[0].isfinite():
                raise FloatingPointError(
                    f"The loss is {sums[0]} in epoch {epoch}, batch {number}, at learning rate {rate:g}. "
                    "Lower learning_rate by a factor of 10, or set precision='fp32'; pictures must lie in [0, 1]."
                )
            bar.update()
        self.schedule.step()
        if self.accelerator.num_processes > 1:
            for buffer in self.model.buffers():  # BatchNorm's statistics, which each process gathers from its own share
                if buffer.is_floating_point():
                    buffer.copy_(self.accelerator.reduce(buffer, "mean"))
        loss, right, seen = self._over_processes(sums)
        return {"learning_rate": rate, "train_loss": loss / seen, "train_accuracy": right / seen}

    def validate(self, loader: DataLoader[Any]) -> dict[str, float]:
        """Loss and accuracy on the validation pictures, in float32."""
        sums = torch.zeros(3, dtype=torch.float64)
        if len(loader):  # more processes than validation pictures leave some without any
            logits, labels = predict(self.model, loader, self.device)
            cost = functional.cross_entropy(logits.double(), labels, reduction="sum")
            sums += torch.tensor([cost, (logits.argmax(1) == labels).sum(), len(labels)], dtype=torch.float64)
        loss, right, seen = self._over_processes(sums)
        return {"validation_loss": loss / seen, "validation_accuracy": right / seen}

    def _over_processes(self, sums: Tensor) -> list[float]:
        return self.accelerator.reduce(sums.to(self.device), "sum").tolist()

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

    def table(self) -> pd.DataFrame:
        """The history, a row for each epoch."""
        import pandas as pd

        return pd.DataFrame(self.history)

    def write_log(self, path: Path | None) -> None:
        """The history as CSV, if there is a path for it and any of it."""
        if path is not None and self.history:
            with write_atomic(path) as part:
                self.table().to_csv(part, index=False)

    def save(self, path: Path, settings: dict[str, Any]) -> None:
        """Write all that the next epoch depends on; random numbers and data order follow from seed and epoch."""
        state = {"settings": settings, "how": self.how, "history": self.history, "best": self.best_state}
        with write_atomic(path) as part:
            torch.save(state | {name: getattr(self, name).state_dict() for name in _STATEFUL}, part)

    def restore(self, path: Path, settings: dict[str, Any]) -> str:
        """Take over the state in ``path``, which all processes read, if it is of this run; says what was done."""
        main = self.accelerator.is_main_process
        if main:
            remove_leftovers(path)
        found = torch.tensor([float(main and path.exists())])  # the main process's view counts
        if not any(self._over_processes(found)):
            return ""
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            other, history = state["settings"], state["history"]
        except Exception as error:
            raise ValueError(f"The checkpoint {path} cannot be read ({error}). Delete it to start anew.") from error
        done, wanted = len(history), self.recipe.epochs
        differs = [key for key in settings if other.get(key) != settings[key]]
        if differs or done > wanted:
            reason = f"is of another run ({', '.join(differs)} differ)"
            if not differs:
                reason = f"holds {done} epochs, {wanted} are wanted"
            aside = path.with_name(f"{path.name}.other")
            self.accelerator.wait_for_everyone()
            if main:
                path.replace(aside)
            return f"{path.name} {reason}: fine-tuning starts anew, and the file is kept as {aside.name}."
        for name in _STATEFUL:
            getattr(self, name).load_state_dict(state[name])
        self.history, self.best_state, before = history, state["best"], state["how"]
        if done == wanted:
            self.how = before
            return f"{path.name} holds all {wanted} epochs: nothing to train."
        changed = [f"{key} {before[key]} before, {now} now" for key, now in self.how.items() if before[key] != now]
        so = f" ({', '.join(changed)})" if changed else ""
        return f"{path.name} holds {done} of {wanted} epochs: fine-tuning continues{so}."


def _tensorboard(folder: Path | None, done: int) -> Any:
    """What writes for TensorBoard; nothing without a folder."""
    if folder is None:
        return nullcontext()
    from torch.utils.tensorboard import SummaryWriter  # takes seconds to import

    return SummaryWriter(folder, purge_step=done + 1)  # hides what a killed run wrote of an epoch now done again


def _check_data(model: FaceClassifier, sizes: tuple[int, int], sets: dict[str, Dataset[Any]], processes: int) -> None:
    """Sizes, and labels where the data set has a ``table`` of them: finding out later costs an epoch."""
    if sizes[0] < 2 * processes:
        raise ValueError(f"train has {sizes[0]} picture(s); each of {processes} process(es) needs 2.")
    if sizes[1] < 1:
        raise ValueError("validation has no picture; without one the best epoch cannot be chosen.")
    for name, dataset in sets.items():
        labels = set(getattr(dataset, "table", {}).get("label", ()))
        if name == "train" and len(labels) == 1:
            raise ValueError("train holds pictures of a single identity; a classifier needs at least 2.")
        if labels and not 0 <= min(labels) <= max(labels) < model.num_classes:
            raise ValueError(
                f"{name} has labels from {min(labels)} to {max(labels)}, but the model has {model.num_classes} classes "
                f"(0 to {model.num_classes - 1}). Build FaceClassifier with the number of identities of the data."
            )


def _settings(model: FaceClassifier, recipe: Recipe, sizes: tuple[int, int], fingerprint: str) -> dict[str, Any]:
    """Everything that decides the weights after a given epoch; ``epochs`` is not among it."""
    weights = hashlib.sha256()
    for key, value in model.state_dict().items():
        weights.update(key.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    chosen = {key: value for key, value in asdict(recipe).items() if key != "epochs"}
    facts = {"initial_weights": weights.hexdigest(), "pictures": json.dumps(sizes), "fingerprint": fingerprint}
    return chosen | facts

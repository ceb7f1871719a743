"""Fine-tuning an identity classifier with the paper's recipe: cross-entropy, AdamW, StepLR; resumable, best kept."""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from xfrlib.artifacts import write_atomic
from xfrlib.models.classifier import FaceClassifier

PRECISIONS = ("auto", "fp32", "bf16")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Recipe:
    """The settings of `fine_tune` that decide what is learnt, checked."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    lr_step: int
    lr_gamma: float
    backbone_learning_rate: float | None
    seed: int

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 2), ("lr_step", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}.")
        for name in ("learning_rate", "lr_gamma", "backbone_learning_rate"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} is {value}; it must be above 0 and finite.")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay is {self.weight_decay}; it must be at least 0 and finite.")


@dataclass
class FineTuning:
    """What a fine-tuning gave. Accuracies lie in [0, 1]; epochs count from 1.

    history: one row per epoch: epoch, learning_rate (the head's), train_loss, train_accuracy (both over the epoch, in
        training mode), validation_loss, validation_accuracy, seconds.
    resumed_from: epochs that were found done in the checkpoint; 0 for a run from the start.
    precision: "bf16" or "fp32", what the training steps used; evaluation is always fp32.
    """

    history: pd.DataFrame
    best_epoch: int
    best_validation_accuracy: float
    precision: str
    resumed_from: int
    note: str


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


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share in [0, 1] of rows of logits (n, N) whose largest entry is the label's, labels (n,)."""
    return float((logits.argmax(1) == labels).double().mean())


@torch.no_grad()  # not inference_mode: a caller may put the logits into a loss, as calibration does
def predict(model: nn.Module, loader: Iterable[Any], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Logits (n, N) float32 and labels (n,) of all pictures of a loader, on the CPU, in the loader's order.

    The loader yields (images (B, 3, H, W) RGB in [0, 1], labels (B,), ...). The model computes in evaluation mode
    and in float32; its mode is put back.
    """
    was_training = model.training
    model.eval()
    try:
        pairs = [(model(batch[0].to(device)).float().cpu(), batch[1].cpu()) for batch in loader]
    finally:
        model.train(was_training)
    if not pairs:
        raise ValueError("The loader is empty: there is no picture to predict.")
    return torch.cat([logits for logits, _ in pairs]), torch.cat([labels for _, labels in pairs])


def fine_tune(
    model: FaceClassifier,
    train: Dataset[Any],
    validation: Dataset[Any],
    *,
    epochs: int = 20,
    batch_size: int = 64,
    learning_rate: float = 0.005,
    weight_decay: float = 0.01,
    lr_step: int = 10,
    lr_gamma: float = 0.1,
    backbone_learning_rate: float | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    precision: str = "auto",
    num_workers: int = 0,
    checkpoint: Path | None = None,
    log: Path | None = None,
    fingerprint: str = "",
    progress: bool = True,
    after_epoch: Callable[[dict[str, float]], None] | None = None,
) -> FineTuning:
    """Fine-tune all parameters of ``model`` but the frozen ones; it is left on ``device`` with the best weights.

    train, validation: data sets of (image (3, H, W) RGB in [0, 1], label, ...).
    Best: highest validation accuracy; among equals the lowest validation loss, then the earlier epoch.
    learning_rate: of every parameter, or of the head only where backbone_learning_rate is given; both are multiplied by
        lr_gamma after every lr_step epochs. The paper does not give batch_size and weight_decay: these are ours.
    checkpoint: written after each epoch, whole or not at all. A later call continues from it where recipe, precision,
        workers, initial weights, sizes of the data and ``fingerprint`` (whatever else the result depends on) are the
        same, and starts anew and says so where one differs. ``epochs`` may be raised: the epochs already done are kept.
        On a CPU, with the same number of threads, the continued run ends with the weights of an unbroken one, bit for
        bit.
    log: CSV of the history, rewritten after each epoch.
    after_epoch: called with each new row of the history once the checkpoint is written.

    Random numbers (order of pictures, torch-based augmentation) are a function of seed and epoch; torch's global
    generators are put back at the end. A last batch of one picture is left out of the epoch, because one picture
    gives BatchNorm poor statistics or none; the pictures are shuffled, so it is another one each time.

    Raises ValueError for impossible settings, empty data or a single identity; FloatingPointError, naming epoch, batch
    and learning rate, when the loss is not finite.
    Source: recipe of arXiv 2505.03837 (AdamW 0.005, 20 epochs, StepLR 10 / 0.1).
    """
    recipe = _Recipe(epochs, batch_size, learning_rate, weight_decay, lr_step, lr_gamma, backbone_learning_rate, seed)
    _check_data(model, train, validation)
    used = training_precision(precision, device)
    run = _Run(model.to(device), recipe, torch.device(device), used)
    settings = _settings(model, recipe, used, num_workers, (_length(train), _length(validation)), fingerprint)
    note = run.restore(checkpoint, settings) if checkpoint is not None and checkpoint.exists() else ""
    if note:
        _say(note, progress)
    resumed_from = len(run.history)
    _write_log(log, run.history)  # the log is there even if nothing is left to train

    held_out = DataLoader(validation, batch_size, num_workers=num_workers)
    steps = _steps(_length(train), batch_size)
    # smoothing=0: the mean rate since the start, validation included, so that the time left is that of the whole run.
    with (
        tqdm(
            total=epochs * steps, initial=resumed_from * steps, desc="fine-tuning", unit="batch", smoothing=0,
            mininterval=1, disable=not progress,
        ) as bar,
        torch.random.fork_rng(devices=[run.device] if run.device.type == "cuda" else []),
    ):  # fmt: skip
        for epoch in range(resumed_from + 1, epochs + 1):
            started = perf_counter()
            loader = _training_loader(train, recipe, epoch, num_workers)
            row = run.train_epoch(loader, epoch, bar) | run.validate(held_out)
            run.close_epoch({"epoch": epoch} | row | {"seconds": round(perf_counter() - started, 3)})
            bar.set_postfix_str(f"epoch {epoch}: validation accuracy {row['validation_accuracy']:.1%}")
            if checkpoint is not None:
                run.save(checkpoint, settings)
            _write_log(log, run.history)
            if after_epoch is not None:
                after_epoch(dict(run.history[-1]))

    run.model.load_state_dict(run.best_state)
    run.model.eval()
    best = run.best
    return FineTuning(
        pd.DataFrame(run.history), int(best["epoch"]), best["validation_accuracy"], used, resumed_from, note
    )


class _Run:
    """Model, optimiser, schedule, history and best weights of one fine-tuning."""

    def __init__(self, model: FaceClassifier, recipe: _Recipe, device: torch.device, precision: str) -> None:
        self.model, self.device, self.precision = model, device, precision
        backbone = [p for p in model.backbone.parameters() if p.requires_grad]
        rate = recipe.learning_rate if recipe.backbone_learning_rate is None else recipe.backbone_learning_rate
        groups: list[dict[str, Any]] = [
            {"params": list(model.head.parameters()), "lr": recipe.learning_rate},
            {"params": backbone, "lr": rate},
        ]
        self.optimiser = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.optimiser, recipe.lr_step, recipe.lr_gamma)
        self.epochs = recipe.epochs
        self.history: list[dict[str, float]] = []
        self.best_state: dict[str, Tensor] = {}

    @property
    def best(self) -> dict[str, float]:
        """The best row so far; min takes the first of equals, hence the earlier epoch."""
        return min(self.history, key=lambda row: (-row["validation_accuracy"], row["validation_loss"]))

    def train_epoch(self, loader: Iterable[Any], epoch: int, bar: Any) -> dict[str, float]:
        """One pass over the training pictures."""
        self.model.train()
        rate = self.optimiser.param_groups[0]["lr"]
        loss_sum, right, seen = 0.0, 0, 0
        for number, batch in enumerate(loader, start=1):
            images, labels = batch[0].to(self.device), batch[1].to(self.device)
            with torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext():
                logits = self.model(images)
            loss = functional.cross_entropy(logits.float(), labels)
            if not math.isfinite(loss.item()):
                raise FloatingPointError(
                    f"The loss is {loss.item()} in epoch {epoch}, batch {number}, at learning rate {rate:g}. "
                    "Lower learning_rate by a factor of 10, or set precision='fp32'; pictures must lie in [0, 1]."
                )
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            loss_sum += loss.item() * len(labels)
            right += int((logits.argmax(1) == labels).sum())
            seen += len(labels)
            bar.update()
        self.schedule.step()
        return {"learning_rate": rate, "train_loss": loss_sum / seen, "train_accuracy": right / seen}

    def validate(self, loader: Iterable[Any]) -> dict[str, float]:
        """Loss and accuracy on the validation pictures, in float32."""
        logits, labels = predict(self.model, loader, self.device)
        loss = float(functional.cross_entropy(logits, labels))
        return {"validation_loss": loss, "validation_accuracy": accuracy(logits, labels)}

    def close_epoch(self, row: dict[str, float]) -> None:
        """Add a row to the history, and keep the weights if it is the best."""
        self.history.append(row)
        if self.best is row:
            self.best_state = {key: value.detach().cpu().clone() for key, value in self.model.state_dict().items()}

    def save(self, path: Path, settings: dict[str, Any]) -> None:
        """Write all that the next epoch depends on; random numbers and data order follow from seed and epoch."""
        state = {
            "settings": settings,
            "history": self.history,
            "model": self.model.state_dict(),
            "best": self.best_state,
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        with write_atomic(path) as part:
            torch.save(state, part)

    def restore(self, path: Path, settings: dict[str, Any]) -> str:
        """Take over the state in ``path`` if it is of the same run. Returns a sentence that says what was done."""
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            found, history = state["settings"], state["history"]
        except Exception as error:
            raise ValueError(f"The checkpoint {path} cannot be read ({error}). Delete it to start anew.") from error
        differs = [key for key in settings if found.get(key) != settings[key]]
        if differs:
            return f"{path.name} is of another run ({', '.join(differs)} differ): fine-tuning starts anew."
        if len(history) > self.epochs:
            return f"{path.name} holds {len(history)} epochs, {self.epochs} are wanted: fine-tuning starts anew."
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.history, self.best_state = history, state["best"]
        if len(history) == self.epochs:
            return f"{path.name} holds all {self.epochs} epochs: nothing to train."
        return f"{path.name} holds {len(history)} of {self.epochs} epochs: fine-tuning continues."


def _length(dataset: Dataset[Any]) -> int:
    return len(dataset)  # type: ignore[arg-type]  # torch's Dataset does not declare __len__


def _steps(pictures: int, batch_size: int) -> int:
    """Batches in an epoch; a last batch of one picture is left out."""
    return pictures // batch_size if pictures % batch_size == 1 else math.ceil(pictures / batch_size)


def _training_loader(train: Dataset[Any], recipe: _Recipe, epoch: int, num_workers: int) -> DataLoader[Any]:
    """Loader of one epoch. It seeds torch's global generators, which augmentation draws from, by seed and epoch."""
    epoch_seed = int.from_bytes(hashlib.sha256(f"{recipe.seed} {epoch}".encode()).digest()[:6], "big")
    torch.manual_seed(epoch_seed)
    generator = torch.Generator().manual_seed(epoch_seed)
    drop_last = _length(train) % recipe.batch_size == 1
    return DataLoader(
        train, recipe.batch_size, shuffle=True, drop_last=drop_last, generator=generator, num_workers=num_workers
    )


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


def _settings(
    model: FaceClassifier, recipe: _Recipe, precision: str, num_workers: int, sizes: tuple[int, int], fingerprint: str
) -> dict[str, Any]:
    """Everything that decides the weights after a given epoch; ``epochs`` is not among it."""
    digest = hashlib.sha256()
    for key, value in model.state_dict().items():
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    chosen = {key: value for key, value in asdict(recipe).items() if key != "epochs"}
    data = {"initial_weights": digest.hexdigest(), "pictures": json.dumps(sizes), "fingerprint": fingerprint}
    return chosen | {"precision": precision, "num_workers": num_workers} | data


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

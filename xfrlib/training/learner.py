"""Model, optimiser, schedule, history and best weights of one fine-tuning, on the devices that Accelerate finds."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from xfrlib.artifacts import device_name, remove_leftovers, write_atomic
from xfrlib.checks import need_module
from xfrlib.models.classifier import FaceClassifier
from xfrlib.prediction import predict
from xfrlib.training.recipe import Recipe, Steps, training_precision

if TYPE_CHECKING:
    from accelerate import Accelerator

_STATEFUL = ("model", "optimiser", "schedule")  # of a Learner
_FROZEN = {"nothing": (), "batchnorm": (nn.modules.batchnorm._BatchNorm,), "backbone": (nn.Module,)}


def make_accelerator(device: torch.device | str | None, tensorboard: Path | None = None) -> Accelerator:
    """What divides the work among processes, on their GPUs; on the CPU for device "cpu" and where there is no GPU."""
    accelerate = need_module("accelerate", "fine-tuning", "xfrlib[train]")
    board = {} if tensorboard is None else {"log_with": "tensorboard", "project_dir": tensorboard.parent}
    return accelerate.Accelerator(cpu=str(device).startswith("cpu"), mixed_precision="no", **board)


class Learner:
    """The state of a fine-tuning in one process; `step` is what a training step costs."""

    def __init__(self, model: FaceClassifier, recipe: Recipe, accelerator: Accelerator, *, compile: bool) -> None:
        self.accelerator, self.recipe, self.device = accelerator, recipe, accelerator.device
        # channels_last is the layout of GPU convolutions; training with it on a CPU crashes in torch 2.15.
        self.format = torch.channels_last if self.device.type == "cuda" else torch.contiguous_format
        self.model = model.to(self.device, memory_format=self.format)  # type: ignore[call-overload]
        frozen = recipe.freeze == "backbone"
        self.learning = [parameter for parameter in model.backbone.parameters() if parameter.requires_grad]
        for parameter in self.learning:
            parameter.requires_grad_(not frozen)
        precision = training_precision(recipe.precision, self.device)
        self.how = {"device": device_name(self.device), "precision": precision, "processes": accelerator.num_processes}
        groups: list[dict[str, Any]] = [{"params": list(model.head.parameters()), "lr": recipe.learning_rate}]
        if self.learning and not frozen:
            groups.append({"params": self.learning, "lr": recipe.backbone_learning_rate or recipe.learning_rate})
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
        for module in self.model.backbone.modules():
            if isinstance(module, _FROZEN[self.recipe.freeze]):
                module.eval()

    def step(self, images: Tensor, labels: Tensor, total: int) -> Tensor:
        """One step of the weights with this process's share of its `total` pictures; sums of loss, right and seen."""
        sums = torch.zeros(3, dtype=torch.float64)
        parts = min(self.recipe.accumulation, len(labels) // 2)  # BatchNorm needs two pictures
        for i in range(parts):
            pictures = images[i::parts].to(self.device, non_blocking=True, memory_format=self.format)
            truth = labels[i::parts].to(self.device, non_blocking=True)
            with nullcontext() if i == parts - 1 else self.accelerator.no_sync(self.network):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.how["precision"] == "bf16"):
                    logits = self.network(pictures)
                loss = nn.functional.cross_entropy(logits.float(), truth, reduction="sum")
                # DistributedDataParallel averages over processes; the factor makes the mean exact for unequal shares.
                self.accelerator.backward(loss * (self.accelerator.num_processes / total))
            sums += _sums(loss, logits, truth)
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
                fault = f"The loss is {sums[0]} in epoch {epoch}, batch {number}, at learning rate {rate:g}."
                mend = "Lower learning_rate by a factor of 10, or set precision='fp32'; pictures must lie in [0, 1]."
                raise FloatingPointError(f"{fault} {mend}")
            bar.update()
        self.schedule.step()
        for buffer in self.model.buffers():  # BatchNorm's statistics, which each process gathers from its own share
            if buffer.is_floating_point():
                buffer.copy_(self.accelerator.reduce(buffer, "mean"))
        return {"learning_rate": rate, **self._means("train", sums)}

    def validate(self, loader: DataLoader[Any]) -> dict[str, float]:
        """Loss and accuracy on the validation pictures, in float32."""
        sums = torch.zeros(3, dtype=torch.float64)
        if len(loader):  # more processes than validation pictures leave some without any
            logits, labels = predict(self.model, loader, self.device)
            sums = _sums(nn.functional.cross_entropy(logits.double(), labels, reduction="sum"), logits, labels)
        return self._means("validation", sums)

    def _means(self, name: str, sums: Tensor) -> dict[str, float]:
        shared = sums if self.accelerator.num_processes == 1 else sums.to(self.device)  # Apple's GPU has no float64
        loss, right, seen = self.accelerator.reduce(shared, "sum").tolist()  # over all processes
        return {f"{name}_loss": loss / seen, f"{name}_accuracy": right / seen}

    def close_epoch(self, row: dict[str, float]) -> None:
        """Add a row to the history, and keep the weights if it is the best."""
        self.history.append(row)
        if self.best is row:
            self.best_state = {key: value.detach().cpu().clone() for key, value in self.model.state_dict().items()}

    def finish(self) -> None:
        """Put the best weights into the model, and give back what was frozen."""
        self.model.load_state_dict(self.best_state)
        self.model.eval()
        for parameter in self.learning:
            parameter.requires_grad_(True)

    def save(self, path: Path, settings: dict[str, Any]) -> None:
        """Write all that the next epoch depends on; random numbers and data order follow from seed and epoch."""
        state = {"settings": settings, "how": self.how, "history": self.history, "best": self.best_state}
        with write_atomic(path) as part:
            torch.save(state | {name: getattr(self, name).state_dict() for name in _STATEFUL}, part)

    def restore(self, path: Path, settings: dict[str, Any]) -> str:
        """Take over the state in ``path``, which all processes read, if it is of this run; says what was done."""
        from accelerate.utils import broadcast_object_list

        remove_leftovers(path)
        if not broadcast_object_list([path.exists()])[0]:  # the main process's view counts
            return ""
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            other, history, best, before = (state[name] for name in ("settings", "history", "best", "how"))
            done, wanted = len(history), self.recipe.epochs
        except Exception as error:
            raise ValueError(f"The checkpoint {path} cannot be read ({error!r}). Delete it to start anew.") from error
        differs = ", ".join(key for key in settings if other.get(key) != settings[key])
        if differs or done > wanted:
            aside = path.with_name(f"{path.name}.other")
            self.accelerator.wait_for_everyone()
            if self.accelerator.is_main_process:
                path.replace(aside)
            reason = f"is of another run ({differs} differ)" if differs else f"holds {done} epochs, {wanted} are wanted"
            return f"{path.name} {reason}: fine-tuning starts anew, and the file is kept as {aside.name}."
        for name in _STATEFUL:
            getattr(self, name).load_state_dict(state[name])
        self.history, self.best_state = history, best
        if done == wanted:
            self.how = before
            return f"{path.name} holds all {wanted} epochs: nothing to train."
        changed = [f"{key} {before[key]} before, {now} now" for key, now in self.how.items() if before[key] != now]
        return f"{path.name} holds {done} of {wanted} epochs: fine-tuning continues. {'; '.join(changed)}".rstrip()


def _sums(loss: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """A summed loss, how many pictures were right and how many there were."""
    return torch.tensor([loss.item(), (logits.argmax(1) == labels).sum(), len(labels)], dtype=torch.float64)

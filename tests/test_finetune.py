"""Fine-tuning: the recipe against a plain loop, resuming bit for bit, the best weights, and what stops a run."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tiny_training import Coloured, Row, tiny
from torch import nn
from torch.utils.data import DataLoader

from xfrlib.artifacts import device_name
from xfrlib.models import FaceClassifier
from xfrlib.prediction import accuracy, predict
from xfrlib.training import FineTuning, Recipe, fine_tune, training_precision
from xfrlib.training.learner import Learner
from xfrlib.training.recipe import Augmented, Steps

QUICK: dict[str, Any] = {"epochs": 4, "batch_size": 4, "lr_step": 2, "precision": "fp32", "progress": False}


class Stop(Exception):
    """Raised by a test to break a run off."""


@contextmanager
def stopped_after(epoch: int) -> Iterator[None]:
    """The run in the block is broken off when the next epoch is to begin."""
    begin = Steps.begin

    def stop(steps: Steps, number: int) -> None:
        if number > epoch:
            raise Stop
        begin(steps, number)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(Steps, "begin", stop)
        yield


def assert_same_run(models: list[FaceClassifier], runs: list[FineTuning]) -> None:
    for model, run in zip(models[1:], runs[1:], strict=True):
        for key, value in models[0].state_dict().items():
            assert torch.equal(value, model.state_dict()[key]), key
        pd.testing.assert_frame_equal(
            run.history.drop(columns="seconds"), runs[0].history.drop(columns="seconds"), check_exact=True
        )
        assert run.best_epoch == runs[0].best_epoch


def test_it_learns_and_leaves_the_best_weights() -> None:
    model, held_out = tiny(), Coloured(30, seed=1, noise=0.9)
    run = fine_tune(model, Coloured(60, noise=0.9), held_out, **QUICK | {"epochs": 8, "learning_rate": 0.02})
    assert list(run.history.columns) == [
        "epoch", "learning_rate", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "seconds",
    ]  # fmt: skip
    assert run.history["epoch"].tolist() == list(range(1, 9))
    assert run.best_validation_accuracy == run.history["validation_accuracy"].max() > 0.8
    logits, labels = predict(model, DataLoader(held_out, 7))
    row = run.history.set_index("epoch").loc[run.best_epoch]
    assert accuracy(logits, labels) == row["validation_accuracy"]
    assert float(nn.functional.cross_entropy(logits.double(), labels)) == pytest.approx(
        row["validation_loss"], rel=1e-5
    )
    assert not model.training


def test_a_gpu_without_float64_is_given_no_sums_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apple's: the sums of an epoch, in float64, stay on the CPU, where one process needs nobody else's."""
    move = torch.Tensor.to

    def narrow(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if torch.float64 in (tensor.dtype, *args, kwargs.get("dtype")):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return move(tensor, *args, **kwargs)

    model, data = tiny(), Coloured(9)
    plain = fine_tune(tiny(), data, data, **QUICK)
    monkeypatch.setattr(torch.Tensor, "to", narrow)
    with pytest.raises(TypeError, match="float64"):
        torch.zeros(3, dtype=torch.float64).to("cpu")
    found = fine_tune(model, data, data, **QUICK)
    pd.testing.assert_frame_equal(found.history.drop(columns="seconds"), plain.history.drop(columns="seconds"))


def test_a_device_is_recorded_as_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for threads, said in ((1, "CPU, 1 thread"), (2, "CPU, 2 threads")):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert device_name(torch.device("cpu")) == said
    assert device_name(torch.device("mps")) == "MPS"


def test_recipe_equals_a_plain_loop(tmp_path: Path) -> None:
    data = Coloured(6)
    model, plain = tiny(), tiny()
    settings: dict[str, Any] = {
        "learning_rate": 0.01,
        "weight_decay": 0.3,
        "backbone_learning_rate": 0.002,
        "lr_gamma": 0.5,
    }
    # One batch holds all pictures, so that their order does not matter beyond rounding.
    settings |= {"epochs": 3, "batch_size": 6, "checkpoint": tmp_path / "c.pt"}
    run = fine_tune(model, data, data, **QUICK | settings)
    last = torch.load(tmp_path / "c.pt")["model"]
    head = torch.optim.AdamW(plain.head.parameters(), lr=0.01, weight_decay=0.3)
    body = torch.optim.AdamW([p for p in plain.backbone.parameters() if p.requires_grad], lr=0.002, weight_decay=0.3)
    plain.train()
    losses = []
    for step in range(3):
        for optimiser, rate in ((head, 0.01), (body, 0.002)):
            optimiser.param_groups[0]["lr"] = rate * (0.5 if step == 2 else 1)
            optimiser.zero_grad()
        loss = nn.functional.cross_entropy(plain(data.images), data.labels)
        loss.backward()
        head.step()
        body.step()
        losses.append(loss.item())
    assert run.history["train_loss"].tolist() == pytest.approx(losses, rel=1e-4)
    assert run.history["learning_rate"].tolist() == pytest.approx([0.01, 0.01, 0.005])
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(last[key], value, rtol=1e-3, atol=1e-5, msg=key)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path, precision: str) -> None:
    train, held_out = Coloured(14, flip=True), Coloured(6, seed=1)
    settings = QUICK | {"epochs": 5, "precision": precision, "learning_rate": 0.02}
    models = [tiny() for _ in range(4)]
    runs = [fine_tune(models[0], train, held_out, **settings)]

    stopped = tmp_path / "stopped.pt"
    with stopped_after(3):
        fine_tune(models[1], train, held_out, **settings, checkpoint=stopped)
    models[1] = tiny()
    runs.append(fine_tune(models[1], train, held_out, **settings, checkpoint=stopped))
    assert "holds 3 of 5 epochs" in runs[-1].note

    prolonged = tmp_path / "prolonged.pt"
    fine_tune(tiny(), train, held_out, **settings | {"epochs": 2}, checkpoint=prolonged)
    runs.append(fine_tune(models[2], train, held_out, **settings, checkpoint=prolonged))
    assert "holds 2 of 5 epochs" in runs[-1].note

    torch.manual_seed(99)  # what the caller drew before must not matter
    runs.append(fine_tune(models[3], train, held_out, **settings, checkpoint=tmp_path / "fresh.pt"))
    assert_same_run(models, runs)


def test_a_run_broken_off_within_an_epoch_resumes(tmp_path: Path) -> None:
    class Failing(Coloured):
        limit = 10**9

        def __getitem__(self, index: int) -> Row:
            if self.read >= self.limit:
                raise Stop
            return super().__getitem__(index)

    train, held_out = Failing(12, flip=True), Coloured(6, seed=1)
    models = [tiny(), tiny()]
    runs = [fine_tune(models[0], train, held_out, **QUICK)]
    train.read, train.limit = 0, 12 + 5  # in the second epoch
    with pytest.raises(Stop):
        fine_tune(tiny(), train, held_out, **QUICK, checkpoint=tmp_path / "c.pt")
    train.limit = 10**9
    runs.append(fine_tune(models[1], train, held_out, **QUICK, checkpoint=tmp_path / "c.pt"))
    assert "holds 1 of 4 epochs" in runs[1].note
    assert_same_run(models, runs)


def test_a_complete_run_trains_nothing_and_gives_the_same(tmp_path: Path) -> None:
    train, held_out = Coloured(12), Coloured(6, seed=1)
    models = [tiny(), tiny()]
    runs = [fine_tune(models[0], train, held_out, **QUICK, checkpoint=tmp_path / "c.pt")]
    train.read = held_out.read = 0
    log = tmp_path / "log.csv"
    runs.append(fine_tune(models[1], train, held_out, **QUICK, checkpoint=tmp_path / "c.pt", log=log))
    assert train.read == held_out.read == 0
    assert pd.read_csv(log)["epoch"].tolist() == [1, 2, 3, 4]
    assert "nothing to train" in runs[1].note
    assert_same_run(models, runs)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"fingerprint": "other data"}, "fingerprint"),
        ({"learning_rate": 0.004}, "learning_rate"),
        ({"seed": 1}, "seed"),
        ({"epochs": 3}, "4 epochs, 3 are wanted"),
    ],
)
def test_another_run_starts_anew_and_says_so(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    train, held_out = Coloured(12, flip=True), Coloured(6, seed=1)
    fine_tune(tiny(), train, held_out, **QUICK, checkpoint=tmp_path / "c.pt")
    models = [tiny(), tiny()]
    runs = [fine_tune(models[0], train, held_out, **QUICK | change)]
    runs.append(fine_tune(models[1], train, held_out, **QUICK | change, checkpoint=tmp_path / "c.pt"))
    assert named in runs[1].note
    assert "starts anew" in runs[1].note
    assert_same_run(models, runs)


def test_other_initial_weights_start_anew(tmp_path: Path) -> None:
    train, held_out = Coloured(12), Coloured(6, seed=1)
    fine_tune(tiny(0), train, held_out, **QUICK, checkpoint=tmp_path / "c.pt")
    run = fine_tune(tiny(1), train, held_out, **QUICK, checkpoint=tmp_path / "c.pt")
    assert "initial_weights" in run.note


def test_seed_decides_the_order_of_pictures() -> None:
    train, held_out = Coloured(12), Coloured(6, seed=1)
    losses = [fine_tune(tiny(), train, held_out, **QUICK | {"seed": s}).history["train_loss"][0] for s in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_no_global_state_is_left_behind() -> None:
    before = torch.get_rng_state()
    fine_tune(tiny(), Coloured(8, flip=True), Coloured(3), **QUICK)
    with stopped_after(1):
        fine_tune(tiny(), Coloured(8, flip=True), Coloured(3), **QUICK)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.is_grad_enabled()


def test_best_is_accuracy_then_loss_then_the_earlier_epoch() -> None:
    from xfrlib.training.learner import Learner, make_accelerator

    run = Learner(tiny(), Recipe(), make_accelerator("cpu"), compile=False)
    outcomes = [(0.5, 0.1), (0.8, 0.9), (0.8, 0.4), (0.8, 0.4), (0.7, 0.0)]
    chosen = []
    for epoch, (right, loss) in enumerate(outcomes, start=1):
        run.model.head.bias.data.fill_(float(epoch))
        run.close_epoch({"epoch": epoch, "validation_accuracy": right, "validation_loss": loss})
        chosen.append((run.best["epoch"], run.best_state["head.bias"][0].item()))
    assert chosen == [(1, 1), (2, 2), (3, 3), (3, 3), (3, 3)]


def test_a_last_batch_of_one_picture_is_left_out() -> None:
    for count, read in ((9, 8), (10, 10), (8, 8)):
        train = Coloured(count)
        fine_tune(tiny(), train, Coloured(3), **QUICK | {"epochs": 1})
        assert train.read == read


def test_only_training_steps_use_bf16() -> None:
    model, seen = tiny(), set()
    model.backbone.body.register_forward_hook(lambda m, _, out: seen.add((m.training, out.dtype)))
    run = fine_tune(model, Coloured(8), Coloured(3), **QUICK | {"epochs": 1, "precision": "bf16"})
    assert run.precision == "bf16"
    assert seen == {(True, torch.bfloat16), (False, torch.float32)}


def test_precision_is_chosen_by_what_the_cpu_has(monkeypatch: pytest.MonkeyPatch) -> None:
    for able, expected in (({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({"avx2": True}, "fp32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able)
        assert training_precision("auto", "cpu") == expected
        assert training_precision("fp32", "cpu") == "fp32"


def test_the_embedding_head_does_not_change() -> None:
    model = tiny()
    before = model.backbone.output_layer[3].weight.clone()
    body = model.backbone.input_layer[0].weight.clone()
    fine_tune(model, Coloured(8), Coloured(3), **QUICK | {"weight_decay": 0.5})
    assert torch.equal(model.backbone.output_layer[3].weight, before)
    assert not torch.equal(model.backbone.input_layer[0].weight, body)


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    model = tiny()
    nn.init.constant_(model.head.weight, torch.nan)
    with pytest.raises(FloatingPointError, match=r"nan in epoch 1, batch 1, at learning rate 0\.005.*Lower"):
        fine_tune(model, Coloured(8), Coloured(3), **QUICK)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0), ("batch_size", 1), ("lr_step", 0), ("seed", -1), ("learning_rate", 0.0), ("lr_gamma", -1.0),
        ("learning_rate", float("nan")), ("backbone_learning_rate", 0.0), ("weight_decay", -0.1), ("accumulation", 0),
        ("freeze", "head"), ("augmentation", "flop"), ("precision", "half"),
    ],
)  # fmt: skip
def test_impossible_settings_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{name} = "):
        fine_tune(tiny(), Coloured(8), Coloured(3), **QUICK | {name: value})


def test_data_that_cannot_be_learnt_are_refused() -> None:
    one, many = Coloured(6), Coloured(6)
    one.labels[:] = 1
    many.labels[0] = 3
    for train, held_out, message in (
        (one, Coloured(3), "single identity"),
        (many, Coloured(3), "train has labels from 0 to 3, but the model has 3 classes"),
        (Coloured(6), many, "validation has labels"),
        (Coloured(1), Coloured(3), "train has 1 picture"),
        (Coloured(6), Coloured(0), "validation has no picture"),
    ):
        with pytest.raises(ValueError, match=message):
            fine_tune(tiny(), train, held_out, **QUICK)


def test_the_log_is_the_history(tmp_path: Path) -> None:
    run = fine_tune(tiny(), Coloured(8), Coloured(3), **QUICK, log=tmp_path / "log.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "log.csv"), run.history)


class Malicious:
    """Makes a folder when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda path, state: path.write_bytes(b""), "EOFError"),
        (lambda path, state: path.write_bytes(path.read_bytes()[:5000]), "Error"),
        (lambda path, state: path.write_text("nothing"), "Error"),
        (lambda path, state: torch.save({"a": torch.zeros(1)}, path), r"KeyError\('settings'\)"),
        (lambda path, state: torch.save({k: v for k, v in state.items() if k != "how"}, path), r"KeyError\('how'\)"),
        (lambda path, state: torch.save(state | {"history": 3}, path), "TypeError"),
    ],
    ids=["empty", "cut", "text", "of others", "incomplete", "of another form"],
)
def test_a_checkpoint_that_is_none_is_named_with_the_mend(tmp_path: Path, spoil: Any, found: str) -> None:
    path = tmp_path / "c.pt"
    fine_tune(tiny(), Coloured(8), Coloured(3), **QUICK | {"epochs": 1}, checkpoint=path)
    spoil(path, torch.load(path))
    with pytest.raises(ValueError, match=rf"c\.pt cannot be read \(.*{found}.*\)\. Delete it to start anew\.$"):
        fine_tune(tiny(), Coloured(8), Coloured(3), **QUICK, checkpoint=path)


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    target, path = tmp_path / "made", tmp_path / "c.pt"
    torch.save({"settings": Malicious(target)}, path)
    with pytest.raises(ValueError, match=r"c\.pt cannot be read"):
        fine_tune(tiny(), Coloured(8), Coloured(3), **QUICK, checkpoint=path)
    assert not target.exists()


def test_predict_keeps_order_and_puts_the_mode_back() -> None:
    model, data = tiny().train(), Coloured(5)
    logits, labels = predict(model, DataLoader(data, 2))
    assert model.training
    assert labels.tolist() == [0, 1, 2, 0, 1]
    torch.testing.assert_close(logits, model.eval()(data.images).detach())
    temperature = torch.ones((), requires_grad=True)
    nn.functional.cross_entropy(logits / temperature, labels).backward()  # calibration must be possible
    assert temperature.grad is not None
    with pytest.raises(ValueError, match="empty"):
        predict(model, [])
    model.train()
    with pytest.raises(ValueError, match=r"images must be \(B, 3, H, W\)"):
        predict(model, [(torch.zeros(1, 1, 16, 16), torch.zeros(1))])
    assert model.training


def test_accuracy_by_hand() -> None:
    logits = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert accuracy(logits, torch.tensor([1, 0, 0, 1])) == 0.75


def test_accumulation_changes_nothing_but_batchnorms_statistics() -> None:
    losses = {}
    for freeze in ("nothing", "batchnorm"):
        for parts in (1, 3):
            settings = QUICK | {"batch_size": 7, "accumulation": parts, "freeze": freeze, "epochs": 2}
            model, seen = tiny(), set()
            model.backbone.register_forward_hook(lambda m, _, out, seen=seen: seen.add((m.training, len(out))))
            run = fine_tune(model, Coloured(14), Coloured(3), **settings)
            assert {size for training, size in seen if training} == ({7} if parts == 1 else {2, 3})
            losses[freeze, parts] = run.history["train_loss"].tolist()
    assert losses["batchnorm", 3] == pytest.approx(losses["batchnorm", 1], abs=1e-4)
    assert losses["nothing", 3] != pytest.approx(losses["nothing", 1], abs=1e-4)


@pytest.mark.parametrize("freeze", ["nothing", "batchnorm", "backbone"])
def test_what_is_frozen_stays(freeze: str) -> None:
    model = tiny()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fine_tune(model, Coloured(8), Coloured(3), **QUICK | {"freeze": freeze})
    assert all(p.requires_grad for p in model.backbone.body.parameters()), "what was frozen is given back"
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert "head.weight" in moved
    statistics = {key for key in before if "running" in key and "output_layer" not in key}
    weights = {key for key, p in model.backbone.named_parameters(prefix="backbone") if "output_layer" not in key}
    assert (statistics <= moved, weights <= moved) == {
        "nothing": (True, True), "batchnorm": (False, True), "backbone": (False, False),
    }[freeze]  # fmt: skip
    assert freeze != "backbone" or {key.split(".")[0] for key in moved} == {"head"}


def test_a_compiled_network_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def compile(model: nn.Module) -> nn.Module:  # what the compiler returns wraps the module and shares its weights
        seen.append(model)
        return nn.Sequential(model)

    monkeypatch.setattr(torch, "compile", compile)
    models = [tiny(), tiny()]
    runs = [
        fine_tune(model, Coloured(8), Coloured(3), **QUICK, compile=on)
        for model, on in zip(models, (False, True), strict=True)
    ]
    assert seen == [models[1]]
    assert_same_run(models, runs)


def test_workers_change_nothing() -> None:
    models, runs = [tiny(), tiny()], []
    for model, workers in zip(models, (0, 2), strict=True):
        settings = QUICK | {"augmentation": "photometric", "epochs": 2}
        runs.append(fine_tune(model, Coloured(12, flip=True), Coloured(3), **settings, num_workers=workers))
    assert_same_run(models, runs)


LOSSES = (ConnectionResetError(104, "reset"), EOFError(), RuntimeError("DataLoader worker (pid 7) is killed by signal"))


@pytest.mark.parametrize("error", LOSSES, ids=lambda error: type(error).__name__)
def test_the_loss_of_a_worker_is_told_however_torch_notices_it(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> None:
        raise error

    monkeypatch.setattr(Learner, "validate", lost)
    with pytest.raises(ChildProcessError, match="a process that reads pictures has died .*num_workers = 0 does"):
        fine_tune(tiny(), Coloured(8), Coloured(3), **QUICK, num_workers=1)
    with pytest.raises(type(error)):  # without workers none can have died
        fine_tune(tiny(), Coloured(8), Coloured(3), **QUICK)


@pytest.mark.parametrize("kind", [RuntimeError, ConnectionResetError, EOFError])
def test_an_error_within_a_worker_is_not_told_as_its_loss(kind: type[Exception]) -> None:
    class Unreadable(Coloured):
        def __getitem__(self, index: int) -> Row:
            raise kind("no such picture")

    with pytest.raises(kind, match="no such picture"):
        fine_tune(tiny(), Unreadable(8), Coloured(3), **QUICK, num_workers=1)


def test_tensorboard_shows_the_history_once_also_after_a_stop(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = QUICK | {"checkpoint": tmp_path / "c.pt", "tensorboard": tmp_path / "board"}
    with stopped_after(2):
        fine_tune(tiny(), Coloured(8), Coloured(3), **settings)
    run = fine_tune(tiny(), Coloured(8), Coloured(3), **settings)
    events = EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    for name in ("train_loss", "validation_accuracy", "learning_rate"):
        assert [event.step for event in events.Scalars(name)] == [1, 2, 3, 4]
        assert [event.value for event in events.Scalars(name)] == pytest.approx(run.history[name].tolist(), rel=1e-6)


def test_a_checkpoint_of_another_run_is_kept_aside(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    fine_tune(tiny(), Coloured(8), Coloured(3), **QUICK, checkpoint=path)
    before = path.read_bytes()
    run = fine_tune(tiny(), Coloured(8), Coloured(3), **QUICK | {"seed": 1}, checkpoint=path)
    assert (tmp_path / "c.pt.other").read_bytes() == before and "c.pt.other" in run.note


def test_each_augmentation_is_a_function_of_its_seed() -> None:
    from xfrlib.profile import AUGMENTATIONS

    data = Coloured(4)
    for name in AUGMENTATIONS:
        changed = Augmented(data, name)
        before = torch.get_rng_state()
        pictures = torch.stack([changed[1, seed][0] for seed in range(20)])
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(pictures, torch.stack([changed[1, seed][0] for seed in range(20)]))
        assert pictures.shape == (20, 3, 16, 16) and pictures.min() >= 0 and pictures.max() <= 1
        kinds = len(pictures.unique(dim=0))
        assert kinds == {"none": 1, "flip": 2}.get(name, 20)
        assert all(changed[1, seed][1] == 1 for seed in range(3))


def test_what_only_training_needs_is_named_when_it_starts_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys, xfrlib.training.__main__; sys.exit('accelerate' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ImportError, match=r'needs accelerate: pip install "xfrlib\[train\]"'):
        fine_tune(tiny(), Coloured(8), Coloured(3), **QUICK)

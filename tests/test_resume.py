"""A fine-tuning that is killed, at any moment, resumes and ends with the weights of one that is not."""

import json
import multiprocessing
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import train

EPOCHS = 40

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL to test with")


def start(folder: Path, **options: Any) -> multiprocessing.Process:
    """A process of its own, from a server that has torch loaded already."""
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["xfrlib.training", "accelerate", "pandas"])
    folder.mkdir(exist_ok=True)
    process = context.Process(target=train, args=(folder,), kwargs=options)
    process.start()
    return process


def assert_same_end(one: Path, other: Path) -> None:
    weights, others = load_file(one / "weights.safetensors"), load_file(other / "weights.safetensors")
    assert weights.keys() == others.keys()
    for key, value in weights.items():
        assert torch.equal(value, others[key]), key
    assert json.loads((one / "history.json").read_text()) == json.loads((other / "history.json").read_text())
    assert not list(other.glob(".*")), "what the killed processes left is still there"


def test_killed_at_five_moments_a_resumed_run_ends_like_an_unbroken_one(tmp_path: Path) -> None:
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    first = start(unbroken, seconds=0.002, epochs=EPOCHS)
    while not (unbroken / "log.csv").exists():  # the first epoch is done
        time.sleep(0.005)
        assert first.exitcode is None
    started = time.monotonic()
    first.join()
    assert first.exitcode == 0
    seconds = time.monotonic() - started

    draw = random.Random(5)
    done = []
    for _ in range(5):
        log = killed / "log.csv"
        before = log.stat().st_mtime_ns if log.exists() else 0
        process = start(killed, seconds=0.002, epochs=EPOCHS)
        while not log.exists() or log.stat().st_mtime_ns == before:  # another epoch is done: it is at work
            time.sleep(0.001)
            assert process.exitcode is None
        time.sleep(draw.uniform(0, 0.12) * seconds)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        done.append(len(log.read_text().splitlines()) - 1)
    assert 0 < done[0] <= done[1] <= done[2] <= done[3] <= done[4] < EPOCHS

    last = start(killed, seconds=0, epochs=EPOCHS)
    last.join()
    assert last.exitcode == 0
    assert_same_end(unbroken, killed)


def test_killed_while_a_checkpoint_is_written_the_one_before_is_resumed(tmp_path: Path) -> None:
    for folder, saves in (("unbroken", 0), ("killed", 3)):
        process = start(tmp_path / folder, kill_while_saving=saves)
        process.join()
    assert process.exitcode == -signal.SIGKILL
    assert list((tmp_path / "killed").glob(".*.checkpoint.pt")), "it was not killed while it wrote"
    process = start(tmp_path / "killed")
    process.join()
    assert process.exitcode == 0
    assert_same_end(tmp_path / "unbroken", tmp_path / "killed")

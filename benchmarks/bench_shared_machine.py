"""A step of fine-tuning beside busy neighbours, as a ratio to the same step on a quiet machine.

python benchmarks/bench_shared_machine.py
python benchmarks/bench_shared_machine.py --neighbours 2 --rounds 5 --json results/shared_machine.json

Threads of torch wait for each other by spinning. Beside busy processes a thread that waits keeps the processor that
the one it waits for needs. Each way is measured in processes of its own, in turn, so that whatever else the
machine does meets all of them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import make_book
import torch
from tqdm import tqdm

from xfrlib import artifacts
from xfrlib.models import FaceClassifier, load_backbone
from xfrlib.training import Recipe
from xfrlib.training.learner import Learner, make_accelerator

WAYS: dict[str, Callable[[], dict[str, int]]] = {
    "default": dict,
    "as the book": make_book.kernel_environment,
    "one thread": lambda: {"OMP_NUM_THREADS": 1},
}
BATCH, WARM_UP, STEPS = 32, 3, 9
BUSY = "while True: pass"


def step() -> float:
    """Median seconds of a step of fine-tuning `slim`, in this process."""
    recipe = Recipe(batch_size=BATCH)
    learner = Learner(FaceClassifier(load_backbone("slim"), 30), recipe, make_accelerator("cpu"), compile=False)
    learner.learning_mode()
    images, labels, seconds = torch.rand(BATCH, 3, 112, 112), torch.arange(BATCH) % 30, []
    for _ in range(WARM_UP + STEPS):
        start = time.perf_counter()
        learner.step(images, labels, BATCH)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[WARM_UP:])


def measured(way: Callable[[], dict[str, int]], neighbours: int) -> float:
    """As `step`, in a process of its own beside busy ones."""
    with ExitStack() as stack:
        for _ in range(neighbours):
            busy = stack.enter_context(subprocess.Popen([sys.executable, "-c", BUSY]))
            stack.callback(busy.kill)
        path = os.pathsep.join(sys.path)
        child = [sys.executable, __file__, "--child"]
        time.sleep(1)  # what was busy before is forgotten
        environment = os.environ | {"PYTHONPATH": path} | {name: str(value) for name, value in way().items()}
        return float(subprocess.run(child, check=True, capture_output=True, text=True, env=environment).stdout)


def main() -> None:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neighbours", type=int, default=2, help="busy processes (default: 2)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each, of which the median is taken")
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(step())
        return
    cases = [(name, count) for name in WAYS for count in (0, given.neighbours)]
    seconds: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    for name, count in tqdm(cases * given.rounds, "processes"):
        seconds[name, count].append(measured(WAYS[name], count))
    quiet = statistics.median(seconds["default", 0])
    found = {}
    for name in WAYS:
        alone, beside = (statistics.median(seconds[name, count]) / quiet for count in (0, given.neighbours))
        found[name] = {"alone": alone, "beside": beside}
        print(f"{name:12} alone {alone:5.2f}   beside {given.neighbours} busy processes {beside:5.2f}")
    print(f"ratios to {quiet:.3f} s, a step of {BATCH} pictures with the default, alone")
    if given.json:
        facts = {"neighbours": given.neighbours, "rounds": given.rounds, "batch": BATCH, "quiet_seconds": quiet}
        provenance = {"commit": artifacts.commit(), **artifacts.environment()}
        artifacts.write_json(given.json, {**facts, "ratio_to_quiet": found, "provenance": provenance})


if __name__ == "__main__":
    main()

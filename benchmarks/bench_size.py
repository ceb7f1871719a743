"""How cost grows with size: with classes of the head, cells of the map, pictures that are judged, and processes.

    make bench SIZE="--repeats 7"                                                about four minutes on two cores
    python benchmarks/bench_size.py --pictures 1000 10000 100000 1000000     pictures by the million: longer by far
    python benchmarks/bench_size.py --small --json /tmp/size.json            a minute, to see that it works

`explain` is set beside the bare pass of the same network, round by round. Pictures are judged in processes of their
own, whose peak of resident memory is read from Linux; one of them is killed in the middle and started again. The page
of the book is made from the file that this writes, which says whether its sizes are the full ones.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from timing import Beside, Work, measured, provenance, quartiles
from torch import Tensor, nn
from tqdm import tqdm

from xfrlib import FaceClassifier, artifacts, explain, load_backbone
from xfrlib.judge import evaluate

SEED = 0
NETWORK = "mobilefacenet"  # a cheap backbone, beside which a head of many classes is soon the larger part
BATCH, PER_SHARE = 250, 4  # judged pictures of a batch, and batches whose table is in memory at a time
DISTINCT, SIDE = 64, 32  # pictures that are repeated, and their pixels a side
STEP, WARM_UP = 32, 2  # pictures of a training step, and steps that do not count
BEYOND = (4, 8, 16)  # processes that are not measured but projected
LAUNCHER = "-m accelerate.commands.launch --multi_gpu --num_machines=1 --main_process_port=0 --mixed_precision=no"


class Sizes(NamedTuple):
    """What is measured at which sizes."""

    state: str  #: what the page says of the measurement
    classes: tuple[int, ...]
    sides: tuple[int, ...]  #: pixels of the pictures; a cell is 16 pixels
    pictures: tuple[int, ...]
    processes: tuple[int, ...]
    batch: int  #: pictures that are explained at once
    repeats: int
    steps: int


FULL = Sizes("made at full size", (10, 100, 1_000, 10_000, 100_000), (112, 224, 448), (1_000, 10_000, 100_000),
             (1, 2), 8, 7, 12)  # fmt: skip
SMALL = Sizes("provisional: made at small sizes, beside other work of the machine, to be made again at full size",
              (10, 100, 1_000), (112, 224), (1_000, 2_000), (1, 2), 2, 3, 3)  # fmt: skip


# --- memory, as Linux counts it


def held(which: str) -> float:
    """MiB that this process holds now (VmRSS), or has held at its peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(which)).split()[1]) / 1024


def beyond(run: Callable[[], object]) -> float:
    """MiB that a call takes at its peak beyond what the process held before it."""
    ctypes.CDLL(None).malloc_trim(0)  # what earlier calls have freed goes back, and does not hide what this one takes
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before = held("VmRSS")
    run()
    return held("VmHWM") - before


# --- classes and cells: `explain` beside the bare pass


def beside_bare(model: nn.Module, images: Tensor, repeats: int) -> dict[str, Any]:
    """Seconds, their ratio and memory of `explain` and of the bare pass of the same pictures."""
    from works import passes

    ours, bare = partial(explain, model, images), passes(model, images)
    work = Work("", "", len(images), ours, {"bare": Beside("", bare, None, passes=True)})
    found = measured(work, repeats, limit=10)
    row = found["passes"]["bare"]
    return {
        "explain": {"seconds": found["seconds"], "mebibytes": beyond(ours)},
        "bare": {"seconds": row["seconds"], "mebibytes": beyond(bare)},
        "ratio": row["ratio"],
    }


def by_size(rows: dict[int, dict[str, Any]], **facts: Any) -> dict[str, Any]:
    """Rows by what they count, as the page reads them: the first and the last under names of their own."""
    named = {str(count): row for count, row in rows.items()}
    ends = {name: {"count": count, **rows[count]} for name, count in (("least", min(rows)), ("most", max(rows)))}
    return {**facts, "rows": named, **ends}


def classes(sizes: Sizes) -> dict[str, Any]:
    """The same network and pictures, with heads of more and more classes."""
    from works import made_faces

    images, backbone, rows = made_faces(sizes.batch), load_backbone(NETWORK), {}
    for count in tqdm(sizes.classes, "classes", unit="head"):
        rows[count] = beside_bare(FaceClassifier(backbone, count, seed=SEED).eval(), images, sizes.repeats)
    return by_size(rows, network=NETWORK, pictures=sizes.batch)


def cells(sizes: Sizes) -> dict[str, Any]:
    """The same network, with larger and larger pictures, whose maps have more cells a side."""
    from works import classifier, made_faces

    model, few, rows = classifier(NETWORK), made_faces(max(1, sizes.batch // 4)), {}
    for side in tqdm(sizes.sides, "cells", unit="size"):
        images = nn.functional.interpolate(few, size=(side, side), mode="bilinear")
        row = beside_bare(model, images, sizes.repeats)
        rows[explain(model, images).cams.shape[-1]] = {"pixels": side, **row}
    return by_size(rows, network=NETWORK, pictures=len(few))


# --- pictures: judged in a process of its own, share by share


class Repeated:
    """`count` rows that repeat those of `few`; a row is made when it is asked for, and nothing is held beyond `few`."""

    def __init__(self, few: Any, count: int) -> None:
        self.few, self.shape = few, (count, *few.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Any:
        return self.few[np.asarray(rows) % len(self.few)]


def tiny() -> FaceClassifier:
    """A network whose passes cost next to nothing: (B, 3, 32, 32) -> maps of 8 x 8 -> 10 classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
    backbone.out_channels = 16  # type: ignore[assignment]
    return FaceClassifier(backbone, 10, seed=SEED).eval()


def evaluation(folder: str, pictures: str) -> dict[str, Any]:
    """Deletion and retention of that many pictures by a map and two controls, as processes that share the work do it.

    A share after the other is judged, and its finished batches lie in `folder`; nothing else of a share is kept.
    """
    model, count = tiny(), int(pictures)
    few = torch.rand(DISTINCT, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(SEED))
    found, labels = explain(model, few, top_k=3), np.arange(count) % 10
    regions = {"sdd": Repeated(found.mask(0.2).numpy(), count)}
    settings: dict[str, Any] = {"logits": Repeated(found.logits, count), "pairs": Repeated(found.classes, count)}
    settings |= {"controls": ("shifted", "disc"), "draws": 1, "seed": SEED, "batch_size": BATCH, "progress": False}
    shares, rows, began = -(-count // (BATCH * PER_SHARE)), 0, time.perf_counter()
    for number in tqdm(range(shares), f"{count} pictures", unit="share", mininterval=1):
        one = {"share": (number, shares), "shards": Path(folder)}
        rows += len(evaluate(model, Repeated(few, count), labels, regions, **settings, **one))
    return {"rows": rows, "mebibytes": held("VmHWM"), "seconds": time.perf_counter() - began}


def finished(folder: Path) -> dict[str, str]:
    """The finished batches of an evaluation and the hashes of their files: they are its table."""
    return {path.name: artifacts.file_sha256(path) for path in sorted(folder.glob("[0-9]*.parquet"))}


def resumed(pictures: int, whole: dict[str, str]) -> dict[str, Any]:
    """An evaluation that is killed in the middle and run again; `whole` are the files of an undisturbed one."""
    with tempfile.TemporaryDirectory() as there:
        folder = Path(there)
        with started("evaluation", there, str(pictures)) as (process, _):
            while len(finished_now := list(folder.glob("[0-9]*.parquet"))) < len(whole) // 2:
                if process.poll() is not None:
                    raise RuntimeError(f"the run that was to be killed has ended by itself, {process.returncode}")
                time.sleep(0.01)
            process.kill()
        before = {path: path.stat().st_mtime_ns for path in finished_now}
        row = child("evaluation", there, str(pictures))
        kept = all(path.stat().st_mtime_ns == when for path, when in before.items())
        same = finished(folder) == whole
    facts = {"count": pictures, "batches": len(whole), "finished_before": len(before)}
    compared = "byte for byte" if same else "not"
    return row | facts | {"finished_were_kept": kept, "same_table": same, "compared": compared}


def pictures(sizes: Sizes) -> dict[str, Any]:
    """Peak memory of evaluations of more and more pictures, and one that is killed and resumed."""
    rows, files = {}, {}
    for count in sizes.pictures:
        with tempfile.TemporaryDirectory() as folder:
            rows[count] = child("evaluation", folder, str(count))
            files[count] = finished(Path(folder))
    middle = sizes.pictures[len(sizes.pictures) // 2]
    most, least = (pick(row["mebibytes"] for row in rows.values()) for pick in (max, min))
    facts = {"batch": BATCH, "at_a_time": BATCH * PER_SHARE, "growth_mebibytes": most - least}
    return by_size(rows, **facts, resumed=resumed(middle, files[middle]))


# --- processes: a training step divided among them


def training_step(batch: str, steps: str) -> dict[str, Any]:
    """Seconds of a step of fine-tuning of which each process has its share; run by each."""
    from xfrlib.training import Recipe
    from xfrlib.training.learner import Learner, make_accelerator

    accelerator, total = make_accelerator("cpu"), int(batch)
    model = FaceClassifier(load_backbone("slim"), 30, seed=SEED)
    learner, seconds = Learner(model, Recipe(batch_size=total), accelerator, compile=False), []
    learner.learning_mode()
    labels = torch.arange(total)[accelerator.process_index :: accelerator.num_processes] % 30
    images = torch.rand(len(labels), 3, 112, 112, generator=torch.Generator().manual_seed(SEED))
    for _ in range(WARM_UP + int(steps)):
        accelerator.wait_for_everyone()
        began = time.perf_counter()
        learner.step(images, labels, total)
        accelerator.wait_for_everyone()
        seconds.append(time.perf_counter() - began)
    main = accelerator.is_main_process
    accelerator.end_training()
    return {"seconds": quartiles(seconds[WARM_UP:])} if main else {}


def projection(alone: float, by_two: float, counts: Sequence[int] = BEYOND) -> dict[str, Any]:
    """Seconds of a step divided among more processes than were measured: computed, not measured.

    Computing is divided by their number. What two took beyond half of the time of one is the exchange of gradients,
    of which each of n processes sends and receives the share 2 (n - 1) / n, once for two and at most twice.
    """
    exchange = max(0.0, by_two - alone / 2)
    return {str(n): {"seconds": {"median": alone / n + exchange * 2 * (n - 1) / n}} for n in counts}


def processes(sizes: Sizes) -> dict[str, Any]:
    """A training step in one process and divided among two, each with one thread; and a projection beyond."""
    rows = {}
    for count in tqdm(sizes.processes, "processes", unit="launch"):
        launcher = [*LAUNCHER.split(), "--dynamo_backend=no", f"--num_processes={count}"] if count > 1 else []
        rows[count] = child("step", str(STEP), str(sizes.steps), launcher=launcher)
    alone, by_two = (rows[count]["seconds"]["median"] for count in (1, 2))
    facts = {"network": "slim", "pictures": STEP, "times_faster": alone / by_two}
    return by_size(rows, **facts, projection=projection(alone, by_two))


# --- processes of their own


@contextmanager
def started(kind: str, *arguments: str, launcher: Sequence[str] = ()) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """One of `CHILDREN` at work in a process of its own with one thread, and the file of what it finds."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "found.json"
        command = [sys.executable, *launcher, __file__, "--child", kind, str(target), *arguments]
        settings = {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        with subprocess.Popen(command, env=os.environ | settings) as process:
            try:
                yield process, target
            finally:
                process.kill()


def child(kind: str, *arguments: str, launcher: Sequence[str] = ()) -> dict[str, Any]:
    """What one of `CHILDREN` finds. Raises `RuntimeError` where it fails."""
    with started(kind, *arguments, launcher=launcher) as (process, target):
        if code := process.wait():
            raise RuntimeError(f"{kind} {' '.join(arguments)} stopped with code {code}; see above")
        return dict(json.loads(target.read_text(encoding="utf-8")))


CHILDREN: dict[str, Callable[..., dict[str, Any]]] = {"evaluation": evaluation, "step": training_step}
PARTS = {"classes": classes, "cells": cells, "pictures": pictures, "processes": processes}


def main() -> None:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="small sizes; the file says so")
    parser.add_argument("--pictures", type=int, nargs="+", help="numbers of pictures that are judged")
    parser.add_argument("--repeats", type=int, help="rounds of `explain` and its bare pass, at least 2")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[], help="these, and nothing is written")
    parser.add_argument("--json", type=Path, default=artifacts.project_root() / "results" / "size.json")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        kind, target, *arguments = given.child
        if found := CHILDREN[kind](*arguments):  # of a launch, the first process alone has something
            artifacts.write_json(Path(target), found)
        return
    if not Path("/proc/self/clear_refs").exists():
        sys.exit("memory is read from /proc, which only Linux has: run this on Linux")
    sizes = SMALL if given.small else FULL
    sizes = sizes._replace(pictures=tuple(given.pictures or sizes.pictures), repeats=given.repeats or sizes.repeats)
    found = {}
    for name in tqdm(given.only or PARTS, "size", unit="part"):
        found[name] = PARTS[name](sizes)
        tqdm.write(f"{name}: {json.dumps(found[name]['rows'])}")
    if not given.only:
        artifacts.write_json(given.json, {**found, "repeats": sizes.repeats, "provenance": said(sizes)})
        print(f"{given.json} written")


def said(sizes: Sizes) -> dict[str, Any]:
    """Where the numbers come from, and whether they are those of the full sizes."""
    return {"state": sizes.state, "seed": SEED, **provenance()}


if __name__ == "__main__":
    main()

"""What becomes of a run that is killed, whose disk is full or read-only, or that shares its folder with another.

make test-faults

Three works, each of a second or two: preparation (pictures aligned, read, divided, listed), training (with its
checkpoint) and evaluation (with its finished batches). Each fault is followed by a rerun in the same folder, which must
end with the files of an undisturbed run. The counts go to ``results/faults.json``. It is not among the tests of pytest.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from prepared import prepare_manifest
from tiny_training import Coloured, tiny, train

from facedata.align import POINTS, TEMPLATE, align_folder
from facedata.scan import write_manifest
from xfrlib import artifacts, judge

SEED, PICTURES = 7, 24
# Processes come from a server that has imported all this and run nothing, so that no thread is lost in a fork.
PROCESSES = multiprocessing.get_context("forkserver")
SPARE = 32 * 1024  # bytes that a full disk has left: less than any of the works writes
Work = Callable[[Path], None]


def photographs(folder: Path) -> None:
    """What a preparation finds in ``in/``."""
    for number in range(PICTURES):
        noise = np.random.default_rng(number).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        path = folder / "in" / f"person {number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).resize((180, 180), Image.Resampling.BICUBIC).save(path)


def preparation(folder: Path) -> None:
    """Photographs in ``in/`` to aligned faces in ``out/`` and the manifest of their split."""
    names = [path.relative_to(folder / "in").as_posix() for path in sorted((folder / "in").rglob("*.png"))]
    points = pd.DataFrame([[name, *(TEMPLATE * 1.5).ravel()] for name in names], columns=["file", *POINTS])
    align_folder(folder / "in", folder / "out", points=points, detector=lambda picture: [], progress=False)
    write_manifest(prepare_manifest(folder / "out"), folder / "manifest.csv")


def training(folder: Path) -> None:
    """A fine-tuning of a few epochs, with checkpoint, log and the weights at its end."""
    train(folder, epochs=8)


def evaluation(folder: Path) -> None:
    """Deletion and retention by a map and the controls, batch by batch, and the table of all."""
    torch.set_num_threads(1)
    pictures, model = Coloured(PICTURES), tiny().eval()
    regions = {"sdd": np.random.default_rng(0).permuted(np.arange(256) < 51, axis=None).reshape(1, 16, 16)}
    regions = {name: np.repeat(mask, PICTURES, axis=0) for name, mask in regions.items()}
    with torch.no_grad():
        logits = model(pictures.images)
    table = judge.evaluate(
        model, pictures.images.clamp(0, 1), pictures.labels.numpy(), regions, logits=logits, batch_size=4,
        fills=("black", "grey"), shards=folder / "shards", progress=False,
    )  # fmt: skip
    with artifacts.write_atomic(folder / "table.csv") as part:
        table.to_csv(part, index=False)


def outcome(folder: Path) -> dict[str, str]:
    """Hashes of what a run leaves, without files that hold times and without parts of files, which nothing reads."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith(".") and path.name not in ("checkpoint.pt", "log.csv"):
            found[path.relative_to(folder).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def in_a_process(work: Work, folder: Path, note: Path) -> None:
    """The work; of an error the note has the sentence, and the exit code is 1."""
    try:
        work(folder)
    except BaseException as error:
        note.write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
        os._exit(1)


class Place:
    """A folder for the runs of one work, the end of an undisturbed one and how long that takes."""

    def __init__(self, work: Work, root: Path) -> None:
        self.work, self.root, self.note = work, root, root / "said.txt"
        self.others = list[str]()  # how reruns ended that did not end as they should
        folder, started = self.fresh("whole"), time.monotonic()
        assert self.ended(self.start(folder)) == 0, self.said()
        self.seconds, self.whole = time.monotonic() - started, outcome(folder)

    def fresh(self, name: str) -> Path:
        """An empty folder, but for what the work needs."""
        folder = self.root / name
        photographs(folder)
        return folder

    def start(self, folder: Path) -> BaseProcess:
        """The work in a process of its own, which has torch loaded already."""
        self.note.unlink(missing_ok=True)
        process = PROCESSES.Process(target=in_a_process, args=(self.work, folder, self.note))
        process.start()
        return process

    def ended(self, process: BaseProcess) -> int | None:
        """The exit code of a process that has ended; negative: the signal that ended it."""
        process.join()
        return process.exitcode

    def said(self) -> str:
        """What the last run said that could not go on, without the folder."""
        return self.note.read_text(encoding="utf-8").replace(str(self.root), "") if self.note.exists() else ""

    def is_mended(self, folder: Path) -> bool:
        """Whether a run in the folder now ends as an undisturbed one did; if not, `others` says how it ended."""
        code, found = self.ended(self.start(folder)), outcome(folder)
        differing = sorted(name for name, _ in found.items() ^ self.whole.items())
        if code or differing:
            self.others.append(f"{folder.name}: exit code {code}, {self.said()!r}, files {sorted(set(differing))}")
        return not code and not differing

    def killed(self, moments: int) -> dict[str, Any]:
        """Killed at random moments, each time in a folder of its own, and run again."""
        draw, kills, same = random.Random(SEED), 0, 0
        while kills < moments:
            folder = self.fresh("kill")
            child = self.start(folder)
            time.sleep(draw.uniform(0, self.seconds))
            child.kill()
            if self.ended(child) == -signal.SIGKILL:  # else it was done before
                kills += 1
                same += self.is_mended(folder)
            shutil.rmtree(folder)
        return {"kills": kills, "same": same}

    def on_a_disk(self, spoilt: str, why: str) -> dict[str, Any]:
        """On a disk that is full or read-only it stops and says why; on the mended disk it ends as it should."""
        disk = self.root / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)]
        if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
            return {"left_out": "no right to mount a disk"}
        try:
            folder, space = self.fresh("disk/run"), os.statvfs(disk)
            size = (space.f_blocks - space.f_bfree) * space.f_frsize + SPARE
            subprocess.run(["mount", "-o", f"remount,{spoilt.format(size=size)}", disk], check=True)
            stopped = self.ended(self.start(folder)) == 1
            subprocess.run(["mount", "-o", "remount,rw,size=64m", disk], check=True)
            said = self.said()
            return {"stopped": stopped, "says_why": why in said, "said": said, "same": self.is_mended(folder)}
        finally:
            subprocess.run(["umount", disk], check=True)
            disk.rmdir()

    def twice_at_once(self) -> dict[str, Any]:
        """Two runs in one folder, and one after them."""
        folder = self.fresh("twice")
        children = [self.start(folder) for _ in range(2)]
        codes = [self.ended(child) for child in children]
        return {"ended_well": codes.count(0), "said": self.said() if any(codes) else "", "same": self.is_mended(folder)}


def main() -> None:
    """Run every fault, print the counts and write them to a file of results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=20, help="kills of each work (default: 20)")
    parser.add_argument("--out", type=Path, default=artifacts.project_root() / "results" / "faults.json")
    given, found, bad = parser.parse_args(), dict[str, Any](), list[str]()
    PROCESSES.set_forkserver_preload(["faults"])
    for work in (preparation, training, evaluation):
        with tempfile.TemporaryDirectory() as root:
            place = Place(work, Path(root))
            found[work.__name__] = {
                "killed": place.killed(given.moments),
                "disk_full": place.on_a_disk("size={size}", "No space left on device"),
                "read_only": place.on_a_disk("ro", "Read-only file system"),
                "twice_at_once": place.twice_at_once(),
            }
        print(json.dumps({work.__name__: found[work.__name__]}, indent=1), flush=True)
        bad += [f"{work.__name__}, {other}" for other in place.others]
        unnamed = [name for name, fault in found[work.__name__].items() if not fault.get("says_why", True)]
        bad += [f"{work.__name__}, {name}: the error does not name the fault" for name in unnamed]
    provenance = {"commit": artifacts.commit(), "seed": SEED} | artifacts.environment()
    artifacts.write_json(given.out, {**found, "provenance": provenance})
    sys.exit("\n".join(bad) or 0)


if __name__ == "__main__":
    main()

"""What becomes of a run that is killed, loses a worker, has a full or read-only disk, or shares its folder.

make test-faults

Works of a few seconds: preparation (pictures aligned, read, divided, listed), training (with its checkpoint),
evaluation (with its finished batches), reports on pairs of pictures, and a notebook that papermill runs. Each fault is
followed by a rerun in the same folder, which must end with the files of an undisturbed run. The counts go to
``results/faults.json``, each with its provenance. It is not among the tests of pytest.
"""

from __future__ import annotations

import argparse
import contextlib
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
from types import SimpleNamespace
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import papermill
import torch
from PIL import Image
from prepared import prepare_manifest
from tiny_training import Coloured, tiny, train

from facedata.align import POINTS, TEMPLATE, align_folder
from facedata.detect import Face
from facedata.scan import write_manifest
from matching import report as matching_report
from matching.__main__ import compare_pairs
from matching.faces import Aligner
from matching.gallery import enrol
from recognisers import load_recogniser
from xfrlib import artifacts, judge

SEED, PICTURES = 7, 24
# Processes come from a server that has imported all this and run nothing, so that no thread is lost in a fork.
PROCESSES = multiprocessing.get_context("forkserver")
SPARE = 32 * 1024  # bytes that a full disk has left: less than any of the works writes
READS = 100  # pictures that a worker of the training reads, or a few more
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
Work = Callable[..., None]


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


def training(folder: Path, **how: Any) -> None:
    """A fine-tuning of a few epochs, with checkpoint, log and the weights at its end."""
    train(folder, epochs=8, **how)


def evaluation(folder: Path, share: tuple[int, int] = (0, 1)) -> None:
    """Deletion and retention by a map and the controls, batch by batch, and the table of all; or a share of these."""
    torch.set_num_threads(1)
    pictures, model = Coloured(PICTURES), tiny().eval()
    regions = {"sdd": np.random.default_rng(0).permuted(np.arange(256) < 51, axis=None).reshape(1, 16, 16)}
    regions = {name: np.repeat(mask, PICTURES, axis=0) for name, mask in regions.items()}
    with torch.no_grad():
        logits = model(pictures.images)
    table = judge.evaluate(
        model, pictures.images.clamp(0, 1), pictures.labels.numpy(), regions, logits=logits, batch_size=4,
        fills=("black", "grey"), shards=folder / "shards", share=share, progress=False,
    )  # fmt: skip
    if share == (0, 1):
        with artifacts.write_atomic(folder / "table.csv") as part:
            table.to_csv(part, index=False)


def reports(folder: Path) -> None:
    """Pairs of ``in/`` compared with the gallery that is enrolled from it: a page and numbers of each in ``out/``."""
    torch.set_num_threads(1)
    matching_report.time = SimpleNamespace(perf_counter=lambda: 0.0)  # type: ignore[assignment]  # a page says how long
    slim = load_recogniser("slim", "builtin")
    aligner = Aligner(slim, lambda picture: [Face(np.array([0, 0, 180, 180]), TEMPLATE * 1.5, 1.0)])
    gallery = enrol(folder / "in", slim, aligner, folder / "cache", progress=False)
    with open(os.devnull, "w", encoding="utf-8") as unheard, contextlib.redirect_stdout(unheard):
        compare_pairs(matching_report.Matcher(slim, aligner, gallery), folder / "in", folder / "out")


STEPS = """
for number in range(30):
    path = Path(folder) / f"{number}.json"
    if not path.exists():
        time.sleep(0.02)
        write_json(path, {"squares": [place**2 for place in range(100 * number)]})
"""


def notebook(folder: Path) -> None:
    """Artefacts one after the other, by a notebook that papermill runs, in a kernel that outlives it for a moment."""
    sources = ["import time\nfrom pathlib import Path\n\nfrom xfrlib.artifacts import write_json", STEPS.strip()]
    cells = [nbformat.v4.new_code_cell('folder = ""', metadata={"tags": ["parameters"]})]
    cells += map(nbformat.v4.new_code_cell, sources)
    given = {"kernel_name": "python3", "cwd": artifacts.project_root(), "progress_bar": False, "log_output": False}
    source = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL})
    quiet = ["--log-level=CRITICAL"]  # the kernel notes its transport and its end
    out = folder / "executed.ipynb"
    papermill.execute_notebook(source, out, {"folder": str(folder)}, **given, extra_arguments=quiet)


def outcome(folder: Path) -> dict[str, str]:
    """Hashes of what a run leaves, without files that hold times and without parts of files, which nothing reads."""
    found, timed = {}, ("checkpoint.pt", "log.csv", "executed.ipynb")
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith(".") and path.name not in timed:
            found[path.relative_to(folder).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def in_a_process(work: Work, folder: Path, note: Path, how: dict[str, Any]) -> None:
    """The work; of an error the note has the sentence, and the exit code is 1."""
    multiprocessing.set_start_method(None, force=True)  # workers of its own start as in a program started by hand
    try:
        work(folder, **how)
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

    def start(self, folder: Path, **how: Any) -> BaseProcess:
        """The work in a process of its own, which has torch loaded already."""
        self.note.unlink(missing_ok=True)
        process = PROCESSES.Process(target=in_a_process, args=(self.work, folder, self.note, how))
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
            shutil.rmtree(folder, ignore_errors=True)  # a kernel may still write into it
        return {"kills": kills, "same": same}

    def a_worker_dies(self, moments: int) -> dict[str, Any]:
        """A process that reads pictures for the training is killed: it stops and says so, and is run again."""
        draw, stopped, same, said = random.Random(SEED), 0, 0, list[str]()
        for _ in range(moments):
            folder = self.fresh("worker")
            stopped += self.ended(self.start(folder, num_workers=1, deadly=draw.randint(1, READS))) == 1
            said.append(self.said())
            same += self.is_mended(folder)
            shutil.rmtree(folder)
        says_why = all("a process that reads pictures has died" in one for one in said)
        return {"kills": moments, "stopped": stopped, "says_why": says_why, "said": said[-1], "same": same}

    def one_of_two_dies(self, moments: int) -> dict[str, Any]:
        """Of two processes that share the evaluation one is killed; the other goes on, and a run takes up the rest."""
        draw, kills, same = random.Random(SEED), 0, 0
        while kills < moments:
            folder = self.fresh("shared")
            children = [self.start(folder, share=(number, 2)) for number in range(2)]
            time.sleep(draw.uniform(0, self.seconds))
            children[1].kill()
            codes = [self.ended(child) for child in children]
            if codes[1] == -signal.SIGKILL:
                kills += 1
                same += codes[0] == 0 and self.is_mended(folder)
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


def every_fault(place: Place, moments: int) -> dict[str, Any]:
    """What any work may suffer."""
    return {
        "killed": place.killed(moments),
        "disk_full": place.on_a_disk("size={size}", "No space left on device"),
        "read_only": place.on_a_disk("ro", "Read-only file system"),
        "twice_at_once": place.twice_at_once(),
    }


WORKS: dict[str, tuple[Work, Callable[[Place, int], dict[str, Any]]]] = {
    "preparation": (preparation, every_fault),
    "training": (training, every_fault),
    "evaluation": (evaluation, every_fault),
    "reports": (reports, every_fault),
    "training_with_a_worker": (training, lambda place, moments: {"worker_dies": place.a_worker_dies(moments)}),
    "evaluation_by_two": (evaluation, lambda place, moments: {"one_dies": place.one_of_two_dies(moments)}),
    # It writes as all others do, and a kernel takes seconds to start.
    "notebook": (notebook, lambda place, moments: {"killed": place.killed(moments)}),
}


def of_all(works: dict[str, Any]) -> dict[str, int]:
    """How often any work was killed, and how often the next run ended as an undisturbed one."""
    each = [counts for work in works.values() for counts in work.values() if "kills" in counts]
    return {end: sum(counts[end] for counts in each) for end in ("kills", "same")}


def main() -> None:
    """Run every fault, print the counts and write them to a file of results, which keeps those of other works."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=20, help="kills of each work (default: 20)")
    parser.add_argument("--only", choices=WORKS, action="append", help="one work alone; may be given again")
    parser.add_argument("--out", type=Path, default=artifacts.project_root() / "results" / "faults.json")
    given, bad = parser.parse_args(), list[str]()
    PROCESSES.set_forkserver_preload(["faults"])
    first = PROCESSES.Process()  # waits until the server has imported all, which is no part of a work's time
    first.start()
    first.join()
    provenance = {"commit": artifacts.commit(), "seed": SEED} | artifacts.environment()  # before a file has changed
    for name in given.only or WORKS:
        work, suffer = WORKS[name]
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as root:
            place = Place(work, Path(root))
            found = suffer(place, given.moments)
        print(json.dumps({name: found}, indent=1), flush=True)
        bad += [f"{name}, {other}" for other in place.others]
        unnamed = [fault for fault, counts in found.items() if not counts.get("says_why", True)]
        bad += [f"{name}, {fault}: the error does not name the fault" for fault in unnamed]
        known = json.loads(given.out.read_text(encoding="utf-8")) if given.out.exists() else {}
        known |= {name: {**found, "provenance": provenance}}
        total = of_all({work: known[work] for work in WORKS if work in known})
        artifacts.write_json(given.out, known | {"all": {**total, "provenance": provenance}})
    sys.exit("\n".join(bad) or 0)


if __name__ == "__main__":
    main()

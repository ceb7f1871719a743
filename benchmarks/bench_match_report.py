"""Seconds until ``python -m matching`` has written its page: the first in a new process, and each pair after it.

    python benchmarks/bench_match_report.py
    python benchmarks/bench_match_report.py --rounds 5 --json results/match_report.json

The pictures are of made heads, for which the detector, the alignment and the recogniser do what they do for
photographs. A run ends with its page on disk; the clock is of the wall, so the machine should be quiet.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image
from timing import provenance, quartiles
from tqdm import tqdm

from madefaces.heads import HEADS, render
from madefaces.people import make_families
from xfrlib.artifacts import write_json

OTHERS, ENROLLED, PAIRS = 20, 3, 6
AIMS = {"cold": 15, "next": 1}  #: seconds on two cores


def write_pictures(folder: Path) -> None:
    """``pairs/<person>/`` with two pictures of each, and ``gallery/<person>/`` of other people."""
    people = make_families(PAIRS + OTHERS, 1, seed=7, kind=HEADS)
    for number, person in enumerate(tqdm(people, desc="heads drawn", unit="person")):
        paired = number < PAIRS
        place = folder / ("pairs" if paired else "gallery") / f"person{number:02d}"
        place.mkdir(parents=True)
        seeds = range(10 * number, 10 * number + (2 if paired else ENROLLED))
        for seed, picture in zip(seeds, render([person] * len(seeds), seeds, nuisance=0.5)[0], strict=True):
            Image.fromarray(picture).save(place / f"{seed}.png")


def seconds_of(folder: Path, out: str, *arguments: str, data: str = "data") -> float:
    """Wall seconds of a run in a process of its own; `data` holds what it keeps of a gallery."""
    command = [sys.executable, "-m", "matching", *arguments, "--out", out, "--no-progress"]
    began = time.perf_counter()
    environment = os.environ | {"XFR_DATA": str(folder / data)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return time.perf_counter() - began


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """Quartiles of the seconds of each kind of run."""
    first = sorted((folder / "pairs" / "person00").iterdir())
    two, quick, gallery = [path.as_posix() for path in first], ["--quick"], ["--gallery", "gallery"]
    kinds: dict[str, list[str]] = {
        "two": two, "two_quick": two + quick, "gallery": two + gallery, "gallery_quick": two + gallery + quick
    }  # fmt: skip
    cold: dict[str, list[float]] = {name: [] for name in kinds}
    found: dict[str, Any] = {}
    seconds_of(folder, "warm-up", *two)  # the files of the packages come into memory
    for number in tqdm(range(rounds), desc="rounds", unit="round"):
        for name, arguments in kinds.items():
            data = f"data-{name}-{number}" if "gallery" in name else "data"
            cold[name].append(seconds_of(folder, f"cold-{name}-{number}", *arguments, data=data))
    for name, arguments in kinds.items():
        one = cold[name]
        # A folder of pairs in one process, less one pair, by the number of pairs beyond the first.
        many = [
            seconds_of(folder, f"many-{name}-{number}", "pairs", *arguments[2:], data=f"data-{name}-0")
            for number in range(rounds)
        ]
        again = [
            seconds_of(folder, f"again-{name}-{number}", *arguments, data=f"data-{name}-0") for number in range(rounds)
        ]
        after = [(whole - single) / (PAIRS - 1) for whole, single in zip(many, again, strict=True)]
        found[name] = {"cold": quartiles(one), "again": quartiles(again), "next": quartiles(after)}
    return found


def main() -> None:
    """The command line; see the top of this file."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("results/match_report.json"))
    given = parser.parse_args()
    with TemporaryDirectory() as place:
        write_pictures(Path(place))
        found = measure(Path(place), given.rounds)
    found |= {"rounds": given.rounds, "others": OTHERS, "enrolled": ENROLLED, "pairs": PAIRS, "aims": AIMS}
    met = [found["two"][name]["median"] <= aim for name, aim in AIMS.items()]
    write_json(given.json, found | {"met": sum(met), "provenance": provenance()})
    for name in ("two", "two_quick", "gallery", "gallery_quick"):
        print(name, {key: round(value["median"], 2) for key, value in found[name].items()})


if __name__ == "__main__":
    main()

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
AIMS = {"cold": 15, "next": 1}  #: seconds on two cores, of two pictures, without a gallery and with one


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
    """Quartiles of the seconds of each kind of run: with no gallery kept, with one, and of each further pair."""
    two = [path.as_posix() for path in sorted((folder / "pairs" / "person00").iterdir())]
    quick, gallery = ["--quick"], ["--gallery", "gallery"]
    kinds = {"two": [], "two_quick": quick, "gallery": gallery, "gallery_quick": [*gallery, *quick]}
    taken: dict[str, dict[str, list[float]]] = {name: {"cold": [], "again": [], "next": []} for name in kinds}
    seconds_of(folder, "warm-up", *two)  # the files of the packages come into memory
    for number in tqdm(range(rounds), desc="rounds", unit="round"):
        for name, options in kinds.items():
            out = f"{name}-{number}"
            cold, again, pairs = (
                seconds_of(folder, out, *what, *options, data=f"data-{out}") for what in (two, two, ["pairs"])
            )
            further = (pairs - again) / (PAIRS - 1)  # the same process, but for the other pairs
            for key, value in {"cold": cold, "again": again, "next": further}.items():
                taken[name][key].append(value)
    return {name: {key: quartiles(values) for key, values in kind.items()} for name, kind in taken.items()}


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
    met = [found[kind][name]["median"] <= aim for kind in ("two", "gallery") for name, aim in AIMS.items()]
    write_json(given.json, found | {"aimed": len(met), "met": sum(met), "provenance": provenance()})
    for name in ("two", "two_quick", "gallery", "gallery_quick"):
        print(name, {key: round(value["median"], 2) for key, value in found[name].items()})


if __name__ == "__main__":
    main()

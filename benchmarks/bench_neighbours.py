"""How fast it is: each work beside its own forward passes and beside other libraries, on one machine in one run.

    make bench BENCH="--repeats 7"                                       about five minutes on two cores
    python benchmarks/bench_neighbours.py --only maps_ir_101 --repeats 3       prints, and writes nothing

Ways of doing a work are run in turns and compared round by round, so that a busy machine slows all of them alike. The
table of the book is made from the file that this writes. Libraries that are not installed are named so; `pip install
-c constraints.txt -e '.[bench]'` installs them.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import works
from neighbours import LIBRARIES
from timing import CLOCKS, Work, measured, provenance
from tqdm import tqdm

from madefaces.head_shapes import PACKAGE
from xfrlib import artifacts

NEEDS = {"heads": PACKAGE}  # works, and the package without which they are left out


@contextmanager
def on_disk(work: Callable[..., Work], count: int, suffix: str, size: int, **settings: Any) -> Iterator[Work]:
    """A work on files, which are there as long as it lasts."""
    with works.folder_of(count, suffix, size) as folder:
        yield work(folder=folder, **settings)


@contextmanager
def in_memory(work: Callable[..., Work], *settings: Any) -> Iterator[Work]:
    """A work that needs no files."""
    yield work(*settings)


def all_works(pictures: int) -> dict[str, Callable[[], AbstractContextManager[Work]]]:
    """Every work by its name, made when it is wanted; `pictures` is the size of a batch of maps."""
    networks, small = ("ir_101", "mobilefacenet"), "mobilefacenet"
    return {
        **{f"maps_{name}": partial(in_memory, works.maps, name, pictures) for name in networks},
        "deletion": partial(in_memory, works.deletion, small, pictures),
        "deletion_linear": partial(in_memory, works.deletion, small, 1, "linear"),
        "cells": partial(in_memory, works.cells, small, max(1, pictures // 4)),
        "curves": partial(in_memory, works.curves, small, max(1, pictures // 2)),
        **{f"match_{name}": partial(in_memory, works.match, name) for name in networks},
        "training": partial(on_disk, works.training, 12 * pictures, ".png", 112, name=small, batch=4 * pictures),
        "reading_png": partial(on_disk, works.reading, 192, ".png", 112, title="PNG of 112 pixels"),
        "reading_jpeg": partial(on_disk, works.reading, 192, ".jpg", 250, title="JPEG of 250 pixels, made smaller"),
        "faces": partial(in_memory, works.faces),
        "heads": partial(in_memory, works.heads),
    }


def left_out() -> dict[str, str]:
    """The works that cannot be measured here, each with a sentence that says why."""
    why = "not measured: the package {0} is not installed, pip install --no-deps -c constraints.txt {0}"
    return {name: why.format(package) for name, package in NEEDS.items() if not find_spec(package)}


def main() -> None:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="rounds, at least 2")
    parser.add_argument("--seconds", type=float, default=8, help="after which a way sits out, but for three rounds")
    parser.add_argument("--only", nargs="+", choices=all_works(8), default=[], help="these, and nothing is written")
    parser.add_argument("--pictures", type=int, default=8, help="in a batch of maps; other works follow it")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: of this process, for a busy machine")
    parser.add_argument("--json", type=Path, default=artifacts.project_root() / "results" / "benchmarks.json")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")  # of other libraries, in the middle of a table
    found: dict[str, Any] = {}
    print(f"{'work':<64}{'ms':>9}   {'beside':<34}{'ms':>9}{'ratio':>8}  quartiles      aim")
    wanted = all_works(given.pictures)
    for name, why in (missing := left_out()).items():
        print(f"{name}: {why}")
    for name in tqdm([name for name in given.only or wanted if name not in missing], "benchmarks", unit="work"):
        with wanted[name]() as work:
            found[name] = measured(work, given.repeats, given.seconds, CLOCKS[given.clock])
        tqdm.write("\n".join(lines(found[name])))
    if not given.only:
        write(given.json, found, {"repeats": given.repeats, "clock": given.clock, "left_out": missing})
        print(f"{given.json} written")


def write(path: Path, found: dict[str, Any], how: dict[str, Any]) -> None:
    """The file that the book shows."""
    versions = {name: importlib.metadata.version(name) for module, name in LIBRARIES.items() if find_spec(module)}
    origin = {**provenance(), "beside": versions}
    artifacts.write_json(path, {**how, **summary(found), "works": found, "provenance": origin})


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """How many aims there were, how many were met, and the names of the others."""
    rows = [(work, row) for work in found.values() for row in (*both(work).values(), work.get("rate", {}))]
    judged = [(work, row) for work, row in rows if row.get("aim")]
    missed = [
        f"{', '.join(filter(None, (work['title'], work['network'])))} ({row.get('title', 'pictures a second')})"
        for work, row in judged
        if not row["met"]
    ]
    return {"aims": len(judged), "met": len(judged) - len(missed), "missed": missed}


def both(work: dict[str, Any]) -> dict[str, Any]:
    """The rows of a work: beside passes and beside libraries."""
    return work["passes"] | work["neighbours"]


def lines(work: dict[str, Any]) -> Iterator[str]:
    """A work as lines of the printed table."""
    label = f"{work['title']}{', ' if work['network'] else ''}{work['network']}, {work['pictures']} pictures"
    own = f"{label:<64}{1000 * work['seconds']['median']:>9.1f}   "
    for row in both(work).values():
        if not row["installed"]:
            yield f"{own}{row['title']:<34} not installed"
        else:
            ratio, aim = row["ratio"], row["aim"]
            spread = f"{ratio['lower_quartile']:.3f} to {ratio['upper_quartile']:.3f}"
            kept = "" if aim is None else f"{aim:.2f} {'met' if row['met'] else 'MISSED'}"
            seconds = 1000 * row["seconds"]["median"]
            yield f"{own}{row['title']:<34}{seconds:>9.1f}{ratio['median']:>8.3f}  {spread:<16} {kept}"
        own = f"{'':<64}{'':>9}   "
    if "rate" in work:
        rate = work["rate"]
        yield f"{own}{rate['median']:.0f} pictures a second, aim {rate['aim']:.0f} {'met' if rate['met'] else 'MISSED'}"
    for name, part in work["parts"].items():
        yield f"{'':<64}{'':>9}     of it {part['percent']:.1f} %: {name}"


if __name__ == "__main__":
    main()

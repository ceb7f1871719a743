"""What a whole book costs to build, and how much of that is not the book's own cells.

    python benchmarks/bench_make.py                       all, in a clone of its own: half an hour on two cores
    python benchmarks/bench_make.py --clone /tmp/again nothing prose chapter      in a clone that stays, once it is cold

Each case touches something, as an editor that saves a file does, and runs `make book`. Executed notebooks say when
each of their cells began and ended. The overhead is the time of make in which no cell ran: it starts kernels, builds
the site, and decides what to run. Cases that are measured replace those in the file, others stay.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
INSTALLED = ("pyproject.toml", "constraints.txt")  # what make installs again when it is newer than the environment
CHAPTER = "notebooks/04_sdd_derivation.ipynb"


class Case(NamedTuple):
    """What is changed before a make, and the most seconds beside its cells that were aimed at."""

    title: str
    touched: str | None
    aim: float


CASES = {
    "cold": Case("nothing built yet", None, 60),
    "nothing": Case("nothing changed", None, 1),
    "prose": Case("a page of prose touched", "book/limits.md", 15),
    "chapter": Case("one chapter touched", CHAPTER, 20),
}
Span = tuple[float, float]


def cells(notebooks: Iterable[Path], since: float) -> list[Span]:
    """When each cell of executed notebooks began and ended, in seconds since 1970; those alone that began at `since`.

    Copies that an earlier make left behind have older cells.
    """
    found = []
    for path in notebooks:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            stamps = [datetime.fromisoformat(text) for text in cell["metadata"].get("execution", {}).values()]
            if stamps and min(stamps).timestamp() >= since:
                found.append((min(stamps).timestamp(), max(stamps).timestamp()))
    return found


def covered(spans: Iterable[Span]) -> float:
    """Seconds in which at least one of the spans ran: chapters run side by side."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def clone(folder: Path, source: Path = ROOT) -> None:
    """A clone of what is committed, unless it is there; make is not to install into the environment that it uses."""
    if not (folder / ".git").exists():
        subprocess.run(["git", "clone", "-q", str(source), str(folder)], check=True)
    for name in INSTALLED:
        if (folder / name).exists():
            os.utime(folder / name, (0, 0))


def made(folder: Path, case: Case, profile: str, venv: Path) -> dict[str, Any]:
    """`make book` in a clone after what the case touches: seconds of make, of its cells, and those of neither."""
    if case.touched:
        (folder / case.touched).touch()
    environment = {name: value for name, value in os.environ.items() if name not in ("XFR_BUILD", "MAKEFLAGS")}
    # The packages of the clone, and not those that the environment was installed from.
    environment["PYTHONPATH"] = str(folder)
    began, start = datetime.now(UTC).timestamp(), time.perf_counter()
    command = ["make", "book", f"PROFILE={profile}", f"VENV={venv}"]
    if code := subprocess.run(command, cwd=folder, env=environment).returncode:
        raise RuntimeError(f"make book stopped with code {code} in {folder}, {case.title}; see above")
    seconds = time.perf_counter() - start
    built = folder / "_build" / profile
    spans = cells([*built.glob("notebooks/*.ipynb"), *built.glob("gallery/*.ipynb")], began)
    one_by_one = sum(end - begin for begin, end in spans)
    found = {"seconds": seconds, "cells_one_by_one": one_by_one, "cells": covered(spans)}
    overhead = seconds - found["cells"]
    return {**found, "number_of_cells": len(spans), "overhead": overhead, "met": overhead <= case.aim}


def updated(path: Path, found: dict[str, Any], **facts: Any) -> dict[str, Any]:
    """The file's values with the cases found, each with its `facts`; a case that was never measured says so."""
    known = json.loads(path.read_text(encoding="utf-8"))["cases"] if path.exists() else {}
    rows = {}
    for name, case in CASES.items():
        row = {"title": case.title, "aim": case.aim, "measured": False, **known.get(name, {})}
        rows[name] = row | ({"measured": True, **found[name], **facts} if name in found else {})
    return {"cases": rows}


def chosen(names: Sequence[str], folder: Path) -> list[str]:
    """The cases in their order; without a name all, and before the others "cold" where nothing is built."""
    return [name for name in CASES if name in (names or CASES) or (name == "cold" and not (folder / "_build").exists())]


def main() -> None:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)} (default: all)")
    parser.add_argument("--clone", type=Path, help="folder of the clone, which then stays (default: one that goes)")
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--venv", type=Path, default=Path(sys.prefix), help="the environment (default: this one)")
    parser.add_argument("--json", type=Path, default=ROOT / "results" / "make.json")
    given = parser.parse_args()
    if unknown := set(given.cases) - set(CASES):
        parser.error(f"unknown case {', '.join(sorted(unknown))}: use {', '.join(CASES)}")
    with contextlib.ExitStack() as stack:
        folder = given.clone or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "clone"
        clone(folder)
        for name in chosen(given.cases, folder):
            row = made(folder.resolve(), CASES[name], given.profile, given.venv.resolve())
            print(f"{CASES[name].title}: {json.dumps(row)}", flush=True)
            record(given.json, name, row, given.profile)


def record(path: Path, name: str, row: dict[str, Any], profile: str) -> None:
    """Keep a case at once: the next one may take long, and stop."""
    from timing import provenance  # with torch, which would take memory beside a cold make

    from xfrlib import artifacts

    origin = provenance()
    found = updated(path, {name: row}, profile=profile, commit=origin["commit"])
    artifacts.write_json(path, found | {"provenance": origin})


if __name__ == "__main__":
    main()

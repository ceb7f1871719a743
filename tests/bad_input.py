"""What becomes of bad input: each gets a right result, or one clear error.

make test-bad-input

hypothesis spoils pictures, checkpoints, profiles, parameters of notebooks and the arguments of the functions that take
tensors. An error is clear if it is of a promised kind, if a line of the project's own raised it, and if its one
sentence names the file, the argument or the value. A result is held to what can be known without the project's code.
The counts go to ``results/bad_input.json``. It is not among the tests of pytest.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from bad_calls import CALLS
from bad_files import CHECKPOINTS, PARAMETERS, PICTURES, PROFILES, TINY
from bad_kinds import Case, Kind, WrongResult
from hypothesis import HealthCheck, Phase, given, seed, settings
from tqdm import tqdm

from xfrlib import artifacts
from xfrlib.models import BACKBONES

SEED = 7
# "<kind>": what is spoilt, and how many inputs of it are tried
KINDS: dict[str, tuple[Kind, int]] = {
    "pictures": (PICTURES, 2500),
    "checkpoints": (CHECKPOINTS, 1200),
    "profiles": (PROFILES, 1200),
    "parameters": (PARAMETERS, 1800),
    **{name: (kind, 1000) for name, kind in CALLS.items()},
}


def fault_of(error: Exception, names: tuple[str, ...]) -> str:
    """What is wrong with an error as a sentence for a user; empty for a clear one."""
    said, raised_by = str(error), Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    if isinstance(error, OSError) and error.filename is not None:  # the system's own sentence names the file
        return ""
    if type(error) not in (ValueError, FileNotFoundError) and not type(error).__module__.startswith("xfrlib"):
        return f"a bare {type(error).__name__}"
    if "xfrlib" not in raised_by.parts:
        return f"raised in {raised_by.name}"
    if "\n" in said or len(said.split()) < 3:
        return "not one sentence"
    if not any(name in said for name in names):
        return f"names none of {', '.join(names)}"
    return ""


def tried(name: str, kind: Kind, count: int, folder: Path) -> tuple[dict[str, int], dict[str, str]]:
    """How many inputs of a kind ended in which way, and an example of each that ended badly."""
    ends, bad = Counter(inputs=0, right_result=0, clear_error=0), dict[str, str]()
    bar = tqdm(desc=name, total=count, unit="input", mininterval=1, leave=False, disable=None)

    @seed(SEED)
    @settings(
        max_examples=count, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=HealthCheck
    )
    @given(kind.cases)
    def end(case: Case) -> None:
        bar.update()
        ends["inputs"] += 1
        try:
            case.attempt(folder)
        except WrongResult as wrong:
            fault = f"wrong result: {wrong}"
        except Exception as error:
            fault = fault_of(error, case.names)
            fault = fault and f"{fault}: {' '.join(str(error).split())[:200]}"
            ends["clear_error"] += not fault
        else:
            fault = ""
            ends["right_result"] += 1
        if fault:
            bad.setdefault(re.sub(r"[\d.]+", "0", fault)[:70], f"{fault} [{case.about[:200]}]")
            ends["neither"] += 1

    end()
    bar.close()
    return dict(ends), bad


def main() -> None:
    """Try every kind, print the counts and write them to a file of results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="of the inputs of each kind (default: all)")
    parser.add_argument("--only", choices=KINDS, help="one kind alone")
    parser.add_argument("--out", type=Path, default=artifacts.project_root() / "results" / "bad_input.json")
    given_, found, bad = parser.parse_args(), dict[str, Any](), list[str]()
    torch.set_num_threads(1)
    BACKBONES.clear()
    BACKBONES.update(TINY)
    warnings.simplefilter("ignore")  # a warning is no answer: the result or the error is
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XFR_BUILD"] = folder
        for name, (kind, count) in KINDS.items():
            if given_.only in (None, name):
                found[name], faults = tried(name, kind, max(1, round(given_.share * count)), Path(folder))
                print(name, json.dumps(found[name]), *faults.values(), sep="\n  ", flush=True)
                bad += faults.values()
    found["all"] = {end: sum(counts.get(end, 0) for counts in found.values()) for end in next(iter(found.values()))}
    provenance = {"commit": artifacts.commit(), "seed": SEED} | artifacts.environment()
    artifacts.write_json(given_.out, {**found, "provenance": provenance})
    sys.exit(f"{len(bad)} kinds of bad input have no clear end" if bad else 0)


if __name__ == "__main__":
    main()

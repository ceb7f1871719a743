"""All pages of the gallery of the profile quick, beside the start of a kernel that imports what a page needs.

    python benchmarks/bench_gallery.py

The faces are those of the profile; the network is untrained, which costs a page the same. Ratios are to the start of a
kernel, measured in the same run, so that they mean the same on any machine. All pages are to take at most two minutes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import papermill
from nbformat.v4 import new_code_cell, new_notebook

from facedata.duplicates import find_duplicates
from facedata.scan import scan_faces, write_manifest
from facedata.split import split_faces
from madefaces.people import write_faces
from xfrlib import FaceClassifier, load_backbone, load_profile
from xfrlib.models.classifier import save_classifier

sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))  # the pages are made as the book makes them
import make_book

PROFILE, LIMIT = "quick", 120  # seconds
IMPORTS = "import subjects\nfrom xfrlib import plots"
QUIET = {
    "kernel_name": "python3",
    "cwd": make_book.all_notebooks()[-1].parent,
    "progress_bar": False,
    "extra_arguments": ["--log-level=CRITICAL"],
}


def lay_out(folder: Path) -> None:
    """What the first two chapters leave for the gallery: faces, their split, a network."""
    profile = load_profile(PROFILE)
    names = ("families", "family_size", "pictures_per_identity", "seed")
    write_faces(folder / "faces", **{name: getattr(profile, name) for name in names}, progress=False)
    table = find_duplicates(scan_faces(folder / "faces", seed=profile.seed, progress=False), near_threshold=None)
    write_manifest(split_faces(table, profile.fractions, seed=profile.seed), folder / "manifest.csv")
    people = sorted(path.name for path in (folder / "faces").iterdir())
    model = FaceClassifier(load_backbone(profile.backbone, profile.checkpoint), len(people))
    save_classifier(folder / "classifier.safetensors", model, people)


def kernel_starts(repeats: int) -> list[float]:
    """Seconds from nothing to a kernel that has imported what a page needs, after one start to warm up."""
    notebook, times = new_notebook(cells=[new_code_cell(IMPORTS, metadata={"tags": ["parameters"]})]), []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        papermill.execute_notebook(notebook, None, **QUIET)
        times.append(time.perf_counter() - began)
    return times[1:]


def main() -> None:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="of the start of a kernel")
    given = parser.parse_args()
    starts = kernel_starts(given.repeats)
    with tempfile.TemporaryDirectory() as build:
        os.environ["XFR_BUILD"] = build
        lay_out(Path(build) / PROFILE)
        began = time.perf_counter()
        make_book.make_gallery(PROFILE, [])
        whole = time.perf_counter() - began
        pages = len(make_book.gallery.people(Path(build) / PROFILE))
    baseline = statistics.median(starts)
    kept = f"   {'within' if whole <= LIMIT else 'over'} {LIMIT} s"
    print(f"{'seconds':<46}{'median':>8}{'range':>18}{'ratio':>8}")
    print(f"{'start of a kernel (baseline)':<46}{baseline:>8.1f}{f'{min(starts):.1f} to {max(starts):.1f}':>18}")
    print(f"{f'gallery, {pages} pages':<46}{whole:>8.1f}{'':>18}{whole / baseline:>8.1f}{kept}")
    print(f"{'one page of it':<46}{whole / pages:>8.1f}{'':>18}{whole / pages / baseline:>8.1f}")


if __name__ == "__main__":
    main()

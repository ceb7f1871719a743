"""Pictures a second of the face renderers on one core: drawn faces, the same picture by picture and in one large batch,
and heads in three dimensions where their shapes are installed.

    OMP_NUM_THREADS=1 python benchmarks/bench_synthetic.py

Ratios are to writing the same pictures as PNG, measured in the same run, so that they mean the same on any machine.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

from madefaces import head_shapes, heads
from madefaces.people import make_families, render


def seconds(work: Callable[[], object], repeats: int) -> list[float]:
    """Times of `repeats` runs after one to warm up."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return times


def encode(images: np.ndarray) -> None:
    """The baseline: each picture to PNG in memory."""
    for image in images:
        Image.fromarray(image).save(io.BytesIO(), "PNG", compress_level=3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=240)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    people = make_families(10, 3, seed=0)
    shown = [people[k % len(people)] for k in range(given.pictures)]
    seeds = list(range(given.pictures))
    images = render(shown, seeds)[0]
    ways: dict[str, tuple[int, Callable[[], object]]] = {
        "write PNG (baseline)": (len(seeds), lambda: encode(images)),
        "render": (len(seeds), lambda: render(shown, seeds)),
        "render one by one": (len(seeds), lambda: [render([who], [s]) for who, s in zip(shown, seeds, strict=True)]),
        "render, chunk of 32": (len(seeds), lambda: render(shown, seeds, chunk=32)),
    }
    print(f"{given.pictures} pictures of 112x112, {given.repeats} repeats, numpy {np.__version__}")
    try:
        head_shapes.load_shapes()
    except ModuleNotFoundError as missing:
        print(f"no heads: {missing}")
    else:
        few = max(1, given.pictures // 10)
        solid = make_families(few, 1, seed=0, kind=heads.HEADS)
        ways["heads, 160x160"] = few, lambda: heads.render(solid, seeds[:few])
        ways["heads, 112x112"] = few, lambda: heads.render(solid, seeds[:few], frame="arcface")
    print(f"{'way':<24}{'pictures/s':>12}{'quartiles':>16}{'ratio':>8}")
    baseline = 0.0
    for name, (count, work) in ways.items():
        rates = sorted(count / t for t in seconds(work, given.repeats))
        low, middle, high = statistics.quantiles(rates, n=4, method="inclusive")
        baseline = baseline or middle
        print(f"{name:<24}{middle:>12.0f}{f'{low:.0f} to {high:.0f}':>16}{middle / baseline:>8.2f}")


if __name__ == "__main__":
    main()

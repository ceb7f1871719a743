"""The explorer for JupyterLab: from a moved slider to the pictures that answer it, without and with forward passes.

    python benchmarks/bench_explorer.py
    python benchmarks/bench_explorer.py --cpu     on a machine that is busy with other work

The panel runs without a browser, on one core: what is timed ends when every changed picture is there as a PNG. Ratios
are to one forward pass of one picture, measured in the same run, so that they mean the same on any machine.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import torch
from PIL import Image

from madefaces.people import make_families, render
from xfrlib import FaceClassifier, load_backbone
from xfrlib.data.faces import open_folder
from xfrlib.explorer import explorer

clock = time.perf_counter


def measure(name: str, act: Callable[[int], object], repeats: int, limit: float = 0, baseline: float = 0) -> float:
    """Print the times of `act`, called with 0, 1, …, in milliseconds; returns the median."""
    times = []
    for n in range(-2, repeats):
        began = clock()
        act(n + 2)
        times += [1000 * (clock() - began)] * (n >= 0)
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    ratio = f"{middle / baseline:>8.1f}" if baseline else f"{'':>8}"
    kept = f"   {sum(t <= limit for t in times)} of {len(times)} within {limit:.0f} ms" if limit else ""
    print(f"{name:<46}{middle:>8.1f}{f'{low:.1f} to {high:.1f}':>18}{ratio}{kept}", flush=True)
    return middle


def main() -> None:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="slim")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--cpu", action="store_true", help="count only the time in which this process computes")
    given = parser.parse_args()
    global clock
    clock = time.process_time if given.cpu else time.perf_counter
    torch.set_num_threads(1)
    people = make_families(10, 3, seed=0)
    model = FaceClassifier(load_backbone(given.backbone), len(people)).eval()
    with tempfile.TemporaryDirectory() as folder:
        for i, pixels in enumerate(render(people * 2, range(2 * len(people)))[0]):
            place = Path(folder) / f"person_{i % len(people):02d}"
            place.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(place / f"{i}.png")
        dataset = open_folder(folder)
        panel = explorer(model, dataset, top_k=5)
        image = dataset[0][0][None]
        print(
            f"{given.backbone}, {len(dataset)} pictures, one thread, {'time of the process' if given.cpu else 'time'}"
        )
        print(f"{'milliseconds':<46}{'median':>8}{'quartiles':>18}{'ratio':>8}")
        with torch.no_grad():
            baseline = measure("forward pass of one picture (baseline)", lambda _: model(image), given.repeats)

        def move(name: str, values: list[float]) -> Callable[[int], None]:
            """Each call a value that the slider has not had."""
            return lambda n: setattr(getattr(panel, name), "value", values[n])

        wide = [0.1 * 1.05**n for n in range(given.repeats + 2)]
        shares = [0.05 + 0.8 * n / (given.repeats + 2) for n in range(given.repeats + 2)]
        panel.form.value = "product"  # for which the mask is the same whatever delta
        measure("slider to pictures, no pass (delta)", move("delta", wide), given.repeats, 100, baseline)
        measure("slider to pictures, new mask (share deleted)", move("fraction", shares), given.repeats, 500, baseline)
        panel.form.value = "sum"
        measure("slider to pictures, new map (delta)", move("delta", wide[::-1]), given.repeats, 500, baseline)
        panel.compare.value = True
        measure(
            "two settings, new map of one (delta)",
            move("delta", [1.01 * value for value in wide]),
            given.repeats,
            500,
            baseline,
        )
        panel.compare.value = False
        rows = cycle(range(len(dataset)))
        choose = lambda _: setattr(panel.picture, "value", next(rows))  # noqa: E731
        measure("another picture", choose, given.repeats, 500, baseline)
        for _ in range(len(dataset)):
            choose(0)
        measure("a picture seen before", choose, given.repeats, 100, baseline)


if __name__ == "__main__":
    main()

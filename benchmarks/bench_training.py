"""Training throughput: pictures a second, and as a share of what the device's matrix products reach in the same run.

python benchmarks/bench_training.py                        slim and mobilefacenet, a batch of 32
python benchmarks/bench_training.py --backbones ir_101 --batch 64 --classes 530 --json throughput.json

The share is model FLOPs (three times those of a forward pass: one forward, two backward) over the rate of a square
matrix product in the training precision. With --json the numbers are kept, with device and versions.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from preflight import matrix_rate, training_rate
from torch.utils.flop_counter import FlopCounterMode

from xfrlib import artifacts
from xfrlib.models import BACKBONES, FaceClassifier, load_backbone
from xfrlib.training import Recipe, training_precision

PAPER_PICTURES, PAPER_EPOCHS = 34_099, 20  # training pictures and epochs of arXiv 2505.03837


def main() -> None:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["slim", "mobilefacenet"], choices=BACKBONES)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--classes", type=int, default=530)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--seconds", type=float, default=3.0, help="of measuring, for each number")
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    given = parser.parse_args()
    device = artifacts.default_device()
    precision = training_precision("auto", device)
    best = matrix_rate(device, torch.bfloat16 if precision == "bf16" else torch.float32, seconds=given.seconds)
    rates = {}
    for name in given.backbones:
        model = FaceClassifier(load_backbone(name), given.classes).to(device)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(torch.rand(1, 3, 112, 112, device=device))
        rate = training_rate(
            model, Recipe(batch_size=given.batch), device, compile=given.compile, seconds=given.seconds
        )
        share = rate * 3 * counter.get_total_flops() / best
        hours = PAPER_PICTURES * PAPER_EPOCHS / rate / 3600
        rates[name] = {"pictures_per_second": rate, "percent_of_matrix_rate": 100 * share, "paper_hours": hours}
        print(
            f"{name:14} {rate:9.1f} pictures/s  {share:6.1%} of the matrix rate  "
            f"the paper's {PAPER_EPOCHS} epochs of {PAPER_PICTURES} pictures: {hours:.1f} h"
        )
    print(f"{artifacts.device_name(device)}, {precision}, batch {given.batch}, matrix rate {best / 1e12:.2f} TFLOP/s")
    if given.json:
        facts = {"precision": precision, "batch": given.batch, "classes": given.classes, "compile": given.compile}
        provenance = {"commit": artifacts.commit(), **artifacts.environment()}
        artifacts.write_json(
            given.json, {"matrix_teraflops": best / 1e12, **facts, "training": rates, "provenance": provenance}
        )


if __name__ == "__main__":
    main()

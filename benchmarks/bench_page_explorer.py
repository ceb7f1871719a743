"""The explorer in the page: one forward pass in node beside torch's on one core, and slider to picture in Chromium.

    OMP_NUM_THREADS=1 python benchmarks/bench_page_explorer.py

Ratios are to torch's pass, measured in the same run, so that they mean the same on any machine. What is not installed
(node, Chromium with its driver) is said and left out.
"""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from explore import PageFace
from madefaces.people import make_families, render
from network import pack_classifier
from xfrlib import FaceClassifier, load_backbone

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))  # the browser is started as the tests start it
import browser  # noqa: E402

NODE = """
const core = require(process.argv[1])();
const { description, weights, pixels, repeats } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const network = core.readNetwork(description, core.decodeBase64(weights)), picture = core.decodeBase64(pixels);
const times = [];
for (let n = -3; n < repeats; n++) {
  const began = performance.now();
  core.forward(network, picture, 112);
  if (n >= 0) times.push(performance.now() - began);
}
console.log(JSON.stringify(times));
"""
# Does something in the page and waits until the picture that answers it is drawn.
ANSWERED = """
const [act, value, done] = arguments, e = document.getElementById("explorer").explorer;
const receive = e.constructor.prototype.receive.bind(e), began = performance.now();
e.receive = (message) => {
  receive(message);
  if (message.id === e.sent && message.kind === (act === "face" ? "masked" : "maps")) {
    delete e.receive;
    done(performance.now() - began);
  }
};
if (act === "slider") {
  const slider = document.getElementById("xe-delta");
  slider.value = value;
  slider.oninput();
} else if (act === "stroke") e.begin(20 + 70 * value, 60);
else e.choose(value);
"""
SETTINGS = {
    "top_k": 5, "delta": 1.0, "scale": 1.0, "scale_min": 1.0, "scale_max": 50.0, "form": "sum", "centre": True,
    "fraction": 0.2,
}  # fmt: skip


def show(name: str, times: Sequence[float], baseline: float | None = None) -> float:
    """Print a row; returns the median."""
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    ratio = f"{middle / baseline:>8.1f}" if baseline else ""
    print(f"{name:<44}{middle:>8.1f}{f'{low:.1f} to {high:.1f}':>18}{ratio}", flush=True)
    return middle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(1)
    people = make_families(10, 3, seed=0)
    model = FaceClassifier(load_backbone("slim", "builtin"), len(people)).eval()
    pictures, _ = render(people[:1], [0])
    image = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255

    print(f"{'milliseconds':<44}{'median':>8}{'quartiles':>18}{'ratio':>8}")
    times = []
    with torch.no_grad():
        for n in range(-3, given.repeats):
            began = time.perf_counter()
            model(image)
            times += [1000 * (time.perf_counter() - began)] * (n >= 0)
    baseline = show("forward pass, torch (baseline)", times)

    if node := shutil.which("node"):
        description, weights = pack_classifier(model)
        task = {"description": description, "weights": base64.b64encode(weights).decode(), "repeats": given.repeats}
        task["pixels"] = base64.b64encode(pictures.tobytes()).decode()
        command = [node, "-e", NODE, str(ROOT / "book" / "page" / "explore_core.js")]
        done = subprocess.run(command, input=json.dumps(task), capture_output=True, text=True, check=True)
        show("forward pass, node", json.loads(done.stdout), baseline)
    else:
        print("forward pass, node: there is no node here")

    if not (browser.CHROMIUM and browser.CHROMEDRIVER):
        print("slider to picture: there is no Chromium with its driver here")
        return
    with tempfile.TemporaryDirectory() as folder, browser.open_browser() as driver:
        faces = [PageFace(n, 0) for n in range(len(people))]
        site = browser.lay_out_explorer(Path(folder), model, people, faces, SETTINGS)
        driver.get((site / "book" / "explore.html").as_uri())
        while not driver.execute_script("return Boolean(document.getElementById('explorer').explorer?.masked)"):
            time.sleep(0.1)
        passes = []
        for n in range(given.repeats):
            driver.execute_async_script(ANSWERED, "face", 1 + n % (len(people) - 1))
            passes.append(driver.execute_script("return document.getElementById('explorer').explorer.forwardTime"))
        show("forward pass, Chromium", passes[3:] or passes, baseline)
        for name, act in (("slider to picture, Chromium", "slider"), ("stroke to picture, Chromium", "stroke")):
            show(name, [driver.execute_async_script(ANSWERED, act, n / 20) for n in range(given.repeats)])
        faces_seen = [driver.execute_async_script(ANSWERED, "face", n % len(people)) for n in range(given.repeats)]
        show("person chosen to all pictures, Chromium", faces_seen)


if __name__ == "__main__":
    main()

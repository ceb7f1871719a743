"""The how-to pages do what they say: their commands are run, in order, in a small copy of the checkout.

In a page's source a comment before a block says what is not run and why (``% not run: reason``) and what must fail
(``% fails``). A block of ``text`` right after one of code is its output, where ``…`` stands for anything.
"""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
import yaml
from prepared import prepare_manifest
from test_checkpoints import lightning
from test_models import filled

from facedata import dlib, scan
from madefaces import people
from studies.data_report import data_report
from xfrlib import profile as profile_module
from xfrlib.explainers import EXPLAINERS, Explainer, explain_with
from xfrlib.models import FaceClassifier, load_backbone
from xfrlib.models.backbones import BACKBONES
from xfrlib.models.classifier import save_classifier
from xfrlib.profile import load_profile, project_root
from xfrlib.run import NotebookRun

ROOT = project_root()
PAGES = ROOT / "book" / "how_to"
BLOCK = re.compile(
    r"(?P<mark>^% [^\n]*\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```\n(?P<output>\n```text\n.*?^```\n)?", re.M | re.S
)
PEOPLE = ("Ann", "Bo", "Cy", "Di")
SMALL = {"families": 2, "family_size": 3, "pictures_per_identity": 20, "epochs": 1, "networks": 1, "draws": 1,
         "fills": ["black"]}  # fmt: skip
MINE = {"dataset": "folder", "folder": "my_faces", "epochs": 1, "batch_size": 8, "draws": 1, "top_k": 3}
NOT_RUN = {
    "gpu_server": ["make test", "rsync", ".venv/bin/python tools/preflight", "nohup",
                   ".venv/bin/python tools/make_book", ".venv/bin/python tools/make_book", "sbatch",
                   ".venv/bin/tensorboard", "rsync"],
    "other_parameters": ["make book"],
    "own_faces": ["make book"],
}  # fmt: skip


class Block(NamedTuple):
    """A block of code of a page, with the comment before it and the output after it."""

    language: str
    code: str
    mark: str
    output: str


def output_of(block: str) -> str:
    return block.strip().removeprefix("```text\n").removesuffix("\n```")


def blocks(page: str) -> list[Block]:
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    found = (match.groupdict(default="") for match in BLOCK.finditer(text))
    return [
        Block(b["language"], b["code"], b["mark"].removeprefix("% ").strip(), output_of(b["output"]))
        for b in found
        if b["language"] in ("bash", "python")
    ]


def says(output: str, expected: str) -> bool:
    """Whether `expected` is in an output; ``…`` in it stands for anything."""
    pattern = r"[\s\S]*?".join(re.escape(part.strip()) for part in expected.split("…"))
    return re.search(pattern.replace(r"\ ", r"\s+"), output) is not None


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the commands need, with a profile ``quick`` that takes seconds, and pictures to bring along."""
    root = tmp_path_factory.mktemp("checkout")
    for folder in ("xfrlib", "facedata", "madefaces", "matching", "recognisers", "tools", "notebooks", "profiles"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (root / ".venv").symlink_to(sys.prefix)
    quick = yaml.safe_load((ROOT / "profiles/quick.yaml").read_text(encoding="utf-8")) | SMALL
    (root / "profiles/quick.yaml").write_text(yaml.safe_dump(quick, sort_keys=False), encoding="utf-8")
    size = {"families": 2, "family_size": 2, "pictures_per_identity": 10}
    people.write_faces(root / "photos", **size, seed=1, progress=False)
    for folder, name in zip(sorted((root / "photos").iterdir()), PEOPLE, strict=True):
        folder.rename(root / "photos" / name)
    return root


@pytest.fixture
def inside(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkout as the place where Python blocks run too."""
    monkeypatch.chdir(checkout)
    monkeypatch.setattr(profile_module, "project_root", lambda: checkout)
    monkeypatch.setenv("XFR_BUILD", str(checkout / "_build"))
    monkeypatch.setenv("XFR_DATA", str(checkout / "data"))
    return checkout


def trained(profile: str) -> None:
    """What the first two chapters leave behind, without their pages."""
    run = NotebookRun("01_data_preparation", profile)
    settings = run.profile
    if settings.dataset == "synthetic":
        size = {name: getattr(settings, name) for name in ("families", "family_size", "pictures_per_identity")}
        people.write_faces(run.faces_root(), **size, seed=0, progress=False)
    manifest = prepare_manifest(run.faces_root(), near_threshold=None)
    scan.write_manifest(manifest, run.output("manifest.csv"))
    run.write_json("data_report.json", data_report(manifest, settings.fractions))
    run = NotebookRun("02_fine_tuning", profile)
    identities = run.dataset("test").identities
    model = FaceClassifier(run.backbone(), len(identities))
    save_classifier(run.output("classifier.safetensors"), model, identities)
    run.write_json("calibration.json", {"temperature": [1.0]})
    origin = {"backbone": "slim", "checkpoint_source": "builtin", "checkpoint_sha256": 64 * "0", "device": "CPU"}
    how = {"processes": 1, "precision": "fp32", "epochs": 1, "best_epoch": 1, "seconds": 1.0}
    run.write_json("fine_tuning.json", origin | how)


def in_bash(code: str, root: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Run a block; what it exports stays for the next."""
    state = root / ".environment"
    script = f"set -euo pipefail\n{code}\nenv -0 > {state}"
    command = ["bash", "-c", script]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300)
    if done.returncode == 0:
        pairs = (line.partition("=") for line in state.read_text(encoding="utf-8").split("\0") if line)
        environment.update({name: value for name, _, value in pairs if name.startswith("XFR_")})
    return done.returncode, done.stdout + done.stderr


def run_page(page: str, root: Path, *, change: Callable[[str], str] = str, **given: Any) -> dict[str, Any]:
    """Run all blocks of a page that can be run; returns what its Python left behind. `given` stands at its beginning.

    `change` makes a command smaller.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("XFR_")}
    environment = kept | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    namespace: dict[str, Any] = {"__name__": "page", **given}
    for block in blocks(page):
        if block.mark.startswith("not run"):
            continue
        if block.language == "bash":
            code, said = in_bash(change(block.code), root, environment)
            assert (code != 0) == (block.mark == "fails"), f"{block.code}\n{said}"
        else:
            shown = io.StringIO()
            with contextlib.redirect_stdout(shown):
                exec(compile(block.code, f"{page}.md", "exec"), namespace)
            said = shown.getvalue()
        assert says(said, block.output), f"{block.code}\nsaid\n{said}\nnot\n{block.output}"
    return namespace


def test_overview(inside: Path) -> None:
    shutil.copytree(inside / "photos", inside / "path/to/faces")
    shutil.copytree(inside / "photos/Ann", inside / "path/to/faces/Ed")  # a fifth, for five classes compared
    model = FaceClassifier(load_backbone("slim"), 5).eval()
    left = run_page("../use", inside, model=model, images=torch.rand(2, 3, 112, 112))
    assert len(left["table"]) == 2 and left["masks"].shape == left["explanation"].sdd.shape == (2, 112, 112)


@pytest.mark.long
def test_own_faces(inside: Path) -> None:
    for number, path in enumerate(sorted((inside / "photos/Ann").iterdir())[:2], start=1):
        path.rename(path.with_name(f"{number}{path.suffix}"))
        (inside / "pairs/first").mkdir(parents=True, exist_ok=True)
        shutil.copy(inside / f"photos/Ann/{number}{path.suffix}", inside / "pairs/first")
    suffix = path.suffix

    def small(code: str) -> str:
        """With the suffix of the made pictures; without dlib's recogniser by the one that is always there."""
        code = code.replace("1.jpg", f"1{suffix}").replace("2.jpg", f"2{suffix}")
        return code if dlib.installed() else re.sub("(-m matching .*)", r"\1 --recogniser slim", code)

    left = run_page("own_faces", inside, change=small)
    assert {path.name for path in (inside / "report").iterdir()} == {"report.html", "report.json"}
    assert {path.name for path in (inside / "reports").iterdir()} == {"index.html", "first.html", "first.json"}
    assert sorted(path.name for path in (inside / "data/my_faces").iterdir() if path.is_dir()) == list(PEOPLE)
    assert set(left["names"]) <= set(PEOPLE) and len(left["names"]) == 3
    assert left["verdict"].reason.startswith(("Shown: ", "Not shown: "))
    assert (inside / "why.png").stat().st_size > 10_000
    assert left["panel"].children


def test_own_model(inside: Path) -> None:
    """The checkpoint has the layout of AdaFace's own, with made-up numbers in it."""
    (inside / "weights").mkdir()
    made_up = {key: filled(key, value.shape) for key, value in BACKBONES["ir_18"]().state_dict().items()}
    torch.save(lightning(made_up), inside / "weights/adaface_ir18_webface4m.ckpt")
    left = run_page("own_model", inside)
    assert left["similarity"].diagonal().allclose(torch.ones(4))
    assert set(left["table"]["method"]) == {"sdd", "disc", "random_map"}
    assert len(left["table"]) == 4 * 2 * (1 + 1 + 5), "pictures, fills; the map, one disc, five random maps"


@pytest.mark.long
def test_other_parameters(inside: Path) -> None:
    trained("quick")
    run_page("other_parameters", inside, change=lambda code: code.replace("in 0.5 2.0;", "in 0.5;"))
    runs = inside / "_build/quick/runs"
    assert {path.name for path in runs.iterdir()} == {"top_k=3,delta=2.0", "short", "delta=0.5"}
    short = json.loads((runs / "short/results.json").read_text(encoding="utf-8"))
    assert short["fine_tuning"]["epochs"] == 3, "the evaluation is that of the network trained under the same name"
    assert load_profile("sharp").delta == 3


@pytest.mark.long
def test_gpu_server(inside: Path) -> None:
    """With as many processes as GPUs on the page, but two of them and on the processor."""
    (inside / "profiles/mine.yaml").write_text(yaml.safe_dump(MINE), encoding="utf-8")
    shutil.copytree(inside / "photos", inside / "faces_disk/my_faces")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XFR_DATA", str(inside / "faces_disk"))
        patch.setenv("XFR_BUILD", str(inside / "scratch"))
        trained("mine")

    def small(code: str) -> str:
        return "export ACCELERATE_USE_CPU=true\n" + code.replace("--num_processes 4", "--num_processes 2")

    run_page("gpu_server", inside, change=small)
    assert list((inside / "scratch/mine/tensorboard").iterdir())


def test_add_an_explainer(inside: Path) -> None:
    trained("quick")
    with mock.patch.dict(EXPLAINERS):
        assert "gradient_times_input" not in EXPLAINERS, "the example must stay one that the book does not have"
        left = run_page("add_an_explainer", inside)
    methods = {"sdd_sum", "gradient_times_input", "disc", "random_map"}
    assert set(left["table"]["method"]) == methods and set(left["table"]["fill"]) == {"black", "blur"}
    tests = left["tests"]
    assert list(tests) == ["Gradient times input", "SDD"] and len(tests) == 9
    assert tests.notna().all(axis=None) and {
        "gain over the disc, balance, blur",
        "rank correlation with the truth per cell",
        "order of the parts, against look-alikes",
    } < set(tests.index)
    images = left["sample"].images[:2].requires_grad_()
    logits = left["model"](images)
    score = logits.amax(dim=1) - logits.mean(dim=1)
    (gradient,) = torch.autograd.grad(score.sum(), images)
    explained = mock.patch.dict(EXPLAINERS, {"new": Explainer("", "", "", left["gradient_times_input"])})
    with explained:
        maps = explain_with("new", left["model"], images.detach(), left["classes"][:2], progress=False)
    torch.testing.assert_close(maps, (gradient * images).sum(dim=1).detach(), rtol=1e-4, atol=1e-6)


def test_what_is_not_run_is_named_with_its_reason() -> None:
    pages = {path.stem for path in PAGES.glob("*.md")}
    run = {"own_faces", "own_model", "other_parameters", "gpu_server", "add_an_explainer", "troubleshooting"}
    assert pages == run, "each page has a test here"
    for page in sorted(pages):
        marked = [block for block in blocks(page) if block.mark]
        assert all(re.fullmatch(r"not run: .{10,}|fails", block.mark) for block in marked), page
        left_out = [block.code for block in marked if block.mark.startswith("not run")]
        for code, beginning in zip(left_out, NOT_RUN.get(page, []), strict=True):
            assert code.startswith(beginning)
        for block in marked:
            if elsewhere := re.fullmatch(r"not run: (\w+)\.md runs it", block.mark):
                run_there = {
                    line for other in blocks(elsewhere[1]) if not other.mark for line in other.code.split("\n")
                }
                assert set(block.code.strip().split("\n")) <= run_there, block.code

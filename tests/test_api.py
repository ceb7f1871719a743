"""The reference holds what the book and its readers call, and its docstrings become what they mean."""

import ast
import dataclasses
import json
import pickle
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import api
import pytest
import yaml
from docutils import nodes
from sphinx import addnodes
from sphinx_build import sphinx_build

import xfrlib
from xfrlib.profile import project_root

ROOT = project_root()
PAGES = sorted((ROOT / "book/api").glob("*.md"))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Doctrees of the pages of the reference alone, read with the book's settings; links to other pages go nowhere."""
    folder = tmp_path_factory.mktemp("reference")
    shutil.copytree(ROOT / "book/api", folder / "api")
    names = "\n".join(f"api/{path.stem}" for path in PAGES)
    (folder / "index.md").write_text(f"# All\n\n```{{toctree}}\n{names}\n```\n", encoding="utf-8")
    settings = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["sphinx"]["config"]
    ours = ("autodoc", "nitpick", "default_role", "python_")
    own = {name: value for name, value in settings.items() if name.startswith(ours)}
    own |= {"extensions": ["myst_parser", "api"], "nitpicky": True, "suppress_warnings": ["myst.xref_missing"]}
    assert sphinx_build(folder, own, "dummy") == (0, "")
    return folder / "_build/doctrees"


def documented(doctrees: Path) -> set[str]:
    environment = pickle.loads((doctrees / "environment.pickle").read_bytes())
    return set(environment.domaindata["py"]["objects"])


def page_of(doctrees: Path, name: str) -> nodes.document:
    return pickle.loads((doctrees / f"{name}.doctree").read_bytes())


def called_in_notebooks() -> set[str]:
    """Functions and classes of xfrlib that the chapters use, by the name under which they get them."""
    found = set()
    for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"):
        cells = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
        tree = ast.parse("\n".join("".join(cell["source"]) for cell in cells))
        known = {"xfrlib": "xfrlib"}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("xfrlib"):
                known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in known:
                found.add(f"{known[node.value.id]}.{node.attr}")
        found |= {name for name in known.values() if name != "xfrlib"}
    return found


def origin(name: str) -> str:
    """The name under which a function or class is defined; "" for anything else."""
    found: object = xfrlib
    for part in name.split(".")[1:]:
        found = getattr(found, part, None)
    if isinstance(found, type) or callable(found):
        return f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
    return ""


def test_every_public_name_is_documented(reference: Path) -> None:
    names = documented(reference)
    assert {f"xfrlib.{name}" for name in xfrlib.__all__} <= names
    here = {origin(name) for name in names} | names
    missing = {name for name in called_in_notebooks() if (defined := origin(name)) and defined not in here}
    assert {name for name in missing if origin(name).startswith("xfrlib.")} == set()
    assert len(called_in_notebooks()) > 100


def test_arguments_become_a_list(reference: Path) -> None:
    page = page_of(reference, "api/main")
    (explain,) = [d for d in page.findall(nodes.Element) if "xfrlib.explain" in d.get("ids", [])]
    content = explain.parent[1]
    items = [item.astext() for item in content.findall(nodes.list_item)]
    assert items[1] == "images: (B, 3, H, W) float. RGB in [0, 1]; channel order and normalisation belong to the model."
    assert [rubric.astext() for rubric in content.findall(nodes.rubric)] == ["Parameters", "Raises"]
    assert "scaled_directed_divergence" in {link["reftarget"] for link in content.findall(addnodes.pending_xref)}


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        (["name: one,", "    two.", "other : three."], ["* **name**: one, two.", "* **other**: three."]),
        (["a, b : (B,) float", "    Says more."], ["* **a**, **b**: (B,) float. Says more."]),
        (["Raises", "------", "ValueError", "    If so."], [".. rubric:: Raises", "* **ValueError**: If so."]),
        (["**sdd", "    Those of it."], ["* **\\*\\*sdd**: Those of it."]),
        (["one : two.", "Prose: stays."], ["* **one**: two.", "Prose: stays."]),
        (["of : one", "all of them."], ["* **of**: one all of them."]),
        (["recipe: fields.", "    epochs: how many.", "    seed: a number."],
         ["* **recipe**: fields.", "  * **epochs**: how many.", "  * **seed**: a number."]),
    ],
)  # fmt: skip
def test_how_entries_are_read(docstring: list[str], expected: list[str]) -> None:
    assert [line for line in api.as_list(docstring) if line.strip()] == expected


@dataclasses.dataclass
class Record:
    # a heading
    first: int  # a number
    # "a" stands for what comes first, and "b" for the rest
    second: str = "a"
    third: tuple[int, ...] = (1, 2)


class Pair(NamedTuple):
    left: float  # degrees, 2 * pi / 360


def test_fields_are_read_from_the_comments_beside_them() -> None:
    assert api.fields(Record) == [
        "* ``first: int``: a number",
        '* ``second: str = "a"``: "a" stands for what comes first, and "b" for the rest',
        "* ``third: tuple[int, ...] = (1, 2)``",
    ]
    assert api.fields(Pair) == ["* ``left: float``: degrees, 2 \\* pi / 360"]


def test_every_command_is_shown_with_its_help(reference: Path) -> None:
    page = page_of(reference, "api/commands")
    shown = [block.astext() for block in page.findall(nodes.literal_block)]
    assert len(shown) == 6 and all(text.startswith("usage: python -m xfrlib.") for text in shown)
    usages = {re.split(r"[ \n]", text.removeprefix("usage: python -m "))[0] for text in shown}
    commands = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        for path in (ROOT / "xfrlib").rglob("*.py")
        if "command_line_run(" in (text := path.read_text(encoding="utf-8")) or "ArgumentParser(" in text
    }
    steps_of_the_build = {"subjects", "explore", "landing"}
    assert commands - usages <= {"xfrlib.run", *steps_of_the_build}
    assert not any(str(Path.home()) in text for text in shown)


def test_pages_of_the_reference_are_in_the_table_of_contents() -> None:
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    assert all(f"file: book/api/{path.stem}\n" in toc for path in PAGES)

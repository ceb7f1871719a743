"""The reference holds what the book and its readers call, and its docstrings become what they mean."""

import ast
import json
import pickle
import pkgutil
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from docutils import nodes
from sphinx import addnodes
from sphinx_build import sphinx_build

import xfrlib
from xfrlib.profile import project_root

ROOT = project_root()
PAGES = sorted((ROOT / "book/api").glob("*.md"))


def book_settings() -> dict[str, Any]:
    """The settings of the book that shape the reference."""
    settings = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["sphinx"]["config"]
    ours = ("autodoc", "napoleon", "nitpick", "default_role", "python_")
    return {name: value for name, value in settings.items() if name.startswith(ours)}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Doctrees of the pages of the reference alone, read with the book's settings; links to other pages go nowhere."""
    folder = tmp_path_factory.mktemp("reference")
    shutil.copytree(ROOT / "book/api", folder / "api")
    names = "\n".join(f"api/{path.stem}" for path in PAGES)
    (folder / "index.md").write_text(f"# All\n\n```{{toctree}}\n{names}\n```\n", encoding="utf-8")
    own = {"extensions": ["myst_parser", "api"], "nitpicky": True, "suppress_warnings": ["myst.xref_missing"]}
    assert sphinx_build(folder, own | book_settings(), "dummy") == (0, "")
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
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return ""
    if isinstance(found, type) or callable(found):
        return f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
    return ""


def test_every_public_name_is_documented(reference: Path) -> None:
    names = documented(reference)
    assert {f"xfrlib.{name}" for name in xfrlib.__all__} <= names
    here = {origin(name) for name in names} | names
    missing = {name for name in called_in_notebooks() if (defined := origin(name)) and defined not in here}
    assert {name for name in missing if origin(name).startswith("xfrlib.")} == set()
    assert len(called_in_notebooks()) >= 100


def test_every_module_has_one_place(reference: Path) -> None:
    """Of those with functions or classes of their own; the panel's inner parts are not for a caller."""
    named = [name for page in PAGES for name in re.findall(r"automodule:: (\S+)", page.read_text(encoding="utf-8"))]
    there = set()
    for folder in ("xfrlib", "facedata", "madefaces", "matching", "recognisers", "notebooks/studies"):
        for path in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            public = any(isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name[0] != "_" for n in tree.body)
            if public and path.stem != "__main__" and path.parent.name != "explorer":
                there.add(".".join(path.relative_to(ROOT).with_suffix("").parts).removeprefix("notebooks."))
    assert sorted(named) == sorted({name.removesuffix(".__init__") for name in there} | {"xfrlib.explorer"})


def test_arguments_become_a_list(reference: Path) -> None:
    page = page_of(reference, "api/main")
    (explain,) = [d for d in page.findall(nodes.Element) if "xfrlib.explain" in d.get("ids", [])]
    content = explain.parent[1]
    items = [item.astext() for item in content.findall(nodes.list_item)]
    assert items[1].startswith("images (Tensor) – (B, 3, H, W) float, RGB in [0, 1]; channel order")
    assert [name.astext() for name in content.findall(nodes.field_name)] == ["Parameters", "Raises"]
    assert "scaled_directed_divergence" in {link["reftarget"] for link in content.findall(addnodes.pending_xref)}


def test_docstrings_have_one_form(reference: Path) -> None:
    """What is said of an argument stands below a heading, of which napoleon makes a field list."""
    entry = re.compile(r"\*{0,2}[a-z_]\w*(, \*{0,2}[a-z_]\w*)* ?: ")  # prose begins with a capital
    for page in PAGES:
        doctree = page_of(reference, f"api/{page.stem}")
        described = doctree.findall(addnodes.desc_content)
        prose = [part for content in described for part in content.children if not isinstance(part, nodes.field_list)]
        texts = [part.astext() for part in prose if isinstance(part, nodes.paragraph | nodes.definition_list)]
        assert [text for text in texts if entry.match(text)] == []


MODULE = '''
from dataclasses import dataclass
from typing import NamedTuple


@dataclass
class Record:
    """A record."""

    first: int  #: (B, C): a number
    #: "a" stands for what comes first
    second: str = "a"
    third: int = 3


class Pair(NamedTuple):
    """Two."""

    left: float  #: degrees
    right: float


def together(*, one: int, two: int) -> int:
    """Both.

    Parameters
    ----------
    one, two : int, 0 or more
        What is added: two numbers.

    Returns
    -------
    int
        Their sum.
    """
    return one + two
'''


def test_fields_and_arguments_are_explained_where_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "book_example.py").write_text(MODULE, encoding="utf-8")
    page = "# A\n\n```{eval-rst}\n.. automodule:: book_example\n   :members:\n```\n"
    (tmp_path / "index.md").write_text(page, encoding="utf-8")
    settings = book_settings()
    config = {"extensions": ["myst_parser", "api"], **settings}
    assert sphinx_build(tmp_path, config, "text") == (0, "")
    lines = [line.strip() for line in (tmp_path / "_build/text/index.txt").read_text(encoding="utf-8").splitlines()]
    assert lines[lines.index("first: int") + 2] == "(B, C): a number"
    assert 'second: str = "a"' in " ".join(lines) or "second: str = 'a'" in lines
    assert lines[lines.index("left: float") + 2] == "degrees" and "right: float" in lines
    assert "**one, two** (*int, 0 or more*) -- What is added: two numbers." in " ".join(lines)
    assert not any("Alias for field" in line for line in lines)


def comments_beside_fields(path: Path) -> list[str]:
    """Those of dataclasses, named tuples and models that autodoc does not read, as they lack the colon."""
    text = path.read_text(encoding="utf-8")
    lines, found = text.splitlines(), []
    for kind in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)):
        bases = {ast.unparse(base).split(".")[-1] for base in [*kind.bases, *kind.decorator_list]}
        if any(base.startswith(("NamedTuple", "BaseModel", "dataclass")) for base in bases):
            fields = (node.end_lineno or 0 for node in kind.body if isinstance(node, ast.AnnAssign))
            found += [line for line in (lines[end - 1] for end in fields) if re.search(r"  # (?!type:|noqa)", line)]
    return found


@pytest.mark.parametrize("folder", ["xfrlib", "facedata", "madefaces", "matching", "recognisers"])
def test_a_comment_beside_a_field_is_one_that_autodoc_reads(folder: str) -> None:
    assert [line for path in (ROOT / folder).rglob("*.py") for line in comments_beside_fields(path)] == []


def test_every_command_is_shown_with_its_help(reference: Path) -> None:
    page = page_of(reference, "api/commands")
    shown = [block.astext() for block in page.findall(nodes.literal_block)]
    assert len(shown) == 8 and all(text.startswith("usage: ") for text in shown)
    usages = {re.split(r"[ \n]", text.removeprefix("usage: ").removeprefix("python -m "))[0] for text in shown}
    commands = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        for folder in ("xfrlib", "facedata", "madefaces", "matching")
        for path in (ROOT / folder).rglob("*.py")
        if "command_line_run(" in (text := path.read_text(encoding="utf-8")) or "ArgumentParser(" in text
    }
    assert commands - usages <= {"xfrlib.run"} and "preflight.py" in usages
    assert not any(str(Path.home()) in text for text in shown)


def test_pages_of_the_reference_are_in_the_table_of_contents() -> None:
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    assert all(f"file: book/api/{path.stem}\n" in toc for path in PAGES)

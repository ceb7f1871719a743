"""The reference has a place for every module, and what is written beside fields and arguments is read."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from sphinx_build import sphinx_build

from xfrlib.profile import project_root

ROOT = project_root()
PAGES = sorted((ROOT / "book/api").glob("*.md"))


def book_settings() -> dict[str, Any]:
    """The settings of the book that shape the reference."""
    settings = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["sphinx"]["config"]
    ours = ("autodoc", "napoleon", "nitpick", "default_role", "python_")
    return {name: value for name, value in settings.items() if name.startswith(ours)}


def test_every_module_has_one_place() -> None:
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


def test_pages_of_the_reference_are_in_the_table_of_contents() -> None:
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    assert all(f"file: book/api/{path.stem}\n" in toc for path in PAGES)

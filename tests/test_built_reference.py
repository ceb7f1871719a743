"""The reference of a built site holds what the book and its readers call, and its docstrings became what they mean."""

import ast
import json
import pickle
import pkgutil
import re
from pathlib import Path

import pytest
from docutils import nodes
from sphinx import addnodes

import xfrlib
from xfrlib.artifacts import build_root
from xfrlib.profile import project_root

ROOT = project_root()
PAGES = [f"book/api/{path.stem}" for path in sorted((ROOT / "book/api").glob("*.md"))]
DOCTREES = sorted(build_root().glob("*/site/_build/.doctrees"))  # what Sphinx has read, before links are resolved
pytestmark = pytest.mark.skipif(not DOCTREES, reason="no site is built: make book")


@pytest.fixture(scope="module", params=DOCTREES, ids=lambda path: path.parents[2].name)
def reference(request: pytest.FixtureRequest) -> Path:
    return request.param


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


def test_arguments_become_a_list(reference: Path) -> None:
    page = page_of(reference, "book/api/main")
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
        doctree = page_of(reference, page)
        described = doctree.findall(addnodes.desc_content)
        prose = [part for content in described for part in content.children if not isinstance(part, nodes.field_list)]
        texts = [part.astext() for part in prose if isinstance(part, nodes.paragraph | nodes.definition_list)]
        assert [text for text in texts if entry.match(text)] == []


def test_every_command_is_shown_with_its_help(reference: Path) -> None:
    page = page_of(reference, "book/api/commands")
    shown = [block.astext() for block in page.findall(nodes.literal_block)]
    assert len(shown) == 8 and all(text.startswith("usage: ") for text in shown)
    usages = {re.split(r"[ \n]", text.removeprefix("usage: python ").removeprefix("-m "))[0] for text in shown}
    commands = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        for folder in ("xfrlib", "facedata", "madefaces", "matching")
        for path in (ROOT / folder).rglob("*.py")
        if "command_line_run(" in (text := path.read_text(encoding="utf-8")) or "ArgumentParser(" in text
    }
    assert commands - usages <= {"xfrlib.run"} and "tools/preflight.py" in usages
    assert not any(str(Path.home()) in text for text in shown)

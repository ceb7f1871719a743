"""The house: a module imports only from those above it, the package stays thin, and nothing in it knows its users.

A public name is defined in one module of the project, and so means one thing.
"""

import ast
import io
import tokenize
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# The flow: a module, or a package as a whole, imports only from those above it.
ROWS = (
    "source_files profile artifacts checks",
    "data models",
    "geometry prediction cam sdd",
    "regions controls explanation match judge trust",
    "intervals tables",
    "explainers",
    "run look_alikes training protocol",
    "plots",
    "explorer",
)
FLOW = [part for row in ROWS for part in row.split()]
OUTSIDE = ("facedata", "madefaces", "matching", "recognisers", "studies", "subjects", "explore", "landing", "network")
MOST_LINES, MOST_CODE, LONGEST = 5500, 3700, 300
CODE = ("book", "facedata", "madefaces", "matching", "notebooks", "recognisers", "scripts", "tools", "xfrlib")
SHARED = {  # public names that several modules define, and why they may
    "Array": "the type of an array, as the module has it",
    "DIFFERING": "of both renderers",
    "FILE": "of the two packages that bring a file of dlib's",
    "GENES": "of both renderers",
    "INK": "the colour of text and lines: of a page's plot, of a figure in the dark",
    "MEANS": "of the channels, of the two recognisers of others",
    "MIME": "what a kernel writes and Sphinx reads, neither of which loads the other",
    "NOTEBOOK": "the notebook whose artefacts a command makes",
    "NUISANCE": "of both renderers",
    "PACKAGE": "the package that brings a module's files",
    "PARTS": "of both renderers",
    "ROOT": "the folder of the project, of each program in it",
    "build_root": "tools/make_book.py does not load torch",
    "draw": "of both renderers",
    "logger": "of each extension of Sphinx",
    "main": "of each command",
    "nuisance_of": "of both renderers",
    "render": "of both renderers",
    "setup": "of each extension of Sphinx",
    "source_files": "tools/dependencies.py takes that of xfrlib, without torch",
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted((ROOT / "xfrlib").rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def imports(tree: ast.AST) -> set[str]:
    """What a file imports anywhere in it, by the longest name that is a module of xfrlib, else as written."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "an import names its module in full"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else node.module for name in names}
    return found


def part(module: str) -> str:
    """``explainers`` for ``xfrlib.explainers.rise``; empty for the package itself, which only names what it offers."""
    return module.split(".")[1] if "." in module else ""


def own(tree: ast.AST) -> set[str]:
    return {name for name in imports(tree) if name.split(".")[0] == "xfrlib"}


def test_the_flow_names_every_part_of_the_package() -> None:
    assert {part(name) for name in FILES} - {""} == set(FLOW)


@pytest.mark.parametrize("name", [name for name in FILES if name != "xfrlib"])
def test_a_module_imports_only_from_those_above_it(name: str) -> None:
    above = FLOW[: FLOW.index(part(name)) + 1]
    below = {other for other in own(TREES[name]) if part(other) not in above}
    assert not below, f"{name} imports {', '.join(sorted(below))}"


def test_no_two_modules_import_each_other() -> None:
    assert list(TopologicalSorter({name: own(tree) for name, tree in TREES.items()}).static_order())


def test_nobody_but_the_panel_draws_and_nobody_needs_the_panel() -> None:
    for name, tree in TREES.items():
        wanted = {part(other) for other in own(tree)} - {part(name)}
        assert "explorer" not in wanted, name
        assert "plots" not in wanted or part(name) == "explorer", name


def test_the_package_knows_none_of_its_users() -> None:
    for name, tree in TREES.items():
        assert not {other.split(".")[0] for other in imports(tree)} & set(OUTSIDE), name


def test_only_a_function_that_shows_something_imports_ipython() -> None:
    for name, tree in TREES.items():
        at_once = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
        assert "IPython" not in {other.split(".")[0] for other in imports(at_once)}, name


def size(text: str) -> tuple[int, int]:
    """Lines of a file, and those of them that hold code: no blank ones, no comments, no docstrings."""
    documented, code = set(), set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            documented |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    silent = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in silent:
            code |= set(range(token.start[0], token.end[0] + 1))
    return len(text.splitlines()), len(code - documented)


def test_lines_of_code_are_counted_without_comments_and_docstrings() -> None:
    assert size(
        '"""One."""\n\n# two\ndef f(x):\n    """Three\n    four."""\n    return (\n        x  # five\n    )\n'
    ) == (9, 4)


def test_the_package_is_thin() -> None:
    lines, code = zip(*(size(path.read_text(encoding="utf-8")) for path in FILES.values()), strict=True)
    assert sum(lines) <= MOST_LINES and sum(code) <= MOST_CODE, f"{sum(lines)} lines, {sum(code)} of code"


@pytest.mark.parametrize("name", FILES)
def test_a_module_is_short(name: str) -> None:
    assert len(FILES[name].read_text(encoding="utf-8").splitlines()) <= LONGEST


def public_definitions(tree: ast.Module) -> set[str]:
    """Functions, classes and constants of a module whose names do not begin with an underscore."""
    found = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            parts = (part for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))
            found |= {part.id for part in parts if isinstance(part.ctx, ast.Store)}
    return {name for name in found if not name.startswith("_")}


def test_a_public_name_is_defined_in_one_module() -> None:
    places = defaultdict(list)
    for path in sorted(path for folder in CODE for path in (ROOT / folder).rglob("*.py")):
        for name in public_definitions(ast.parse(path.read_text(encoding="utf-8"))):
            places[name].append(path.relative_to(ROOT).as_posix())
    several = {name: files for name, files in places.items() if len(files) > 1}
    assert not {name: files for name, files in several.items() if name not in SHARED}
    assert not SHARED.keys() - several.keys(), "no longer shared"

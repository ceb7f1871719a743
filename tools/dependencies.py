"""Write what make has to know of the notebooks: the modules that each uses, and the notebooks whose artefacts it reads.

    python tools/dependencies.py > _build/dependencies.mk

Both are found by reading the code of the notebooks and of the modules; nothing is run, and no package is needed.
"""

from __future__ import annotations

import ast
import json
import re
import runpy
import sys
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```python\n(.*?)\n?^```$", re.DOTALL | re.M)  # of a solution, which runs with the notebook
LIVE = "live"  # the tag of a cell that shows something in JupyterLab and nothing on the page
READS = {"need", "read_json"}  # the methods of a run that are told which notebook has made an artefact
source_files = runpy.run_path(str(ROOT / "xfrlib" / "source_files.py"))["source_files"]  # an import would load torch


def code_of(notebook: Path) -> str:
    """The code of a notebook that its page depends on: its cells, without those of `LIVE`, and its solutions."""
    parts = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        if LIVE in cell["metadata"].get("tags", []):
            continue
        if cell["cell_type"] == "code":
            parts.append(re.sub(r"^[%!].*", "", text, flags=re.M))
        else:
            parts += BLOCK.findall(text)
    return "\n".join(parts)


@cache
def modules_of(notebook: Path) -> list[Path]:
    """The files of the project that a notebook depends on besides itself."""
    return source_files(code=code_of(notebook), folders=[notebook.parent, ROOT / "notebooks"])


def artefacts_of(notebook: Path) -> list[str]:
    """The notebooks whose artefacts a notebook reads, itself or in a function of its modules, in reading order."""
    found, todo = _reads(ast.parse(code_of(notebook)))
    named: dict[str, list[tuple[set[str], set[str]]]] = defaultdict(list)
    for path in modules_of(notebook):
        for name, reads in _functions(path):
            named[name].append(reads)
    done = set[str]()
    while todo := todo - done:
        done |= todo
        for makers, calls in [reads for name in todo for reads in named[name]]:
            found, todo = found | makers, todo | calls
    order = chapters()
    earlier = order[: order.index(notebook.stem)] if notebook.stem in order else order
    return [name for name in earlier if name in found]


@cache
def _functions(path: Path) -> list[tuple[str, tuple[set[str], set[str]]]]:
    if path.suffix != ".py":
        return []
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [(node.name, _reads(node)) for node in nodes if isinstance(node, ast.FunctionDef)]


def _reads(tree: ast.AST) -> tuple[set[str], set[str]]:
    """The texts in code that reads artefacts, of which some name a notebook, and the functions that code calls."""
    nodes = list(ast.walk(tree))
    called = [node.func for node in nodes if isinstance(node, ast.Call)]
    calls = {str(getattr(function, "attr", getattr(function, "id", ""))) for function in called}
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return texts if calls & READS else set(), calls


def chapters() -> list[str]:
    """The names of the notebooks in reading order."""
    return sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def rules() -> Iterable[str]:
    """A line of the makefile for each chapter, and the variable ``SUBJECT``: what a page of the gallery depends on."""

    def found(notebook: Path) -> str:
        try:
            needed = [f"$(RUN)/{name}.ipynb" for name in artefacts_of(notebook)]
        except SyntaxError as error:
            sys.exit(
                f"{notebook.stem}, or a module that it uses, cannot be read: {error.msg}: {str(error.text).strip()}"
            )
        return " ".join([*needed, *(path.relative_to(ROOT).as_posix() for path in modules_of(notebook))])

    for name in chapters():
        yield f"$(RUN)/{name}.ipynb: {found(ROOT / 'notebooks' / f'{name}.ipynb')}"
    yield f"SUBJECT := {found(ROOT / 'notebooks' / 'gallery' / 'subject.ipynb')}"


if __name__ == "__main__":
    print("\n".join(rules()))

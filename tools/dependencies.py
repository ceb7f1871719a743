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
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```python\n(?P<code>.*?)\n?^```$", re.DOTALL | re.M)  # of a solution: it runs with the notebook
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
    found = set().union(*(code.texts for code in _all_code(notebook)))
    return [name for name in _earlier(notebook) if name in found]


def artefact_files(notebook: Path) -> dict[str, list[str]]:
    """The artefacts that a notebook reads, by the notebook that makes each, where the code names both in one call."""
    found = set[tuple[str, str]]().union(*(code.files for code in _all_code(notebook)))
    made = {name: sorted(file for file, maker in found if maker == name) for name in _earlier(notebook)}
    return {name: files for name, files in made.items() if files}


def _earlier(notebook: Path) -> list[str]:
    order = chapters()
    return order[: order.index(notebook.stem)] if notebook.stem in order else order


class Code(NamedTuple):
    """What is to be known of a piece of code."""

    calls: set[str]  #: names of the functions that it calls
    texts: set[str]  #: its texts if it reads artefacts: some name a notebook
    files: set[tuple[str, str]]  #: artefact and notebook of every call that names both


def _all_code(notebook: Path) -> list[Code]:
    """The code of a notebook, and that of every function of its modules that it may call."""
    found = [_reads(ast.parse(code_of(notebook)))]
    named: dict[str, list[Code]] = defaultdict(list)
    for path in modules_of(notebook):
        for name, code in _functions(path):
            named[name].append(code)
    done, todo = set[str](), found[0].calls
    while todo := todo - done:
        done |= todo
        reached = [code for name in todo for code in named[name]]
        found += reached
        todo = todo.union(*(code.calls for code in reached))
    return found


@cache
def _functions(path: Path) -> list[tuple[str, Code]]:
    if path.suffix != ".py":
        return []
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [(node.name, _reads(node)) for node in nodes if isinstance(node, ast.FunctionDef)]


def _reads(tree: ast.AST) -> Code:
    nodes = list(ast.walk(tree))
    called = [node for node in nodes if isinstance(node, ast.Call)]
    calls = {_name(call) for call in called}
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    given = [_texts(call) for call in called if _name(call) in READS]
    return Code(calls, texts if calls & READS else set(), {(both[0], both[1]) for both in given if len(both) == 2})


def _name(call: ast.Call) -> str:
    return str(getattr(call.func, "attr", getattr(call.func, "id", "")))


def _texts(call: ast.Call) -> list[str]:
    """The first two arguments of a call, by place or by name, as far as they are texts."""
    given = [*call.args, *(word.value for word in call.keywords if word.arg in ("name", "made_by"))][:2]
    return [node.value for node in given if isinstance(node, ast.Constant) and isinstance(node.value, str)]


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

"""Which files of the project a module depends on: found by reading its source, which is never run.

It needs the standard library alone, so that make can use it without loading torch.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from importlib.util import resolve_name
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("xfrlib", "facedata", "madefaces")  # the project's in ROOT; what is installed lies beside them


def source_files(*modules: ModuleType, code: str = "", folders: Sequence[Path] = ()) -> list[Path]:
    """The files of the project that some modules, or a piece of code, depend on: absolute, sorted, with their own.

    Every import counts, wherever it stands, but for those under ``if TYPE_CHECKING``. Of a package that is used through
    its attributes, as in ``xfrlib.explain(…)``, only the modules count that these come from, and each ``__init__.py``
    on the way; of one that is used otherwise, all that it imports. A text that is a module's dotted name counts as an
    import of it (``"xfrlib.training"``, with the ``__main__`` that ``python -m`` runs), and a text that ends in the
    suffix of a file of data beside the module counts as that file (``f"{name}.safetensors"``).

    Parameters
    ----------
    code : str
        Source that is no module, such as the cells of a notebook.
    folders : sequence of Path
        Where modules of the project lie besides `PACKAGES`, and besides the folders of `modules`.
    """
    places, todo = [*folders, ROOT], [module.__name__ for module in modules]
    for module in modules:
        file = Path(str(module.__file__)).resolve()
        places.insert(0, file.parents[module.__name__.count(".") + (file.name == "__init__.py")])

    @cache
    def place(name: str) -> Path | None:
        """The file of a module of the project; None for any other name."""
        known = [folder for folder in places if folder != ROOT or name.split(".")[0] in PACKAGES]
        path = name.replace(".", "/")
        files = [folder / f"{path}{end}" for folder in known for end in ("/__init__.py", ".py")]
        return next(filter(Path.is_file, files), None)

    def used(source: _Source) -> set[str]:
        """The names that a source imports, and the modules that it names."""
        named = {text for text in source.texts if re.fullmatch(r"\w+(\.\w+)+", text) and place(text)}
        return source.names() | named | {f"{name}.__main__" for name in named}

    todo += used(_source(code, ""))
    seen, found = set[str](), set[Path]()
    while todo:
        if (name := todo.pop()) in seen:
            continue
        seen.add(name)
        file, (parent, _, attribute) = place(name), name.rpartition(".")
        if file:
            source = _source(file.read_text(encoding="utf-8"), name if file.name == "__init__.py" else parent)
            data = [path for path in file.parent.iterdir() if path.suffix not in ("", ".py", ".pyc")]
            found |= {file, *(path for path in data if any(text.endswith(path.suffix) for text in source.texts))}
            todo += used(source)
            while package := place(parent):
                found.add(package)
                parent = parent.rpartition(".")[0]
        elif (above := place(parent)) and above.name == "__init__.py":
            found.add(above)
            todo += _source(above.read_text(encoding="utf-8"), parent).binds.get(attribute, {parent})
        elif parent:
            todo.append(parent)  # `name` is an attribute of it
    return sorted(found)


class _Source(ast.NodeVisitor):
    """What a source of a package imports and names."""

    def __init__(self, package: str) -> None:
        self.package = package
        self.binds = defaultdict[str, set[str]](set)  # a name here -> what it stands for
        self.imported, self.chains, self.texts = set[str](), set[str](), set[str]()

    def names(self) -> set[str]:
        """What is used of the imports, and each import that is not used."""
        tops = {chain: chain.split(".")[0] for chain in self.chains}
        used = {there + chain[len(top) :] for chain, top in tops.items() for there in self.binds.get(top, ())}
        return used | {name for name in self.imported if not any(f"{one}.".startswith(f"{name}.") for one in used)}

    def visit_If(self, node: ast.If) -> None:
        if not ast.unparse(node.test).endswith("TYPE_CHECKING"):
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            top = alias.name.split(".")[0]
            self.binds[alias.asname or top].add(alias.name if alias.asname else top)
            self.imported.add(alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = resolve_name("." * node.level + (node.module or ""), self.package)
        for alias in node.names:
            name = base if alias.name == "*" else f"{base}.{alias.name}"
            self.binds[alias.asname or alias.name].add(name)
            self.imported.add(name)

    def visit_Attribute(self, node: ast.Attribute | ast.Name) -> None:
        if re.fullmatch(r"\w+(\.\w+)*", chain := ast.unparse(node)):
            self.chains.add(chain)
        else:
            self.generic_visit(node)

    visit_Name = visit_Attribute

    def visit_Constant(self, node: ast.Constant) -> None:
        self.texts.add(str(node.value))


@cache
def _source(code: str, package: str) -> _Source:
    source = _Source(package)
    source.visit(ast.parse(code))
    return source

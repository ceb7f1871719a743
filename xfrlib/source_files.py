"""Which files of the project a module depends on: found by reading its source, which is never run.

It needs the standard library alone, so that make can use it without loading torch.
"""

from __future__ import annotations

import ast
import glob
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
# The project's in ROOT; what is installed lies beside them.
PACKAGES = ("xfrlib", "facedata", "madefaces")
_MODULE, _FILE = re.compile(r"\w+(\.\w+)+"), re.compile(r"(?!.*\*\*)[\w*.-]+\.\w+")


class _Source(NamedTuple):
    uses: frozenset[str]  #: dotted names, absolute
    binds: dict[str, set[str]]  #: a name that an import makes -> what it stands for
    texts: frozenset[str]  #: strings; a formatted value is "*" in them


def source_files(*modules: str | ModuleType, code: str = "", folders: Sequence[Path] = ()) -> list[Path]:
    """The files of the project that some modules depend on, their own among them, sorted.

    An import anywhere in a module counts, but for one that only the hints of functions need. Of a package that is used
    through its attributes, as in ``xfrlib.explain(…)``, only the modules count that these come from, and each
    ``__init__.py`` on the way; of a package that is used otherwise, all that it imports. A text that is a module's name
    counts as an import (``"xfrlib.training"``, of which ``python -m`` runs ``__main__``), and one that is the name of a
    file beside the module as that file (``f"{name}.safetensors"``).

    Parameters
    ----------
    *modules : str or ModuleType
        Modules, or their dotted names.
    code : str
        Source that is no module, such as the cells of a notebook.
    folders : sequence of Path
        Where other modules of the project lie than `PACKAGES`. Those of `modules` given as such are known.

    Returns
    -------
    list of Path
        Absolute, of modules and of data.

    Raises
    ------
    ModuleNotFoundError
        For a name in `modules` that is none of the project's.
    """
    todo, places = list[str](), [*folders, ROOT]
    for module in modules:
        name = module if isinstance(module, str) else module.__name__
        if isinstance(module, ModuleType):
            own = Path(str(module.__file__)).resolve()
            places.insert(0, own.parents[name.count(".") + (own.name == "__init__.py")])
        if not _place(name, places):
            raise ModuleNotFoundError(f"the project has no module {name}", name=name)
        todo.append(name)
    place = cache(partial(_place, folders=places))
    todo += _names(_read(code, ""), place)
    seen, found = set[str](), set[Path]()
    while todo:
        if (name := todo.pop()) in seen:
            continue
        seen.add(name)
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            if not (file := place(".".join(parts[:depth]))):
                break  # what follows are attributes of the module
            found.add(file)
            package = file.name == "__init__.py"
            source = _source(file, ".".join(parts[: depth if package else depth - 1]), file.stat().st_mtime_ns)
            attribute = parts[depth] if package and depth < len(parts) else ""
            if attribute and place(".".join(parts[: depth + 1])):
                continue
            if attribute in source.binds:
                todo += [".".join([there, *parts[depth + 1 :]]) for there in source.binds[attribute]]
            else:
                todo += _names(source, place)
                data = (path for text in source.texts if _FILE.fullmatch(text) for path in file.parent.glob(text))
                found.update(path for path in data if path.suffix != ".py")
    return sorted(found)


def _place(name: str, folders: Sequence[Path]) -> Path | None:
    """The file of a module of the project; None for any other name."""
    for folder in folders:
        path = folder.joinpath(*name.split("."))
        for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
            if file.is_file() and (folder != ROOT or name.split(".")[0] in PACKAGES):
                return file
    return None


def _names(source: _Source, place: Callable[[str], Path | None]) -> list[str]:
    """What a source uses by its imports, and the modules that it names in a text."""
    named = [text for text in source.texts if _MODULE.fullmatch(text) and place(text)]
    return [*source.uses, *(f"{name}.__main__" if place(f"{name}.__main__") else name for name in named)]


@cache
def _source(path: Path, package: str, changed: int) -> _Source:
    """What `_read` finds in a file as it was at a time."""
    return _read(path.read_text(encoding="utf-8"), package)


def _read(code: str, package: str) -> _Source:
    """What a source of `package` imports and names."""
    binds, imported = defaultdict[str, set[str]](set), dict[str, str]()  # imported: a name there -> its name here
    chains, hints, texts = set[str](), set[str](), set[str]()
    todo: list[ast.AST] = [ast.parse(code)]
    while todo:
        node = todo.pop()
        children = list(ast.iter_child_nodes(node))
        match node:
            case ast.If(test=ast.Name("TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                children = list(node.orelse)
            case ast.arg(annotation=hint) | ast.FunctionDef(returns=hint) if hint:
                hints |= {name.id for name in ast.walk(hint) if isinstance(name, ast.Name)}
                children.remove(hint)
            case ast.Import():
                for alias in node.names:
                    top = alias.name if alias.asname else alias.name.split(".")[0]
                    binds[alias.asname or top].add(top)
                    imported[alias.name] = alias.asname or top
            case ast.ImportFrom():
                parents = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
                base = ".".join([*parents, *filter(None, [node.module])])
                for alias in node.names:
                    name = base if alias.name == "*" else f"{base}.{alias.name}"
                    imported[name] = alias.asname or alias.name
                    binds[imported[name]].add(name)
            case ast.Name() | ast.Attribute() if chain := _chain(node):
                chains.add(chain)
                children = []
            case ast.Constant(str(text)):
                texts.add(text)
            case ast.JoinedStr():
                parts = [
                    glob.escape(str(part.value)) if isinstance(part, ast.Constant) else "*" for part in node.values
                ]
                texts.add(re.sub(r"\*+", "*", "".join(parts)))
                children = [part for part in node.values if not isinstance(part, ast.Constant)]
        todo += children
    tops = {chain: chain.split(".")[0] for chain in chains}
    used = {there + chain[len(top) :] for chain, top in tops.items() for there in binds.get(top, ())}
    # What is imported and then not used, is for its own sake or for others: but not if only hints use it, which are
    # never evaluated.
    whole = {there for there, here in imported.items() if here not in hints or here in texts}  # as in __all__
    whole = {name for name in whole if not any(f"{other}.".startswith(f"{name}.") for other in used)}
    return _Source(frozenset(used | whole), dict(binds), frozenset(texts))


def _chain(node: ast.AST) -> str:
    """The dotted name that a node is; empty for anything else."""
    if isinstance(node, ast.Attribute):
        return f"{before}.{node.attr}" if (before := _chain(node.value)) else ""
    return node.id if isinstance(node, ast.Name) else ""

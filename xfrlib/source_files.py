"""Which files of the project a module depends on: found by reading its source, which is never run.

It needs the standard library alone, so that make can use it without loading torch.
"""

from __future__ import annotations

import ast
import glob
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("xfrlib", "facedata", "madefaces")  # the project's in ROOT, where all else lies as well once it is installed


class _Source(NamedTuple):
    uses: frozenset[str]  # dotted names, absolute
    binds: dict[str, set[str]]  # a name that an import makes -> what it stands for
    texts: frozenset[str]  # strings; a formatted value is "*" in them


def source_files(*modules: str | ModuleType, code: str = "", folders: Sequence[Path] = ()) -> list[Path]:
    """The files of the project that some modules depend on, their own among them, sorted.

    An import anywhere in a module counts, except under ``if TYPE_CHECKING``. Of a package that is used through its
    attributes, as in ``xfrlib.explain(…)``, only the modules count that these come from, and each ``__init__.py`` on
    the way; of a package that is used otherwise, all that it imports. A text that is a module's name counts as an
    import (``"xfrlib.training"``, of which ``python -m`` runs ``__main__``), and one that is the name of a file beside
    the module as that file (``f"{name}.safetensors"``).

    Parameters
    ----------
    modules : modules, or their dotted names.
    code : source that is no module, such as the cells of a notebook.
    folders : where other modules of the project lie than `PACKAGES`. Those of `modules` given as such are known.

    Raises
    ------
    ModuleNotFoundError
        For a name in `modules` that is none of the project's.
    """
    own = [Path(str(m.__file__)).parents[len(_steps(m))] for m in modules if isinstance(m, ModuleType)]
    places = [*dict.fromkeys([*map(Path.resolve, own), *folders, ROOT])]
    todo = [module.__name__ if isinstance(module, ModuleType) else module for module in modules]
    for name in todo:
        if not _place(name, places):
            raise ModuleNotFoundError(f"the project has no module {name}", name=name)
    todo += _names(_read(code, ""), places)
    seen, found = set[str](), set[Path]()
    while todo:
        if (name := todo.pop()) in seen:
            continue
        seen.add(name)
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            if not (place := _place(".".join(parts[:depth]), places)):
                break  # the rest are attributes of the module
            package = place.name == "__init__.py"
            if place.is_dir():  # a package without __init__.py
                continue
            found.add(place)
            source = _source(place, ".".join(parts[: depth if package else depth - 1]), place.stat().st_mtime_ns)
            further = parts[depth] if package and depth < len(parts) else ""
            if further and _place(".".join(parts[: depth + 1]), places):
                continue
            if further in source.binds:
                todo += [".".join([target, *parts[depth + 1 :]]) for target in source.binds[further]]
            else:
                todo += _names(source, places)
                found.update(_data_files(place.parent, source.texts))
    return sorted(found)


def _steps(module: ModuleType) -> list[str]:
    """The names by which a module's file lies below the folder that it is imported from, without the file's own."""
    names = module.__name__.split(".")
    return names if Path(str(module.__file__)).name == "__init__.py" else names[:-1]


def _place(name: str, folders: Sequence[Path]) -> Path | None:
    """The file of a module of the project, or the folder of a package without ``__init__.py``; None for any other."""
    for folder in folders:
        if folder == ROOT and name.split(".")[0] not in PACKAGES:
            continue
        path = folder.joinpath(*name.split("."))
        for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
            if file.is_file():
                return file
        if any(path.glob("*.py")):
            return path
    return None


def _names(source: _Source, folders: Sequence[Path]) -> list[str]:
    """What a source uses by its imports, and the modules that it names in a text."""
    named = [text for text in source.texts if re.fullmatch(r"\w+(\.\w+)+", text) and _place(text, folders)]
    return [*source.uses, *(f"{n}.__main__" if _place(f"{n}.__main__", folders) else n for n in named)]


def _data_files(folder: Path, texts: frozenset[str]) -> Iterator[Path]:
    for text in texts:
        if re.fullmatch(r"[\w*.-]+\.\w+", text):
            yield from (path for path in folder.glob(text) if path.suffix != ".py" and path.is_file())


@lru_cache(maxsize=None)
def _source(path: Path, package: str, changed: int) -> _Source:
    """What `_read` finds in a file as it was at a time."""
    return _read(path.read_text(encoding="utf-8"), package)


def _read(code: str, package: str) -> _Source:
    """What a source of `package` imports and names."""
    binds, chains, whole, texts = defaultdict[str, set[str]](set), set[str](), set[str](), set[str]()
    todo: list[ast.AST] = [ast.parse(code)]
    while todo:
        node = todo.pop()
        children = list(ast.iter_child_nodes(node))
        match node:
            case ast.If(test=ast.Name("TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                children = list(node.orelse)
            case ast.Import():
                for alias in node.names:
                    name = alias.name if alias.asname else alias.name.split(".")[0]
                    binds[alias.asname or name].add(name)
                    whole.add(alias.name)
            case ast.ImportFrom():
                up = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
                base = ".".join([*up, *([node.module] if node.module else [])])
                for alias in node.names:
                    name = base if alias.name == "*" else f"{base}.{alias.name}"
                    whole.add(name)
                    if alias.name != "*":
                        binds[alias.asname or alias.name].add(name)
            case ast.Name() | ast.Attribute():
                if re.fullmatch(r"\w+(\.\w+)*", chain := ast.unparse(node)):
                    chains.add(chain)
                    children = []
            case ast.Constant(str(text)):
                texts.add(text)
            case ast.JoinedStr():
                parts = [glob.escape(p.value) if isinstance(p, ast.Constant) else "*" for p in node.values]
                texts.add("".join(parts))
                children = [p for p in children if not isinstance(p, ast.Constant)]
        todo += children
    used = {target + chain[len(name) :] for chain in chains for name in [chain.split(".")[0]] for target in binds.get(name, ())}
    unused = {name for name in whole if not any(f"{use}.".startswith(f"{name}.") for use in used)}
    return _Source(frozenset(used | unused), dict(binds), frozenset(texts))

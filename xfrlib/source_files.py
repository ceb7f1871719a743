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
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("xfrlib", "facedata", "madefaces", "matching", "recognisers")  # in ROOT; what is installed lies beside them


def source_files(*modules: ModuleType, code: str = "", folders: Sequence[Path] = ()) -> list[Path]:
    """The files of the project that modules, or a piece of `code`, depend on: absolute, sorted, with their own.

    Every import counts, wherever it stands, but for those under ``if TYPE_CHECKING``. What is taken from a package, as
    by ``from xfrlib import explain`` or by ``import xfrlib`` and ``xfrlib.explain(…)``, counts as the module that it
    comes from, and each ``__init__.py`` on the way; a package that is imported otherwise as all that it imports. A text
    that is a module's dotted name counts as an import of it (``"xfrlib.training"``, with the ``__main__`` that ``python
    -m`` runs), and one that ends in the suffix of a file of data beside the module as that file (``f"{name}.csv"``).
    `folders` hold modules of the project besides `PACKAGES` and the folders of `modules`.
    """
    places, names = [*folders, ROOT], [module.__name__ for module in modules]
    for module in modules:
        own = Path(str(module.__file__)).resolve()
        places.insert(0, own.parents[module.__name__.count(".") + (own.name == "__init__.py")])

    @cache
    def place(name: str) -> Path | None:
        """The file of a module of the project; None for any other name."""
        known = [folder for folder in places if folder != ROOT or name.split(".")[0] in PACKAGES]
        path = name.replace(".", "/")
        files = (folder / f"{path}{end}" for folder in known for end in ("/__init__.py", ".py"))
        return next(filter(Path.is_file, files), None)

    def used(source: _Source) -> list[str]:
        """The names that a source imports, and the modules that it names."""
        named = [text for text in source.texts if re.fullmatch(r"\w+(\.\w+)+", text) and place(text)]
        return [*source.names, *named, *(f"{name}.__main__" for name in named)]

    names += used(_read(code, ""))
    seen, found = set[str](), set[Path]()
    while names:
        if (name := names.pop()) in seen:
            continue
        seen.add(name)
        parent, _, attribute = name.rpartition(".")
        if file := place(name):
            source = _read(file.read_text(encoding="utf-8"), name if file.name == "__init__.py" else parent)
            names += used(source)
            found |= {file, *filter(None, (place(name[: dot.start()]) for dot in re.finditer(r"\.", name)))}
            data = (path for path in file.parent.iterdir() if path.suffix not in ("", ".py"))
            found.update(path for path in data if any(text.endswith(path.suffix) for text in source.texts))
        elif (above := place(parent)) and above.name == "__init__.py":
            names += _read(above.read_text(encoding="utf-8"), parent).binds.get(attribute, [parent])
            found.add(above)
        elif parent:
            names.append(parent)  # of which `name` is an attribute
    return sorted(found)


class _Source(NamedTuple):
    names: set[str]  #: what it imports
    binds: dict[str, list[str]]  #: a name that it has from elsewhere -> what it stands for
    texts: set[str]


@cache
def _read(code: str, package: str) -> _Source:
    """What a source of `package` imports and says."""
    nodes, found = list[ast.AST]([ast.parse(code)]), _Source(set(), defaultdict(list), set())
    for node in nodes:  # which grows
        match node:
            case ast.If() if ast.unparse(node.test).endswith("TYPE_CHECKING"):
                node.body = []
            case ast.Import():
                for alias in node.names:
                    here, there = alias.asname or alias.name.split(".")[0], alias.asname and alias.name
                    taken = re.findall(rf"(?<!from )(?<![\w.]){here}((?:\.\w+)+)", code)
                    found.names.update({f"{there or here}{names}" for names in taken} or {alias.name})
            case ast.ImportFrom():
                base = resolve_name("." * node.level + (node.module or ""), package)
                for alias in node.names:
                    found.names.add(name := base if alias.name == "*" else f"{base}.{alias.name}")
                    found.binds[alias.asname or alias.name].append(name)
            case ast.Constant(str(text)):
                found.texts.add(text)
        nodes += ast.iter_child_nodes(node)
    return found

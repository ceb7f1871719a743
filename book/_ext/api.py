"""The API reference: docstrings as autodoc and napoleon read them, and the help of the project's commands.

Docstrings are in NumPy's form. A dataclass, a named tuple or a model of pydantic explains its fields in comments beside
them that begin with ``#:``, which autodoc reads.

Directive: ``{command-help} facedata.align`` shows what ``python -m facedata.align --help`` prints.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from typing import Any
from unittest import mock

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from xfrlib.profile import project_root


def _process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    if lines and lines[0].startswith("Alias for field number"):  # what Python says of a named tuple's field
        lines.clear()
    elif what in ("attribute", "data", "property"):
        lines[:0] = ["..", ""]  # napoleon would take the words before a colon in the first line for a type


class CommandHelp(SphinxDirective):
    """What a module, or a file of ``tools/``, says when it is run with ``--help``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        text = command_help(self.arguments[0])
        return [nodes.literal_block(text, text, language="text")]


def command_help(command: str) -> str:
    """The text of ``python -m <module> --help`` or ``python <file> --help``; a package is run by its ``__main__``."""
    file = project_root() / command
    with mock.patch.object(sys, "path", [str(file.parent), *sys.path] if file.suffix == ".py" else sys.path):
        module = file.stem if file.suffix == ".py" else command
        found = importlib.import_module(module)
        main = found.main if hasattr(found, "main") else importlib.import_module(f"{module}.__main__").main
    shown = io.StringIO()
    with (
        mock.patch.object(sys, "argv", [command if file.suffix == ".py" else f"python -m {command}"]),
        mock.patch.dict(os.environ, {"COLUMNS": "72"}),
        contextlib.redirect_stdout(shown),
        contextlib.suppress(SystemExit),
    ):
        main(["--help"])
    return shown.getvalue().strip()


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the readers of docstrings and the directive."""
    sys.path.append(str(project_root() / "notebooks"))  # the studies are imported as their notebooks do
    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.napoleon")
    app.connect("autodoc-process-docstring", _process, priority=400)  # before napoleon
    app.add_directive("command-help", CommandHelp)
    return {"version": "1", "parallel_read_safe": True}

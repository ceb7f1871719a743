"""The API reference: this project's docstrings as Sphinx reads them, and the help of its commands.

A docstring here lists arguments as ``name : what it is``, under a heading or without one, on one line or with more
lines indented below it; a dataclass or a named tuple explains its fields in comments beside them. Sphinx gets lists
of both.

Directive: ``{command-help} facedata.align`` shows what ``python -m facedata.align --help`` prints.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import io
import os
import re
import sys
from typing import Any
from unittest import mock

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

_ENTRY = re.compile(r"(`?)(\*{0,2}[a-z_]\w*(?:, \*{0,2}[a-z_]\w*)*)\1 ?: (.+)")
_BARE = re.compile(r"\w+Error|\*\*\w+")  # what is raised, or the settings passed on, with its meaning below
_FIELD = re.compile(r"    (\w+): ([^=#]+?)(?: = (.+?))?(?:  # (.+))?")
_LONG = 30  # a comment on a line of its own that is shorter is a heading over several fields
_HEADINGS = ("Parameters", "Returns", "Raises")


def as_list(lines: list[str]) -> list[str]:
    """Lines of a docstring, with the entries in them as items of a list and the headings over them as rubrics."""
    out: list[str] = []
    number = 0
    while number < len(lines):
        line, following = lines[number], lines[number + 1] if number + 1 < len(lines) else ""
        number += 1
        if line in _HEADINGS and re.fullmatch("-+", following):
            out += [f".. rubric:: {line}", ""]
            number += 1
            continue
        entry = _ENTRY.fullmatch(line)
        bare = _BARE.fullmatch(line) and following.startswith(" ")
        if not (entry or bare):
            out.append(line)
            continue
        more = []
        while number < len(lines) and re.match(r" |[a-z`(]", lines[number]) and not _ENTRY.fullmatch(lines[number]):
            more.append(lines[number])
            number += 1
        out += ["", *_item(entry[2] if entry else line, entry[3] if entry else "", more), ""]
    return out


def _item(name: str, first: str, more: list[str]) -> list[str]:
    """One entry; a list of entries of its own may follow it."""
    indent = min((len(line) - len(line.lstrip()) for line in more), default=0)
    more = [line[indent:] for line in more]
    head = ", ".join(f"**{part}**".replace("****", r"**\*\*", 1) for part in name.split(", "))
    if more and first.endswith(".") and _ENTRY.fullmatch(more[0]):
        return [f"* {head}: {first}", "", *("  " + line for line in as_list(more))]
    if more and not first:
        text = " ".join(more)
    else:  # a type, and what it means on the next line
        sentence = bool(more) and first[-1] not in ".,;:" and bool(re.match(r'[A-Z"]', more[0]))
        text = (first + ". " if sentence else first + " ") + " ".join(more)
    return [f"* {head}: {text}".rstrip()]


def fields(kind: type) -> list[str]:
    """The fields of a dataclass or a named tuple as items of a list: type, default and comment."""
    out: list[str] = []
    above: list[str] = []
    for line in inspect.getsource(kind).splitlines():
        field, comment = _FIELD.fullmatch(line), re.fullmatch("    # (.+)", line)
        if field and kind.__annotations__.get(field[1]):
            default = "" if field[3] is None else f" = {field[3]}"
            text = (field[4] or " ".join(above)).replace("*", r"\*")
            out.append(f"* ``{field[1]}: {field[2]}{default}``" + (f": {text}" if text else ""))
        above = [*above, comment[1]] if comment and len(comment[1]) > _LONG else []
    return out


def _is_record(obj: Any) -> bool:
    return isinstance(obj, type) and (dataclasses.is_dataclass(obj) or hasattr(obj, "_fields"))


def _process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = as_list(lines)
    if _is_record(obj) and (found := fields(obj)):
        lines += ["", ".. rubric:: Fields", "", *found, ""]


def _signature(app: Sphinx, what: str, name: str, obj: Any, *_: Any) -> tuple[str, str] | None:
    return ("", "") if _is_record(obj) else None  # the fields say it


def _skip(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    return True if type(obj).__name__ == "_tuplegetter" else None  # "Alias for field number 0"


class CommandHelp(SphinxDirective):
    """What a module says when it is run with ``--help``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module = self.arguments[0]
        text = command_help(module)
        return [nodes.literal_block(text, text, language="text")]


def command_help(module: str) -> str:
    """The text of ``python -m <module> --help``; a package is run by its ``__main__``."""
    found = importlib.import_module(module)
    main = found.main if hasattr(found, "main") else importlib.import_module(f"{module}.__main__").main
    shown = io.StringIO()
    with (
        mock.patch.object(sys, "argv", [f"python -m {module}"]),
        mock.patch.dict(os.environ, {"COLUMNS": "72"}),
        contextlib.redirect_stdout(shown),
        contextlib.suppress(SystemExit),
    ):
        main(["--help"])
    return shown.getvalue().strip()


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the reader of docstrings and the directive."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", _process)
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-skip-member", _skip)
    app.add_directive("command-help", CommandHelp)
    return {"version": "1", "parallel_read_safe": True}

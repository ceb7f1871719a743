"""Hold the prose of the book to its rules: measured numbers, words, and one name for each thing.

python tools/prose.py    every fault of the pages in book/ and of the cells of the notebooks

A number that was measured is read from an artefact, never typed; so a decimal or a percentage in the text is a fault,
unless ``tools/prose.yml`` lists it with a reason. The same file has the words that the book does without, and the names
that would be second names for a thing. Code, mathematics, roles, addresses and version numbers do not count; captions,
text alternatives and the sentences that a cell of code displays do.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import yaml

ROOT = Path(__file__).resolve().parents[1]
RULES = ROOT / "tools" / "prose.yml"

PERCENT = r"(?: ?%| per cent\b)"
NUMBER = re.compile(rf"(?<![\w.])(?:\d+\.\d+(?![\w.]*\.\d){PERCENT}?|\d+{PERCENT})")
NOT_PROSE = (
    r"\$\$.*?\$\$(?: *\([\w-]+\))?",  # displayed mathematics
    r"\\begin\{.*?\\end\{[a-z]+\}",
    r"\$[^$\n]*(?:\n[^$\n]+)*?\$",
    r"\{[\w:-]+\}`[^`]*`",  # roles
    r"``.*?``|`[^`\n]*`",
    r"<!--.*?-->",
    r"https?://[^\s)>]+",
    r"\]\([^)]*\)",  # where a link leads
    r"\barXiv:? ?\d{4}\.\d{4,5}",
    r"\b(?:[Vv]ersion|[Pp]ython|torch|v) ?\d+(?:\.\d+)+(?:(?:, | or )\d+(?:\.\d+)+)*",
    r"^:(?!(?:caption|alt|img-alt):)[\w-]+:[^\n]*$",  # options of a directive
)
READ_OUT = re.compile(r":(?:caption|alt|img-alt):")  # options that are text of the page
SENTENCE = 4  # words of a string at least; names of keys and columns have fewer
# Directives whose body is text of the page; the bodies of all others are data or code.
TEXT = {
    "admonition", "dropdown", "figure", "glossary", "grid", "grid-item-card", "important", "list-table", "note", "only",
    "table", "tip", "warning",
}  # fmt: skip


class Fault(NamedTuple):
    """A place in the prose that breaks a rule."""

    file: str
    line: int
    says: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.says}"


def load_rules(path: Path = RULES) -> dict[str, Any]:
    """``numbers`` (text, why, and optionally file), ``words`` (word: why not), ``names`` (variant: the name)."""
    rules: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return rules


def _blank(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)


def prose_of(text: str) -> str:
    """The running text of a page, with everything else blanked out, so that lines keep their numbers."""
    lines, open_fences = text.split("\n"), []  # type: ignore[var-annotated]
    for number, line in enumerate(lines):
        fence = re.match(r"\s*(`{3,}|:{3,})\s*(?:\{([\w-]+)\})?(\w*)(.*)$", line)
        if fence:
            mark, directive, language, rest = fence.groups()
            if open_fences and mark == open_fences[-1][0] and not directive and not language:
                open_fences.pop()
            elif not (open_fences and not open_fences[-1][1]):
                open_fences.append((mark, directive in TEXT, bool(directive)))
                lines[number] = rest if directive in {"admonition", "table", "dropdown"} else ""
                continue
            lines[number] = ""
        elif open_fences and not open_fences[-1][1] and not (open_fences[-1][2] and READ_OUT.match(line)):
            lines[number] = ""
    text = "\n".join(lines)
    for expression in NOT_PROSE:
        text = re.sub(expression, lambda found: _blank(found.group()), text, flags=re.MULTILINE | re.DOTALL)
    return text


def strings_of(code: str) -> str:
    """The sentences among the strings of a cell of code, each on the line where it begins; "…" for a value within."""
    lines = [""] * (code.count("\n") + 1)

    def add(line: int, text: str) -> None:
        if len(text.split()) >= SENTENCE:
            lines[line - 1] += f" {text}".replace("\n", " ")

    def collect(node: ast.AST, outer: int = 0) -> None:  # outer: the line of the string that the node stands in
        line, inside = outer or getattr(node, "lineno", 0), list(ast.iter_child_nodes(node))
        if isinstance(node, ast.JoinedStr):  # what stands in its braces is read, their formats are not
            add(line, "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values))
            outer, inside = line, [part.value for part in node.values if isinstance(part, ast.FormattedValue)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            add(line, node.value)
        for child in inside:
            collect(child, outer)

    collect(ast.parse(re.sub(r"^[%!].*$", "", code, flags=re.MULTILINE)))
    return "\n".join(lines)


def cell_texts(cell: nbformat.NotebookNode) -> list[str]:
    """What a reader finds in a cell: its Markdown, or the caption, the text alternative and the strings of its code."""
    if cell.cell_type == "markdown":
        return [cell.source]
    shown = cell.metadata.get("mystnb", {})
    given = (shown.get("figure", {}).get("caption"), shown.get("image", {}).get("alt"))
    return [*filter(None, given), *([strings_of(cell.source)] if cell.cell_type == "code" else [])]


def pages(root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """Name and text of every page of the book and of every cell of a notebook, whose name is ``<notebook>#<id>``."""
    for path in sorted((root / "book").rglob("*.md")):
        if "_static" not in path.parts:
            yield path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")
    for path in sorted((root / "notebooks").rglob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            for text in cell_texts(cell):
                yield f"{path.relative_to(root).as_posix()}#{cell.id}", text


def faults(name: str, text: str, rules: dict[str, Any], used: set[int] | None = None) -> list[Fault]:
    """What is wrong with one page. `used` collects which of the allowed numbers were met."""
    found, prose = [], prose_of(text)
    for number in NUMBER.finditer(prose):
        shown = re.sub(r"\s*(per cent|%)", " %", number.group())
        allowed = [
            index
            for index, rule in enumerate(rules["numbers"])
            if str(rule["text"]) == shown and name.partition("#")[0].endswith(rule.get("file", ""))
        ]
        if used is not None:
            used.update(allowed)
        if not allowed:
            says = f"{shown!r} is typed by hand: read it from an artefact, or allow it in tools/prose.yml"
            found.append(Fault(name, prose.count("\n", 0, number.start()) + 1, says))
    for kind, mend in (("words", "do without it: {}"), ("names", "this book says {!r}")):
        for word, instead in rules[kind].items():
            for place in re.finditer(rf"(?<![\w-]){word}(?![\w-])", prose, re.IGNORECASE):
                says = f"{place.group()!r}: " + mend.format(instead)
                found.append(Fault(name, prose.count("\n", 0, place.start()) + 1, says))
    return found


def check(root: Path = ROOT, rules: dict[str, Any] | None = None) -> list[Fault]:
    """All faults of the book, those of the rules themselves included: a number that is allowed and nowhere used."""
    rules = load_rules() if rules is None else rules
    used: set[int] = set()
    found = [fault for name, text in pages(root) for fault in faults(name, text, rules, used)]
    for index, rule in enumerate(rules["numbers"]):
        if index not in used:
            found.append(Fault("tools/prose.yml", 1, f"{rule['text']!r} is allowed and nowhere used: take it out"))
    return found


def main() -> None:
    """Print every fault; the exit status says whether there was one."""
    found = check()
    print("\n".join(map(str, found)) or "nothing found")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()

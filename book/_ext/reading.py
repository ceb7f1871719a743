"""How long a page takes to read, and what is folded because the rest can be followed without it.

A section is *in depth* where its text begins with an italic sentence that says so (``*In depth: …*``), which JupyterLab
shows as it stands. On the page the section is folded below its title, and its time is counted apart.
"""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.application import Sphinx

SECONDS = {"word": 60 / 220, "table": 30, "formula": 20, "figure": 20, "line of code": 3}
LEAST_SECONDS = 15  # seconds of reading, below which a page is not said to take any
MARK = "In depth"
SILENT = (nodes.math, nodes.comment, nodes.citation)
# What is seen of a cell that hides something.
_SHOWN = {"all": (), "input": ("cell_output",), "output": ("cell_input",), "input+output": ()}


def seconds(node: nodes.Node) -> float:
    """Time to read what stands there: words, tables, formulas, figures and code, but nothing that is folded."""
    if isinstance(node, nodes.Text):
        return len(node.split()) * SECONDS["word"]
    if isinstance(node, nodes.table):
        return SECONDS["table"]
    if isinstance(node, nodes.math_block):
        return SECONDS["formula"]
    if isinstance(node, nodes.image):
        return 0 if "only-dark" in node["classes"] else SECONDS["figure"]  # the other variant is the one that counts
    if isinstance(node, nodes.literal_block):
        return len(re.findall(r"\S.*", node.astext())) * SECONDS["line of code"]
    if isinstance(node, nodes.raw):
        return node.astext().count("<table") * SECONDS["table"]
    if isinstance(node, SILENT) or not isinstance(node, nodes.Element) or is_folded(node):
        return 0
    if node.get("nb_element") == "mime_bundle":  # one thing in several forms
        return max(map(seconds, node.children), default=0)
    shown = _SHOWN.get(node.get("hide_mode"))
    return sum(seconds(child) for child in node.children if shown is None or set(shown) & set(child["classes"]))


def is_folded(node: nodes.Element) -> bool:
    """Whether a reader opens it first: a solution, a table that is folded, a section in depth."""
    opened = node.get("design_component") == "dropdown" or "dropdown" in node["classes"]
    return opened or (isinstance(node, nodes.section) and mark_of(node) is not None)


def mark_of(section: nodes.section) -> nodes.paragraph | None:
    """The italic sentence, a paragraph of its own, that says that a section is in depth, if it begins with one."""
    first = next((one for one in section if not isinstance(one, nodes.title | nodes.target | nodes.comment)), None)
    if isinstance(first, nodes.paragraph) and len(first) == 1 and isinstance(first[0], nodes.emphasis):
        return first if first.astext().startswith(MARK) else None
    return None


def minutes(time: float) -> str:
    """As it is said: "5 minutes"."""
    count = max(1, round(time / 60))
    return f"{count} minute{'s' if count > 1 else ''}"


def fold(section: nodes.section) -> float:
    """Put what follows a section's title into a fold, and give the time to read it."""
    mark = mark_of(section)
    assert mark is not None
    start = section.index(mark)
    section.remove(mark)
    time = sum(map(seconds, section[start:]))
    summary = f'<details class="in-depth"><summary>{MARK}, about {minutes(time)}</summary>'
    section.insert(start, nodes.raw("", summary, format="html"))
    section.append(nodes.raw("", "</details>", format="html"))
    return time


def add_reading_time(app: Sphinx | None, doctree: nodes.document) -> None:
    """Put "about 9 minutes to read" below the title of a page that has text of its own, and fold what is in depth."""
    title, time = next(doctree.findall(nodes.title), None), seconds(doctree)
    deep = sum(fold(section) for section in list(doctree.findall(nodes.section)) if mark_of(section) is not None)
    if title is None or time < LEAST_SECONDS:
        return
    text = f"about {minutes(time)} to read" + (f", and {minutes(deep)} in depth" if deep else "")
    title.parent.insert(title.parent.index(title) + 1, nodes.paragraph("", text, classes=["reading-time"]))


def join_hidden_code(app: Sphinx | None, doctree: nodes.document) -> None:
    """Let cells in a row that hide their code share one box to unfold, where those before the last show nothing."""
    for cell in [node for node in doctree.findall(nodes.container) if node.get("hide_mode") == "input"]:
        before = cell.parent[place - 1] if (place := cell.parent.index(cell)) else None
        if isinstance(before, nodes.container) and before.get("hide_mode") == "input" and len(before) == 1:
            cell[0].insert(0, before[0].children)
            cell.parent.remove(before)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register what is done to every page."""
    app.connect("doctree-read", join_hidden_code)
    app.connect("doctree-read", add_reading_time)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""What every page of the book gets besides its text: its reading time, and mends for what the theme gets wrong."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

WORDS_A_MINUTE = 220
GALLERY = "notebooks/gallery/"  # its pages are runs of one notebook; the repository has none of them by name
SKIPPED = (nodes.literal_block, nodes.table, nodes.math, nodes.math_block, nodes.raw, nodes.comment, nodes.citation)
TABLE = re.compile(r'(?<!<div class="pst-scrollable-table-container">)<table\b.*?</table>', re.DOTALL)
SIGNATURE = re.compile(r'<dl>(?=\s*<dd><em class="sig-param">)')


def words(doctree: nodes.Node) -> int:
    """Number of words to read: those of the text, not those of code, tables and formulas."""
    if isinstance(doctree, SKIPPED):
        return 0
    if isinstance(doctree, nodes.Text):
        return len(doctree.split())
    return sum(words(child) for child in doctree.children)


def add_reading_time(app: Sphinx, doctree: nodes.document) -> None:
    """Put "about 9 minutes to read" below the title of a page that has text of its own."""
    title, count = next(doctree.findall(nodes.title), None), words(doctree)
    if title is None or count < WORDS_A_MINUTE / 4:
        return
    minutes = max(1, round(count / WORDS_A_MINUTE))
    text = f"about {minutes} minute{'s' if minutes > 1 else ''} to read"
    title.parent.insert(title.parent.index(title) + 1, nodes.paragraph("", text, classes=["reading-time"]))


def mend(body: str) -> str:
    """The HTML of a page with what a screen reader or a keyboard would stumble over put right.

    Tables that a cell displays get the container in which the theme lets wide ones be scrolled, by keyboard too. The
    bibliography is no list of the kind that docutils declares it to be, and the arguments of a long signature are no
    definitions.
    """
    body = TABLE.sub(lambda found: f'<div class="pst-scrollable-table-container">{found[0]}</div>', body)
    body = SIGNATURE.sub('<dl role="presentation">', body)
    body = body.replace('<div role="list" class="citation-list">', '<div class="citation-list">')
    return body.replace(' role="doc-biblioentry"', "")


def mend_page(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """`mend` for Sphinx."""
    if "body" in context:
        context["body"] = mend(context["body"])


def launch(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Lead the button of Colab to the branch whose notebooks begin with a cell that sets up the machine.

    A page of the gallery gets no such buttons: neither branch has its file. It says the command that makes it.
    """
    groups = context.get("header_buttons", [])
    if pagename.startswith(GALLERY):
        groups[:] = [group for group in groups if group.get("label") != "launch-buttons"]
    for group in groups:
        for button in group.get("buttons", []):
            if button.get("text") == "Colab":
                button["url"] = re.sub(r"/blob/[^/]+/", "/blob/colab/", button["url"])


def note_address(app: Sphinx, config: Config) -> None:
    """Set the tag ``published`` where the site's address is known, for what only such a site has."""
    if config.html_baseurl:
        app.tags.add("published")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register what is done to every page."""
    app.connect("config-inited", note_address)
    app.connect("doctree-read", add_reading_time)
    app.connect("html-page-context", mend_page)
    app.connect("html-page-context", launch, priority=900)  # after the theme has made its buttons
    return {"parallel_read_safe": True, "parallel_write_safe": True}

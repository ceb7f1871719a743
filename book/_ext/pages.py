"""What every page of the book gets besides its text: a foot, and mends for what the theme gets wrong."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import yaml
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment

from xfrlib.profile import project_root

GALLERY = "notebooks/gallery/"  # its pages are runs of one notebook; the repository has none of them by name
TABLE = re.compile(r'(?<!<div class="pst-scrollable-table-container">)<table\b.*?</table>', re.DOTALL)
FORMULA = re.compile(r'class="[^"]*\bmath\b')  # not the class mathjax_ignore, which every page has
ANY_TABLE = re.compile(r"<table\b.*?</table>", re.DOTALL)
INTERVAL = re.compile(r"(\[[−+\d.]+), ([−+\d.]+\])")
# A percent sign after a number, unless it is part of code, of a drawing or of a tag; the number may end an element.
OF_HUNDRED = re.compile(r"<(pre|code|script|style|svg)\b.*?</\1>|(?<=\d)((?:</\w+>)*) %|<[^>]*>", re.DOTALL)
SIGNATURE = re.compile(r'<dl>(?=\s*<dd><em class="sig-param">)')


def mend(body: str) -> str:
    """The HTML of a page with what a screen reader or a keyboard would stumble over put right.

    An interval in a table is not broken inside its bracket, nor a number before its percent sign. Tables that a cell
    displays get the container in which the theme lets wide ones be scrolled, by keyboard too. The bibliography is no
    list of the kind that docutils declares it to be, and the arguments of a long signature are no definitions.
    """
    body = TABLE.sub(lambda found: f'<div class="pst-scrollable-table-container">{found[0]}</div>', body)
    body = ANY_TABLE.sub(lambda found: INTERVAL.sub(r"\1,&#160;\2", found[0]), body)
    body = OF_HUNDRED.sub(lambda found: found[0] if found[2] is None else f"{found[2]}&#160;%", body)
    body = SIGNATURE.sub('<dl role="presentation">', body)
    body = body.replace('<div role="list" class="citation-list">', '<div class="citation-list">')
    return body.replace(' role="doc-biblioentry"', "")


def mend_page(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """`mend` for Sphinx; a page without a formula does not load MathJax, which is larger than the page."""
    body = context.get("body", "")
    if "body" in context:
        context["body"] = mend(body)
    if not FORMULA.search(body):
        context["script_files"] = [file for file in context["script_files"] if "mathjax/" not in str(file)]


def colophon(root: Path, day: str) -> str:
    """Licence, version and day of the build as one line, from CITATION.cff below `root`."""
    facts = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    return f"{facts['license']} licence · version {facts['version']} · built on {day}"


def add_foot(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Put the colophon and the way home at the foot of every page, and the way home on the page of what is missing."""
    day = time.strftime("%d %B %Y", time.gmtime()).lstrip("0")
    prefix = getattr(app.config, "notfound_urls_prefix", "") if pagename == "404" else ""
    home = f"{prefix}{app.config.root_doc}.html" if prefix else context["pathto"](app.config.root_doc)
    way = f'<a href="{home or "#"}">{app.config.html_title}</a>'
    context["theme_extra_footer"] = f'<p class="colophon">{way} · {colophon(project_root(), day)}</p>'
    if pagename == "404":
        context["body"] += f'<p>Or begin at <a href="{home}">the first page</a>.</p>'


def leave_out_of_search(app: Sphinx, env: BuildEnvironment) -> None:
    """Let the search find people's pages of the gallery by their names alone: their text is one and the same."""
    for name in env.found_docs:
        if name.startswith(GALLERY):
            env.metadata[name]["nosearch"] = True


def lead_to_colab(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
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
    app.connect("html-page-context", mend_page)
    app.connect("env-updated", leave_out_of_search)
    app.connect("html-page-context", add_foot, priority=600)  # after the page of what is missing has its text
    app.connect("html-page-context", lead_to_colab, priority=900)  # after the theme has made its buttons
    return {"parallel_read_safe": True, "parallel_write_safe": True}

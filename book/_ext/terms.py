"""Links to the glossary: the first time a page's running text uses one of its terms, the term becomes a link.

The terms are those of every ``{glossary}`` of the book. Longer terms are looked for first, so that "target class" is
not taken for "class". A term in small letters may begin with a capital and stand in the plural; one with capitals
(CAM) must be written as it is. Left alone are headings, code, mathematics, links, captions, tables, the bibliography,
what a cell of a notebook prints, pages with a glossary, and the words of ``terms_unlinked`` in the configuration: those
that the language also uses in another sense.
"""

from __future__ import annotations

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.domains.std import StandardDomain

# Running text stands in none of these.
OUTSIDE = (
    nodes.title, nodes.literal, nodes.literal_block, nodes.math, nodes.math_block, nodes.reference, nodes.caption,
    nodes.legend, nodes.table, nodes.citation, nodes.raw, nodes.rubric, nodes.problematic, addnodes.pending_xref,
    addnodes.glossary, addnodes.desc,
)  # fmt: skip


def pattern(term: str) -> str:
    """A regular expression for a term and its simple plural."""
    if term.endswith("y") and term == term.lower():
        inflected = f"{re.escape(term[:-1])}(?:y|ies)"
    else:
        inflected = f"{re.escape(term)}(?:s|es)?"
    if term[0].islower():
        inflected = f"[{term[0]}{term[0].upper()}]{inflected[1:]}"
    return inflected.replace(r"\ ", r"\s+")


def matcher(terms: list[str]) -> re.Pattern[str]:
    """One expression for all terms, a group each, longest first; a term inside a longer word does not count."""
    groups = "|".join(f"({pattern(term)})" for term in terms)
    return re.compile(rf"(?<![\w-])(?:{groups})(?![\w-])")


def linked(text: str, terms: list[str], seen: set[str]) -> list[tuple[str, str | None]]:
    """Cut a text into pieces, each with the term to which it is to be linked, or None.

    Parameters
    ----------
    text : running text.
    terms : the terms, longest first.
    seen : the terms that the page has linked already; grows by those that are found.
    """
    pieces: list[tuple[str, str | None]] = []
    done = 0
    for found in matcher(terms).finditer(text) if terms else ():
        term = terms[(found.lastindex or 1) - 1]
        if term in seen:
            continue
        seen.add(term)
        pieces += [(text[done : found.start()], None), (found.group(), term)]
        done = found.end()
    pieces.append((text[done:], None))
    return [piece for piece in pieces if piece[0]]


def is_running(node: nodes.Node) -> bool:
    """Whether a text stands in a paragraph of the page itself."""
    inside = False
    while node.parent is not None:
        node = node.parent
        if isinstance(node, OUTSIDE) or (isinstance(node, nodes.Element) and "cell_output" in node["classes"]):
            return False
        inside = inside or isinstance(node, nodes.paragraph)
    return inside


def link_terms(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Link the first use of each term of the page to the glossary."""
    domain = app.env.get_domain("std")
    assert isinstance(domain, StandardDomain)
    places = {name: (page, anchor) for (kind, name), (page, anchor) in domain.objects.items() if kind == "term"}
    if docname in {page for page, _ in places.values()}:
        return
    unlinked = set(app.config.terms_unlinked)
    terms = sorted(places.keys() - unlinked, key=lambda term: (-len(term), term))
    seen: set[str] = set()
    for text in [node for node in doctree.findall(nodes.Text) if is_running(node)]:
        pieces = linked(text.astext(), terms, seen)
        if len(pieces) == 1 and pieces[0][1] is None:
            continue
        new: list[nodes.Node] = []
        for piece, term in pieces:
            if term is None:
                new.append(nodes.Text(piece))
                continue
            page, anchor = places[term]
            address = f"{app.builder.get_relative_uri(docname, page)}#{anchor}"
            new.append(nodes.reference("", piece, internal=True, refuri=address, classes=["term"]))
        text.parent.replace(text, new)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the configuration and the pass over each page."""
    app.add_config_value("terms_unlinked", [], "html")
    app.connect("doctree-resolved", link_terms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

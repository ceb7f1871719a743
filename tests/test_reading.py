"""The reading time of a page, and the sections that are folded."""

import re
from pathlib import Path

import pytest
import reading
from docutils import nodes
from docutils.core import publish_doctree
from sphinx_build import sphinx_build


@pytest.mark.parametrize(
    ("count", "said"), [(10, None), (60, "about 1 minute"), (440, "about 2 minutes"), (2000, "about 9 minutes")]
)
def test_the_reading_time_stands_below_the_title(count: int, said: str | None) -> None:
    doctree = publish_doctree(f"Page\n####\n\nTitle\n=====\n\n{'word ' * count}\n")
    reading.add_reading_time(None, doctree)
    found = [node for node in doctree.findall(nodes.paragraph) if "reading-time" in node["classes"]]
    assert [node.astext() for node in found] == ([f"{said} to read"] if said else [])
    if said:
        (node,) = found
        assert isinstance(node.parent[node.parent.index(node) - 1], nodes.title)


def test_all_kinds_are_counted() -> None:
    """220 words, 2 lines of code, a formula, a table of any size, a figure and its caption of 22 words."""
    text = f"""{"word " * 220}

.. code::

   a = 1

   b = 2

.. math:: x ^ 2

= =
a b
= =

.. figure:: face.png

   {"word " * 22}
"""
    assert reading.seconds(publish_doctree(text)) == pytest.approx(60 + 2 * 3 + 20 + 30 + 20 + 6)


def test_a_figure_in_two_variants_is_looked_at_once() -> None:
    light, dark = nodes.image(uri="a.svg", classes=["only-light"]), nodes.image(uri="b.svg", classes=["only-dark"])
    assert reading.seconds(nodes.container("", light, dark)) == 20


def test_cells_in_a_row_that_hide_their_code_share_one_box() -> None:
    def cell(code: str, *, output: bool = False, mode: str | None = "input") -> nodes.container:
        parts = [nodes.container("", nodes.literal_block(code, code), nb_element="cell_code_source")]
        parts += [nodes.container("", nodes.paragraph("", f"shown by {code}"))] if output else []
        return nodes.container("", *parts, nb_element="cell_code", **({"hide_mode": mode} if mode else {}))

    doctree = publish_doctree("")
    doctree += [cell("a"), cell("b"), cell("c", output=True), cell("d"), nodes.paragraph("", "text"), cell("e")]
    doctree += [cell("f", mode=None), cell("g", output=True), cell("h")]
    reading.join_hidden_code(None, doctree)
    found = [[block.astext() for block in node.findall(nodes.literal_block)] for node in doctree]
    assert found == [["a", "b", "c"], ["d"], [], ["e"], ["f"], ["g"], ["h"]]
    assert doctree[0][1].astext() == "shown by c"


PAGE = f"""# Chapter

{"word " * 440}

:::{{dropdown}} Solution
{"word " * 4400}
:::

## Main

{"word " * 220}

## Aside

*In depth: the chapter can be followed without it.*

{"word " * 660}

### Below

(a-place)=
Its own part.

## After

*In depth* is no mark within a sentence that goes on.
"""


@pytest.mark.parametrize(
    ("hidden", "expected"), [(None, 3 + 30), ("input", 30), ("output", 3), ("input+output", 0), ("all", 0)]
)
def test_of_a_cell_only_what_is_shown_counts(hidden: str | None, expected: float) -> None:
    """A line of code whose output, a table, comes as HTML and as plain text."""
    forms = [nodes.raw("", "<div><table></table></div>", format="html"), nodes.literal_block("", "a b")]
    bundle = nodes.container("", *(nodes.container("", form) for form in forms), nb_element="mime_bundle")
    code = nodes.container("", nodes.literal_block("", "a = 1"), classes=["cell_input"])
    cell = nodes.container("", code, nodes.container("", bundle, classes=["cell_output"]), hide_mode=hidden)
    assert reading.seconds(cell) == expected


def test_a_section_in_depth_is_folded_below_its_title(tmp_path: Path) -> None:
    (tmp_path / "index.md").write_text(PAGE, encoding="utf-8")
    extensions = ["myst_parser", "sphinx_design", "reading"]
    assert sphinx_build(tmp_path, {"extensions": extensions, "myst_enable_extensions": ["colon_fence"]}) == (0, "")
    html = (tmp_path / "_build" / "html" / "index.html").read_text(encoding="utf-8")
    assert "about 3 minutes to read, and 3 minutes in depth" in html
    fold = re.search(r'<details class="in-depth"><summary>(.*?)</summary>(.*?)</details>', html, re.DOTALL)
    assert fold and fold[1] == "In depth, about 3 minutes" and html.count('class="in-depth"') == 1
    assert "<h2>Aside" in html[: fold.start()] and "can be followed" not in html
    assert "<h3>Below" in fold[2] and 'id="a-place"' in fold[2] and "<h2>After" not in fold[2]
    assert html[fold.end() :].lstrip().startswith("</section>")

"""What every page gets besides its text."""

import pages
import pytest
from docutils import nodes
from docutils.core import publish_doctree


def document(count: int) -> nodes.document:
    text = f"Title\n=====\n\n{'word ' * count}\n\n.. code::\n\n   {'code ' * 500}\n\n.. math:: {'x ' * 500}\n"
    return publish_doctree(f"Page\n####\n\n{text}")


@pytest.mark.parametrize(
    ("count", "said"), [(10, None), (60, "about 1 minute"), (440, "about 2 minutes"), (2000, "about 9 minutes")]
)
def test_the_reading_time_counts_words_and_not_code(count: int, said: str | None) -> None:
    doctree = document(count)
    pages.add_reading_time(None, doctree)
    found = [node for node in doctree.findall(nodes.paragraph) if "reading-time" in node["classes"]]
    assert [node.astext() for node in found] == ([f"{said} to read"] if said else [])
    if said:
        (node,) = found
        assert isinstance(node.parent[node.parent.index(node) - 1], nodes.title)


def test_tables_can_be_scrolled_by_keyboard_and_citations_are_no_list() -> None:
    box = '<div class="pst-scrollable-table-container">'
    wide = '<table border="1" class="dataframe">\n<tr><td>1</td></tr></table>'
    body = f'<p>{wide}</p>{box}<table class="t"></table></div><div role="list" class="citation-list">'
    assert (
        pages.mend(body) == f'<p>{box}{wide}</div></p>{box}<table class="t"></table></div><div class="citation-list">'
    )
    definitions, argument = "<dl>\n<dt>a</dt><dd>b</dd></dl>", '\n<dd><em class="sig-param">x</em></dd></dl>'
    assert pages.mend(f"{definitions}<dl>{argument}") == f'{definitions}<dl role="presentation">{argument}'

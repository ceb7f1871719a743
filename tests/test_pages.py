"""What every page gets besides its text."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pages


def test_tables_can_be_scrolled_by_keyboard_and_citations_are_no_list() -> None:
    box = '<div class="pst-scrollable-table-container">'
    wide = '<table border="1" class="dataframe">\n<tr><td>1</td></tr></table>'
    body = f'<p>{wide}</p>{box}<table class="t"></table></div><div role="list" class="citation-list">'
    assert (
        pages.mend(body) == f'<p>{box}{wide}</div></p>{box}<table class="t"></table></div><div class="citation-list">'
    )
    interval = "<table><td>1.35 [−0.95, 1.81]</td></table>"
    assert "[−0.95,&#160;1.81]</td>" in pages.mend(interval)
    assert pages.mend("<pre>x = [1, 2]</pre>") == "<pre>x = [1, 2]</pre>", "code stays as it is"
    for plain in ("<pre>7 % 3</pre>", '<img alt="7 % of it">', "<code>7 % 3</code>", "accuracy, %"):
        assert pages.mend(plain) == plain
    assert pages.mend("<p>7 % <span>8.5</span> %</p>") == "<p>7&#160;% <span>8.5</span>&#160;%</p>"
    definitions, argument = "<dl>\n<dt>a</dt><dd>b</dd></dl>", '\n<dd><em class="sig-param">x</em></dd></dl>'
    assert pages.mend(f"{definitions}<dl>{argument}") == f'{definitions}<dl role="presentation">{argument}'


CITATION = "version: 3.1.4\nlicense: MIT\n"


def page_context(pagename: str, body: str, **config: Any) -> dict[str, Any]:
    """What the templates of a page get from the extension."""
    settings = SimpleNamespace(root_doc="book/index", html_title="The book", **config)
    where = {"book/index": "#"} if pagename == "book/index" else {}
    context = {
        "body": body,
        "pathto": lambda name: where.get(name, f"../{name}.html"),
        "script_files": ["_static/mathjax/tex-chtml.js", "_static/print.js"],
    }
    app: Any = SimpleNamespace(config=settings)
    pages.mend_page(app, pagename, "page.html", context, None)
    pages.add_foot(app, pagename, "page.html", context, None)
    return context


def test_the_foot_says_licence_version_day_and_leads_home(tmp_path: Path) -> None:
    (tmp_path / "CITATION.cff").write_text(CITATION, encoding="utf-8")
    assert pages.colophon(tmp_path, "1 May 2026") == "MIT licence · version 3.1.4 · built on 1 May 2026"
    foot = page_context("notebooks/03", "")["theme_extra_footer"]
    assert '<a href="../book/index.html">The book</a>' in foot and "licence" in foot and "built on" in foot


def test_the_page_of_what_is_missing_leads_home_from_any_depth() -> None:
    context = page_context("404", "<h1>no such page</h1>", notfound_urls_prefix="/site/")
    assert 'begin at <a href="/site/book/index.html">' in context["body"]
    assert '<a href="/site/book/index.html">' in context["theme_extra_footer"]


def test_mathjax_is_loaded_where_there_is_a_formula() -> None:
    plain = '<section class="tex2jax_ignore mathjax_ignore"><p>2 + 2</p></section>'
    assert page_context("a", plain)["script_files"] == ["_static/print.js"]
    for formula in ('<div class="math notranslate nohighlight">', '<span class="math notranslate">'):
        assert len(page_context("a", plain + formula)["script_files"]) == 2


def test_peoples_pages_are_found_by_name_alone() -> None:
    names = [f"{pages.GALLERY}family00_a", "notebooks/03_cam_theory", "book/gallery"]
    env: Any = SimpleNamespace(found_docs=set(names), metadata={name: {} for name in names})
    pages.leave_out_of_search(SimpleNamespace(), env)  # type: ignore[arg-type]
    assert [name for name in names if "nosearch" in env.metadata[name]] == names[:1]

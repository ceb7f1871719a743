"""Tables that a cell displays have a number on the page where they have a caption; counts and numbers read well."""

import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from sphinx_build import sphinx_build

from studies.report import counted, in_place_of, joined, markdown, not_made, scientific, thousands
from xfrlib.intervals import Interval
from xfrlib.profile import project_root

ROWS = [{"method": "SDD", "fall": Interval(1.25, 0.5, 2.0), "n": 3}, {"method": "CAM", "fall": "-0.5", "n": 12}]
PLAIN = """\
| method   | fall              |   n |
|:---------|:------------------|----:|
| SDD      | 1.25 [0.50,\u00a02.00] |   3 |
| CAM      | −0.5              |  12 |"""


def test_a_caption_stands_around_the_table_and_leaves_it_as_it_is() -> None:
    assert markdown(ROWS) == PLAIN
    assert markdown(ROWS, caption="The *falls*", name="tab-01-falls") == (
        f":::{{table}} The *falls*\n:name: tab-01-falls\n\n{PLAIN}\n\n:::"
    )
    assert markdown(ROWS, caption="Falls") == f":::{{table}} Falls\n\n{PLAIN}\n\n:::"


def test_a_frame_keeps_the_index_that_says_something() -> None:
    frame = pd.DataFrame({"n": [1, 2]})
    assert markdown(frame).splitlines() == ["|   n |", "|----:|", "|   1 |", "|   2 |"]
    assert markdown(frame.rename_axis("picture")).splitlines()[0] == "|   picture |   n |"
    assert markdown(frame.assign(n=[0.5, 1.5]).rename_axis("picture")).splitlines()[2] == "|         0 | 0.5 |"
    assert markdown(frame.set_axis(["a", "b"])).splitlines()[2] == "| a  |   1 |"


def test_what_is_not_made_leaves_a_table_to_refer_to() -> None:
    for empty in ([], pd.DataFrame({"n": []})):
        found = markdown(empty, caption="A", name="tab-01-a")
        assert found.splitlines()[:2] == [":::{table} A", ":name: tab-01-a"] and "| nothing to list" in found
        assert markdown(empty) == ""  # nothing refers to it
    assert ":name: tab-01-a\n" in not_made("tab-01-a") and "| not made " in not_made("tab-01-a")
    assert "| not made: one fill judges " in not_made("tab-01-a", "one fill judges")
    cell = 'display(Markdown(markdown(rows, caption="A", name="tab-01-a")))\nMarkdown(shown(rows, name="tab-01-b"))\n'
    assert [line.partition("(")[2] for line in in_place_of(cell)[2:]] == [
        'Markdown(not_made("tab-01-a")))\n',
        'Markdown(not_made("tab-01-b")))\n',
    ]
    assert in_place_of("Markdown(markdown(rows))") == []


def test_a_displayed_table_with_a_caption_has_a_number_on_the_page(tmp_path: Path) -> None:
    """By the settings of the book; one without a caption has none, and text beside both stays."""
    shown = [
        f"Before, 95 % of $5:\n\n{markdown(ROWS, caption='The *falls*', name='tab-01-falls')}\n\nAfter.",
        f"Bare:\n\n{markdown(ROWS)}",
    ]
    v4 = nbformat.v4
    outputs = [v4.new_output("display_data", data={"text/markdown": text}) for text in shown]
    text = v4.new_markdown_cell("# Page\n\n{numref}`tab-01-falls` has the falls.")
    notebook = v4.new_notebook(cells=[text, v4.new_code_cell("show()", outputs=outputs, execution_count=1)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "index.ipynb")
    book = yaml.safe_load((project_root() / "_config.yml").read_text(encoding="utf-8"))
    config = {
        "extensions": ["myst_nb"], "html_theme": "basic", "numfig": True, "nb_execution_mode": "off",
        "myst_enable_extensions": book["parse"]["myst_enable_extensions"],
        "nb_render_markdown_format": book["sphinx"]["config"]["nb_render_markdown_format"],
    }  # fmt: skip
    status, warnings = sphinx_build(tmp_path, config)
    assert status == 0, warnings
    page = (tmp_path / "_build/html/index.html").read_text(encoding="utf-8")
    assert re.findall(r'<table [^>]*id="([^"]+)"', page) == ["tab-01-falls"] and page.count("<table ") == 2
    assert '<span class="caption-number">Table 1 </span><span class="caption-text">The <em>falls</em></span>' in page
    assert '<a class="reference internal" href="#tab-01-falls"><span class="std std-numref">Table 1</span></a>' in page
    assert "Before, 95 % of $5:" in page and "<p>After.</p>" in page and ":::" not in page


def test_a_count_agrees_with_its_noun() -> None:
    assert [counted(n, "network") for n in (0, 1, 2)] == ["0 networks", "1 network", "2 networks"]
    assert [counted(n, "person", "people") for n in (1, 30)] == ["1 person", "30 people"]
    assert counted(43148, "picture") == "43\u202f148 pictures"


def test_thousands_stand_apart_and_titles_that_hold_a_comma_too() -> None:
    assert [thousands(n) for n in (999, np.int64(2509), -1234567)] == ["999", "2\u202f509", "−1\u202f234\u202f567"]
    assert joined(["CAM", "SDD, product"]) == "CAM; SDD, product" and joined([]) == "none"


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.9e-06, "2.9 × 10⁻⁶"), (3e-7, "3 × 10⁻⁷"), (3.4e38, "3.4 × 10³⁸"), (-1.5e-12, "−1.5 × 10⁻¹²"), (0, "0")],
)
def test_a_number_of_any_size_is_a_power_of_ten(value: float, text: str) -> None:
    assert scientific(value) == text.replace(" ", "\u00a0")
    assert scientific(np.float32(value)) == text.replace(" ", "\u00a0")

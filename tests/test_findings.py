"""The page of the findings: its plot of differences, and its length."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import forest
import pytest
from sphinx_build import sphinx_build

from results import ResultError

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "book" / "findings.md"
LINES = ["CAM | deletion | odds:a.{fill}.b", "CAM | retention | odds:-a.{fill}.b"]


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A folder laid out as the staged site, with two runs."""
    for run, shift in (("made", 0.0), ("photos", 2.0)):
        at = {
            fill: {"b": {"value": 1 + shift, "low": low + shift, "high": 2 + shift, **said}}
            for fill, low, said in (("black", 0.5, {"verdict": "undecided"}), ("blur", -0.5, {}))
        }
        (tmp_path / "results" / run).mkdir(parents=True)
        (tmp_path / "results" / run / "odds.json").write_text(json.dumps({"a": at, "c": {"black": {"b": 1}}}))
    (tmp_path / "profile.yaml").write_text("shows_real_people: false", encoding="utf-8")
    return tmp_path


def test_plus_is_good_in_every_row_and_a_verdict_decides_what_is_certain(sources: Path) -> None:
    deletion, retention = forest.read_rows(sources, ["made", "photos"], ["black", "blur"], LINES)
    assert (deletion.group, deletion.label, retention.label) == ("CAM", "deletion", "retention")
    assert [[point.found for point in run] for run in deletion.points] == [
        [(1, 0.5, 2), (1, -0.5, 2)],
        [(3, 2.5, 4), (3, 1.5, 4)],
    ]
    assert [tuple(point.found) for point in retention.points[0]] == [(-1, -2, -0.5), (-1, -2, 0.5)]
    # by its verdict, which is corrected, or else by its interval
    assert [[point.certain for point in run] for run in deletion.points] == [[False, False], [False, True]]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("CAM | deletion", "must read group | label | file:path"),
        ("CAM | deletion | odds:a.{fill}.x", "'x' is missing"),
        ("CAM | deletion | none:a", "there are no results 'made/none'"),
        ("CAM | deletion | odds:c.black.b", "is no number with its interval"),
        ("CAM | retention | odds:-c.black.b", "has no sign to turn round"),
    ],
)
def test_what_cannot_be_drawn_is_named(sources: Path, line: str, says: str) -> None:
    with pytest.raises(ResultError, match=re.escape(says)):
        forest.read_rows(sources, ["made"], ["black"], [line])


def test_the_drawing_has_a_mark_for_each_difference_and_the_colours_of_the_page(sources: Path) -> None:
    rows = forest.read_rows(sources, ["made", "photos"], ["black", "blur"], LINES)
    svg = forest.forest_svg(rows, ["made faces", "photographs"], ["black", "blur"])
    ElementTree.fromstring(svg)
    words = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert {"CAM: deletion", "CAM: retention", "made faces", "photographs", "black", "blur"} <= set(words)
    assert svg.count("PathCollection") == 2 * 2  # the marks of a fill in a panel
    assert len(re.findall("currentColor", svg)) > 8 and not re.search("#0[1-9]0[1-9]0[1-9]", svg)
    assert svg == forest.forest_svg(rows, ["made faces", "photographs"], ["black", "blur"]), "the same at each build"


def test_a_page_has_the_plot_and_fails_without_its_numbers(sources: Path) -> None:
    options = ':names: made faces\n:fills: black\n:name: fig-all\n:alt: rows of "differences"\n:caption: All.'
    page = f"# Page\n\n```{{forest-plot}} made\n{options}\n{LINES[0]}\n```\n"
    (sources / "index.md").write_text(page, encoding="utf-8")
    config = {"extensions": ["myst_parser", "results", "forest"], "exclude_patterns": ["results"]}
    status, warnings = sphinx_build(sources, config)
    assert status == 0, warnings
    html = (sources / "_build/html/index.html").read_text(encoding="utf-8")
    assert 'aria-label="rows of &quot;differences&quot;"' in html and 'id="fig-all"' in html and "All." in html
    (sources / "index.md").write_text(page.replace("a.{fill}", "a.{fill}x"), encoding="utf-8")
    status, warnings = sphinx_build(sources, config)
    assert status != 0 and "'blackx' is missing" in warnings


def test_the_findings_are_read_in_a_few_minutes() -> None:
    text = re.sub(r"^(```|::::).*?^\1$", "", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.M)  # folded, drawn
    text = re.sub(r"\{result\}`[^`]*\|ci[^`]*`", "1 [0, 2]", text)
    text = re.sub(r"\{\w+\}`[^`]*`", "1", re.sub(r"\]\([^)]*\)", "]", text))
    assert len(text.split()) <= 900


def test_the_findings_have_few_tables() -> None:
    tables = re.findall(r"^(?:`{3,}|:{3,})\{[\w-]*table\}", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert 0 < len(tables) <= 4


def test_each_question_of_the_findings_is_answered_yes_or_no_first() -> None:
    questions = re.findall(r"^## (.+\?)\n+(.*)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(questions) >= 9
    assert [asked for asked, said in questions if not re.match(r"\*\*(Yes|No)\b", said)] == []

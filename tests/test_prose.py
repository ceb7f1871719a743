"""The prose keeps its rules, the glossary is linked, every reference is cited, and the tables carry numbers."""

import io
import itertools
import json
import re
from pathlib import Path

import nbformat
import prose
import pytest
import terms
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

import results
from studies import candidates, layered_map  # noqa: F401 - layered_map enters its explainer
from studies.pair_maps import CONTRAST
from xfrlib import tables
from xfrlib.explainers import EXPLAINERS

ROOT = Path(__file__).resolve().parents[1]
NOTHING = {"numbers": [], "words": {}, "names": {}}

CODE = '''%matplotlib inline
def shown(found):
    """What a reader of the page finds: heat maps"""
    return f"The area is {found['area of 0.25']:.2f} of 1.5 and " \
        f"{found:4.5f} more than {'that of 8.5 men' if found else 0.75}."


columns = {"at 2.5": 3.5, "share of 4.5": "of 5.5"}
Markdown(shown(0) + f"Of these people {100 * found:.1f} % are named, or 93 % of all of them.")
'''
SAMPLE = """# Title

The accuracy rose to 93.7 per cent, by 2.25 points.

Not prose: $x = 0.5$, `0.25`, {result}`this:test.accuracy|.1f`, {math}`1.5`, [a page](x_2.5.md), version 2.4.1,
Python 3.11, 3.12 or 3.13, arXiv 1711.09482 and https://host/4.5.

$$
y = 6.5
$$ (eq)

```python
z = 7.5
```

:::{admonition} In 8.5 words
:class: note
Text of 9.5.
```{verdict-table} quick
:name: tab-6.5
:caption: By 20.5 points
10.5 | a:b
```
After the table 11.5.
:::
"""


def said(text: str, rules: dict = NOTHING) -> list[str]:
    return [f"{fault.line}: {fault.says.split(' is typed')[0]}" for fault in prose.faults("page.md", text, rules)]


def test_decimals_and_percentages_in_running_text_are_found_and_nothing_else() -> None:
    found = said(SAMPLE)
    assert found == ["3: '93.7 %'", "3: '2.25'", "16: '8.5'", "18: '9.5'", "21: '20.5'", "24: '11.5'"]


def test_a_number_is_allowed_with_a_reason_and_only_where_it_says() -> None:
    rules = {**NOTHING, "numbers": [{"text": "2.25", "why": "a setting", "file": "page.md"}]}
    assert said("It is 2.25.", rules) == []
    assert prose.faults("other.md", "It is 2.25.", rules)


def test_empty_words_and_second_names_are_found() -> None:
    rules = {**NOTHING, "words": {"simply": "leave it out"}, "names": {"heat ?maps?": "map"}}
    first, second = prose.faults("page.md", "Text\n\nSimply look at the heat maps: `heatmap` is code.", rules)
    assert first.line == 3 and "leave it out" in first.says
    assert "this book says 'map'" in second.says


def test_what_a_cell_of_code_displays_is_read_and_its_code_is_not() -> None:
    rules = {**NOTHING, "names": {"heat ?maps?": "map"}}
    found = said(prose.strings_of(CODE), rules)
    assert found == ["4: '1.5'", "4: '8.5'", "8: '93 %'", "3: 'heat maps': this book says 'map'"]


def test_captions_and_text_alternatives_are_read(tmp_path: Path) -> None:
    shown = {
        "figure": {"caption": "It rose by 7.5.", "name": "fig-8.5"},
        "image": {"alt": "A line at 9.5.", "width": "85.5%"},
    }
    cells = [
        nbformat.v4.new_code_cell("figure = plots.bars(0.5)", metadata={"mystnb": shown}, id="drawn"),
        nbformat.v4.new_markdown_cell("Text.\n\nAnd 10.5.", id="said"),
    ]
    (tmp_path / "notebooks").mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "notebooks/01_x.ipynb")
    (tmp_path / "book").mkdir()
    (tmp_path / "book/page.md").write_text("```{figure} x.svg\n:alt: A line at 11.5.\n:width: 80.5%\n\nDrawn.\n```\n")
    allowed = {"text": "9.5", "why": "a test", "file": "01_x.ipynb"}
    found = [
        f"{fault.file}:{fault.line}: {fault.says[:6]}"
        for fault in prose.check(tmp_path, {**NOTHING, "numbers": [allowed]})
    ]
    drawn, text = "notebooks/01_x.ipynb#drawn:1: ", "notebooks/01_x.ipynb#said:3: "
    assert found == ["book/page.md:2: '11.5'", f"{drawn}'7.5' ", f"{text}'10.5'"]


def test_a_number_that_is_allowed_and_not_used_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "book").mkdir()
    (tmp_path / "book/page.md").write_text("It is 1.5.", encoding="utf-8")
    allowed = [{"text": "1.5", "why": "used"}, {"text": "2.5", "why": "not used"}]
    (fault,) = prose.check(tmp_path, {**NOTHING, "numbers": allowed})
    assert "'2.5' is allowed and nowhere used" in fault.says


def test_the_book_keeps_the_rules() -> None:
    assert [str(fault) for fault in prose.check()] == []
    assert all(rule["why"] for rule in prose.load_rules()["numbers"])


# --- one name for each map and each score

RENAMED = {"CAM difference", "truth per cell", "hill about the centre", "random map", "gain over the disc"}


def test_no_source_has_a_second_name_for_a_map_or_a_score() -> None:
    """In code as well: a title of two words, a column of a table and a comment are read by somebody."""
    rules = prose.load_rules()["names"].items()
    retired = [name for name, ours in rules if ours in RENAMED or ours.startswith(("balance", "SDD, or"))]
    assert len(retired) == 7
    pattern = re.compile("|".join(rf"\b(?:{name})(?!\w)" for name in retired), re.IGNORECASE)
    assert pattern.findall("the criterion, the plain difference and SDD (sum)") and not pattern.search("CAM difference")
    places = (
        "book/**/*.md",
        "book/page/*",
        "notebooks/**/*.ipynb",
        "notebooks/studies/*.py",
        "matching/*",
        "xfrlib/**/*.py",
    )
    files = [ROOT / "README.md", *itertools.chain(*map(ROOT.glob, places))]
    assert len(files) > 100
    texts = {file.relative_to(ROOT): file.read_text(encoding="utf-8") for file in files if file.is_file()}
    assert [f"{file}: {found}" for file, text in texts.items() for found in pattern.findall(text)] == []


def test_a_map_has_the_same_title_in_every_table() -> None:
    ours = {"sdd": "sdd_sum", "local_softmax": "sdd_local_softmax", "resolutions": "all_resolutions"}
    titles: dict[str, set[str]] = {}
    tables_of = [{name: one.title for name, one in EXPLAINERS.items()}, tables.METHODS, CONTRAST, candidates.SINGLE]
    for name, title in itertools.chain(*(table.items() for table in tables_of)):
        titles.setdefault(ours.get(name, name), set()).add(title.lower())
    assert {name: found for name, found in titles.items() if len(found) > 1} == {}


# --- the bibliography


def cited() -> set[str]:
    text = "".join(text for _, text in prose.pages())
    return {key.strip() for keys in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", text) for key in keys.split(",")}


def test_every_reference_is_cited_and_every_citation_resolved() -> None:
    bibliography = (ROOT / "book/references.bib").read_text(encoding="utf-8")
    entries = re.findall(r"^@\w+\{([^,]+),", bibliography, re.MULTILINE)
    assert len(entries) == len(set(entries))
    assert cited() == set(entries)
    each = re.split(r"^@", bibliography, flags=re.MULTILINE)[1:]
    found = r"^  (?:doi|eprint|url) = \{.+\}|^  note = \{HAL "
    assert [entry.partition(",")[0] for entry in each if not re.search(found, entry, re.MULTILINE)] == []


# --- the glossary and the tables, in a page built with warnings as errors

GLOSSARY = """# Glossary

```{glossary}
class
  One of the people, see CAM.

target class
  The class that is explained.

family
  People alike in all but a few parts.

CAM
  A map.

mask
  Some pixels.
```
"""

PAGE = """# A mask in a heading

A `mask` in code and a [mask in a link](glossary.md) are left alone. The target class is a class; a second class is not.
Families and cams differ from CAMs, and unmasked or mask-like is another word.

```{table} The mask in a caption
:name: tab-one
| mask |
|---|
| mask |
```

{numref}`tab-one` has one. **Mask** at last.
"""


def build(folder: Path, config: dict, **pages: str) -> tuple[int, str, str]:
    """Build pages with warnings as errors: exit status, index.html, warnings."""
    for name, text in pages.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
    given = {"extensions": ["myst_parser", "terms"], "master_doc": "index", "numfig": True, **config}
    warnings, target = io.StringIO(), folder / "_build"
    with docutils_namespace():
        app = Sphinx(
            str(folder), None, str(target), str(target), "html", {"html_theme": "basic", **given},
            status=None, warning=warnings, warningiserror=True, keep_going=True,
        )  # fmt: skip
        app.build()
    return app.statuscode, (target / "index.html").read_text(encoding="utf-8"), warnings.getvalue()


def test_first_uses_of_terms_are_linked(tmp_path: Path) -> None:
    toc = "\n```{toctree}\nglossary\n```\n"
    status, page, warnings = build(tmp_path, {}, index=PAGE + toc, glossary=GLOSSARY)
    assert status == 0, warnings
    links = re.findall(r'<a class="term reference internal" href="(glossary\.html#[\w-]+)">([^<]+)</a>', page)
    assert links == [
        ("glossary.html#term-target-class", "target class"),
        ("glossary.html#term-class", "class"),
        ("glossary.html#term-family", "Families"),
        ("glossary.html#term-CAM", "CAMs"),
        ("glossary.html#term-mask", "Mask"),
    ]
    glossary = (tmp_path / "_build/glossary.html").read_text(encoding="utf-8")
    assert "term reference internal" not in glossary


def test_words_with_another_sense_are_not_linked(tmp_path: Path) -> None:
    toc = "\n```{toctree}\nglossary\n```\n"
    _, page, _ = build(tmp_path, {"terms_unlinked": ["mask"]}, index=PAGE + toc, glossary=GLOSSARY)
    assert "#term-mask" not in page and "#term-CAM" in page


@pytest.mark.parametrize(
    ("text", "found"),
    [("a mask", ["mask"]), ("masks, mask", ["mask"]), ("unmask", []), ("mask-like", []), ("a\nmask", ["mask"])],
)
def test_terms_are_whole_words(text: str, found: list[str]) -> None:
    pieces = terms.linked(text, ["mask"], set())
    assert [term for _, term in pieces if term] == found
    assert "".join(piece for piece, _ in pieces) == text


def measured(low: float, high: float) -> dict[str, float]:
    return {"value": (low + high) / 2, "low": low, "high": high}


def test_a_claim_is_judged_by_the_side_on_which_the_interval_lies(tmp_path: Path) -> None:
    signs = {"deletion": measured(1, 3), "retention": measured(1, 3)}
    difference = {kind: dict.fromkeys(results.MEASURES, node) for kind, node in signs.items()}
    difference["deletion"]["prediction_change"] = measured(-1, 3)
    run = {"profile": "quick", "differences": {"sdd_minus_random_map": {"black": difference}}}
    (drop, change, kept, _) = results.claim_rows([run], "black")[1:]
    assert drop[1:] == ["19.8", "agrees: 2.0 [1.0, 3.0]"]
    assert change[2].startswith("undecided") and kept[1] == "12.8" and kept[2].startswith("differs")
    (tmp_path / "results.json").write_text(json.dumps(run), encoding="utf-8")
    (tmp_path / "profile.yaml").write_text("shows_real_people: false", encoding="utf-8")
    page = "# Page\n\n```{claims-table} this\n:name: tab-x\n:caption: What *holds*\n```\n\nSee {numref}`tab-x`.\n"
    status, built, warnings = build(tmp_path, {"extensions": ["myst_parser", "results"]}, index=page)
    assert status == 0, warnings
    assert '<a class="reference internal" href="#tab-x"><span class="std std-numref">Table 1</span></a>' in built
    assert "What <em>holds</em>" in built


def test_what_the_pages_say_of_the_claims_holds_for_the_committed_results() -> None:
    def judged(source: str) -> set[str]:
        rows = results.claim_rows([results.load_results(ROOT, source)], "black")[1:]
        return {row[2].partition(":")[0] for row in rows}

    # paper.md, chapter 6: "on photographs all four agree"; what validation pictures choose wins nothing certain
    assert judged("facescrub12") == judged("lfw") == {"agrees"}
    # chapter 6: under black not better for certain than CAM's region, nor in both measures than a disc in the middle
    for run, score in itertools.product(("facescrub12", "lfw"), ("drop_points", "prediction_change")):
        minus = results.load_results(ROOT, run)["differences"]
        for other, better in (("cam", any), ("disc", all)):
            found = minus[f"sdd_minus_{other}"]["black"]
            assert not better((found["deletion"][score]["low"] > 0, found["retention"][score]["high"] < 0))
    for run in ("quick", "quick_elsewhere", "facescrub12"):
        found = results.load_results(ROOT, f"{run}/sensitivity")["test"]["best_minus_default"]["all_fills"]
        assert not (found["low"] or 0) > 0  # None where the default is the best
    assert results.load_results(ROOT, "lfw/sensitivity")["test"]["best_minus_default"]["all_fills"]["low"] > 0
    # "single scattered pixels do far more damage than SDD's own region", where it is deleted
    scattered = results.load_results(ROOT, "facescrub12")["differences"]["sdd_minus_scattered"]["black"]
    assert scattered["deletion"]["drop_points"]["high"] < 0


def test_what_is_said_of_the_inpainting_game_holds_for_the_committed_results() -> None:
    # related.md: ahead of CAM in all three; findings.md: more of the repainted pixels than any other
    game = results.load_results(ROOT, "quick/other_explainers")["inpainting_game"]
    sdd, cam = game["sdd_sum"], game["cam"]
    assert cam["found"] < game["guided_gradcam"]["found"] < sdd["found"] and sdd["turned"] > cam["turned"]
    assert game["centre"]["area"] < cam["area"] < sdd["area"]
    for run in ("facescrub12", "lfw"):  # "on photographs the game was not played"
        assert not results.load_results(ROOT, f"{run}/other_explainers")["inpainting_game"]

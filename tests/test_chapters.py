"""The chapters as a reader meets them: short cells, a sentence before each, figures with captions, the same frame."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import pytest

from xfrlib.profile import load_profile, project_root

CHAPTERS = sorted((project_root() / "notebooks").glob("[0-9][0-9]_*.ipynb"))
PAGES = sorted((project_root() / "book").rglob("*.md"))
HIDDEN = {"hide-input", "remove-input", "hide-cell", "remove-cell", "parameters"}
LONGEST_VISIBLE, LONGEST_HIDDEN = 15, 40
LONGEST_OPENING = 120  # words before the box of what the reader will learn
DRAWS = {"figure", "contact_sheet", "cam_row", "subject_figure", "training_curves", "deletion_figure", "interval_plot"}
Cell = Any


@cache
def cells(path: Path) -> list[Cell]:
    return nbformat.read(path, as_version=4).cells


def tags(cell: Cell) -> set[str]:
    return set(cell.metadata.get("tags", []))


def lines(cell: Cell) -> int:
    return len(cell.source.splitlines())


def prose(path: Path) -> str:
    """All Markdown of a chapter, without its code fences and equations."""
    text = "\n\n".join(cell.source for cell in cells(path) if cell.cell_type == "markdown")
    return re.sub(r"^```(?:python|\{math\}).*?^```$", "", text, flags=re.M | re.S)


def test_no_chapter_quotes_a_results_file_in_its_text() -> None:
    """JupyterLab would show the name of the number in place of the number."""
    assert [path.stem for path in CHAPTERS if "{result}" in path.read_text(encoding="utf-8")] == []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_each_chapter_names_the_figure_of_its_opening(path: Path) -> None:
    """One figure that is always drawn, or one for made faces and another for photographs."""
    marked = [cell for cell in cells(path) if "opening-figure" in tags(cell)]
    assert 1 <= len(marked) <= 2
    assert all(cell.metadata["mystnb"]["figure"]["name"].startswith(f"fig-{path.stem[:2]}-") for cell in marked)


def too_long(chapter: list[Cell]) -> list[str]:
    """Code cells above their limit; the cell of the parameters is a list, and has none."""
    found = []
    for cell in chapter:
        if cell.cell_type == "code" and "parameters" not in tags(cell):
            limit = LONGEST_HIDDEN if tags(cell) & HIDDEN else LONGEST_VISIBLE
            if lines(cell) > limit:
                found.append(f"{cell.id}: {lines(cell)} lines, at most {limit}")
    return found


def without_a_sentence(chapter: list[Cell]) -> list[str]:
    """Visible code cells that follow another visible one, with no Markdown between."""
    found, introduced = [], False
    for cell in chapter:
        if cell.cell_type == "markdown":
            introduced = True
        elif not tags(cell) & HIDDEN:
            if not introduced:
                found.append(cell.id)
            introduced = False
    return found


def _is_figure(value: ast.expr | None, drawers: set[str], drawn: set[str]) -> bool:
    if isinstance(value, ast.IfExp):
        return _is_figure(value.body, drawers, drawn) or _is_figure(value.orelse, drawers, drawn)
    if isinstance(value, ast.Name):
        return value.id in drawn
    if isinstance(value, ast.Call):
        name = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
        return name in drawers
    return False


def figure_cells(chapter: list[Cell]) -> list[Cell]:
    """Code cells that end in a figure: a function of `xfrlib.plots`, one of the notebook that returns it, a name."""
    drawers, drawn, found = set(DRAWS), {"figure"}, []
    for cell in chapter:
        if cell.cell_type != "code":
            continue
        body = ast.parse("\n".join(line for line in cell.source.splitlines() if not line.startswith("%"))).body
        for node in ast.walk(ast.Module(body=body, type_ignores=[])):
            if isinstance(node, ast.FunctionDef):
                returned = [n.value for n in ast.walk(node) if isinstance(n, ast.Return)]
                if any(_is_figure(value, drawers, drawn) for value in returned):
                    drawers.add(node.name)
        if body and isinstance(body[-1], ast.Expr) and _is_figure(body[-1].value, drawers, drawn):
            found.append(cell)
    return found


def without_caption(chapter: list[Cell]) -> list[str]:
    found = []
    for cell in figure_cells(chapter):
        rendering = cell.metadata.get("mystnb", {})
        figure, image = rendering.get("figure", {}), rendering.get("image", {})
        if not (figure.get("caption") and figure.get("name") and image.get("alt")):
            found.append(cell.id)
    return found


def skipped_levels(text: str) -> list[str]:
    """Headings more than one level below the one before."""
    found, level = [], 0
    for marks, title in re.findall(r"^(#+) (.+)$", text, flags=re.M):
        if len(marks) > level + 1:
            found.append(title)
        level = len(marks)
    return found


def numbered(page: str) -> list[str]:
    """Names of the figures and tables of a page, and labels of its equations: what the site gives a number."""
    names = re.findall(r"^:name: ((?:fig|tab)-\S+)$", page, flags=re.M)
    return names + re.findall(r"^(?:\$\$ \(|:label: )(eq-[\w-]+)\)?$", page, flags=re.M)


def captioned_tables(chapter: list[Cell]) -> list[str]:
    """Names of the tables that cells of code display with a caption, and of those that stand in the text."""
    code, text = ("\n".join(c.source for c in chapter if c.cell_type == kind) for kind in ("code", "markdown"))
    return re.findall(r"""\bname=["'](tab-[^"']+)["']""", code) + re.findall(r"^:name: (tab-\S+)$", text, flags=re.M)


def referred(text: str) -> set[str]:
    """What the references of a text name."""
    return set(re.findall(r"\{(?:numref|eq)\}`(?:[^`<]*<)?([^`>]+)>?`", text))


def code(source: str, *tagged: str) -> Cell:
    return nbformat.v4.new_code_cell(source, metadata={"tags": list(tagged)}, id=f"c{abs(hash(source)) % 10**6}")


def test_the_checks_find_what_they_are_for() -> None:
    text = nbformat.v4.new_markdown_cell("A sentence.")
    long, hidden, short = code("x = 1\n" * 16), code("y = 1\n" * 16, "hide-input"), code("z = 1")
    endless = code("x\n" * 41, "hide-input")
    assert [found.split(":")[0] for found in too_long([long, hidden, endless])] == [long.id, endless.id]
    assert too_long([hidden, short, code("p\n" * 50, "parameters")]) == []
    assert without_a_sentence([text, short, hidden, long]) == [long.id]
    assert without_a_sentence([text, short, text, long]) == []
    bare, through = (
        code("figures.contact_sheet(images)"),
        code("def shown(x):\n    return figures.cam_row(x)\nshown(1)"),
    )
    either = code("plots.interval_plot(t) if t else 'none'")
    assert without_caption([bare, through, either, short]) == [bare.id, through.id, either.id]
    bare.metadata["mystnb"] = {"figure": {"caption": "A.", "name": "fig-01-a"}, "image": {"alt": "A row."}}
    assert without_caption([bare]) == []
    assert skipped_levels("# One\n\n### Three\n\n## Two\n\n### Three again") == ["Three"]
    page = "```{table} A\n:name: tab-a\n:class: b\n```\n$$\nx\n$$ (eq-c)\n```{math}\n:label: eq-d\n```\n:name: e\n"
    assert numbered(page) == ["tab-a", "eq-c", "eq-d"]
    typed = nbformat.v4.new_markdown_cell("```{table} B\n:name: tab-01-b\n```")
    shown = code('report.markdown(rows, caption="A", name="tab-01-a")')
    assert captioned_tables([shown, text, typed]) == ["tab-01-a", "tab-01-b"]
    assert referred("{numref}`tab-a`, {numref}`the table <tab-b>`, {eq}`eq-c`, `tab-d`") == {"tab-a", "tab-b", "eq-c"}


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
class TestChapter:
    def test_cells_are_short(self, path: Path) -> None:
        assert too_long(cells(path)) == []

    def test_a_sentence_stands_before_each_visible_cell(self, path: Path) -> None:
        assert without_a_sentence(cells(path)) == []

    def test_figures_have_caption_name_and_alternative_text(self, path: Path) -> None:
        assert without_caption(cells(path)) == []

    def test_a_caption_stands_on_a_figure(self, path: Path) -> None:
        captioned = [cell.id for cell in cells(path) if "figure" in cell.metadata.get("mystnb", {})]
        assert captioned == [cell.id for cell in figure_cells(cells(path))]

    def test_headings_skip_no_level(self, path: Path) -> None:
        assert skipped_levels(prose(path)) == []
        assert len(re.findall(r"^# ", prose(path), flags=re.M)) == 1

    def test_the_first_cell_says_what_is_learnt_and_what_comes_before(self, path: Path) -> None:
        first = cells(path)[0].source
        box = re.search(r"^```\{admonition\} What you will learn$(.*?)^```$", first, flags=re.M | re.S)
        assert box and len(re.findall(r"^- ", box[1], flags=re.M)) >= 3
        assert "\nBefore this:" in box[1]

    def test_it_opens_with_a_question_its_answer_and_little_more(self, path: Path) -> None:
        opening = cells(path)[0].source.partition("```{admonition}")[0]
        assert len(opening.split()) <= LONGEST_OPENING
        _, question, answer, *_ = opening.split("\n\n")
        assert question.endswith("?") and "\n" not in question
        assert re.fullmatch(r"\*\*[^*]+\*\*", answer)
        if re.match(r"(Is|Do|Does|Can)\b", question):
            assert re.match(r"\*\*(Yes|No|In part)\b", answer)

    def test_it_ends_with_summary_exercises_and_what_comes_next(self, path: Path) -> None:
        titles = re.findall(r"^## (.+)$", prose(path), flags=re.M)
        assert titles[-3:] == ["Summary", "Exercises", "Next"]
        assert "run.show_provenance()" in cells(path)[-1].source
        assert "remove-input" in tags(cells(path)[-1])

    def test_three_to_five_exercises_each_with_a_folded_solution(self, path: Path) -> None:
        text = "\n\n".join(cell.source for cell in cells(path) if cell.cell_type == "markdown")
        boxes = re.findall(r"\{admonition\} (Exercise \d+|Solution).*?\n:class: (\w+)", text)
        exercises = [title for title, _ in boxes[::2]]
        assert 3 <= len(exercises) <= 5 and exercises == [f"Exercise {n + 1}" for n in range(len(exercises))]
        assert boxes[1::2] == [("Solution", "dropdown")] * len(exercises)

    def test_every_numbered_equation_and_figure_is_referred_to(self, path: Path) -> None:
        text = "\n".join(cell.source for chapter in CHAPTERS for cell in cells(chapter) if cell.cell_type == "markdown")
        own = "\n".join(cell.source for cell in cells(path) if cell.cell_type == "markdown")
        named = [cell.metadata["mystnb"]["figure"]["name"] for cell in figure_cells(cells(path))]
        named += captioned_tables(cells(path))
        assert [name for name in named if f"{{numref}}`{name}`" not in own] == []
        assert [name for name in re.findall(r":label: (eq-\S+)", own) if f"{{eq}}`{name}`" not in text] == []


def test_names_of_figures_tables_and_equations_are_unique_and_carry_the_chapter() -> None:
    names = []
    for path in CHAPTERS:
        found = [
            c.metadata["mystnb"]["figure"]["name"] for c in cells(path) if "figure" in c.metadata.get("mystnb", {})
        ]
        found += re.findall(r":label: (\S+)", "\n".join(c.source for c in cells(path))) + captioned_tables(cells(path))
        assert [name for name in found if not re.match(rf"(fig|eq|tab)-{path.stem[:2]}-[a-z0-9-]+$", name)] == []
        names += found
    assert len(set(names)) == len(names)


def test_references_name_figures_and_equations_that_exist() -> None:
    everything = [cell for path in CHAPTERS for cell in cells(path)]
    figures = {c.metadata["mystnb"]["figure"]["name"] for c in everything if "figure" in c.metadata.get("mystnb", {})}
    text = "\n".join(cell.source for cell in everything if cell.cell_type == "markdown")
    assert set(re.findall(r"{numref}`([^`]+)`", text)) <= figures | set(captioned_tables(everything))
    assert set(re.findall(r"{eq}`([^`]+)`", text)) <= set(re.findall(r":label: (\S+)", text))


def test_everything_numbered_on_a_page_is_referred_to() -> None:
    pages = {path.stem: path.read_text(encoding="utf-8") for path in PAGES}
    chapters = [cell.source for path in CHAPTERS for cell in cells(path) if cell.cell_type == "markdown"]
    names = [name for page in pages.values() for name in numbered(page)]
    assert len(set(names)) == len(names) > 0
    assert sorted(set(names) - referred("\n".join([*pages.values(), *chapters]))) == []


def test_commands_of_the_exercises_can_be_called() -> None:
    """Each is for papermill: a notebook that is there, with parameters that it has."""
    commands = re.findall(r"^papermill notebooks/(\w+)\.ipynb (.*)$", "\n".join(map(prose, CHAPTERS)), flags=re.M)
    assert commands
    for notebook, arguments in commands:
        (path,) = [path for path in CHAPTERS if path.stem == notebook]
        (given,) = [cell.source for cell in cells(path) if "parameters" in tags(cell)]
        known = {ast.unparse(line.target) for line in ast.parse(given).body if isinstance(line, ast.AnnAssign)}
        assert set(re.findall(r"-p (\S+) \S+", arguments)) <= known


def test_the_gentle_recipe_is_fifty_times_slower() -> None:
    text = prose(project_root() / "notebooks" / "02_fine_tuning.ipynb")
    (rate,) = re.findall(r"-p backbone_learning_rate (\S+)", text)
    assert "fifty times more slowly" in text and load_profile("quick").learning_rate == 0.0005
    assert float(rate) * 50 == pytest.approx(0.0005)

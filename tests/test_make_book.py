"""What the site offers for download: notebooks that run again what their pages show, and say what it takes."""

import json
import sys
from pathlib import Path
from typing import Any

import make_book
import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

SUBJECT = make_book.all_notebooks()[-1]


def values(source: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    exec(source, found)
    return {name: value for name, value in found.items() if not name.startswith("__")}


def parameters(notebook: nbformat.NotebookNode) -> str:
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    return str(cell.source)


def test_a_page_keeps_the_values_that_it_was_made_with(tmp_path: Path) -> None:
    given = {"profile": "lfw", "subject": 'Zoë "Z" O\'Hara', "delta": 0.5, "data_root": str(tmp_path)}
    source, ran = parameters(nbformat.read(SUBJECT, as_version=4)), tmp_path / "ran.ipynb"
    papermill.execute_notebook(SUBJECT, ran, given, prepare_only=True, progress_bar=False)
    page = make_book.for_the_page(nbformat.read(ran, as_version=4))
    assert not [cell for cell in page.cells if "injected-parameters" in cell.metadata.get("tags", [])]
    assert values(parameters(page)) == values(source) | given | {"data_root": ""}
    assert str(tmp_path) not in nbformat.writes(page)
    kept = [line.partition(" = ")[::2] for line in source.splitlines()]
    now = [line.partition(" = ")[::2] for line in parameters(page).splitlines()]
    assert [head for head, _ in now] == [head for head, _ in kept]  # names and types
    assert [tail.partition("  # ")[2] for _, tail in now] == [tail.partition("  # ")[2] for _, tail in kept]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "# all\na: str = 'x = 1'  # of a: none\nb: list = [\n    1,\n]  # é\nc: int"),
        ({"a": "é"}, '# all\na: str = "\\xe9"  # of a: none\nb: list = [\n    1,\n]  # é\nc: int'),
        ({"b": ["y", None], "c": 3}, "# all\na: str = 'x = 1'  # of a: none\nb: list = [\"y\", None]  # é\nc: int = 3"),
        ({"a": "/home/me", "d": 1}, "# all\na: str = 'x = 1'  # of a: none\nb: list = [\n    1,\n]  # é\nc: int"),
        ({"a": "~/faces"}, "# all\na: str = 'x = 1'  # of a: none\nb: list = [\n    1,\n]  # é\nc: int"),
    ],
    ids=["nothing", "text", "several lines", "a path and an unknown name", "a path at home"],
)
def test_only_the_value_of_a_parameter_changes(given: dict[str, Any], expected: str) -> None:
    source = "# all\na: str = 'x = 1'  # of a: none\nb: list = [\n    1,\n]  # é\nc: int"
    assert make_book.with_values(source, given) == expected


def test_a_download_has_no_outputs_and_says_below_its_title_what_it_takes(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    ran = new_code_cell("1", execution_count=1, outputs=[new_output("stream", text="1")])
    text = "# A \\1 title\n\nText.\n\n# not a title"
    nbformat.write(new_notebook(cells=[new_markdown_cell(text), ran, new_markdown_cell("# Next")]), path)
    make_book.for_download(path, make_book.TO_RUN.format(repository="https://example.org/book", folder="notebooks/x"))
    first, code, last = nbformat.read(path, as_version=4).cells
    title, empty, line, *rest = first.source.split("\n")
    assert (title, empty, rest) == ("# A \\1 title", "", ["", "Text.", "", "# not a title"])
    assert "git clone https://example.org/book" in line and "`notebooks/x`" in line and "`xfrlib`" in line
    assert last.source == "# Next" and code.source == "1" and not code.outputs and code.execution_count is None


@pytest.mark.parametrize("source", make_book.all_notebooks(), ids=lambda path: path.stem)
def test_every_notebook_has_a_title_for_that_line(source: Path, tmp_path: Path) -> None:
    path = tmp_path / source.name
    path.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    make_book.for_download(path, "What it takes.")
    assert nbformat.read(path, as_version=4).cells[0].source.split("\n")[1:4] == ["", "What it takes.", ""]


def test_the_line_names_a_target_of_make_that_installs_and_a_way_without() -> None:
    makefile, readme = ((make_book.ROOT / name).read_text(encoding="utf-8") for name in ("Makefile", "README.md"))
    assert "`make lab`" in make_book.TO_RUN and "\nlab: $(READY)" in makefile
    assert "README.md" in make_book.TO_RUN and "Without make" in readme


def test_lines_of_progress_have_the_name_of_their_chapter(capsys: pytest.CaptureFixture[str]) -> None:
    shown = make_book.Named("07_maps")
    for part in ("RISE:   0%", "\rRISE:  50%", "\rRISE: 100%", "\n", "", "a warning\nof two", " lines\n\n"):
        assert shown.write(part) == len(part)
    said = capsys.readouterr().err
    assert said == (
        "07_maps: RISE:   0%\r07_maps: RISE:  50%\r07_maps: RISE: 100%\n07_maps: a warning\n07_maps: of two lines\n\n"
    )


def test_a_run_says_how_many_notebooks_are_to_come_and_about_how_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XFR_BUILD", str(tmp_path))
    monkeypatch.setattr(make_book, "seconds_file", lambda profile: tmp_path / f"{profile}.json")
    names = [path.stem for path in make_book.sources()]
    made = tmp_path / "quick" / "notebooks"
    made.mkdir(parents=True)
    for number, name in enumerate(names):
        stamps = ({"busy": "2026-01-01T00:00:30Z", "idle": f"2026-01-01T00:0{number % 3 + 1}:30.5Z"}, {})
        cells = [nbformat.v4.new_code_cell("x", metadata={"execution": one}) for one in stamps]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), made / f"{name}.ipynb")
    make_book.write_times("quick")
    known = json.loads((tmp_path / "quick.json").read_text())
    assert {"commit", "device", "torch"} <= known["provenance"].keys()
    assert [known["notebooks"][name] for name in names[:4]] == [60, 120, 180, 60]  # whole seconds
    for name in names[2:]:
        (made / f"{name}.ipynb").unlink()
    left = sum(known["notebooks"][name] for name in names[2:]) / 2 / 60
    said = make_book.to_come("quick", names[3])
    others = ", ".join(name[:2] for name in names[2:] if name != names[3])
    assert said == f"; to be made besides: {others}; all in about {left:.0f} min on {known['device']}"
    assert make_book.to_come("other", names[0]).startswith("; to be made besides: 02, 03")


def test_the_scores_that_are_kept_name_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XFR_BUILD", str(tmp_path / "build"))
    monkeypatch.setattr(make_book, "ROOT", tmp_path)
    for name in ("build/mine/evaluation.parquet", "results/mine"):
        (tmp_path / name).mkdir(parents=True)
    row = {"network": 0, "image": 3, "deletion_lead_drop": 1 / 3, "identity": "Ann", "path": "Ann/1.png"}
    row["deletion_lead_drop_1"] = 0.5
    for chapter in ("06_full_evaluation", "07_other_explainers"):
        rows = pd.DataFrame([row | {"chapter": chapter}])
        rows.to_parquet(tmp_path / "build/mine/evaluation.parquet" / f"{chapter}.parquet")
    make_book.write_scores("mine")
    kept = pd.read_parquet(tmp_path / "results/mine/scores.parquet")
    assert sorted(kept["chapter"]) == ["06_full_evaluation", "07_other_explainers"]
    assert list(kept) == ["chapter", "network", "image", "deletion_lead_drop"]
    assert kept["deletion_lead_drop"].tolist() == [np.float32(0.333)] * 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["run", "quick", "99_none"], "there is no chapter '99_none'; there are: 01_data_preparation, "),
        (["run", "nobody"], "invalid choice: 'nobody' (choose from 'brief', 'facescrub12', "),
    ],
)
def test_a_chapter_or_a_profile_that_is_not_there_is_named_beside_those_that_are(
    given: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["make_book.py", *given])
    with pytest.raises(SystemExit) as stopped:
        make_book.main()
    assert said in f"{stopped.value.code}{capsys.readouterr().err}"


@pytest.mark.parametrize(("busy", "threads"), [(3.0, None), (70.0, None), (100.0, 1)])
def test_torch_gets_one_thread_where_others_keep_the_processors_busy(
    busy: float, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_book.psutil, "cpu_percent", lambda interval: busy)
    given = make_book.kernel_environment()
    assert given.items() >= make_book.KEEP_MEMORY.items() and given.get("OMP_NUM_THREADS") == threads

"""The notebooks as a user meets them: their parameters explained, and a sentence where one cannot run."""

import ast
import itertools
import json
from pathlib import Path
from typing import Any

import dependencies
import make_book
import nbformat
import papermill
import pytest
from nbclient import NotebookClient

from studies.earlier import _how_long, missing_by_chapter, need_earlier
from xfrlib.artifacts import MissingArtifactError
from xfrlib.run import NotebookRun

NOTEBOOKS = make_book.all_notebooks()


def number(chapter: int) -> Path:
    return NOTEBOOKS[chapter - 1]


#: What is said of parameters that cannot be. Those of a chapter's own check run here with others too, which pass.
REFUSED: list[tuple[Path, dict[str, Any], str]] = [
    (number(6), {"tpo_k": 3}, "unknown parameter 'tpo_k' of 06_full_evaluation; did you mean 'top_k'?"),
    (number(6), {"top_k": 0}, "top_k = 0: must be at least 2"),
    (number(10), {"choosing_fills": ["other people", "blur"], "judging_fills": ["black", "blur"]},
     "blur is among the fills that choose and those that judge: what selects must not judge"),
    (number(11), {"judging_fills": ["black", "mean"]},
     "judging_fills: mean sets the threshold of the firm self-test, so that it cannot judge"),
]  # fmt: skip


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The errors of the first cells of all notebooks but the first, where none has run, and of those of `REFUSED`.

    One kernel, which loads torch once; between two notebooks it forgets all names and goes to the other's folder.
    """
    asked = [*((path, {}) for path in NOTEBOOKS[1:]), *((path, given) for path, given, _ in REFUSED)]
    cells, last = list[nbformat.NotebookNode](), list[int]()
    for path, given in asked:
        code = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
        stop = next(k for k, cell in enumerate(code) if "need_earlier(run)" in cell.source.splitlines())
        if given:  # nothing is built here; the chapter's own check stands in the hidden cells after that line
            code[stop].source = code[stop].source.replace("\nneed_earlier(run)", "")
            stop = next(k for k, cell in enumerate(code) if not cell.metadata.get("tags")) - 1
        changes = nbformat.v4.new_code_cell("\n".join(f"{name} = {value!r}" for name, value in given.items()))
        begin = [nbformat.v4.new_code_cell(line) for line in ("%reset -f", f"%cd -q {path.parent}")]
        first, *rest = (nbformat.v4.new_code_cell(cell.source) for cell in code[: stop + 1])
        cells += [*begin, first, changes, *rest]
        last.append(len(cells))
    notebook = nbformat.v4.new_notebook(cells=cells)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XFR_BUILD", str(tmp_path_factory.mktemp("nothing built")))
        NotebookClient(notebook, kernel_name="python3", allow_errors=True).execute()
    parts = [notebook.cells[one:other] for one, other in itertools.pairwise([0, *last])]
    errors = [[out for cell in part for out in cell.get("outputs", []) if out.output_type == "error"] for part in parts]
    return ["\n".join([found[0].ename, found[0].evalue, *found[0].traceback]) if found else "" for found in errors]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_parameter_is_explained_typed_and_checked(path: Path) -> None:
    parameters = papermill.inspect_notebook(path)
    assert {"profile", "data_root", "run_name"} < parameters.keys()
    for name, facts in parameters.items():
        assert facts["help"] and facts["inferred_type_name"] != "None", name
    tagged = [c for c in nbformat.read(path, as_version=4).cells if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_first_cell_starts_the_run_with_the_annotated_parameters_and_no_others(path: Path) -> None:
    """What `start_notebook` takes for parameters are the annotated names so far: those of the tagged cell."""
    given, first, *_ = (c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code")
    assigned = [node for node in ast.parse(given).body if not isinstance(node, ast.Expr)]
    assert all(isinstance(node, ast.AnnAssign) for node in assigned)
    assert len([line for line in first.splitlines() if line]) <= 5 and "start_notebook(" in first
    assert not any(isinstance(node, ast.AnnAssign) for node in ast.parse(first).body)


@pytest.mark.parametrize("place", range(len(NOTEBOOKS) - 1), ids=lambda place: NOTEBOOKS[place + 1].stem)
def test_a_notebook_opened_alone_says_what_to_run_first(place: int, said: list[str]) -> None:
    found = said[place]
    assert "MissingArtifactError" in found and "run notebooks/01_data_preparation.ipynb first" in found
    assert "%run ../" in found and "run quick 01_data_preparation" in found and "minute" in found
    assert "Traceback" not in found


@pytest.mark.parametrize("place", range(len(REFUSED)), ids=lambda place: "-".join(REFUSED[place][1]))
def test_a_wrong_parameter_is_named(place: int, said: list[str]) -> None:
    assert REFUSED[place][2] in said[len(NOTEBOOKS) - 1 + place]


@pytest.mark.parametrize("path", NOTEBOOKS[1:], ids=lambda path: path.stem)
def test_what_is_missing_is_looked_for_where_the_run_is_started(path: Path) -> None:
    """In the first cell after the parameters, or after one that extends the path: before anything is computed."""
    cells = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    (place,) = [number for number, cell in enumerate(cells) if "need_earlier(run)" in cell.splitlines()]
    assert place == 1 or (place == 2 and "sys.path.append" in cells[place])


def test_all_that_is_missing_is_named_with_its_chapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XFR_BUILD", str(tmp_path))
    run = NotebookRun("05_subject_visuals", "quick")
    missing = missing_by_chapter(run)
    assert list(missing) == ["01_data_preparation", "02_fine_tuning"]
    assert {"manifest.csv", "faces", "faces_families.json"} <= set(missing["01_data_preparation"])
    assert "classifier.safetensors" in missing["02_fine_tuning"]
    photographs = missing_by_chapter(NotebookRun("05_subject_visuals", "facescrub12"))
    assert not any(file.startswith("faces") for file in photographs["01_data_preparation"])
    for chapter, files in missing.items():
        for file in files:
            path = NotebookRun(chapter, "quick").output(file)
            path.touch()
    assert missing_by_chapter(run) == {}
    need_earlier(run)
    (tmp_path / "quick" / "classifier.safetensors").unlink()
    with pytest.raises(MissingArtifactError) as caught:
        need_earlier(run)
    said = str(caught.value)
    assert "02_fine_tuning.ipynb makes classifier.safetensors\n" in said and "01_data" not in said
    assert said.endswith("%run ../tools/make_book.py run quick 02_fine_tuning")


def test_how_long_it_takes_was_measured(tmp_path: Path) -> None:
    (tmp_path / "results" / "quick").mkdir(parents=True)
    content = json.dumps({"device": "2 processors", "notebooks": {"a": 61, "b": 10, "c": 3}})
    (tmp_path / "results" / "quick" / "seconds.json").write_text(content, encoding="utf-8")
    assert _how_long("quick", ["a", "b"], tmp_path) == "That takes about 2 minutes on 2 processors."
    assert "about 1 minute on" in _how_long("quick", ["c"], tmp_path)
    for profile, chapters in (("quick", ["a", "d"]), ("paper", ["a"])):
        assert f"make_book.py preflight {profile}" in _how_long(profile, chapters, tmp_path)


def test_files_are_found_where_a_call_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        'run.need("a.json", "01_data_preparation"); run.read_json("b.json", made_by="02_fine_tuning")\n'
        'run.need(name, "01_data_preparation"); run.other("c.json", "01_data_preparation")'
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbformat.write(notebook, tmp_path / "03_cam_theory.ipynb")
    found = dependencies.artefact_files(tmp_path / "03_cam_theory.ipynb")
    assert found == {"01_data_preparation": ["a.json"], "02_fine_tuning": ["b.json"]}

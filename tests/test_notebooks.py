"""The notebooks as a user meets them: their parameters explained, and a sentence where one cannot run."""

import ast
import json
from pathlib import Path

import dependencies
import make_book
import nbformat
import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

from studies.earlier import _how_long, missing_by_chapter, need_earlier
from xfrlib.artifacts import MissingArtifactError
from xfrlib.run import NotebookRun

NOTEBOOKS = make_book.all_notebooks()


def failure(path: Path, parameters: dict[str, object]) -> str:
    with pytest.raises(PapermillExecutionError) as caught:
        papermill.execute_notebook(
            path, None, parameters, kernel_name="python3", cwd=path.parent, progress_bar=False, log_output=False
        )
    return str(caught.value)


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


@pytest.mark.parametrize("path", NOTEBOOKS[1:], ids=lambda path: path.stem)
def test_a_notebook_opened_alone_says_what_to_run_first(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XFR_BUILD", str(tmp_path))
    said = failure(path, {})
    assert "MissingArtifactError" in said and "run notebooks/01_data_preparation.ipynb first" in said
    assert "%run ../" in said and "run quick 01_data_preparation" in said and "minute" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"tpo_k": 3}, "unknown parameter 'tpo_k' of 06_full_evaluation; did you mean 'top_k'?"),
        ({"top_k": 0}, "top_k = 0: must be at least 2"),
    ],
    ids=["unknown", "impossible"],
)
def test_a_wrong_parameter_is_named(parameters: dict[str, object], said: str) -> None:
    assert said in failure(NOTEBOOKS[5], parameters)


@pytest.mark.parametrize("path", NOTEBOOKS[1:], ids=lambda path: path.stem)
def test_what_is_missing_is_looked_for_where_the_run_is_started(path: Path) -> None:
    """Before anything is computed; a wrong parameter is told before it, by the run or by the chapter's own check."""
    cells = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    (place,) = [number for number, cell in enumerate(cells) if "need_earlier(run)" in cell.splitlines()]
    earlier = "".join(cells[1 : place + 1])
    assert place == 1 or "raise ParameterError" in earlier or (place == 2 and "sys.path.append" in earlier)


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
    found = dependencies.files_of(tmp_path / "03_cam_theory.ipynb")
    assert found == {"01_data_preparation": ["a.json"], "02_fine_tuning": ["b.json"]}

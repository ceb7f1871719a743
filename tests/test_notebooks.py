"""The notebooks as a user meets them: their parameters explained, and a sentence where one cannot run."""

import ast
from pathlib import Path

import make_book
import nbformat
import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

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

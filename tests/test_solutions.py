"""The solutions of exercises run with their chapter, and the page shows what they print inside their fold."""

from pathlib import Path

import make_book
import nbformat
import pytest
import solutions
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

NOTEBOOKS = make_book.sources()
EXERCISES = """## Exercises

```python
not_a_solution()
```

````{{admonition}} Solution
:class: dropdown

In words alone.
````

````{{admonition}} Solution
:class: dropdown

```python
{first}
```
A sentence between.

```python
print("two lines", seven, sep="\\n")
```
```sh
exit 1
```
````

````{{dropdown}} Solution 5
```python
list(range({length}))
```
````
"""


def written(folder: Path, first: str = "seven = number + 1", length: int = 3) -> Path:
    cells = [
        new_code_cell("profile: str = ''\nnumber = 6", metadata={"tags": ["parameters"]}),
        new_markdown_cell(EXERCISES.format(first=first, length=length)),
        new_code_cell("print(profile, seven)"),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), folder / "01_tiny.ipynb")
    return folder / "01_tiny.ipynb"


def test_solutions_run_and_their_output_stands_below_their_code(tmp_path: Path) -> None:
    executed = make_book.for_the_page(make_book.execute(written(tmp_path), {"profile": "quick"}))
    _, exercises, last = executed.cells
    assert last.outputs[0].text == "quick 7\n", "the solutions ran after the exercises and before what follows"
    source = nbformat.read(tmp_path / "01_tiny.ipynb", as_version=4).cells[1].source
    output = "\n\n```{{code-block}} text\n:class: solution-output\n\n{}\n```"
    shown = [output.format("two lines\n7"), output.format("[0, 1, 2]")]
    assert all(text in exercises.source for text in shown)
    assert exercises.source.replace(shown[0], "").replace(shown[1], "") == source, "the code is there once"
    assert exercises.source.index("two lines\n7") < exercises.source.index("```sh")


@pytest.mark.parametrize(
    ("name", "text"),
    [("stdout", "a line\n" * 21), ("stderr", "a warning"), ("stdout", "\n")],
    ids=["long", "err", "empty"],
)
def test_long_output_and_warnings_are_not_shown(name: str, text: str) -> None:
    cell = new_code_cell("x", outputs=[nbformat.v4.new_output("stream", name=name, text=text)])
    assert solutions.shown_output(cell) == ""


def test_a_failing_solution_stops_the_build_and_is_named(tmp_path: Path) -> None:
    source = written(tmp_path, first="seven = numbr + 1")
    with pytest.raises(solutions.SolutionError, match=r"01_tiny: the solution of exercise 2 fails[\s\S]*'numbr'"):
        make_book.execute(source, {"profile": "quick"})
    numbered = written(tmp_path, length="'three'")
    with pytest.raises(solutions.SolutionError, match="exercise 5"):
        make_book.execute(numbered, {"profile": "quick"})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_solution_of_a_chapter_is_overlooked(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    text = text[text.index("## Exercises") :]
    assert text.count("```python\n") == len(list(solutions.blocks(notebook)))
    for _, exercise, code in solutions.blocks(notebook):
        compile(code, f"{path.stem}, {exercise}", "exec")

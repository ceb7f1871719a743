"""The solutions of a chapter's exercises run with the notebook, and their output stands below their code on the page.

A solution is a folded admonition whose title begins with "Solution"; its ```python blocks may use all that the notebook
has made. The notebooks keep them as text; here each block becomes a code cell for the run, and text again after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count

from dependencies import BLOCK
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell
from papermill.exceptions import PapermillExecutionError

SOLUTION = re.compile(
    r"^(?P<fence>`{4,}|:{3,})\{(?:admonition|dropdown)\} Solution\b *(?P<number>\d*).*?^(?P=fence)$", re.DOTALL | re.M
)
TAG = "solution"
LONGEST = 20  # lines of output that the page shows


class SolutionError(Exception):
    """A solution does not run; the message names chapter and exercise."""


def blocks(notebook: NotebookNode) -> Iterator[tuple[int, str, str]]:
    """Index of the cell, name of the exercise and code of every block, in reading order.

    A solution without a number of its own belongs to the exercise that its place in the chapter says.
    """
    places = count(1)
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "markdown":
            continue
        for solution in SOLUTION.finditer(cell.source):
            place = next(places)
            for block in BLOCK.finditer(solution[0]):
                yield index, f"exercise {solution['number'] or place}", block["code"]


def as_cells(notebook: NotebookNode) -> NotebookNode:
    """Add a code cell for every block behind the cell that it stands in; the notebook is changed in place."""
    for done, (index, exercise, code) in enumerate(list(blocks(notebook))):
        cell = new_code_cell(code, metadata={TAG: exercise})
        notebook.cells.insert(index + done + 1, cell)
    return notebook


def as_text(notebook: NotebookNode) -> NotebookNode:
    """Take the cells of `as_cells` out again, and write what each has printed below its block."""
    solved = [cell for cell in notebook.cells if TAG in cell.metadata]
    if not solved:
        return notebook
    ran = iter(solved)
    notebook.cells = [cell for cell in notebook.cells if TAG not in cell.metadata]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = SOLUTION.sub(
                lambda found: BLOCK.sub(lambda b: b[0] + shown_output(next(ran)), found[0]), cell.source
            )
    return notebook


def shown_output(cell: NotebookNode) -> str:
    """The output of a cell as a literal block: what it printed and the value of its last line, unless that is long."""
    parts = [
        output.text if output.output_type == "stream" else output.data.get("text/plain", "")
        for output in cell.outputs
        if output.output_type == "execute_result" or output.get("name") == "stdout"
    ]
    text = "\n".join(part.rstrip() for part in parts if part.strip())
    if not text or text.count("\n") >= LONGEST:
        return ""
    return f"\n\n```{{code-block}} text\n:class: solution-output\n\n{text}\n```"


def blame(error: PapermillExecutionError, notebook: NotebookNode) -> str:
    """The exercise whose solution stopped the run, or an empty text when it was another cell."""
    return next((c.metadata[TAG] for c in notebook.cells if TAG in c.metadata and c.source == error.source), "")

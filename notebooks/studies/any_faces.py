"""Chapter 8 on faces that nobody made: cells that need the renderer are left out. A figure leaves a line behind,
a table one without rows.

A notebook has no other way to leave cells out without an error.
"""

from __future__ import annotations

from typing import Any

from studies.report import in_place_of

ALWAYS = ("profile: str", "start_notebook", "# On any faces")  # what stands in a cell that runs on any faces
DRAWS = ("subplots(", "picture_grid(", "contact_sheet(", "interval_plot(")  # what stands in a cell of a figure


def skipped(lines: list[str]) -> list[str]:
    """A cell that needs made faces becomes an empty one, a figure or a table one that says so."""
    text = "".join(lines)
    if any(word in text for word in ALWAYS):
        return lines
    figure = any(word in text for word in DRAWS)
    if figure:
        return ["Markdown('*No figure in this run.*')\n"]
    return in_place_of(text) or ["pass\n"]


def leave_out_cells(shell: Any) -> None:
    """From the next cell on, `shell` (``get_ipython()``) runs those alone that say "# On any faces"."""
    run_all_cells(shell)
    shell.input_transformers_cleanup.append(skipped)


def run_all_cells(shell: Any) -> None:
    """From the next cell on no cell is left out."""
    steps = shell.input_transformers_cleanup
    steps[:] = [step for step in steps if step is not skipped]

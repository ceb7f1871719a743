"""What a chapter needs of earlier ones, looked for before anything is computed: what is missing, how long it takes."""

from __future__ import annotations

import json
import math
import runpy
from pathlib import Path

from xfrlib.artifacts import MissingArtifactError
from xfrlib.profile import project_root
from xfrlib.run import NotebookRun

OF_MADE_FACES = "faces"  # artefacts whose names begin so are written of made faces alone


def need_earlier(run: NotebookRun) -> None:
    """Stop a notebook in its first cells unless all that it reads of earlier chapters is there.

    Raises `MissingArtifactError`, which names whatever is missing by the chapter that makes it, says about how long
    these chapters take, and gives the line that runs them.
    """
    missing = missing_by_chapter(run)
    if not missing:
        return
    name = run.profile.name
    rows = [f"  notebooks/{chapter}.ipynb makes {', '.join(files)}" for chapter, files in missing.items()]
    raise MissingArtifactError(
        f"{run.notebook} reads what earlier chapters make, which is missing for the profile {name!r}: run "
        + f"notebooks/{next(iter(missing))}.ipynb first.\n"
        + "\n".join(rows)
        + f"\n{_how_long(name, list(missing))} To run them from here, put this line into a cell of its own:\n"
        + f"  %run {_upwards(run.notebook)}tools/make_book.py run {name} {' '.join(missing)}"
    )


def missing_by_chapter(run: NotebookRun) -> dict[str, list[str]]:
    """The artefacts that the notebook of `run` reads and does not find, by the chapter that makes them, in order."""
    root = project_root()
    artefact_files = runpy.run_path(str(root / "tools" / "dependencies.py"))["artefact_files"]
    missing: dict[str, list[str]] = {}
    for chapter, files in artefact_files(root / "notebooks" / f"{run.notebook}.ipynb").items():
        for file in files:
            if file.startswith(OF_MADE_FACES) and run.profile.dataset != "synthetic":
                continue
            try:
                run.need(file, chapter)
            except MissingArtifactError:
                missing.setdefault(chapter, []).append(file)
    return missing


def _how_long(profile: str, chapters: list[str], root: Path | None = None) -> str:
    """About how long chapters take, as it was measured, or how to find out."""
    file = (root or project_root()) / "results" / profile / "seconds.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"notebooks": {}}
    if not all(chapter in known["notebooks"] for chapter in chapters):
        return f"`python tools/make_book.py preflight {profile}`, in the folder of the clone, says how long they take."
    minutes = math.ceil(sum(known["notebooks"][chapter] for chapter in chapters) / 60)
    return f"That takes about {minutes} minute{'s' if minutes > 1 else ''} on {known['device']}."


def _upwards(notebook: str) -> str:
    """The way from a notebook's folder to that of the clone."""
    return "../" * (1 + notebook.count("/"))

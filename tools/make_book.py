"""Run the notebooks through papermill, and build the site from the executed copies.

python tools/make_book.py preflight paper              stop unless data, checkpoint, disk and device suffice
python tools/make_book.py run quick                    all notebooks, in reading order
python tools/make_book.py run quick 03_cam_theory      one of them
python tools/make_book.py gallery quick                a page for each of some people
python tools/make_book.py gallery quick family00_a     one of them, once they are chosen
python tools/make_book.py site quick                   the site, from the executed copies
python tools/make_book.py publishable quick            stop unless the profile's site may be published
python tools/make_book.py times quick                  how long each notebook took, to results/quick/seconds.json
python tools/make_book.py scores facescrub12           of single pictures, to results/facescrub12/scores.parquet

With SITE_URL, the public address, the site gets what only a published one can have (tools/publishing.py).
Executed copies and the site go to _build/<profile>/; the folder of real pictures is taken from XFR_DATA.
"""

from __future__ import annotations

import argparse
import ast
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import dependencies
import gallery
import nbformat
import papermill
import psutil
import publishing
import solutions
import yaml
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from papermill.translators import PythonTranslator

ROOT = Path(__file__).resolve().parents[1]
DARK_FIGURES = (  # what a kernel runs before a notebook, so that each figure brings its variant for a dark page
    f"__import__('sys').path.append({str(ROOT / 'notebooks')!r}); "
    "get_ipython().extension_manager.load_extension('studies.dark_figures')"
)
# glibc hands large freed blocks back to the system, and on a CPU the page faults that follow take half the time of a
# pass. These keep the blocks: inference of mobilefacenet went from 52 to 119 pictures a second on two cores.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": 2**32, "MALLOC_TRIM_THRESHOLD_": 2**33, "MALLOC_TOP_PAD_": 2**28}
BUSY = 75  # percent of all processors that others keep busy
SCORES_OF = (  # what a kept score is of, beside the region itself
    "chapter", "network", "image", "label", "predicted", "correct", "method", "settings", "draw", "fill", "fraction",
    "probability", "margin",
)  # fmt: skip
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
PROGRESS_BAR = re.compile(r"\d+%\|.*\|.*\[.*\]\s*$")
TO_RUN = (
    "*To run this notebook:* `git clone {repository}`, put this file into the folder `{folder}` of the clone, and call "
    "`make lab` in the clone: it installs `xfrlib` with all that it needs and opens JupyterLab. README.md says how "
    "without make."
)


def kernel_environment() -> dict[str, int]:
    """What the processes that run notebooks begin with; looks for a moment at how busy the machine is.

    A thread of torch that waits for another spins, and beside busy programs it keeps the processor that the other
    needs: one thread alone is faster there. benchmarks/bench_shared_machine.py measures what that gives.
    """
    return KEEP_MEMORY | ({"OMP_NUM_THREADS": 1} if psutil.cpu_percent(interval=0.5) > BUSY else {})


def sources(root: Path = ROOT) -> list[Path]:
    """The notebooks in reading order."""
    return sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def all_notebooks(root: Path = ROOT) -> list[Path]:
    """The notebooks in reading order, and the one that makes the pages of the gallery."""
    return [*sources(root), root / "notebooks" / "gallery" / "subject.ipynb"]


def build_root() -> Path:
    """As ``xfrlib.artifacts.build_root``, which this does not import: torch would be loaded beside every notebook."""
    return Path(os.environ.get("XFR_BUILD") or ROOT / "_build").expanduser().resolve()


class Named(io.TextIOBase):
    """Standard error with a name before each line: chapters that run side by side show their progress on one screen."""

    def __init__(self, name: str) -> None:
        # A line that replaces another one may be the shorter.
        self.name, self.at_start, self.clear = name, True, "\x1b[K" if sys.stderr.isatty() else ""

    def write(self, text: str) -> int:
        """The text, as a file takes it."""
        start = r"(^|[\r\n])(?=[^\r\n])" if self.at_start else r"([\r\n])(?=[^\r\n])"
        sys.stderr.write(re.sub(start, rf"\g<1>{self.clear}{self.name}: ", text))
        self.at_start = text.endswith(("\r", "\n")) if text else self.at_start
        return len(text)

    def flush(self) -> None:
        """What was written is shown."""
        sys.stderr.flush()


def run(profile: str, notebook: str) -> None:
    """Execute one notebook with a profile; its copy appears in ``_build/<profile>/notebooks/`` only if it succeeds.

    The solutions of its exercises run with it. Raises `solutions.SolutionError` for one that fails.
    """
    source = ROOT / "notebooks" / f"{notebook}.ipynb"
    if source not in sources():
        known = ", ".join(path.stem for path in sources())
        raise FileNotFoundError(f"there is no chapter {notebook!r}; there are: {known}")
    start = time.monotonic()
    print(f"{notebook}: runs with the profile {profile}{to_come(profile, notebook)}", flush=True)
    write_page(source, {"profile": profile}, build_root() / profile / "notebooks" / source.name)
    print(f"{notebook}: done in {time.monotonic() - start:.0f} s", flush=True)


def seconds_file(profile: str) -> Path:
    """How long each notebook of a profile took, by its name, on the machine that the file names."""
    return ROOT / "results" / profile / "seconds.json"


def to_come(profile: str, notebook: str) -> str:
    """Which notebooks are not made yet beside this one, and about how long all take, where that was measured."""
    out = build_root() / profile / "notebooks"
    names = [path.stem for path in sources() if path.stem == notebook or not (out / path.name).is_file()]
    more = f"; to be made besides: {', '.join(name[:2] for name in names if name != notebook) or 'none'}"
    if not seconds_file(profile).is_file():
        return more
    known = json.loads(seconds_file(profile).read_text(encoding="utf-8"))
    left = sum(known["notebooks"].get(name, 0) for name in names) / known["side_by_side"] / 60
    return f"{more}; all in about {max(left, 1):.0f} min on {known['device']}"


def write_times(profile: str, side_by_side: int = 2) -> None:
    """Read from the executed copies how long each notebook took, and keep it for those who run them next."""
    found = {}
    for source in sources():
        cells = nbformat.read(build_root() / profile / "notebooks" / source.name, as_version=4).cells
        stamps = [stamp for cell in cells for stamp in cell.metadata.get("execution", {}).values()]
        first, last = (datetime.fromisoformat(pick(stamps)) for pick in (min, max))
        found[source.stem] = round((last - first).total_seconds())
    from xfrlib import artifacts

    values = {"device": f"{os.cpu_count()} processors", "side_by_side": side_by_side, "notebooks": found}
    values["provenance"] = {"commit": artifacts.commit(), **artifacts.environment()}
    seconds_file(profile).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def write_page(source: Path, parameters: dict[str, Any], target: Path, title: str = "") -> None:
    """Execute a notebook; `target` appears, whole, only if it succeeds. `title` replaces its heading."""
    executed = execute(source, parameters)
    if title:
        executed.cells[0].source = gallery.titled(executed.cells[0].source, title)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}")  # make must never find half a notebook
    nbformat.write(for_the_page(executed), part)
    part.replace(target)


def make_gallery(profile: str, pages: list[str]) -> None:
    """Run pages of the gallery; without a name, choose the people and run the pages of all."""
    out = build_root() / profile
    if not pages:
        listing = [sys.executable, str(ROOT / "notebooks" / "gallery" / "subjects.py"), "--profile", profile]
        chosen = subprocess.run(listing, check=True, stdout=subprocess.PIPE).stdout
        (out / gallery.SUBJECTS).parent.mkdir(parents=True, exist_ok=True)
        (out / gallery.SUBJECTS).write_bytes(chosen)
    for person in gallery.people(out):
        if not pages or person["page"] in pages:
            name = person["identity"]
            print(f"gallery: {name}", flush=True)
            target = gallery.page_files(out, person["page"])[-1]
            write_page(all_notebooks()[-1], {"profile": profile, "subject": name}, target, gallery.shown_name(name))


def execute(source: Path, parameters: dict[str, Any]) -> NotebookNode:
    """A notebook executed, on made faces with the solutions of its exercises: some ask what only these can answer."""
    notebook = nbformat.read(source, as_version=4)
    profile = yaml.safe_load((ROOT / "profiles" / f"{parameters['profile']}.yaml").read_text(encoding="utf-8"))
    if profile.get("dataset") == "synthetic":
        notebook = solutions.as_cells(notebook)
    try:
        executed = papermill.execute_notebook(
            notebook,
            None,
            parameters,
            kernel_name="python3",
            cwd=source.parent,  # as in JupyterLab
            progress_bar=False,
            stderr_file=Named(source.stem),  # the notebook's own progress bars
            extra_arguments=[
                "--log-level=CRITICAL",  # of the kernel, which notes its transport and its end
                f"--IPKernelApp.exec_lines={DARK_FIGURES}",
            ],
        )
    except PapermillExecutionError as error:
        if exercise := solutions.blame(error, notebook):
            raise solutions.SolutionError(f"{source.stem}: the solution of {exercise} fails{error}") from error
        raise
    return solutions.as_text(executed)


def preflight(profile: str) -> None:
    """Stop unless the profile has what it needs; says how long it will take."""
    subprocess.run([sys.executable, str(ROOT / "tools" / "preflight.py"), "--profile", profile], check=True)


def for_the_page(notebook: NotebookNode) -> NotebookNode:
    """Take out what only a live kernel can show: widget views and state, progress bars, papermill's own notes.

    A widget view would make the page load scripts from other hosts; a static output beside it stays, unless the cell
    has the tag `dependencies.LIVE`. The values that the notebook was run with become those of its parameters: whoever
    downloads it runs again what the page shows.
    """
    given = notebook.metadata.get("papermill", {}).get("parameters", {})
    for key in ("widgets", "papermill"):
        notebook.metadata.pop(key, None)
    notebook.cells = [cell for cell in notebook.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        if cell.cell_type == "code":
            cell.outputs = [] if dependencies.LIVE in cell.metadata.get("tags", []) else list(_static(cell.outputs))
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = with_values(cell.source, given)
    return notebook


def with_values(source: str, given: dict[str, Any]) -> str:
    """The typed parameters of a cell with the values `given`, as papermill writes them; all else stays as it is.

    The folder of data and other absolute paths are left out: they mean something on this machine only.
    """
    given = {
        name: value
        for name, value in given.items()
        if name != "data_root" and not (isinstance(value, str) and Path(value).expanduser().is_absolute())
    }
    lines = source.splitlines(keepends=True)
    for node in reversed(ast.parse(source).body):
        if isinstance(node, ast.AnnAssign) and (name := ast.unparse(node.target)) in given:
            place = slice(node.lineno - 1, node.end_lineno)
            comment = "".join(lines[place]).removeprefix(ast.get_source_segment(source, node) or "")
            kind, value = ast.get_source_segment(source, node.annotation), PythonTranslator.translate(given[name])
            lines[place] = [f"{name}: {kind} = {value}{comment}"]
    return "".join(lines)


def _static(outputs: list[NotebookNode]) -> Iterator[NotebookNode]:
    for output in outputs:
        data = output.get("data", {})
        if data.pop(WIDGET_VIEW, None) is not None and data.keys() <= {"text/plain"}:
            continue
        if output.output_type == "stream":
            lines = (line.rstrip("\r").rsplit("\r", 1)[-1] for line in output.text.split("\n"))
            output.text = "\n".join(line for line in lines if not PROGRESS_BAR.search(line))
            if not output.text.strip():
                continue
        yield output


def stage_site(profile: str) -> Path:
    """Lay out ``_build/<profile>/site``: pages, executed notebooks, results and figures, as Sphinx reads them.

    Raises `FileNotFoundError` when the notebooks, or those of the gallery, have not been run.
    """
    out = build_root() / profile
    for source in sources():
        if not (out / "notebooks" / source.name).is_file():
            raise FileNotFoundError(
                f"{source.stem} has not been run with the profile {profile}: make book PROFILE={profile}"
            )
    site = out / "site"
    shutil.rmtree(site, ignore_errors=True)
    site.mkdir()
    for folder in (ROOT / "book", ROOT / "results", out / "notebooks", out / "figures"):
        if folder.is_dir():
            shutil.copytree(folder, site / folder.name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    shutil.rmtree(site / "book" / "page")
    for file in (ROOT / "book" / "page").glob("*.[jc]s*"):
        shutil.copy2(file, site / "book" / "_static")
    for file in (ROOT / "_config.yml", ROOT / "_toc.yml", out / "results.json"):
        shutil.copy2(file, site)
    if address := os.environ.get("SITE_URL"):
        publishing.require_publishable(profile)
        config = yaml.safe_load((site / "_config.yml").read_text(encoding="utf-8"))
        config = publishing.with_address(config, address)
        (site / "_config.yml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
        publishing.draw_card(site / "book" / "_static" / "card.png")
    (site / "artefacts").mkdir()
    # A page that quotes this profile's results quotes this build, and no earlier one.
    own = [folder for folder in (site / "artefacts", site / "results" / profile) if folder.is_dir()]
    for file, folder in itertools.product(out.glob("*.json"), own):
        shutil.copy2(file, folder)
    if (site / "results" / f"{profile}.json").is_file():
        shutil.copy2(out / "results.json", site / "results" / f"{profile}.json")
    (site / "scores").mkdir()  # of every picture, for those who want to compute with them
    for file in (*out.glob("*.parquet"), *out.glob("evaluation.parquet/*")):
        if file.is_file():
            shutil.copy2(file, site / "scores")
    shutil.copy2(ROOT / "profiles" / f"{profile}.yaml", site / "profile.yaml")
    gallery.stage(out, site)
    return site


def write_page_data(profile: str, site: Path) -> None:
    """Put what the landing page and the explorer read beside their scripts; a site of real people gets none of it."""
    settings = yaml.safe_load((site / "profile.yaml").read_text(encoding="utf-8"))
    if settings.get("dataset") == "synthetic" and not settings.get("shows_real_people", True):
        for name in ("explore", "landing"):
            folder = site / "book" / "_static" / name
            command = [
                sys.executable,
                str(ROOT / "book" / "page" / f"{name}.py"),
                "--profile",
                profile,
                "--folder",
                str(folder),
            ]
            subprocess.run(command, check=True)


def build_site(profile: str) -> None:
    """Build ``_build/<profile>/html`` with nitpicks and warnings as errors, always from nothing.

    A second build over a failed one would not repeat the warnings of the pages that it takes over, and pass.
    """
    site = stage_site(profile)
    write_page_data(profile, site)
    command = "from jupyter_book.cli.main import main; main()"
    build = [sys.executable, "-c", command, "build", "-W", "-n", "--keep-going", "-q", str(site)]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)  # warnings and errors go to stderr
    html = site.parent / "html"
    shutil.rmtree(html, ignore_errors=True)
    shutil.move(site / "_build" / "html", html)
    repository = publishing.repository(yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8")))
    for path in (html / "_sources").rglob("*.ipynb"):
        folder = path.parent.relative_to(html / "_sources").as_posix()
        for_download(path, TO_RUN.format(repository=repository, folder=folder))
    print(f"The site is built, without a warning: {html / 'index.html'}", flush=True)


def write_scores(profile: str) -> None:
    """Keep the scores of single pictures for the site of another profile, to three decimals: no names and no files.

    The falls against single rivals are left out, and what follows from the others.
    """
    import pandas  # which the other commands do without

    rows = pandas.read_parquet(build_root() / profile / "evaluation.parquet")
    kept = "drop_points|prediction_change|margin_drop|lead_drop"
    scores = [name for name in rows.columns.astype(str) if re.fullmatch(f"(deletion|retention)_({kept})", name)]
    rows = rows[[name for name in SCORES_OF if name in rows] + scores]
    floats = rows.select_dtypes("float").columns
    rows = rows.assign(**rows[floats].round(3).astype("float32"))
    rows.to_parquet(ROOT / "results" / profile / "scores.parquet", compression="zstd", index=False)


def for_download(path: Path, to_run: str) -> None:
    """Make a page's download ready to be run: without outputs, which weigh most; `to_run` below its title."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].source = re.sub(r"\A# .*", lambda title: f"{title[0]}\n\n{to_run}", notebook.cells[0].source)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, path)


def main() -> None:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("preflight", "run", "gallery", "site", "publishable", "times", "scores"):
        commands.add_parser(name).add_argument(
            "profile", choices=[path.stem for path in sorted(ROOT.glob("profiles/*.yaml"))]
        )
    commands.choices["gallery"].add_argument("page", nargs="*")
    commands.choices["run"].add_argument("notebook", nargs="*", default=[path.stem for path in sources()])
    args = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal has no letters for
    if args.command in ("run", "gallery"):
        for name, value in kernel_environment().items():
            os.environ.setdefault(name, str(value))
    try:
        if args.command == "run":
            for notebook in args.notebook:
                run(args.profile, notebook)
        elif args.command == "preflight":
            preflight(args.profile)
        elif args.command == "gallery":
            make_gallery(args.profile, args.page)
        elif args.command == "site":
            build_site(args.profile)
        elif args.command == "times":
            write_times(args.profile)
        elif args.command == "scores":
            write_scores(args.profile)
        else:
            publishing.require_publishable(args.profile)
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on with what is missing")
    except (FileNotFoundError, ValueError, PapermillExecutionError, solutions.SolutionError) as error:
        sys.exit(str(error))
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)


if __name__ == "__main__":
    main()

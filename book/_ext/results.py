"""Numbers in the prose, read from results files while the site is built; a missing number fails the build.

Role::

    {result}`this:test.accuracy|ci`                                           96.7 [93.3, 100.0]
    {result}`facescrub12:methods.sdd.black.deletion.drop_points|.0f`          62
    {result}`quick/other_explainers:-sdd_sum_minus.black.disc.retention|ci.2` 0.52 [-0.09, 1.22]
    {result}`quick/ground_truth:over_networks.family.sdd.concordance_mass|pairs` 82 of 100

The source is ``this`` (results.json of the profile that is being built), ``this/<name>`` (another of its JSON
artefacts) or the name of a file in ``results/``; then come the path of keys and a format: ``ci`` for a value with its
95 % interval (``ci.2``: with two decimals), ``pairs`` for a concordance as the pairs of 100 that are in the right order
(a tie is half in it), any format of Python for the value alone, nothing for a text, a list of texts or a whole number.
A minus sign before the path turns a difference round, ends and all, so that plus is good where less was better: this
holds for every path below.

Directives: ``{results-table}`` sets every map and control beside each other, ``{paper-table}`` sets SDD and the random
map beside the paper's values. Both take a source, and ``:fill:``. ``{claims-table}`` takes several sources and asks
each whether it bears out the paper's claims. ``{runs-table}`` takes several sources and sets how each was trained, with
its test accuracy, beside the paper. ``{seeds-table}`` takes several runs that differ in the seed of the fine-tuning and
sets their confidence drops beside each other. ``{verdict-table}`` asks the questions of its body of several runs; see
there. Each takes ``:caption:`` and ``:name:``, so that ``{numref}`` can refer to it. ``{scores-list}`` offers the
tables with a row for each picture, region and network: those of this build, and those of photographs.

The extension reads from the folder of the Sphinx sources: ``results.json``, ``results/*.json``, ``profile.yaml``,
``scores/*.parquet`` and ``results/*/scores.parquet``.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.parquet
import yaml
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from xfrlib.intervals import Interval
from xfrlib.profile import project_root
from xfrlib.tables import METHODS, SIGN, in_text, verdict

sys.path.append(str(project_root() / "notebooks"))  # the paper's numbers are the chapters'
from studies.paper import AGREEMENT, MEASURES, PAPER

logger = logging.getLogger(__name__)

LONGEST_WHOLE = 36  # letters that a phone has room for in one line
BANNER = "Built from pictures of real people: for private study, not for publication."
QUOTED = "quick"  # the profile of made faces whose numbers the pages around the chapters quote
OTHER = (
    '<span class="other-runs">The chapters of this site were run as “{title}”. '
    "The other pages quote the runs with the profile quick.</span>"
)

# What the table of runs shows: label -> path, format, and what the paper says (arXiv 2505.03837).
RUN_FACTS = {
    "people": ("identities", "", "530"),
    "test pictures": ("images.test", "", "4494"),
    "backbone": ("fine_tuning.backbone", "", "IR-ResNet100"),
    "pretrained weights": ("fine_tuning.checkpoint_source", "", "AdaFace, WebFace12M"),
    "learning rate": ("settings.learning_rate", "g", "0.005"),
    "epochs": ("fine_tuning.epochs", "", "20"),
    "epoch kept": ("fine_tuning.best_epoch", "", "not stated"),
    "precision of training": ("fine_tuning.precision", "", "not stated"),
    "trained on": ("fine_tuning.device", "", "not stated"),
    "processes": ("fine_tuning.processes", "", "not stated"),
    "training with validation, seconds": ("fine_tuning.seconds", ".0f", "not stated"),
    "seed": ("seed", "", "not stated"),
    "commit": ("provenance.commit", "", ""),
    "test accuracy, %": ("test.accuracy", "ci", "96.33"),
}


class ResultError(Exception):
    """A number that the text asks for and the results do not hold; the message says what there is."""


def results_file(folder: Path, source: str) -> Path:
    """Path of a results file: ``this`` and ``this/<name>`` are of the profile, any other is a file of ``results/``."""
    if source.startswith("this/"):
        return folder / f"artefacts/{source.removeprefix('this/')}.json"
    return folder / ("results.json" if source == "this" else f"results/{source}.json")


def load_results(folder: Path, source: str) -> dict[str, Any]:
    """Read a results file. Raises `ResultError` naming the files there are."""
    path = results_file(folder, source)
    if not path.is_file():
        found = [path.with_suffix("") for path in (folder / "results").rglob("*.json")]
        known = ", ".join(sorted(path.relative_to(folder / "results").as_posix() for path in found)) or "none"
        raise ResultError(f"there are no results {source!r}; besides 'this' there are: {known}")
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def lookup(results: dict[str, Any], path: str) -> Any:
    """The node at a dotted path; with a minus sign before it, the number there with its sign turned round.

    Raises `ResultError` naming the first key that is missing and its neighbours, or what has no sign to turn.
    """
    if path.startswith("-"):
        return turned(lookup(results, path.removeprefix("-")))
    node: Any = results
    for key in path.split("."):
        if not isinstance(node, dict) or key not in node:
            known = ", ".join(node) if isinstance(node, dict) else "nothing below it"
            raise ResultError(f"the results have no {path!r}: {key!r} is missing; there is: {known}")
        node = node[key]
    return node


def measured(node: Any) -> Interval | None:
    """A measured number of the results, with NaN where nothing varied, so that it has no interval; None for others."""
    if not (isinstance(node, dict) and node.keys() >= set(Interval._fields) and isinstance(node["value"], int | float)):
        return None
    return Interval(*(math.nan if node[name] is None else node[name] for name in Interval._fields))


def turned(node: Any) -> dict[str, Any]:
    """A measured difference with the other sign, and what else its node says of it, such as its verdict."""
    if measured(node) is None:
        raise ResultError(f"{node!r} is no number with its interval, so that it has no sign to turn round")
    value, low, high = (None if node[end] is None else 0 - node[end] for end in ("value", "high", "low"))
    return {**node, "value": value, "low": low, "high": high}


def text_of(node: Any, form: str = "") -> str:
    """Write a node of the results: ``ci`` gives ``62.1 [58.0, 66.0]``, a Python format the value alone.

    A percent sign stands after a no-break space.
    """
    found, digits = measured(node), re.fullmatch(r"ci(?:\.(\d))?", form)
    if digits and found:
        return in_text(found, int(digits[1] or 1))
    value = node["value"] if found else node
    if isinstance(value, list) and not form and all(isinstance(name, str) for name in value):
        return ", ".join(value) or "none"
    if isinstance(value, dict | list) or value is None or (isinstance(value, float) and not form) or digits:
        raise ResultError(f"{value!r} cannot be written with the format {form!r}")
    if form == "pairs":
        return f"{50 * (1 + value):.0f} of 100"
    try:
        text = format(value, form)
    except ValueError as error:
        raise ResultError(f"{value!r} cannot be written with the format {form!r}: {error}") from error
    return re.sub(r"%$", "\u00a0%", text.replace("-", "−")) if isinstance(value, int | float) else text


def judged_text(node: dict[str, Any], words: Sequence[str], digits: int = 1) -> str:
    """A difference as ``agrees: 4.0 [1.0, 7.0]``: its own verdict or, if it has none, one of `words`; its interval."""
    found = measured(node)
    if found is None:
        raise ResultError(f"{node!r} is not a number with its interval")
    return f"{node.get('verdict') or verdict(found, words)}: {in_text(found, digits)}"


def read(folder: Path, text: str) -> str:
    """Resolve ``source:path|format``. Raises `ResultError`."""
    address, _, form = text.partition("|")
    source, colon, path = address.strip().partition(":")
    if not colon:
        raise ResultError(f"{text!r} must read source:path|format, for example this:test.accuracy|ci")
    return text_of(lookup(load_results(folder, source), path), form.strip())


def method_rows(results: dict[str, Any], fill: str, kind: str, methods: Iterable[str] = ()) -> list[list[str]]:
    """Head and rows of a table: one row per map or control, one column per measure, each with its interval."""
    names = list(methods) or list(lookup(results, "methods"))
    rows = [["", *MEASURES.values()]]
    for name in names:
        values = lookup(results, f"methods.{name}.{fill}.{kind}")
        rows.append([METHODS.get(name, name.replace("_", " ")), *(text_of(lookup(values, m), "ci") for m in MEASURES)])
    return rows


def paper_rows(results: dict[str, Any], fill: str) -> list[list[str]]:
    """Head and rows of the comparison with the paper, the verdict from SDD's paired gain over the random map."""
    rows = [
        ["", "SDD, paper", "SDD, ours", "random, paper", "random, ours", "as in the paper? gain of SDD over random"]
    ]
    for (kind, measure), (sdd, random) in PAPER.items():
        ours = [text_of(lookup(results, f"methods.{m}.{fill}.{kind}.{measure}"), "ci") for m in ("sdd", "random_map")]
        gain = lookup(results, gain_over_random(fill, kind, measure))
        label = f"{kind}, {MEASURES[measure]}: {'higher' if SIGN[kind] > 0 else 'lower'} is better"
        rows.append([label, f"{sdd:.2f}", ours[0], f"{random:.2f}", ours[1], judged_text(gain, AGREEMENT)])
    return rows


def gain_over_random(fill: str, kind: str, measure: str) -> str:
    """The path of what SDD gains on the random map: its difference, turned where less is better."""
    return f"{'-' if SIGN[kind] < 0 else ''}differences.sdd_minus_random_map.{fill}.{kind}.{measure}"


def claim_rows(runs: Iterable[dict[str, Any]], fill: str) -> list[list[str]]:
    """Head and rows of the paper's claims, SDD better than random regions, and what each run says of them.

    A verdict is that of the paired gain: "agrees" if its interval lies on the paper's side, above zero.
    """
    runs = list(runs)
    rows = [["gain of SDD over random, points", "the paper", *(text_of(lookup(run, "profile")) for run in runs)]]
    for (kind, measure), (sdd, random) in PAPER.items():
        cells = [judged_text(lookup(run, gain_over_random(fill, kind, measure)), AGREEMENT) for run in runs]
        rows.append([f"{kind}, {MEASURES[measure]}", text_of(SIGN[kind] * (sdd - random), ".1f"), *cells])
    return rows


def run_rows(runs: Iterable[dict[str, Any]]) -> list[list[str]]:
    """Head and rows of the table of runs: the paper's column, then one for each results file, named by its profile."""
    runs = list(runs)
    rows = [["", "the paper", *(text_of(lookup(run, "profile")) for run in runs)]]
    for label, (path, form, paper) in RUN_FACTS.items():
        found = (lookup(run, path) for run in runs)
        rows.append([label, paper, *("none" if node is None else _breakable(text_of(node, form)) for node in found)])
    return rows


def seed_rows(runs: Iterable[dict[str, Any]], fill: str) -> list[list[str]]:
    """Head and rows of the table of seeds: accuracy, confidence drops, and SDD's gains, a column for each run."""
    runs = list(runs)
    facts = {"test accuracy, %": "test.accuracy"}
    for kind, sign in SIGN.items():
        drop = f"{fill}.{kind}.drop_points"
        facts |= {f"{kind}: {METHODS[name]}": f"methods.{name}.{drop}" for name in ("sdd", "cam", "disc", "random_map")}
        facts |= {
            f"{kind}: gain of SDD over {METHODS[name]}": f"{'-' if sign < 0 else ''}differences.sdd_minus_{name}.{drop}"
            for name in ("cam", "disc", "random_map")
        }
    rows = [["confidence drop, points", *(f"seed {text_of(lookup(run, 'seed'))}" for run in runs)]]
    return rows + [[label, *(text_of(lookup(run, path), "ci") for run in runs)] for label, path in facts.items()]


def _breakable(text: str) -> str:
    """Names of files, hubs and commits, with places where a narrow column may break them (zero-width spaces)."""
    return re.sub(r"(?<=[_/@+])(?=\w)", "\u200b", text)


def _cell(text: str) -> nodes.entry:
    parts = re.split(r"(\[.*?\])", text)  # an interval stays on one line
    inlines = (nodes.inline("", part, classes=["result"] if part.startswith("[") else []) for part in parts if part)
    return nodes.entry("", nodes.paragraph("", "", *inlines))


def table_node(rows: list[list[str]]) -> nodes.table:
    """A docutils table from rows of text, the first of them its head."""
    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in rows[0]), cols=len(rows[0]))
    for wrap, part in ((nodes.thead, rows[:1]), (nodes.tbody, rows[1:])):
        group += wrap("", *(nodes.row("", *map(_cell, row)) for row in part))
    return nodes.table("", group, classes=["results"])


class ResultRole(SphinxRole):
    """``{result}`source:path|format```: one number in the text."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        folder = Path(self.env.srcdir)
        self.env.note_dependency(str(results_file(folder, self.text.partition(":")[0])))
        try:
            shown = read(folder, self.text)
            whole = ["result"] if len(shown) <= LONGEST_WHOLE else []  # not broken at the end of a line
            return [nodes.inline(self.rawtext, shown, classes=whole)], []
        except ResultError as error:
            logger.warning("result: %s", error, location=self.get_location())
            return [nodes.problematic(self.rawtext, "missing result")], []


class _CaptionedTable(SphinxDirective):
    """A table with the options ``:caption:`` and ``:name:``; one without a caption gets no number."""

    CAPTIONED: ClassVar = {"caption": directives.unchanged_required, "name": directives.unchanged_required}
    final_argument_whitespace = True
    option_spec: ClassVar = CAPTIONED

    def captioned(self, rows: list[list[str]]) -> list[nodes.Node]:
        """The table of the rows, below its caption."""
        table = table_node(rows)
        if "caption" in self.options:
            words, messages = self.state.inline_text(self.options["caption"], self.lineno)
            table.insert(0, nodes.title(self.options["caption"], "", *words))
            self.add_name(table)
            return [table, *messages]
        return [table]


class _TableDirective(_CaptionedTable):
    optional_arguments = 1
    option_spec: ClassVar = {
        **_CaptionedTable.CAPTIONED, "fill": directives.unchanged, "methods": directives.unchanged,
    }  # fmt: skip

    def rows(self, results: dict[str, Any], fill: str) -> list[list[str]]:
        raise NotImplementedError

    def table(self, runs: list[dict[str, Any]]) -> list[list[str]]:
        return self.rows(runs[0], self.options.get("fill", "black"))

    def run(self) -> list[nodes.Node]:
        folder, sources = Path(self.env.srcdir), (self.arguments or ["this"])[0].split()
        for source in sources:
            self.env.note_dependency(str(results_file(folder, source)))
        try:
            return self.captioned(self.table([load_results(folder, source) for source in sources]))
        except ResultError as error:
            logger.warning("%s: %s", self.name, error, location=self.get_location())
            return []


class ResultsTable(_TableDirective):
    """``{results-table} source`` with ``:kind: deletion`` or ``retention``: every map and control."""

    option_spec: ClassVar = {
        **_TableDirective.option_spec,
        "kind": lambda text: directives.choice(text, ("deletion", "retention")),
    }

    def rows(self, results: dict[str, Any], fill: str) -> list[list[str]]:
        return method_rows(results, fill, self.options.get("kind", "deletion"), self.options.get("methods", "").split())


class PaperTable(_TableDirective):
    """``{paper-table} source``: SDD and the random map beside the paper's values, with a verdict."""

    def rows(self, results: dict[str, Any], fill: str) -> list[list[str]]:
        return paper_rows(results, fill)


def question_rows(folder: Path, runs: dict[str, str], lines: Iterable[str]) -> list[list[str]]:
    """Head and rows of a table of questions: a column for each run, an interval and a verdict in each cell.

    A line reads ``question | file:path``, the file being one of each run's (``this/<file>``, ``<run>/<file>``). A run
    that has no such file at all answers "not measured"; a missing key in a file raises `ResultError`. The verdict is
    the node's own, if it has one, else "yes" or "no" as the interval lies above or below zero, or "undecided".
    """
    rows = [["", *runs]]
    for line in lines:
        question, _, address = line.partition("|")
        file, colon, path = address.strip().partition(":")
        if not colon:
            raise ResultError(f"{line!r} must read question | file:path")
        cells = []
        for run in runs.values():
            if not results_file(folder, f"{run}/{file}").is_file():
                cells.append("not measured")
                continue
            node = lookup(load_results(folder, f"{run}/{file}"), path)
            cells.append(judged_text(node, ("yes", "no", "undecided"), 2))
        rows.append([question.strip(), *cells])
    return rows


class VerdictTable(_CaptionedTable):
    """``{verdict-table} this facescrub12`` with ``:names: made faces, FaceScrub`` and a question a line."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar = {**_CaptionedTable.CAPTIONED, "names": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        folder, sources = Path(self.env.srcdir), self.arguments[0].split()
        names = [name.strip() for name in self.options.get("names", self.arguments[0].replace(" ", ",")).split(",")]
        for path in folder.glob("results/*/*.json"):
            self.env.note_dependency(str(path))
        try:
            return self.captioned(question_rows(folder, dict(zip(names, sources, strict=True)), self.content))
        except (ResultError, ValueError) as error:
            logger.warning("%s: %s", self.name, error, location=self.get_location())
            return []


class ScoresList(SphinxDirective):
    """``{scores-list}``: links to the tables of single pictures, with their numbers of rows."""

    def run(self) -> list[nodes.Node]:
        folder, items = Path(self.env.srcdir), nodes.bullet_list()
        for file in (*sorted(folder.glob("scores/*.parquet")), *sorted(folder.glob("results/*/scores.parquet"))):
            path, rows = file.relative_to(folder), pyarrow.parquet.read_metadata(file).num_rows
            name = path.name if path.parts[0] == "scores" else "/".join(path.parts[1:])
            link = addnodes.download_reference("", "", nodes.literal("", name), reftarget=f"/{path.as_posix()}")
            link["refdoc"] = self.env.docname
            said = f": {rows:_} rows, {file.stat().st_size / 1e3:_.0f} kB".replace("_", "\u202f")
            items += nodes.list_item("", nodes.paragraph("", "", link, nodes.Text(said)))
        return [items] if items.children else []


class RunsTable(_TableDirective):
    """``{runs-table} source source ...``: how each run was trained, and its test accuracy, beside the paper."""

    option_spec: ClassVar = _CaptionedTable.CAPTIONED

    def table(self, runs: list[dict[str, Any]]) -> list[list[str]]:
        return run_rows(runs)


class ClaimsTable(_TableDirective):
    """``{claims-table} source source ...``: whether each run bears out what the paper says of random regions."""

    def table(self, runs: list[dict[str, Any]]) -> list[list[str]]:
        return claim_rows(runs, self.options.get("fill", "black"))


class SeedsTable(_TableDirective):
    """``{seeds-table} source source ...``: runs that differ in the seed of the fine-tuning."""

    def table(self, runs: list[dict[str, Any]]) -> list[list[str]]:
        return seed_rows(runs, self.options.get("fill", "black"))


def read_profile(app: Sphinx) -> None:
    """Set the tag ``real_people``, and a banner on every page when the profile shows real people or is not `QUOTED`."""
    profile = yaml.safe_load((Path(app.srcdir) / "profile.yaml").read_text(encoding="utf-8"))
    quoted = yaml.safe_load((project_root() / "profiles" / f"{QUOTED}.yaml").read_text(encoding="utf-8"))
    if profile.get("dataset") == "synthetic" and not profile.get("shows_real_people", True):
        app.tags.add("made_faces")
    banner = ""
    if profile.get("shows_real_people", True):
        app.tags.add("real_people")
        banner = BANNER
    elif "title" in profile and profile != quoted:
        banner = OTHER.format(title=escape(profile["title"]))
    if banner:
        app.connect("config-inited", partial(_set_banner, banner))


def _set_banner(banner: str, app: Sphinx, config: Any) -> None:
    config.html_theme_options = {**config.html_theme_options, "announcement": banner}


def drop_thebe(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Take the scripts of Thebe out of a page: nothing uses them, and Sphinx writes one of them twice, an error."""
    context["script_files"] = [
        script
        for script in context.get("script_files", [])
        if "thebe" not in f"{script} {getattr(script, 'attributes', {}).get('body', '')}".lower()
    ]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the role and the directives, and read the profile."""
    read_profile(app)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.add_role("result", ResultRole())
    app.add_directive("results-table", ResultsTable)
    app.add_directive("paper-table", PaperTable)
    app.add_directive("runs-table", RunsTable)
    app.add_directive("seeds-table", SeedsTable)
    app.add_directive("claims-table", ClaimsTable)
    app.add_directive("verdict-table", VerdictTable)
    app.add_directive("scores-list", ScoresList)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

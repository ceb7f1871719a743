"""Tables of how fast the project is, from the results of ``make bench``.

``{speed-table} benchmarks`` with ``:beside: passes`` sets each work beside the forward passes that it is made of, with
``:beside: neighbours`` beside other libraries, and with ``:beside: parts`` it says what takes how much of it. It takes
``:caption:`` and ``:name:``, so that ``{numref}`` can refer to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util import logging

from results import ResultError, _CaptionedTable, load_results, lookup, results_file, show

logger = logging.getLogger(__name__)

KINDS = ("passes", "neighbours", "parts")
_HEADS = {
    "passes": ["work", "network", "beside", "milliseconds", "ours, times as long", "aim: at most"],
    "neighbours": ["work", "network", "beside", "milliseconds", "theirs, times as long as ours", "aim: at least"],
    "parts": ["work", "network", "what takes the time", "percent of it"],
}


def speed_rows(results: dict[str, Any], kind: str) -> list[list[str]]:
    """Head and rows of a table: a row for each work and what it is held against, or what it consists of."""
    rows = [_HEADS[kind]]
    for work in lookup(results, "works").values():
        first = [f"{show(work['title'])}; pictures: {show(work['pictures'])}", show(work["network"])]
        rows += [[*first, *cells] for cells in (_parts(work) if kind == "parts" else _beside(work, kind))]
    return rows


def _parts(work: dict[str, Any]) -> Iterator[list[str]]:
    for name, part in lookup(work, "parts").items():
        yield [show(name), show(lookup(part, "percent"), ".1f")]


def _beside(work: dict[str, Any], kind: str) -> Iterator[list[str]]:
    for row in lookup(work, kind).values():
        title, aim = show(row["title"]), lookup(row, "aim") if row["installed"] else None
        if not row["installed"]:
            yield [title, "not installed", "", ""]
            continue
        both = [show(1000 * lookup(node, "seconds.median"), ".1f") for node in (work, row)]
        middle, low, high = (
            show(lookup(row, f"ratio.{name}"), ".2f") for name in ("median", "lower_quartile", "upper_quartile")
        )
        said = "" if aim is None else f"{show(aim, '.2f')}: {'met' if row['met'] else 'missed'}"
        yield [title, f"{both[0]} and {both[1]}", f"{middle} [{low}, {high}]", said]


class SpeedTable(_CaptionedTable):
    """``{speed-table} source`` with ``:beside:``; see the top of this file."""

    required_arguments = 1
    option_spec: ClassVar = {
        **_CaptionedTable.CAPTIONED, "beside": lambda text: directives.choice(text, KINDS),
    }  # fmt: skip

    def run(self) -> list[nodes.Node]:
        folder, source = Path(self.env.srcdir), self.arguments[0]
        self.env.note_dependency(str(results_file(folder, source)))
        try:
            return self.captioned(speed_rows(load_results(folder, source), self.options.get("beside", "passes")))
        except ResultError as error:
            logger.warning("%s: %s", self.name, error, location=self.get_location())
            return []


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("speed-table", SpeedTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

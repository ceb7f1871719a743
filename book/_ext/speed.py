"""Tables of how fast the project is, from the results of ``make bench``.

``{speed-table} benchmarks`` with ``:beside: passes`` sets each work beside the forward passes that it is made of, with
``:beside: neighbours`` beside other libraries, and with ``:beside: parts`` it says what takes how much of it; with
``:beside: rates`` how many pictures a second are made. ``{speed-table} make`` with ``:beside: cells`` sets what a whole
book costs beside the cells of its notebooks. All take ``:caption:`` and ``:name:``, for ``{numref}`` to refer to them.

``{speed-table} size`` with ``:beside: sizes`` and ``{size-figure} size``, which takes ``:alt:`` as well, show how cost
grows with size. A part that the file lacks is not measured yet, and both say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from forest import ACCENT, INK, MUTED, STYLE, as_figure, in_colours_of_the_page
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from results import ResultError, _CaptionedTable, load_results, lookup, results_file, text_of

logger = logging.getLogger(__name__)

KINDS = ("passes", "neighbours", "parts", "rates", "sizes", "cells")
NOT_YET = "not measured yet"
_HEADS = {
    "passes": ["work", "network", "beside", "milliseconds", "ours, times as long", "aim: at most"],
    "neighbours": ["work", "network", "beside", "milliseconds", "theirs, times as long as ours", "aim: at least"],
    "parts": ["work", "network", "what takes the time", "percent of it"],
    "rates": ["work", "pictures a second", "aim: at least"],
    "sizes": ["what grows", "from", "to", "what was measured", "at the smallest", "at the largest"],
    "cells": ["before make book", "seconds of make", "in which a cell ran", "the others", "aim: at most"],
}
_PANELS = {
    "classes": ("classes of the head", "milliseconds"),
    "cells": ("cells a side of the map", "milliseconds"),
    "pictures": ("pictures judged", "MiB at the peak"),
    "processes": ("processes", "milliseconds of a step"),
}
_WAYS = {"explain": ("D-", ACCENT, "explain"), "bare": ("o--", INK, "the bare pass")}


def speed_rows(results: dict[str, Any], kind: str) -> list[list[str]]:
    """Head and rows of a table: a row for each work and what it is held against, or what it consists of."""
    rows = [_HEADS[kind]]
    if kind in _OTHERS:
        return rows + list(_OTHERS[kind](results))
    for work in lookup(results, "works").values():
        first = [f"{text_of(work['title'])}; pictures: {text_of(work['pictures'])}", text_of(work["network"])]
        rows += [[*first, *cells] for cells in (_parts(work) if kind == "parts" else _beside(work, kind))]
    return rows


def _parts(work: dict[str, Any]) -> Iterator[list[str]]:
    for name, part in lookup(work, "parts").items():
        yield [text_of(name), text_of(lookup(part, "percent"), ".1f")]


def _beside(work: dict[str, Any], kind: str) -> Iterator[list[str]]:
    for row in lookup(work, kind).values():
        title, aim = text_of(row["title"]), lookup(row, "aim") if row["installed"] else None
        if not row["installed"]:
            yield [title, "not installed", "", ""]
            continue
        both = [text_of(1000 * lookup(node, "seconds.median"), ".1f") for node in (work, row)]
        middle, low, high = (
            text_of(lookup(row, f"ratio.{name}"), ".2f") for name in ("median", "lower_quartile", "upper_quartile")
        )
        said = "" if aim is None else f"{text_of(aim, '.2f')}: {'met' if row['met'] else 'missed'}"
        yield [title, f"{both[0]} and {both[1]}", f"{middle} [{low}, {high}]", said]


def _rates(results: dict[str, Any]) -> Iterator[list[str]]:
    for work in lookup(results, "works").values():
        if "rate" in work:
            numbers = ("median", "lower_quartile", "upper_quartile", "aim")
            middle, low, high, aim = (text_of(lookup(work["rate"], name), ".0f") for name in numbers)
            said = "met" if work["rate"]["met"] else "missed"
            yield [text_of(work["title"]), f"{middle} [{low}, {high}]", f"{aim}: {said}"]
    for name, why in lookup(results, "left_out").items():
        yield [name, text_of(why), ""]


def _cells(results: dict[str, Any]) -> Iterator[list[str]]:
    for case in lookup(results, "cases").values():
        title, aim = text_of(case["title"]), text_of(lookup(case, "aim"), ".0f")
        if not case["measured"]:
            yield [title, NOT_YET, "", "", aim]
            continue
        seconds = [text_of(lookup(case, name), ".1f") for name in ("seconds", "cells", "overhead")]
        yield [title, *seconds, f"{aim}: {'met' if case['met'] else 'missed'}"]


def _sizes(results: dict[str, Any]) -> Iterator[list[str]]:
    for part, (title, _) in _PANELS.items():
        if part not in results:
            yield [title, "", "", NOT_YET, "", ""]
            continue
        found = results[part]
        ends = [lookup(found, "least"), lookup(found, "most")]
        first = [title, *(text_of(end["count"]) for end in ends)]
        if part == "pictures":
            yield [*first, "MiB at the peak", *(text_of(end["mebibytes"], ".0f") for end in ends)]
            killed = lookup(found, "resumed")
            said = (
                f"the table of a run that was killed after {killed['finished_before']} of {killed['batches']} batches"
            )
            yield ["", "", "", f"{said} and resumed", "", f"{killed['compared']} that of an undisturbed run"]
        elif part == "processes":
            times = (text_of(1000 * lookup(end, "seconds.median"), ".0f") for end in ends)
            yield [*first, f"milliseconds of a step of {text_of(found['pictures'])} pictures", *times]
        else:
            three = ("median", "lower_quartile", "upper_quartile")
            ratios = ([text_of(end["ratio"][name], ".2f") for name in three] for end in ends)
            both = f"{text_of(found['network'])}, {text_of(found['pictures'])} pictures: "
            both += "explain, times as long as the bare pass"
            yield [*first, both, *(f"{middle} [{low}, {high}]" for middle, low, high in ratios)]
            memory = (" and ".join(text_of(end[way]["mebibytes"], ".0f") for way in _WAYS) for end in ends)
            yield ["", "", "", "MiB of explain and of the bare pass, beyond the network", *memory]


_OTHERS = {"rates": _rates, "sizes": _sizes, "cells": _cells}


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


def draw_size(results: dict[str, Any]) -> str:
    """Four panels as an SVG in the colours of the page: cost by classes, cells, pictures and processes."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 6.4), layout="constrained")
        for panel, (part, (across, up)) in zip(figure.subplots(2, 2).flat, _PANELS.items(), strict=True):
            panel.set_title("" if part in results else f"{across}: {NOT_YET}", color=INK, fontsize=10)
            if part not in results:
                panel.set_axis_off()
                continue
            found = results[part]
            lines = dict(_pictures(found) if part == "pictures" else _times(found))
            for label, (mark, colour, points) in lines.items():
                counts, values = ([point[i] for point in points] for i in (0, 1))
                if len(points[0]) > 2:
                    panel.vlines(counts, *([point[i] for point in points] for i in (2, 3)), color=colour)
                panel.plot(counts, values, mark, color=colour, markersize=5, markerfacecolor="none", label=label)
            panel.set_xscale("log")
            counts = sorted({point[0] for _, _, points in lines.values() for point in points})
            panel.set_xticks(counts, [f"{count:,}".replace(",", "\N{THIN SPACE}") for count in counts])
            panel.xaxis.set_minor_locator(NullLocator())
            panel.set_ylim(0, 1.2 * max(max(point[1:]) for _, _, points in lines.values() for point in points))
            panel.set_xlabel(across, color=INK)
            panel.set_ylabel(up, color=INK)
            panel.tick_params(colors=INK)
            for side, spine in panel.spines.items():
                spine.set_visible(side in ("bottom", "left"))
                spine.set_color(MUTED)
            panel.legend(frameon=False, labelcolor=INK, fontsize=9, loc="best")
        return in_colours_of_the_page(figure)


Line = tuple[str, str, list[tuple[float, ...]]]  # mark, colour, and its points: count, value, and maybe quartiles


def _times(found: dict[str, Any]) -> Iterator[tuple[str, Line]]:
    """Milliseconds of each way, or of what was measured and what was projected from it, with quartiles."""
    rows = found["rows"]
    if "projection" in found:
        yield "measured", ("D-", ACCENT, [_milliseconds(count, row) for count, row in rows.items()])
        yield "projected, not measured", ("o:", MUTED, [(int(c), 1000 * r["seconds"]["median"])
                                                       for c, r in found["projection"].items()])  # fmt: skip
        return
    for way, (mark, colour, label) in _WAYS.items():
        yield label, (mark, colour, [_milliseconds(count, row[way]) for count, row in rows.items()])


def _milliseconds(count: str, row: dict[str, Any]) -> tuple[float, ...]:
    three = (1000 * lookup(row, f"seconds.{name}") for name in ("median", "lower_quartile", "upper_quartile"))
    return (int(count), *three)


def _pictures(found: dict[str, Any]) -> Iterator[tuple[str, Line]]:
    """Memory of runs left alone, and of the one that was killed and resumed."""
    peaks: list[tuple[float, ...]] = [(int(count), row["mebibytes"]) for count, row in found["rows"].items()]
    yield "undisturbed", ("D-", ACCENT, peaks)
    yield "killed and resumed", ("o", INK, [(found["resumed"]["count"], found["resumed"]["mebibytes"])])


class SizeFigure(SphinxDirective):
    """``{size-figure} source``; see the top of this file."""

    required_arguments = 1
    option_spec: ClassVar = dict.fromkeys(("name", "alt", "caption"), directives.unchanged_required)

    def run(self) -> list[nodes.Node]:
        folder, source = Path(self.env.srcdir), self.arguments[0]
        self.env.note_dependency(str(results_file(folder, source)))
        try:
            return as_figure(self, draw_size(load_results(folder, source)))
        except ResultError as error:
            logger.warning("%s: %s", self.name, error, location=self.get_location())
            return []


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("speed-table", SpeedTable)
    app.add_directive("size-figure", SizeFigure)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""A forest plot of differences between a map and others, drawn from results files while the site is built.

Directive::

    ```{forest-plot} quick facescrub12
    :names: made faces, FaceScrub
    :fills: black, blur
    :name: fig-forest
    :alt: ...
    :caption: ...
    a random map | deletion | other_explainers:sdd_sum_minus.{fill}.random_map.deletion
    a random map | retention | other_explainers:-sdd_sum_minus.{fill}.random_map.retention
    ```

A panel for each run; a line is a row: its group, its label, and where the difference stands in the files of each run,
with a minus sign before the path where less is better, so that plus is good in every row. Colours are those of the
page.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from results import ResultError, load_results, lookup, measured, results_file
from xfrlib.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)
# Drawn in colours that stand for those of the page, which a script of the reader may turn dark.
INK, MUTED, ACCENT = "#010203", "#040506", "#070809"
OF_THE_PAGE = {
    INK: "currentColor",
    MUTED: "var(--pst-color-text-muted, #666)",
    ACCENT: "var(--pst-color-primary, #06c)",
}
STYLES = (("o", INK), ("D", ACCENT))  # of the fills, in their order
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "forest",
    "font.family": "sans-serif",
    "font.size": 10,
}


class Point(NamedTuple):
    """A difference, plus being good, and whether it is certain: by its own verdict, or else by its interval."""

    found: Interval
    certain: bool


class Row(NamedTuple):
    """A row of the plot: the points of each run (outer) under each fill (inner)."""

    group: str
    label: str
    points: list[list[Point]]


def read_point(values: dict[str, Any], path: str) -> Point:
    """The point at a path of a results file. Raises `ResultError` where there is no number with its interval."""
    node = lookup(values, path)
    found = measured(node)
    if found is None:
        raise ResultError(f"{path!r} is no number with its interval")
    certain = node["verdict"] != "undecided" if node.get("verdict") else found.low > 0 or found.high < 0
    return Point(found, certain)


def read_rows(folder: Path, runs: list[str], fills: list[str], lines: list[str]) -> list[Row]:
    """The rows of the lines. Raises `ResultError` for a number that is not there and for a line of another form."""
    rows = []
    for line in lines:
        group, label, address = (part.strip() for part in [*line.split("|"), "", ""][:3])
        file, colon, path = address.partition(":")
        if not colon:
            raise ResultError(f"{line!r} must read group | label | file:path")
        files = [load_results(folder, f"{run}/{file}") for run in runs]
        points = [[read_point(values, path.format(fill=fill)) for fill in fills] for values in files]
        rows.append(Row(group, label, points))
    return rows


def forest_svg(rows: list[Row], names: list[str], fills: list[str]) -> str:
    """The plot as an SVG whose text is text and whose colours follow the page."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 0.36 * len(rows) + 1.1), layout="constrained")
        panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
        for number, (panel, name) in enumerate(zip(panels, names, strict=True)):
            panel.axvline(0, color=MUTED, linewidth=1)
            for kind, (fill, (marker, colour)) in enumerate(zip(fills, STYLES, strict=False)):
                places = [place + 0.18 * (2 * kind - 1) for place in range(len(rows))]
                points = [row.points[number][kind] for row in rows]
                values = [point.found.value for point in points]
                panel.hlines(places, [p.found.low for p in points], [p.found.high for p in points], color=colour)
                faces = [colour if point.certain else "none" for point in points]
                panel.scatter(values, places, 24, marker=marker, edgecolors=colour, facecolors=faces, zorder=3)
                panel.plot([], [], color=colour, marker=marker, markersize=5, label=fill)
            panel.set_title(name, color=INK, fontsize=11)
            panel.set_xlabel("gain in log-odds", color=INK)
            panel.tick_params(colors=INK, left=False)
            for side, spine in panel.spines.items():
                spine.set_visible(side == "bottom")
                spine.set_color(MUTED)
        starts = [place for place in range(1, len(rows)) if rows[place].group != rows[place - 1].group]
        for panel in panels:
            for place in starts:
                panel.axhline(place - 0.5, color=MUTED, linewidth=0.4)
        panels[0].set_yticks(range(len(rows)), [f"{row.group}: {row.label}" for row in rows])
        panels[0].invert_yaxis()
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=len(fills), frameon=False, labelcolor=INK)
        return in_colours_of_the_page(figure)


def in_colours_of_the_page(figure: Figure) -> str:
    """A figure in `STYLE` and in the colours that stand for those of the page, as an SVG in the page's own."""
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    svg = drawn.getvalue()
    for own, page in OF_THE_PAGE.items():
        svg = svg.replace(own, page)
    return re.sub(r"^.*?(?=<svg)", "", svg, flags=re.DOTALL)


def as_figure(directive: SphinxDirective, svg: str) -> list[nodes.Node]:
    """An SVG as the figure of a directive with the options ``:name:``, ``:alt:`` and ``:caption:``."""
    label = nodes.unescape(directive.options["alt"]).replace('"', "&quot;")
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
    words, messages = directive.state.inline_text(directive.options["caption"], directive.lineno)
    figure = nodes.figure("", nodes.raw("", f'<div class="forest-plot">{svg}</div>', format="html"))
    figure += nodes.caption(directive.options["caption"], "", *words)
    directive.add_name(figure)
    return [figure, *messages]


class ForestPlot(SphinxDirective):
    """See the top of this file."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True
    option_spec: ClassVar = dict.fromkeys(("names", "fills", "name", "alt", "caption"), directives.unchanged_required)

    def run(self) -> list[nodes.Node]:
        folder, runs = Path(self.env.srcdir), self.arguments[0].split()
        names, fills = ([part.strip() for part in self.options[key].split(",")] for key in ("names", "fills"))
        for run in runs:
            for line in self.content:
                file = line.split("|")[-1].strip().partition(":")[0]
                self.env.note_dependency(str(results_file(folder, f"{run}/{file}")))
        try:
            svg = forest_svg(read_rows(folder, runs, fills, list(self.content)), names, fills)
        except ResultError as error:
            logger.warning("forest-plot: %s", error, location=self.get_location())
            return []
        return as_figure(self, svg)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("forest-plot", ForestPlot)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

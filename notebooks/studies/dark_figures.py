"""Figures for a dark page: what is drawn on white, in tones that are as plain to see on the page's dark background.

Pictures, maps, colour bars and what is drawn over them stay as they are: their colours are what they show.

``%load_ext studies.dark_figures`` gives what a notebook shows of each figure its dark variant besides. Jupyter does not
know that kind of output; the site shows it (book/_ext/figures.py), so make runs the notebooks with it.
"""

from __future__ import annotations

import base64
import colorsys
import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.collections import Collection
from matplotlib.colors import to_hex, to_rgb, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text

MIME = "application/vnd.xfrlib.dark+"  # then "svg" or "webp"; programs that do not know it pass it over
BACKGROUND = "#121212"  # of the page in the dark (sphinx-book-theme)
INK = "#e4e9ed"
PALETTE = {  # of xfrlib.plots, lighter: each hue within 10 degrees, told apart in each kind of colour blindness
    "#0072b2": "#2e8bd8", "#d55e00": "#e8702a", "#009e73": "#10b083", "#cc79a7": "#db8ab8", "#e69f00": "#f2b533",
    "#56b4e9": "#8fd2f8", "#000000": INK,
}  # fmt: skip
TEXT_CONTRAST = 4.5  # the least that text needs, WCAG 2.2, 1.4.3
_COLOURS = ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor")


def load_ipython_extension(shell: Any) -> None:
    """Let each figure of `xfrlib.plots` that a notebook shows bring its dark variant along."""
    shell.display_formatter.mimebundle_formatter.for_type_by_name("xfrlib.plots", "ShownFigure", both_variants)


def both_variants(figure: Any) -> dict[str, Any]:
    """What a notebook shows of a figure of `xfrlib.plots`, and the same for a dark page as text."""
    light, dark = figure._repr_mimebundle_(), io.BytesIO()
    if "image/png" not in light:
        save_dark(figure, dark, "svg")
        return light | {f"{MIME}svg": dark.getvalue().decode()}
    save_dark(figure, dark, "webp")
    return light | {f"{MIME}webp": base64.b64encode(dark.getvalue()).decode()}


def save_dark(figure: Figure, target: Any, suffix: str = "") -> None:
    """`xfrlib.plots.save` in the colours for a dark page; ``name-dark.svg`` is shown in the place of ``name.svg``."""
    from xfrlib import (
        plots,
    )  # not above: make loads this before a notebook begins, and torch would come with it

    with plots.style(), in_the_dark(figure):
        plots.save(figure, target, suffix)


def luminance(colour: Any) -> float:
    """Relative luminance of a colour, 0 to 1 (WCAG 2.2)."""
    channels = np.asarray(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def contrast(first: Any, second: Any) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2.2)."""
    dim, bright = sorted((luminance(first), luminance(second)))
    return (bright + 0.05) / (dim + 0.05)


@cache
def on_dark(colour: Any, least: float = 1.0) -> tuple[float, float, float, float]:
    """The colour (RGBA) that stands for `colour` on the dark page.

    A colour of the palette has its partner. Any other keeps its hue and its contrast with the page, at least `least`:
    white becomes the background, a pale grey a dark one.
    """
    alpha, partner = to_rgba(colour)[3], PALETTE.get(to_hex(colour))
    if partner:
        return to_rgba(partner, alpha)
    wanted = min(max(contrast(colour, "white"), least), contrast(INK, BACKGROUND)) * (luminance(BACKGROUND) + 0.05)
    hue, _, saturation = colorsys.rgb_to_hls(*to_rgb(colour))
    shades = (colorsys.hls_to_rgb(hue, lightness, saturation) for lightness in np.linspace(0, 1, 256))
    return to_rgba(
        next((shade for shade in shades if luminance(shade) + 0.05 >= wanted), "white"),
        alpha,
    )


@contextmanager
def in_the_dark(figure: Figure) -> Iterator[None]:
    """Context manager: a figure that has been drawn in its colours for the dark page, put back at its end."""
    for axes in figure.axes:  # ticks come into being when they are asked for
        axes.get_xticklabels(which="both"), axes.get_yticklabels(which="both")
    kept, before = _kept(figure), []
    for artist in _artists(figure):
        if id(artist) not in kept:
            state = dict(vars(artist))
            _recolour(artist)
            before.append(
                (
                    artist,
                    {key: value for key, value in state.items() if vars(artist)[key] is not value},
                )
            )
    try:
        yield
    finally:
        for artist, state in before:
            vars(artist).update(state)


def _artists(figure: Figure) -> list[Any]:
    """All that has a colour of its own; the colours of a collection with values are a map's."""
    artists: list[Any] = figure.findobj(lambda artist: isinstance(artist, Line2D | Patch | Collection | Text))
    for text in figure.findobj(Text):
        artists += [part for part in (text.get_bbox_patch(), getattr(text, "arrow_patch", None)) if part]
    return [artist for artist in artists if not isinstance(artist, Collection) or artist.get_array() is None]


def _kept(figure: Figure) -> set[int]:
    """Identities of the artists over pictures and in colour bars, and of the keys that explain a picture's colours."""
    pictures = [axes for axes in figure.axes if axes.images or axes.get_label() == "<colorbar>"]
    legends = [axes.get_legend() for axes in pictures] + (figure.legends if pictures else [])
    kept: list[Artist] = [handle for legend in legends if legend for handle in legend.legend_handles if handle]
    for axes in pictures:
        inside = (text for text in axes.texts if axes.bbox.contains(*text.get_window_extent().corners().mean(axis=0)))
        kept += [*axes.lines, *axes.patches, *axes.collections, *inside]
    return {id(part) for artist in kept for part in artist.findobj()}


def _recolour(artist: Any) -> None:
    least = TEXT_CONTRAST if isinstance(artist, Text) else 1.0
    found = {name: getattr(artist, f"get_{name}")() for name in _COLOURS if hasattr(artist, f"get_{name}")}
    for name, colour in found.items():
        if np.ndim(colour) == 2:  # of a collection, a row for each of its members
            changed: Any = [on_dark(tuple(each), least) for each in colour]
        else:
            changed = on_dark(colour if isinstance(colour, str) else tuple(colour), least)
        getattr(artist, f"set_{name}")(changed)

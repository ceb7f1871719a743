"""Pictures, maps and any axes, in one style.

A figure made here, unknown to pyplot, shows once, where it ends a cell. Nothing here changes a global setting.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import torch
from cycler import cycler
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.text import Text
from torch import Tensor

Array = Tensor | npt.NDArray[Any]

WIDTH = 8.0  # inches; in the page's column of about 750 pixels, 10 points are then 13 pixels
DIVERGING = "RdBu_r"  # signed maps: red is evidence for, blue against; the colour-blind tell them apart
SEQUENTIAL = "viridis"  # maps from 0 up: perceptually uniform, readable in grey
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito
DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 2.5)))  # lines differ in grey
CAM_UNIT = "CAM (logit)"
HALVES = "; lines at half the scale, dashed below zero"
SDD_UNIT = "SDD (share of maximum)"
SPAN = 4.0  # powers of e between the lowest and the highest value of an SDD map that is drawn gently
_LOST = "No font here has these letters; install one that has, such as Noto:"
OPACITY = 0.85  # of a map over a picture where it is strongest; where it says nothing, the picture is as it is
_FONT = "DejaVu Sans"  # comes with matplotlib: the same on every machine; a font that the reader has set stays
_STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 10, "axes.labelsize": 10, "figure.titlesize": 11, "legend.fontsize": 9,
    "xtick.labelsize": 9, "ytick.labelsize": 9,
    "axes.prop_cycle": cycler(color=COLOURS) + cycler(linestyle=DASHES),
    "axes.edgecolor": "#444444", "axes.axisbelow": True,
    "axes.spines.right": False, "axes.spines.top": False, "grid.color": "#dddddd", "image.cmap": SEQUENTIAL,
    "legend.frameon": False, "lines.linewidth": 1.8,
    "figure.figsize": (WIDTH, 3.2), "figure.dpi": 160, "figure.constrained_layout.use": True,
    "savefig.dpi": 160, "savefig.bbox": "tight", "savefig.pad_inches": 0.05,
    "figure.facecolor": "white", "savefig.facecolor": "auto",  # not transparent: black text on a dark page is lost
    "svg.fonttype": "path", "svg.hashsalt": "xfrlib",  # the same figure is the same file
}  # fmt: skip


@contextmanager
def style() -> Iterator[None]:
    """Context manager, and decorator: matplotlib in the style of the book, put back at its end."""
    own = any(mpl.rcParams[key] != mpl.rcParamsDefault[key] for key in ("font.family", "font.sans-serif"))
    with mpl.rc_context(_STYLE | ({} if own else {"font.family": _FONT})):
        yield


class ShownFigure(Figure):
    """A figure that a notebook shows without pyplot: as vector graphics unless pixels are in it."""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        buffer, pixels = io.BytesIO(), any(axes.images for axes in self.axes)
        save(self, buffer, "png" if pixels else "svg")
        return {"image/png": buffer.getvalue()} if pixels else {"image/svg+xml": buffer.getvalue().decode()}


@style()
def save(figure: Figure, target: Any, suffix: str = "") -> None:
    """Write `figure` to a path or a binary stream, in the format of the suffix: the same bytes for the same figure."""
    suffix = suffix or str(target).rpartition(".")[2]
    _find_fonts(figure)
    of_kind: dict[str, Any] = {"svg": {"metadata": {"Date": None}}, "webp": {"pil_kwargs": {"quality": 90}}}
    figure.savefig(target, format=suffix, **of_kind.get(suffix, {}))


@style()
def subplots(rows: int = 1, columns: int = 1, *, size: tuple[float, float] | None = None, **options: Any) -> Any:
    """`plt.subplots` in the style of the book and without pyplot: the figure and its axes (one, or an array of them).

    `size` is (width, height) in inches. Axes keep matplotlib's look for what is added later, but under `style`.
    """
    figure = ShownFigure(figsize=size)
    return figure, figure.subplots(rows, columns, **options)


def picture_grid(rows: int, columns: int, size: tuple[float, float]) -> Any:
    """A figure and its axes (rows, columns), without ticks and frames and close together, for `show` and `overlay`."""
    figure, axes = subplots(rows, columns, size=size, squeeze=False)
    figure.set_layout_engine("compressed")
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, axes


def as_pictures(images: Array) -> npt.NDArray[np.float32]:
    """Pictures as float (n, H, W, 3) in [0, 1], from tensors (n, 3, H, W) or (3, H, W), or arrays (n, H, W, 3) or
    (H, W, 3); whole numbers are read as 0 to 255. Raises `ValueError` for another shape."""
    array = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
    array = array[None] if array.ndim == 3 else array
    array = np.moveaxis(array, 1, -1) if isinstance(images, Tensor) and array.ndim == 4 else array
    if array.ndim != 4 or array.shape[-1] != 3:
        raise ValueError(f"expected tensors (n, 3, H, W) or arrays (n, H, W, 3) of pictures, got {tuple(images.shape)}")
    scale = np.float32(255 if np.issubdtype(array.dtype, np.integer) else 1)
    return np.clip(array.astype(np.float32) / scale, 0, 1)


def show(axis: Axes, image: Array, title: str = "") -> None:
    """Draw one picture without ticks or frame."""
    axis.imshow(as_pictures(image)[0], interpolation="antialiased")
    axis.set_axis_off()
    axis.set_title(wrapped(title, max(10, int(15 * axis.get_window_extent().width / axis.figure.dpi))), fontsize=9)


def gentle_power(log_sdd: Tensor) -> Tensor:
    """The power (B, 1, 1) with which SDD maps run from e^-4 to 1, from their logarithms (B, H, W).

    Ranks stay, and the eye sees more than a peak. With a delta that many times as large a map does so nearly.
    """
    return SPAN / -log_sdd.amin(dim=(1, 2), keepdim=True).clamp(max=-1e-6)  # a flat map stays flat


def tint(image: Array, values: Array, colours: ScalarMappable) -> npt.NDArray[np.float32]:
    """Values (H, W) as colours over the luminance of a picture, which shows where they are low: (H, W, 3) in [0, 1]."""
    grey = as_pictures(image)[0] @ np.array([[0.299], [0.587], [0.114]], np.float32)
    share = np.clip(np.asarray(colours.norm(array := _floats(values).numpy()), np.float32), 0, 1)
    cover = OPACITY * (np.abs(2 * share - 1) if colours.get_cmap().name == DIVERGING else share)[..., None]
    return (1 - cover) * grey + cover * colours.to_rgba(array)[..., :3].astype(np.float32)


def overlay(
    axis: Axes, image: Array, values: Array, *, cmap: str = SEQUENTIAL, limits: tuple[float, float] | None = None,
    title: str = "",
) -> ScalarMappable:  # fmt: skip
    """Draw a map (H, W) over the luminance of a picture of that size; for `colour_bar`, its colours over light grey.

    `limits` None: symmetric about zero for `DIVERGING`, from 0 to the maximum otherwise. A `DIVERGING` map gets a line
    at half of each limit, dashed below zero, because red and blue are one grey in print.
    """
    values, size = _floats(values), as_pictures(image).shape[1:3]
    if values.shape != size:
        raise ValueError(f"expected one map {size}, of the picture's size, got {tuple(values.shape)}: see `upsampled`")
    low, high = limits or map_limits(values, cmap)
    colours = ScalarMappable(Normalize(low, high), cmap)
    show(axis, tint(image, values, colours), title)
    for level, line in ((low / 2, "--"), (high / 2, "-")) if cmap == DIVERGING else ():
        if values.min() < level < values.max():
            axis.contour(values.numpy(), levels=[level], colors="black", linewidths=0.8, linestyles=line)
    ramp = tint(np.full((1, 256, 3), 0.75), np.linspace(low, high, 256)[None], colours)[0]
    return ScalarMappable(colours.norm, ListedColormap(ramp, cmap))


def outline(axis: Axes, mask: Array, colour: str = "#E69F00") -> None:
    """Draw the border of a mask (H, W) over a picture, edged with black so that it shows on any skin."""
    values = _floats(mask).numpy()
    if values.any():
        for width, ink in ((2.6, "black"), (1.4, colour)):
            axis.contour(values, levels=[0.5], colors=[ink], linewidths=[width])


@style()
def colour_bar(figure: Figure, mappable: ScalarMappable, axes: Any, label: str, *, width: float = 0.6) -> None:
    """A horizontal colour bar below `axes`, labelled with what it measures; `width` is its share of theirs."""
    columns = 1 if np.size(axes) == 1 else np.shape(axes)[-1]
    bar = figure.colorbar(mappable, ax=axes, location="bottom", shrink=width, aspect=10 * columns * width, pad=0.02)
    bar.set_label(label + HALVES * (mappable.get_cmap().name == DIVERGING and columns > 2), fontsize=9)
    bar.locator = mpl.ticker.MaxNLocator(2 if columns == 1 else 5)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)


def percent(probability: float | Tensor) -> str:
    """A probability in [0, 1] as text, unbroken: ``97 %``, with a decimal where a whole number would say 0 or 100."""
    value = 100 * float(probability)
    if value in (0, 100) or 1 <= value <= 99:
        return f"{value:.0f}\u00a0%"
    return "<\u00a00.1\u00a0%" if value < 0.05 else ">\u00a099.9\u00a0%" if value >= 99.95 else f"{value:.1f}\u00a0%"


def _find_fonts(figure: Figure) -> None:
    """Give texts an installed font for the letters that their own lacks; where there is none, the figure says so."""
    fonts = {font.name: font.fname for font in font_manager.fontManager.ttflist if "Last Resort" not in font.name}
    lost = set[str]()
    if any(text.get_text().startswith(_LOST) for text in figure.texts):  # it was saved before
        return
    for text in figure.findobj(Text):
        families, needed = text.get_fontfamily(), {letter for letter in text.get_text() if letter.isalpha()}
        if needed := needed.difference(
            *(_letters(font_manager.findfont(font_manager.FontProperties(family=[family]))) for family in families)
        ):
            name = max(fonts, key=lambda name: len(needed & _letters(fonts[name])))
            lost |= needed - _letters(fonts[name])
            text.set_fontfamily([*families, name] if needed - lost else families)
    if lost:
        codes = " ".join(f"U+{ord(letter):04X}" for letter in sorted(lost)[:5])
        figure.text(0.5, -0.01, f"{_LOST} {codes}", ha="center", va="top", fontsize=8)


@lru_cache(256)
def _letters(font: str) -> frozenset[str]:
    return frozenset(map(chr, font_manager.get_font(font).get_charmap()))


def _floats(values: Array) -> Tensor:
    return torch.as_tensor(values).detach().cpu().float()


def map_limits(values: Tensor, cmap: str) -> tuple[float, float]:
    """The limits of `overlay` for values of any shape."""
    high = float(values.abs().max() if cmap == DIVERGING else values.max()) or 1.0
    return (-high if cmap == DIVERGING else 0.0), high


def wrapped(text: str, width: int) -> str:
    """A text in lines of at most `width` letters, with spaces for underscores."""
    return "\n".join(textwrap.fill(part.replace("_", " "), width, break_long_words=False) for part in text.split("\n"))

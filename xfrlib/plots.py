"""The figures of the book, in one style.

Every function returns a `matplotlib.figure.Figure` that pyplot does not know: it shows once, where it ends a notebook
cell, and needs no closing. Nothing here changes a global setting.
"""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from xfrlib import dark
from xfrlib.explanation import Explanation
from xfrlib.geometry import upsampled
from xfrlib.regions import top_fraction_mask

Array = Tensor | npt.NDArray[Any]

WIDTH = 8.0  # inches; in the page's column of about 750 pixels, 10 points are then 13 pixels
DIVERGING = "RdBu_r"  # signed maps: red is evidence for, blue against; the colour-blind tell them apart
SEQUENTIAL = "viridis"  # maps from 0 up: perceptually uniform, readable in grey
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito
DASHES = (
    "-",
    "--",
    "-.",
    ":",
    (0, (6, 1, 1, 1, 1, 1)),
    (0, (8, 2)),
    (0, (1, 2.5)),
)  # lines differ in grey
CAM_UNIT = "CAM (logit)"
HALVES = "; lines at half the scale, dashed below zero"
SDD_UNIT = "SDD (share of maximum)"
_STYLE: Any = {
    "font.family": "DejaVu Sans", "font.size": 10,  # comes with matplotlib: the same on every machine
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
_styled: Any = mpl.rc_context(_STYLE)


def style() -> AbstractContextManager[None]:
    """Context manager: matplotlib in the style of the book, put back at its end."""
    return mpl.rc_context(_STYLE)


class _Figure(Figure):
    """A figure that a notebook shows without pyplot: as vector graphics unless pixels are in it.

    Beside it goes its variant for a dark page, which Jupyter does not know and the site shows (book/_ext/figures.py).
    """

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        if any(axes.images for axes in self.axes):
            shown: dict[str, Any] = {"image/png": _bytes(self, "png")}
            return shown | {f"{dark.MIME}webp": base64.b64encode(_bytes(self, "webp", on_dark=True)).decode()}
        shown = {"image/svg+xml": _bytes(self, "svg").decode()}
        return shown | {f"{dark.MIME}svg": _bytes(self, "svg", on_dark=True).decode()}


def _bytes(figure: Figure, suffix: str, on_dark: bool = False) -> bytes:
    buffer = io.BytesIO()
    save(figure, buffer, suffix, on_dark=on_dark)
    return buffer.getvalue()


@_styled
def save(figure: Figure, target: Any, suffix: str = "", *, on_dark: bool = False) -> None:
    """Write `figure` to a path or a binary stream: the same bytes for the same figure.

    on_dark: in the colours for a dark page. In the book, ``name-dark.svg`` beside ``name.svg`` is shown in its place.
    """
    suffix = suffix or str(target).rpartition(".")[2]
    of_kind: dict[str, Any] = {"svg": {"metadata": {"Date": None}}, "webp": {"pil_kwargs": {"quality": 90}}}
    with dark.dark(figure) if on_dark else nullcontext():
        figure.savefig(target, format=suffix, **of_kind.get(suffix, {}))


@_styled
def subplots(rows: int = 1, columns: int = 1, *, size: tuple[float, float] | None = None, **options: Any) -> Any:
    """`plt.subplots` in the style of the book and without pyplot: the figure and its axes (one, or an array of them).

    `size` is (width, height) in inches. End the notebook cell with the figure to show it. Axes keep matplotlib's own
    look for what is added later (legends, ...) unless that is done under ``with style():``.
    """
    figure = _Figure(figsize=size)
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
    inches = axis.get_window_extent().width / axis.figure.dpi
    axis.set_title(_wrapped(title, max(10, int(15 * inches))), fontsize=9)


def tint(image: Array, values: Array, colours: ScalarMappable, alpha: float = 0.6) -> npt.NDArray[np.float32]:
    """Values (H, W) as colours over the luminance of a picture: all colour is the map's. (H, W, 3) in [0, 1]."""
    grey = as_pictures(image)[0] @ np.array([[0.299], [0.587], [0.114]], np.float32)
    return (1 - alpha) * grey + alpha * colours.to_rgba(_floats(values).numpy())[..., :3].astype(np.float32)


def overlay(
    axis: Axes,
    image: Array,
    map: Array,
    *,
    cmap: str = SEQUENTIAL,
    limits: tuple[float, float] | None = None,
    alpha: float = 0.6,
    title: str = "",
) -> ScalarMappable:
    """Draw a map (h, w) over the luminance of a picture, upsampled to its size as SDD does (bilinear).

    `limits` None: symmetric about zero for `DIVERGING`, from 0 to the maximum otherwise. A `DIVERGING` map gets a line
    at half of each limit, dashed on the negative side, because red and blue are one grey in print. What it returns is
    for `colour_bar`.
    """
    values = _floats(map)
    if values.ndim != 2:
        raise ValueError(f"expected one map (h, w), got {tuple(values.shape)}")
    size = as_pictures(image).shape[1:3]
    values = upsampled(values, (size[0], size[1]))
    low, high = limits or _limits(values, cmap)
    colours = ScalarMappable(Normalize(low, high), cmap)
    show(axis, tint(image, values, colours, alpha), title)
    for level, line in ((low / 2, "--"), (high / 2, "-")) if cmap == DIVERGING else ():
        if values.min() < level < values.max():
            axis.contour(values.numpy(), levels=[level], colors="black", linewidths=0.8, linestyles=line)
    return colours


def outline(axis: Axes, mask: Array, colour: str = "#E69F00") -> None:
    """Draw the border of a mask (H, W) over a picture, edged with black so that it shows on any skin."""
    values = _floats(mask).numpy()
    if values.any():
        for width, ink in ((2.6, "black"), (1.4, colour)):
            axis.contour(values, levels=[0.5], colors=[ink], linewidths=[width])


@_styled
def colour_bar(figure: Figure, mappable: ScalarMappable, axes: Any, label: str, *, width: float = 0.6) -> None:
    """A horizontal colour bar below `axes`, labelled with what it measures; `width` is its share of theirs."""
    columns = 1 if np.size(axes) == 1 else np.shape(axes)[-1]
    bar = figure.colorbar(mappable, ax=axes, location="bottom", shrink=width, aspect=10 * columns * width, pad=0.02)
    bar.set_label(label + HALVES * (mappable.get_cmap().name == DIVERGING and columns > 2), fontsize=9)
    bar.locator = mpl.ticker.MaxNLocator(2 if columns == 1 else 5)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)


@_styled
def contact_sheet(
    images: Array,
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    *,
    rows: Sequence[str] | None = None,
    outlines: Array | None = None,
    width: float = WIDTH,
) -> Figure:
    """Pictures in a grid, row by row.

    `images` are tensors (n, 3, H, W) or arrays (n, H, W, 3); `titles` one for each; `columns` None is at most 8;
    `rows` labels each row at its left; `outlines` (n, H, W) are masks to outline; `width` of the figure is in inches.
    """
    pictures = as_pictures(images)
    columns = columns or min(8, len(pictures))
    n_rows, side = -(-len(pictures) // columns), (width - (1 if rows else 0)) / columns
    lines = max((title.count("\n") + 1 for title in titles or [] if title), default=0)
    figure, axes = picture_grid(n_rows, columns, (width, n_rows * (side + 0.17 * lines)))
    for index, (axis, picture) in enumerate(zip(axes.flat, pictures, strict=False)):
        show(axis, picture, titles[index] if titles else "")
        if outlines is not None:
            outline(axis, outlines[index])
    for axis, label in zip(axes[:, 0], rows or [], strict=False):
        axis.text(-0.06, 0.5, _wrapped(label, 14), transform=axis.transAxes, ha="right", va="center", fontsize=9)
    return figure


@_styled
def cam_row(
    image: Array,
    cams: Array,
    titles: Sequence[str],
    *,
    limits: tuple[float, float] | None = None,
    cmap: str = DIVERGING,
    label: str = CAM_UNIT,
    first: str = "picture",
    outlines: Array | None = None,
) -> Figure:
    """A picture titled `first`, and maps (K, h, w) over it, all on one scale with one labelled colour bar.

    `outlines` (K, H, W) are masks to outline, one on each map.
    """
    maps = _floats(cams)
    limits = limits or _limits(maps, cmap)
    figure, (axes,) = picture_grid(1, len(maps) + 1, (WIDTH, WIDTH / (len(maps) + 1) + 1.1))
    show(axes[0], image, first)
    drawn = [
        overlay(axis, image, values, cmap=cmap, limits=limits, title=title)
        for axis, values, title in zip(axes[1:], maps, titles, strict=True)
    ]
    for axis, mask in zip(axes[1:], [] if outlines is None else outlines, strict=False):
        outline(axis, mask)
    colour_bar(figure, drawn[-1], axes, label)
    return figure


@_styled
def subject_figure(
    samples: Array,
    image: Array,
    explanation: Explanation,
    names: Sequence[str],
    *,
    index: int = 0,
    fraction: float | None = 0.2,
) -> Figure:
    """Figures 3 and 4 of Shadman et al. (2025) for one picture.

    Above: a sample face of each of the K classes compared, with name and probability, and the picture explained.
    Below: the K maps over that picture on one scale, and its SDD map.

    Parameters
    ----------
    samples : (K, 3, H, W), a face of each class in the order of ``explanation.classes[index]``.
    image : (3, H, W), the picture explained.
    explanation : what `xfrlib.explain` returned for a batch that holds `image` at `index`.
    names : (N,), the names of all classes, as ``FaceDataset.identities``.
    fraction : of the pixels, whose highest-ranking are outlined on the SDD map: the map itself may be a small spot.
    """
    classes, cams = explanation.classes[index].tolist(), _floats(explanation.cams[index])
    if len(samples) != len(classes):
        raise ValueError(f"{len(samples)} samples for {len(classes)} classes: give one of each, the target's first")
    limits, columns = _limits(cams, DIVERGING), len(classes) + 1
    figure, axes = picture_grid(2, columns, (WIDTH, 2 * WIDTH / columns + 1.5))
    for column, label in enumerate(classes):
        show(axes[0, column], samples[column], f"{names[label]}\n{percent(explanation.probabilities[index, column])}")
        title = f"CAM of\nrival {column}" if column else "CAM of\ntarget"
        drawn = overlay(axes[1, column], image, cams[column], cmap=DIVERGING, limits=limits, title=title)
    show(axes[0, -1], image, "picture\nexplained")
    heat = overlay(axes[1, -1], image, explanation.sdd[index], limits=(0, 1), title="SDD of\ntarget")
    if fraction is not None:
        outline(axes[1, -1], top_fraction_mask(explanation.log_sdd[index][None], fraction)[0])
    colour_bar(figure, drawn, axes[:, :-1], CAM_UNIT)
    colour_bar(figure, heat, axes[:, -1:], "SDD (relative)", width=0.9)
    return figure


@_styled
def training_curves(history: pd.DataFrame, *, best_epoch: int | None = None) -> Figure:
    """Loss and accuracy of training and validation by epoch, the best epoch marked.

    `history` has the columns epoch, train_loss, validation_loss, train_accuracy and validation_accuracy (0 to 1).
    `best_epoch` None: the first of the highest validation accuracy.
    """
    if best_epoch is None:
        best_epoch = int(history["epoch"].iloc[int(np.argmax(history["validation_accuracy"].to_numpy()))])
    figure, axes = subplots(1, 2, size=(WIDTH, 3.0))
    panels = (("loss", 1, "cross-entropy (nats)"), ("accuracy", 100, "accuracy (%)"))
    for axis, (key, factor, label) in zip(axes, panels, strict=True):
        for part, line in (("train", "o-"), ("validation", "s--")):
            axis.plot(history["epoch"], factor * history[f"{part}_{key}"], line, markersize=3.5, label=part)
        axis.axvline(best_epoch, color="#777777", linewidth=1.2, linestyle=":", label=f"best epoch ({best_epoch})")
        axis.set(xlabel="epoch", ylabel=label)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(axis="y")
    axes[0].legend()
    return figure


class MaskedPicture(NamedTuple):
    """One row of `deletion_figure`: a method's map and mask (H, W), what each leaves, the target's probabilities."""

    label: str
    map: Array
    mask: Array
    deleted: Array
    retained: Array
    deleted_probability: float
    retained_probability: float


@_styled
def deletion_figure(image: Array, probability: float, rows: Sequence[MaskedPicture]) -> Figure:
    """Deletion and retention of one picture, a row for each method, after figure 5 of Shadman et al. (2025).

    `probability` is that of the predicted class before. The map of each row is stretched to the range 0 to 1.
    """
    figure, axes = picture_grid(len(rows), 5, (WIDTH, len(rows) * (WIDTH / 5 + 0.35) + 0.7))
    for line, row in zip(axes, rows, strict=True):
        values, mask = _floats(row.map), _floats(row.mask)
        values = (values - values.min()) / (values.max() - values.min()).clamp(min=1e-12)
        show(line[0], image, f"original\n{percent(probability)}")
        drawn = overlay(line[1], image, values, limits=(0, 1), title=row.label)
        show(line[2], mask.expand(3, -1, -1), f"mask\n{percent(mask.mean())} of pixels")
        show(line[3], row.deleted, f"deleted\n{percent(row.deleted_probability)}")
        show(line[4], row.retained, f"retained\n{percent(row.retained_probability)}")
    colour_bar(figure, drawn, axes, "maps (second column), each from its minimum 0 to its maximum 1", width=0.4)
    return figure


@_styled
def interval_plot(
    table: pd.DataFrame,
    *,
    label: str = "percentage points",
    better: Mapping[str, str] | None = None,
    highlight: Sequence[str] = ("SDD",),
    columns: int = 2,
) -> Figure:
    """Values with their 95 % intervals: methods on the y axis, a panel for each measure.

    Parameters
    ----------
    table : columns method, measure, value, low, high and, where the paper has a value, paper (else NaN). Methods and
        measures are drawn in the order in which they come.
    label : what the x axes measure.
    better : for a measure, "higher" or "lower", added to its title.
    highlight : methods set off by colour, and by squares for circles.
    """
    methods, measures = list(dict.fromkeys(table["method"])), list(dict.fromkeys(table["measure"]))
    columns, paper = min(columns, len(measures)), "paper" in table and bool(table["paper"].notna().any())
    n_rows = -(-len(measures) // columns)
    size = (WIDTH, n_rows * (0.25 * len(methods) + 1.0) + 0.3 * paper)
    figure, axes = subplots(n_rows, columns, size=size, sharey=True, squeeze=False)
    for axis in axes.flat[len(measures) :]:
        axis.set_axis_off()
    for axis, measure in zip(axes.flat, measures, strict=False):
        part = table[table["measure"] == measure]
        for row in part.to_dict("records"):
            y, colour = methods.index(row["method"]), COLOURS[row["method"] in highlight]
            axis.plot([row["low"], row["high"]], [y, y], "|-", color=colour, linewidth=1.4, markersize=6)
            axis.plot(row["value"], y, "os"[row["method"] in highlight], color=colour, markersize=5)
            if paper:
                axis.plot(row["paper"], y, "D", markerfacecolor="none", markeredgecolor="black", markersize=8)
        wish = (better or {}).get(measure)
        axis.set(title=f"{measure}\n({wish} is better)" if wish else measure, xlabel=label)
        axis.set_yticks(range(len(methods)), methods)
        axis.set_ylim(len(methods) - 0.5, -0.5)
        axis.grid(axis="x")
    if paper:
        figure.supxlabel("hollow diamond: the paper's value", fontsize=9)
    return figure


def percent(probability: float | Tensor) -> str:
    """A probability in [0, 1] as text: ``97 %``, with a decimal where a whole number would say 0 or 100."""
    value = 100 * float(probability)
    if value in (0, 100) or 1 <= value <= 99:
        return f"{value:.0f} %"
    return "< 0.1 %" if value < 0.05 else "> 99.9 %" if value >= 99.95 else f"{value:.1f} %"


def _floats(values: Array) -> Tensor:
    return torch.as_tensor(values).detach().cpu().float()


def _limits(values: Tensor, cmap: str) -> tuple[float, float]:
    high = float(values.abs().max() if cmap == DIVERGING else values.max()) or 1.0
    return (-high if cmap == DIVERGING else 0.0), high


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.fill(part.replace("_", " "), width, break_long_words=False) for part in text.split("\n"))

"""The figures that the chapters draw: sheets and rows of pictures, the paper's, the course of a training, intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from xfrlib.plots import (
    CAM_UNIT,
    COLOURS,
    DIVERGING,
    WIDTH,
    Array,
    as_pictures,
    colour_bar,
    map_limits,
    outline,
    overlay,
    percent,
    picture_grid,
    show,
    style,
    subplots,
    wrapped,
)
from xfrlib.regions import top_fraction_mask

if TYPE_CHECKING:
    from xfrlib.explanation import Explanation


@style()
def subject_figure(
    samples: Array,
    image: Array,
    explanation: Explanation,
    names: Sequence[str],
    *,
    index: int = 0,
    fraction: float | None = 0.2,
) -> Figure:
    """What figures 3 and 4 of Shadman et al. (2025) show of one picture, in pairs, two to a row: so faces are large.

    The first pair is the picture explained and its SDD map. Each other is a sample face of one of the K classes
    compared, with name and probability, and the class's map over that picture; all of these are on one scale.

    Parameters
    ----------
    samples : Tensor (K, 3, H, W)
        A face of each class in the order of ``explanation.classes[index]``.
    image : Tensor (3, H, W)
        The picture explained.
    explanation : Explanation
        Of a batch that holds `image` at `index`.
    names : N strings
        The names of all classes, as ``FaceDataset.identities``.
    fraction : float, optional
        Of the pixels, whose highest-ranking are outlined on the SDD map: the map itself may be a small spot.

    Raises
    ------
    ValueError
        If `samples` are not as many as the classes compared.
    """
    classes, cams = explanation.classes[index].tolist(), explanation.upsampled_cams[index]
    if len(samples) != len(classes):
        raise ValueError(f"{len(samples)} samples for {len(classes)} classes: give one of each, the target's first")
    high, rows = float(cams.abs().max()) or 1.0, len(classes) // 2 + 1
    figure, axes = picture_grid(rows, 4, (WIDTH, rows * (WIDTH / 4 + 0.35) + 0.8))
    pairs = axes.reshape(-1, 2)
    show(pairs[0, 0], image, "picture\nexplained")
    heat = overlay(pairs[0, 1], image, explanation.sdd[index], limits=(0, 1), title="SDD of\ntarget")
    if fraction is not None:
        outline(pairs[0, 1], top_fraction_mask(explanation.log_sdd[index][None], fraction)[0])
    for rank, label in enumerate(classes):
        face, place = pairs[rank + 1]
        show(face, samples[rank], f"{names[label]}\n{percent(explanation.probabilities[index, rank])}")
        title = f"CAM of\nrival {rank}" if rank else "CAM of\ntarget"
        drawn = overlay(place, image, cams[rank], cmap=DIVERGING, limits=(-high, high), title=title)
    colour_bar(figure, heat, axes[:, :1], "SDD (relative)", width=0.9)
    colour_bar(figure, drawn, axes[:, 1:], CAM_UNIT)
    return figure


@style()
def training_curves(history: pd.DataFrame, *, best_epoch: int | None = None) -> Figure:
    """Loss and accuracy of training and validation by epoch, the best epoch marked.

    Parameters
    ----------
    history : DataFrame
        Columns epoch, train_loss, validation_loss, train_accuracy and validation_accuracy (0 to 1).
    best_epoch : int, optional
        None: the first of the highest validation accuracy.
    """
    if best_epoch is None:
        best_epoch = int(history["epoch"].iloc[int(np.argmax(history["validation_accuracy"].to_numpy()))])
    figure, axes = subplots(1, 2, size=(WIDTH, 3.0))
    panels = (("loss", 1, "cross-entropy (nats)"), ("accuracy", 100, "accuracy (%)"))
    for axis, (key, factor, label) in zip(axes, panels, strict=True):
        for part, line in (("train", "o-"), ("validation", "s--")):
            axis.plot(
                history["epoch"],
                factor * history[f"{part}_{key}"],
                line,
                markersize=3.5,
                label=part,
            )
        axis.axvline(
            best_epoch,
            color="#777777",
            linewidth=1.2,
            linestyle=":",
            label=f"best epoch ({best_epoch})",
        )
        axis.set(xlabel="epoch", ylabel=label)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(axis="y")
    axes[0].legend()
    return figure


@style()
def contact_sheet(
    images: Array,
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    *,
    rows: Sequence[str] | None = None,
    outlines: Array | None = None,
    width: float = WIDTH,
) -> Figure:
    """Pictures in a grid, row by row: tensors (n, 3, H, W) or arrays (n, H, W, 3), at most 8 in a row.

    `rows` labels each row at its left, `outlines` (n, H, W) are masks to outline; `width` is the figure's, in inches.
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
        axis.text(-0.06, 0.5, wrapped(label, 14), transform=axis.transAxes, ha="right", va="center", fontsize=9)
    return figure


@style()
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
    """A picture titled `first`, and maps (K, H, W) over it, all on one scale with one labelled colour bar.

    More than four stand in two rows, so that faces are large. `outlines` (K, H, W) are masks to outline, one on each
    map.
    """
    maps = torch.as_tensor(cams).detach().cpu().float()
    limits = limits or map_limits(maps, cmap)
    rows = 1 if len(maps) < 4 else 2
    columns = -(-(len(maps) + 1) // rows)
    figure, axes = picture_grid(rows, columns, (WIDTH, rows * (WIDTH / columns + 0.35) + 0.75))
    show(axes.flat[0], image, first)
    drawn = [
        overlay(axis, image, values, cmap=cmap, limits=limits, title=title)
        for axis, values, title in zip(axes.flat[1:], maps, titles, strict=False)  # one place may stay empty
    ]
    for axis, mask in zip(axes.flat[1:], [] if outlines is None else outlines, strict=False):
        outline(axis, mask)
    colour_bar(figure, drawn[-1], axes, label)
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


@style()
def deletion_figure(image: Array, probability: float, rows: Sequence[MaskedPicture]) -> Figure:
    """Deletion and retention of one picture, a row for each method, after figure 5 of Shadman et al. (2025).

    `probability` is that of the predicted class before. The map of each row is stretched to the range 0 to 1, and has
    the outline of its mask.
    """
    figure, axes = picture_grid(len(rows), 4, (WIDTH, len(rows) * (WIDTH / 4 + 0.35) + 0.7))
    for line, row in zip(axes, rows, strict=True):
        values, mask = (torch.as_tensor(part).cpu().float() for part in (row.map, row.mask))
        values = (values - values.min()) / (values.max() - values.min()).clamp(min=1e-12)
        show(line[0], image, f"original\n{percent(probability)}")
        drawn = overlay(line[1], image, values, limits=(0, 1), title=f"{row.label}\nline: top {percent(mask.mean())}")
        outline(line[1], mask)
        show(line[2], row.deleted, f"deleted\n{percent(row.deleted_probability)}")
        show(line[3], row.retained, f"retained\n{percent(row.retained_probability)}")
    colour_bar(
        figure,
        drawn,
        axes,
        "maps (second column), each from its minimum 0 to its maximum 1",
        width=0.4,
    )
    return figure


@style()
def interval_plot(
    table: pd.DataFrame,
    *,
    label: str = "percentage points",
    better: Mapping[str, str] | None = None,
    highlight: Sequence[str] = ("SDD",),
) -> Figure:
    """Values with their 95 % intervals: methods on the y axis, a panel for each measure.

    Parameters
    ----------
    table : DataFrame
        Columns method, measure, value, low, high (NaN: the value alone is drawn) and, where the paper has a value,
        paper (else NaN). Methods and measures are drawn in the order in which they come.
    label : str
        What the x axes measure.
    better : mapping, optional
        For a measure, "higher" or "lower", added to its title.
    highlight : strings
        Methods set off by colour, and by squares for circles.
    """
    methods, measures = (
        list(dict.fromkeys(table["method"])),
        list(dict.fromkeys(table["measure"])),
    )
    columns, paper = (
        min(2, len(measures)),
        "paper" in table and bool(table["paper"].notna().any()),
    )
    n_rows = -(-len(measures) // columns)
    size = (WIDTH, n_rows * (0.25 * len(methods) + 1.0) + 0.3 * paper)
    figure, axes = subplots(n_rows, columns, size=size, sharex=True, sharey=True, squeeze=False)  # one unit, one range
    for axis in axes.flat[len(measures) :]:
        axis.set_axis_off()
    for axis, measure in zip(axes.flat, measures, strict=False):
        part = table[table["measure"] == measure]
        for row in part.to_dict("records"):
            y, colour = (
                methods.index(row["method"]),
                COLOURS[row["method"] in highlight],
            )
            axis.plot(
                [row["low"], row["high"]],
                [y, y],
                "|-",
                color=colour,
                linewidth=1.4,
                markersize=6,
            )
            axis.plot(
                row["value"],
                y,
                "os"[row["method"] in highlight],
                color=colour,
                markersize=5,
            )
            if paper:
                axis.plot(
                    row["paper"],
                    y,
                    "D",
                    markerfacecolor="none",
                    markeredgecolor="black",
                    markersize=8,
                )
        wish = (better or {}).get(measure)
        axis.set(title=f"{measure}\n({wish} is better)" if wish else measure, xlabel=label)
        axis.set_yticks(range(len(methods)), methods)
        axis.set_ylim(len(methods) - 0.5, -0.5)
        axis.grid(axis="x")
        axis.tick_params(labelbottom=True)
    if paper:
        figure.supxlabel("hollow diamond: the paper's value", fontsize=9)
    return figure

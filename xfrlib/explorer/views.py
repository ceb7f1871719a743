"""What is shown of one setting: pictures with captions, which go on the screen and into a file, and the numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from xfrlib import artifacts, plots
from xfrlib.explorer.maps import Answers, Maps
from xfrlib.explorer.pictures import Pictures
from xfrlib.plots import percent

Shown = Sequence[tuple[Maps, Answers]]
MASKING = ("picture", "sdd", "mask", "deletion", "retention")  # the first row; the CAMs are the second
SIDE_LABELS = {1: ("",), 2: ("A: ", "B: ")}  # of one setting, and of two side by side


class View(NamedTuple):
    """A picture, and what is said of it."""

    picture: Tensor  #: (3, H, W)
    caption: str
    alternative: str  #: for who does not see it
    over: tuple[Tensor, ScalarMappable] | None = None  #: a map (H, W) to lay over the picture, and its colours
    line: Tensor | None = None  #: a mask (H, W) to outline


def common_colours(found: Iterable[Maps]) -> tuple[ScalarMappable, ScalarMappable]:
    """The colours of CAMs and of SDD maps in which those of `found` can be compared."""
    high = max(float(maps.explanation.cams.abs().max()) for maps in found)
    return ScalarMappable(Normalize(-high, high), plots.DIVERGING), ScalarMappable(Normalize(0, 1), plots.SEQUENTIAL)


def map_views(
    pictures: Pictures, maps: Maps, side: str, signed: ScalarMappable, relative: ScalarMappable
) -> dict[str, View]:
    """What needs no answer of the network, by name; `side` is one of `SIDE_LABELS`, colours are `common_colours`."""
    names, chances = [pictures.names[label] for label in maps.classes], maps.explanation.probabilities[0]
    image, heat, share = pictures.image(maps.row), maps.explanation.sdd[0], percent(maps.mask.float().mean())
    peak = f"SDD map of {names[0]}, strongest at the {place_of_peak(heat)}; the line encloses the mask"
    white = maps.mask.expand(3, -1, -1).float()
    white[:, [0, -1]] = white[:, :, [0, -1]] = 0.5  # an edge: the page is white as well
    result = {
        "picture": View(image, f"{side}{names[0]}\n{percent(chances[0])}", f"The picture: {pictures.title(maps.row)}"),
        "sdd": View(image, f"SDD\n{maps}", peak, (heat, relative), maps.mask[0]),
        "mask": View(white, f"mask\n{share} of pixels", f"mask, {share} of pixels"),
    }
    for i, cam in enumerate(maps.explanation.upsampled_cams[0]):
        role = f"rival {i}" if i else "target"
        peak = f"Class activation map of {names[i]}, {role}, strongest at the {place_of_peak(cam)}"
        result[f"cam {i}"] = View(image, f"CAM, {role}\n{names[i]}, {percent(chances[i])}", peak, (cam, signed))
    return result


def answer_views(pictures: Pictures, maps: Maps, answers: Answers) -> dict[str, View]:
    """The masked pictures, with what the network says of them."""
    target, result = maps.classes[0], {}
    for kind, picture in answers.pictures.items():
        best, says = int(answers.chances[kind].argmax()), percent(answers.chances[kind][target])
        says += "" if best == target else f", says {pictures.names[best]}"
        alternative = f"The picture after {kind}: {pictures.names[target]} {says}"
        result[kind] = View(picture, f"after {kind}\n{says}", alternative)
    return result


def place_of_peak(values: Tensor) -> str:
    """Where a map (H, W) is largest, in words: "top left", "middle"."""
    y, x = divmod(int(values.argmax()), values.shape[1])
    row = ("top", "middle", "bottom")[3 * y // values.shape[0]]
    column = ("left", "middle", "right")[3 * x // values.shape[1]]
    return row if row == column else f"{row} {column}"


def figure(pictures: Pictures, shown: Shown) -> Figure:
    """For each setting a row of pictures and masks and a row of CAMs; all CAMs on one scale."""
    columns = max(len(MASKING), *(len(maps.classes) for maps, _ in shown))
    size = (plots.WIDTH, len(shown) * (2 * plots.WIDTH / columns + 1.2) + 0.6)
    result, axes = plots.picture_grid(2 * len(shown), columns, size)
    colours = common_colours(maps for maps, _ in shown)
    for above, below, side, (maps, answers) in zip(axes[::2], axes[1::2], SIDE_LABELS[len(shown)], shown, strict=True):
        views = map_views(pictures, maps, side, *colours) | answer_views(pictures, maps, answers)
        order = dict.fromkeys([*MASKING, *views])
        for name, axis in zip(order, [*above[: len(MASKING)], *below], strict=False):
            picture, title, _, over, line = views[name]
            if over is None:
                plots.show(axis, picture, title)
            else:
                values, scale = over
                plots.overlay(axis, picture, values, cmap=scale.cmap.name, limits=scale.get_clim(), title=title)
            if line is not None:
                plots.outline(axis, line)
    plots.colour_bar(result, colours[0], axes[:, : columns - 2], plots.CAM_UNIT)
    plots.colour_bar(result, colours[1], axes[:, columns - 2 :], plots.SDD_UNIT)
    return result


def save_view(folder: Path, pictures: Pictures, shown: Shown, provenance: dict[str, Any]) -> list[Path]:
    """Write figure (PNG) and numbers (JSON) of what is shown, named after picture and settings; returns both paths."""
    row = shown[0][0].row
    numbers = {
        "picture": pictures.paths[row],
        "person": pictures.person(row),
        "predicted": pictures.names[pictures.predicted(row)[0]],
        "settings": [_numbers(pictures.names, maps, answers) for maps, answers in shown],
        "provenance": artifacts.environment() | {"commit": artifacts.commit()} | pictures.provenance(row) | provenance,
    }
    plain = re.sub(r"[^\w-]+", "_", pictures.title(row).rpartition(".")[0])[:80]
    key = artifacts.fingerprint(pictures.paths[row], *(asdict(maps.settings) for maps, _ in shown))[:8]
    drawn, written = folder / f"{plain}-{key}.png", folder / f"{plain}-{key}.json"
    with artifacts.write_atomic(drawn) as part:
        plots.save(figure(pictures, shown), part, "png")
    artifacts.write_json(written, numbers)
    return [drawn, written]


def _numbers(names: Sequence[str], maps: Maps, answers: Answers) -> dict[str, Any]:
    chances, compared = answers.chances, maps.classes
    return {
        **asdict(maps.settings),
        "target": names[compared[0]],
        "chosen": [names[label] for label in maps.settings.chosen],
        "scale_used": maps.scale,
        "mask_pixels": int(maps.mask.sum()),
        "probabilities": {names[k]: {kind: float(p[k]) for kind, p in chances.items()} for k in compared},
        "predicted": {kind: names[int(p.argmax())] for kind, p in chances.items()},
        "deletion_retention": answers.measures,
        "verdict": answers.verdict and answers.verdict._asdict(),
    }

"""What the explorer shows as a figure and as numbers, with what it takes to trace them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from xfrlib import artifacts, plots
from xfrlib.explorer.maps import Answers, Maps
from xfrlib.explorer.pictures import Pictures
from xfrlib.plots import percent

Shown = Sequence[tuple[Maps, Answers]]


def save(folder: Path, pictures: Pictures, shown: Shown, provenance: dict[str, Any]) -> list[Path]:
    """Write figure (PNG) and numbers (JSON) of what is shown; returns both paths.

    The names of the files follow from picture and settings: to save again replaces them.
    """
    row = shown[0][0].row
    numbers = {
        "picture": pictures.paths[row],
        "person": pictures.person(row),
        "predicted": pictures.names[pictures.predicted(row)[0]],
        "settings": [setting_numbers(pictures.names, maps, answers) for maps, answers in shown],
        "provenance": artifacts.environment() | {"commit": artifacts.commit()} | pictures.provenance(row) | provenance,
    }
    plain = re.sub(r"[^\w-]+", "_", pictures.title(row).rpartition(".")[0])[:80]
    key = artifacts.fingerprint(pictures.paths[row], *(asdict(maps.settings) for maps, _ in shown))
    paths = [folder / f"{plain}-{key[:8]}{suffix}" for suffix in (".png", ".json")]
    with artifacts.write_atomic(paths[0]) as part:
        plots.save(figure(pictures, shown), part, "png")
    artifacts.write_json(paths[1], numbers)
    return paths


def setting_numbers(names: Sequence[str], maps: Maps, answers: Answers) -> dict[str, Any]:
    """The numbers of one setting as plain JSON values; `names` are those of all classes."""
    chances, compared = answers.chances, maps.classes
    return {
        **asdict(maps.settings),
        "target": names[compared[0]],
        "chosen": [names[label] for label in maps.settings.chosen],
        "scale_used": maps.scale,
        "mask_pixels": int(maps.mask.sum()),
        "probabilities": {names[k]: {kind: float(p[k]) for kind, p in chances.items()} for k in compared},
        "predicted": {kind: names[int(values.argmax())] for kind, values in chances.items()},
        "deletion_retention": answers.measures,
        "verdict": answers.verdict and answers.verdict._asdict(),
    }


def figure(pictures: Pictures, shown: Shown) -> Figure:
    """For each setting a row of pictures and masks and a row of CAMs; all CAMs on one scale."""
    columns = max(5, *(len(maps.classes) for maps, _ in shown))
    size = (plots.WIDTH, len(shown) * (2 * plots.WIDTH / columns + 1.2) + 0.6)
    result, axes = plots.picture_grid(2 * len(shown), columns, size)
    high = max(float(maps.explanation.cams.abs().max()) for maps, _ in shown)
    for above, below, first, (maps, answers) in zip(axes[::2], axes[1::2], "AB", shown, strict=False):
        image, sure = pictures.image(maps.row), maps.explanation.probabilities[0]
        names = [pictures.names[label] for label in maps.classes]
        title = f"{first}: {names[0]}" if len(shown) > 1 else names[0]
        plots.show(above[0], image, f"{title}\n{percent(sure[0])}")
        heat = plots.overlay(above[1], image, maps.explanation.sdd[0], limits=(0, 1), title=f"SDD\n{maps}")
        plots.outline(above[1], maps.mask[0])
        mask = maps.mask.float()
        plots.show(above[2], mask.expand(3, -1, -1), f"mask\n{percent(mask.mean())} of pixels")
        for axis, kind, word in ((above[3], "deletion", "deleted"), (above[4], "retention", "retained")):
            plots.show(axis, answers.pictures[kind], f"{word}\n{percent(answers.chances[kind][maps.classes[0]])}")
        for axis, cam, name, chance in zip(below, maps.explanation.cams[0], names, sure, strict=False):
            title = f"CAM: {name}\n{percent(chance)}"
            drawn = plots.overlay(axis, image, cam, cmap=plots.DIVERGING, limits=(-high, high), title=title)
    plots.colour_bar(result, drawn, axes[:, : columns - 2], plots.CAM_UNIT)
    plots.colour_bar(result, heat, axes[:, columns - 2 :], plots.SDD_UNIT)
    return result

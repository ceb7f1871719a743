"""One setting on the screen: pictures, maps, probabilities and the verdict, as widgets."""

from __future__ import annotations

from collections import defaultdict
from html import escape

import ipywidgets as widgets
import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_hex
from torch import Tensor
from traitlets import Unicode

from xfrlib.explorer.maps import Answers, Maps
from xfrlib.explorer.pictures import Pictures, png
from xfrlib.geometry import upsampled
from xfrlib.plots import CAM_UNIT, DIVERGING, SDD_UNIT, SEQUENTIAL, Array, percent, tint

WRAPPED = {"flex_flow": "row wrap"}
_SIDE = "132px"
_TABLE_STYLE = (
    "<style>.xfr-table :is(td, th) {padding: 0 .6em; text-align: right; line-height: 1.5; font-weight: normal}</style>"
)


class _Image(widgets.Image):
    """An image with a text alternative, its tooltip; the front end asks for a description before it sets one."""

    description = Unicode("").tag(sync=True)


class Tile(widgets.VBox):
    """A picture and its caption."""

    def __init__(self) -> None:
        self.image = _Image(format="png", layout={"width": _SIDE, "height": _SIDE})
        self.caption = widgets.HTML()
        super().__init__([self.image, self.caption])

    def show(self, picture: Array, caption: str, alternative: str) -> None:
        """Draw the picture; the browser gets it only where it is another one."""
        self.image.value, self.image.tooltip = png(picture), alternative
        text = escape(caption).replace("\n", "<br>")
        self.caption.value = f"<div style='width:{_SIDE};line-height:1.3'>{text}</div>"


class Tiles(widgets.VBox):
    """The maps and answers of one setting: a `Tile` each, by name."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures
        self.tiles: defaultdict[str, Tile] = defaultdict(Tile)
        self.heading, self._legend, self.table, self.verdict = (widgets.HTML() for _ in range(4))
        faces = [self.tiles[name] for name in ("picture", "sdd", "mask", "deleted", "retained")]
        self._cams = widgets.HBox(layout=WRAPPED)
        rows = [self.heading, widgets.HBox(faces, layout=WRAPPED), self._cams, self._legend, self.table, self.verdict]
        super().__init__(rows, layout={"flex": "1 1 0", "min_width": "300px"})

    def show_maps(self, maps: Maps, high: float) -> None:
        """Draw all that needs no answer of the network. `high` is the value of a CAM at the end of its colours."""
        names, chances = [self.pictures.names[label] for label in maps.classes], maps.explanation.probabilities[0]
        image, heat, mask = self.pictures.image(maps.row), maps.explanation.sdd[0], maps.mask
        alternative = f"The picture: {self.pictures.title(maps.row)}"
        self.tiles["picture"].show(image, f"{names[0]}\n{percent(chances[0])}", alternative)
        colours = ScalarMappable(Normalize(0, 1), SEQUENTIAL)
        alternative = f"SDD map of {names[0]}, strongest at the {place_of_peak(heat)}"
        self.tiles["sdd"].show(tint(image, heat, colours), "SDD map\n0 to its maximum", alternative)
        size = f"mask\n{percent(mask.float().mean())} of pixels"
        self.tiles["mask"].show(mask.expand(3, -1, -1), size, size)
        cams = upsampled(maps.explanation.cams[0], self.pictures.size)
        colours = ScalarMappable(Normalize(-high, high), DIVERGING)
        for i, (cam, name, chance) in enumerate(zip(cams, names, chances, strict=True)):
            role = f"rival {i}" if i else "target"
            caption = f"CAM, {role}\n{name}, {percent(chance)}"
            alternative = f"Class activation map of {name}, {role}, strongest at the {place_of_peak(cam)}"
            self.tiles[f"cam {i}"].show(tint(image, cam, colours), caption, alternative)
        self._cams.children = [self.tiles[f"cam {i}"] for i in range(len(names))]
        signed = _colours(CAM_UNIT, DIVERGING, f"−{high:.3g}", f"{high:.3g}")
        self._legend.value = signed + _colours(SDD_UNIT, SEQUENTIAL, "0", "1")

    def show_answers(self, maps: Maps, answers: Answers) -> None:
        """Draw what the network says of the masked pictures."""
        names, target = self.pictures.names, maps.classes[0]
        for name, kind in (("deleted", "deletion"), ("retained", "retention")):
            best = int(answers.chances[kind].argmax())
            says = percent(answers.chances[kind][target]) + ("" if best == target else f", says {names[best]}")
            alternative = f"The picture after {kind}: {names[target]} {says}"
            self.tiles[name].show(answers.pictures[kind], f"{name}\n{says}", alternative)
        self.table.value = _probabilities(names, maps.classes, answers.chances)
        says, verdict = "No verdict: it judges maps of the predicted person.", answers.verdict
        if verdict is not None:
            says = f"{'✓' if verdict.show else '✗'} {verdict.reason}"
        self.verdict.value = f"<p style='line-height:1.4;max-width:48em'>{escape(says)}</p>"


def _probabilities(names: list[str], compared: list[int], chances: dict[str, Tensor]) -> str:
    """A table: the classes compared, and whoever is predicted, by what the network was shown."""
    values = pd.DataFrame({kind: chance.numpy() for kind, chance in chances.items()})
    labels = list(dict.fromkeys([*compared, *values.idxmax()]))
    roles = ["target"] + ["rival"] * (len(compared) - 1) + ["other"] * len(labels)
    text = values.loc[labels].map(percent)
    text = text.mask(values == values.max(), "<b>" + text + "</b> ●")
    text.index = pd.Index([f"{escape(names[k])} ({role})" for k, role in zip(labels, roles, strict=False)])
    text.columns = pd.Index(["picture", "after deletion", "after retention"], name="class")
    return f"{_TABLE_STYLE}{text.to_html(classes='xfr-table', border=0, escape=False)}● predicted"


def place_of_peak(values: Tensor) -> str:
    """Where a map (H, W) is largest, in words: "top left", "middle"."""
    y, x = divmod(int(values.argmax()), values.shape[1])
    row = ("top", "middle", "bottom")[3 * y // values.shape[0]]
    column = ("left", "middle", "right")[3 * x // values.shape[1]]
    return row if row == column else f"{row} {column}"


def _colours(unit: str, name: str, low: str, high: str) -> str:
    """A colour map as a strip of HTML, with the values at its ends."""
    stops = ", ".join(to_hex(colour) for colour in mpl.colormaps[name](np.linspace(0, 1, 6)))
    style = f"display:inline-block;width:6em;height:.8em;background:linear-gradient(to right, {stops})"
    strip = f"<span style='{style}' role='img' aria-label='colours from low to high'></span>"
    return f"<div style='line-height:1.6;white-space:nowrap'>{unit}: {low} {strip} {high}</div>"

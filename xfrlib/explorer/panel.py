"""One setting on the screen: pictures, maps, probabilities and the verdict, as widgets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from html import escape

import ipywidgets as widgets
import matplotlib as mpl
import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from traitlets import Unicode

from xfrlib.explorer.maps import Answers, Maps
from xfrlib.explorer.pictures import Pictures, png
from xfrlib.plots import CAM_UNIT, DIVERGING, SDD_UNIT, SEQUENTIAL, percent

Pixels = NDArray[np.float32]
_SIDE = 132  # CSS pixels of a tile
_TABLE_STYLE = (
    "<style>.xfr-table :is(td, th) {padding: 0 .6em; text-align: right; line-height: 1.5; font-weight: normal}</style>"
)
_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("left", "middle", "right")


def colour_table(name: str) -> Pixels:
    """The 256 colours of a colour map, (256, 3)."""
    return mpl.colormaps[name](np.linspace(0, 1, 256))[:, :3].astype(np.float32)


_SIGNED, _FROM_ZERO = colour_table(DIVERGING), colour_table(SEQUENTIAL)


def tint(picture: Pixels, values: Pixels, table: Pixels, low: float, high: float) -> Pixels:
    """`xfrlib.plots.tint` from a table of colours: values (H, W) over the luminance of a picture (H, W, 3)."""
    grey = picture @ np.array([[0.299], [0.587], [0.114]], np.float32)
    places = np.clip((values - low) * (255.99 / (high - low)), 0, 255).astype(np.uint8)
    return 0.4 * grey + 0.6 * table[places]


def place_of_peak(values: Pixels) -> str:
    """Where a map (H, W) is largest, in words: "top left", "middle"."""
    y, x = np.unravel_index(int(values.argmax()), values.shape)
    words = dict.fromkeys([_ROWS[3 * int(y) // values.shape[0]], _COLUMNS[3 * int(x) // values.shape[1]]])
    return " ".join(words)


class _Picture(widgets.Image):
    """An image with a text alternative, its tooltip; the front end asks for a description before it sets one."""

    description = Unicode("").tag(sync=True)


class Panel(widgets.VBox):
    """The maps and answers of one setting. Its pictures are in `tiles` by name."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures
        self.tiles: dict[str, widgets.Image] = {}
        self.captions: dict[str, widgets.HTML] = {}
        self._boxes: dict[str, widgets.Widget] = {}
        self._drawn: dict[str, object] = {}
        self.heading, self.table, self.verdict = widgets.HTML(), widgets.HTML(), widgets.HTML()
        faces = [self._tile(name) for name in ("picture", "sdd", "mask", "deleted", "retained")]
        self._faces = widgets.HBox(faces, layout={"flex_flow": "row wrap"})
        self._maps, self._legend = widgets.HBox(layout={"flex_flow": "row wrap"}), widgets.HTML()
        children = [self.heading, self._faces, self._maps, self._legend, self.table, self.verdict]
        super().__init__(children, layout={"flex": "1 1 0", "min_width": "300px"})

    def show_maps(self, maps: Maps, high: float) -> None:
        """Draw all that needs no answer of the network. `high` is the value of a CAM at the end of its colours."""
        explanation, names = maps.explanation, [self.pictures.names[label] for label in maps.classes]
        picture = _pixels(self.pictures.image(maps.row))
        mask, heat = maps.mask[0].numpy(), explanation.sdd[0].numpy()
        title = f"{names[0]}\n{percent(explanation.probabilities[0, 0])}"
        self._show("picture", maps.row, lambda: picture, title, f"The picture: {self.pictures.title(maps.row)}")
        key: tuple[object, ...] = maps.row, maps.settings.of_the_map
        where = f"SDD map of {names[0]}, strongest at the {place_of_peak(heat)}"
        self._show("sdd", key, lambda: tint(picture, heat, _FROM_ZERO, 0, 1), "SDD map\n0 to its maximum", where)
        size = f"mask\n{percent(mask.mean())} of pixels"
        self._show("mask", mask.tobytes(), lambda: np.repeat(mask[..., None], 3, axis=2).astype(np.float32), size, size)
        large = F.interpolate(explanation.cams, size=mask.shape, mode="bilinear", align_corners=False)[0].numpy()
        for i, (cam, name, chance) in enumerate(zip(large, names, explanation.probabilities[0], strict=True)):
            role = "target" if i == 0 else f"rival {i}"
            key = maps.row, maps.classes[i], maps.settings.centre, high
            title = f"CAM, {role}\n{name}, {percent(chance)}"
            where = f"Class activation map of {name}, {role}, strongest at the {place_of_peak(cam)}"
            self._show(f"cam {i}", key, partial(tint, picture, cam, _SIGNED, -high, high), title, where)
        self._maps.children = [self._tile(f"cam {i}") for i in range(len(names))]
        scales = [(CAM_UNIT, f"−{high:.3g}", _SIGNED, f"{high:.3g}"), (SDD_UNIT, "0", _FROM_ZERO, "1")]
        self._legend.value = "".join(
            f"<div style='line-height:1.6;white-space:nowrap'>{unit}: {low} {_strip(table)} {top}</div>"
            for unit, low, table, top in scales
        )

    def show_answers(self, maps: Maps, answers: Answers) -> None:
        """Draw what the network says of the masked pictures."""
        for name, kind in (("deleted", "deletion"), ("retained", "retention")):
            chances = answers.chances[kind]
            best, own = int(chances.argmax()), percent(chances[maps.classes[0]])
            says = "" if best == maps.classes[0] else f", says {self.pictures.names[best]}"
            key = maps.row, maps.settings.fill, maps.mask.numpy().tobytes()
            text = f"{name}\n{own}{says}"
            alt = f"The picture after {kind}: {self.pictures.names[maps.classes[0]]} {own}{says}"
            self._show(name, key, partial(_pixels, answers.pictures[kind]), text, alt)
        self.table.value = self._probabilities(maps, answers)
        verdict = answers.verdict
        says = "No verdict: it judges maps of the predicted person."
        if verdict is not None:
            says = ("✓ " if verdict.show else "✗ ") + verdict.reason
        self.verdict.value = f"<p style='line-height:1.4;max-width:48em'>{escape(says)}</p>"

    def _probabilities(self, maps: Maps, answers: Answers) -> str:
        """A table: the classes compared, and whoever is predicted, by what the network was shown."""
        winners = {kind: int(chances.argmax()) for kind, chances in answers.chances.items()}
        columns = ("class", "picture", "after deletion", "after retention")
        head = "".join(f"<th scope='col'>{text}</th>" for text in columns)
        lines = []
        for label in dict.fromkeys([*maps.classes, *winners.values()]):
            cells = [
                f"<b>{percent(chances[label])}</b> ●" if winners[kind] == label else percent(chances[label])
                for kind, chances in answers.chances.items()
            ]
            role = {0: "target"}.get(maps.classes.index(label), "rival") if label in maps.classes else "other"
            name = f"{escape(self.pictures.names[label])} ({role})"
            lines.append(f"<th scope='row'>{name}</th>" + "".join(f"<td>{cell}</td>" for cell in cells))
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        return f"{_TABLE_STYLE}<table class='xfr-table'><tr>{head}</tr>{body}</table>● predicted"

    def _tile(self, name: str) -> widgets.Widget:
        """The picture called `name` with its caption, made when first asked for."""
        if name not in self._boxes:
            self.tiles[name] = _Picture(format="png", layout={"width": f"{_SIDE}px", "height": f"{_SIDE}px"})
            self.captions[name] = widgets.HTML()
            self._boxes[name] = widgets.VBox([self.tiles[name], self.captions[name]])
        return self._boxes[name]

    def _show(self, name: str, key: object, pixels: Callable[[], Pixels], caption: str, alternative: str) -> None:
        """Draw a tile, unless it shows what `key` stands for already."""
        self._tile(name)
        if self._drawn.get(name) != key:
            self._drawn[name], self.tiles[name].value = key, png(pixels())
        self.tiles[name].tooltip = alternative
        text = escape(caption).replace("\n", "<br>")
        self.captions[name].value = f"<div style='width:{_SIDE}px;line-height:1.3'>{text}</div>"


def _strip(table: Pixels) -> str:
    """A colour map as a strip of HTML."""
    stops = ", ".join(f"rgb({r}, {g}, {b})" for r, g, b in (255 * table[::51]).astype(int).tolist())
    style = f"display:inline-block;width:6em;height:.8em;background:linear-gradient(to right, {stops})"
    return f"<span style='{style}' role='img' aria-label='colours from low to high'></span>"


def _pixels(image: Tensor) -> Pixels:
    return image.permute(1, 2, 0).numpy()

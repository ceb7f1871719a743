"""What is seen, as widgets: the thumbnails to choose from, and the maps and answers of one setting."""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from collections.abc import Callable
from html import escape

import ipywidgets as widgets
import numpy as np
import torch.nn.functional as F
from matplotlib.cm import ScalarMappable
from matplotlib.colors import to_rgb
from PIL import Image
from torch import Tensor

from xfrlib.explorer.maps import Answers, Maps
from xfrlib.explorer.pictures import Pictures
from xfrlib.explorer.views import MASKING, View, answer_views, map_views
from xfrlib.plots import CAM_UNIT, SDD_UNIT, Array, as_pictures, percent, tint

WRAPPED = {"flex_flow": "row wrap"}
_PAGE, _BUTTON, _SIDE = 12, 56, 132  # buttons of thumbnails, and pixels of each and of a tile
_TABLE_STYLE = ".xfr-table :is(td, th) {padding: 0 .6em; text-align: right; line-height: 1.5; font-weight: normal}"


def data_url(picture: Array, side: int) -> str:
    """A picture as `xfrlib.plots.as_pictures` takes it, at most `side` pixels each way, as a PNG file for a page."""
    image, buffer = Image.fromarray((255 * as_pictures(picture)[0] + 0.5).astype(np.uint8)), io.BytesIO()
    image.thumbnail((side, side))
    image.save(buffer, "png", compress_level=1)  # quickly rather than small
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


class Thumbnails(widgets.HBox):
    """Pages of small pictures; `choose` is called with the number of the one that is pressed.

    They are buttons, for the keyboard and for screen readers. A button holds no picture: a style sheet gives it one.
    """

    def __init__(self, pictures: Pictures, choose: Callable[[int], None]) -> None:
        self.pictures, self.rows, self.chosen, self.first = pictures, [0], 0, 0
        self.sheet, arrow = widgets.HTML(), {"layout": {"width": "40px"}}
        self.earlier = widgets.Button(description="◀", tooltip="earlier pictures", **arrow)
        self.later = widgets.Button(description="▶", tooltip="later pictures", **arrow)
        self.earlier.on_click(lambda _: self._turn(self.first - _PAGE))
        self.later.on_click(lambda _: self._turn(self.first + _PAGE))
        square = {"width": f"{_BUTTON}px", "height": f"{_BUTTON}px", "margin": "2px", "padding": "0"}
        self.buttons = [widgets.Button(layout=square) for _ in range(_PAGE)]
        row = [self.earlier, *self.buttons, self.later, self.sheet]
        super().__init__(row, layout=WRAPPED | {"align_items": "center"})
        self._mark = f"xfr-{self.model_id}"  # the style sheet must not reach another explorer on the page
        self.add_class(self._mark)
        for place, button in enumerate(self.buttons):
            button.add_class(f"{self._mark}-{place}")
            button.on_click(lambda _, place=place: choose(self.rows[self.first + place]))

    def show(self, rows: list[int], chosen: int) -> None:
        """Offer the pictures `rows` and turn to the page of `chosen`, which is marked."""
        self.rows, self.chosen = rows, chosen
        self._turn(rows.index(chosen) // _PAGE * _PAGE)

    def _turn(self, first: int) -> None:
        self.first, page = first, self.rows[first : first + _PAGE]
        style = f".{self._mark} :focus-visible {{outline: 3px solid #0072B2; outline-offset: 1px}}"
        for place, button in enumerate(self.buttons):
            button.layout.display = "" if place < len(page) else "none"
        for place, row in enumerate(page):
            url, edge = data_url(self.pictures.image(row), _BUTTON), "border: 3px solid #D55E00" * (row == self.chosen)
            style += f".{self._mark}-{place} {{background: url({url}) center / cover; {edge}}}"
            self.buttons[place].tooltip = self._title(row)
        self.sheet.value = f"<style>{style}</style>{first + 1} to {first + len(page)} of {len(self.rows)}"
        self.earlier.disabled, self.later.disabled = first == 0, first + _PAGE >= len(self.rows)

    def _title(self, row: int) -> str:
        """What the picture is called, what it is predicted as where that is known, and whether it is chosen."""
        said = self.pictures.title(row)
        if row in self.pictures.logits:
            label, chance = self.pictures.predicted(row)
            said += f", predicted {self.pictures.names[label]}, {percent(chance)}"
        return said + ", chosen" * (row == self.chosen)


class Tiles(widgets.VBox):
    """The maps and answers of one setting: HTML for each view, by name, so that only what changes is sent."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures
        self.tiles: defaultdict[str, widgets.HTML] = defaultdict(widgets.HTML)
        masking = widgets.HBox([self.tiles[name] for name in MASKING], layout=WRAPPED)
        self._cams = widgets.HBox(layout=WRAPPED)
        self._legend, self.table, self.verdict = (widgets.HTML() for _ in range(3))
        rows = [masking, self._cams, self._legend, self.table, self.verdict]
        super().__init__(rows, layout={"flex": "1 1 0", "min_width": "300px"})

    def show_maps(self, maps: Maps, side: str, *colours: ScalarMappable) -> None:
        """Show `map_views`, and what their colours mean."""
        views = map_views(self.pictures, maps, side, *colours)
        self._show(views)
        self._cams.children = [self.tiles[name] for name in views if name not in MASKING]
        self._legend.value = "".join(map(_legend, (CAM_UNIT, SDD_UNIT), colours))

    def show_answers(self, maps: Maps, answers: Answers) -> None:
        """Show `answer_views`, the probabilities and the verdict."""
        self._show(answer_views(self.pictures, maps, answers))
        self.table.value = _probabilities(self.pictures.names, maps.classes, answers.chances)
        says, verdict = "No verdict: it judges maps of the predicted person.", answers.verdict
        if verdict is not None:
            says = f"✓ {verdict.reason}".replace("✓ Not shown", "✗ The rule would hold this map back")
        self.verdict.value = f"<p style='line-height:1.4;max-width:48em'>{escape(says)}</p>"

    def _show(self, views: dict[str, View]) -> None:
        for name, (picture, caption, alternative, over, line) in views.items():
            drawn = tint(picture, *over) if over else picture
            if line is not None:
                border = line & (F.avg_pool2d(line[None].float(), 3, 1, padding=1)[0] < 1)  # beside a pixel outside
                drawn = np.where(border[..., None].numpy(), to_rgb("#E69F00"), as_pictures(drawn)[0])
            url, says, below = data_url(drawn, 2 * _SIDE), escape(alternative), escape(caption).replace("\n", "<br>")
            image = f"<img src='{url}' alt='{says}' title='{says}' width={_SIDE} height={_SIDE} border=1>"
            self.tiles[name].value = f"<div style='width:{_SIDE}px;line-height:1.3'>{image}<br>{below}</div>"


def _probabilities(names: list[str], compared: list[int], chances: dict[str, Tensor]) -> str:
    """A table: the classes compared, and whoever is predicted, by what the network was shown."""
    best = {kind: int(values.argmax()) for kind, values in chances.items()}
    rows = ["<th>class<th>picture<th>after deletion<th>after retention"]
    for place, label in enumerate(dict.fromkeys([*compared, *best.values()])):
        role = ("target", "rival", "other")[(place > 0) + (place >= len(compared))]
        rows.append(f"<th>{escape(names[label])} ({role})")
        for kind, values in chances.items():
            rows[-1] += f"<td>{percent(values[label])}{' <b>●</b>' * (label == best[kind])}"
    return f"<style>{_TABLE_STYLE}</style><table class='xfr-table'><tr>{'<tr>'.join(rows)}</table>● predicted"


def _legend(unit: str, colours: ScalarMappable) -> str:
    """The colours as a strip, with the values at their ends."""
    low, high = colours.get_clim()
    strip = data_url(colours.to_rgba(np.linspace(low, high, _SIDE))[None, :, :3], _SIDE)
    image = f"<img src='{strip}' style='width:6em;height:.8em' alt='colours from low to high'>"
    return f"<div style='line-height:1.6;white-space:nowrap'>{unit}: {low:.3g} {image} {high:.3g}</div>"

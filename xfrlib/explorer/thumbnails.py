"""A row of small pictures to choose from: real buttons, so that they work by keyboard and for a screen reader."""

from __future__ import annotations

import base64
from collections.abc import Callable
from uuid import uuid4

import ipywidgets as widgets

from xfrlib.explorer.pictures import Pictures, png
from xfrlib.plots import percent

_PAGE, _SIDE = 12, 56  # buttons, and pixels of each


class Thumbnails(widgets.HBox):
    """Pages of thumbnails; `choose` is called with the number of the picture whose button is pressed.

    A button of ipywidgets holds no picture: a style sheet gives it one as background.
    """

    def __init__(self, pictures: Pictures, choose: Callable[[int], None]) -> None:
        self.pictures, self.rows, self.chosen, self.first = pictures, [0], 0, 0
        self._mark = f"xfr-{uuid4().hex[:8]}"  # the style sheet must not reach another explorer on the page
        self.sheet = widgets.HTML()
        self.earlier = widgets.Button(description="◀", tooltip="earlier pictures", layout={"width": "40px"})
        self.later = widgets.Button(description="▶", tooltip="later pictures", layout={"width": "40px"})
        self.earlier.on_click(lambda _: self._turn(self.first - _PAGE))
        self.later.on_click(lambda _: self._turn(self.first + _PAGE))
        self.buttons = [widgets.Button() for _ in range(_PAGE)]
        for place, button in enumerate(self.buttons):
            button.add_class(self._mark).add_class(f"{self._mark}-{place}")
            button.on_click(lambda _, place=place: choose(self.rows[self.first + place]))
        layout = {"flex_flow": "row wrap", "align_items": "center"}
        super().__init__([self.earlier, *self.buttons, self.later, self.sheet], layout=layout)

    def show(self, rows: list[int], chosen: int) -> None:
        """Offer the pictures `rows` and turn to the page of `chosen`, which is marked."""
        self.rows, self.chosen = rows, chosen
        self._turn(rows.index(chosen) // _PAGE * _PAGE)

    def _turn(self, first: int) -> None:
        self.first, page = first, self.rows[first : first + _PAGE]
        rules = [
            f".{self._mark} {{width: {_SIDE}px; height: {_SIDE}px; margin: 2px; padding: 0; background-size: cover}}",
            f".{self._mark}:focus-visible {{outline: 3px solid #0072B2; outline-offset: 1px}}",
        ]
        for place, button in enumerate(self.buttons):
            button.layout.display = "" if place < len(page) else "none"
        for place, (button, row) in enumerate(zip(self.buttons, page, strict=False)):
            data = base64.b64encode(png(self.pictures.image(row), _SIDE)).decode()
            edge = "; border: 3px solid #D55E00" if row == self.chosen else ""
            rules.append(f".{self._mark}-{place} {{background-image: url(data:image/png;base64,{data}){edge}}}")
            button.tooltip = self._title(row)
        shown = f"{first + 1} to {first + len(page)} of {len(self.rows)}"
        self.sheet.value = f"<style>{''.join(rules)}</style>{shown}"
        self.earlier.disabled, self.later.disabled = first == 0, first + _PAGE >= len(self.rows)

    def _title(self, row: int) -> str:
        title = self.pictures.title(row)
        if self.pictures.seen(row):
            label, chance = self.pictures.predicted(row)
            title += f", predicted {self.pictures.names[label]}, {percent(chance)}"
        return title + ", chosen" * (row == self.chosen)

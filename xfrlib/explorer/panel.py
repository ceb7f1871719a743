"""The panel for JupyterLab: controls, a line that says what is going on, and one or two settings on the screen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from html import escape
from pathlib import Path
from threading import Lock
from typing import Any

import ipywidgets as widgets

from xfrlib.explorer.maps import RIVALS, Answers, Calculator, Maps, Settings
from xfrlib.explorer.pictures import EVERYBODY, OUTCOMES
from xfrlib.explorer.tiles import WRAPPED, Thumbnails, Tiles
from xfrlib.explorer.views import SIDE_LABELS, common_colours, save_view
from xfrlib.plots import percent
from xfrlib.profile import FORMS
from xfrlib.sdd import EXPONENTIALS

PREDICTED = -2  # no label; None would choose nothing in a list
CROPPED = (
    "Centre-cropped, not aligned: a network that was trained on aligned faces may misread it. To align it first, put "
    "it at photos/<name>/<file> and run: python -m facedata.align photos data/my_faces"
)
NOBODY = "who this is is not known; the network knows no “nobody” and names one of its people, for an ellipse too"

# JupyterLab takes the arrow keys and letters typed in a list or slider for commands of the notebook, unless the element
# has this attribute; ipywidgets does not set it. A screen reader speaks what changes inside an element that was there
# before, with the role of a status: each sentence is new, so the role belongs to the element around it.
ATTRIBUTES = """<img alt="" style="display: none" onload="const start = () => {
  const root = this.closest('.xfr-explorer'), status = root?.querySelector('.xfr-status');
  if (!status) return setTimeout(start, 100);
  status.setAttribute('role', 'status');
  root.addEventListener('focusin', ({ target }) =>
    target.toggleAttribute('data-lm-suppress-shortcuts', target.matches('select, [role=slider]')));
}; start()" src="data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7">"""


class Status(widgets.HTML):
    """The line of a panel that says what is going on."""

    def say(self, sentence: str) -> None:
        """Show a sentence, as plain text."""
        self.value = escape(sentence)

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Say what is going on; an error that the user can mend becomes a sentence instead of a traceback."""
        self.say(f"{what} …")
        try:
            yield
        except (ValueError, OSError, ImportError) as error:
            self.say(f"Cannot do this: {error}")


class Explorer(widgets.VBox):
    """What `xfrlib.explorer.explorer` returns.

    Its controls are attributes, those of a setting by the name in `Settings`; `tiles` show, `shown` holds the last maps
    and answers, and `sides` the one or two settings that they belong to.
    """

    def __init__(
        self, calculator: Calculator, first: Settings, folder: Path, provenance: Callable[[], Mapping[str, Any]]
    ) -> None:
        self.calculator, self.folder, self.provenance = calculator, folder, provenance
        self.pictures, self.sides, self.row = calculator.pictures, [first], 0
        self.rows: list[int] = []  # those that pass the filters
        self.shown: list[tuple[Maps, Answers]] = []
        self._silence = Lock()  # held while a control is changed without an answer to it
        self.status = Status().add_class("xfr-status")
        self.pictures.say = self.status.say
        self.tiles = [Tiles(self.pictures), Tiles(self.pictures)]
        self._tiles = widgets.HBox(self.tiles[:1], layout=WRAPPED)
        self.thumbnails = Thumbnails(self.pictures, lambda row: setattr(self.picture, "value", row))
        attributes = widgets.HTML(ATTRIBUTES, layout={"display": "none"})
        super().__init__([*self._controls(first), self.status, self._tiles, attributes])
        self.add_class("xfr-explorer")
        self._filter()

    def _controls(self, first: Settings) -> list[widgets.HBox]:
        """The controls that choose a picture, and those of a setting and of what is shown."""
        names, known = self.pictures.names, sorted(set(self.pictures.labels))
        people = [(names[label] if label >= 0 else "strangers", label) for label in known]
        share = {"step": 0.01, "readout_format": ".0%"}
        when = [(f"{word} upsampling", word) for word in EXPONENTIALS]
        filters = self._filters = self._add(
            self._filter,
            name=widgets.Text(description="name", placeholder="part of a name"),
            outcome=widgets.Dropdown(description="predictions", options=OUTCOMES),
            confidence=widgets.FloatRangeSlider(description="probability", value=(0, 1), max=1, **share),
            subject=widgets.Dropdown(description="subject", options=[("everybody", EVERYBODY), *people]),
        )
        choice = self._add(self._choose, picture=widgets.Dropdown(description="picture"))
        choice += self._add(self._receive, upload=widgets.FileUpload(description="own picture", accept="image/*"))
        settings = self._add(
            self._change,
            target=widgets.Dropdown(description="target"),
            rivals=widgets.Dropdown(description="rivals", options=RIVALS),
            top_k=widgets.IntSlider(description="classes", min=2, max=max(min(12, len(names)), first.top_k)),
            chosen=widgets.SelectMultiple(description="compared with", rows=6),
            form=widgets.Dropdown(description="form", options=FORMS),
            delta=_log_slider("delta", first.delta, -2, 2),
            scale=_log_slider("scale k", first.scale, -1, 2),
            scale_min=_log_slider("s at least", first.scale_min, -1, math.log10(first.scale_max)),
            resolution=widgets.Dropdown(description="exponential", options=when),
            fraction=widgets.FloatSlider(description="share deleted", min=0.01, max=0.9, **share),
            fill=widgets.Dropdown(description="filled with", options=("black", "grey", "blur")),
        )
        settings += self._add(self._split, compare=widgets.ToggleButton(description="compare two settings"))
        settings += self._add(self._load, side=widgets.ToggleButtons(description="controls set", options=["A", "B"]))
        self.side.layout.display, self.confidence.continuous_update = "none", False
        self.save = widgets.Button(description="save figure and numbers")
        self.save.on_click(self._save)
        self.compare.layout.width = self.save.layout.width = "auto"
        columns = [widgets.VBox(part) for part in (settings[:4], settings[4:9], [*settings[9:], self.save])]
        rows = filters[:3], [filters[3], *choice], [self.thumbnails], columns
        return [widgets.HBox(row, layout=WRAPPED) for row in rows]

    def _add(self, act: Callable[..., Any], **controls: widgets.Widget) -> list[widgets.Widget]:
        """Let controls, attributes from here on, call `act` with name and value, unless they are changed in silence."""
        for name, control in controls.items():
            setattr(self, name, control)
            control.style.description_width = "100px"
            control.observe(lambda change, name=name: self._silence.locked() or act(name, change.new), "value")
        return list(controls.values())

    def _filter(self, *_: Any) -> None:
        """Offer the pictures that pass the filters, and stay with the one shown if it is among them."""
        with self.status.doing("looking for pictures"):
            rows = self.pictures.matching(*(control.value for control in self._filters))
            self.rows, row = rows, self.row if self.row in rows else rows[0]
            with self._silence:
                self.picture.options = [(self.pictures.title(r), r) for r in rows]
                self.picture.value = row
            self._choose("picture", row)

    def _choose(self, _: str, row: int) -> None:
        """Show picture `row`, its target and rivals chosen anew by rule."""
        with self.status.doing(f"running the network on {self.pictures.title(row)}"):
            if row != self.row or not self.shown:
                for i, side in enumerate(self.sides):
                    self.sides[i] = replace(side, target=None, rivals=side.rivals.replace("by hand", RIVALS[0]))
            self.row = row
            self.thumbnails.show(self.rows, row)
            self._draw()

    def _receive(self, _: str, files: tuple[dict[str, Any], ...]) -> None:
        """Add the file that was given, and show it with no filter set."""
        file = files[0]
        with self._silence:  # so that the same file can be given again
            self.upload.value = ()
        with self.status.doing(f"reading {file['name']}"):
            self.row, self.shown = self.pictures.add(file["name"], bytes(file["content"])), []
            with self._silence:
                for control, value in zip(self._filters, ("", OUTCOMES[0], (0, 1), EVERYBODY), strict=True):
                    control.value = value
            self._filter()

    def _change(self, name: str, value: Any) -> None:
        """Set what the control `name` says, and redraw."""
        settings = replace(self.sides[self.side.index], **{name: None if value == PREDICTED else value})
        if name == "chosen":
            settings = replace(settings, rivals="by hand")
        elif settings.rivals == "by hand":  # begins with those marked, of which a new target may be one
            target = self.pictures.predicted(self.row)[0] if settings.target is None else settings.target
            chosen = tuple(label for label in self.chosen.value if label != target)
            settings = replace(settings, chosen=chosen, rivals="by hand" if chosen else RIVALS[0])
        self.sides[self.side.index] = settings
        self._draw()

    def _split(self, _: str, two: bool) -> None:
        """From one setting to two that are alike at first, or back to the one that the controls set."""
        self.sides = [self.sides[0]] * 2 if two else [self.sides[self.side.index]]
        self.side.layout.display = "" if two else "none"
        self._tiles.children = self.tiles[: len(self.sides)]
        with self._silence:
            self.side.value = "AB"[two]
        self._draw()

    def _load(self, *_: Any) -> None:
        """Let the controls show the settings of the active side, and offer the classes, the most probable first."""
        settings, names = self.sides[self.side.index], self.pictures.names
        with self._silence:
            for name in ("form", "delta", "scale", "scale_min", "resolution", "fraction", "fill", "top_k", "rivals"):
                getattr(self, name).value = getattr(settings, name)
            target, *rivals = self.calculator.classes(self.row, settings)
            ranking = self.pictures.ranking(self.row)
            options = [(f"{names[label]}, {percent(chance)}", label) for label, chance in ranking]
            self.target.options = ((f"predicted: {names[ranking[0][0]]}", PREDICTED), *options)
            self.chosen.options = tuple(option for option in options if option[1] != target)
            self.target.value = PREDICTED if settings.target is None else settings.target
            self.chosen.value = tuple(rivals)

    def _draw(self) -> None:
        """Draw the maps at once, and what the network says of the masks when it has answered."""
        with self.status.doing("computing the maps"):
            self._load()
            self.status.say("computing the maps …")
            found = [self.calculator.maps(self.row, settings) for settings in self.sides]
            for side, tiles, maps in zip(SIDE_LABELS[len(found)], self.tiles, found, strict=False):
                tiles.show_maps(maps, side, *common_colours(found))
            self.status.say("asking the network about the masked picture …")
            self.shown = [(maps, self.calculator.answers(maps)) for maps in found]
            for tiles, (maps, answers) in zip(self.tiles, self.shown, strict=False):
                tiles.show_answers(maps, answers)
            self.status.say(self._summary())

    def _summary(self) -> str:
        """What is shown, in words, with the share of the first mask that the second covers."""
        (label, chance), outcome = self.pictures.predicted(self.row), self.pictures.outcome(self.row)
        verdicts = {"wrong": f"wrong: this is {self.pictures.person(self.row)}", "unknown": NOBODY}
        said = f"{self.pictures.title(self.row)}. Predicted: {self.pictures.names[label]}, {percent(chance)}"
        said += f" ({verdicts.get(outcome, outcome)})."
        if len(self.shown) > 1:
            first, second = (maps.mask for maps, _ in self.shown)
            said += f" B's mask covers {percent((first & second).sum() / first.sum())} of A's."
        return said + f" {CROPPED}" * (self.row in self.pictures.cropped)

    def _save(self, _: Any) -> None:
        with self.status.doing("drawing the figure"):
            if not self.shown:
                raise ValueError("there is nothing to save yet")
            paths = save_view(self.folder, self.pictures, self.shown, dict(self.provenance()))
            self.status.say(f"saved {' and '.join(map(str, paths))}")


def _log_slider(label: str, value: float, low: float, high: float) -> widgets.Widget:
    """A slider of powers of ten, wide enough for its first value."""
    ends = {"min": min(low, math.floor(math.log10(value))), "max": max(high, math.ceil(math.log10(value)))}
    return widgets.FloatLogSlider(description=label, **ends, step=0.05, readout_format=".3g")

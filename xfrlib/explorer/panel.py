"""The panel for JupyterLab: controls, a line that says what is going on, and one or two settings on the screen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from html import escape
from pathlib import Path
from threading import Lock
from typing import Any

import ipywidgets as widgets
from matplotlib.figure import Figure
from torch import Tensor

from xfrlib.explorer.export import figure, save
from xfrlib.explorer.maps import RIVALS, Answers, Calculator, Maps, Settings
from xfrlib.explorer.pictures import OUTCOMES
from xfrlib.explorer.thumbnails import Thumbnails
from xfrlib.explorer.tiles import WRAPPED, Tiles
from xfrlib.plots import percent
from xfrlib.profile import FORMS
from xfrlib.sdd import EXPONENTIALS

EVERYBODY, PREDICTED = -2, -2  # values of two lists that no label has; None would choose nothing there
CROPPED = (
    "Centre-cropped, not aligned: a network that was trained on aligned faces may misread it. To align it first, put "
    "it at photos/<name>/<file> and run: python -m facedata.align photos data/my_faces"
)
_AS_SET = ("form", "delta", "scale", "scale_min", "resolution", "fraction", "fill", "top_k", "rivals")

# JupyterLab takes the arrow keys and letters typed in a list or slider for commands of the notebook, unless the element
# has this attribute; ipywidgets does not set it. A screen reader speaks what changes inside an element that was there
# before, with the role of a status: each sentence is new, so the role belongs to the element around it.
_ATTRIBUTES = """<img alt="" style="display: none" onload="const start = () => {
  const root = this.closest('.xfr-explorer'), name = 'data-lm-suppress-shortcuts';
  const status = root && root.querySelector('.xfr-status');
  if (!status) return setTimeout(start, 100);
  status.setAttribute('role', 'status');
  root.addEventListener('focusin', ({ target }) => {
    if (target.matches('select, [role=slider]')) target.setAttribute(name, 'true');
  });
}; start()" src="data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7">"""


class Explorer(widgets.VBox):
    """What `xfrlib.explorer.explorer` returns.

    Its controls are attributes, those of a setting by the name in `Settings`; `tiles` show, `shown` holds the last maps
    and answers, and `sides` the one or two settings that they belong to.
    """

    def __init__(
        self, calculator: Calculator, first: Settings, folder: Path, provenance: Callable[[], Mapping[str, Any]]
    ) -> None:
        self.calculator, self.pictures = calculator, calculator.pictures
        self.folder, self.provenance = folder, provenance
        self.sides, self.row = [first], 0
        self.rows: list[int] = []  # those that pass the filters
        self.shown: list[tuple[Maps, Answers]] = []
        self._offered: list[int] = []  # picture and target whose classes are in the lists
        self._silence = Lock()  # held while a control is changed without an answer to it
        self.pictures.say = self._say
        self.status = widgets.HTML().add_class("xfr-status")
        self.tiles = [Tiles(self.pictures), Tiles(self.pictures)]
        self._tiles = widgets.HBox(self.tiles[:1], layout=WRAPPED)
        self.thumbnails = Thumbnails(self.pictures, lambda row: setattr(self.picture, "value", row))
        attributes = widgets.HTML(_ATTRIBUTES, layout={"display": "none"})
        rows = [*self._choice(), self.thumbnails, self._settings(first), self.status, self._tiles, attributes]
        super().__init__(rows)
        self.add_class("xfr-explorer")
        self._filter()

    def _choice(self) -> list[widgets.HBox]:
        """The controls that choose a picture."""
        known = sorted(set(self.pictures.labels))
        people = [(self.pictures.names[label] if label >= 0 else "strangers", label) for label in known]
        self.name = _control(widgets.Text, "name", placeholder="part of a name")
        self.outcome = _control(widgets.Dropdown, "predictions", options=OUTCOMES)
        self.confidence = _control(widgets.IntRangeSlider, "probability %", value=(0, 100), continuous_update=False)
        self.subject = _control(widgets.Dropdown, "subject", options=[("everybody", EVERYBODY), *people])
        self.picture = _control(widgets.Dropdown, "picture")
        self.upload = widgets.FileUpload(accept="image/*", description="own picture")
        filters, choice = [self.name, self.outcome, self.confidence], [self.subject, self.picture, self.upload]
        for control in (*filters, self.subject):
            self._answer(control, lambda _: self._filter())
        self._answer(self.picture, self._choose)
        self._answer(self.upload, self._receive)
        return [widgets.HBox(row, layout=WRAPPED) for row in (filters, choice)]

    def _settings(self, first: Settings) -> widgets.HBox:
        """The controls of a setting, and those of what is shown."""
        most = max(min(12, len(self.pictures.names)), first.top_k)
        when = [(f"{word} upsampling", word) for word in EXPONENTIALS]
        fills = ("black", "grey", "blur") + ("mean",) * (self.calculator.mean is not None)
        share = {"min": 0.01, "max": 0.9, "step": 0.01, "readout_format": ".0%"}
        self.target = _control(widgets.Dropdown, "target")
        self.rivals = _control(widgets.Dropdown, "rivals", options=RIVALS)
        self.top_k = _control(widgets.IntSlider, "classes", min=2, max=most)
        self.chosen = _control(widgets.SelectMultiple, "compared with", rows=6)
        self.form = _control(widgets.Dropdown, "form", options=FORMS)
        self.delta = _log_slider("delta", first.delta, -2, 2)
        self.scale = _log_slider("scale k", first.scale, -1, 2)
        self.scale_min = _log_slider("s at least", first.scale_min, -1, math.log10(first.scale_max))
        self.resolution = _control(widgets.Dropdown, "exponential", options=when)
        self.fraction = _control(widgets.FloatSlider, "share deleted", **share)
        self.fill = _control(widgets.Dropdown, "filled with", options=fills)
        self.compare = widgets.ToggleButton(description="compare two settings", layout={"width": "auto"})
        self.side = _control(widgets.ToggleButtons, "controls set", options=["A", "B"], layout={"display": "none"})
        self.save = widgets.Button(description="save figure and numbers", layout={"width": "auto"})
        for name in (*_AS_SET, "target", "chosen"):
            self._answer(getattr(self, name), partial(self._change, name))
        self._answer(self.compare, self._split)
        self._answer(self.side, lambda _: self._load())
        self.save.on_click(self._save)
        columns = (
            [self.target, self.rivals, self.top_k, self.chosen],
            [self.form, self.delta, self.scale, self.scale_min, self.resolution],
            [self.fraction, self.fill, self.compare, self.side, self.save],
        )
        return widgets.HBox([widgets.VBox(column) for column in columns], layout=WRAPPED)

    def _answer(self, control: widgets.Widget, act: Callable[[Any], Any]) -> None:
        """Call `act` with what the control is set to, unless it is changed in silence."""
        control.observe(lambda change: self._silence.locked() or act(change.new), "value")

    # --- which picture

    def _filter(self) -> None:
        """Offer the pictures that pass the filters, and stay with the one shown if it is among them."""
        with self._report("looking for pictures"):
            low, high = (percents / 100 for percents in self.confidence.value)
            subject = None if self.subject.value == EVERYBODY else self.subject.value
            filters = {"name": self.name.value, "outcome": self.outcome.value, "subject": subject}
            rows = self.pictures.matching(**filters, confidence=(low, high))
            if not rows:
                raise ValueError("no picture passes these filters; the list below still shows those found before")
            self.rows, row = rows, self.row if self.row in rows else rows[0]
            with self._silence:
                self.picture.options = [(self.pictures.title(r), r) for r in rows]
                self.picture.value = row
            self._choose(row)

    def _choose(self, row: int) -> None:
        """Show picture `row`, its target and rivals chosen anew by rule."""
        with self._report(f"running the network on {self.pictures.title(row)}"):
            if row != self.row or not self.shown:
                rules = [side.rivals if side.rivals != "by hand" else RIVALS[0] for side in self.sides]
                self.sides = [replace(s, target=None, rivals=r) for s, r in zip(self.sides, rules, strict=True)]
            self.row = row
            self.thumbnails.show(self.rows, row)
            self._draw()

    def _receive(self, files: tuple[dict[str, Any], ...]) -> None:
        """Add the file that was given, and show it with no filter set."""
        file = files[0]
        with self._silence:  # so that the same file can be given again
            self.upload.value = ()
        with self._report(f"reading {file['name']}"):
            self.row, self.shown = self.pictures.add(file["name"], bytes(file["content"])), []
            with self._silence:
                self.name.value, self.outcome.value = "", OUTCOMES[0]
                self.subject.value, self.confidence.value = EVERYBODY, (0, 100)
            self._filter()

    # --- which settings

    def _change(self, name: str, value: Any) -> None:
        """Set what the control `name` says, and redraw."""
        before = self.sides[self.side.index]
        changes: dict[str, Any] = {name: None if (name, value) == ("target", PREDICTED) else value}
        if name == "chosen":
            changes["rivals"] = "by hand"
        elif (name, value) == ("rivals", "by hand"):  # begins with those marked
            changes["chosen"] = self.chosen.value
        elif name == "target" and before.rivals == "by hand":  # the new target may be one of the rivals
            target = self.pictures.predicted(self.row)[0] if value == PREDICTED else value
            chosen = tuple(label for label in before.chosen if label != target)
            changes |= {"chosen": chosen, "rivals": "by hand" if chosen else RIVALS[0]}
        self.sides[self.side.index] = replace(before, **changes)
        self._draw()

    def _split(self, two: bool) -> None:
        """From one setting to two that are alike at first, or back to the one that the controls set."""
        self.sides = [self.sides[0]] * 2 if two else [self.sides[self.side.index]]
        self.side.layout.display = "" if two else "none"
        self._tiles.children = self.tiles[: len(self.sides)]
        with self._silence:
            self.side.value = "AB"[two]
        self._draw()

    def _load(self) -> None:
        """Let the controls show the settings of the active side, and offer the classes, the most probable first."""
        settings, names = self.sides[self.side.index], self.pictures.names
        with self._silence:
            for name in _AS_SET:
                getattr(self, name).value = getattr(settings, name)
            target, *rivals = self.calculator.classes(self.row, settings)
            if [self.row, target] != self._offered:  # else the lists stay, and whoever is in them with the keyboard
                ranking = self.pictures.ranking(self.row)
                options = [(f"{names[label]}, {percent(chance)}", label) for label, chance in ranking]
                self.target.options = [(f"predicted: {names[ranking[0][0]]}", PREDICTED), *options]
                self.chosen.options = [option for option in options if option[1] != target]
                self._offered = [self.row, target]
            self.target.value = PREDICTED if settings.target is None else settings.target
            self.chosen.value = tuple(rivals)

    # --- what is shown

    def _draw(self) -> None:
        """Draw the maps at once, and what the network says of the masks when it has answered."""
        with self._report("computing the maps"):
            self._load()
            self._say("computing the maps …")
            found = [self.calculator.maps(self.row, settings) for settings in self.sides]
            high = max(float(maps.explanation.cams.abs().max()) for maps in found)
            for name, tiles, maps in zip("AB", self.tiles, found, strict=False):
                tiles.heading.value = f"<b>{name}</b> {escape(str(maps))}" if len(found) > 1 else ""
                tiles.show_maps(maps, high)
            self._say("asking the network about the masked picture …")
            self.shown = [(maps, self.calculator.answers(maps)) for maps in found]
            for tiles, (maps, answers) in zip(self.tiles, self.shown, strict=False):
                tiles.show_answers(maps, answers)
            self._say(self._summary(*(maps.mask for maps in found)))

    def _summary(self, first: Tensor, second: Tensor | None = None) -> str:
        """What is shown, in words, with the share of the first mask that the second covers."""
        (label, chance), truth = self.pictures.predicted(self.row), self.pictures.labels[self.row]
        verdict = "right" if truth == label else f"wrong: this is {self.pictures.person(self.row)}"
        verdict = verdict if truth >= 0 else "who this is is not known"
        said = (
            f"{self.pictures.title(self.row)}. Predicted: {self.pictures.names[label]}, {percent(chance)} ({verdict})"
        )
        overlap = "" if second is None else f" B's mask covers {percent((first & second).sum() / first.sum())} of A's."
        return f"{said}.{overlap}" + f" {CROPPED}" * (self.row in self.pictures.cropped)

    def figure(self) -> Figure:
        """What is shown, as the button saves it."""
        return figure(self.pictures, self.shown)

    def _save(self, _: Any) -> None:
        with self._report("drawing the figure"):
            if not self.shown:
                raise ValueError("there is nothing to save yet")
            paths = save(self.folder, self.pictures, self.shown, dict(self.provenance()))
            self._say(f"saved {' and '.join(map(str, paths))}")

    def _say(self, sentence: str) -> None:
        self.status.value = escape(sentence)

    @contextmanager
    def _report(self, doing: str) -> Iterator[None]:
        """Say what is going on; an error that the user can mend becomes a sentence instead of a traceback."""
        self._say(f"{doing} …")
        try:
            yield
        except (ValueError, OSError) as error:
            self._say(f"Cannot do this: {error}")


def _control(kind: Callable[..., widgets.Widget], label: str, **options: Any) -> widgets.Widget:
    return kind(description=label, style={"description_width": "100px"}, **options)


def _log_slider(label: str, value: float, low: float, high: float) -> widgets.Widget:
    """A slider of powers of ten, wide enough for its first value."""
    ends = {"min": min(low, math.floor(math.log10(value))), "max": max(high, math.ceil(math.log10(value)))}
    return _control(widgets.FloatLogSlider, label, **ends, step=0.05, readout_format=".3g")

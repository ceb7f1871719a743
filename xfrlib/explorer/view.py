"""The panel for JupyterLab: controls, a line that says what is going on, and one or two settings on the screen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as widgets
from matplotlib.figure import Figure

from xfrlib.explorer.export import describe, figure, save
from xfrlib.explorer.maps import RESOLUTIONS, RIVALS, Answers, Calculator, Maps, Settings
from xfrlib.explorer.panel import Panel
from xfrlib.explorer.pictures import OUTCOMES, Pictures, Progress
from xfrlib.explorer.thumbnails import Thumbnails
from xfrlib.plots import percent
from xfrlib.profile import FORMS

_LABEL = {"description_width": "100px"}
EVERYBODY, PREDICTED = -2, -2  # values of two lists that no label has; None would choose nothing there
CROPPED = (
    "Centre-cropped, not aligned: a network that was trained on aligned faces may misread it. To align it first, put "
    "it at photos/<name>/<file> and run: python -m facedata.align photos data/my_faces"
)
_BY_DESIGN = ("form", "delta", "scale", "scale_min", "resolution", "fraction", "fill", "top_k")

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

    Its controls are attributes; `panels` hold the pictures, `shown` the last maps and answers, and `sides` the one or
    two settings that they belong to.
    """

    def __init__(
        self,
        pictures: Pictures,
        calculator: Calculator,
        settings: Settings,
        folder: Path,
        provenance: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        self.pictures, self.calculator, self.folder, self.provenance = pictures, calculator, folder, provenance
        self.sides, self.row = [settings], 0
        self.shown: list[tuple[Maps, Answers]] = []
        self.rows: list[int] = []  # those that pass the filters
        self._quiet = False
        self._offered: tuple[int, int] | None = None  # picture and target whose classes are in the lists
        self._make_choice()
        self._make_controls(settings)
        self.status = widgets.HTML().add_class("xfr-status")
        self.panels = [Panel(pictures), Panel(pictures)]
        self._panels = widgets.HBox(self.panels[:1], layout={"flex_flow": "row wrap"})
        filters = widgets.HBox([self.name, self.outcome, self.confidence], layout={"flex_flow": "row wrap"})
        choice = widgets.HBox([self.subject, self.picture, self.upload], layout={"flex_flow": "row wrap"})
        columns = [
            widgets.VBox([self.target, self.rivals, self.top_k, self.chosen]),
            widgets.VBox([self.form, self.delta, self.scale, self.scale_min, self.resolution]),
            widgets.VBox([self.fraction, self.fill, self.compare, self.side, self.save]),
        ]
        controls = widgets.HBox(columns, layout={"flex_flow": "row wrap"})
        attributes = widgets.HTML(_ATTRIBUTES, layout={"display": "none"})
        super().__init__([filters, choice, self.thumbnails, controls, self.status, self._panels, attributes])
        self.add_class("xfr-explorer")
        self._filter()

    def _make_choice(self) -> None:
        self.name = widgets.Text(description="name", placeholder="part of a name", style=_LABEL)
        self.outcome = widgets.Dropdown(options=OUTCOMES, description="predictions", style=_LABEL)
        self.confidence = widgets.IntRangeSlider(
            value=(0, 100), min=0, max=100, description="probability %", continuous_update=False, style=_LABEL
        )
        present = sorted(set(self.pictures.labels))
        people = [(self.pictures.names[label] if label >= 0 else "strangers", label) for label in present]
        self.subject = widgets.Dropdown(
            options=[("everybody", EVERYBODY), *people], description="subject", style=_LABEL
        )
        self.picture = widgets.Dropdown(description="picture", style=_LABEL)
        self.upload = widgets.FileUpload(accept="image/*", description="own picture")
        self.thumbnails = Thumbnails(self.pictures, lambda row: setattr(self.picture, "value", row))
        for control in (self.name, self.outcome, self.confidence, self.subject):
            control.observe(self._filter, "value")
        self.picture.observe(lambda change: self._choose(change.new), "value")
        self.upload.observe(self._receive, "value")

    def _make_controls(self, first: Settings) -> None:
        self.target = widgets.Dropdown(description="target", style=_LABEL)
        self.rivals = widgets.Dropdown(options=RIVALS, description="rivals", style=_LABEL)
        most = min(12, len(self.pictures.names))
        self.top_k = widgets.IntSlider(first.top_k, 2, max(most, first.top_k), description="classes", style=_LABEL)
        self.chosen = widgets.SelectMultiple(description="compared with", rows=6, style=_LABEL)
        self.form = widgets.Dropdown(options=FORMS, value=first.form, description="form", style=_LABEL)
        self.delta = _log_slider("delta", first.delta, -2, 2)
        self.scale = _log_slider("scale k", first.scale, -1, 2)
        self.scale_min = _log_slider("s at least", first.scale_min, -1, math.log10(first.scale_max))
        words = zip((f"{word} upsampling" for word in RESOLUTIONS), RESOLUTIONS, strict=True)
        self.resolution = widgets.Dropdown(options=list(words), description="exponential", style=_LABEL)
        self.fraction = widgets.FloatSlider(
            first.fraction,
            min=0.01,
            max=0.9,
            step=0.01,
            readout_format=".0%",
            description="share deleted",
            style=_LABEL,
        )
        fills = ("black", "grey", "blur") + (("mean",) if self.calculator.mean is not None else ())
        self.fill = widgets.Dropdown(options=fills, value=first.fill, description="filled with", style=_LABEL)
        self.compare = widgets.ToggleButton(description="compare two settings", layout={"width": "auto"})
        self.side = widgets.ToggleButtons(options=["A", "B"], description="controls set", style=_LABEL)
        self.side.layout.display = "none"
        self.save = widgets.Button(description="save figure and numbers", layout={"width": "auto"})
        self.target.observe(
            lambda change: self._change(target=None if change.new == PREDICTED else change.new), "value"
        )
        for name in (*_BY_DESIGN, "rivals"):
            getattr(self, name).observe(lambda change, name=name: self._change(**{name: change.new}), "value")
        self.chosen.observe(lambda change: self._change(chosen=change.new, rivals="by hand"), "value")
        self.compare.observe(self._split, "value")
        self.side.observe(lambda _: self._load(), "value")
        self.save.on_click(self._save)

    # --- which picture

    def _filter(self, _: Any = None) -> None:
        """Offer the pictures that pass the filters, and stay with the one shown if it is among them."""
        if self._quiet:
            return
        with self._report("looking for pictures"):
            low, high = self.confidence.value
            rows = self.pictures.matching(
                name=self.name.value,
                outcome=self.outcome.value,
                confidence=(low / 100, high / 100),
                subject=None if self.subject.value == EVERYBODY else self.subject.value,
                progress=self._asking("looking for pictures"),
            )
            if not rows:
                raise ValueError("no picture passes these filters; the list below still shows those found before")
            self.rows, row = rows, self.row if self.row in rows else rows[0]
            with self._silence():
                self.picture.options = [(self.pictures.title(r), r) for r in self.rows]
                self.picture.value = row
            self._choose(row)

    def _choose(self, row: int) -> None:
        """Show picture `row`, its target and rivals chosen anew by rule."""
        if self._quiet:
            return
        with self._report(f"running the network on {self.pictures.title(row)}"):
            new, self.row = row != self.row or not self.shown, row
            if new:
                rules = [s.rivals if s.rivals != "by hand" else RIVALS[0] for s in self.sides]
                self.sides = [replace(s, target=None, rivals=r) for s, r in zip(self.sides, rules, strict=True)]
            self.thumbnails.show(self.rows, row)
            self._draw()

    def _receive(self, change: Any) -> None:
        if not change.new:
            return
        with self._silence():  # so that the same file can be given again
            self.upload.value = ()
        with self._report(f"reading {change.new[0]['name']}"):
            row = self.pictures.add(change.new[0]["name"], bytes(change.new[0]["content"]))
            with self._silence():
                self.name.value, self.outcome.value = "", OUTCOMES[0]
                self.subject.value, self.confidence.value = EVERYBODY, (0, 100)
            self.row, self.shown = row, []
            self._filter()

    # --- which settings

    @property
    def active(self) -> int:
        """The side that the controls set: 0 for A, 1 for B."""
        return int(len(self.sides) > 1 and self.side.value == "B")

    def _change(self, **changes: Any) -> None:
        if self._quiet:
            return
        before = self.sides[self.active]
        if changes.get("rivals") == "by hand":  # begins with those marked
            changes.setdefault("chosen", tuple(self.chosen.value))
        if "target" in changes and before.rivals == "by hand":  # the new target may be one of the rivals
            target = self.calculator.target(self.row, replace(before, **changes))
            chosen = tuple(label for label in before.chosen if label != target)
            changes |= {"chosen": chosen, "rivals": "by hand" if chosen else RIVALS[0]}
        with self._report("computing the maps"):
            self.sides[self.active] = replace(before, **changes)
            self._draw()

    def _split(self, _: Any = None) -> None:
        """From one setting to two that are alike at first, or back to the one that the controls set."""
        self.sides = [self.sides[0]] * 2 if self.compare.value else [self.sides[self.active]]
        self.side.layout.display = "" if self.compare.value else "none"
        self._panels.children = self.panels[: len(self.sides)]
        with self._silence():
            self.side.value = "B" if self.compare.value else "A"
        with self._report("computing the maps"):
            self._draw()

    def _load(self) -> None:
        """Let the controls show the settings of the active side."""
        settings = self.sides[self.active]
        with self._silence():
            for name in _BY_DESIGN:
                getattr(self, name).value = getattr(settings, name)
            self._offer_classes(settings)

    def _offer_classes(self, settings: Settings) -> None:
        """Fill the lists of classes, the most probable first, and mark those in use."""
        target = self.calculator.target(self.row, settings)
        rivals = self.calculator.rivals(self.row, settings, self._asking("looking for look-alikes"))
        self.rivals.value = settings.rivals
        key = self.row, target
        if key != self._offered:  # else the lists stay, and whoever is in them with the keyboard
            names, logits = self.pictures.names, self.pictures.logits(self.row)
            chances = logits.double().softmax(dim=0)
            order = logits.argsort(descending=True, stable=True).tolist()
            options = [(f"{names[label]}, {percent(chances[label])}", label) for label in order]
            self.target.options = [(f"predicted: {names[order[0]]}", PREDICTED), *options]
            self.chosen.options = [option for option in options if option[1] != target]
            self._offered = key
        self.target.value = PREDICTED if settings.target is None else settings.target
        self.chosen.value = tuple(rivals)

    # --- what is shown

    def _draw(self) -> None:
        """Draw the maps at once, and what the network says of the masks when it has answered."""
        self._load()
        self._say("computing the maps …")
        found = [self.calculator.maps(self.row, settings) for settings in self.sides]
        high = max(float(maps.explanation.cams.abs().max()) for maps in found) or 1.0
        for name, panel, maps in zip("AB", self.panels, found, strict=False):
            panel.heading.value = f"<b>{name}</b> {escape(describe(maps))}" if len(found) > 1 else ""
            panel.show_maps(maps, high)
        self._say("asking the network about the masked picture …")
        self.shown = [(maps, self.calculator.answers(maps)) for maps in found]
        for panel, (maps, answers) in zip(self.panels, self.shown, strict=False):
            panel.show_answers(maps, answers)
        self._say(self._summary(found))

    def _summary(self, found: list[Maps]) -> str:
        label, chance = self.pictures.predicted(self.row)
        truth = self.pictures.labels[self.row]
        verdict = "right" if truth == label else f"wrong: this is {self.pictures.person(self.row)}"
        verdict = verdict if truth >= 0 else "who this is is not known"
        shared = ""
        if len(found) > 1:
            overlap = (found[0].mask & found[1].mask).sum() / found[0].mask.sum()
            shared = f" B's mask covers {percent(overlap)} of A's."
        answer = f"{self.pictures.names[label]}, {percent(chance)} ({verdict})"
        cropped = f" {CROPPED}" if self.row in self.pictures.cropped else ""
        return f"{self.pictures.title(self.row)}. Predicted: {answer}.{shared}{cropped}"

    def figure(self) -> Figure:
        """What is shown, as the button saves it."""
        return figure(self.pictures, self.shown)

    def _save(self, _: Any = None) -> None:
        with self._report("drawing the figure"):
            if not self.shown:
                raise ValueError("there is nothing to save yet")
            paths = save(self.folder, self.pictures, self.shown, self.provenance() if self.provenance else None)
            self._say(f"saved {' and '.join(str(path) for path in paths)}")

    def _say(self, sentence: str) -> None:
        self.status.value = escape(sentence)

    def _asking(self, doing: str) -> Progress:
        """Says how far the network is with the pictures that it has to see, and what for."""
        return lambda done, total: self._say(f"{doing}: asking the network about every picture, {done} of {total} …")

    @contextmanager
    def _report(self, doing: str) -> Iterator[None]:
        """Say what is going on; an error that the user can mend becomes a sentence instead of a traceback."""
        self._say(f"{doing} …")
        try:
            yield
        except (ValueError, OSError) as error:
            self._say(f"Cannot do this: {error}")

    @contextmanager
    def _silence(self) -> Iterator[None]:
        """Change a control without answering to it."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before


def _log_slider(name: str, value: float, low: float, high: float) -> widgets.FloatLogSlider:
    """A slider of powers of ten, wide enough for its first value."""
    low, high = min(low, math.floor(math.log10(value))), max(high, math.ceil(math.log10(value)))
    return widgets.FloatLogSlider(
        value=value, min=low, max=high, step=0.05, description=name, readout_format=".3g", style=_LABEL
    )

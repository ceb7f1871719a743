"""A panel for JupyterLab: give two pictures and a gallery, and read the report on them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from facedata import dlib
from facedata.align import find_detector
from madefaces import people
from matching.__main__ import choose_recogniser, summary, write_report
from matching.faces import Aligner
from matching.gallery import enrol, pictures_by_person
from matching.page import framed_page
from matching.report import Matcher, Report, ReportSettings
from recognisers import load_recogniser
from xfrlib.artifacts import build_root
from xfrlib.explorer.panel import ATTRIBUTES, Status
from xfrlib.explorer.tiles import WRAPPED
from xfrlib.profile import data_root

OWN = "two own pictures"
EXAMPLES = {OWN: None, "one made person": (0, 0), "two made look-alikes": (0, 1), "two made strangers": (0, 3)}
FAMILIES, MEMBERS, PICTURES = 12, 3, 3  # of the built-in gallery: look-alikes stand beside each other


def made_gallery() -> Path:
    """The folder of the built-in gallery, made people who are written once: ``<person>/<picture>``."""
    folder = data_root() / "matching" / "made_people"
    if not folder.with_name(f"{folder.name}_families.json").is_file():  # which is written last
        people.write_faces(
            folder, families=FAMILIES, family_size=MEMBERS, pictures_per_identity=PICTURES, seed=17, progress=False
        )
    return folder


class MatchPanel(widgets.VBox):
    """Two pictures, a gallery and a recogniser to choose, and below them the page of `matching.page.page`.

    Its controls are attributes; `report` is what is shown. No picture leaves the machine.

    Parameters
    ----------
    gallery : str or Path
        First folder of other people, as `matching.gallery.enrol` takes it; empty: the made people.
    recogniser : str
        The one chosen first; empty: dlib's where it is installed, else slim.
    checkpoints : mapping, optional
        Further recognisers by name, each with its weights, as `recognisers.load_recogniser` takes them.
    folder : str or Path, optional
        Where reports are saved; None: ``matching`` in the folder of builds.
    """

    def __init__(
        self, gallery: str | Path = "", recogniser: str = "", *, checkpoints: Mapping[str, str | Path] | None = None,
        folder: str | Path | None = None,
    ) -> None:  # fmt: skip
        self.checkpoints, self.folder = dict(checkpoints or {}), Path(folder or build_root() / "matching")
        self.report: Report | None = None
        self._given: dict[str, tuple[str, bytes]] = {}
        self._matcher = lru_cache(maxsize=4)(self._make_matcher)
        names = list(dict.fromkeys([*(["dlib"] if dlib.installed() else []), "slim", *self.checkpoints]))
        if recogniser and recogniser not in names:
            raise ValueError(f"recogniser = {recogniser!r}: choose one of {', '.join(names)}, or name its checkpoint")
        self.pair = widgets.Dropdown(description="pictures", options=list(EXAMPLES))
        self.probe, self.mate = (widgets.FileUpload(description=who, accept="image/*") for who in ("probe", "mate"))
        self.recogniser = widgets.Dropdown(description="recogniser", options=names, value=recogniser or names[0])
        self.gallery = widgets.Text(str(gallery), description="gallery", placeholder="folder; empty: made people")
        self.rate = widgets.FloatLogSlider(0.01, min=-4, max=-0.5, step=0.5, description="false matches")
        self.rate.readout_format = ".1g"
        self.measure = widgets.Checkbox(description="measure parts and trust")
        self.save = widgets.Button(description="save report")
        self.status, self.page = Status().add_class("xfr-status"), widgets.HTML()
        for name, control in (("probe", self.probe), ("mate", self.mate)):
            control.observe(lambda change, name=name: self._receive(name, change.new), "value")
        for control in (self.pair, self.recogniser, self.gallery, self.rate, self.measure):
            control.style.description_width = "100px"
            control.observe(self._compare, "value")
        self.rate.continuous_update = self.gallery.continuous_update = False
        self.save.on_click(self._save)
        rows = [self.pair, self.probe, self.mate], [self.recogniser, self.gallery], [self.rate, self.measure, self.save]
        attributes = widgets.HTML(ATTRIBUTES, layout={"display": "none"})
        super().__init__([*(widgets.HBox(row, layout=WRAPPED) for row in rows), self.status, self.page, attributes])
        self.add_class("xfr-explorer")
        self._compare()

    def _make_matcher(self, name: str, gallery: str, rate: float, quick: bool) -> Matcher:
        checkpoint = str(self.checkpoints.get(name, ""))
        recogniser = load_recogniser(*choose_recogniser(name, checkpoint))
        aligner = Aligner(recogniser, lambda picture: find_detector()(picture))  # made faces need none
        folder = Path(gallery).expanduser() if gallery else made_gallery()
        self.status.say(f"enrolling the people of {folder} …")
        enrolled = enrol(folder, recogniser, aligner, data_root() / "matching", progress=False)
        return Matcher(recogniser, aligner, enrolled, ReportSettings(false_match_rate=rate, quick=quick))

    def _receive(self, name: str, files: tuple[dict[str, Any], ...]) -> None:
        """Take a file that was given, and compare as soon as there are two."""
        if files:
            self._given[name] = (files[0]["name"], bytes(files[0]["content"]))
            getattr(self, name).value = ()  # so that the same file can be given again
            if self.pair.value == OWN:
                self._compare()
            else:
                self.pair.value = OWN  # which compares

    def _compare(self, *_: Any) -> None:
        with self.status.doing("comparing"):
            self.report, self.page.value = None, ""
            example = EXAMPLES[self.pair.value]
            if missing := [name for name in ("probe", "mate") if not example and name not in self._given]:
                return self.status.say(f"Give a picture as {' and as '.join(missing)}, or choose made people.")
            chosen = (self.recogniser.value, self.gallery.value.strip(), self.rate.value)
            matcher = self._matcher(*chosen, not self.measure.value)
            if example:
                folders = list(pictures_by_person(made_gallery()).values())
                probe, mate = (matcher.aligner(folders[who][place]) for place, who in enumerate(example))
            else:
                given = (self._given["probe"], self._given["mate"])
                probe, mate = (matcher.aligner(Path(name), data) for name, data in given)
            self.status.say("comparing the two pictures …")
            self.report = matcher.compare(probe, [mate])
            self.page.value = framed_page(self.report, 900)
            self.status.say(self._summary())

    def _summary(self) -> str:
        assert self.report is not None
        said = ". ".join(summary(self.report.said).splitlines()) + "."
        if not self.gallery.value.strip():
            said += " The gallery is of made people: its threshold holds for made faces alone."
        return said.replace("..", ".")

    def _save(self, _: Any) -> None:
        with self.status.doing("saving"):
            if self.report is None:
                raise ValueError("there is no report to save yet")
            said = self.report.said
            name = f"{said['probe']['sha256'][:8]}-{said['mate'][0]['sha256'][:8]}-{self.recogniser.value}"
            write_report(self.report, self.folder, name)
            self.status.say(f"saved {self.folder / name}.html")

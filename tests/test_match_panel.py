"""The panel on two pictures without a browser: what it shows is the report, and what cannot be shown is a sentence."""

import io
import json
from collections.abc import Callable
from datetime import datetime
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("ipywidgets")

from matching import panel as panels
from matching.faces import Aligner
from matching.gallery import enrol, pictures_by_person
from matching.page import page
from matching.panel import OWN, MatchPanel
from matching.report import Matcher, ReportSettings
from recognisers import load_recogniser


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of data, in which a small built-in gallery comes to lie."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def panel(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MatchPanel:
    monkeypatch.setenv("XFR_DATA", str(made))
    monkeypatch.setattr(panels, "FAMILIES", 3)
    return MatchPanel(recogniser="slim", folder=tmp_path / "reports")


def give(panel: MatchPanel, control: str, name: str, content: bytes) -> None:
    file = {"name": name, "type": "", "size": len(content), "content": memoryview(content)}
    getattr(panel, control).value = ({**file, "last_modified": datetime.now()},)


def pictures(person: int) -> list[Path]:
    return list(pictures_by_person(panels.made_gallery()).values())[person]


def test_an_example_shows_the_report_of_the_command(panel: MatchPanel, tmp_path: Path) -> None:
    assert panel.report is None and "Give a picture as probe and as mate" in panel.status.value
    panel.rate.value = 10**-1.5
    panel.pair.value = "two made look-alikes"
    recogniser = load_recogniser("slim", "builtin")
    aligner = Aligner(recogniser, lambda picture: [])
    gallery = enrol(panels.made_gallery(), recogniser, aligner, tmp_path, progress=False)
    wanted = Matcher(recogniser, aligner, gallery, ReportSettings(false_match_rate=10**-1.5, quick=True))
    said = wanted(pictures(0)[0], [pictures(1)[1]]).said
    assert panel.report is not None
    for key in ("similarity", "gallery", "threshold", "match", "map"):
        assert panel.report.said[key] == said[key], key
    assert f"similarity {said['similarity']:.3f}" in panel.status.value
    assert f"the threshold {said['threshold']['similarity']:.3f} of a false match rate of 0.03" in panel.status.value
    assert "threshold holds for made faces alone" in panel.status.value
    assert unescape(panel.page.value.partition('srcdoc="')[2].partition('" width')[0]) == page(panel.report)
    assert 'sandbox=""' in panel.page.value
    for other in said["gallery"]["nonmates"]:
        assert other["name"] in panel.page.value


def test_two_uploads_are_compared_and_their_names_are_text(panel: MatchPanel) -> None:
    probe, mate, _ = pictures(4)
    give(panel, "probe", "<b>&x.png", probe.read_bytes())
    assert "Give a picture as mate" in panel.status.value and panel.probe.value == ()
    give(panel, "mate", "mate.png", mate.read_bytes())
    assert panel.report is not None and panel.report.said["gallery"]["not_used_as_nonmates"] == [probe.parent.name]
    assert panel.report.said["probe"]["file"] == "<b>&x.png"
    assert "<b>" not in panel.page.value and "<b>" not in panel.status.value
    assert "&lt;b&gt;&amp;x.png" in unescape(panel.page.value), "escaped in the page, and that in its attribute"
    before = panel.report.said["similarity"]
    panel.pair.value = "one made person"
    give(panel, "mate", "mate.png", mate.read_bytes())  # an upload leaves the example
    assert panel.pair.value == OWN and panel.report.said["similarity"] == before


def test_what_is_no_picture_is_a_sentence_and_nothing_old_stays(
    panel: MatchPanel, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel.pair.value = "one made person"
    give(panel, "probe", "a.png", pictures(0)[0].read_bytes())
    give(panel, "mate", "<i>.jpg", b"no picture")
    assert panel.status.value == "Cannot do this: &lt;i&gt;.jpg: cannot be read: not a picture of a known format"
    assert panel.report is None and panel.page.value == ""
    large = io.BytesIO()
    Image.new("RGB", (300, 300)).save(large, "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50_000)
    give(panel, "mate", "large.png", large.getvalue())
    assert "more than Pillow&#x27;s limit" in panel.status.value
    panel.gallery.value = "nowhere"
    assert "no such folder of a gallery" in panel.status.value
    panel.save.click()
    assert "there is no report to save yet" in panel.status.value
    with pytest.raises(ValueError, match="recogniser = 'eye': choose one of .*slim"):
        MatchPanel(recogniser="eye")


def test_a_gallery_is_enrolled_once_and_a_report_is_saved(
    panel: MatchPanel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = list[Any]()
    original: Callable[..., Any] = panels.enrol
    monkeypatch.setattr(panels, "enrol", lambda *given, **more: (calls.append(given), original(*given, **more))[1])
    panel.pair.value = "one made person"
    panel.pair.value = "two made strangers"
    assert len(calls) == 1
    panel.save.click()
    names = sorted(path.suffix for path in (tmp_path / "reports").iterdir())
    assert names == [".html", ".json"] and "saved" in panel.status.value
    (file,) = (tmp_path / "reports").glob("*.json")
    assert panel.report is not None
    assert json.loads(file.read_text(encoding="utf-8"))["similarity"] == panel.report.said["similarity"]
    panel.measure.value = True
    assert len(calls) == 2 and "trust" in panel.report.said and "exchange" in panel.report.said

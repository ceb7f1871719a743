"""The picture of the landing page: which decision it shows, what is written, and that the slider moves it."""

import base64
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import ROOT, console_errors, needs_chromium, open_browser, requests
from PIL import Image
from pypdf import PdfReader

from explore import PageFace
from landing import Decision, border, median_between_look_alikes, shown_maps, write_landing
from madefaces.names import given_name
from madefaces.people import make_families
from xfrlib import FaceClassifier, explain
from xfrlib.geometry import Geometry, upsampled

PEOPLE = make_families(3, 2, seed=0)


@pytest.fixture
def model(classifier) -> FaceClassifier:
    return FaceClassifier(classifier.backbone, len(PEOPLE), seed=1).eval()


@pytest.fixture
def folder(tmp_path: Path, model: FaceClassifier) -> Path:
    write_landing(tmp_path / "_static" / "landing", model, PEOPLE, Decision(PageFace(0, 7), 1, 0.5))
    return tmp_path


def test_the_median_of_the_right_decisions_between_look_alikes_is_shown() -> None:
    faces = [PageFace(0, 7)] * 6
    logits = torch.zeros(6, len(PEOPLE))
    for row, (person, rival, margin) in enumerate([(0, 1, 3), (0, 1, 1), (0, 1, 2), (1, 0, 1.5), (0, 4, 1.6)]):
        logits[row, person], logits[row, rival] = 5.0 + margin, 5.0
    logits[5, 2], logits[5, 3] = 9.0, 8.0
    # the fourth and the last are named wrongly, the fifth's rival is a stranger; of 1, 2 and 3 the median is 2
    assert median_between_look_alikes(logits, faces, PEOPLE) == Decision(faces[2], 1, 2.0)
    with pytest.raises(ValueError, match="nothing to show"):
        median_between_look_alikes(logits[3:], faces[3:], PEOPLE)


def test_a_border_lies_inside_its_region() -> None:
    region = np.zeros((8, 8), bool)
    region[2:6, 2:6] = True
    edge = border(region, enlarged=4)[..., 3] > 0
    large = np.kron(region, np.ones((4, 4), bool))
    assert edge[8, 8] and not edge[15, 15] and not (edge & ~large).any()


def test_the_maps_lie_where_their_cells_look(model: FaceClassifier, images: torch.Tensor) -> None:
    explanation = explain(model, images[:1], target=0, competitors=[1])
    maps = shown_maps(explanation)
    for name, cam in zip(("target", "rival"), explanation.cams[0], strict=True):
        expected = upsampled(cam, (16, 16), Geometry((4, 4), (0, 0)))
        np.testing.assert_allclose(maps[name][0], expected, rtol=1e-5, atol=1e-6)


def test_what_is_written(folder: Path) -> None:
    written = folder / "_static" / "landing"
    for name in ("face", "target", "rival", "sdd", "differs"):
        assert Image.open(written / f"{name}.webp").size == (448, 448)
    face, sdd = (np.asarray(Image.open(written / f"{name}.webp").convert("RGB"), float) for name in ("face", "sdd"))
    assert np.abs(face - sdd).mean() > 5
    text = (written / "data.js").read_text(encoding="utf-8")
    data = json.loads(re.fullmatch(r"var landingData = (.*);\n", text).group(1))  # type: ignore[union-attr]
    assert data["names"] == ["Ada", "Anan"] == [given_name(person.name) for person in PEOPLE[:2]]
    assert set(data["parts"]) == set(PEOPLE[0].differs)


def test_the_script_is_small() -> None:
    assert (ROOT / "book/page/landing.js").stat().st_size < 5000


@needs_chromium
def test_the_slider_moves_the_picture(folder: Path) -> None:
    for name in ("landing.js", "landing.css"):
        shutil.copy(ROOT / "book/page" / name, folder / "_static")
    markup = (ROOT / "book/index.md").read_text(encoding="utf-8").split("```{raw} html\n")[1].split("```")[0]
    drawn = (folder / "_static" / "landing" / "face.webp").as_uri()
    kinds = ("only-light", "only-dark")
    variants = "".join(f'<img alt="still" loading="lazy" class="{kind}" src="{drawn}">' for kind in kinds)
    pair = f'<div class="light-or-dark docutils container">{variants}</div>'
    still = f'<figure id="fig-landing">{pair}<figcaption>c</figcaption></figure>'
    (folder / "book").mkdir()
    page = folder / "book" / "index.html"
    head = '<meta charset="utf-8"><link rel="icon" href="data:,"><title>page</title>'
    page.write_text(f'<!doctype html><html lang="en"><head>{head}</head><body>{still}{markup}</body></html>', "utf-8")
    with open_browser() as driver:
        driver.get(page.as_uri())
        from selenium.webdriver.common.keys import Keys
        from selenium.webdriver.support.ui import WebDriverWait

        def seen() -> list[float]:
            images = driver.find_elements("css selector", "#landing .stage img:not([hidden])")
            return [float(image.value_of_css_property("opacity")) for image in images]

        says = driver.find_element("css selector", "#landing [aria-live]")
        slider = driver.find_element("id", "landing-slider")
        stage = driver.find_element("css selector", "#landing .stage")
        pictures = driver.find_elements("css selector", "img[alt=still]")
        assert len(pictures) == 2 and not any(picture.is_displayed() for picture in pictures)
        eager = "return document.querySelector('img[alt=still]').loading === 'eager'"
        WebDriverWait(driver, 30).until(lambda driver: driver.execute_script(eager), "it is there for paper in the end")
        assert seen() == [1, 1, 0, 0] and "Red speaks" in says.text
        slider.send_keys(Keys.END)
        assert seen() == [1, 1, 1, 1] and "scaled directed divergence" in says.text
        assert "what sets them apart" in stage.get_attribute("aria-label")
        slider.send_keys(Keys.ARROW_LEFT)
        assert 0.9 < seen()[3] < 1
        driver.find_element("css selector", "#landing button").click()
        assert seen() == [1, 0, 0, 0]
        driver.find_element("css selector", "#landing input[type=checkbox]").click()
        assert len(seen()) == 5
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        assert all(picture.is_displayed() for picture in pictures)  # the theme, which is not here, shows one
        assert not driver.find_element("id", "landing").is_displayed()
        (sheet,) = PdfReader(io.BytesIO(base64.b64decode(driver.print_page()))).pages
        assert sheet.extract_text().split() == ["c"], "the caption alone: no button, no slider"
        assert {picture.image.size for picture in sheet.images if picture.image} == {(448, 448)}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
        assert driver.find_element("id", "landing").is_displayed()
        there = "return [...document.images].map(image => image.naturalWidth > 0 || image.className === 'only-dark')"
        assert all(driver.execute_script(there))
        assert console_errors(driver) == []
        assert all(url.startswith(folder.as_uri()) for url in requests(driver))

"""The picture of the landing page: which decision it shows, what is written, and that the slider moves it."""

import base64
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from axe_core_python.selenium import Axe
from browser import ROOT, console_errors, needs_chromium, open_browser, requests
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from PIL import Image
from pypdf import PdfReader

from explore import PageFace, difference
from landing import Decision, bar, border, median_between_look_alikes, shown_maps, write_landing
from madefaces.names import given_name
from madefaces.people import make_families
from xfrlib import FaceClassifier, explain, plots
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
    explanation = explain(model, images[:2], target=[0, 1], competitors=torch.tensor([[1], [0]]))
    maps = shown_maps(explanation)
    (target, rival), (rival_there, target_there) = explanation.cams
    for name, cams in (("target", [target, target_there]), ("rival", [rival, rival_there])):
        expected = upsampled(torch.stack(cams), (16, 16), Geometry((4, 4), (0, 0)))
        np.testing.assert_allclose(maps[name][0], expected, rtol=1e-5, atol=1e-6)


def test_what_is_written(folder: Path) -> None:
    written = folder / "_static" / "landing"
    names = [f"{layer}{side}" for layer in ("face", "target", "rival", "sdd") for side in (0, 1)]
    assert {path.stem for path in written.glob("*.webp")} == {*names, "differs"}
    pictures = {name: np.asarray(Image.open(written / f"{name}.webp").convert("RGB"), float) for name in names}
    assert {picture.shape for picture in pictures.values()} == {(448, 448, 3)}
    assert all(np.abs(pictures[f"face{side}"] - pictures[f"sdd{side}"]).mean() > 5 for side in (0, 1))
    line = np.asarray(Image.open(written / "differs.webp"))[..., 3] > 0
    apart = np.abs(pictures["face0"] - pictures["face1"]).sum(axis=2)
    assert apart[line].mean() > 10 * np.median(apart), "the same pose and light: one line fits both faces"
    text = (written / "data.js").read_text(encoding="utf-8")
    data = json.loads(re.fullmatch(r"var landingData = (.*);\n", text).group(1))  # type: ignore[union-attr]
    assert data["names"] == ["Ada", "Anan"] == [given_name(person.name) for person in PEOPLE[:2]]
    assert set(data["parts"]) == set(PEOPLE[0].differs)
    assert [len(row) for row in data["chances"]] == [2, 2] and data["chances"][0] != data["chances"][1]
    assert data["bars"].keys() == {"target", "rival", "sdd"}


def test_both_faces_have_one_true_difference() -> None:
    here, there = difference(PEOPLE[0], PEOPLE[1], 7), difference(PEOPLE[1], PEOPLE[0], 7)
    assert here[0] == there[0] and here[1].any()
    np.testing.assert_array_equal(here[1], there[1])


def test_a_bar_has_the_colours_of_the_map_and_red_is_red_over_skin() -> None:
    signed = ScalarMappable(Normalize(-2, 2), plots.DIVERGING)
    against, neither, best = (np.array(to_rgb(bar(signed).split(", ")[at])) for at in (0, 8, 16))
    assert against.argmax() == 2 and np.ptp(neither) < 0.02 and best.argmax() == 0
    skin = np.full((1, 1, 3), (0.75, 0.75, 0.75)) * (1.2, 0.95, 0.8)
    over = plots.tint(skin, np.array([[2.0]]), signed)[0, 0]
    np.testing.assert_allclose(over - over.mean(), best - best.mean(), atol=0.01)  # no colour but the map's


def test_the_script_is_small() -> None:
    assert (ROOT / "book/page/landing.js").stat().st_size < 5000


def lay_out(folder: Path) -> Path:
    """The figure of the landing page as a page of its own, with the theme's classes but without its styles."""
    for name in ("landing.js", "landing.css"):
        shutil.copy(ROOT / "book/page" / name, folder / "_static")
    markup = (ROOT / "book/index.md").read_text(encoding="utf-8").split("```{raw} html\n")[1].split("```")[0]
    drawn = (folder / "_static" / "landing" / "face0.webp").as_uri()
    kinds = ("only-light", "only-dark")
    variants = "".join(f'<img alt="still" loading="lazy" class="{kind}" src="{drawn}">' for kind in kinds)
    pair = f'<div class="light-or-dark docutils container">{variants}</div>'
    still = f'<figure id="fig-landing">{pair}<figcaption>c</figcaption></figure>'
    (folder / "book").mkdir()
    page = folder / "book" / "index.html"
    head = '<meta charset="utf-8"><link rel="icon" href="data:,"><title>page</title>'
    page.write_text(f'<!doctype html><html lang="en"><head>{head}</head><body>{still}{markup}</body></html>', "utf-8")
    return page


def seen(driver: Any) -> list[list[float]]:
    """The opacity of the picture, the three maps and the outline, on the left and on the right."""
    stages = driver.find_elements("css selector", "#landing .stage")
    layers = [stage.find_elements("css selector", "img") for stage in stages]
    return [[float(layer.value_of_css_property("opacity")) for layer in found] for found in layers]


@needs_chromium
def test_the_slider_moves_the_picture(folder: Path) -> None:
    page = lay_out(folder)
    with open_browser() as driver:
        driver.get(page.as_uri())
        from selenium.webdriver.common.keys import Keys
        from selenium.webdriver.support.ui import WebDriverWait

        says = driver.find_element("css selector", "#landing [aria-live]")
        slider = driver.find_element("id", "landing-slider")
        stages = driver.find_elements("css selector", "#landing .stage")
        pictures = driver.find_elements("css selector", "img[alt=still]")
        assert len(pictures) == 2 and not any(picture.is_displayed() for picture in pictures)
        eager = "return document.querySelector('img[alt=still]').loading === 'eager'"
        WebDriverWait(driver, 30).until(lambda driver: driver.execute_script(eager), "it is there for paper in the end")
        assert seen(driver) == [[1, 0, 0, 0, 0]] * 2 and "the network names Ada" in says.text
        assert [stage.find_element("xpath", "following-sibling::*").text for stage in stages] == [
            "explained: Ada",
            "look-alike: Anan",
        ]
        shown = [image.get_attribute("src") for stage in stages for image in stage.find_elements("css selector", "img")]
        layers = ("face", "target", "rival", "sdd")
        assert [Path(url).stem for url in shown] == [
            name for side in "01" for name in (*(f"{layer}{side}" for layer in layers), "differs")
        ]
        box = driver.find_element("css selector", "#landing input[type=checkbox]")
        box.send_keys(Keys.SPACE)
        assert seen(driver) == [[1, 0, 0, 0, 1]] * 2, "the outline before the last step"
        box.send_keys(Keys.SPACE)
        slider.send_keys(Keys.END)
        assert seen(driver) == [[1, 1, 1, 1, 1]] * 2 and "scaled directed divergence" in says.text
        for stage, name in zip(stages, ("Ada", "Anan"), strict=True):
            assert re.match(f"{name}, .*what sets them apart", stage.get_attribute("aria-label"))
        slider.send_keys(Keys.ARROW_LEFT)
        assert all(0.9 < opacity < 1 for face in seen(driver) for opacity in face[3:])
        driver.find_element("css selector", "#landing button:nth-child(3)").send_keys(Keys.ENTER)
        assert seen(driver) == [[1, 1, 1, 0, 0]] * 2 and slider.get_attribute("aria-valuetext") == "evidence for Anan"
        driver.find_element("css selector", "#landing button").click()
        assert seen(driver) == [[1, 0, 0, 0, 0]] * 2
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


@needs_chromium
@pytest.mark.parametrize(("text", "paper"), [("#222832", "#ffffff"), ("#ced6dd", "#14181e")], ids=["light", "dark"])
def test_every_map_has_a_bar_whose_words_can_be_read(folder: Path, text: str, paper: str) -> None:
    page = lay_out(folder)
    words = {1: ["against Ada", "CAM", "for Ada"], 2: ["against Anan", "CAM", "for Anan"]}
    words[3] = ["0", "SDD, amplified", "its maximum"]
    data = json.loads((folder / "_static/landing/data.js").read_text(encoding="utf-8").split(" = ")[1].rstrip(";\n"))
    with open_browser() as driver:
        driver.get(page.as_uri())
        style = f"background: {paper}; color: {text}; --pst-color-text-base: {text}"
        driver.execute_script("document.body.style = arguments[0]", style)
        drawn = driver.find_element("css selector", "#landing .bar")
        assert not drawn.is_displayed(), "the picture alone has no scale"
        buttons = driver.find_elements("css selector", "#landing button")
        for number, name in enumerate(("target", "rival", "sdd"), 1):
            buttons[number].click()
            assert drawn.is_displayed() and drawn.text.split("\n") == words[number]
            strip = drawn.find_element("css selector", "div")
            ends = data["bars"][name].split(", ")
            gradient = re.findall(r"rgb\((.*?)\)", strip.value_of_css_property("background-image"))
            assert [[int(part) for part in colour.split(", ")] for colour in gradient] == [
                [round(255 * part) for part in to_rgb(colour)] for colour in ends
            ]
            assert strip.size["height"] > 8 and strip.size["width"] > 200
            found = Axe().run(driver, context="#landing")["violations"]
            assert [rule["id"] for rule in found if rule["impact"] in ("serious", "critical")] == []


@needs_chromium
def test_both_faces_fit_side_by_side_on_a_phone(folder: Path) -> None:
    page = lay_out(folder)
    boxes = "return [...document.querySelectorAll('#landing .stage')].map(e => e.getBoundingClientRect().toJSON())"
    with open_browser() as driver:
        phone = {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        driver.get(page.as_uri())
        for button in driver.find_elements("css selector", "#landing button"):
            button.click()
            left, right = driver.execute_script(boxes)
            assert left["top"] == right["top"] and left["right"] < right["left"] and right["right"] <= 360
            assert left["width"] == right["width"] == left["height"] > 120
            assert driver.execute_script("return document.documentElement.scrollWidth") <= 360

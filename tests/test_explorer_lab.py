"""The explorer in a real JupyterLab, in headless Chromium, driven by keyboard alone."""

import pytest

pytest.importorskip("ipywidgets")
pytest.importorskip("jupyterlab")

from browser import needs_chromium, open_browser, requests
from lab import RUN_ALL, TOKEN, jupyterlab, wait, write_notebook
from PIL import Image

from madefaces.people import make_families, render

MODEL = """
import torch
from conftest import TinyBackbone
from xfrlib import FaceClassifier
from xfrlib.explorer import explorer

torch.manual_seed(3)
model = FaceClassifier(TinyBackbone(), 3, seed=1).eval()
explorer(model, "faces", size=112, top_k=3)
"""
# The pixels of a picture on the page, as text
PIXELS = """
const image = document.querySelector(arguments[0]);
if (!image || !image.complete || !image.naturalWidth) return null;
const canvas = document.createElement("canvas");
canvas.width = image.naturalWidth, canvas.height = image.naturalHeight;
canvas.getContext("2d").drawImage(image, 0, 0);
return canvas.toDataURL();
"""
# The field for a file is not on the page, and opens a window of the system: put it there instead.
FILE_FIELD = """
HTMLInputElement.prototype.click = function () { if (this.type === "file") document.body.append(this); };
"""
PICTURE, SDD = 'img[title^="The picture:"]', 'img[title^="SDD map"]'


@pytest.fixture
def faces(tmp_path):
    people = make_families(1, 3, seed=0)
    pictures, _ = render([people[i // 2] for i in range(6)], range(6))
    for i, pixels in enumerate(pictures):
        (tmp_path / "faces" / f"person_{i // 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "faces" / f"person_{i // 2}" / f"{i}.png")
    return tmp_path


@needs_chromium
@pytest.mark.long
def test_a_subject_is_chosen_a_slider_moved_by_keyboard_and_a_picture_uploaded(faces):
    pytest.importorskip("selenium")
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    write_notebook(faces / "look.ipynb", MODEL)
    with jupyterlab(faces) as address, open_browser(1400, 1400) as driver:

        def find(path):
            return wait(lambda: driver.find_elements(By.XPATH, path), f"{path} does not appear:", state)[0]

        def state():
            driver.save_screenshot(str(faces / "state.png"))
            return driver.find_element(By.TAG_NAME, "body").text[-2000:]

        def control(name, part):
            return find(f"//label[normalize-space()='{name}']/..//{part}")

        def pixels(selector, unlike=None):
            def look():
                found = driver.execute_script(PIXELS, selector)
                return found if found != unlike else None

            return wait(look, f"{selector} does not appear or does not change:", state)

        driver.get(f"{address}/lab/tree/look.ipynb?token={TOKEN}")
        wait(lambda: driver.execute_script(RUN_ALL), "the notebook does not run:", state)
        first, heat = pixels(PICTURE), pixels(SDD)

        control("subject", "select").send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
        second = pixels(PICTURE, unlike=first)
        status = find("//*[@role='status' and contains(., 'person 1: 2.png')]")

        heat = pixels(SDD, unlike=heat)
        handle = control("delta", "*[@role='slider']")
        handle.send_keys(Keys.ARROW_RIGHT)
        pixels(SDD, unlike=heat)
        assert pixels(PICTURE) == second  # the slider moved the map, not the face

        thumbnails = driver.find_elements(By.CSS_SELECTOR, "button[title^='person 1:']")
        assert [button.get_attribute("title").split(",")[0] for button in thumbnails[:2]] == [
            "person 1: 2.png", "person 1: 3.png"
        ]  # fmt: skip
        thumbnails[1].send_keys(Keys.ENTER)
        pixels(PICTURE, unlike=second)

        def upload(path):
            driver.execute_script(FILE_FIELD)
            find("//button[contains(., 'own picture')]").click()
            find("//input[@type='file']").send_keys(str(path))

        (faces / "bad.png").write_text("no picture")
        upload(faces / "bad.png")
        said = find("//*[@role='status' and contains(., 'bad.png: not a picture of a known format')]")
        assert said == status  # the element stays: a screen reader speaks what changes in it
        third = pixels(PICTURE)
        upload(faces / "faces" / "person_2" / "4.png")
        find("//*[@role='status' and contains(., 'own picture: 4.png')]")
        pixels(PICTURE, unlike=third)

        assert "Traceback" not in state()
        assert [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []
        assert [url for url in requests(driver) if not url.startswith(address)] == []

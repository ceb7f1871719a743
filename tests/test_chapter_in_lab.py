"""A chapter in a real JupyterLab: boxes are boxes, solutions are closed, references are no source."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import make_book
import pytest

pytest.importorskip("jupyterlab_myst")
pytest.importorskip("selenium")

from browser import needs_chromium, open_browser
from lab import TOKEN, jupyterlab, wait
from selenium.webdriver.remote.webdriver import WebDriver

CHAPTERS = make_book.sources()
READ = """
const cells = [...document.querySelectorAll(".jp-Notebook .myst")];
return [cells.map((cell) => cell.innerText).join("\\n"), document.querySelectorAll(".jp-Notebook aside").length,
  [...document.querySelectorAll(".jp-Notebook details")].map((fold) => fold.open)];
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, WebDriver]]:
    folder = tmp_path_factory.mktemp("lab")
    for chapter in CHAPTERS:
        shutil.copy(chapter, folder)
    with jupyterlab(folder) as address, open_browser(1400, 3000) as driver:
        yield address, driver


@needs_chromium
@pytest.mark.long
@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_boxes_solutions_and_references_are_rendered(chapter: Path, lab: tuple[str, WebDriver]) -> None:
    address, driver = lab
    source = chapter.read_text(encoding="utf-8")
    solutions = source.count("{admonition} Solution")
    driver.get(f"{address}/lab/tree/{chapter.name}?token={TOKEN}&reset")
    wait(lambda: len(driver.execute_script(READ)[2]) >= solutions, "the solutions are not folded boxes")
    text, boxes, folds = driver.execute_script(READ)
    assert solutions >= 1 and len(folds) >= solutions and not any(folds), "closed until they are asked for"
    assert boxes >= 1 and "What you will learn" in text
    assert re.findall(r"\{[a-z:]+\}`|^[`:]{3,}", text, re.MULTILINE) == [], "what a reader would see as source"

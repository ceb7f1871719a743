"""A chapter in a real JupyterLab: boxes are boxes, solutions are closed, references are no source."""

import re
import shutil
from pathlib import Path

import make_book
import pytest

pytest.importorskip("jupyterlab_myst")
pytest.importorskip("selenium")

from browser import needs_chromium, open_browser
from lab import TOKEN, jupyterlab, wait

CHAPTER = make_book.ROOT / "notebooks" / "04_sdd_derivation.ipynb"
READ = """
const cells = [...document.querySelectorAll(".jp-Notebook .myst")];
return [cells.map((cell) => cell.innerText).join("\\n"), document.querySelectorAll(".jp-Notebook aside").length,
  [...document.querySelectorAll(".jp-Notebook details")].map((fold) => fold.open)];
"""


@needs_chromium
@pytest.mark.long
def test_boxes_solutions_and_references_are_rendered(tmp_path: Path) -> None:
    shutil.copy(CHAPTER, tmp_path)
    source = CHAPTER.read_text(encoding="utf-8")
    solutions = source.count("{admonition} Solution")
    with jupyterlab(tmp_path) as address, open_browser(1400, 3000) as driver:
        driver.get(f"{address}/lab/tree/{CHAPTER.name}?token={TOKEN}&reset")
        wait(lambda: len(driver.execute_script(READ)[2]) >= solutions, "the solutions are not folded boxes")
        text, boxes, folds = driver.execute_script(READ)
    assert solutions >= 3 and len(folds) == solutions and not any(folds), "closed until they are asked for"
    assert boxes >= 1 and "What you will learn" in text
    assert re.findall(r"\{[a-z:]+\}`|^[`:]{3,}", text, re.MULTILINE) == [], "what a reader would see as source"

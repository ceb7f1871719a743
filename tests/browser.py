"""A headless Chromium for the tests that look at pages as a reader does; they are skipped where there is none."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from explore import write_explorer

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
FLAGS = (
    *("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"),
    *("disable-component-update", "disable-sync", "hide-scrollbars"),
)

needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER), reason="no Chromium here: apt-get install chromium chromium-driver"
)


ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ("explore_core.js", "explore_guess.js", "explore_match.js", "explore.js", "explore.css")


def lay_out_explorer(folder: Path, *contents: Any) -> Path:
    """The explorer's part of the book as a site of one page, book/explore.html; `contents` are for `write_explorer`."""
    for name in SCRIPTS:
        (folder / "_static").mkdir(exist_ok=True)
        shutil.copy(ROOT / "book" / "page" / name, folder / "_static")
    write_explorer(folder / "_static" / "explore", *contents)
    markup = (ROOT / "book" / "explore.md").read_text(encoding="utf-8").split("```{raw} html\n")[1].split("```")[0]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
    page = f'<!doctype html><html lang="en"><head>{head}<title>page</title></head><body>{markup}</body></html>'
    (folder / "book").mkdir()
    (folder / "book" / "explore.html").write_text(page, encoding="utf-8")
    return folder


@contextmanager
def open_browser(width: int = 1280, height: int = 1000) -> Iterator[Any]:
    """A selenium driver with a profile of its own that keeps a log of the console and of the network."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for flag in (*FLAGS, f"user-data-dir={folder}", f"window-size={width},{height}"):
            options.add_argument(f"--{flag}")
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
        try:
            yield driver
        finally:
            driver.quit()


def console_errors(driver: Any) -> list[str]:
    """What the console has complained of since the last call."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def requests(driver: Any) -> list[str]:
    """Addresses that pages and workers have asked for since the last call; what lies inside the page does not count."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [url for url in sent if not url.startswith(("data:", "blob:", "chrome"))]

"""Every page of the sites that have been built, opened from their folder in Chromium."""

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_core_python.selenium import Axe
from browser import console_errors, needs_chromium, open_browser, requests

from xfrlib.artifacts import build_root

SITES = sorted(path.parent for path in build_root().glob("*/html/index.html"))
GENERATED = ("genindex.html", "search.html", "py-modindex.html", "404.html")  # Sphinx's own; 404 belongs on a server
# Folds are opened, for what is hidden has no contrast, and nothing is judged while it changes its colour.
OPEN_FOLDS = """
const STILL = "* { animation: none !important; transition: none !important; }";
document.head.append(Object.assign(document.createElement("style"), { textContent: STILL }));
document.querySelectorAll("details").forEach((fold) => { fold.open = true; });
document.querySelectorAll(".toggle-hidden").forEach((fold) => fold.classList.remove("toggle-hidden"));
"""


def pages(site: Path) -> list[Path]:
    found = [path for path in sorted(site.rglob("*.html")) if not {"_static", "_sources"} & set(path.parts)]
    return [path for path in found if path.name not in GENERATED]


needs_site = pytest.mark.skipif(not SITES, reason="no site is built: make book")
of_each_site = pytest.mark.parametrize("site", SITES, ids=lambda site: site.parent.name)


def barriers(driver: Any) -> list[str]:
    """What axe-core calls serious or critical on the page that is open, and headings that skip a level."""
    driver.execute_script(OPEN_FOLDS)
    found = Axe().run(driver, options={"resultTypes": ["violations"]})["violations"]
    return [
        f"{rule['id']} ({rule['impact']}): {rule['nodes'][0]['html'][:200]} and {len(rule['nodes']) - 1} more"
        for rule in found
        if rule["impact"] in ("serious", "critical") or rule["id"] == "heading-order"
    ]


@contextmanager
def served(site: Path) -> Iterator[str]:
    """The site at an address, with 404.html for every page that does not exist, as a server of pages does."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def send_error(self, code: int, *_: Any) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write((site / "404.html").read_bytes())

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@needs_chromium
@needs_site
@of_each_site
def test_pages_neither_complain_nor_ask_another_host(site: Path) -> None:
    complaints, foreign, wide = {}, {}, {}
    phone = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    with open_browser() as driver:
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        for page in pages(site):
            console_errors(driver), requests(driver)
            driver.get(page.as_uri())
            name = str(page.relative_to(site))
            complaints[name] = console_errors(driver)
            foreign[name] = [url for url in requests(driver) if not url.startswith(site.as_uri())]
            wide[name] = driver.execute_script("return document.documentElement.scrollWidth") > 390
    assert complaints
    assert {name: said for name, said in complaints.items() if said} == {}
    assert {name: urls for name, urls in foreign.items() if urls} == {}
    assert [name for name, too_wide in wide.items() if too_wide] == []


@needs_chromium
@needs_site
@of_each_site
def test_nothing_is_wider_than_the_paper(site: Path) -> None:
    left_edge = "document.querySelector('.bd-article')?.getBoundingClientRect().left ?? 0"  # the root only leads on
    cut = []
    with open_browser() as driver:
        paper = {"width": 700, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", paper)
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        for page in pages(site):
            driver.get(page.as_uri())
            left, width = driver.execute_script(f"return [{left_edge}, document.documentElement.scrollWidth]")
            cut += [str(page.relative_to(site))] if left < 0 or width > 700 else []
    assert cut == []


@needs_chromium
def test_the_scan_for_barriers_sees_some(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    body = '<h1>A</h1><h3>B</h3><details><p style="color: #ddd">pale</p></details><main><img src="data:,"></main>'
    page.write_text(f'<html lang="en"><title>page</title><body style="background: #fff">{body}', encoding="utf-8")
    with open_browser() as driver:
        driver.get(page.as_uri())
        assert {said.split()[0] for said in barriers(driver)} == {"heading-order", "color-contrast", "image-alt"}


@needs_chromium
@needs_site
@of_each_site
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_puts_a_barrier_before_a_reader(site: Path, scheme: str) -> None:
    found = {}
    with open_browser() as driver:
        driver.set_script_timeout(300)
        colours = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", colours)
        for page in [*pages(site), *(site / name for name in GENERATED if (site / name).is_file())]:
            driver.get(page.as_uri())
            found[str(page.relative_to(site))] = barriers(driver)
    assert {name: said for name, said in found.items() if said} == {}


@needs_chromium
@needs_site
@of_each_site
def test_a_page_that_does_not_exist_is_answered_at_any_depth(site: Path) -> None:
    with served(site) as address, open_browser() as driver:
        for missing in ("nowhere.html", "book/deep/er/nowhere"):
            driver.get(f"{address}/{missing}")
            text = driver.find_element("css selector", "main").text
            styled = driver.execute_script("return getComputedStyle(document.querySelector('main h1')).fontFamily")
            assert "no such page" in text and "Times" not in styled
        links = driver.find_elements("css selector", ".bd-sidebar a.reference.internal")
        driver.get(links[-1].get_attribute("href"))
        assert "no such page" not in driver.find_element("css selector", "main").text and links

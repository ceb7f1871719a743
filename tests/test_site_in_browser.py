"""Every page of the sites that have been built, opened from their folder in Chromium."""

from pathlib import Path

import pytest
from browser import console_errors, needs_chromium, open_browser, requests

from xfrlib.artifacts import build_root

SITES = sorted(path.parent for path in build_root().glob("*/html/index.html"))
GENERATED = ("genindex.html", "search.html", "py-modindex.html")  # Sphinx's own


def pages(site: Path) -> list[Path]:
    found = [path for path in sorted(site.rglob("*.html")) if not {"_static", "_sources"} & set(path.parts)]
    return [path for path in found if path.name not in GENERATED]


@needs_chromium
@pytest.mark.skipif(not SITES, reason="no site is built: make book")
@pytest.mark.parametrize("site", SITES, ids=lambda site: site.parent.name)
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

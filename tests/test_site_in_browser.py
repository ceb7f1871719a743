"""Every page of the sites that have been built, opened from their folder in Chromium."""

import functools
import http.server
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from axe_core_python.selenium import Axe
from browser import console_errors, needs_chromium, open_browser, requests
from selenium.webdriver.support.ui import WebDriverWait

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
# Whether what scripts put into a page is there: the explorer with its first verdict, the picture that can be moved.
# On a busy machine a script may still meet the page before, which has all that it waits for.
LIVE = """
if (document.readyState !== "complete" || window.left) return false;
const explorer = document.getElementById("explorer"), moved = document.querySelector('script[src$="/landing.js"]');
return (!explorer || Boolean(explorer.explorer?.judged)) && (!moved || Boolean(document.getElementById("landing")));
"""
FORMULAS_ARE_SET = """
const formulas = [...document.querySelectorAll("div.math")];
return document.readyState === "complete" && formulas.every((e) => e.querySelector("mjx-container"));
"""
ON_PAPER = """
const shown = (name) => [...document.querySelectorAll(name)].filter((e) => e.checkVisibility());
return [shown(".xe, #landing").length, shown("#explorer figure, #fig-landing img:not(#landing img)")
  .filter((e) => e.tagName !== "IMG" || e.naturalWidth > 0).length];
"""
# Of each colour of code two pieces stay, or thousands of the same would be looked at, for minutes.
ONCE = """
const seen = {};
for (const piece of document.querySelectorAll(".highlight pre span[class], dt.sig span[class]")) {
  seen[piece.className] = (seen[piece.className] || 0) + 1;
  if (seen[piece.className] > 2) piece.replaceWith(...piece.childNodes);
}
"""
COLOUR_RULES = ("color-contrast", "link-in-text-block")  # all others say the same in both palettes


def pages(site: Path) -> list[Path]:
    found = [path for path in sorted(site.rglob("*.html")) if not {"_static", "_sources"} & set(path.parts)]
    return [path for path in found if path.name not in GENERATED]


needs_site = pytest.mark.skipif(not SITES, reason="no site is built: make book")
of_each_site = pytest.mark.parametrize("site", SITES, ids=lambda site: site.parent.name)


def barriers(driver: Any, rules: Sequence[str] = ()) -> list[str]:
    """What axe-core calls serious or critical on the page that is open, and headings that skip a level.

    By `rules` alone, if any are given.
    """
    driver.execute_script(OPEN_FOLDS + ONCE)
    only = {"runOnly": {"type": "rule", "values": [*rules]}} if rules else {}
    found = Axe().run(driver, options={"resultTypes": ["violations"], **only})["violations"]
    return [
        f"{rule['id']} ({rule['impact']}): {rule['nodes'][0]['html'][:200]} and {len(rule['nodes']) - 1} more"
        for rule in found
        if rule["impact"] in ("serious", "critical") or rule["id"] == "heading-order"
    ]


def visit(driver: Any, page: Path) -> None:
    """Open a page and wait for what its scripts put into it."""
    driver.execute_script("window.left = true")
    driver.get(page.as_uri())
    WebDriverWait(driver, 60).until(lambda driver: driver.execute_script(LIVE), f"{page.name} did not come to life")


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
            visit(driver, page)
            name = str(page.relative_to(site))
            complaints[name] = console_errors(driver)
            foreign[name] = [url for url in requests(driver) if not url.startswith(site.as_uri())]
            wide[name] = driver.execute_script("return document.documentElement.scrollWidth") > 390
    assert complaints
    assert {name: said for name, said in complaints.items() if said} == {}
    assert {name: urls for name, urls in foreign.items() if urls} == {}
    assert [name for name, too_wide in wide.items() if too_wide] == []


# Pictures that are shown with other proportions than they have, and labels of figures that a phone makes too small.
PICTURES = """
const shown = [...document.querySelectorAll(".bd-main img[width][height]")].filter((image) => image.checkVisibility());
const box = (image) => image.getBoundingClientRect(), own = (image, side) => Number(image.getAttribute(side));
return [shown.length, shown.filter((image) => {
  const { width, height } = box(image), fit = getComputedStyle(image).objectFit;
  return width && fit === "fill" && Math.abs(width / height / (own(image, "width") / own(image, "height")) - 1) > 0.03;
}).map((image) => image.src), shown.filter((image) => own(image, "width") > 1000 && box(image).width < 600)
  .map((image) => image.src)];
"""
# Captions of tables that a reader does not see to their end, and wide boxes that do not say that they go on.
CUT = """
const edge = document.documentElement.clientWidth + 1;
const boxes = [...document.querySelectorAll("div.math mjx-container, .pst-scrollable-table-container, .light-or-dark")];
const before = (box) => (box.closest("div.math") || box).previousElementSibling;
return [
  [...document.querySelectorAll("caption")].filter((e) => e.checkVisibility() && e.getBoundingClientRect().right > edge)
    .length,
  boxes.filter((box) => box.checkVisibility() && box.scrollWidth > box.clientWidth + 2
    && !before(box)?.matches(".cut-note:not([hidden])")).length,
];
"""


@needs_chromium
@needs_site
@of_each_site
@pytest.mark.parametrize("width", [390, 1400])
def test_pictures_keep_their_proportions_and_what_is_cut_off_says_so(site: Path, width: int) -> None:
    distorted, small, cut, count = {}, {}, {}, 0
    with open_browser() as driver:
        screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        for page in pages(site):
            visit(driver, page)
            WebDriverWait(driver, 60).until(lambda driver: driver.execute_script(FORMULAS_ARE_SET), page.name)
            name = str(page.relative_to(site))
            shown, distorted[name], small[name] = driver.execute_script(PICTURES)
            count += shown
            cut[name] = driver.execute_script(CUT)
    assert count > 20
    assert {name: found for name, found in distorted.items() if found} == {}
    assert {name: found for name, found in small.items() if found} == {}
    assert {name: found for name, found in cut.items() if any(found)} == {}


@needs_chromium
@needs_site
@of_each_site
def test_without_scripts_each_figure_stands_once(site: Path) -> None:
    shown = "return [...document.querySelectorAll('.light-or-dark')].map((pair) => [...pair.children].filter((e) => "
    count = 0
    with open_browser() as driver:
        for page in set(pages(site)) - {site / "index.html"}:  # which leads to another page, maybe after the look
            driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
            driver.get(page.as_uri())
            driver.execute_cdp_cmd(
                "Emulation.setScriptExecutionDisabled", {"value": False}
            )  # to look, not to run the page
            driver.execute_script(OPEN_FOLDS)
            found = driver.execute_script(f"{shown}e.checkVisibility()).length)")
            assert set(found) <= {1}, page.name
            count += len(found)
    assert count


@needs_chromium
@needs_site
@of_each_site
def test_prose_has_lines_that_can_be_read_and_headings_a_falling_weight(site: Path) -> None:
    measure = """
    const pen = document.createElement("canvas").getContext("2d"), style = (e) => getComputedStyle(e);
    const inside = ":is(table, figure, .cell, #explorer, #landing) p";
    const prose = [...document.querySelectorAll(".bd-article section p")].filter((p) => !p.matches(inside));
    const lines = prose.filter((p) => p.textContent.length > 200 && p.checkVisibility()).map((p) => {
      pen.font = style(p).font;
      return p.clientWidth / (pen.measureText(p.textContent).width / p.textContent.length);
    });
    const first = (name) => document.querySelector(`.bd-article ${name}`);
    const headings = ["h1", "h2", "h3", "h4"].map(first).filter(Boolean);
    return [Math.max(0, ...lines), headings.map((e) => [parseFloat(style(e).fontSize), Number(style(e).fontWeight)])];
    """
    with open_browser(1900, 1000) as driver:
        for page in pages(site):
            driver.get(page.as_uri())
            longest, headings = driver.execute_script(measure)
            assert longest < 88, page.name
            assert headings == sorted(headings, reverse=True), page.name


@needs_chromium
@needs_site
@of_each_site
def test_a_page_loads_what_it_needs(site: Path) -> None:
    """No formulas on the landing page and no icons drawn twice: each is more than a megabyte."""
    with open_browser() as driver:
        requests(driver)
        visit(driver, site / "book" / "index.html")
        WebDriverWait(driver, 60).until(
            lambda driver: driver.execute_script("return document.readyState === 'complete'")
        )
        loaded = {Path(unquote(urlsplit(url).path)) for url in requests(driver) if url.startswith(site.as_uri())}
        drawn = "return getComputedStyle(document.querySelector('i.fa-magnifying-glass'), '::before').content"
        assert driver.execute_script(drawn) not in ("none", "normal", ""), "the font draws the icons"
    assert sum(path.stat().st_size for path in loaded) < 3_000_000
    assert not {"fontawesome.js", "tex-chtml.js", "searchindex.js"} & {path.name for path in loaded}


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
        of_people = [page for page in pages(site) if page.parent.name == "gallery"]  # all of one notebook
        looked_at = [page for page in pages(site) if page not in of_people[3:]]
        for page in [*looked_at, *(site / name for name in GENERATED if (site / name).is_file())]:
            visit(driver, page)
            found[str(page.relative_to(site))] = barriers(driver, COLOUR_RULES if scheme == "dark" else ())
    assert {name: said for name, said in found.items() if said} == {}


@needs_chromium
@needs_site
@of_each_site
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_two_pictures_are_compared_without_a_barrier(site: Path, scheme: str) -> None:
    page = site / "book" / "explore.html"
    if 'id="explorer"' not in page.read_text("utf-8"):
        pytest.skip("a site of photographs has no explorer")
    compared = "return document.querySelectorAll('.xe-match-pictures p').length === 6"
    widths = "return [...document.querySelectorAll('.xe-match-pictures :is(canvas, img)')].map((e) => e.clientWidth)"
    with open_browser() as driver:
        colours = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", colours)
        visit(driver, page)
        driver.find_element("id", "xe-compare").send_keys("\ue007")  # Enter
        WebDriverWait(driver, 60).until(lambda driver: driver.execute_script(compared))
        assert min(driver.execute_script(widths)) >= 200
        assert barriers(driver) == []
        for width in (360, 390):
            phone = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": True}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
            assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        assert barriers(driver) == [] and console_errors(driver) == []


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


@needs_chromium
@needs_site
@of_each_site
def test_paper_shows_figures_in_place_of_what_moves(site: Path) -> None:
    alive = [page for page in pages(site) if re.search(r'id="explorer"|/landing\.js"', page.read_text("utf-8"))]
    found = {}
    with open_browser() as driver:
        for page in alive:
            visit(driver, page)
            live, still = driver.execute_script(ON_PAPER)
            assert live == 1 and still == 0, page.name
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
            found[page.name] = driver.execute_script(ON_PAPER)
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    if not alive:
        pytest.skip("a site of photographs has nothing that moves")
    assert found == {name: [0, 1] for name in found}


@needs_chromium
@needs_site
@of_each_site
def test_a_site_in_a_folder_answers_a_search(site: Path) -> None:
    with open_browser() as driver:
        driver.get(f"{(site / 'search.html').as_uri()}?q=divergence")
        WebDriverWait(driver, 60).until(
            lambda driver: "Search finished" in driver.find_element("css selector", "#search-results").text
        )
        results = driver.find_elements("css selector", "#search-results ul.search li a")
        assert any("04_sdd_derivation.html" in result.get_attribute("href") for result in results)
        assert console_errors(driver) == []

"""The built pages, read as files: nothing comes from another host, and no link leads nowhere."""

import json
import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup, Tag

from xfrlib.artifacts import build_root
from xfrlib.profile import project_root

SITES = sorted(path.parent for path in build_root().glob("*/html/index.html"))
# What a browser fetches by itself; of the links only these, for an anchor or a canonical address is fetched by nobody.
FETCHED = {"src", "srcset", "poster", "data", "background", "xlink:href"}
FETCHED_LINKS = {"stylesheet", "preload", "prefetch", "icon", "modulepreload", "manifest", "preconnect", "dns-prefetch"}
CSS_ADDRESS = re.compile(r"(?:@import\s+(?:url\()?|url\()\s*['\"]?([^'\")\s]+)")
# Hosts that scripts name in comments and namespaces; MathJax names one for its reader of formulas, which is off.
NAMED_IN_SCRIPTS = {"www.w3.org", "developer.mozilla.org", "pydata-sphinx-theme.readthedocs.io", "clipboardjs.com"}
NAMED_BY_MATHJAX = {"www.mathjax.org", "cdn.jsdelivr.net"}


def pages(site: Path) -> list[Path]:
    """Every page; what lies under _static are the theme's templates."""
    return [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]


@cache
def parsed(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def loads(page: BeautifulSoup) -> list[str]:
    """Addresses that a browser fetches while it opens a page."""
    found: list[str] = []
    for tag in page.find_all(True):
        names = FETCHED & tag.attrs.keys()
        if tag.name == "link" and set(tag.get("rel", [])) & FETCHED_LINKS:
            names |= {"href"}
        elif tag.name in ("use", "image"):
            names |= {"href"} & tag.attrs.keys()
        for name in names:
            given = str(tag[name])
            found += [part.split()[0] for part in given.split(",")] if name == "srcset" else [given]
        found += CSS_ADDRESS.findall(str(tag.get("style", "")) + (tag.get_text() if tag.name == "style" else ""))
    return found


def links(page: BeautifulSoup) -> list[str]:
    return [str(tag["href"]) for tag in page.find_all(href=True)]


def is_foreign(address: str) -> bool:
    return bool(urlsplit(address).netloc) and urlsplit(address).scheme != "data"


def named_hosts(script: str) -> set[str]:
    return set(re.findall(r"(?:https?:|['\"`])//([\w-]+(?:\.[\w-]+)*\.[a-z]{2,})\b", script))


def is_code(tag: Tag) -> bool:
    return str(tag.get("type", "")) in ("", "module", "text/javascript", "application/javascript")


@cache
def targets(page: Path) -> frozenset[str]:
    """What a fragment of an address may name on a page."""
    found = parsed(page).find_all(lambda tag: tag.get("id") or (tag.name == "a" and tag.get("name")))
    return frozenset(str(tag.get("id") or tag.get("name")) for tag in found)


def fault(address: str, page: Path) -> str:
    """What is wrong with a local address that stands on a page; empty when nothing is."""
    if is_foreign(address) or urlsplit(address).scheme:
        return ""
    path, fragment = urldefrag(address)
    path = unquote(path.split("?")[0])
    if path.startswith("/") and page.name == "404.html":  # its links start at the root: it is shown at any depth
        path = path.lstrip("/")
    if path.startswith("/"):
        return f"{address} leaves the folder of the site"
    file = (page.parent / path).resolve() if path else page
    if not file.is_file():
        return f"{address}: there is no such file"
    if fragment and file.suffix == ".html" and unquote(fragment) not in targets(file):
        return f"{address}: nothing on the page has this name"
    return ""


def test_the_scan_sees_what_a_browser_fetches() -> None:
    page = """<a href="https://a.org">x</a><link rel="canonical" href="https://b.org"><img src="local.png">
    <script src="https://c.org/require.js"></script><link rel="stylesheet" href="//d.org/x.css">
    <style>@import url("https://e.org/f.css"); p { background: url(data:image/png;base64,//aa) }</style>
    <img srcset="https://f.org/1.png 1x, own.png 2x"><p style="background: url('//g.org/h.png')">
    <iframe src="https://i.org"></iframe><svg><use href="https://j.org/k.svg#l"></use></svg>"""
    hosts = [urlsplit(a).netloc for a in loads(BeautifulSoup(page, "html.parser")) if is_foreign(a)]
    assert sorted(hosts) == ["c.org", "d.org", "e.org", "f.org", "g.org", "i.org", "j.org"]
    assert named_hosts("import('https://x.org/y.js'); f(`//cdn.z.com/a`) // a//b.c") == {"x.org", "cdn.z.com"}


def test_the_link_check_sees_what_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a b.html").write_text('<p id="here"><a name="there">', encoding="utf-8")
    page = tmp_path / "page.html"
    page.write_text('<p id="top">', encoding="utf-8")
    good = ["#top", "a%20b.html", "a%20b.html?x=1#there", "https://a.org/none", "mailto:a@b.c", "", "data:,x"]
    assert [address for address in good if fault(address, page)] == []
    for bad, said in (
        ("#none", "nothing on"),
        ("a%20b.html#no", "nothing on"),
        ("c.html", "no such"),
        ("/x", "leaves"),
    ):
        assert said in fault(bad, page)


needs_site = pytest.mark.skipif(not SITES, reason="no site is built: make book")
of_each_site = pytest.mark.parametrize("site", SITES, ids=lambda site: site.parent.name)


@needs_site
@of_each_site
def test_nothing_is_fetched_from_another_host(site: Path) -> None:
    found: dict[str, list[str]] = {}
    scripts: set[Path] = set()
    for page in pages(site):
        name = str(page.relative_to(site))
        found[name] = [address for address in loads(parsed(page)) if is_foreign(address)]
        for tag in parsed(page).find_all("script"):
            if source := tag.get("src"):
                scripts.add((page.parent / str(source).split("?")[0].lstrip("/")).resolve())
            elif is_code(tag):
                found[name] += named_hosts(tag.get_text()) - NAMED_IN_SCRIPTS
    for sheet in site.rglob("*.css"):
        found[sheet.name] = [a for a in CSS_ADDRESS.findall(sheet.read_text(encoding="utf-8")) if is_foreign(a)]
    for script in filter(Path.is_file, scripts):
        known = NAMED_IN_SCRIPTS | (NAMED_BY_MATHJAX if "mathjax" in script.parts else set())
        found[script.name] = sorted(named_hosts(script.read_text(encoding="utf-8")) - known)
    assert scripts and found
    assert {name: addresses for name, addresses in found.items() if addresses} == {}


@needs_site
@of_each_site
def test_local_links_lead_somewhere(site: Path) -> None:
    faults: dict[str, list[str]] = {}
    for page in pages(site):
        addresses = sorted({*loads(parsed(page)), *links(parsed(page))})
        faults[str(page.relative_to(site))] = [said for address in addresses if (said := fault(address, page))]
    for sheet in site.rglob("*.css"):
        faults[sheet.name] = [said for a in CSS_ADDRESS.findall(sheet.read_text("utf-8")) if (said := fault(a, sheet))]
    assert {name: said for name, said in faults.items() if said} == {}


@needs_site
@of_each_site
def test_no_page_shows_a_path_of_the_machine(site: Path) -> None:
    pages = {page: page.read_text(encoding="utf-8") for page in site.rglob("*.html")}
    signs = ("PosixPath(", str(project_root()))
    assert {page.name for page, text in pages.items() if any(sign in text for sign in signs)} == set()


@needs_site
@of_each_site
def test_downloads_are_notebooks_to_be_run(site: Path) -> None:
    notebooks = [json.loads(path.read_text(encoding="utf-8")) for path in (site / "_sources").rglob("*.ipynb")]
    code = [[cell for cell in notebook["cells"] if cell["cell_type"] == "code"] for notebook in notebooks]
    assert notebooks and all(code) and not any(cell["outputs"] for cells in code for cell in cells)


@needs_site
@of_each_site
def test_each_chapter_shows_its_main_figure_before_its_first_section(site: Path) -> None:
    chapters = sorted((site / "notebooks").glob("[0-9][0-9]_*.html"))
    assert len(chapters) == 13
    for page in chapters:
        text = parsed(page).find(class_="bd-article")
        assert isinstance(text, Tag)
        first = text.select_one(".opening-figure, h2")
        assert first and first.name == "div" and first.find("img") and first.find("a", href=re.compile("^#fig-")), page


@needs_site
@of_each_site
def test_the_main_line_has_nine_chapters_of_at_most_twenty_minutes(site: Path) -> None:
    """By the clock of book/_ext/reading.py: words, tables, formulas, figures and code that is shown."""
    parts = yaml.safe_load((project_root() / "_toc.yml").read_text(encoding="utf-8"))["parts"]
    numbered = [[chapter["file"] for chapter in part["chapters"]] for part in parts if part.get("numbered")]
    main = [file for files in numbered[:-1] for file in files]  # the last part goes into depth
    assert len(main) == 9
    minutes = {}
    for file in main:
        found = parsed(site / f"{file}.html").find(class_="reading-time")
        minutes[file] = int(re.findall(r"\d+", found.get_text())[0]) if found else None
    assert all(count and count <= 20 for count in minutes.values()), minutes

"""The site printed as one document: every chapter in its place, with bookmarks, numbers and links that lead inside."""

from pathlib import Path

import make_pdf
import numpy as np
import pytest
from browser import CHROMIUM
from PIL import Image
from pypdf import PdfReader
from pypdf.generic import IndirectObject

from xfrlib.artifacts import build_root

BOOKS = sorted(build_root().glob("*/book.pdf"))
PAGE = """<!doctype html><html lang="en"><title>{title} — Book</title><h1>{title}</h1>
<p><a href="#summary">here</a> <a href="{other}.html#summary">there</a> <a href="https://a.org/">away</a>
<a href="missing.html">nowhere</a></p><h2 style="break-before: page" id="summary">Summary of {title}</h2>"""

needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: apt-get install chromium")


def bookmarks(book: PdfReader) -> dict[str, int | None]:
    return {
        str(mark.title): book.get_destination_page_number(mark) for mark in book.outline if not isinstance(mark, list)
    }


@needs_chromium
def test_chapters_are_joined_and_their_links_lead_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = tmp_path / "one.html", tmp_path / "two.html"
    one.write_text(PAGE.format(title="One", other="two"), encoding="utf-8")
    two.write_text(PAGE.format(title="Two &amp; more", other="one"), encoding="utf-8")
    monkeypatch.setattr(make_pdf, "contents", lambda site: [("", [one]), ("A part", [two])])
    count = make_pdf.make_pdf(tmp_path, tmp_path / "book.pdf")
    book = PdfReader(tmp_path / "book.pdf")
    assert count == len(book.pages) == 6 and bookmarks(book) == {"One": 2, "Two & more": 4}
    assert book.page_labels == ["i", "ii", "1", "2", "3", "4"]
    text = [page.extract_text() for page in book.pages]
    assert "A part" in text[1] and text[2].split()[-1] == "1" and text[5].split()[-1] == "4", "numbers at the foot"
    assert "Two & more" in text[5].splitlines()[-1]

    def targets(number: int) -> list[str | int | None]:
        found: list[str | int | None] = []
        for link in make_pdf.links(book.pages[number]):
            place = link.get("/Dest")
            if place is None:
                found.append(link["/A"]["/URI"] if "/A" in link else None)
            else:
                assert isinstance(place[0], IndirectObject) or place[0] is not None
                found.append(book.get_page_number(place[0].get_object()))
        return found

    assert targets(2) == [3, 5, "https://a.org/", None]
    assert targets(4) == [5, 3, "https://a.org/", None]
    assert targets(1) == [2, 4], "the contents"


@needs_chromium
def test_small_pictures_keep_their_colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As figure 1, whose colour bars are small: they are stored as they are, the large pictures as JPEG."""
    noise = np.random.default_rng(0).integers(0, 255, (260, 260, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    for name, row in (("bar", 0), ("other", 1)):
        Image.fromarray(np.broadcast_to(noise[row], (20, 260, 3))).save(tmp_path / f"{name}.png")
    pages = [tmp_path / "one.html", tmp_path / "two.html"]
    for page in pages:
        shown = "".join(f'<img src="{name}.png">' for name in ("large", "bar", "other"))
        page.write_text(PAGE.format(title=page.stem, other="one") + shown, encoding="utf-8")
    monkeypatch.setattr(make_pdf, "contents", lambda site: [("", pages)])
    make_pdf.make_pdf(tmp_path, tmp_path / "book.pdf")
    found = [image for page in PdfReader(tmp_path / "book.pdf").pages for image in page.images]
    assert len(found) == 6
    bars = [np.asarray(image.image.convert("RGB")) for image in found if image.image and image.image.height == 20]
    assert len(bars) == 4 and all((bar == bar[0]).all() and bar.std() > 50 for bar in bars)


def test_entries_that_are_folded_follow_their_page() -> None:
    entries = [{"file": "a", "sections": [{"file": "b", "sections": [{"file": "c"}]}, {"file": "d"}]}, {"file": "e"}]
    assert make_pdf.toc_files(entries) == ["a", "b", "c", "d", "e"]


def test_the_cover_says_what_the_foot_of_the_pages_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "one.html"
    foot = '<p class="colophon"><a href="#">Book</a> · MIT licence · version 3.1.4 · built on 1 May 2026</p>'
    page.write_text(PAGE.format(title="One", other="two") + foot, encoding="utf-8")
    assert make_pdf.colophon_of(page) == "MIT licence · version 3.1.4 · built on 1 May 2026"
    monkeypatch.delenv("SITE_URL", raising=False)
    cover = make_pdf.front([("", [page])], {page: 0})
    assert "version 3.1.4" in cover and "https://" not in cover
    monkeypatch.setenv("SITE_URL", "https://a.org/book/")
    assert '<a href="https://a.org/book/">' in make_pdf.front([("", [page])], {page: 0})


def test_without_chromium_the_mend_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_pdf.shutil, "which", lambda name: None)
    with pytest.raises(make_pdf.NoChromiumError, match="apt-get install chromium"):
        make_pdf.make_pdf(tmp_path, tmp_path / "book.pdf")


@pytest.mark.skipif(not BOOKS, reason="no PDF is made: make pdf")
@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.parent.name)
def test_the_book_that_was_made_has_all_its_chapters(path: Path) -> None:
    book = PdfReader(path)
    pages = [page for _, part in make_pdf.contents(path.parent / "html") for page in part]
    marks = bookmarks(book)
    assert list(marks) == [make_pdf.title_of(page) for page in pages]
    assert sorted(marks.values()) == list(marks.values()) and len(set(marks.values())) == len(pages)
    for title, number in marks.items():
        assert title.split()[0] in book.pages[number].extract_text()
    assert path.stat().st_size < 30 * 2**20

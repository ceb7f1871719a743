"""Print the built site as one PDF, through Chromium: ``python tools/make_pdf.py quick`` writes _build/quick/book.pdf.

The pages come in the order of the contents, with numbers, bookmarks, and links that lead inside the document.
"""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit

import yaml
from make_book import ROOT, build_root
from pypdf import PageObject, PdfReader, PdfWriter
from pypdf.constants import PageLabelStyle
from pypdf.generic import (
    ArrayObject,
    DictionaryObject,
    FloatObject,
    NameObject,
    NullObject,
    NumberObject,
    TextStringObject,
)
from tqdm import tqdm

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--no-pdf-header-footer", "--disable-pdf-tagging", "--virtual-time-budget=30000"),
)
JPEG = 88  # quality of pictures; Chromium stores them without loss, and the book would have five times the size
SMALL_PIXELS = 200**2  # pixels of a picture that stays as it is
FEET_STYLE = "@page { size: A4; margin: 0 } body { color: #555; font: 8pt sans-serif; margin: 0 }"
FRONT_STYLE = """
@page { size: A4; margin: 25mm 22mm }
body { font: 10.5pt/1.5 sans-serif }
header { break-after: page; padding-top: 80mm }
h1 { font-size: 30pt; line-height: 1.2 }
h3 { font-size: 10.5pt; margin: 10pt 0 2pt }
p { display: flex; justify-content: space-between; margin: 2pt 0 }
a { color: #000; text-decoration: none }
"""
FOOT = "display: flex; justify-content: space-between; position: absolute; bottom: 9mm; left: 16mm; right: 16mm"


class NoChromiumError(Exception):
    """There is no Chromium to print with."""


def chromium() -> str:
    """Path of Chromium or Chrome; raises `NoChromiumError` with the mend."""
    for name in CHROMIUM:
        if path := shutil.which(name):
            return path
    raise NoChromiumError(
        "the PDF is printed by Chromium, and there is none on the path: apt-get install chromium, or install Chrome"
    )


def printed(page: Path, target: Path) -> PdfReader:
    """One HTML page as PDF."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [chromium(), *FLAGS, f"--user-data-dir={folder}", f"--print-to-pdf={target}", page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode or not target.is_file():
        raise RuntimeError(f"Chromium did not print {page.name}:\n{done.stderr}")
    return PdfReader(target)


def contents(site: Path) -> list[tuple[str, list[Path]]]:
    """Captions of the parts and their pages, as _toc.yml has them; the people of the gallery have no page here."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    parts = [("", [toc["root"]]), *((part["caption"], toc_files(part["chapters"])) for part in toc["parts"])]
    return [(caption, [site / f"{file}.html" for file in files]) for caption, files in parts]


def toc_files(entries: list[dict[str, Any]]) -> list[str]:
    """The files of entries of _toc.yml in reading order, each with those folded below it."""
    return [file for entry in entries for file in (entry["file"], *toc_files(entry.get("sections", [])))]


def colophon_of(page: Path) -> str:
    """Licence, version and day of the build, as the foot of a page says them; empty where it has no such line."""
    found = re.search(r'<p class="colophon">(.*?)</p>', page.read_text(encoding="utf-8"), re.DOTALL)
    return re.sub(r"<a .*?</a>(?: · )?", "", found[1]).strip() if found else ""


def title_of(page: Path) -> str:
    """The title of a page, without that of the book."""
    found = re.search(r"<title>(.*?)\s*(?:—|&#8212;|</title>)", page.read_text(encoding="utf-8"), re.DOTALL)
    return html.unescape(found[1]).strip() if found else page.stem


def front(parts: list[tuple[str, list[Path]]], starts: dict[Path, int]) -> str:
    """Title page and contents as HTML; `starts` are the first page of each chapter, from 0."""
    book = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    rows = []
    for caption, pages in parts:
        rows.append(f"<h3>{html.escape(caption)}</h3>" if caption else "")
        rows += [
            f'<p><a href="{page.as_uri()}">{html.escape(title_of(page))}</a><span>{starts[page] + 1}</span></p>'
            for page in pages
        ]
    home = os.environ.get("SITE_URL", "")
    told = [html.escape(book["author"]), colophon_of(parts[0][1][0]), f'<a href="{home}">{home}</a>' if home else ""]
    said = "".join(f"<p>{line}</p>" for line in told if line)
    head = f"<header><h1>{html.escape(book['title'])}</h1>{said}</header>"
    start = f'<!doctype html><html lang="en"><meta charset="utf-8"><style>{FRONT_STYLE}</style>'
    return f"{start}{head}<h2>Contents</h2>{''.join(rows)}"


def feet(lines: Iterable[tuple[str, int]]) -> str:
    """Empty pages as HTML with a chapter's title and a number at their foot, to be laid over the printed ones."""
    pages = (
        f'<div style="position: relative; height: 297mm; overflow: hidden; break-after: page"><div style="{FOOT}">'
        f"<span>{html.escape(title)}</span><span>{number}</span></div></div>"
        for title, number in lines
    )
    return f'<!doctype html><meta charset="utf-8"><style>{FEET_STYLE}</style>{"".join(pages)}'


def links(page: PageObject) -> Iterator[DictionaryObject]:
    """The links on a page."""
    for annotation in page.get("/Annots", []):
        if (link := annotation.get_object()).get("/Subtype") == "/Link":
            yield link


def name_links(reader: PdfReader, page: Path) -> None:
    """Make links within a chapter name their page: chapters share names of places, and one document must not."""
    for link in (link for sheet in reader.pages for link in links(sheet)):
        if isinstance(name := link.get("/Dest"), str):
            del link["/Dest"]
            address = TextStringObject(f"{page.as_uri()}#{name.removeprefix('/')}")
            link[NameObject("/A")] = DictionaryObject(
                {NameObject("/S"): NameObject("/URI"), NameObject("/URI"): address}
            )


def join_links(book: PdfWriter, places: dict[tuple[str, str], tuple[int, float]]) -> None:
    """Lead links to pages of the site to their place in the document; one that leads to no page is taken out."""
    for link in [link for sheet in book.pages for link in links(sheet)]:
        address = str(link.get("/A", {}).get("/URI", ""))
        if urlsplit(address).scheme != "file":
            continue
        file, fragment = urldefrag(address)
        found = places.get((file, unquote(fragment))) or places.get((file, ""))
        del link["/A"]
        if found:
            number, top = found
            place = [
                book.pages[number].indirect_reference,
                NameObject("/XYZ"),
                NullObject(),
                FloatObject(top),
                NullObject(),
            ]
            link[NameObject("/Dest")] = ArrayObject(place)


def shrink(book: PdfWriter) -> None:
    """Store large opaque pictures as JPEG, and the pages compressed."""
    for sheet in book.pages:
        sheet.compress_content_streams()
        for picture in sheet.images:
            stored: Any = picture.indirect_reference and picture.indirect_reference.get_object()
            opaque = stored and "/SMask" not in stored and "Flate" in str(stored.get("/Filter"))
            if opaque and picture.image and picture.image.width * picture.image.height > SMALL_PIXELS:
                picture.replace(picture.image.convert("RGB"), quality=JPEG)


def places_of(reader: PdfReader, page: Path, start: int) -> Iterator[tuple[tuple[str, str], tuple[int, float]]]:
    """Address and fragment of every place of a chapter that a link may name, with its page and height there."""
    yield (page.as_uri(), ""), (start, float(reader.pages[0].mediabox.top))
    for name, place in reader.named_destinations.items():
        number = reader.get_destination_page_number(place)
        if number is not None and isinstance(place.get("/Top"), FloatObject | NumberObject):
            yield (page.as_uri(), name.removeprefix("/")), (start + number, float(str(place["/Top"])))


def make_pdf(site: Path, target: Path) -> int:
    """Write the PDF of a built site; returns its number of pages."""
    parts = contents(site)
    pages = [page for _, part in parts for page in part]
    chromium()  # before anything else: its absence has a mend
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ThreadPoolExecutor(2) as pool:
            jobs = [pool.submit(printed, page, folder / f"{n}.pdf") for n, page in enumerate(pages)]
            readers = [job.result() for job in tqdm(jobs, desc="printing", unit="page")]
        book = PdfWriter()
        starts: dict[Path, int] = {}
        places: dict[tuple[str, str], tuple[int, float]] = {}
        lines: list[tuple[str, int]] = []
        for page, reader in zip(pages, readers, strict=True):
            starts[page] = len(lines)
            lines += [(title_of(page), starts[page] + n + 1) for n in range(len(reader.pages))]
        (folder / "front.html").write_text(front(parts, starts), encoding="utf-8")
        (folder / "feet.html").write_text(feet(lines), encoding="utf-8")
        cover = printed(folder / "front.html", folder / "front.pdf")
        overlay = printed(folder / "feet.html", folder / "feet.pdf")
        book.append(cover, import_outline=False)
        before = len(cover.pages)
        for page, reader in zip(pages, readers, strict=True):
            name_links(reader, page)
            places.update(places_of(reader, page, before + starts[page]))
            book.append(reader, import_outline=False)
            book.add_outline_item(title=title_of(page), page_number=before + starts[page])
        for sheet, foot in zip(book.pages[before:], overlay.pages, strict=False):
            sheet.merge_page(foot)
        join_links(book, places)
        shrink(book)
        book.root_object.pop("/Names", None)  # names of places that several chapters share
        book.set_page_label(0, before - 1, style=PageLabelStyle.LOWERCASE_ROMAN)
        book.set_page_label(before, len(book.pages) - 1, style=PageLabelStyle.DECIMAL, start=1)
        book.add_metadata({"/Title": title_of(pages[0])})
        # What is unreferenced stays: after `shrink` pypdf takes the colour profiles of small pictures for such.
        book.compress_identical_objects(remove_unreferenced=False)
        book.write(target)
        return len(book.pages)


def main() -> None:
    """The command line; see the top of this file."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = build_root() / sys.argv[1]
    if not (out / "html" / "index.html").is_file():
        sys.exit(f"there is no site to print: make book PROFILE={sys.argv[1]}")
    try:
        count = make_pdf(out / "html", out / "book.pdf")
    except NoChromiumError as error:
        sys.exit(str(error))
    print(f"{count} pages, {(out / 'book.pdf').stat().st_size / 2**20:.0f} MB: {out / 'book.pdf'}")


if __name__ == "__main__":
    main()

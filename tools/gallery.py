"""The gallery of the site: its pages put where Sphinx reads them, and the index that shows them.

The people are chosen by ``notebooks/gallery/subjects.py``; each page is an executed copy of
``notebooks/gallery/subject.ipynb`` in ``_build/<profile>/gallery/``, beside its thumbnail (PNG) and what its card says
(JSON). Which pages are out of date is make's business.
"""

from __future__ import annotations

import json
import re
import shutil
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from madefaces.names import given_name

INDEX = "book/gallery"  # as _toc.yml names it
SUBJECTS = "gallery/subjects.json"  # below a profile's folder
PAGES = "notebooks/gallery"  # in the staged site, as in the checkout: the links of the notebook hold in both


def page_files(out: Path, page: str) -> list[Path]:
    """What the run of one page leaves: card, thumbnail, and at last the page itself."""
    return [out / "gallery" / f"{page}{suffix}" for suffix in (".json", ".png", ".ipynb")]


def people(out: Path) -> list[dict[str, Any]]:
    """Who has a page; raises `FileNotFoundError`, with the command that mends it, when nobody has been chosen."""
    if not (out / SUBJECTS).is_file():
        raise FileNotFoundError(f"the gallery of the profile {out.name} has not been made: {how_to_make(out)}")
    chosen: list[dict[str, Any]] = json.loads((out / SUBJECTS).read_text(encoding="utf-8"))
    return chosen


def how_to_make(out: Path) -> str:
    """The commands that make the gallery."""
    return f"make book PROFILE={out.name}, or: python tools/make_book.py gallery {out.name}"


def stage(out: Path, site: Path) -> None:
    """Put pages, thumbnails and the cards of the index where Sphinx reads them, and the pages into ``_toc.yml``.

    Raises `FileNotFoundError`, with the command that mends it, when a page is missing.
    """
    for folder in (site / PAGES, site / "gallery"):
        folder.mkdir(parents=True)
    cards = []
    for person in people(out):
        files = card, thumbnail, page = page_files(out, person["page"])
        if not all(path.is_file() for path in files):
            raise FileNotFoundError(f"the gallery's page of {person['identity']} is missing: {how_to_make(out)}")
        cards.append(json.loads(card.read_text(encoding="utf-8")) | {"family": person["family"]})
        shutil.copy2(page, site / PAGES)
        shutil.copy2(thumbnail, site / "gallery")
    (site / "gallery" / "cards.txt").write_text(index(cards), encoding="utf-8")
    (site / "gallery" / "front.txt").write_text(front_page(cards), encoding="utf-8")
    toc = yaml.safe_load((site / "_toc.yml").read_text(encoding="utf-8"))
    (entry,) = [chapter for part in toc["parts"] for chapter in part["chapters"] if chapter["file"] == INDEX]
    entry["sections"] = [{"file": f"{PAGES}/{card['page']}"} for card in cards]
    (site / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False, allow_unicode=True), encoding="utf-8")


def index(cards: list[dict[str, Any]]) -> str:
    """The cards, family by family, in Markdown, for a page in the folder ``book``."""
    right, pictures = (sum(card[key] for card in cards) for key in ("right", "pictures"))
    lines = [f"{len(cards)} people; {right} of their {pictures} test pictures are named right."]
    if any(card["hits"] for card in cards):
        lines[0] += f" {_counts(cards)}"
    for family, members in groupby(cards, key=lambda card: card["family"]):
        group = list(members)
        if family is not None:
            lines += ["", f"## Family {family:02d}: {' and '.join(group[0]['differs'])}"]
        lines += ["", *_grid(group, columns=3)]
    return "\n".join(lines) + "\n"


def front_page(cards: list[dict[str, Any]]) -> str:
    """What the front page says of the gallery, and the people whom SDD hits most often and least often; all if few."""
    seen = [card for card in cards if card["hits"] and card["hits"]["pictures"]]
    if not seen:
        return "% The part that differs is known of made faces alone.\n"
    often = sorted(seen, key=lambda card: -card["hits"]["sdd"] / card["hits"]["pictures"])
    people = f"[The gallery](gallery.md) has a page for each of {len(cards)} people. {_counts(cards)}"
    if len(often) > 4:
        often = often[:2] + often[-2:]
        people += " The first two below are those whom it hits most often, the last two those whom it hits least often."
    return "\n".join([people, "", *_grid(often, columns=4)]) + "\n"


def _counts(cards: list[dict[str, Any]]) -> str:
    checked = [card["hits"] for card in cards if card["hits"]]
    seen, sdd, disc = (sum(hits[key] for hits in checked) for key in ("pictures", "sdd", "disc"))
    return (
        f"In {seen} of their test pictures the part that differs can be seen. SDD's region covers at least half of it "
        f"in {sdd} of them, a centred disc of the same size in {disc}."
    )


def _grid(cards: list[dict[str, Any]], *, columns: int) -> list[str]:
    lines = [f"::::{{grid}} 2 2 {columns} {columns}", ":gutter: 2", ""]
    for card in cards:
        lines += _card(card)
    return [*lines, "::::"]


def _card(card: dict[str, Any]) -> list[str]:
    name, hits = shown_name(card["subject"]), card["hits"]
    said = [f"Named right in {card['right']} of {card['pictures']} test pictures."]
    alt = f"A test picture of {name} under the map of SDD against the look-alikes."
    if hits:
        part = " and ".join(card["differs"])
        said.append(
            f"SDD's region hits the {part} in {hits['sdd']} of {hits['pictures']}, a disc in {hits['disc']}."
            if hits["pictures"]
            else f"The part that differs, the {part}, is hidden in every picture."
        )
        alt += f" {said[-1]}"
    return [
        f":::{{grid-item-card}} {_plain(name)}",
        f":link: ../{PAGES}/{card['page']}",
        ":link-type: doc",
        f":img-top: ../gallery/{card['page']}.png",
        f":img-alt: {json.dumps(alt, ensure_ascii=False)}",
        ":class-card: gallery-card",
        ":class-img-top: dark-light",  # as it is in the dark, too
        "",
        *said,
        ":::",
    ]


def shown_name(identity: str) -> str:
    """An identity as the pages write it."""
    return given_name(identity)


def titled(source: str, title: str) -> str:
    """A page's first cell with `title` for its heading."""
    return re.sub(r"\A# .*", lambda _: f"# {_plain(title)}", source)


def _plain(text: str) -> str:
    """Text in which Markdown finds nothing to do."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$!&])", r"\\\1", text)

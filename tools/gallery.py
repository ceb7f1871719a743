"""The gallery of the site: which pages are out of date, their sweep through papermill, and the index that shows them.

The people are chosen by `subjects`; each page is an executed copy of ``notebooks/gallery/subject.ipynb`` in
``_build/<profile>/gallery/``, beside its thumbnail (PNG) and what its card says (JSON).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

INDEX = "book/gallery"  # as _toc.yml names it
PAGES = "notebooks/gallery"  # in the staged site, as in the checkout: the links of the notebook hold in both

Execute = Callable[[Path, dict[str, Any], Path, str], None]  # source, parameters, target, title


def files_of(out: Path, page: str) -> list[Path]:
    """What the run of one page leaves: card, thumbnail, and at last the page itself."""
    return [out / "gallery" / f"{page}{suffix}" for suffix in (".json", ".png", ".ipynb")]


def out_of_date(out: Path, pages: Iterable[str], sources: Iterable[Path]) -> list[str]:
    """The pages that lack a file or are older than a source; of a missing source the page itself complains."""
    newest = max(path.stat().st_mtime for path in sources if path.exists())
    fresh = {
        page
        for page in pages
        if all(path.is_file() for path in files_of(out, page)) and files_of(out, page)[-1].stat().st_mtime >= newest
    }
    return [page for page in pages if page not in fresh]


def sweep(
    profile: str,
    out: Path,
    subjects: list[dict[str, Any]],
    notebook: Path,
    sources: Iterable[Path],
    execute: Execute,
    jobs: int | None = None,
) -> None:
    """Run the notebook for everybody whose page is out of date, and list all in ``gallery.json``.

    `subjects` is what ``python -m subjects`` prints. `jobs` pages run at a time, by default two, since a page is
    the start of a kernel and imports for the most part. `execute` must leave no half page behind. The first page that
    fails ends the sweep; those that are done are not run again.
    """
    todo = set(out_of_date(out, [subject["page"] for subject in subjects], list(sources)))
    cores = os.cpu_count() or 1
    jobs = jobs or min(2, cores)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // jobs)))  # or each page would start as many as cores
    with ProcessPoolExecutor(jobs, initializer=_end_with, initargs=(os.getpid(),)) as pool:
        futures = {
            pool.submit(
                execute,
                notebook,
                {"profile": profile, "subject": subject["identity"]},
                files_of(out, subject["page"])[-1],
                shown(subject["identity"]),
            ): subject["identity"]
            for subject in subjects
            if subject["page"] in todo
        }
        try:
            for future in tqdm(as_completed(futures), "gallery", len(futures), unit="page", disable=not futures):
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    cards = []
    for subject in subjects:
        card = json.loads(files_of(out, subject["page"])[0].read_text(encoding="utf-8"))
        cards.append({key: value for key, value in card.items() if key != "provenance"} | {"family": subject["family"]})
    part = out / ".gallery.json"
    part.write_text(json.dumps({"profile": profile, "subjects": cards}, indent=1) + "\n", encoding="utf-8")
    part.replace(out / "gallery.json")
    print(f"gallery: {len(futures)} of {len(subjects)} pages run", flush=True)


def _end_with(parent: int) -> None:
    """End this process when its parent is killed, which would leave it waiting for ever; its kernel ends by itself."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def stage(out: Path, site: Path) -> None:
    """Put pages, thumbnails and the cards of the index where Sphinx reads them, and the pages into ``_toc.yml``.

    Raises `FileNotFoundError`, with the command that mends it, when the gallery has not been made.
    """
    mend = f"make book PROFILE={out.name}, or: python tools/make_book.py gallery {out.name}"
    if not (out / "gallery.json").is_file():
        raise FileNotFoundError(f"the gallery of the profile {out.name} has not been made: {mend}")
    cards = json.loads((out / "gallery.json").read_text(encoding="utf-8"))["subjects"]
    for folder in (site / PAGES, site / "gallery"):
        folder.mkdir(parents=True)
    for card in cards:
        _, thumbnail, page = files_of(out, card["page"])
        if not (thumbnail.is_file() and page.is_file()):
            raise FileNotFoundError(f"the gallery's page of {card['subject']} is missing: {mend}")
        shutil.copy2(page, site / PAGES)
        shutil.copy2(thumbnail, site / "gallery")
    (site / "gallery" / "cards.txt").write_text(index(cards), encoding="utf-8")
    toc = yaml.safe_load((site / "_toc.yml").read_text(encoding="utf-8"))
    (entry,) = [chapter for part in toc["parts"] for chapter in part["chapters"] if chapter["file"] == INDEX]
    entry["sections"] = [{"file": f"{PAGES}/{card['page']}"} for card in cards]
    (site / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False, allow_unicode=True), encoding="utf-8")


def index(cards: list[dict[str, Any]]) -> str:
    """The cards, family by family, in Markdown, for a page in the folder ``book``."""
    right, pictures = (sum(card[key] for card in cards) for key in ("right", "pictures"))
    lines = [f"{len(cards)} people; {right} of their {pictures} test pictures are named right."]
    checked = [card["hits"] for card in cards if card["hits"]]
    if checked:
        seen, sdd, disc = (sum(hits[key] for hits in checked) for key in ("pictures", "sdd", "disc"))
        lines[0] += (
            f" The differing part can be seen in {seen} of these pictures. SDD's region covers at least half of it in "
            f"{sdd}, a centred disc of the same size in {disc}."
        )
    for family, members in groupby(cards, key=lambda card: card["family"]):
        group = list(members)
        if family is not None:
            lines += ["", f"## Family {family:02d}: {' and '.join(group[0]['differs'])}"]
        lines += ["", "::::{grid} 2 2 3 4", ":gutter: 2", ""]
        for card in group:
            lines += _card(card)
        lines.append("::::")
    return "\n".join(lines) + "\n"


def _card(card: dict[str, Any]) -> list[str]:
    name, hits = shown(card["subject"]), card["hits"]
    said = [f"Named right in {card['right']} of {card['pictures']} test pictures."]
    alt = f"A test picture of {name} under the map of SDD against the look-alikes."
    if hits:
        part = " and ".join(card["differs"])
        said.append(
            f"SDD's region hits the {part} in {hits['sdd']} of {hits['pictures']}, a disc in {hits['disc']}."
            if hits["pictures"]
            else f"None of the differing part ({part}) can be seen."
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


def shown(identity: str) -> str:
    """An identity as the pages write it."""
    return identity.replace("_", " ")


def titled(source: str, title: str) -> str:
    """A page's first cell with `title` for its heading."""
    return re.sub(r"\A# .*", lambda _: f"# {_plain(title)}", source)


def _plain(text: str) -> str:
    """Text in which Markdown finds nothing to do."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$!&])", r"\\\1", text)

"""What became of every picture that was asked for: a journal beside the pictures, a line a picture, never rewritten."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import io
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from xfrlib.data.images import FORMATS, FaceImageError, decode_image

STATUSES = {  # in the order in which a summary names them
    "got": "there, and exactly the listed bytes",
    "changed": "a picture, but another one than listed",
    "not_a_picture": "does not decode: a page of text, a broken file, more pixels than Pillow allows",
    "too_large": "more bytes than allowed",
    "dead": "the page (404, 410) or the whole host is gone",
    "refused": "the server does not hand it out (401, 402, 403, 429, 451)",
    "timed_out": "too slow, or silent",
    "error": "another failure; the note says which",
    "faulty": "the line of the list cannot be used",
    "not_tried": "not asked for yet",
}
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "BMP": ".bmp", "GIF": ".gif", "WEBP": ".webp", "TIFF": ".tif"}
_SUFFIXES |= {
    "PPM": ".ppm",
    "AVIF": ".avif",
    "HEIF": ".heic",
    "MPO": ".jpg",
}  # a JPEG with a second picture behind the first calls itself MPO


@dataclass(frozen=True)
class Outcome:
    """What became of one picture.

    Width and height in pixels as stored, before EXIF's orientation is applied; bytes of a picture that was too large:
    the limit it broke.
    """

    status: str
    note: str = ""
    bytes: int = 0
    content_sha256: str = ""
    suffix: str = ""
    width: int = 0
    height: int = 0
    orientation: int = 1


def examine(data: bytes, sha256: str) -> Outcome:
    """Whether the bytes are a picture that decodes, and the listed one: "got", "changed" or "not_a_picture"."""
    found = hashlib.sha256(data).hexdigest()
    try:
        decode_image(data)  # refuses more pixels than Pillow's limit before it unpacks any
    except FaceImageError as error:
        note = f"{error}; the bytes are the listed ones" if found == sha256 else str(error)
        return Outcome("not_a_picture", note, len(data), found)
    with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        (width, height), suffix, orientation = picture.size, _SUFFIXES[picture.format or ""], 1
        with contextlib.suppress(Exception):  # a broken EXIF block says nothing about orientation
            orientation = int(picture.getexif().get(0x0112, 1))
    same = found == sha256
    note = "" if same else f"SHA-256 {found[:12]}…, listed is {sha256[:12]}…"
    return Outcome("got" if same else "changed", note, len(data), found, suffix, width, height, orientation)


class Journal:
    """The outcomes known so far, by the picture's stem; each new one is on disk when `add` returns.

    The file lies beside the folder of the pictures: ``originals.jsonl`` beside ``originals/``.
    """

    def __init__(self, folder: Path) -> None:
        folder = folder.absolute()
        self.path = folder.with_name(folder.name + ".jsonl")
        self.entries: dict[str, tuple[str, str, Outcome]] = {}  # stem -> url, listed SHA-256, outcome
        known = {f.name for f in fields(Outcome)}
        for line in self.path.read_bytes().split(b"\n") if self.path.is_file() else []:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # the last line of a killed run may be cut off
                entry = json.loads(line)
                outcome = Outcome(**{name: value for name, value in entry.items() if name in known})
                self.entries[entry["stem"]] = entry["url"], entry["sha256"], outcome

    def add(self, stem: str, url: str, sha256: str, outcome: Outcome) -> None:
        self.entries[stem] = url, sha256, outcome
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        line = json.dumps({"stem": stem, "url": url, "sha256": sha256, **asdict(outcome), "time": now})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab", buffering=0) as file:  # one write a line: a kill leaves it whole or not there
            if file.tell() and not _ends_line(self.path):
                line = "\n" + line
            file.write(line.encode() + b"\n")


def _ends_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def download_state(table: pd.DataFrame, folder: str | Path) -> pd.DataFrame:
    """`table` with what is known of each row: a request for nothing, a look at the journal and the files only.

    Columns status (one of `STATUSES`), note, file (relative to `folder`, with "/"; "" where there is none), and those
    of `Outcome`. A row whose file has gone or has another length is "not_tried" again.
    """
    folder = Path(folder)
    entries = Journal(folder).entries
    outcomes, files = [], []
    rows: list[Any] = list(table.itertuples())
    for row in rows:
        outcome, file = _known(row, entries, folder)
        outcomes.append(asdict(outcome))
        files.append(file)
    found = pd.DataFrame(outcomes, index=table.index, columns=[f.name for f in fields(Outcome)]).assign(file=files)
    return table.drop(columns=[c for c in found if c in table]).join(found)


def _known(row: Any, entries: dict[str, tuple[str, str, Outcome]], folder: Path) -> tuple[Outcome, str]:
    if row.status == "faulty":
        return Outcome("faulty", row.note), ""
    url, sha256, outcome = entries.get(row.stem, ("", "", Outcome("not_tried")))
    if (url, sha256) != (row.url, row.sha256):
        return Outcome("not_tried"), ""
    file = row.stem + outcome.suffix
    there = outcome.suffix and (folder / file).is_file() and (folder / file).stat().st_size == outcome.bytes
    if outcome.status == "got" and not there:
        return Outcome("not_tried", "was there; the file is gone or has another length"), ""
    return outcome, file if there else ""

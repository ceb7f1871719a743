"""Any folder of ``<identity>/<picture>``: a table of every file, and the manifest that is made of it.

Nothing is dropped in silence: a file that cannot be used keeps its row, with a status and a reason.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image
from tqdm import tqdm

from xfrlib.artifacts import write_atomic
from xfrlib.checks import need_module
from xfrlib.data.faces import COLUMNS, FILE_COLUMNS, LEAST_SIDE
from xfrlib.data.images import IMAGE_SUFFIXES, FaceImageError, decode_image, read_file

TO_CONVERT = frozenset((".heic", ".heif", ".avif", ".jxl", ".jp2", ".psd", ".dng", ".cr2", ".cr3", ".nef", ".arw"))
SPLIT_NAMES = frozenset(("train", "training", "val", "valid", "validation", "test", "testing"))  # no people
HASH_SIDE = 16  # of the perceptual hash


def path_order(path: str) -> tuple[str, str]:
    """Sort key that is the same on systems that store accents composed and decomposed."""
    return unicodedata.normalize("NFC", path), path


def path_draw(seed: int, path: str) -> str:
    """Pseudo-random sort key of a path: a file that comes or goes does not reshuffle the others."""
    return hashlib.sha256(f"{seed}\0{unicodedata.normalize('NFC', path)}".encode()).hexdigest()


_IN_HAND = re.compile(r"(.*/)?\.\d+\.[^/]+")  # what `write_atomic` writes, or had in hand when a run was killed


def find_files(root: Path) -> list[str]:
    """Every file below `root`, relative, with "/"; links are followed, and an empty folder is "<name>/"."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder of pictures; set the data root (XFR_DATA) or another folder")
    found, todo = list[str](), [(root, {os.path.realpath(root)})]
    for folder, above in todo:  # which grows
        inside = list(folder.iterdir()) if os.access(folder, os.R_OK | os.X_OK) else []
        found += [f"{folder.relative_to(root).as_posix()}/"] if folder != root and not inside else []
        for entry in inside:
            if not os.path.isdir(entry):
                found.append(entry.relative_to(root).as_posix())
            elif (real := os.path.realpath(entry)) not in above:  # a link back up would never end
                todo.append((entry, above | {real}))
    return sorted(found, key=path_order)


def list_faces(root: str | Path) -> list[dict[str, str]]:
    """Every file below `root` by its name alone: identity, path, status and note as of `scan_faces`.

    The status is "" for a picture that is to be read, which may have no suffix. Raises `FileNotFoundError` for a
    missing root and `ValueError` for one without identity folders, naming folders that hold them at another level.
    """
    root, rows, deeper = Path(root).expanduser(), list[dict[str, str]](), list[str]()
    for path in find_files(root):
        if _IN_HAND.fullmatch(path):
            continue
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        parts, suffix = shown.split("/"), suffix_of(shown)
        other = f"{suffix}: convert to JPEG" if suffix in TO_CONVERT else "the suffix is not that of a picture"
        reasons = (
            (path.endswith("/"), "too_few_images", "no file in this folder, or no right to list it"),
            (any(part.startswith(".") for part in parts), "not_an_image", "hidden"),
            (suffix and suffix not in IMAGE_SUFFIXES, "not_an_image", other),
            (len(parts) != 2, "misplaced", "not at <identity>/<picture>"),
            (shown != path, "unreadable", "the name is not valid UTF-8: rename it"),
        )
        status, note = next(((status, note) for wrong, status, note in reasons if wrong), ("", ""))
        # composed: a name that is spelt in both forms of Unicode is one person
        person = unicodedata.normalize("NFC", parts[0]) if len(parts) > 1 else ""
        rows.append({"identity": person, "path": shown, "status": status, "note": note})
        deeper += [shown] if status == "misplaced" and suffix and person else []
    if not any(row["identity"] for row in rows):
        raise ValueError(f"{root}: holds no identity folders; put the pictures at <identity>/<picture>")
    here = [suffix_of(row["path"]) for row in rows if not row["status"]]
    if len(deeper) > len(here) and not any(here):
        where = " and ".join(list(dict.fromkeys(path.rsplit("/", 2)[0] for path in deeper))[:5])
        mend = "name one of these folders, or lay all people side by side"
        raise ValueError(f"{root}: its people lie deeper, in {where} (such as {deeper[0]}); {mend}")
    people = sorted({row["identity"] for row in rows if not row["status"]})
    if people and SPLIT_NAMES.issuperset(map(str.lower, people)):
        fault = f"its pictures lie in {' and '.join(people)}, which are parts of a set and no people"
        raise ValueError(f"{root}: {fault}; put the pictures at <identity>/<picture>")
    return rows


def suffix_of(path: str) -> str:
    """The suffix in small letters; "" where there is none, as in ``Mr. Smith 2``."""
    return "".join(re.findall(r"\.[A-Za-z]\w{0,4}$", path)).lower()


def _describe(root: Path, listed: dict[str, str], min_side: int) -> dict[str, Any]:
    """The row of one file: what it is and whether it can be used."""
    row: dict[str, Any] = dict.fromkeys(FILE_COLUMNS, "") | listed | {"width": 0, "height": 0}
    if row["status"]:
        return row
    try:
        data = read_file(root / row["path"])
        row["sha256"] = hashlib.sha256(data).hexdigest()
        picture, row["mode"], note = decode_image(data)
    except (OSError, FaceImageError) as error:
        row["status"] = "unreadable" if suffix_of(row["path"]) else "not_an_image"
        return row | {"note": getattr(error, "strerror", None) or str(error)}
    row["width"], row["height"] = picture.size
    if min(picture.size) < min_side:
        return row | {"status": "too_small", "note": f"shorter side below {min_side} pixels"}
    return row | {"status": "used", "note": note, "phash": perceptual_hash(picture)}


def scan_faces(
    root: str | Path,
    *,
    min_side: int = LEAST_SIDE,
    min_images: int = 1,
    max_images: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """List every file below `root`, one row each, sorted by path.

    Columns: identity (folder name), path (relative, with "/"), sha256 (of the file), phash (256-bit perceptual hash,
    hexadecimal), width and height (pixels, upright), mode (as stored), status ("used", "unreadable", "too_small",
    "too_few_images", "over_max_images", "not_an_image", "misplaced": not at <identity>/<picture>), note (what was
    converted, or why the file is not used). Identities with fewer than `min_images` usable pictures are left out; of
    those with more than `max_images`, that many are drawn by `seed`. An identity folder without files has a row too.
    Raises as `list_faces` does.
    """
    if max_images is not None and max_images < min_images:
        raise ValueError(f"max_images = {max_images}: must not be below min_images = {min_images}")
    root = Path(root).expanduser()
    files = list_faces(root)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        rows = pool.map(lambda file: _describe(root, file, min_side), files)
        shown = tqdm(rows, "reading faces", len(files), unit="file", mininterval=1, disable=not progress)
        table = pd.DataFrame(list(shown), columns=list(FILE_COLUMNS))
    for identity, group in table[table["status"] == "used"].groupby("identity"):
        if len(group) < min_images:
            note = f"{len(group)} usable pictures of {identity}, {min_images} asked for"
            table.loc[group.index, ["status", "note"]] = "too_few_images", note
        elif max_images is not None:
            drawn = sorted(group.index, key=lambda i: path_draw(seed, str(table.at[i, "path"])))
            note = f"not among the {max_images} drawn"
            table.loc[drawn[max_images:], ["status", "note"]] = "over_max_images", note
    return table


def perceptual_hash(picture: Image.Image) -> str:
    """The 256-bit pHash of a picture, 64 hexadecimal digits; "" for a plain colour, whose hash is rounding noise."""
    imagehash = need_module("imagehash", "finding duplicates", "xfrlib[photos]")
    low, high = picture.convert("L").getextrema()
    return "" if low == high else str(imagehash.phash(picture, hash_size=HASH_SIDE))


def write_manifest(table: pd.DataFrame, path: str | Path) -> None:
    """Write the manifest as CSV (UTF-8), atomically; equal tables give equal bytes."""
    with write_atomic(Path(path)) as part:
        table.to_csv(part, columns=list(COLUMNS), index=False, lineterminator="\n", encoding="utf-8")

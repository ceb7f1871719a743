"""FaceScrub's list files, and which file of a folder belongs to which line of them."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
from tqdm import tqdm

from facedata.align import BOX
from facedata.scan import find_files
from xfrlib.artifacts import file_sha256
from xfrlib.data.images import IMAGE_SUFFIXES

_FIELDS = ("name", "image_id", "face_id", "url", "bbox", "sha256")


def read_list(path: str | Path) -> pd.DataFrame:
    """Read one list file: tab separated, with FaceScrub's header line or without; one row a line, none lost.

    Columns: list (the file's name without suffix), sex ("male" for actors, "female" for actresses, else ""), line
    (from 1), name (underscores for spaces), image_id, face_id, url, x1, y1, x2, y2 (pixels of the picture as stored;
    x2 and y2 are outside), sha256 (of the picture's file), stem (`<name>/<name>_<image_id>_<face_id>`), status
    ("listed" or "faulty") and note. A faulty line has what could be read, -1 for numbers, and the reason in its note.
    Raises `FileNotFoundError`, and `ValueError` for a header that lacks a column.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such list; ask FaceScrub's authors for facescrub_actors.txt and _actresses"
        )
    lines = path.read_bytes().decode("utf-8-sig", "replace").split("\n")
    order: Sequence[str] = _FIELDS
    start = [part.strip() for part in lines[0].split("\t")]
    headed = "image_id" in start
    if headed:
        order = start
        if missing := [name for name in _FIELDS if name not in order]:
            raise ValueError(f"{path}: the header lacks {', '.join(missing)}")
    sex = {"actors": "male", "actresses": "female"}.get(re.split(r"[_\W]", path.stem.lower())[-1], "")
    rows = [
        {"list": path.stem, "sex": sex, "line": number, **_parse(line.rstrip("\r").split("\t"), order)}
        for number, line in enumerate(lines, 1)
        if line.strip() and not (headed and number == 1)
    ]
    columns = ["list", "sex", "line", "name", "image_id", "face_id", "url", *BOX, "sha256", "stem", "status", "note"]
    return pd.DataFrame(rows, columns=columns)


def _parse(parts: list[str], order: Sequence[str]) -> dict[str, Any]:
    given = dict(zip(order, (part.strip() for part in parts), strict=False))
    name, url = given.get("name", "").replace(" ", "_"), given.get("url", "")
    image_id, face_id = (_number(given.get(key, "")) for key in ("image_id", "face_id"))
    box = [int(n) for n in given.get("bbox", "").split(",") if re.fullmatch(r"\s*-?\d{1,9}\s*", n, re.ASCII)]
    sha256 = given.get("sha256", "").lower()
    fault = ""
    if len(parts) != len(order):
        fault = f"{len(parts)} fields instead of {len(order)}"
    elif "\ufffd" in "".join(parts):
        fault = "not UTF-8"
    elif not name or name.startswith(".") or not name.isprintable() or re.search(r'[/\\:*?"<>|]', name):
        fault = f"the name {name!r} cannot be that of a folder"
    elif image_id < 0 or face_id < 0:
        fault = "image_id and face_id must be whole numbers"
    elif not _is_address(url):
        fault = "the address does not begin with http:// or https:// and a host"
    elif len(box) != 4 or given["bbox"].count(",") != 3 or box[0] >= box[2] or box[1] >= box[3]:
        fault = f"the box {given['bbox']!r} is not x1,y1,x2,y2 with x1 < x2 and y1 < y2"
    elif not re.fullmatch(r"[0-9a-f]{64}", sha256):
        fault = "the SHA-256 is not 64 hexadecimal digits"
    corners = box if len(box) == 4 else [-1] * 4
    row = {"name": name, "image_id": image_id, "face_id": face_id, "url": url, **dict(zip(BOX, corners, strict=True))}
    stem = "" if fault else f"{name}/{name}_{image_id}_{face_id}"
    return row | {"sha256": sha256, "stem": stem, "status": "faulty" if fault else "listed", "note": fault}


def _number(text: str) -> int:
    return int(text) if re.fullmatch(r"\d{1,12}", text, re.ASCII) else -1


def _is_address(url: str) -> bool:
    try:
        return url.startswith(("http://", "https://")) and bool(urlsplit(url).hostname)
    except ValueError:
        return False


def read_lists(paths: Iterable[str | Path]) -> pd.DataFrame:
    """Join several lists; a face that an earlier line has already is "faulty" with a note that names that line."""
    table = pd.concat([read_list(path) for path in paths], ignore_index=True)
    where = table["list"] + " line " + table["line"].astype(str)
    good = table[table["status"] == "listed"]
    first = good.drop_duplicates("stem").set_index("stem").index
    places = dict(zip(first, where[good.drop_duplicates("stem").index], strict=True))
    again = good.index[good.duplicated("stem")]
    table.loc[again, "note"] = ["the same face as " + places[stem] for stem in table.loc[again, "stem"]]
    table.loc[again, "status"] = "faulty"
    return table


def find_pictures(
    root: str | Path, table: pd.DataFrame, *, numbers: str = "auto", verify: bool = True, progress: bool = True
) -> pd.DataFrame:
    """Recognise an existing download: which file below `root` belongs to which row of `table` (of `read_lists`).

    Known, at any depth, with spaces or underscores in names: ``<name>_<image_id>_<face_id>`` (ours, and the crops of
    FaceScrub's own downloader), ``<name>_<image_id>`` (its whole pictures, below ``images/``), ``<name>_<face_id>``
    (MegaFace's copy) and the SHA-1 of the address (the downloaders of faceteam and luoyetx). One number alone is an
    image_id or a face_id, whichever fits more files; `numbers` = "image_id" or "face_id" settles it.

    Result: a row for each pair of file and listed face, with the columns of `table` and row (its index), file
    (relative, with "/"), layout, and status: "original" (the file has the listed SHA-256), "differs" (cropped, aligned
    or another picture; all files with verify=False), "unlisted" (a file that belongs to no row) or "absent" (a row
    without file). Raises `FileNotFoundError`, and `ValueError` when a lone number fits both equally well.
    """
    root, listed = Path(root).expanduser(), table[table["status"] != "faulty"]
    found_files = find_files(root)
    if numbers not in ("auto", "image_id", "face_id"):
        raise ValueError(f'numbers = {numbers!r}: use "auto", "image_id" or "face_id"')
    keys: dict[str, dict[Any, list[Any]]] = {kind: defaultdict(list) for kind in ("both", "image_id", "face_id", "url")}
    for row, name, image, face, url in listed[["name", "image_id", "face_id", "url"]].itertuples():
        keys["both"][name, image, face].append(row)
        keys["image_id"][name, image].append(row)
        keys["face_id"][name, face].append(row)
        keys["url"][hashlib.sha1(url.encode()).hexdigest()].append(row)
    files = {
        path: _read_name(Path(path).stem)
        for path in found_files
        if Path(path).suffix.lower() in IMAGE_SUFFIXES and not Path(path).name.startswith(".")
    }
    if numbers == "auto":
        votes = Counter(k for key in files.values() if len(key) == 2 for k in ("image_id", "face_id") if key in keys[k])
        if votes["image_id"] == votes["face_id"] > 0:
            raise ValueError(f'{root}: <name>_<number> fits both ids; say numbers="image_id" or numbers="face_id"')
        numbers = max(("image_id", "face_id"), key=lambda k: votes[k])
    pairs = []
    for file, key in sorted(files.items()):
        kind = {3: "both", 2: numbers}.get(len(key), "url")
        rows = keys[kind].get(key if len(key) > 1 else key[0], [])
        pairs += [(row, file, kind, "differs") for row in rows] or [(-1, file, "", "unlisted")]
    found = pd.DataFrame(pairs, columns=["row", "file", "layout", "status"]).astype({"row": "int64"})
    if verify:
        paths = found.loc[found["status"] == "differs", "file"].unique()
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            hashes = pool.map(lambda file: file_sha256(root / file), paths)
            shown = tqdm(hashes, "hashing", len(paths), unit="file", mininterval=1, disable=not progress)
            sha256 = dict(zip(paths, shown, strict=True))
        same = found["file"].map(sha256) == found["row"].map(listed["sha256"])
        found.loc[same, "status"] = "original"
    absent = listed.index[~listed.index.isin(found["row"])]
    missing = pd.DataFrame({"row": absent, "file": "", "layout": "", "status": "absent"})
    of = listed.drop(columns=["status", "note"])
    whole = pd.concat([found, missing], ignore_index=True).join(of, on="row")
    return whole.fillna({c: -1 if of[c].dtype == "int64" else "" for c in of}).astype(of.dtypes.to_dict())


def _read_name(stem: str) -> tuple[Any, ...]:
    """(name, image_id, face_id), (name, number), or the whole stem alone."""
    match = re.fullmatch(r"(.+?)_(\d+)(?:_(\d+))?", stem.replace(" ", "_"), re.ASCII)
    return (stem,) if match is None else (match[1], *(int(n) for n in match.groups()[1:] if n is not None))

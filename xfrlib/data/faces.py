"""Any folder of ``<identity>/<picture>``: a table of every file, the manifest of a split, and batches for torch.

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
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from xfrlib.artifacts import write_atomic
from xfrlib.data import images
from xfrlib.data.images import IMAGE_SUFFIXES, FaceImageError, decode_image, load_image, read_file

SPLITS = ("train", "validation", "test")
_COLUMNS = ("identity", "path", "sha256", "phash", "width", "height", "mode", "status", "note")
_MANIFEST = (*_COLUMNS, "duplicate_group", "duplicate_kind", "label", "split")
_INTEGERS = ("width", "height", "duplicate_group", "label")


def path_order(path: str) -> tuple[str, str]:
    """Sort key that is the same on systems that store accents composed and decomposed."""
    return unicodedata.normalize("NFC", path), path


def path_draw(seed: int, path: str) -> str:
    """Pseudo-random sort key of a path: a file that comes or goes does not reshuffle the others."""
    return hashlib.sha256(f"{seed}\0{unicodedata.normalize('NFC', path)}".encode()).hexdigest()


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
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        parts, suffix = shown.split("/"), suffix_of(shown)
        other = f"{suffix}: convert to JPEG" if suffix in images.TO_CONVERT else "the suffix is not that of a picture"
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
    return rows


def suffix_of(path: str) -> str:
    """The suffix in small letters; "" where there is none, as in ``Mr. Smith 2``."""
    return "".join(re.findall(r"\.[A-Za-z]\w{0,4}$", path)).lower()


def _describe(root: Path, listed: dict[str, str], min_side: int) -> dict[str, Any]:
    """The row of one file: what it is and whether it can be used."""
    row: dict[str, Any] = dict.fromkeys(_COLUMNS, "") | listed | {"width": 0, "height": 0}
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
    return row | {"status": "used", "note": note, "phash": images.perceptual_hash(picture)}


def scan_faces(
    root: str | Path,
    *,
    min_side: int = 32,
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
        table = pd.DataFrame(list(shown), columns=list(_COLUMNS))
    for identity, group in table[table["status"] == "used"].groupby("identity"):
        if len(group) < min_images:
            note = f"{len(group)} usable pictures of {identity}, {min_images} asked for"
            table.loc[group.index, ["status", "note"]] = "too_few_images", note
        elif max_images is not None:
            drawn = sorted(group.index, key=lambda i: path_draw(seed, str(table.at[i, "path"])))
            note = f"not among the {max_images} drawn"
            table.loc[drawn[max_images:], ["status", "note"]] = "over_max_images", note
    return table


def write_manifest(table: pd.DataFrame, path: str | Path) -> None:
    """Write the manifest as CSV (UTF-8), atomically; equal tables give equal bytes."""
    with write_atomic(Path(path)) as part:
        table.to_csv(part, columns=list(_MANIFEST), index=False, lineterminator="\n", encoding="utf-8")


def read_manifest(path: str | Path) -> pd.DataFrame:
    """Read what `write_manifest` wrote. Raises `ValueError` naming missing columns."""
    # as text and without missing values: a person may be called "NA" or "007"
    table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    if missing := [column for column in _MANIFEST if column not in table]:
        raise ValueError(f"{path}: not a manifest, it lacks {', '.join(missing)}; prepare the data again")
    return table.astype(dict.fromkeys(_INTEGERS, "int64"))


def data_hash(manifest: pd.DataFrame) -> str:
    """SHA-256 over identity, path, file hash and split of all used pictures, whatever the order of the rows."""
    used = manifest[manifest["status"] == "used"]
    lines = used[["identity", "path", "sha256", "split"]].agg("\t".join, axis=1)
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


class FaceDataset(Dataset[tuple[torch.Tensor, int, int]]):
    """One split of a manifest: item i is (image float32 (3, size, size) RGB in [0, 1], label, i)."""

    def __init__(self, root: str | Path, manifest: pd.DataFrame, split: str, *, size: int = 112) -> None:
        if split not in SPLITS:
            raise ValueError(f"split = {split!r}: use one of {', '.join(SPLITS)}")
        used = manifest[manifest["status"] == "used"]
        self.root, self.size = Path(root), size
        #: names in the order of the labels, of all splits
        self.identities: list[str] = used.drop_duplicates("label").sort_values("label")["identity"].tolist()
        self.num_classes = len(self.identities)
        self.table = used[used["split"] == split].reset_index(drop=True)  #: the rows
        if self.table.empty:
            raise ValueError(
                f"the manifest has no picture in split {split!r}; give it a share and prepare the data again"
            )
        self._paths, self._labels = self.table["path"].tolist(), self.table["label"].tolist()

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, int]:
        image = torch.from_numpy(load_image(self.root / self._paths[index], self.size)).permute(2, 0, 1)
        return image.contiguous().float().div_(255), self._labels[index], index

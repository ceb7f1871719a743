"""Any folder of ``<identity>/<picture>``: a table of every file, the manifest of a split, and batches for torch.

Nothing is dropped in silence: a file that cannot be used keeps its row, with a status and a reason.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from xfrlib.artifacts import write_atomic
from xfrlib.data.images import IMAGE_SUFFIXES, FaceImageError, decode_image, load_image, perceptual_hash

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


def _find_files(root: Path) -> list[str]:
    """Every file below `root`, relative, with "/"; an identity folder without files as "<name>/"."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder of faces; set the data root (XFR_DATA) or the folder's name")
    found: list[str] = []
    for entry in root.iterdir():
        inside = [Path(at, name).relative_to(root).as_posix() for at, _, names in os.walk(entry) for name in names]
        found += inside or [f"{entry.name}/" if entry.is_dir() else entry.name]
    return sorted(found, key=path_order)


def _describe(root: Path, path: str, min_side: int) -> dict[str, Any]:
    """The row of one file: what it is and whether it can be used."""
    shown = os.fsencode(path).decode("utf-8", "backslashreplace")
    parts = shown.split("/")
    person = parts[0] if len(parts) > 1 else ""
    row: dict[str, Any] = dict.fromkeys(_COLUMNS, "") | {"identity": person, "path": shown, "width": 0, "height": 0}
    for wrong, status, note in (
        (path.endswith("/"), "too_few_images", "no file in this folder, or no right to list it"),
        (any(part.startswith(".") for part in parts), "not_an_image", "hidden"),
        (Path(path).suffix.lower() not in IMAGE_SUFFIXES, "not_an_image", "the suffix is not that of a picture"),
        (len(parts) != 2, "misplaced", "not at <identity>/<picture>"),
        (shown != path, "unreadable", "the name is not valid UTF-8: rename it"),
    ):
        if wrong:
            return row | {"status": status, "note": note}
    file = root / path
    try:
        if not file.is_file():  # opening a pipe would wait for ever
            raise FaceImageError("broken link" if file.is_symlink() else "not a regular file")
        data = file.read_bytes()
        row["sha256"] = hashlib.sha256(data).hexdigest()
        picture, row["mode"], note = decode_image(data)
    except (OSError, FaceImageError) as error:
        return row | {"status": "unreadable", "note": getattr(error, "strerror", None) or str(error)}
    row["width"], row["height"] = picture.size
    if min(picture.size) < min_side:
        return row | {"status": "too_small", "note": f"shorter side below {min_side} pixels"}
    return row | {"status": "used", "note": note, "phash": perceptual_hash(picture)}


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
    Raises `FileNotFoundError` for a missing root and `ValueError` for a root without identity folders.
    """
    if max_images is not None and max_images < min_images:
        raise ValueError(f"max_images = {max_images}: must not be below min_images = {min_images}")
    root = Path(root)
    paths = _find_files(root)
    if not any("/" in path for path in paths):
        raise ValueError(f"{root}: holds no identity folders; put the pictures at <identity>/<picture>")
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        rows = pool.map(lambda path: _describe(root, path, min_side), paths)
        shown = tqdm(rows, "reading faces", len(paths), unit="file", mininterval=1, disable=not progress)
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

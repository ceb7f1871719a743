"""Faces on disk: the manifest of a split, any folder of ``<identity>/<picture>``, and batches for torch."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pandas as pd
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from xfrlib.data.images import IMAGE_SUFFIXES, FaceImageError, load_image

LEAST_SIDE = 32  # pixels of a picture that is looked at
SPLITS = ("train", "validation", "test")
FILE_COLUMNS = ("identity", "path", "sha256", "phash", "width", "height", "mode", "status", "note")  # of a file
COLUMNS = (*FILE_COLUMNS, "duplicate_group", "duplicate_kind", "label", "split")  # of a manifest
_INTEGERS = ("width", "height", "duplicate_group", "label")


def read_manifest(path: str | Path) -> pd.DataFrame:
    """The manifest in a file of CSV, a row for each picture. Raises `ValueError` naming the file, and what is wrong."""
    try:
        # as text and without missing values: a person may be called "NA" or "007"
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
        if missing := [column for column in COLUMNS if column not in table]:
            raise ValueError(f"it lacks {', '.join(missing)}")
        return table.astype(dict.fromkeys(_INTEGERS, "int64"))
    except ValueError as error:
        raise ValueError(f"{path}: not a manifest, {' '.join(str(error).split())}; prepare the data again") from error


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
            raise ValueError(f"the manifest has no picture in split {split!r}; give it a share, prepare the data again")
        self._paths, self._labels = self.table["path"].tolist(), self.table["label"].tolist()

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, int]:
        image = torch.from_numpy(load_image(self.root / self._paths[index], self.size)).permute(2, 0, 1)
        return image.contiguous().float().div_(255), self._labels[index], index


def open_folder(folder: str | Path, identities: Sequence[str] | None = None, *, size: int = 112) -> FaceDataset:
    """All pictures of a folder ``<identity>/<picture>`` that can be read and are not tiny, to look at.

    `identities` are the names of a model's classes in order; a person who is none of them has the label -1. None: the
    folders' names, sorted, are the classes. Pictures are brought to `size` pixels each way.
    """
    root = Path(folder).expanduser()
    files = sorted(path for path in root.glob("[!.]*/[!.]*") if path.suffix.lower() in ("", *IMAGE_SUFFIXES))
    with ThreadPoolExecutor() as pool:
        shown = tqdm(pool.map(_usable, files), "reading faces", len(files), unit="file", mininterval=1)
        used = [path.relative_to(root).as_posix() for path, good in zip(files, shown, strict=True) if good]
    if not used:
        raise ValueError(f"{root}: holds no picture at <identity>/<picture>")
    people = pd.Index([unicodedata.normalize("NFC", path.split("/")[0]) for path in used])  # as a manifest spells them
    names = list(identities or sorted(set(people)))
    if (twice := (classes := pd.Index(names)).duplicated()).any():
        raise ValueError(f"identities: {classes[twice][0]!r} is the name of more than one class; give each its own")
    labels = classes.get_indexer(people)  # -1 for others
    table = pd.DataFrame({"identity": people, "path": used, "status": "used", "split": "test", "label": labels})
    dataset = FaceDataset(root, table, "test", size=size)
    dataset.identities, dataset.num_classes = names, len(names)
    return dataset


def _usable(path: Path) -> bool:
    with suppress(FaceImageError, UnicodeEncodeError):  # a table takes no name that is not UTF-8
        return bool(str(path).encode()) and min(load_image(path, None).shape[:2]) >= LEAST_SIDE
    return False

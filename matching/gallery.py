"""A gallery of people: their templates, who is most similar, and what a similarity means among them."""

from __future__ import annotations

import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from matching.faces import Aligner
from xfrlib.artifacts import file_sha256, fingerprint, write_atomic
from xfrlib.data.images import IMAGE_SUFFIXES
from xfrlib.match import unit_embeddings
from xfrlib.models import Backbone

MOST_COMPARISONS = 500_000  # more say nothing new about a threshold in use, and every pair would wait for seconds


@dataclass(frozen=True)
class Gallery:
    """n pictures of N people."""

    names: tuple[str, ...]  #: of the people
    people: NDArray[np.int64]  #: (n,) whom each picture shows, a place in `names`
    digests: tuple[str, ...]  #: SHA-256 of each file
    embeddings: Tensor  #: (n, D) of unit length
    left_out: tuple[str, ...]  #: a sentence for each file or folder that could not be used
    files: tuple[Path, ...] = ()  #: (n,) where each picture lies

    def templates(self) -> Tensor:
        """Each person's mean embedding, of unit length: (N, D)."""
        own = torch.zeros(len(self.names), self.embeddings.shape[1])
        return F.normalize(own.index_add(0, torch.from_numpy(self.people), self.embeddings), dim=1)

    def without(self, digests: Collection[str], names: Collection[str] = ()) -> tuple[Gallery, list[str]]:
        """The gallery without everybody of whom a file has one of `digests`, or who is in `names`; and their names."""
        known = {self.names[who] for who, digest in zip(self.people, self.digests, strict=True) if digest in digests}
        gone = known | (set(names) & set(self.names))
        kept = [number for number, name in enumerate(self.names) if name not in gone]
        return self._of(np.isin(self.people, kept)), sorted(gone)

    def without_files(self, digests: Collection[str]) -> Gallery:
        """The gallery without the files that have one of `digests`, and so without whoever has no other."""
        return self._of(np.array([digest not in digests for digest in self.digests], dtype=bool))

    def _of(self, chosen: NDArray[np.bool_]) -> Gallery:
        """The gallery of some of its pictures, `chosen` (n,)."""
        rows = np.flatnonzero(chosen)
        kept, people = np.unique(self.people[rows], return_inverse=True)
        left = tuple(self.names[number] for number in kept), people, tuple(self.digests[row] for row in rows)
        files = tuple(self.files[row] for row in rows) if self.files else ()
        return Gallery(*left, self.embeddings[torch.from_numpy(rows)], self.left_out, files)

    def identify(self, embedding: Tensor, top: int) -> tuple[list[int], list[float]]:
        """The `top` people most similar to an embedding (D,) of unit length, the most similar first: their places in
        `names`, and the similarities to their templates."""
        similar = self.templates() @ embedding
        order = similar.argsort(descending=True)[:top]
        return order.tolist(), similar[order].tolist()

    def files_of(self, number: int) -> list[Path]:
        """Where the pictures of person `number` lie."""
        return [file for file, who in zip(self.files, self.people, strict=False) if who == number]


def pictures_in(place: Path) -> list[Path]:
    """The pictures that lie in a folder, by the suffix; hidden files are none."""
    return sorted(p for p in place.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != "." and p.is_file())


def _no_pictures(place: Path) -> list[Path]:
    """The other files that lie in a folder, but for hidden ones."""
    return sorted(
        p for p in place.iterdir() if p.suffix.lower() not in IMAGE_SUFFIXES and p.name[0] != "." and p.is_file()
    )


def _people(folder: Path) -> list[Path]:
    return sorted(place for place in folder.iterdir() if place.is_dir() and place.name[0] != ".")


def passed_over(folder: Path, found: Collection[str]) -> dict[Path, str]:
    """Folders and files that gave nobody when `pictures_by_person` found these names, and why."""
    people = _people(folder)
    beside = pictures_in(folder) if any(place.name in found for place in people) else []
    empty = {place: "holds no picture" for place in people if place.name not in found}
    other = [path for place in people if place.name in found for path in _no_pictures(place)]
    return (
        empty
        | dict.fromkeys(beside, "lies beside the folders of people; put it into one")
        | dict.fromkeys(other, f"has not the suffix of a picture: {', '.join(sorted(IMAGE_SUFFIXES))}")
    )


def pictures_by_person(folder: Path) -> dict[str, list[Path]]:
    """The pictures of each person: those of each folder in `folder`, or, if none has any, each picture by itself.

    Raises `ValueError` where there is none.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder of a gallery; it needs <person>/<picture>, or pictures")

    people = {place.name: pictures_in(place) for place in _people(folder)}
    found = {name: paths for name, paths in people.items() if paths} or {p.name: [p] for p in pictures_in(folder)}
    if not found:
        others = [path.name for place in (folder, *_people(folder)) for path in _no_pictures(place)]
        why = f" (files that are no pictures by their suffix: {len(others)}, such as {others[0]})" if others else ""
        mend = "put pictures into it as <person>/<picture>, or side by side"
        raise ValueError(f"{folder}: the gallery is empty{why}; {mend}")
    return found


def enrol(
    folder: Path, recogniser: Backbone, aligner: Aligner, cache: Path, *, pictures: int = 10, progress: bool = True
) -> Gallery:
    """Embed the first `pictures` of each person of a folder (see `pictures_by_person`).

    Embeddings are kept in `cache`, a file for each recogniser and alignment, by the hash of each picture; what cannot
    be used is left out and named. Raises `ValueError` where nothing can be used.
    """
    found = pictures_by_person(folder)
    file = cache / f"{fingerprint(recogniser.name, recogniser.checkpoint_sha256, aligner.key)}.npz"
    known = _read(file)
    fresh = dict[str, NDArray[np.float32]]()
    names, people, digests, left_out = list[str](), list[int](), list[str](), list[str]()
    left_out += [f"{path}: {why}" for path, why in passed_over(folder, found).items()]
    files = list[Path]()
    chosen = [(name, path) for name, paths in found.items() for path in paths[:pictures]]
    try:
        for name, path in tqdm(chosen, "enrolling", unit="picture", mininterval=1, disable=not progress):
            try:
                if (digest := file_sha256(path)) not in known:
                    face = aligner(path).face
                    known[digest] = fresh[digest] = unit_embeddings(recogniser, face[None])[0].numpy()
            except (OSError, ValueError) as error:
                left_out.append(str(error))
                continue
            names += [name] if name not in names[-1:] else []
            people.append(len(names) - 1)
            digests.append(digest)
            files.append(path)
    finally:
        if fresh:
            with write_atomic(file) as part, part.open("wb") as out:
                np.savez(out, **known)  # type: ignore[arg-type]
    if not names:
        raise ValueError(f"{folder}: none of its {len(chosen)} pictures can be used: {left_out[-1]}")
    embeddings = torch.from_numpy(np.stack([known[digest] for digest in digests]))
    return Gallery(tuple(names), np.array(people), tuple(digests), embeddings, tuple(left_out), tuple(files))


def _read(file: Path) -> dict[str, NDArray[np.float32]]:
    """What an earlier run kept; nothing of a file that is not whole."""
    try:
        with np.load(file) as kept:
            return dict(kept)
    except (FileNotFoundError, zipfile.BadZipFile, ValueError, EOFError):
        return {}


@dataclass(frozen=True)
class Comparisons:
    """Similarities of pictures of a gallery to templates of its people, never to one that a picture is part of."""

    mated: NDArray[np.float64]  #: (a,) of the same person
    who: NDArray[np.int64]  #: (a,) that person
    nonmated: NDArray[np.float64]  #: (b,) of two people
    pairs: NDArray[np.int64]  #: (b, 2) these two


def comparisons(gallery: Gallery, pictures: int = 1) -> Comparisons:
    """Compare each picture with a template of each person, made from the first `pictures` of that person.

    `pictures` is that of the template in question: a template of several is more similar to everybody. Of somebody who
    has no more pictures one is kept to be compared, if there are two. Of a gallery with more than `MOST_COMPARISONS`
    so many people are drawn at random that they have no more.
    """
    if (too_many := len(gallery.people) * len(gallery.names) / MOST_COMPARISONS) > 1:
        drawn = np.random.default_rng(0).permutation(gallery.names)[int(len(gallery.names) / too_many**0.5) :]
        gallery, _ = gallery.without((), drawn.tolist())
    templates, part = [], np.zeros(len(gallery.people), bool)
    for number in range(len(gallery.names)):
        rows = np.flatnonzero(gallery.people == number)
        rows = rows[: max(1, min(pictures, len(rows) - 1))]
        part[rows] = True
        templates.append(F.normalize(gallery.embeddings[torch.from_numpy(rows)].mean(dim=0), dim=0))
    found = (gallery.embeddings @ torch.stack(templates).T).double().numpy()
    own = gallery.people[:, None] == np.arange(len(gallery.names))
    rows, columns = np.nonzero(~own)
    return Comparisons(
        found[own][~part], gallery.people[~part], found[~own], np.stack([gallery.people[rows], columns], axis=1)
    )

"""A gallery of people: their templates, who is most similar, and what a similarity means among them."""

from __future__ import annotations

import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor
from tqdm import tqdm

from matching.faces import Aligner
from xfrlib.artifacts import file_sha256, fingerprint, write_atomic
from xfrlib.data.images import IMAGE_SUFFIXES
from xfrlib.intervals import Interval
from xfrlib.match import unit_embeddings
from xfrlib.models import Backbone

LEAST_PEOPLE = 20  # with two pictures or more each: fewer say too little of how alike pictures of one person are
MOST_COMPARISONS = 500_000  # more say nothing new about a threshold in use, and every pair would wait for seconds
_GROUPS = 20  # of people, each left out once for the interval of a likelihood ratio


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
        rows = np.flatnonzero(np.isin(self.people, kept))
        people = np.searchsorted(kept, self.people[rows])
        left = tuple(self.names[number] for number in kept), people, tuple(self.digests[row] for row in rows)
        files = tuple(self.files[row] for row in rows) if self.files else ()
        return Gallery(*left, self.embeddings[torch.from_numpy(rows)], self.left_out, files), sorted(gone)

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


@dataclass(frozen=True)
class Threshold:
    """The least similarity that is called a match."""

    similarity: float
    stated: float  #: the false match rate asked for
    rate: Interval  #: the share of the gallery's comparisons of two people that reach it
    comparisons: int
    people: int


def threshold_at(found: Comparisons, rate: float) -> Threshold | str:
    """The least similarity that at most `rate` of the comparisons of two people reach, or why there is none."""
    if not 0 < rate < 1:
        raise ValueError(f"false match rate = {rate!r}: must be above 0 and below 1")
    count, people = len(found.nonmated), len(np.unique(found.pairs))
    most = int(rate * count + 1e-9)
    if not most:
        needs = f"a false match rate of {rate:g} needs {int(np.ceil(1 / rate - 1e-9))} comparisons of two people"
        return f"No threshold: {needs}, and the gallery has {count}. Give more people or a larger rate."
    similarity = float(np.nextafter(np.sort(found.nonmated)[::-1][most], np.inf))
    return Threshold(similarity, rate, false_match_interval(found.nonmated >= similarity, found.pairs), count, people)


def false_match_interval(hits: NDArray[np.bool_], pairs: NDArray[np.int64]) -> Interval:
    """A share of comparisons and its 95 % interval over people: hits (b,), pairs of people (b, 2).

    Comparisons that share a person are not independent. So Wilson's interval (1927) is taken with the number of
    independent comparisons that would have the variance found by leaving out each person once (Korn and Graubard 1998),
    at most b and at least half the number of people, who can be paired that often without sharing anybody.
    """
    people, share = np.unique(pairs), float(hits.mean())
    all_of = np.bincount(pairs.ravel(), minlength=people.max() + 1)[people]
    hit_of = np.bincount(pairs[hits].ravel(), minlength=people.max() + 1)[people]
    left = (hits.sum() - hit_of) / np.maximum(len(hits) - all_of, 1)
    variance = (len(people) - 1) / len(people) * float(((left - left.mean()) ** 2).sum())
    n = np.clip(share * (1 - share) / variance if variance else 0, max(1, len(people) // 2), len(hits))
    z2 = float(stats.norm.ppf(0.975)) ** 2
    middle, half = share + z2 / (2 * n), np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n)))
    return Interval(share, max(0.0, (middle - half) / (1 + z2 / n)), min(1.0, (middle + half) / (1 + z2 / n)))


@dataclass(frozen=True)
class LikelihoodRatio:
    """How many times as probable a similarity is for one person as for two, by its logarithm to the base of 10."""

    log10: Interval
    limit: tuple[float, float]  #: what this gallery can show at most, either way; `log10` is cut off there
    slope: float  #: natural log-odds per unit of similarity
    mated: int
    nonmated: int
    people: int  #: with mated comparisons


def likelihood_ratio(found: Comparisons, similarity: float) -> LikelihoodRatio | str:
    """The likelihood ratio of `similarity` by logistic regression on the gallery's comparisons, or why there is none.

    Both kinds of comparison weigh the same, so that the log-odds are the log likelihood ratio (Morrison 2013); targets
    are Platt's (1999), so that kinds that do not overlap give no infinite slope. The interval leaves out each of 20
    groups of people once, with Student's quantile. Beyond what the counts can show the ratio is cut off: at the number
    of pairs of people above, at that of people below.
    """
    people = np.unique(found.who)
    if len(people) < LEAST_PEOPLE:
        needs = f"it needs {LEAST_PEOPLE} people with two pictures or more"
        return f"No likelihood ratio: {needs}, and the gallery has {len(people)}."
    everybody = np.union1d(people, found.pairs)
    group = np.zeros(everybody.max() + 1, np.int64)
    group[everybody] = np.random.default_rng(0).permutation(len(everybody)) % _GROUPS
    of_mated, of_pairs = group[found.who], group[found.pairs]
    slope, value = _log_odds(found.mated, found.nonmated, similarity)
    if slope <= 0:
        return "No likelihood ratio: pictures of one person are no more similar here than those of two."
    left = [
        _log_odds(found.mated[of_mated != g], found.nonmated[(of_pairs != g).all(axis=1)], similarity)[1]
        for g in range(_GROUPS)
    ]
    spread = np.sqrt((_GROUPS - 1) / _GROUPS * ((np.array(left) - np.mean(left)) ** 2).sum())
    half = float(stats.t.ppf(0.975, _GROUPS - 1) * spread)
    two = np.unique(found.pairs.min(axis=1) * len(group) + found.pairs.max(axis=1))  # a number for each two people
    limit = -np.log10(len(people)), np.log10(max(len(two), 1))
    ends = (float(np.clip(end / log(10), *limit)) for end in (value, value - half, value + half))
    counts = len(found.mated), len(found.nonmated), len(people)
    return LikelihoodRatio(Interval(*ends), (float(limit[0]), float(limit[1])), slope, *counts)


def _log_odds(mated: NDArray[np.float64], nonmated: NDArray[np.float64], similarity: float) -> tuple[float, float]:
    """Slope of the regression, and its natural log-odds at a similarity; similarities are rounded to thousandths."""
    from sklearn.linear_model import LogisticRegression

    rows: list[Any] = []
    for label, scores in ((1, mated), (0, nonmated)):
        ticks = np.rint(1000 * scores).astype(np.int64)
        counts = np.bincount(ticks - ticks.min())
        values, counts = (np.flatnonzero(counts) + ticks.min()) / 1000, counts[counts > 0]
        sure = (len(scores) + 1) / (len(scores) + 2)
        for target, share in ((label, sure), (1 - label, 1 - sure)):
            rows.append((values, np.full(len(values), target), counts * share / len(scores)))
    x, y, weights = (np.concatenate(part) for part in zip(*rows, strict=True))
    scale = x.std() or 1.0
    # Nothing pulls the slope to 0: Platt's targets keep it finite.
    fit = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(x[:, None] / scale, y, 1000 * weights)
    slope, offset = float(fit.coef_[0, 0]) / scale, float(fit.intercept_[0])
    return slope, slope * similarity + offset

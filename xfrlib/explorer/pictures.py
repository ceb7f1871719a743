"""The pictures that the explorer offers, and what the network says of each: none goes through it twice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from xfrlib.cam import PooledFeatures, pooled_features
from xfrlib.checks import need_evaluation
from xfrlib.data.faces import LEAST_SIDE, FaceDataset
from xfrlib.data.images import FaceImageError, decode_image
from xfrlib.look_alikes import embeddings, look_alikes
from xfrlib.prediction import as_floats

OUTCOMES = ("all", "right", "wrong")
EVERYBODY = -2  # no label; None would choose nothing in a list
_MEMORY = 256 * 2**20  # bytes of feature maps that are kept


class Pictures:
    """The pictures of a data set, numbered from 0, and after them those that were added; see `explorer`."""

    def __init__(
        self, model: nn.Module, dataset: FaceDataset, pooled: PooledFeatures | None = None,
        names: Sequence[str] = (), families: Sequence[int] = (),
    ) -> None:  # fmt: skip
        need_evaluation(model)
        if pooled is not None and len(pooled.logits) != len(dataset):
            raise ValueError(f"pooled holds {len(pooled.logits)} pictures, the data set {len(dataset)}: give all")
        self.model, self.dataset = model, dataset
        self.names = list(names) or [str(name).replace("_", " ") for name in dataset.identities]
        self.families = list(families)  # of each class; none: look-alikes are found by embedding
        self.labels: list[int] = dataset.table["label"].astype(int).tolist()
        self.paths: list[str] = dataset.table["path"].tolist()
        self.say: Callable[[str], None] = lambda sentence: None  # is told what takes a while
        self.cropped: set[int] = set()  # added pictures that had not the size of the others
        self.logits: dict[int, Tensor] = {}  # of each picture that the network has seen
        self._added: list[Tensor] = []
        self._features: dict[int, Tensor] = {}
        self._embeddings: dict[int, Tensor] = {}
        known = len(dataset)
        # A picture by its number: (3, H, W) in [0, 1], on the CPU.
        self.image = lru_cache(256)(lambda row: dataset[row][0] if row < known else self._added[row - known])
        self.look_alikes = lru_cache(maxsize=None)(self._look_alikes)
        self.size = self.image(0).shape[1], self.image(0).shape[2]  # of every picture
        if pooled is None:
            self._run([0])
        else:
            self._keep(range(len(dataset)), pooled)
        if len(self.weight) != len(self.names):
            counts = f"the model has {len(self.weight)} classes and the data set names {len(self.names)}"
            raise ValueError(f"{counts}: give identities, the names of the classes in their order")
        if len(self.families) not in (0, len(self.names)):
            raise ValueError(f"families has {len(self.families)} entries for {len(self.names)} classes: one for each")

    def __len__(self) -> int:
        return len(self.paths)

    def pooled(self, row: int) -> PooledFeatures:
        """Features and logits of picture `row` as a batch of one, on the CPU; the network runs if it has not yet."""
        if row not in self._features:
            self._run([row])
        return PooledFeatures(self._features[row], self.logits[row][None], self.weight, self.geometry)

    def run_all(self, why: str, batch: int = 32) -> None:
        """Send what the network has not seen through it, and say how far it is and `why`."""
        missing = [row for row in range(len(self)) if row not in self.logits]
        for start in range(0, len(missing), batch):
            self.say(f"{why}: asking the network about every picture, {start} of {len(missing)} …")
            self._run(missing[start : start + batch])

    def _run(self, rows: Sequence[int]) -> None:
        images = torch.stack([self.image(row) for row in rows])
        self._keep(rows, pooled_features(self.model, images.to(next(self.model.parameters()).device)))

    def _keep(self, rows: Sequence[int], found: PooledFeatures) -> None:
        """Logits and embeddings are kept of every picture, feature maps of the last ones that fit into the memory."""
        features, logits, self.weight = (t.detach().cpu() for t in (found.features, found.logits, found.weight))
        self.geometry = found.geometry
        self._features |= {row: own[None].clone() for row, own in zip(rows, features, strict=True)}
        self.logits |= zip(rows, logits, strict=True)
        self._embeddings |= zip(rows, embeddings(features), strict=True)
        most = max(len(rows), _MEMORY // features[0].nbytes)
        self._features = dict(list(self._features.items())[-most:])

    def ranking(self, row: int) -> list[tuple[int, float]]:
        """All classes with their probabilities for picture `row`, the most probable first."""
        if row not in self.logits:
            self._run([row])
        chances, labels = self.logits[row].double().softmax(dim=0).sort(descending=True, stable=True)
        return list(zip(labels.tolist(), chances.tolist(), strict=True))

    def predicted(self, row: int) -> tuple[int, float]:
        """The predicted class of picture `row` and its probability."""
        return self.ranking(row)[0]

    def outcome(self, row: int) -> str:
        """Whether picture `row` is predicted "right" or "wrong", or "unknown" if who is in it is no class."""
        if self.labels[row] < 0:
            return "unknown"
        return "right" if self.predicted(row)[0] == self.labels[row] else "wrong"

    def title(self, row: int) -> str:
        """What picture `row` is called: the person and the file."""
        who = self.person(row) if row < len(self.dataset) else "own picture"
        return f"{who}: {self.paths[row].rpartition('/')[2]}"

    def person(self, row: int) -> str:
        """Who is in picture `row`: the name of the class, or of the folder for a stranger; "unknown" if added."""
        label, folder = self.labels[row], self.paths[row].rpartition("/")[0]
        return self.names[label] if label >= 0 else folder.replace("_", " ") or "unknown"

    def matching(
        self, name: str = "", outcome: str = "all", confidence: Sequence[float] = (0, 1), subject: int = EVERYBODY
    ) -> list[int]:
        """The pictures of the person `subject`, a label, that pass all filters; `ValueError` names the one at fault.

        `name` is a part of the person's or the file's name, in any case. For `outcome`, one of `OUTCOMES`, and
        `confidence`, the bounds of the probability of the predicted class, the network has to see all pictures.
        """
        if outcome not in OUTCOMES:
            raise ValueError(f"outcome = {outcome!r}: use one of {', '.join(OUTCOMES)}")
        rows, (low, high) = list(range(len(self))), confidence
        if asks := (outcome, *confidence) != ("all", 0, 1):
            self.run_all("looking for pictures")
        filters: dict[str, Callable[[int], bool]] = {
            "subject": lambda row: subject in (EVERYBODY, self.labels[row]),
            f"name {name!r}": lambda row: _plain(name) in _plain(f"{self.person(row)} {self.paths[row]}"),
            f"predictions {outcome!r}": lambda row: outcome == "all" or self.outcome(row) == outcome,
            f"probability {low:.0%} to {high:.0%}": lambda row: not asks or low <= self.predicted(row)[1] <= high,
        }
        for which, passes in filters.items():
            before, rows = len(rows), [row for row in rows if passes(row)]
            if not rows:
                raise ValueError(f"no picture passes the filter {which}; {before} pass those before it. The list stays")
        return rows

    def add(self, name: str, data: bytes) -> int:
        """Add the picture in a file's bytes, cut at its centre to the shape of the others; returns its number.

        No face is looked for: what had another size is among `cropped`. Raises `FaceImageError` naming the file.
        """
        height, width = self.size
        try:
            picture, _, _ = decode_image(data)
            if min(picture.size) < LEAST_SIDE:
                size = f"{picture.width} x {picture.height} pixels"
                raise FaceImageError(f"{size}, at least {LEAST_SIDE} each way are needed")
        except FaceImageError as error:
            raise FaceImageError(f"{name}: {error}") from error
        fitted = ImageOps.fit(picture, (width, height), method=Image.Resampling.BICUBIC)
        if picture.size != fitted.size:
            self.cropped.add(len(self))
        self._added.append(as_floats(torch.from_numpy(np.array(fitted)).permute(2, 0, 1)))
        self.paths.append(name)
        self.labels.append(-1)
        return len(self) - 1

    def _look_alikes(self, target: int) -> tuple[int, ...]:
        """The others of the family of `target`, or, without families, all other people, those most like it first."""
        if self.families:
            return tuple(k for k, one in enumerate(self.families) if one == self.families[target] and k != target)
        if target not in self.labels:
            raise ValueError(f"there is no picture of {self.names[target]} here, so its look-alikes are not known")
        self.run_all("looking for look-alikes")
        return tuple(look_alikes(torch.stack([self._embeddings[row] for row in range(len(self))]), self.labels, target))

    def provenance(self, row: int) -> dict[str, str]:
        """Hashes of the model's weights and of the pixels that it was given."""
        weights, pixels = hashlib.sha256(), hashlib.sha256((255 * self.image(row)).round().byte().numpy().tobytes())
        for name, tensor in self.model.state_dict().items():
            weights.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        hashes = {"weights_sha256": weights.hexdigest(), "pixels_sha256": pixels.hexdigest()}
        return {"model": type(self.model).__name__, **hashes}


def _plain(text: str) -> str:
    return text.replace("_", " ").casefold().strip()

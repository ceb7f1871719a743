"""The pictures that the explorer offers, and what the network says of each: none goes through it twice."""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, nn

from xfrlib.cam import PooledFeatures, pooled_features
from xfrlib.data.faces import FaceDataset, scan_faces
from xfrlib.data.images import FaceImageError, decode_image

Progress = Callable[[int, int], None]
OUTCOMES = ("all", "right", "wrong")
_MEMORY = 256 * 2**20  # bytes of feature maps that are kept
_LEAST_SIDE = 32  # pixels: what `scan_faces` asks of a picture, too


def open_folder(folder: str | Path, identities: Sequence[str] | None = None) -> FaceDataset:
    """All usable pictures of a folder ``<identity>/<picture>``, to look at.

    `identities` are the names of a model's classes in order; a person who is none of them has the label -1. None: the
    folders' names, sorted, are the classes.
    """
    table = scan_faces(folder)
    names = list(identities or sorted(set(table.loc[table["status"] == "used", "identity"])))
    places = {name: label for label, name in enumerate(names)}
    labels = [places.get(name, -1) for name in table["identity"]]
    dataset = FaceDataset(folder, table.assign(split="test", label=labels), "test")
    dataset.identities, dataset.num_classes = names, len(names)
    return dataset


class Pictures:
    """The pictures of a data set, numbered from 0, and after them those that were added.

    Parameters
    ----------
    model, dataset : see `xfrlib.explorer.explorer`.
    pooled : `pooled_features` of all pictures of `dataset` in order, where they are known: then none of them goes
        through the network again.
    """

    def __init__(self, model: nn.Module, dataset: FaceDataset, pooled: PooledFeatures | None = None) -> None:
        if pooled is not None and len(pooled.logits) != len(dataset):
            raise ValueError(
                f"pooled holds {len(pooled.logits)} pictures, the data set {len(dataset)}: give all of them"
            )
        self.model, self.dataset = model, dataset
        self.names = [str(name).replace("_", " ") for name in dataset.identities]
        self.labels: list[int] = dataset.table["label"].astype(int).tolist()
        self.paths: list[str] = dataset.table["path"].tolist()
        self._features: OrderedDict[int, Tensor] = OrderedDict()
        self._logits: dict[int, Tensor] = {}
        self._embeddings: dict[int, Tensor] = {}
        self._added: list[Tensor] = []
        self.cropped: set[int] = set()  # added pictures that had not the size of the others
        self._thumbnails: dict[int, bytes] = {}
        self._look_alikes: dict[tuple[int, int], list[int]] = {}  # by target and number of pictures
        self.image = lru_cache(maxsize=256)(self._read)
        if pooled is None:
            self._run([0])
        else:
            self.weight = pooled.weight.detach().cpu()
            self._keep(range(len(dataset)), pooled)
        if len(self.weight) != len(self.names):
            raise ValueError(
                f"the model has {len(self.weight)} classes and the data set names {len(self.names)}: give identities, "
                "the names of the classes in their order"
            )

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def __len__(self) -> int:
        return len(self.paths)

    def _read(self, row: int) -> Tensor:
        """Picture `row`, (3, H, W) in [0, 1], on the CPU: called through `image`, which remembers."""
        own = row - len(self.dataset)
        return self._added[own] if own >= 0 else self.dataset[row][0]

    def pooled(self, row: int) -> PooledFeatures:
        """Features and logits of picture `row` as a batch of one, on the CPU; the network runs if it has not yet."""
        if row not in self._features:
            self._run([row])
        self._features.move_to_end(row)
        return PooledFeatures(self._features[row], self._logits[row][None], self.weight)

    def logits(self, row: int) -> Tensor:
        """(N,) logits of picture `row`."""
        return self._logits[row] if row in self._logits else self.pooled(row).logits[0]

    def seen(self, row: int) -> bool:
        """Whether the network has answered picture `row`, so that its prediction is known at once."""
        return row in self._logits

    def run_all(self, progress: Progress | None = None, batch: int = 32) -> None:
        """Send what the network has not seen through it; `progress` is told how many of how many are done."""
        missing = [row for row in range(len(self)) if not self.seen(row)]
        for start in range(0, len(missing), batch):
            if progress:
                progress(start, len(missing))
            self._run(missing[start : start + batch])

    def _run(self, rows: list[int]) -> None:
        images = torch.stack([self.image(row) for row in rows]).to(self.device)
        found = pooled_features(self.model, images)
        self.weight = found.weight.detach().cpu()
        self._keep(rows, found)

    def _keep(self, rows: Sequence[int], found: PooledFeatures) -> None:
        """Logits and embeddings are kept of every picture, feature maps of the last ones that fit into the memory."""
        features, logits = found.features.detach().cpu(), found.logits.detach().cpu()
        embeddings = F.normalize(features.mean(dim=(2, 3)), dim=1)
        most = max(len(rows), _MEMORY // (features[0].numel() * features.element_size()))
        for i, row in enumerate(rows):
            self._logits[row], self._embeddings[row] = logits[i].clone(), embeddings[i].clone()
            self._features[row] = features[i : i + 1].clone()
            if len(self._features) > most:
                self._features.popitem(last=False)

    def predicted(self, row: int) -> tuple[int, float]:
        """The predicted class of picture `row` and its probability."""
        chances = self.logits(row).double().softmax(dim=0)
        return int(chances.argmax()), float(chances.max())

    def title(self, row: int) -> str:
        """What picture `row` is called: the person and the file."""
        file = self.paths[row].rpartition("/")[2]
        return f"own picture: {file}" if row >= len(self.dataset) else f"{self.person(row)}: {file}"

    def person(self, row: int) -> str:
        """Who is in picture `row`: the name of the class, or of the folder for a stranger; "unknown" if added."""
        label = self.labels[row]
        folder = self.paths[row].rpartition("/")[0]
        return self.names[label] if label >= 0 else folder.replace("_", " ") or "unknown"

    def matching(
        self,
        *,
        name: str = "",
        outcome: str = "all",
        confidence: tuple[float, float] = (0.0, 1.0),
        subject: int | None = None,
        progress: Progress | None = None,
    ) -> list[int]:
        """The pictures that pass all filters.

        name : part of the person's or the file's name, in any case.
        outcome : "right" or "wrong", the prediction against the person; a person who is no class is in neither.
        confidence : least and largest probability of the predicted class.
        subject : label of the person.
        """
        if outcome not in OUTCOMES:
            raise ValueError(f"outcome = {outcome!r}: use one of {', '.join(OUTCOMES)}")
        wanted = name.replace("_", " ").casefold().strip()
        rows = [
            row
            for row in range(len(self))
            if (subject is None or self.labels[row] == subject)
            and wanted in f"{self.person(row)} {self.paths[row]}".replace("_", " ").casefold()
        ]
        if outcome == "all" and tuple(confidence) == (0.0, 1.0):
            return rows
        self.run_all(progress)
        answers = {row: self.predicted(row) for row in rows}
        if outcome != "all":
            rows = [row for row in rows if self.labels[row] >= 0]
            rows = [row for row in rows if (answers[row][0] == self.labels[row]) == (outcome == "right")]
        return [row for row in rows if confidence[0] <= answers[row][1] <= confidence[1]]

    def add(self, name: str, data: bytes) -> int:
        """Add the picture in a file's bytes, cut at its centre to the shape of the others; returns its number.

        No face is looked for: what had another size is among `cropped`, since it is not aligned either. Raises
        `FaceImageError` with a sentence that names the file, if it is no usable picture.
        """
        height, width = self.image(0).shape[1:]
        try:
            picture, _, _ = decode_image(data)
        except FaceImageError as error:
            raise FaceImageError(f"{name}: {error}") from error
        if min(picture.size) < _LEAST_SIDE:
            size = f"{picture.width} x {picture.height} pixels"
            raise FaceImageError(f"{name}: {size}, at least {_LEAST_SIDE} each way are needed")
        fitted = ImageOps.fit(picture, (width, height), method=Image.Resampling.BICUBIC)
        self._added.append(torch.from_numpy(np.array(fitted)).permute(2, 0, 1).float() / 255)
        self.paths.append(name)
        self.labels.append(-1)
        row = len(self.paths) - 1
        if picture.size != (width, height):
            self.cropped.add(row)
        return row

    def look_alikes(self, target: int, progress: Progress | None = None) -> list[int]:
        """The other classes with pictures here, those most like `target` first: by the cosine of mean embeddings.

        An embedding is the average of the feature map over positions, scaled to length 1; the mean over classes is
        subtracted. The rows of the output weight would not do: training turns those of look-alikes away from each
        other. What the network has not seen goes through it first; `progress` as for `run_all`. Raises `ValueError` if
        there is no picture of `target`.
        """
        key = target, len(self)
        if key not in self._look_alikes:
            if target not in self.labels:
                raise ValueError(f"there is no picture of {self.names[target]} here, so its look-alikes are not known")
            self.run_all(progress)
            self._look_alikes[key] = self._by_likeness(target)
        return list(self._look_alikes[key])

    def _by_likeness(self, target: int) -> list[int]:
        rows: dict[int, list[int]] = {}
        for row, label in enumerate(self.labels):
            if label >= 0:
                rows.setdefault(label, []).append(row)
        labels = sorted(rows)
        means = torch.stack([torch.stack([self._embeddings[r] for r in rows[label]]).mean(dim=0) for label in labels])
        means = F.normalize(means - means.mean(dim=0), dim=1)
        order = (means @ means[labels.index(target)]).argsort(descending=True, stable=True).tolist()
        return [labels[place] for place in order if labels[place] != target]

    def thumbnail(self, row: int, side: int = 56) -> bytes:
        """A small copy of picture `row` as PNG, at most `side` pixels wide and high."""
        if row not in self._thumbnails:
            small = Image.fromarray(_bytes(self.image(row).permute(1, 2, 0).numpy()))
            small.thumbnail((side, side))
            self._thumbnails[row] = png(np.asarray(small))
        return self._thumbnails[row]

    def provenance(self, row: int) -> dict[str, Any]:
        """Hashes of the model's weights and of the pixels that it was given."""
        digest = hashlib.sha256()
        for name, tensor in self.model.state_dict().items():
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        pixels = (255 * self.image(row)).round().byte().numpy().tobytes()
        return {
            "model": type(self.model).__name__,
            "weights_sha256": digest.hexdigest(),
            "pixels_sha256": hashlib.sha256(pixels).hexdigest(),
        }


def png(pixels: np.ndarray) -> bytes:
    """Pixels (H, W, 3), float in [0, 1] or uint8, as a PNG file, quickly rather than small."""
    buffer = io.BytesIO()
    Image.fromarray(_bytes(pixels)).save(buffer, "png", compress_level=1)
    return buffer.getvalue()


def _bytes(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.dtype == np.uint8 else (255 * np.clip(pixels, 0, 1) + 0.5).astype(np.uint8)

"""One face of a picture, cut out as a recogniser wants it, and what a reader should know of how it was found."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facedata.align import ALIGNED_SIDE, TEMPLATE, align
from facedata.detect import Detector, choose_face
from facedata.dlib import CHIP_TEMPLATE
from xfrlib.artifacts import fingerprint
from xfrlib.data.images import FaceImageError, decode_image, read_file
from xfrlib.models import Backbone
from xfrlib.prediction import as_floats

SMALL_FACE, TURNED = 40, 0.3  # pixels of a face's side below which, and turn beyond which, a reader is told


@dataclass(frozen=True)
class Aligned:
    """A face cut out of a picture."""

    path: Path
    sha256: str  #: of the file
    face: Tensor  #: (3, size, size) RGB in [0, 1], as the recogniser takes it
    notes: tuple[str, ...]  #: Sentences on a choice among faces, a small or a turned one


def template_for(recogniser: Backbone) -> NDArray[np.float64]:
    """Where eyes, nose and corners of the mouth lie in the recogniser's pictures: (5, 2), (x, y) in pixels.

    ArcFace's places, scaled to the size of its pictures; for dlib's network those of dlib's own alignment, without
    which its error is several times as large.
    """
    return CHIP_TEMPLATE if recogniser.name == "dlib" else (TEMPLATE + 0.5) * recogniser.size / ALIGNED_SIDE - 0.5


def realigned(images: Tensor, recogniser: Backbone) -> Tensor:
    """Faces as ArcFace aligns them, cut out of these pictures as another recogniser wants them.

    (B, 3, 112, 112) RGB in [0, 1] -> (B, 3, size, size). The five points are known, so no detector is asked; a
    recogniser with ArcFace's own places and size gets the pictures as they are. What lies outside a picture is black:
    of dlib's 150x150 that is the strip below the chin, a twelfth. Raises `ValueError` for another size.
    """
    if tuple(images.shape[1:]) != (3, ALIGNED_SIDE, ALIGNED_SIDE):
        raise ValueError(
            f"images of shape {tuple(images.shape)}: give aligned pictures, (B, 3, {ALIGNED_SIDE}, {ALIGNED_SIDE})"
        )
    template = template_for(recogniser)
    if recogniser.size == ALIGNED_SIDE and np.allclose(template, TEMPLATE):
        return images
    pictures = (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    cut = np.stack([align(one, TEMPLATE, template=template, size=recogniser.size) for one in pictures])
    return as_floats(torch.from_numpy(cut).permute(0, 3, 1, 2)).to(images.device)


class Aligner:
    """Path of a picture -> `Aligned`, for one recogniser and one detector; `key` names both and how they are joined.

    Raises `ValueError` where the file cannot be read and where no face is found; the sentence names the file. A picture
    of exactly 112x112 pixels is taken as aligned to ArcFace's places already.
    """

    def __init__(self, recogniser: Backbone, detector: Detector) -> None:
        self.detector, self.template, self.size = detector, template_for(recogniser), recogniser.size
        self.detector_name = str(getattr(detector, "name", type(detector).__name__))
        self.key = fingerprint(self.detector_name, self.template.tolist(), self.size, SMALL_FACE, TURNED)

    def __call__(self, path: Path, data: bytes | None = None) -> Aligned:
        """The face of a file, or of `data`, which came from elsewhere under the name `path`."""
        try:
            data = read_file(path) if data is None else data
            picture = np.array(decode_image(data)[0])
        except (OSError, FaceImageError) as error:
            raise ValueError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
        points, notes = self._find(path, picture)
        crop = align(picture, points, template=self.template, size=self.size)
        face = torch.from_numpy(crop).permute(2, 0, 1).float() / 255
        return Aligned(path, hashlib.sha256(data).hexdigest(), face, notes)

    def _find(self, path: Path, picture: NDArray[np.uint8]) -> tuple[NDArray[np.float64], tuple[str, ...]]:
        if picture.shape[:2] == (ALIGNED_SIDE, ALIGNED_SIDE):
            return TEMPLATE, (f"of {ALIGNED_SIDE} x {ALIGNED_SIDE} pixels, and so taken as aligned already",)
        faces = self.detector(picture)
        face, note = choose_face(faces, picture.shape)
        if face is None:
            height, width = picture.shape[:2]
            why = "a profile, a covered, a tilted or a very small face is not found; give another picture"
            raise ValueError(f"{path}: no face was found in {width} x {height} pixels ({why})")
        side = float((face.box[2:] - face.box[:2]).min())
        notes = [note] if note else []
        if side < SMALL_FACE:
            notes.append(f"the face is small, {side:.0f} pixels: similarities of such pictures are less certain")
        if abs(face.turn) > TURNED:
            notes.append("the face is much turned to the side: recognisers compare such views less well")
        return face.points, tuple(notes)

"""Find faces and their five points with dlib (the extra "match"), which needs no network."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import threading
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from facedata.align import TEMPLATE, similarity_transform
from facedata.detect import Face, nose_turn
from xfrlib.artifacts import file_sha256

PACKAGE, FILE = "face-recognition-models", "face_recognition_models/models/shape_predictor_5_face_landmarks.dat"
# Where dlib's own alignment puts its five points, (x, y) in pixels of 150x150: outer and inner corner of the eye on the
# right of the picture, the same of the other eye, base of the nose (get_face_chip_details with a padding of 0.25). Its
# numbers count from the corner of the first pixel, ours from its centre.
CORNERS = np.array([[110.957, 46.350], [89.606, 47.897], [37.058, 46.373], [58.409, 47.906], [74.011, 87.780]]) - 0.5
CHIP = 150
# A pixel p of that picture lies at SCALE * p + SHIFT of the 112x112 of `facedata.align.TEMPLATE`. Fitted to the median
# place of dlib's points on 24 photographs of 24 people of LFW whose eyes, nose and mouth were known: 0.7 off at most.
SCALE, SHIFT = 0.6614, np.array([6.41, 21.56])
CHIP_TEMPLATE = (TEMPLATE - SHIFT) / SCALE  #: `TEMPLATE` in dlib's picture of 150x150, (5, 2)


def installed() -> bool:
    """Whether both packages of the extra are there: dlib, and the file of its five points."""
    try:
        return importlib.util.find_spec("dlib") is not None and points_file().is_file()
    except importlib.metadata.PackageNotFoundError:
        return False


def points_file() -> Path:
    """dlib's five-point file (CC0) in the installed package, which is not imported: it wants what Python no longer has.

    Raises `importlib.metadata.PackageNotFoundError` where the package is missing.
    """
    return Path(str(importlib.metadata.distribution(PACKAGE).locate_file(FILE)))


@cache
def _digest(path: Path) -> str:
    return file_sha256(path)


class DlibDetector:
    """dlib's histogram detector (Dalal and Triggs 2005) and its five points as a `facedata.detect.Detector`.

    It finds faces from the front and half turned, upright, of a twelfth of the picture's longer side or more. dlib
    places corners of eyes and the base of the nose. A `Face` has eyes, nose and corners of the mouth: they are put
    where `TEMPLATE` has them once dlib's own alignment is done, so that `facedata.align.align` repeats it.
    Raises `ImportError` without the extra.
    """

    side, largest_scale = 960, 2.0  # pixels of the longer side when searched, and at most this enlargement

    def __init__(self) -> None:
        if not installed():
            raise ImportError("dlib's detector needs dlib-bin and face-recognition-models: pip install 'xfrlib[match]'")
        self._file = points_file()
        version = importlib.metadata.version("dlib-bin")
        self.name = f"dlib {version} {_digest(self._file)}"
        self._own = threading.local()  # neither may be shared between threads

    def __call__(self, picture: np.ndarray) -> list[Face]:
        """All faces of a picture, RGB uint8 (H, W, 3), the surest first."""
        import dlib

        if not hasattr(self._own, "find"):
            self._own.find, self._own.place = dlib.get_frontal_face_detector(), dlib.shape_predictor(str(self._file))
        image = Image.fromarray(picture)
        scale = min(self.largest_scale, self.side / max(image.size))
        seen = np.array(image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BICUBIC))
        ratio = np.divide(image.size, seen.shape[1::-1])
        boxes, scores, _ = self._own.find.run(seen, 0, 0.0)
        faces = []
        for box, score in zip(boxes, scores, strict=True):
            found = self._own.place(seen, box)
            corners = (np.array([[part.x, part.y] for part in found.parts()], float) + 0.5) * ratio - 0.5
            edges = np.array([[box.left(), box.top()], [box.right() + 1, box.bottom() + 1]]) * ratio
            faces.append(Face(edges.ravel(), template_points(corners), float(score), corner_turn(corners)))
        return faces


def template_points(corners: np.ndarray) -> np.ndarray:
    """Where `TEMPLATE` lies in a picture in which dlib's points lie at `corners`: (5, 2) -> (5, 2).

    By the similarity that takes dlib's own template to them with least squares in the picture, as dlib has it.
    """
    matrix = similarity_transform(CORNERS, corners)
    return CHIP_TEMPLATE @ matrix[:, :2].T + matrix[:, 2]


def corner_turn(corners: np.ndarray) -> float:
    """`facedata.detect.Face.turn` of dlib's points (5, 2)."""
    return nose_turn(corners[2:4].mean(0), corners[:2].mean(0), corners[4])

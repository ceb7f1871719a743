"""Find the faces of a picture and their five points by OpenCV's YuNet (the extra "photos")."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from xfrlib.artifacts import file_sha256
from xfrlib.profile import data_root

MODEL = "face_detection_yunet_2023mar.onnx"
MODEL_REPOSITORY = "opencv/face_detection_yunet"
MODEL_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
_PATIENCE = 5.0  # seconds in which the hub must answer
_MIN_IOU = 0.3  # of a found face with the box that says which one is meant


@dataclass(frozen=True)
class Face:
    """A found face: box (4,) as x1, y1, x2, y2 and points (5, 2), in pixels; score, the higher the surer.

    `turn` is how far the nose lies beside the middle of the eyes, along their line and in distances of the eyes, right
    of the picture positive: 0 for a face from the front, more than 0.3 either way for one that is much turned.
    """

    box: np.ndarray
    points: np.ndarray
    score: float
    turn: float = 0.0


def nose_turn(left_eye: np.ndarray, right_eye: np.ndarray, nose: np.ndarray) -> float:
    """`Face.turn` of three points (x, y)."""
    line = right_eye - left_eye
    return float((nose - (left_eye + right_eye) / 2) @ line / max(float(line @ line), 1e-9))


Detector = Callable[[np.ndarray], list[Face]]  # an RGB picture, uint8 (H, W, 3), to all its faces, in any order


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes (x1, y1, x2, y2)."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    common = float(np.prod(np.maximum(sides, 0)))
    return common / max(float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - common, 1e-9)


def choose_face(faces: list[Face], shape: tuple[int, ...], box: np.ndarray | None = None) -> tuple[Face | None, str]:
    """The face that is meant, or None, and a note where there was a choice.

    With a box the one that overlaps it most, by at least 0.3; else the largest central one: area minus twice the
    squared distance of its centre from that of the picture (H, W), as facenet's alignment script has it.
    """
    if not faces:
        return None, "no face found"
    if box is not None:
        best = max(faces, key=lambda face: overlap(face.box, box))
        iou, many = overlap(best.box, box), f"{len(faces)} faces" if len(faces) > 1 else "one face"
        if iou < _MIN_IOU:
            return None, f"{many} found, none in the box: the largest overlap is {iou:.2f}"
        return best, f"{many} found, the one in the box taken" if len(faces) > 1 else ""
    middle = np.array([shape[1], shape[0]]) / 2

    def weight(face: Face) -> float:
        away = (face.box[:2] + face.box[2:]) / 2 - middle
        return float(np.prod(face.box[2:] - face.box[:2]) - 2 * (away**2).sum())

    return max(faces, key=weight), f"{len(faces)} faces found, the largest central one taken" if faces[1:] else ""


def detector_model() -> Path:
    """YuNet's file (MIT licence, 230 kB): from ``<data root>/weights``, else the Hugging Face Hub, checked by SHA-256.

    Raises `ConnectionError` where it cannot be fetched and `ValueError` where it is another file.
    """
    path = data_root() / "weights" / MODEL
    if not path.is_file():
        try:
            from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

            if not isinstance(try_to_load_from_cache(MODEL_REPOSITORY, MODEL), str):
                # One quick try: by itself the download repeats its first question for half a minute.
                get_hf_file_metadata(hf_hub_url(MODEL_REPOSITORY, MODEL), timeout=_PATIENCE)
            path = Path(hf_hub_download(MODEL_REPOSITORY, MODEL, etag_timeout=_PATIENCE))
        except Exception as error:  # the hub's client raises many kinds, and each has the same mend
            raise ConnectionError(
                f"the face detector {MODEL} cannot be fetched from the Hugging Face Hub ({type(error).__name__}: "
                f"{error}); pip install 'xfrlib[match]' brings dlib's, which needs no network; or download this one by "
                f"hand from https://huggingface.co/{MODEL_REPOSITORY} and put it at {path}"
            ) from error
    if file_sha256(path) != MODEL_SHA256:
        raise ValueError(f"{path}: not the file that OpenCV released (SHA-256 differs); delete it and fetch it again")
    return path


class YuNet:
    """OpenCV's YuNet as a `Detector`; the model, by default that of `detector_model`, is read at the first picture.

    The network was trained on faces of 10 to 300 pixels: pictures are searched at two sizes. Its points jitter by some
    pixels with the size of the face, so each face is looked at again at four sizes, and their points are averaged.
    Raises `ImportError` without OpenCV.
    """

    search, looks, min_score = (640, 320), (150, 200, 250, 320), 0.6

    def __init__(self, model: str | Path | None = None) -> None:
        self.model = Path(model) if model is not None else None
        if self.model is not None and not self.model.is_file():
            raise FileNotFoundError(f"{model}: no such model; leave it out to use {MODEL}")
        self.name = f"yunet {file_sha256(self.model) if self.model else MODEL_SHA256}"
        self._own, self._lock = threading.local(), threading.Lock()  # a network is not to be shared between threads
        self._refusal: Exception | None = None

    def _model_file(self) -> Path:
        with self._lock:  # one thread fetches; where it fails, the others do not try again
            if self._refusal:
                raise self._refusal
            try:
                self.model = self.model or detector_model()
            except Exception as error:
                self._refusal = error
                raise
            return self.model

    def _rows(self, picture: np.ndarray) -> np.ndarray:
        """What OpenCV says of an RGB picture, (N, 15): x, y, width, height, five points, score."""
        try:
            import cv2
        except ImportError as error:
            raise ImportError("finding faces needs OpenCV: pip install 'xfrlib[photos]', or give the points") from error
        if not hasattr(self._own, "network"):
            model, level = str(self._model_file()), cv2.utils.logging.getLogLevel()
            cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # OpenCV 5 warns of its default target
            try:
                self._own.network = cv2.FaceDetectorYN.create(model, "", (320, 320), self.min_score)
            except cv2.error as error:
                raise ValueError(f"{model}: OpenCV cannot read it as a YuNet model: {error}") from error
            finally:
                cv2.utils.logging.setLogLevel(level)
        self._own.network.setInputSize((picture.shape[1], picture.shape[0]))
        rows = self._own.network.detect(np.ascontiguousarray(picture[..., ::-1]))[1]  # it takes BGR
        return np.zeros((0, 15)) if rows is None else rows.astype(np.float64)

    def _look(self, image: Image.Image, window: np.ndarray, size: tuple[int, int]) -> list[Face]:
        """The faces in a window (x1, y1, x2, y2; black beyond the picture) seen at `size`, in the picture's pixels."""
        # reduced first: a window around a face that fills a large photograph would not fit into memory
        factor = max(1, int(((window[2:] - window[:2]) / size).min() / 2))
        window = np.rint(window / factor).astype(int)
        part = image.reduce(factor).crop(tuple(window.tolist())).resize(size, Image.Resampling.BICUBIC)
        ratio, start = (window[2:] - window[:2]) * factor / size, window[:2] * factor
        faces = []
        for row in self._rows(np.array(part)):
            corners = np.concatenate([row[:2], row[:2] + row[2:4]]).reshape(2, 2)
            # its right eye is the subject's right eye, on the left of the picture: the order is ours
            points = (row[4:14].reshape(5, 2) + 0.5) * ratio - 0.5 + start
            faces.append(Face((corners * ratio + start).ravel(), points, float(row[14])))
        return faces

    def __call__(self, picture: np.ndarray) -> list[Face]:
        """All faces of a picture, RGB uint8 (H, W, 3), the surest first."""
        image, found = Image.fromarray(picture), []
        whole, longest = np.array([0, 0, *image.size]), max(image.size)
        for scale in sorted({min(1.0, side / longest) for side in self.search}):
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            found += self._look(image, whole, size)
        faces: list[Face] = []
        for face in sorted(found, key=lambda face: -face.score):
            if all(overlap(face.box, other.box) < 0.4 for other in faces):
                faces.append(face)
        return [self._settle(image, face) for face in faces]

    def _settle(self, image: Image.Image, face: Face) -> Face:
        """The same face with its points averaged over several sizes."""
        centre, half = (face.box[:2] + face.box[2:]) / 2, (face.box[2:] - face.box[:2]).max() * 1.2
        window = np.array([*(centre - half), *(centre + half)])
        seen = [self._look(image, window, (side, side)) for side in self.looks]
        same = [max(faces, key=lambda other: overlap(other.box, face.box)) for faces in seen if faces]
        points = [other.points for other in same if overlap(other.box, face.box) > 0.5]
        settled = np.mean(points or [face.points], axis=0)
        return Face(face.box, settled, face.score, nose_turn(*settled[:3]))

"""dlib's detector and alignment, held to dlib itself; what needs its packages is skipped where they are missing."""

import importlib.metadata

import numpy as np
import pytest

from facedata import dlib as faces
from facedata.align import TEMPLATE, align, find_detector, similarity_transform
from facedata.detect import YuNet, nose_turn

needs_dlib = pytest.mark.skipif(not faces.installed(), reason="no dlib here: pip install 'xfrlib[match]'")


def moved(points: np.ndarray, angle: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    turn = np.deg2rad(angle)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return points @ rotation.T * scale + shift


def test_points_repeat_the_alignment_of_the_corners() -> None:
    """Aligning by what the detector gives takes dlib's corners to dlib's places, and eyes and mouth to ArcFace's."""
    corners = moved(faces.CORNERS, 12, 1.3, (40, 25))
    points = faces.template_points(corners)
    matrix = similarity_transform(points, faces.CHIP_TEMPLATE)
    np.testing.assert_allclose(corners @ matrix[:, :2].T + matrix[:, 2], faces.CORNERS, atol=1e-6)
    matrix = similarity_transform(points)
    placed = corners @ matrix[:, :2].T + matrix[:, 2]
    assert np.hypot(*(placed[:2].mean(0) - TEMPLATE[1])) < 3 and np.hypot(*(placed[2:4].mean(0) - TEMPLATE[0])) < 3
    assert TEMPLATE[2, 1] < placed[4, 1] < TEMPLATE[3, 1]  # the base of the nose lies between its tip and the mouth


def test_a_turned_nose_is_measured_along_the_eyes() -> None:
    assert nose_turn(np.array([0.0, 0]), np.array([10.0, 0]), np.array([8.0, 30])) == pytest.approx(0.3)
    assert faces.corner_turn(moved(faces.CORNERS, 30, 2, (5, 5))) == pytest.approx(0, abs=0.01)


@needs_dlib
def test_the_crop_is_that_of_dlib() -> None:
    """On a smooth picture, where bilinear and bicubic pixels agree, within two of 255 grey levels."""
    import dlib

    y, x = np.mgrid[:300, :300]
    waves = [127 + 100 * np.sin(x / a + y / b) for a, b in ((23, 31), (40, 19), (-27, 36))]
    picture = np.stack(waves, axis=-1).round().astype(np.uint8)
    for angle, scale, shift in ((0, 1.0, (60, 70)), (15, 0.8, (90, 60)), (-20, 1.3, (40, 90))):
        corners = moved(faces.CORNERS, angle, scale, shift).round()  # dlib's parts are whole pixels
        found = dlib.full_object_detection(dlib.rectangle(0, 0, 299, 299), [dlib.point(*map(int, c)) for c in corners])
        theirs = dlib.get_face_chip(picture, found, size=faces.CHIP, padding=0.25).astype(int)
        ours = align(picture, faces.template_points(corners), template=faces.CHIP_TEMPLATE, size=faces.CHIP).astype(int)
        assert np.abs(ours - theirs)[3:-3, 3:-3].max() <= 2, (angle, np.abs(ours - theirs).max())


@needs_dlib
def test_pictures_without_a_face_and_of_any_size_are_searched() -> None:
    find = faces.DlibDetector()
    assert find.name.startswith("dlib ") and len(find.name.split()[-1]) == 64
    for shape in ((40, 900, 3), (1, 1, 3), (1500, 1200, 3)):
        assert find(np.full(shape, 128, np.uint8)) == []


def test_the_detector_is_chosen_by_name_and_by_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faces, "installed", lambda: False)
    assert isinstance(find_detector(), YuNet)
    with pytest.raises(ImportError, match=r"pip install 'xfrlib\[match\]'"):
        find_detector("dlib")
    with pytest.raises(ValueError, match="detector = 'mtcnn': use one of dlib, yunet"):
        find_detector("mtcnn")
    with pytest.raises(ValueError, match="leave one of the two out"):
        find_detector("dlib", "other.onnx")
    monkeypatch.setattr(faces, "installed", lambda: True)
    monkeypatch.setattr(faces, "DlibDetector", lambda: "dlib's")
    assert find_detector() == find_detector("dlib") == "dlib's"
    assert isinstance(find_detector("yunet"), YuNet)


def test_half_of_the_packages_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    assert not faces.installed()

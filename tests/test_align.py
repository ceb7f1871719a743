"""Alignment to the five-point template, the choice and the finding of faces, and a folder of them."""

import itertools
import os
import shutil
import sys
import threading
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from facedata import detect
from facedata.align import BOX, POINTS, TEMPLATE, align, align_folder, alignment_summary, main, similarity_transform
from facedata.detect import Face, YuNet, choose_face, detector_model, overlap
from facedata.scan import scan_faces

COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [255, 0, 255]])
DATA = Path(os.environ.get("XFR_DATA", "data"))


# A face of five coloured dots


def face_picture(shape: tuple[int, int], points: np.ndarray, radius: float, *, oversample: int = 4) -> np.ndarray:
    """Grey, with a disc of each colour at each point; each pixel is the mean of oversample**2 samples."""
    steps = (np.arange(oversample) + 0.5) / oversample - 0.5
    picture = np.zeros((*shape, 3))
    for dy, dx in itertools.product(steps, steps):
        y, x = np.mgrid[: shape[0], : shape[1]] + np.array([dy, dx])[:, None, None]
        sample = np.full((*shape, 3), 90.0)
        for point, colour in zip(points, COLOURS, strict=True):
            sample[np.hypot(x - point[0], y - point[1]) <= radius] = colour
        picture += sample
    return np.rint(picture / oversample**2).astype(np.uint8)


def find_dots(picture: np.ndarray) -> np.ndarray:
    """The centre of mass of each colour, (5, 2)."""
    found = []
    for colour in COLOURS:
        weight = np.clip(1 - np.abs(picture.astype(float) - colour).sum(-1) / 160, 0, 1)
        y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
        found.append([(weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()])
    return np.array(found)


def placed(scale: float, angle: float, shift: tuple[float, float]) -> np.ndarray:
    """The template's points turned by `angle` degrees, scaled, and shifted."""
    turn = np.deg2rad(angle)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return (TEMPLATE - 56) @ rotation.T * scale + shift


def mirrored(points: np.ndarray, width: int) -> np.ndarray:
    """Points of the picture mirrored left to right, again the ones further left first."""
    return np.column_stack([width - 1 - points[:, 0], points[:, 1]])[[1, 0, 2, 4, 3]]


class DotDetector(YuNet):
    """YuNet with its network replaced: what OpenCV would answer for a face of five dots, found by their colours."""

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        self.noise, self.sizes = np.random.default_rng(0).normal(0, noise, (99, 5, 2)), []

    def _rows(self, picture: np.ndarray) -> np.ndarray:
        self.sizes.append(picture.shape)
        pixels = picture.astype(int)
        if min((np.abs(pixels - colour).sum(-1) < 200).sum() for colour in COLOURS) < 3:
            return np.zeros((0, 15))
        points = find_dots(picture)
        for pair in ([0, 1], [3, 4]):  # a network goes by the place: the subject's right is on the picture's left
            points[pair] = points[pair][np.argsort(points[pair][:, 0])]
        points += self.noise[len(self.sizes)]
        low, high = points.min(0), points.max(0)
        return np.array([[*(low - 5), *(high - low + 10), *points.ravel(), 0.9]])


# The similarity


coordinate = st.floats(-500, 500)
faces = st.lists(st.tuples(coordinate, coordinate), min_size=5, max_size=5).map(np.array)


@settings(deadline=None, max_examples=100)
@given(faces, st.floats(0.05, 20), st.floats(-180, 180), coordinate, coordinate)
def test_a_similarity_is_recovered_exactly(
    points: np.ndarray, scale: float, angle: float, right: float, down: float
) -> None:
    if np.sqrt(((points - points.mean(0)) ** 2).sum() / 5) < 5:
        points = points + TEMPLATE
    turn = np.deg2rad(angle)
    true = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    if np.linalg.svd(points - points.mean(0))[1][1] < 1e-3:  # on a line a turn and its mirror image agree
        return
    matrix = similarity_transform(points, points @ true.T + [right, down])
    np.testing.assert_allclose(matrix, np.column_stack([true, [right, down]]), rtol=1e-6, atol=1e-5 * max(1, scale))


def test_the_least_squares_similarity_by_hand() -> None:
    # four corners of a square of side 2 and its centre; the template pulls one pair of opposite corners out to
    # distance 2a, leaves the other: by symmetry no turn, and the scale is the mean of the two
    square = np.array([[-1.0, -1], [1, 1], [0, 0], [-1, 1], [1, -1]]) * 10
    template = square * np.array([3.0, 3, 1, 1, 1])[:, None]
    np.testing.assert_allclose(similarity_transform(square, template), [[2, 0, 0], [0, 2, 0]], atol=1e-12)


def test_no_nearby_similarity_fits_better() -> None:
    rng = np.random.default_rng(3)
    points = TEMPLATE * 2 + rng.normal(0, 6, (5, 2))
    best = similarity_transform(points)

    def error(matrix: np.ndarray) -> float:
        return float(((points @ matrix[:, :2].T + matrix[:, 2] - TEMPLATE) ** 2).sum())

    a, b = best[0, 0], best[1, 0]
    np.testing.assert_allclose(best[:, :2], [[a, -b], [b, a]], atol=1e-12)  # a turn and one scale
    for da, db, dx, dy in rng.normal(0, 0.01, (50, 4)):
        near = np.array([[a + da, -b - db, best[0, 2] + 50 * dx], [b + db, a + da, best[1, 2] + 50 * dy]])
        assert error(near) > error(best)


def test_a_mirrored_face_is_not_reflected() -> None:
    matrix = similarity_transform(TEMPLATE * [-1, 1])
    assert np.linalg.det(matrix[:, :2]) > 0


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        (TEMPLATE[:4], "points of shape \\(4, 2\\).*five \\(x, y\\) pairs"),
        (TEMPLATE.T, "points of shape \\(2, 5\\)"),
        (np.where(TEMPLATE > 92.3, np.nan, TEMPLATE), "NaN or infinity"),
        (np.where(TEMPLATE > 92.3, np.inf, TEMPLATE), "NaN or infinity"),
        (np.full((5, 2), 40.0), "within 0 pixels of their centre"),
        (TEMPLATE / 100, "pixels of their centre: they are no face"),
    ],
)
def test_points_that_are_no_face_are_refused(points: np.ndarray, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        similarity_transform(points)
    with pytest.raises(ValueError, match=sentence):
        align(np.zeros((112, 112, 3), np.uint8), points)


@pytest.mark.parametrize(
    "picture", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 3)), np.zeros((3, 9, 9))]
)
def test_a_picture_of_another_type_is_refused(picture: np.ndarray) -> None:
    with pytest.raises(ValueError, match="give RGB, uint8"):
        align(picture, TEMPLATE)


# The aligned picture


def test_a_face_on_the_template_stays_as_it_is() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    np.testing.assert_array_equal(align(picture, TEMPLATE), picture)


def test_whole_pixels_of_shift_are_exact_and_beyond_the_picture_is_black() -> None:
    picture = np.random.default_rng(0).integers(1, 256, (112, 112, 3), dtype=np.uint8)
    shifted = align(picture, TEMPLATE + np.array([7, -3]))
    np.testing.assert_array_equal(shifted[3:, :105], picture[:109, 7:])
    assert not shifted[:3].any()
    assert not shifted[:, 105:].any()


@pytest.mark.parametrize(
    ("scale", "angle", "shift"),
    [(1, 0, (70.3, 60.8)), (1.7, 25, (140, 130)), (0.8, -40, (75, 70.5)), (3, 12, (260, 240)), (6.5, -8, (450, 470))],
)
def test_the_dots_land_on_the_template(scale: float, angle: float, shift: tuple[float, float]) -> None:
    points = placed(scale, angle, shift)
    side = int(max(points.max(), 112 * scale) + 20 * scale)
    picture = face_picture((side, side), points, 5 * scale)
    crop = align(picture, points)
    assert crop.shape == (112, 112, 3)
    assert crop.dtype == np.uint8
    assert np.hypot(*(find_dots(crop) - TEMPLATE).T).max() < 0.5


@pytest.mark.parametrize("scale", [3, 8.3, 20])
def test_a_large_photograph_does_not_alias(scale: float) -> None:
    # stripes of one pixel are grey at the size of the crop; taken without averaging they turn into waves
    side = int(130 * scale)
    stripes = np.broadcast_to((np.arange(side) % 2 * 255)[None, :, None], (side, side, 3))
    crop = align(stripes.astype(np.uint8), placed(scale, 10, (side / 2, side / 2)))
    inner = crop[8:-8, 8:-8].astype(float)
    assert abs(inner.mean() - 127.5) < 2
    assert inner.std() < 3


def test_the_expected_crops_are_reproduced(tmp_path: Path) -> None:
    """24 pictures of LFW with their points: 3 of 255 at most, 1 once our crop too has been through JPEG."""
    if not (DATA / "alignment" / "points.csv").is_file():
        pytest.skip("no alignment/points.csv: set XFR_DATA to the folder that holds alignment/")
    table = pd.read_csv(DATA / "alignment" / "points.csv").set_index("file")
    differences, stored = [], []
    for name, row in table.iterrows():
        picture = np.array(Image.open(DATA / "alignment" / "original" / str(name)).convert("RGB"))
        expected = np.array(Image.open(DATA / "alignment" / "expected" / str(name)).convert("RGB")).astype(float)
        crop = align(picture, row[POINTS].to_numpy(float).reshape(5, 2))
        differences.append(np.abs(crop - expected).mean())
        Image.fromarray(crop).save(tmp_path / "crop.jpg", quality=95)
        stored.append(np.abs(np.array(Image.open(tmp_path / "crop.jpg")) - expected).mean())
    assert len(differences) == 24
    assert max(differences) < 2
    assert max(stored) < 1


# Which face is meant


def a_face(x: float, y: float, width: float, score: float = 0.9) -> Face:
    points = (TEMPLATE - 56) * width / 80 + [x, y]
    return Face(np.array([x - width / 2, y - width / 2, x + width / 2, y + width / 2]), points, score)


def test_overlap_by_hand() -> None:
    box = np.array([0.0, 0, 10, 10])
    assert overlap(box, box) == 1
    assert overlap(box, np.array([5.0, 0, 15, 10])) == pytest.approx(50 / 150)
    assert overlap(box, np.array([20.0, 20, 30, 30])) == 0
    assert overlap(box, np.array([10.0, 10, 20, 20])) == 0
    assert overlap(np.zeros(4), np.zeros(4)) == 0


def test_the_face_in_the_box_is_taken() -> None:
    small, large = a_face(50, 60, 40), a_face(200, 100, 120)
    face, note = choose_face([large, small], (200, 300), np.array([28.0, 45, 75, 85]))
    assert face is small
    assert note == "2 faces found, the one in the box taken"
    face, note = choose_face([large, small], (200, 300), np.array([0.0, 150, 40, 190]))
    assert face is None
    assert note == "2 faces found, none in the box: the largest overlap is 0.00"
    assert choose_face([small], (200, 300), np.array([30.0, 40, 70, 80])) == (small, "")


def test_without_a_box_the_largest_central_face_is_taken() -> None:
    central, aside, tiny = a_face(150, 100, 80), a_face(25, 25, 90), a_face(150, 100, 20)
    face, note = choose_face([aside, central, tiny], (200, 300))
    assert face is central  # 6400 against 8100 - 2 * (125**2 + 75**2)
    assert note == "3 faces found, the largest central one taken"
    assert choose_face([aside], (200, 300)) == (aside, "")
    assert choose_face([], (200, 300)) == (None, "no face found")


# Finding faces


@pytest.mark.parametrize("scale", [0.8, 2, 9])
def test_points_are_found_at_any_size_in_the_pictures_pixels(scale: float) -> None:
    points = placed(scale, 10, (90 * scale, 70 * scale))
    picture = face_picture((int(150 * scale), int(170 * scale)), points, 5 * scale, oversample=2)
    (face,) = DotDetector()(picture)
    assert np.hypot(*(face.points - points).T).max() < 0.5 * max(1, scale)
    assert overlap(face.box, np.array([*(points.min(0) - 5), *(points.max(0) + 5)])) > 0.6
    assert face.score == 0.9


def test_in_a_mirrored_picture_the_left_of_the_picture_still_comes_first() -> None:
    points = placed(1.5, 15, (120, 110))
    picture = face_picture((220, 250), points, 7)
    (face,) = DotDetector()(picture[:, ::-1].copy())
    assert np.hypot(*(face.points - mirrored(points, 250)).T).max() < 1
    assert face.points[0, 0] < face.points[1, 0]
    assert face.points[3, 0] < face.points[4, 0]


def test_the_network_sees_pictures_at_the_sizes_that_it_was_trained_on_and_points_are_averaged() -> None:
    points = placed(4, 0, (700, 500))
    picture = face_picture((1000, 1400), points, 20, oversample=1)
    find = DotDetector(noise=3.0)
    (face,) = find(picture)
    assert find.sizes == [(229, 320, 3), (457, 640, 3), *((side, side, 3) for side in YuNet.looks)]
    # a jitter of 3 pixels at these sizes of the window is 6 to 13 pixels here in each look
    single = [np.hypot(*(find.noise[i + 3] * 520 / side).T).mean() for i, side in enumerate(YuNet.looks)]
    assert np.hypot(*(face.points - points).T).mean() < 0.75 * np.mean(single)


def test_a_picture_without_a_face_gives_none_and_a_thin_one_no_error() -> None:
    find = DotDetector()
    assert find(np.zeros((50, 60, 3), np.uint8)) == []
    assert find(np.zeros((1, 3000, 3), np.uint8)) == []


@pytest.fixture
def yunet() -> YuNet:
    pytest.importorskip("cv2", reason="finding faces needs the extra detect")
    if not (DATA / "weights" / detect.MODEL).is_file():
        pytest.skip(f"no weights/{detect.MODEL}: set XFR_DATA to the folder that holds it")
    return YuNet()


def test_yunet_finds_the_faces_of_lfw(yunet: YuNet) -> None:
    """Over a face, the points lie on average within 0.15 of the distance of the eyes from those given."""
    if not (DATA / "alignment" / "points.csv").is_file():
        pytest.skip("no alignment/points.csv: set XFR_DATA to the folder that holds alignment/")
    for name, *values in pd.read_csv(DATA / "alignment" / "points.csv")[["file", *POINTS]].itertuples(index=False):
        picture = np.array(Image.open(DATA / "alignment" / "original" / str(name)).convert("RGB"))
        points = np.reshape(values, (5, 2))
        turned = picture[:, ::-1].copy(), mirrored(points, picture.shape[1])
        for shown, true in [(picture, points), turned]:
            face, _ = choose_face(yunet(shown), shown.shape)
            assert face is not None
            assert np.hypot(*(face.points - true).T).mean() < 0.15 * np.hypot(*(true[1] - true[0]))


def test_yunet_survives_odd_pictures(yunet: YuNet) -> None:
    for shape in [(1, 1), (1, 3000), (3000, 2), (20, 20)]:
        assert yunet(np.full((*shape, 3), 128, np.uint8)) == []


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="finding faces needs the extra detect")
    (tmp_path / "model.onnx").write_text("<html>")
    with pytest.raises(ValueError, match="model.onnx: OpenCV cannot read it as a YuNet model"):
        YuNet(tmp_path / "model.onnx")(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(FileNotFoundError, match="nowhere.onnx: no such model"):
        YuNet(tmp_path / "nowhere.onnx")


def test_the_model_is_looked_for_below_the_data_root_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XFR_DATA", str(tmp_path))
    path = tmp_path / "weights" / detect.MODEL
    path.parent.mkdir()
    path.write_bytes(b"model")
    with pytest.raises(ValueError, match=f"{detect.MODEL}: not the file that OpenCV released"):
        detector_model()
    monkeypatch.setattr(detect, "MODEL_SHA256", "9372c470eeadd5ecd9c3c74c2b3cb633f8e2f2fad799250a0f70d652b6b825e4")
    assert detector_model() == path


def test_the_model_comes_from_the_hub_by_name_and_is_fetched_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    pytest.importorskip("cv2", reason="finding faces needs the extra detect")
    monkeypatch.setenv("XFR_DATA", str(tmp_path))
    calls = []

    def ask(address: str, timeout: float) -> None:  # before the download, which would try for half a minute
        calls.append((address.partition(".co/")[2], timeout))
        raise OSError("no network")

    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(hub, "get_hf_file_metadata", ask)
    find = YuNet()
    for _ in range(2):
        with pytest.raises(ConnectionError, match=f"no network.*by hand from https://.*put it at .*{detect.MODEL}"):
            find(np.zeros((64, 64, 3), np.uint8))
    assert calls == [("opencv/face_detection_yunet/resolve/main/face_detection_yunet_2023mar.onnx", 5.0)]
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_: str(tmp_path / "kept"))
    monkeypatch.setattr(hub, "hf_hub_download", lambda *_, **__: str(tmp_path / "kept"))
    (tmp_path / "kept").write_bytes(b"another file")  # what was fetched before is not asked for again
    with pytest.raises(ValueError, match="SHA-256 differs"):
        detector_model()
    assert len(calls) == 1


def test_without_opencv_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(ImportError, match=r"xfrlib\[photos\]"):
        YuNet()(np.zeros((64, 64, 3), np.uint8))


# A folder


SHOT = placed(1.4, 8, (100, 95))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """<identity>/<picture> of every kind that a folder of faces holds."""
    root = tmp_path_factory.mktemp("pictures")
    for name in ("ann", "bob"):
        (root / name / "deep").mkdir(parents=True)
    face = Image.fromarray(face_picture((200, 210), SHOT, 7))
    face.save(root / "ann/face.png")
    face.save(root / "ann/twin.png")
    face.save(root / "ann/twin.bmp")
    Image.fromarray(face_picture((112, 112), TEMPLATE, 5)).save(root / "bob/done.jpg", quality=80)
    Image.new("RGB", (90, 80), "grey").save(root / "bob/empty.jpg")
    (root / "bob/broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    (root / "bob/notes.txt").write_text("text")
    face.save(root / "bob/deep/face.png")
    face.save(root / "beside.png")
    return root


@pytest.fixture
def source(pictures: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pictures, tmp_path / "source"))


def run(source: Path, **options: object) -> pd.DataFrame:
    options = {"detector": DotDetector(), "progress": False} | options
    return align_folder(source, source.with_name("target"), **options)  # type: ignore[arg-type]


def modified(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*.*") if path.suffix != ".csv"}


@pytest.mark.parametrize("workers", [1, 3])
def test_every_file_has_its_row(source: Path, workers: int) -> None:
    table = run(source, workers=workers).set_index("file")
    target = source.with_name("target")
    assert table["status"].to_dict() == {
        "ann/face.png": "aligned",
        "ann/twin.bmp": "aligned",
        "ann/twin.png": "aligned",
        "ann/deep/": "too_few_images",
        "beside.png": "misplaced",
        "bob/broken.jpg": "unreadable",
        "bob/deep/face.png": "misplaced",
        "bob/done.jpg": "already_aligned",
        "bob/empty.jpg": "no_face",
        "bob/notes.txt": "not_an_image",
    }
    written = table.loc[table["aligned"] != "", "aligned"].to_dict()
    assert written == {
        "ann/face.png": "ann/face.jpg",
        "ann/twin.bmp": "ann/twin.bmp.jpg",  # of one stem: neither overwrites the other
        "ann/twin.png": "ann/twin.png.jpg",
        "bob/done.jpg": "bob/done.jpg",
    }
    files = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert files == {*written.values(), "align.csv"}
    assert (target / "bob/done.jpg").read_bytes() == (source / "bob/done.jpg").read_bytes()
    crop = np.array(Image.open(target / "ann/face.jpg"))
    assert np.hypot(*(find_dots(crop) - TEMPLATE).T).max() < 0.8
    assert np.abs(table.loc["ann/face.png", POINTS].to_numpy(float) - SHOT.ravel()).max() < 1
    assert table.loc["bob/empty.jpg", "note"] == "no face found"
    assert "not a picture" in table.loc["bob/broken.jpg", "note"]
    assert table.loc["ann/face.png", ["source", "faces", "score", "identity"]].tolist() == ["detected", 1, 0.9, "ann"]


def test_the_table_is_written_and_summed_up(source: Path) -> None:
    table = run(source)
    stored = pd.read_csv(source.with_name("target") / "align.csv", keep_default_na=False, na_values={"score": ""})
    assert stored["file"].tolist() == table["file"].tolist()
    assert stored["status"].tolist() == table["status"].tolist()
    assert alignment_summary(table).splitlines() == [
        "10 files of 2 identities, 0 of them with several faces",
        "      3 aligned",
        "      1 already_aligned",
        "      1 no_face",
        "      1 unreadable",
        "      1 not_an_image",
        "      2 misplaced",
        "      1 too_few_images",
        "left out: 2 not at <identity>/<picture>, 1 too_few_images, 1 not a picture of a known format, "
        "1 the suffix is not that of a picture",
    ]


def test_people_of_whom_nothing_could_be_aligned_are_named() -> None:
    people = [("ann", "aligned", "ann/1.jpg"), ("ann", "no_face", ""), *((f"p{n}", "no_face", "") for n in range(7))]
    table = pd.DataFrame(people, columns=["identity", "status", "aligned"]).assign(faces=0, note="")
    assert alignment_summary(table).splitlines()[-1] == "without an aligned picture: p0, p1, p2, p3, p4 and 2 more"
    assert "without" not in alignment_summary(table[:2])


def test_a_second_run_does_nothing_and_says_the_same(source: Path) -> None:
    first = run(source)
    before = modified(source.with_name("target"))
    find = DotDetector()
    pd.testing.assert_frame_equal(run(source, detector=find), first)
    assert find.sizes == []  # not even the picture without a face was searched again
    assert modified(source.with_name("target")) == before


def test_a_second_run_does_what_is_new_changed_or_lost(source: Path) -> None:
    run(source)
    target = source.with_name("target")
    (target / "ann/face.jpg").unlink()
    shutil.copy(source / "ann/face.png", source / "bob/broken.jpg")  # now a picture, whatever its suffix
    shutil.copy(source / "bob/empty.jpg", source / "ann/twin.bmp")  # no longer a face
    shutil.copy(source / "ann/face.png", source / "ann/new.png")
    find = DotDetector()
    table = run(source, detector=find).set_index("file")
    assert len(find.sizes) == 3 * (1 + len(YuNet.looks)) + 1
    assert table["status"].value_counts()["aligned"] == 4
    assert table.loc["bob/broken.jpg", "status"] == "aligned"
    assert table.loc["ann/twin.bmp", "status"] == "no_face"
    assert not (target / "ann/twin.bmp.jpg").exists()
    assert (target / "ann/face.jpg").is_file()


def test_a_run_that_was_broken_off_goes_on(source: Path) -> None:
    class Failing(DotDetector):
        def __call__(self, picture: np.ndarray) -> list[Face]:
            if len(self.sizes) >= 5:
                raise RuntimeError("power cut")
            return super().__call__(picture)

    with pytest.raises(RuntimeError, match="power cut"):
        run(source, detector=Failing(), workers=1)
    find = DotDetector()
    kept = pd.read_csv(source.with_name("target") / "align.csv")["file"].tolist()
    assert kept == ["ann/deep/", "ann/face.png"]
    find.name = getattr(Failing(), "name")  # noqa: B009
    table = run(source, detector=find)
    assert len(table) == 10
    assert len(find.sizes) == 2 * (1 + len(YuNet.looks)) + 1


def test_given_points_are_used_and_a_new_table_counts(source: Path) -> None:
    run(source)
    points = pd.DataFrame([["ann/face.png", *SHOT.ravel()], ["done.jpg", *TEMPLATE.ravel()]], columns=["file", *POINTS])
    find = DotDetector()
    table = run(source, detector=find, points=points).set_index("file")
    assert table.loc["ann/face.png", ["status", "source", "faces"]].tolist() == ["aligned", "given", 0]
    assert table.loc["bob/done.jpg", "status"] == "aligned"  # points say that it is not aligned yet
    assert find.sizes == []
    np.testing.assert_allclose(table.loc["ann/face.png", POINTS].to_numpy(float), SHOT.ravel(), atol=1e-3)


def test_the_table_of_one_run_serves_as_points_of_another(source: Path) -> None:
    first = run(source)
    again = align_folder(
        source, source.with_name("again"), points=source.with_name("target") / "align.csv",
        detector=lambda picture: [], progress=False,
    )  # fmt: skip
    assert again["status"].tolist() == first["status"].tolist()
    assert (source.with_name("again") / "ann/face.jpg").read_bytes() == (
        source.with_name("target") / "ann/face.jpg"
    ).read_bytes()


def test_points_that_are_no_face_are_listed(source: Path) -> None:
    rows = [["face.png", *np.full(10, 5.0)], ["twin.bmp", *SHOT.ravel()[:9], np.nan]]
    table = run(source, points=pd.DataFrame(rows, columns=["file", *POINTS])).set_index("file")
    assert table.loc[["ann/face.png", "ann/twin.bmp"], "status"].tolist() == ["bad_points"] * 2
    assert "no face" in table.loc["ann/face.png", "note"]
    assert "NaN" in table.loc["ann/twin.bmp", "note"]
    assert not source.with_name("target").joinpath("ann/face.jpg").exists()


def test_boxes_choose_among_several_faces(source: Path) -> None:
    left, right = a_face(40, 100, 60), a_face(150, 100, 80)
    boxes = pd.DataFrame([["twin.bmp", 15, 75, 65, 125], ["twin.png", 0, 0, 20, 20]], columns=["file", *"abcd"])
    boxes.columns = ["file", "x1", "y1", "x2", "y2"]
    table = run(source, boxes=boxes, detector=lambda picture: [left, right]).set_index("file")
    assert table.loc["ann/twin.bmp", "left_eye_x"] == pytest.approx(left.points[0, 0], abs=1e-3)
    assert table.loc["ann/face.png", "left_eye_x"] == pytest.approx(right.points[0, 0], abs=1e-3)
    assert table.loc["ann/twin.png", ["status", "faces"]].tolist() == ["no_face", 2]
    assert "none in the box" in table.loc["ann/twin.png", "note"]
    assert "3 of them with several faces" not in alignment_summary(table)
    assert "4 of them with several faces" in alignment_summary(table)


def test_only_the_files_asked_for_are_done_and_other_rows_are_kept(source: Path) -> None:
    assert run(source, files=["ann/face.png"])["file"].tolist() == ["ann/face.png"]
    assert run(source, files=["bob/done.jpg"])["file"].tolist() == ["ann/face.png", "bob/done.jpg"]
    with pytest.raises(ValueError, match="ann/none.png: not a file of"):
        run(source, files=["ann/none.png"])


def with_(frame: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
    return frame(pd.DataFrame([["face.png", *SHOT.ravel()]], columns=["file", *POINTS]))


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        (with_(lambda t: t.drop(columns="nose_x")), "lacks nose_x; it needs the columns file"),
        (with_(lambda t: pd.concat([t, t])), "face.png has more than one row"),
        (with_(lambda t: t.assign(file="other.png")), "none of its 1 files is among the pictures"),
        (with_(lambda t: t.assign(file="face.jpg")), "none of its 1 files"),
    ],
)
def test_tables_that_do_not_fit_are_refused(source: Path, points: pd.DataFrame, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        run(source, points=points)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\xff\xfe\0", "table.csv: no table of CSV in UTF-8: 'utf-8' codec"),
        (b"", "table.csv: no table of CSV in UTF-8: No columns"),
        (f"file,{','.join(BOX)}\nface.png,1,2,3,four\n".encode(), "table.csv: could not convert .* must be numbers"),
    ],
)
def test_a_table_that_cannot_be_read_is_named(source: Path, tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        run(source, boxes=tmp_path / "table.csv")


def test_a_table_of_an_earlier_run_that_cannot_be_read_is_named(source: Path) -> None:
    source.with_name("target").mkdir()
    source.with_name("target").joinpath("align.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="target/align.csv: .*; delete it, and every picture is aligned anew"):
        run(source)


def test_no_threads_are_refused(source: Path) -> None:
    with pytest.raises(ValueError, match="workers = 0: must be 1 or more"):
        run(source, workers=0)


def test_a_bare_name_that_means_two_pictures_is_refused(source: Path) -> None:
    shutil.copy(source / "ann/face.png", source / "bob/face.png")
    with pytest.raises(ValueError, match="several folders hold a picture of the same name"):
        run(source, points=with_(lambda table: table))


def test_folders_that_cannot_be_meant_are_refused(source: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder of pictures"):
        run(source / "nowhere")
    for target in (source, source / "aligned"):
        with pytest.raises(ValueError, match="lies in the folder that is read"):
            align_folder(source, target, progress=False)


def test_one_walker_sees_what_the_scan_of_faces_sees(pictures: Path, tmp_path: Path) -> None:
    """People behind links, names that are no UTF-8, pipes, names in two forms, pictures without a suffix."""
    source, shot = tmp_path / "source", (pictures / "ann/face.png").read_bytes()
    for name in ("bob", unicodedata.normalize("NFC", "Zoë"), unicodedata.normalize("NFD", "Zoë")):
        (source / name).mkdir(parents=True, exist_ok=True)
        (source / name / "4f3a").write_bytes(shot)
    (source / "ann").symlink_to(pictures / "ann")
    os.mkfifo(source / "bob/pipe.jpg")
    (source / "bob/README").write_text("no picture")
    (source / "bob/gone.jpg").symlink_to("nowhere")
    if sys.platform == "linux":  # other systems refuse such a name
        with open(os.fsencode(source) + b"/bob/J\xf6rg.png", "wb") as file:
            file.write(shot)
    table = run(source)
    seen = table.set_index("file")[["status", "note"]].apply(tuple, axis=1).to_dict()
    assert seen["ann/face.png"] == seen["bob/4f3a"] == ("aligned", "")
    assert seen["bob/pipe.jpg"] == ("unreadable", "not a regular file")
    assert seen["bob/gone.jpg"] == ("unreadable", "broken link")
    assert seen["bob/README"] == ("not_an_image", "not a picture of a known format")
    if sys.platform == "linux":
        assert seen["bob/J\\xf6rg.png"] == ("unreadable", "the name is not valid UTF-8: rename it")
    assert set(table["identity"]) == {"ann", "bob", unicodedata.normalize("NFC", "Zoë")}
    assert set(table["file"]) == set(scan_faces(source, progress=False)["path"])
    pd.testing.assert_frame_equal(run(source), table)  # the table was written and can be read


def test_a_folder_of_which_nothing_can_be_aligned_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in/ann").mkdir(parents=True)
    for number in range(6):
        (tmp_path / f"in/ann/{number}.cr2").touch()
    with pytest.raises(SystemExit, match="in: no picture could be aligned; the reasons stand above"):
        main([str(tmp_path / "in"), str(tmp_path / "out"), "--no-progress"])
    assert "left out: 6 .cr2: convert to JPEG\n" in capsys.readouterr().out
    (tmp_path / "in/test/ann").mkdir(parents=True)
    (tmp_path / "in/test/ann/1.jpg").touch()
    with pytest.raises(SystemExit, match=r"its people lie deeper, in test \(such as test/ann/1.jpg\)"):
        main([str(tmp_path / "in"), str(tmp_path / "out"), "--no-progress"])


def test_a_tilde_in_a_path_is_the_home(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(source.parent))
    align_folder("~/source", "~/there", detector=DotDetector(), files=["ann/face.png"], progress=False)
    assert (source.parent / "there/ann/face.jpg").is_file()


def test_a_detector_that_cannot_be_fetched_stops_the_run(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Path:
        raise ConnectionError("no network; put it at weights/")

    pytest.importorskip("cv2", reason="finding faces needs the extra detect")
    monkeypatch.setattr(detect, "detector_model", refuse)
    with pytest.raises(ConnectionError, match="put it at weights/"):
        align_folder(source, source.with_name("target"), detector=YuNet(), progress=False)
    with pytest.raises(SystemExit, match="put it at weights/"):
        main([str(source), str(source.with_name("target")), "--detector", "yunet", "--no-progress"])


def test_the_command_aligns_and_sums_up(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = source.with_name("points.csv")
    names = ["ann/face.png", "ann/twin.png", "ann/twin.bmp"]
    pd.DataFrame([[name, *SHOT.ravel()] for name in names], columns=["file", *POINTS]).to_csv(table, index=False)
    (source / "bob/empty.jpg").unlink()  # nothing is left that needs a detector
    main([str(source), str(source.with_name("target")), "--points", str(table), "--no-progress"])
    assert "3 aligned\n      1 already_aligned" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no such folder of pictures"):
        main([str(source / "nowhere"), str(source.with_name("target"))])


def test_each_thread_has_its_own_network() -> None:
    find, seen = YuNet(), []

    def look(name: str) -> None:
        seen.append(getattr(find._own, "network", None))
        find._own.network = name

    for name in ("first", "second"):
        thread = threading.Thread(target=look, args=(name,))
        thread.start()
        thread.join()
    assert seen == [None, None]

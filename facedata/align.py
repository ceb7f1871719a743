"""Bring every face to the same place: five points to ArcFace's 112x112 template, found by a detector or given.

Points are (x, y) in pixels, 0 the centre of the first pixel, in the order eye, eye, nose, mouth corner, mouth corner;
of each pair the one further left in the picture comes first.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import time
from collections import Counter
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from facedata.detect import Detector, YuNet, choose_face
from facedata.reasons import why_unused
from facedata.scan import list_faces, suffix_of
from xfrlib.artifacts import fingerprint, in_sentences, write_atomic
from xfrlib.data.images import FaceImageError, decode_image, read_file

# The template of ArcFace's training pictures (Deng et al. 2019; face_align.py of the InsightFace project).
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
ALIGNED_SIDE = 112
DETECTORS = ("dlib", "yunet")
# the last three as of `facedata.scan.list_faces`
ALIGNMENT_STATUSES = ("aligned", "already_aligned", "no_face", "bad_points", "unreadable",
                      "not_an_image", "misplaced", "too_few_images")  # fmt: skip
POINTS = [f"{name}_{axis}" for name in ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right") for axis in "xy"]
BOX = ["x1", "y1", "x2", "y2"]
_COLUMNS = ["file", "identity", "status", "aligned", "source", "faces", "score", *POINTS, "note", "key"]
_COARSEST = 0.7  # bicubic interpolation bears no stronger reduction without aliasing; the rest is averaged before
_NAMED = 5  # people without an aligned picture who are named
_SAVE_EVERY = 30.0  # seconds between two writings of the table: what a killed run can lose


def similarity_transform(points: np.ndarray, template: np.ndarray = TEMPLATE) -> np.ndarray:
    """The similarity (2, 3), float64, that takes `points` (5, 2) nearest to `template` (5, 2) by least squares.

    Rotation, one scale and shift, never a reflection: Umeyama 1991. A point p goes to ``m[:, :2] @ p + m[:, 2]``.
    Raises `ValueError` for another shape, NaN or infinity, and for points that all but coincide.
    """
    points, template = np.asarray(points, np.float64), np.asarray(template, np.float64)
    if points.shape != (5, 2) or template.shape != (5, 2):
        raise ValueError(f"points of shape {points.shape}, template {template.shape}: both must be five (x, y) pairs")
    if not (np.isfinite(points).all() and np.isfinite(template).all()):
        raise ValueError("NaN or infinity among the five points: leave this picture to the detector")
    centre, goal = points.mean(0), template.mean(0)
    spread = ((points - centre) ** 2).sum() / 5
    if spread < 1:
        raise ValueError(f"the five points lie within {np.sqrt(spread):.2g} pixels of their centre: they are no face")
    u, values, vt = np.linalg.svd((template - goal).T @ (points - centre) / 5)
    signs = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    scaled = u @ np.diag(signs) @ vt * (values @ signs) / spread
    return np.column_stack([scaled, goal - scaled @ centre])


def align(
    picture: np.ndarray, points: np.ndarray, *, template: np.ndarray = TEMPLATE, size: int = ALIGNED_SIDE
) -> np.ndarray:
    """Cut the face out of `picture`, RGB uint8 (H, W, 3), so that its five points lie on `template`: (size, size, 3).

    Bicubic; a photograph that shrinks below 0.7 is averaged down first, so that nothing aliases. What lies outside the
    picture is black. Raises `ValueError` as `similarity_transform` does, and for another shape or type of picture.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"a picture of {picture.dtype} {picture.shape}: give RGB, uint8 (H, W, 3)")
    image, points = Image.fromarray(picture), np.asarray(points, np.float64)
    matrix = similarity_transform(points, template)
    scale = np.sqrt(np.linalg.det(matrix[:, :2]))
    if scale < _COARSEST:
        width, height = (max(1, round(side * scale / _COARSEST)) for side in image.size)
        ratio = np.divide((width, height), image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        matrix = similarity_transform((points + 0.5) * ratio - 0.5, template)
    inverse = np.linalg.inv(matrix[:, :2])
    # Pillow counts from the corner of the first pixel and asks, for each pixel of the result, where it comes from.
    shift = 0.5 - inverse @ (matrix[:, 2] + 0.5)
    # It also cuts fractions off: rounded here, a face that lies right already stays as it is, to the bit.
    values = np.column_stack([inverse, shift]).ravel().round(9).tolist()
    return np.array(image.transform((size, size), Image.Transform.AFFINE, values, Image.Resampling.BICUBIC))


def _read_table(path: Path, **options: Any) -> pd.DataFrame:
    """`pandas.read_csv`, whose own sentences do not name the file."""
    try:
        return pd.read_csv(path, **options)
    except ValueError as error:  # of bytes, of rows and of an empty file
        raise ValueError(f"{path}: no table of CSV in UTF-8: {' '.join(str(error).split())}") from error


def _read_given(table: pd.DataFrame | str | Path | None, columns: list[str], names: Collection[str]) -> dict[str, Any]:
    """Points or boxes by the name of the picture: the table names it by its path below the source or by its file."""
    if table is None:
        return {}
    title = "the table given" if isinstance(table, pd.DataFrame) else str(table)
    table = table if isinstance(table, pd.DataFrame) else _read_table(Path(table), dtype={"file": str})
    if missing := [column for column in ["file", *columns] if column not in table]:
        raise ValueError(f"{title}: lacks {', '.join(missing)}; it needs the columns file, {', '.join(columns)}")
    if (twice := table.loc[table["file"].duplicated(), "file"]).size:
        raise ValueError(f"{title}: {twice.iloc[0]} has more than one row; leave one")
    try:
        rows = table.dropna(subset=columns, how="all").set_index("file")[columns].astype(float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{title}: {error}; the columns {', '.join(columns)} must be numbers") from error
    values = dict(zip(rows.index, rows.to_numpy().tolist(), strict=True))
    used = {name: name if name in values else name.rpartition("/")[2] for name in names}
    used = {name: file for name, file in used.items() if file in values}
    if values and not used:
        raise ValueError(f"{title}: none of its {len(values)} files is among the pictures; is it the right folder?")
    if len(set(used.values())) < len(used):
        raise ValueError(f"{title}: several folders hold a picture of the same name; write <identity>/<picture>")
    return {name: values[file] for name, file in used.items()}


def _stem(name: str) -> str:
    return name[: len(name) - len(suffix_of(name))]


def _align_one(data: bytes, row: dict[str, Any], points: Any, box: Any, detector: Detector) -> bytes:
    """Fill the row of one picture; the bytes of its aligned copy, empty where there is none."""
    picture = np.array(decode_image(data)[0])
    if picture.shape[:2] == (ALIGNED_SIDE, ALIGNED_SIDE) and points is None and box is None:
        row["status"] = "already_aligned"
        return data
    if points is None:
        faces = detector(picture)
        face, note = choose_face(faces, picture.shape, None if box is None else np.array(box))
        row |= {"source": "detected", "faces": len(faces), "note": note}
        if face is None:
            row["status"] = "no_face"
            return b""
        points, row["score"] = face.points, round(face.score, 4)
    else:
        row["source"] = "given"
    points = np.reshape(points, (5, 2)).round(3)  # as in the table, which can then be used again as given points
    row |= zip(POINTS, points.ravel().tolist(), strict=True)
    try:
        crop = Image.fromarray(align(picture, points))
    except ValueError as error:
        row |= {"status": "bad_points", "note": str(error)}
        return b""
    row["status"], jpeg = "aligned", io.BytesIO()
    crop.save(jpeg, "JPEG", quality=95)
    return jpeg.getvalue()


def align_folder(
    source: str | Path,
    target: str | Path,
    *,
    points: pd.DataFrame | str | Path | None = None,
    boxes: pd.DataFrame | str | Path | None = None,
    detector: Detector | None = None,
    files: Collection[str] | None = None,
    workers: int = 2,
    progress: bool = True,
) -> pd.DataFrame:
    """Align `<source>/<identity>/<picture>` into `<target>/<identity>/<picture>.jpg`; a row for every file.

    `points` (columns file and `POINTS`) are used where present; else `detector` (None: dlib's, else YuNet) finds faces
    and `choose_face` takes one, by `boxes` (columns file, x1, y1, x2, y2) where present. A picture of exactly 112x112
    pixels with neither is taken as already aligned: its bytes are copied. `files`, paths below `source`, restricts
    the work. Columns: file, identity, status (one of `ALIGNMENT_STATUSES`), aligned (path below `target`), source of
    the points ("given" or "detected"), faces (number found), score, the points, note, key (a hash of all that the row
    follows from). The table is also written to `<target>/align.csv`; a second run does only what is new or changed.
    Raises `ValueError` for tables that do not fit, and what `facedata.scan.list_faces` raises.
    """
    source, target = Path(source).expanduser(), Path(target).expanduser()
    if workers < 1:
        raise ValueError(f"workers = {workers}: must be 1 or more")
    if target.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"{target}: lies in the folder that is read; choose a target beside it")
    listed = {row["path"]: row for row in list_faces(source)}
    wanted = sorted(set(listed if files is None else files))
    if unknown := [name for name in wanted if name not in listed]:
        raise ValueError(f"{unknown[0]}: not a file of {source} ({len(unknown)} of the files asked for are not)")
    names = [name for name in wanted if not listed[name]["status"]]
    given, meant = _read_given(points, POINTS, names), _read_given(boxes, BOX, names)
    find = detector or find_detector()
    kind = getattr(find, "name", getattr(find, "__qualname__", type(find).__name__))
    stems = Counter(_stem(name) for name, row in listed.items() if not row["status"])
    table_file = target / "align.csv"
    before: dict[str, dict[str, Any]] = {}
    if table_file.is_file():
        try:
            read = _read_table(table_file, dtype=str, keep_default_na=False)
        except ValueError as error:
            raise ValueError(f"{error}; delete it, and every picture is aligned anew") from error
        old = read.reindex(columns=_COLUMNS, fill_value="")
        before = {row[0]: dict(zip(_COLUMNS, row, strict=True)) for row in old.to_numpy().tolist() if row[0] in listed}

    def work(name: str) -> dict[str, Any]:
        row: dict[str, Any] = dict.fromkeys(_COLUMNS, "") | listed[name] | {"file": name, "faces": 0}
        del row["path"]
        if row["status"]:
            return row
        kept, aligned = before.get(name, {}), b""
        try:
            data = read_file(source / name)
        except (OSError, FaceImageError) as error:
            return row | {"status": "unreadable", "note": getattr(error, "strerror", None) or str(error)}
        row["key"] = fingerprint(hashlib.sha256(data).hexdigest(), given.get(name), meant.get(name), kind)
        if kept.get("key") == row["key"] and (not kept["aligned"] or (target / kept["aligned"]).is_file()):
            return kept
        try:
            aligned = _align_one(data, row, given.get(name), meant.get(name), find)
        except FaceImageError as error:
            row |= {"status": "unreadable" if suffix_of(name) else "not_an_image", "note": str(error)}
        if aligned:
            stem = _stem(name)
            row["aligned"] = name if row["status"] == "already_aligned" else f"{stem if stems[stem] == 1 else name}.jpg"
            with write_atomic(target / row["aligned"]) as part:
                part.write_bytes(aligned)
        if kept.get("aligned") not in (None, "", row["aligned"]):  # of an earlier picture of this name
            (target / kept["aligned"]).unlink(missing_ok=True)
        return row

    rows, saved = dict(before), time.monotonic()
    try:
        with ThreadPoolExecutor(workers) as pool:
            done = pool.map(work, wanted)
            for row in tqdm(done, "aligning faces", len(wanted), unit="file", mininterval=1, disable=not progress):
                rows[row["file"]] = row
                if time.monotonic() - saved > _SAVE_EVERY:
                    _write_table(rows, table_file)
                    saved = time.monotonic()
    finally:
        table = _write_table(rows, table_file)
    return table


def _write_table(rows: dict[str, dict[str, Any]], path: Path) -> pd.DataFrame:
    table = pd.DataFrame([rows[name] for name in sorted(rows)], columns=_COLUMNS)
    for column in ("faces", "score", *POINTS):
        table[column] = pd.to_numeric(table[column])
    with write_atomic(path) as part:
        table.to_csv(part, index=False, lineterminator="\n", encoding="utf-8")
    return table


def alignment_summary(table: pd.DataFrame) -> str:
    """What became of the files: a line for each status, why some were left out, and who has no aligned picture."""
    counts, several = table["status"].value_counts(), int((table["faces"] > 1).sum())
    lines = [f"{counts[status]:7d} {status}" for status in ALIGNMENT_STATUSES if status in counts]
    people = table.loc[table["identity"] != "", "identity"].nunique()
    head = f"{len(table)} files of {people} identities, {several} of them with several faces"
    found = table["status"].isin(ALIGNMENT_STATUSES[:4])
    why = why_unused(table.assign(status=table["status"].mask(found, "used")).to_dict("records"))
    lines += [f"left out: {why}"] if why else []
    # all of them were counted above: nobody is to look for them in vain among the aligned ones
    lost = sorted(set(table["identity"]) - {""} - set(table.loc[table["aligned"] != "", "identity"]))
    more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
    lines += [f"without an aligned picture: {', '.join(lost[:_NAMED])}{more}"] if lost else []
    return "\n".join([head, *lines])


def find_detector(name: str = "", model: str | Path | None = None) -> Detector:
    """The `Detector` "dlib" or "yunet"; "" is dlib's where the extra "match" is installed, else YuNet.

    `model` is another file of YuNet's, and so asks for YuNet. Raises `ImportError` where "dlib" is not installed.
    """
    from facedata import dlib  # which needs the template of this module

    if name not in ("", *DETECTORS):
        raise ValueError(f"detector = {name!r}: use one of {', '.join(DETECTORS)}")
    if model and name == "dlib":
        raise ValueError(f"{model}: a model of YuNet's, and the detector asked for is dlib's; leave one of the two out")
    if name == "dlib" or (not (name or model) and dlib.installed()):
        return dlib.DlibDetector()
    return YuNet(model)


@in_sentences()
def main(arguments: list[str] | None = None) -> None:
    """Command line of `align_folder`."""
    parser = argparse.ArgumentParser("python -m facedata.align", description="Align faces to 112x112 pixels.")
    parser.add_argument("source", type=Path, help="folder of <identity>/<picture>")
    parser.add_argument("target", type=Path, help="folder of the aligned pictures and of align.csv, which lists all")
    parser.add_argument("--points", type=Path, help=f"CSV with the columns file, {', '.join(POINTS)}")
    parser.add_argument("--boxes", type=Path, help="CSV with the columns file, x1, y1, x2, y2: which face is meant")
    parser.add_argument("--detector", choices=DETECTORS, default="", help="default: dlib where installed, else yunet")
    parser.add_argument("--model", type=Path, help="another YuNet model (ONNX) than the one fetched by name")
    parser.add_argument("--workers", type=int, default=2, help="threads (default: 2)")
    parser.add_argument("--no-progress", dest="progress", action="store_false", help="no progress bar")
    options = vars(parser.parse_args(arguments))
    table = align_folder(detector=find_detector(options.pop("detector"), options.pop("model")), **options)
    print(alignment_summary(table))
    if not (table["aligned"] != "").any():
        raise ValueError(f"{options['source']}: no picture could be aligned; the reasons stand above")


if __name__ == "__main__":
    main()

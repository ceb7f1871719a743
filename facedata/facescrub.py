"""FaceScrub: its list files, folders in which others keep it, download, face boxes, and what is left of it.

FaceScrub (Ng and Winkler, "A data-driven approach to cleaning large face datasets", ICIP 2014) is a list of addresses;
the pictures lie on the web sites they were found on, and many have gone. ``python -m facedata.facescrub --help``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image
from tqdm import tqdm

from facedata.align import BOX
from facedata.download import Policy, download
from facedata.facescrub_lists import find_pictures, read_list, read_lists
from facedata.journal import STATUSES, Journal, download_state, examine
from xfrlib.artifacts import in_sentences, write_atomic
from xfrlib.data.images import FaceImageError, decode_image
from xfrlib.profile import data_root

__all__ = [
    "PAPER_COUNTS",
    "STATUSES",
    "adopt",
    "crop",
    "download",
    "download_state",
    "download_summary",
    "find_pictures",
    "read_list",
    "read_lists",
    "summary_text",
    "upright_box",
    "write_boxes",
    "write_crops",
]

# What the paper had (arXiv 2505.03837): people and pictures, by the sex that FaceScrub's two lists state.
PAPER_COUNTS = {"male": (265, 23_216), "female": (265, 19_932)}


def adopt(root: str | Path, table: pd.DataFrame, folder: str | Path, **options: Any) -> int:
    """Take the original pictures of an existing download into `folder`, so that `download` need not fetch them.

    `options` are those of `find_pictures`. Files are linked where the file system can, else copied. Returns how many
    faces were taken over that were not there.
    """
    root, folder = Path(root), Path(folder)
    state = download_state(table, folder)
    wanted = state.index[~state["status"].isin(("got", "faulty"))]
    found = find_pictures(root, table.loc[wanted], **options)
    taken, journal = 0, Journal(folder)
    originals: list[Any] = list(found[found["status"] == "original"].drop_duplicates("row").itertuples())
    for pair in originals:
        source = root / pair.file
        outcome = examine(source.read_bytes(), pair.sha256)
        if outcome.status != "got":
            continue  # FaceScrub lists some files that no decoder reads; the download reports them
        target = folder / (pair.stem + outcome.suffix)
        if not (target.exists() and target.samefile(source)):
            with write_atomic(target) as part:
                try:
                    os.link(source.resolve(), part)
                except OSError:
                    shutil.copyfile(source, part)
        journal.add(pair.stem, pair.url, pair.sha256, outcome)
        taken += 1
    return taken


def crop(picture: Image.Image, box: Sequence[int], margin: float = 0.0) -> tuple[Image.Image, str]:
    """The part of `picture` within `box` = (x1, y1, x2, y2), pixels, x2 and y2 outside; and what was done to the box.

    `margin` is added on every side, as a share of the box's width and height. What lies outside the picture is cut off,
    which the second value says ("" otherwise). Raises `ValueError` for an empty box, one that misses the picture, and a
    negative margin.
    """
    x1, y1, x2, y2 = box
    if x1 >= x2 or y1 >= y2:
        raise ValueError(f"the box {tuple(box)} is empty: give x1 < x2 and y1 < y2")
    if not 0 <= margin < float("inf"):
        raise ValueError(f"margin = {margin}: must be 0 or more, as a share of the box")
    dx, dy = round((x2 - x1) * margin), round((y2 - y1) * margin)
    wanted = (x1 - dx, y1 - dy, x2 + dx, y2 + dy)
    inside = (max(wanted[0], 0), max(wanted[1], 0), min(wanted[2], picture.width), min(wanted[3], picture.height))
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        raise ValueError(f"the box {wanted} lies outside the picture of {picture.width} x {picture.height}")
    return picture.crop(inside), "" if inside == wanted else f"box {wanted} cut to {inside}"


def upright_box(box: Sequence[int], size: tuple[int, int], orientation: int) -> tuple[int, int, int, int]:
    """Where a box of the stored picture (`size`: width, height) lies once EXIF's `orientation` (1 to 8) is applied.

    FaceScrub's boxes count in stored pixels: the crop of its authors' own downloader ignores the orientation.
    """
    x1, y1, x2, y2 = box
    if orientation in (2, 3, 7, 8):
        x1, x2 = size[0] - x2, size[0] - x1
    if orientation in (3, 4, 6, 7):
        y1, y2 = size[1] - y2, size[1] - y1
    return (y1, x1, y2, x2) if orientation in (5, 6, 7, 8) else (x1, y1, x2, y2)


def write_boxes(state: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """Write CSV with columns file, x1, y1, x2, y2 for the files of a `download_state`: boxes in the upright picture."""
    rows: list[Any] = list(state[state["file"] != ""].itertuples())
    boxes = [(r.file, *upright_box((r.x1, r.y1, r.x2, r.y2), (r.width, r.height), r.orientation)) for r in rows]
    table = pd.DataFrame(boxes, columns=["file", *BOX])
    _write_csv(table, Path(path))
    return table


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    with write_atomic(path) as part:
        table.to_csv(part, index=False, lineterminator="\n", encoding="utf-8")


def write_crops(
    state: pd.DataFrame, folder: str | Path, crops: str | Path, *, margin: float = 0.0, progress: bool = True
) -> pd.DataFrame:
    """Cut every face of a `download_state` out of its file in `folder` and write it as `<crops>/<stem>.png`.

    Crops that are there already stay. Returns a row per file: file, status ("cropped", "there" or "failed"), note.
    """
    rows: list[Any] = list(state[state["file"] != ""].itertuples())
    told = []
    for row in tqdm(rows, "cropping", unit="face", mininterval=1, disable=not progress):
        target, status, note = Path(crops) / f"{row.stem}.png", "there", ""
        if not target.is_file():
            try:
                picture, _, _ = decode_image((Path(folder) / row.file).read_bytes())
                box = upright_box((row.x1, row.y1, row.x2, row.y2), (row.width, row.height), row.orientation)
                face, note = crop(picture, box, margin)
            except (OSError, FaceImageError, ValueError) as error:
                status, note = "failed", str(error)
            else:
                with write_atomic(target) as part:
                    face.save(part, "PNG")
                status = "cropped"
        told.append((row.file, status, note))
    return pd.DataFrame(told, columns=["file", "status", "note"])


def download_summary(state: pd.DataFrame) -> dict[str, Any]:
    """What is there of FaceScrub and how that differs from the paper, as plain JSON values.

    Keys: rows, statuses (all of `STATUSES`), there (people, faces), by_list (list -> statuses, people, faces) and paper
    (male, female and all -> people and pictures of the paper, and ours; the sexes as far as the lists state them).
    """

    def there(rows: pd.DataFrame) -> dict[str, int]:
        kept = rows[rows["file"] != ""]
        return {"people": int(kept["name"].nunique()), "faces": len(kept)}

    def statuses(rows: pd.DataFrame) -> dict[str, int]:
        counts = rows["status"].value_counts()
        return {status: int(counts.get(status, 0)) for status in STATUSES}

    compared = {"all": (*(sum(numbers) for numbers in zip(*PAPER_COUNTS.values(), strict=True)), there(state))}
    compared |= {sex: (*numbers, there(state[state["sex"] == sex])) for sex, numbers in PAPER_COUNTS.items()}
    return {
        "rows": len(state),
        "statuses": statuses(state),
        "there": there(state),
        "by_list": {str(name): {"statuses": statuses(rows), **there(rows)} for name, rows in state.groupby("list")},
        "paper": {
            who: {"people": people, "pictures": pictures, "our_people": ours["people"], "our_pictures": ours["faces"]}
            for who, (people, pictures, ours) in compared.items()
        },
    }


def summary_text(state: pd.DataFrame) -> str:
    """`download_summary` in sentences, one a line."""
    told = download_summary(state)
    lines = [f"{told['rows']} lines of {len(told['by_list'])} lists: " + _counts(told["statuses"])]
    for name, of in told["by_list"].items():
        lines.append(f"  {name}: {of['faces']} faces of {of['people']} people; {_counts(of['statuses'])}")
    for who, of in told["paper"].items():
        more = [of["our_pictures"] - of["pictures"], of["our_people"] - of["people"]]
        less = " and ".join(
            f"{abs(n)} {what} {'fewer' if n < 0 else 'more'}" if n else f"as many {what}"
            for n, what in zip(more, ("pictures", "people"), strict=True)
        )
        title = "Here" if who == "all" else f"  {who}"
        paper = f"the paper (arXiv 2505.03837) used {of['pictures']} of {of['people']}"
        lines.append(f"{title}: {of['our_pictures']} pictures of {of['our_people']} people; {paper}: {less}.")
    return "\n".join(lines)


def _counts(statuses: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in statuses.items() if n) or "none"


_POLICY = {  # options of the command that are fields of `Policy`
    "workers": "requests at once",
    "per_host": "of them to one host",
    "timeout": "longest silence, in seconds",
    "deadline": "longest time for one request, in seconds",
    "retries": "after a failure that may pass",
    "backoff": "pause before the first retry, in seconds; doubles each time",
    "max_bytes": "of a picture's file",
}


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m facedata.facescrub", description="Download FaceScrub by list.")
    add = parser.add_argument
    add("lists", nargs="*", help="list files; default: *.txt in <data root>/facescrub/lists")
    add("--out", type=Path, help="folder that gets originals/, boxes.csv and the rest; default: <data root>/facescrub")
    add("--existing", type=Path, help="take over the originals of an existing download, of any known layout, first")
    add("--people", type=int, help="only the first N people of each list")
    add("--limit", type=int, help="only the first N lines of these")
    for name, meaning in _POLICY.items():
        default = getattr(Policy(), name)
        add(f"--{name.replace('_', '-')}", type=type(default), default=default, help=f"{meaning} (%(default)s)")
    add("--retry-dead", action="store_true", help="ask again for what was dead, changed, too large or no picture")
    add("--keep-changed", action="store_true", help="keep pictures that are not the listed ones")
    add("--verify", action="store_true", help="hash the files that are there, and fetch again what differs")
    add("--crop", action="store_true", help="write what the boxes hold to crops/")
    add("--margin", type=float, default=0.0, help="around the crops, as a share of the box (%(default)s)")
    add("--no-progress", dest="progress", action="store_false", help="no progress bar")
    return parser.parse_args(arguments)


@in_sentences()
def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status: 0, 1 for something that cannot be used, 130 after Ctrl-C."""
    chosen = _arguments(arguments)
    default = data_root() / "facescrub"
    base: Path = chosen.out or default
    folder, boxes, stopped = base / "originals", base / "boxes.csv", False
    try:
        lists = chosen.lists or sorted((default / "lists").glob("*.txt"))
        if not lists:
            raise FileNotFoundError(f"{default / 'lists'}: no *.txt here; put FaceScrub's lists there, or name them")
        table = read_lists(lists)
        if chosen.existing or (folder.is_dir() and not Journal(folder).entries):
            taken = adopt(chosen.existing or folder, table, folder, progress=chosen.progress)
            print(f"{taken} faces taken over from {chosen.existing or folder}")
        number = table.groupby("list")["name"].transform(lambda names: pd.factorize(names)[0])
        selected = table if chosen.people is None else table[number < chosen.people]
        names = (*_POLICY, "keep_changed", "retry_dead", "verify", "progress")
        try:
            download(selected[: chosen.limit], folder, **{name: getattr(chosen, name) for name in names})
        except KeyboardInterrupt:
            stopped = True
        state = download_state(table, folder)
        _write_csv(state, base / "download.csv")
        write_boxes(state, boxes)
        print(f"{summary_text(state)}\nRow by row: {base / 'download.csv'}")
        if state.empty or (state["status"] == "faulty").all():
            raise ValueError(f"{', '.join(map(str, lists))}: no line can be used; give FaceScrub's lists")
        if stopped:
            print("Stopped. The same command goes on from here.")
            return 130
        if chosen.crop:
            told = write_crops(state, folder, base / "crops", margin=chosen.margin, progress=chosen.progress)
            _write_csv(told, base / "crops.csv")
            print(f"Crops in {base / 'crops'}: {_counts(Counter(told['status']))}; row by row: {base / 'crops.csv'}")
    except (OSError, ValueError) as error:
        print(f"facescrub: {error}", file=sys.stderr)
        return 1
    print(f"Next, bring the faces to one place: python -m facedata.align {folder} {base / 'aligned'} --boxes {boxes}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

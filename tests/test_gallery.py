"""The gallery: who is chosen, names of files, the index, a page that runs."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import gallery as tool
import make_book
import nbformat
import pytest
import yaml
from papermill.exceptions import PapermillExecutionError
from PIL import Image
from prepared import prepare_manifest

import subjects
from facedata.scan import write_manifest
from madefaces.people import write_faces
from xfrlib import FaceClassifier, load_backbone
from xfrlib.models.classifier import save_classifier
from xfrlib.run import NotebookRun, ParameterError

ROOT = Path(__file__).resolve().parents[1]
SUBJECT = ROOT / "notebooks" / "gallery" / "subject.ipynb"


def test_one_of_each_family_is_chosen_before_a_second() -> None:
    names, families = list("abcdefg"), [0, 0, 0, 1, 1, 2, 2]
    assert [s.identity for s in subjects.choose_subjects(names, families, 3)] == ["a", "d", "f"]
    assert [s.identity for s in subjects.choose_subjects(names, families, 5)] == ["a", "b", "d", "e", "f"]
    assert [s.family for s in subjects.choose_subjects(names, families, 3)] == [0, 1, 2]
    assert [s.identity for s in subjects.choose_subjects(names, families, 99)] == names
    assert [s.identity for s in subjects.choose_subjects(names, None, 2)] == ["a", "b"]


def test_quick_has_every_family_and_at_least_twelve_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XFR_BUILD", str(tmp_path))
    make_data(tmp_path / "quick", families=10, size=3)
    chosen = subjects.subjects_of(NotebookRun(subjects.NOTEBOOK, "quick"))
    assert len(chosen) == len({s.page for s in chosen}) >= 12
    assert {s.family for s in chosen} == set(range(10))
    monkeypatch.setattr(sys, "argv", ["subjects.py", "--profile", "quick"])
    subjects.main()
    (read_by_make,) = re.findall(r"sed -n 's/(.*)/\\1/p'", (ROOT / "Makefile").read_text(encoding="utf-8"))
    pattern = read_by_make.replace(r"\(", "(").replace(r"\)", ")")
    assert re.findall(f"^{pattern}$", capsys.readouterr().out, re.MULTILINE) == [s.page for s in chosen]


def test_names_of_files_are_plain_and_never_meet() -> None:
    assert subjects.page_name("family00_a") == "family00_a"
    odd = ["José", "Jose", "a b", "a_b", "a-b", "..", "Łódź", "王", "a/b", "x" * 300, "con. ", "-r"]
    pages = [subjects.page_name(name) for name in odd]
    assert len(set(pages)) == len(odd)
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}", page) for page in pages)


def test_an_unknown_person_is_named_with_those_that_are_near() -> None:
    run = NotebookRun(subjects.NOTEBOOK, "quick")
    with pytest.raises(ParameterError, match="'Ana': none of the 3 people is called that; did you mean 'Anna'"):
        subjects.find_subject(run, "Ana", ["Anna", "Berta", "Zoe"])
    with pytest.raises(ParameterError, match="such as 'Anna'"):
        subjects.find_subject(run, "qqq", ["Anna", "Berta"])
    assert subjects.find_subject(run, "007", ["Anna", "007"]) == 1


@pytest.mark.parametrize("subject", ["007", "Zoë O'Hara; ls", "family00_a"])
def test_the_command_gives_papermill_what_the_page_was_made_from(subject: str, tmp_path: Path) -> None:
    command = subjects.papermill_command("quick", subject, "out.ipynb", run_name="", top_k=3, delta=0.5)
    program, *words = shlex.split(command)
    assert program == ".venv/bin/papermill" and words[1] == "out.ipynb"
    words[1] = str(tmp_path / "out.ipynb")
    subprocess.run([sys.executable, "-m", "papermill", *words, "--prepare-only"], cwd=ROOT, check=True)
    (cell,) = [
        cell
        for cell in nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
        if "injected-parameters" in cell.metadata.get("tags", [])
    ]
    given: dict[str, Any] = {}
    exec(cell.source, {}, given)
    assert given == {"profile": "quick", "subject": subject, "top_k": 3, "delta": 0.5}


# --- pages that are quickly made

PEOPLE = [{"identity": name, "page": name, "family": number // 2} for number, name in enumerate(["a_b", "c", "d", "e"])]


def fake_page(source: Path, parameters: dict[str, Any], target: Path, title: str) -> None:
    name = parameters["subject"]
    hits = {"pictures": 4, "sdd": 3, "disc": 1} if name != "e" else {"pictures": 0, "sdd": 0, "disc": 0}
    card = {"subject": name, "page": name, "right": 3, "pictures": 4, "hits": hits, "differs": ["nose"], "rivals": []}
    target.with_suffix(".json").write_text(json.dumps(card | {"provenance": {}}), encoding="utf-8")
    target.with_suffix(".png").write_bytes(b"")
    target.write_text(title, encoding="utf-8")


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XFR_BUILD", str(tmp_path))
    monkeypatch.setattr(make_book, "write_page", fake_page)
    (tmp_path / "quick" / "gallery").mkdir(parents=True)
    return tmp_path / "quick"


def choose(out: Path) -> None:
    (out / tool.SUBJECTS).write_text(json.dumps(PEOPLE), encoding="utf-8")


def test_one_page_is_made_or_those_of_everybody(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"not been made: make book PROFILE=quick, or: python .* gallery quick"):
        make_book.make_gallery("quick", ["c"])
    choose(out)
    make_book.make_gallery("quick", ["c"])
    assert [path.name for path in out.glob("gallery/*.ipynb")] == ["c.ipynb"]
    chosen = subprocess.CompletedProcess([], 0, json.dumps(PEOPLE[:2]).encode())
    monkeypatch.setattr(make_book.subprocess, "run", lambda *_, **__: chosen)
    make_book.make_gallery("quick", [])
    assert {path.stem for path in out.glob("gallery/*.ipynb")} == {"a_b", "c"} and tool.people(out) == PEOPLE[:2]
    assert (out / "gallery" / "a_b.ipynb").read_text(encoding="utf-8") == "a b"


def test_the_index_links_to_every_page_and_shows_its_thumbnail(out: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    toc = {"root": "book/index", "parts": [{"chapters": [{"file": "book/findings"}, {"file": "book/gallery"}]}]}
    (site / "_toc.yml").write_text(yaml.safe_dump(toc), encoding="utf-8")
    choose(out)
    make_book.make_gallery("quick", [person["page"] for person in PEOPLE])
    tool.stage(out, site)
    cards = (site / "gallery" / "cards.txt").read_text(encoding="utf-8")
    links, pictures = (re.findall(rf"^:{key}: (.*)$", cards, re.MULTILINE) for key in ("link", "img-top"))
    assert len(links) == len(pictures) == len(PEOPLE)
    assert all((site / "book" / f"{link}.ipynb").resolve().is_file() for link in links)
    assert all((site / "book" / picture).resolve().is_file() for picture in pictures)
    assert cards.count(":img-alt: ") == len(PEOPLE) and "## Family 01: nose" in cards
    assert (
        "SDD's region hits the nose in 3 of 4, a disc in 1." in cards
        and "The part that differs, the nose, is hidden in every picture." in cards
    )
    assert (
        "4 people; 12 of their 16 test pictures are named right." in cards and "in 9 of them, a centred disc" in cards
    )
    staged = yaml.safe_load((site / "_toc.yml").read_text(encoding="utf-8"))["parts"][0]["chapters"]
    assert [entry["file"] for entry in staged[1]["sections"]] == [link.removeprefix("../") for link in links]
    (out / "gallery" / "c.png").unlink()
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "_toc.yml").write_text(yaml.safe_dump(toc), encoding="utf-8")
    with pytest.raises(FileNotFoundError, match="page of c is missing"):
        tool.stage(out, tmp_path / "again")


def test_names_stay_names_in_markdown() -> None:
    assert tool.titled("# One subject\n\nText", "a * b [c]") == "# a \\* b \\[c\\]\n\nText"
    card = {"subject": 'x: "y"_z', "page": "p", "right": 1, "pictures": 1, "hits": None, "differs": None}
    text = tool.index([card | {"family": None}])
    (alt,) = re.findall(r"^:img-alt: (.*)$", text, re.MULTILINE)
    assert 'x: "y" z' in yaml.safe_load(alt) and "Family" not in text


def test_the_front_page_shows_whom_the_map_hits_most_often_and_least_often() -> None:
    card = {"right": 4, "pictures": 4, "differs": ["nose"], "family": None}
    hits = {"a": (1, 4), "b": (4, 4), "c": (2, 2), "d": (0, 4), "e": (3, 4), "f": (0, 0)}
    cards = [
        card | {"subject": name, "page": name, "hits": {"sdd": sdd, "pictures": seen, "disc": 1}}
        for name, (sdd, seen) in hits.items()
    ]
    text = tool.front_page(cards)
    assert re.findall(r"^:link: .*/(.)$", text, re.MULTILINE) == ["b", "c", "a", "d"]
    assert (
        "In 18 of their test pictures" in text
        and "half of it in 10 of them, a centred disc of the same size in 6" in text
    )
    assert re.findall(r"^:link: .*/(.)$", tool.front_page(cards[:2]), re.MULTILINE) == ["b", "a"]
    assert tool.front_page([card | {"subject": "x", "page": "x", "hits": None}])[0] == "%", "a comment, of photographs"


# --- a real page, of a network that has learnt nothing


def make_data(folder: Path, *, families: int, size: int) -> None:
    write_faces(folder / "faces", families=families, family_size=size, pictures_per_identity=4, seed=0, progress=False)
    manifest = prepare_manifest(folder / "faces", fractions=(0.5, 0.25, 0.25), near_threshold=None)
    write_manifest(manifest, folder / "manifest.csv")


@pytest.mark.long
def test_a_page_runs_and_a_wrong_name_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XFR_BUILD", str(tmp_path))
    folder = tmp_path / "quick"
    make_data(folder, families=2, size=2)
    people = ["family00_a", "family00_b", "family01_a", "family01_b"]
    save_classifier(folder / "classifier.safetensors", FaceClassifier(load_backbone("slim"), 4, seed=1), people)

    target = folder / "gallery" / "family01_b.ipynb"
    make_book.write_page(SUBJECT, {"profile": "quick", "subject": "family01_b"}, target, tool.shown_name("family01_b"))
    page = nbformat.read(target, as_version=4)
    assert page.cells[0].source.startswith("# Bao\n")
    assert all(output.output_type != "error" for cell in page.cells for output in cell.get("outputs", []))
    card = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
    assert card["rivals"] == ["family01_a"] and card["pictures"] == 1 and card["hits"]["pictures"] in (0, 1)
    with Image.open(target.with_suffix(".png")) as picture:
        assert min(picture.size) >= 200
    text = json.dumps(page)
    command = subjects.papermill_command("quick", "family01_b", "out.ipynb")
    assert command in text and "Provenance of this page" in text
    figures = [cell for cell in page.cells if "mystnb" in cell.metadata]
    assert len(figures) >= 5
    for cell in figures:
        assert cell.metadata.mystnb.image.alt and cell.metadata.mystnb.figure.caption
        assert "name" not in cell.metadata.mystnb.figure, "labels of several pages would collide"

    with pytest.raises(PapermillExecutionError, match="'family01_x'.* did you mean 'family01_"):
        parameters = {"profile": "quick", "subject": "family01_x"}
        make_book.write_page(SUBJECT, parameters, folder / "gallery" / "x.ipynb", "x")
    assert not list(folder.glob("gallery/*x.ipynb"))

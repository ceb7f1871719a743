"""A site at a known address has launch buttons, a card and absolute addresses; a local one has none of them."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import make_book
import make_pdf
import nbformat
import publishing
import pytest
import yaml
from bs4 import BeautifulSoup
from dependencies import artefacts_of
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
ADDRESS = "https://somebody.github.io/faces"
NAME = "04_sdd_derivation"
PERSON = "notebooks/gallery/identity_003"  # a page of the gallery
PDF = re.search(r"^```\{only\} published\n.*?^```\n", (ROOT / "book/use.md").read_text(encoding="utf-8"), re.M | re.S)
WORKFLOWS = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in (ROOT / ".github/workflows").glob("*.yml")
}


@pytest.fixture(autouse=True)
def somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_REPOSITORY", "somebody/faces")


def built(folder: Path, address: str | None) -> Path:
    """A site of three pages, with the book's configuration."""
    shutil.copytree(ROOT / "book" / "_ext", folder / "book" / "_ext", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "book" / "_static", folder / "book" / "_static")
    shutil.copy(ROOT / "book" / "references.bib", folder / "book")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Chapter\n\nText.")])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    (folder / PERSON).parent.mkdir(parents=True)
    for name in (f"notebooks/{NAME}", PERSON):
        nbformat.write(notebook, folder / f"{name}.ipynb")
    assert PDF, "use.md leads to the PDF"
    start = f"# Start\n\nWords.\n\n{PDF[0]}\n```{{bibliography}}\n```\n"
    (folder / "book" / "index.md").write_text(start, encoding="utf-8")
    (folder / "profile.yaml").write_text("dataset: synthetic\nshows_real_people: false\n", encoding="utf-8")
    toc = {"format": "jb-book", "root": "book/index", "chapters": [{"file": f"notebooks/{NAME}"}, {"file": PERSON}]}
    (folder / "_toc.yml").write_text(yaml.safe_dump(toc), encoding="utf-8")
    config = publishing.with_address(CONFIG, address) if address else CONFIG
    (folder / "_config.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    command = "from jupyter_book.cli.main import main; main()"
    subprocess.run([sys.executable, "-c", command, "build", "-W", "-n", "-q", str(folder)], check=True)
    return folder / "_build" / "html"


def page(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def buttons(chapter: BeautifulSoup) -> dict[str, str]:
    return {a.get_text().strip(): str(a["href"]) for a in chapter.select(".article-header-buttons a[href]")}


def searches(site: Path) -> str:
    """Whether the search shows a summary of each page that it finds."""
    options = (site / "_static" / "documentation_options.js").read_text(encoding="utf-8")
    return re.findall(r"SHOW_SEARCH_SUMMARY: (\w+)", options)[0]


def test_a_local_site_has_a_download_and_no_button_to_elsewhere(tmp_path: Path) -> None:
    site = built(tmp_path, None)
    chapter = page(site / "notebooks" / f"{NAME}.html")
    assert buttons(chapter) == {".ipynb": f"../_sources/notebooks/{NAME}.ipynb"}
    assert nbformat.read(site / "_sources" / "notebooks" / f"{NAME}.ipynb", as_version=4).cells
    assert not chapter.select('meta[property^="og:"], link[rel=canonical]')
    assert page(site / "404.html").find("link", rel="stylesheet")["href"].startswith("/_static/")
    assert not page(site / "book" / "index.html").select("a[href$='.pdf']")
    assert searches(site) == "false", "a browser does not fetch pages of a folder"


def test_a_published_site_can_be_launched_shared_and_missed(tmp_path: Path) -> None:
    site = built(tmp_path, ADDRESS)
    chapter = page(site / "notebooks" / f"{NAME}.html")
    found = buttons(chapter)
    assert found["Binder"] == f"https://mybinder.org/v2/gh/somebody/faces/main?urlpath=lab/tree/notebooks/{NAME}.ipynb"
    branch = f"blob/{publishing.COLAB_BRANCH}/notebooks/{NAME}.ipynb"
    assert found["Colab"] == f"https://colab.research.google.com/github/somebody/faces/{branch}"
    assert found[".ipynb"] == f"../_sources/notebooks/{NAME}.ipynb"
    tags = {tag.get("property") or tag.get("name"): tag["content"] for tag in chapter.select("meta[content]")}
    assert tags["og:title"] == "Chapter" and tags["og:description"] == "Text."
    assert tags["og:image"] == f"{ADDRESS}/_static/card.png" and tags["twitter:card"] == "summary_large_image"
    assert tags["og:url"] == f"{ADDRESS}/notebooks/{NAME}.html" == chapter.find("link", rel="canonical")["href"]
    assert page(site / "404.html").find("link", rel="stylesheet")["href"].startswith("/faces/_static/")
    of_person = buttons(page(site / f"{PERSON}.html"))  # no branch has a notebook of that name
    assert of_person[".ipynb"] == f"../../_sources/{PERSON}.ipynb" and not {"Binder", "Colab"} & set(of_person)
    (pdf,) = page(site / "book" / "index.html").select("a[href$='.pdf']")
    steps = [step.get("run", "") for step in WORKFLOWS["publish"]["jobs"]["publish"]["steps"]]
    assert pdf["href"] == "../book.pdf" and "cp _build/$PROFILE/book.pdf _build/$PROFILE/html/" in steps
    assert searches(site) == "true"


def test_an_address_that_is_none_is_refused() -> None:
    for wrong in ("somebody.github.io/faces", "file:///tmp", "https://"):
        with pytest.raises(ValueError, match="is no address of a site"):
            publishing.with_address(CONFIG, wrong)
    before = json.dumps(CONFIG)
    publishing.with_address(CONFIG, ADDRESS)
    assert json.dumps(CONFIG) == before


def test_a_site_that_may_not_be_published_is_not_built_for_an_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SITE_URL", ADDRESS)
    monkeypatch.setenv("XFR_BUILD", str(tmp_path))
    folder = tmp_path / "facescrub12"
    (folder / "notebooks").mkdir(parents=True)
    for source in make_book.sources():
        (folder / "notebooks" / source.name).touch()
    (folder / "results.json").touch()
    with pytest.raises(SystemExit, match="not publishable"):
        make_book.stage_site("facescrub12")


def test_the_card_has_the_size_that_is_announced(tmp_path: Path) -> None:
    publishing.draw_card(tmp_path / "card.png")
    with Image.open(tmp_path / "card.png") as picture:
        assert picture.size == publishing.CARD
        assert len(set(picture.convert("L").resize((60, 30)).tobytes())) > 20, "there is something on it"


def test_notebooks_for_colab_set_up_their_machine(tmp_path: Path) -> None:
    sources = make_book.sources()
    for source, written in zip(sources, publishing.colab_notebooks(tmp_path), strict=True):
        own, theirs = (nbformat.read(path, as_version=4) for path in (source, written))
        nbformat.validate(theirs)
        assert [cell.source for cell in theirs.cells[1:]] == [cell.source for cell in own.cells]
        setup = theirs.cells[0].source
        assert "git clone --quiet --depth 1 https://github.com/somebody/faces " in setup
        runs = setup.partition("run quick ")[2].splitlines()[:1]
        assert (runs[0].split() if runs else []) == artefacts_of(source)
        (path,) = re.findall(r"sys\.path\[:0\] = (.*)", setup)
        assert {Path(folder).relative_to("/content/book") for folder in json.loads(path)} == {Path(), Path("notebooks")}


def test_a_push_is_published_only_when_its_tests_have_passed() -> None:
    (started,) = (
        WORKFLOWS["publish"][key] for key in WORKFLOWS["publish"] if key in ("on", True)
    )  # YAML 1.1: on is true
    assert set(started) == {"workflow_run", "workflow_dispatch"}
    assert started["workflow_run"]["workflows"] == [WORKFLOWS["test"]["name"]]
    job = WORKFLOWS["publish"]["jobs"]["publish"]
    assert "workflow_run.conclusion == 'success'" in job["if"] and "workflow_run.event == 'push'" in job["if"]
    assert "workflow_run.head_sha" in job["steps"][0]["with"]["ref"]


def test_the_weekly_check_of_links_sees_every_page(tmp_path: Path) -> None:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    files = {toc["root"], PERSON, *(file for part in toc["parts"] for file in make_pdf.toc_files(part["chapters"]))}
    for file in files:
        (tmp_path / f"{file}.html").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{file}.html").touch()
    (arguments,) = (
        step["with"]["args"]
        for step in WORKFLOWS["links"]["jobs"]["links"]["steps"]
        if "lychee" in step.get("uses", "")
    )
    patterns = re.findall(
        r"'_build/quick/html/([^']+)'", arguments
    )  # quoted, or the shell would expand them its own way
    seen = {path.relative_to(tmp_path).with_suffix("").as_posix() for p in patterns for path in tmp_path.glob(p)}
    assert seen == files


def test_binder_has_what_it_needs() -> None:
    own = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    theirs = yaml.safe_load((ROOT / "binder" / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    assert own[0] == theirs[0] and {"pip", "pytorch-cpu", "torchvision"} < set(theirs)
    script = (ROOT / "binder" / "postBuild").read_text(encoding="utf-8")
    (run,) = re.findall(r"make_book\.py run quick (.*)", script)
    assert '-e ".[all]"' in script
    assert set(run.split()) == {name for source in make_book.all_notebooks() for name in artefacts_of(source)}
    assert (ROOT / "binder" / "postBuild").stat().st_mode & 0o111, "Binder runs it"

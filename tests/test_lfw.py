"""LFW from a folder, an archive or the network: what is laid out, and what is said where that fails."""

import io
import os
import tarfile
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from facedata import lfw
from facedata.scan import scan_faces

PEOPLE = {"George_W_Bush": 30, "Abdel_Nasser_Assidi": 2, "Zorica_Radovic": 1}


def picture(number: int) -> bytes:
    """A picture of 250x250 pixels that no other number has."""
    values = np.random.default_rng(number).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).resize((250, 250)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture(scope="module")
def pictures() -> dict[str, bytes]:
    names = [f"{name}/{name}_{i + 1:04d}.jpg" for name, count in PEOPLE.items() for i in range(count)]
    return {name: picture(i) for i, name in enumerate(names)}


def make_folder(root: Path, pictures: dict[str, bytes]) -> Path:
    for name, data in pictures.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def make_archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def laid_out(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_archive_in_lfws_layout_is_laid_out(tmp_path: Path, pictures: dict[str, bytes]) -> None:
    files = {"lfw/README.txt": b"text"} | {f"lfw/{name}": data for name, data in pictures.items()}
    folder = lfw.fetch_lfw(tmp_path / "out", source=make_archive(tmp_path / "lfw.tgz", files), progress=False)
    assert folder == tmp_path / "out"
    assert laid_out(folder) == pictures


def test_a_folder_is_laid_out_however_deep_its_people_lie(tmp_path: Path, pictures: dict[str, bytes]) -> None:
    deep = make_folder(tmp_path / "download" / "lfw-deepfunneled" / "lfw-deepfunneled", pictures)
    (deep / "George_W_Bush" / "Somebody_Else_0001.jpg").write_bytes(b"not at his own name")
    lfw.fetch_lfw(tmp_path / "out", source=tmp_path / "download", progress=False)
    assert laid_out(tmp_path / "out") == pictures


def test_people_behind_links_are_laid_out_and_a_pipe_is_named(tmp_path: Path, pictures: dict[str, bytes]) -> None:
    store = make_folder(tmp_path / "store", pictures)
    (tmp_path / "in/lfw").mkdir(parents=True)
    for name in PEOPLE:
        (tmp_path / "in/lfw" / name).symlink_to(store / name)
    lfw.fetch_lfw(tmp_path / "out", source=tmp_path / "in", progress=False)
    assert laid_out(tmp_path / "out") == pictures
    os.mkfifo(store / "Zorica_Radovic/Zorica_Radovic_0002.jpg")
    with pytest.raises(ValueError, match="Zorica_Radovic_0002.jpg: not a regular file; remove it"):
        lfw.fetch_lfw(tmp_path / "out", source=tmp_path / "in", progress=False)


def test_only_what_is_missing_is_copied(tmp_path: Path, pictures: dict[str, bytes]) -> None:
    source, out = make_folder(tmp_path / "in", pictures), tmp_path / "out"
    lfw.fetch_lfw(out, source=source, progress=False)
    kept, lost = out / "Zorica_Radovic/Zorica_Radovic_0001.jpg", out / "George_W_Bush/George_W_Bush_0007.jpg"
    kept.write_bytes(b"mine")
    lost.unlink()
    lfw.fetch_lfw(out, source=source, progress=False)
    assert kept.read_bytes() == b"mine"
    assert lost.read_bytes() == pictures["George_W_Bush/George_W_Bush_0007.jpg"]


def test_the_default_folder_is_below_the_data_root(
    tmp_path: Path, pictures: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XFR_DATA", str(tmp_path))
    assert lfw.fetch_lfw(source=make_folder(tmp_path / "in", pictures), progress=False) == tmp_path / "lfw"


def test_a_truncated_archive_is_named_and_can_be_mended(tmp_path: Path, pictures: dict[str, bytes]) -> None:
    whole = make_archive(tmp_path / "lfw.tgz", {f"lfw/{name}": data for name, data in pictures.items()})
    cut = tmp_path / "cut.tgz"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"cut\.tgz: not a whole tar archive .*download lfw\.tgz by hand"):
        lfw.fetch_lfw(tmp_path / "out", source=cut, progress=False)
    some = laid_out(tmp_path / "out")
    assert 0 < len(some) < len(pictures)
    assert all(pictures[name] == data for name, data in some.items())  # no half picture
    lfw.fetch_lfw(tmp_path / "out", source=whole, progress=False)
    assert laid_out(tmp_path / "out") == pictures


def test_an_archive_cannot_write_outside_the_folder(tmp_path: Path, pictures: dict[str, bytes]) -> None:
    data = next(iter(pictures.values()))
    names = ["../../up/up_0001.jpg", "/tmp/xfr-abs/xfr-abs_0001.jpg", "lfw/../.._0001.jpg", "lfw/..0/..0_0001.jpg"]
    source = make_archive(tmp_path / "evil.tgz", dict.fromkeys(names, data))
    lfw.fetch_lfw(tmp_path / "a" / "b" / "out", source=source, progress=False)
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"evil.tgz", "a/b/out/up/up_0001.jpg", "a/b/out/xfr-abs/xfr-abs_0001.jpg"}


@pytest.mark.parametrize(
    ("name", "kind", "sentence"),
    [
        ("nowhere", FileNotFoundError, "nowhere: no such folder or archive; download lfw.tgz by hand"),
        ("page.tgz", ValueError, "page.tgz: not a whole tar archive"),
        ("empty", ValueError, "empty: holds no picture at <Name>/<Name>_0001.jpg"),
    ],
)
def test_a_source_that_is_not_lfw_is_refused(tmp_path: Path, name: str, kind: type[Exception], sentence: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "page.tgz").write_text("<html>404</html>" * 100)
    with pytest.raises(kind, match=sentence):
        lfw.fetch_lfw(tmp_path / "out", source=tmp_path / name, progress=False)


def test_what_is_no_archive_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "page.tgz").write_text("<html>404</html>" * 100)
    with pytest.raises(ValueError) as refused:
        lfw.fetch_lfw(tmp_path / "out", source=tmp_path / "page.tgz", progress=False)
    assert "\n" not in str(refused.value)


def test_the_command_fails_where_no_picture_is_left(
    tmp_path: Path, pictures: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_folder(tmp_path / "in", pictures)
    common = ["--out", str(tmp_path / "lfw"), "--source", str(source), "--no-progress"]
    with pytest.raises(SystemExit, match="lfw: no picture can be used; the reasons stand above"):
        lfw.main([*common, "--min-images", "99"])
    assert "33 files, of which 0 of 0 people are used (others: 33 too_few_images)" in capsys.readouterr().out


def test_the_command_fails_where_no_face_is_found(
    tmp_path: Path, pictures: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from facedata import align

    monkeypatch.setattr(align, "find_detector", lambda: lambda picture: [])
    common = ["--out", str(tmp_path / "lfw"), "--source", str(make_folder(tmp_path / "in", pictures)), "--no-progress"]
    with pytest.raises(SystemExit, match="lfw_aligned: no picture could be aligned; the reasons stand above"):
        lfw.main([*common, "--align"])


def test_without_a_network_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(sklearn.datasets, "fetch_lfw_people", refuse)
    with pytest.raises(ConnectionError, match="cannot be downloaded .*not known.*by hand.*--source PATH"):
        lfw.fetch_lfw(tmp_path / "lfw", progress=False)
    assert not list(tmp_path.iterdir())
    with pytest.raises(SystemExit, match="cannot be downloaded"):
        lfw.main(["--out", str(tmp_path / "lfw"), "--no-progress"])


@pytest.mark.parametrize("funneled", [False, True])
def test_scikit_learns_folder_is_laid_out_and_not_fetched_twice(
    tmp_path: Path, pictures: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, funneled: bool
) -> None:
    calls = []

    def fetch(*, data_home: str, funneled: bool, min_faces_per_person: int) -> None:
        calls.append(funneled)
        assert min_faces_per_person == 530  # else it decodes every picture
        make_folder(Path(data_home, "lfw_home", "lfw_funneled" if funneled else "lfw"), pictures)

    monkeypatch.setattr(sklearn.datasets, "fetch_lfw_people", fetch)
    monkeypatch.setattr(lfw, "LFW_PICTURES", len(pictures))
    for _ in range(2):
        lfw.fetch_lfw(tmp_path / "lfw", funneled=funneled, progress=False)
    assert calls == [funneled]
    assert laid_out(tmp_path) == {f"lfw/{name}": data for name, data in pictures.items()}
    monkeypatch.setattr(lfw, "LFW_PICTURES", len(pictures) + 1)
    with pytest.raises(ValueError, match="LFW came with 33 pictures, not its 34"):
        lfw.fetch_lfw(tmp_path / "lfw", progress=False)


def test_scikit_learn_still_has_what_we_call() -> None:
    """Its own parameters and folder names, which the fake above stands for."""
    import inspect

    from sklearn.datasets import _lfw

    assert {"data_home", "funneled", "min_faces_per_person"} <= set(
        inspect.signature(sklearn.datasets.fetch_lfw_people).parameters
    )
    text = inspect.getsource(_lfw._check_fetch_lfw)
    assert all(f'"{name}"' in text for name in ("lfw_home", "lfw_funneled", "lfw"))
    assert _lfw.ARCHIVE.url in lfw._BY_HAND


def test_people_are_chosen_and_capped_by_the_command(
    tmp_path: Path, pictures: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_folder(tmp_path / "in", pictures)
    common = ["--out", str(tmp_path / "lfw"), "--source", str(source), "--no-progress", "--min-images", "2"]
    lfw.main(common)
    assert "33 files, of which 32 of 2 people are used" in capsys.readouterr().out
    lfw.main([*common, "--max-images", "5"])
    assert "33 files, of which 7 of 2 people are used" in capsys.readouterr().out


def test_the_one_with_many_pictures_is_capped_by_seed(tmp_path: Path, pictures: dict[str, bytes]) -> None:
    folder = lfw.fetch_lfw(tmp_path / "lfw", source=make_folder(tmp_path / "in", pictures), progress=False)

    def drawn(seed: int) -> list[str]:
        table = scan_faces(folder, min_images=2, max_images=5, seed=seed, progress=False)
        used = table[table["status"] == "used"]
        assert used["identity"].value_counts().to_dict() == {"George_W_Bush": 5, "Abdel_Nasser_Assidi": 2}
        return used["path"].tolist()

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)


def test_the_command_aligns_only_the_pictures_drawn(
    tmp_path: Path, pictures: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from facedata import align
    from facedata.detect import Face

    points = (align.TEMPLATE + 0.5) * 250 / 112
    face = Face(np.array([50.0, 50, 200, 220]), points, 0.9)
    monkeypatch.setattr(align, "find_detector", lambda: lambda picture: [face])
    common = ["--out", str(tmp_path / "lfw"), "--source", str(make_folder(tmp_path / "in", pictures)), "--no-progress"]
    lfw.main([*common, "--min-images", "2", "--max-images", "3", "--align"])
    out = laid_out(tmp_path / "lfw_aligned")
    assert sorted({name.partition("/")[0] for name in out}) == ["Abdel_Nasser_Assidi", "George_W_Bush", "align.csv"]
    assert len(out) == 3 + 2 + 1
    assert "5 aligned" in capsys.readouterr().out

"""The check before a long run: each thing that is missing is named, and the time is an honest multiple of a step's."""

import json
from pathlib import Path
from typing import Any

import preflight
import pytest
import torch
import yaml
from PIL import Image

from xfrlib.models import FaceClassifier, load_backbone
from xfrlib.run import NotebookRun
from xfrlib.training import Recipe

CPU = torch.device("cpu")
FOLDER = {"dataset": "folder", "folder": "faces", "min_images": 3, "batch_size": 8, "epochs": 4, "top_k": 2}


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("XFR_BUILD", str(tmp_path / "build"))
    monkeypatch.setenv("XFR_DATA", str(tmp_path))
    monkeypatch.setattr(preflight, "_rate", lambda work, device, seconds: (work(), 10.0)[1])  # no timing here

    def write(**values: Any) -> NotebookRun:
        path = tmp_path / "p.yaml"
        path.write_text(yaml.safe_dump(FOLDER | values))
        return NotebookRun("preflight", str(path))

    return write


def people(root: Path, **counts: int) -> None:
    for name, count in counts.items():
        (root / "faces" / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (8, 8)).save(root / "faces" / name / f"{number}.png")


def by_name(checks: list[preflight.Check]) -> dict[str, preflight.Check]:
    return {check.name: check for check in checks}


def test_all_is_well(tmp_path: Path, profile: Any, capsys: pytest.CaptureFixture[str]) -> None:
    people(tmp_path, ann=5, bob=4, cyd=2)
    run = profile(max_images=4)
    checks, _ = preflight.all_checks(run)
    assert all(check.enough for check in checks)
    assert by_name(checks)["data"].found.startswith("8 pictures of 2 people in ")
    preflight.main([f"--profile={tmp_path / 'p.yaml'}"])
    assert capsys.readouterr().out.count("ok ") == 4
    written = json.loads((tmp_path / "build/p/preflight.json").read_text())
    assert written["hours"] > 0 and list(written["checks"]) == ["data", "checkpoint", "disk", "device"]


def test_the_hours_are_counted_by_hand(tmp_path: Path, profile: Any) -> None:
    people(tmp_path, ann=50, bob=50)
    run = profile(fills=["black", "grey"], draws=3, accumulation=2, networks=2)
    _, hours = preflight.all_checks(run)
    # 10 steps a second of 8 pictures; 80 to train on in 4 epochs. Per test picture: 2 fills, deleted and retained,
    # 4 maps and 6 controls of 3 draws and the disc; two networks are trained and one of them is judged.
    passes = 2 * 10 * 4 + 10 * 2 * 2 * (4 + 6 * 3 + 1)
    assert hours == pytest.approx((2 * 80 * 4 / 80 + passes / 80) / 3600)


@pytest.mark.parametrize(
    ("values", "name", "sentence"),
    [
        ({"folder": "nowhere"}, "data", "set XFR_DATA"),
        ({"min_images": 6}, "data", "0 pictures of 0 people"),
        ({"top_k": 3}, "data", "at least top_k = 3 people"),
        ({"checkpoint": "weights/none.ckpt"}, "checkpoint", "No checkpoint at"),
        ({"hours": 1e-9}, "device", "the profile allows hours = 1e-09"),
    ],
)
def test_what_is_missing_is_named_and_stops(
    tmp_path: Path, profile: Any, capsys: pytest.CaptureFixture[str], values: dict[str, Any], name: str, sentence: str
) -> None:
    people(tmp_path, ann=5, bob=4)
    checks = by_name(preflight.all_checks(profile(**values))[0])
    assert not checks[name].enough and sentence in checks[name].found
    assert ("the whole takes about" in checks["device"].found) == (
        values.get("folder") != "nowhere" and "min_images" not in values
    )
    assert [check.name for check in checks.values() if not check.enough] == [name]
    with pytest.raises(SystemExit, match="cannot run yet"):
        preflight.main([f"--profile={tmp_path / 'p.yaml'}"])
    assert f"NOT  {name}: " in capsys.readouterr().out
    assert not (tmp_path / "build/p/preflight.json").exists()


def test_people_are_found_as_the_first_chapter_finds_them(tmp_path: Path, profile: Any) -> None:
    people(tmp_path / "store", ann=3)
    people(tmp_path, bob=3)
    (tmp_path / "faces/ann").symlink_to(tmp_path / "store/faces/ann")
    (tmp_path / "faces/bob/3.cr2").touch()
    found = by_name(preflight.all_checks(profile())[0])["data"].found
    assert found.startswith("6 pictures of 2 people in ") and "(left out: 1 .cr2: convert to JPEG)" in found
    people(tmp_path / "levels/faces/train", ann=3)
    data = by_name(preflight.all_checks(profile(folder="levels/faces"))[0])["data"]
    assert not data.enough and "its people lie deeper, in train/faces (such as" in data.found


def test_a_data_set_smaller_than_expected_is_reported_and_allowed(tmp_path: Path, profile: Any) -> None:
    people(tmp_path, ann=5, bob=4)
    data = by_name(preflight.all_checks(profile(identities=3, pictures=20))[0])["data"]
    assert data.enough and "missing 1 people of 3 and 11 pictures of 20" in data.found


def test_a_full_disk_and_a_full_memory_are_named(tmp_path: Path, profile: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    people(tmp_path, ann=5, bob=4)
    run = profile()
    monkeypatch.setattr(preflight, "_SPARE_BYTES", 1e18)

    def full(*_: Any, **__: Any) -> float:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(preflight, "training_rate", full)
    checks, hours = preflight.all_checks(run)
    assert "make room" in by_name(checks)["disk"].found and not by_name(checks)["disk"].enough
    assert "raise accumulation" in by_name(checks)["device"].found and hours == float("inf")


def test_rates_are_positive_and_training_costs_more_than_looking() -> None:
    model = FaceClassifier(load_backbone("slim"), 3)
    learning = preflight.training_rate(model, Recipe(batch_size=4, accumulation=2), CPU, seconds=0.2)
    looking = preflight.inference_rate(model, CPU, 4, seconds=0.2)
    assert 0 < learning < looking
    assert preflight.matrix_rate(CPU, torch.float32, size=256, seconds=0.05) > 1e6


def test_the_papers_profile_is_the_papers_recipe() -> None:
    settings = NotebookRun("02_fine_tuning", "paper").profile
    assert (settings.backbone, settings.identities, settings.pictures) == ("ir_101", 530, 43148)
    assert settings.fractions == (0.8, 0.1, 0.1) and settings.identities == 265 + 265
    assert settings.pictures == 23216 + 19932 == 34099 + 4555 + 4494
    assert (settings.epochs, settings.learning_rate, settings.lr_step, settings.lr_gamma) == (20, 0.005, 10, 0.1)
    assert settings.backbone_learning_rate is None and settings.freeze == "nothing"
    assert (settings.top_k, settings.fraction, settings.fills[0]) == (5, 0.2, "black")
    assert settings.checkpoint.endswith("adaface_ir101_webface12m") and not settings.publishable

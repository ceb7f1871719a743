"""Several networks of one profile: where each lies, and that none is taken for another."""

from pathlib import Path

import pytest

from xfrlib import FaceClassifier
from xfrlib.artifacts import MissingArtifactError
from xfrlib.models import load_backbone
from xfrlib.models.classifier import save_classifier
from xfrlib.run import NotebookRun


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XFR_BUILD", str(tmp_path))
    return tmp_path / "quick"


def save(run: NotebookRun) -> None:
    model = FaceClassifier(load_backbone("slim"), 3, seed=run.profile.seed)
    save_classifier(run.output("classifier.safetensors"), model, ["a", "b", "c"])


def test_each_network_is_the_run_of_its_seed(build: Path) -> None:
    run = NotebookRun("02_fine_tuning", "quick")
    assert run.network(0) is run and run.network(2).profile.seed == 2
    assert run.network(2).folder == NotebookRun("02_fine_tuning", "quick", {"seed": 2}).folder == build / "runs/seed=2"
    changed = NotebookRun("02_fine_tuning", "quick", {"epochs": 1})
    assert changed.network(1).folder == build / "runs/epochs=1,seed=1"
    assert NotebookRun("02_fine_tuning", "quick", {}, "", "mine").network(1).folder == build / "runs/mine,seed=1"
    with pytest.raises(ValueError, match="network 5: the profile has 5"):
        run.network(5)


def test_with_another_seed_the_network_of_that_seed_is_judged_whatever_else_changes(build: Path) -> None:
    for folder in (build, build / "runs/seed=1"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "classifier.safetensors").touch()

    def needed(changes: dict[str, float]) -> Path:
        run = NotebookRun("06_full_evaluation", "quick", changes)
        return run.need("classifier.safetensors", "02_fine_tuning").parent

    assert needed({"seed": 1}) == needed({"seed": 1, "delta": 0.5}) == build / "runs/seed=1"
    assert needed({"delta": 0.5}) == needed({"seed": 3, "delta": 0.5}) == build


def test_a_run_with_other_settings_finds_the_networks_of_the_profile_and_never_another(build: Path) -> None:
    run = NotebookRun("02_fine_tuning", "quick")
    save(run)
    save(run.network(1))
    other = NotebookRun("07_other_explainers", "quick", {"top_k": 3})
    for there in (run, other):
        first, second = there.classifier(0), there.classifier(1)
        assert not first.weight.equal(second.weight)
        with pytest.raises(MissingArtifactError, match="network 2 of the profile 'quick' is missing"):
            there.classifier(2)

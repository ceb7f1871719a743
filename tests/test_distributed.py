"""Fine-tuning and evaluation divided among processes by ``accelerate launch`` give what one process gives."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from prepared import prepare_manifest
from safetensors.torch import load_file
from tiny_training import train

from studies.processes import launch
from xfrlib.training.recipe import Recipe, Steps

LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines=1",
          "--main_process_port=0", "--mixed_precision=no", "--dynamo_backend=no"]  # fmt: skip
PROFILE = {
    "dataset": "synthetic", "shows_real_people": False, "families": 2, "family_size": 2, "pictures_per_identity": 10,
    "epochs": 2, "batch_size": 8, "learning_rate": 0.001, "freeze": "batchnorm", "augmentation": "none",
    "precision": "fp32", "draws": 1, "eval_batch_size": 1, "top_k": 3,
}  # fmt: skip


def launched(*command: str, build: Path | None = None) -> str:
    """Output of a launch; its processes share the cores with everybody else."""
    environment = (
        os.environ
        | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        | ({"XFR_BUILD": str(build)} if build else {})
    )
    done = subprocess.run([*LAUNCH, *command], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("pictures", [1, 7, 8, 9, 23])
def test_distributed_steps_are_those_of_one_process(pictures: int) -> None:
    recipe = Recipe(batch_size=8, seed=4)
    alone, *shared = (Steps(pictures, recipe, i, n) for i, n in ((0, 1), (0, 3), (1, 3), (2, 3)))
    for steps in (alone, *shared):
        steps.begin(2)
        assert all(len(share) >= 2 for share in steps), "BatchNorm needs two pictures"
        assert len(list(steps)) == len(steps.sizes)
    assert [len(share) for share in alone] == alone.sizes

    for whole, size, parts in zip(alone, shared[0].sizes, zip(*shared, strict=True), strict=False):
        assert size == len(whole) == len(set(whole)) == sum(map(len, parts))
        assert set.union(*map(set, parts)) == set(whole)
    left_out = pictures % 8 if pictures % 8 < 2 else 0
    assert sum(alone.sizes) == pictures - left_out


def test_the_order_is_drawn_by_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[list[tuple[int, int]]]:
        steps = Steps(20, Recipe(seed=seed))
        steps.begin(epoch)
        return list(steps)

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2) != order(1, 2)


def history(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "history.json").read_text())


@pytest.mark.long
@pytest.mark.parametrize("accumulation", [1, 2])
def test_distributed_losses_equal_those_of_one_process(tmp_path: Path, accumulation: int) -> None:
    settings = {"freeze": "batchnorm", "epochs": 3, "batch_size": 5, "accumulation": accumulation}
    for name in ("alone", "shared"):
        (tmp_path / name).mkdir()
    train(tmp_path / "alone", **settings | {"accumulation": 1})
    script = str(Path(__file__).with_name("tiny_training.py"))
    launched("--num_processes=2", script, str(tmp_path / "shared"), json.dumps(settings))
    alone, shared = history(tmp_path / "alone"), history(tmp_path / "shared")
    assert (alone.pop("processes"), shared.pop("processes")) == (1, 2)
    for column, values in alone.items():
        assert shared[column] == pytest.approx(values, abs=1e-4), column
    assert alone["train_loss"][0] > alone["train_loss"][-1] > 0
    weights = load_file(tmp_path / "shared/weights.safetensors")
    for key, value in load_file(tmp_path / "alone/weights.safetensors").items():
        torch.testing.assert_close(weights[key], value, rtol=1e-3, atol=1e-4, msg=key)


@pytest.mark.long
def test_distributed_commands_give_the_notebooks_what_one_process_would(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from facedata import scan
    from madefaces import people
    from xfrlib import protocol
    from xfrlib.models.classifier import FaceClassifier, save_classifier
    from xfrlib.run import NotebookRun
    from xfrlib.training import fine_tune, fine_tuning_options

    profile = tmp_path / "made.yaml"
    profile.write_text(yaml.safe_dump(PROFILE))
    build = tmp_path / "build"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XFR_BUILD", str(build))
        run = NotebookRun("01_data_preparation", str(profile))
        size = {name: PROFILE[name] for name in ("families", "family_size", "pictures_per_identity")}
        people.write_faces(run.faces_root(), **size, seed=0)
        manifest = prepare_manifest(run.faces_root(), near_threshold=None)
        scan.write_manifest(manifest, run.output("manifest.csv"))

        said = launched("--num_processes=2", "-m", "xfrlib.training", f"--profile={profile}", build=build)
        assert "2 epochs on 2 x CPU" in said and "02_fine_tuning" in said
        run = NotebookRun("02_fine_tuning", str(profile))
        train_set, held_out = run.dataset("train"), run.dataset("validation")
        model = FaceClassifier(run.backbone(), train_set.num_classes, seed=0)
        tuning = fine_tune(model, train_set, held_out, **fine_tuning_options(run), progress=False)
        assert tuning.processes == 2 and "holds all 2 epochs: nothing to train" in tuning.note
        save_classifier(run.output("classifier.safetensors"), model, train_set.identities)
        run.write_json("calibration.json", {"temperature": [2.0]})

        patch.setenv("OMP_NUM_THREADS", "1")
        launch(run, "xfrlib.protocol", 2)  # as a notebook does
        assert "from 2 process(es)" in capfd.readouterr().out
        table = build / "made/evaluation.parquet"
        shared = pd.read_parquet(table)
        shards = sorted((build / "made/evaluation_shards").glob("*/*.parquet"))
        assert len(shards) == len(run.dataset("test")) == 4
        assert [path.name for path in table.iterdir()] == ["06_full_evaluation.parquet"]
        for path in (*table.iterdir(), *shards):
            path.unlink()
        protocol.main([f"--profile={profile}"])
        pd.testing.assert_frame_equal(pd.read_parquet(table), shared, rtol=1e-5)
        assert pd.read_csv(build / "made/training_log.csv")["epoch"].tolist() == [1, 2]
        assert list((build / "made/tensorboard").iterdir())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--profile=nobody"], "there is no profile 'nobody'"),
        (["--profile=quick", "--set=epohcs=3"], "did you mean 'epochs'"),
        (["--profile=quick", "--set=epochs=0"], "epochs = 0: must be at least 1"),
        (["--profile=quick", "--set=epochs"], "epochs: not FIELD=VALUE"),
        (["--profile=quick", "--set=fills=[grey"], "fills=[grey: not FIELD=VALUE, with a value as YAML writes it"),
    ],
)
def test_the_distributed_command_line_names_what_is_wrong(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from xfrlib.training.__main__ import main

    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2 and sentence in capsys.readouterr().err


def test_a_notebook_launches_its_own_settings_and_hears_of_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    from xfrlib.run import NotebookRun, command_line_run

    given: list[list[str]] = []

    def fail(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        given.append(command)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(subprocess, "run", fail)
    changes = {"epochs": 3, "backbone_learning_rate": 0.0005, "fills": ["grey"], "augmentation": "none"}
    run = NotebookRun("02_fine_tuning", "facescrub12", changes, "somewhere", "gentle")
    launch(run, "xfrlib.training", 1)
    assert not given, "one process needs no launcher"
    with pytest.raises(RuntimeError, match="xfrlib.training stopped with code 1 in one of 3 processes"):
        launch(run, "xfrlib.training", 3)
    (command,) = given
    module = command.index("-m", 3)
    assert command[module + 1] == "xfrlib.training" and "--num_processes=3" in command[:module]
    there = command_line_run("02_fine_tuning", "", "", command[module + 2 :])
    assert (there.profile, there.folder, there.data_root) == (run.profile, run.folder, run.data_root)

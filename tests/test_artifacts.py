"""Artefacts are whole or absent, results keep their schema, and a notebook says what is wrong before it starts."""

import copy
import io
import json
import re
import runpy
import sys
from pathlib import Path
from types import ModuleType

import jsonschema
import make_book
import pytest
import torch
from parameters import start

from madefaces import people
from studies.full_evaluation import write_results
from xfrlib import artifacts, explainers, judge, protocol, training
from xfrlib.data.images import FaceImageError
from xfrlib.profile import load_profile
from xfrlib.run import ParameterError
from xfrlib.source_files import source_files
from xfrlib.training import __main__ as training_command

ROOT = Path(__file__).resolve().parents[1]


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with pytest.raises(KeyboardInterrupt), artifacts.write_atomic(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert list(path.parent.iterdir()) == []
    with artifacts.write_atomic(path) as part:
        part.write_text("whole")
    assert path.read_text() == "whole" and list(path.parent.iterdir()) == [path]


def test_a_full_disk_is_named_whatever_the_writer_made_of_it(tmp_path, monkeypatch):
    usage = artifacts.shutil.disk_usage(tmp_path)
    for free, kind in ((100, OSError), (2**30, RuntimeError)):
        monkeypatch.setattr(artifacts.shutil, "disk_usage", lambda path, free=free: usage._replace(free=free))
        with pytest.raises(kind) as caught, artifacts.write_atomic(tmp_path / "a.pt"):
            raise RuntimeError("unexpected pos 39112 vs 39056")
        assert (f"No space left on device: '{tmp_path}/a.pt'" in str(caught.value)) == (kind is OSError)


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="Out of range float"):
        artifacts.write_json(tmp_path / "a.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_fingerprint_depends_on_values():
    one = artifacts.fingerprint({"x": 1, "y": 2}, "a")
    assert artifacts.fingerprint({"y": 2, "x": 1}, "a") == one
    assert artifacts.fingerprint({"x": 1, "y": 3}, "a") != one


def test_fingerprint_of_a_module_depends_on_what_it_imports(tmp_path):
    painter, brush, other = (tmp_path / name for name in ("painter.py", "brush.py", "other.py"))
    painter.write_text("from brush import stroke")
    brush.write_text("stroke = 1")
    module = ModuleType("painter")
    module.__file__ = str(painter)
    one = artifacts.fingerprint(module)
    other.write_text("nobody = 'uses it'")
    assert artifacts.fingerprint(module) == one
    brush.write_text("stroke = 2")
    assert artifacts.fingerprint(module) != one


@pytest.mark.parametrize(
    ("module", "needed"),
    [
        (people, "madefaces/face_paint.py"),
        (explainers, "xfrlib/judge.py"),
        (judge, "xfrlib/controls.py"),
        (training, "xfrlib/training/recipe.py"),
    ],
)
def test_what_is_kept_knows_the_code_that_its_own_code_calls(module, needed):
    """The painter of the made faces, the fill of RISE and LIME, the controls of the judge, what alters pictures."""
    assert ROOT / needed in source_files(module)


def results():
    interval = {"value": 1.0, "low": 0.0, "high": 2.0}
    kinds = {
        kind: dict.fromkeys(("drop_points", "drop_relative", "prediction_change"), interval)
        for kind in ("deletion", "retention")
    }
    names = ("sdd", "cam", "random_map", "scattered", "box", "shifted", "other_identity", "disc")
    provenance = (
        "commit",
        "notebook",
        "profile",
        "seed",
        "device",
        "torch",
        "data_hash",
        "classifier_sha256",
        "settings",
    )
    return {
        "schema_version": 1, "profile": "quick", "seed": 0, "data_hash": "0" * 64, "identities": 30,
        "images": {"train": 3, "validation": 1, "test": 1}, "settings": {}, "test": {"accuracy": interval},
        "fine_tuning": {
            "backbone": "slim", "checkpoint_source": "builtin", "checkpoint_sha256": "0" * 64, "device": "CPU",
            "processes": 1, "precision": "fp32", "epochs": 6, "best_epoch": 5, "seconds": 1.0,
        },
        "methods": {n: {"black": {"images": 1, "draws": 1, **kinds}} for n in names},
        "differences": {"sdd_minus_cam": {"black": kinds}},
        "provenance": {**dict.fromkeys(provenance, ""), "seconds": 1.0},
    }  # fmt: skip


def test_results_keep_their_schema(tmp_path):
    write_results(tmp_path / "results.json", results())
    assert json.loads((tmp_path / "results.json").read_text()) == results()
    for path in (("methods", "sdd", "black", "deletion", "drop_points", "low"), ("methods", "disc"), ("data_hash",),
                 ("fine_tuning", "checkpoint_sha256")):  # fmt: skip
        broken = copy.deepcopy(results())
        node = broken
        for key in path[:-1]:
            node = node[key]
        del node[path[-1]]
        with pytest.raises(jsonschema.ValidationError, match=f"'{path[-1]}' is a required property"):
            write_results(tmp_path / "broken.json", broken)
    assert not (tmp_path / "broken.json").exists()


@pytest.fixture(autouse=True)
def build(tmp_path, monkeypatch):
    monkeypatch.setenv("XFR_BUILD", str(tmp_path / "build"))
    return tmp_path / "build"


def test_unknown_and_impossible_parameters_are_named():
    injected = {"tpo_k": 3, "In": [], "_private": 1, "json": json, "CONSTANT": 1}
    with pytest.raises(ParameterError, match="unknown parameter 'tpo_k' of 06_full_evaluation; did you mean 'top_k'"):
        start("06_full_evaluation", injected, top_k=None)
    with pytest.raises(ParameterError, match="top_k = 0: must be at least 2"):
        start("06_full_evaluation", top_k=0)
    with pytest.raises(ParameterError, match="top_k = '3': must be int"):
        start("06_full_evaluation", top_k="3")
    with pytest.raises(ParameterError, match="no profile 'quik'"):
        start("06_full_evaluation", profile="quik")
    with pytest.raises(ParameterError, match="run_name"):
        start("06_full_evaluation", run_name="../up")


def test_a_cell_may_be_run_again_after_the_notebook_made_names_of_its_own():
    namespace = {}
    start("06_full_evaluation", namespace, top_k=3)
    namespace["table"] = 1
    assert start("06_full_evaluation", namespace, top_k=4).profile.top_k == 4


def test_changed_settings_write_beside_the_profiles_results_and_read_what_they_lack_from_there(build):
    plain = start("06_full_evaluation", top_k=None)
    assert plain.output("results.json") == build / "quick" / "results.json"
    same = start("06_full_evaluation", top_k=load_profile("quick").top_k)
    assert same.folder == plain.folder
    changed = start("06_full_evaluation", top_k=3, delta=2.0)
    assert changed.output("results.json") == build / "quick" / "runs" / "top_k=3,delta=2.0" / "results.json"
    named = start("06_full_evaluation", top_k=3, run_name="mine")
    assert named.folder == build / "quick" / "runs" / "mine"
    plain.output("a.json").write_text("{}")
    assert named.need("a.json", "01_data_preparation") == build / "quick" / "a.json"
    named.output("a.json").write_text("{}")
    assert named.need("a.json", "01_data_preparation") == named.folder / "a.json"


MANY = {
    "min_images": 9, "fractions": [0.7, 0.2, 0.1], "epochs": 3, "batch_size": 8, "learning_rate": 0.01,
    "weight_decay": 0.1, "lr_step": 2, "lr_gamma": 0.5, "augmentation": "photometric", "freeze": "backbone", "top_k": 4,
    "delta": 2.0, "fraction": 0.3, "draws": 2, "seed": 3, "scale": 2.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"checkpoint": "hub:owner/name", "top_k": 3}, "checkpoint=hub_owner_name,top_k=3"),
        ({"checkpoint": r"C:\weights\a.pt"}, "checkpoint=C__weights_a.pt"),
        (MANY, "16-settings-"),
        (MANY | {"delta": 3.0}, "16-settings-"),
    ],
)
def test_a_run_of_other_settings_has_a_folder_on_every_system(build, changes, name):
    folder = start("06_full_evaluation", **changes).output("results.json").parent
    assert folder.parent == build / "quick" / "runs" and folder.name.startswith(name) and len(folder.name) <= 120
    assert folder == start("06_full_evaluation", **changes).folder
    others = [MANY, MANY | {"delta": 3.0}, {"checkpoint": "hub:owner/name"}]
    assert [start("06_full_evaluation", **other).folder for other in others if other != changes].count(folder) == 0


@pytest.mark.parametrize("name", ["..", "../up", "a/b", "a\\b", "a:b", "what?", "x" * 121, "é" * 61])
def test_a_name_that_is_no_plain_folder_everywhere_is_refused(name):
    with pytest.raises(ParameterError, match="must be a plain name of a folder, of at most 120 bytes"):
        start("06_full_evaluation", run_name=name)


def test_a_tilde_in_a_setting_is_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XFR_BUILD", "~/build")
    assert artifacts.build_root() == make_book.build_root() == tmp_path / "build"
    (tmp_path / "faces").mkdir()
    run = start("02_fine_tuning", dataset="folder", folder="~/faces", checkpoint="~/none.pt")
    assert run.faces_root() == tmp_path / "faces"
    with pytest.raises(FileNotFoundError, match=f"No checkpoint at {tmp_path}/none.pt"):
        run.backbone()


@pytest.mark.parametrize("command", [training_command, protocol])
def test_a_command_before_the_data_stops_with_a_sentence(command):
    with pytest.raises(SystemExit, match=r"^manifest.csv of the profile 'quick' is missing: run notebooks/01_data_"):
        command.main(["--profile", "quick"])


COMMANDS = re.findall(r"{command-help} (\S+)", (ROOT / "book/api/commands.md").read_text(encoding="utf-8"))


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_errors_of_usage_name_a_command_as_it_is_typed(command, monkeypatch, capsys):
    file, name = ROOT / command, f"python {command}" if command.endswith(".py") else f"python -m {command}"
    monkeypatch.setenv("COLUMNS", "300")
    for wrong, code, said in (("--help", 0, f"usage: {name} ["), ("--no-such", 2, f"{name}: error: ")):
        monkeypatch.setattr(sys, "argv", [str(file), wrong])
        with pytest.raises(SystemExit) as ended:
            if file.is_file():
                runpy.run_path(str(file), run_name="__main__")
            runpy.run_module(command, run_name="__main__", alter_sys=True)
        printed = capsys.readouterr()
        assert ended.value.code == code and said in printed.out + printed.err
        assert "__main__" not in printed.out + printed.err


def test_a_command_shows_errors_of_the_program_whole_and_escapes_what_the_terminal_lacks(monkeypatch):
    @artifacts.in_sentences()
    def command(error=None):
        print("Zoë 王")
        if error:
            raise error

    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    command()
    terminal.flush()
    assert terminal.buffer.getvalue() == b"Zo\\xeb \\u738b\n"
    with pytest.raises(SystemExit, match="the sentence"):
        command(artifacts.MissingArtifactError("the sentence"))
    with pytest.raises(SystemExit, match="^stopped$"):  # Ctrl-C
        command(KeyboardInterrupt())
    with pytest.raises(TypeError):
        command(TypeError("a fault of ours"))


class Unreadable(torch.utils.data.Dataset):
    """A set of one picture, which cannot be read."""

    def __len__(self):
        return 1

    def __getitem__(self, row):
        raise FaceImageError("faces/1.png: empty file")


def test_a_command_shows_the_sentence_of_a_process_that_reads_pictures_without_its_stack():
    @artifacts.in_sentences()
    def command():
        next(iter(torch.utils.data.DataLoader(Unreadable(), num_workers=1)))

    with pytest.raises(SystemExit, match=r"^faces/1\.png: empty file$"):
        command()


def test_a_missing_artefact_says_which_notebook_to_run():
    run = start("06_full_evaluation")
    with pytest.raises(artifacts.MissingArtifactError, match="run notebooks/02_fine_tuning.ipynb first"):
        run.classifier()
    with pytest.raises(artifacts.MissingArtifactError, match="run notebooks/01_data_preparation.ipynb first"):
        run.dataset("test")


def test_a_missing_data_root_says_what_to_set(tmp_path):
    run = start("01_data_preparation", profile="facescrub12", data_root=str(tmp_path))
    with pytest.raises(FileNotFoundError, match="set XFR_DATA.*facescrub12/<identity>/<picture>"):
        run.faces_root()


def test_provenance_names_commit_profile_seed_device_and_versions():
    run = start("06_full_evaluation", seed=7)
    facts = run.provenance()
    assert facts["profile"] == "quick" and facts["seed"] == 7 and facts["settings"]["seed"] == 7
    assert {"commit", "device", "torch", "python", "xfrlib", "seconds"} <= facts.keys()
    path = run.write_json("x.json", {"a": 1})
    assert json.loads(path.read_text())["provenance"]["notebook"] == "06_full_evaluation"

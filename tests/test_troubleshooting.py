"""Every message that the page of symptoms quotes is provoked here, and is said as the page has it."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import make_book
import nbformat
import numpy as np
import preflight
import publishing
import pytest
import torch
import torchvision
import yaml
from parameters import start
from PIL import Image
from prepared import prepare_manifest
from test_checkpoints import Malicious, lightning
from test_how_to import says
from tiny_training import Coloured, tiny
from torch import nn

import results
import xfrlib
from facedata import detect
from facedata.align import TEMPLATE
from facedata.detect import Face
from facedata.scan import scan_faces
from madefaces import people
from matching import __main__ as command
from matching.faces import Aligner
from recognisers import load_recogniser
from studies.processes import launch
from xfrlib import profile
from xfrlib.controls import control_masks
from xfrlib.explainers.job import library_module
from xfrlib.models import FaceClassifier, load_backbone
from xfrlib.models.backbones import BACKBONES
from xfrlib.profile import load_profile, project_root
from xfrlib.run import NotebookRun
from xfrlib.training import fine_tune

PAGE = (project_root() / "book/how_to/troubleshooting.md").read_text(encoding="utf-8")
QUOTED = [message.strip() for message in re.findall(r"^```text\n(.*?)^```", PAGE, re.M | re.S)]
FRONT = Face(np.array([10.0, 10, 250, 250]), TEMPLATE * 2 + 20, 1.0)  # of a picture of 260 x 260
MINE = {"dataset": "folder", "folder": "my_faces", "backbone": "slim"}


class Place:
    """A checkout with nothing but profiles in it, and what its reader holds in hand."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root, self.patch = root, patch
        (root / "profiles").mkdir()
        self.images = torch.rand(4, 3, 112, 112)
        self.model = FaceClassifier(load_backbone("slim"), 3).eval()

    def run(self, **values: Any) -> NotebookRun:
        (self.root / "profiles/mine.yaml").write_text(yaml.safe_dump(MINE | values), encoding="utf-8")
        return NotebookRun("02_fine_tuning", "mine")

    def adaface(self, **contents: Any) -> Path:
        path = self.root / "recogniser.ckpt"
        torch.save(lightning(BACKBONES["ir_18"]().state_dict()) | contents, path)
        return path

    def without(self, *modules: str) -> None:
        for module in modules:
            self.patch.setitem(__import__("sys").modules, module, None)

    def offline(self) -> None:
        import huggingface_hub

        def refuse(*_: Any, **__: Any) -> None:
            raise ConnectionError("no network")

        self.patch.setattr(huggingface_hub, "try_to_load_from_cache", refuse)
        self.patch.setattr(huggingface_hub, "hf_hub_download", refuse)


def makefile_line(place: Place) -> str:
    check = re.search(r"sys\.exit\(sys\.version_info < .*? and (\".*?\")", (project_root() / "Makefile").read_text())
    assert check is not None
    return str(eval(check[1])) % (3, 10)


def no_opencv(place: Place) -> Any:
    place.without("cv2")
    (place.root / "weights").mkdir()
    return detect.YuNet(place.adaface())(torch.zeros(8, 8, 3).byte().numpy())


def no_detector(place: Place) -> Any:
    place.offline()
    return detect.detector_model()


def no_captum(place: Place) -> Any:
    place.without("captum", "captum.attr")
    return library_module("captum.attr")


def only_picture(place: Place) -> Any:
    masks, labels = np.zeros((2, 8, 8), bool), np.array([0, 1])
    return control_masks("same_identity", 0, [0], own=masks, labels=labels, fraction=0.2, seed=0)


def no_such_field(place: Place) -> Any:
    return place.run(epohcs=3)


def wrong_parameter(place: Place) -> Any:
    return start("06_full_evaluation", {"tpo_k": 3}, profile="mine", top_k=None)


def no_identities(place: Place) -> Any:
    (place.root / "a.jpg").touch()
    return scan_faces(place.root / "profiles", progress=False)


def people_in_parts(place: Place) -> Any:
    for part in ("test", "train"):
        (place.root / "photos" / part / "Ann").mkdir(parents=True)
        (place.root / "photos" / part / "Ann" / "1.jpg").touch()
    return scan_faces(place.root / "photos", progress=False)


def no_people(place: Place) -> Any:
    (place.root / "photos/Ann").mkdir(parents=True)
    for name in ("empty.jpg", *(f"{number}.cr2" for number in range(6))):
        (place.root / "photos/Ann" / name).touch()
    return prepare_manifest(place.root / "photos")


def prefix_is_gone(place: Place) -> Any:
    torch.save(load_backbone("slim").state_dict(), place.root / "cut.pth")
    return load_backbone("slim", place.root / "cut.pth")


def name_of_no_folder(place: Place) -> Any:
    place.run()
    return start("06_full_evaluation", profile="mine", run_name="a:b")


def few_people(place: Place) -> str:
    (place.root / "my_faces/Ann").mkdir(parents=True)
    return preflight._data(place.run())[0].found


def long_run(place: Place) -> str:
    place.patch.setattr(preflight, "_rate", lambda work, device, seconds: 10.0)
    return preflight._device(place.run(hours=1e-9), place.model, 100)[0].found


def no_memory(place: Place) -> str:
    def overflow(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError

    place.patch.setattr(preflight, "training_rate", overflow)
    return preflight._device(place.run(), place.model, 100)[0].found


def no_hub(place: Place) -> Any:
    place.offline()
    return load_backbone("slim", "hub:somebody/something")


def refused(place: Place) -> Any:
    import os

    return load_backbone("ir_18", place.adaface(hyper_parameters=Malicious(os.system, "true")))


def no_linear_layer(place: Place) -> Any:
    return xfrlib.explain(nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), place.images)


def softmax_behind(place: Place) -> Any:
    return xfrlib.explain(nn.Sequential(place.model, nn.Softmax(dim=1)), place.images, top_k=3)


def two_answers(place: Place) -> Any:
    class Two(nn.Module):
        def forward(self, images: torch.Tensor) -> Any:
            return place.model(images), images

    return xfrlib.explain(Two(), place.images)


def bytes_as_pictures(place: Place) -> Any:
    return xfrlib.explain(place.model, (255 * place.images).round().byte(), top_k=3)


def normalised(place: Place) -> Any:
    pictures = (place.images - 0.45) / 0.225
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()
    return xfrlib.deletion_retention(model, pictures, torch.zeros(4, 112, 112, dtype=torch.bool))


def part_in_training(place: Place) -> Any:
    place.model.backbone.body.train()
    return xfrlib.should_show(place.model, place.images, torch.zeros(4, 112, 112, dtype=torch.bool))


def other_end(place: Place) -> Any:
    return xfrlib.explain(torchvision.models.mobilenet_v3_small(num_classes=5), place.images)


def training_mode(place: Place) -> Any:
    masks = torch.zeros(4, 112, 112, dtype=torch.bool)
    return xfrlib.deletion_retention(place.model.train(), place.images, masks)


def no_number(place: Place) -> Any:
    place.images[0, 0, 0, 0] = torch.nan
    return xfrlib.explain(place.model, place.images, top_k=3)


def no_weight(place: Place) -> Any:
    nn.init.zeros_(place.model.head.weight)
    return xfrlib.explain(place.model, place.images, top_k=3, centre=False)


def not_finite(place: Place) -> Any:
    model = tiny()
    nn.init.constant_(model.head.weight, torch.nan)
    return fine_tune(model, Coloured(8), Coloured(4), device="cpu", epochs=1, batch_size=4, progress=False)


def other_run(place: Place) -> Any:
    options = {"device": "cpu", "epochs": 1, "batch_size": 4, "checkpoint": place.root / "checkpoint.pt"}
    fine_tune(tiny(), Coloured(8), Coloured(4), progress=False, **options)
    return fine_tune(tiny(), Coloured(8), Coloured(4), progress=False, **options | {"learning_rate": 1e-4}).note


def failing_process(place: Place) -> Any:
    import subprocess

    place.patch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1))
    return launch(place.run(), "xfrlib.training", 2)


def no_chapter(place: Place) -> Any:
    return make_book.stage_site("mine")


def other_folder(place: Place) -> str:
    """The first line of every chapter, in a folder that is not theirs."""
    command = [sys.executable, "-c", "from studies.earlier import need_earlier"]
    return subprocess.run(command, cwd=place.root, capture_output=True, text=True).stderr


def outputs(place: Place) -> str:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", execution_count=1)])
    nbformat.write(notebook, place.root / "a.ipynb")
    command = [sys.executable, "-m", "nbstripout", "--verify", "--keep-id", str(place.root / "a.ipynb")]
    return subprocess.run(command, capture_output=True, text=True).stdout


def unpublished(place: Place) -> Any:
    place.run()
    return publishing.require_publishable("mine")


def aligned(place: Place, *found: Face) -> Any:
    """What the report's first step says of a photograph in which these faces are found."""
    Image.new("RGB", (260, 260), "grey").save(place.root / "photograph.png")
    aligner = Aligner(load_recogniser("slim", "builtin"), lambda picture: list(found))
    return "; ".join(aligner(place.root / "photograph.png").notes)


def report(place: Place, *options: str) -> Any:
    """The command on a made picture, with a gallery of three people in two pictures."""
    people.write_faces(
        place.root / "people", families=1, family_size=3, pictures_per_identity=2, seed=0, progress=False
    )
    one, two = sorted((place.root / "people").glob("*/*"))[:2]
    (place.root / "nobody").mkdir()
    given = {
        "one": str(one),
        "two": str(two),
        "people": str(place.root / "people"),
        "nobody": str(place.root / "nobody"),
    }
    fixed = ["--recogniser", "slim", "--detector", "dlib", "--out", str(place.root / "out"), "--no-progress", "--quick"]
    place.patch.setattr(command, "find_detector", lambda name: lambda picture: [])
    command.main([*(given.get(option, option) for option in options), *fixed])
    return json.loads((place.root / "out" / "report.json").read_text(encoding="utf-8"))["threshold"]["reason"]


# the beginning of a quoted message, or a part of it that no other has -> what provokes it
SITUATIONS: dict[str, Callable[[Place], Any]] = {
    "Python 3.11 or newer": makefile_line,
    "this explainer needs captum": no_captum,
    "finding faces needs OpenCV": no_opencv,
    "there is no profile 'mien'": lambda place: load_profile("mien"),
    "unknown field in mine.yaml": no_such_field,
    "top_k = 1": lambda place: place.run(top_k=1),
    "unknown parameter 'tpo_k'": wrong_parameter,
    "manifest.csv of the profile": lambda place: place.run().dataset("train"),
    "there is no folder": lambda place: place.run().faces_root(),
    "holds no identity folders": no_identities,
    "its people lie deeper": people_in_parts,
    "0 identities": no_people,
    "fills = 'black, grey'": lambda place: place.run(fills="black, grey"),
    "run_name = 'a:b'": name_of_no_folder,
    "fits, but takes RGB or BGR": prefix_is_gone,
    "A repository of the hub": lambda place: load_backbone("slim", place.root / "somebody/something"),
    "people with min_images": few_people,
    "is the only one of its identity": only_picture,
    "the face detector": no_detector,
    "No checkpoint at": lambda place: load_backbone("ir_18", place.root / "none.ckpt"),
    "does not fit 'ir_50'": lambda place: load_backbone("ir_50", place.adaface()),
    "model.safetensors of 'hub:": no_hub,
    "wants to build": refused,
    "has no linear layer": no_linear_layer,
    "does not feed the global average": other_end,
    "changes the output of its last linear layer": softmax_behind,
    "the model returns a tuple": two_answers,
    "but slim takes floats": bytes_as_pictures,
    "needs floats in [0, 1]": normalised,
    "the model's backbone.body": part_in_training,
    "images must be (B, 3, H, W)": lambda place: xfrlib.explain(place.model, place.images[0]),
    "top_k = 5: must be between": lambda place: xfrlib.explain(place.model, place.images),
    "masks must be bool": lambda place: xfrlib.deletion_retention(place.model, place.images, torch.zeros(4, 112, 112)),
    "the model is in training mode": training_mode,
    "has a NaN or infinite value": no_number,
    "has a target map that is zero": no_weight,
    "The loss is nan": not_finite,
    "checkpoint.pt is of another run": other_run,
    "the profile allows hours": long_run,
    "no face was found": aligned,
    "2 faces found": lambda place: aligned(place, FRONT, FRONT),
    "much turned to the side": lambda place: aligned(place, Face(FRONT.box, FRONT.points, 1.0, -0.4)),
    "the face is small": lambda place: aligned(place, Face(FRONT.box * 30 / 240, FRONT.points, 1.0)),
    "the gallery is empty": lambda place: report(place, "one", "two", "--gallery", "nobody"),
    "No threshold": lambda place: report(place, "one", "two", "--gallery", "people"),
    "nothing to compare it with": lambda place: report(place, "one"),
    "among the mate's pictures": lambda place: report(place, "one", "one"),
    "its memory does not hold a step": no_memory,
    "xfrlib.training stopped": failing_process,
    "has not been run with the profile": no_chapter,
    "the results have no": lambda place: results.lookup({"test": {"accuracy": 1}}, "test.acuracy"),
    "is not publishable": unpublished,
    "No module named 'studies'": other_folder,
    "would have stripped": outputs,
}


@pytest.mark.parametrize("message", QUOTED, ids=lambda message: message[:40])
def test_a_quoted_message_is_what_the_program_says(
    message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (provoke,) = [provoke for part, provoke in SITUATIONS.items() if part in message]
    monkeypatch.setattr(profile, "project_root", lambda: tmp_path)
    monkeypatch.setenv("XFR_BUILD", str(tmp_path / "build"))
    monkeypatch.setenv("XFR_DATA", str(tmp_path))
    place = Place(tmp_path, monkeypatch)
    try:
        said = str(provoke(place))
    except (Exception, SystemExit) as error:
        said = str(error)
    assert says(said, message), said


def test_no_situation_is_left_over() -> None:
    assert all(any(part in message for message in QUOTED) for part in SITUATIONS)

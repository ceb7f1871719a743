"""Checkpoints of AdaFace, CVLFace and this package: each gives the reference result for RGB pictures, or a sentence."""

import argparse
import hashlib
import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import errors
from safetensors.torch import save_file
from test_models import REFERENCE, filled
from torch import Tensor

from xfrlib.models import BACKBONES, Backbone, FaceClassifier, load_backbone, save_weights
from xfrlib.models.classifier import load_classifier, save_classifier

COMMIT = "54f602a0737bd1ee4a4e7e9fd089a485f397fefd"
HUB = "hub:minchul/cvlface_adaface_ir18_test"


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """The reference's ir_18 under its own keys."""
    return {key: filled(key, value.shape) for key, value in BACKBONES["ir_18"]().state_dict().items()}


@pytest.fixture(scope="module")
def slim() -> dict[str, Tensor]:
    """A small network's weights, for all that does not need the reference."""
    return load_backbone("slim", seed=3).state_dict()


def prefixed(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in tensors.items()}


def lightning(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """What AdaFace's Trainer leaves behind, small: margin head, hyperparameters, a metric, optimiser and schedule."""
    head = {"head.kernel": torch.ones(512, 3), "head.t": torch.zeros(1), "head.batch_mean": torch.ones(1)}
    return {
        "epoch": 25,
        "pytorch-lightning_version": "1.4.4",
        "state_dict": prefixed(tensors, "model.") | head | {"head.batch_std": torch.ones(1)},
        "callbacks": {"ModelCheckpoint": {"monitor": "val_acc", "best_model_score": np.float64(0.99)}},
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.ones(2)}}}],
        "hyper_parameters": argparse.Namespace(arch="ir_18", lr_milestones=[12, 20, 24]),
    }


def assert_reference(backbone: Backbone, order: str) -> None:
    """RGB pictures in [0, 1] give the reference's embedding, where its input lies in [-1, 1] in the given order."""
    assert backbone.channel_order == order
    images = torch.from_numpy(np.random.default_rng(7).uniform(-1, 1, (2, 3, 112, 112)).astype(np.float32))
    rgb = (images if order == "RGB" else images.flip(1)) / 2 + 0.5
    with torch.inference_mode():
        embedding = backbone.embedding(rgb)
    np.testing.assert_allclose(embedding[0, :16].numpy(), REFERENCE["ir_18"]["embedding"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(embedding.norm(dim=1).numpy(), REFERENCE["ir_18"]["embedding_norm"], rtol=0, atol=1e-4)


def test_adaface_checkpoint_takes_rgb_pictures_and_gives_the_reference(tmp_path: Path, weights: dict) -> None:
    path = tmp_path / "adaface_ir18.ckpt"
    torch.save(lightning(weights), path)
    (tmp_path / "config.json").write_text('{"color_space": "RGB"}')  # of some other model: AdaFace's order is known
    backbone = load_backbone("ir_18", path)
    assert_reference(backbone, "BGR")
    assert backbone.checkpoint_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert backbone.checkpoint_source == "adaface_ir18.ckpt"
    assert not backbone.training


@pytest.mark.parametrize("prefix", ["model.net.", "net."])
@pytest.mark.parametrize(
    ("file", "text", "order"),
    [
        (
            "config.json",
            json.dumps({"architectures": ["CVLFaceRecognitionModel"], "conf": {"color_space": "BGR"}}),
            "BGR",
        ),
        ("config.json", json.dumps({"color_space": "BGR"}), "BGR"),
        ("pretrained_model/model.yaml", "input_size:\n- 3\n- 112\n- 112\ncolor_space: RGB\nname: ir101\n", "RGB"),
        (None, "", "RGB"),
    ],
)
def test_cvlface_checkpoint_takes_the_colour_space_of_its_configuration(
    tmp_path: Path, weights: dict, prefix: str, file: str | None, text: str, order: str
) -> None:
    folder = tmp_path / "cvlface"
    (folder / "pretrained_model").mkdir(parents=True)
    save_file(prefixed(weights, prefix), folder / "model.safetensors", {"format": "pt"})
    if file:
        (folder / file).write_text(text)
    backbone = load_backbone("ir_18", folder)
    assert backbone.checkpoint_source == "cvlface/model.safetensors"
    assert backbone.channel_order == order
    if prefix == "net.":  # one costly picture a layout
        assert_reference(backbone, order)
    else:
        assert all(torch.equal(value, weights[key]) for key, value in backbone.state_dict().items())


def test_cvlface_checkpoint_believes_model_yaml_before_config_json(tmp_path: Path, slim: dict) -> None:
    (tmp_path / "pretrained_model").mkdir()
    torch.save(prefixed(slim, "net."), tmp_path / "pretrained_model" / "model.pt")
    (tmp_path / "pretrained_model" / "model.yaml").write_text("color_space: BGR\n")
    (tmp_path / "config.json").write_text('{"conf": {"color_space": "RGB"}}')
    from_folder, from_file = (load_backbone("slim", tmp_path / part) for part in ("", "pretrained_model/model.pt"))
    assert from_folder.channel_order == from_file.channel_order == "BGR"
    save_file(prefixed(slim, "net."), tmp_path / "model.safetensors")
    assert load_backbone("slim", tmp_path).channel_order == "BGR"


@pytest.mark.parametrize("text", ["{broken", '{"color_space": "HSV"}'])
def test_cvlface_checkpoint_with_a_bad_configuration_is_refused(tmp_path: Path, slim: dict, text: str) -> None:
    save_file(prefixed(slim, "net."), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json.*(channel order is unknown|'HSV')"):
        load_backbone("slim", tmp_path)


def test_own_checkpoint_is_rgb_unless_its_metadata_say_otherwise(tmp_path: Path, weights: dict) -> None:
    (tmp_path / "config.json").write_text('{"color_space": "BGR"}')  # not for files with plain keys
    save_file(weights, tmp_path / "rgb.safetensors")
    assert_reference(load_backbone("ir_18", tmp_path / "rgb.safetensors"), "RGB")
    save_file(weights, tmp_path / "bgr.safetensors", {"channel_order": "BGR"})
    assert_reference(load_backbone("ir_18", tmp_path / "bgr.safetensors"), "BGR")


def test_own_checkpoint_may_state_its_normalisation(tmp_path: Path, slim: dict) -> None:
    save_file(slim, tmp_path / "a.safetensors", {"mean": "0.25", "std": "0.125"})
    backbone = load_backbone("slim", tmp_path / "a.safetensors")
    assert backbone.normalise(torch.full((1, 3, 2, 2), 0.5)).unique().item() == 2.0


@pytest.mark.parametrize("metadata", [{"channel_order": "GBR"}, {"mean": "grey"}, {"std": "0"}, {"mean": "nan"}])
def test_checkpoint_with_impossible_metadata_is_refused(tmp_path: Path, slim: dict, metadata: dict) -> None:
    save_file(slim, tmp_path / "a.safetensors", metadata)
    with pytest.raises(ValueError, match=r"a\.safetensors: metadata .*RGB or BGR"):
        load_backbone("slim", tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("prefix", "order"),
    [
        *(
            ("_orig_mod.module.model.", "BGR"),
            ("module.model.", "BGR"),
            ("model._orig_mod.", "BGR"),
            ("module._orig_mod.model.", "BGR"),
        ),
        *(("_orig_mod.net.", "RGB"), ("module.model.net.", "RGB"), ("model.net._orig_mod.", "RGB")),
    ],
)
@pytest.mark.parametrize("wrap", [lambda tensors: tensors, lambda tensors: {"state_dict": tensors, "epoch": 1}])
def test_checkpoint_of_a_wrapped_model_loads(
    tmp_path: Path, slim: dict, prefix: str, order: str, wrap: Callable
) -> None:
    torch.save(wrap(prefixed(slim, prefix)), tmp_path / "a.pt")
    backbone = load_backbone("slim", tmp_path / "a.pt")
    assert backbone.channel_order == order
    assert all(torch.equal(value, slim[key]) for key, value in backbone.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
@pytest.mark.parametrize("wrap", [lambda tensors: tensors, lambda tensors: {"state_dict": tensors, "epoch": 1}])
def test_checkpoint_whose_prefix_is_gone_asks_for_the_channel_order(
    tmp_path: Path, slim: dict, prefix: str, wrap: Callable
) -> None:
    torch.save(wrap(prefixed(slim, prefix)), tmp_path / "a.pth")
    with pytest.raises(
        ValueError, match=r"a\.pth fits, but takes RGB or BGR: .*in a\.yaml beside it: color_space: RGB"
    ):
        load_backbone("slim", tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth does not fit 'ir_18'.*those of 'slim'"):
        load_backbone("ir_18", tmp_path / "a.pth")  # the fault that comes first
    for order in ("BGR", "RGB"):
        (tmp_path / "a.yaml").write_text(f"color_space: {order}\n")
        backbone = load_backbone("slim", tmp_path / "a.pth")
        assert backbone.channel_order == order
        assert all(torch.equal(value, slim[key]) for key, value in backbone.state_dict().items())


def test_checkpoint_at_home_and_one_of_the_hub_without_its_mark(
    tmp_path: Path, slim: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    save_file(slim, tmp_path / "a.safetensors")
    assert load_backbone("slim", "~/a.safetensors").checkpoint_source == "a.safetensors"
    with pytest.raises(FileNotFoundError, match=r"exists\. A repository of the hub is hub:minchul/cvlface_ir101\.$"):
        load_backbone("slim", tmp_path / "minchul/cvlface_ir101")  # as a profile names it, below the data root
    with pytest.raises(FileNotFoundError, match=r"Give the path of a file that exists\.$"):
        load_backbone("slim", "weights/a.ckpt")


def test_builtin_checkpoint_says_so() -> None:
    assert load_backbone("slim", "builtin").checkpoint_source == "builtin"
    assert load_backbone("slim").checkpoint_source is None


class Malicious:
    def __init__(self, function: Callable, argument: str) -> None:
        self.call = function, (argument,)

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize(("function", "named"), [(os.system, "system"), (os.mkdir, "mkdir"), (eval, "eval")])
@pytest.mark.parametrize("zipped", [True, False])
def test_malicious_checkpoint_is_refused_and_nothing_runs(
    tmp_path: Path, slim: dict, function: Callable, named: str, zipped: bool
) -> None:
    harm = tmp_path / "harm"
    argument = {"system": f"touch {harm}", "mkdir": str(harm), "eval": f"open({str(harm)!r}, 'w')"}[named]
    path = tmp_path / "evil.ckpt"
    contents = lightning(slim) | {"hyper_parameters": Malicious(function, argument)}
    torch.save(contents, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=rf"evil\.ckpt wants to build '(\w+\.)?{named}'.*refused and not run"):
        load_backbone("slim", path)
    assert not harm.exists()
    pickle.loads(pickle.dumps(Malicious(function, argument)))  # the trap works where pickle is let loose
    assert harm.exists()


def test_lightning_checkpoint_names_its_callback_by_class_and_loads_without_lightning(
    tmp_path: Path, slim: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    import types

    name = "pytorch_lightning.callbacks.model_checkpoint"
    module: Any = types.ModuleType(name)
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": name})
    for part in ("pytorch_lightning", "pytorch_lightning.callbacks"):
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    monkeypatch.setitem(sys.modules, name, module)
    path = tmp_path / "a.ckpt"
    torch.save(lightning(slim) | {"callbacks": {module.ModelCheckpoint: {"best_model_path": "a.ckpt"}}}, path)
    monkeypatch.undo()
    assert load_backbone("slim", path).channel_order == "BGR"


@pytest.mark.parametrize("keep", [0, 100, -200])
@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_checkpoint_is_refused(tmp_path: Path, slim: dict, keep: int, zipped: bool) -> None:
    path = tmp_path / "a.ckpt"
    torch.save(lightning(slim), path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"a\.ckpt is not a whole file of torch\.save"):
        load_backbone("slim", path)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    def refused(name: str, sentence: str) -> None:
        with pytest.raises(ValueError, match=sentence):
            load_backbone("slim", tmp_path / name)

    (tmp_path / "text.pt").write_text("not a checkpoint at all\n")
    refused("text.pt", "not a whole file of torch.save")
    (tmp_path / "other.pt").write_bytes(pickle.dumps({"a": 1}, protocol=2))
    refused("other.pt", "not a whole file of torch.save")
    torch.save([1, 2], tmp_path / "list.ckpt")
    refused("list.ckpt", "holds a list, not a checkpoint's dictionary")
    torch.save({"epoch": 3, "weights": {}}, tmp_path / "a.ckpt")
    refused("a.ckpt", "no state_dict of tensors; it holds epoch, weights")
    torch.save({}, tmp_path / "empty.ckpt")
    refused("empty.ckpt", "it holds nothing")
    torch.save({"state_dict": {"model.a": 1}}, tmp_path / "numbers.ckpt")
    refused("numbers.ckpt", "no state_dict of tensors")
    (tmp_path / "a.onnx").write_bytes(b"")
    refused("a.onnx", r"ends in '\.onnx'; give a \.safetensors")
    with pytest.raises(FileNotFoundError, match=r"gone\.ckpt"):
        load_backbone("slim", tmp_path / "gone.ckpt")
    with pytest.raises(FileNotFoundError, match="holds none of model.safetensors"):
        load_backbone("slim", tmp_path)


def meta(name: str) -> Backbone:
    with torch.device("meta"):
        return BACKBONES[name]()


@pytest.mark.parametrize("name", [name for name in BACKBONES if name != "slim"])
def test_checkpoint_of_another_backbone_says_which(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    tensors = {key: value for key, value in meta(name).state_dict().items() if "num_batches" not in key}
    monkeypatch.setattr("xfrlib.models.checkpoints._read", lambda path: (tensors, {}))
    with pytest.raises(ValueError, match=rf"a\.ckpt does not fit 'slim': \d+ .*those of '{name}': load that"):
        load_backbone("slim", "a.ckpt")


def test_checkpoint_without_its_embedding_head_is_named(tmp_path: Path) -> None:
    tensors = {key: value for key, value in meta("mobilefacenet").state_dict().items() if key.split(".")[0] != "gdc"}
    tensors = {key: torch.zeros(value.shape) for key, value in tensors.items() if key.split(".")[0] not in ("fc", "bn")}
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"missing: gdc.*'mobilefacenet' without its embedding head \(bn, fc, gdc\)"):
        load_backbone("mobilefacenet", tmp_path / "a.safetensors")


def test_checkpoint_with_faults_names_them_and_changes_nothing(tmp_path: Path, slim: dict) -> None:
    tensors = prefixed(slim, "model.") | {"aligner.weight": torch.zeros(1), "model.input_layer.2.weight": torch.ones(9)}
    del tensors["model.input_layer.1.weight"]
    torch.save({"state_dict": tensors}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="a.ckpt does not fit 'slim'") as caught:
        load_backbone("slim", tmp_path / "a.ckpt")
    for part in (
        "1 missing: input_layer.1.weight",
        "1 unexpected: aligner.weight",
        "input_layer.2.weight (9,) instead of (32,)",
        f"none of {', '.join(BACKBONES)}",
    ):
        assert part in str(caught.value)


def test_classifier_keeps_what_its_checkpoint_said(tmp_path: Path, slim: dict) -> None:
    torch.save(lightning(slim), tmp_path / "a.ckpt")
    backbone = load_backbone("slim", tmp_path / "a.ckpt")
    backbone.mean, backbone.std = 1 / 3, 128 / 255
    model = FaceClassifier(backbone, 3).eval()
    save_classifier(tmp_path / "classifier.safetensors", model, ["a", "b", "c"])
    copy = load_classifier(tmp_path / "classifier.safetensors")
    again = copy.backbone
    assert isinstance(again, Backbone)
    assert (again.channel_order, again.mean, again.std) == ("BGR", 1 / 3, 128 / 255)
    assert again.checkpoint_sha256 == hashlib.sha256((tmp_path / "a.ckpt").read_bytes()).hexdigest()
    assert again.checkpoint_source == "a.ckpt"
    images = torch.rand(2, 3, 112, 112)
    with torch.inference_mode():
        torch.testing.assert_close(copy(images), model(images), rtol=0, atol=0)
        assert not torch.allclose(copy(images), model(images.flip(1)))


def test_classifier_without_checkpoint_metadata_loads_as_before(tmp_path: Path) -> None:
    model = FaceClassifier(load_backbone("slim"), 2).eval()
    save_weights(model, tmp_path / "old.safetensors", {"backbone": "slim", "identities": '["a", "b"]'})
    copy = load_classifier(tmp_path / "old.safetensors")
    images = torch.rand(1, 3, 112, 112)
    torch.testing.assert_close(copy(images), model(images), rtol=0, atol=0)
    assert isinstance(copy.backbone, Backbone)
    assert copy.backbone.checkpoint_sha256 is None
    save_weights(model, tmp_path / "unnamed.safetensors")
    with pytest.raises(ValueError, match=r"unnamed\.safetensors is no classifier"):
        load_classifier(tmp_path / "unnamed.safetensors")


def snapshot(cache: Path, slim: dict) -> Path:
    """A hub repository as the cache of huggingface_hub keeps it."""
    repository = cache / ("models--" + HUB.removeprefix("hub:").replace("/", "--"))
    folder = repository / "snapshots" / COMMIT
    (folder / "pretrained_model").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    save_file(prefixed(slim, "model.net."), folder / "model.safetensors")
    (folder / "pretrained_model" / "model.yaml").write_text("color_space: BGR\n")
    (folder / "config.json").write_text('{"conf": {"color_space": "RGB"}}')
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("revision", ["", "@main", f"@{COMMIT}"])
def test_hub_checkpoint_comes_from_the_cache_with_its_commit(cache: Path, slim: dict, revision: str) -> None:
    folder = snapshot(cache, slim)
    backbone = load_backbone("slim", HUB + revision)
    assert backbone.checkpoint_source == f"{HUB}@{COMMIT}"
    assert backbone.checkpoint_sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert backbone.channel_order == "BGR"


def test_hub_checkpoint_whose_configuration_is_not_in_the_cache_is_refused(cache: Path, slim: dict) -> None:
    (snapshot(cache, slim) / "pretrained_model" / "model.yaml").unlink()
    with pytest.raises(FileNotFoundError, match="model.yaml of 'hub:.*(local|disk) cache"):
        load_backbone("slim", HUB)
    known = cache / f"models--{HUB[4:].replace('/', '--')}" / ".no_exist" / COMMIT / "pretrained_model" / "model.yaml"
    known.parent.mkdir(parents=True)
    known.touch()  # so the cache remembers that the repository has no such file
    assert load_backbone("slim", HUB).channel_order == "RGB"


def test_hub_checkpoint_is_downloaded_with_its_configuration(
    tmp_path: Path, slim: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = snapshot(tmp_path, slim)
    (folder / "config.json").unlink()
    asked = []

    def download(repository: str, file: str, *, revision: str | None = None) -> str:
        asked.append((repository, file, revision))
        if not (folder / file).is_file():
            raise errors.RemoteEntryNotFoundError("404", response=RESPONSE)
        return str(folder / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert load_backbone("slim", f"{HUB}@v1").checkpoint_source == f"{HUB}@{COMMIT}"
    name = HUB.removeprefix("hub:")
    assert asked == [
        (name, "model.safetensors", "v1"),
        (name, "pretrained_model/model.yaml", COMMIT),
        (name, "config.json", COMMIT),
    ]


RESPONSE = httpx.Response(404, request=httpx.Request("GET", "https://hub.invalid"))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.GatedRepoError("403.\n\nVisit the page to ask for access.", response=RESPONSE), "ask for access"),
        (errors.LocalEntryNotFoundError("An error happened:\ncheck your connection."), "check your connection"),
        (httpx.ConnectError("Name or service not known"), "Name or service not known"),
        (OSError("No space left on device"), "No space left"),
    ],
)
def test_hub_checkpoint_that_cannot_be_had_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def fail(*args: object, **kwargs: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(FileNotFoundError, match=reason) as caught:
        load_backbone("slim", f"{HUB}@v1")
    assert str(caught.value).startswith(f"model.safetensors of '{HUB}@v1' cannot be had")
    assert "hf download minchul/cvlface_adaface_ir18_test --local-dir FOLDER" in str(caught.value)
    assert "HF_HUB_OFFLINE=1" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_hub_checkpoint_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r'needs huggingface_hub: pip install "xfrlib\[train\]"'):
        load_backbone("slim", HUB)


@pytest.mark.parametrize("name", ["hub:", "hub:minchul", "hub:a/b/c", "hub:a b/c"])
def test_malformed_hub_checkpoint_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="names no repository; write hub:<owner>/<repo>"):
        load_backbone("slim", name)

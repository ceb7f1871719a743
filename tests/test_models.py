"""Backbones against published reference outputs, the classifier's identities, and the checks on weights."""

import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from xfrlib.models import BACKBONES, Backbone, FaceClassifier, load_backbone, save_weights
from xfrlib.models.backbones import IRBlock, IResNet
from xfrlib.models.classifier import save_classifier
from xfrlib.models.weights import load_tensors

REFERENCE = json.loads((Path(__file__).parent / "reference" / "backbones.json").read_text())
TINY: dict[str, Any] = {"stages": {4: 1, 6: 1}, "stem_stride": 2, "embedding_size": 3}


def no_mend(_: object) -> str:
    return ""


def filled(key: str, shape: torch.Size) -> Tensor:
    """The rule by which the reference networks were filled."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if len(shape) >= 2:
        values = rng.standard_normal(shape) * np.sqrt(1 / np.prod(shape[1:]))
    elif key.endswith("running_var"):
        values = rng.uniform(0.5, 1.5, shape)
    elif key.endswith(("running_mean", "bias")):
        values = rng.standard_normal(shape) * 0.05
    else:
        values = rng.uniform(0.25, 0.75, shape)
    return torch.from_numpy(values.astype(np.float32))


def assert_outputs(backbone: Backbone, expected: dict) -> None:
    images = np.random.default_rng(7).uniform(-1, 1, (2, 3, 112, 112)).astype(np.float32)
    with torch.inference_mode():
        feature_map = backbone.feature_map(torch.from_numpy(images))
        embedding = backbone.embed(feature_map)
    assert feature_map.shape == (2, 512, 7, 7)
    found = {
        "map_mean": feature_map.mean((1, 2, 3)),
        "map_std": feature_map.std((1, 2, 3)),
        "map_first_channel": feature_map[0, 0].flatten(),
        "embedding": embedding[0, :16],
        "embedding_norm": embedding.norm(dim=1),
    }
    for name, value in found.items():
        np.testing.assert_allclose(value.numpy(), expected[name], rtol=0, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("name", ["ir_18", "ir_50", "mobilefacenet"])
def test_filled_network_equals_reference_of_adaface_or_arcface(name: str) -> None:
    backbone = load_backbone(name)
    state = backbone.state_dict()
    lines = sorted(f"{key} {list(value.shape)}" for key, value in state.items() if "num_batches" not in key)
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == REFERENCE[name]["keys_sha256"]
    assert sum(p.numel() for p in backbone.parameters()) == REFERENCE[name]["parameters"]
    load_tensors(
        backbone, {key: filled(key, value.shape) for key, value in state.items()}, source="the fill rule", mend=no_mend
    )
    assert_outputs(backbone, REFERENCE[name])


def test_released_mobilefacenet_equals_reference() -> None:
    path = Path(os.environ.get("XFR_DATA", "data")) / "weights" / "mobilefacenet_arcface.safetensors"
    if not path.is_file():
        pytest.skip(f"no {path}: set XFR_DATA to the folder that holds weights/{path.name}")
    backbone = load_backbone("mobilefacenet", path)
    assert backbone.checkpoint_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert_outputs(backbone, REFERENCE["mobilefacenet"]["released"])


def test_ir_101_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in BACKBONES["ir_101"]().parameters()) == 65_150_912


def test_slim_fits_a_web_page() -> None:
    slim = load_backbone("slim")
    macs = 0

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        assert isinstance(module, nn.Conv2d)
        macs += output.numel() * module.weight[0].numel()

    for module in slim.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    assert slim(torch.rand(1, 3, 112, 112)).shape == (1, slim.out_channels, 7, 7)
    assert sum(p.numel() for p in slim.parameters()) <= 1_000_000
    assert 0 < macs <= 250_000_000
    leaves = {type(module) for module in slim.modules() if not list(module.children())}
    assert leaves == {nn.Conv2d, nn.BatchNorm2d, nn.PReLU, nn.MaxPool2d}


def test_builtin_slim_loads() -> None:
    backbone = load_backbone("slim", "builtin")
    assert backbone.checkpoint_sha256 is not None
    assert not backbone.training


def test_ir_block_without_residual_subsamples() -> None:
    block = IRBlock(3, 3, stride=2).eval()
    block.res_layer[5].weight.data.zero_()
    x = torch.rand(2, 3, 6, 6)
    torch.testing.assert_close(block(x), x[:, :, ::2, ::2])


def test_ir_block_adds_the_residual_to_the_projection() -> None:
    block = IRBlock(2, 4, stride=2).eval()
    x = torch.rand(1, 2, 5, 5)
    both = block.res_layer(x) + block.shortcut_layer(x)
    assert both.shape == (1, 4, 3, 3)
    torch.testing.assert_close(block(x), both)


@pytest.mark.parametrize(("name", "low", "high"), [("slim", -1.0, 1.0), ("mobilefacenet", -127.5 / 128, 127.5 / 128)])
def test_normalisation_belongs_to_the_backbone(name: str, low: float, high: float) -> None:
    backbone = load_backbone(name)
    images = torch.stack([torch.zeros(3, 32, 32), torch.ones(3, 32, 32)])
    normalised = backbone.normalise(images)
    torch.testing.assert_close(normalised.amax((1, 2, 3)), torch.tensor([low, high]))
    with torch.inference_mode():
        torch.testing.assert_close(backbone(images), backbone.feature_map(normalised))


def test_bgr_backbone_gives_the_same_map_for_rgb_pictures() -> None:
    rgb, bgr = IResNet("tiny", **TINY).eval(), IResNet("tiny", **TINY).eval()
    bgr.load_state_dict(rgb.state_dict())
    bgr.input_layer[0].weight.data = rgb.input_layer[0].weight.data.flip(1)
    bgr.channel_order = "BGR"
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(bgr(images), rgb(images))
    assert not torch.allclose(bgr(images), rgb(images.flip(1)))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32)])
def test_pictures_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        load_backbone("slim")(torch.zeros(shape))


def test_logits_are_the_mean_of_the_class_maps_plus_bias() -> None:
    model = FaceClassifier(IResNet("tiny", **TINY), 5).eval()
    images = torch.rand(2, 3, 48, 48)
    features = model.features(images)
    maps = torch.einsum("bchw,nc->bnhw", features, model.weight)
    assert features.shape == (2, 6, 6, 6)
    assert model.weight.shape == (5, 6)
    torch.testing.assert_close(model(images), maps.mean((2, 3)) + model.bias)


def test_every_parameter_but_the_embedding_head_learns() -> None:
    model = FaceClassifier(IResNet("tiny", **TINY), 3)
    model(torch.rand(4, 3, 48, 48)).square().sum().backward()
    without_gradient = {name.split(".")[1] for name, p in model.named_parameters() if p.grad is None}
    assert without_gradient == {"output_layer"}
    assert all(p.requires_grad == ("output_layer" not in name) for name, p in model.named_parameters())


def test_a_classifier_needs_two_identities() -> None:
    with pytest.raises(ValueError, match="num_classes is 1"):
        FaceClassifier(IResNet("tiny", **TINY), 1)


def test_slim_has_no_embedding() -> None:
    with pytest.raises(ValueError, match="'slim' has no embedding head"):
        load_backbone("slim").embedding(torch.zeros(1, 3, 112, 112))


def test_random_weights_follow_the_seed_and_leave_the_generator_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (
        FaceClassifier(load_backbone("slim", seed=seed), 4, seed=seed).state_dict() for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])
    assert not torch.equal(first["backbone.input_layer.0.weight"], other["backbone.input_layer.0.weight"])


def test_weights_survive_the_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "classifier.safetensors"
    model = FaceClassifier(IResNet("tiny", **TINY), 3, seed=1)
    model.train()(torch.rand(4, 3, 48, 48))  # moves the running statistics
    digest = save_weights(model, path, {"identities": "a b c"})
    copy = FaceClassifier(IResNet("tiny", **TINY), 3, seed=2)
    copy.load_state_dict(load_file(path))
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in copy.state_dict().items())
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_weights_that_do_not_fit_are_named_and_change_nothing() -> None:
    model = IResNet("tiny", **TINY)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    tensors = {key: torch.zeros_like(value) for key, value in before.items()}
    del tensors["input_layer.1.weight"]
    tensors["head.kernel"] = torch.zeros(2)
    tensors["input_layer.2.weight"] = torch.zeros(9)
    with pytest.raises(ValueError, match="'tiny'") as caught:
        load_tensors(model, tensors, source="other.safetensors", mend=no_mend)
    message = str(caught.value)
    assert "1 missing: input_layer.1.weight" in message
    assert "1 unexpected: head.kernel" in message
    assert "input_layer.2.weight (9,) instead of (4,)" in message
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_long_list_of_keys_is_cut() -> None:
    with pytest.raises(ValueError, match=r"missing: input_layer\.0\.weight, .*, .* and \d+ more"):
        load_tensors(IResNet("tiny", **TINY), {}, source="empty.safetensors", mend=no_mend)


def test_counters_of_batches_may_be_missing() -> None:
    model = IResNet("tiny", **TINY)
    tensors = {key: value for key, value in model.state_dict().items() if "num_batches_tracked" not in key}
    tensors["input_layer.2.weight"] = torch.full((4,), 7.0)
    load_tensors(model, tensors, source="file", mend=no_mend)
    assert model.state_dict()["input_layer.2.weight"].tolist() == [7.0] * 4


def test_bad_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"Unknown backbone 'ir_19'.*{next(iter(BACKBONES))}"):
        load_backbone("ir_19")
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors"):
        load_backbone("slim", tmp_path / "gone.safetensors")
    with pytest.raises(FileNotFoundError, match="'mobilefacenet' has no built-in weights"):
        load_backbone("mobilefacenet", "builtin")
    broken = tmp_path / "broken.safetensors"
    save_weights(IResNet("tiny", **TINY), broken)
    broken.write_bytes(broken.read_bytes()[:-10])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_backbone("slim", broken)


def test_equal_weights_give_equal_files(tmp_path):
    model = FaceClassifier(load_backbone("slim", "builtin"), 3)
    hashes = {save_classifier(tmp_path / "c.safetensors", model, ["a", "b", "c"]) for _ in range(6)}
    assert len(hashes) == 1
    assert save_classifier(tmp_path / "c.safetensors", model, ["a", "c", "b"]) not in hashes

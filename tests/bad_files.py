"""Spoilt pictures, checkpoints and profiles, and parameters of notebooks as papermill hands them on."""

from __future__ import annotations

import dataclasses
import io
import math
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from bad_kinds import ANYTHING, WORDS, Case, Kind, holds
from hypothesis import strategies as st
from papermill.cli import _resolve_type as as_papermill_reads
from parameters import start
from PIL import Image
from safetensors.torch import save

from xfrlib.data.images import load_image
from xfrlib.models import load_backbone
from xfrlib.models.backbones import IResNet
from xfrlib.models.weights import seeded
from xfrlib.profile import Profile, load_profile

Draw = Callable[[st.SearchStrategy[Any]], Any]


@st.composite
def damaged(draw: Draw, data: bytes, *, first: int = 10**9) -> bytes:
    """Bytes that were cut, or of which some, among the `first`, are others."""
    how = draw(st.sampled_from(["cut", "changed", "doubled"]))
    if how == "cut":
        return data[: draw(st.integers(0, len(data) - 1))]
    if how == "doubled":
        return data + data[: draw(st.integers(1, len(data)))]
    changed = bytearray(data)
    for place in draw(st.lists(st.integers(0, min(first, len(data)) - 1), min_size=1, max_size=4)):
        changed[place] = draw(st.integers(0, 255))
    return bytes(changed)


def in_a_file(folder: Path, name: str, data: bytes) -> Path:
    """The file, in an empty folder of its own."""
    shutil.rmtree(folder / "case", ignore_errors=True)
    (folder / "case").mkdir()
    path = folder / "case" / name
    path.write_bytes(data)
    return path


# --- pictures

STORED = [
    *(("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    *(("JPEG", mode) for mode in ("L", "RGB", "CMYK", "YCbCr")), *(("WEBP", mode) for mode in ("RGB", "RGBA")),
    *(("TIFF", mode) for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F")),
    *(("BMP", mode) for mode in ("1", "L", "P", "RGB")), ("GIF", "P"), ("PPM", "L"), ("PPM", "RGB"),
]  # fmt: skip
NO_PICTURES = [
    b"", b"\0" * 64, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"%PDF-1.7\n", b"PK\x03\x04" + b"\0" * 30,
    b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"<html>404</html>", b"a,b\n1,2\n", b"GIF89a", b"RIFF\0\0\0\0WEBP",
    b"\x89PNG\r\n\x1a\n", b"BM", b"P6 9 9", b"\xff\xd8\xff", b"\0\0\0\x20ftypheic" + b"\0" * 24, b"8BPS\0\1",
]  # fmt: skip
SIZE = (24, 20)


@cache
def original(mode: str) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    if mode == "I;16":
        return Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    if mode == "LAB":
        return Image.frombytes("LAB", SIZE, noise.tobytes())
    return picture.convert(mode)


@cache
def stored(kind: str, mode: str) -> bytes:
    data = io.BytesIO()
    original(mode).save(data, kind)
    return data.getvalue()


def with_header(width: int, height: int) -> bytes:
    """A PNG whose header, with a right checksum, says another size."""
    data = stored("PNG", "RGB")
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


SIZES = [
    (0, 0),
    (0, 9),
    (2**31 - 1, 2**31 - 1),
    (60_000, 60_000),
    (2**31 - 1, 1),
    (24, 21),
    (25, 20),
    (30_000, 3),
    (9, 9),
]


@st.composite
def pictures(draw: Draw) -> Case:
    """A picture in every mode that is stored, damaged or not; a wrong header; no picture at all."""
    how = draw(st.sampled_from(["whole", "damaged", "damaged", "damaged", "size", "no picture"]))
    kind, mode = draw(st.sampled_from(STORED))
    side = draw(st.sampled_from([None, 16, 24]))
    data = stored(kind, mode)
    if how == "damaged":
        data = draw(damaged(data, first=draw(st.sampled_from([60, 10**9]))))
    elif how == "size":
        data = with_header(*draw(st.sampled_from(SIZES)))
    elif how == "no picture":
        data = draw(st.one_of(st.sampled_from(NO_PICTURES), st.binary(max_size=60)))
    name = draw(st.sampled_from(["face.png", "face.jpg", "no suffix", "Ä é 脸.bmp"]))

    def attempt(folder: Path) -> None:
        found = load_image(in_a_file(folder, name, data), side)
        holds(found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3 and found.size, "kind of array")
        holds(side is None or found.shape == (side, side, 3), "size")
        if how == "whole" and side is None and kind in ("PNG", "BMP", "TIFF", "PPM") and mode in ("1", "L", "RGB"):
            holds(np.array_equal(found, np.asarray(original(mode).convert("RGB"))), "another picture")

    return Case(attempt, (name,), f"{how} {kind} {mode} {side} {data[:20]!r}")


PICTURES = Kind(pictures())

# --- checkpoints: two tiny networks stand for the six, which take a hundred times as long to set up

TINY = {
    "slim": lambda: IResNet("slim", {4: 1}, embedding_size=None),
    "ir_18": lambda: IResNet("ir_18", {4: 1, 6: 1}, embedding_size=3),
}
with seeded(1):
    TENSORS = {key: value.clone() for key, value in TINY["slim"]().state_dict().items()}
METADATA = [
    {}, {"channel_order": "BGR"}, {"channel_order": "XYZ"}, {"mean": "abc"}, {"mean": "nan"}, {"std": "0"},
    {"std": "-1"}, {"xfrlib": "{"}, {"xfrlib": "[1]"}, {"xfrlib": '{"mean": 7}'}, {"xfrlib": '{"std": null}'},
    {"format": "pt"},
]  # fmt: skip
CONFIGURATIONS = [
    None, b"color_space: RGB", b"color_space: BGR", b"color_space: HSV", b"color_space: 3", b"a: [", b"\xff\xfe", b"",
    b"- 1", b"conf: {color_space: BGR}",
]  # fmt: skip
PREFIXES = ["", "model.", "net.", "model.net.", "module.", "_orig_mod.", "module.model.", "backbone.", "head."]


def spoil(draw: Draw, tensors: dict[str, Any]) -> dict[str, Any]:
    """One entry is missing, too much, or another thing."""
    key = draw(st.sampled_from(sorted(tensors)))
    how, value = draw(st.sampled_from(["missing", "more", "shape", "kind", "complex", "text", "number"])), tensors[key]
    changes: dict[str, dict[Any, Any]] = {
        "more": {"other.weight": torch.ones(2)}, "shape": {key: torch.ones(*value.shape, 2)},
        "kind": {key: value.half()}, "complex": {key: value.to(torch.complex64)}, "text": {key: "abc"},
        "number": {3: value},
    }  # fmt: skip
    rest = {name: one for name, one in tensors.items() if not (how == "missing" and name == key)}
    return rest | changes.get(how, {})


@st.composite
def checkpoints(draw: Draw) -> Case:
    """A checkpoint under a prefix, spoilt inside or as a file, with a configuration beside it, for one of two names."""
    prefix, configuration = draw(st.sampled_from(PREFIXES)), draw(st.sampled_from(CONFIGURATIONS))
    tensors: Any = {prefix + key: value for key, value in TENSORS.items()}
    if inside := draw(st.booleans()):
        tensors = spoil(draw, tensors)
    suffix = draw(st.sampled_from([".safetensors", ".safetensors", ".pt", ".ckpt", ".pth", ".bin", ".h5", ""]))
    safe = suffix == ".safetensors" and all(isinstance(one, torch.Tensor) for one in tensors.values())
    if safe and 3 not in tensors:
        data = save(tensors, draw(st.sampled_from(METADATA)) or None)
    else:
        wraps = [lambda t: t, lambda t: {"state_dict": t}, list, lambda t: None, lambda t: {"epoch": 3}, lambda t: Path]
        whole = draw(st.sampled_from(wraps))(tensors)
        torch.save(whole, buffer := io.BytesIO())
        data = buffer.getvalue()
    damage = draw(st.booleans())
    if damage:
        data = draw(damaged(data, first=400))
    place = draw(st.sampled_from(["file"] * 8 + ["folder", "missing"]))
    backbone = draw(st.sampled_from(["slim", "slim", "slim", "ir_18", "resnet", ""]))
    name = f"weights{suffix}"

    def attempt(folder: Path) -> None:
        path = in_a_file(folder, name, data)
        if configuration is not None:
            path.with_suffix(".yaml").write_bytes(configuration)
        asked = {"file": path, "folder": path.parent, "missing": path.with_name("missing.pt")}[place]
        found = load_backbone(backbone, asked)
        holds(found.name == backbone == "slim" and place != "missing", "another network")
        holds(found.channel_order in ("RGB", "BGR") and math.isfinite(found.mean) and found.std > 0, "input")
        for key, value in found.state_dict().items():
            if not key.endswith("num_batches_tracked"):
                near = 1e-2 if inside else 0
                holds(damage or torch.allclose(value, TENSORS[key], rtol=near, atol=near), "other weights")

    names = (name, "missing.pt", "weights.yaml", "/case holds none", repr(backbone))
    return Case(
        attempt, names, f"{prefix!r} {suffix} {place} {backbone} {configuration!r} inside={inside} damage={damage}"
    )


CHECKPOINTS = Kind(checkpoints())

# --- profiles and parameters

FIELDS = [field.name for field in dataclasses.fields(Profile)]
PLAIN = {"title": "A title", "dataset": "synthetic", "epochs": 3, "fills": ["black"], "fractions": [0.8, 0.1, 0.1]}


def holds_possible(profile: Profile) -> None:
    """What no profile may say, whatever it was made of."""
    holds(isinstance(profile.top_k, int) and profile.top_k >= 2, "top_k")
    holds(0 < profile.fraction < 1 and math.isclose(sum(profile.fractions), 1), "fractions")
    numbers = [profile.delta, profile.scale, profile.scale_min, profile.learning_rate, profile.hours]
    holds(all(0 < number < math.inf for number in numbers) and profile.scale_max >= profile.scale_min, "numbers")
    holds(min(profile.epochs, profile.draws, profile.networks) >= 1 and profile.batch_size >= 2, "counts")
    holds(set(profile.fills) <= {"black", "grey", "mean", "blur", "linear"} and profile.fills, "fills")


def same(said: Any, value: Any) -> bool:
    """Whether a field has the value that it was given; a list becomes a tuple, a whole number a float."""
    if isinstance(said, str) and isinstance(value, tuple):  # text of a list
        said = yaml.safe_load(said)
    return list(said) == list(value) if isinstance(value, tuple) else said == value


@st.composite
def profiles(draw: Draw) -> Case:
    """A profile in YAML with other values, other fields, or other bytes."""
    values: Any = dict(PLAIN)
    changed = draw(st.dictionaries(st.one_of(st.sampled_from(FIELDS), WORDS), ANYTHING, min_size=1, max_size=3))
    for name, value in changed.items():
        values[name] = value
    for name in draw(st.lists(st.sampled_from(sorted(PLAIN)), max_size=1)):
        values.pop(name, None)
    data = yaml.safe_dump(values, allow_unicode=True).encode()
    how = draw(st.sampled_from(["values", "values", "values", "damaged", "text", "bytes"]))
    if how == "damaged":
        data = draw(damaged(data))
    elif how == "text":
        texts = [
            "[1, 2",
            "a: b: c",
            "\tx: 1",
            "- 1\n- 2",
            "3",
            "",
            "{[1]: 2}",
            "1: 2",
            "&a [*a]",
            "x: !!python/name:os.system",
        ]
        data = draw(st.sampled_from([*texts, "a: " + "[" * 2000, "null: 1", "dataset: synthetic\n2: 3"])).encode()
    elif how == "bytes":
        data = draw(st.binary(max_size=40))

    def attempt(folder: Path) -> None:
        profile = load_profile(in_a_file(folder, "mine.yaml", data))
        holds_possible(profile)
        for name, value in values.items() if how == "values" else ():
            holds(name in ("name", "title") or same(value, getattr(profile, name)), f"another {name}")

    return Case(
        attempt,
        ("mine.yaml", *values, *map(repr, changed.values())),
        f"{how} {changed}" if how == "values" else repr(data),
    )


PROFILES = Kind(profiles())


@st.composite
def parameters(draw: Draw) -> Case:
    """Values of `papermill -p`, which makes numbers of some texts, and of `-y`, which gives any."""
    text = st.one_of(WORDS, ANYTHING.map(str)).map(as_papermill_reads)
    known = st.one_of(st.sampled_from(["run_name", "data_root", "profile"]), st.sampled_from(FIELDS[2:]))
    given = draw(st.dictionaries(known, st.one_of(text, text, ANYTHING), min_size=1, max_size=2))
    if "folder" in given:
        given["dataset"] = "folder"
    injected = dict(draw(st.sampled_from([{}] * 9 + [{"topk": 3}, {"seeds": "0"}])))

    def attempt(folder: Path) -> None:
        run = start("06_full_evaluation", dict(injected), **given)
        holds(not injected, "an unknown parameter passed")
        holds_possible(run.profile)
        for name, value in given.items():
            taken = name in FIELDS and value is not None
            holds(not taken or same(value, getattr(run.profile, name)), f"another {name}")
        if "folder" in given:
            run.faces_root()
        if given.get("checkpoint") not in (None, "builtin"):
            run.backbone()
        holds(run.folder.is_relative_to(folder.resolve() / run.profile.name), "folder")

    values = [value for value in given.values() if isinstance(value, str)]
    names = (*given, *injected, *map(repr, given.values()), *map(os.path.expanduser, filter(None, values)))
    return Case(attempt, names, f"{given} {injected}")


PARAMETERS = Kind(parameters())

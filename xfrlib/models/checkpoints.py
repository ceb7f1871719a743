"""Checkpoints of released recognisers: found or fetched, read without running what they hold, fitted to a backbone."""

import argparse
import re
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from xfrlib.artifacts import file_sha256
from xfrlib.checks import need_module
from xfrlib.models.backbones import BACKBONES, CHANNEL_ORDERS, Backbone
from xfrlib.models.weights import load_tensors, mismatch, read_safetensors, seeded
from xfrlib.profile import expanded

PREFIXES = ("model.net.", "model.", "net.")  # a longer one before the shorter one it begins with
_WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+|(?<=\.)_orig_mod\.")  # torch's own: many GPUs, and torch.compile
_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
FOLDER_FILES = ("model.safetensors", "pretrained_model/model.pt", "model.pt")  # as CVLFace lays its repositories out

# What Lightning puts beside AdaFace's tensors and torch does not allow by itself: hyperparameters, the class of the
# callback as the key of its state (Lightning before 1.6; an empty class stands for it, so that none of Lightning's code
# is run), and NumPy's numbers, such as a metric, as NumPy before and since 2 names them.
_HARMLESS: list[Any] = [
    argparse.Namespace,
    (type("ModelCheckpoint", (), {}), "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"),
    *[(np.float64().__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")],
    *[np.dtype, *(type(np.dtype(kind)) for kind in ("float32", "float64", "int64"))],
]


def load_backbone(name: str, checkpoint: str | Path | None = None, *, seed: int = 0) -> Backbone:
    """Backbone in evaluation mode: RGB pictures in [0, 1], (B, 3, 112, 112) -> last convolutional map (B, C, 7, 7).

    Channel order and normalisation are the checkpoint's; ``checkpoint_sha256`` and ``checkpoint_source`` say which.
    Raises `ValueError` for an unknown name and for a checkpoint that is not whole, holds more than data (no code of it
    is run) or does not fit, saying which backbone it is of; `FileNotFoundError` where there is none.

    Parameters
    ----------
    name : str
        "slim", "mobilefacenet", "ir_18", "ir_34", "ir_50" or "ir_101".
    checkpoint : str or Path, optional
        "builtin" for the weights that ship with the package (slim only); "hub:<owner>/<repo>[@<revision>]" for a
        Hugging Face repository; None or "" for random weights, drawn from ``seed``; or the path of

        - a Lightning ``.ckpt`` of github.com/mk-minchul/AdaFace, which takes BGR; its margin head is ignored.
        - ``model.safetensors`` or ``.pt`` of github.com/mk-minchul/CVLface, or the folder with it; the order is the
          ``color_space`` of the configuration beside it, RGB without one.
        - any ``.pt`` or ``.pth`` with the backbone's own keys, where such a configuration says the order.
        - this package's safetensors; RGB and the backbone's own normalisation unless the metadata (``channel_order``,
          ``mean``, ``std``) say otherwise.
    """
    if name not in BACKBONES:
        raise ValueError(f"Unknown backbone {name!r}. Choose one of {', '.join(BACKBONES)}.")
    with seeded(seed):
        backbone = BACKBONES[name]()
    if checkpoint:
        path, source = _find(name, checkpoint)
        tensors, metadata = _read(path)
        load_tensors(backbone, tensors, source=path, mend=_fitting)
        if not metadata["channel_order"]:
            fault = "the prefix of its keys, which tells AdaFace's files (BGR) from CVLFace's (RGB), is gone"
            mend = f"Say which in {path.with_suffix('.yaml').name} beside it: color_space: RGB"
            raise ValueError(f"{path} fits, but takes RGB or BGR: {fault}. {mend}")
        backbone.set_input({**metadata, "checkpoint_sha256": file_sha256(path), "checkpoint_source": source}, path)
    return backbone.eval()


def _find(name: str, checkpoint: str | Path) -> tuple[Path, str]:
    """Path of a checkpoint, and its source: "builtin", "hub:<owner>/<repo>@<commit>" or the file's name."""
    if str(checkpoint).startswith("hub:"):
        return _fetch(str(checkpoint))
    if checkpoint == "builtin":
        path = Path(__file__).with_name(f"{name}.safetensors")
        if not path.is_file():
            raise FileNotFoundError(f"Backbone {name!r} has no built-in weights. Give the path of a file.")
        return path, "builtin"
    path = expanded("checkpoint", checkpoint)
    if not path.is_dir():
        return path, path.name
    for file in FOLDER_FILES:
        if (path / file).is_file():
            return path / file, f"{path.resolve().name}/{file}"
    raise FileNotFoundError(f"The folder {path} holds none of {', '.join(FOLDER_FILES)}. Give the path of a file.")


def _fetch(reference: str) -> tuple[Path, str]:
    """Download ``hub:<owner>/<repo>[@<revision>]``, or take it from the cache; path of the weights and their source."""
    repository, _, revision = reference.removeprefix("hub:").partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ValueError(f"{reference!r} names no repository; write hub:<owner>/<repo>[@<revision>].")
    huggingface_hub, file = need_module("huggingface_hub", "a checkpoint of the hub", "xfrlib[train]"), FOLDER_FILES[0]
    try:
        path = Path(huggingface_hub.hf_hub_download(repository, file, revision=revision or None))
        commit = path.parent.name  # the cache keeps snapshots/<commit>/<file>; the configuration must be of the same
        for file in ("pretrained_model/model.yaml", "config.json"):
            known = huggingface_hub.try_to_load_from_cache(repository, file, revision=commit)
            if known is not huggingface_hub._CACHED_NO_EXIST:  # so that a repository without it loads offline too
                # Not here and no network is an error: the file may exist and say BGR, so it must not be passed over.
                with suppress(huggingface_hub.errors.RemoteEntryNotFoundError):
                    huggingface_hub.hf_hub_download(repository, file, revision=commit)
    except Exception as error:  # the hub's own, which say why, httpx's and the disk's; all end in the same mend
        because = " ".join(str(error).split()).rstrip(".")
        raise FileNotFoundError(
            f"{file} of {reference!r} cannot be had: {because}. Check the name and the network, or give the folder "
            f"that `hf download {repository} --local-dir FOLDER` makes; with HF_HUB_OFFLINE=1 only the cache is asked."
        ) from error
    return path, f"hub:{repository}@{commit}"


def _read_pickled(path: Path) -> tuple[dict[str, Tensor], bool]:
    """Tensors that torch.save wrote, and whether Lightning wrapped them; only data are built and no code is run."""
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            # Mapped, so that the margin head and the optimiser's state, gigabytes both, are never read.
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # reading what is no checkpoint fails in as many ways as there are files
        if named := re.search(r"GLOBAL (\S+)", str(error)):
            fault = f"{path} wants to build {named[1]!r}, which is no part of a checkpoint; it was refused and not run"
            raise ValueError(f"{fault}. Take it from its authors, or convert it where you trust it.") from error
        fault = f"is not a whole file of torch.save ({type(error).__name__})"
        raise ValueError(f"{path} {fault}. Copy or download it again.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}, not a checkpoint's dictionary. Give another file.")
    state = found.get("state_dict", found)
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        holds = ", ".join(map(str, list(found)[:5])) or "nothing"
        raise ValueError(f"{path} has no state_dict of tensors; it holds {holds}. Give the checkpoint of a recogniser.")
    return {str(key): value for key, value in state.items()}, state is not found


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors under the backbone's own keys, and the metadata that says how its input is made. See `load_backbone`."""
    if not path.is_file():
        hub = f" A repository of the hub is hub:{'/'.join(path.parts[-2:])}." if path.suffix not in _SUFFIXES else ""
        raise FileNotFoundError(f"No checkpoint at {path}. Give the path of a file that exists.{hub}")
    lightning, metadata = False, dict[str, str]()
    if path.suffix == ".safetensors":
        tensors, metadata = read_safetensors(path)
    elif path.suffix in _SUFFIXES:
        tensors, lightning = _read_pickled(path)
    else:
        raise ValueError(f"{path} ends in {path.suffix!r}; give a .safetensors, .ckpt, .pt, .pth or .bin file.")
    tensors = {_WRAPPERS.sub("", key): value for key, value in tensors.items()}
    if lightning:  # and so with the margin head, which is no part of a backbone
        tensors = {key: value for key, value in tensors.items() if not key.startswith("head.")}
    prefix = next((prefix for prefix in PREFIXES if any(key.startswith(prefix) for key in tensors)), "")
    # A key without the prefix stays as it is and is reported as unexpected: nothing is dropped in silence.
    tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    # AdaFace's README: "our pretrained model takes the input in BGR color channel". CVLFace's say RGB: model.yaml of
    # minchul/cvlface_adaface_ir101_webface12m at 54f602a (SHA-256 29b9eb57...) and models/iresnet/configs of the code.
    own = path.suffix == ".safetensors" and not prefix
    order = None if own or (lightning and prefix == "model.") else _colour_space(path)
    usual = {"model.": "BGR", "": "RGB" if own else ""}.get(prefix, "RGB")
    return tensors, {"channel_order": order or usual, **metadata}


def _colour_space(path: Path) -> str | None:
    """``color_space`` of the CVLFace configuration beside a file of weights; None where none says it."""
    folder = path.parent  # model.yaml comes first: the repositories' wrapper.py takes it, whatever config.json says
    places = path.with_suffix(".yaml"), folder / "pretrained_model" / "model.yaml", folder / "config.json"
    for file in filter(Path.is_file, places):
        try:
            config = yaml.safe_load(file.read_text(encoding="utf-8"))  # JSON is YAML
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{file} cannot be read, so the channel order is unknown; download it again.") from error
        match config:
            case {"color_space": str(order)} | {"conf": {"color_space": str(order)}}:
                if order not in CHANNEL_ORDERS:
                    raise ValueError(f"{file}: color_space is {order!r}; a backbone takes RGB or BGR.")
                return order
    return None


def _fitting(tensors: Mapping[str, Tensor]) -> str:
    """A sentence that says which backbone the tensors are those of."""
    for name, build in BACKBONES.items():
        with torch.device("meta"):
            candidate = build()
        these = f"These keys and shapes are those of {name!r}"
        if not mismatch(candidate, tensors):
            return f"{these}: load that backbone."
        for layer in candidate.embedding_layers:
            setattr(candidate, layer, None)
        if not mismatch(candidate, tensors):
            layers = ", ".join(sorted(candidate.embedding_layers))
            return f"{these} without its embedding head ({layers}): give the checkpoint of the whole recogniser."
    return f"They are those of none of {', '.join(BACKBONES)}."

"""Reading and writing weights: safetensors only, every key and shape checked, the SHA-256 of the file kept."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from xfrlib.artifacts import file_sha256, write_atomic

_METADATA = "xfrlib"  # one entry: safetensors writes several in an order that changes, and equal files would differ
_NAMED = 3  # so many keys are named in an error; the rest are counted


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from ``seed`` on the CPU inside the block and put torch's global generator back after it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of a safetensors file, on the CPU, and its metadata; ValueError where it is not a whole one."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            said = metadata.pop(_METADATA, "{}")
            return {key: file.get_tensor(key) for key in file.keys()}, metadata | json.loads(said)  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}). Copy it or convert it again.") from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: its metadata {_METADATA!r} are no JSON object: {said!r}. Save it anew.") from error


def mismatch(model: nn.Module, tensors: Mapping[str, Tensor]) -> str:
    """The first few missing, unexpected and wrongly shaped keys in words; empty where ``tensors`` fit ``model``."""
    expected = model.state_dict()
    needed = [key for key in expected if not key.endswith("num_batches_tracked")]  # no result depends on that count
    shapes = [(key, tensors[key].shape, value.shape) for key, value in expected.items() if key in tensors]
    faults = {
        "missing": [key for key in needed if key not in tensors],
        "unexpected": [key for key in tensors if key not in expected],
        "of the wrong shape": [f"{key} {tuple(has)} instead of {tuple(own)}" for key, has, own in shapes if has != own],
    }
    named = {kind: ", ".join(keys[:_NAMED]) for kind, keys in faults.items() if keys}
    more = {kind: f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else "" for kind, keys in faults.items()}
    return "; ".join(f"{len(faults[kind])} {kind}: {text}{more[kind]}" for kind, text in named.items())


def load_tensors(
    model: nn.Module, tensors: Mapping[str, Tensor], *, source: str | Path, mend: Callable[[Mapping[str, Tensor]], str]
) -> None:
    """Copy ``tensors`` into ``model``; ValueError that ends in ``mend(tensors)`` where there is a `mismatch`."""
    if fault := mismatch(model, tensors):
        name = getattr(model, "name", type(model).__name__)
        raise ValueError(f"{source} does not fit {name!r}: {fault}. {mend(tensors)}")
    model.load_state_dict(dict(tensors), strict=False)


def save_weights(model: nn.Module, path: Path, metadata: Mapping[str, str] | None = None) -> str:
    """Write the state of `model` as safetensors, whole or not at all. Returns its SHA-256, equal for equal input."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    with write_atomic(path) as temporary:
        save_file(tensors, temporary, {_METADATA: json.dumps(dict(metadata), sort_keys=True)} if metadata else None)
    return file_sha256(path)

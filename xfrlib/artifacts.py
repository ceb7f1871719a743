"""Where results are written: atomically, and with the provenance that lets a reader trace them."""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from xfrlib.profile import INSTALLED, project_root
from xfrlib.source_files import source_files


class SentenceError(Exception):
    """An error whose sentence says the mend: IPython shows it alone, without a stack that helps nobody."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class MissingArtifactError(SentenceError, FileNotFoundError):
    """An artefact of an earlier notebook is not there; the message says which notebook to run."""


@contextmanager
def in_sentences() -> Iterator[None]:
    """Decorator of a command: of an error it prints the sentence alone, and what its terminal cannot show, escaped."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield
    except (SentenceError, OSError, ValueError, ImportError, ArithmeticError, KeyboardInterrupt) as error:
        _, stack, own = str(error).rpartition("Original Traceback")  # of a process that read pictures for this one
        sys.exit(own.strip().rpartition("\n")[2].partition("Error: ")[2] if stack else own or "stopped")


def build_root() -> Path:
    """Folder of everything that runs produce: the environment variable ``XFR_BUILD``, else ``_build/``."""
    return Path(os.environ.get("XFR_BUILD") or project_root() / "_build").expanduser().resolve()


@contextmanager
def write_atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the name of `path` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield part
        part.replace(path)
    except Exception as error:
        if shutil.disk_usage(path.parent).free < 2**16:  # of which torch says that a position is unexpected
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise
    finally:
        part.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove what `write_atomic` left of `path` in processes that were killed; nothing else may be writing it."""
    for part in path.parent.glob(f".*.{path.name}"):
        if part.name.split(".")[1].isdigit():
            part.unlink(missing_ok=True)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write `values` as JSON, atomically. Raises `ValueError` for NaN or infinity, which JSON does not have."""
    with write_atomic(path) as part:
        part.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(*parts: Any) -> str:
    """A short hash of settings (anything JSON can hold) and of programs: modules, with all their `source_files`."""
    texts = list[str]()
    for part in parts:
        program = isinstance(part, ModuleType)
        texts += map(file_sha256, source_files(part)) if program else [json.dumps(part, sort_keys=True)]
    return hashlib.sha256("".join(texts).encode()).hexdigest()[:16]


def commit() -> str:
    """The checkout's commit, with "+changes" if tracked files differ from it; "unknown" outside a checkout."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty=+changes", "--exclude=*"]
    where: Any = {"cwd": project_root(), "stderr": subprocess.DEVNULL, "text": True, "timeout": 20}
    if not INSTALLED.is_dir():  # else git would name the commit of whatever the current folder belongs to
        with suppress(OSError, subprocess.SubprocessError):
            return subprocess.check_output(command, **where).strip()
    return "unknown"


def default_device() -> torch.device:
    """The first GPU, where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """The device in words, for records."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' * (threads != 1)}" if device.type == "cpu" else name


def environment() -> dict[str, str]:
    """Device, Python and the versions that a number can depend on."""
    packages = ("xfrlib", "torch", "torchvision", "numpy", "pandas", "scipy")
    versions = {name: found.version for name in packages for found in importlib.metadata.distributions(name=name)}
    return {"device": device_name(default_device()), "python": platform.python_version(), **versions}

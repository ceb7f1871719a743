"""What every notebook of the book begins and ends with: its settings, where its artefacts lie, its provenance."""

from __future__ import annotations

import argparse
import json
import re
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from xfrlib import artifacts
from xfrlib.artifacts import MissingArtifactError, SentenceError
from xfrlib.data.faces import FaceDataset, data_hash, read_manifest
from xfrlib.models import Backbone, load_backbone
from xfrlib.models.classifier import FaceClassifier, load_classifier
from xfrlib.profile import Profile, data_root, did_you_mean, expanded, load_profile
from xfrlib.sdd import Divergence

_NO_NAME, _LONGEST = r'[<>:"/\\|?*\0]', 120  # what no system's folder may hold, and bytes that leave room for more
_INJECTED = str | int | float | list | tuple | dict | None  # what papermill can write into a notebook


class ParameterError(SentenceError, ValueError):
    """A parameter of a notebook is unknown or impossible; the message names it."""


def start_notebook(notebook: str, namespace: dict[str, Any]) -> NotebookRun:
    """Check the parameters of a notebook and say where it reads and writes.

    Its parameters are the names that a cell has annotated so far in `namespace`, its ``globals()``; any other plain
    value was injected by mistake. `profile` names the profile, `data_root` overrides ``XFR_DATA``, `run_name` is the
    folder below ``runs/`` of a run with other settings. A field of `Profile` replaces the profile's value unless it is
    None; what else there is belongs to the notebook alone. Raises `ParameterError`.
    """
    known = list(namespace.get("__annotations__", {}))
    if "_xfrlib_started" not in namespace:  # later, names that the notebook itself made would be taken for parameters
        for name, value in namespace.items():
            private = name.startswith("_") or name.isupper() or name in ("In", "Out")  # the latter are the shell's
            if isinstance(value, _INJECTED) and not private and name not in known:
                raise ParameterError(f"unknown parameter {name!r} of {notebook}{did_you_mean(name, known)}")
    namespace["_xfrlib_started"] = True
    for name in ("profile", "data_root", "run_name"):
        if not isinstance(given := namespace[name], str | Path):
            raise ParameterError(f"{name} = {given!r}: must be text, which papermill -r gives as it is written")
    changes = {f.name: namespace[f.name] for f in fields(Profile) if f.name in known and namespace[f.name] is not None}
    try:
        return NotebookRun(notebook, namespace["profile"], changes, namespace["data_root"], namespace["run_name"])
    except (ValueError, FileNotFoundError) as error:
        raise ParameterError(str(error)) from error


def command_line_run(notebook: str, command: str, about: str | None, arguments: list[str] | None) -> NotebookRun:
    """The run of a notebook that a `command` line asks for: both share their artefacts; errors are those of usage."""
    parser = argparse.ArgumentParser(command, None, about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", required=True, help="name or path of a profile")
    parser.add_argument("--data-root", default="", help="folder of data sets and weights; else XFR_DATA, else data/")
    parser.add_argument("--run-name", default="", help="folder below runs/ for a run with other settings")
    parser.add_argument("--set", type=_setting, action="append", metavar="FIELD=VALUE", help="replace a profile value")
    given = parser.parse_args(arguments)
    try:
        return NotebookRun(notebook, given.profile, dict(given.set or ()), given.data_root, given.run_name)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))


def _setting(text: str) -> tuple[str, Any]:
    """The name and the value, as YAML writes it, of ``FIELD=VALUE``."""
    try:
        name, value = text.split("=", maxsplit=1)
        return name, yaml.safe_load(value)
    except (ValueError, yaml.YAMLError) as error:
        raise argparse.ArgumentTypeError(f"{text}: not FIELD=VALUE, with a value as YAML writes it") from error


class NotebookRun:
    """Settings, artefacts and provenance of one run of one notebook."""

    def __init__(
        self, notebook: str, profile: str, changes: dict[str, Any] | None = None, root: str = "", run_name: str = ""
    ) -> None:
        base = load_profile(profile)
        self.notebook, self.profile = notebook, base.replace(**changes or {})
        self.device, self.data_root = artifacts.default_device(), data_root(root)
        self._profile_given, self._name_given = profile, run_name
        self._changes = {k: v for k, v in self.profile.as_dict().items() if v != base.as_dict()[k]}
        if not run_name:
            run_name = re.sub(_NO_NAME, "_", ",".join(f"{key}={value}" for key, value in self._changes.items()))
            if len(run_name.encode()) > _LONGEST:
                run_name = f"{len(self._changes)}-settings-{artifacts.fingerprint(self._changes)}"
        if re.search(_NO_NAME, run_name) or run_name in (".", "..") or len(run_name.encode()) > _LONGEST:
            raise ValueError(f"run_name = {run_name!r}: must be a plain name of a folder, of at most {_LONGEST} bytes")
        self._runs = artifacts.build_root() / base.name / "runs"
        self.folder = self._runs / run_name if run_name else self._runs.parent
        reseeded = [self._runs / f"seed={self.profile.seed}"] if "seed" in self._changes else []
        self._folders = [self.folder, *reseeded, self._runs.parent]  # where `need` looks
        self._touched: dict[str, Path] = {}  # artefacts read or written: only these belong to the provenance
        self._started = time.monotonic()

    @property
    def divergence(self) -> Divergence:
        """The profile's constants of SDD."""
        return Divergence(**{field.name: getattr(self.profile, field.name) for field in fields(Divergence)})

    @property
    def explanation(self) -> dict[str, Any]:
        """The profile's settings of `xfrlib.explain`."""
        return {"top_k": self.profile.top_k, "centre": self.profile.centre, "divergence": self.divergence}

    def output(self, name: str) -> Path:
        """Where this run writes the artefact `name`; the folder is made."""
        path = self._touched[name] = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def need(self, name: str, made_by: str, network: int = 0) -> Path:
        """The artefact `name` of an earlier notebook: of this run if it has its own, else of the profile.

        Raises `MissingArtifactError`, which says that the notebook `made_by` has to run first.
        """
        folders, whose = self._folders, ""
        if network:  # never the artefact of network 0, which the other run falls back to for what all networks share
            other, whose = self.network(network), f"network {network} of "
            folders = [other.folder, self._runs / f"seed={other.profile.seed}"]
        for path in (folder / name for folder in folders):
            if path.exists():
                return self._touched.setdefault(f"{whose}{name}", path)
        missing = f"{name} of {whose}the profile {self.profile.name!r} is missing: run notebooks/{made_by}.ipynb first"
        raise MissingArtifactError(f"{missing} (or everything in order: make book PROFILE={self.profile.name})")

    def faces_root(self) -> Path:
        """Folder of identities that this profile uses. Raises `FileNotFoundError` with the mend if it is missing."""
        if self.profile.dataset == "synthetic":
            return self.need("faces", "01_data_preparation") if self.notebook[:2] != "01" else self.output("faces")
        folder = self.data_root / expanded("folder", self.profile.folder)
        if not folder.is_dir():
            mend = "set XFR_DATA (or the parameter data_root) to the folder that holds"
            raise FileNotFoundError(f"there is no folder {folder}: {mend} {self.profile.folder}/<identity>/<picture>")
        return folder

    def arguments(self) -> list[str]:
        """What makes a command this run, as `command_line_run` reads it."""
        given = [f"--profile={self._profile_given}", f"--run-name={self._name_given}", f"--data-root={self.data_root}"]
        return given + [f"--set={key}={json.dumps(value)}" for key, value in self._changes.items()]

    def dataset(self, split: str) -> FaceDataset:
        """The pictures of ``"train"``, ``"validation"`` or ``"test"``."""
        manifest = read_manifest(self.need("manifest.csv", "01_data_preparation"))
        return FaceDataset(self.faces_root(), manifest, split)

    def families(self) -> np.ndarray:
        """Who counts as one draw in an interval, by label: the family of a made person, everybody else alone."""
        if self.profile.dataset == "synthetic":
            people = self.read_json("faces_families.json", "01_data_preparation")["identities"]
            return np.array([who["family"] for who in people])
        return np.arange(self.dataset("test").num_classes)

    def backbone(self) -> Backbone:
        """The backbone that the profile names, with the weights of its checkpoint, on the CPU."""
        given = self.profile.checkpoint
        named = given in ("", "builtin") or given.startswith("hub:")
        place = given if named else self.data_root / expanded("checkpoint", given)
        return load_backbone(self.profile.backbone, place, seed=self.profile.seed)

    def network(self, number: int) -> NotebookRun:
        """The run that fine-tunes network `number`, as ``--set seed=<seed + number>`` does: with the same split."""
        if not 0 <= number < self.profile.networks:
            raise ValueError(f"network {number}: the profile has {self.profile.networks}, counted from 0")
        if number == 0:
            return self
        changes = {**self._changes, "seed": self.profile.seed + number}
        name = f"{self._name_given},seed={changes['seed']}" if self._name_given else ""
        other = NotebookRun(self.notebook, self._profile_given, changes, str(self.data_root), name)
        other._folders = [other.folder, *self._folders]
        return other

    def classifier(self, network: int = 0) -> FaceClassifier:
        """The fine-tuned classifier `network` in evaluation mode, on the device of this run."""
        path = self.need("classifier.safetensors", "02_fine_tuning", network)
        return load_classifier(path).to(self.device).eval()

    def temperature(self, network: int = 0) -> float:
        """The temperature that calibrates the probabilities of `network`, from the validation pictures."""
        return float(self.read_json("calibration.json", "02_fine_tuning")["temperature"][network])

    def read_json(self, name: str, made_by: str) -> dict[str, Any]:
        """The content of a JSON artefact of an earlier notebook."""
        return json.loads(self.need(name, made_by).read_text(encoding="utf-8"))

    def write_json(self, name: str, values: dict[str, Any]) -> Path:
        """Write `values` and the provenance of this run as the JSON artefact `name`."""
        path = self.output(name)
        artifacts.write_json(path, {**values, "provenance": self.provenance()})
        return path

    def provenance(self) -> dict[str, Any]:
        """Commit, notebook, profile and its fields, seed, device, versions, hashes of data and weights, run time."""
        facts: dict[str, Any] = {"commit": artifacts.commit(), "notebook": self.notebook}
        facts |= {"profile": self.profile.name, "seed": self.profile.seed} | artifacts.environment()
        there = {name: path for name, path in self._touched.items() if path.exists()}
        if manifest := there.get("manifest.csv"):
            facts["data_hash"] = data_hash(read_manifest(manifest))
        if weights := there.get("classifier.safetensors"):
            facts["classifier_sha256"] = artifacts.file_sha256(weights)
        return {**facts, "settings": self.profile.as_dict(), "seconds": round(time.monotonic() - self._started, 1)}

    def show_provenance(self) -> None:
        """Display the provenance as a table, for the end of a page; hashes are cut to their first 16 digits."""
        from IPython.display import Markdown, display

        facts = self.provenance()
        facts |= {key: f"{facts[key][:16]}…" for key in ("data_hash", "classifier_sha256") if key in facts}
        facts["settings"] = ", ".join(
            f"{key} {' '.join(map(str, value)) if isinstance(value, list) else value}"
            for key, value in facts.pop("settings").items()
            if key not in ("name", "title", "seed") and value not in ("", None)
        )
        rows = "\n".join(f"| {key.replace('_', ' ')} | {value} |" for key, value in facts.items())
        display(Markdown(f"**Provenance of this page**\n\n| what | value |\n|---|---|\n{rows}"))

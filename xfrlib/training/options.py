"""Fine-tuning as a profile asks for it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import xfrlib.models
from xfrlib import artifacts
from xfrlib.data.faces import data_hash, read_manifest
from xfrlib.run import NotebookRun
from xfrlib.training import augmentation
from xfrlib.training.recipe import Recipe

NOTEBOOK = "02_fine_tuning"


def fine_tuning_options(run: NotebookRun) -> dict[str, Any]:
    """All options of `fine_tune` for a profile: its recipe, and where checkpoint and metrics are written.

    The fingerprint covers the data and the code that the weights depend on, so that a checkpoint of other pictures or
    of an older program is never taken for this run's.
    """
    manifest = read_manifest(run.need("manifest.csv", "01_data_preparation"))
    code = [*Path(__file__).parent.glob("*.py"), *Path(xfrlib.models.__file__).parent.glob("*.py")]
    code.append(Path(augmentation.__file__))
    return {
        **{field.name: getattr(run.profile, field.name) for field in fields(Recipe)},
        "device": run.device,
        "num_workers": run.profile.num_workers,
        "compile": run.profile.compile,
        "checkpoint": run.output("checkpoint.pt"),
        "log": run.output("training_log.csv"),
        "tensorboard": run.output("tensorboard"),
        "fingerprint": artifacts.fingerprint(data_hash(manifest), *sorted(code)),
    }

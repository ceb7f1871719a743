"""A profile's evaluation from the test pictures to the table, in one process or divided among many.

python -m xfrlib.protocol --profile facescrub12
accelerate launch -m xfrlib.protocol --profile paper

Notebook 06 then finds every batch done.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from xfrlib import judge, models, regions
from xfrlib.artifacts import file_sha256, fingerprint, write_atomic
from xfrlib.data.faces import FaceDataset, data_hash, read_manifest
from xfrlib.explanation import explain
from xfrlib.geometry import upsampled
from xfrlib.models.classifier import FaceClassifier
from xfrlib.run import NotebookRun, command_line_run

NOTEBOOK = "06_full_evaluation"
KEY = ("chapter", "network", "image", "method", "draw", "fill", "fraction")  # of the per-image table: one row for each


class MappedPictures(NamedTuple):
    """Test pictures (n, 3, H, W) uint8, their logits (n, N), and the region (n, H, W) that each map ranks highest."""

    images: Tensor
    logits: Tensor
    regions: dict[str, np.ndarray]


@torch.no_grad()
def map_regions(
    model: FaceClassifier, loader: Iterable[Any], *, fraction: float = 0.2, progress: bool = True, **settings: Any
) -> MappedPictures:
    """One pass over a loader: logits, and the regions of SDD and of CAM.

    SDD is ranked by its logarithm, because a sharp map underflows to exact zeros away from its peak and ties would then
    decide; CAM is upsampled as SDD's maps are.

    Parameters
    ----------
    model : FaceClassifier
        On the device to compute on.
    loader : iterable
        Of (images (B, 3, H, W) RGB in [0, 1], ...).
    fraction : float
        Share of the pixels in a region.
    **settings
        Those of `explain`.
    """
    device = next(model.parameters()).device
    images, logits, found = [], [], {"sdd": [], "cam": []}  # type: ignore[var-annotated]
    for batch, *_ in tqdm(loader, desc="maps", unit="batch", mininterval=1, disable=not progress):
        explanation = explain(model, batch.to(device), **settings)
        cam = upsampled(explanation.cams[:, 0], batch.shape[2:])
        for name, ranking in (("sdd", explanation.log_sdd), ("cam", cam)):
            found[name].append(regions.top_fraction_mask(ranking, fraction).cpu().numpy())
        images.append((batch * 255).round().byte())
        logits.append(explanation.logits.cpu())
    return MappedPictures(
        torch.cat(images), torch.cat(logits), {name: np.concatenate(masks) for name, masks in found.items()}
    )


def evaluation_table(
    run: NotebookRun, model: FaceClassifier, test: FaceDataset, mapped: MappedPictures, **options: Any
) -> pd.DataFrame:
    """`judged` as the profile asks for it, with identity and path of each picture. `options`: those of `judged`."""
    profile, labels = run.profile, test.table["label"].to_numpy()
    settings = {name: getattr(profile, name) for name in ("fills", "fraction", "draws")}
    table = judged(run, model, mapped.images, labels, mapped.regions, logits=mapped.logits, **settings, **options)
    return table if table.empty else table.merge(test.table[["identity", "path"]], left_on="image", right_index=True)


class Sample(NamedTuple):
    """Pictures of a data set: their numbers in it, their identities (n,), and themselves (n, 3, H, W) in [0, 1]."""

    indices: list[int]
    labels: np.ndarray
    images: Tensor


def stratified(dataset: FaceDataset, count: int | None = None) -> Sample:
    """`count` pictures (None: all), taken in turn from all identities: one of each, then a second of each, and so on.

    A smaller sample is the beginning of a larger one.
    """
    table = dataset.table
    order = table.assign(turn=table.groupby("label").cumcount()).sort_values(["turn", "label"], kind="stable")
    rows = order.head(len(order) if count is None else count)
    if rows.empty:
        raise ValueError(f"a sample of {count} pictures of a set of {len(table)}: ask for at least one")
    indices = rows.index.tolist()
    return Sample(indices, rows["label"].to_numpy(), torch.stack([dataset[index][0] for index in indices]))


def judged(
    run: NotebookRun,
    model: FaceClassifier,
    images: Tensor,
    labels: np.ndarray,
    regions: dict[str, np.ndarray],
    *,
    network: int = 0,
    share: tuple[int, int] = (0, 1),
    progress: bool = True,
    **settings: Any,
) -> pd.DataFrame:
    """`xfrlib.judge.evaluate` on one network, calibrated, resumable, with the profile's seed.

    Finished batches lie in a folder named after everything that they depend on: pictures, regions, weights, settings,
    code. `settings` are those of `evaluate`.
    """
    settings = {"seed": run.profile.seed, "temperature": run.temperature(network), "network": network, **settings}
    tensors = [images, *model.state_dict().values(), *map(torch.from_numpy, regions.values())]
    content = [_digest(tensor) for tensor in tensors]
    plain = {name: value for name, value in settings.items() if not isinstance(value, Tensor)}
    key = fingerprint(content, list(regions), labels.tolist(), plain, judge, models)
    return judge.evaluate(
        model,
        images,
        labels,
        regions,
        batch_size=run.profile.eval_batch_size,
        mean=training_mean(run) if "mean" in settings.get("fills", ()) else None,
        shards=run.output(f"evaluation_shards/{key}"),
        share=share,
        progress=progress,
        **settings,
    )


def kept(run: NotebookRun, key: Any, make: Callable[[], Tensor], code: ModuleType) -> Tensor:
    """What `make` returns, from a file if an earlier run with the same `key`, code, weights and pictures has made it.

    `key` holds, as JSON can, all that the result depends on besides network 0, the pictures and the module `code`.
    """
    classifier = file_sha256(run.need("classifier.safetensors", "02_fine_tuning"))
    pictures = data_hash(read_manifest(run.need("manifest.csv", "01_data_preparation")))
    path = run.output(f"kept/{fingerprint(key, classifier, pictures, code, models)}.pt")
    if not path.exists():
        with write_atomic(path) as part:
            torch.save(make(), part)
    return torch.load(path, weights_only=True)


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.cpu().numpy().tobytes()).hexdigest()


def write_table(run: NotebookRun, table: pd.DataFrame) -> None:
    """Write a notebook's part of the per-image table: ``evaluation.parquet/<notebook>.parquet``.

    The parts have the columns of `evaluation_table` in common, and `pandas.read_parquet` reads the folder as one table.
    Added are `chapter`, the notebook, which is part of the `KEY`: chapters give one name to maps of other settings, and
    draw their random controls from other seeds. And `settings`, in words, of a map that was made with other than the
    profile's; "" where `table` does not say.

    Raises `ValueError` for two rows of one key, naming it.
    """
    table = table.assign(chapter=run.notebook, settings=table.get("settings", ""))
    twice = table[table.duplicated(list(KEY))]
    if len(twice):
        key = ", ".join(f"{name} {twice.iloc[0][name]}" for name in KEY)
        raise ValueError(f"{len(twice)} row(s) of the table have the key of an earlier one, the first: {key}")
    with write_atomic(run.output(f"evaluation.parquet/{run.notebook}.parquet")) as part:
        table.to_parquet(part, index=False)


def training_mean(run: NotebookRun) -> Tensor:
    """Mean colour (3,) of the training pictures, in [0, 1]."""
    loader = DataLoader(run.dataset("train"), run.profile.eval_batch_size)
    return torch.cat([images.mean((2, 3)) for images, *_ in loader]).mean(0)


def main(arguments: list[str] | None = None) -> None:
    """The command line; see the top of this file."""
    run = command_line_run(NOTEBOOK, __doc__, arguments)
    from accelerate import PartialState

    state = PartialState(cpu=run.device.type == "cpu")
    test, model, profile = run.dataset("test"), run.classifier().to(state.device), run.profile
    # The maps cost one pass a picture, the table a hundred: each process makes all maps and a share of the table.
    loader = DataLoader(test, profile.eval_batch_size, num_workers=profile.num_workers)
    first = state.is_main_process
    mapped = map_regions(model, loader, fraction=profile.fraction, progress=first, **run.explanation)
    evaluation_table(run, model, test, mapped, share=(state.process_index, state.num_processes), progress=first)
    state.wait_for_everyone()
    if first:
        table = evaluation_table(run, model, test, mapped, progress=False)  # from the finished batches
        write_table(run, table)
        print(
            f"{len(table)} rows in {run.output('evaluation.parquet')}, from {state.num_processes} process(es). "
            f"Next: notebooks/{NOTEBOOK}.ipynb, which reads the finished batches."
        )


if __name__ == "__main__":
    main()

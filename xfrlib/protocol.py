"""Evaluate as a profile says, in one process or divided among many; notebook 06 then finds every batch done.

python -m xfrlib.protocol --profile facescrub12
accelerate launch -m xfrlib.protocol --profile paper
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from xfrlib import judge, models
from xfrlib.artifacts import fingerprint, in_sentences, write_atomic
from xfrlib.cam import pooled_features
from xfrlib.data.faces import FaceDataset
from xfrlib.explanation import explain_features
from xfrlib.models.classifier import FaceClassifier
from xfrlib.regions import top_fraction_mask
from xfrlib.run import NotebookRun, command_line_run
from xfrlib.tables import MAPS

NOTEBOOK = "06_full_evaluation"
KEY = ("chapter", "network", "image", "method", "draw", "fill", "fraction")  # of the per-image table: one row for each


class MappedPictures(NamedTuple):
    """Test pictures (n, 3, H, W) uint8, their logits (n, N), classes compared (n, K), each map's region (n, H, W)."""

    images: Tensor
    logits: Tensor
    classes: Tensor
    regions: dict[str, np.ndarray]


@torch.no_grad()
def map_regions(
    model: FaceClassifier, loader: Iterable[Any], *, fraction: float = 0.2, progress: bool = True, **settings: Any
) -> MappedPictures:
    """One pass over a loader of (images (B, 3, H, W) RGB in [0, 1], ...): logits, and the regions of SDD and of CAM.

    Both are there in their place and ``_drawn`` as libraries draw them. `settings` are those of `explain`.
    """
    device, parts = next(model.parameters()).device, list[list[Tensor]]()
    for batch, *_ in tqdm(loader, desc="maps", unit="batch", mininterval=1, disable=not progress):
        pooled, size = pooled_features(model, batch.to(device)), (batch.shape[2], batch.shape[3])
        here, drawn = (explain_features(pooled, size=size, registered=own, **settings) for own in (True, False))
        rankings = [ranking for one in (here, drawn) for ranking in (one.log_sdd, one.upsampled_cams[:, 0])]
        regions = [top_fraction_mask(ranking, fraction) for ranking in rankings]
        parts.append([tensor.cpu() for tensor in ((batch * 255).round().byte(), here.logits, here.classes, *regions)])
    images, logits, classes, *masks = map(torch.cat, zip(*parts, strict=True))
    return MappedPictures(images, logits, classes, dict(zip(MAPS, (mask.numpy() for mask in masks), strict=True)))


def evaluation_table(
    run: NotebookRun, model: FaceClassifier, test: FaceDataset, mapped: MappedPictures, **options: Any
) -> pd.DataFrame:
    """`judged` as the profile asks for it, with identity and path of each picture. `options`: those of `judged`."""
    profile, labels = run.profile, test.table["label"].to_numpy()
    settings = {name: getattr(profile, name) for name in ("fills", "fraction", "draws")}
    settings |= {"logits": mapped.logits, "pairs": mapped.classes}
    table = judged(run, model, mapped.images, labels, mapped.regions, **settings, **options)
    return table if table.empty else table.merge(test.table[["identity", "path"]], left_on="image", right_index=True)


class Sample(NamedTuple):
    """Pictures of a data set: their numbers in it, their identities (n,), and themselves (n, 3, H, W) in [0, 1]."""

    indices: list[int]
    labels: np.ndarray
    images: Tensor


def stratified(dataset: FaceDataset, count: int | None = None) -> Sample:
    """`count` pictures (None: all), one of each identity, then a second of each: a smaller sample begins a larger."""
    table = dataset.table
    order = table.assign(turn=table.groupby("label").cumcount()).sort_values(["turn", "label"], kind="stable")
    rows = order.head(len(order) if count is None else count)
    if rows.empty:
        raise ValueError(f"a sample of {count} pictures of a set of {len(table)}: ask for at least one")
    indices = rows.index.tolist()
    return Sample(indices, rows["label"].to_numpy(), torch.stack([dataset[index][0] for index in indices]))


def judged(
    run: NotebookRun, model: FaceClassifier, images: Tensor, labels: np.ndarray, regions: dict[str, np.ndarray], *,
    network: int = 0, share: tuple[int, int] = (0, 1), progress: bool = True, **settings: Any,
) -> pd.DataFrame:  # fmt: skip
    """`xfrlib.judge.evaluate`, with its `settings`, on one network: calibrated, resumable, with the profile's seed.

    Finished batches lie in a folder named after all that they depend on: pictures, regions, weights, settings, code.
    """
    settings = {"seed": run.profile.seed, "temperature": run.temperature(network), "network": network, **settings}
    tensors = [images, *model.state_dict().values(), settings.get("pairs", torch.empty(0))]
    arrays = [tensor.cpu().numpy() for tensor in tensors] + list(regions.values())
    content = [hashlib.sha256(np.ascontiguousarray(array).data).hexdigest() for array in arrays]
    plain = {name: value for name, value in settings.items() if not isinstance(value, Tensor)}
    key = fingerprint(content, list(regions), labels.tolist(), plain, judge, models)
    settings |= {"mean": training_mean(run)} if "mean" in settings.get("fills", ()) else {}
    settings |= {"batch_size": run.profile.eval_batch_size, "shards": run.output(f"evaluation_shards/{key}")}
    return judge.evaluate(model, images, labels, regions, share=share, progress=progress, **settings)


def write_table(run: NotebookRun, table: pd.DataFrame) -> None:
    """Write a notebook's part of the per-image table: ``evaluation.parquet/<notebook>.parquet``.

    `pandas.read_parquet` reads the folder as one table: the columns of `evaluation_table`, `chapter` (the notebook,
    because chapters give one name to maps of other settings and draw their controls from other seeds) and `settings`,
    in words, of a map made with other than the profile's. Raises `ValueError` for two rows of one `KEY`, naming it.
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


@in_sentences()
def main(arguments: list[str] | None = None) -> None:
    """The command line; see the top of this file."""
    run = command_line_run(NOTEBOOK, "python -m xfrlib.protocol", __doc__, arguments)
    from accelerate import PartialState

    state = PartialState(cpu=run.device.type == "cpu")
    test, model, profile = run.dataset("test"), run.classifier().to(state.device), run.profile
    # The maps cost one pass a picture, the table a hundred: each process makes all maps and a share of the table.
    loader, first = DataLoader(test, profile.eval_batch_size, num_workers=profile.num_workers), state.is_main_process
    mapped = map_regions(model, loader, fraction=profile.fraction, progress=first, **run.explanation)
    evaluation_table(run, model, test, mapped, share=(state.process_index, state.num_processes), progress=first)
    state.wait_for_everyone()
    if first:
        table = evaluation_table(run, model, test, mapped, progress=False)  # from the finished batches
        write_table(run, table)
        print(f"{len(table)} rows in {run.output('evaluation.parquet')}, from {state.num_processes} process(es).")
        print(f"Next: notebooks/{NOTEBOOK}.ipynb, which reads the finished batches.")


if __name__ == "__main__":
    main()

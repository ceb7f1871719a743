"""What the open constants of SDD do to its map and to the test by deletion and retention: a grid from one pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from xfrlib.cam import PooledFeatures, pooled_features
from xfrlib.explanation import select_classes
from xfrlib.judge import evaluate
from xfrlib.prediction import as_floats
from xfrlib.profile import did_you_mean
from xfrlib.sdd import Divergence, scaled_directed_divergence


@torch.no_grad()
def sdd_ranking(
    pooled: PooledFeatures,
    *,
    size: tuple[int, int],
    delta: float = 1.0,
    s: float | str = "clamped",
    form: str = "sum",
    resolution: str = "after",
    rivals: int = 4,
    centre: bool = True,
    scale: float = 1.0,
    scale_min: float = 1.0,
    scale_max: float = 50.0,
) -> Tensor:
    """The SDD map of the predicted class under one setting of the open constants, to rank pixels by: (B, H, W).

    delta, form, scale, scale_min, scale_max : those of `scaled_directed_divergence`.
    s : "clamped" for the paper's s, computed from the maps and clamped to [scale_min, scale_max]; "unclamped" for the
        same without a lower bound; a number for that factor on every picture, whatever scale and its bounds are.
    resolution : "after", the exponential is taken at `size` (H, W), after the upsampling of the CAMs (the map is then
        the logarithm, which ranks pixels the same); "before", in the cells of the last map, and the SDD map is
        upsampled.
    rivals : 1 to N - 1, the number of most probable classes that the target is compared with.
    centre : as in `xfrlib.explain`.
    """
    if isinstance(s, str) and s not in ("clamped", "unclamped"):
        raise ValueError(f's = {s!r}: use "clamped", "unclamped" or a number')
    if s == "unclamped":
        scale_min = 1e-6
    elif not isinstance(s, str):
        scale_min = scale_max = float(s)
    cams = pooled.maps(select_classes(pooled.logits, top_k=rivals + 1), centre=centre)
    divergence = Divergence(delta, scale, scale_min, scale_max, form)
    return scaled_directed_divergence(cams, divergence, size=size, exponential=resolution, log=True)


def setting_name(setting: Mapping[str, Any], default: Mapping[str, Any]) -> str:
    """What sets a setting apart from the default, as text: "delta 3, s 0.5", or "default"."""
    changed = [f"{key} {value}" for key, value in setting.items() if value != default[key]]
    return ", ".join(changed) or "default"


def one_at_a_time(default: Mapping[str, Any], values: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, Any]]:
    """The default and every setting that changes one constant of it to one of `values`, by name."""
    _known(default, values)
    changes = [
        {},
        *({name: value} for name, choices in values.items() for value in choices),
    ]
    return _named(default, changes)


def full_grid(default: Mapping[str, Any], values: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, Any]]:
    """The settings of all combinations of `values`, the other constants as in the default, by name."""
    _known(default, values)
    return _named(
        default,
        [dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())],
    )


def _known(default: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    for name in values:
        if name not in default:
            raise ValueError(f"unknown constant {name!r}{did_you_mean(name, list(default))}")


def _named(default: Mapping[str, Any], changes: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    settings = [{**default, **change} for change in changes]
    return {setting_name(setting, default): setting for setting in settings}


@torch.no_grad()
def evaluate_regions(
    model: nn.Module,
    images: Tensor,
    labels: np.ndarray,
    regions_of: Callable[[PooledFeatures], Mapping[str, Tensor]],
    *,
    fills: Sequence[str],
    mean: Tensor | None = None,
    fraction: float = 0.2,
    temperature: float = 1.0,
    network: int = 0,
    batch_size: int = 64,
    progress: bool = True,
) -> tuple[pd.DataFrame, dict[str, Tensor]]:
    """Deletion and retention by many regions of the same pictures, each distinct region perturbed once.

    Settings that lead to the same region of a picture share its passes: 2 * fills for a distinct region.

    Parameters
    ----------
    model : in evaluation mode, on the device to compute on; a network that `pooled_features` accepts.
    images : (n, 3, H, W) uint8 or float in [0, 1].
    labels : (n,) identities.
    fills, mean, temperature : see `deletion_retention`.
    regions_of : what one forward pass yields for a batch -> masks (b, H, W) bool by name.

    Returns
    -------
    One row for each picture, region and fill: `network`, `image`, `label`, `predicted`, `correct`, `setting` (the
    region's name), `fill`, `fraction`, and the columns of `deletion_retention`; and the masks (n, H, W) by name.
    """
    device = next(model.parameters()).device
    found: dict[str, list[Tensor]] = {}
    logits = []
    for batch in tqdm(images.split(batch_size), "maps", unit="batch", mininterval=1, disable=not progress):
        pooled = pooled_features(model, as_floats(batch.to(device)))
        logits.append(pooled.logits.cpu())
        for name, masks in regions_of(pooled).items():
            found.setdefault(name, []).append(masks.cpu())
    regions = {name: torch.cat(masks) for name, masks in found.items()}
    table = evaluate(
        model,
        images,
        np.asarray(labels),
        {name: masks.numpy() for name, masks in regions.items()},
        logits=torch.cat(logits),
        fills=fills,
        mean=mean,
        fraction=fraction,
        temperature=temperature,
        network=network,
        batch_size=batch_size,
        controls=(),
        progress=progress,
    )
    return table.drop(columns="draw").rename(columns={"method": "setting"}), regions

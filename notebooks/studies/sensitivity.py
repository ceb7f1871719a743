"""Chapter 12: what the open constants of SDD do to its map and to deletion and retention, a grid from one pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from xfrlib.cam import PooledFeatures, pooled_features
from xfrlib.explanation import select_classes
from xfrlib.intervals import Estimate, mean_interval
from xfrlib.prediction import as_floats
from xfrlib.profile import did_you_mean
from xfrlib.sdd import Divergence, scaled_directed_divergence
from xfrlib.tables import verdict


def balance(table: pd.DataFrame) -> pd.Series[float]:
    """The lead that is left with a region alone less the lead that is left without it: higher is better."""
    return table["deletion_lead_drop"] - table["retention_lead_drop"]


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

    Parameters
    ----------
    size : tuple of int
        (H, W) of the pictures.
    delta, form, scale, scale_min, scale_max
        Those of `xfrlib.Divergence`.
    s : {"clamped", "unclamped"} or float
        "clamped" for the paper's s, computed from the maps and clamped to [scale_min, scale_max]; "unclamped" for the
        same without a lower bound; a number for that factor on every picture, whatever scale and its bounds are.
    resolution : {"after", "before"}
        The `exponential` of `xfrlib.scaled_directed_divergence`, of which this is the logarithm.
    rivals : int
        1 to N - 1, the number of most probable classes that the target is compared with.
    centre : bool
        As in `xfrlib.explain`.
    """
    if isinstance(s, str) and s not in ("clamped", "unclamped"):
        raise ValueError(f's = {s!r}: use "clamped", "unclamped" or a number')
    if s == "unclamped":
        scale_min = 1e-6
    elif not isinstance(s, str):
        scale_min = scale_max = float(s)
    cams = pooled.maps(select_classes(pooled.logits, top_k=rivals + 1), centre=centre)
    divergence = Divergence(delta, scale, scale_min, scale_max, form)
    return scaled_directed_divergence(
        cams, divergence, size=size, geometry=pooled.geometry, exponential=resolution, log=True
    )


def setting_name(setting: Mapping[str, Any], default: Mapping[str, Any]) -> str:
    """What sets a setting apart from the default, as text: "delta 3, s 0.5", or "default"."""
    changed = [f"{key} {value}" for key, value in setting.items() if value != default[key]]
    return ", ".join(changed) or "default"


def one_at_a_time(default: Mapping[str, Any], values: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, Any]]:
    """The default and every setting that changes one constant of it to one of `values`, by name."""
    _known(default, values)
    changes = [{}, *({name: value} for name, choices in values.items() for value in choices)]
    return _named(default, changes)


def full_grid(default: Mapping[str, Any], values: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, Any]]:
    """The settings of all combinations of `values`, the other constants as in the default, by name."""
    _known(default, values)
    combinations = itertools.product(*values.values())
    return _named(default, [dict(zip(values, combination, strict=True)) for combination in combinations])


def _known(default: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    for name in values:
        if name not in default:
            raise ValueError(f"unknown constant {name!r}{did_you_mean(name, list(default))}")


def _named(default: Mapping[str, Any], changes: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    settings = [{**default, **change} for change in changes]
    return {setting_name(setting, default): setting for setting in settings}


@torch.no_grad()
def one_pass(
    model: nn.Module, images: Tensor, regions_of: Callable[[PooledFeatures], Mapping[str, Tensor]], batch_size: int = 64
) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits (n, N) of pictures (n, 3, H, W), uint8 or in [0, 1], and the regions (n, H, W) bool that each pass yields.

    `regions_of` takes what the pass of a batch ends in, and returns regions by name. All on the CPU.
    """
    device = next(model.parameters()).device
    found: dict[str, list[Tensor]] = {}
    logits = []
    for batch in tqdm(images.split(batch_size), "maps", unit="batch", mininterval=1):
        pooled = pooled_features(model, as_floats(batch.to(device)))
        logits.append(pooled.logits.cpu())
        for name, masks in regions_of(pooled).items():
            found.setdefault(name, []).append(masks.cpu())
    return torch.cat(logits), {name: torch.cat(masks) for name, masks in found.items()}


def by_setting(tables: Sequence[pd.DataFrame], families: NDArray[np.int64]) -> pd.DataFrame:
    """Tables of `xfrlib.judge.evaluate` as one, whose methods are settings, with balance and family of each row.

    The balance is in log-odds of the lead over the `pairs` that the tables were made with.
    """
    table = pd.concat(tables, ignore_index=True).drop(columns="draw").rename(columns={"method": "setting"})
    return table.assign(balance=balance(table), family=families[table["label"]])


def shared_with_default(masks: Sequence[Mapping[str, Tensor]], names: Iterable[str]) -> dict[str, float]:
    """Share of the default's region that a setting's has too, the mean over networks (one item of `masks` each)."""
    shares: dict[str, list[Tensor]] = {name: [] for name in names}
    for found in masks:
        size = found["default"].sum(dim=(1, 2))
        for name, parts in shares.items():
            parts.append((found[name] & found["default"]).sum(dim=(1, 2)) / size)
    return {name: float(torch.cat(parts).numpy().mean()) for name, parts in shares.items()}


def over_default(table: pd.DataFrame, name: str) -> Estimate:
    """A setting's balance less the default's, fills averaged, with an interval over people and networks."""
    wide = table.pivot_table(index=["network", "image", "family"], columns="setting", values="balance")
    difference = wide[name] - wide["default"]
    family, network = (difference.index.get_level_values(level) for level in ("family", "network"))
    return mean_interval(difference, family, network)


def conclusion(best: str, gain: Mapping[str, Estimate]) -> str:
    """What the test pictures say, fill by fill, of the setting that the validation pictures chose.

    `gain` has by fill the balance of the setting less the default's. Fills are not averaged: they may disagree.
    """
    if best == "default":
        return "The validation pictures chose the default, so nothing changes."
    said = {fill: verdict(found) for fill, found in gain.items()}
    if set(said.values()) == {"better"}:
        return (
            f"The setting **{best}**, chosen on validation pictures, is better than the default on test pictures under "
            "every fill that judges, by intervals that exclude zero. That speaks for it in this profile."
        )
    words = {"better": "better than", "worse": "*worse* than", "undecided": "not told apart from"}
    found = [
        f"{how} the default under {' and '.join(fill for fill, one in said.items() if one == word)}"
        for word, how in words.items()
        if word in said.values()
    ]
    return (
        f"On test pictures the setting **{best}**, chosen on validation pictures under grey, is {', and '.join(found)}"
        ". No gain is shown under every fill that judges, so the default stays."
    )


def repeated(differences: Mapping[tuple[str, str, str], Estimate], word: str) -> list[str]:
    """The settings whose difference from the default is `word` ("better" or "worse") under every fill.

    `differences` are by constant, value and fill.
    """
    under: dict[str, list[str]] = {}
    for (constant, value, _), found in differences.items():
        under.setdefault(f"{constant} {value}", []).append(verdict(found))
    return [name for name, words in under.items() if set(words) == {word}]

"""What can be known of a map without another pass: features that may tell a map to show from one to keep back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from tqdm import tqdm

from xfrlib.cam import pooled_features
from xfrlib.explanation import explain_features
from xfrlib.geometry import upsampled
from xfrlib.models.classifier import FaceClassifier
from xfrlib.profile import FORMS
from xfrlib.protocol import MappedPictures
from xfrlib.regions import disc, top_fraction_mask
from xfrlib.sdd import DEFAULT, Divergence, scaled_directed_divergence, sdd_scale
from xfrlib.trust import advantages

VERDICTS = ("wins both", "mixed", "loses both")


def picture_verdicts(
    table: pd.DataFrame,
    *,
    method: str = "sdd",
    reference: str = "disc",
    score: str = "margin_drop",
) -> pd.DataFrame:
    """A verdict for each network, picture and fill, from the table of evaluation.

    Returns `network`, `image`, `fill`, `label`, `correct`, the advantages `deletion` and `retention` of `method` over
    `reference` (log-odds for the score "margin_drop"), the lesser of them, `worst`, and `verdict`, one of `VERDICTS`: a
    tie wins nothing and loses nothing. Raises ValueError if a method is missing, or stands twice or not at all in a
    picture.
    """
    keys = ["network", "image", "fill"]
    sides = {}
    for name in (method, reference):
        rows = table[table["method"] == name]
        if rows.empty:
            raise ValueError(f"the table has no method {name!r}; it has {', '.join(sorted(table['method'].unique()))}")
        sides[name] = rows.set_index(keys).sort_index()
        if not sides[name].index.is_unique:
            raise ValueError(f"the table has {name!r} more than once in a picture: keep one draw and one fraction")
    own, other = sides[method], sides[reference]
    if not own.index.equals(other.index):
        raise ValueError(f"{method!r} and {reference!r} were not measured on the same networks, pictures and fills")
    result = own[["label", "correct"]].copy()
    result["deletion"], result["retention"] = advantages(own, other, score=score)
    result["worst"] = result[["deletion", "retention"]].min(axis=1)
    best = result[["deletion", "retention"]].max(axis=1)
    result["verdict"] = np.select([result["worst"] > 0, best < 0], ["wins both", "loses both"], "mixed")
    return result.reset_index()


def risk_coverage(trust: ArrayLike, failed: ArrayLike, weights: ArrayLike | None = None) -> pd.DataFrame:
    """Risk against coverage as ever more maps are shown, in the order of falling trust.

    trust, failed, weights : (n,); failed is True where a map does not beat the disc. Pictures of equal trust are shown
    together, since a threshold cannot tell them apart. Returns `coverage` and `risk`, both in [0, 1], and the
    `threshold` (the least trust shown), one row for each value of trust, coverage rising to 1.
    """
    trust, failed, weights = _checked_trust(trust, failed, weights)
    values, place = np.unique(-trust, return_inverse=True)
    shown, lost = (np.cumsum(np.bincount(place, weights=w, minlength=len(values))) for w in (weights, weights * failed))
    some = shown > 0
    return pd.DataFrame(
        {
            "coverage": shown[some] / weights.sum(),
            "risk": lost[some] / shown[some],
            "threshold": -values[some],
        }
    )


def risk_area(trust: ArrayLike, failed: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Area under the risk-coverage curve, in [0, 1], lower is better: the mean risk over all coverages.

    Pictures of equal trust count as if they came in random order. A constant trust, and any trust that has nothing to
    do with failure, has the share of failures as its area; `least_area` is what a perfect rule reaches.
    """
    curve = risk_coverage(trust, failed, weights)
    coverage, lost = (
        curve["coverage"].to_numpy(),
        (curve["coverage"] * curve["risk"]).to_numpy(),
    )
    start, lost_before = np.append(0, coverage[:-1]), np.append(0, lost[:-1])
    # within a block of equal trust the expected losses a + b c rise linearly with coverage c: integrate (a + b c) / c
    slope = (lost - lost_before) / (coverage - start)
    constant = lost_before - slope * start
    logs = np.where(start > 0, np.log(coverage / np.where(start > 0, start, 1)), 0)  # the first block has constant 0
    return float((slope * (coverage - start) + constant * logs).sum())


def least_area(failed: ArrayLike, weights: ArrayLike | None = None) -> float:
    """`risk_area` of the perfect rule, which shows every map that beats the disc before any that does not."""
    failed = np.asarray(failed, dtype=bool)
    return risk_area(~failed, failed, weights)


def choose_threshold(
    trust: ArrayLike,
    failed: ArrayLike,
    *,
    risk_factor: float = 0.5,
    least_coverage: float = 0.05,
) -> float | None:
    """The lowest trust to show: largest coverage at which the risk is at most `risk_factor` of that of showing all.

    Meant for validation pictures. Coverages below `least_coverage` are not looked at, for their risk is luck. None if
    no threshold qualifies: then the rule never shows a map.
    """
    if not 0 < risk_factor <= 1:
        raise ValueError(f"risk_factor = {risk_factor!r}: must be above 0 and at most 1")
    curve = risk_coverage(trust, failed)
    allowed = risk_factor * float(np.asarray(failed, dtype=float).mean())
    fit = curve[(curve["risk"] <= allowed + 1e-12) & (curve["coverage"] >= least_coverage)]
    return None if fit.empty else float(fit["threshold"].iloc[-1])


def direction(trust: ArrayLike, failed: ArrayLike) -> int:
    """1 if high values go with maps that beat the disc, else -1: the sign that gives a feature the smaller area."""
    trust = np.asarray(trust, dtype=float)
    return 1 if risk_area(trust, failed) <= risk_area(-trust, failed) else -1


def _checked_trust(
    trust: ArrayLike, failed: ArrayLike, weights: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    values, lost = np.asarray(trust, dtype=float), np.asarray(failed, dtype=bool)
    given = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=float)
    if not values.shape == lost.shape == given.shape or values.ndim != 1 or not len(values):
        raise ValueError(f"trust {values.shape}, failed {lost.shape} and weights {given.shape}: give one of each, (n,)")
    if np.isnan(values).any():
        raise ValueError(f"{int(np.isnan(values).sum())} of {len(values)} values of trust are NaN")
    if (given < 0).any() or not given.sum() > 0:
        raise ValueError("weights must be at least 0, with a sum above 0")
    return values, lost, given


FEATURES = {  # column -> how a reader sees it
    "probability": "probability of the predicted class",
    "half_mass": "share of pixels that holds half of the map",
    "overlap_disc": "overlap of the region with the disc",
    "distance": "distance of the region from the centre",
    "overlap_cam": "overlap of the region with CAM's",
    "overlap_forms": "agreement of the three forms of SDD",
    "scale": "the scale s before it is clamped",
}


@torch.no_grad()
def map_features(
    model: FaceClassifier,
    loader: Iterable[Any],
    *,
    fraction: float = 0.2,
    temperature: float = 1.0,
    progress: bool = True,
    divergence: Divergence = DEFAULT,
    **settings: Any,
) -> tuple[MappedPictures, pd.DataFrame]:
    """One pass over a loader of (images (B, 3, H, W) RGB in [0, 1], ...): regions as `protocol.map_regions` has them,
    and a row of features for each picture.

    Columns, in the order of `FEATURES`: calibrated `probability` of the predicted class (softmax of logits over
    `temperature`), in [0, 1]; `half_mass`, the smallest share of pixels that holds half of the map, in [0, 1], small
    for a sharp map; `overlap_disc` and `overlap_cam`, the share of the region that lies in the centred disc or in
    CAM's region; `distance` of the region's centroid from the middle of the picture, in pixels; `overlap_forms`, the
    mean share that the regions of two forms of SDD have in common; `scale`, k times the ratio in the definition of s,
    unclamped. `divergence` and `settings`: those of `explain`.
    """
    device = next(model.parameters()).device
    images, logits, rows = [], [], []
    regions: dict[str, list[np.ndarray]] = {"sdd": [], "cam": []}
    for batch, *_ in tqdm(
        loader,
        desc="maps and features",
        unit="batch",
        mininterval=1,
        disable=not progress,
    ):
        size = (batch.shape[2], batch.shape[3])
        e = explain_features(pooled_features(model, batch.to(device)), size=size, divergence=divergence, **settings)
        cam = upsampled(e.cams[:, 0], size)
        masks = {
            "sdd": top_fraction_mask(e.log_sdd, fraction),
            "cam": top_fraction_mask(cam, fraction),
        }
        joined = [replace(divergence, form=form) for form in FORMS]
        maps = [scaled_directed_divergence(e.cams, one, size=size, log=True) for one in joined]
        forms = [top_fraction_mask(values, fraction) for values in maps]
        pairs = torch.stack([_overlap(a, b) for a, b in combinations(forms, 2)])
        centre = torch.from_numpy(disc(int(masks["sdd"][0].sum()), size)).to(device).expand_as(cam)
        found = {
            "probability": (e.logits.double() / temperature).softmax(dim=1).amax(dim=1),
            "half_mass": half_mass(e.sdd),
            "overlap_disc": _overlap(masks["sdd"], centre),
            "distance": centroid_distance(masks["sdd"]),
            "overlap_cam": _overlap(masks["sdd"], masks["cam"]),
            "overlap_forms": pairs.mean(dim=0),
            "scale": sdd_scale(e.cams, divergence, clamped=False),
        }
        rows.append(pd.DataFrame({name: value.cpu().double().numpy() for name, value in found.items()}))
        for name, mask in masks.items():
            regions[name].append(mask.cpu().numpy())
        images.append((batch * 255).round().byte())
        logits.append(e.logits.cpu())
    mapped = MappedPictures(
        torch.cat(images),
        torch.cat(logits),
        {name: np.concatenate(kept) for name, kept in regions.items()},
    )
    return mapped, pd.concat(rows, ignore_index=True)[list(FEATURES)]


def half_mass(maps: Tensor) -> Tensor:
    """Smallest share of pixels that holds half of a map's sum: maps (B, H, W) of values from 0 up -> (B,) in (0, 1]."""
    values = maps.double().flatten(1).sort(dim=1, descending=True).values
    held = values.cumsum(dim=1) / values.sum(dim=1, keepdim=True)
    return ((held < 0.5).sum(dim=1) + 1) / values.shape[1]


def centroid_distance(masks: Tensor) -> Tensor:
    """Distance in pixels of each region's centroid from the middle of the picture: bool (B, H, W) -> (B,)."""
    height, width = masks.shape[1:]
    y = torch.arange(height, device=masks.device, dtype=torch.float64) - (height - 1) / 2
    x = torch.arange(width, device=masks.device, dtype=torch.float64) - (width - 1) / 2
    count = masks.sum(dim=(1, 2))
    return torch.hypot(
        (masks.sum(dim=2) * y).sum(dim=1) / count,
        (masks.sum(dim=1) * x).sum(dim=1) / count,
    )


def _overlap(masks: Tensor, others: Tensor) -> Tensor:
    """Share of each mask that the other has too: (B, H, W) twice, of equal numbers of pixels -> (B,)."""
    return (masks & others).sum(dim=(1, 2)) / masks.sum(dim=(1, 2))

"""Chapter 11: on which pictures a map beats the disc, what may tell before it is shown, and risk against coverage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from studies.jackknife import jackknife
from xfrlib.controls import disc
from xfrlib.explanation import explain
from xfrlib.intervals import Estimate
from xfrlib.models.classifier import FaceClassifier
from xfrlib.plots import percent
from xfrlib.profile import FORMS
from xfrlib.regions import top_fraction_mask
from xfrlib.sdd import DEFAULT, Divergence, scaled_directed_divergence, sdd_scale
from xfrlib.tables import in_text
from xfrlib.trust import LEAST, gains

WON, LOST = "wins both", "loses both"
VERDICTS = (WON, "mixed", LOST)


def picture_verdicts(
    table: pd.DataFrame, *, method: str = "sdd", reference: str = "disc", score: str = "lead_drop"
) -> pd.DataFrame:
    """A verdict for each network, picture and fill, from the table of evaluation.

    Returns `network`, `image`, `fill`, `label`, `correct`, the gains `deletion` and `retention` of `method` over
    `reference` in log-odds of the `score`, "lead_drop" for the lead over the fixed rivals or "margin_drop" for that
    over the best rival, the lesser of them, `worst`, and `verdict`, one of `VERDICTS`: a tie wins nothing and loses
    nothing, and a gain below `xfrlib.trust.LEAST` is a tie. Raises ValueError if a method is missing, or stands
    twice or not at all in a picture.
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
    result["deletion"], result["retention"] = gains(own, other, score=score)
    result["worst"] = result[["deletion", "retention"]].min(axis=1)
    best = result[["deletion", "retention"]].max(axis=1)
    result["verdict"] = np.select([result["worst"] >= LEAST, best <= -LEAST], [WON, LOST], "mixed")
    return result.reset_index()


def risk_coverage(trust: ArrayLike, failed: ArrayLike) -> pd.DataFrame:
    """Risk against coverage as ever more maps are shown, in the order of falling trust.

    Both are (n,); `failed` is True where a map does not beat the disc. Pictures of equal trust are shown together,
    since a threshold cannot tell them apart. Returns `coverage` and `risk`, both in [0, 1], and the
    `threshold` (the least trust shown), one row for each value of trust, coverage rising to 1.
    """
    trust, failed = _checked_trust(trust, failed)
    values, place = np.unique(-trust, return_inverse=True)
    shown, lost = (np.cumsum(np.bincount(place, weights=one)) for one in (None, failed))
    return pd.DataFrame({"coverage": shown / len(trust), "risk": lost / shown, "threshold": -values})


def risk_area(trust: ArrayLike, failed: ArrayLike) -> float:
    """Area under the risk-coverage curve, in [0, 1], lower is better: the mean risk over all coverages.

    Pictures of equal trust count as if they came in random order. A constant trust, and any trust that has nothing to
    do with failure, has the share of failures as its area; `least_area` is what a perfect rule reaches.
    """
    curve = risk_coverage(trust, failed)
    coverage, lost = curve["coverage"].to_numpy(), (curve["coverage"] * curve["risk"]).to_numpy()
    start, lost_before = np.append(0, coverage[:-1]), np.append(0, lost[:-1])
    # within a block of equal trust the expected losses a + b c rise linearly with coverage c: integrate (a + b c) / c
    slope = (lost - lost_before) / (coverage - start)
    constant = lost_before - slope * start
    logs = np.where(start > 0, np.log(coverage / np.where(start > 0, start, 1)), 0)  # the first block has constant 0
    return float((slope * (coverage - start) + constant * logs).sum())


def least_area(failed: ArrayLike) -> float:
    """`risk_area` of the perfect rule, which shows every map that beats the disc before any that does not."""
    failed = np.asarray(failed, dtype=bool)
    return risk_area(~failed, failed)


def choose_threshold(
    trust: ArrayLike, failed: ArrayLike, *, risk_factor: float = 0.5, least_coverage: float = 0.05
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


def _checked_trust(trust: ArrayLike, failed: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values, lost = np.asarray(trust, dtype=float), np.asarray(failed, dtype=bool)
    if values.shape != lost.shape or values.ndim != 1 or not len(values):
        raise ValueError(f"trust {values.shape} and failed {lost.shape}: give one of each, (n,)")
    if np.isnan(values).any():
        raise ValueError(f"{int(np.isnan(values).sum())} of {len(values)} values of trust are NaN")
    return values, lost


class Agreement(NamedTuple):
    """Share of equal verdicts between two fills or networks, and what chance would give: means over all pairs."""

    same: float
    chance: float

    @property
    def beyond_chance(self) -> float:
        """Agreement beyond chance, as a share of what is possible; NaN where chance alone is perfect."""
        return (self.same - self.chance) / (1 - self.chance) if self.chance < 1 else np.nan


def verdict_agreement(verdicts: pd.DataFrame) -> Agreement | None:
    """How often the columns of `verdicts`, one a fill or a network, say the same of a picture; None for one column."""
    pairs = []
    for one, other in combinations(verdicts.columns, 2):
        a, b = (verdicts[c].to_numpy()[:, None] == np.array(VERDICTS) for c in (one, other))
        pairs.append(((a & b).any(axis=1).mean(), float(a.mean(axis=0) @ b.mean(axis=0))))
    return Agreement(*(float(np.mean(column)) for column in zip(*pairs, strict=True))) if pairs else None


def agreement_over_chance(verdicts: pd.DataFrame, families: ArrayLike) -> Estimate | None:
    """`Agreement.same` less `Agreement.chance`, with an interval over `families` (n,), one for each row of `verdicts`.

    None for one column, as for `verdict_agreement`.
    """
    if len(verdicts.columns) < 2:
        return None

    def difference(kept: NDArray[np.bool_]) -> float:
        found = verdict_agreement(verdicts[kept])
        return found.same - found.chance if found else np.nan

    return jackknife(difference, families)


def agreement_in_words(found: Agreement | None, over_chance: Estimate | None, what: str) -> str:
    """A sentence on the agreement between, say, networks, and on what `agreement_over_chance` found."""
    if found is None or over_chance is None:
        return f"Whether {what} agree cannot be said: there is only one."
    same, chance = percent(found.same), percent(found.chance)
    more = in_text(over_chance, 0, factor=100, signed=True, unit=" points")
    return f"Between {what}, {same} of the verdicts are the same; chance would give {chance} ({more}, over people)."


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
    regions: Mapping[str, np.ndarray],
    *,
    fraction: float = 0.2,
    temperature: float = 1.0,
    divergence: Divergence = DEFAULT,
    **settings: Any,
) -> pd.DataFrame:
    """What the pass that makes a map gives beside it: a row of `FEATURES` for each picture.

    Parameters
    ----------
    model : FaceClassifier
        On the device to compute on.
    loader : iterable
        Of (images (B, 3, H, W) RGB in [0, 1], ...).
    regions : mapping
        "sdd" and "cam", (n, H, W) bool, as `xfrlib.protocol.map_regions` found them.
    fraction : float
        Share of the pixels in a region.
    temperature : float
        What the logits are divided by for the probability.
    divergence, **settings
        Those of `explain`.

    Returns
    -------
    pandas.DataFrame
        Calibrated `probability` of the predicted class, in [0, 1]; `half_mass`, the smallest share of pixels that holds
        half of the map, in [0, 1], small for a sharp map; `overlap_disc` and `overlap_cam`, the share of the region
        that lies in the centred disc or in CAM's region; `distance` of the region's centroid from the middle of the
        picture, in pixels; `overlap_forms`, the mean share that the regions of two forms of SDD have in common;
        `scale`, k times the ratio in the definition of s, unclamped.
    """
    device = next(model.parameters()).device
    own, cam = (torch.from_numpy(regions[name]) for name in ("sdd", "cam"))
    size = (own.shape[1], own.shape[2])
    centre = torch.from_numpy(disc(int(own[0].sum()), size))
    rows, done = [], 0
    for batch, *_ in loader:
        e = explain(model, batch.to(device), divergence=divergence, **settings)
        joined = [replace(divergence, form=form) for form in FORMS]
        maps = [scaled_directed_divergence(e.cams, one, size=size, geometry=e.geometry, log=True) for one in joined]
        forms = [top_fraction_mask(values, fraction) for values in maps]
        here = own[done : done + len(batch)]
        rows.append({
            "probability": (e.logits.double() / temperature).softmax(dim=1).amax(dim=1),
            "half_mass": half_mass(e.sdd),
            "overlap_disc": _overlap(here, centre.expand_as(here)),
            "distance": centroid_distance(here),
            "overlap_cam": _overlap(here, cam[done : done + len(batch)]),
            "overlap_forms": torch.stack([_overlap(a, b) for a, b in combinations(forms, 2)]).mean(dim=0),
            "scale": sdd_scale(e.cams, divergence, clamped=False),
        })  # fmt: skip
        done += len(batch)
    return pd.DataFrame({name: torch.cat([row[name].cpu().double() for row in rows]) for name in FEATURES})


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
    return torch.hypot((masks.sum(dim=2) * y).sum(dim=1) / count, (masks.sum(dim=1) * x).sum(dim=1) / count)


def _overlap(masks: Tensor, others: Tensor) -> Tensor:
    """Share of each mask that the other has too: (B, H, W) twice, of equal numbers of pixels -> (B,)."""
    return (masks & others).sum(dim=(1, 2)) / masks.sum(dim=(1, 2))

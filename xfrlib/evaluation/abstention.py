"""When not to show a map: a verdict for each picture, a rule that abstains, and what abstaining is worth.

A map *beats the disc* in a picture if its region takes more from the decision than a centred disc of as many pixels
when it is deleted, and leaves more of it when it is retained. The disc is a low bar, for it knows only that faces are
centred: a map that does not beat it has not shown, by this test and under this fill, that it knows more. A rule gives
each picture a *trust*; maps of high trust are shown. Its *risk* is the share of the shown maps that do not beat the
disc, its *coverage* the share of maps shown (R. El-Yaniv and Y. Wiener, "On the foundations of noise-free selective
classification", JMLR 2010; Y. Geifman and R. El-Yaniv, "Selective classification for deep neural networks",
NeurIPS 2017).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from xfrlib.evaluation.controls import disc
from xfrlib.evaluation.perturbation import deletion_retention

VERDICTS = ("wins both", "mixed", "loses both")
PASSES = 4  # forward passes a picture that `should_show` costs beyond the one of the map


class Judgement(NamedTuple):
    """What `should_show` says of one picture. The advantages are log-odds against the best rival, over the disc's."""

    show: bool
    reason: str  # a sentence for whoever looks at the map
    deletion: float  # how much more of the log-odds deleting the region takes
    retention: float  # how much more of the log-odds retaining the region leaves


def should_show(
    model: nn.Module,
    images: Tensor,
    masks: Tensor,
    *,
    fill: str = "grey",
    threshold: float = 0.0,
    temperature: float = 1.0,
    logits: Tensor | None = None,
    mean: Tensor | None = None,
) -> list[Judgement]:
    """Decide for each picture whether its map should be shown, by four passes: does its region beat a centred disc?

    Parameters
    ----------
    model : (B, 3, H, W) in [0, 1] -> logits (B, N), in evaluation mode.
    images : (B, 3, H, W) float, RGB in [0, 1].
    masks : (B, H, W) bool, the region of each map, as `xfrlib.top_fraction_mask` gives it; all of one number of pixels.
    fill, mean : what replaces removed pixels, see `xfrlib.evaluation.perturbation.fill_picture`.
    threshold : a map is shown if both advantages are above it, in log-odds.
    temperature : of the network's probabilities (`xfrlib.evaluation.calibration.fit_temperature`); above 0.
    logits : (B, N) of the unchanged pictures where they are known, which saves a pass.

    Returns
    -------
    A `Judgement` for each picture, in order.

    Raises
    ------
    ValueError
        For masks that are empty, of unequal size or not bool (B, H, W), or a model in training mode.
    """
    counts = masks.flatten(1).sum(dim=1) if masks.ndim == 3 else torch.zeros(0)
    if not len(counts) or int(counts.min()) == 0 or int(counts.min()) != int(counts.max()):
        raise ValueError("masks must be (B, H, W) with the same number of pixels in each, at least 1")
    centre = torch.from_numpy(disc(int(counts[0]), (masks.shape[1], masks.shape[2]))).to(masks.device)
    with torch.no_grad():
        logits = model(images) if logits is None else logits
    options = {"fill": fill, "mean": mean, "logits": logits, "temperature": temperature}
    own = deletion_retention(model, images, masks, **options)  # type: ignore[arg-type]
    reference = deletion_retention(model, images, centre.expand_as(masks), **options)  # type: ignore[arg-type]
    deletion, retention = advantages(own, reference)
    return [
        Judgement(min(d, r) > threshold, _reason(d, r, threshold, fill), d, r)
        for d, r in zip(deletion.tolist(), retention.tolist(), strict=True)
    ]


def _reason(deletion: float, retention: float, threshold: float, fill: str) -> str:
    takes = f"deleting the region takes {abs(deletion):.1f} {'more' if deletion > 0 else 'less'} of the log-odds"
    leaves = f"keeping only it leaves {abs(retention):.1f} {'more' if retention > 0 else 'less'}"
    compared = f"under a {fill} fill, {takes} than deleting a centred disc, and {leaves} than keeping only the disc"
    if min(deletion, retention) > threshold:
        return f"Shown: {compared}."
    won = (deletion > threshold) + (retention > threshold)
    needed = "" if threshold == 0 else f" by more than {threshold:g}"
    why = "in only one of two measures" if won else "in neither of two measures"
    return f"Not shown: the region beats the disc{needed} {why}: {compared}."


def advantages(
    own: pd.DataFrame, reference: pd.DataFrame, *, score: str = "margin_drop"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """By how much a region beats a reference in deletion and in retention: above 0 favours the region.

    Both tables are those of `deletion_retention`, row by row of the same pictures. A good region has a high drop in
    deletion and a low one in retention.
    """
    if len(own) != len(reference):
        raise ValueError(f"{len(own)} rows against {len(reference)}: give the same pictures in the same order")
    first, second = (table[[f"deletion_{score}", f"retention_{score}"]].to_numpy(float) for table in (own, reference))
    return first[:, 0] - second[:, 0], second[:, 1] - first[:, 1]


def picture_verdicts(
    table: pd.DataFrame, *, method: str = "sdd", reference: str = "disc", score: str = "margin_drop"
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
    trust, failed, weights = _checked(trust, failed, weights)
    values, place = np.unique(-trust, return_inverse=True)
    shown, lost = (np.cumsum(np.bincount(place, weights=w, minlength=len(values))) for w in (weights, weights * failed))
    some = shown > 0
    return pd.DataFrame(
        {"coverage": shown[some] / weights.sum(), "risk": lost[some] / shown[some], "threshold": -values[some]}
    )


def risk_area(trust: ArrayLike, failed: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Area under the risk-coverage curve, in [0, 1], lower is better: the mean risk over all coverages.

    Pictures of equal trust count as if they came in random order. A constant trust, and any trust that has nothing to
    do with failure, has the share of failures as its area; `least_area` is what a perfect rule reaches.
    """
    curve = risk_coverage(trust, failed, weights)
    coverage, lost = curve["coverage"].to_numpy(), (curve["coverage"] * curve["risk"]).to_numpy()
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


def _checked(
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

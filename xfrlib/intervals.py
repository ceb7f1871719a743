"""How sure a number is: intervals over identities and networks, tests, and their correction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats


class Interval(NamedTuple):
    """A mean and its 95 % interval, in the unit of the values."""

    value: float
    low: float
    high: float


def bootstrap_interval(
    values: ArrayLike, clusters: ArrayLike, *, resamples: int = 2000, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """Mean with an interval from resampling whole clusters: the identities, not the pictures.

    Pictures of one person are alike, so that resampling pictures would promise too narrow an interval. With few
    clusters the percentile interval is too narrow as well; its level is widened as in T. Hesterberg, "What teachers
    should know about the bootstrap" (2015), section 4.3 ("expanded percentile": a t quantile and the factor
    sqrt(G / (G - 1)) for G clusters).

    Values and clusters are (n,) each. Raises `ValueError` for fewer than two clusters, other lengths, or values that
    are not finite.
    """
    array, result = _cluster_bootstrap(values, clusters, resamples=resamples, seed=seed, confidence=confidence)
    return Interval(float(array.mean()), float(result.confidence_interval.low), float(result.confidence_interval.high))


def _cluster_bootstrap(
    values: ArrayLike, clusters: ArrayLike, *, resamples: int, seed: int, confidence: float
) -> tuple[NDArray[np.float64], Any]:
    array, groups = np.asarray(values, dtype=float), np.asarray(clusters)
    if array.shape != groups.shape or array.ndim != 1:
        raise ValueError(f"values and clusters must be of one length, got {array.shape} and {groups.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(array))} of {len(array)} values are not finite")
    _, inverse = np.unique(groups, return_inverse=True)
    counts = np.bincount(inverse)
    if len(counts) < 2:
        raise ValueError("a bootstrap over identities needs at least two identities")
    sums = np.bincount(inverse, weights=array)
    n = len(counts)
    tail = stats.norm.cdf(-np.sqrt(n / (n - 1)) * stats.t.ppf((1 + confidence) / 2, n - 1))
    return array, stats.bootstrap(
        (sums, counts),
        lambda s, c, axis=-1: s.sum(axis=axis) / c.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        confidence_level=1 - 2 * tail,
        method="percentile",
        rng=np.random.default_rng(seed),
    )


def crossed_interval(
    values: ArrayLike,
    clusters: ArrayLike,
    networks: ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Mean with an interval for other identities *and* other networks of the same recipe.

    Identities (`clusters`) are resampled with the networks as they are, and networks with the identities as they are;
    the two variances of the mean, each times m / (m - 1) for m resampled units, add up, as for two crossed random
    factors (Owen, "The pigeonhole bootstrap", 2007). The interval is that of Student's t with Satterthwaite's degrees
    of freedom, for a percentile of three networks cannot lie outside their range.

    With one network this is `bootstrap_interval`, whose errors it raises and whose options it takes.
    """
    array, groups, nets = np.asarray(values, dtype=float), np.asarray(clusters), np.asarray(networks)
    if nets.shape != array.shape:
        raise ValueError(f"values and networks must be of one length, got {array.shape} and {nets.shape}")
    if len(np.unique(nets)) < 2:
        return bootstrap_interval(array, groups, resamples=resamples, seed=seed, confidence=confidence)
    variances, freedom = [], []
    for units in (groups, nets):
        m = len(np.unique(units))
        _, result = _cluster_bootstrap(array, units, resamples=resamples, seed=seed, confidence=confidence)
        variances.append(result.standard_error**2 * m / (m - 1))
        freedom.append(m - 1)
    deviation, df = satterthwaite(variances, freedom)
    half = float(stats.t.ppf((1 + confidence) / 2, df)) * deviation
    mean = float(array.mean())
    return Interval(mean, mean - half, mean + half)


def satterthwaite(variances: Sequence[float], freedom: Sequence[int]) -> tuple[float, float]:
    """Standard deviation of a sum of independent estimates of variance, and its degrees of freedom."""
    total = float(sum(variances))
    df = total**2 / sum(v**2 / f for v, f in zip(variances, freedom, strict=True)) if total else 1.0
    return float(np.sqrt(total)), df


def sign_flip_test(differences: ArrayLike, clusters: ArrayLike, *, resamples: int = 9999, seed: int = 0) -> float:
    """Two-sided p-value of paired `differences` (n,) having mean zero, when whole `clusters` (n,) change sign.

    Under the null the two methods can be exchanged within an identity, so that its sum is as likely with either sign.
    All signs are tried where there are few identities, else `resamples` of them are drawn. Raises `ValueError` for
    lengths that disagree, or differences that are not finite.
    """
    array, groups = np.asarray(differences, dtype=float), np.asarray(clusters)
    if array.shape != groups.shape or array.ndim != 1 or not np.isfinite(array).all():
        raise ValueError(f"differences must be finite and as many as clusters, got {array.shape} and {groups.shape}")
    sums = np.bincount(np.unique(groups, return_inverse=True)[1], weights=array)
    if not sums.any():
        return 1.0
    result = stats.permutation_test(
        (sums,), lambda x, axis=-1: x.sum(axis=axis), permutation_type="samples", vectorized=True,
        n_resamples=resamples, rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(result.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for being a family: the chance of one false finding among all stays below the level.

    S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.
    """
    p = np.asarray(p_values, dtype=float)
    order = p.argsort()
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return adjusted[order.argsort()].tolist()


class Estimate(NamedTuple):
    """A statistic, its 95 % interval, and the p-value of its being zero. NaN where that cannot be had."""

    value: float
    low: float
    high: float
    p: float

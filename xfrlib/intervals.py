"""How sure a number is: intervals and tests over people and networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

MOST_SKEW = 0.3  # of a mean: with few people more is mostly chance, and the far end of an interval would run away


class Interval(NamedTuple):
    """A value and its 95 % interval, in the unit of the values; NaN where there is none."""

    value: float
    low: float
    high: float


class Estimate(NamedTuple):
    """A value, its 95 % interval, and the two-sided p-value of its being zero; NaN where they cannot be had."""

    value: float
    low: float
    high: float
    p: float


def mean_interval(values: ArrayLike, people: ArrayLike, networks: ArrayLike | None = None) -> Estimate:
    """Mean with its interval and test, for other people *and*, where several are given, other networks of the recipe.

    Pictures of one person are alike, and all pictures on one network share its luck, so each person and each network
    is one draw. The variance of the mean is the sum of the squares of what each person adds to it, and the same for
    networks, each times m / (m - 1) for m units: two crossed random factors (Owen, "The pigeonhole bootstrap", 2007) in
    closed form. Quantiles are Student's, with Satterthwaite's degrees of freedom, after the transformation that takes
    away the skewness of the people (Hall, "On the removal of skewness by transformation", JRSS B 54, 1992).

    Arguments are (n,) each; relatives of made faces are one unit: give the family in place of the person. Raises
    `ValueError` for fewer than two people, other lengths, or values that are not finite.
    """
    array, added = additions(values, people, networks)
    mean = float(array.mean())
    parts = [len(a) / (len(a) - 1) * float((a**2).sum()) for a in added]
    deviation, df = satterthwaite(parts, [len(a) - 1 for a in added])
    if deviation < 1e-12 * max(1.0, float(np.abs(array).max())):  # no spread is not certainty
        return Estimate(mean, np.nan, np.nan, np.nan)
    m = len(added[0])
    skew = m**2 / max((m - 1) * (m - 2), 1) * float((added[0] ** 3).sum()) / deviation**3
    skew = min(max(skew, -MOST_SKEW), MOST_SKEW)
    quantile = float(stats.t.ppf(0.975, df))
    low, high = (mean - deviation * _skewed(q, skew) for q in (quantile, -quantile))
    t = mean / deviation
    straight = t + skew * t**2 / 3 + skew**2 * t**3 / 27 + skew / 6
    return Estimate(mean, low, high, float(2 * stats.t.sf(abs(straight), df)))


def additions(values: ArrayLike, people: ArrayLike, networks: ArrayLike | None) -> tuple[np.ndarray, list[np.ndarray]]:
    """The values, and what each person, and each network where there are several, adds to their mean."""
    array = np.asarray(values, dtype=float)
    groups = [np.asarray(people)] + ([] if networks is None else [np.asarray(networks)])
    if array.ndim != 1 or any(group.shape != array.shape for group in groups):
        shapes = " and ".join(str(one.shape) for one in (array, *groups))
        raise ValueError(f"values, people and networks must be of one length, got {shapes}")
    if not np.isfinite(array).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(array))} of {len(array)} values are not finite")
    residuals = (array - array.mean()) / len(array) if len(array) else array
    units = (np.unique(group, return_inverse=True)[1] for group in groups)
    added: Any = [np.bincount(unit, weights=residuals) for unit in units]
    if len(added[0]) < 2:
        raise ValueError("an interval over people needs at least two people")
    return array, added[:1] + [one for one in added[1:] if len(one) > 1]


def _skewed(quantile: float, skew: float) -> float:
    """Where Hall's cubic transformation puts a quantile of a distribution without skewness."""
    return quantile if abs(skew) < 1e-9 else float(3 / skew * (np.cbrt(1 + skew * (quantile - skew / 6)) - 1))


def satterthwaite(variances: Sequence[float], freedom: Sequence[int]) -> tuple[float, float]:
    """Standard deviation of a sum of independent estimates of variance, and its degrees of freedom."""
    total = float(sum(variances))
    df = total**2 / sum(v**2 / f for v, f in zip(variances, freedom, strict=True)) if total else 1.0
    return float(np.sqrt(total)), df

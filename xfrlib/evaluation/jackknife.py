"""How sure any statistic is, not only a mean: leave out one identity, then one network, and see how far it moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats


class Estimate(NamedTuple):
    """A statistic, its 95 % interval, and the p-value of its being zero. NaN where that cannot be had."""

    value: float
    low: float
    high: float
    p: float


def jackknife(
    statistic: Callable[[NDArray[np.bool_]], float],
    identities: ArrayLike,
    networks: ArrayLike | None = None,
    *,
    confidence: float = 0.95,
) -> Estimate:
    """A statistic of n rows with an interval for other identities *and* other networks of the same recipe.

    The rows of one identity are left out at a time, and those of one network; (m - 1) / m times the sum of squares of
    what that changes is the variance that m units bring (Efron and Stein, "The jackknife estimate of variance", 1981).
    The two variances add up, and the interval is that of Student's t with Satterthwaite's degrees of freedom, as in
    `xfrlib.evaluation.statistics.crossed_interval`, which this equals for a mean but for the resampling.

    Parameters
    ----------
    statistic : takes the rows that are kept, (n,) bool, and returns a number; NaN where those rows do not give one.
    identities, networks : (n,) each. Without networks, or with a single one, identities alone are left out.

    Returns
    -------
    An `Estimate`. Interval and p-value are NaN where the statistic does not exist without some unit: a group that
    consists of one person gives no interval over people.

    Raises `ValueError` for fewer than two identities or lengths that disagree.
    """
    groups = np.asarray(identities)
    nets = np.zeros(len(groups)) if networks is None else np.asarray(networks)
    if groups.shape != nets.shape or groups.ndim != 1:
        raise ValueError(f"identities and networks must be of one length, got {groups.shape} and {nets.shape}")
    if len(np.unique(groups)) < 2:
        raise ValueError("an interval over identities needs at least two identities")
    value = float(statistic(np.ones(len(groups), dtype=bool)))
    variances, freedom = [], []
    for units in (groups, nets):
        names = np.unique(units)
        if len(names) < 2:
            continue
        without = np.array([statistic(units != name) for name in names])
        variances.append((len(names) - 1) / len(names) * np.square(without - without.mean()).sum())
        freedom.append(len(names) - 1)
    total = float(sum(variances))
    if not np.isfinite(total + value):
        return Estimate(value, np.nan, np.nan, np.nan)
    if total <= 1e-24 * max(value * value, 1):
        return Estimate(value, value, value, 0.0 if abs(value) > 1e-12 else 1.0)
    df = total**2 / sum(v**2 / f for v, f in zip(variances, freedom, strict=True))
    half = float(stats.t.ppf((1 + confidence) / 2, df)) * total**0.5
    return Estimate(value, value - half, value + half, float(2 * stats.t.sf(abs(value) / total**0.5, df)))


def mean_of(values: ArrayLike, members: ArrayLike | None = None) -> Callable[[NDArray[np.bool_]], float]:
    """The mean of `values` (n,) over `members` (n,) bool, as a statistic for `jackknife`."""
    array = np.asarray(values, dtype=float)
    chosen = np.ones(len(array), dtype=bool) if members is None else np.asarray(members, dtype=bool)
    return lambda kept: float(array[kept & chosen].mean()) if (kept & chosen).any() else np.nan


def difference_of(values: ArrayLike, members: ArrayLike, others: ArrayLike) -> Callable[[NDArray[np.bool_]], float]:
    """Mean over `members` less mean over `others`, both (n,) bool: a statistic for `jackknife`."""
    first, second = mean_of(values, members), mean_of(values, others)
    return lambda kept: first(kept) - second(kept)

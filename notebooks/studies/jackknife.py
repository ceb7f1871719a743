"""How sure any statistic of the test pictures is: the jackknife over people and networks, and Holm's correction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from xfrlib.intervals import Estimate, satterthwaite

Statistic = Callable[[NDArray[np.bool_]], float]  # of the rows that are kept, (n,) bool; NaN where they give none


def jackknife(
    statistic: Statistic,
    identities: ArrayLike,
    networks: ArrayLike | None = None,
    *,
    confidence: float = 0.95,
) -> Estimate:
    """A statistic of n rows with an interval for other identities *and* other networks of the same recipe.

    The rows of one identity are left out at a time, and those of one network; (m - 1) / m times the sum of squares of
    what that changes is the variance that m units bring (Efron and Stein, "The jackknife estimate of variance", 1981).
    The two variances add up, and the interval is that of Student's t with Satterthwaite's degrees of freedom. For the
    mean of as many rows of each it is that of `xfrlib.intervals.mean_interval`, but for what that does about skewness.

    Parameters
    ----------
    statistic : callable
        Takes the rows that are kept, (n,) bool, and returns a number; NaN where those rows do not give one.
    identities, networks : array_like
        (n,) each. Without networks, or with a single one, identities alone are left out. Relatives of made faces are
        one unit: give the family in place of the person.

    Returns
    -------
    Estimate
        Interval and p-value are NaN where the statistic does not exist without some unit (a group that consists of one
        person gives no interval over people), and where no unit changes it.

    Raises
    ------
    ValueError
        For fewer than two identities or lengths that disagree.
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
    deviation, df = satterthwaite(variances, freedom)
    if not deviation > 1e-12 * max(abs(value), 1):  # NaN, or no spread, which is not certainty
        return Estimate(value, np.nan, np.nan, np.nan)
    half = float(stats.t.ppf((1 + confidence) / 2, df)) * deviation
    return Estimate(value, value - half, value + half, float(2 * stats.t.sf(abs(value) / deviation, df)))


def mean_of(values: ArrayLike, members: ArrayLike | None = None) -> Statistic:
    """The mean of `values` (n,) over `members` (n,) bool, as a statistic for `jackknife`."""
    array = np.asarray(values, dtype=float)
    chosen = np.ones(len(array), dtype=bool) if members is None else np.asarray(members, dtype=bool)
    return lambda kept: float(array[kept & chosen].mean()) if (kept & chosen).any() else np.nan


def difference_of(values: ArrayLike, members: ArrayLike, others: ArrayLike) -> Statistic:
    """Mean over `members` less mean over `others`, both (n,) bool: a statistic for `jackknife`."""
    first, second = mean_of(values, members), mean_of(values, others)
    return lambda kept: first(kept) - second(kept)


def over_units(rows: pd.DataFrame, statistic: Statistic) -> Estimate:
    """`jackknife` of a statistic of a table's rows, over their columns `family` and `network`."""
    return jackknife(statistic, rows["family"].to_numpy(), rows["network"].to_numpy())


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for being a family: the chance of one false finding among all stays below the level.

    S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.
    """
    p = np.asarray(p_values, dtype=float)
    order = p.argsort()
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return adjusted[order.argsort()].tolist()


def corrected(p_values: Mapping[Any, float]) -> dict[Any, float]:
    """Holm's correction; a question that has no answer is not counted, and keeps its NaN."""
    answered = {key: p for key, p in p_values.items() if np.isfinite(p)}
    adjusted = dict(zip(answered, holm(list(answered.values())), strict=True))
    return {key: adjusted.get(key, np.nan) for key in p_values}

"""A share, its interval, and both in words."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from xfrlib.intervals import Estimate, Interval, additions
from xfrlib.tables import in_text


def share_interval(hits: ArrayLike, people: ArrayLike, networks: ArrayLike | None = None) -> Interval:
    """A share, the mean of `hits` (n,) of zeros and ones, with an interval that also holds at 0 and at 1.

    Wilson's, for as many independent trials as have the variance of `xfrlib.intervals.mean_interval`; where all or none
    hit, as many as there are people. Arguments and errors as there.
    """
    array, added = additions(hits, people, networks)
    share = float(array.mean())
    variance = sum(len(a) / (len(a) - 1) * float((a**2).sum()) for a in added)
    trials = min(len(array), share * (1 - share) / variance) if variance > 1e-12 else len(added[0])
    z = float(stats.norm.ppf(0.975)) ** 2 / trials
    half = np.sqrt(z * share * (1 - share) + z**2 / 4)
    low, high = ((share + z / 2 + side * half) / (1 + z) for side in (-1, 1))
    return Interval(share, float(max(low, 0)), float(min(high, 1)))


def share(one: Interval | Estimate, unit: str = " %") -> str:
    """A share and its interval in percent, for a reader: a share lies between 0 and 1."""
    return in_text(one._replace(low=max(one.low, 0), high=min(one.high, 1)), 0, factor=100, unit=unit, missing="—")

"""How many times as probable a similarity is for one person as for two, by the comparisons within a gallery."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from matching.gallery import Comparisons
from xfrlib.intervals import Interval

LEAST_PEOPLE = 20  # with two pictures or more each: fewer say too little of how alike pictures of one person are
_GROUPS = 20  # of people, each left out once for the interval of a likelihood ratio


@dataclass(frozen=True)
class LikelihoodRatio:
    """How many times as probable a similarity is for one person as for two, by its logarithm to the base of 10."""

    log10: Interval
    limit: tuple[float, float]  #: what this gallery can show at most, either way; `log10` is cut off there
    slope: float  #: natural log-odds per unit of similarity
    mated: int
    nonmated: int
    people: int  #: with mated comparisons


def likelihood_ratio(found: Comparisons, similarity: float) -> LikelihoodRatio | str:
    """The likelihood ratio of `similarity` by logistic regression on the gallery's comparisons, or why there is none.

    Both kinds of comparison weigh the same, so that the log-odds are the log likelihood ratio (Morrison 2013); targets
    are Platt's (1999), so that kinds that do not overlap give no infinite slope. The interval leaves out each of 20
    groups of people once, with Student's quantile. Beyond what the counts can show the ratio is cut off: at the number
    of pairs of people above, at that of people below.
    """
    people = np.unique(found.who)
    if len(people) < LEAST_PEOPLE:
        needs = f"it needs {LEAST_PEOPLE} people with two pictures or more"
        return f"No likelihood ratio: {needs}, and the gallery has {len(people)}."
    everybody = np.union1d(people, found.pairs)
    group = np.zeros(everybody.max() + 1, np.int64)
    group[everybody] = np.random.default_rng(0).permutation(len(everybody)) % _GROUPS
    of_mated, of_pairs = group[found.who], group[found.pairs]
    slope, value = _log_odds(found.mated, found.nonmated, similarity)
    if slope <= 0:
        return "No likelihood ratio: pictures of one person are no more similar here than those of two."
    left = [
        _log_odds(found.mated[of_mated != g], found.nonmated[(of_pairs != g).all(axis=1)], similarity)[1]
        for g in range(_GROUPS)
    ]
    spread = np.sqrt((_GROUPS - 1) / _GROUPS * ((np.array(left) - np.mean(left)) ** 2).sum())
    half = float(stats.t.ppf(0.975, _GROUPS - 1) * spread)
    two = np.unique(found.pairs.min(axis=1) * len(group) + found.pairs.max(axis=1))  # a number for each two people
    limit = -np.log10(len(people)), np.log10(max(len(two), 1))
    ends = (float(np.clip(end / log(10), *limit)) for end in (value, value - half, value + half))
    counts = len(found.mated), len(found.nonmated), len(people)
    return LikelihoodRatio(Interval(*ends), (float(limit[0]), float(limit[1])), slope, *counts)


def _log_odds(mated: NDArray[np.float64], nonmated: NDArray[np.float64], similarity: float) -> tuple[float, float]:
    """Slope of the regression, and its natural log-odds at a similarity; similarities are rounded to thousandths."""
    from sklearn.linear_model import LogisticRegression

    rows: list[Any] = []
    for label, scores in ((1, mated), (0, nonmated)):
        ticks = np.rint(1000 * scores).astype(np.int64)
        counts = np.bincount(ticks - ticks.min())
        values, counts = (np.flatnonzero(counts) + ticks.min()) / 1000, counts[counts > 0]
        sure = (len(scores) + 1) / (len(scores) + 2)
        for target, share in ((label, sure), (1 - label, 1 - sure)):
            rows.append((values, np.full(len(values), target), counts * share / len(scores)))
    x, y, weights = (np.concatenate(part) for part in zip(*rows, strict=True))
    scale = x.std() or 1.0
    # Nothing pulls the slope to 0: Platt's targets keep it finite.
    fit = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(x[:, None] / scale, y, 1000 * weights)
    slope, offset = float(fit.coef_[0, 0]) / scale, float(fit.intercept_[0])
    return slope, slope * similarity + offset

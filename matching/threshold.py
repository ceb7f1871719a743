"""The least similarity that is called a match, at a stated false match rate among the people of a gallery."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from matching.gallery import Comparisons
from xfrlib.intervals import Interval


@dataclass(frozen=True)
class Threshold:
    """The least similarity that is called a match."""

    similarity: float
    stated: float  #: the false match rate asked for
    rate: Interval  #: the share of the gallery's comparisons of two people that reach it
    comparisons: int
    people: int


def threshold_at(found: Comparisons, rate: float) -> Threshold | str:
    """The least similarity that at most `rate` of the comparisons of two people reach, or why there is none."""
    if not 0 < rate < 1:
        raise ValueError(f"false match rate = {rate!r}: must be above 0 and below 1")
    count, people = len(found.nonmated), len(np.unique(found.pairs))
    most = int(rate * count + 1e-9)
    if not most:
        needs = f"a false match rate of {rate:g} needs {int(np.ceil(1 / rate - 1e-9))} comparisons of two people"
        return f"No threshold: {needs}, and the gallery has {count}. Give more people or a larger rate."
    similarity = float(np.nextafter(np.sort(found.nonmated)[::-1][most], np.inf))
    return Threshold(similarity, rate, false_match_interval(found.nonmated >= similarity, found.pairs), count, people)


def false_match_interval(hits: NDArray[np.bool_], pairs: NDArray[np.int64]) -> Interval:
    """A share of comparisons and its 95 % interval over people: hits (b,), pairs of people (b, 2).

    Comparisons that share a person are not independent. So Wilson's interval (1927) is taken with the number of
    independent comparisons that would have the variance found by leaving out each person once (Korn and Graubard 1998),
    at most b and at least half the number of people, who can be paired that often without sharing anybody.
    """
    people, share = np.unique(pairs), float(hits.mean())
    all_of = np.bincount(pairs.ravel(), minlength=people.max() + 1)[people]
    hit_of = np.bincount(pairs[hits].ravel(), minlength=people.max() + 1)[people]
    left = (hits.sum() - hit_of) / np.maximum(len(hits) - all_of, 1)
    variance = (len(people) - 1) / len(people) * float(((left - left.mean()) ** 2).sum())
    n = np.clip(share * (1 - share) / variance if variance else 0, max(1, len(people) // 2), len(hits))
    z2 = float(stats.norm.ppf(0.975)) ** 2
    middle, half = share + z2 / (2 * n), np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n)))
    return Interval(share, max(0.0, (middle - half) / (1 + z2 / n)), min(1.0, (middle + half) / (1 + z2 / n)))

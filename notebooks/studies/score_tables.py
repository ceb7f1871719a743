"""Chapter 8: from a table of scores, a row for each case and method, to means with intervals, differences and words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from studies.shares import share_interval
from xfrlib.intervals import Estimate, Interval, mean_interval
from xfrlib.tables import COMPARED, in_text, verdict

MeanScores = Mapping[tuple[Any, ...], Interval | Estimate]  # {(kind of rival, method, score): mean or difference}

_AIM = 0.8  # the concordance that the project aims at, of look-alikes
_SHARES = ("pointing",)  # scores that are 0 or 1 for a case


def known_mean(
    values: ArrayLike, people: ArrayLike, networks: ArrayLike | None = None, *, share: bool = False
) -> Interval | Estimate:
    """`mean_interval` (`share_interval` of a `share`) of the cases that have a score; NaN of fewer than two people."""
    numbers, who = np.asarray(values, dtype=float), np.asarray(people)
    nets = np.zeros(len(who)) if networks is None else np.asarray(networks)
    known = np.isfinite(numbers)
    if len(np.unique(who[known])) < 2:
        return Interval(np.nan, np.nan, np.nan)
    given = numbers[known], who[known], nets[known]
    return share_interval(*given) if share else mean_interval(*given)


def mean_score(
    table: pd.DataFrame,
    kind: str,
    method: str,
    score: str,
    *,
    less: str | None = None,
    minus: str | None = None,
    families: ArrayLike,
) -> Interval | Estimate:
    """Mean of one score, or of a difference case by case, over people, and over networks where there are several.

    Parameters
    ----------
    table : DataFrame
        Columns `kind` (of the rival), `method`, `target`, the scores, and `network` where there are several; the rows
        of all methods in one order of the cases.
    kind, method, score : str
        Which rows, and which column.
    less : str, optional
        Another method, whose score of the same case is subtracted.
    minus : str, optional
        Another column of the same method, which is subtracted.
    families : array_like
        (N,) who counts as one draw, by target: see `xfrlib.run.NotebookRun.families`.

    Returns
    -------
    Interval or Estimate
        Cases without the score are left out; NaN where fewer than two people are left.
    """
    rows = table[table["kind"] == kind]
    own = rows[rows["method"] == method]
    values, people = own[score].to_numpy(), np.asarray(families)[own["target"]]
    if minus is not None:
        values = values - own[minus].to_numpy()
    if less is not None:
        values = values - rows[rows["method"] == less][score].to_numpy()
    share = score in _SHARES and less is None and minus is None
    return known_mean(values, people, own.get("network"), share=share)


def score_rows(
    found: MeanScores, kind: str, scores: Mapping[str, str], titles: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Rows for a reader, against one kind of rival: each map, with a column for each score and its interval."""
    return [
        {"map": title} | {heading: found[kind, name, score] for score, heading in scores.items()}
        for name, title in titles.items()
    ]


def panels(
    found: MeanScores, kinds: Mapping[str, str], scores: Mapping[str, str], titles: Mapping[str, str]
) -> pd.DataFrame:
    """The same for `studies.figures.interval_plot`: a row for each map and panel, a panel for each score and kind."""
    return pd.DataFrame(
        {"method": title, "measure": f"{label}: {heading}", **found[kind, name, score]._asdict()}
        for score, heading in scores.items()
        for kind, label in kinds.items()
        for name, title in titles.items()
    )


def by_verdict(found: MeanScores, kind: str, score: str, titles: Mapping[str, str]) -> dict[str, list[str]]:
    """Titles of the maps whose difference in one score is "better", "worse" or "undecided"."""
    groups: dict[str, list[str]] = {word: [] for word in COMPARED}
    for name, title in titles.items():
        if (kind, name, score) in found:
            groups[verdict(found[kind, name, score])].append(title)
    return groups


def tally(found: Iterable[Interval | Estimate]) -> str:
    """How many differences have which verdict: "better on 2, worse on 0, undecided on 4"."""
    words = [verdict(one) for one in found]
    return ", ".join(f"{word} on {words.count(word)}" for word in COMPARED)


def aim(found: Interval | Estimate, goal: float = _AIM) -> str:
    """Whether a score reaches a goal, as the end of a sentence."""
    if found.low >= goal:
        return "is reached"
    if found.high < goal:
        return "is not reached"
    by_mean = "met" if found.value >= goal else "missed"
    return f"is {by_mean} by the mean, but the interval leaves it open"


def reaching(
    found: MeanScores, kind: str, titles: Mapping[str, str], scores: Mapping[str, str], goal: float = _AIM
) -> tuple[str, str]:
    """What reaches the goal with its whole interval, and what by its mean alone: "by SDD in energy and by ..."."""
    asked = {(name, score): found[kind, name, score] for name in titles for score in scores}
    said = {key: f"by {titles[key[0]]} in {scores[key[1]]}" for key in asked}
    whole = [said[key] for key, one in asked.items() if one.low >= goal]
    by_mean = [said[key] for key, one in asked.items() if one.value >= goal > one.low]
    return " and ".join(whole), " and ".join(by_mean)


def difference_rows(
    found: MeanScores, kinds: Mapping[str, str], scores: Mapping[str, str], titles: Mapping[str, str]
) -> list[dict[str, str]]:
    """Rows for a reader: SDD minus each map, with interval and verdict."""
    return [
        {"rival": label, "SDD minus": title}
        | {
            heading: f"{in_text(found[kind, name, score])} {verdict(found[kind, name, score])}"
            for score, heading in scores.items()
        }
        for kind, label in kinds.items()
        for name, title in titles.items()
    ]

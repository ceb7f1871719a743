"""Chapter 11: what rules that keep maps back are worth under fills that judge, and which of their gains stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from studies.abstention import LOST, WON, least_area, risk_area
from studies.jackknife import corrected, difference_of, over_units
from studies.report import joined
from studies.shares import share, share_interval
from xfrlib.intervals import Estimate, Interval
from xfrlib.plots import percent
from xfrlib.tables import in_text

Worth = dict[str, Estimate]
GAINS = {"gain": "share", "area_gain": "area"}  # what a rule may gain over showing all and over chance, for a reader


def worth(rows: pd.DataFrame, shown: pd.Series[bool], trust: pd.Series[float]) -> Worth:
    """What a rule is worth on the verdicts `rows` of one fill, with intervals over people and networks.

    Parameters
    ----------
    rows : pandas.DataFrame
        Rows of `studies.abstention.picture_verdicts`, and who counts as one draw in each, `family`.
    shown, trust : pandas.Series
        Whether the rule shows a map, and its trust in it, by (network, image).

    Returns
    -------
    dict
        `coverage`; of the maps shown the shares that `beat` the disc and that `lose` both (shares have no p); `gain`,
        of `beat` over showing all; the `area` under risk over coverage, and `area_gain`, by how much it is below that
        of chance.
    """
    at = pd.MultiIndex.from_frame(rows[["network", "image"]])
    lets, tau = shown.loc[at].to_numpy(), trust.loc[at].to_numpy()
    beats, everyone = (rows["verdict"] == WON).to_numpy(), np.ones(len(rows), dtype=bool)
    hits = {"coverage": (lets, everyone), "beat": (beats, lets), "lose": ((rows["verdict"] == LOST).to_numpy(), lets)}
    shares = {name: _share(rows.assign(hit=hit)[members]) for name, (hit, members) in hits.items()}

    def area(kept: NDArray[np.bool_]) -> float:
        return risk_area(tau[kept], ~beats[kept])

    statistics = {
        "gain": difference_of(beats, lets, everyone),
        "area": area,
        "area_gain": lambda kept: float((~beats[kept]).mean()) - area(kept),
    }
    return shares | {name: over_units(rows, statistic) for name, statistic in statistics.items()}


def _share(rows: pd.DataFrame) -> Estimate:
    """Share of rows that `hit`; without an interval where there is one person, NaN where there is none."""
    if rows["family"].nunique() < 2:
        return Estimate(float(rows["hit"].mean()), np.nan, np.nan, np.nan)
    return Estimate(*share_interval(rows["hit"], rows["family"], rows["network"]), np.nan)


@dataclass(frozen=True)
class JudgedRules:
    """Rules before the fills that judge."""

    titles: dict[str, str]  # of the rules, for a reader
    worth: dict[str, dict[str, Worth]]  # by fill and rule
    p: dict[tuple[str, str, str], float]  # of the `GAINS`, by fill, rule and gain, after Holm for all of them together

    def clear(self, fill: str, name: str, what: str) -> bool:
        """Whether a gain stands under a fill: above zero by Holm's p."""
        return self.p.get((fill, name, what), np.nan) < 0.05 and self.worth[fill][name][what].value > 0

    def standing(self, what: str) -> list[str]:
        """Rules whose gain stands under every fill."""
        return [name for name in self.titles if all(self.clear(fill, name, what) for fill in self.worth)]

    def rows(self, fill: str) -> list[dict[str, str]]:
        """The rules under one fill, as rows of a table."""
        return [
            {
                "rule": self.titles[name],
                "coverage": f"{100 * one['coverage'].value:.0f} %",
                "shown maps that beat the disc": share(one["beat"]) if np.isfinite(one["beat"].value) else "none shown",
                "more than showing all, points": in_text(one["gain"], 0, factor=100, signed=True)
                if np.isfinite(one["gain"].low)
                else "—",
                "area": f"{one['area'].value:.2f}",
                "less than at random": in_text(one["area_gain"], signed=True),
                "stands": ", ".join(word for what, word in GAINS.items() if self.clear(fill, name, what)) or "no",
            }
            for name, one in self.worth[fill].items()
        ]

    def as_json(self) -> dict[str, Any]:
        """By fill and rule: what it is worth, and corrected p-values; None for a firm self-test that is no other."""
        found: dict[str, Any] = {}
        for fill, rules in self.worth.items():
            found[fill] = {"firm": None}
            for name, one in rules.items():
                p = {key: self.p.get((fill, name, what)) for key, what in (("p_gain", "gain"), ("p_area", "area_gain"))}
                found[fill][name] = one | p
        return found


def judge_rules(
    verdicts: Mapping[str, pd.DataFrame], shown: pd.DataFrame, trust: pd.DataFrame, titles: dict[str, str]
) -> JudgedRules:
    """`worth` of every rule, a column of `shown` and of `trust`, under every fill, and one correction for all gains.

    The firm self-test orders the maps as the self-test does: its area is no question of its own.
    """
    found = {fill: {name: worth(rows, shown[name], trust[name]) for name in titles} for fill, rows in verdicts.items()}
    p = {(fill, name, what): found[fill][name][what].p for fill in found for name in titles for what in GAINS}
    asked = {key: one for key, one in p.items() if key[1:] != ("firm", "area_gain") and np.isfinite(one)}
    return JudgedRules(titles, found, corrected(asked))


def shown_all(rows: pd.DataFrame) -> str:
    """What showing every map is worth under the fill of `rows`, in a sentence."""
    beats = (rows["verdict"] == WON).to_numpy()
    return (
        f"If all maps are shown, {100 * beats.mean():.0f} % of them beat the disc, and the area is "
        f"{1 - beats.mean():.2f}, as for abstaining at random. A perfect rule has an area of {least_area(~beats):.2f}."
    )


def rule_findings(
    judged: JudgedRules,
    shares: Mapping[str, Mapping[str, Interval]],
    other_networks: Mapping[str, Worth],
    firm: float | None,
) -> str:
    """What to notice of the rules.

    Parameters
    ----------
    judged : JudgedRules
        All rules, "self_test" among them.
    shares : mapping
        Shares of the verdicts of all maps, by fill.
    other_networks : mapping
        What the self-test is worth by fill on the networks that had no part in the choice; empty where there is none.
    firm : float, optional
        The threshold of the firm self-test; None where it shows no map.
    """
    titles, stands, by_area = judged.titles, judged.standing("gain"), judged.standing("area_gain")
    self_tests = {fill: rules["self_test"] for fill, rules in judged.worth.items()}
    hopeful = [
        f"{titles[name]}, judged by {fill}"
        for fill, name, what in judged.p
        if what == "gain" and judged.worth[fill][name][what].low > 0 and not judged.clear(fill, name, what)
    ]
    self_test = "; ".join(
        f"under {fill} it shows {percent(one['coverage'].value)} of the maps, and of these "
        f"{percent(one['beat'].value)} beat the disc (of all maps {percent(shares[fill][WON].value)}) and "
        f"{percent(one['lose'].value)} lose both (of all maps {percent(shares[fill][LOST].value)})"
        for fill, one in self_tests.items()
    )
    elsewhere = "; ".join(
        f"under {fill} {percent(one['beat'].value)} of the {percent(one['coverage'].value)} that it shows beat the "
        f"disc, a gain of {in_text(one['gain'], 0, factor=100, signed=True)} points over showing all"
        for fill, one in other_networks.items()
    )
    return " ".join([
        f"A rule whose gain stands under every judging fill: {_named(titles, stands)}."
        if stands
        else "**No rule, with its threshold, has a gain that stands under every judging fill.**",
        f"By the area, which needs no threshold, these stand under every judging fill: {_named(titles, by_area)}."
        if by_area
        else "By the area, which needs no threshold, no gain stands under every judging fill.",
        *_under_some_fills(judged),
        *([f"Before the correction for {len(judged.p)} questions, the gain of these would have seemed certain: "
           f"{joined(hopeful)}."] if hopeful else []),
        f"The self-test looks at the picture itself: {self_test}.",
        _of_the_self_test(self_tests),
        f"On the networks that had no part in the choice: {elsewhere}."
        if elsewhere
        else "There is no network that had no part in the choice.",
        _of_the_firm_self_test(judged, firm),
    ])  # fmt: skip


def _named(titles: Mapping[str, str], names: Sequence[str]) -> str:
    return joined(titles[name] for name in names)


def _under_some_fills(judged: JudgedRules) -> list[str]:
    """The gains that stand under some of the judging fills but not under all, in a sentence where there are any."""
    some = [
        f"{judged.titles[name]}, by the {word} under {' and '.join(fills)}"
        for name in judged.titles
        for what, word in GAINS.items()
        if 0 < len(fills := [fill for fill in judged.worth if judged.clear(fill, name, what)]) < len(judged.worth)
    ]
    return [f"These stand under one fill but not under all: {joined(some)}."] if some else []


def _of_the_self_test(self_tests: Mapping[str, Worth]) -> str:
    """Whether most of the maps that the self-test shows beat the disc, by its intervals under each fill."""
    if all(one["beat"].low > 0.5 for one in self_tests.values()):
        return "So most of the maps that it shows beat the disc, under every judging fill."
    if below := [fill for fill, one in self_tests.items() if one["beat"].high < 0.5]:
        return (
            f"**So even of the maps that pass the self-test, most do not beat the disc under {' and '.join(below)}**, "
            "which the self-test did not use."
        )
    return "The intervals of these shares do not tell whether most of the maps that it shows beat the disc."


def _of_the_firm_self_test(judged: JudgedRules, firm: float | None) -> str:
    if "firm" not in judged.titles:
        return (
            "The firm self-test is the self-test here: on the validation pictures the demand asks for no higher "
            "threshold under the mean colour."
        )
    if firm is None:
        return "The firm self-test shows none."
    parts = (
        f"{percent(rules['firm']['coverage'].value)}, of which {percent(rules['firm']['beat'].value)} beat the disc "
        f"under {fill}"
        for fill, rules in judged.worth.items()
    )
    return f"The firm self-test shows {'; '.join(parts)}."

"""Chapter 11: how much a network relies on the planted sign, and which explainer finds it.

Two networks are compared: "shortcut", to which the sign means a person, and "control", to which it means nothing.
There is one of each, so that intervals are over the made people alone: each family counts as one draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from studies.jackknife import corrected
from studies.report import counted, joined
from studies.shares import share, share_interval
from xfrlib.intervals import Estimate, mean_interval
from xfrlib.plots import percent
from xfrlib.tables import in_text

SCORES = ("energy", "top_5", "top_10", "top_20", "pointing")
REFERENCE = "sdd_sum"
ASKED = {"top_20": "the top 20 %", "energy": "energy"}  # by which explainers are compared with the reference
KNOW_NOTHING = {"area": "uniform", "centre": "hill about the centre"}


def reliance(worth: NDArray[np.float64], named: Mapping[str, Tensor], carrier: Tensor, true: Tensor) -> dict[str, Any]:
    """How a network takes the sign, over pictures of carriers and of others; each carrier's family is one draw.

    Parameters
    ----------
    worth : ndarray
        (n,) log-odds that the sign adds for the carrier.
    named : mapping
        Predictions (n,) "with" and "without" the sign.
    carrier, true : Tensor
        (n,) the carrier of each picture's family, and the person shown.
    """
    own = (true == carrier).numpy()
    taken = {how: (found == carrier).double().numpy()[~own].mean() for how, found in named.items()}
    right = {how: (found == true).double().numpy() for how, found in named.items()}
    return {
        "carriers": mean_interval(worth[own], carrier[own]),
        "others": mean_interval(worth[~own], carrier[~own]),
        "taken_for_carrier_without": float(taken["without"]),
        "taken_for_carrier_with": float(taken["with"]),
        "carriers_right_without": float(right["without"][own].mean()),
        "carriers_right_with": float(right["with"][own].mean()),
        "others_right_without": float(right["without"][~own].mean()),
    }


def reliance_rows(networks: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """`reliance` of each network as rows of a table."""
    return [
        {
            "network": plan,
            "worth of the sign, carriers": in_text(one["carriers"], signed=True),
            "worth of the sign, others": in_text(one["others"], signed=True),
            "others taken for the carrier: without, with": f"{percent(one['taken_for_carrier_without'])}, "
            f"{percent(one['taken_for_carrier_with'])}",
            "carriers named rightly: without, with": f"{percent(one['carriers_right_without'])}, "
            f"{percent(one['carriers_right_with'])}",
        }
        for plan, one in networks.items()
    ]


def _over_people(values: pd.Series[float], *, hits: bool = False) -> Estimate:
    """Mean of a series by (case, family) over families; without an interval where there is one family.

    That of `hits`, zeros and ones, is a share, which has no p.
    """
    values = values.dropna()
    families = values.index.get_level_values("family")
    if families.nunique() < 2:
        return Estimate(float(values.mean()), np.nan, np.nan, np.nan)
    return Estimate(*share_interval(values, families), np.nan) if hits else mean_interval(values, families)


def _within_shares(one: Estimate) -> Estimate:
    """A share lies between 0 and 1, and so does what is known of it (NaN stays)."""
    return one._replace(low=np.maximum(one.low, 0.0), high=np.minimum(one.high, 1.0))


class SignResult(NamedTuple):
    """What explainers show of the sign."""

    scores: dict[str, dict[str, Any]]  # of an explainer: "pictures", "told_apart", and scores by network
    minus: dict[tuple[str, str], Estimate]  # by score and explainer: the reference's gap between networks less its own
    p: dict[tuple[str, str], float]  # of these, after Holm for all `questions` together
    questions: int  # of `minus`, each once: see `found_by`
    titles: dict[str, str]  # of the explainers, for a reader
    area: float  # the sign's share of the picture
    cases: int  # pictures

    @property
    def whole(self) -> list[str]:
        """Explainers that explained all pictures, and know something of them."""
        return [name for name in self.maps if self.scores[name]["pictures"] == self.cases]

    @property
    def maps(self) -> list[str]:
        """All explainers that know something of the picture; see `ranked`."""
        return [name for name in self.ranked if name not in KNOW_NOTHING]

    @property
    def ranked(self) -> list[str]:
        """All, by how much more energy the sign has in the network that relies on it."""
        return sorted(self.scores, key=lambda name: -self.scores[name]["energy"]["difference"].value)

    @property
    def find_it(self) -> list[str]:
        """Titles of those whose top 20 % hold most of the sign, by the whole interval; more than in the control."""
        return [self.titles[name] for name, top in self._tell_apart.items() if top["shortcut"].low > 0.5]

    @property
    def find_it_on_average(self) -> list[str]:
        """Titles of those whose top 20 % hold most of the sign on average alone; see `find_it`."""
        some = {name: top["shortcut"] for name, top in self._tell_apart.items()}
        return [self.titles[name] for name, one in some.items() if one.value > 0.5 and not one.low > 0.5]

    @property
    def _tell_apart(self) -> dict[str, Any]:
        """What the top 20 % hold of the sign, of those that by the whole interval have more than the control."""
        found = {name: self.scores[name]["top_20"] for name in self.whole}
        return {name: top for name, top in found.items() if top["difference"].low > 0}

    @property
    def point_at_it(self) -> list[str]:
        """Titles of the explainers whose highest pixel gives the sign away."""
        found = {name: self.scores[name]["pointing"] for name in self.whole}
        return [
            self.titles[name]
            for name, one in found.items()
            if one["shortcut"].value > 0.5 and one["control"].value < 0.25
        ]

    @property
    def false_alarms(self) -> list[str]:
        """Titles of those whose map has more than twice the sign's share of the picture there in the control."""
        return [self.titles[n] for n in self.whole if self.scores[n]["energy"]["control"].low > 2 * self.area]

    def rows(self) -> list[dict[str, str]]:
        """All explainers as rows of a table, the best first."""

        def in_percent(name: str, score: str, plan: str) -> str:
            return share(self.scores[name][score][plan], unit="").removesuffix(" (no interval)")

        rows = []
        for name in self.ranked:
            pictures = self.scores[name]["pictures"]
            some = "" if pictures == self.cases else f" ({counted(pictures, 'picture')})"
            rows.append({
                "explainer": self.titles[name] + some,
                "energy in the sign, %": in_percent(name, "energy", "shortcut"),
                "control": in_percent(name, "energy", "control"),
                "told apart, %": f"{100 * self.scores[name]['told_apart']:.0f}",
                "top 5 %": in_percent(name, "top_5", "shortcut"),
                "its control": in_percent(name, "top_5", "control"),
                "top 10 %": in_percent(name, "top_10", "shortcut"),
                "top 20 %": in_percent(name, "top_20", "shortcut"),
                "pointing, %": in_percent(name, "pointing", "shortcut"),
                "pointing, control": in_percent(name, "pointing", "control"),
            })  # fmt: skip
        return rows

    def of_reference(self, score: str) -> str:
        """What a score of the reference is in both networks, in words."""
        one = self.scores[REFERENCE][score]
        return f"{100 * one['shortcut'].value:.0f} % ({100 * one['control'].value:.0f} % in the control)"

    def minus_json(self) -> dict[tuple[str, str], dict[str, float]]:
        """`minus` with the p-values after Holm, for the results file."""
        return {key: {**one._asdict(), "p_corrected": self.p[key]} for key, one in self.minus.items()}


def found_by(scores: pd.DataFrame, titles: dict[str, str], area: float) -> SignResult:
    """`SignResult` from a row for each explainer (`method`), network (`plan`) and picture (`case`, `family`).

    A question that is asked twice under two names counts once: an explainer whose gap between the networks is that of
    an earlier one in every picture, by one score, has the earlier one's corrected p. So Grad-CAM and CAM have one p.
    """
    wide = scores.pivot(index=["case", "family"], columns=["method", "plan"], values=list(SCORES)).sort_index(axis=1)
    found: dict[str, dict[str, Any]] = {}
    gap = {}
    for name in titles:
        found[name] = {"pictures": int(wide["energy", name, "shortcut"].notna().sum())}
        for score in SCORES:
            both = wide[score, name][["shortcut", "control"]].dropna()
            gap[score, name] = both["shortcut"] - both["control"]
            hits = score == "pointing" and bool(
                both.isin((0, 1)).to_numpy().all()
            )  # fractions where highest pixels tie
            found[name][score] = {plan: _within_shares(_over_people(both[plan], hits=hits)) for plan in both}
            found[name][score]["difference"] = _over_people(gap[score, name])
        found[name]["told_apart"] = float((np.sign(gap["energy", name]).to_numpy() + 1).mean() / 2)
    others = [name for name in titles if name != REFERENCE and found[name]["pictures"] == len(wide)]
    minus = {
        (score, name): _over_people(gap[score, REFERENCE] - gap[score, name])
        for score in ("energy", "top_20")
        for name in others
    }
    minus = {key: one for key, one in minus.items() if np.isfinite(one.p)}
    first: dict[tuple[str, str], tuple[str, str]] = {}
    for score, name in minus:
        same = (key for key in first.values() if key[0] == score and _equal(gap[key], gap[score, name]))
        first[score, name] = next(same, (score, name))
    once = corrected({key: minus[key].p for key in first.values()})
    p = {key: once[other] for key, other in first.items()}
    return SignResult(found, minus, p, len(once), titles, area, len(wide))


def _equal(one: pd.Series[float], other: pd.Series[float]) -> bool:
    """Shares that differ by rounding alone."""
    return bool(np.allclose(one, other, rtol=0, atol=1e-6))


def sign_findings(found: SignResult) -> str:
    """What to notice of the explainers."""
    scores, titles = found.scores, found.titles
    sampled = [
        f"{titles[name]} {100 * scores[name]['top_20']['shortcut'].value:.0f} %, control "
        f"{100 * scores[name]['top_20']['control'].value:.0f} % ({counted(scores[name]['pictures'], 'picture')})"
        for name in found.maps
        if name not in found.whole
    ]
    versus = " ".join(_versus(found, score) for score in ASKED)
    nothing = {name: f"{100 * scores[name]['top_20']['shortcut'].value:.0f} %" for name in KNOW_NOTHING}
    return " ".join([
        f"Of the sign, {found.of_reference('top_20')} lies in SDD's top 20 %. A "
        f"uniform map has {nothing['area']}, the hill about the centre {nothing['centre']}. SDD's energy "
        f"in the sign is {found.of_reference('energy')}: the exponential gathers the energy around the peak. The "
        f"highest pixel of SDD is in the sign in {found.of_reference('pointing')} of the pictures. SDD is held "
        f"against the others by the difference between the two networks, corrected for {found.questions} questions; "
        f"explainers with the same difference in every picture count once. {versus}",
        f"By the whole interval, the top 20 % hold most of the sign, and more of it than in the control, for "
        f"{joined(found.find_it)}."
        if found.find_it
        else "**For no explainer does the whole interval say that the top 20 % hold most of the sign.**",
        *([f"On average, but not by the whole interval, they hold most for {joined(found.find_it_on_average)}."]
          if found.find_it_on_average else []),
        f"The highest pixel alone gives it away, in more than half of the pictures, for {joined(found.point_at_it)}."
        if found.point_at_it
        else "**The highest pixel alone gives the sign away for none of them.** A look at the brightest spot alone "
        "would not find this fault.",
        *([f"Share of the sign in the top 20 %, on fewer pictures: {'; '.join(sampled)}."] if sampled else []),
        f"In the control, where the sign means nothing, these still have more than twice its share of the picture "
        f"there: {joined(found.false_alarms)}. They show that something is conspicuous, not that it decides."
        if found.false_alarms
        else "In the control, where the sign means nothing, none has clearly more than twice the sign's share of the "
        "picture there.",
    ])  # fmt: skip


def _versus(found: SignResult, score: str) -> str:
    held = {name: one for (key, name), one in found.minus.items() if key == score and found.p[key, name] < 0.05}
    better = [found.titles[name] for name, one in held.items() if one.value > 0]
    worse = [found.titles[name] for name, one in held.items() if one.value < 0]
    return (
        f"By {ASKED[score]} it is better than {joined(better) if better else 'none of the others'}, and worse than "
        f"{joined(worse)}."
    )

"""Chapter 10: the candidates for a better map, what they gain, and where the chosen one stands beside nulls and search.

A gain is over the disc, in calibrated log-odds of the lead, and positive is better in both measures; the balance is
their sum. Each person (of made faces each family), and each network, is one draw. Fills are told apart: where they
disagree in sign, no sentence claims their mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from studies.better_map import share_of_reference
from xfrlib.intervals import Estimate, Interval, mean_interval
from xfrlib.tables import SIGN, in_text, verdict

CANDIDATE_MAPS = {  # in the order in which the chapter stacks them
    "sdd": "SDD",
    "cam": "CAM",
    "difference": "CAM difference",
    "local_softmax": "SDD, local softmax",
    "earlier": "SDD of an earlier layer",
    "layers": "SDD of two layers",
    "stitched": "SDD, stitched",
    "mirrored": "SDD with its mirror image's",
    "resolutions": "gradient × activation, all resolutions",
}
SINGLE = CANDIDATE_MAPS | {"connected": "SDD, one connected region"}  # without a prior
SEVERAL = {"none": "", "all": "all four maps", "more": "all four maps and the earlier layer's"}
PRIORS = {"prior": "prior", "person": "person's prior"}
SIDES = tuple(SIGN)
GAIN_MEASURES = (*SIDES, "balance")

Gain = dict[str, Estimate]  # by measure


class Candidate(NamedTuple):
    """A way to a region: a map (or several), and the prior that it is weighed against."""

    map: str  # of SINGLE or SEVERAL, or "ellipse"
    prior: str | None = None  # of PRIORS; None is the map alone

    @property
    def title(self) -> str:
        """The candidate in words."""
        words = (SINGLE | SEVERAL | {"ellipse": "best ellipse"})[self.map]
        front = PRIORS[self.prior] if self.prior else ""
        return f"{front} + {words}" if front and words else words or f"{front} alone"


ELLIPSE, CONSTANT, PERSON = Candidate("ellipse"), Candidate("none", "prior"), Candidate("none", "person")


def trials(gain: Mapping[Candidate, ArrayLike]) -> pd.DataFrame:
    """What each candidate gains in deletion and in retention, and the smaller of the two, the best candidate first."""
    table = pd.DataFrame({"candidate": list(gain), "method": [one.title for one in gain]})
    table[list(SIDES)] = np.stack([np.asarray(found) for found in gain.values()])
    table["smaller gain"] = table[list(SIDES)].min(axis=1)
    return table.sort_values("smaller gain", ascending=False)


def next_of_the_same(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each picture (n,) the number of the next one of the same person; its own, where it is the only one."""
    order = np.arange(len(labels))
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        order[own] = np.roll(own, 1)
    return order


def paired_gains(table: pd.DataFrame, method: str, against: str = "disc", *, score: str = "lead_drop") -> pd.DataFrame:
    """Gain of a method over another in `GAIN_MEASURES`: a row for each network, picture and fill that both have.

    The table is that of `xfrlib.judge.evaluate` with a column `family`, who counts as one draw. `score` is what falls:
    "lead_drop" is the lead over the rivals that were fixed before, "margin_drop" the margin to any rival.
    """
    keys = ["network", "image", "family", "fill"]
    one, other = (table[table["method"] == name].set_index(keys) for name in (method, against))
    other = other.reindex(one.index)
    drops = {side: f"{side}_{score}" for side in SIGN}
    gain = pd.DataFrame({side: SIGN[side] * (one[drop] - other[drop]) for side, drop in drops.items()}).dropna()
    return gain.assign(balance=gain.sum(axis=1)).reset_index()


def interval(gain: pd.DataFrame, measure: str = "balance") -> Estimate:
    """Interval of a column of `paired_gains` over people, and over networks where there are several."""
    mean = gain.groupby(["network", "image", "family"], as_index=False)[measure].mean()
    return mean_interval(mean[measure], mean["family"], mean["network"])


def gained(
    table: pd.DataFrame,
    method: str,
    against: str = "disc",
    *,
    measures: Sequence[str] = GAIN_MEASURES,
    score: str = "lead_drop",
) -> Gain:
    """`interval` of a method's gain over another, in several measures; fills are averaged first."""
    return _intervals(paired_gains(table, method, against, score=score), measures)


def _intervals(gain: pd.DataFrame, measures: Sequence[str] = GAIN_MEASURES) -> Gain:
    return {measure: interval(gain, measure) for measure in measures}


class JudgedGain(NamedTuple):
    """A gain in the mean over the fills that judge, and under each of them."""

    mean: Gain
    fills: dict[str, Gain]

    @classmethod
    def of(cls, table: pd.DataFrame, method: str, against: str = "disc", *, score: str = "lead_drop") -> JudgedGain:
        """`gained` from the whole table, and from the part of each fill."""
        gain = paired_gains(table, method, against, score=score)
        return cls(_intervals(gain), {str(fill): _intervals(part) for fill, part in gain.groupby("fill")})

    def agree(self, measures: Sequence[str] = SIDES) -> bool:
        """Whether the values of all fills lie on one side of zero, in each measure: only then is their mean claimed."""
        return all(len({float(np.sign(gain[one].value)) for gain in self.fills.values()}) == 1 for one in measures)

    def side(self) -> str:
        """`side` of the mean; "neither" where the fills disagree in sign."""
        return side(self.mean) if self.agree() else "neither"

    def by_fill(self, say: Callable[[Gain], str]) -> str:
        """What `say` says of the gain under each fill."""
        return "; ".join(f"{say(gain)} under {fill}" for fill, gain in self.fills.items())

    def said(self, say: Callable[[Gain], str], measures: Sequence[str] = ("balance",)) -> str:
        """What `say` says of the mean; of each fill, where these disagree in sign."""
        return say(self.mean) if self.agree(measures) else self.by_fill(say)


def shares(table: pd.DataFrame, methods: Sequence[str]) -> dict[str, Interval | None]:
    """The share that each method has of the search's gain over the disc, in the balance: see `share_of_reference`."""
    keys = ["network", "image", "family"]
    reference = paired_gains(table, "search").groupby(keys)["balance"].mean()
    networks, people = (reference.index.get_level_values(key) for key in ("network", "family"))
    mean = {name: paired_gains(table, name).groupby(keys)["balance"].mean()[reference.index] for name in methods}
    return {name: share_of_reference(gain, reference, people, networks) for name, gain in mean.items()}


def left_of_search(gain: Mapping[tuple[int, str], Gain], fills: Sequence[str]) -> str:
    """What other fills, on the network that was searched on and on another, leave of the gain under grey, in words."""
    first = gain[0, "grey"]["balance"].value

    def left(value: float) -> str:
        return f"{100 * value / first:.0f} %" if value > 0 else f"nothing (its region is {-value:.2f} behind the disc)"

    words = []
    for network, where in enumerate(("the same network", "another network")):
        if (network, "grey") in gain:
            each = [f"{left(gain[network, fill]['balance'].value)} under {fill}" for fill in fills]
            words.append(f"on {where} {' and '.join(each)}")
    return "; ".join(words)


class Verdict(NamedTuple):
    """Where the method "better", the chosen map, stands on the test pictures, under the fills that judge."""

    over_disc: dict[str, JudgedGain]  # of every method
    by_network: dict[int, JudgedGain]  # of the chosen map
    unseen: JudgedGain | None  # on the networks that had no part in any choice; None where there is none
    minus: dict[str, JudgedGain]  # the chosen map less other methods

    @property
    def won(self) -> list[int]:
        """Networks on which the chosen map is above the disc in both measures."""
        return [network for network, found in self.by_network.items() if found.side() == "above"]

    def rows(self) -> list[dict[str, str | Estimate]]:
        """The chosen map minus the disc, by network and over all, a column for each measure and fill."""
        found = {f"{network}{'' if network else ' (chose)'}": gain for network, gain in self.by_network.items()}
        found |= {"all": self.over_disc["better"]}
        found |= {"all but the one that chose": self.unseen} if self.unseen else {}
        return [
            {"network": name} | {f"{one}, {fill}": gain[one] for fill, gain in judged.fills.items() for one in SIDES}
            for name, judged in found.items()
        ]


def judge_chosen(table: pd.DataFrame, methods: Sequence[str], against: Sequence[str]) -> Verdict:
    """`Verdict` from the table of deletion and retention: `methods` over the disc, the chosen map less `against`."""
    unseen, networks = table[table["network"] > 0], sorted(table["network"].unique().tolist())
    return Verdict(
        {name: JudgedGain.of(table, name) for name in methods},
        {network: JudgedGain.of(table[table["network"] == network], "better") for network in networks},
        JudgedGain.of(unseen, "better") if len(unseen) else None,
        {name: JudgedGain.of(table, "better", name) for name in against},
    )


def side(found: Gain) -> str:
    """Whether the intervals of deletion and of retention both lie above zero, both below it, or neither."""
    words = {verdict(found[one], ("above", "below", "neither")) for one in SIDES}
    return words.pop() if len(words) == 1 else "neither"


def stands(found: Gain) -> str:
    """Where a map stands beside the disc, in both measures or in one, in words."""
    words = [verdict(found[one], ("above", "below", "")) for one in SIDES]
    if not any(words):
        return "is not clearly different from the disc in either measure"
    if len(set(words)) == 1:
        return f"is {words[0]} the disc in both measures"
    said = sorted(f"{word} the disc in {one}" for word, one in zip(words, SIDES, strict=True) if word)
    return f"is {' and '.join(said)}{' alone' if len(said) == 1 else ''}"


def compared(found: Gain, other: str) -> str:
    """How a balance compares with that of another region, and by how much: the balance is ...

    No verdict is given where one measure is certainly above that of the other region and the other certainly below: a
    sum of opposite signs hides both.
    """
    if {verdict(found[one]) for one in SIDES} >= {"better", "worse"}:
        measures = " and ".join(f"{one} {in_text(found[one])}" for one in SIDES)
        return f"no measure against {other}, because deletion and retention disagree ({measures})"
    one = found["balance"]
    if one.low > 0:
        return f"higher than that of {other} by {in_text(one)}"
    if one.high < 0:
        return f"lower than that of {other} by {in_text(Interval(-one.value, -one.high, -one.low))}"
    return f"not clearly different from that of {other} (difference {in_text(one)})"


def verdict_findings(found: Verdict, chosen: Candidate, against: Mapping[str, str], promised: float) -> list[str]:
    """The sentences of the verdict.

    Parameters
    ----------
    found : Verdict
        What was measured, the positive control "truth" among it.
    chosen : Candidate
        The method "better".
    against : mapping
        The methods of ``found.minus``, as a sentence names them.
    promised : float
        The balance that the chosen map gained on the pictures that chose it.
    """

    def beside(name: str) -> str:
        return found.minus[name].said(lambda gain: compared(gain, against[name]))

    def measured(gain: Gain) -> str:
        return f"{stands(gain)} ({', '.join(f'{measure} {in_text(gain[measure])}' for measure in GAIN_MEASURES)})"

    own, networks = found.over_disc["better"], len(found.by_network)
    over = "over people and networks together" if networks > 1 else "over people, on one network"
    on_test = own.said(lambda gain: in_text(gain["balance"]))
    return [
        f"**{chosen.title} {stands(own.mean)}**, {over}, and in the mean over the judging fills."
        if own.agree()
        else f"**{chosen.title} has no one verdict**: the judging fills disagree in sign, and a mean would hide it.",
        f"Fill by fill, {over}, it {own.by_fill(measured)}.",
        f"Taken one by one, it is above the disc in both measures on {len(found.won)} of {networks} networks.",
        f"The first of these {networks} networks also chose. On the other {networks - 1} alone it "
        f"{found.unseen.by_fill(measured)}."
        if found.unseen
        else "There is one network, which also chose: of others nothing is known.",
        f"On the validation pictures, under the fills that chose, it gained {f'{promised:.2f}'.replace('-', '−')} in "
        f"balance over the disc; on the test pictures, under the others: {on_test}.",
        f"Its balance is {beside('ellipse')}.",
        *([f"It is {beside('prior')}."] if chosen.prior == "person" else []),
        _what_the_map_adds(found, chosen, beside("prior")),
        *_what_others_do_with_a_prior(found, chosen, against),
        f"The chosen map's balance is {beside('better_same_identity')}.",
        _without_a_prior(found),
        what_the_test_credits(found.over_disc["truth"]),
    ]


def what_the_test_credits(truth: JudgedGain) -> str:
    """Whether the test credits the truth per cell, its positive control, in words."""
    credited = [fill for fill, gain in truth.fills.items() if side(gain) == "above"]
    lost = [fill for fill in truth.fills if fill not in credited]
    said = f"The positive control, the truth per cell, {truth.by_fill(stands)}."
    if not lost:
        return f"{said} So the test credits a map that is right."
    where = f"Under {' and '.join(lost)} the test does not credit even the truth in both measures"
    return f"{said} {where}: a map that is not above the disc there has not been shown to be wrong."


def other_verdicts(lead: Mapping[str, JudgedGain], margin: Mapping[str, JudgedGain], titles: Mapping[str, str]) -> str:
    """Where two scores of the same maps place one differently beside the disc: a sentence, and a list in Markdown."""
    placed = [(titles[name], fill, lead[name], margin[name]) for name in margin for fill in margin[name].fills]
    said = [(title, fill, stands(one.fills[fill]), stands(other.fills[fill])) for title, fill, one, other in placed]
    moved = [
        f"\n- {title}, under {fill}: it {one} by the lead, and {other} by the margin."
        for title, fill, one, other in said
        if one != other
    ]
    if not moved:
        return f"The lead and the margin agree in all {len(said)} cases on where these maps stand."
    return f"The lead and the margin disagree in {len(moved)} of {len(said)} cases:\n{''.join(moved)}"


def own_prior(chosen: Candidate) -> str | None:
    """The method that the chosen map would be without its map; None where it has no prior, or is one."""
    return None if chosen.prior is None or chosen == PERSON else chosen.prior


def _what_the_map_adds(found: Verdict, chosen: Candidate, beside_prior: str) -> str:
    if chosen == PERSON:
        return (
            "It reads no map. Where it is above the common prior, the reason is *who* is predicted. On the validation "
            "pictures no map joined to it raised the smaller of its two gains."
        )
    blind = own_prior(chosen)
    if blind is None:
        return f"It has no prior, and its balance is {beside_prior}."

    def worth(gain: Gain) -> str:
        adds = f"(the map adds {in_text(gain['balance'])})"
        return f"would {'be' if gain['balance'].low > 0 else 'not be clearly'} worth less {adds}"

    minus = found.minus[blind]
    adding = [fill for fill, gain in minus.fills.items() if gain["balance"].low > 0]
    if minus.agree(("balance",)):
        adding = list(minus.fills) if minus.mean["balance"].low > 0 else []
    shown = "The picture adds something that its prior does not have"
    if not adding:
        shown = "Nothing here shows that the map adds anything to its prior"
    elif len(adding) < len(minus.fills):
        shown += f" under {' and '.join(adding)}, and not clearly elsewhere"
    return f"Without its map, as {Candidate('none', blind).title}, it {minus.said(worth)}. {shown}."


def _what_others_do_with_a_prior(found: Verdict, chosen: Candidate, against: Mapping[str, str]) -> list[str]:
    """Where a prior is part of the chosen map: whether plain CAM and SDD, each with its better prior, do as well."""
    titles = {"prior_cam": "plain CAM", "prior_sdd": "SDD"}
    said, unbeaten = list[str](), list[str]()
    for name in titles if chosen.prior else ():
        if name in found.minus:
            other = f"{titles[name]} with its prior"
            stood = found.over_disc[name].said(stands, SIDES)
            beside = found.minus[name].said(lambda gain, other=other: compared(gain, other))  # type: ignore[misc]
            title = titles[name][0].upper() + titles[name][1:]
            said.append(
                f"{title} with its better prior ({against[name]}) {stood}. The chosen map's balance is {beside}."
            )
            if not any(gain["balance"].low > 0 for gain in found.minus[name].fills.values()):
                unbeaten.append(other)
    if unbeaten:
        said.append(
            f"So the chosen map is not shown to be better, by the balance under any fill, than {' or '.join(unbeaten)}."
        )
    return said


def _without_a_prior(found: Verdict) -> str:
    fills = found.over_disc["sdd"].fills
    above = {
        fill: [title for name, title in SINGLE.items() if side(found.over_disc[name].fills[fill]) == "above"]
        for fill in fills
    }
    each = [f"Under {fill}: {'; '.join(titles) or 'no map'}." for fill, titles in above.items()]
    return f"Which maps without a prior are above the disc in both measures? {' '.join(each)}"

"""Chapter 10: the candidates for a better map, what they gain, and where the chosen one stands beside nulls and search.

A gain is over the disc, in calibrated log-odds, and positive is better in both measures; the balance is their sum.
Fills of a picture are averaged first. Each person (of made faces each family), and each network, is then one draw.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from studies.better_map import share_of_reference
from xfrlib.intervals import Estimate, Interval, mean_interval
from xfrlib.tables import SIGN, in_text, verdict

MAPS = {  # in the order in which the chapter stacks them
    "sdd": "SDD",
    "cam": "CAM",
    "difference": "CAM difference",
    "local_softmax": "local softmax",
    "earlier": "SDD of an earlier layer",
    "layers": "SDD of two layers",
    "stitched": "SDD, stitched",
    "mirrored": "SDD with its mirror image's",
    "resolutions": "gradient × activation, all resolutions",
}
SINGLE = MAPS | {"connected": "SDD, one connected region"}  # without a prior
SEVERAL = {"none": "", "all": "all four maps", "more": "all four maps and the earlier layer's"}
PRIORS = {"prior": "prior", "person": "person's prior"}
SIDES = tuple(SIGN)
MEASURES = (*SIDES, "balance")

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


def gains(table: pd.DataFrame, method: str, against: str = "disc") -> pd.DataFrame:
    """Gain of a method over another in `MEASURES`: a row for each network, picture and fill that both have.

    The table is that of `xfrlib.judge.evaluate` with a column `family`, who counts as one draw.
    """
    keys = ["network", "image", "family", "fill"]
    one, other = (table[table["method"] == name].set_index(keys) for name in (method, against))
    other = other.reindex(one.index)
    drops = {side: f"{side}_margin_drop" for side in SIGN}
    gain = pd.DataFrame({side: SIGN[side] * (one[drop] - other[drop]) for side, drop in drops.items()}).dropna()
    return gain.assign(balance=gain.sum(axis=1)).reset_index()


def interval(gain: pd.DataFrame, measure: str = "balance") -> Estimate:
    """Interval of a column of `gains` over people, and over networks where there are several."""
    mean = gain.groupby(["network", "image", "family"], as_index=False)[measure].mean()
    return mean_interval(mean[measure], mean["family"], mean["network"])


def gained(table: pd.DataFrame, method: str, against: str = "disc", *, measures: Sequence[str] = MEASURES) -> Gain:
    """`interval` of a method's gain over another, in several measures."""
    gain = gains(table, method, against)
    return {measure: interval(gain, measure) for measure in measures}


def shares(table: pd.DataFrame, methods: Sequence[str]) -> dict[str, Interval | None]:
    """The share that each method has of the search's gain over the disc, in the balance: see `share_of_reference`."""
    keys = ["network", "image", "family"]
    reference = gains(table, "search").groupby(keys)["balance"].mean()
    networks, people = (reference.index.get_level_values(key) for key in ("network", "family"))
    mean = {name: gains(table, name).groupby(keys)["balance"].mean()[reference.index] for name in methods}
    return {name: share_of_reference(gain, reference, people, networks) for name, gain in mean.items()}


def left_of_search(gain: Mapping[tuple[int, str], Gain], fills: Sequence[str]) -> str:
    """What other fills, on the network that was searched on and on another, leave of the gain under grey, in words."""
    first = gain[0, "grey"]["balance"].value
    words = []
    for network, where in enumerate(("on the same network", "on another network")):
        if (network, "grey") not in gain:
            continue
        mean = float(np.mean([gain[network, fill]["balance"].value for fill in fills]))
        if mean > 0:
            words.append(f"{100 * mean / first:.0f} % is left with other fills {where}")
        else:
            words.append(f"nothing is left with other fills {where}: there its region is {-mean:.2f} behind the disc")
    return "; ".join(words)


class Verdict(NamedTuple):
    """Where the method "better", the chosen map, stands on the test pictures, under the fills that judge."""

    over_disc: dict[str, Gain]  # of every method
    by_network: dict[int, Gain]  # of the chosen map, without the balance
    by_fill: dict[str, Gain]
    unseen: Gain | None  # on the networks that had no part in any choice; None where there is none
    minus: dict[str, Gain]  # the chosen map less other methods

    @property
    def won(self) -> list[int]:
        """Networks on which the chosen map is above the disc in both measures."""
        return [network for network, found in self.by_network.items() if side(found) == "above"]

    def rows(self) -> list[dict[str, str | Estimate]]:
        """The chosen map minus the disc, by network, by fill, and over all: rows of a table."""
        found = {f"{network}{'' if network else ' (chose)'}": gain for network, gain in self.by_network.items()}
        found |= {f"all, fill {fill}": gain for fill, gain in self.by_fill.items()} | {"all": self.over_disc["better"]}
        found |= {"all but the one that chose": self.unseen} if self.unseen else {}
        return [{"network": name, **{one: gain[one] for one in SIDES}} for name, gain in found.items()]


def judge_chosen(table: pd.DataFrame, methods: Sequence[str], against: Sequence[str]) -> Verdict:
    """`Verdict` from the table of deletion and retention: `methods` over the disc, the chosen map less `against`."""

    def parted(key: str, measures: Sequence[str]) -> dict[Hashable, Gain]:
        parts = table.groupby(key)
        return {one: gained(part, "better", measures=measures) for one, part in parts}

    unseen = table[table["network"] > 0]
    return Verdict(
        {name: gained(table, name) for name in methods},
        parted("network", SIDES),  # type: ignore[arg-type]
        parted("fill", MEASURES),  # type: ignore[arg-type]
        gained(unseen, "better") if len(unseen) else None,
        {name: gained(table, "better", name) for name in against},
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
    """How a balance compares with that of another region, and by how much: the balance is ..."""
    one = found["balance"]
    if one.low > 0:
        return f"higher than that of {other} by {in_text(one)}"
    if one.high < 0:
        return f"lower than that of {other} by {in_text(Interval(-one.value, -one.high, -one.low))}"
    return f"not clearly different from that of {other} (difference {in_text(one)})"


def findings(found: Verdict, chosen: Candidate, against: Mapping[str, str], promised: float) -> list[str]:
    """The sentences of the verdict.

    Parameters
    ----------
    found : Verdict
        What was measured.
    chosen : Candidate
        The method "better".
    against : mapping
        The methods of ``found.minus``, as a sentence names them.
    promised : float
        The balance that the chosen map gained on the pictures that chose it.
    """

    def beside(name: str) -> str:
        return compared(found.minus[name], against[name])

    def measured(gain: Gain) -> str:
        return ", ".join(f"{measure} {in_text(gain[measure])}" for measure in MEASURES)

    own, networks = found.over_disc["better"], len(found.by_network)
    over = "over people and networks together" if networks > 1 else "over people, on one network,"
    fills = "; ".join(f"{stands(gain)} under {fill} ({measured(gain)})" for fill, gain in found.by_fill.items())
    alone = [SINGLE[name] for name in SINGLE if side(found.over_disc[name]) == "above"]
    return [
        f"**{chosen.title} {stands(own)}**, {over} and in the mean over the judging fills ({measured(own)}). "
        f"Taken one by one, it is above in both on {len(found.won)} of {networks} networks.",
        f"One of these {networks} networks also chose; on the other {networks - 1} alone it {stands(found.unseen)} "
        f"({measured(found.unseen)})."
        if found.unseen
        else "There is one network, which also chose: of others nothing is known.",
        f"Fill by fill, it {fills}.",
        f"On the validation pictures, under the fills that chose, it gained {f'{promised:.2f}'.replace('-', '−')} in "
        f"balance over the disc; on the test pictures, under the others, it is {in_text(own['balance'])}.",
        f"Its balance is {beside('ellipse')}" + (f" and {beside('prior')}." if chosen.prior == "person" else "."),
        _what_the_map_adds(found, chosen, beside("prior")),
        f"Its balance is {beside('better_same_identity')}.",
        f"Without a prior, {' and '.join(alone)} {'is' if len(alone) == 1 else 'are'} above the disc in both measures."
        if alone
        else "Without a prior, no map is above the disc in both measures for certain.",
    ]


def own_prior(chosen: Candidate) -> str | None:
    """The method that the chosen map would be without its map; None where it has no prior, or is one."""
    return None if chosen.prior is None or chosen == PERSON else chosen.prior


def _what_the_map_adds(found: Verdict, chosen: Candidate, beside_prior: str) -> str:
    if chosen == PERSON:
        return (
            "It reads no map: whatever it has above the common prior, it has from knowing *who* it is, and a map of "
            "the picture added nothing on the validation pictures."
        )
    blind = own_prior(chosen)
    if blind is None:
        return f"It has no prior, and its balance is {beside_prior}."
    gain = found.minus[blind]["balance"]
    without = f"Without its map, as {Candidate('none', blind).title}, it would be"
    if gain.low > 0:
        return (
            f"{without} worth less (the map adds {in_text(gain)}): the picture adds something that its prior does not "
            "have."
        )
    return (
        f"{without} not clearly worth less (the map adds {in_text(gain)}): nothing here shows that the map adds "
        "anything to its prior."
    )

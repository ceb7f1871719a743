"""From the per-image table to what a reader sees: names of methods and measures, the paper's numbers, summaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from xfrlib.intervals import Interval, bootstrap_interval, holm, sign_flip_test
from xfrlib.regions import CONTROLS

KINDS = ("deletion", "retention")


MEASURES = {  # column of the table -> how a reader sees it
    "drop_points": "confidence drop, points",
    "drop_relative": "confidence drop, % of the confidence",
    "prediction_change": "prediction change, %",
}


METHODS = {"sdd": "SDD", "cam": "CAM"} | {name: control.title for name, control in CONTROLS.items()}


# Shadman et al. (2025), tables 1 and 2, in percent: SDD CAM, random CAM. It does not give the relative drop.
PAPER = {
    ("deletion", "drop_points"): (62.33, 42.50),
    ("deletion", "prediction_change"): (51.36, 29.73),
    ("retention", "drop_points"): (69.43, 82.21),
    ("retention", "prediction_change"): (57.68, 79.93),
}


SIGN = {"deletion": 1, "retention": -1}  # of a difference that favours the first method


def per_image(table: pd.DataFrame, column: str, *, fill: str) -> pd.DataFrame:
    """One value per image and method: the mean of `column` over draws. Rows are images, columns are methods."""
    rows = table[table["fill"] == fill]
    if rows.empty:
        raise ValueError(f"the table has no fill {fill!r}; it has {', '.join(sorted(table['fill'].unique()))}")
    return rows.pivot_table(index="image", columns="method", values=column, aggfunc="mean", sort=False)


def summarise(
    table: pd.DataFrame, *, reference: str = "sdd", resamples: int = 2000, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Means with intervals for the results file, from the table of `evaluate`.

    Returns ``{"methods": {method: {fill: {...}}}, "differences": {"<reference>_minus_<method>": {fill: {...}}}}``; the
    innermost dictionaries hold deletion and retention by measure, differences being paired by image.
    """
    identities = table.groupby("image")["label"].first()
    draws = table.groupby("method")["draw"].nunique()
    methods: dict[str, Any] = {}
    differences: dict[str, Any] = {}
    for fill in table["fill"].unique():
        for kind in KINDS:
            for measure in MEASURES:
                wide = per_image(table, f"{kind}_{measure}", fill=fill)
                clusters = identities.loc[wide.index]
                for method in wide.columns:
                    node = methods.setdefault(method, {}).setdefault(
                        fill, {"images": len(wide), "draws": int(draws[method])}
                    )
                    interval = bootstrap_interval(wide[method], clusters, resamples=resamples, seed=seed)
                    node.setdefault(kind, {})[measure] = interval._asdict()
                    if method != reference:
                        node = differences.setdefault(f"{reference}_minus_{method}", {}).setdefault(fill, {})
                        difference = wide[reference] - wide[method]
                        interval = bootstrap_interval(difference, clusters, resamples=resamples, seed=seed)
                        node.setdefault(kind, {})[measure] = interval._asdict()
    return {"methods": methods, "differences": differences}


def change_tests(
    table: pd.DataFrame,
    *,
    reference: str = "sdd",
    others: Sequence[str] = ("random_map", "disc", "cam"),
    resamples: int = 9999,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """`sign_flip_test` of the paired differences in prediction change, from the table of `evaluate`.

    A picture changes its class or does not; draws of a control are averaged first. Identities are the clusters, and all
    differences, fills and kinds together are the family that `holm` corrects for.

    Returns ``{"<reference>_minus_<other>": {fill: {kind: {"p": ..., "p_holm": ...}}}}``.
    """
    identities = table.groupby("image")["label"].first()
    p: dict[tuple[str, str, str], float] = {}
    for fill in table["fill"].unique():
        for kind in KINDS:
            wide = per_image(table, f"{kind}_prediction_change", fill=fill)
            for other in others:
                p[other, fill, kind] = sign_flip_test(
                    wide[reference] - wide[other], identities.loc[wide.index], resamples=resamples, seed=seed
                )
    tests: dict[str, dict[str, Any]] = {}
    for ((other, fill, kind), own), corrected in zip(p.items(), holm(list(p.values())), strict=True):
        node = tests.setdefault(f"{reference}_minus_{other}", {}).setdefault(fill, {})
        node[kind] = {"p": own, "p_holm": corrected}
    return tests


def verdict(difference: Interval, *, expected_sign: int) -> str:
    """Whether a paired difference bears out an expected ordering: "agrees", "differs" or "undecided" (zero inside)."""
    if difference.low <= 0 <= difference.high:
        return "undecided"
    return "agrees" if np.sign(difference.value) == expected_sign else "differs"

"""How sure a mean is: bootstrap over identities, paired between methods, and the results file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

KINDS = ("deletion", "retention")
MEASURES = {  # column of the table -> how a reader sees it
    "drop_points": "confidence drop, points",
    "drop_relative": "confidence drop, % of the confidence",
    "prediction_change": "prediction change, %",
}
METHODS = {
    "sdd": "SDD",
    "cam": "CAM",
    "random_map": "random 7×7 map",
    "scattered": "scattered pixels",
    "box": "one box",
    "shifted": "own map, shifted",
    "same_identity": "another picture's map, same person",
    "other_identity": "another person's map",
    "disc": "centred disc",
}
# Shadman et al. (2025), tables 1 and 2, in percent: SDD CAM, random CAM. It does not give the relative drop.
PAPER = {
    ("deletion", "drop_points"): (62.33, 42.50),
    ("deletion", "prediction_change"): (51.36, 29.73),
    ("retention", "drop_points"): (69.43, 82.21),
    ("retention", "prediction_change"): (57.68, 79.93),
}
SIGN = {"deletion": 1, "retention": -1}  # of a difference that favours the first method


class Interval(NamedTuple):
    """A mean and its 95 % interval, in the unit of the values."""

    value: float
    low: float
    high: float


def bootstrap_interval(
    values: ArrayLike, clusters: ArrayLike, *, resamples: int = 2000, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """Mean of `values` (n,) with an interval from resampling whole `clusters` (n,): the identities, not the pictures.

    Pictures of one person are alike, so that resampling pictures would promise too narrow an interval. With few
    clusters the percentile interval is too narrow as well; its level is widened as in T. Hesterberg, "What teachers
    should know about the bootstrap" (2015), section 4.3 ("expanded percentile": a t quantile and the factor
    sqrt(G / (G - 1)) for G clusters).

    Raises `ValueError` for fewer than two clusters, other lengths, or values that are not finite.
    """
    array, result = _cluster_bootstrap(values, clusters, resamples=resamples, seed=seed, confidence=confidence)
    return Interval(float(array.mean()), float(result.confidence_interval.low), float(result.confidence_interval.high))


def _cluster_bootstrap(
    values: ArrayLike, clusters: ArrayLike, *, resamples: int, seed: int, confidence: float
) -> tuple[NDArray[np.float64], Any]:
    array, groups = np.asarray(values, dtype=float), np.asarray(clusters)
    if array.shape != groups.shape or array.ndim != 1:
        raise ValueError(f"values and clusters must be of one length, got {array.shape} and {groups.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(array))} of {len(array)} values are not finite")
    _, inverse = np.unique(groups, return_inverse=True)
    counts = np.bincount(inverse)
    if len(counts) < 2:
        raise ValueError("a bootstrap over identities needs at least two identities")
    sums = np.bincount(inverse, weights=array)
    n = len(counts)
    tail = stats.norm.cdf(-np.sqrt(n / (n - 1)) * stats.t.ppf((1 + confidence) / 2, n - 1))
    return array, stats.bootstrap(
        (sums, counts),
        lambda s, c, axis=-1: s.sum(axis=axis) / c.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        confidence_level=1 - 2 * tail,
        method="percentile",
        rng=np.random.default_rng(seed),
    )


def crossed_interval(
    values: ArrayLike,
    clusters: ArrayLike,
    networks: ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Mean of `values` (n,) with an interval for other identities *and* other networks of the same recipe.

    Identities (`clusters`) are resampled with the networks as they are, and networks with the identities as they are;
    the two variances of the mean, each times m / (m - 1) for m resampled units, add up, as for two crossed random
    factors (Owen, "The pigeonhole bootstrap", 2007). The interval is that of Student's t with Satterthwaite's degrees
    of freedom, for a percentile of three networks cannot lie outside their range.

    With one network this is `bootstrap_interval`. Raises `ValueError` as that does.
    """
    array, groups, nets = np.asarray(values, dtype=float), np.asarray(clusters), np.asarray(networks)
    if nets.shape != array.shape:
        raise ValueError(f"values and networks must be of one length, got {array.shape} and {nets.shape}")
    if len(np.unique(nets)) < 2:
        return bootstrap_interval(array, groups, resamples=resamples, seed=seed, confidence=confidence)
    variances, freedom = [], []
    for units in (groups, nets):
        m = len(np.unique(units))
        _, result = _cluster_bootstrap(array, units, resamples=resamples, seed=seed, confidence=confidence)
        variances.append(result.standard_error**2 * m / (m - 1))
        freedom.append(m - 1)
    total = sum(variances)
    df = total**2 / sum(v**2 / f for v, f in zip(variances, freedom, strict=True)) if total else 1.0
    half = stats.t.ppf((1 + confidence) / 2, df) * np.sqrt(total)
    mean = float(array.mean())
    return Interval(mean, mean - float(half), mean + float(half))


def sign_flip_test(differences: ArrayLike, clusters: ArrayLike, *, resamples: int = 9999, seed: int = 0) -> float:
    """Two-sided p-value of paired `differences` (n,) having mean zero, when whole `clusters` (n,) change sign.

    Under the null the two methods can be exchanged within an identity, so that its sum is as likely with either sign.
    All signs are tried where there are few identities, else `resamples` of them are drawn.
    """
    array, groups = np.asarray(differences, dtype=float), np.asarray(clusters)
    if array.shape != groups.shape or array.ndim != 1 or not np.isfinite(array).all():
        raise ValueError(f"differences must be finite and as many as clusters, got {array.shape} and {groups.shape}")
    sums = np.bincount(np.unique(groups, return_inverse=True)[1], weights=array)
    if not sums.any():
        return 1.0
    result = stats.permutation_test(
        (sums,), lambda x, axis=-1: x.sum(axis=axis), permutation_type="samples", vectorized=True,
        n_resamples=resamples, rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(result.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for being a family: the chance of one false finding among all stays below the level.

    S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.
    """
    p = np.asarray(p_values, dtype=float)
    order = p.argsort()
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return adjusted[order.argsort()].tolist()


def area_under(shares: Sequence[float], values: ArrayLike) -> float:
    """Area under a curve over shares of the pixels from 0 to 1, by the trapezoidal rule: its mean height.

    `shares` must rise from 0 to 1, both included, so that every curve is judged over the whole range.
    """
    if list(shares) != sorted(set(shares)) or shares[0] != 0 or shares[-1] != 1:
        raise ValueError(f"shares must rise from 0 to 1, both included, got {list(shares)}")
    return float(np.trapezoid(np.asarray(values, dtype=float), shares))


def probability_curves(table: pd.DataFrame, whole: ArrayLike, blank: ArrayLike, *, kind: str) -> pd.DataFrame:
    """Calibrated probability of the target, in percent, while more and more pixels are deleted or inserted.

    Inserting a share of the pixels into nothing is retaining them, so that one table gives both curves (V. Petsiuk,
    A. Das and K. Saenko, "RISE", BMVC 2018).

    Parameters
    ----------
    table : rows of `xfrlib.evaluation.perturbation.evaluate` for one network and one fill, at several fractions.
    whole, blank : (n,) the same probability, in percent, of the unchanged pictures and of pictures of fill alone; row i
        belongs to `image` i.
    kind : "deletion" or "insertion".

    Returns
    -------
    Rows (method, image), columns the shares from 0 to 1; draws are averaged.

    Raises
    ------
    ValueError
        For another `kind`.
    """
    if kind not in ("deletion", "insertion"):
        raise ValueError(f'kind = {kind!r}: use "deletion" or "insertion"')
    all_of_it, nothing = (np.asarray(ends, dtype=float) for ends in (whole, blank))
    first, last = (all_of_it, nothing) if kind == "deletion" else (nothing, all_of_it)
    drop = table[f"{'deletion' if kind == 'deletion' else 'retention'}_calibrated_drop_points"]
    left = table.assign(left=all_of_it[table["image"]] - drop)
    curves = left.pivot_table(index=["method", "image"], columns="fraction", values="left")
    images = curves.index.get_level_values("image")
    curves.insert(0, 0.0, first[images])
    curves[1.0] = last[images]
    return curves


def curve_areas(curves: pd.DataFrame) -> pd.DataFrame:
    """`area_under` each curve of `probability_curves`: rows images, columns methods, in percent."""
    shares = [float(share) for share in curves.columns]
    areas = [area_under(shares, curve) for curve in curves.to_numpy()]
    return pd.Series(areas, curves.index).unstack("method")


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

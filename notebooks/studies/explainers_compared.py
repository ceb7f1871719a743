"""Chapter 7: the settings that each explainer may choose from, methods that are one, verdicts, and curves over shares.

Six settings each, fixed before anything is measured, because a method that tries more finds better ones by luck. Where
a method has few settings of its own, a Gaussian over its map fills the list: `smooth`, its width in pixels of a
112-pixel face.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import combinations, product
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata, spearmanr
from torch import Tensor

from studies.full_evaluation import per_image
from studies.jackknife import corrected
from studies.report import joined
from xfrlib import explainers, models, plots
from xfrlib.artifacts import file_sha256, fingerprint, write_atomic
from xfrlib.data.faces import data_hash, read_manifest
from xfrlib.explainers import EXPLAINERS, explain_with
from xfrlib.intervals import Estimate, Interval, mean_interval
from xfrlib.judge import blurred
from xfrlib.models.classifier import FaceClassifier
from xfrlib.run import NotebookRun
from xfrlib.tables import COMPARED, SIGN, in_text

# Is SDD better than these? Named before the comparison: the verdicts and Holm's correction are for them alone.
QUESTIONS = ("random_map", "same_identity", "cam", "finercam", "disc")
MAP_COLOURS = ScalarMappable(Normalize(0, 1), plots.SEQUENTIAL)  # of a map from its lowest value to its highest

Mean = Callable[["pd.Series[float]"], Estimate]  # of a series indexed by (network, image): see `mean_with_interval`


def explained(
    run: NotebookRun, name: str, model: FaceClassifier, images: Tensor, classes: Tensor, **options: Any
) -> Tensor:
    """`explain_with` in batches of the profile. Maps of a slow method are kept in a file: a stopped run goes on."""

    def make() -> Tensor:
        own = {"batch_size": run.profile.eval_batch_size, "progress": EXPLAINERS[name].slow, **options}
        return explain_with(name, model, images, classes, **own)

    if not EXPLAINERS[name].slow:
        return make()
    pixels = int(images.mul(255).round().long().sum())  # exact on any number of threads
    return kept(run, [name, options, classes.tolist(), pixels], make)


def kept(run: NotebookRun, key: Any, make: Callable[[], Tensor]) -> Tensor:
    """What `make` returns, from a file if an earlier run with the same `key`, code, weights and pictures has made it.

    `key` holds, as JSON can, all that the result depends on besides network 0, the pictures and the explainers.
    """
    classifier = file_sha256(run.need("classifier.safetensors", "02_fine_tuning"))
    pictures = data_hash(read_manifest(run.need("manifest.csv", "01_data_preparation")))
    path = run.output(f"kept/{fingerprint(key, classifier, pictures, explainers, models)}.pt")
    if not path.exists():
        with write_atomic(path) as part:
            torch.save(make(), part)
    return torch.load(path, weights_only=True)


def passes_per_picture(name: str, model: FaceClassifier, **budget: Any) -> tuple[int, int]:
    """Forward and backward passes through the backbone that one picture costs."""
    known = {"1 + channels": 1 + model.head.in_features, **EXPLAINERS[name].budget, **budget}
    forward, backward = (known[n] if isinstance(n, str) else n for n in EXPLAINERS[name].passes)
    return forward, backward


def tinted(name: str, picture: Tensor, values: Tensor, *, top: float = 1.0) -> NDArray[np.float32]:
    """A method's map (H, W) over its picture, stretched from its lowest value to the quantile `top` of its values."""
    values = values.exp() if EXPLAINERS[name].logarithm else values
    low, high = values.min(), values.quantile(top)
    return plots.tint(picture, ((values - low) / (high - low).clamp(min=1e-12)).clamp(max=1), MAP_COLOURS)


def per_picture(table: pd.DataFrame, kind: str, measure: str, fill: str) -> pd.DataFrame:
    """A measure of deletion or retention: rows (network, image), columns methods, draws averaged."""
    return per_image(table, f"{kind}_{measure}", fill=fill, by=["network", "image"])


def mean_with_interval(values: pd.Series[float], families: NDArray[np.int64]) -> Estimate:
    """Mean, interval and p of a series indexed by (network, image), over people, and over networks where several.

    `families` (n,) says who counts as one draw in each image (`NotebookRun.families`). No interval for a single one.
    """
    number, image = (values.index.get_level_values(level) for level in ("network", "image"))
    if len(np.unique(families[image])) < 2:
        return Estimate(float(values.mean()), np.nan, np.nan, np.nan)
    return mean_interval(values, families[image], number)


def result_rows(table: pd.DataFrame, fill: str, mean: Mean, titles: Mapping[Any, str]) -> list[dict[str, Any]]:
    """Rows for a reader: how far lead and margin fall under one fill, the best in deletion first."""
    leads = {kind: per_picture(table, kind, "lead_drop", fill) for kind in SIGN}
    margins = {kind: per_picture(table, kind, "margin_drop", fill) for kind in SIGN}
    return [
        {"method": titles[name]}
        | {f"{kind}: lead falls by": mean(leads[kind][name]) for kind in SIGN}
        | {f"{kind}: margin falls by": mean(margins[kind][name]) for kind in SIGN}
        for name in leads["deletion"].mean().sort_values(ascending=False).index
        if name in titles
    ]


def tuned_rows(
    table: pd.DataFrame, fills: Sequence[str], mean: Mean, titles: Mapping[Any, str]
) -> list[dict[str, str | Estimate]]:
    """Rows for a reader: what the chosen settings of each method gain on its defaults, above 0 for better."""
    rows: dict[str, dict[str, str | Estimate]] = {}
    for fill, (kind, sign) in product(fills, SIGN.items()):
        falls = per_picture(table, kind, "lead_drop", fill)
        for name in falls:
            if f"{name}_default" in falls:
                row = rows.setdefault(str(name), {"chosen settings less defaults": titles[name]})
                row[f"{kind}, {fill}"] = mean(sign * (falls[name] - falls[f"{name}_default"]))
    return list(rows.values())


def slow_results(
    table: pd.DataFrame, fills: Sequence[str], names: Sequence[str], mean: Mean
) -> dict[tuple[str, ...], Any]:
    """How far the lead falls by each method and SDD less it, for a results file: {(fill, name, ...): ...}."""
    found: dict[tuple[str, ...], Any] = {}
    for fill, name in product(fills, names):
        found[fill, name, "pictures"] = table["image"].nunique()
        found[fill, name, "networks"] = table["network"].nunique()
        falls = {kind: per_picture(table, kind, "lead_drop", fill) for kind in SIGN}
        for kind, wide in falls.items():
            found[fill, name, kind] = mean(wide[name])
        for kind, wide in falls.items():
            found[fill, name, "sdd_sum_minus", kind] = mean(wide["sdd_sum"] - wide[name])
    return found


def judged_by_holm(compared: pd.DataFrame, asked: Collection[str] = QUESTIONS) -> pd.DataFrame:
    """Rows of SDD less another `method` (`kind`, `value`, `p`) with `p_holm` and `verdict` for the methods `asked`.

    These alone are corrected for, together; of the others nothing is said ("" and NaN). Clear is a corrected p below
    0.05. Where a difference has no p, because it is the same everywhere, it is undecided.
    """
    named = compared["method"].isin(asked)
    p = pd.Series(corrected(compared.loc[named, "p"].to_dict()), dtype=float).reindex(compared.index)
    word = np.where(compared["kind"].map(SIGN) * compared["value"] > 0, *COMPARED[:2])
    return compared.assign(p_holm=p, verdict=np.where(named, np.where(p < 0.05, word, COMPARED[2]), ""))


def _gain(less: Mapping[Any, Any], kind: str) -> Interval:
    """What SDD gains, of a difference of falls, SDD less another method: turned in retention, its interval too."""
    value, *ends = (SIGN[kind] * less[key] for key in ("value", "low", "high"))
    return Interval(value, *ends[:: SIGN[kind]])


def verdict_rows(compared: pd.DataFrame, titles: Mapping[Any, str]) -> list[dict[str, str]]:
    """Rows for a reader: SDD's gain on each method, above 0 for better, by kind and fill, with its verdict, if any."""
    rows: dict[str, dict[str, str]] = {}
    for one in compared.sort_values(["method", "kind", "fill"]).to_dict("records"):
        row = rows.setdefault(one["method"], {"SDD against": titles[one["method"]]})
        row[f"{one['kind']}, {one['fill']}"] = in_text(_gain(one, one["kind"]), signed=True) + (
            f", **{one['verdict']}**" if one["verdict"] else ""
        )
    return list(rows.values())


def slow_rows(
    found: Mapping[tuple[str, ...], Any], fills: Sequence[str], names: Sequence[str], titles: Mapping[Any, str]
) -> list[dict[str, str | Interval]]:
    """Rows for a reader of what `slow_results` found: SDD's gain on each method, above 0 for better."""
    return [
        {"SDD against": titles[name]}
        | {
            f"{kind}, {fill}": _gain(found[fill, name, "sdd_sum_minus", kind]._asdict(), kind)
            for fill, kind in product(fills, SIGN)
        }
        for name in names
    ]


def comparison_in_words(compared: pd.DataFrame, kind: str, titles: Mapping[Any, str]) -> str:
    """What all fills together say of SDD in one kind: "better than A; B and worse than C"."""
    verdicts = compared[compared["kind"] == kind].groupby("method")["verdict"].agg(set)
    named = {
        word: [titles[name] for name, found in verdicts.items() if found == {word}] for word in ("better", "worse")
    }
    said = " and ".join(f"{word} than {joined(names)}" for word, names in named.items() if names)
    return f"in {kind} SDD is {said or 'neither better nor worse than any'}"


def mean_ranks(
    table: pd.DataFrame, fills: Sequence[str], left_out: Collection[str], mean: Mean, titles: Mapping[Any, str]
) -> pd.DataFrame:
    """Mean rank of each method of `titles` by the fall of the lead over all `fills`, 1 the best, to be plotted."""
    rows = []
    for kind, sign in SIGN.items():
        first, *rest = (per_picture(table, kind, "lead_drop", fill) for fill in fills)
        total = sum(rest, start=first)
        total = total[[name for name in total if name in titles and name not in left_out]]
        placed = pd.DataFrame(rankdata(-sign * total.to_numpy(), axis=1), total.index, total.columns)
        rows += [
            {"method": titles[name], "measure": f"{kind}, rank", **mean(placed[name])._asdict()} for name in placed
        ]
    ranked = pd.DataFrame(rows)
    order = ranked.groupby("method")["value"].mean().sort_values().index
    return ranked.set_index("method").loc[order].reset_index().sort_values("measure", kind="stable")


def same_rankings(maps: Mapping[str, Tensor], shared: pd.DataFrame) -> list[tuple[str, str]]:
    """Pairs of methods that rank all pixels of all pictures alike, up to rounding.

    `maps` are method -> (n, H, W); `shared` is the share of the highest pixels that two methods have in common, which
    rules most pairs out.
    """
    close = [pair for pair in combinations(maps, 2) if shared[pair[0]][pair[1]] > 0.999]

    def alike(a: str, b: str) -> bool:
        both = zip(maps[a].flatten(1), maps[b].flatten(1), strict=True)
        return min(float(spearmanr(x, y).statistic) for x, y in both) > 0.99999

    return [pair for pair in close if alike(*pair)]


def clones(regions: Sequence[Mapping[str, NDArray[np.bool_]]], *, least: float = 0.999) -> dict[str, str]:
    """Maps whose regions are those of an earlier map, whatever their name: {clone: the first map like it}.

    Two maps are alike if, on every network, their regions share at least `least` of their pixels over all pictures:
    rounding moves a pixel at the edge of a region now and then, another method moves many.

    Parameters
    ----------
    regions : for each network, name -> masks (n, H, W) bool; the same names in the same order, all of one number of
        pixels.
    least : share of the pixels, above 0 and at most 1.
    """

    def alike(a: str, b: str) -> bool:
        return all((one[a] & one[b]).sum() >= least * one[a].sum() for one in regions)

    found: dict[str, str] = {}
    originals: list[str] = []
    for name in regions[0]:
        like = next((other for other in originals if alike(other, name)), None)
        if like is None:
            originals.append(name)
        else:
            found[name] = like
    return found


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
    table : rows of `xfrlib.judge.evaluate` for one network and one fill, at several fractions.
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


_OUTPUTS: list[dict[str, Any]] = [{"output": "centred_logit"}, {"output": "contrast"}]


_SMOOTH: list[dict[str, Any]] = [{"smooth": 0}, {"smooth": 4}, {"smooth": 8}]


def _all(*choices: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for part in parts for key, value in part.items()} for parts in product(*choices)]


_WIDTHS: list[dict[str, Any]] = [{"smooth": width} for width in (0, 2, 4, 6, 8, 12)]  # six for one map


_CENTRE: list[dict[str, Any]] = [{"centre": True}, {"centre": False}]


_SDD = _all([{"scale_min": 1.0}, {"scale_min": 0.3}], _SMOOTH)


_OWN: dict[str, list[dict[str, Any]]] = {
    "cam": _all(_CENTRE, _SMOOTH),
    "exp_cam": _all(_CENTRE, _SMOOTH),
    "gradcam": _all(_OUTPUTS, _SMOOTH),
    "gradcam++": _all(_OUTPUTS, _SMOOTH),
    "layercam": _all(_OUTPUTS, _SMOOTH),
    "finercam": _all([{"alpha": 0.6}, {"alpha": 1.0}], _SMOOTH),
    "saliency": _all(_OUTPUTS, _SMOOTH),
    "guided_backpropagation": _all(_OUTPUTS, _SMOOTH),
    "integrated_gradients": _all([{"fill": "black"}, {"fill": "grey"}], _SMOOTH),
    "sdd_sum": _SDD,
    "sdd_product": _SDD,
    "sdd_local_softmax": _SDD,
}
# The six settings of each, three widths of smoothing among them; a method that has no setting has six widths.
GRIDS = {name: _OWN.get(name, _WIDTHS) for name, method in EXPLAINERS.items() if method.compared}


def smoothed(maps: Tensor, sigma: float) -> Tensor:
    """Maps (B, H, W) after a Gaussian of width `sigma` pixels; unchanged for 0."""
    return blurred(maps[:, None], float(sigma), reach=3)[:, 0] if sigma else maps

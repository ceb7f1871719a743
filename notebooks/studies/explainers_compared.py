"""Chapter 7: the settings that each explainer may choose from, methods that are one, and curves over all shares.

Six settings each, fixed before anything is measured, because a method that tries more finds better ones by luck. Where
a method has few settings of its own, a Gaussian over its map fills the list: `smooth`, its width in pixels of a
112-pixel face.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from xfrlib.judge import blurred


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


_SDD = _all(
    [{"delta": 0.3}, {"delta": 1.0}, {"delta": 3.0}],
    [{"scale_min": 1.0}, {"scale_min": 0.3}],
)


GRIDS: dict[str, list[dict[str, Any]]] = {
    "cam": _all(_CENTRE, _SMOOTH),
    "exp_cam": _all(_CENTRE, _SMOOTH),
    "gradcam": _all(_OUTPUTS, _SMOOTH),
    "gradcam++": _all(_OUTPUTS, _SMOOTH),
    "layercam": _all(_OUTPUTS, _SMOOTH),
    "finercam": _all(
        [{"alpha": 0.6}, {"alpha": 0.8}, {"alpha": 1.0}],
        [{"weights": "fixed"}, {"weights": "equal"}],
    ),
    "saliency": _all(_OUTPUTS, _SMOOTH),
    "guided_backpropagation": _all(_OUTPUTS, _SMOOTH),
    "integrated_gradients": _all([{"fill": "black"}, {"fill": "grey"}], _SMOOTH),
    "scorecam": _WIDTHS,
    "rise": _WIDTHS,
    "lime": _WIDTHS,
    "kernel_shap": _WIDTHS,
    "sdd_sum": _SDD,
    "sdd_product": _SDD,
    "sdd_local_softmax": _SDD,
}


def smoothed(maps: Tensor, sigma: float) -> Tensor:
    """Maps (B, H, W) after a Gaussian of width `sigma` pixels; unchanged for 0."""
    return blurred(maps[:, None], float(sigma), reach=3)[:, 0] if sigma else maps

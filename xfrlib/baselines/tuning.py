"""The settings that each explainer may choose from: as many for every one, fixed before anything is measured.

Six each, because a method that tries more finds better ones by luck. Where a method has few settings of its own, a
Gaussian over its map fills the list: `smooth`, its width in pixels of a 112-pixel face.
"""

from __future__ import annotations

from itertools import product
from typing import Any

from torch import Tensor

from xfrlib.evaluation.perturbation import blurred

_OUTPUTS: list[dict[str, Any]] = [{"output": "centred_logit"}, {"output": "contrast"}]
_SMOOTH: list[dict[str, Any]] = [{"smooth": 0}, {"smooth": 4}, {"smooth": 8}]


def _all(*choices: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for part in parts for key, value in part.items()} for parts in product(*choices)]


_WIDTHS: list[dict[str, Any]] = [{"smooth": width} for width in (0, 2, 4, 6, 8, 12)]  # six for one map
_CENTRE: list[dict[str, Any]] = [{"centre": True}, {"centre": False}]
_SDD = _all([{"delta": 0.3}, {"delta": 1.0}, {"delta": 3.0}], [{"scale_min": 1.0}, {"scale_min": 0.3}])

GRIDS: dict[str, list[dict[str, Any]]] = {
    "cam": _all(_CENTRE, _SMOOTH),
    "exp_cam": _all(_CENTRE, _SMOOTH),
    "gradcam": _all(_OUTPUTS, _SMOOTH),
    "gradcam++": _all(_OUTPUTS, _SMOOTH),
    "layercam": _all(_OUTPUTS, _SMOOTH),
    "finercam": _all([{"alpha": 0.6}, {"alpha": 0.8}, {"alpha": 1.0}], [{"weights": "fixed"}, {"weights": "equal"}]),
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

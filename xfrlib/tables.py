"""From the per-image table to what a reader sees: names of methods, verdicts, numbers as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xfrlib.controls import CONTROLS
from xfrlib.intervals import Estimate, Interval

MAPS = {"sdd": "SDD", "cam": "CAM", "sdd_drawn": "SDD, as libraries draw it", "cam_drawn": "CAM, as libraries draw it"}
METHODS = MAPS | {name: control.title for name, control in CONTROLS.items()}
SIGN = {"deletion": 1, "retention": -1}  # of a difference that favours the first method
COMPARED = ("better", "worse", "undecided")  # what an interval of a difference says: above zero, below, neither


def verdict(difference: Interval | Estimate, words: Sequence[str] = COMPARED, *, sign: int = 1) -> str:
    """What an interval says about zero, one of three `words`: it lies above, it lies below, or neither.

    Below changes places with above for `sign` -1, as in retention, where the smaller fall is the better (`SIGN`).
    """
    above, below = (difference.low > 0, difference.high < 0)[::sign]
    return words[0] if above else words[1] if below else words[2]


def in_text(
    found: Interval | Estimate | Mapping[Any, Any], digits: int = 2, *, signed: bool = False, factor: float = 1,
    unit: str = "", missing: str = "none",
) -> str:  # fmt: skip
    """A value and its interval for a reader: "0.68 [0.58, 0.77]", with true minus signs.

    `found` may be a dictionary, as a results file has it. Numbers are multiplied by `factor` and written with `digits`
    decimals, positive ones with their sign if `signed`; `unit` stands behind the value. `missing` is said for a value
    that is NaN, "(no interval)" for the interval of one that has none.
    """
    one = found if isinstance(found, Mapping) else found._asdict()
    value, low, high = (
        f"{factor * one[key]:{'+' if signed else ''}z.{digits}f}".replace("-", "−") for key in ("value", "low", "high")
    )
    if not np.isfinite(one["value"]):
        return missing
    return f"{value}{unit} " + (f"[{low}, {high}]" if np.isfinite(one["low"]) else "(no interval)")

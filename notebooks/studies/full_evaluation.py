"""Chapter 6: means with intervals over people, and whether predictions change more under one map than under another."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike

from studies.jackknife import corrected
from studies.paper import MEASURES
from studies.report import plain
from studies.shares import share_interval
from xfrlib.artifacts import write_json
from xfrlib.geometry import upsampled
from xfrlib.intervals import Interval, mean_interval
from xfrlib.tables import SIGN

Tree = dict[str, Any]  # {method or pair: {fill: {"deletion" or "retention": {...}}}}


def per_image(table: pd.DataFrame, column: str, *, fill: str, by: str | Sequence[str] = "image") -> pd.DataFrame:
    """One value per image and method: the mean of `column` over draws. Rows are images, columns are methods.

    With ``by=["network", "image"]`` a row is an image on a network, for the table of several.
    """
    rows = table[table["fill"] == fill]
    if rows.empty:
        raise ValueError(f"the table has no fill {fill!r}; it has {', '.join(sorted(table['fill'].unique()))}")
    return rows.pivot_table(index=by, columns="method", values=column, aggfunc="mean", sort=False)


def percent_interval(hits: ArrayLike, people: ArrayLike) -> Interval:
    """`share_interval` in percent."""
    return Interval(*(100 * bound for bound in share_interval(hits, people)))


def summarise(table: pd.DataFrame, families: ArrayLike, *, reference: str = "sdd") -> dict[str, Tree]:
    """Means of each method, and paired differences to the reference, from the table of `evaluate` on one network.

    `families` (N,) says who counts as one draw, by label: see `xfrlib.run.NotebookRun.families`. Returns
    ``{"methods": {method: {fill: {...}}}, "differences": {"<reference>_minus_<method>": {fill: {...}}}}``; the
    innermost dictionaries hold the intervals of deletion and retention by measure.
    """
    labels, draws = table.groupby("image")["label"].first(), table.groupby("method")["draw"].nunique()
    methods, differences = Tree(), Tree()
    for fill, kind, measure in product(table["fill"].unique(), SIGN, MEASURES):
        wide = per_image(table, f"{kind}_{measure}", fill=fill)
        units = np.asarray(families)[labels.loc[wide.index]]
        for name in wide.columns:
            own = methods.setdefault(name, {}).setdefault(fill, {"images": len(wide), "draws": draws[name]})
            changes = measure == "prediction_change"
            mean = percent_interval(wide[name] / 100, units) if changes else mean_interval(wide[name], units)
            own.setdefault(kind, {})[measure] = mean
            if name != reference:
                pair = differences.setdefault(f"{reference}_minus_{name}", {}).setdefault(fill, {})
                pair.setdefault(kind, {})[measure] = mean_interval(wide[reference] - wide[name], units)
    return {"methods": methods, "differences": differences}


def change_tests(
    differences: Tree, others: Sequence[str] = ("random_map", "disc", "cam"), *, reference: str = "sdd"
) -> Tree:
    """Whether predictions change more under one map than under another: p-values from the differences of `summarise`.

    All differences, fills and kinds together are the family that `studies.jackknife.holm` corrects for. Returns
    ``{"<reference>_minus_<other>": {fill: {kind: {"p": ..., "p_holm": ...}}}}``, NaN where all pictures differ alike.
    """
    p = {
        (pair, fill, kind): found["prediction_change"].p
        for pair in (f"{reference}_minus_{other}" for other in others)
        for fill, kinds in differences[pair].items()
        for kind, found in kinds.items()
    }
    tests = Tree()
    for (pair, fill, kind), adjusted in corrected(p).items():
        tests.setdefault(pair, {}).setdefault(fill, {})[kind] = {"p": p[pair, fill, kind], "p_holm": adjusted}
    return tests


def drawn_random_map(picture: int, size: tuple[int, int], *, seed: int, draw: int = 0) -> torch.Tensor:
    """The map (H, W) whose highest pixels the control of that name takes: see `xfrlib.controls.random_map`."""
    rng = np.random.default_rng([seed, zlib.crc32(b"random_map"), draw, picture])
    return upsampled(torch.from_numpy(rng.standard_normal((1, 7, 7), dtype=np.float32)), size)[0]


def write_results(path: Path, values: dict[str, Any]) -> None:
    """Write a results file, if it is what ``results.schema.json`` beside this module describes.

    Raises `jsonschema.ValidationError` naming the entry at fault.
    """
    schema = json.loads(Path(__file__).with_name("results.schema.json").read_text(encoding="utf-8"))
    values = plain(values)
    jsonschema.validate(values, schema)
    write_json(path, values)

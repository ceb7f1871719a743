"""Chapter 6: means with intervals over people, and whether predictions change more under one map than under another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd

from xfrlib.artifacts import write_json
from xfrlib.intervals import bootstrap_interval, holm, sign_flip_test
from xfrlib.tables import MEASURES, SIGN, per_image, plain


def summarise(
    table: pd.DataFrame, *, reference: str = "sdd", resamples: int = 2000, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Means with intervals for the results file, from the table of `evaluate`.

    Returns ``{"methods": {method: {fill: {...}}}, "differences": {"<reference>_minus_<method>": {fill: {...}}}}``; the
    innermost dictionaries hold deletion and retention by measure, differences being paired by image.
    """
    identities = table.groupby("image")["label"].first()
    draws = table.groupby("method")["draw"].nunique()
    methods: dict[tuple[str, ...], Any] = {}
    differences: dict[tuple[str, ...], Any] = {}
    for fill, kind, measure in product(table["fill"].unique(), SIGN, MEASURES):
        wide = per_image(table, f"{kind}_{measure}", fill=fill)
        clusters = identities.loc[wide.index]
        for method in wide.columns:
            methods |= {(method, fill, "images"): len(wide), (method, fill, "draws"): draws[method]}
            interval = bootstrap_interval(wide[method], clusters, resamples=resamples, seed=seed)
            methods[method, fill, kind, measure] = interval
            if method != reference:
                interval = bootstrap_interval(wide[reference] - wide[method], clusters, resamples=resamples, seed=seed)
                differences[f"{reference}_minus_{method}", fill, kind, measure] = interval
    return {"methods": plain(methods), "differences": plain(differences)}


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
    p: dict[tuple[str, ...], float] = {}
    for fill, kind in product(table["fill"].unique(), SIGN):
        wide = per_image(table, f"{kind}_prediction_change", fill=fill)
        for other in others:
            p[f"{reference}_minus_{other}", fill, kind] = sign_flip_test(
                wide[reference] - wide[other], identities.loc[wide.index], resamples=resamples, seed=seed
            )
    corrected = holm(list(p.values()))
    tests: dict[str, Any] = plain(
        {key: {"p": own, "p_holm": both} for (key, own), both in zip(p.items(), corrected, strict=True)}
    )
    return tests


def write_results(path: Path, values: dict[str, Any]) -> None:
    """Write a results file, if it is what ``results.schema.json`` beside this module describes.

    Raises `jsonschema.ValidationError` naming the entry at fault.
    """
    schema = json.loads(Path(__file__).with_name("results.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(values, schema)
    write_json(path, values)

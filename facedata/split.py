"""Divide a table of faces into training, validation and test, per identity and with duplicates kept together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pandas as pd

from facedata.reasons import why_unused
from facedata.scan import path_draw, path_order


def held_out(n: int, fraction: float) -> int:
    """`fraction` of `n` pictures rounded up, without the error of binary fractions (0.07 * 100 is above 7)."""
    return math.ceil(Fraction(str(float(fraction))) * n)


def split_faces(table: pd.DataFrame, fractions: Sequence[float] = (0.8, 0.1, 0.1), *, seed: int = 0) -> pd.DataFrame:
    """Add label (int, by sorted identity; -1: not used) and split ("train", "validation", "test" or "").

    Per identity, validation and test get their share of its pictures rounded up (ours: the paper does not state its
    rule), training the rest. Duplicate groups stay whole, so a share may be missed; the parts then come as close as
    they can, and `data_report` lists them. A group that spans identities is of no use to test with and goes to
    training. Identities with fewer than 3 usable pictures get the status "too_few_images". The outcome depends on
    paths, groups and `seed`, not on the order of rows. Raises `ValueError` when fewer than two identities are left.
    """
    if len(fractions) != 3 or min(fractions) < 0 or fractions[0] <= 0 or abs(sum(fractions) - 1) > 1e-9:
        raise ValueError(f"fractions = {fractions}: give the shares of train, validation and test; they must sum to 1")
    if "duplicate_group" not in table:
        raise ValueError("the table has no duplicate_group: run find_duplicates before split_faces")
    table = table.assign(label=-1, split="")
    for identity, group in table[table["status"] == "used"].groupby("identity"):
        if len(group) < 3:
            note = f"{len(group)} usable pictures of {identity}, a split needs 3"
            table.loc[group.index, ["status", "note"]] = "too_few_images", note
    used = table[table["status"] == "used"]
    names = sorted(used["identity"].unique(), key=path_order)
    if len(names) < 2:
        unused = why_unused(table.to_dict("records")) or "none"
        raise ValueError(
            f"{len(names)} identities with enough usable pictures, at least 2 are needed; not used: {unused}"
        )
    table.loc[used.index, "label"] = used["identity"].map({name: label for label, name in enumerate(names)})
    table.loc[used.index, "split"] = "train"
    spanning = spanning_groups(used)
    for _, group in used.groupby("identity"):
        rest = _units(group[~group["duplicate_group"].isin(spanning)], seed)
        for split, fraction in (("test", fractions[2]), ("validation", fractions[1])):
            chosen = _closest_subset([len(unit) for unit in rest], held_out(len(group), fraction))
            table.loc[[row for k in chosen for row in rest[k]], "split"] = split
            rest = [unit for k, unit in enumerate(rest) if k not in chosen]
    return table


def spanning_groups(used: pd.DataFrame) -> list[int]:
    """Duplicate groups with pictures of several identities."""
    people = used[used["duplicate_group"] >= 0].groupby("duplicate_group")["identity"].nunique()
    return people.index[people > 1].tolist()


def _units(pictures: pd.DataFrame, seed: int) -> list[list[Any]]:
    """Row labels of the parts that must stay together, in an order drawn by `seed`."""
    units: dict[Any, list[tuple[str, Any]]] = {}
    for row, path, group in zip(pictures.index, pictures["path"], pictures["duplicate_group"], strict=True):
        units.setdefault(group if group >= 0 else path, []).append((path_draw(seed, path), row))
    return [[row for _, row in unit] for unit in sorted(units.values(), key=min)]


def _closest_subset(sizes: list[int], target: int) -> list[int]:
    """Indices of units, early ones first, whose total is as near as possible to `target`; never all of them.

    A subset-sum table: `last[total]` is the unit that first made a total possible. Of equally near totals the larger.
    """
    last: dict[int, int] = {0: -1}
    most = min(sum(sizes) - 1, 2 * target)
    for index, size in enumerate(sizes):
        for total in [known + size for known in last if known + size <= most]:
            last.setdefault(total, index)
    best, chosen = min(last, key=lambda total: (abs(total - target), -total)), []
    while best:
        chosen.append(last[best])
        best -= sizes[last[best]]
    return chosen

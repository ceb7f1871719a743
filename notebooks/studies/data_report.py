"""Chapter 1: what a reader should know of a manifest, in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from facedata.split import held_out, spanning_groups
from xfrlib.data.faces import SPLITS, data_hash


def split_counts(manifest: pd.DataFrame) -> pd.DataFrame:
    """Number of used pictures, a row per identity, a column per split."""
    used = manifest[manifest["status"] == "used"]
    return pd.crosstab(used["identity"], used["split"]).reindex(columns=list(SPLITS), fill_value=0)


def data_report(manifest: pd.DataFrame, fractions: Sequence[float] = (0.8, 0.1, 0.1)) -> dict[str, Any]:
    """What a reader should know of a manifest, as plain JSON values.

    Keys: files, statuses, notes (of used pictures), problems (files that are broken or out of place), identities,
    images (per split), duplicates (groups, pictures, largest_group, across_identities), missed_shares (identities
    whose parts differ from the rounded-up shares, with got and wanted as [train, validation, test]), data_hash.
    """
    used = manifest[manifest["status"] == "used"]
    counts = split_counts(manifest)
    bad = manifest[manifest["status"].isin(["unreadable", "too_small", "misplaced", "not_an_image"])]
    grouped = used[used["duplicate_group"] >= 0]
    groups = grouped.groupby("duplicate_group")
    missed = []
    for identity, *got in counts.itertuples():
        outside = [held_out(sum(got), fraction) for fraction in fractions[1:]]
        wanted = [sum(got) - sum(outside), *outside]
        if got != wanted:
            missed.append({"identity": identity, "got": got, "wanted": wanted})
    return {
        "files": int((~manifest["path"].str.endswith("/")).sum()),
        "statuses": manifest["status"].value_counts().sort_index().to_dict(),
        "notes": used.loc[used["note"] != "", "note"].value_counts().sort_index().to_dict(),
        "problems": bad[["path", "status", "note"]].to_dict("records"),
        "identities": len(counts),
        "images": {split: int(counts[split].sum()) for split in SPLITS},
        "duplicates": {
            "groups": len(groups),
            "pictures": grouped["duplicate_kind"].value_counts().sort_index().to_dict(),
            "largest_group": int(groups.size().max()) if len(groups) else 0,
            "across_identities": [groups.get_group(group)["path"].tolist() for group in spanning_groups(used)],
        },
        "missed_shares": missed,
        "data_hash": data_hash(manifest),
    }

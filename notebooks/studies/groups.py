"""Chapter 11: by which facts of pictures and people results may differ: light, contrast, pose, FaceScrub's lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from facedata.facescrub_lists import read_list
from madefaces.people import nuisance_of, picture_seed
from studies.jackknife import over_units
from xfrlib.intervals import Estimate
from xfrlib.tables import in_text

LISTS = {"male": "actors", "female": "actresses"}  # what `read_list` says of a list -> its name in FaceScrub
WHY = {  # a column of people -> how a reader sees it
    "confusability": "confusability",
    "training_pictures": "number of training pictures",
    "training_accuracy": "accuracy on training pictures",
    "distance": "distance of the region from the centre",
    "overlap_disc": "overlap of the region with the disc",
}


def picture_facts(images: Tensor) -> pd.DataFrame:
    """Facts that any picture has: images (n, 3, H, W) uint8 or float in [0, 1] -> a row each, in units of [0, 1].

    `brightness` and `contrast` are mean and standard deviation of the luminance (0.299 R + 0.587 G + 0.114 B);
    `asymmetry` is the mean absolute difference of the luminance, its mean set to zero and its deviation to one, from
    its mirror image: what is left of pose and of light from the side in an aligned picture, without telling the two
    apart. A picture of one colour has an asymmetry of 0.
    """
    rgb = images.double() / 255 if images.dtype == torch.uint8 else images.double()
    grey = (rgb * torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64).view(1, 3, 1, 1)).sum(dim=1)
    mean, deviation = grey.mean(dim=(1, 2)), grey.std(dim=(1, 2), correction=0)
    mirrored = (grey - grey.flip(2)).abs().mean(dim=(1, 2)) / deviation.clamp(min=1e-6)
    return pd.DataFrame({"brightness": mean.numpy(), "contrast": deviation.numpy(), "asymmetry": mirrored.numpy()})


def made_facts(seeds: Sequence[int]) -> pd.DataFrame:
    """Facts that the renderer knows of a made picture exactly, a row for each nuisance seed.

    Columns: `turn`, how far the head turns or nods, as the length of (yaw, pitch) in pixels; `tilt`, ``|roll|`` in
    radians; `side_light`, ``|light_x|``, how far the light comes from one side; `noise`, its strength in grey values;
    `occluded`, whether a bar covers a corner, bool; `smile`, in pixels.
    """
    n = pd.DataFrame([nuisance_of(seed) for seed in seeds])
    return pd.DataFrame({
        "turn": np.hypot(n["yaw"], n["pitch"]), "tilt": n["roll"].abs(), "side_light": n["light_x"].abs(),
        "noise": n["noise"], "occluded": n["occlusion"] > 1, "smile": n["smile"],
    })  # fmt: skip


def upper_half(values: ArrayLike) -> NDArray[np.bool_]:
    """Whether each value lies above the median; values that are equal stay on one side. All False if all are equal."""
    array = np.asarray(values, dtype=float)
    return array > np.median(array) if len(array) else array.astype(bool)


def facescrub_list_of(identities: Sequence[str], folder: Path) -> dict[str, str]:
    """Which of FaceScrub's two lists, "actors" or "actresses", each identity is in: by name, spaces as underscores.

    The lists are facescrub_actors.txt and facescrub_actresses.txt in `folder`. Identities in neither are left out, and
    the result is empty where there are no lists.
    """
    found: dict[str, str] = {}
    for path in sorted(folder.glob("facescrub_act*.txt")):
        table = read_list(path)
        found |= dict.fromkeys(table["name"].unique(), LISTS.get(str(table["sex"].iloc[0]), path.stem))
    return {name: found[name] for name in identities if name in found}


def picture_splits(images: Tensor) -> dict[str, NDArray[np.bool_]]:
    """Splits of any pictures at the median of `picture_facts`, by what a reader calls the upper half: (n,) each."""
    facts = picture_facts(images)
    return {
        "brighter pictures": upper_half(facts["brightness"]),
        "pictures richer in contrast": upper_half(facts["contrast"]),
        "less symmetric pictures": upper_half(facts["asymmetry"]),
    }


def made_splits(record: Mapping[str, Any], labels: Sequence[int], paths: Sequence[str]) -> dict[str, NDArray[np.bool_]]:
    """Splits of made pictures, their person and their file given, by what the renderer knew: (n,) each.

    `record` is the content of faces_families.json.
    """
    numbers = [int(Path(path).stem) for path in paths]
    facts = made_facts([picture_seed(record["seed"], int(t), k) for t, k in zip(labels, numbers, strict=True)])
    worn = np.array([who["genes"]["glasses"][0] == 1 for who in record["identities"]])
    return {
        "heads turned further": upper_half(facts["turn"]),
        "more light from one side": upper_half(facts["side_light"]),
        "noisier pictures": upper_half(facts["noise"]),
        "a bar over a corner": facts["occluded"].to_numpy(),
        "people with glasses": worn[labels],
    }


def actors(identities: Sequence[str], folder: Path) -> tuple[NDArray[np.bool_] | None, str]:
    """Whom FaceScrub's lists in `folder` name as actors, (N,) bool or None where they do not split, and a note."""
    listed = facescrub_list_of(identities, folder)
    if len(set(listed.values())) != 2:
        return None, (
            "FaceScrub's two lists (actors, actresses) cannot be had for these people, so nothing is said of men "
            "and women."
        )
    count, missing = Counter(listed.values()), len(identities) - len(listed)
    rest = f" and {missing} not at all (these count as not actors)" if missing else ""
    note = f"FaceScrub's lists name {count['actors']} of these people as actors, {count['actresses']} as actresses"
    return np.array([listed.get(who) == "actors" for who in identities]), f"{note}{rest}."


def group_rows(
    differences: Mapping[str, Estimate], sizes: Mapping[str, int], p: Mapping[Any, float]
) -> list[dict[str, str]]:
    """Rows of a table of groups: p has the p-values after Holm by ("group", name)."""
    return [
        {
            "question": name,
            "pictures in the group": str(sizes[name]),
            "difference of the gain, log-odds": in_text(one, signed=True, missing="cannot be had: one group is empty"),
            "p after Holm": f"{p['group', name]:.2g}" if np.isfinite(one.p) else "—",
        }
        for name, one in differences.items()
    ]


def goes_with(rows: pd.DataFrame, name: str) -> Estimate:
    """Rank correlation over people of their mean of a column with their mean `gain`, the jackknife's interval.

    `rows` are pictures on networks, with `label`, `family` and `network`. NaN where the column is the same for all.
    """

    def correlation(kept: NDArray[np.bool_]) -> float:
        people = rows[kept].groupby("label")[[name, "gain"]].mean()
        return float(people.corr("spearman").to_numpy()[0, 1])

    return over_units(rows, correlation)


def why_rows(related: Mapping[str, Estimate], p: Mapping[Any, float]) -> list[dict[str, str]]:
    """Rows of a table of rank correlations over people: p has the p-values after Holm by ("why", name)."""
    return [
        {
            "what": WHY[name],
            "rank correlation with the gain, over people": f"{one.value:+.2f}".replace("-", "−")
            if np.isfinite(one.value)
            else "cannot be had: the same for all",
            "p after Holm": f"{p['why', name]:.2g}" if np.isfinite(one.p) else "—",
        }
        for name, one in related.items()
    ]

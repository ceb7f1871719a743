"""Facts of pictures and people by which results may differ: light, contrast, pose, occlusion, FaceScrub's lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from facedata.facescrub_lists import read_list
from madefaces.people import nuisance_of

LISTS = {
    "male": "actors",
    "female": "actresses",
}  # what `read_list` says of a list -> its name in FaceScrub


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
    return pd.DataFrame(
        {
            "brightness": mean.numpy(),
            "contrast": deviation.numpy(),
            "asymmetry": mirrored.numpy(),
        }
    )


def made_facts(seeds: Sequence[int]) -> pd.DataFrame:
    """Facts that the renderer knows of a made picture exactly, a row for each nuisance seed.

    `turn`: how far the head turns or nods, as the length of (yaw, pitch) in pixels.
    `tilt`: ``|roll|`` in radians.
    `side_light`: ``|light_x|``, how far the light comes from one side.
    `noise`: its strength in grey values.
    `occluded`: whether a bar covers a corner, bool.
    `smile`: in pixels.
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

"""What can be known of a map without another pass: features that may tell a map to show from one to keep back."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from xfrlib.cam import pooled_features
from xfrlib.config import FORMS
from xfrlib.evaluation.controls import disc
from xfrlib.evaluation.masks import top_fraction_mask
from xfrlib.evaluation.protocol import MappedPictures
from xfrlib.explain import explain_features
from xfrlib.models.classifier import FaceClassifier
from xfrlib.sdd import scaled_directed_divergence, sdd_scale

FEATURES = {  # column -> how a reader sees it
    "probability": "probability of the predicted class",
    "half_mass": "share of pixels that holds half of the map",
    "overlap_disc": "overlap of the region with the disc",
    "distance": "distance of the region from the centre",
    "overlap_cam": "overlap of the region with CAM's",
    "overlap_forms": "agreement of the three forms of SDD",
    "scale": "the scale s before it is clamped",
}


@torch.no_grad()
def map_features(
    model: FaceClassifier,
    loader: Iterable[Any],
    *,
    fraction: float = 0.2,
    temperature: float = 1.0,
    progress: bool = True,
    **settings: Any,
) -> tuple[MappedPictures, pd.DataFrame]:
    """One pass over a loader of (images (B, 3, H, W) RGB in [0, 1], ...): regions as `protocol.map_regions` has them,
    and a row of features for each picture.

    Columns, in the order of `FEATURES`: calibrated `probability` of the predicted class (softmax of logits over
    `temperature`), in [0, 1]; `half_mass`, the smallest share of pixels that holds half of the map, in [0, 1], small
    for a sharp map; `overlap_disc` and `overlap_cam`, the share of the region that lies in the centred disc or in
    CAM's region; `distance` of the region's centroid from the middle of the picture, in pixels; `overlap_forms`, the
    mean share that the regions of two forms of SDD have in common; `scale`, k times the ratio in the definition of s,
    unclamped. `settings`: those of `explain`.
    """
    device = next(model.parameters()).device
    images, logits, rows = [], [], []
    regions: dict[str, list[np.ndarray]] = {"sdd": [], "cam": []}
    chosen = {name: settings[name] for name in ("delta", "scale", "scale_min", "scale_max") if name in settings}
    for batch, *_ in tqdm(loader, desc="maps and features", unit="batch", mininterval=1, disable=not progress):
        size = (batch.shape[2], batch.shape[3])
        e = explain_features(pooled_features(model, batch.to(device)), size=size, **settings)
        cam = F.interpolate(e.cams[:, :1], size=size, mode="bilinear", align_corners=False)[:, 0]
        masks = {"sdd": top_fraction_mask(e.log_sdd, fraction), "cam": top_fraction_mask(cam, fraction)}
        forms = [
            top_fraction_mask(scaled_directed_divergence(e.cams, size=size, form=form, log=True, **chosen), fraction)
            for form in FORMS
        ]
        pairs = torch.stack([_overlap(a, b) for a, b in combinations(forms, 2)])
        centre = torch.from_numpy(disc(int(masks["sdd"][0].sum()), size)).to(device).expand_as(cam)
        found = {
            "probability": (e.logits.double() / temperature).softmax(dim=1).amax(dim=1),
            "half_mass": half_mass(e.sdd),
            "overlap_disc": _overlap(masks["sdd"], centre),
            "distance": centroid_distance(masks["sdd"]),
            "overlap_cam": _overlap(masks["sdd"], masks["cam"]),
            "overlap_forms": pairs.mean(dim=0),
            "scale": sdd_scale(e.cams, scale=chosen.get("scale", 1.0), scale_min=0.0, scale_max=float("inf")),
        }
        rows.append(pd.DataFrame({name: value.cpu().double().numpy() for name, value in found.items()}))
        for name, mask in masks.items():
            regions[name].append(mask.cpu().numpy())
        images.append((batch * 255).round().byte())
        logits.append(e.logits.cpu())
    mapped = MappedPictures(
        torch.cat(images), torch.cat(logits), {name: np.concatenate(kept) for name, kept in regions.items()}
    )
    return mapped, pd.concat(rows, ignore_index=True)[list(FEATURES)]


def half_mass(maps: Tensor) -> Tensor:
    """Smallest share of pixels that holds half of a map's sum: maps (B, H, W) of values from 0 up -> (B,) in (0, 1]."""
    values = maps.double().flatten(1).sort(dim=1, descending=True).values
    held = values.cumsum(dim=1) / values.sum(dim=1, keepdim=True)
    return ((held < 0.5).sum(dim=1) + 1) / values.shape[1]


def centroid_distance(masks: Tensor) -> Tensor:
    """Distance in pixels of each region's centroid from the middle of the picture: bool (B, H, W) -> (B,)."""
    height, width = masks.shape[1:]
    y = torch.arange(height, device=masks.device, dtype=torch.float64) - (height - 1) / 2
    x = torch.arange(width, device=masks.device, dtype=torch.float64) - (width - 1) / 2
    count = masks.sum(dim=(1, 2))
    return torch.hypot((masks.sum(dim=2) * y).sum(dim=1) / count, (masks.sum(dim=1) * x).sum(dim=1) / count)


def _overlap(masks: Tensor, others: Tensor) -> Tensor:
    """Share of each mask that the other has too: (B, H, W) twice, of equal numbers of pixels -> (B,)."""
    return (masks & others).sum(dim=(1, 2)) / masks.sum(dim=(1, 2))

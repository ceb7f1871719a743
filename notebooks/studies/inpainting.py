"""Chapter 7, the inpainting game: which map marks the pixels that were repainted, so that A became B?

After J. R. Williford, B. B. May and J. Byrne, "Explainable face recognition", ECCV 2020.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd
import torch
from torch import Tensor, nn

from xfrlib.prediction import all_logits, log_odds

Play = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, float, float]]


def one_round(
    play: Play, model: nn.Module, maps: Mapping[str, Tensor], probe: Tensor, twin: Tensor, pair: Tensor
) -> tuple[pd.DataFrame, dict[str, Tensor]]:
    """Every map plays one round, and the network decides on the pictures that come of it.

    Parameters
    ----------
    play : callable
        Of a map (H, W), the probe and the twin; returns the pasted picture (3, H, W), the share of the repainted
        pixels that was found, and the area under the ROC curve.
    model : nn.Module
        The classifier.
    maps : mapping
        Method -> map of the probe.
    probe, twin : Tensor
        (3, H, W) in [0, 1], before and after the repainting.
    pair : Tensor
        (2,) integers: A, who is in the probe, and B, who is in the twin.

    Returns
    -------
    tuple
        A row a method, with its `method`, `found`, `area` and whether the decision `turned` to B; and the pasted
        pictures by method.
    """
    results = {name: play(values, probe, twin) for name, values in maps.items()}
    pasted = {name: picture for name, (picture, _, _) in results.items()}
    odds = log_odds(all_logits(model, torch.stack(list(pasted.values()))), pair.expand(len(pasted), 2))[:, 0]
    rows = [{"method": name, "found": found, "area": area} for name, (_, found, area) in results.items()]
    return pd.DataFrame(rows).assign(turned=(odds < 0).numpy()), pasted

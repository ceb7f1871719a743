"""How far to believe a map: whether it should be shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from xfrlib.checks import answer, is_number, need_judgeable
from xfrlib.controls import disc
from xfrlib.judge import deletion_retention

if TYPE_CHECKING:
    import pandas as pd

LEAST = 0.05  # log-odds: what is less is 0.0 for a reader, and no gain


class Judgement(NamedTuple):
    """What `should_show` says of one picture; gains over the disc, in log-odds of the lead over the rivals."""

    show: bool
    reason: str  #: a sentence for whoever looks at the map
    deletion: float  #: how much more deleting the region takes
    retention: float  #: how much more retaining it leaves


def should_show(
    model: nn.Module, images: Tensor, masks: Tensor, *, fill: str | Tensor = "grey", threshold: float = 0.0,
    temperature: float = 1.0, logits: Tensor | None = None, mean: Tensor | None = None, pairs: Tensor | None = None,
) -> list[Judgement]:  # fmt: skip
    """Decide for each picture whether its map should be shown, by four passes: does its region beat a centred disc?

    Raises `ValueError` for masks that are empty or of unequal size, and for what `xfrlib.deletion_retention` refuses.

    Parameters
    ----------
    masks : Tensor
        (B, H, W) bool, the region of each map, as `xfrlib.top_fraction_mask` gives it; all of one number of pixels.
    threshold : float
        A map is shown if both gains are above it, in log-odds. One that rounds to 0.0 counts as 0.
    model, images, fill, mean, logits, temperature, pairs
        As `xfrlib.deletion_retention` takes them; the lead of the pairs is what a region takes or leaves.
    """
    need_judgeable(model, images, masks, fill, temperature)
    if not is_number(threshold):
        raise ValueError(f"threshold = {threshold!r}: must be a number, in log-odds")
    counts = masks.flatten(1).sum(dim=1)
    if int(counts.min()) == 0 or int(counts.min()) != int(counts.max()):
        raise ValueError("masks must be (B, H, W) with the same number of pixels in each, at least 1")
    centre = torch.from_numpy(disc(int(counts[0]), (masks.shape[1], masks.shape[2]))).to(masks.device)
    with torch.no_grad():
        logits = answer(model, images) if logits is None else logits
    how: Any = {"fill": fill, "mean": mean, "logits": logits, "temperature": temperature, "pairs": pairs}
    own, reference = (deletion_retention(model, images, one, **how) for one in (masks, centre.expand_as(masks)))
    deletion, retention = gains(own, reference)
    name = fill if isinstance(fill, str) else "given"
    return [_judged(d, r, threshold, name) for d, r in zip(deletion.tolist(), retention.tolist(), strict=True)]


def _judged(deletion: float, retention: float, threshold: float, fill: str) -> Judgement:
    seen = [x if abs(x) >= LEAST else 0.0 for x in (deletion, retention)]
    won = sum(x > threshold for x in seen)
    (takes, than), (leaves, than_kept) = (
        (f"{abs(x):.1f} log-odds {'more' if x > 0 else 'less'}", "than") if x else ("as much", "as") for x in seen
    )
    compared = (
        f"under a {fill} fill, deleting the region takes {takes} of the lead over the rivals {than} deleting a centred "
        f"disc, and keeping only it leaves {leaves} {than_kept} keeping only the disc"
    )
    needed = "" if threshold == 0 else f" by more than {threshold:g}"
    lost = f"Not shown: the region beats the disc{needed} in {'only one' if won else 'neither'} of two measures"
    return Judgement(won == 2, f"{'Shown' if won == 2 else lost}: {compared}.", deletion, retention)


def gains(own: pd.DataFrame, reference: pd.DataFrame, *, score: str = "lead_drop") -> tuple[np.ndarray, np.ndarray]:
    """By how much a region beats a reference in deletion and in retention: above 0 favours the region.

    Both are tables of `deletion_retention` of the same pictures. A good region drops much if deleted, little if kept.
    """
    if len(own) != len(reference):
        raise ValueError(f"{len(own)} rows against {len(reference)}: give the same pictures in the same order")
    first, second = (table[[f"deletion_{score}", f"retention_{score}"]].to_numpy(float) for table in (own, reference))
    return first[:, 0] - second[:, 0], second[:, 1] - first[:, 1]

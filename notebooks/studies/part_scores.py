"""How well a map agrees with what the parts of a picture are worth: plain tensors in, one number a picture out.

What a negative value of a map means is the same in all scores: it speaks for the rival. So it lowers a *density*, it
comes last in a *precision*, and it counts as zero in a *mass* or an *energy*, which are shares and need a sum of
positive terms. A map that is nowhere positive, such as a logarithm, has no mass: give the exponential.
A score that does not exist is NaN, never a number in its place.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xfrlib.regions import pixel_count


def part_mass(maps: Tensor, masks: Tensor) -> Tensor:
    """Share of a map's positive values that lies in each part: (B, H, W), bool (B, P, H, W) -> (B, P) in [0, 1].

    NaN for every part of a map that is nowhere positive.
    """
    positive = _checked(maps, masks).clamp(min=0)
    return _sums(positive, masks) / positive.sum(dim=(1, 2))[:, None]


def part_density(maps: Tensor, masks: Tensor) -> Tensor:
    """Mean of a map over each part, sign and all: (B, H, W), bool (B, P, H, W) -> (B, P). NaN for an empty part."""
    return _sums(_checked(maps, masks), masks) / masks.sum(dim=(2, 3))


def _sums(maps: Tensor, masks: Tensor) -> Tensor:
    return torch.stack(
        [(maps[:, None] * part).sum(dim=(2, 3))[:, 0] for part in masks.split(1, dim=1)],
        dim=1,
    )


def _checked(maps: Tensor, masks: Tensor) -> Tensor:
    """Maps in float64, so that equal means stay equal, once their shape and values are known to be right."""
    if tuple(maps.shape) != (masks.shape[0], *masks.shape[-2:]):
        raise ValueError(
            f"maps {tuple(maps.shape)} do not fit masks {tuple(masks.shape)}: give (B, H, W) of their size"
        )
    bad = ~torch.isfinite(maps).flatten(1).all(dim=1)
    if bad.any():
        raise ValueError(f"sample {int(bad.nonzero()[0])} of the batch has a NaN or infinite value in its map")
    return maps.double()


def rank_correlation(values: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Spearman's rank correlation within each row, equal values sharing their mean rank.

    All are (B, P); `valid`, bool, says which entries take part. Returns (B,) in [-1, 1], NaN where either side is
    constant or NaN among the valid, or fewer than two are valid.
    """
    a, b = (_ranks(x, valid) for x in (values, truth))
    count = valid.sum(dim=1, keepdim=True)
    a, b = ((torch.where(valid, x, 0) - torch.where(valid, x, 0).sum(1, keepdim=True) / count) * valid for x in (a, b))
    rho = (a * b).sum(dim=1) / (a.square().sum(dim=1) * b.square().sum(dim=1)).sqrt()
    undefined = ((values.isnan() | truth.isnan()) & valid).any(dim=1)
    return torch.where(undefined, torch.nan, rho)


def _ranks(values: Tensor, valid: Tensor) -> Tensor:
    """Ranks from 1 among the valid entries of each row, mean ranks for ties: (B, P) -> (B, P) float64."""
    others = valid[:, None, :]
    below = (values[:, None, :] < values[:, :, None]) & others
    level = (values[:, None, :] == values[:, :, None]) & others
    return below.sum(dim=2) + (level.sum(dim=2).double() + 1) / 2


def attainable_correlation(truth: Tensor, valid: Tensor) -> Tensor:
    """The largest Spearman correlation that values without ties can have with `truth` (B, P): (B,) in (0, 1].

    Two members of a family differ in one or two parts, and all others are tied at importance 0. A map hardly ever ties
    two parts, so that the best of maps stays below 1: at 0.58 where one part of eight differs.
    """
    strict = truth.argsort(dim=1, stable=True).argsort(dim=1).double()
    return rank_correlation(strict, truth, valid)


def concordance(values: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Of the pairs of parts that differ in truth, the share ordered rightly less the share ordered wrongly.

    This is Somers' D: (B, P), (B, P), bool (B, P) -> (B,) in [-1, 1], 0 by chance, and 1 can be reached whatever the
    ties in `truth`. A tie in `values` counts as half right. NaN where no pair differs in truth or a value is NaN.
    """
    pairs = valid[:, :, None] & valid[:, None, :]
    order = [(x[:, :, None] - x[:, None, :]).sign() for x in (values.double(), truth.double())]
    right = torch.where(pairs, order[0] * order[1], 0).sum(dim=(1, 2))
    undefined = ((values.isnan() | truth.isnan()) & valid).any(dim=1)  # the sign of NaN is 0
    return torch.where(undefined, torch.nan, right / (pairs & (order[1] != 0)).sum(dim=(1, 2)))


def energy_in(maps: Tensor, region: Tensor) -> Tensor:
    """Energy-based pointing game: the share of a map's positive values in `region`, bool (B, H, W) -> (B,) in [0, 1].

    After H. Wang et al., "Score-CAM", CVPR workshops 2020, with the region for their bounding box. A uniform map scores
    the region's share of the picture. NaN for a map that is nowhere positive.
    """
    return part_mass(maps, region[:, None])[:, 0]


def precision_at(maps: Tensor, region: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
    """Share of a map's highest pixels that lie in `region`, and the largest share possible.

    Parameters
    ----------
    maps : (B, H, W) float; only the order matters.
    region : (B, H, W) bool.
    fraction : the highest round(fraction * H * W) pixels are looked at. Where equal values straddle that number, each
        order of them is as likely, and the expected share is returned: a uniform map scores the region's share of the
        picture.

    Returns
    -------
    Precision and its attainable maximum, both (B,) in [0, 1]. A region smaller than that number cannot fill it.
    """
    values, inside = _checked(maps, region).flatten(1), region.flatten(1)
    count = pixel_count(fraction, (maps.shape[1], maps.shape[2]))
    threshold = values.kthvalue(values.shape[1] - count + 1, dim=1, keepdim=True).values
    above, level = values > threshold, values == threshold
    share = (level & inside).sum(dim=1).double() / level.sum(dim=1)
    hits = (above & inside).sum(dim=1) + (count - above.sum(dim=1)) * share
    return hits / count, (inside.sum(dim=1).double() / count).clamp(max=1)

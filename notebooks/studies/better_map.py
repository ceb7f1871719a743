"""Chapter 10: nulls that a map must beat, and a reference beside it: constant regions, and regions found by search.

One table of scores serves both: a row for each picture, a column for each region of a family. The region that is best
on average knows no picture; the region that is best in each row needed ``1 + 2 * regions`` passes for it, and is the
best of that family alone, so that a map can exceed it. What selects never judges: the scores that a region was chosen
by are spent, and it is judged with other fills and other networks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from studies.sanity import translated
from xfrlib.cam import centred, class_activation_maps
from xfrlib.geometry import Geometry, map_geometry, upsampled
from xfrlib.intervals import Interval, mean_interval
from xfrlib.judge import evaluate
from xfrlib.models.classifier import FaceClassifier
from xfrlib.regions import Mask, top_fraction_mask
from xfrlib.tables import SIGN


class Ellipse(NamedTuple):
    """An upright ellipse; its middle lies `down` and `right` of the picture's, in shares of the sides."""

    aspect: float = 1.0  #: its height over its width
    down: float = 0.0
    right: float = 0.0


def ellipse(count: int, size: tuple[int, int], shape: Ellipse = Ellipse()) -> Mask:  # noqa: B008 - it cannot change
    """The `count` pixels of a picture of `size` (H, W) that an ellipse of that shape reaches first: bool (H, W).

    An ellipse that the border cuts is larger, so that the number of pixels stays `count`.
    """
    if not 0 < shape.aspect < float("inf"):
        raise ValueError(f"aspect = {shape.aspect!r}: must be a positive number, the height over the width")
    if not 0 <= count <= size[0] * size[1]:
        raise ValueError(f"count = {count!r}: a picture of {size[0]} x {size[1]} has {size[0] * size[1]} pixels")
    y, x = np.ogrid[: size[0], : size[1]]
    below = y - (size[0] - 1) / 2 - shape.down * size[0]
    beside = x - (size[1] - 1) / 2 - shape.right * size[1]
    distance = below**2 / shape.aspect + beside**2 * shape.aspect
    ranks = distance.ravel().argsort(kind="stable").argsort()
    return (ranks < count).reshape(size)


def lead_drops(model: nn.Module, images: Tensor, regions: Iterable[Tensor], *, pairs: Tensor, **options: Any) -> Tensor:
    """Falls of the lead when regions are deleted, and when they alone are retained, as means over fills.

    Both are the `_lead_drop` of `xfrlib.deletion_retention`, in calibrated log-odds: target and rivals are fixed before
    anything is changed, so that a rival who rises only afterwards does not enter. Costs two passes a picture, region
    and fill.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode.
    images : Tensor
        (n, 3, H, W) float in [0, 1] or uint8.
    regions : iterable of Tensor
        R masks, each (H, W) bool for all pictures or (n, H, W).
    pairs : Tensor
        (n, K) integers, the target and then the rivals of each picture.
    **options
        Those of `xfrlib.judge.evaluate`, `logits` among them.

    Returns
    -------
    Tensor
        (n, R, 2) float64: deletion (higher is better), retention (lower is better).
    """
    masks = {str(i): region.expand(len(images), *images.shape[2:]).numpy() for i, region in enumerate(regions)}
    table = evaluate(model, images, np.zeros(len(images), dtype=int), masks, controls=(), pairs=pairs, **options)
    wide = table.pivot_table(index="image", columns="method", values=[f"{side}_lead_drop" for side in SIGN])
    return torch.from_numpy(np.stack([wide[f"{side}_lead_drop"][list(masks)] for side in SIGN], axis=2))


def other_people(images: Tensor, labels: ArrayLike, *, seed: int = 0) -> Tensor:
    """For each of `images` (n, ...) one of another person, drawn at random, as a fill: (n, ...).

    A face in the place of what is removed leaves a face, and what is missing is this person's: the background of
    Lundberg and Lee (2017). Raises `ValueError` where all `labels` (n,) are one.
    """
    who, rng = np.asarray(labels), np.random.default_rng(seed)
    if len(np.unique(who)) < 2:
        raise ValueError("every picture is of one person: there is no other to fill with")
    return images[[int(rng.choice(np.flatnonzero(who != label))) for label in who]]


def best_constant(scores: Tensor) -> int:
    """The column of `scores` (n, R) with the highest mean over pictures, the first of equals."""
    return int(_checked_scores(scores).mean(dim=0).argmax())


def best_of_each(scores: Tensor) -> Tensor:
    """The column with the highest score in each row of `scores` (n, R), the first of equals: (n,) integers."""
    return _checked_scores(scores).argmax(dim=1)


def _checked_scores(scores: Tensor) -> Tensor:
    if scores.ndim != 2 or not scores.numel() or not torch.isfinite(scores).all():
        raise ValueError(f"scores must be finite and (pictures, regions), got {tuple(scores.shape)}")
    return scores


def share_of_reference(
    gain: ArrayLike, reference: ArrayLike, people: ArrayLike, networks: ArrayLike
) -> Interval | None:
    """Mean `gain` over mean `reference` (both (n,), over the disc, paired by picture), with a 95 % interval.

    (method - disc) / (search - disc): 0 is no better than the disc, 1 as good as the search, and more than 1 better.
    The interval is that of the ratio's linearisation, the mean of (gain - ratio * reference) / mean reference, by
    `mean_interval`.
    None where the reference is not above the disc for certain: a share of nothing says nothing.
    """
    a, b = np.asarray(gain, dtype=float), np.asarray(reference, dtype=float)
    if not mean_interval(b, people, networks).low > 0:  # NaN where there is no spread
        return None
    ratio = a.mean() / b.mean()
    spread = mean_interval((a - ratio * b) / b.mean(), people, networks)
    return Interval(float(ratio), float(ratio + spread.low), float(ratio + spread.high))


def cross(middle: Ellipse, *, step: float = 0.08, stretch: Sequence[float] = (0.6, 0.8, 1.25, 1.6)) -> list[Ellipse]:
    """The family that the search tries: `middle`, the same moved by `step` four ways, and other aspects of it."""
    ways = [(-step, 0.0), (step, 0.0), (0.0, -step), (0.0, step)]
    moved = [middle._replace(down=middle.down + y, right=middle.right + x) for y, x in ways]
    return [middle, *moved, *(middle._replace(aspect=middle.aspect * factor) for factor in stretch)]


def random_regions(count: int, size: tuple[int, int], *, fraction: float, seed: int, grid: int = 7) -> Tensor:
    """Smooth random regions of `fraction` of the pixels, some drawn to the middle, some not: bool (count, H, W).

    The top of a `grid` x `grid` map of normal numbers less a random multiple, 0 to 3, of the squared distance from the
    middle (1 at the middle of a side), upsampled as a CAM is. Regions of the size that is judged, because what a cell
    is worth depends on how much is kept beside it.
    """
    generator = torch.Generator().manual_seed(seed)
    line = torch.linspace(-1, 1, grid)
    distance = line[:, None] ** 2 + line[None] ** 2
    pull = 3 * torch.rand(count, 1, 1, generator=generator)
    coarse = torch.randn(count, grid, grid, generator=generator) - pull * distance
    smooth = upsampled(coarse, size)
    return top_fraction_mask(smooth, fraction)


@torch.no_grad()
def stitched_activation_maps(model: FaceClassifier, images: Tensor, classes: Tensor) -> tuple[Tensor, Geometry]:
    """Class activation maps with cells of half the size, from four moved copies of each picture ("shift and stitch"),
    and where these cells look.

    The picture is moved by a quarter of a cell down or up, and right or left (Long et al., CVPR 2015, section 3.2). The
    middles of the cells of the four maps are then those of a grid twice as fine, and each map fills every other row and
    column of it. What comes into view is mirrored. Costs four passes.

    Parameters
    ----------
    model : FaceClassifier
        In evaluation mode; its last map has a stride of a multiple of 4 pixels, down and right the same.
    images : Tensor
        (B, 3, H, W) float, RGB in [0, 1], on the device of `model`.
    classes : Tensor
        (B, K) integers, the classes wanted for each picture, as with centred weights.

    Returns
    -------
    Tensor, Geometry
        (B, K, 2 h, 2 w) float, in units of the logit, and the geometry of the fine grid.

    Raises
    ------
    ValueError
        If a quarter of the stride is no whole number of pixels.
    """
    last = map_geometry(model, images, model.features)
    height, width = model.features(images[:1]).shape[2:]
    quarter, left = divmod(last.stride[0], 4)
    if left or last.stride[0] != last.stride[1]:
        raise ValueError(f"a stride of {last.stride}: a quarter of it is no whole number of pixels, down and right")
    quarter = int(quarter)
    weight = centred(model.weight)
    fine = weight.new_empty(*classes.shape, 2 * height, 2 * width)
    for row, down in enumerate((quarter, -quarter)):
        for column, right in enumerate((quarter, -quarter)):
            features = model.features(translated(images, (down, right)))
            fine[..., row::2, column::2] = class_activation_maps(features, weight, classes)
    return fine, Geometry((2 * quarter, 2 * quarter), (last.offset[0] - quarter, last.offset[1] - quarter))

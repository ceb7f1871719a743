"""Chapter 8: what each cell of a map is worth to a decision, measured by covering it, and maps held to that.

On photographs nobody knows which part decides; but the network can be asked what it loses when one cell is covered.
The answer for every class comes with the same passes, so that each rival has its truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from tqdm import tqdm

from matching.trust import cell_squares
from studies.part_scores import rank_correlation
from xfrlib.geometry import Geometry, map_geometry, upsampled
from xfrlib.judge import fill_picture, perturbed
from xfrlib.models.classifier import FaceClassifier
from xfrlib.prediction import all_logits, as_floats


@torch.no_grad()
def cell_effects(
    model: nn.Module,
    images: Tensor,
    squares: Tensor,
    fills: Mapping[str, str | Tensor],
    *,
    batch_size: int = 64,
    progress: bool = True,
) -> Tensor:
    """What every logit loses when a cell is covered: ``z_c(x) - z_c(x without u)``, (fills, n, cells, N) float32.

    Costs a pass for each picture, cell and fill, and one more for each picture.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode.
    images : Tensor
        (n, 3, H, W) uint8 or float in [0, 1].
    squares : Tensor
        (cells, H, W) bool, as `cell_squares` makes them.
    fills : mapping
        A name for each fill: one that `xfrlib.judge.fill_picture` knows without a mean, or a picture (3, H, W).
    """
    device, before = next(model.parameters()).device, all_logits(model, images, batch_size)
    found = torch.empty(len(fills), len(images), len(squares), before.shape[1])
    covered = squares.to(device)
    bar = tqdm(
        total=len(fills) * len(images), desc="cells covered", unit="picture", mininterval=1, disable=not progress
    )
    with bar:
        for number, fill in enumerate(fills.values()):
            for index in range(len(images)):
                image = as_floats(images[index : index + 1].to(device))
                pictures = perturbed(image.expand(len(covered), -1, -1, -1), covered, fill_picture(image, fill))
                after = torch.cat([model(part) for part in pictures.split(batch_size)]).float().cpu()
                found[number, index] = before[index] - after
                bar.update()
    return found


def pair_effects(effects: Tensor, classes: Tensor) -> Tensor:
    """Effects (..., n, cells, N) on the lead of the target over the mean of its rivals: classes (n, K), the target
    first -> (..., n, cells)."""
    index = classes[:, None].expand(*effects.shape[:-1], -1)
    own = effects.gather(-1, index)
    return own[..., 0] - own[..., 1:].mean(dim=-1)


@torch.no_grad()
def true_maps(
    model: FaceClassifier,
    images: Tensor,
    classes: Tensor,
    fill: str | Tensor,
    *,
    batch_size: int = 64,
    progress: bool = True,
) -> Tensor:
    """`pair_effects` of the cells of the last map, laid where they look: what a map of this fineness should show.

    The positive control of a test of regions. Costs a pass for each picture and cell.

    Parameters
    ----------
    model : FaceClassifier
        In evaluation mode.
    images : Tensor
        (n, 3, H, W) uint8 or float in [0, 1].
    classes : Tensor
        (n, K) integers, the target first.
    fill : str or Tensor
        What covers a cell, as in `cell_effects`. Not one that judges: what selects must not judge.

    Returns
    -------
    Tensor
        (n, H, W) float32, in units of the logit.
    """
    one = as_floats(images[:1]).to(next(model.parameters()).device)
    place, cells, size = map_geometry(model, one, model.features), model.features(one).shape[2:], images.shape[2:]
    squares = cell_squares(place, (cells[0], cells[1]), (size[0], size[1]))
    effects = cell_effects(model, images, squares, {"": fill}, batch_size=batch_size, progress=progress)[0]
    return upsampled(pair_effects(effects, classes).view(-1, *cells), (size[0], size[1]), place)


def on_cells(maps: Tensor, squares: Tensor) -> Tensor:
    """The mean of maps (n, H, W) over each square (cells, H, W): (n, cells)."""
    flat = squares.flatten(1).to(maps)
    return maps.flatten(1) @ (flat / flat.sum(dim=1, keepdim=True)).T


def at_cells(maps: Tensor, geometry: Geometry, cells: tuple[int, int]) -> Tensor:
    """Maps (n, H, W) at the pixel where each cell looks: (n, h * w). For maps of cells, which say all they know there;
    `on_cells` is for maps of pixels."""
    rows, columns = (
        places.round().long().clamp(0, side - 1)
        for places, side in zip(geometry.centres(cells), maps.shape[1:], strict=True)
    )
    return maps[:, rows][:, :, columns].flatten(1)


def agreement(values: Tensor, truth: Tensor) -> Tensor:
    """Spearman's correlation of a map's cells with the truth, picture by picture: (n, cells) twice -> (n,)."""
    return rank_correlation(values, truth, torch.ones_like(truth, dtype=torch.bool))


def scored(values: Mapping[str, Tensor], truths: Mapping[str, Tensor], families: ArrayLike) -> pd.DataFrame:
    """A row for each map, fill and picture: `agreement` with the truth under that fill, and what the map has
    `explained` beyond the prior; "prior" joins the maps.

    Parameters
    ----------
    values, truths : mapping
        Maps and truths by name and by fill, each (n, cells).
    families : array_like
        (n,), who is held out together.
    """
    tables = []
    for fill, truth in truths.items():
        for name, found in {**values, "prior": prior_of_others(truth, families)}.items():
            columns = {"method": name, "fill": fill, "picture": np.arange(len(truth)), "family": families}
            explained = explained_beyond_prior(found[:, None], truth, families)
            tables.append(pd.DataFrame({**columns, "agreement": agreement(found, truth), "explained": explained}))
    return pd.concat(tables, ignore_index=True)


def ceiling(truths: Mapping[str, Tensor], families: ArrayLike) -> pd.DataFrame:
    """`agreement` of the truth under one fill with that under another: a row for each two fills and each picture."""
    tables = []
    for one, other in combinations(truths, 2):
        columns = {"fills": f"{one}, {other}", "family": families, "agreement": agreement(truths[one], truths[other])}
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def prior_of_others(truth: Tensor, families: ArrayLike, *, folds: int = 5, seed: int = 0) -> Tensor:
    """For each picture the mean truth of the families in other folds: (n, cells) -> the same, a map of no picture."""
    fold, prior = _folds(families, folds, seed), torch.empty_like(truth)
    for number in np.unique(fold):
        held = torch.from_numpy(fold == number)
        prior[held] = standardised(truth[~held]).mean(dim=0)
    return prior


def _folds(families: ArrayLike, folds: int, seed: int) -> NDArray[np.int64]:
    names, who = np.unique(np.asarray(families), return_inverse=True)
    if len(names) < 2:
        raise ValueError("a prior of others needs at least two families")
    return np.random.default_rng(seed).permutation(len(names))[who] % min(folds, len(names))


def explained_beyond_prior(
    maps: Tensor, truth: Tensor, families: ArrayLike, *, folds: int = 5, seed: int = 0
) -> NDArray[np.float64]:
    """What maps explain of the truth that a prior, the mean truth of other people, does not; by picture: (n,).

    Each value is the fall of a picture's squared error over the mean squared error of the prior alone, so that their
    mean is a share of variance. Prior and weights come from the people outside the picture's fold.

    Parameters
    ----------
    maps : Tensor
        (n, J, cells): J maps, weighed together. All are standardised within a picture, and so is the truth.
    truth : Tensor
        (n, cells).
    families : array_like
        (n,); nobody is in two folds.
    """
    target, given = standardised(truth).double(), standardised(maps).double()
    fold = _folds(families, folds, seed)
    errors = np.empty((2, len(target)))
    for number in np.unique(fold):
        held = torch.from_numpy(fold == number)
        prior = standardised(target[~held].mean(dim=0))
        for row, columns in enumerate((prior.expand(len(target), 1, -1), _with(prior, given))):
            x, y = columns[~held].transpose(1, 2).flatten(0, 1), target[~held].flatten()
            weights = torch.linalg.lstsq(x, y[:, None]).solution[:, 0]
            missed = target[held] - torch.einsum("j,njc->nc", weights, columns[held])
            errors[row, held.numpy()] = (missed**2).mean(dim=1).numpy()
    return (errors[0] - errors[1]) / errors[0].mean()


def _with(prior: Tensor, maps: Tensor) -> Tensor:
    return torch.cat([prior.expand(len(maps), 1, -1), maps], dim=1)


def standardised(values: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 over the last axis; what is flat stays 0."""
    centred = values - values.mean(dim=-1, keepdim=True)
    return centred / centred.std(dim=-1, keepdim=True, correction=0).clamp(min=1e-12)

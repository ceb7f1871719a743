"""Chapter 10: a map and what is known before any picture, weighed against each other by least squares.

The worth of a region is taken to be a sum over its cells, as in KernelSHAP (Lundberg and Lee, NeurIPS 2017), but with
coefficients that pictures share: a prior for each cell, of all people or of each, and one weight for each map. On a new
picture they cost nothing: class and maps come from the one pass that explains it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from xfrlib.geometry import upsampled


@dataclass(frozen=True)
class RefinedMap:
    """Worth of a cell: ``prior + people[class] + sum_j weights_j * map_j``, the maps standardised in each picture."""

    prior: Tensor  #: (h, w)
    people: Tensor  #: (N, h, w), what the prior of each class differs by; zeros where one prior serves all
    weights: Tensor  #: (J,)
    explained: float  #: share of the variance of the training scores, within pictures, in [0, 1]

    def __call__(self, maps: Tensor, classes: Tensor, *, size: tuple[int, int]) -> Tensor:
        """Maps (B, J, h', w') and predicted classes (B,) of B pictures, J as fitted (0: the prior alone) -> (B, H, W),
        to rank pixels by."""
        if maps.ndim != 4 or maps.shape[1] != len(self.weights):
            raise ValueError(f"expected maps (B, {len(self.weights)}, h, w), as fitted, got {tuple(maps.shape)}")
        cells = (self.prior.shape[0], self.prior.shape[1])
        weighed = torch.einsum("j,bjhw->bhw", self.weights.to(maps), standardised_cells(maps, cells))
        return upsampled(self.prior.to(maps) + self.people.to(maps)[classes] + weighed, size)


def standardised_cells(maps: Tensor, cells: tuple[int, int]) -> Tensor:
    """Maps (B, J, h', w') resized to `cells` (h, w), each of mean 0 and standard deviation 1 (a flat one stays 0)."""
    if not maps.shape[1]:
        return maps.new_zeros(len(maps), 0, *cells)
    resized = F.interpolate(maps, size=cells, mode="bilinear", align_corners=False, antialias=True)
    resized = resized - resized.mean(dim=(2, 3), keepdim=True)
    return resized / resized.std(dim=(2, 3), keepdim=True, correction=0).clamp(min=1e-12)


def fit_refined_map(
    regions: Tensor,
    scores: Tensor,
    maps: Tensor,
    classes: Tensor,
    *,
    num_classes: int,
    people: bool = False,
    cells: tuple[int, int] = (14, 14),
    smoothness: float = 1.0,
) -> RefinedMap:
    r"""Fit prior and weights to the scores of random regions of training pictures, by ridge regression.

    .. math:: S_{im} \approx a_i + \sum_c r_{imc} \Big( b_c + p_{k(i) c} + \sum_j w_j z_{ijc} \Big)

    S is the score of region m in picture i of class k, :math:`r_{imc}` the share of cell c that it covers, z the
    standardised maps; the :math:`a_i` fall out because scores and regions are taken less their mean over the regions of
    a picture. Faces being alike on both sides, the prior b and the people's p are kept symmetrical.

    Parameters
    ----------
    regions : Tensor
        (n, M, H, W) bool, M regions of each of n pictures.
    scores : Tensor
        (n, M) float, higher is better: the fall of the lead in deletion less that in retention.
    maps : Tensor
        (n, J, h', w') float, weighed against the prior; J may be 0.
    classes : Tensor
        (n,) integers, the predicted classes, 0 to `num_classes` - 1.
    people : bool
        Fit p too: after the rest, to what it leaves, for each class by itself.
    cells : tuple of int
        (h, w), the grid of b and p.
    smoothness : float
        Weight of the squared differences between neighbouring cells of b and of p, relative to the data of all pictures
        (b) or to those of a class (p), above 0; a hundredth of it weighs the squares themselves. The weights of the
        maps are not penalised.

    Raises
    ------
    ValueError
        For sizes that disagree, or `smoothness` that is not positive.
    """
    n, count = scores.shape
    if regions.shape[:2] != scores.shape or len(maps) != n or len(classes) != n or count < 2:
        raise ValueError(
            f"sizes disagree: regions {tuple(regions.shape)}, scores {tuple(scores.shape)}, maps {tuple(maps.shape)}, "
            f"classes {tuple(classes.shape)}"
        )
    if not smoothness > 0:
        raise ValueError(f"smoothness = {smoothness!r}: must be a positive number")
    covered = F.adaptive_avg_pool2d(regions.double(), cells)
    covered = covered - covered.mean(dim=1, keepdim=True)
    even = ((covered + covered.flip(3)) / 2).flatten(2)
    y = (scores - scores.mean(dim=1, keepdim=True)).double()
    z = standardised_cells(maps.double(), cells).flatten(2)
    x = torch.cat([even, torch.einsum("nmc,njc->nmj", covered.flatten(2), z)], dim=2)
    number = even.shape[2]
    roughness = smoothness * (_laplacian(cells) + 0.01 * torch.eye(number, dtype=torch.float64))
    solution = _ridge(x, y, roughness)
    left = y - x @ solution
    deviations = torch.zeros(num_classes, number, dtype=torch.float64)
    if people:
        for label in classes.unique().tolist():
            own = classes == label
            deviations[label] = _ridge(even[own], left[own], roughness)
        left = left - torch.einsum("nmc,nc->nm", even, deviations[classes])
    prior, own_priors = solution[:number].view(cells).float(), deviations.view(-1, *cells).float()
    explained = 1 - float(left.square().sum() / y.square().sum())
    return RefinedMap(prior, own_priors, solution[number:].float(), explained)


def _ridge(x: Tensor, y: Tensor, roughness: Tensor) -> Tensor:
    """Least squares of y (n, M) on x (n, M, K), the first coefficients penalised by `roughness` on the data's scale."""
    flat, number = x.flatten(0, 1), len(roughness)
    gram = flat.T @ flat
    penalty = torch.zeros_like(gram)
    penalty[:number, :number] = gram.diagonal()[:number].mean() * roughness
    return torch.linalg.solve(gram + penalty, flat.T @ y.flatten())


def _laplacian(cells: tuple[int, int]) -> Tensor:
    """Matrix L (hw, hw) with b' L b = the sum of squared differences between neighbours of b (h, w)."""
    grid = torch.eye(cells[0] * cells[1], dtype=torch.float64).view(-1, *cells)
    edges = torch.cat([grid.diff(dim=1).flatten(1), grid.diff(dim=2).flatten(1)], dim=1)
    return edges @ edges.T

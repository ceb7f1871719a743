"""Chapter 10: one map from all resolutions of a network, by one forward and one backward pass.

A class activation map says where evidence is read: at the last layer, whose cells have mixed the picture already.
Covering a cell asks where it comes from. Gradient times activation of an earlier layer is nearer to that, and each
resolution sees another part of it; so the last map of each resolution says the same amount.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from studies.cell_truth import cell_squares, on_cells, standardised
from xfrlib.explainers import explainer
from xfrlib.explainers.job import Job
from xfrlib.geometry import cell_geometry, upsampled


def states(model: nn.Module, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """One pass: logits, and the last map of each resolution, the finest first and the picture itself left out.

    That is what goes into the outermost module that makes a map smaller, and the last map of all: whole states of the
    network, not branches of a residual block.
    """
    smaller: dict[torch.Size, Tensor] = {}  # by size; an outer module ends later and replaces what an inner one put
    last: list[Tensor] = []

    def note(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        is_map = [isinstance(one, Tensor) and one.ndim == 4 and one.shape[1] > 3 for one in (*inputs[:1], output)]
        if all(is_map) and output.shape[-2:].numel() > 1:
            if output.shape[-2:].numel() < inputs[0].shape[-2:].numel():
                smaller[inputs[0].shape[-2:]] = inputs[0]
            last[:] = [output]

    handles = [module.register_forward_hook(note) for module in model.modules()]
    try:
        logits = model(images)
    finally:
        for handle in handles:
            handle.remove()
    return logits, [smaller[size] for size in sorted(smaller, reverse=True)] + last


@explainer(
    "gradient × activation, all resolutions", "this book", "xfrlib", contrastive=True, compared=False, passes=(1, 1)
)
def all_resolutions(job: Job) -> Tensor:
    """The sum over resolutions of gradient times activation of the target's lead, each of spread 1 within a picture.

    The lead is the target's logit less the mean of its rivals'. Each layer's map is averaged over the square of the
    last map's stride around each of its cells, and the sum is laid as the last map is.
    """
    geometry = job.geometry  # first: it says what a network without a last map lacks
    logits, maps = states(job.model, job.images.requires_grad_())
    places = [cell_geometry(_state(job.model, number), job.images) for number in range(len(maps))]
    pair = logits.gather(1, job.classes)
    slopes = torch.autograd.grad((pair[:, 0] - pair[:, 1:].mean(dim=1)).sum(), maps)
    cells = (maps[-1].shape[2], maps[-1].shape[3])
    squares = cell_squares(places[-1], cells, job.size)
    total = torch.zeros(len(job.images), len(squares), device=job.images.device)
    for place, own, slope in zip(places, maps, slopes, strict=True):
        fine = upsampled((slope * own.detach()).sum(dim=1), job.size, place)
        total += standardised(on_cells(fine, squares))
    return upsampled(total.unflatten(1, cells), job.size, geometry)


def _state(model: nn.Module, number: int) -> Callable[[Tensor], Tensor]:
    return lambda images: states(model, images)[1][number]

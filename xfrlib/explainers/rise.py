"""RISE: the mean of random masks, weighted by what the network says of the picture seen through them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from xfrlib.explainers.job import Job, Scored, explainer
from xfrlib.judge import fill_picture


def rise_masks(
    count: int, size: tuple[int, int], generator: torch.Generator, *, cells: int = 7, keep: float = 0.5,
    batch_size: int = 64,
) -> Iterator[Tensor]:  # fmt: skip
    """Random masks of RISE in batches (b, H, W), `count` in all, in [0, 1] with mean `keep` at every pixel.

    A `cells` x `cells` grid of zeros and ones is upsampled to one cell more than the picture and cropped at a random
    place (Petsiuk et al. 2018, section 3.2). `generator` must be on the CPU; `batch_size` does not change the masks.
    """
    cell = [-(-side // cells) for side in size]
    grid = (torch.rand(count, 1, cells, cells, generator=generator) < keep).float()
    top = torch.randint(cell[0], (count, 1), generator=generator) + torch.arange(size[0])
    left = torch.randint(cell[1], (count, 1), generator=generator) + torch.arange(size[1])
    large = [(cells + 1) * side for side in cell]
    for some, rows, columns in zip(grid.split(batch_size), top.split(batch_size), left.split(batch_size), strict=True):
        whole = F.interpolate(some, size=large, mode="bilinear", align_corners=False)[:, 0]
        yield whole[torch.arange(len(some))[:, None, None], rows[:, :, None], columns[:, None, :]]


@explainer("RISE", "Petsiuk et al. 2018, arXiv 1806.07421", "xfrlib", slow=True, passes=("masks", 0))
@torch.no_grad()
def rise(
    job: Job, *, masks: int = 1000, cells: int = 7, keep: float = 0.5, fill: str = "black", output: str = "probability"
) -> Tensor:
    """Mean of the masks, each weighted by the output of the picture seen through it, over `keep`."""
    scored = Scored(job.model, output)
    maps = torch.zeros(len(job.images), *job.size, device=job.images.device)
    for index, (image, row, seed) in enumerate(zip(job.images, job.classes, job.seeds, strict=True)):
        generator = torch.Generator().manual_seed(seed)
        filling = fill_picture(image[None], fill)
        for batch in rise_masks(masks, job.size, generator, cells=cells, keep=keep, batch_size=job.batch_size):
            seen = batch.to(image.device)
            outputs = scored(filling + seen[:, None] * (image - filling), row.expand(len(seen), -1))
            maps[index] += torch.einsum("n,nhw->hw", outputs, seen)
    return maps / (masks * keep)

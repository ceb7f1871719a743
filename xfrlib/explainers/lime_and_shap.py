"""LIME and KernelSHAP of captum over superpixels."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xfrlib.explainers.job import Job, Make, Scored, explainer, library_module
from xfrlib.judge import fill_picture
from xfrlib.models.weights import seeded
from xfrlib.profile import did_you_mean

SUPERPIXELS = ("kmeans", "grid")
LIME_WIDTH, LIME_RIDGE = 0.25, 1.0  # of the kernel, and of the regression


def superpixels(image: Tensor, count: int = 49, *, kind: str = "kmeans", compactness: float = 0.1) -> Tensor:
    """Cut a picture (3, H, W) in [0, 1] into about `count` segments: (H, W) int64, numbered from 0 without gaps.

    "grid": rectangles of equal size. "kmeans": scikit-learn's k-means over colour and place, started from the grid,
    with the distance of SLIC (Achanta et al. 2012): colour over `compactness` beside place over the side of a segment.
    Unlike SLIC it works in RGB and does not force a segment to be connected. Nothing in it is random.
    """
    if kind not in SUPERPIXELS:
        raise ValueError(f"superpixel = {kind!r}{did_you_mean(kind, list(SUPERPIXELS))}")
    height, width = image.shape[1:]
    rows = max(1, round((count * height / width) ** 0.5))
    columns = max(1, round(count / rows))
    if rows * columns < 2 or rows > height or columns > width:
        raise ValueError(f"segments = {count}: a picture of {height} x {width} pixels cannot be cut so")
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    labels = (y * rows // height) * columns + x * columns // width
    if kind == "grid":
        return labels.to(image.device)
    side = (height * width / (rows * columns)) ** 0.5
    points = torch.cat([image.detach().cpu().float() / compactness, torch.stack([y, x]) / side]).flatten(1).T.numpy()
    numbers = labels.flatten().numpy()
    centres = np.stack([points[numbers == number].mean(axis=0) for number in range(rows * columns)])
    found = library_module("sklearn.cluster").k_means(points, len(centres), init=centres, n_init=1, max_iter=10)[1]
    return torch.from_numpy(np.unique(found, return_inverse=True)[1].reshape(height, width)).to(image.device)


def over_superpixels(method_of: Callable[[], Callable[[nn.Module], Any]]) -> Make:
    """An explainer that gives each pixel the coefficient of its segment in captum's linear model of segments shown."""

    def make(
        job: Job, *, samples: int = 500, segments: int = 49, superpixel: str = "kmeans", fill: str = "black",
        output: str = "centred_logit",
    ) -> Tensor:  # fmt: skip
        method, maps = method_of()(Scored(job.model, output)), []
        for image, row, seed in zip(job.images.split(1), job.classes.split(1), job.seeds, strict=True):
            parts = superpixels(image[0], segments, kind=superpixel)
            with seeded(seed), torch.no_grad():  # captum draws from torch's global generator
                how: Any = {"baselines": fill_picture(image, fill), "feature_mask": parts[None, None].expand_as(image)}
                how |= {"n_samples": samples, "perturbations_per_eval": job.batch_size, "return_input_shape": False}
                # A bare tensor would be taken for a tuple of its rows.
                coefficients = method.attribute(image, additional_forward_args=(row,), **how)
            maps.append(coefficients.reshape(-1).to(image)[parts])
        return torch.stack(maps)

    make.__name__, make.__doc__ = method_of.__name__, method_of.__doc__
    return make


@explainer("LIME", "Ribeiro et al. 2016, arXiv 1602.04938", "captum", slow=True, passes=("samples", 0))
@over_superpixels
def lime() -> Callable[[nn.Module], Any]:
    """The authors' ridge and kernel exp(-d^2 / (2 LIME_WIDTH^2)), d the cosine distance of segments shown to all.

    captum's own defaults are a lasso, which sets most coefficients to exactly zero, and a distance of pixel values.
    """

    def similarity(_: Tensor, __: Tensor, shown: Tensor, **___: Any) -> float:
        return float(torch.exp(-((1 - shown.float().mean().sqrt()) ** 2) / (2 * LIME_WIDTH**2)))

    ridge = library_module("captum._utils.models.linear_model").SkLearnRidge(alpha=LIME_RIDGE)
    return partial(library_module("captum.attr").Lime, interpretable_model=ridge, similarity_func=similarity)


@explainer("KernelSHAP", "Lundberg and Lee 2017, arXiv 1705.07874", "captum", slow=True, passes=("samples", 0))
@over_superpixels
def kernel_shap() -> Callable[[nn.Module], Any]:
    """Unlike captum's, each sample is followed by its complement: less noise (Covert and Lee 2021, section 4)."""

    class Paired(library_module("captum.attr").KernelShap):  # type: ignore[misc]
        def kernel_shap_perturb_generator(self, original: Any, **settings: Any) -> Iterator[Tensor]:
            drawn = super().kernel_shap_perturb_generator(original, **settings)
            yield from itertools.islice(drawn, 2)  # all shown and none shown
            for shown in drawn:
                yield shown
                yield 1 - shown

    return Paired

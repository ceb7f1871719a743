"""Chapter 12: people told apart by similarity, the maps of a match, and how far they can be trusted.

A gallery of templates is asked as a classifier is, with similarities for logits. So the tests of the chapters before,
deletion and retention with the pair fixed and the truth per cell, judge matches too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import roc_curve
from torch import Tensor, nn
from tqdm import tqdm

from studies.jackknife import jackknife, share_interval
from xfrlib import plots
from xfrlib.data.faces import FaceDataset
from xfrlib.explainers.rise import rise_masks
from xfrlib.intervals import Estimate, Interval
from xfrlib.judge import blurred, fill_picture
from xfrlib.match import explain_match, template

MAPS = {
    "difference": "difference of mate and nearest non-mate",
    "sdd": "SDD against several non-mates",
    "cam": "map of the mate alone",
    "wrong_pair": "difference of two other people",
    "gradient": "gradient of the lead",
    "corr_rise": "CorrRISE",
}


class Gallery(nn.Module):
    """A recogniser and templates (N, D) of unit length: pictures (B, 3, H, W) -> similarity to each, (B, N)."""

    def __init__(self, recogniser: nn.Module, templates: Tensor) -> None:
        super().__init__()
        self.recogniser = recogniser
        self.register_buffer("templates", templates)

    def forward(self, images: Tensor) -> Tensor:
        embeddings = self.recogniser.embed(self.recogniser(images))  # type: ignore[operator]
        return F.normalize(embeddings, dim=1) @ self.templates.T  # type: ignore[operator]


def enrol(recogniser: nn.Module, dataset: FaceDataset, pictures: int) -> Tensor:
    """Templates of all people of a data set, each from its first `pictures`: (N, D), in the order of the labels."""
    rows = dataset.table.groupby("label").head(pictures)
    people = rows.groupby("label").groups.values()
    bar = tqdm(people, "people enrolled", unit="person", mininterval=1)
    return torch.stack([template(recogniser, torch.stack([dataset[i][0] for i in person])) for person in bar])  # type: ignore[arg-type]


def mate_first(similarities: Tensor, labels: NDArray[np.int64], count: int) -> Tensor:
    """Each probe's mate, then the `count` non-mates most similar to it: (n, N), (n,) -> integers (n, count + 1)."""
    mates = torch.tensor(labels)[:, None]
    others = similarities.scatter(1, mates, -torch.inf).topk(count, dim=1).indices
    return torch.cat([mates, others], dim=1)


class Rates(NamedTuple):
    """How well a recogniser tells people apart; shares in [0, 1]."""

    first: Interval  #: probes whose mate is the most similar of the gallery
    equal_error: Estimate  #: where as many mates are missed as non-mates taken for mates
    missed: Estimate  #: mates below the threshold that `false` of the non-mates reach


def error_rates(
    similarities: Tensor, labels: NDArray[np.int64], families: ArrayLike, *, false: float = 0.01
) -> tuple[Rates, float]:
    """`Rates`, with intervals over families of the probes, and the threshold of ``missed``: (n, N), (n,), (n,)."""
    found, who = similarities.double().numpy(), np.asarray(families)
    own = found[np.arange(len(found)), labels]
    others = np.where(np.arange(found.shape[1]) == np.asarray(labels)[:, None], np.nan, found)

    def equal_error(kept: NDArray[np.bool_]) -> float:
        non = others[kept][np.isfinite(others[kept])]
        mates = np.repeat([1, 0], [kept.sum(), len(non)])
        taken, found_again, _ = roc_curve(mates, np.concatenate([own[kept], non]), drop_intermediate=False)
        best = int(np.abs(1 - found_again - taken).argmin())
        return float(1 - found_again[best] + taken[best]) / 2

    def missed(kept: NDArray[np.bool_]) -> float:
        return float((own[kept] < np.nanquantile(others[kept], 1 - false)).mean())

    first = share_interval(own > np.nanmax(others, axis=1), who)
    rates = Rates(first, jackknife(equal_error, who), jackknife(missed, who))
    return rates, float(np.nanquantile(others, 1 - false))


def match_maps(
    gallery: Gallery, images: Tensor, classes: Tensor, *, batch_size: int, masks: int, seed: int, progress: bool = True
) -> dict[str, Tensor]:
    """The maps of `MAPS` of probes (n, 3, H, W) in [0, 1] against templates `classes` (n, K), the mate first, K of at
    least 4: (n, H, W) each, to rank pixels by. `masks` is the number of CorrRISE's."""
    found: dict[str, list[Tensor]] = {name: [] for name in MAPS}
    bar = tqdm(total=len(images), desc="maps of matches", unit="picture", mininterval=1, disable=not progress)
    for batch, chosen in zip(images.split(batch_size), classes.split(batch_size), strict=True):
        templates = gallery.get_buffer("templates")[chosen]
        explanation = explain_match(gallery.recogniser, batch, templates[:, 0], templates[:, 1:])  # type: ignore[arg-type]
        cams = explanation.upsampled_cams
        found["cam"].append(cams[:, 0])
        found["difference"].append(cams[:, 0] - cams[:, 1])
        found["wrong_pair"].append(cams[:, 2] - cams[:, 3])
        found["sdd"].append(explanation.log_sdd)
        found["gradient"].append(_gradient(gallery, batch, chosen))
        for image, pair in zip(batch, chosen, strict=True):
            found["corr_rise"].append(_corr_rise(gallery, image, pair, masks, seed, batch_size)[None])
            bar.update()
    bar.close()
    return {name: torch.cat(parts) for name, parts in found.items()}


def _lead(similarities: Tensor, pairs: Tensor) -> Tensor:
    return similarities.gather(1, pairs[:, :1])[:, 0] - similarities.gather(1, pairs[:, 1:2])[:, 0]


def _gradient(gallery: Gallery, images: Tensor, pairs: Tensor) -> Tensor:
    """Absolute gradient of the lead over the nearest non-mate, summed over colours and smoothed."""
    with torch.enable_grad():
        pictures = images.clone().requires_grad_()
        (found,) = torch.autograd.grad(_lead(gallery(pictures), pairs).sum(), pictures)
    return blurred(found.abs().sum(dim=1, keepdim=True), images.shape[-1] / 28)[:, 0]


@torch.no_grad()
def _corr_rise(gallery: Gallery, image: Tensor, pair: Tensor, masks: int, seed: int, batch_size: int) -> Tensor:
    """Correlation of what a random mask leaves of each pixel with the lead (Lu and others 2023, CorrRISE): (H, W)."""
    generator, filling = torch.Generator().manual_seed(seed), fill_picture(image[None], "grey")
    seen = torch.cat(list(rise_masks(masks, (image.shape[1], image.shape[2]), generator, batch_size=batch_size)))
    leads = torch.cat(
        [
            _lead(gallery(filling + part[:, None] * (image - filling)), pair.expand(len(part), -1))
            for part in seen.split(batch_size)
        ]
    )
    weights, shown = leads - leads.mean(), seen - seen.mean(dim=0)
    return torch.einsum("n,nhw->hw", weights, shown) / shown.square().sum(dim=0).clamp(min=1e-12).sqrt()


@plots.style()
def match_figure(gallery: Gallery, probes: Tensor, faces: Tensor, classes: Tensor) -> Figure:
    """A row for each probe (n, 3, H, W): a face of its mate and of its nearest non-mate with the similarity to each,
    the maps of both on one scale, their difference on its own, and SDD. `faces` (N, 3, H, W): one of each template."""
    titles = [
        "probe",
        "mate",
        "nearest\nnon-mate",
        "map of\nthe mate",
        "map of the\nnon-mate",
        "difference,\nown scale",
        "SDD",
    ]
    templates = gallery.get_buffer("templates")[classes]
    found = explain_match(gallery.recogniser, probes, templates[:, 0], templates[:, 1:])  # type: ignore[arg-type]
    mates, others = found.upsampled_cams[:, 0], found.upsampled_cams[:, 1]
    high = float(torch.stack([mates, others]).abs().max())
    size = (plots.WIDTH, len(probes) * plots.WIDTH / len(titles) + 1.5)
    figure, axes = plots.picture_grid(len(probes), len(titles), size)
    for i, row in enumerate(axes):
        heads = titles if i == 0 else [""] * len(titles)
        says = ["", *(f"{found.similarities[i, place]:.2f}" for place in range(2))]
        for axis, picture, head, said in zip(row, (probes[i], *faces[classes[i, :2]]), heads, says, strict=False):
            plots.show(axis, picture, "\n".join(filter(None, (head, said))))
        signed: dict[str, Any] = {"image": probes[i], "cmap": plots.DIVERGING}
        for axis, values, head in zip(row[3:5], (mates[i], others[i]), heads[3:5], strict=True):
            cams = plots.overlay(axis, values=values, limits=(-high, high), title=head, **signed)
        plots.overlay(row[5], values=mates[i] - others[i], title=heads[5], **signed)
        heat = plots.overlay(row[6], probes[i], found.sdd[i], limits=(0, 1), title=heads[6])
    plots.colour_bar(figure, cams, axes[:, :5], "map of a match (similarity)")
    plots.colour_bar(figure, heat, axes[:, 6:], "SDD (relative)", width=0.9)
    return figure

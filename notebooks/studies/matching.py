"""Chapter 9: people told apart by similarity, the maps of a match, and how far they can be trusted.

A gallery of templates is asked as a classifier is, with similarities for logits. So the tests of the chapters before,
deletion and retention with the pair fixed and the truth per cell, judge matches too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import roc_curve
from torch import Tensor, nn
from tqdm import tqdm

from facedata.align import POINTS, align, find_detector
from matching import maps as fine
from matching.faces import Aligner, realigned
from recognisers import RECOGNISERS, as_recogniser, load_recogniser
from studies.jackknife import Statistic, jackknife
from studies.shares import share_interval
from xfrlib import plots
from xfrlib.data.faces import FaceDataset
from xfrlib.data.images import load_image
from xfrlib.explainers.rise import rise_masks
from xfrlib.intervals import Estimate, Interval
from xfrlib.judge import blurred, evaluate, fill_picture
from xfrlib.match import explain_match, template, unit_embeddings
from xfrlib.models import Backbone
from xfrlib.profile import Profile, did_you_mean, expanded
from xfrlib.regions import top_fraction_mask
from xfrlib.run import NotebookRun, ParameterError

MATCH_MAPS = {
    "difference": "CAM difference",
    "sdd": "SDD against several non-mates",
    "cam": "map of the mate alone",
    "wrong_pair": "CAM difference, two other people",
    "gradient": "gradient of the lead",
    "corr_rise": "CorrRISE",
}
FGGB = "FGGB"  # beside them, on fewer probes: it goes back once for each number of the embedding
OF_PIXELS = ("gradient", "corr_rise", "fggb")  # the others know no more than a value for each cell

LEARNT_FROM = {"dlib": "facescrub"}  # a part of the folder's name; whom a recogniser has learnt cannot judge it
Fit = Callable[[Tensor], Tensor]  # aligned pictures (B, 3, 112, 112) -> pictures as a recogniser wants them


def choose(run: NotebookRun, name: str, checkpoint: str) -> Backbone:
    """The profile's backbone where `name` is empty, else that recogniser; in evaluation mode, on the run's device.

    `checkpoint` is a path below the data root, "builtin", or "hub:" and a repository; empty: dlib's is that of its
    installed package. Raises `ParameterError` for an unknown name, one without weights, and one that has learnt the
    profile's people.
    """
    if not name:
        return as_recogniser(run.backbone()).to(run.device)
    if name not in RECOGNISERS:
        raise ParameterError(f"unknown recogniser_name = {name!r}{did_you_mean(name, list(RECOGNISERS))}")
    if LEARNT_FROM.get(name, "\0") in run.profile.folder.lower():
        raise ParameterError(
            f"recogniser_name = {name!r}: has learnt people of {run.profile.folder}; judge it on others"
        )
    if not checkpoint and name not in ("dlib", "slim"):
        raise ParameterError(f"recogniser_name = {name!r}: give its weights as recogniser_checkpoint")
    named = not checkpoint or checkpoint == "builtin" or checkpoint.startswith("hub:")
    place = checkpoint or "builtin" if named else run.data_root / expanded("recogniser_checkpoint", checkpoint)
    try:
        return load_recogniser(name, place).to(run.device)
    except (ValueError, FileNotFoundError) as error:
        raise ParameterError(str(error)) from error


class TemplateGallery(nn.Module):
    """A recogniser and templates (N, D) of unit length: pictures (B, 3, H, W) -> similarity to each, (B, N)."""

    recogniser: Backbone

    def __init__(self, recogniser: Backbone, templates: Tensor) -> None:
        super().__init__()
        self.recogniser = recogniser
        self.register_buffer("templates", templates)

    def forward(self, images: Tensor) -> Tensor:
        embeddings = self.recogniser.embed(self.recogniser(images))
        return F.normalize(embeddings, dim=1) @ self.templates.T  # type: ignore[operator]


def enrol_dataset(recogniser: Backbone, dataset: FaceDataset, pictures: int, fit: Fit | None = None) -> Tensor:
    """Templates of all people of a data set, each from its first `pictures`: (N, D), in the order of the labels.

    `fit` brings its pictures to the recogniser's size and places; None: `matching.faces.realigned`.
    """
    fit = fit or (lambda images: realigned(images, recogniser))
    rows = dataset.table.groupby("label").head(pictures)
    people = rows.groupby("label").groups.values()
    bar = tqdm(people, "people enrolled", unit="person", mininterval=1)
    return torch.stack([template(recogniser, fit(torch.stack([dataset[i][0] for i in person]))) for person in bar])


def stretched(images: Tensor, size: int) -> Tensor:
    """Pictures (B, 3, h, w) in [0, 1] brought to a size and nothing else: eyes and mouth stay where they were."""
    return F.interpolate(images, (size, size), mode="bicubic", align_corners=False).clamp(0, 1)


def same_after_realigning(recogniser: Backbone, folder: Path) -> NDArray[np.float64]:
    """Similarity of whole photographs, aligned as the report does it, to themselves by way of an aligned 112x112: (n,).

    `folder` has ``points.csv``, with the columns file and `facedata.align.POINTS`, which make the 112x112, and
    ``original/<file>``. What is less than 1 is lost by the detour: pixels, and the strip below the chin.
    """
    aligner, found = Aligner(recogniser, find_detector()), []
    for row in pd.read_csv(folder / "points.csv").to_dict("records"):
        path = folder / "original" / row["file"]
        small = align(load_image(path, None), np.reshape([row[name] for name in POINTS], (5, 2)))
        detour = realigned(torch.from_numpy(small).permute(2, 0, 1)[None].float() / 255, recogniser)
        one, other = unit_embeddings(recogniser, torch.cat([aligner(path).face[None], detour])).double()
        found.append(float(one @ other))
    return np.array(found)


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

    def rate(statistic: Statistic) -> Estimate:  # lies in [0, 1]: to cut its interval there loses no coverage
        found = jackknife(statistic, who)
        return found._replace(low=float(np.clip(found.low, 0, 1)), high=float(np.clip(found.high, 0, 1)))

    first = share_interval(own > np.nanmax(others, axis=1), who)
    return Rates(first, rate(equal_error), rate(missed)), float(np.nanquantile(others, 1 - false))


DECISIONS = ("mate found alone", "a non-mate found too", "mate missed")


def decision_of_each(similarities: Tensor, labels: NDArray[np.int64], threshold: float) -> NDArray[np.str_]:
    """Which of `DECISIONS` the threshold makes of each probe, (n, N) and (n,) -> (n,).

    A non-mate at or above the threshold is a false match, a mate below it a false non-match; where both happen, the
    mate is missed.
    """
    found, rows = similarities.numpy() >= threshold, np.arange(len(labels))
    others = found.copy()
    others[rows, labels] = False
    return np.select([~found[rows, labels], others.any(axis=1)], DECISIONS[:0:-1], DECISIONS[0])


class Laid(NamedTuple):
    """Maps of n probes against K templates, over the pictures."""

    similarities: Tensor  #: (n, K)
    cams: Tensor  #: (n, K, H, W)
    log_sdd: Tensor  #: (n, H, W)


def lay_maps(recogniser: Backbone, images: Tensor, templates: Tensor) -> Laid:
    """The maps of probes (n, 3, H, W) against templates (n, K, D), the mate's first: of the last map where it has cells
    enough, else of an earlier block, by `matching.maps.match_maps`, a picture at a time."""
    found = explain_match(recogniser, images, templates[:, 0], templates[:, 1:])
    if min(found.cams.shape[2:]) >= fine.LEAST_CELLS:
        return Laid(found.similarities, found.upsampled_cams, found.log_sdd)
    each = [fine.match_maps(recogniser, one, own[0], own[1:]) for one, own in zip(images, templates, strict=True)]
    return Laid(
        found.similarities, torch.stack([one.laid() for one in each]), torch.stack([one.log_sdd for one in each])
    )


def maps_by_method(
    gallery: TemplateGallery, images: Tensor, classes: Tensor, *, batch_size: int, masks: int, seed: int,
    progress: bool = True,
) -> dict[str, Tensor]:  # fmt: skip
    """The maps of `MATCH_MAPS` of probes (n, 3, H, W) in [0, 1] against templates `classes` (n, K), the mate first, K
    of at least 4: (n, H, W) each, to rank pixels by. `masks` is the number of CorrRISE's."""
    found: dict[str, list[Tensor]] = {name: [] for name in MATCH_MAPS}
    bar = tqdm(total=len(images), desc="maps of matches", unit="picture", mininterval=1, disable=not progress)
    for batch, chosen in zip(images.split(batch_size), classes.split(batch_size), strict=True):
        templates = gallery.get_buffer("templates")[chosen]
        _, cams, log_sdd = lay_maps(gallery.recogniser, batch, templates)
        found["cam"].append(cams[:, 0])
        found["difference"].append(cams[:, 0] - cams[:, 1])
        found["wrong_pair"].append(cams[:, 2] - cams[:, 3])
        found["sdd"].append(log_sdd)
        found["gradient"].append(gradient_of_lead(gallery, batch, chosen))
        for image, pair in zip(batch, chosen, strict=True):  # masks of its own: their noise averages out over probes
            own_seed = seed + len(found["corr_rise"])
            found["corr_rise"].append(_corr_rise(gallery, image, pair, masks, own_seed, batch_size)[None])
            bar.update()
    bar.close()
    return {name: torch.cat(parts) for name, parts in found.items()}


def region_scores(
    gallery: TemplateGallery, images: Tensor, labels: NDArray[np.int64], pairs: Tensor, rankings: Mapping[str, Tensor],
    settings: Profile, *, fills: Sequence[str], controls: Sequence[str] = ("disc",), families: NDArray[np.int64],
) -> pd.DataFrame:  # fmt: skip
    """Deletion and retention of the region that each ranking (n, H, W) of pixels has, and of the controls: a row for
    each picture, method and fill, means over draws, as `xfrlib.judge.evaluate` makes them, with a column `family`.

    ``same_identity`` and the like use the first ranking; `pairs` (n, K), `families` (n,), `settings` are the profile's.
    """
    regions = {name: top_fraction_mask(ranking, settings.fraction).numpy() for name, ranking in rankings.items()}
    with torch.no_grad():
        similarities = torch.cat([gallery(batch) for batch in images.split(settings.eval_batch_size)])
    table = evaluate(
        gallery, images, labels, regions, logits=similarities, pairs=pairs, under_test=next(iter(rankings)),
        fills=fills, fraction=settings.fraction, seed=settings.seed, controls=controls, draws=settings.draws,
        batch_size=settings.eval_batch_size,
    )  # fmt: skip
    means = table.groupby(["network", "image", "label", "method", "fill"], as_index=False).mean(numeric_only=True)
    return means.assign(family=families[means["image"]])


def passes_by_method(layer: str, rivals: int, masks: int) -> dict[str, str]:
    """What each map of `MATCH_MAPS` costs a probe, in passes forward and back; `layer` is "" for maps of the last one.

    Maps of an earlier block take the picture and its blurred form, the steps between them, and those back for each
    person compared.
    """
    people = {"difference": 2, "sdd": rivals + 1, "cam": 1, "wrong_pair": 2}
    if layer:
        steps = inspect.signature(fine.block_maps).parameters["steps"].default
        of_maps = {name: f"{2 + steps}, {steps * count} back" for name, count in people.items()}
    else:
        of_maps = dict.fromkeys(people, "1")
    return of_maps | {"gradient": "1, 1 back", "corr_rise": str(masks)}


def _lead(similarities: Tensor, pairs: Tensor) -> Tensor:
    return similarities.gather(1, pairs[:, :1])[:, 0] - similarities.gather(1, pairs[:, 1:2])[:, 0]


def gradient_of_lead(gallery: TemplateGallery, images: Tensor, pairs: Tensor) -> Tensor:
    """Absolute gradient of the lead over the nearest non-mate, summed over colours and smoothed."""
    with torch.enable_grad():
        pictures = images.clone().requires_grad_()
        (found,) = torch.autograd.grad(_lead(gallery(pictures), pairs).sum(), pictures)
    return blurred(found.abs().sum(dim=1, keepdim=True), images.shape[-1] / 28)[:, 0]


def feature_guided_gradients(
    gallery: TemplateGallery, images: Tensor, pairs: Tensor, *, progress: bool = True
) -> Tensor:
    """FGGB of the lead over the nearest non-mate, smoothed as the plain gradient is: (n, 3, H, W) -> (n, H, W).

    The sum over the numbers k of the embedding e of the size of the gradient of e_k, each map of sum 1, weighted by
    what k adds to the lead: e_k (g_k - h_k) over the length of e, with the templates g of the mate and h of the
    non-mate. After Y. Lu, Z. Xu and T. Ebrahimi, "Explainable face verification via feature-guided gradient
    backpropagation", FG 2024, whose weight is the share of k in the cosine less a threshold over their number; in a
    difference of two people the threshold cancels.
    """
    recogniser, templates = gallery.recogniser, gallery.get_buffer("templates")[pairs]
    with torch.enable_grad():
        pictures = images.clone().requires_grad_()
        embeddings = recogniser.embed(recogniser(pictures))
        weights = F.normalize(embeddings.detach(), dim=1) * (templates[:, 0] - templates[:, 1])
        total = torch.zeros_like(images[:, :1])
        for k in tqdm(range(weights.shape[1]), "FGGB", unit="number", mininterval=1, disable=not progress):
            (found,) = torch.autograd.grad(embeddings[:, k].sum(), pictures, retain_graph=True)
            size = found.abs().sum(dim=1, keepdim=True)
            share = size / size.sum(dim=(2, 3), keepdim=True).clamp(min=1e-12)
            total += weights[:, k, None, None, None] * share
    return blurred(total, images.shape[-1] / 28)[:, 0]


@torch.no_grad()
def _corr_rise(gallery: TemplateGallery, image: Tensor, pair: Tensor, masks: int, seed: int, batch_size: int) -> Tensor:
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
def match_figure(
    gallery: TemplateGallery, probes: Tensor, faces: Tensor, classes: Tensor, difference: str = MATCH_MAPS["difference"]
) -> Figure:
    """Two rows for each probe (n, 3, H, W). Above: the probe, a face of its mate and of its nearest non-mate with the
    similarity to each, and SDD. Below: the maps of both people on one scale, and their difference on another, under the
    name `difference`; both scales are those of all probes. `faces` (N, 3, H, W): one of each template."""
    templates = gallery.get_buffer("templates")[classes]
    found = lay_maps(gallery.recogniser, probes, templates)
    mates, others, sdd = found.cams[:, 0], found.cams[:, 1], found.log_sdd.exp()
    high, most = (float(maps.abs().max()) for maps in (torch.stack([mates, others]), mates - others))
    rows = 2 * len(probes)
    figure, axes = plots.picture_grid(rows, 4, (plots.WIDTH, rows * (plots.WIDTH / 4 + 0.3) + 0.8))
    for i, (upper, lower) in enumerate(zip(axes[::2], axes[1::2], strict=True)):
        mate, other = (f"{found.similarities[i, place]:.2f}".replace("-", "−") for place in range(2))
        plots.show(upper[0], probes[i], "probe")
        plots.show(upper[1], faces[classes[i, 0]], f"mate: {mate}")
        plots.show(upper[2], faces[classes[i, 1]], f"non-mate: {other}")
        heat = plots.overlay(upper[3], probes[i], sdd[i], limits=(0, 1), title="SDD")
        signed: dict[str, Any] = {"image": probes[i], "cmap": plots.DIVERGING}
        for axis, values, who in zip(lower[1:3], (mates[i], others[i]), ("mate", "non-mate"), strict=True):
            cams = plots.overlay(axis, values=values, limits=(-high, high), title=f"map of the {who}", **signed)
        gap = plots.overlay(lower[3], values=mates[i] - others[i], limits=(-most, most), title=difference, **signed)
    plots.colour_bar(figure, cams, axes[:, :2], "map of a match (similarity)")
    plots.colour_bar(figure, gap, axes[:, 2:3], f"{difference} (similarity)", width=0.9)
    plots.colour_bar(figure, heat, axes[:, 3:], "SDD (relative)", width=0.9)
    return figure

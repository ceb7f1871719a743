"""Ground truth on made faces: what each part of a picture is worth to the network, measured, and maps held to it.

The renderer exchanges one part between two people and leaves all else as it is. How far the log-odds of t against c
fall when t's part becomes c's is what that part is worth to *this network* in *this picture*; nothing is assumed of
what the network looks at. After the single-deletion protocol of R. Hesse, S. Schaub-Meyer and S. Roth, "FunnyBirds: A
synthetic vision dataset for a part-based analysis of explainable AI methods", ICCV 2023, pp. 3981-3991, which removes a
part where we exchange it, asks about one class where we ask about two, and leaves out pictures without a rank
correlation where we count them.

A *case* is one picture and one rival; P parts are ranked. The scores, and what a negative value of a map means to
each, are in `studies.part_scores`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from madefaces.face_paint import GENES, PARTS
from madefaces.people import (
    DIFFERING,
    Identity,
    part_differs,
    render,
    swap_parts,
)
from studies.part_scores import (
    attainable_correlation,
    concordance,
    energy_in,
    part_density,
    part_mass,
    precision_at,
    rank_correlation,
)
from xfrlib.prediction import all_logits, log_odds

FRACTIONS = (0.05, 0.1, 0.2)


_CASE = ("picture", "seed", "target", "rival", "kind", "correct")


class PartImportance(NamedTuple):
    """What the parts of n pictures are worth against R rivals each. Cases are numbered picture * R + rival."""

    table: pd.DataFrame  #: a row per case and part, in this order: see `part_importance`
    parts: tuple[str, ...]
    images: Tensor  #: (n, 3, H, W) uint8 RGB, the pictures as they are
    masks: Tensor  #: (n * R, P, H, W) bool: pixels that show the part before or after the exchange
    importance: Tensor  #: (n * R, P) float64, log-odds lost
    differs: Tensor  #: (n * R, P) bool
    pictures: Tensor  #: (n * R,) int64, the picture of each case
    classes: Tensor  #: (n * R, 2) int64, target and rival of each case

    @property
    def region(self) -> Tensor:
        """The pixels (cases, H, W) of all parts in which the two people truly differ."""
        return (self.masks & self.differs[:, :, None, None]).any(dim=1)


@torch.no_grad()
def part_importance(
    model: nn.Module,
    people: Sequence[Identity],
    targets: Sequence[int],
    rivals: Sequence[Sequence[int]],
    seeds: Sequence[int],
    *,
    parts: Sequence[str] = DIFFERING,
    batch_size: int = 32,
    progress: bool = True,
) -> PartImportance:
    """Exchange each part of each picture with each rival's and note what the log-odds lose.

    Parameters
    ----------
    model : in evaluation mode; maps (B, 3, 112, 112) RGB in [0, 1] to logits (B, N).
    people : the N identities, in the order of the model's classes.
    targets : (n,) class shown in each picture, 0 to N - 1.
    rivals : (n, R) classes to hold it against, R of at least 1.
    seeds : (n,) nuisance seed of each picture (`madefaces.people.picture_seed`).
    parts : the parts exchanged. The head is left out unless named: other parts take their shade and place from it, so
        that its exchange changes pixels beyond its own.
    batch_size : pictures in one forward pass.

    Returns
    -------
    A `PartImportance`. Columns of its table: `picture` (0 to n - 1), `seed`, `target`, `rival` (classes), `kind`
    ("family" or "stranger"), `correct` (whether the network names t), `part`, `differs`, `area` (pixels of the mask),
    the log-odds log(p_t / p_c) `before` and `after` the exchange, and `importance`, before - after: positive where t's
    own part speaks for t. A part in which the two do not differ has importance 0 without a pass, since the picture
    stays the same to the bit.

    Costs one pass a picture and one more for each part that differs.

    Raises
    ------
    ValueError
        If sizes disagree, a class is unknown, a rival is the target, a part has no genes, or the model trains.
    """
    _check(model, people, targets, rivals, seeds, parts)
    shown, masks = render([people[t] for t in targets], seeds)
    n_rivals = len(rivals[0])
    pictures = torch.arange(len(targets)).repeat_interleave(n_rivals)
    classes = torch.tensor([(t, c) for t, row in zip(targets, rivals, strict=True) for c in row])
    labels = torch.tensor([PARTS.index(part) for part in parts])
    own = torch.from_numpy(masks)[pictures, None] == labels[:, None, None]

    differs = torch.tensor([[part_differs(people[t], people[c], part) for part in parts] for t, c in classes.tolist()])
    before = all_logits(model, torch.from_numpy(shown).permute(0, 3, 1, 2), batch_size)
    if before.shape[1] != len(people):
        raise ValueError(f"the model has {before.shape[1]} classes but there are {len(people)} people: give one each")
    odds = log_odds(before[pictures], classes)[:, 0]
    after = odds[:, None].repeat(1, len(parts))
    exchanges = differs.nonzero().tolist()
    starts = tqdm(
        range(0, len(exchanges), batch_size),
        desc="parts exchanged",
        unit="batch",
        mininterval=1,
        disable=not progress,
    )
    for start in starts:
        cases, columns = torch.tensor(exchanges[start : start + batch_size]).T
        swapped = [
            swap_parts(people[t], people[c], [parts[p]])
            for (t, c), p in zip(classes[cases].tolist(), columns.tolist(), strict=True)
        ]
        images, found = render(swapped, [seeds[i] for i in pictures[cases].tolist()])
        logits = all_logits(model, torch.from_numpy(images).permute(0, 3, 1, 2), batch_size)
        after[cases, columns] = log_odds(logits, classes[cases])[:, 0]
        own[cases, columns] |= torch.from_numpy(found) == labels[columns, None, None]

    index = np.repeat(np.arange(len(classes)), len(parts))
    picture, (target, rival) = pictures.numpy()[index], classes.numpy()[index].T
    family = np.array([person.family for person in people])
    table = pd.DataFrame(
        {
            "picture": picture,
            "seed": np.array(seeds, dtype=np.uint64)[picture],
            "target": target,
            "rival": rival,
            "kind": np.where(family[target] == family[rival], "family", "stranger"),
            "correct": before.argmax(dim=1).numpy()[picture] == target,
            "part": np.tile(np.array(parts), len(classes)),
            "differs": differs.flatten().numpy(),
            "area": own.sum(dim=(2, 3)).flatten().numpy(),
            "before": odds.numpy()[index],
            "after": after.flatten().numpy(),
        }
    )
    table["importance"] = table["before"] - table["after"]
    pixels = torch.from_numpy(shown).permute(0, 3, 1, 2)
    return PartImportance(
        table,
        tuple(parts),
        pixels,
        own,
        odds[:, None] - after,
        differs,
        pictures,
        classes,
    )


def _check(
    model: nn.Module,
    people: Sequence[Identity],
    targets: Sequence[int],
    rivals: Sequence[Sequence[int]],
    seeds: Sequence[int],
    parts: Sequence[str],
) -> None:
    if model.training:
        raise ValueError("the model is in training mode, so its answers depend on the batch: call model.eval() first")
    if not len(targets) == len(rivals) == len(seeds) or not len(targets):
        raise ValueError(
            f"{len(targets)} targets, {len(rivals)} rows of rivals, {len(seeds)} seeds: give one each for each picture"
        )
    if len({len(row) for row in rivals}) > 1 or not len(rivals[0]):
        raise ValueError("rivals must name the same number of classes, at least one, for every picture")
    for picture, (t, row) in enumerate(zip(targets, rivals, strict=True)):
        unknown = [c for c in (t, *row) if not 0 <= c < len(people)]
        if unknown or t in row:
            fault = f"class {unknown[0]} is not one of {len(people)} people" if unknown else f"{t} is its own rival"
            raise ValueError(f"picture {picture}: {fault}")
    unknown_parts = [part for part in parts if part not in GENES]
    if unknown_parts or not parts:
        raise ValueError(f"no genes for {', '.join(unknown_parts) or 'no part'}: choose from {', '.join(GENES)}")


def uniform_map(truth: PartImportance) -> Tensor:
    """1 everywhere: (cases, H, W). Its mass is the area of a part; its density has no order."""
    return torch.ones_like(truth.region, dtype=torch.float64)


def hill_map(truth: PartImportance, *, sigma: float = 0.25) -> Tensor:
    """A Gaussian about the middle of the picture, `sigma` in widths of the picture: (cases, H, W) in (0, 1]."""
    height, width = truth.masks.shape[-2:]
    y, x = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2 for side in (height, width))
    hill = torch.exp(-(y[:, None] ** 2 + x**2) / (2 * (sigma * width) ** 2))
    return hill.expand(len(truth.masks), -1, -1).clone()


def area_map(truth: PartImportance) -> Tensor:
    """Each pixel carries the area of the part it shows, so that mass and density rank parts by area: (cases, H, W)."""
    return _paint(truth, truth.masks.sum(dim=(2, 3)).double())


def oracle_map(truth: PartImportance, *, per_pixel: bool = False) -> Tensor:
    """A map made of the truth, which must score at the top: (cases, H, W), signed, in units of the log-odds.

    Each part's importance is spread over its pixels, so that the sum over a part is its importance and the *mass* ranks
    as the truth does; with `per_pixel` each pixel carries the whole of it, and the *density* does. Where masks overlap,
    as a new fringe does the old brows, the smaller part lies on top, so that the ranking is not perfect in every case.
    """
    area = truth.masks.sum(dim=(2, 3)).clamp(min=1)
    return _paint(truth, truth.importance / (1 if per_pixel else area))


def _paint(truth: PartImportance, values: Tensor) -> Tensor:
    """Values (cases, P) of parts at their pixels, 0 elsewhere; where parts overlap, the smaller lies on top."""
    area = truth.masks.sum(dim=(2, 3)).double()
    size, part = torch.where(truth.masks, area[:, :, None, None], torch.inf).min(dim=1)
    return torch.where(size.isinf(), 0, values.gather(1, part.flatten(1)).view_as(size))


def score_maps(
    maps: Mapping[str, Tensor],
    truth: PartImportance,
    *,
    fractions: Sequence[float] = FRACTIONS,
) -> pd.DataFrame:
    """Hold maps to the truth: one row per case and method.

    Parameters
    ----------
    maps : method -> (cases, H, W) float, larger = speaks more for t against c; signed maps stay signed.
    truth : what `part_importance` returned.
    fractions : of the picture, for precision.

    Returns
    -------
    `picture`, `seed`, `target`, `rival`, `kind`, `correct` (see `part_importance`), `method`;
    `spearman_mass`, `spearman_density` and `spearman_attainable`, and `concordance_mass`, `concordance_density`, over
    the parts that show in the picture or in one with the rival's part. For the region of the parts that truly differ:
    `region`, its share of the picture, which is what a uniform map scores; the `energy` in it; and for each fraction
    `precision_05` and so on with `precision_05_attainable`. A score that does not exist is NaN; `mean_scores` counts
    them.
    """
    valid, region = truth.masks.any(dim=(2, 3)), truth.region
    cases = truth.table.iloc[:: len(truth.parts)][list(_CASE)].reset_index(drop=True)
    shared = {
        "spearman_attainable": attainable_correlation(truth.importance, valid),
        "region": region.double().mean(dim=(1, 2)),
    }

    def scored(values: Tensor) -> Iterator[tuple[str, Tensor]]:
        for name, measure in (("mass", part_mass), ("density", part_density)):
            found = measure(values, truth.masks)
            yield f"spearman_{name}", rank_correlation(found, truth.importance, valid)
            yield f"concordance_{name}", concordance(found, truth.importance, valid)
        yield "energy", energy_in(values, region)
        for fraction in fractions:
            key = f"precision_{round(100 * fraction):02d}"
            yield from zip(
                (key, f"{key}_attainable"),
                precision_at(values, region, fraction),
                strict=True,
            )

    tables = [
        cases.assign(
            method=method,
            **{k: v.numpy() for k, v in {**shared, **dict(scored(values.cpu()))}.items()},
        )
        for method, values in maps.items()
    ]
    return pd.concat(tables, ignore_index=True)


def mean_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Means over cases by rival kind and method, under "mean", and under "undefined" how many cases had no score.

    A mean leaves out the cases without a score; the count beside it says that it did.
    """
    names = [c for c in scores.columns if c not in (*_CASE, "method")]
    groups = [scores["kind"], scores["method"]]
    mean = scores[names].groupby(groups, sort=False).mean()
    return pd.concat(
        {
            "mean": mean,
            "undefined": scores[names].isna().groupby(groups, sort=False).sum(),
        },
        axis=1,
    )

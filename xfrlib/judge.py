"""Deletion and retention: what the network says when a region is taken away, and when only it is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from xfrlib.artifacts import write_atomic
from xfrlib.checks import answer, fitting_colours, need_judgeable, need_logits, need_module, need_odds, need_pairs
from xfrlib.controls import CONTROLS, control_masks
from xfrlib.prediction import as_floats, log_odds, margin
from xfrlib.profile import FILLS
from xfrlib.regions import Mask

if TYPE_CHECKING:
    import pandas as pd


def fill_picture(images: Tensor, fill: str | Tensor, *, mean: Tensor | None = None) -> Tensor:
    """What takes the place of removed pixels: images (B, 3, H, W) in [0, 1] -> the same shape.

    "black" is 0 in the picture (the paper's "replaced by 0" as we read it); "grey" is 0.5, the zero of a network that
    takes [-1, 1]; "mean" is the colour `mean` (3,) of the training pictures; "blur" is the picture blurred by a
    Gaussian of a tenth of its width; a tensor is the pictures themselves, or a colour (3, 1, 1).
    """
    if isinstance(fill, Tensor):
        return fitting_colours("fill", as_floats(fill), "(3, 1, 1) or as the images", images)
    if fill == "black":
        return torch.zeros_like(images)
    if fill == "grey":
        return torch.full_like(images, 0.5)
    if fill == "mean":
        if mean is None:
            raise ValueError('fill = "mean" needs the mean colour of the training pictures: give mean (3,)')
        return fitting_colours("mean", mean, "(3,)", images)
    if fill == "blur":
        return blurred(images, images.shape[-1] / 10)
    raise ValueError(f"fill = {fill!r}: use one of {', '.join(FILLS)}")


def blurred(images: Tensor, sigma: float, *, reach: float = 2) -> Tensor:
    """Pictures (B, C, H, W) after a Gaussian of `sigma` pixels, cut off at `reach` sigma; edges are mirrors."""
    side = round(reach * sigma)
    weights = torch.softmax(-((torch.arange(-side, side + 1) / sigma) ** 2) / 2, dim=0).to(images)[None, None]
    lines = [F.pad(torch.eye(n).to(images)[:, None], (side, side), mode="reflect") for n in images.shape[2:]]
    down, across = (F.conv1d(line, weights)[:, 0] for line in lines)  # (n, n): how much of each pixel goes where
    return down.T @ images @ across


def perturbed(images: Tensor, removed: Tensor, fill: str | Tensor, *, mean: Tensor | None = None) -> Tensor:
    """Pictures (B, 3, H, W) whose pixels `removed` (B, H, W) bool are replaced: by `fill_picture`, or "linear".

    "linear" solves for each removed pixel to be the mean of its neighbours, with a little noise: the noisy linear
    imputation of Rong et al., "A consistent and efficient evaluation strategy for attribution methods" (ROAD), ICML
    2022, as grad-cam has it, on the CPU, a tenth of a second a picture. The noise is the same in every call.
    """
    if isinstance(fill, Tensor) or fill != "linear":
        return torch.where(removed[:, None], fill_picture(images, fill, mean=mean), images)
    road = need_module("pytorch_grad_cam.metrics.road", 'fill = "linear"', "xfrlib[explainers]")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        impute = road.NoisyLinearImputer()
        pairs = zip(images.cpu(), (~removed).float().cpu(), strict=True)
        return torch.stack([impute(image, kept) for image, kept in pairs]).clamp(0, 1).to(images)


@torch.no_grad()
def deletion_retention(
    model: nn.Module, images: Tensor, masks: Tensor, *, fill: str | Tensor = "black", mean: Tensor | None = None,
    logits: Tensor | None = None, temperature: float = 1.0, pairs: Tensor | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Delete the masked pixels, then retain only them, and compare the network's answers with the unchanged picture.

    Raises `ValueError` for masks of another kind or size, a model in training mode, pictures outside [0, 1] whose fill
    is named, NaN or infinite values (naming the sample), and answers that are probabilities already.

    Parameters
    ----------
    model : torch.nn.Module
        Maps `images` (B, 3, H, W) float in [0, 1] to logits (B, N); it and its parts must be in evaluation mode.
        Where it takes other values, `fill` is "blur" or a tensor of such values.
    masks : Tensor
        (B, H, W) bool, True where the map is high.
    fill, mean
        See `fill_picture` and `perturbed`.
    logits : Tensor, optional
        (B, N), of the unchanged pictures if they are known: saves a pass.
    temperature : float
        What the logits are divided by in the calibrated columns: above 0, fitted on validation pictures.
    pairs : Tensor, optional
        (B, K) integers, the target and then the rivals of each picture, fixed before anything is changed
        (`xfrlib.Explanation.classes`); None: the predicted class and the next.

    Returns
    -------
    pandas.DataFrame
        A row a picture: `predicted` class, its `probability` p and `margin` to its best rival; the `removed` share of
        pixels; and for each of ``deletion`` and ``retention`` after section 4 of Shadman et al. (2025) the class's
        `_probability` p' and `_margin`, the confidence drop p - p' in points (`_drop_points`) and in percent of p
        (`_drop_relative`), and whether the predicted class changed, 0 or 100 (`_prediction_change`). Three do not hang
        on how sure of itself the network is: the drop of the calibrated probability (`_calibrated_drop_points`), and
        in calibrated log-odds the fall of the margin (`_margin_drop`), whose rival is often another afterwards, and of
        the lead, ``(z_t - z_c) / temperature`` of the fixed pairs, by rival (`_lead_drop_i`) and mean (`_lead_drop`).
    """
    import pandas as pd

    need_judgeable(model, images, masks, fill, temperature)
    logits = answer(model, images) if logits is None else logits
    need_logits(logits, images)
    need_odds(logits)
    logits = logits.cpu()  # in float64 from here on, which not every device has
    predicted = logits.argmax(dim=1)
    pairs = logits.topk(2, dim=1).indices if pairs is None else need_pairs(pairs, logits)
    odds = log_odds(logits, pairs) / temperature
    before = _answer(logits, predicted, temperature)
    columns = {"predicted": predicted, "probability": before["probability"], "margin": before["margin"]}
    columns["removed"] = masks.float().mean(dim=(1, 2))
    for kind, removed in (("deletion", masks), ("retention", ~masks)):
        changed = answer(model, perturbed(images, removed, fill, mean=mean)).cpu()
        if changed.shape != logits.shape:
            raise ValueError(f"logits must be those of the model, {tuple(changed.shape)}, got {tuple(logits.shape)}")
        after = _answer(changed, predicted, temperature)
        falls = odds - log_odds(changed, pairs) / temperature
        drop = 100 * (before["probability"] - after["probability"])
        columns |= {
            f"{kind}_probability": after["probability"],
            f"{kind}_drop_points": drop,
            f"{kind}_drop_relative": drop / before["probability"],
            f"{kind}_prediction_change": 100.0 * (changed.argmax(dim=1) != predicted),
            f"{kind}_margin": after["margin"],
            f"{kind}_calibrated_drop_points": 100 * (before["calibrated"] - after["calibrated"]),
            f"{kind}_margin_drop": (before["margin"] - after["margin"]) / temperature,
            f"{kind}_lead_drop": falls.mean(dim=1),
            **{f"{kind}_lead_drop_{i}": fall for i, fall in enumerate(falls.T, start=1)},
        }
    return pd.DataFrame({name: column.cpu().numpy() for name, column in columns.items()})


def _answer(logits: Tensor, classes: Tensor, temperature: float) -> dict[str, Tensor]:
    """Probabilities and margin of `classes` (B,), in float64 so that drops do not cancel."""
    logits = logits.double()
    raw, calibrated = (z.softmax(dim=1).gather(1, classes[:, None])[:, 0] for z in (logits, logits / temperature))
    return {"probability": raw, "calibrated": calibrated, "margin": margin(logits, classes)}


def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: np.ndarray,
    regions: Mapping[str, Mask],
    *,
    logits: Tensor,
    under_test: str = "sdd",
    fills: Sequence[str] | Mapping[str, str | Tensor] = ("black",),
    fraction: float = 0.2,
    draws: int = 5,
    seed: int = 0,
    batch_size: int = 64,
    mean: Tensor | None = None,
    temperature: float = 1.0,
    pairs: Tensor | None = None,
    controls: Sequence[str] = tuple(CONTROLS),
    network: int = 0,
    shards: Path | None = None,
    share: tuple[int, int] = (0, 1),
    progress: bool = True,
) -> pd.DataFrame:
    """Deletion and retention of every picture by every map and every control.

    Costs at most 2 * fills * (maps + control draws) passes a picture: regions of a picture that are one share them. The
    table has a row for each image, method, draw and fill: `network` (as given), `image` (index), `label`, `predicted`,
    `correct`, `method`, `draw`, `fill`, `fraction`, and the columns of `deletion_retention`. Empty without a batch.

    Parameters
    ----------
    model, mean, temperature, pairs
        As `deletion_retention` takes them, pairs (n, K); batches travel to the device of the model.
    images : Tensor
        (n, 3, H, W) uint8 or float in [0, 1]; `labels` (n,) are their identities, `logits` (n, N) theirs unchanged.
    regions : mapping
        Name of a map -> its masks, (n, H, W) bool with the same number of pixels everywhere.
    under_test : str
        The map whose regions ``shifted``, ``other_identity`` and ``same_identity`` use, if these are among `controls`.
    fills : sequence of str, or mapping
        Names that `perturbed` knows, or a name for each fill, of which one may be pictures (n, 3, H, W).
    controls : sequence of str
        Those wanted. ``same_identity`` is left out where a person has only one picture.
    shards : Path, optional
        Folder for finished batches; a run that was stopped goes on after the last one. The caller names it after
        everything the result depends on (see `xfrlib.artifacts.fingerprint`).
    share : tuple of int
        (process, processes): it computes and returns every processes-th batch alone; all shares are the whole table.
    """
    import pandas as pd

    named = dict(fills) if isinstance(fills, Mapping) else {fill: fill for fill in fills}
    device, labels = next(model.parameters()).device, np.asarray(labels)
    counts = {name: len(masks) for name, masks in regions.items()} | {"labels": len(labels), "logits": len(logits)}
    if set(counts.values()) != {len(images)}:
        raise ValueError(f"each must have {len(images)} rows, one for each of the images, got {counts}")
    own = regions[under_test] if under_test in regions else next(iter(regions.values()))
    alone = np.unique(labels, return_counts=True)[1].min() < 2
    fixed = [name for name, control in CONTROLS.items() if control.fixed]
    wanted = [name for name in controls if not (name == "same_identity" and alone)]
    drawn = [(name, draw) for name in wanted for draw in range(1 if name in fixed else draws)]
    batches = torch.arange(len(images)).split(batch_size)[share[0] :: share[1]]
    each = (len(regions) + len(drawn)) * len(named)  # to judge of each picture
    total = each * sum(map(len, batches))
    bar = tqdm(desc="deletion and retention", total=total, unit="region", mininterval=1, disable=not progress)

    def rows_of(indices: list[int]) -> pd.DataFrame:
        batch, known = as_floats(images[indices].to(device)), logits[indices].to(device)
        masks = {(name, 0): torch.from_numpy(found[indices]) for name, found in regions.items()}
        for name, draw in drawn:
            masks[name, draw] = control_masks(name, draw, indices, own=own, labels=labels, fraction=fraction, seed=seed)
        keys = [[(i, np.packbits(mask).tobytes()) for i, mask in enumerate(found.numpy())] for found in masks.values()]
        once: dict[tuple[int, bytes], Tensor] = {}  # no region of a picture twice
        for row, found in zip(keys, masks.values(), strict=True):
            once |= dict(zip(row, found, strict=True))
        place = {key: number for number, key in enumerate(once)}
        pictures, different = torch.tensor([picture for picture, _ in once]), torch.stack(list(once.values()))
        parts = []
        for name, fill in named.items():
            answers = []
            for which in torch.arange(len(once)).tensor_split(-(-len(once) // len(batch))):
                rows = pictures[which]
                options: Any = {"fill": fill[indices][rows] if isinstance(fill, Tensor) else fill, "mean": mean}
                options |= {"logits": known[rows], "pairs": None if pairs is None else pairs[indices][rows]}
                regions_now = different[which].to(device)
                answers.append(deletion_retention(model, batch[rows], regions_now, temperature=temperature, **options))
                bar.update(len(rows))
            table = pd.concat(answers, ignore_index=True)
            for (method, draw), row in zip(masks, keys, strict=True):
                part = table.iloc[[place[key] for key in row]].reset_index(drop=True)
                parts.append(part.assign(image=indices, label=labels[indices], method=method, draw=draw, fill=name))
        return pd.concat(parts, ignore_index=True)

    tables = []
    for batch in batches:
        shard, done = shards and shards / f"{int(batch[0]):07d}-{batch_size}.parquet", bar.n
        if shard and shard.exists():
            tables.append(pd.read_parquet(shard))
        else:
            tables.append(rows_of(batch.tolist()))
            if shard:
                with write_atomic(shard) as path:
                    tables[-1].to_parquet(path, index=False)
        bar.update(each * len(batch) - (bar.n - done))  # shared and finished ones cost nothing
    bar.close()
    if not tables:  # more processes than batches
        return pd.DataFrame()
    result = pd.concat(tables, ignore_index=True)
    result["fraction"], result["network"] = fraction, network
    result["correct"] = result["label"] == result["predicted"]
    first = ["network", "image", "label", "predicted", "correct", "method", "draw", "fill", "fraction"]
    return result[first + [c for c in result.columns if c not in first]]

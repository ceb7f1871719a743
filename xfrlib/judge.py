"""Deletion and retention: what the network says when a region is taken away, and when only it is left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur
from tqdm import tqdm

from xfrlib.artifacts import write_atomic
from xfrlib.profile import FILLS
from xfrlib.regions import CONTROLS, Mask, control_masks


def fill_picture(images: Tensor, fill: str, *, mean: Tensor | None = None) -> Tensor:
    """What takes the place of removed pixels: images (B, 3, H, W) in [0, 1] -> the same shape.

    "black" is 0 in the picture (the paper's "replaced by 0" as we read it); "grey" is 0.5, the zero of a network that
    takes [-1, 1]; "mean" is the colour `mean` (3,) of the training pictures; "blur" is the picture blurred by a
    Gaussian of a tenth of its width.
    """
    if fill == "black":
        return torch.zeros_like(images)
    if fill == "grey":
        return torch.full_like(images, 0.5)
    if fill == "mean":
        if mean is None:
            raise ValueError('fill = "mean" needs the mean colour of the training pictures: give mean (3,)')
        return mean.to(images).view(1, 3, 1, 1).expand_as(images)
    if fill == "blur":
        return blurred(images, images.shape[-1] / 10)
    raise ValueError(f"fill = {fill!r}: use one of {', '.join(FILLS)}")


def blurred(images: Tensor, sigma: float, *, reach: float = 2) -> Tensor:
    """Pictures (B, C, H, W) after a Gaussian of width `sigma` pixels, cut off at `reach` sigma.

    One axis after the other, which is the same and costs a twentieth of torchvision's product of both.
    """
    side = 2 * int(reach * sigma) + 1
    for kernel_size in ([side, 1], [1, side]):
        images = gaussian_blur(images, kernel_size=kernel_size, sigma=[sigma, sigma])
    return images


def perturbed(images: Tensor, removed: Tensor, fill: str, *, mean: Tensor | None = None) -> Tensor:
    """Pictures (B, 3, H, W) whose pixels `removed` (B, H, W) bool are replaced: by `fill_picture`, or "linear".

    "linear" solves for each removed pixel to be the mean of its neighbours, with a little noise: the noisy linear
    imputation of Rong et al., "A consistent and efficient evaluation strategy for attribution methods" (ROAD), ICML
    2022, as grad-cam has it, on the CPU, a tenth of a second a picture. The noise is the same in every call.
    """
    if fill != "linear":
        return torch.where(removed[:, None], fill_picture(images, fill, mean=mean), images)
    try:
        from pytorch_grad_cam.metrics.road import NoisyLinearImputer
    except ImportError as error:
        raise ImportError('fill = "linear" needs grad-cam: pip install "xfrlib[baselines]"') from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        impute = NoisyLinearImputer()
        pairs = zip(images.cpu(), (~removed).float().cpu(), strict=True)
        return torch.stack([impute(image, kept) for image, kept in pairs]).clamp(0, 1).to(images)


@torch.no_grad()
def deletion_retention(
    model: nn.Module,
    images: Tensor,
    masks: Tensor,
    *,
    fill: str = "black",
    mean: Tensor | None = None,
    logits: Tensor | None = None,
    temperature: float = 1.0,
) -> pd.DataFrame:
    """Delete the masked pixels, then retain only them, and compare the network's answers with the unchanged picture.

    Parameters
    ----------
    model : maps (B, 3, H, W) in [0, 1] to logits (B, N); it must be in evaluation mode.
    images : (B, 3, H, W) float in [0, 1].
    masks : (B, H, W) bool, True where the map is high.
    fill, mean : see `fill_picture` and `perturbed`.
    logits : (B, N), the logits of the unchanged pictures if they are known: saves a pass.
    temperature : what the logits are divided by in the two calibrated columns (`xfrlib.trust`).

    Returns
    -------
    A table with one row per picture: `predicted` class and its `probability` p; the `removed` share of pixels; and for
    each of ``deletion`` and ``retention`` the probability p' of that class (`_probability`), the confidence drop
    p - p' in percentage points (`_drop_points`), the drop relative to p in percent (`_drop_relative`), whether the
    predicted class changed, 0 or 100 (`_prediction_change`), and the logit margin of the class to its best rival
    (`_margin`). Two more do not hang on how sure of itself the network is: the drop in points of the calibrated
    probability (`_calibrated_drop_points`), and the fall of the margin over the temperature, in calibrated log-odds
    (`_margin_drop`). Deletion and retention follow section 4 of Shadman et al. (2025).
    """
    if masks.dtype != torch.bool or masks.shape != (images.shape[0], *images.shape[2:]):
        raise ValueError(
            f"masks must be bool {(images.shape[0], *images.shape[2:])}, got {masks.dtype} {tuple(masks.shape)}"
        )
    if model.training:
        raise ValueError("the model is in training mode, so its answers depend on the batch: call model.eval() first")
    logits = model(images) if logits is None else logits
    predicted = logits.argmax(dim=1)
    before = _answer(logits, predicted, temperature)
    columns = {
        "predicted": predicted,
        "probability": before["probability"],
        "margin": before["margin"],
        "removed": masks.float().mean(dim=(1, 2)),
    }
    for kind, removed in (("deletion", masks), ("retention", ~masks)):
        after = _answer(model(perturbed(images, removed, fill, mean=mean)), predicted, temperature)
        drop = 100 * (before["probability"] - after["probability"])
        columns |= {
            f"{kind}_probability": after["probability"],
            f"{kind}_drop_points": drop,
            f"{kind}_drop_relative": drop / before["probability"],
            f"{kind}_prediction_change": 100.0 * (after["predicted"] != predicted),
            f"{kind}_margin": after["margin"],
            f"{kind}_calibrated_drop_points": 100 * (before["calibrated"] - after["calibrated"]),
            f"{kind}_margin_drop": (before["margin"] - after["margin"]) / temperature,
        }
    return pd.DataFrame({name: column.cpu().numpy() for name, column in columns.items()})


def _answer(logits: Tensor, classes: Tensor, temperature: float) -> dict[str, Tensor]:
    """Probabilities and margin of `classes` (B,) and the predicted class, in float64 so that drops do not cancel."""
    logits = logits.double()
    own = logits.gather(1, classes[:, None])[:, 0]
    rival = logits.scatter(1, classes[:, None], -torch.inf).amax(dim=1)
    raw, calibrated = (z.softmax(dim=1).gather(1, classes[:, None])[:, 0] for z in (logits, logits / temperature))
    return {
        "probability": raw, "calibrated": calibrated, "margin": own - rival, "predicted": logits.argmax(dim=1)
    }  # fmt: skip


def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: np.ndarray,
    regions: Mapping[str, Mask],
    *,
    logits: Tensor,
    under_test: str = "sdd",
    fills: tuple[str, ...] = ("black",),
    fraction: float = 0.2,
    draws: int = 5,
    seed: int = 0,
    batch_size: int = 64,
    mean: Tensor | None = None,
    temperature: float = 1.0,
    controls: Sequence[str] = CONTROLS,
    network: int = 0,
    shards: Path | None = None,
    share: tuple[int, int] = (0, 1),
    progress: bool = True,
) -> pd.DataFrame:
    """Deletion and retention of every picture by every map and every control.

    Costs 2 * fills * (maps + control draws) passes a picture beyond the one that gave `logits`; no backward pass.

    Parameters
    ----------
    model : in evaluation mode, on the device to compute on.
    images : (n, 3, H, W) uint8 or float in [0, 1]; batches travel to the device of `model`.
    labels : (n,) identity of each picture.
    regions : name of a map -> its masks, (n, H, W) bool with the same number of pixels everywhere.
    logits : (n, N) of the unchanged pictures.
    under_test : the map whose regions the controls ``shifted``, ``other_identity`` and ``same_identity`` use; it may
        be missing where none of these is asked for.
    controls : those wanted. ``same_identity`` is left out where a person has only one picture.
    network : what the column of that name says.
    shards : folder for finished batches; a run that was stopped goes on after the last one. The caller names it after
        everything the result depends on (see `xfrlib.artifacts.fingerprint`).
    share : (process, processes): this process computes every processes-th batch and returns those alone. Controls and
        batches are the same whoever computes them, so that the shares of all together are the table of one process.

    Returns
    -------
    One row per image, method, draw and fill: `network`, `image` (index), `label`, `predicted`, `correct`, `method`,
    `draw`, `fill`, `fraction`, and the columns of `deletion_retention`.
    """
    device = next(model.parameters()).device
    process, processes = share
    starts = range(0, len(images), batch_size)[process::processes]
    tables = []
    for start in tqdm(starts, desc="deletion and retention", unit="batch", disable=not progress):
        indices = list(range(start, min(start + batch_size, len(images))))
        shard = shards / f"{start:07d}-{batch_size}.parquet" if shards else None
        if shard is not None and shard.exists():
            tables.append(pd.read_parquet(shard))
            continue
        batch = images[start : start + batch_size].to(device)
        batch = batch.float() / 255 if batch.dtype == torch.uint8 else batch
        parts = []
        for method, draw, masks in _all_masks(
            indices, regions, under_test, np.asarray(labels), fraction, draws, seed, controls
        ):
            for fill in fills:
                part = deletion_retention(
                    model,
                    batch,
                    masks.to(device),
                    fill=fill,
                    mean=mean,
                    logits=logits[start : start + batch_size].to(device),
                    temperature=temperature,
                )
                parts.append(part.assign(image=indices, label=labels[indices], method=method, draw=draw, fill=fill))
        table = pd.concat(parts, ignore_index=True)
        if shard is not None:
            with write_atomic(shard) as path:
                table.to_parquet(path, index=False)
        tables.append(table)
    if not tables:  # more processes than batches
        return pd.DataFrame()
    result = pd.concat(tables, ignore_index=True)
    result["fraction"], result["network"] = fraction, network
    result["correct"] = result["label"] == result["predicted"]
    first = ["network", "image", "label", "predicted", "correct", "method", "draw", "fill", "fraction"]
    return result[first + [c for c in result.columns if c not in first]]


def _all_masks(
    indices: list[int],
    regions: Mapping[str, Mask],
    under_test: str,
    labels: np.ndarray,
    fraction: float,
    draws: int,
    seed: int,
    controls: Sequence[str],
) -> Iterator[tuple[str, int, Tensor]]:
    for method, masks in regions.items():
        yield method, 0, torch.from_numpy(masks[indices])
    own = regions[under_test] if under_test in regions else next(iter(regions.values()))
    for control in controls:
        if control == "same_identity" and np.unique(labels, return_counts=True)[1].min() < 2:
            continue
        for draw in range(1 if control == "disc" else draws):
            yield (
                control,
                draw,
                control_masks(control, draw, indices, own=own, labels=labels, fraction=fraction, seed=seed),
            )

"""The same computations by other libraries: maps of several classes, deletion and retention, covered cells, curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor, nn

# Modules, and the packages that they are installed as.
LIBRARIES = {"torchcam": "torchcam", "captum": "captum", "pytorch_grad_cam": "grad-cam", "quantus": "quantus"}


def if_installed(module: str, run: Callable[[], object]) -> Callable[[], object] | None:
    """`run`, or None where the library `module` is not there."""
    return run if find_spec(module) else None


# --- maps of several classes: each takes pictures (B, 3, H, W) and classes (B, K)


def torchcam_maps(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """CAMs of torch-cam: one pass, and a call for each class; (B, K, h, w), signed."""
    from torchcam.methods import CAM

    with CAM(model, "backbone", "head") as extractor, torch.inference_mode():
        logits = model(images)
        return torch.stack([extractor(column.tolist(), logits, normalized=False)[0] for column in classes.T], dim=1)


def captum_maps(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Grad-CAM of captum, a pass for each class: CAM over the number of places, (B, K, h, w), signed."""
    from captum.attr import LayerGradCam

    method = LayerGradCam(model, model.backbone)
    return torch.cat([method.attribute(images, target=column).detach() for column in classes.T], dim=1)


def gradcam_maps(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Grad-CAM of grad-cam, a pass and a backward pass for each class: (B, K, H, W), rectified, each in [0, 1]."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with GradCAM(model, [model.backbone]) as method:
        columns = [[ClassifierOutputTarget(int(one)) for one in column] for column in classes.T]
        return torch.from_numpy(np.stack([method(images, targets) for targets in columns], axis=1))


# --- deletion and retention of a fifth: maps (M, B, H, W), of which each picture has M


def gradcam_road(model: nn.Module, images: Tensor, maps: Tensor, classes: Tensor, share: int = 20) -> Tensor:
    """ROAD of grad-cam: logits of classes (B,) without the top `share` percent of each map, and with them alone.

    (M, 2, B). The unchanged pictures go through the network once, not once for each measure as by default.
    """
    from pytorch_grad_cam.metrics.road import ROADLeastRelevantFirst, ROADMostRelevantFirst
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets = [ClassifierOutputTarget(int(one)) for one in classes]
    measures = ROADMostRelevantFirst(100 - share), ROADLeastRelevantFirst(share)
    with torch.no_grad():
        before = model(images).gather(1, classes[:, None])[:, 0]
    after = [[m(images, one.numpy(), targets, model, return_diff=False) for m in measures] for one in maps]
    return before - torch.from_numpy(np.array(after))


def quantus_deletion(model: nn.Module, images: Tensor, maps: Tensor, classes: Tensor, share: int = 20) -> None:
    """ROAD of Quantus with black in place of its imputation, once on each map and once on what is left of 1.

    Maps lie in [0, 1]. Quantus counts channels as pixels, so that a map is repeated for each; what it calls black is
    the smallest value of a picture, and so 0 is given.
    """
    import quantus
    from quantus.functions.perturb_func import batch_baseline_replacement_by_indices

    def black(arr: np.ndarray, indices: np.ndarray, **_: object) -> np.ndarray:
        flat = batch_baseline_replacement_by_indices(arr.reshape(1, -1), indices[None], perturb_baseline=0.0)
        return flat.reshape(arr.shape)

    pixels, labels = images.numpy(), classes.numpy()
    for one in maps.numpy():
        channels = np.repeat(one[:, None], 3, axis=1)
        for ranked, percent in ((channels, share), (1 - channels, 100 - share)):
            metric = quantus.ROAD(percentages=[percent], perturb_func=black, normalise=False, disable_warnings=True)
            metric(model, pixels, labels, a_batch=ranked, batch_size=len(pixels))


# --- cells covered one at a time, and curves


def captum_cells(
    model: nn.Module, images: Tensor, classes: Tensor, fills: Sequence[Tensor], batch: int = 49, side: int = 16
) -> Tensor:
    """captum's Occlusion by tiles of `side` pixels: what the lead of the first of classes (B, K) loses over the others.

    Each fill is (B, 3, H, W); returns (fills, B, tiles). The passes give this one number, and not all logits.
    """
    from captum.attr import Occlusion

    def lead(pictures: Tensor, pairs: Tensor) -> Tensor:
        found = model(pictures).gather(1, pairs)
        return found[:, 0] - found[:, 1:].mean(dim=1)

    method, window = Occlusion(lead), (3, side, side)
    found = []
    with torch.no_grad():
        for fill in fills:
            rows = [
                method.attribute(
                    images[i : i + 1], window, window, fill[i : i + 1], additional_forward_args=(classes[i : i + 1],),
                    perturbations_per_eval=batch,
                )
                for i in range(len(images))
            ]  # fmt: skip
            found.append(torch.cat(rows)[:, 0, side // 2 :: side, side // 2 :: side].flatten(1))
    return torch.stack(found)


def torchcam_curves(
    model: nn.Module, images: Tensor, classes: Tensor, steps: int = 20, batch: int = 32
) -> dict[str, float]:
    """Areas under the deletion and the insertion curve of torch-cam, in the order of its own CAM."""
    from torchcam.methods import CAM
    from torchcam.metrics import DeletionInsertionMetric

    with CAM(model, "backbone", "head") as extractor:
        metric = DeletionInsertionMetric(extractor, lambda logits: logits.softmax(dim=1), steps=steps, batch_size=batch)
        metric.update(images, classes.tolist())
        return metric.summary()

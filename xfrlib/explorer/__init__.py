"""A panel for JupyterLab: choose a face and its rivals, move the settings, see the maps and what the masks do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from xfrlib.artifacts import build_root
from xfrlib.cam import PooledFeatures
from xfrlib.checks import need_network
from xfrlib.data.faces import FaceDataset, open_folder
from xfrlib.explorer.maps import Calculator, Settings
from xfrlib.explorer.panel import Explorer
from xfrlib.explorer.pictures import Pictures
from xfrlib.models.backbones import Backbone
from xfrlib.plots import gentle_power

__all__ = ["Calculator", "Explorer", "Pictures", "Settings", "explorer"]


def explorer(
    model: nn.Module, dataset: FaceDataset | str | Path, *, identities: Sequence[str] | None = None,
    names: Sequence[str] = (), families: Sequence[int] = (), size: int = 0, pooled: PooledFeatures | None = None,
    temperature: float = 1.0, folder: str | Path | None = None, provenance: Callable[[], Mapping[str, Any]] = dict,
    **settings: Any,
) -> Explorer:  # fmt: skip
    """A panel over the pictures of `dataset`, to end a notebook cell with.

    Raises `ValueError` for a model in training mode, without CAMs, or whose classes are not the people of `dataset`.

    Parameters
    ----------
    model : torch.nn.Module
        As `xfrlib.explain` takes it, in evaluation mode; it is run where its parameters are.
    dataset : FaceDataset, str or Path
        The pictures to choose from; its identities are the classes of `model`. Or a folder of
        ``<identity>/<picture>``; `identities` then names the classes in order (None: the folder's, sorted).
    names, families : sequence, optional
        Of each class, what a reader sees, and the family, whose other members are its look-alikes. None: the
        identity's own name; and look-alikes are the people whose mean embeddings have the largest cosine.
    size : int
        Side in pixels of a folder's pictures, as `model` wants it. 0: what a backbone of ours or of timm says.
    pooled : PooledFeatures, optional
        What `xfrlib.cam.pooled_features` gave for all pictures of `dataset`, in order, where it is at hand.
    temperature : float
        As `xfrlib.deletion_retention` takes it.
    folder : str or Path, optional
        Where figures and numbers are saved; None: ``explorer`` in the folder of builds.
    provenance : callable
        Called when something is saved, for what is to be said of its origin beside commit, versions, and hashes of
        weights and picture (in the notebooks: ``run.provenance``).
    **settings
        First values of `Settings`; without a delta, one at which the map of the first picture is more than a dot.
    """
    if isinstance(dataset, str | Path):
        sizes = [part.size for part in need_network(model).modules() if isinstance(part, Backbone)]
        sizes += [getattr(part, "pretrained_cfg", {}).get("input_size", [0])[-1] for part in model.modules()]
        if not (size := size or max(sizes)):
            raise ValueError(f"{type(model).__name__} does not say the size of its pictures: give size, e.g. size=224")
        dataset = open_folder(dataset, identities, size=size)
    calculator = Calculator(Pictures(model, dataset, pooled, names, families), temperature)
    first = Settings(**{"top_k": min(5, len(dataset.identities)), **settings})
    if "delta" not in settings:
        first = replace(first, delta=first.delta * float(gentle_power(calculator.maps(0, first).explanation.log_sdd)))
    return Explorer(calculator, first, Path(folder or build_root() / "explorer"), provenance)

"""A panel for JupyterLab: choose a face and its rivals, move the settings, see the maps and what the masks do.

`pictures` and `maps` hold and compute, without widgets; `panel` and `view` show; `export` writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from xfrlib.artifacts import build_root
from xfrlib.cam import PooledFeatures
from xfrlib.data.faces import FaceDataset
from xfrlib.explorer.maps import Calculator, Settings
from xfrlib.explorer.pictures import Pictures, open_folder
from xfrlib.explorer.view import Explorer

__all__ = ["Calculator", "Explorer", "Pictures", "Settings", "explorer", "open_folder"]


def explorer(
    model: nn.Module,
    dataset: FaceDataset | str | Path,
    *,
    identities: Sequence[str] | None = None,
    pooled: PooledFeatures | None = None,
    temperature: float = 1.0,
    mean: Tensor | None = None,
    folder: str | Path | None = None,
    provenance: Callable[[], Mapping[str, Any]] | None = None,
    **settings: Any,
) -> Explorer:
    """A panel over the pictures of `dataset`, to end a notebook cell with.

    Parameters
    ----------
    model : ends in average pooling and one linear layer (see `xfrlib.explain`), in evaluation mode. It is run where
        its parameters are.
    dataset : the pictures to choose from; its identities are the classes of `model`. Or a folder of
        ``<identity>/<picture>``, all of whose usable pictures are offered.
    identities : of a folder only: the names of the classes of `model` in order. None: the folder's, sorted.
    pooled : what `xfrlib.cam.pooled_features` gave for all pictures of `dataset`, in order, where it is at hand.
    temperature : calibrates the verdict and the calibrated measures (`xfrlib.trust`).
    mean : (3,) mean colour of the training pictures; offers the fill "mean".
    folder : where figures and numbers are saved; None: ``explorer`` in the folder of builds.
    provenance : called when something is saved, for what is to be said of its origin beside commit, versions, and
        hashes of weights and picture (in the notebooks: ``run.provenance``).
    **settings : first values, see `Settings`: ``top_k``, ``delta``, ``scale``, ``scale_min``, ``scale_max``, ``form``,
        ``centre``, ``resolution``, ``fraction`` and ``fill``.

    Raises
    ------
    ValueError
        If the classes of `model` are not the people of `dataset`, or the model has no class activation maps.
    """
    if isinstance(dataset, str | Path):
        dataset = open_folder(dataset, identities)
    pictures = Pictures(model, dataset, pooled)
    settings.setdefault("top_k", min(5, len(pictures.names)))
    calculator = Calculator(pictures, temperature=temperature, mean=mean)
    place = build_root() / "explorer" if folder is None else Path(folder)
    return Explorer(pictures, calculator, Settings(**settings), place, provenance)

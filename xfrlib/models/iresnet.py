"""Improved residual networks in AdaFace's block design: the released IR networks and the small built-in ``slim``."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from xfrlib.models.backbone import Backbone


@dataclass(frozen=True)
class IRLayout:
    """Shape of an IR network: stem, then one stage per width; each stage halves the map once, in its first block.

    embedding_size None leaves the embedding head out.
    """

    blocks: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    stem_stride: int = 1
    embedding_size: int | None = 512


# The first four are AdaFace's. ``slim`` halves the picture in the stem, so that it needs one stage less: its cost is
# 0.14 GMAC a picture where ir_18 takes 2.6, and a web page can run it.
LAYOUTS: dict[str, IRLayout] = {
    "ir_18": IRLayout((2, 2, 2, 2)),
    "ir_34": IRLayout((3, 4, 6, 3)),
    "ir_50": IRLayout((3, 4, 14, 3)),
    "ir_101": IRLayout((3, 13, 30, 3)),
    "slim": IRLayout((2, 2, 2), (32, 64, 160), stem_stride=2, embedding_size=None),
}


class IRBlock(nn.Module):
    """BN, 3x3, BN, PReLU, 3x3 with the stride, BN; plus the input, subsampled or projected by a 1x1 convolution."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        # A 1x1 max-pool is a plain subsampling; AdaFace writes it so, and it has no parameters.
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if in_channels != channels:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )
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


def _stages(blocks: Sequence[int], widths: Sequence[int], in_channels: int) -> list[IRBlock]:
    """All blocks in order; the first of each stage has stride 2."""
    layers = []
    for count, width in zip(blocks, widths, strict=True):
        for position in range(count):
            layers.append(IRBlock(in_channels, width, 2 if position == 0 else 1))
            in_channels = width
    return layers


class IResNet(Backbone):
    """IR network (AdaFace, Kim et al. 2022; block of ArcFace, Deng et al. 2019). Keys equal those of AdaFace's release.

    The last convolutional map is the output of ``body``: (B, out_channels, 7, 7) for 112 x 112 pictures.
    """

    embedding_layers = ("output_layer",)

    def __init__(self, name: str, layout: IRLayout) -> None:
        super().__init__(name, layout.widths[-1], mean=0.5, std=0.5)
        stem = layout.widths[0]
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, stem, 3, layout.stem_stride, 1, bias=False), nn.BatchNorm2d(stem), nn.PReLU(stem)
        )
        self.body = nn.Sequential(*_stages(layout.blocks, layout.widths, stem))
        self.output_layer: nn.Sequential | None = None
        if layout.embedding_size is not None:
            self.output_layer = nn.Sequential(
                nn.BatchNorm2d(self.out_channels),
                nn.Dropout(0.4),
                nn.Flatten(),
                nn.Linear(self.out_channels * 7 * 7, layout.embedding_size),
                nn.BatchNorm1d(layout.embedding_size, affine=False),
            )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def feature_map(self, normalised: Tensor) -> Tensor:
        """(B, 3, H, W), normalised and in the network's own channel order -> (B, out_channels, H / 16, W / 16)."""
        return self.body(self.input_layer(normalised))

    def embed(self, feature_map: Tensor) -> Tensor:
        """(B, 512, 7, 7) -> (B, 512), not yet of unit length."""
        if self.output_layer is None:
            raise ValueError(f"Backbone {self.name!r} has no embedding head; use its feature map.")
        return self.output_layer(feature_map)

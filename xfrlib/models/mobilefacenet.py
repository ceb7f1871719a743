"""MobileFaceNet (Chen et al. 2018, arXiv 1804.07573) in the layout of the ArcFace weights this project uses."""

from torch import Tensor, nn

from xfrlib.models.backbone import Backbone

# in, middle and out channels and stride of each inverted-residual block, blocks.0 to blocks.14.
BLOCKS: tuple[tuple[int, int, int, int], ...] = (
    (64, 128, 64, 2),
    *[(64, 128, 64, 1)] * 4,
    (64, 256, 128, 2),
    *[(128, 256, 128, 1)] * 6,
    (128, 512, 128, 2),
    *[(128, 256, 128, 1)] * 2,
)


class Unit(nn.Module):
    """Convolution without bias, batch normalisation, PReLU (left out where the unit is linear)."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        padding: int = 0,
        depthwise: bool = False,
        linear: bool = False,
    ) -> None:
        super().__init__()
        groups = in_channels if depthwise else 1
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=1e-3)
        self.prelu: nn.Module = nn.Identity() if linear else nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, channels, h', w')."""
        return self.prelu(self.bn(self.conv(x)))


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter by depthwise 3x3, narrow by 1x1; the input is added where the shapes agree."""

    def __init__(self, in_channels: int, middle: int, channels: int, stride: int) -> None:
        super().__init__()
        self.sep = Unit(in_channels, middle)
        self.dw = Unit(middle, middle, 3, stride, padding=1, depthwise=True)
        self.proj = Unit(middle, channels, linear=True)
        self.residual = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, channels, h / stride, w / stride)."""
        out = self.proj(self.dw(self.sep(x)))
        return x + out if self.residual else out


class MobileFaceNet(Backbone):
    """1.0 M parameters with its embedding head; the last convolutional map, (B, 512, 7, 7), is that of ``conv6``."""

    embedding_layers = ("gdc", "fc", "bn")

    def __init__(self) -> None:
        super().__init__("mobilefacenet", 512, mean=127.5 / 255, std=128 / 255)
        self.conv1 = Unit(3, 64, 3, 2, padding=1)
        self.conv2 = Unit(64, 64, 3, padding=1, depthwise=True)
        self.blocks = nn.Sequential(*[InvertedResidual(*block) for block in BLOCKS])
        self.conv6 = Unit(128, 512)
        self.gdc = Unit(512, 512, 7, depthwise=True, linear=True)
        self.fc = nn.Linear(512, 128)
        self.bn = nn.BatchNorm1d(128, eps=2e-5)

    def feature_map(self, normalised: Tensor) -> Tensor:
        """(B, 3, H, W), RGB, normalised -> (B, 512, H / 16, W / 16)."""
        return self.conv6(self.blocks(self.conv2(self.conv1(normalised))))

    def embed(self, feature_map: Tensor) -> Tensor:
        """(B, 512, 7, 7) -> (B, 128), not yet of unit length."""
        return self.bn(self.fc(self.gdc(feature_map).flatten(1)))

"""What every backbone shares: pictures in [0, 1] go in, the last convolutional map comes out."""

from torch import Tensor, nn


class Backbone(nn.Module):
    """Base of all backbones. Channel order and normalisation belong to the backbone; callers pass RGB in [0, 1].

    A subclass gives ``feature_map`` and, where it has an embedding head, ``embed`` and ``embedding_layers`` (the names
    of the modules that only the embedding uses). Both take and return what the network was trained with.
    """

    embedding_layers: tuple[str, ...] = ()

    def __init__(self, name: str, out_channels: int, *, mean: float, std: float, channel_order: str = "RGB") -> None:
        super().__init__()
        self.name = name
        self.out_channels = out_channels
        self.mean, self.std = mean, std
        self.channel_order = channel_order
        self.checkpoint_sha256: str | None = None

    @property
    def normalisation(self) -> str:
        """The normalisation in words, for records."""
        return f"(x - {self.mean:g}) / {self.std:g}"

    def normalise(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] -> the same shape in this network's channel order and value range."""
        if images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(f"images must have the shape (B, 3, H, W), not {tuple(images.shape)}.")
        ordered = images if self.channel_order == "RGB" else images.flip(1)
        return (ordered - self.mean) / self.std

    def feature_map(self, normalised: Tensor) -> Tensor:
        """(B, 3, H, W), normalised -> (B, out_channels, h, w)."""
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

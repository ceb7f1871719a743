"""Random changes of training pictures, each a function of a seed: the same for any number of workers and processes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.transforms import v2

from xfrlib.models.weights import seeded

# "photometric": what cameras and crops vary. Each strength is ours; the paper does not say whether it augments at all.
_CHANGES = {
    "none": nn.Sequential(),
    "flip": nn.Sequential(v2.RandomHorizontalFlip()),
    "photometric": nn.Sequential(
        v2.RandomHorizontalFlip(),
        v2.RandomAffine(5, translate=(0.04, 0.04), scale=(0.95, 1.05), interpolation=v2.InterpolationMode.BILINEAR),
        v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
        v2.RandomGrayscale(0.05),
    ),
}


class Augmented(Dataset[tuple[Tensor, int]]):
    """Training pictures changed at random: item (i, seed) is (image (3, H, W) in [0, 1], label).

    What the data set or the changes draw from torch's global generator is a function of the item's seed alone.
    """

    def __init__(self, dataset: Dataset[Any], name: str = "none") -> None:
        self.dataset, self.changes = dataset, _CHANGES[name]

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]  # torch's Dataset does not declare __len__

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        index, seed = key
        with seeded(seed):
            image, label = self.dataset[index][:2]
            return self.changes(image), label

"""Random changes of training pictures, each a function of a seed: the same for any number of workers and processes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.transforms import v2

from xfrlib.models.weights import seeded
from xfrlib.profile import AUGMENTATIONS

# "photometric": what cameras and crops vary. Each strength is ours; the paper does not say whether it augments at all.
_CHANGES: dict[str, tuple[nn.Module, ...]] = {
    "none": (),
    "flip": (v2.RandomHorizontalFlip(),),
    "photometric": (
        v2.RandomHorizontalFlip(),
        v2.RandomAffine(5, translate=(0.04, 0.04), scale=(0.95, 1.05), interpolation=v2.InterpolationMode.BILINEAR),
        v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
        v2.RandomGrayscale(0.05),
    ),
}


class Augmented(Dataset[tuple[Tensor, int]]):
    """Training pictures changed at random: item (i, seed) is (image (3, H, W) in [0, 1], label).

    Everything that the data set or the changes draw from torch's global generator is a function of the item's seed,
    so that neither workers nor processes nor an interruption alter what is learnt from.
    Raises ValueError for an unknown name.
    """

    def __init__(self, dataset: Dataset[Any], name: str = "none") -> None:
        if name not in _CHANGES:
            raise ValueError(f"augmentation is {name!r}; choose one of {', '.join(AUGMENTATIONS)}.")
        self.dataset, self.changes = dataset, _CHANGES[name]

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]  # torch's Dataset does not declare __len__

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        index, seed = key
        with seeded(seed):
            image, label = self.dataset[index][:2]
            for change in self.changes:
                image = change(image)
        return image, label

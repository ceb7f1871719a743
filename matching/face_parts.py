"""What each named part of a face is worth to a similarity: Shapley values over eight parts, and parts exchanged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from facedata.align import TEMPLATE, similarity_transform
from xfrlib.judge import blurred

FACE_PARTS = ("eyebrows", "eyes", "nose", "mouth", "cheeks", "chin", "forehead", "ears")
EDGE_SIGMA = 3 / 112  # standard deviation of the soft edge of an exchanged part, in sides of the picture
Score = Callable[[Tensor], Tensor]  # pictures (n, 3, H, W) -> scores (n, S)


def part_masks(template: NDArray[np.float64], size: int) -> Tensor:
    """The pixels of each of `FACE_PARTS`, which do not overlap: bool (8, size, size).

    They are simple shapes around the places of eyes, nose and mouth in an aligned picture, in which these lie at
    `template` (5, 2). Eyes, nose and mouth were found in the picture; where the other parts end is the shapes' alone.
    Hair, neck and what is behind the face are no part.
    """
    rows, columns = np.mgrid[:size, :size].reshape(2, -1)
    matrix = similarity_transform(template)  # to ArcFace's 112x112, in whose pixels all that follows is
    x, y = (np.column_stack([columns, rows]) @ matrix[:, :2].T + matrix[:, 2]).T.reshape(2, size, size)
    side = np.abs(x - TEMPLATE[:2, 0].mean())

    def ellipse(across: float, down: float, half_width: float, half_height: float) -> NDArray[np.bool_]:
        return ((side - across) / half_width) ** 2 + ((y - down) / half_height) ** 2 <= 1

    head = np.where(y < 56, ellipse(0, 56, 41, 48), ellipse(0, 56, 41, 62))
    shapes = {  # each takes what the ones before it left
        "eyes": ellipse(17.6, 51.6, 11.5, 7),
        "eyebrows": ellipse(18.5, 41, 15, 7.5),
        "nose": (y >= 46) & (y <= 81) & (side <= 4.5 + 0.27 * (y - 46)),
        "mouth": ellipse(0, 92.3, 21, 10),
        "forehead": head & (y < 46),
        "chin": head & (y > 92.3) & (side < 27),
        "cheeks": head,
        "ears": (side >= 36) & (side <= 55) & (y >= 42) & (y <= 80),
    }
    free, masks = np.ones((size, size), bool), {}
    for name, shape in shapes.items():
        masks[name] = shape & free
        free &= ~shape
    return torch.from_numpy(np.stack([masks[name] for name in FACE_PARTS]))


def transplant_part(images: Tensor, donors: Tensor, alpha: Tensor, *, match_colour: bool = True) -> Tensor:
    """Put the region of `donors` into `images`, both (B, 3, H, W) in [0, 1], with opacity (H, W) or (B, H, W).

    With `match_colour` the donor is shifted, channel by channel, by the difference of the two mean colours in the seam
    (weights alpha (1 - alpha)), so that light and skin do not draw the region's outline. Away from the region the
    picture stays as it is to the bit.
    """
    if images.shape != donors.shape or images.ndim != 4 or alpha.shape[-2:] != images.shape[2:]:
        raise ValueError(
            f"images {tuple(images.shape)}, donors {tuple(donors.shape)} and alpha {tuple(alpha.shape)} do not fit: "
            "give (B, 3, H, W) twice and (H, W) or (B, H, W)"
        )
    opacity = alpha[..., None, :, :]
    difference = donors - images
    if match_colour:
        seam = opacity * (1 - opacity)
        mean = (difference * seam).sum(dim=(2, 3), keepdim=True) / seam.sum(dim=(-2, -1), keepdim=True)
        difference = difference - mean
    return torch.where(opacity > 0, (images + opacity * difference).clamp(0, 1), images)


def exchanged(image: Tensor, donors: Tensor, masks: Tensor) -> Tensor:
    """A picture (3, H, W) with each of P parts in turn taken from each of n others: (n, P, 3, H, W).

    All are aligned to one template, so that the five points lie on each other; parts are bool (P, H, W). The edge is
    soft, and the part is shifted to the light of its surroundings: `transplant_part`.
    """
    sigma = EDGE_SIGMA * masks.shape[-1]
    alpha = blurred(masks.float()[None], sigma, reach=4)[0].clamp(0, 1)
    made = [transplant_part(image.expand(len(alpha), -1, -1, -1), one.expand(len(alpha), -1, -1, -1), alpha)
            for one in donors]  # fmt: skip
    return torch.stack(made)


@dataclass(frozen=True)
class Exchange:
    """What it does to a probe that a part is taken from another picture: by part, averaged over the donors."""

    lost: dict[str, float]  #: of the similarity to the mate, with the part of the nearest non-mate
    moved: dict[str, float]  #: how far the embedding moved with that part: 1 less the similarity to the unchanged probe
    control: dict[str, float]  #: how far with the same part of the mate's own picture
    seam: float  #: `control` over `moved`, their sums: the share that an exchange within one person has too
    passes: int


@torch.no_grad()
def exchange(embed: Score, image: Tensor, mates: Tensor, others: Tensor, own: Tensor, masks: Tensor) -> Exchange:
    """Exchange each part of a probe (3, H, W) with pictures of a non-mate, and with those of the mate as the control.

    If probe and mate are one person, the control puts in the person's own part from another picture, with the same
    seam. Its effect on the similarity to the mate would be flattering, because the template is made of those pixels; so
    seam and exchange are compared by how far the embedding moves.

    Parameters
    ----------
    embed : callable
        Pictures (n, 3, H, W) -> embeddings (n, D) of unit length.
    mates, others : Tensor
        (m, 3, H, W) and (k, 3, H, W), of the mate and of the non-mate.
    own : Tensor
        (D,), the mate's template, of unit length.
    masks : Tensor
        bool (P, H, W), in the order of `FACE_PARTS`.
    """
    probe = F.normalize(embed(image[None])[0], dim=0)
    other, mate = (
        torch.stack([embed(one) for one in exchanged(image, donors, masks)]).mean(dim=0) for donors in (others, mates)
    )
    lost = probe @ own - other @ own
    moved, control = 1 - other @ probe, 1 - mate @ probe
    seam, passes = float(control.sum() / moved.sum().clamp(min=1e-12)), 1 + len(masks) * (len(others) + len(mates))
    return Exchange(_by_part(lost), _by_part(moved), _by_part(control), seam, passes)


def _by_part(values: Tensor) -> dict[str, float]:
    return dict(zip(FACE_PARTS, values.double().tolist(), strict=False))

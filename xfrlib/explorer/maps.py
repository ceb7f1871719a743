"""What the explorer computes for one picture and one setting: the maps, and what the network says of the masks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from xfrlib.explanation import Explanation, explain_features
from xfrlib.explorer.pictures import Pictures
from xfrlib.judge import deletion_retention, perturbed
from xfrlib.regions import top_fraction_mask
from xfrlib.sdd import EXPONENTIALS, Divergence, sdd_scale
from xfrlib.trust import Judgement, should_show

RIVALS = ("most probable", "look-alikes", "by hand")


@dataclass(frozen=True)
class Settings(Divergence):
    """What one map and its mask are made with, beside the constants of SDD."""

    target: int | None = None  #: None: the predicted class
    rivals: str = "most probable"  #: one of RIVALS
    chosen: tuple[int, ...] = ()  #: the rivals picked by hand
    top_k: int = 5  #: classes compared, the target among them
    centre: bool = True
    resolution: str = "after"  #: the exponential is taken after the upsampling of the CAMs, or before it
    fraction: float = 0.2  #: share of the pixels that is deleted or retained
    fill: str = "black"  #: what replaces them

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("rivals", RIVALS), ("resolution", EXPONENTIALS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} = {getattr(self, name)!r}: use one of {', '.join(known)}")


@dataclass(frozen=True)
class Maps:
    """The maps of one picture under one setting: a batch of one throughout, on the CPU."""

    row: int
    settings: Settings
    classes: list[int]  #: those compared, the target first
    explanation: Explanation
    scale: float  #: the factor s of the target's map
    mask: Tensor  #: (1, H, W) bool

    def __str__(self) -> str:
        return f"{self.settings.form.replace('_', ' ')}, δ {self.settings.delta:.3g}, s {self.scale:.3g}"


@dataclass(frozen=True)
class Answers:
    """What the network says of the picture without the masked pixels and of these alone."""

    pictures: dict[str, Tensor]  #: "deletion" and "retention": (3, H, W)
    chances: dict[str, Tensor]  #: "picture", "deletion" and "retention": (N,) probabilities
    measures: dict[Any, float]  #: a row of `deletion_retention`
    verdict: Judgement | None  #: whether the map should be shown; None if the target is not the predicted class


class Remembered(nn.Module):
    """A network that answers from memory what it was asked before, wherever it computes: from and to the CPU."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self._answers, self.training = model, dict[bytes, Tensor](), False

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, N)."""
        key = hashlib.blake2b(images.numpy().tobytes(), digest_size=16).digest()
        if key not in self._answers:
            self._answers[key] = self.model(images.to(next(self.model.parameters()).device)).cpu()
        return self._answers[key]


class Calculator:
    """Maps and answers for the pictures of `pictures`; `temperature` is that of `xfrlib.deletion_retention`."""

    def __init__(self, pictures: Pictures, temperature: float = 1.0) -> None:
        self.pictures, self.temperature = pictures, temperature
        self._network = Remembered(pictures.model)

    def classes(self, row: int, settings: Settings) -> list[int]:
        """The classes compared in picture `row`, the target first. Raises `ValueError` if there is no rival."""
        target = self.pictures.predicted(row)[0] if settings.target is None else settings.target
        if settings.rivals == "by hand":
            if not settings.chosen:
                raise ValueError("no rival is chosen: mark at least one in the list (Ctrl or Shift marks several)")
            return [target, *settings.chosen]
        if not 2 <= settings.top_k <= len(self.pictures.names):
            raise ValueError(f"top_k = {settings.top_k}: must be between 2 and {len(self.pictures.names)}")
        alike = settings.rivals == "look-alikes"
        order = self.pictures.look_alikes(target) if alike else [k for k, _ in self.pictures.ranking(row)]
        if not order:
            raise ValueError(f"{self.pictures.names[target]} is alone in the family: choose other rivals")
        return [target, *(label for label in order if label != target)][: settings.top_k]

    def maps(self, row: int, settings: Settings) -> Maps:
        """CAMs, SDD map and mask of picture `row`; no forward pass beyond the picture's own, which is made once."""
        target, *rivals = classes = self.classes(row, settings)
        how: Any = {"centre": settings.centre, "divergence": settings, "exponential": settings.resolution}
        seen, size = self.pictures.pooled(row), self.pictures.size
        result = explain_features(seen, size=size, target=target, competitors=rivals, **how)
        mask = top_fraction_mask(result.log_sdd, settings.fraction)
        return Maps(row, settings, classes, result, float(sdd_scale(result.cams, settings)[0]), mask)

    def answers(self, maps: Maps) -> Answers:
        """Deletion and retention of `maps`: the network is asked about masks that it has not seen."""
        network, image, mask = self._network, self.pictures.image(maps.row)[None], maps.mask
        fill, found = maps.settings.fill, maps.explanation
        options: Any = {"fill": fill, "logits": found.logits, "pairs": found.classes, "temperature": self.temperature}
        measures = deletion_retention(network, image, mask, **options).iloc[0].to_dict()
        removed = {"deletion": mask, "retention": ~mask}
        pictures = {kind: perturbed(image, pixels, fill=fill)[0] for kind, pixels in removed.items()}
        said = {"picture": found.logits} | {kind: network(picture[None]) for kind, picture in pictures.items()}
        chances = {kind: logits[0].double().softmax(dim=0) for kind, logits in said.items()}
        judged = maps.classes[0] == self.pictures.predicted(maps.row)[0]
        verdict = should_show(network, image, mask, **options)[0] if judged else None
        return Answers(pictures, chances, measures, verdict)

"""What the explorer computes for one picture and one setting: the maps, and what the network says of the masks."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from xfrlib.explanation import Explanation, explain_features
from xfrlib.explorer.pictures import Pictures, Progress
from xfrlib.judge import deletion_retention, perturbed
from xfrlib.regions import top_fraction_mask
from xfrlib.sdd import EXPONENTIALS as RESOLUTIONS
from xfrlib.sdd import Divergence, sdd_scale
from xfrlib.trust import Judgement, should_show

RIVALS = ("most probable", "look-alikes", "by hand")
_KEPT_ANSWERS = 4096  # of N numbers each


@dataclass(frozen=True)
class Settings:
    """What one map and its mask are made with; the arguments of `xfrlib.explain` where the names are the same."""

    target: int | None = None  # None: the predicted class
    rivals: str = "most probable"  # one of RIVALS
    chosen: tuple[int, ...] = ()  # the rivals picked by hand
    top_k: int = 5  # classes compared, the target among them
    delta: float = 1.0
    scale: float = 1.0
    scale_min: float = 1.0
    scale_max: float = 50.0
    form: str = "sum"
    centre: bool = True
    resolution: str = "after"  # the exponential is taken after the upsampling of the CAMs, or before it
    fraction: float = 0.2  # share of the pixels that is deleted or retained
    fill: str = "black"  # what replaces them

    def __post_init__(self) -> None:
        for name, known in (("rivals", RIVALS), ("resolution", RESOLUTIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} = {getattr(self, name)!r}: use one of {', '.join(known)}")

    @property
    def of_the_map(self) -> Settings:
        """The same with the defaults for all that does not change the map."""
        return replace(self, fraction=0.2, fill="black")


@dataclass(frozen=True)
class Maps:
    """The maps of one picture under one setting: a batch of one throughout, on the CPU."""

    row: int
    settings: Settings
    explanation: Explanation
    scale: float  # the factor s of the target's map
    mask: Tensor  # (1, H, W) bool

    @property
    def classes(self) -> list[int]:
        """The classes compared, the target first."""
        return self.explanation.classes[0].tolist()

    @property
    def predicted(self) -> int:
        """The class that the network gives the picture."""
        return int(self.explanation.logits[0].argmax())


@dataclass(frozen=True)
class Answers:
    """What the network says of the picture without the masked pixels and of these alone."""

    pictures: dict[str, Tensor]  # "deletion" and "retention": (3, H, W)
    chances: dict[str, Tensor]  # "picture", "deletion" and "retention": (N,) probabilities
    measures: dict[str, float]  # a row of `deletion_retention`
    verdict: Judgement | None  # whether the map should be shown; None if the target is not the predicted class


class Remembered(nn.Module):
    """A network that answers from memory what it was asked before."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training
        self._answers: OrderedDict[bytes, Tensor] = OrderedDict()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, N)."""
        key = hashlib.blake2b(images.cpu().numpy().tobytes(), digest_size=16).digest()
        if key not in self._answers:
            self._answers[key] = self.model(images)
            if len(self._answers) > _KEPT_ANSWERS:
                self._answers.popitem(last=False)
        self._answers.move_to_end(key)
        return self._answers[key]


class Calculator:
    """Maps and answers for the pictures of `pictures`; what was computed once is remembered.

    `temperature` calibrates the columns of `deletion_retention` that ask for it, and the verdict; `mean` (3,) is the
    colour of the fill "mean".
    """

    def __init__(self, pictures: Pictures, *, temperature: float = 1.0, mean: Tensor | None = None) -> None:
        self.pictures, self.temperature, self.mean = pictures, temperature, mean
        self._network = Remembered(pictures.model)
        self._explain = lru_cache(maxsize=64)(self._explain_anew)
        self._answer = lru_cache(maxsize=64)(self._answer_anew)

    def rivals(self, row: int, settings: Settings, progress: Progress | None = None) -> list[int]:
        """The classes that the target of picture `row` is compared with.

        Look-alikes are known when the network has seen all pictures; `progress` is told how far it is. Raises
        `ValueError` if there is none, or one picked by hand is the target.
        """
        target = self.target(row, settings)
        if settings.rivals == "by hand":
            if not settings.chosen:
                raise ValueError("no rival is chosen: mark at least one in the list (Ctrl or Shift marks several)")
            return list(settings.chosen)
        if not 2 <= settings.top_k <= len(self.pictures.names):
            raise ValueError(f"top_k = {settings.top_k}: must be between 2 and {len(self.pictures.names)}")
        alike = settings.rivals == "look-alikes"
        others = self.pictures.look_alikes(target, progress) if alike else self.by_score(row, target)
        return others[: settings.top_k - 1]

    def target(self, row: int, settings: Settings) -> int:
        """The class explained: the one that is set, else the predicted one."""
        return self.pictures.predicted(row)[0] if settings.target is None else settings.target

    def by_score(self, row: int, target: int) -> list[int]:
        """All classes but `target`, the most probable for picture `row` first."""
        order = self.pictures.logits(row).argsort(descending=True, stable=True).tolist()
        return [label for label in order if label != target]

    def maps(self, row: int, settings: Settings) -> Maps:
        """CAMs, SDD map and mask of picture `row`; no forward pass beyond the picture's own, which is made once."""
        explanation, scale = self._explain(row, settings.of_the_map)
        return Maps(row, settings, explanation, scale, top_fraction_mask(explanation.log_sdd, settings.fraction))

    def _explain_anew(self, row: int, settings: Settings) -> tuple[Explanation, float]:
        pooled = self.pictures.pooled(row)
        whole = self.pictures.image(row).shape[1:]
        divergence = Divergence(settings.delta, settings.scale, settings.scale_min, settings.scale_max, settings.form)
        result = explain_features(
            pooled,
            size=(whole[0], whole[1]),
            target=self.target(row, settings),
            competitors=self.rivals(row, settings),
            centre=settings.centre,
            divergence=divergence,
            exponential=settings.resolution,
        )
        return result, float(sdd_scale(result.cams, divergence)[0])

    def answers(self, maps: Maps) -> Answers:
        """Deletion and retention of `maps`: the network is asked about masks that it has not seen."""
        self._network.training = self.pictures.model.training
        mask = maps.mask[0].numpy()
        return self._answer(maps.row, maps.classes[0] == maps.predicted, maps.settings.fill, mask.tobytes())

    def _answer_anew(self, row: int, judged: bool, fill: str, mask_bytes: bytes) -> Answers:
        device = self.pictures.device
        image = self.pictures.image(row)[None].to(device)
        mask = torch.frombuffer(bytearray(mask_bytes), dtype=torch.bool).view(1, *image.shape[2:]).to(device)
        options: dict[str, Any] = {
            "fill": fill, "mean": self.mean, "logits": self.pictures.logits(row)[None].to(device),
            "temperature": self.temperature,
        }  # fmt: skip
        table = deletion_retention(self._network, image, mask, **options)
        pictures = {
            kind: perturbed(image, removed, fill, mean=self.mean)
            for kind, removed in (("deletion", mask), ("retention", ~mask))
        }
        logits = {"picture": options["logits"], **{kind: self._network(p) for kind, p in pictures.items()}}
        return Answers(
            pictures={kind: picture[0].cpu() for kind, picture in pictures.items()},
            chances={kind: z[0].double().softmax(dim=0).cpu() for kind, z in logits.items()},
            measures={str(name): float(value) for name, value in table.iloc[0].items()},
            verdict=should_show(self._network, image, mask, **options)[0] if judged else None,
        )

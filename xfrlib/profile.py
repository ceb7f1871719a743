"""The profile: every setting of one way to run the whole book, read from ``profiles/<name>.yaml`` and checked."""

from __future__ import annotations

import dataclasses
import difflib
import os
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FORMS = ("sum", "product", "local_softmax")
FILLS = ("black", "grey", "mean", "blur", "linear")
AUGMENTATIONS = ("none", "flip", "photometric")
FREEZES = ("nothing", "batchnorm", "backbone")
PRECISIONS = ("auto", "fp32", "bf16")


def project_root() -> Path:
    """Folder that holds ``profiles/`` and ``notebooks/``: the checkout from which xfrlib was installed in place."""
    return Path(__file__).resolve().parents[1]


def data_root(override: str | Path = "") -> Path:
    """Where data sets and weights lie: `override`, else the environment variable ``XFR_DATA``, else ``data/``."""
    return Path(override or os.environ.get("XFR_DATA") or project_root() / "data").expanduser().resolve()


@dataclass(frozen=True)
class Profile:
    """All settings of a run. Unknown names, wrong types and impossible values raise `ValueError` naming the field."""

    name: str
    title: str
    # data
    dataset: str  # "synthetic": made faces, rendered on the spot; "folder": <data root>/<folder>/<identity>/<picture>
    folder: str = ""
    shows_real_people: bool = True  # the site carries a banner and the publishing workflow refuses it
    publishable: bool = False
    families: int = 10  # synthetic only: families of look-alikes
    family_size: int = 3  # synthetic only: members of a family
    pictures_per_identity: int = 40  # synthetic only
    min_images: int = 10  # identities with fewer usable pictures are left out
    max_images: int | None = None  # pictures of one identity above this number are left out
    identities: int | None = None  # how many the folder should hold; another number is reported before a run
    pictures: int | None = None  # likewise
    fractions: tuple[float, ...] = (0.8, 0.1, 0.1)  # train, validation, test; per identity, held-out parts rounded up
    # model and fine-tuning
    backbone: str = "slim"
    # "builtin": weights inside xfrlib; "hub:<owner>/<name>": from the Hugging Face Hub; "": random; else a path below
    # the data root
    checkpoint: str = "builtin"
    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 0.005  # of the head, and of the backbone unless the next line says otherwise
    backbone_learning_rate: float | None = None
    weight_decay: float = 0.01
    lr_step: int = 10
    lr_gamma: float = 0.1
    augmentation: str = "flip"  # how training pictures are changed at random: none, flip or photometric
    accumulation: int = 1  # parts of a batch that go through the network one after the other, to save memory
    freeze: str = "nothing"  # what does not learn: nothing, batchnorm (its statistics) or backbone
    precision: str = "auto"  # of training: fp32, bf16, or bf16 where the device has it
    compile: bool = False  # torch.compile the network for training
    num_workers: int = 0  # processes that read pictures beside each training process
    seed: int = 0
    networks: int = 1  # fine-tunings that differ in the seed alone (seed, seed + 1, ...)
    # explanation
    top_k: int = 5  # number of classes compared, the target among them
    delta: float = 1.0
    scale: float = 1.0  # k of the scale s
    scale_min: float = 1.0
    scale_max: float = 50.0
    form: str = "sum"
    centre: bool = True
    # evaluation
    fraction: float = 0.2  # share of the pixels that is deleted or retained
    fills: tuple[str, ...] = ("black",)
    draws: int = 5  # draws of every random control
    resamples: int = 2000  # bootstrap resamples
    eval_batch_size: int = 64
    # the chapters that compare: test pictures of each network, stratified over people; None is all of them
    fast_pictures: int | None = None  # for methods that cost a few passes
    slow_pictures: int = 100  # for Score-CAM, LIME, KernelSHAP and RISE; 0 leaves them out
    curve_pictures: int = 60  # for the curves over all shares
    tuning_pictures: int = 40  # validation pictures on which settings are chosen
    judging_fills: tuple[str, ...] = ("black", "blur")  # judge what was chosen with grey
    gallery_subjects: int = 20  # people who get a page in the gallery
    # the whole
    hours: float = 24.0  # a run that would take longer is refused before it starts

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _typed(field.name, getattr(self, field.name), hints[field.name]))
        self._check()

    def _check(self) -> None:
        def need(ok: bool, field: str, mend: str) -> None:
            if not ok:
                raise ValueError(f"{field} = {getattr(self, field)!r}: {mend}")

        need(self.dataset in ("synthetic", "folder"), "dataset", 'use "synthetic" or "folder"')
        need(
            self.dataset == "synthetic" or bool(self.folder),
            "folder",
            "name the folder of identities below the data root",
        )
        counts = (
            "families",
            "family_size",
            "epochs",
            "lr_step",
            "accumulation",
            "networks",
            "draws",
            "eval_batch_size",
            "gallery_subjects",
        )
        for field in counts:
            need(getattr(self, field) >= 1, field, "must be at least 1")
        need(
            self.pictures_per_identity >= 3,
            "pictures_per_identity",
            "must be at least 3: one for each part of the split",
        )
        need(self.min_images >= 3, "min_images", "must be at least 3: one for each part of the split")
        need(
            self.max_images is None or self.max_images >= self.min_images, "max_images", "must not be below min_images"
        )
        need(
            len(self.fractions) == 3 and min(self.fractions) > 0 and abs(sum(self.fractions) - 1) < 1e-9,
            "fractions",
            "give three positive shares (train, validation, test) that sum to 1",
        )
        for field in ("learning_rate", "lr_gamma", "delta", "scale", "scale_min"):
            need(0 < getattr(self, field) < float("inf"), field, "must be a positive number")
        need(
            self.backbone_learning_rate is None or self.backbone_learning_rate > 0,
            "backbone_learning_rate",
            "must be above 0, or empty for the learning rate of the head",
        )
        need(self.batch_size >= 2, "batch_size", "must be at least 2: one picture gives BatchNorm poor statistics")
        need(self.num_workers >= 0, "num_workers", "must be 0 or more")
        need(self.hours > 0, "hours", "must be above 0")
        for field, known in (("augmentation", AUGMENTATIONS), ("freeze", FREEZES), ("precision", PRECISIONS)):
            need(getattr(self, field) in known, field, f"use one of {', '.join(known)}")
        need(self.weight_decay >= 0, "weight_decay", "must be 0 or more")
        need(self.seed >= 0, "seed", "must be 0 or more")
        need(self.top_k >= 2, "top_k", "must be at least 2: the target class and one rival")
        need(self.scale_max >= self.scale_min, "scale_max", "must not be below scale_min")
        need(self.form in FORMS, "form", f"use one of {', '.join(FORMS)}")
        need(0 < self.fraction < 1, "fraction", "must lie between 0 and 1, both excluded")
        for field in ("fills", "judging_fills"):
            need(bool(getattr(self, field)) and set(getattr(self, field)) <= set(FILLS), field,
                 f"use some of {', '.join(FILLS)}")  # fmt: skip
        need("grey" not in self.judging_fills, "judging_fills", "grey chooses the settings, so that it cannot judge")
        need(self.fast_pictures is None or self.fast_pictures >= 1, "fast_pictures", "must be at least 1, or empty")
        for field, least in (("slow_pictures", 0), ("curve_pictures", 1), ("tuning_pictures", 1)):
            need(getattr(self, field) >= least, field, f"must be at least {least}")
        need(self.resamples >= 100, "resamples", "must be at least 100 for an interval to mean anything")

    def replace(self, **changes: Any) -> Profile:
        """A copy with some fields changed, checked like the original. Raises `ValueError` for an unknown field."""
        _refuse_unknown(changes, "parameter")
        return dataclasses.replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}


def load_profile(name_or_path: str | Path) -> Profile:
    """Read a profile by name (``"quick"``: ``profiles/quick.yaml``) or from the path of a YAML file.

    Raises `FileNotFoundError` naming the profiles there are, and `ValueError` naming the field at fault.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = project_root() / "profiles" / f"{name_or_path}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in (project_root() / "profiles").glob("*.yaml"))
        raise FileNotFoundError(
            f"there is no profile {str(name_or_path)!r}; known: {', '.join(known)}, or the path of a YAML file"
        )
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError(f"{path}: a profile is a mapping of field names to values")
    values.setdefault("name", path.stem)
    values.setdefault("title", values["name"])
    _refuse_unknown(values, f"field in {path.name}:")
    if "dataset" not in values:
        raise ValueError(f'{path.name}: the field dataset is missing; use "synthetic" or "folder"')
    return Profile(**values)


def _refuse_unknown(values: dict[str, Any], what: str) -> None:
    known = [field.name for field in dataclasses.fields(Profile)]
    for name in values:
        if name not in known:
            raise ValueError(f"unknown {what} {name!r}{did_you_mean(name, known)}")


def did_you_mean(name: str, known: list[str]) -> str:
    """The end of a sentence that offers the nearest known name, or lists them all."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


def _typed(field: str, value: Any, hint: Any) -> Any:
    """Check `value` against the annotation of its field; whole numbers pass as floats, lists become tuples."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for kind in kinds:
        if kind is types.NoneType and value is None:
            return None
        if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if kind in (int, str, bool) and type(value) is kind:
            return value
        if typing.get_origin(kind) is tuple and isinstance(value, list | tuple):
            return tuple(_typed(field, item, typing.get_args(kind)[0]) for item in value)
    wanted = " or ".join("nothing" if k is types.NoneType else getattr(k, "__name__", str(k)) for k in kinds)
    raise ValueError(f"{field} = {value!r}: must be {wanted}, not {type(value).__name__}")

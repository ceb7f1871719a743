"""The profile: every setting of one way to run the whole book, read from ``profiles/<name>.yaml`` and checked."""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import re
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import yaml

FORMS = ("sum", "product", "local_softmax")
FILLS = ("black", "grey", "mean", "blur", "linear")
AUGMENTATIONS = ("none", "flip", "photometric")
FREEZES = ("nothing", "batchnorm", "backbone")
PRECISIONS = ("auto", "fp32", "bf16")
INSTALLED = Path(__file__).with_name("profiles")  # where a wheel puts the profiles; a checkout has them at its root


def project_root() -> Path:
    """Folder of ``data/`` and ``_build/``: the checkout that xfrlib runs from, else the current folder."""
    return Path.cwd() if INSTALLED.is_dir() else Path(__file__).resolve().parents[1]


def data_root(override: str | Path = "") -> Path:
    """Where data sets and weights lie: `override`, else the environment variable ``XFR_DATA``, else ``data/``."""
    return expanded("data_root", override or os.environ.get("XFR_DATA") or project_root() / "data").resolve()


def expanded(name: str, given: str | Path) -> Path:
    """The path that the setting `name` gives, "~" made a user's folder; a `ValueError` names what is no path."""
    if "\0" in str(given):
        raise ValueError(f"{name} = {str(given)!r}: no path holds a zero byte")
    try:
        return Path(given).expanduser()
    except RuntimeError as error:  # there is no such user
        raise ValueError(f"{name} = {str(given)!r}: {error}") from error


# A limit: what holds for every value that a field can have, and the mend of others.
def _least(least: int, why: str = "") -> tuple[Any, str]:
    return lambda value: value >= least, f"must be at least {least}{why}"


def _one_of(*known: str) -> tuple[Any, str]:
    return lambda value: value in known, f"use one of {', '.join(known)}"


Count = Annotated[int, _least(1)]
Part = Annotated[int, _least(3, ": one for each part of the split")]
Positive = Annotated[float, (lambda value: 0 < value < math.inf, "must be a positive number")]
NotNegative = Annotated[float, (lambda value: 0 <= value < math.inf, "must be at least 0 and finite")]
Share = Annotated[float, (lambda value: 0 < value < 1, "must lie between 0 and 1, both excluded")]
Fills = Annotated[tuple[Annotated[str, _one_of(*FILLS)], ...], (bool, f"use some of {', '.join(FILLS)}")]
Judges = Annotated[Fills, (lambda fills: "grey" not in fills, "grey chooses the settings, so that it cannot judge")]
_THREE = "give three positive shares (train, validation, test) that sum to 1"
Shares = Annotated[tuple[Share, ...], (lambda three: len(three) == 3 and math.isclose(sum(three), 1), _THREE)]


@dataclasses.dataclass(frozen=True)
class Profile:
    """All settings of a run. Unknown names, wrong types and impossible values raise `ValueError` naming the field."""

    name: str
    title: str
    # data
    #: "synthetic": made faces, rendered on the spot; "folder": <data root>/<folder>/<identity>/<picture>
    dataset: Annotated[str, _one_of("synthetic", "folder")]
    folder: str = ""
    shows_real_people: bool = True  #: the site carries a banner and the publishing workflow refuses it
    publishable: bool = False
    families: Count = 10  #: synthetic only: families of look-alikes
    family_size: Count = 3  #: synthetic only: members of a family
    pictures_per_identity: Part = 40  #: synthetic only
    min_images: Part = 10  #: identities with fewer usable pictures are left out
    max_images: int | None = None  #: pictures of one identity above this number are left out
    identities: int | None = None  #: how many the folder should hold; another number is reported before a run
    pictures: int | None = None  #: likewise
    fractions: Shares = (0.8, 0.1, 0.1)  #: train, validation, test; per identity, held-out parts rounded up
    # model and fine-tuning
    backbone: str = "slim"
    #: "builtin": weights inside xfrlib; "hub:<owner>/<name>": from the Hugging Face Hub; "": random; else a path below
    #: the data root
    checkpoint: str = "builtin"
    epochs: Count = 20
    batch_size: Annotated[int, _least(2, ": one picture gives BatchNorm poor statistics")] = 64
    learning_rate: Positive = 0.005  #: of the head, and of the backbone unless the next line says otherwise
    backbone_learning_rate: Positive | None = None
    weight_decay: NotNegative = 0.01
    lr_step: Count = 10
    lr_gamma: Positive = 0.1
    augmentation: Annotated[str, _one_of(*AUGMENTATIONS)] = "flip"  #: how training pictures are changed at random
    accumulation: Count = 1  #: parts of a batch that go through the network one after the other, to save memory
    freeze: Annotated[str, _one_of(*FREEZES)] = "nothing"  #: what does not learn; batchnorm: its statistics
    precision: Annotated[str, _one_of(*PRECISIONS)] = "auto"  #: of training; auto: bf16 where the device has it
    compile: bool = False  #: torch.compile the network for training
    num_workers: Annotated[int, _least(0)] = 0  #: processes that read pictures beside each training process
    seed: Annotated[int, _least(0)] = 0
    networks: Count = 1  #: fine-tunings that differ in the seed alone (seed, seed + 1, ...)
    # explanation
    top_k: Annotated[int, _least(2, ": the target class and one rival")] = 5  #: classes compared, the target among them
    delta: Positive = 1.0
    scale: Positive = 1.0  #: k of the scale s
    scale_min: Positive = 1.0
    scale_max: float = 50.0
    form: Annotated[str, _one_of(*FORMS)] = "sum"
    centre: bool = True
    # evaluation
    fraction: Share = 0.2  #: share of the pixels that is deleted or retained
    fills: Fills = ("black",)
    draws: Count = 5  #: draws of every random control
    eval_batch_size: Count = 64
    # the chapters that compare: test pictures of each network, stratified over people; None is all of them
    fast_pictures: Annotated[int, _least(1, ", or empty")] | None = None  #: for methods that cost a few passes
    slow_pictures: Annotated[int, _least(0)] = 100  #: for Score-CAM, LIME, KernelSHAP and RISE; 0 leaves them out
    curve_pictures: Count = 60  #: for the curves over all shares
    tuning_pictures: Count = 40  #: validation pictures on which settings are chosen
    judging_fills: Judges = ("black", "blur")  #: judge what was chosen with grey
    gallery_subjects: Count = 20  #: people who get a page in the gallery
    # the whole
    hours: Positive = 24.0  #: a run that would take longer is refused before it starts

    def __post_init__(self) -> None:
        for field, hint in get_type_hints(type(self), include_extras=True).items():
            object.__setattr__(self, field, _checked(field, getattr(self, field), hint))
        if self.dataset == "folder" and not self.folder:
            raise ValueError("folder = '': name the folder of identities below the data root")
        if self.max_images is not None and self.max_images < self.min_images:
            raise ValueError(f"max_images = {self.max_images}: must not be below min_images")
        if not self.scale_max >= self.scale_min:
            raise ValueError(f"scale_max = {self.scale_max}: must not be below scale_min")

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
    name, folder = str(name_or_path), INSTALLED if INSTALLED.is_dir() else project_root() / "profiles"
    path = expanded("profile", name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise FileNotFoundError(f"there is no profile {name!r}; known: {known}, or the path of a YAML file")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: is no YAML in UTF-8: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: a profile is a mapping of field names to values")
    values = {"name": path.stem, "title": values.get("name", path.stem), **values}
    _refuse_unknown(values, f"field in {path.name}:")
    if "dataset" not in values:
        raise ValueError(f'{path.name}: the field dataset is missing; use "synthetic" or "folder"')
    return Profile(**values)


def _refuse_unknown(values: dict[str, Any], what: str) -> None:
    known = [field.name for field in dataclasses.fields(Profile)]
    for name in map(str, (name for name in values if name not in known)):
        raise ValueError(f"unknown {what} {name!r}{did_you_mean(name, known)}")


def did_you_mean(name: str, known: list[str]) -> str:
    """The end of a sentence that offers the nearest known name, or lists them all."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


def _checked(field: str, value: Any, hint: Any) -> Any:
    """`value`, if the annotation of its field allows it; whole numbers pass as floats, lists become tuples."""
    if optional := NoneType in get_args(hint):
        hint = get_args(hint)[0]
        if value is None:
            return None
    kind, *limits = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if get_origin(kind) is tuple:
        words = re.findall(r"[^\s,'\"()\[\]]+", str(value))
        if isinstance(value, str) and re.fullmatch(r"\s*\[[^]]*\]\s*", value):  # papermill's -p makes text of a list
            value = [yaml.safe_load(word) for word in words]
        if not isinstance(value, list | tuple):
            mend = f'papermill -y "{field}: [{", ".join(words)}]"'
            raise ValueError(f"{field} = {value!r}: must be a list, as in {mend} or in a profile")
        value = tuple(_checked(field, item, get_args(kind)[0]) for item in value)
    elif kind is float and (type(value) is int or re.fullmatch(r"[-+]?\d+e[-+]?\d+", str(value))):
        value = float(value)  # 1, and 1e-4, which YAML calls a text
    elif type(value) is not kind:
        wanted = f"{kind.__name__} or nothing" if optional else kind.__name__
        raise ValueError(f"{field} = {value!r}: must be {wanted}, not {type(value).__name__}")
    for holds, mend in limits:
        if not holds(value):
            raise ValueError(f"{field} = {value!r}: {mend}")
    return value

"""What may go in: pictures of the right kind and range, finite numbers, masks, a network in evaluation mode."""

from __future__ import annotations

import importlib
import numbers
from typing import Any

import torch
from torch import Tensor, nn

from xfrlib.profile import FILLS

MARGIN = 0.1  # beyond [0, 1]: what sharp resizing may overshoot by
_MENDS = {"list": "torch.stack", "ndarray": "torch.from_numpy", "Image": "torchvision's pil_to_tensor(...)[None] / 255"}


def need_none(bad: Tensor, sentence: str) -> None:
    """Raise `sentence` as a `ValueError` if any of `bad` (B,) is true; its ``{}`` becomes the first few such places."""
    if bad.any():
        raise ValueError(sentence.format(", ".join(map(str, bad.nonzero().flatten().tolist()[:5]))))


def need_finite(values: Tensor, where: str) -> None:
    """Name the samples of `values` (B, ...) that have a NaN or infinite value, by a `ValueError`."""
    finite = torch.isfinite(values).flatten(1).all(dim=1)
    need_none(~finite, f"sample {{}} of the batch has a NaN or infinite value in {where}")


def need_classes(name: str, classes: Tensor, count: int) -> Tensor:
    """`classes` as int64, or a `ValueError` unless they are whole numbers from 0 to `count` - 1."""
    if classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool:
        raise ValueError(f"{name} must be class indices, got {classes.dtype}")
    classes = classes.long()
    if classes.numel() and not 0 <= int(classes.min()) <= int(classes.max()) < count:
        raise ValueError(f"{name} must lie in 0 to {count - 1}, got {int(classes.min())} to {int(classes.max())}")
    return classes


def need_count(name: str, value: Any) -> None:
    """Refuse, by a `ValueError`, what is no whole number of at least 1."""
    if not (isinstance(value, numbers.Integral) and is_number(value) and int(value) >= 1):
        raise ValueError(f"{name} = {value!r}: must be a whole number, at least 1")


def need_tensor(name: str, values: Any, shape: str) -> None:
    """Refuse what is no tensor by a `ValueError` that says how to make one."""
    if not isinstance(values, Tensor):
        mends = [f"; {_MENDS[kind.__name__]} makes one" for kind in type(values).__mro__ if kind.__name__ in _MENDS]
        raise ValueError(f"{name} must be a tensor {shape}, got {type(values).__name__}{''.join(mends)}")
    if values.is_complex() or values.is_meta or values.layout != torch.strided:
        raise ValueError(f"{name} must be dense and real {shape}, got {values.dtype} {values.layout}, {values.device}")


def is_number(value: Any) -> bool:
    """Whether it can be compared with limits: no text, no list, no NaN, and no truth value."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and value == value


def need_pictures(images: Any, *, unit: str = "", otherwise: str = "") -> None:
    """Refuse, by a `ValueError`, what is no batch (B, 3, H, W) of at least one picture of finite values.

    With `unit`, who takes [0, 1] alone, also integers and values more than a tenth outside; `otherwise` ends the mend.
    """
    need_tensor("images", images, "(B, 3, H, W)")
    if images.ndim != 4:
        raise ValueError(f"images must be (B, 3, H, W), got {tuple(images.shape)}; add a batch axis with images[None]")
    if not images.numel():
        raise ValueError(f"images {tuple(images.shape)} holds no picture: give at least one")
    low, high = (float(end) for end in images.detach().aminmax())  # NaN and infinity come through this one pass
    if not high - low < torch.inf:
        need_finite(images, "images")
    if unit and not (images.is_floating_point() and low >= -MARGIN and high <= 1 + MARGIN):
        mend = "undo the normalisation: images * std + mean"
        if low >= -MARGIN:
            mend = "images.clamp(0, 1)" if images.is_floating_point() and high <= 2 else "divide by 255: images / 255"
        elif max(-low, high) <= 1 + MARGIN:
            mend = "from [-1, 1] it is (images + 1) / 2"
        seen = f"images are {images.dtype} from {low:.3g} to {high:.3g}"
        raise ValueError(f"{seen}, but {unit} floats in [0, 1]: {mend}{otherwise}")


def need_module(module: str, who: str, extra: str) -> Any:
    """A module that only some need, or an `ImportError` that says who needs it and which extra brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f'{who} needs {module.split(".")[0]}: pip install "{extra}" ({error})') from error


def need_network(model: Any) -> nn.Module:
    """`model`, or a `ValueError` for what is no network: a function, a class, the tensors of a checkpoint."""
    if isinstance(model, nn.Module):
        return model
    raise ValueError(f"model must be a torch.nn.Module, got {type(model).__name__}: build it, load its weights into it")


def need_evaluation(model: nn.Module) -> None:
    """Refuse, by a `ValueError`, a network that is in training mode, or any part of which is: it is named."""
    for name, part in need_network(model).named_modules():
        if getattr(part, "training", False):  # a frozen TorchScript has no mode
            which = f"the model's {name} is" if name else "the model is"
            raise ValueError(f"{which} in training mode, so its answers depend on the batch: call model.eval() first")


def need_judgeable(model: nn.Module, images: Any, masks: Any, fill: str | Tensor, temperature: float) -> None:
    """Refuse, by a `ValueError`, what `xfrlib.deletion_retention` cannot measure; the network is not run."""
    if not isinstance(fill, str):
        need_tensor("fill", fill, "(3, 1, 1) or a name")
    elif fill not in FILLS:
        raise ValueError(f"fill = {fill!r}: use one of {', '.join(FILLS)}")
    if not (is_number(temperature) and 1e-6 <= temperature <= 1e6):  # beyond, log-odds overflow or vanish
        raise ValueError(f"temperature = {temperature!r}: must be a positive number, from 1e-6 to 1e6")
    # Black and grey are defined in [0, 1] alone, and nobody knows in which values a mean was taken.
    unit = f"fill = {fill!r} needs" if isinstance(fill, str) and fill != "blur" else ""
    need_pictures(images, unit=unit, otherwise=", or give fill as a tensor of the images' own values, (3, 1, 1)")
    need_tensor("masks", masks, "(B, H, W) of bool")
    wanted = (images.shape[0], *images.shape[2:])
    if masks.dtype != torch.bool or masks.shape != wanted:
        raise ValueError(f"masks must be bool {wanted}, got {masks.dtype} {tuple(masks.shape)}")
    need_evaluation(model)


def answer(model: Any, images: Tensor) -> Any:
    """``model(images)``; where torch refuses the pictures, a `ValueError` that says of which kind they are."""
    try:
        return model(images)
    except (RuntimeError, AssertionError) as error:
        if "memory" in str(error):
            raise
        refused = f"{type(model).__name__} does not take images {tuple(images.shape)} of {images.dtype}"
        raise ValueError(f"{refused}: {str(error).splitlines()[0]}") from error


def need_logits(logits: Any, images: Tensor) -> None:
    """Refuse, by a `ValueError`, answers of a network that are no finite numbers (B, N), a row for each picture."""
    if not isinstance(logits, Tensor):
        raise ValueError(f"the model returns a {type(logits).__name__}: wrap it so that it returns the logits alone")
    if logits.ndim != 2 or len(logits) != len(images) or not logits.is_floating_point():
        raise ValueError(f"the model returns {logits.dtype} {tuple(logits.shape)}, not logits ({len(images)}, N)")
    need_finite(logits, "its logits: the weights must be finite, and half precision must not overflow")


def need_odds(logits: Tensor) -> None:
    """Refuse, by a `ValueError`, rows (B, N) that have no log-odds: those of one class, and probabilities."""
    if logits.shape[1] < 2:
        raise ValueError(f"logits {tuple(logits.shape)} are of fewer than two classes: nobody is a rival")
    sums = logits.float().sum(dim=1)
    rounding = max(1e-4, 2 * torch.finfo(logits.dtype).eps)
    if bool((logits >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=rounding):
        raise ValueError("the model's rows are probabilities already: let it return its logits, before the softmax")


def need_pairs(pairs: Any, logits: Tensor) -> Tensor:
    """Pairs (B, K) as indices of `logits` (B, N), or a `ValueError` that says what they are instead."""
    need_tensor("pairs", pairs, "(B, K)")
    if pairs.ndim != 2 or len(pairs) != len(logits) or pairs.shape[1] < 2:
        raise ValueError(f"pairs must be ({len(logits)}, K), K at least 2, got {tuple(pairs.shape)}")
    return need_classes("pairs", pairs, logits.shape[1]).to(logits.device)


def fitting_colours(name: str, colours: Any, shape: str, images: Tensor) -> Tensor:
    """A colour for each pixel of `images`, from one (3,) or what broadcasts; `ValueError` if not, or not finite."""
    need_tensor(name, colours, shape)
    try:
        each = colours[:, None, None] if colours.ndim == 1 else colours
        fitting = each.to(images).expand_as(images)
    except RuntimeError as error:
        raise ValueError(f"{name} must be {shape}, {tuple(images.shape)}, got {tuple(colours.shape)}") from error
    need_finite(fitting[: len(each) if each.ndim == 4 else 1], name)  # what is repeated is looked at once
    return fitting

"""Where each cell of a map looks on its picture, and how a map is laid over it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary


class Geometry(NamedTuple):
    """Cell (u, v) of a map looks at pixel ``stride * (u, v) + offset`` of its picture, rows first.

    After Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks", Distill 2019.
    """

    stride: tuple[float, float]  #: pixels from a cell to the next, down and right
    offset: tuple[float, float]  #: where the first cell looks, in pixels

    @classmethod
    def drawn(cls, cells: Sequence[int], size: Sequence[int]) -> Geometry:
        """How libraries draw a map of `cells` (h, w) on `size` (H, W): as tiles that fill it (``align_corners=False``).

        Right for networks that halve without padding; for padded strides of 3 x 3, half a cell too far right and down.
        """
        down, right = (pixels / count for pixels, count in zip(size, cells, strict=True))
        return cls((down, right), ((down - 1) / 2, (right - 1) / 2))

    def centres(self, cells: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The rows (h,) and the columns (w,) of the picture at which `cells` (h, w) look."""
        rows, columns = (s * torch.arange(n) + o for s, o, n in zip(*self, cells, strict=True))
        return rows, columns


def upsampled(maps: Tensor, size: Sequence[int], geometry: Geometry | None = None) -> Tensor:
    """Maps (..., h, w) laid over a picture of `size` (H, W): (..., H, W), bilinear, border values held.

    Pixel p shows the map at cell ``(p - offset) / stride`` of its `geometry`; None draws it as libraries do.
    """
    geometry = geometry or Geometry.drawn(maps.shape[-2:], size)
    return read_at(maps, geometry, torch.arange(size[0]), torch.arange(size[1]))


def read_at(maps: Tensor, geometry: Geometry, rows: Tensor, columns: Tensor) -> Tensor:
    """Maps (..., h, w) at pixels `rows` (n,) and `columns` (m,) of their picture: (..., n, m), bilinear."""
    for places, stride, offset in zip((rows, columns), *geometry, strict=True):
        # One axis, then the other: elementwise, so that pixels beyond the border are equal to the last digit.
        cells = ((places.double() - offset) / stride).clamp(0, maps.shape[-2] - 1)
        low, high = (maps.index_select(-2, at.long().to(maps.device)) for at in (cells.floor(), cells.ceil()))
        maps = torch.lerp(low, high, (cells % 1).to(maps)[:, None]).mT
    return maps


_KNOWN: WeakKeyDictionary[nn.Module, dict[torch.Size, tuple[Any, Geometry]]] = WeakKeyDictionary()


def map_geometry(model: nn.Module, images: Tensor, function: Callable[[Tensor], Tensor], way: Any = None) -> Geometry:
    """`cell_geometry` of a network's last map, found once for each size of picture; anew for another `way` to it."""
    known = _KNOWN.setdefault(model, {})
    if images.shape[2:] not in known or way not in (None, known[images.shape[2:]][0]):
        known[images.shape[2:]] = way, cell_geometry(function, images)
    return known[images.shape[2:]][1]


@torch.inference_mode(False)
def cell_geometry(function: Callable[[Tensor], Tensor], images: Tensor) -> Geometry:
    """Where the cells of the map ``function(images)`` look, by the arithmetic of the layers it went through.

    Each layer of kernel k, stride s, padding p centres its output u on place ``s u - p + (k - 1) / 2`` of its input.
    Where the layers do not tell (branches that disagree, transposed axes), the gradient does: `geometry_by_gradient`.
    `function`, in evaluation mode, takes pictures (B, 3, H, W) to a map (B, C, h, w); values of `images` play no part.
    """
    picture = torch.zeros_like(images[:1])
    with torch.no_grad(), _Followed(picture) as followed:
        found = followed.places.get(function(picture))
    return found or geometry_by_gradient(function, picture)


@torch.inference_mode(False)
def geometry_by_gradient(function: Callable[[Tensor], Tensor], images: Tensor) -> Geometry:
    """`cell_geometry` from what a map depends on: where the squared input gradient of its middle cells has its centre.

    The stride is a power of two where that fits, else the picture's size over the map's. The offset is right to a
    quarter of a stride or better: a field that reaches beyond the picture is cut off there.
    """
    with torch.enable_grad():
        draw = partial(torch.randn, generator=torch.Generator().manual_seed(0))
        images = (0.5 + 0.2 * draw(4, *images.shape[1:])).clamp(0, 1).to(images).requires_grad_()
        maps = function(images)
        signs = draw(maps.shape).to(maps)  # so that no sum over channels cancels
        stride, offset = [], []
        for axis in (2, 3):
            pixels, cells = images.shape[axis], maps.shape[axis]
            middle = (cells - 1) // 2, cells // 2  # one cell, or the two beside the middle
            centres = []
            for cell in middle:
                (slope,) = torch.autograd.grad((maps * signs).select(axis, cell).sum(), images, retain_graph=True)
                # Squared once more: what lies far out is cut off at one border sooner than at the other.
                power = slope.cpu().double().square().sum(dim=(0, 1, 5 - axis)).square()
                centres.append(float(power @ torch.arange(pixels).to(power) / power.sum()))
            halvings = 2.0 ** round(math.log2(pixels / cells))
            stride.append(halvings if math.ceil(pixels / halvings) == cells else pixels / cells)
            offset.append(sum(centres) / 2 - stride[-1] * sum(middle) / 2)
    return Geometry((stride[0], stride[1]), (offset[0], offset[1]))


class _Followed(TorchDispatchMode):
    """Keeps the geometry of each tensor that comes from `images`; None where the arithmetic does not tell."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.places = WeakTensorKeyDictionary()
        self.places[images] = Geometry((1.0, 1.0), (0.0, 0.0))

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        sources = [one for arg in args for one in (arg if isinstance(arg, list | tuple) else [arg])]
        known = [one for one in sources if isinstance(one, Tensor) and one in self.places]
        if known:
            places = {self.places[one] for one in known}
            for out in result if isinstance(result, list | tuple) else [result]:
                # What has one cell looks everywhere: gates, averages.
                if isinstance(out, Tensor) and out.ndim > 2 and out.shape[-2:].numel() > 1:
                    agreed = next(iter(places)) if len(places) == 1 else None
                    self.places[out] = agreed and _after(function, args, known[0], out, agreed)
        return result


_STRIDED = {  # where kernel, stride, padding and dilation stand among the arguments
    "convolution": (1, 3, 4, 5),
    "max_pool2d_with_indices": (1, 2, 3, 4),
    "avg_pool2d": (1, 2, 3, None),
}
_ELSEWHERE = ("permute", "transpose", "roll", "rot90", "grid_sampler", "index", "gather", "slice")


def _after(function: Any, args: Any, source: Tensor, out: Tensor, place: Geometry) -> Geometry | None:
    """The geometry after one operation on a tensor at `place`, or None where it is not known."""
    name = function.overloadpacket.__name__
    if name in _STRIDED and not (name == "convolution" and args[6]):  # transposed
        kernel, stride, padding, dilation = (args[i] if i and i < len(args) else () for i in _STRIDED[name])
        kernel = kernel.shape[2:] if isinstance(kernel, Tensor) else kernel
        return _strided(place, kernel, stride or kernel, padding or [0], dilation or [1])
    if "pad" in name:  # columns first
        return _strided(place, [1], [1], [args[1][2] if len(args[1]) > 2 else 0, args[1][0]], [1])
    if name == "flip":  # rows or columns begin at the last one; channels say nothing
        back = [axis - 2 in [d % source.ndim - source.ndim for d in args[1]] for axis in range(2)]
        ends = [turned * (1 - cells) for turned, cells in zip(back, source.shape[-2:], strict=True)]
        return _strided(place, [1], [1 - 2 * turned for turned in back], ends, [1])
    still = {"permute": lambda: [d % source.ndim for d in args[1][-2:]] == [source.ndim - 2, source.ndim - 1],
             "transpose": lambda: all(d % source.ndim < source.ndim - 2 for d in args[1:]),  # a shuffle of channels
             "slice": lambda: args[1] % source.ndim < source.ndim - 2}  # fmt: skip
    moved = name.startswith(_ELSEWHERE) and not still.get(name, lambda: False)()
    return None if moved or out.shape[-2:] != source.shape[-2:] else place


def _strided(place: Geometry, kernel: Any, stride: Any, padding: Any, dilation: Any) -> Geometry:
    """One layer more; each of its settings has one number, or one for each axis."""
    (down, top), (right, left) = (
        (s * stride[axis], o + s * (dilation[axis] * (kernel[axis] - 1) / 2 - padding[axis]))
        for axis, s, o in zip((0, -1), place.stride, place.offset, strict=True)
    )
    return Geometry((down, right), (top, left))

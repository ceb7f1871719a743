"""The map of a match, and of what separates it from the nearest non-mates, on the layer that has cells enough."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from xfrlib.geometry import Geometry, upsampled
from xfrlib.judge import fill_picture
from xfrlib.match import explain_match
from xfrlib.models import Backbone
from xfrlib.sdd import scaled_directed_divergence

BASELINE = "blur"  # the picture that knows nothing of a face's details, from which `block_maps` starts
LEAST_CELLS = 5  # a side; a map of fewer shows nothing of a face


@dataclass(frozen=True)
class MatchMaps:
    """Maps of one probe of (H, W) against K templates, its mate's first."""

    cams: Tensor  #: (K, h, w) signed, in units of similarity
    log_sdd: Tensor  #: (H, W) at most 0: ranks pixels by what sets the mate apart, or by the mate's map where K is 1
    geometry: Geometry  #: where the cells look
    layer: str  #: "" for the last map; else the block that the map is of
    exact: Tensor  #: (h', w') the mate's map on the last map, cells of which are too large where `layer` is not ""
    constant: (
        float  #: what the mean of the mate's map lacks of its similarity: the head's offset, or the blurred picture
    )

    def laid(self) -> Tensor:
        """`cams` over the picture: (K, H, W)."""
        return upsampled(self.cams, self.log_sdd.shape, self.geometry)

    def separating(self) -> Tensor:
        """The mate's map less the mean of the non-mates', over the picture: (H, W); the mate's where there is none."""
        maps = self.laid()
        return maps[0] - maps[1:].mean(dim=0) if len(maps) > 1 else maps[0]


def match_maps(
    recogniser: Backbone, probe: Tensor, mate: Tensor, nonmates: Tensor | None = None, *, layer: str = ""
) -> MatchMaps:
    """`xfrlib.explain_match` of one probe (3, size, size); mate (D,), nonmates (K - 1, D).

    Where the last map has fewer than 5 cells a side (dlib's: 2), its maps stay exact and say nothing of places. Then
    the maps are `block_maps` of the last block that has more, and of `layer` where that is given, one of `blocks_of`.
    Raises `ValueError` for a layer that is none.
    """
    found = explain_match(recogniser, probe[None], mate, nonmates)
    exact, constant = found.cams[0, 0], float(found.constants[0, 0])
    if min(exact.shape) >= LEAST_CELLS and not layer:
        return MatchMaps(found.cams[0], found.log_sdd[0], found.geometry, "", exact, constant)
    blocks = blocks_of(recogniser, probe[None])
    if layer not in ("", *blocks):
        raise ValueError(f"layer {layer!r}: choose a block of {recogniser.name}: {', '.join(blocks)}")
    layer = layer or blocks[-1]
    templates = mate[None] if nonmates is None else torch.cat([mate[None], nonmates])
    cams, constant = block_maps(recogniser, probe, templates, layer)
    place = main_path_geometry(recogniser, probe, layer)
    compared = cams if len(cams) > 1 else torch.cat([cams, torch.zeros_like(cams)])
    compared = (compared - compared.mean(dim=0))[None]
    size = (probe.shape[1], probe.shape[2])
    log_sdd = scaled_directed_divergence(compared, size=size, geometry=place, log=True)[0]
    return MatchMaps(cams, log_sdd, place, layer, exact, constant)


@torch.no_grad()
def blocks_of(recogniser: nn.Module, images: Tensor) -> list[str]:
    """Names of the blocks, modules ``stage.number``, whose outputs have 5 cells a side or more, in their order.

    Raises `ValueError` where there is none.
    """
    names = {module: name for name, module in recogniser.named_modules() if name.count(".") == 1}
    found: list[str] = []

    def note(module: nn.Module, _: object, output: object) -> None:
        if module in names and isinstance(output, Tensor) and output.ndim == 4 and output.shape[-1] >= LEAST_CELLS:
            found.append(names[module])

    with register_module_forward_hook(note):
        recogniser(images)
    if not found:
        raise ValueError(f"{type(recogniser).__name__} has no block with {LEAST_CELLS} cells a side: it has no map")
    return found


def block_maps(
    recogniser: Backbone, probe: Tensor, templates: Tensor, layer: str, *, steps: int = 12
) -> tuple[Tensor, float]:
    """Integrated gradients of each similarity at the output of a block: templates (K, D) -> (K, h, w), in similarity.

    After Sundararajan, Taly and Yan (ICML 2017), on the straight line from the block's output for the blurred picture
    to that for the picture. A map's mean is the similarity less that of the blurred picture, but for the `steps` of the
    sum. The second value is that of the blurred picture to the first template.
    """
    kept: list[Tensor] = []

    def keep(_: object, __: object, output: Tensor) -> None:
        kept.append(output)

    unit, block = F.normalize(templates, dim=1), recogniser.get_submodule(layer)
    both = torch.cat([fill_picture(probe[None], BASELINE), probe[None]])
    with block.register_forward_hook(keep), torch.no_grad():
        blurred = F.normalize(recogniser.embed(recogniser(both)), dim=1)[0] @ unit[0]
    start, end = kept[-1].split(1)
    way = (torch.arange(steps, dtype=start.dtype)[:, None, None, None] + 0.5) / steps
    between = (start + way * (end - start)).requires_grad_()
    with block.register_forward_hook(lambda *_: between), torch.enable_grad():
        scores = (F.normalize(recogniser.embed(recogniser(probe[None])), dim=1) @ unit.T).sum(dim=0)
        slopes = [torch.autograd.grad(score, between, retain_graph=True)[0].mean(dim=0) for score in scores]
    maps = torch.stack([(slope * (end - start)[0]).sum(dim=0) for slope in slopes])
    return maps * maps.shape[1] * maps.shape[2], float(blurred)


@torch.no_grad()
def main_path_geometry(recogniser: Backbone, probe: Tensor, layer: str) -> Geometry:
    """Where the cells of a block look, along its convolutions and maxima of 2x2 pixels or more.

    `xfrlib.geometry` asks the gradient where branches disagree, as those of dlib's network do, which is less sure: here
    the shortcuts, averages of 2x2, are left out.
    """
    stride, offset, block, found = 1.0, 0.0, recogniser.get_submodule(layer), list[Geometry]()

    def follow(module: nn.Module, _: object, __: object) -> None:
        nonlocal stride, offset
        if isinstance(module, nn.ZeroPad2d):
            offset -= stride * module.padding[0]
        if isinstance(module, nn.Conv2d | nn.MaxPool2d):
            given = (module.kernel_size, module.stride, module.padding)  # of square windows
            kernel, step, padding = (int(one[0] if isinstance(one, tuple) else one) for one in given)
            if kernel > 1:
                offset, stride = offset + stride * ((kernel - 1) / 2 - padding), stride * step
        if module is block:
            found.append(Geometry((stride, stride), (offset, offset)))

    with register_module_forward_hook(follow):
        recogniser(probe[None])
    return found[0]

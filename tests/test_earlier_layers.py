"""Maps of other layers and of moved pictures: what they must equal, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from studies.better_map import stitched_activation_maps
from studies.earlier_layers import blocks_with_cells, layer_activation_maps, layer_geometry
from xfrlib import FaceClassifier, class_activation_maps
from xfrlib.geometry import Geometry
from xfrlib.models import load_backbone

CLASSES = torch.tensor([[0, 3], [2, 1]])


@pytest.fixture(scope="module")
def model() -> FaceClassifier:
    return FaceClassifier(load_backbone("slim"), 5).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))


def test_at_the_last_map_a_layers_maps_are_the_class_activation_maps(model: FaceClassifier, images: Tensor) -> None:
    weight = model.weight - model.weight.mean(dim=0)
    expected = class_activation_maps(model.features(images), weight, CLASSES)
    torch.testing.assert_close(
        layer_activation_maps(model, images, CLASSES, "backbone"), expected, rtol=1e-4, atol=1e-6
    )


def test_the_mean_of_a_layers_map_is_what_the_logit_gains_when_the_layer_grows(
    model: FaceClassifier, images: Tensor
) -> None:
    layer = blocks_with_cells(model, images, 14)[-1]
    step = 1e-3

    def centred(factor: float) -> Tensor:
        hook = dict(model.named_modules())[layer].register_forward_hook(lambda *call: call[2] * factor)
        logits = model.double()(images.double())
        hook.remove()
        return (logits - logits.mean(dim=1, keepdim=True)).gather(1, CLASSES)

    with torch.no_grad():
        slope = (centred(1 + step) - centred(1 - step)) / (2 * step)
    maps = layer_activation_maps(model, images.double(), CLASSES, layer)
    model.float()
    assert maps.shape == (2, 2, 14, 14)
    torch.testing.assert_close(maps.mean(dim=(2, 3)), slope, rtol=1e-3, atol=1e-6)


def test_a_layers_maps_are_captums_gradient_times_activation(model: FaceClassifier, images: Tensor) -> None:
    captum = pytest.importorskip("captum.attr")
    layer = blocks_with_cells(model, images, 14)[-1]

    def centred(pictures: Tensor) -> Tensor:
        logits = model(pictures)
        return logits - logits.mean(dim=1, keepdim=True)

    method = captum.LayerGradientXActivation(centred, dict(model.named_modules())[layer])
    theirs = [method.attribute(images, target=own.tolist()).detach().sum(dim=1) for own in CLASSES.T]
    ours = layer_activation_maps(model, images, CLASSES, layer)
    torch.testing.assert_close(ours, 14 * 14 * torch.stack(theirs, dim=1), rtol=1e-3, atol=1e-5)


class Averages(nn.Module):
    """A backbone whose cells are the mean colours of squares of `side` pixels, apart by the same."""

    out_channels = 3

    def __init__(self, side: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(side)

    def forward(self, images: Tensor) -> Tensor:
        return self.pool(images)


def test_stitched_maps_have_the_values_of_cells_half_as_far_apart(images: Tensor) -> None:
    model = FaceClassifier(Averages(16), 5).eval()
    fine, geometry = stitched_activation_maps(model, images, CLASSES)
    assert fine.shape == (2, 2, 14, 14)
    assert geometry == Geometry((8, 8), (3.5, 3.5))  # the middles of squares of 8 pixels
    # The cell (u, v) averages the 16 x 16 pixels around the middle of the 8 x 8 square (u, v), mirrored at the border.
    wide = nn.functional.pad(images, (4, 4, 4, 4), mode="reflect")
    cells = wide.unfold(2, 16, 8).unfold(3, 16, 8).mean(dim=(4, 5))
    expected = class_activation_maps(cells, model.weight - model.weight.mean(dim=0), CLASSES)
    torch.testing.assert_close(fine, expected)


def test_wrong_layers_and_cells_are_named(model: FaceClassifier, images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"layer = 'backbone.stage9'.*no such module"):
        layer_activation_maps(model, images, CLASSES, "backbone.stage9")
    with pytest.raises(ValueError, match=r"a stride of \(2.0, 2.0\)"):
        stitched_activation_maps(FaceClassifier(Averages(2), 5).eval(), images, CLASSES)
    assert blocks_with_cells(model, images, 5) == []


def test_no_gradient_or_hook_is_left(model: FaceClassifier, images: Tensor) -> None:
    layer = blocks_with_cells(model, images, 14)[-1]
    maps = layer_activation_maps(model, images, CLASSES, layer)
    assert not maps.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_layer_looks_where_its_strides_lead(model: FaceClassifier, images: Tensor) -> None:
    layer = blocks_with_cells(model, images, 14)[-1]
    assert layer_geometry(model, images, layer) == Geometry((8, 8), (0, 0))
    with pytest.raises(ValueError, match="no such module"):
        layer_geometry(model, images, "backbone.stage9")

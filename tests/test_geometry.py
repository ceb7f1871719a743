"""A map lies where its cells look: arithmetic and gradient agree on every kind of network, and drawing follows them."""

from collections.abc import Callable

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from madefaces.people import make_families, render
from xfrlib import FaceClassifier, load_backbone
from xfrlib.geometry import Geometry, cell_geometry, geometry_by_gradient, read_at, upsampled

OURS = ("slim", "ir_18", "ir_34", "ir_50", "ir_101", "mobilefacenet")
UNEVEN = torch.arange(27.0).view(1, 3, 3, 3)  # its gradient has its centre elsewhere
OFFSETS = {"resnet18": 0, "resnet50": 0, "mobilenet_v3_small": 0, "vgg16_bn": 15.5, "densenet121": 14}  # at stride 32


def last_map(name: str) -> Callable[[Tensor], Tensor]:
    torch.manual_seed(0)
    if name in OURS:
        return FaceClassifier(load_backbone(name), 3).eval().features
    if name in OFFSETS:
        model = torchvision.models.get_model(name, weights=None).eval()
        return model.features if hasattr(model, "features") else nn.Sequential(*list(model.children())[:-2])
    return timm.create_model(name, pretrained=False).eval().forward_features


@pytest.mark.parametrize(("name", "size"), [(name, (112, 112)) for name in OURS] + [("slim", (120, 98))])
def test_faces(name: str, size: tuple[int, int]) -> None:
    assert_known(name, size, Geometry((16, 16), (0, 0)))


@pytest.mark.parametrize("name", OFFSETS)
def test_torchvision(name: str) -> None:
    assert_known(name, (224, 160), Geometry((32, 32), (OFFSETS[name], OFFSETS[name])))


# The second pads by one row more below and right than above and left, as TensorFlow does.
@pytest.mark.parametrize(("name", "offset"), [("resnetv2_50", 0), ("tf_efficientnet_b0", 31)])
def test_timm(name: str, offset: float) -> None:
    assert_known(name, (224, 224), Geometry((32, 32), (offset, offset)))


def assert_known(name: str, size: tuple[int, int], expected: Geometry) -> None:
    function, picture = last_map(name), torch.zeros(1, 3, *size)
    assert cell_geometry(function, picture) == expected
    measured = geometry_by_gradient(function, picture)
    assert measured.stride == expected.stride
    for found, offset, stride in zip(measured.offset, expected.offset, expected.stride, strict=True):
        assert abs(found - offset) < stride / 4


def test_what_arithmetic_cannot_follow_is_measured() -> None:
    """A ResNet whose shortcuts average 2 x 2 pixels: its branches look at different places."""
    function, picture = last_map("resnet26d"), torch.zeros(1, 3, 224, 224)
    found = cell_geometry(function, picture)
    assert found == geometry_by_gradient(function, picture)
    assert all(10 < offset < 17 for offset in found.offset)


class Picked(nn.Module):
    """The function of a picture as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (nn.Conv2d(3, 2, 3, stride=2, padding=1), Geometry((2, 2), (0, 0))),
        (nn.Conv2d(3, 2, 3, padding=4, dilation=2), Geometry((1, 1), (-2, -2))),
        (nn.Conv2d(3, 2, (1, 5), stride=(1, 3)), Geometry((1, 3), (0, 2))),
        (nn.AvgPool2d(2), Geometry((2, 2), (0.5, 0.5))),
        (nn.MaxPool2d(3, 2, 1), Geometry((2, 2), (0, 0))),
        (nn.ZeroPad2d((1, 2, 3, 0)), Geometry((1, 1), (-3, -1))),
        (lambda x: x[:, 1:].permute(1, 0, 2, 3), Geometry((1, 1), (0, 0))),
        (nn.Sequential(nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(3, 1, 3, 2, 1)), Geometry((4, 4), (0.5, 0.5))),
        (lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(), Geometry((1, 1), (0, 0))),
        (nn.ChannelShuffle(3), Geometry((1, 1), (0, 0))),
        (lambda x: F.conv2d(x.flip(1), UNEVEN, stride=2, padding=1), Geometry((2, 2), (0, 0))),  # RGB to BGR
        (lambda x: x.flip(-1), Geometry((1, -1), (0, 15))),
        (lambda x: F.avg_pool2d(x, 2).flip(1, 2), Geometry((-2, 2), (14.5, 0.5))),
        (lambda x: F.conv2d(x.flip(3), UNEVEN, stride=2, padding=1), Geometry((2, -2), (0, 15))),
        (lambda x: x.view(1, 3, 1, 16, 16).transpose(1, 2).flatten(1, 2), Geometry((1, 1), (0, 0))),
    ],
)
def test_one_layer(function: Callable[[Tensor], Tensor], expected: Geometry) -> None:
    assert cell_geometry(Picked(function).eval(), torch.zeros(1, 3, 16, 16)) == expected


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.transpose(2, 3),
        lambda x: x.roll(2, 2),
        lambda x: x[:, :, 2:],
        lambda x: x.permute(0, 2, 3, 1),
        nn.Upsample(scale_factor=2),
        nn.ConvTranspose2d(3, 1, 2, 2),
        nn.AdaptiveAvgPool2d(5),
    ],
)
def test_what_moves_places_is_not_taken_for_known(function: Callable[[Tensor], Tensor]) -> None:
    from xfrlib.geometry import _Followed

    picture = torch.zeros(1, 3, 16, 16)
    with torch.no_grad(), _Followed(picture) as followed:
        assert followed.places[function(picture)] is None


def test_as_drawn_is_what_libraries_draw() -> None:
    maps = torch.randn(2, 3, 7, 5, generator=torch.Generator().manual_seed(0)).double()
    expected = F.interpolate(maps, size=(112, 96), mode="bilinear", align_corners=False)
    torch.testing.assert_close(upsampled(maps, (112, 96)), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(upsampled(maps[0, 0], (112, 96)), expected[0, 0], rtol=0, atol=1e-6)


def test_a_cell_lies_where_it_looks() -> None:
    maps = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
    large = upsampled(maps, (12, 12), Geometry((4, 4), (0, 1)))
    assert large[4, 5] == 1
    assert large[6, 5] == 0.5  # half-way down to a zero
    assert (large[8:, 9:] == 2).all()  # held beyond the last cell, to the last digit
    assert large.argmax() == 8 * 12 + 9
    rows, columns = Geometry((4, 4), (0, 1)).centres((3, 3))
    assert torch.equal(read_at(maps, Geometry((4, 4), (0, 1)), rows, columns), maps)


def test_one_cell_is_everywhere() -> None:
    assert (upsampled(torch.full((2, 1, 1), 3.0), (4, 6)) == 3).all()


def test_the_brightest_point_lies_on_the_sign() -> None:
    """A network whose evidence is one pixel: its map's peak, laid over the picture, is that pixel."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 1, 3, 2, 1, bias=False), *(nn.Conv2d(1, 1, 3, 2, 1, bias=False) for _ in range(2))]
    for layer in layers:
        nn.init.constant_(layer.weight, 0.1)
    network = nn.Sequential(*layers)
    for row, column in ((16, 40), (48, 8), (24, 24)):
        picture = torch.zeros(1, 3, 64, 64)
        picture[:, :, row, column] = 1
        maps = network(picture).detach()[0, 0]
        registered = upsampled(maps, (64, 64), cell_geometry(network, picture))
        drawn = upsampled(maps, (64, 64))
        assert divmod(int(registered.argmax()), 64) == (row, column)
        assert divmod(int(drawn.argmax()), 64) != (row, column)


def test_a_sign_on_made_faces_is_found_wherever_it_is() -> None:
    """A network that sees a magenta sign alone, of stride 8: its peak is the cell next to the sign, so off by half a
    stride at most, and by nothing in the mean of all places. As libraries draw it, it is off by nearly half a cell."""
    see = nn.Conv2d(3, 1, 1)
    see.weight.data, see.bias.data = torch.tensor([1.0, -1, 1]).view(1, 3, 1, 1), torch.tensor([-1.5])
    network = nn.Sequential(see, nn.ReLU(), *(nn.Conv2d(1, 1, 3, 2, 1, bias=False) for _ in range(3)))
    for layer in network[2:]:
        layer.weight.data = torch.tensor([1.0, 2, 1]).outer(torch.tensor([1.0, 2, 1])).view(1, 1, 3, 3) / 16
    faces, _ = render(make_families(2, 2, seed=0), range(4))
    pictures = torch.from_numpy(faces).permute(0, 3, 1, 2).float() / 255
    network = network.eval()
    assert not network(pictures).any(), "no face has the colour of the sign"
    laid = cell_geometry(network, pictures[:1])
    places = torch.cartesian_prod(torch.arange(9, 105, 7), torch.arange(9, 105, 5))
    off: dict[str, list[Tensor]] = {"registered": [], "drawn": []}
    for number, (row, column) in enumerate(places.tolist()):
        picture = pictures[number % 4].clone()
        picture[:, row - 1 : row + 2, column - 1 : column + 2] = torch.tensor([1.0, 0, 1]).view(3, 1, 1)
        with torch.no_grad():
            cells = network(picture[None])[0, 0]
        for name, geometry in (("registered", laid), ("drawn", None)):
            peak = divmod(int(upsampled(cells, (112, 112), geometry).argmax()), 112)
            off[name].append(torch.tensor(peak) - places[number])
    registered, drawn = (torch.stack(found).double() for found in off.values())
    assert registered.abs().max() <= 4 and registered.mean(dim=0).abs().max() < 1
    assert (drawn.mean(dim=0) > 3).all()

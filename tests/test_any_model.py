"""Any network, any picture: the right map, or one sentence that says what is wrong; never another map in silence."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import Tensor, nn

import xfrlib
from xfrlib import FaceClassifier, deletion_retention, explain, should_show, top_fraction_mask
from xfrlib.cam import pooled_features
from xfrlib.explainers import explain_with
from xfrlib.geometry import Geometry
from xfrlib.models.backbones import Backbone, IResNet
from xfrlib.models.weights import seeded
from xfrlib.prediction import predict
from xfrlib.sdd import scaled_directed_divergence


class Net(nn.Module):
    """Two convolutions, pooling, a linear layer for five classes; `end` is what `forward` makes of logits."""

    def __init__(self, end: Callable[[Tensor], Any] = lambda logits: logits) -> None:
        super().__init__()
        with seeded(1):
            self.first, self.second = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, 2, 1)
            self.fc = nn.Linear(6, 5)
        self.fc.weight.data *= 9
        self.end = end

    def map(self, images: Tensor) -> Tensor:
        """(B, 6, 4, 4) of pictures of 16 x 16."""
        return self.second(self.first(images).relu()).relu()

    def forward(self, images: Tensor) -> Any:
        return self.end(self.fc(self.map(images).mean((2, 3))))


class Wrapped(nn.Module):
    """Something around a network."""

    def __init__(self, around: Callable[[Net, Tensor], Any]) -> None:
        super().__init__()
        self.net, self.around = Net(), around

    def forward(self, images: Tensor) -> Any:
        return self.around(self.net, images)


def expected(net: Net, images: Tensor) -> tuple[Tensor, Tensor]:
    """Map and weights that the CAM is made of."""
    with torch.no_grad():
        return net.map(images), net.fc.weight


# --- between the linear layer and the output


@pytest.mark.parametrize(
    ("end", "found"),
    [
        (lambda z: z.softmax(1), r"linear layer \(softmax\)"),
        (lambda z: -z, r"\(neg\)"),
        (lambda z: 64 * z, r"\(mul\)"),
        (lambda z: z.mul_(64), r"\(mul\)"),  # in place: the layer's output itself becomes another
        (lambda z: z / 1.01, r"\(div\)"),
        (lambda z: z[:, [1, 2, 3, 4, 0]], r"\(getitem\)"),
        (lambda z: z.sigmoid(), r"\(sigmoid\)"),
        (lambda z: z.sort(1).values, r"\(sort\)"),
        (lambda z: torch.from_numpy(-np.asarray(z.tolist())), r"\(outside torch\)"),
        (lambda z: z + torch.arange(5), r"\(add\)"),
    ],
    ids=[
        "softmax",
        "sign",
        "factor",
        "factor in place",
        "temperature",
        "permutation",
        "sigmoid",
        "sort",
        "numpy",
        "prior",
    ],
)
def test_what_changes_the_logits_is_found_and_refused(end: Callable[[Tensor], Tensor], found: str, images: Tensor):
    with pytest.raises(ValueError, match="Net changes the output of its last linear layer.*let it return that output"):
        pooled_features(Net(end), images)
    with pytest.raises(ValueError, match=found):
        explain(Net(end), images)


@pytest.mark.parametrize(
    ("around", "found"),
    [
        (lambda net, x: (net(x) + net(x.flip(3))) / 2, r"changes the output of its last linear layer \(add, div\)"),
        (lambda net, x: torch.stack([net(x), 2 * net(x)]).mean(0), "changes the output"),
        (lambda net, x: torch.cat([net(part) for part in x.split(2)]), "gives its linear layer 1 of 5 pictures"),
        (lambda net, x: torch.cat([net(x[:2]), net(x[2:])]), "gives its linear layer 3 of 5 pictures: explain the net"),
        (lambda net, x: net(torch.cat([x, x.flip(3)])).view(2, 5, 5).mean(0), "gives its linear layer 10 of 5"),
        (lambda net, x: (net(x), net.map(x)), "returns a tuple: wrap it so that it returns the logits alone"),
        (lambda net, x: {"logits": net(x)}, "returns a dict: wrap it so that it returns the logits alone"),
        (lambda net, x: net(x)[..., None, None], r"returns torch.float32 \(5, 5, 1, 1\), not logits \(5, N\)"),
        (lambda net, x: net(x).argmax(1), r"returns torch.int64 \(5,\)"),
        (lambda net, x: net.fc(F.relu(net.fc.weight.new_ones(5, 6))), "does not feed the global average"),
        (lambda net, x: net.fc(net.map(x).amax((2, 3))), "does not feed the global average"),
        (lambda net, x: net.fc(net.map(x).mean((2, 3)) ** 2), "does not feed the global average"),
        (lambda net, x: net.map(x).mean((2, 3)), "has no linear layer"),
        (lambda net, x: net(x) @ torch.eye(5, 4), "does not return the output of its last linear layer"),
    ],
    ids=["mirror", "ensemble", "split", "halves", "doubled", "tuple", "dict", "4-d", "labels", "no map", "maximum",
         "power", "no layer", "another layer"],
)  # fmt: skip
def test_what_is_no_pooled_linear_network_gets_its_own_sentence(around: Callable, found: str, images: Tensor):
    with pytest.raises(ValueError, match=found):
        explain(Wrapped(around).eval(), images)


@pytest.mark.parametrize(
    "end",
    [lambda z: z.log_softmax(1), lambda z: z - z.amax(1, keepdim=True), lambda z: z.double(), lambda z: z[:, :]],
    ids=["log_softmax", "shift", "wider", "view"],
)
def test_a_shift_of_a_whole_row_is_fine(end: Callable[[Tensor], Tensor], images: Tensor):
    plain, shifted = explain(Net(), images), explain(Net(end), images)
    torch.testing.assert_close(shifted.cams, plain.cams)
    torch.testing.assert_close(shifted.probabilities.float(), plain.probabilities)


def test_a_network_that_has_changed_since_the_last_call_is_looked_at_anew(images: Tensor):
    model = Net()
    seen: list[int] = []
    model.first.register_forward_hook(lambda _, __, output: seen.append(len(output)))
    explain(model, images)
    seen.clear()
    again = explain(model, images[:3])
    assert seen == [3]  # what was found is tried first, and one pass is enough
    torch.testing.assert_close(again.cams, explain(Net(), images[:3]).cams)
    model.second = nn.Sequential(nn.Conv2d(6, 6, 1), nn.ReLU(), model.second)  # its steps are others now
    features, weight = expected(model, images)
    found = pooled_features(model, images)
    assert torch.equal(found.features, features) and torch.equal(found.weight, weight)
    model.end = lambda logits: logits.softmax(1)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"linear layer \(softmax\)"):
            explain(model, images)


def test_a_network_that_looks_elsewhere_since_the_last_call_lays_its_maps_there(images: Tensor):
    """The map has as many cells, of other windows."""
    model, other = Net(), Net()
    before = explain(model, images).geometry
    for layer in (model.second, other.second):
        layer.padding, layer.kernel_size = (0, 0), (2, 2)
        layer.weight = nn.Parameter(layer.weight[:, :, :2, :2].clone())
    found, fresh = explain(model, images), explain(other, images)
    assert found.cams.shape[2:] == (4, 4) and found.geometry == fresh.geometry != before
    assert torch.equal(found.sdd, fresh.sdd)
    model.second = nn.Sequential(model.second, nn.AvgPool2d(1, 1))
    assert explain(model, images[:2]).geometry == fresh.geometry


def test_a_network_that_sees_the_mirror_image_has_its_map_laid_over_the_picture(images: Tensor):
    model = Wrapped(lambda net, x: net(x.flip(3)))
    found, plain = explain(model, images), explain(model.net, images.flip(3))
    torch.testing.assert_close(found.cams, plain.cams)
    torch.testing.assert_close(found.log_sdd, plain.log_sdd.flip(2))


def test_of_several_heads_the_one_that_is_returned_makes_the_map(images: Tensor):
    class Heads(Net):
        def __init__(self) -> None:
            super().__init__()
            with seeded(5):
                self.unused, self.other, self.wider = nn.Linear(6, 5), nn.Linear(6, 5), nn.Linear(6, 9)
            self.wanted = 0

        def forward(self, images: Tensor) -> Tensor:
            pooled = self.map(images).mean((2, 3))
            return [self.fc(pooled), self.other(pooled), self.wider(pooled)][self.wanted]

    model = Heads()
    heads = model.fc, model.other, model.wider
    for model.wanted, head in enumerate(heads):
        assert torch.equal(pooled_features(model, images).weight, head.weight)


# --- maps that no module returns


def gated(net: Net, images: Tensor) -> Tensor:
    return net.map(images) * net.map(images.flip(3)).mean((2, 3), keepdim=True).sigmoid()


MAPS: dict[str, tuple[Callable[[Net, Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "relu in forward": (lambda net, x: net.second(net.first(x)).relu(), lambda f: f.mean((2, 3))),
    "in place": (lambda net, x: F.relu(net.second(net.first(x)), inplace=True), lambda f: f.mean((2, 3))),
    "gate": (gated, lambda f: F.adaptive_avg_pool2d(f, 1).flatten(1)),
    "sum of two": (lambda net, x: net.map(x) + net.map(x.flip(2)), lambda f: F.avg_pool2d(f, 4).flatten(1)),
    "flattened": (lambda net, x: net.map(x), lambda f: f.flatten(2).mean(2)),
    "kept dimensions": (lambda net, x: net.map(x), lambda f: f.mean((-1, -2), keepdim=True)[..., 0, 0]),
    "mirrored": (lambda net, x: net.map(x).flip(3), lambda f: f.mean((2, 3))),
    "dropout between": (lambda net, x: net.map(x), lambda f: F.dropout(f.mean((2, 3)), training=False)),
}


@pytest.mark.parametrize("name", MAPS)
def test_the_map_is_what_goes_into_the_pooling(name: str, images: Tensor):
    made, pool = MAPS[name]
    model = Wrapped(lambda net, x: net.fc(pool(made(net, x))))
    with torch.no_grad():
        torch.testing.assert_close(pooled_features(model, images).features, made(model.net, images))


def test_a_map_that_is_pooled_and_then_goes_on_elsewhere_is_still_the_map(images: Tensor):
    def around(net: Net, x: Tensor) -> Tensor:
        features = net.map(x)
        pooled = features.mean((2, 3))
        features.flip(3)  # has the same mean
        net.map(x.flip(3)).mean((2, 3))
        return net.fc(pooled)

    model = Wrapped(around)
    assert torch.equal(pooled_features(model, images).features, expected(model.net, images)[0])


def test_a_head_declared_before_a_squeeze_and_excitation_block(images: Tensor):
    class Squeezed(Net):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.up = nn.Linear(6, 2), nn.Linear(2, 6)

        def map(self, images: Tensor) -> Tensor:
            features = super().map(images)
            return features * self.up(self.down(features.mean((2, 3))).relu()).sigmoid()[..., None, None]

    model = Squeezed()
    pooled, (features, weight) = pooled_features(model, images), expected(model, images)
    assert torch.equal(pooled.weight, weight) and torch.equal(pooled.features, features)


@pytest.mark.parametrize("first", [True, False], ids=["pooled, then convolved", "convolved, then pooled"])
def test_a_pointwise_convolution_is_a_linear_layer(first: bool, images: Tensor):
    def around(net: Net, x: Tensor) -> Tensor:
        weight, features = net.fc.weight[..., None, None], net.map(x)
        features = features.mean((2, 3), keepdim=True) if first else features
        return F.conv2d(features, weight, net.fc.bias).mean((2, 3))

    model = Wrapped(around)
    found, plain = explain(model, images), explain(model.net, images)
    torch.testing.assert_close((found.cams, found.log_sdd), (plain.cams, plain.log_sdd), rtol=1e-4, atol=1e-4)
    rectified = nn.Sequential(nn.Conv2d(3, 5, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    nn.init.constant_(rectified[0].bias, -0.5)  # else, by chance, there may be nothing for the ReLU to change
    with pytest.raises(ValueError, match="changes the output of its last linear layer .relu, adaptive_avg_pool2d"):
        explain(rectified, images)


def test_a_map_of_one_cell_is_said_to_be_one(images: Tensor):
    with pytest.raises(ValueError, match="the last map of Net is 1 x 1 for pictures of 4 x 4: give larger ones"):
        explain(Net(), images[..., :4, :4])
    small = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="the last map of ResNet is 1 x 1 for pictures of 32 x 32: give larger ones"):
        explain(torchvision.models.resnet18(num_classes=5).eval(), small)


def test_a_compiled_network_runs_as_it_was_written(images: Tensor):
    plain = explain(Net(), images)
    for model in (torch.compile(Net().eval(), backend="eager"), Wrapped(lambda net, x: net(x))):
        if isinstance(model, Wrapped):  # a part of it is compiled in place
            model.net.compile(backend="eager")
        with torch.no_grad():
            model.eval()(images)
        assert torch.equal(explain(model, images).cams, plain.cams)
    with pytest.raises(ValueError, match="^Net changes the output"):
        explain(torch.compile(Net(lambda z: 2 * z), backend="eager"), images)


class InThreads(nn.DataParallel):
    """As it runs on several GPUs: what it calls is called in another thread."""

    def forward(self, images: Tensor) -> Tensor:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(self.module, images).result()


def flat() -> nn.Sequential:
    with seeded(2):
        return nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)).eval()


HIDDEN: dict[str, tuple[Callable[[Tensor], nn.Module], str]] = {
    "scripted": (lambda x: torch.jit.script(flat()), "RecursiveScriptModule is TorchScript"),
    "traced": (lambda x: torch.jit.trace(flat(), x), "TopLevelTracedModule is TorchScript"),
    "frozen": (lambda x: torch.jit.freeze(torch.jit.script(flat())), "RecursiveScriptModule is TorchScript"),
    "scripted head": (
        lambda x: nn.Sequential(flat()[:3], torch.jit.script(flat()[3])),
        r"Sequential\.1 is TorchScript",
    ),
    "scripted map": (lambda x: nn.Sequential(torch.jit.script(flat()[:3]), flat()[3]), r"Sequential\.0 is TorchScript"),
    "quantised": (lambda x: torch.ao.quantization.quantize_dynamic(flat(), {nn.Linear}), r"Sequential\.3 is quantised"),
    "parallel": (lambda x: InThreads(flat()), "InThreads is in DataParallel"),
}


@pytest.mark.parametrize("kind", HIDDEN)
@pytest.mark.filterwarnings("ignore")  # some are on their way out of torch
def test_networks_into_which_nobody_sees_are_named(kind: str, images: Tensor):
    make, found = HIDDEN[kind]
    with pytest.raises(ValueError, match=f"^{found}, where no layer is seen: explain what it was made from$"):
        explain(make(images), images)
    masks = torch.rand(5, 16, 16, generator=torch.Generator().manual_seed(0)) < 0.5
    table = deletion_retention(make(images).eval(), images, masks)  # which needs no layer
    closest = 0.1 if kind == "quantised" else 1e-3
    plain = deletion_retention(flat(), images, masks)
    np.testing.assert_allclose(table["deletion_drop_points"], plain["deletion_drop_points"], atol=closest)


@pytest.mark.filterwarnings("ignore")
def test_an_exported_program_is_refused_as_it_has_no_evaluation_mode(images: Tensor):
    program = torch.export.export(flat(), (images,)).module()
    with pytest.raises(ValueError, match="an exported program has no evaluation mode: give its original"):
        explain(program, images)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", ["parallel", "scripted body", "prepared to be quantised"])
def test_what_hides_no_layer_of_the_end_has_its_map(part: str, images: Tensor):
    body = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.Conv2d(6, 6, 3, 1, 1)).eval()
    end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)).eval()
    plain = explain(nn.Sequential(body, end), images)
    model: nn.Module = nn.Sequential(torch.jit.script(body), end)
    if part == "parallel":  # on one device it calls its module itself
        model = nn.DataParallel(nn.Sequential(body, end), device_ids=[])
    elif part == "prepared to be quantised":  # with observers, which call functions of torch too
        model = nn.Sequential(body, end)
        model.qconfig = torch.ao.quantization.default_qconfig
        model = torch.ao.quantization.prepare(model)
    for _ in range(2):
        found = explain(model, images)
        torch.testing.assert_close((found.cams, found.log_sdd), (plain.cams, plain.log_sdd))
        assert found.geometry == plain.geometry


@pytest.mark.filterwarnings("ignore")
def test_a_map_behind_a_scripted_stem_is_laid_where_its_own_cells_look():
    """More is seen of the stem when the place of the cells is found: the same number of steps ends one layer before."""
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    layers = [nn.Conv2d(3 if number == 0 else 6, 6, 3, 2 if number in (0, 1, 4) else 1, 1) for number in range(5)]
    plain = nn.Sequential(*layers)
    stem, rest = torch.jit.script(nn.Sequential(*layers[:3]).eval()), nn.Sequential(*layers[3:])
    hidden = explain(Wrapped(lambda net, x: net.fc(rest(stem(x)).flatten(2).mean(2))), images)
    seen = explain(Wrapped(lambda net, x: net.fc(plain(x).flatten(2).mean(2))), images)
    assert hidden.geometry == seen.geometry == Geometry((8, 8), (0, 0))
    assert torch.equal(hidden.log_sdd, seen.log_sdd)


def test_a_way_to_the_map_that_hangs_on_the_picture_leaves_the_map_in_its_place(images: Tensor):
    """Black pictures, by which the place of the cells is found, are not divided by 255, and the steps are others."""
    model = Wrapped(lambda net, x: net(x / 255 if x.max() > 1.5 else x))
    for factor in (255, 1, 255):
        found, plain = explain(model, factor * images), explain(Net(), images)
        torch.testing.assert_close(found.cams, plain.cams, rtol=1e-4, atol=1e-4)
        assert found.geometry == plain.geometry


def test_a_network_that_ends_otherwise_each_time_is_refused(images: Tensor):
    calls: list[int] = []

    def around(net: Net, x: Tensor) -> Tensor:
        calls.append(1)
        pooled = net.map(x).mean((2, 3))
        return net.fc(pooled.clone() if len(calls) % 2 else pooled)

    with pytest.raises(ValueError, match="Wrapped takes other steps when it is called again: let it do the same each"):
        explain(Wrapped(around), images)


def test_a_network_that_asserts_its_size_is_asked_for_no_traceback(images: Tensor):
    class Sized(Net):
        def forward(self, images: Tensor) -> Any:
            assert images.shape[2] == 224, "input height (16) is not that of the model (224)"
            return super().forward(images)

    for call in (explain, lambda model, x: deletion_retention(model, x, HALF)):
        with pytest.raises(
            ValueError, match=r"Sized does not take images \(5, 3, 16, 16\) .*: input height \(16\) is not"
        ):
            call(Sized().eval(), images)


# --- half precision


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_a_trunk_of_half_precision_with_a_head_of_floats(kind: torch.dtype, images: Tensor):
    class Mixed(Net):
        def forward(self, images: Tensor) -> Tensor:
            return self.fc(self.map(images.to(kind)).mean((2, 3)).float())

    model = Mixed()
    model.first.to(kind), model.second.to(kind)
    found, plain = explain(model, images), explain(Net(), images)
    torch.testing.assert_close(found.cams, plain.cams, rtol=0.05, atol=0.05 * float(plain.cams.abs().max()))


@pytest.mark.parametrize("cast", ["bf16", "fp16", "autocast"])
def test_the_maps_are_float32_whatever_computed_them(cast: str):
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    model = Net(lambda z: z.log_softmax(1))
    kind = torch.float16 if cast == "fp16" else torch.bfloat16
    if cast != "autocast":
        model, images = model.to(kind), images.to(kind)
    with torch.autocast("cpu", torch.bfloat16, enabled=cast == "autocast"):
        found = explain(model, images)
    assert {t.dtype for t in (found.cams, found.sdd, found.log_sdd, found.logits)} == {torch.float32}
    cams = found.cams.flatten(2)
    assert min(len(cam.unique()) for picture in cams for cam in picture) > 0.95 * cams.shape[2]  # bf16: far fewer
    with pytest.raises(ValueError, match=r"linear layer \(mul"):
        explain(Net(lambda z: 1.1 * z).to(kind), images.to(kind))


# --- pictures


def own_model() -> FaceClassifier:
    with seeded(0):
        return FaceClassifier(IResNet("tiny", {4: 1, 6: 1}, embedding_size=3), 5).eval()


def foreign_model() -> nn.Module:
    return Net().eval()


HALF = torch.zeros(5, 16, 16, dtype=torch.bool)
HALF[:, :8] = True
CALLS: dict[str, Callable[[nn.Module, Any], Any]] = {
    "explain": explain,
    "pooled_features": pooled_features,
    "deletion_retention": lambda model, images: deletion_retention(model, images, HALF),
    "should_show": lambda model, images: should_show(model, images, HALF),
    "explain_with": lambda model, images: explain_with("cam", model, images, torch.zeros(5, 1).long(), progress=False),
    "embedding": lambda model, images: model.backbone.embedding(images),
    "forward": lambda model, images: model(images),
}
OF_ANY_MODEL = ("explain", "pooled_features", "deletion_retention", "should_show")
OTHER_RANGES: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "uint8": (lambda x: (255 * x).byte(), "images are torch.uint8 from 0 to 255.*divide by 255"),
    "0 to 255": (lambda x: 255 * x, "images are torch.float32 from 0.* to 255.*divide by 255"),
    "[-1, 1]": (lambda x: 2 * x - 1, r"images are torch.float32 from -1 to 1, but .*\(images \+ 1\) / 2"),
    "too bright": (lambda x: 1.5 * x, r"from 0 to 1.5, but .*images.clamp\(0, 1\)"),
    "normalised": (lambda x: (x - 0.45) / 0.225, r"from -2 to 2.44, but .*images \* std \+ mean"),
}


@pytest.fixture
def pictures(images: Tensor) -> Tensor:
    """With a black and a white pixel."""
    images[0, :, 0, :2] = torch.tensor([0.0, 1.0])
    return images


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", OTHER_RANGES)
def test_our_backbones_refuse_other_ranges_by_the_range_seen(call: str, kind: str, pictures: Tensor):
    change, said = OTHER_RANGES[kind]
    with pytest.raises(ValueError, match=said):
        CALLS[call](own_model(), change(pictures))


def test_a_little_beyond_the_range_is_what_resizing_does(pictures: Tensor):
    assert own_model()(1.1 * pictures - 0.05).isfinite().all()


@pytest.mark.parametrize("kind", [kind for kind in OTHER_RANGES if kind != "uint8"])
def test_a_foreign_network_may_take_any_range_but_fills_may_not(kind: str, pictures: Tensor):
    change, said = OTHER_RANGES[kind]
    model, images = foreign_model(), change(pictures)
    assert explain(model, images).cams.isfinite().all()
    for fill in ("black", "grey", "mean", "linear"):
        for measure in (deletion_retention, should_show):
            with pytest.raises(
                ValueError, match=said + r".*or give fill as a tensor of the images' own values, \(3, 1"
            ):
                measure(model, images, HALF, fill=fill, mean=torch.rand(3))
    black = change(torch.zeros(3, 1, 1))
    rows = deletion_retention(model, images, HALF, fill=black)
    by_hand = torch.where(HALF[:, None], black, images)
    own = model(images).argmax(1, keepdim=True)
    kept = model(by_hand).double().softmax(1).gather(1, own)[:, 0]
    np.testing.assert_allclose(rows["deletion_probability"], kept.detach(), rtol=1e-6)
    assert len(deletion_retention(model, images, HALF, fill="blur")) == 5
    assert "under a given fill" in should_show(model, images, HALF, fill=black)[0].reason


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_value_that_is_no_number_names_its_sample(call: str, value: float, pictures: Tensor):
    pictures[3, 1, 4, 4] = value
    for model in (own_model(), foreign_model()):
        if isinstance(model, FaceClassifier) or call in OF_ANY_MODEL:
            with pytest.raises(ValueError, match="sample 3 of the batch has a NaN or infinite value in images"):
                CALLS[call](model, pictures)


def test_weights_that_are_no_numbers_are_named(pictures: Tensor):
    model = foreign_model()
    model.fc.weight.data[0, 0] = torch.nan
    for call in ("explain", "deletion_retention", "should_show"):
        with pytest.raises(ValueError, match="sample 0, 1, 2, 3, 4 of the batch .* in its logits: the weights must be"):
            CALLS[call](model, pictures)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda x: x[:0], r"images \(0, 3, 16, 16\) holds no picture"),
        (lambda x: x[0], r"images\[None\]"),
        (list, r"images must be a tensor \(B, 3, H, W\), got list; torch.stack"),
        (lambda x: x.numpy(), "got ndarray; torch.from_numpy makes one"),
        (lambda x: Image.new("RGB", (16, 16)), r"got Image; torchvision's pil_to_tensor\(...\)\[None\] / 255"),
        (lambda x: "face.png", r"got str$"),
    ],
    ids=["empty", "no batch", "list", "array", "PIL", "path"],
)
@pytest.mark.parametrize("call", CALLS)
def test_what_is_no_batch_of_pictures_is_told_how_to_be_one(call: str, make: Callable, said: str, pictures: Tensor):
    for model in (own_model(), foreign_model()):
        if isinstance(model, FaceClassifier) or call in OF_ANY_MODEL:
            with pytest.raises(ValueError, match=said):
                CALLS[call](model, make(pictures))


def test_masks_of_numpy_and_targets_by_name(pictures: Tensor):
    model = foreign_model()
    for measure in (deletion_retention, should_show):
        with pytest.raises(ValueError, match="masks must be a tensor .* of bool, got ndarray; torch.from_numpy"):
            measure(model, pictures, HALF.numpy())
    for name in ("Ann", ["Ann", "Bo", "Cy", "Di", "Ed"]):
        with pytest.raises(ValueError, match="target must be class indices, got .*Ann.*: give a name's place"):
            explain(model, pictures, target=name)
    with pytest.raises(ValueError, match="competitors must be class indices, got .'Ann'.: give a name's place"):
        explain(model, pictures, competitors=["Ann"])


def test_a_map_of_another_size_than_the_head_takes(pictures: Tensor):
    backbone = own_model().backbone
    assert isinstance(backbone, Backbone)
    with pytest.raises(ValueError, match=r"head of 'tiny' takes a map of 6 x 7 x 7, .* 112 x 112, got \(6, 4, 4\)"):
        backbone.embedding(pictures)
    body = nn.Conv2d(3, 4, 3)
    body.out_channels = 6
    with pytest.raises(ValueError, match="map has 4 channels, the head takes 6: set out_channels"):
        FaceClassifier(body, 5)(pictures)


def test_rows_that_are_probabilities_are_no_logits(pictures: Tensor):
    for kind in (torch.float32, torch.bfloat16):
        model, images = Net(lambda z: z.softmax(1)).to(kind).eval(), pictures.to(kind)
        for measure in (deletion_retention, should_show):
            with pytest.raises(ValueError, match="rows are probabilities already: let it return its logits"):
                measure(model, images, HALF)
    plain, log = (
        deletion_retention(Net(end).eval(), pictures, HALF) for end in (lambda z: z, lambda z: z.log_softmax(1))
    )
    np.testing.assert_allclose(log["deletion_margin_drop"], plain["deletion_margin_drop"], atol=1e-4)


# --- state


class Dropping(Net):
    """With a dropout and a BatchNorm inside."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.norm = nn.Dropout(), nn.BatchNorm2d(6)

    def map(self, images: Tensor) -> Tensor:
        return self.drop(self.norm(super().map(images)))


@pytest.mark.parametrize("part", ["drop", "norm"])
def test_a_part_in_training_mode_is_named_before_anything_runs(part: str, pictures: Tensor):
    model = Dropping().eval()
    getattr(model, part).train()
    runs: list[Any] = []
    model.register_forward_hook(lambda *_: runs.append(1))
    before = model.norm.running_mean.clone()
    for measure in (deletion_retention, should_show):
        with pytest.raises(ValueError, match=f"the model's {part} is in training mode.*model.eval"):
            measure(model, pictures, HALF)
        for wrong in ({"temperature": 0}, {"fill": "red"}):
            with pytest.raises(ValueError, match="temperature = 0: must be|fill = 'red': use one of"):
                measure(model.eval(), pictures, HALF, **wrong)
        getattr(model, part).train()
    assert not runs and torch.equal(model.norm.running_mean, before)
    explain(model, pictures)
    assert getattr(model, part).training and torch.equal(model.norm.running_mean, before)


@pytest.mark.parametrize(
    "ask",
    [
        lambda model, images: explain(model, images).cams,
        lambda model, images: predict(model, [(images, torch.zeros(len(images)))])[0],
    ],
    ids=["explain", "predict"],
)
def test_threads_on_one_network_get_their_own_answers(pictures: Tensor, ask: Callable[[nn.Module, Tensor], Tensor]):
    """The network is in training mode, and waits inside for the other thread, so that both would be in it at once."""
    model, own = Dropping().train(), [pictures[:1], pictures[1:3]]
    wanted = [ask(model, images) for images in own]
    model.first.register_forward_hook(lambda *_: time.sleep(0.002))
    together = threading.Barrier(2)

    def right(index: int) -> bool:
        together.wait()
        return all(torch.equal(ask(model, own[index]), wanted[index]) for _ in range(20))

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(right, range(2))) == [True, True]
    assert all(part.training for part in model.modules())


def test_threads_of_explainers_leave_the_weights_as_they_were(pictures: Tensor):
    """Both would note what needs a gradient while the other has taken it away."""
    model, classes = own_model(), torch.zeros(1, 1).long()
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    model.register_forward_hook(lambda *_: time.sleep(0.002))
    together = threading.Barrier(2)

    def many(_: int) -> None:
        together.wait()
        for _ in range(20):
            explain_with("cam", model, pictures[:1], classes, progress=False)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(many, range(2)))
    assert [parameter.requires_grad for parameter in model.parameters()] == wanted and any(wanted)


class Narrow(Tensor):
    """A tensor of a device without float64; `cpu` takes it from there."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", "")
        if name == "cpu":
            return args[0].as_subclass(Tensor)
        if name == "double" or any(given is torch.float64 for given in args):
            raise TypeError("this device has no float64")
        return super().__torch_function__(function, types, args, kwargs or {})


class Named(Narrow):
    """It also says what it is."""

    @property
    def device(self) -> torch.device:
        return torch.device("mps")


def test_a_device_without_float64(pictures: Tensor):
    model, known = foreign_model(), pictures.as_subclass(Narrow)
    with pytest.raises(TypeError, match="no float64"):
        known.double()
    for fill in ("black", "blur"):
        found, plain = (deletion_retention(model, images, HALF, fill=fill) for images in (known, pictures))
        np.testing.assert_allclose(found, plain)
    cams = explain(model, pictures).cams
    before = [
        scaled_directed_divergence(m, size=(16, 16), exponential="before") for m in (cams, cams.as_subclass(Named))
    ]
    assert torch.equal(*before)


# --- masks


def test_an_explanation_ranks_by_the_map_that_does_not_underflow():
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = explain(Net(), images, divergence=xfrlib.Divergence(delta=400.0))
    assert float((found.sdd == 0).float().mean()) > 0.8  # else the next lines hold nothing
    assert torch.equal(found.mask(0.3), top_fraction_mask(found.log_sdd, 0.3))
    assert found.mask().sum().item() == 2 * round(0.2 * 64 * 64)
    with pytest.warns(UserWarning, match="zeros have no order: rank an SDD map by log_sdd"):
        assert not torch.equal(top_fraction_mask(found.sdd, 0.3), found.mask(0.3))


@pytest.mark.parametrize("high", [0.25, 1.0, 3.0])
def test_a_rectified_map_that_ends_inside_the_fraction_warns(high: float):
    maps = torch.tensor([[[high, 0.0], [0.0, 0.0]]])
    with pytest.warns(UserWarning, match="zeros have no order"):
        assert top_fraction_mask(maps, 0.5).tolist() == [[[True, True], [False, False]]]


@pytest.mark.filterwarnings("error")
def test_a_map_with_enough_above_zero_does_not_warn():
    maps = torch.tensor([[[1.0, 0.5], [0.0, 0.0]]])
    assert top_fraction_mask(maps, 0.5).tolist() == [[[True, True], [False, False]]]
    assert top_fraction_mask(maps - 1, 0.75).sum() == 3  # a logarithm ends below zero

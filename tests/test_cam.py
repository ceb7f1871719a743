"""CAM: a case by hand, the identity with the logit, Grad-CAM of a peer, and networks that cannot have one."""

import pytest
import torch
import torchvision
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from xfrlib import class_activation_maps
from xfrlib.cam import PooledFeatures, centred, pooled_features
from xfrlib.geometry import Geometry


def test_two_by_two_by_hand():
    features = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [0.0, -1.0]]]])
    weight = torch.tensor([[1.0, 10.0], [-2.0, 0.5], [0.0, 0.0]])
    maps = class_activation_maps(features, weight, torch.tensor([[0, 2, 1]]))
    by_hand = torch.tensor([[[1.0, 12.0], [3.0, -6.0]], [[0.0, 0.0], [0.0, 0.0]], [[-2.0, -3.5], [-6.0, -8.5]]])
    assert torch.equal(maps[0], by_hand)


def test_mean_of_the_map_is_the_logit_less_the_bias(classifier, images):
    pooled = pooled_features(classifier, images)
    assert pooled.geometry == Geometry((4, 4), (0, 0))
    classes = torch.arange(7).expand(5, 7)
    maps = class_activation_maps(pooled.features, pooled.weight, classes)
    torch.testing.assert_close(maps.mean(dim=(2, 3)), pooled.logits - classifier.bias)


def test_equals_grad_cam_of_a_peer_up_to_its_relu_and_scale(classifier, images):
    pooled = pooled_features(classifier, images)
    wanted = [0, 3, 6, 1, 2]
    maps = class_activation_maps(pooled.features, pooled.weight, torch.tensor(wanted)[:, None])[:, 0].detach()
    with GradCAM(classifier, [classifier.backbone]) as peer:
        theirs = torch.from_numpy(peer(images, [ClassifierOutputTarget(c) for c in wanted]))
    ours = torch.nn.functional.interpolate(maps.relu()[:, None], size=(16, 16), mode="bilinear", align_corners=False)[
        :, 0
    ]
    ours = (ours - ours.amin((1, 2), keepdim=True)) / (
        1e-7 + ours.amax((1, 2), keepdim=True) - ours.amin((1, 2), keepdim=True)
    )
    assert (ours > 0).any(dim=(1, 2)).sum() >= 3
    for own, other in zip(ours, theirs, strict=True):  # the peer resizes another way, so compare the order of cells
        if own.max() > 0:
            assert torch.corrcoef(torch.stack([own.flatten(), other.flatten()]))[0, 1] > 0.97


@pytest.mark.parametrize(
    ("features", "weight", "classes", "said"),
    [
        ((2, 4, 7), (3, 4), [[0], [1]], "expected features"),
        ((2, 4, 7, 7), (3, 5), [[0], [1]], "expected features"),
        ((2, 4, 7, 7), (3, 4), [[0]], "expected features"),
        ((2, 4, 7, 7), (3, 4), [[0], [3]], "classes must lie in 0 to 2, got 0 to 3"),
        ((2, 4, 7, 7), (3, 4), [[-1], [1]], "classes must lie in 0 to 2, got -1 to 1"),
    ],
)
def test_bad_shapes_and_classes_are_named(features, weight, classes, said):
    with pytest.raises(ValueError, match=said):
        class_activation_maps(torch.zeros(features), torch.zeros(weight), torch.tensor(classes))


class Sizes(TorchDispatchMode):
    """The number of values in each result of each operation."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.found += [result.numel()] if isinstance(result, torch.Tensor) and result.dim() else []
        return result


@pytest.mark.parametrize("centre", [True, False])
def test_maps_of_a_few_classes_copy_nothing_of_the_size_of_the_head(centre):
    generator = torch.Generator().manual_seed(0)
    features, weight = (torch.randn(*size, generator=generator) for size in ((2, 6, 4, 4), (1000, 6)))
    pooled = PooledFeatures(features, torch.empty(2, 1000), weight, Geometry((4, 4), (0, 0)))
    classes = torch.tensor([[3, 999, 0], [0, 3, 5]])
    with Sizes() as sizes:
        maps = pooled.maps(classes, centre=centre)
    assert max(sizes.found) < weight.numel() / 10
    assert torch.equal(maps, class_activation_maps(features, centred(weight) if centre else weight, classes))
    for wrong in (-1, 1000):
        with pytest.raises(ValueError, match=f"classes must lie in 0 to 999, got {min(wrong, 0)} to"):
            pooled.maps(torch.tensor([[0, wrong], [0, 1]]), centre=centre)


def test_a_torchvision_resnet_is_accepted_and_its_modes_and_hooks_are_put_back(images):
    model = torchvision.models.resnet18(num_classes=4).train()
    model.layer1.eval()
    pooled = pooled_features(model, images.repeat(1, 1, 4, 4))
    assert pooled.features.shape == (5, 512, 2, 2) and pooled.geometry == Geometry((32, 32), (0, 0))
    torch.testing.assert_close(pooled.features.mean((2, 3)) @ model.fc.weight.T + model.fc.bias, pooled.logits)
    assert model.training and not model.layer1.training and model.layer2.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_hooks_and_modes_are_put_back_when_the_network_fails():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

        def forward(self, images):
            self.conv(images)
            raise RuntimeError("out of memory")

    model = Broken().train()
    with pytest.raises(RuntimeError, match="out of memory"):
        pooled_features(model, torch.zeros(1, 3, 8, 8))
    assert model.conv.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), "no linear layer"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)), "does not feed the global average"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 2)), "does not feed"),
        (
            nn.Sequential(
                nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2), nn.Unflatten(1, (1, 2))
            ),
            r"returns torch.float32 \(2, 1, 2\), not logits \(2, N\)",
        ),
    ],
)
def test_a_network_without_the_ending_is_refused_with_what_is_missing(model, said):
    with pytest.raises(ValueError, match=said):
        pooled_features(model, torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)))

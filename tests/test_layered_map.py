"""One map from all resolutions: against a plain computation, on a network of known evidence, and what it costs."""

import torch
from torch import Tensor, nn

from studies.explainers_compared import passes_per_picture
from studies.layered_map import states
from xfrlib import FaceClassifier, load_backbone
from xfrlib.explainers import explain_with

CLASSES = torch.tensor([[0, 3, 1], [2, 1, 4]])


def faces() -> Tensor:
    return torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))


def slim() -> FaceClassifier:
    torch.manual_seed(0)
    return FaceClassifier(load_backbone("slim"), 5).eval()


def test_the_states_are_those_of_each_resolution() -> None:
    model = slim()
    logits, found = states(model, faces())
    torch.testing.assert_close(logits, model(faces()))
    assert [one.shape[-1] for one in found] == [56, 28, 14, 7]
    torch.testing.assert_close(found[-1], model.features(faces()))
    assert not any(module._forward_hooks for module in model.modules())


def test_the_last_resolution_alone_is_the_difference_of_cams() -> None:
    """Gradient times activation of the last map is (M_t - mean of rivals) over the number of cells."""
    model = slim()
    logits, maps = states(model, faces())
    pair = logits.gather(1, CLASSES)
    (slope,) = torch.autograd.grad((pair[:, 0] - pair[:, 1:].mean(dim=1)).sum(), maps[-1])
    weight = model.weight[CLASSES]
    expected = torch.einsum("bc,bchw->bhw", weight[:, 0] - weight[:, 1:].mean(dim=1), maps[-1]) / 49
    torch.testing.assert_close((slope * maps[-1]).sum(dim=1), expected, rtol=1e-3, atol=1e-5)


class Spot(nn.Module):
    """A backbone of two resolutions in which class 0 is one bright pixel in the red channel."""

    out_channels = 4

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1, bias=False), nn.ReLU())
        for layer in (self.first[0], self.second[0]):
            nn.init.zeros_(layer.weight)
            layer.weight.data[:, 0] = 0.2

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.first(images))


def test_the_map_peaks_where_the_evidence_is() -> None:
    model = FaceClassifier(Spot(), 2).eval()
    model.head.weight.data = torch.tensor([[1.0] * 4, [-1.0] * 4])
    for row, column in ((8, 24), (20, 4)):
        images = torch.zeros(1, 3, 32, 32)
        images[0, 0, row, column] = 1
        found = explain_with("all_resolutions", model, images, torch.tensor([[0, 1]]), progress=False)
        assert divmod(int(found.argmax()), 32) == (row, column)


def test_one_forward_and_one_backward_pass_and_batches_do_not_matter() -> None:
    model = slim()
    assert passes_per_picture("all_resolutions", model) == (1, 1)
    whole = explain_with("all_resolutions", model, faces(), CLASSES, progress=False)
    single = explain_with("all_resolutions", model, faces(), CLASSES, batch_size=1, progress=False)
    torch.testing.assert_close(whole, single, rtol=1e-3, atol=1e-3)
    assert not torch.equal(whole, explain_with("all_resolutions", model, faces(), CLASSES.flip(1), progress=False))

"""Matches explained: exact on every recogniser, worked out by hand on small ones, and bad input in a sentence."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_models import TINY, filled
from torch import Tensor, nn

from recognisers import RECOGNISERS, load_recogniser
from xfrlib import class_activation_maps, explain_match, scaled_directed_divergence
from xfrlib.geometry import Geometry, upsampled
from xfrlib.match import check_affine, template
from xfrlib.models import load_backbone
from xfrlib.models.backbones import IResNet
from xfrlib.models.weights import seeded
from xfrlib.sdd import Divergence


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pictures(count: int, side: int) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def centred(maps: Tensor) -> Tensor:
    return maps - maps.mean(dim=1, keepdim=True)


@pytest.fixture(scope="module")
def tiny() -> IResNet:
    """An IR network with a flattened head, made-up statistics, and pictures of 56x56: (B, 6, 7, 7), (B, 3)."""
    network = IResNet("tiny", **TINY)
    network.size = 56
    network.load_state_dict({key: filled(key, value.shape) for key, value in network.state_dict().items()})
    return network.eval()


@pytest.mark.parametrize("name", RECOGNISERS)
def test_the_mean_of_a_map_and_its_constant_are_the_similarity(name: str) -> None:
    recogniser = load_recogniser(name, seed=2)
    probe = pictures(2, recogniser.size)
    with torch.no_grad():
        embeddings = recogniser.embedding(probe)
    mate, nonmates = embeddings + draw(*embeddings.shape) * embeddings.std(), draw(3, embeddings.shape[1], seed=1)
    found = explain_match(recogniser, probe, mate, nonmates)
    templates = torch.cat([mate[:, None], nonmates.expand(2, 3, -1)], dim=1)
    cosines = F.cosine_similarity(embeddings[:, None], templates, dim=2)
    torch.testing.assert_close(found.similarities, cosines, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.cams.mean((2, 3)) + found.constants, cosines, rtol=0, atol=1e-4)
    assert found.sdd.shape == (2, recogniser.size, recogniser.size) and not found.cams.requires_grad


class ByHand(nn.Module):
    """The map is the red of the picture; the head is two sums over its four places, the first with an offset of 1/2."""

    size = 2

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.head.weight.data = torch.tensor([[1.0, 0, 0, 2], [0, 1, 0, 0]])
        self.head.bias.data = torch.tensor([0.5, 0])

    def forward(self, images: Tensor) -> Tensor:
        return images[:, :1] * 1

    def embed(self, feature_map: Tensor) -> Tensor:
        return self.head(feature_map.flatten(1))


def test_two_places_and_an_offset_by_hand() -> None:
    """Red .5 .25 / 1 .75: the embedding is (.5 + 1.5 + .5, .25), of length L."""
    probe = torch.zeros(1, 3, 2, 2)
    probe[0, 0] = torch.tensor([[0.5, 0.25], [1.0, 0.75]])
    found = explain_match(ByHand(), probe, torch.tensor([1.0, 0]), torch.tensor([[0, 1.0]]))
    length = (2.5**2 + 0.25**2) ** 0.5
    torch.testing.assert_close(found.similarities * length, torch.tensor([[2.5, 0.25]]))
    torch.testing.assert_close(found.constants * length, torch.tensor([[0.5, 0]]))
    maps = 4 * torch.tensor([[[[0.5, 0], [0, 1.5]], [[0, 0.25], [0, 0]]]])
    torch.testing.assert_close(found.cams * length, maps)
    assert found.geometry == Geometry((1, 1), (0, 0))
    torch.testing.assert_close(found.sdd, scaled_directed_divergence(centred(maps / length)))


def test_a_place_is_worth_what_the_head_says_of_it_alone(tiny: IResNet) -> None:
    probe, mate, nonmates = pictures(2, 56), draw(3), draw(2, 3, seed=1)
    found = explain_match(tiny, probe, mate, nonmates)
    templates = F.normalize(torch.cat([mate[None], nonmates]), dim=1)
    with torch.no_grad():
        features = tiny(probe)
        nothing = tiny.embed(torch.zeros_like(features))
        lengths = tiny.embed(features).norm(dim=1)[:, None]
        for row, column in ((0, 0), (2, 5), (6, 6)):
            alone = torch.zeros_like(features)
            alone[:, :, row, column] = features[:, :, row, column]
            share = (tiny.embed(alone) - nothing) @ templates.T / lengths
            torch.testing.assert_close(found.cams[:, :, row, column], 49 * share, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found.constants, nothing @ templates.T / lengths)


def test_with_average_pooling_it_is_cam_with_templates_for_classes() -> None:
    slim = load_recogniser("slim", "builtin")
    probe, templates = pictures(2, 112), F.normalize(draw(3, 160), dim=1)
    found = explain_match(slim, probe, templates[0], templates[1:])
    with torch.no_grad():
        features = slim(probe)
    cams = class_activation_maps(features, templates, torch.arange(3).expand(2, 3))
    cams = cams / features.mean((2, 3)).norm(dim=1)[:, None, None, None]
    torch.testing.assert_close(found.cams, cams, rtol=1e-4, atol=1e-6)
    assert not found.constants.any()


def test_the_divergence_is_that_of_the_maps_laid_where_their_cells_look(tiny: IResNet) -> None:
    probe, mate, nonmates = pictures(2, 56), draw(3), draw(2, 3, seed=1)
    sharp = Divergence(delta=9.0, form="product")
    found, drawn = (
        explain_match(tiny, probe, mate, nonmates, registered=flag, divergence=sharp) for flag in (True, False)
    )
    assert found.geometry == Geometry((8, 8), (0, 0)) and drawn.geometry == Geometry((8, 8), (3.5, 3.5))
    assert torch.equal(found.cams, drawn.cams)
    for one in (found, drawn):
        again = scaled_directed_divergence(centred(found.cams), sharp, size=(56, 56), geometry=one.geometry, log=True)
        assert torch.equal(one.log_sdd, again) and torch.equal(one.sdd, again.exp())
        assert torch.equal(one.upsampled_cams, upsampled(found.cams, (56, 56), one.geometry))


def test_against_one_non_mate_the_divergence_is_the_difference_of_the_maps(tiny: IResNet) -> None:
    """What both maps share, most of each, has no part in it."""
    found = explain_match(tiny, pictures(2, 56), draw(3), draw(1, 3, seed=1))
    mate, other = found.upsampled_cams.unbind(dim=1)
    torch.testing.assert_close(found.log_sdd, mate - other - (mate - other).amax(dim=(1, 2), keepdim=True))


def test_without_nonmates_places_are_ordered_as_in_the_map_of_the_mate(tiny: IResNet) -> None:
    found = explain_match(tiny, pictures(2, 56), draw(3))
    assert found.cams.shape == (2, 1, 7, 7)
    mates = found.upsampled_cams[:, 0]
    torch.testing.assert_close(found.log_sdd, mates - mates.amax((1, 2), keepdim=True))


def test_probes_and_templates_of_a_batch_do_not_mix(tiny: IResNet) -> None:
    probe, mates, nonmates = pictures(3, 56), draw(3, 3), draw(3, 2, 3, seed=1)
    whole = explain_match(tiny, probe, mates, nonmates)
    for n in range(3):
        one = explain_match(tiny, probe[n : n + 1], mates[n], nonmates[n])
        for field in ("cams", "similarities", "constants", "log_sdd"):
            torch.testing.assert_close(getattr(one, field)[0], getattr(whole, field)[n], rtol=1e-4, atol=1e-5)
    shared, same = (explain_match(tiny, probe, mates[0].expand(*n, 3), nonmates[0]).cams for n in ((), (3,)))
    assert torch.equal(shared, same)


def test_a_template_is_the_mean_direction_and_its_length_plays_no_part(tiny: IResNet) -> None:
    images = pictures(40, 56)
    with torch.no_grad():
        directions = F.normalize(tiny.embedding(images), dim=1)
    mate = template(tiny, images)
    torch.testing.assert_close(mate, F.normalize(directions.sum(0), dim=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(template(tiny, images[:1]), directions[0], rtol=1e-4, atol=1e-5)
    short, long = (explain_match(tiny, images[:1], scale * mate).cams for scale in (0.1, 30.0))
    torch.testing.assert_close(short, long)


def test_one_pass_of_the_probe_whatever_the_gallery_and_modes_and_gradients_as_before(tiny: IResNet) -> None:
    seen: list[int] = []
    handle = tiny.body.register_forward_hook(lambda _, __, output: seen.append(len(output)))
    tiny.train()
    tiny.body.eval()
    try:
        explain_match(tiny, pictures(2, 56), draw(3), draw(50, 3))  # where the cells look may cost a pass, once
        seen.clear()
        with torch.inference_mode():
            explain_match(tiny, pictures(2, 56), draw(3), draw(50, 3))
        assert seen == [2]
        assert tiny.training and tiny.output_layer.training and not tiny.body.training
        assert all(parameter.grad is None for parameter in tiny.parameters())
    finally:
        handle.remove()
        tiny.eval()


def test_of_many_templates_the_most_similar_are_compared(tiny: IResNet) -> None:
    probe, mate, nonmates = pictures(2, 56), draw(3), draw(40, 3, seed=1)
    everyone = explain_match(tiny, probe, mate, nonmates)
    assert torch.equal(everyone.chosen, torch.arange(40).expand(2, 40))
    few = explain_match(tiny, probe, mate, nonmates, top_k=4)
    order = everyone.similarities[:, 1:].argsort(dim=1, descending=True)[:, :3]
    assert torch.equal(few.chosen, order) and few.cams.shape[1] == few.similarities.shape[1] == 4
    for n in range(2):
        alone = explain_match(tiny, probe[n : n + 1], mate, nonmates[order[n]])
        for field in ("cams", "similarities", "constants", "log_sdd"):
            torch.testing.assert_close(getattr(few, field)[n], getattr(alone, field)[0], rtol=1e-4, atol=1e-5)
    assert explain_match(tiny, probe, mate).chosen.shape == (2, 0)


@pytest.mark.parametrize("top_k", [0, 1, 5, 2.5, "two"])
def test_a_number_of_templates_that_cannot_be_is_named(tiny: IResNet, top_k: Any) -> None:
    with pytest.raises(ValueError, match=r"top_k = .*: must be from 2 to 4, the templates given"):
        explain_match(tiny, pictures(1, 56), draw(3), draw(3, 3, seed=1), top_k=top_k)


def linear(seed: int = 0) -> nn.Linear:
    with seeded(seed):
        return nn.Linear(12, 4)


NOT_AFFINE = {
    "rectified": nn.Sequential(nn.Flatten(), linear(), nn.PReLU()),
    "odd": nn.Sequential(nn.Flatten(), nn.Tanh(), linear()),
    "brought to unit length": nn.Sequential(nn.Flatten(), nn.LayerNorm(12, elementwise_affine=False), linear()),
    "the largest": nn.Sequential(nn.Flatten(), nn.MaxPool1d(3)),
}


def with_head(head: nn.Module) -> Any:
    network: Any = nn.Identity()
    network.size, network.head = 2, head
    network.embed = lambda feature_map: network.head(feature_map)
    return network


@pytest.mark.parametrize("name", NOT_AFFINE)
def test_a_head_that_is_not_affine_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"head of Identity is not affine: .* \d+\.\d% off\. A similarity is a sum"):
        explain_match(with_head(NOT_AFFINE[name]), pictures(1, 2), draw(4))


def test_affine_is_what_a_head_is_in_evaluation_mode() -> None:
    """Dropout and batch normalisation are not so in training. An offset far larger than the rest is no fault."""
    head = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), linear(), nn.BatchNorm1d(4))
    head[2].bias.data += 100
    head[3].running_mean += 7
    network = with_head(head).train()
    found = explain_match(network, pictures(3, 2), draw(4))
    torch.testing.assert_close(found.cams.mean((2, 3)) + found.constants, found.similarities, rtol=0, atol=1e-4)
    assert network.head[1].training
    with pytest.raises(ValueError, match="not affine"):
        check_affine(with_head(head[:2]).train(), pictures(1, 2))


def test_input_that_cannot_be_is_named(tiny: IResNet) -> None:
    probe, mate, nonmates = pictures(2, 56), draw(3), draw(2, 3)

    def refused(sentence: str, **given: Any) -> None:
        arguments = {"recogniser": tiny, "probe": probe, "mate": mate, "nonmates": nonmates} | given
        with pytest.raises(ValueError, match=sentence):
            explain_match(**arguments)

    refused(r"probe has the shape \(2, 3, 64, 64\); .* pictures of \(3, 56, 56\)", probe=pictures(2, 64))
    refused(r"probe has the shape \(3, 56, 56\)", probe=probe[0])
    refused(r"probe has the shape \(0, 3, 56, 56\)", probe=probe[:0])
    refused(r"mate has the shape \(4,\); expected templates of 3 numbers", mate=draw(4))
    refused(r"mate has the shape \(3, 3\); .* for each of 2", mate=draw(3, 3))
    refused(r"nonmates has the shape \(3,\)", nonmates=draw(3))
    refused(r"nonmates has the shape \(0, 3\)", nonmates=draw(0, 3))
    refused(r"nonmates has the shape \(3, 2, 3\); .* for each of 2", nonmates=draw(3, 2, 3))
    refused(r"mate, row 0: the embedding is zero", mate=0 * mate)
    refused(r"nonmates, row 1.*zero, NaN or infinite", nonmates=torch.stack([mate, mate * torch.nan]))
    broken = probe.clone()
    broken[1, 0, 0, 0] = torch.nan
    refused(r"sample 1 of the batch has a NaN", probe=broken)
    refused("SimpleNamespace is no recogniser: it needs `size`", recogniser=SimpleNamespace(size=2))
    refused("'slim' has no embedding head", recogniser=load_backbone("slim"), probe=pictures(1, 112))
    with pytest.raises(ValueError, match=r"images has the shape \(3, 56, 56\)"):
        template(tiny, probe[0])
    with pytest.raises(ValueError, match=r"sample 1 of the batch"):
        template(tiny, broken)

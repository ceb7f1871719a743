"""Nulls: exact counts, the disc as a special case, scores by hand, a search that finds what was planted."""

import inspect

import numpy as np
import pytest
import torch
from torch import nn

from xfrlib import deletion_retention
from xfrlib.evaluation import controls, nulls
from xfrlib.evaluation.nulls import Ellipse

SIZE = (112, 112)


class SumsOverARegion(nn.Module):
    """Logits (sum of the red channel over a region / its size, 0): the margin is what is left of the region."""

    def __init__(self, region: np.ndarray) -> None:
        super().__init__()
        self.region = nn.Parameter(torch.from_numpy(region).float(), requires_grad=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        own = (images[:, 0] * self.region).sum((1, 2)) / self.region.sum()
        return torch.stack([own, torch.full_like(own, -5.0)], dim=1)


@pytest.mark.parametrize("shape", [Ellipse(), Ellipse(1.5), Ellipse(0.4, 0.2, -0.3), Ellipse(1.2, 0.5, 0.5)])
@pytest.mark.parametrize("size", [SIZE, (9, 14)])
def test_ellipses_have_exactly_the_wanted_number_of_pixels(shape, size):
    for count in (1, 17, size[0] * size[1] // 5):
        assert nulls.ellipse(count, size, shape).sum() == count


def test_the_disc_is_the_ellipse_of_aspect_one_and_an_aspect_is_height_over_width():
    assert np.array_equal(nulls.ellipse(2509, SIZE), controls.disc(2509, SIZE))
    tall = nulls.ellipse(2509, SIZE, Ellipse(1.5))
    assert np.ptp(np.nonzero(tall)[0]) / np.ptp(np.nonzero(tall)[1]) == pytest.approx(1.5, abs=0.05)
    moved = nulls.ellipse(2509, SIZE, Ellipse(1.0, 0.125, -0.25))  # 14 pixels down, 28 to the left
    assert np.array_equal(moved, np.roll(controls.disc(2509, SIZE), (14, -28), axis=(0, 1)))


@pytest.mark.parametrize("aspect", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_ellipse_is_named(aspect):
    with pytest.raises(ValueError, match="aspect"):
        nulls.ellipse(5, (4, 4), Ellipse(aspect))
    with pytest.raises(ValueError, match="count"):
        nulls.ellipse(16, (4, 4))


def test_balance_by_hand():
    """A picture of ones; the region that counts is the left half, the mask is the left column of two."""
    counts = np.array([[1, 1, 0, 0]] * 2, dtype=bool)
    model = SumsOverARegion(counts).eval()
    images = torch.ones(1, 3, 2, 4)
    mask = torch.tensor([[True, False, False, False]] * 2)
    # grey 0.5: deleted, half of the region falls from 1 to 0.5 (margin - 0.25); retained, the other half does (- 0.25)
    score = nulls.balance(model, images, [mask], logits=model(images), progress=False)
    assert score.tolist() == [[pytest.approx(0.0)]]
    # the whole region: deletion takes 0.5, retention nothing; with T = 0.1 tenfold
    whole = torch.from_numpy(counts)
    score = nulls.balance(model, images, [whole, ~whole], logits=model(images), temperature=0.1, progress=False)
    assert score[0].tolist() == [pytest.approx(5.0, abs=1e-4), pytest.approx(-5.0, abs=1e-4)]


def test_balance_is_the_difference_of_the_two_drops_whatever_the_batch(classifier, images):
    regions = [torch.rand(16, 16) > 0.7, torch.rand(5, 16, 16) > 0.7]
    options = {"logits": classifier(images), "fill": "black", "temperature": 2.0, "progress": False}
    fast = nulls.balance(classifier, images, regions, batch_size=2, **options)
    for column, region in enumerate(regions):
        masks = region.expand(5, 16, 16)
        for i in range(5):
            row = deletion_retention(classifier, images[i : i + 1], masks[i : i + 1], temperature=2.0).iloc[0]
            by_hand = row["deletion_margin_drop"] - row["retention_margin_drop"]
            assert float(fast[i, column]) == pytest.approx(by_hand, abs=1e-4)


def test_the_search_finds_the_planted_region_and_the_constant_the_one_that_is_best_on_average():
    family = nulls.cross(Ellipse(1.2))
    assert len(family) == len(set(family)) == 9
    masks = [torch.from_numpy(nulls.ellipse(160, (28, 28), shape)) for shape in family]
    found = []
    for planted in masks:
        model = SumsOverARegion(planted.numpy()).eval()
        images = torch.ones(1, 3, 28, 28)
        found.append(nulls.balance(model, images, masks, logits=model(images), progress=False))
    scores = torch.cat(found)
    assert nulls.best_of_each(scores).tolist() == list(range(9))
    often = torch.cat([scores[2:3]] * 20 + [scores])  # most pictures have the third region planted
    assert nulls.best_constant(often) == 2
    with pytest.raises(ValueError, match="finite"):
        nulls.best_constant(scores * float("nan"))


def test_the_choice_does_not_know_the_fill_that_judges(classifier, images):
    """Neither choice takes a fill; the scores that it reads are made with one fill, and judging leaves them alone."""
    for choose in (nulls.best_constant, nulls.best_of_each):
        assert list(inspect.signature(choose).parameters) == ["scores"]
    masks = [torch.from_numpy(nulls.ellipse(51, (16, 16), shape)) for shape in nulls.cross(Ellipse())]
    options = {"logits": classifier(images), "progress": False}
    chosen = []
    for judging in ("black", "blur"):
        scores = nulls.balance(classifier, images, masks, **options)  # grey unless another is asked for
        region = torch.stack(masks)[nulls.best_of_each(scores)]
        nulls.balance(classifier, images, [region], fill=judging, **options)
        chosen.append(region)
    assert torch.equal(*chosen)
    other = nulls.balance(classifier, images, masks, fill="black", **options)
    assert not torch.equal(scores, other)  # the fill does matter: the test above could fail


def test_share_of_the_reference_by_hand_and_its_refusal():
    rng = np.random.default_rng(0)
    people, networks = np.tile(np.repeat(np.arange(20), 4), 3), np.repeat(np.arange(3), 80)
    reference = 2 + 0.1 * rng.standard_normal(240)
    half = nulls.share_of_reference(0.5 * reference, reference, people, networks)
    assert half is not None and half.value == pytest.approx(0.5)
    assert half.high - half.low == pytest.approx(0, abs=1e-6)  # a fixed share has no spread
    noisy = nulls.share_of_reference(1 + rng.standard_normal(240), reference, people, networks)
    assert noisy is not None and noisy.low < noisy.value < noisy.high and noisy.low < 0.5 < noisy.high
    assert nulls.share_of_reference(reference, reference - 2, people, networks) is None

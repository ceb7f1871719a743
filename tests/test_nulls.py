"""Nulls: exact counts, the disc as a special case, scores by hand, a search that finds what was planted."""

import numpy as np
import pytest
import torch
from torch import nn

from studies import better_map
from studies.better_map import Ellipse, ellipse
from xfrlib import deletion_retention
from xfrlib.controls import disc
from xfrlib.explanation import select_classes

SIZE = (112, 112)


class SumsOverARegion(nn.Module):
    """Logits (sum of the red channel over a region / its size, -5): the lead is what is left of the region, plus 5."""

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
        assert ellipse(count, size, shape).sum() == count


def test_the_disc_is_the_ellipse_of_aspect_one_and_an_aspect_is_height_over_width():
    assert np.array_equal(ellipse(2509, SIZE), disc(2509, SIZE))
    tall = ellipse(2509, SIZE, Ellipse(1.5))
    assert np.ptp(np.nonzero(tall)[0]) / np.ptp(np.nonzero(tall)[1]) == pytest.approx(1.5, abs=0.05)
    moved = ellipse(2509, SIZE, Ellipse(1.0, 0.125, -0.25))  # 14 pixels down, 28 to the left
    assert np.array_equal(moved, np.roll(disc(2509, SIZE), (14, -28), axis=(0, 1)))


@pytest.mark.parametrize("aspect", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_ellipse_is_named(aspect):
    with pytest.raises(ValueError, match="aspect"):
        ellipse(5, (4, 4), Ellipse(aspect))
    with pytest.raises(ValueError, match="count"):
        ellipse(17, (4, 4))


def drops_of(model, images, regions, fills=("grey",), top_k=2, **options):
    with torch.no_grad():
        logits = model(images)
    options |= {"logits": logits, "pairs": select_classes(logits, top_k=top_k), "fills": fills, "progress": False}
    return better_map.lead_drops(model, images, regions, **options)


def balance(drops):
    return drops[..., 0] - drops[..., 1]


def test_drops_and_balance_by_hand():
    """A picture of ones; the region that counts is the left half, the mask is the left column of two."""
    counts = np.array([[1, 1, 0, 0]] * 2, dtype=bool)
    model = SumsOverARegion(counts).eval()
    images = torch.ones(1, 3, 2, 4)
    column = torch.tensor([[True, False, False, False]] * 2)
    # grey 0.5: deleted, half of what counts falls from 1 to 0.5; retained, the other half does
    assert drops_of(model, images, [column]).tolist() == [[[pytest.approx(0.25), pytest.approx(0.25)]]]
    # all that counts: deletion takes 0.5, retention nothing; with T = 0.1 tenfold
    whole = torch.from_numpy(counts)
    drops = drops_of(model, images, [whole, ~whole], temperature=0.1)
    assert balance(drops)[0].tolist() == [pytest.approx(5.0, abs=1e-4), pytest.approx(-5.0, abs=1e-4)]
    # black takes twice as much; of grey and black the mean counts; ones in the place of ones take nothing
    assert float(drops_of(model, images, [whole], fills=["grey", "black"])[0, 0, 0]) == pytest.approx(0.75)
    assert drops_of(model, images, [whole], fills={"ones": torch.ones_like(images)}).tolist() == [[[0.0, 0.0]]]


@pytest.mark.parametrize("fill", ["black", "blur"])
def test_drops_are_those_of_deletion_retention_whatever_the_batch(classifier, images, fill):
    regions = [torch.rand(16, 16) > 0.7, torch.rand(5, 16, 16) > 0.7]
    fast = drops_of(classifier, images, regions, fills=[fill], temperature=2.0, batch_size=2, top_k=4)
    pairs = select_classes(classifier(images), top_k=4)
    for column, region in enumerate(regions):
        masks = region.expand(5, 16, 16)
        for i in range(5):
            here = slice(i, i + 1)
            given = {"fill": fill, "temperature": 2.0, "pairs": pairs[here]}
            row = deletion_retention(classifier, images[here], masks[here], **given).iloc[0]
            by_hand = [row["deletion_lead_drop"], row["retention_lead_drop"]]
            assert fast[i, column].tolist() == pytest.approx(by_hand, abs=1e-4)


@torch.no_grad()
def test_the_lead_is_over_the_rivals_of_the_unchanged_picture_whoever_rises_afterwards(classifier, images):
    """By a loop over pictures, fills and rivals; the margin, whose rival is another afterwards, gives other numbers."""
    region, temperature, fills = torch.zeros(16, 16, dtype=torch.bool), 2.0, {"black": 0.0, "grey": 0.5}
    region[3:12, 5:14] = True
    before, another = classifier(images), 0
    lead, margin = torch.zeros(5, 2), torch.zeros(5, 2)
    for i, z in enumerate(before.tolist()):
        target, *rivals = sorted(range(7), key=lambda c: -z[c])
        for side, removed in enumerate((region, ~region)):
            for value in fills.values():
                changed = images[i].clone()
                changed[:, removed] = value
                after = classifier(changed[None])[0].tolist()
                falls = [(z[target] - z[c]) - (after[target] - after[c]) for c in rivals[:2]]
                lead[i, side] += sum(falls) / 2 / temperature / len(fills)
                best = max(rivals, key=lambda c: after[c])
                another += best not in rivals[:2]
                fall = (z[target] - z[rivals[0]]) - (after[target] - after[best])
                margin[i, side] += fall / temperature / len(fills)
    found = drops_of(classifier, images, [region], fills=list(fills), temperature=temperature, top_k=3)[:, 0]
    assert another > 0 and not torch.isclose(lead, margin, rtol=0, atol=1e-3).any()
    torch.testing.assert_close(found.float(), lead, rtol=0, atol=1e-5)


def test_the_lead_needs_its_classes(classifier, images):
    with pytest.raises(TypeError, match="pairs"):
        better_map.lead_drops(classifier, images, [], logits=classifier(images))


def test_other_people_are_others_and_depend_on_the_seed():
    labels = [0, 0, 1, 1, 2, 2, 2]
    images = torch.arange(7)
    drawn = better_map.other_people(images, labels, seed=3)
    assert all(labels[int(other)] != label for other, label in zip(drawn, labels, strict=True))
    assert torch.equal(drawn, better_map.other_people(images, labels, seed=3))
    with pytest.raises(ValueError, match="one person"):
        better_map.other_people(images, [1] * 7)


def test_the_search_finds_the_planted_region_and_the_constant_the_one_that_is_best_on_average():
    family = better_map.cross(Ellipse(1.2))
    assert len(family) == len(set(family)) == 9
    masks = [torch.from_numpy(ellipse(160, (28, 28), shape)) for shape in family]
    found = []
    for planted in masks:
        model = SumsOverARegion(planted.numpy()).eval()
        images = torch.ones(1, 3, 28, 28)
        found.append(balance(drops_of(model, images, masks)))
    scores = torch.cat(found)
    assert better_map.best_of_each(scores).tolist() == list(range(9))
    often = torch.cat([scores[2:3]] * 20 + [scores])  # most pictures have the third region planted
    assert better_map.best_constant(often) == 2
    with pytest.raises(ValueError, match="finite"):
        better_map.best_constant(scores * float("nan"))


def test_share_of_the_reference_by_hand_and_its_refusal():
    rng = np.random.default_rng(0)
    people, networks = np.tile(np.repeat(np.arange(20), 4), 3), np.repeat(np.arange(3), 80)
    reference = 2 + 0.1 * rng.standard_normal(240)
    half = better_map.share_of_reference(0.5 * reference, reference, people, networks)
    assert half is not None and half.value == pytest.approx(0.5)
    assert np.isnan([half.low, half.high]).all()  # a fixed share has no spread, and what has none is not certain
    noisy = better_map.share_of_reference(1 + rng.standard_normal(240), reference, people, networks)
    assert noisy is not None and noisy.low < noisy.value < noisy.high and noisy.low < 0.5 < noisy.high
    assert better_map.share_of_reference(reference, reference - 2, people, networks) is None

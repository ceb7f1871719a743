"""The refined map: what was planted in the scores is found, a small case by hand, and sizes that disagree are named."""

import pytest
import torch

from studies.better_map import random_regions
from studies.prior import RefinedMap, _laplacian, fit_refined_map, standardised_cells

CELLS = (4, 4)


def planted(pictures: int = 30, regions: int = 60):
    """Scores that are exactly a prior, one of each of three people, two maps, and a number of its own for a picture."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.stack([random_regions(regions, (16, 16), fraction=0.25, seed=i, grid=4) for i in range(pictures)])
    maps = torch.randn(pictures, 2, *CELLS, generator=generator)
    prior, *people = (x + x.flip(1) for x in torch.randn(4, *CELLS, generator=generator))
    classes = torch.arange(pictures) % 3
    worth = torch.einsum("j,bjhw->bhw", torch.tensor([0.7, -0.2]), standardised_cells(maps, CELLS))
    scores = []
    for own in (torch.zeros(3, *CELLS), torch.stack(people)):
        covered = torch.nn.functional.adaptive_avg_pool2d(masks.float(), CELLS)
        total = (covered * (prior + own[classes] + worth)[:, None]).sum((2, 3))
        scores.append(total + torch.randn(pictures, 1, generator=generator))
    return masks, scores, maps, classes, prior


def fit(masks, scores, maps, classes, **options):
    return fit_refined_map(masks, scores, maps, classes, num_classes=4, **{"cells": CELLS, **options})


def test_a_planted_prior_and_planted_weights_are_found():
    masks, (scores, _), maps, classes, prior = planted()
    fitted = fit(masks, scores, maps, classes, smoothness=1e-6)
    assert fitted.weights.tolist() == pytest.approx([0.7, -0.2], abs=1e-3)
    # regions of one size leave a constant over all cells free: it moves no pixel in the order
    torch.testing.assert_close(fitted.prior - fitted.prior.mean(), prior - prior.mean(), atol=1e-2, rtol=0)
    assert fitted.explained == pytest.approx(1, abs=1e-4) and not fitted.people.any()
    alone = fit(masks, scores, maps[:, :0], classes, smoothness=1e-6)
    assert alone.weights.numel() == 0 and 0 < alone.explained < fitted.explained


def test_what_differs_between_people_is_found_and_a_person_never_seen_has_the_common_prior():
    masks, (_, scores), maps, classes, _ = planted()
    common = fit(masks, scores, maps, classes)
    fitted = fit(masks, scores, maps, classes, people=True)
    assert fitted.explained > common.explained + 0.1
    assert fitted.people.shape == (4, *CELLS) and fitted.people[:3].any() and not fitted.people[3].any()
    torch.testing.assert_close(fitted.people, fitted.people.flip(2), atol=1e-5, rtol=0)
    assert torch.equal(fitted.prior, common.prior)
    unseen = torch.tensor([3])
    assert torch.equal(fitted(maps[:1], unseen, size=(8, 8)), common(maps[:1], unseen, size=(8, 8)))


def test_scores_that_no_map_explains_get_no_weight():
    masks, (scores, _), maps, classes, _ = planted()
    strange = torch.randn(maps.shape, generator=torch.Generator().manual_seed(9))
    alone = fit(masks, scores, maps[:, :0], classes)
    fitted = fit(masks, scores, strange, classes)
    assert fitted.weights.abs().max() < 0.2  # the planted one is 0.7
    assert fitted.explained == pytest.approx(alone.explained, abs=0.02)


def test_a_map_by_hand():
    """Prior 0, 1, 2, 3, for class 1 ten more in the first cell; the map -1, 1, -1, 1 is standardised; weight 2."""
    people = torch.zeros(2, 2, 2)
    people[1, 0, 0] = 10
    fitted = RefinedMap(torch.tensor([[0.0, 1.0], [2.0, 3.0]]), people, torch.tensor([2.0]), 0.0)
    maps = torch.tensor([[[[-1.0, 1.0], [-1.0, 1.0]]]] * 2)
    wanted = [[[-2.0, 3.0], [0.0, 5.0]], [[8.0, 3.0], [0.0, 5.0]]]
    assert fitted(maps, torch.tensor([0, 1]), size=(2, 2)).tolist() == wanted
    assert fitted(5 * maps + 7, torch.tensor([0, 1]), size=(2, 2)).tolist() == wanted  # unit and level do not matter
    with pytest.raises(ValueError, match=r"expected maps \(B, 1"):
        fitted(maps[:, :0], torch.tensor([0, 1]), size=(2, 2))


def test_a_flat_map_is_no_map():
    assert not standardised_cells(torch.full((1, 1, 3, 3), 4.0), (3, 3)).any()


def test_random_regions_have_the_exact_size_and_are_a_function_of_the_seed():
    regions = random_regions(20, (112, 112), fraction=0.2, seed=3)
    assert regions.sum((1, 2)).tolist() == [2509] * 20
    assert torch.equal(regions, random_regions(20, (112, 112), fraction=0.2, seed=3))
    assert not torch.equal(regions, random_regions(20, (112, 112), fraction=0.2, seed=4))


def test_the_roughness_is_the_sum_of_squared_differences_between_neighbours():
    values = torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    flat = values.flatten()
    by_hand = (1 + 4 + 0 + 1) + (1 + 4 + 9)
    assert float(flat @ _laplacian((2, 3)) @ flat) == by_hand


def test_a_smoother_prior_is_asked_for_and_got():
    masks, (scores, _), maps, classes, _ = planted()
    rough, smooth = (fit(masks, scores, maps, classes, smoothness=s).prior for s in (0.01, 10))
    assert smooth.std() < rough.std()


@pytest.mark.parametrize("change", ["regions", "maps", "classes", "smoothness"])
def test_what_disagrees_is_named(change):
    masks, (scores, _), maps, classes, _ = planted(3, 4)
    given = {"regions": masks, "maps": maps, "classes": classes, "smoothness": 0.3}
    given[change] = 0.0 if change == "smoothness" else given[change][:2]
    with pytest.raises(ValueError, match="smoothness" if change == "smoothness" else "sizes disagree"):
        fit_refined_map(scores=scores, num_classes=3, cells=CELLS, **given)

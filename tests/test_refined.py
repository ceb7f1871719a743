"""The refined map: what was planted in the scores is found, a small case by hand, and sizes that disagree are named."""

import pytest
import torch

from xfrlib import refined
from xfrlib.refined import fit_refined_map, random_regions, standardised

CELLS = (4, 4)


def planted(pictures: int = 30, regions: int = 60):
    """Scores that are exactly a prior and two maps, and a number of its own for each picture."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.stack([random_regions(regions, (16, 16), fraction=0.25, seed=i, grid=4) for i in range(pictures)])
    maps = torch.randn(pictures, 2, *CELLS, generator=generator)
    prior = torch.randn(CELLS, generator=generator)
    worth = prior + torch.einsum("j,bjhw->bhw", torch.tensor([0.7, -0.2]), standardised(maps, CELLS))
    covered = torch.nn.functional.adaptive_avg_pool2d(masks.float(), CELLS)
    scores = (covered * worth[:, None]).sum((2, 3)) + torch.randn(pictures, 1, generator=generator)
    return masks, scores, maps, prior


def test_a_planted_prior_and_planted_weights_are_found():
    masks, scores, maps, prior = planted()
    fitted = fit_refined_map(masks, scores, maps, cells=CELLS, smoothness=1e-6)
    assert fitted.weights.tolist() == pytest.approx([0.7, -0.2], abs=1e-3)
    # regions of one size leave a constant over all cells free: it moves no pixel in the order
    torch.testing.assert_close(fitted.prior - fitted.prior.mean(), prior - prior.mean(), atol=1e-2, rtol=0)
    assert fitted.explained == pytest.approx(1, abs=1e-4)
    alone = fit_refined_map(masks, scores, maps[:, :0], cells=CELLS, smoothness=1e-6)
    assert alone.weights.numel() == 0 and 0 < alone.explained < fitted.explained


def test_scores_that_no_map_explains_get_no_weight():
    masks, scores, maps, _ = planted()
    strange = torch.randn(maps.shape, generator=torch.Generator().manual_seed(9))
    alone = fit_refined_map(masks, scores, maps[:, :0], cells=CELLS)
    fitted = fit_refined_map(masks, scores, strange, cells=CELLS)
    assert fitted.weights.abs().max() < 0.2  # the planted one is 0.7
    assert fitted.explained == pytest.approx(alone.explained, abs=0.02)


def test_a_map_by_hand():
    """Prior 0, 1, 2, 3; the map -1, 1, -1, 1 is standardised already; weight 2."""
    fitted = refined.RefinedMap(torch.tensor([[0.0, 1.0], [2.0, 3.0]]), torch.tensor([2.0]), 0.0)
    maps = torch.tensor([[[[-1.0, 1.0], [-1.0, 1.0]]]])
    assert fitted(maps, size=(2, 2)).tolist() == [[[-2.0, 3.0], [0.0, 5.0]]]
    assert fitted(5 * maps + 7, size=(2, 2)).tolist() == [[[-2.0, 3.0], [0.0, 5.0]]]  # unit and level do not matter
    alone = refined.RefinedMap(fitted.prior, torch.zeros(0), 0.0)
    assert alone(maps[:, :0], size=(2, 2))[0].tolist() == fitted.prior.tolist()
    with pytest.raises(ValueError, match=r"expected maps \(B, 1"):
        fitted(maps[:, :0], size=(2, 2))


def test_a_flat_map_is_no_map():
    assert not standardised(torch.full((1, 1, 3, 3), 4.0), (3, 3)).any()


def test_random_regions_have_the_exact_size_and_are_a_function_of_the_seed():
    regions = random_regions(20, (112, 112), fraction=0.2, seed=3)
    assert regions.sum((1, 2)).tolist() == [2509] * 20
    assert torch.equal(regions, random_regions(20, (112, 112), fraction=0.2, seed=3))
    assert not torch.equal(regions, random_regions(20, (112, 112), fraction=0.2, seed=4))


def test_the_roughness_is_the_sum_of_squared_differences_between_neighbours():
    values = torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    flat = values.flatten()
    by_hand = (1 + 4 + 0 + 1) + (1 + 4 + 9)
    assert float(flat @ refined._laplacian((2, 3)) @ flat) == by_hand


def test_a_smoother_prior_is_asked_for_and_got():
    masks, scores, maps, _ = planted()
    rough, smooth = (fit_refined_map(masks, scores, maps, cells=CELLS, smoothness=s).prior for s in (0.01, 10))
    assert smooth.std() < rough.std()


@pytest.mark.parametrize("change", ["regions", "maps", "smoothness"])
def test_what_disagrees_is_named(change):
    masks, scores, maps, _ = planted(3, 4)
    options = {"cells": CELLS}
    if change == "smoothness":
        options["smoothness"] = 0.0
    with pytest.raises(ValueError, match="smoothness" if change == "smoothness" else "sizes disagree"):
        fit_refined_map(
            masks[:, :3] if change == "regions" else masks, scores, maps[:2] if change == "maps" else maps, **options
        )

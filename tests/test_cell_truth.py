"""The truth per cell: against a loop, by hand, and what a prior and a map explain of it."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from studies.cell_truth import (
    agreement,
    at_cells,
    cell_effects,
    cell_squares,
    explained_beyond_prior,
    on_cells,
    pair_effects,
    prior_of_others,
    scored,
    true_maps,
)
from xfrlib import FaceClassifier, explain
from xfrlib.geometry import Geometry, upsampled

PLACE = Geometry((4, 4), (0, 1))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()


def test_squares_lie_around_the_places_and_end_at_the_border() -> None:
    squares = cell_squares(PLACE, (3, 3), (12, 12)).view(3, 3, 12, 12)
    assert squares[1, 1].nonzero().min(dim=0).values.tolist() == [2, 3]
    assert squares[1, 1].nonzero().max(dim=0).values.tolist() == [5, 6]
    assert squares[0, 0].sum() == 2 * 3  # rows -2 to 1, columns -1 to 2
    assert (squares.sum(dim=(0, 1)) <= 1).all()


def test_effects_equal_a_naive_loop(model: nn.Module) -> None:
    images = torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    face, squares = images.mean(dim=0), cell_squares(PLACE, (3, 3), (12, 12))
    found = cell_effects(model, images, squares, {"grey": "grey", "mean face": face}, batch_size=4, progress=False)
    assert found.shape == (2, 3, 9, 5)
    with torch.no_grad():
        for i in range(3):
            for u in range(9):
                for number, filling in enumerate((torch.full((3, 12, 12), 0.5), face)):
                    picture = images[i].clone()
                    for y, x in squares[u].nonzero().tolist():
                        picture[:, y, x] = filling[:, y, x]
                    expected = (model(images[i][None]) - model(picture[None]))[0]
                    torch.testing.assert_close(found[number, i, u], expected, rtol=1e-4, atol=1e-5)
    classes = torch.tensor([[1, 0, 4], [2, 3, 0], [4, 1, 2]])
    pairs = pair_effects(found, classes)
    by_hand = found[1, 1, 5, 2] - (found[1, 1, 5, 3] + found[1, 1, 5, 0]) / 2
    assert pairs[1, 1, 5] == pytest.approx(float(by_hand), abs=1e-6)


def test_where_cells_do_not_overlap_the_true_map_is_the_difference_of_cams() -> None:
    class Cells(nn.Conv2d):
        out_channels, name = 4, "cells"

    torch.manual_seed(0)
    model = FaceClassifier(Cells(3, 4, 4, stride=4, bias=False), 3).eval()
    images, classes = torch.rand(2, 3, 16, 16), torch.tensor([[0, 1, 2], [2, 0, 1]])
    found = true_maps(model, images, classes, torch.zeros(3, 16, 16), batch_size=5, progress=False)
    explanation = explain(model, images, target=classes[:, 0], competitors=classes[:, 1:])
    cams = explanation.upsampled_cams / 16  # of 16 cells, whose mean is the logit
    torch.testing.assert_close(found, cams[:, 0] - cams[:, 1:].mean(dim=1), rtol=1e-4, atol=1e-5)
    whole = (images * 255).round().byte()
    near = true_maps(model, whole, classes, torch.zeros(3, 16, 16), progress=False)
    torch.testing.assert_close(near, found, rtol=0.05, atol=0.01)


def test_a_map_is_averaged_over_each_square_and_ranked_within_a_picture() -> None:
    squares = cell_squares(PLACE, (3, 3), (12, 12))
    maps = torch.rand(2, 12, 12, generator=torch.Generator().manual_seed(2))
    values = on_cells(maps, squares)
    assert values[1, 4] == pytest.approx(float(maps[1, 2:6, 3:7].mean()))
    truth = torch.rand(2, 9, generator=torch.Generator().manual_seed(3))
    expected = [stats.spearmanr(a, b).statistic for a, b in zip(values, truth, strict=True)]
    np.testing.assert_allclose(agreement(values, truth), expected, atol=1e-6)
    assert agreement(truth, truth).tolist() == pytest.approx([1, 1])


def test_maps_of_cells_are_read_where_they_look() -> None:
    maps = torch.rand(2, 12, 12, generator=torch.Generator().manual_seed(5))
    found = at_cells(maps, PLACE, (3, 3)).view(2, 3, 3)
    assert torch.equal(found, maps[:, 0::4, 1::4])
    cells = torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(6))
    torch.testing.assert_close(at_cells(upsampled(cells, (12, 12), PLACE), PLACE, (3, 3)).view(2, 3, 3), cells)


def test_a_table_of_scores_has_a_prior_of_other_families() -> None:
    generator = torch.Generator().manual_seed(7)
    shared, families = torch.randn(9, generator=generator), np.repeat(np.arange(6), 2)
    truth = shared + 0.01 * torch.randn(12, 9, generator=generator)
    table = scored({"truth": truth, "noise": torch.randn(12, 9, generator=generator)}, {"grey": truth}, families)
    means = table.groupby("method")["agreement"].mean()
    assert means["truth"] == pytest.approx(1) and means["prior"] > 0.95 > 0.5 > means["noise"]
    own = prior_of_others(torch.cat([truth[:10], truth[10:] + 100 * torch.randn(2, 9, generator=generator)]), families)
    torch.testing.assert_close(own[10:], prior_of_others(truth, families)[10:])  # its own truth plays no part


def test_what_is_explained_beyond_the_prior() -> None:
    """Truth = what all share + what the picture has: the second half of the variance is a map's to explain."""
    generator = torch.Generator().manual_seed(4)
    shared, own = torch.randn(49, generator=generator), torch.randn(200, 49, generator=generator)
    people = np.repeat(np.arange(40), 5)
    truth, noise = shared + own, torch.randn(200, 1, 49, generator=generator)
    assert explained_beyond_prior(own[:, None], truth, people).mean() == pytest.approx(1, abs=0.05)
    assert explained_beyond_prior(noise, truth, people).mean() == pytest.approx(0, abs=0.02)
    same_for_all = shared.expand(200, 1, 49)
    assert explained_beyond_prior(same_for_all, truth, people).mean() == pytest.approx(0, abs=0.02)
    half = (own + torch.randn(200, 49, generator=generator))[:, None]
    assert explained_beyond_prior(half, truth, people).mean() == pytest.approx(0.5, abs=0.06)
    assert np.isfinite(explained_beyond_prior(noise[:4], truth[:4], [0, 0, 1, 1])).all()
    with pytest.raises(ValueError, match="at least two families"):
        explained_beyond_prior(noise[:4], truth[:4], [0, 0, 0, 0])

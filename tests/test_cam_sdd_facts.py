"""Facts that the chapters on CAM and SDD teach and no other test holds: the limits in delta, and what a twin adds."""

from dataclasses import replace

import pytest
import torch

from xfrlib import scaled_directed_divergence, top_fraction_mask
from xfrlib.sdd import Divergence

AT_ONE = Divergence(scale_min=1.0, scale_max=1.0)


@pytest.fixture
def maps():
    return torch.randn(6, 5, 7, 7, generator=torch.Generator().manual_seed(4), dtype=torch.float64) * 3


def peak_at_zero(values):
    return values - values.amax(dim=(1, 2), keepdim=True)


def test_a_small_delta_ranks_the_sum_as_the_product_does(maps):
    small = 1e-5
    total = scaled_directed_divergence(maps, replace(AT_ONE, delta=small), log=True) / small
    torch.testing.assert_close(total, peak_at_zero(maps[:, 0] - maps[:, 1:].mean(dim=1)), rtol=0, atol=1e-3)
    product = scaled_directed_divergence(maps, replace(AT_ONE, form="product"), log=True)
    assert torch.equal(top_fraction_mask(total), top_fraction_mask(product))


def test_a_large_delta_leaves_the_weakest_rival_of_each_place(maps):
    large = 1e4
    total = scaled_directed_divergence(maps, replace(AT_ONE, delta=large), log=True) / large
    torch.testing.assert_close(total, peak_at_zero(maps[:, 0] - maps[:, 1:].amin(dim=1)), rtol=0, atol=1e-3)


def test_one_rival_reverses_the_order_of_the_target(maps):
    pair = maps[:, :2]
    ours, theirs = (scaled_directed_divergence(pair, AT_ONE, target=t, log=True).flatten(1) for t in (0, 1))
    assert torch.equal(ours.argsort(dim=1), theirs.argsort(dim=1, descending=True))


def test_a_twin_of_the_target_keeps_the_order_of_sum_and_product_and_halves_the_local_softmax(maps):
    with_twin = torch.cat([maps, maps[:, :1]], dim=1)
    for form in ("sum", "product"):
        before, after = (scaled_directed_divergence(m, replace(AT_ONE, form=form), log=True) for m in (maps, with_twin))
        assert torch.equal(before.flatten(1).argsort(dim=1), after.flatten(1).argsort(dim=1))
    before, after = (scaled_directed_divergence(m, replace(AT_ONE, form="local_softmax")) for m in (maps, with_twin))
    # p = t / (t + r) becomes p / (1 + p); both are divided by their largest value
    largest = torch.softmax(maps, dim=1)[:, 0].amax(dim=(1, 2))[:, None, None]
    p = before * largest
    torch.testing.assert_close(after, p / (1 + p) * (1 + largest) / largest)

"""SDD: cases by hand, the identities of the mathematics, numbers at the edge of float32, bad input."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from xfrlib import class_activation_maps, scaled_directed_divergence, top_fraction_mask
from xfrlib.cam import pooled_features
from xfrlib.geometry import Geometry, upsampled
from xfrlib.sdd import Divergence, sdd_scale

LAID = [None, Geometry((4, 4), (0, 0))]  # as libraries draw 7 x 7 cells on 28 x 28 pixels, and as face networks look


def random_maps(seed=0, shape=(4, 5, 7, 7)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3


def transcribed(maps, delta, scale, scale_min, scale_max, form):
    """Section 3 of the paper by loops, in float64 and without any trick."""
    result = []
    for sample in maps.double():
        target, *rivals = sample
        s = scale * sum(r.abs().mean() for r in rivals) / len(rivals) / target.abs().mean()
        s = min(max(float(s), scale_min), scale_max)
        terms = [torch.exp(delta * (s * target - r)) for r in rivals]
        if form == "sum":
            value = sum(terms)
        elif form == "product":
            value = math.prod(terms)
        else:
            own = torch.exp(delta * s * target)
            value = own / (own + sum(torch.exp(delta * r) for r in rivals))
        result.append(value / value.max())
    return torch.stack(result)


@pytest.mark.parametrize("form", ["sum", "product", "local_softmax"])
@pytest.mark.parametrize("constants", [(1.0, 1.0, 1.0, 50.0), (0.5, 5.0, 0.1, 50.0), (2.0, 1.0, 0.1, 0.3)])
def test_equals_the_transcribed_formula(form, constants):
    delta, scale, low, high = constants
    ours = scaled_directed_divergence(random_maps(), Divergence(delta, scale, low, high, form))
    torch.testing.assert_close(
        ours.double(), transcribed(random_maps(), delta, scale, low, high, form), rtol=1e-4, atol=1e-6
    )


def test_two_by_two_by_hand():
    target, rival = torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 2.0]])
    maps = torch.stack([target, rival])[None]
    # both mean absolute values are 1/2, so s = 1 and the divergence is 2, 0, 0, -2
    e = math.e
    by_hand = torch.tensor([[[1.0, e**-2], [e**-2, e**-4]]])
    for form in ("sum", "product"):
        torch.testing.assert_close(scaled_directed_divergence(maps, Divergence(form=form)), by_hand)


def test_the_target_may_stand_anywhere_in_the_set():
    maps = random_maps()
    moved = torch.cat([maps[:, 1:3], maps[:, :1], maps[:, 3:]], dim=1)
    torch.testing.assert_close(scaled_directed_divergence(moved, target=2), scaled_directed_divergence(maps))


def test_mean_difference_is_the_log_odds_up_to_the_biases(classifier, images):
    pooled = pooled_features(classifier, images)
    maps = class_activation_maps(pooled.features, pooled.weight, torch.tensor([[2, 5]] * 5))
    difference = (maps[:, 0] - maps[:, 1]).mean((1, 2)) + classifier.bias[2] - classifier.bias[5]
    log_p = F.log_softmax(pooled.logits, dim=1)
    torch.testing.assert_close(difference, log_p[:, 2] - log_p[:, 5])


def test_a_vector_added_to_every_row_changes_cam_but_neither_sdd_at_s_1_nor_centred_maps(classifier, images):
    pooled = pooled_features(classifier, images)
    classes = torch.tensor([[2, 5, 1]] * 5)
    other = pooled.weight + torch.randn(6, generator=torch.Generator().manual_seed(1)) * 3
    before, after = (class_activation_maps(pooled.features, w, classes).detach() for w in (pooled.weight, other))
    assert not torch.allclose(before, after, atol=0.1)
    at_one = Divergence(scale_min=1.0, scale_max=1.0)
    torch.testing.assert_close(
        *(scaled_directed_divergence(m, at_one, log=True) for m in (before, after)), rtol=1e-4, atol=1e-4
    )
    with_scale = [scaled_directed_divergence(m, Divergence(scale=5.0), log=True) for m in (before, after)]
    assert not torch.allclose(*with_scale, atol=0.1)
    centred = [class_activation_maps(pooled.features, w - w.mean(0), classes).detach() for w in (pooled.weight, other)]
    torch.testing.assert_close(*centred, rtol=1e-4, atol=1e-4)


def test_sum_factorises_and_tends_to_a_sharpened_cam():
    maps = random_maps()
    s = sdd_scale(maps)[:, None, None]
    product = torch.exp(s * maps[:, 0]) * torch.exp(-maps[:, 1:]).sum(1)
    torch.testing.assert_close(scaled_directed_divergence(maps), product / product.amax((1, 2), keepdim=True))
    shared = []
    for smallest in (1.0, 50.0):
        mask = top_fraction_mask(scaled_directed_divergence(maps, Divergence(scale_min=smallest), log=True))
        shared.append(float((mask & top_fraction_mask(maps[:, 0])).sum() / mask.sum()))
    assert shared[0] < 0.9 <= shared[1]


def test_product_is_one_difference_against_the_mean_rival():
    maps = random_maps()
    s = sdd_scale(maps)[:, None, None]
    single = 4 * (s * maps[:, 0] - maps[:, 1:].mean(1))
    product = scaled_directed_divergence(maps, Divergence(form="product"), log=True)
    torch.testing.assert_close(product, single - single.amax((1, 2), keepdim=True))


@pytest.mark.parametrize("geometry", LAID)
def test_maps_are_upsampled_before_the_exponential(geometry):
    maps = random_maps()
    at_one = Divergence(scale_min=1.0, scale_max=1.0)
    expected = scaled_directed_divergence(upsampled(maps, (28, 28), geometry), at_one)
    found = scaled_directed_divergence(maps, at_one, size=(28, 28), geometry=geometry)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("geometry", LAID)
def test_before_the_upsampling_the_exponentials_are_averaged_and_an_underflow_keeps_an_order(geometry):
    maps, options = random_maps(), {"size": (28, 28), "geometry": geometry, "exponential": "before"}
    fine = upsampled(scaled_directed_divergence(maps.double()), (28, 28), geometry)
    found = scaled_directed_divergence(maps, **options)
    torch.testing.assert_close(found, fine / fine.amax(dim=(1, 2), keepdim=True))
    sharp = scaled_directed_divergence(maps * 1e4, log=True, **options)
    assert torch.isfinite(sharp).all() and (sharp.exp() == 0).float().mean() > 0.9
    assert all(len(sample.unique()) > 400 for sample in sharp.flatten(1))  # of 784, where the border repeats


@pytest.mark.parametrize("form", ["sum", "product", "local_softmax"])
def test_large_exponents_neither_overflow_nor_lose_the_order(form):
    maps = random_maps() * 100
    log = scaled_directed_divergence(maps, Divergence(form=form), log=True)
    assert torch.isfinite(log).all() and torch.isfinite(scaled_directed_divergence(maps, Divergence(form=form))).all()
    if form != "local_softmax":  # which saturates at 1 by its nature
        assert (scaled_directed_divergence(maps, Divergence(form=form)) == 0).sum() > 10
        assert all(len(sample.unique()) == 49 for sample in log.flatten(1))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(2, 6), form=st.sampled_from(["sum", "product", "local_softmax"]))
def test_largest_value_is_one_and_the_logarithm_orders_alike(seed, k, form):
    maps = random_maps(seed, (2, k, 5, 4))
    value, log = (scaled_directed_divergence(maps, Divergence(form=form), log=flag) for flag in (False, True))
    assert torch.equal(value.amax((1, 2)), torch.ones(2)) and (value >= 0).all()
    assert torch.equal(log.amax((1, 2)), torch.zeros(2))
    torch.testing.assert_close(log.exp(), value)


def test_scale_by_hand():
    maps = torch.tensor([[[[2.0, -2.0]], [[1.0, 1.0]], [[3.0, -5.0]]]])  # mean |.|: 2, 1, 4
    assert sdd_scale(maps, Divergence(scale_min=0.1)).item() == pytest.approx(1.25)
    assert sdd_scale(maps, Divergence(scale=4.0, scale_min=0.1, scale_max=3.0)).item() == 3.0
    assert sdd_scale(maps, Divergence(scale=4.0, scale_max=3.0), clamped=False).item() == pytest.approx(5.0)
    assert sdd_scale(maps, Divergence(scale=0.01, scale_min=1.0)).item() == 1.0


@pytest.mark.parametrize(
    ("maps", "arguments", "said"),
    [
        (torch.ones(2, 1, 7, 7), {}, "a target and a rival"),
        (torch.ones(2, 7, 7), {}, "expected maps"),
        (torch.ones(2, 3, 7, 7).index_fill(0, torch.tensor([1]), float("nan")), {}, "sample 1 of the batch has a NaN"),
        (
            torch.ones(2, 3, 7, 7).index_fill(0, torch.tensor([0]), float("inf")),
            {},
            "sample 0 of the batch has a NaN or inf",
        ),
        (torch.ones(2, 3, 7, 7).index_fill(0, torch.tensor([1]), 0.0), {}, "sample 1 of the batch has a target map"),
        (torch.ones(2, 3, 7, 7), {"target": 3}, "target = 3"),
        (torch.ones(2, 3, 7, 7), {"exponential": "late"}, "exponential = 'late': use one of"),
    ],
)
def test_bad_input_is_named(maps, arguments, said):
    with pytest.raises(ValueError, match=said):
        scaled_directed_divergence(maps, **arguments)


@pytest.mark.parametrize(
    ("constants", "said"),
    [
        ({"delta": 0.0}, "delta = 0.0"),
        ({"scale": float("inf")}, "scale = inf"),
        ({"scale_min": 2.0, "scale_max": 1.0}, "scale_max = 1.0"),
        ({"form": "mean"}, "form = 'mean': use one of"),
    ],
)
def test_impossible_constants_are_named(constants, said):
    with pytest.raises(ValueError, match=said):
        Divergence(**constants)

"""The grid of open constants: the same maps and the same numbers as the long way round."""

import numpy as np
import pandas as pd
import pytest
import torch

from studies import sensitivity
from xfrlib import explain, top_fraction_mask
from xfrlib.cam import pooled_features
from xfrlib.geometry import upsampled
from xfrlib.intervals import Estimate, mean_interval
from xfrlib.sdd import Divergence, sdd_scale

DEFAULT = {"delta": 1.0, "s": "clamped", "form": "sum", "resolution": "after", "rivals": 4, "centre": True}


@pytest.mark.parametrize(
    ("setting", "same"),
    [
        ({}, {}),
        ({"delta": 3.0, "rivals": 2}, {"divergence": Divergence(delta=3.0), "top_k": 3}),
        ({"form": "product", "centre": False}, {"divergence": Divergence(form="product"), "centre": False}),
        ({"s": 2.0}, {"divergence": Divergence(scale_min=2.0, scale_max=2.0)}),
        ({"s": "unclamped"}, {"divergence": Divergence(scale_min=1e-6)}),
        ({"scale": 3.0}, {"divergence": Divergence(scale=3.0)}),
        ({"scale": 0.5, "scale_min": 0.5}, {"divergence": Divergence(scale=0.5, scale_min=0.5)}),
        ({"scale_min": 2.0}, {"divergence": Divergence(scale_min=2.0)}),
    ],
)
def test_a_setting_is_that_of_explain(classifier, images, setting, same):
    found = sensitivity.sdd_ranking(pooled_features(classifier, images), size=(16, 16), **setting)
    wanted = explain(classifier, images, **same).log_sdd
    torch.testing.assert_close(found.float(), wanted, rtol=1e-4, atol=1e-4)


def test_the_exponential_before_the_upsampling(classifier, images):
    pooled = pooled_features(classifier, images)
    found = sensitivity.sdd_ranking(pooled, size=(16, 16), resolution="before")
    explanation = explain(classifier, images)
    ours, rivals = explanation.cams[:, :1].double(), explanation.cams[:, 1:].double()
    cells = (ours - rivals).exp().sum(dim=1)  # by hand; s is 1 where the clamp holds it
    held = sdd_scale(explanation.cams) == 1
    assert held.any()
    wanted = upsampled(cells, (16, 16), explanation.geometry)
    wanted = wanted / wanted.amax(dim=(1, 2), keepdim=True)
    torch.testing.assert_close(found[held].exp(), wanted[held], rtol=1e-5, atol=1e-6)


def test_k_and_its_lower_bound_bear_on_the_clamped_scale_alone(classifier, images):
    pooled = pooled_features(classifier, images)

    def ranking(**setting):
        return sensitivity.sdd_ranking(pooled, size=(16, 16), **setting)

    for changed in ({"scale": 3.0}, {"scale_min": 2.0}):
        assert torch.equal(ranking(s=2.0), ranking(s=2.0, **changed))
        assert not torch.equal(ranking(), ranking(**changed))


@pytest.mark.parametrize("form", ["sum", "product", "local_softmax"])
def test_centring_changes_nothing_where_the_scale_is_one(classifier, images, form):
    pooled = pooled_features(classifier, images)

    def ranking(s, centre):
        return sensitivity.sdd_ranking(pooled, size=(16, 16), form=form, s=s, centre=centre)

    torch.testing.assert_close(ranking(1.0, True), ranking(1.0, False), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(ranking(2.0, True), ranking(2.0, False), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"resolution": "later"}, "exponential = 'later'"),
        ({"s": "clipped"}, "s = 'clipped'"),
        ({"rivals": 7}, "top_k = 8: must be between 2 and the number of classes, 7"),
        ({"delta": -1.0}, "delta = -1.0"),
    ],
)
def test_an_impossible_constant_is_named(classifier, images, setting, said):
    with pytest.raises(ValueError, match=said):
        sensitivity.sdd_ranking(pooled_features(classifier, images), size=(16, 16), **setting)


def test_settings_are_named_and_counted_once():
    settings = sensitivity.one_at_a_time(DEFAULT, {"delta": (0.3, 1.0, 3.0), "form": ("sum", "product")})
    assert list(settings) == ["default", "delta 0.3", "delta 3.0", "form product"]
    assert settings["form product"] == {**DEFAULT, "form": "product"}
    grid = sensitivity.full_grid(DEFAULT, {"delta": (1.0, 3.0), "s": ("clamped", 2.0)})
    assert list(grid) == ["default", "s 2.0", "delta 3.0", "delta 3.0, s 2.0"]
    with pytest.raises(ValueError, match="unknown constant 'dleta'; did you mean 'delta'"):
        sensitivity.full_grid(DEFAULT, {"dleta": (1.0,)})


def test_one_pass_yields_logits_and_regions_in_the_order_of_the_pictures(classifier, images):
    pooled, calls = pooled_features(classifier, images), []
    with classifier.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0]))):
        logits, found = sensitivity.one_pass(
            classifier, images, lambda end: {"top": top_fraction_mask(end.features.mean(dim=1))}, batch_size=2
        )
    assert calls == [2, 2, 1]
    torch.testing.assert_close(logits, pooled.logits.detach())
    assert torch.equal(found["top"], top_fraction_mask(pooled.features.mean(dim=1)))


def test_what_a_setting_shares_with_the_default_is_a_mean_over_networks_and_pictures():
    default, half = torch.zeros(2, 2, 2, 2, dtype=torch.bool)
    default[:, 0] = True  # the upper row
    half[0, 0], half[1, :, 0] = True, True  # the same in one picture, the left column in the other
    masks = [{"default": default, "delta 3": half}, {"default": default, "delta 3": default}]
    assert sensitivity.shared_with_default(masks, ["default", "delta 3"]) == {"default": 1.0, "delta 3": 0.875}


def test_a_setting_is_paired_with_the_default_by_picture_and_judged_in_words():
    rows = [
        {"image": image, "family": image // 2, "setting": name, "balance": image + gain, "network": network}
        for image in range(8) for network in (0, 1) for name, gain in (("default", 0.0), ("delta 3", 1.0 + network))
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    found = sensitivity.over_default(table, "delta 3")
    assert found == mean_interval([1.0] * 8 + [2.0] * 8, [0, 0, 1, 1, 2, 2, 3, 3] * 2, [0] * 8 + [1] * 8)
    assert found.low < 1 and found.high > 2, "two networks that differ say little of a third"
    alone = sensitivity.over_default(table[table["network"] == 0], "delta 3")
    said = sensitivity.conclusion("delta 3", {"black": alone})
    assert alone.value == 1 and "is not told apart from the default under black" in said, "no certainty"
    assert sensitivity.over_default(table, "default").value == 0
    assert "chose the default" in sensitivity.conclusion("default", {"black": found})


BETTER, WORSE, UNDECIDED = (Estimate(0.0, *ends, 0.5) for ends in ((1, 2), (-2, -1), (-1, 1)))


@pytest.mark.parametrize(
    ("black", "blur", "said"),
    [
        (BETTER, BETTER, "is better than the default on test pictures under every fill that judges"),
        (BETTER, WORSE, "is better than the default under black, and *worse* than the default under blur. No gain is"),
        (BETTER, UNDECIDED, "is better than the default under black, and not told apart from the default under blur"),
        (WORSE, WORSE, "is *worse* than the default under black and blur. No gain is shown under every fill"),
    ],
)
def test_a_gain_counts_only_where_every_fill_shows_it(black, blur, said):
    assert said in sensitivity.conclusion("delta 3", {"black": black, "blur": blur})
    differences = {("delta", "3", "black"): black, ("delta", "3", "blur"): blur, ("s", "2", "black"): WORSE}
    assert sensitivity.repeated(differences, "better") == (["delta 3"] if black is blur is BETTER else [])
    assert sensitivity.repeated(differences, "worse") == (["delta 3"] if black is blur is WORSE else []) + ["s 2"]


def test_the_balance_goes_by_the_lead():
    rows = pd.DataFrame({
        "method": ["default"], "draw": [0], "label": [1], "deletion_lead_drop": [3.0], "retention_lead_drop": [1.0],
        "deletion_margin_drop": [0.0], "retention_margin_drop": [5.0],
    })  # fmt: skip
    found = sensitivity.by_setting([rows], np.array([7, 8]))
    assert found["balance"].tolist() == [2.0] and found["family"].tolist() == [8] and found["setting"][0] == "default"

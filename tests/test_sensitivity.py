"""The grid of open constants: the same maps and the same numbers as the long way round."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from studies import sensitivity
from xfrlib import deletion_retention, explain, top_fraction_mask
from xfrlib.cam import pooled_features

DEFAULT = {"delta": 1.0, "s": "clamped", "form": "sum", "resolution": "after", "rivals": 4, "centre": True}


@pytest.mark.parametrize(
    ("setting", "same"),
    [
        ({}, {}),
        ({"delta": 3.0, "rivals": 2}, {"delta": 3.0, "top_k": 3}),
        ({"form": "product", "centre": False}, {"form": "product", "centre": False}),
        ({"s": 2.0}, {"scale_min": 2.0, "scale_max": 2.0}),
        ({"s": "unclamped"}, {"scale_min": 1e-6}),
        ({"scale": 3.0}, {"scale": 3.0}),
        ({"scale": 0.5, "scale_min": 0.5}, {"scale": 0.5, "scale_min": 0.5}),
        ({"scale_min": 2.0}, {"scale_min": 2.0}),
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
    from xfrlib.sdd import sdd_scale

    held = sdd_scale(explanation.cams) == 1
    assert held.any()
    wanted = F.interpolate(cells[:, None], size=(16, 16), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(found[held], (wanted / cells.amax(dim=(1, 2))[:, None, None])[held])


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
        ({"resolution": "later"}, "resolution = 'later'"),
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


def test_many_regions_at_once_equal_one_after_the_other(classifier, images):
    settings = sensitivity.one_at_a_time(DEFAULT, {"delta": (0.3, 9.0), "rivals": (1,), "resolution": ("before",)})
    calls = []
    count = classifier.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))

    def regions_of(pooled):
        found = {
            name: top_fraction_mask(sensitivity.sdd_ranking(pooled, size=(16, 16), **setting))
            for name, setting in settings.items()
        }
        return {**found, "the default again": found["default"].clone()}

    labels = np.arange(5)
    table, masks = sensitivity.evaluate_regions(
        classifier, images, labels, regions_of,
        fills=("grey", "black"), temperature=2.0, network=3, batch_size=3, progress=False,
    )  # fmt: skip
    count.remove()
    assert len(table) == 2 * 5 * 6 and set(table["network"]) == {3}
    distinct = sum(len({m[i].numpy().tobytes() for m in masks.values()}) for i in range(5))
    assert sum(calls) == 5 + 2 * 2 * distinct and distinct < 5 * 6
    for (name, fill), part in table.groupby(["setting", "fill"]):
        part = part.sort_values("image").reset_index(drop=True)
        wanted = deletion_retention(classifier, images, masks[name], fill=fill, temperature=2.0)
        pd.testing.assert_frame_equal(part[wanted.columns], wanted, rtol=1e-4, atol=1e-4)
        assert part["label"].tolist() == labels.tolist()
    one = sensitivity.criterion(table)
    np.testing.assert_allclose(one, table["deletion_margin_drop"] - table["retention_margin_drop"])

"""Similarity of maps by hand, and sanity checks that an explainer can fail."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import nn

from studies import sanity, stability
from xfrlib.explainers import explain_with
from xfrlib.geometry import Geometry, cell_geometry, upsampled
from xfrlib.intervals import mean_interval


def cam(model, images):
    return explain_with("cam", model, images, torch.zeros(len(images), 1, dtype=torch.long), progress=False)


def edges(model, images):
    """An "explainer" that never asks the network: differences of neighbouring pixels."""
    grey = images.mean(dim=1)
    return F.pad((grey[:, :, 1:] - grey[:, :, :-1]).abs(), (0, 1))


def test_similarity_by_hand():
    a = torch.tensor([[[1.0, 2], [3, 4]], [[1.0, 2], [3, 4]], [[1.0, 2], [3, 4]]])
    b = torch.tensor([[[10.0, 20], [30, 40]], [[4.0, 3], [2, 1]], [[2.0, 1], [4, 3]]])
    table = sanity.map_similarity(a, b, fraction=0.5)
    # Spearman: 1 - 6 sum d^2 / (n (n^2 - 1)), for the last row 1 - 6 * 4 / 60
    np.testing.assert_allclose(table["correlation"], [1, -1, 0.6])
    np.testing.assert_allclose(table["overlap"], [1, 0, 1])


def test_similarity_is_scipys_and_blind_to_increasing_functions():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(4, 9, 9, generator=generator).round(decimals=1) for _ in range(2))
    table = sanity.map_similarity(a, b)
    wanted = [spearmanr(x.flatten(), y.flatten()).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(table["correlation"], wanted)
    np.testing.assert_allclose(sanity.map_similarity(a.exp(), b.double() * 3 - 1)["correlation"], wanted)


def test_a_constant_map_has_no_order():
    table = sanity.map_similarity(torch.ones(1, 3, 3), torch.rand(1, 3, 3))
    assert np.isnan(table["correlation"][0]) and np.isfinite(table["overlap"][0])
    with pytest.raises(ValueError, match=r"expected two times \(B, H, W\)"):
        sanity.map_similarity(torch.ones(1, 3, 3), torch.ones(1, 3, 4))


def test_centre_map_falls_from_the_middle():
    values = sanity.centre_map((3, 5))
    assert values.argmax() == 7 and values[1, 2] == 0
    assert values[1, 0] == -2 and torch.equal(values, values.flip(0)) and torch.equal(values, values.flip(1))


def test_other_pictures():
    labels = [0, 0, 1, 1, 1]
    same = sanity.other_pictures(labels, same_identity=True)
    other = sanity.other_pictures(labels, same_identity=False)
    for index, label in enumerate(labels):
        assert same[index] != index and labels[same[index]] == label and labels[other[index]] != label
    with pytest.raises(ValueError, match="picture 2: there is no other picture of the same identity"):
        sanity.other_pictures([0, 0, 1], same_identity=True)


# --- the network's parameters


def test_blocks_come_from_the_head_down(classifier, images):
    assert sanity.blocks_from_the_head(classifier, images) == ["head", "backbone.layers"]


def test_blocks_of_the_books_backbones_without_the_embedding():
    from xfrlib import FaceClassifier, load_backbone

    picture = torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    slim = sanity.blocks_from_the_head(FaceClassifier(load_backbone("slim"), 3), picture)
    assert slim == ["head", *[f"backbone.body.{k}" for k in range(5, -1, -1)], "backbone.input_layer"]
    mobile = sanity.blocks_from_the_head(FaceClassifier(load_backbone("mobilefacenet"), 3), picture)
    assert mobile[:3] == ["head", "backbone.conv6", "backbone.blocks.14"] and mobile[-1] == "backbone.conv1"
    assert len(mobile) == 19 and not any("gdc" in name or "fc" in name for name in mobile)


def test_the_cascade_changes_cam_more_and_more_and_leaves_the_network_alone(classifier, images):
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    own = cam(classifier, images)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    classifier.backbone.train()
    seen = []
    for name, network in sanity.cascade(classifier, images, seed=1):
        changed = [k for k, v in network.state_dict().items() if not torch.equal(v, before[k])]
        seen.append((name, changed, sanity.map_similarity(own, cam(network, images))["correlation"].mean()))
        assert not network.training
    assert [name for name, *_ in seen] == ["head", "backbone.layers"]
    # the head of `classifier` was drawn from seed 1 too, and must not come back; PReLU begins at 0.25 in both
    assert seen[0][1] == ["head.weight", "head.bias"] and len(seen[1][1]) == 6
    assert all(rho < 0.9 for *_, rho in seen)
    assert torch.equal(torch.get_rng_state(), state) and classifier.backbone.training and not classifier.training
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())


def test_the_check_can_fail(classifier, images):
    """An edge detector finds the same edges whatever the network: similarity stays at 1."""
    own = edges(classifier, images)
    for _, network in sanity.cascade(classifier, images):
        table = sanity.map_similarity(own, edges(network, images))
        np.testing.assert_allclose(table, 1)


def test_the_network_is_put_back_after_an_error(classifier, images):
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    classifier.train()
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError):
        for _ in sanity.cascade(classifier, images):
            raise RuntimeError
    assert torch.equal(torch.get_rng_state(), state) and classifier.training
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
    assert not any(module._forward_pre_hooks for module in classifier.modules())


def test_the_cascade_repeats_by_its_seed_and_stops_where_it_is_told(classifier, images):
    first, again, other = (
        [cam(network, images) for _, network in sanity.cascade(classifier, images, seed=seed)] for seed in (0, 0, 1)
    )
    assert torch.equal(first[1], again[1]) and not torch.equal(first[1], other[1])

    from xfrlib import FaceClassifier, load_backbone

    slim = FaceClassifier(load_backbone("slim"), 3)
    stops = [name for name, _ in sanity.cascade(slim, torch.rand(1, 3, 112, 112), stops=3)]
    assert stops[0] == "head" and stops[-1] == "backbone.input_layer" and len(stops) == 3
    with pytest.raises(ValueError, match="stops = 1"):
        list(sanity.cascade(classifier, images, stops=1))


def test_a_layer_that_cannot_be_drawn_anew_is_named():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(1))

    with pytest.raises(ValueError, match=r"layer '1' \(Scale\) has no reset_parameters"):
        sanity.randomise(nn.Sequential(nn.Linear(2, 2), Scale()))


# --- its labels


@pytest.mark.parametrize("classes", [2, 4])
def test_a_head_learns_labels_by_heart_even_permuted_ones(classes):
    generator = torch.Generator().manual_seed(0)
    pooled = torch.randn(24, 30, generator=generator)
    labels = torch.arange(24) % classes
    permuted = labels[torch.randperm(24, generator=generator)]
    for wanted in (labels, permuted):
        head = sanity.learned_head(pooled, wanted, classes)
        assert head.weight.shape == (classes, 30) and torch.equal(head(pooled).argmax(1), wanted)
    with pytest.raises(ValueError, match="3 of 4 classes have a picture"):
        sanity.learned_head(pooled[:3], labels[:3] if classes == 4 else torch.arange(3), 4)


def test_with_head_copies(classifier, images):
    before = classifier.head.weight.clone()
    twin = sanity.with_head(classifier, nn.Linear(6, 7))
    assert torch.equal(classifier.head.weight, before) and not torch.equal(twin.head.weight, before)
    assert torch.equal(twin.features(images), classifier.features(images))


# --- the picture's place


def test_translation_by_hand():
    picture = torch.arange(4.0).view(1, 1, 1, 4).expand(1, 1, 3, 4)
    assert sanity.translated(picture, (0, 1), padding="edge")[0, 0, 0].tolist() == [0, 0, 1, 2]
    assert sanity.translated(picture, (0, 2))[0, 0, 0].tolist() == [2, 1, 0, 1]
    assert sanity.translated(picture, (0, -1))[0, 0, 0].tolist() == [1, 2, 3, 2]
    assert torch.equal(sanity.translated(picture, (0, 0)), picture)
    with pytest.raises(ValueError, match="padding = 'zeros'"):
        sanity.translated(picture, (0, 1), padding="zeros")
    with pytest.raises(ValueError, match="must be less than the picture, 3 x 4"):
        sanity.translated(picture, (3, 0))


@pytest.mark.parametrize("shift", [(0, 0), (0, 2), (1, -2), (-3, 1)])
def test_shifted_back_undoes_the_translation(shift):
    pictures = torch.rand(2, 1, 9, 10, generator=torch.Generator().manual_seed(0))
    own, theirs = stability.shifted_back(pictures[:, 0], sanity.translated(pictures, shift)[:, 0], shift)
    assert torch.equal(own, theirs) and own.shape == (2, 9 - abs(shift[0]), 10 - abs(shift[1]))
    with pytest.raises(ValueError, match=r"shift = \(0, 10\) leaves nothing"):
        stability.shifted_back(pictures[:, 0], pictures[:, 0], (0, 10))


@pytest.mark.parametrize(
    ("geometry", "rows", "columns"),
    [
        (Geometry((16, 16), (0, 0)), (0, 97), (0, 97)),
        (Geometry.drawn((7, 7), (112, 112)), (8, 104), (8, 104)),  # cells look at 7.5 to 103.5
        (Geometry((16, 16), (-3, 14)), (0, 94), (14, 111)),
    ],
)
def test_between_the_first_and_the_last_cell(geometry, rows, columns):
    picture = torch.arange(112.0 * 112).view(1, 112, 112)
    assert torch.equal(stability.between_cells(picture, geometry, (7, 7)), picture[:, slice(*rows), slice(*columns)])


def test_the_grid_keeps_a_ramp_and_loses_what_is_finer_than_a_cell():
    geometry, cells = Geometry((16, 16), (0, 0)), (7, 7)
    ramp = torch.arange(112.0).expand(1, 112, 112)
    torch.testing.assert_close(stability.on_the_grid(ramp, geometry, cells)[..., 16:81], ramp[..., 16:81])
    stripes = (torch.arange(112) % 2).float().expand(1, 112, 112)
    assert (stability.on_the_grid(stripes, geometry, cells) - 0.5).abs().max() < 0.06


def test_a_translation_by_the_stride_moves_a_convolutional_map_with_the_face():
    """A network of patches without padding: its map follows a step of the stride exactly, a smaller one not."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.ReLU(), nn.Conv2d(8, 1, 1))
    pictures = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    geometry = cell_geometry(network, pictures)

    def explainer(images):
        large = upsampled(network(images)[:, 0].detach(), (32, 32), geometry)
        return stability.between_cells(large, geometry, (8, 8))

    def moved(step):
        there = explainer(sanity.translated(pictures, (0, step)))
        return sanity.map_similarity(*stability.shifted_back(explainer(pictures), there, (0, step)))

    np.testing.assert_allclose(moved(4), 1, atol=1e-6)
    assert moved(2)["correlation"].max() < 0.9


def test_a_step_changes_the_decision_by_hand():
    """Two classes: the margin is the difference of the logits, over a temperature of 2; the second picture flips."""
    before = torch.tensor([[4.0, 0.0], [2.0, 0.0]])
    after = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    table = stability.decisions(before, [(3, after)], torch.tensor([0, 0]), families=[5, 6], temperature=2.0)
    assert table["log_odds"].tolist() == [-1, -2] and table["changed"].tolist() == [0, 1]
    assert table["points"].tolist() == pytest.approx(
        [100 * (1 / (1 + np.exp(-b)) - 1 / (1 + np.exp(-a))) for a, b in ((2, 1), (1, -1))], abs=1e-4
    )
    assert table["pixels"].tolist() == [3, 3] and table["family"].tolist() == [5, 6]


def test_a_name_that_changes_in_every_picture_is_a_share_and_no_certainty():
    table = pd.DataFrame({"log_odds": np.arange(12.0), "points": 1.0, "changed": 1.0, "family": range(12)})
    found = stability.decided(table)
    assert found["changed"].value == found["changed"].high == 1 and 0.7 < found["changed"].low < 0.8
    assert np.isnan(found["points"].low) and found["log_odds"].low < 5.5 < found["log_odds"].high


def test_overlaps_are_paired_by_picture_and_the_relatives_are_one_draw():
    rows = pd.DataFrame({"method": np.repeat(["cam", "disc"], 6), "family": [0, 0, 1, 1, 2, 2] * 2})
    rows["overlap"] = [0.2, 0.2, 0.3, 0.4, 0.5, 0.6, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    found = stability.overlap_less(rows, "cam", "disc")
    assert found == pytest.approx(mean_interval([0.2, 0.1, 0.1, 0.1, 0.1, 0.1], [0, 0, 1, 1, 2, 2]))
    assert list(stability.over_people(rows, ["overlap"])) == ["overlap"]


def test_pairs_of_networks_share_members_and_are_no_draws():
    family, rng = [0, 0, 1, 1, 2, 2] * 3, np.random.default_rng(0)
    rows = pd.DataFrame({"family": family, "network": np.repeat([0, 1, 2], 6), "overlap": rng.random(18)})
    within, between = (rows.assign(against=against) for against in ("same person", stability.BETWEEN))
    assert stability.agreed(within, "overlap") == mean_interval(rows["overlap"], family, rows["network"])
    assert stability.agreed(between, "overlap") == mean_interval(rows["overlap"], family)
    found = stability.less_same_person(pd.concat([between.assign(overlap=rows["overlap"] ** 2), within]))
    assert found == mean_interval(rows["overlap"] ** 2 - rows["overlap"], family)


def test_units_come_in_turn():
    assert sanity.in_turn([5, 5, 5, 2, 2, 9]).tolist() == [0, 3, 5, 1, 4, 2]
    assert sanity.in_turn(["b", "a", "c"]).tolist() == [0, 1, 2]


def test_tables_of_a_cascade_and_words():
    similar = pd.DataFrame({"correlation": [0.0, 1.0], "overlap": [0.2, 0.4]})
    rows = [similar.assign(method=m, block=b) for m in ("sdd", "cam") for b in ("head", "backbone.stage1.0")]
    found = sanity.heat(pd.concat(rows), "overlap", {"cam": similar, "sdd": similar + 1})
    np.testing.assert_allclose(found, [[0.3, 0.3, 0.3], [0.3, 0.3, 1.3]])
    assert sanity.means(similar) == {"correlation": 0.5, "overlap": pytest.approx(0.3)}
    assert sanity.stop_names(["head", "backbone.stage1.0", "backbone.conv1"]) == [
        "head",
        "… to stage1.0",
        "whole network",
    ]


def test_the_lesson_names_the_training_that_learns_it_by_heart(tmp_path):
    def options(labels):
        some = torch.arange(3)
        return sanity.by_heart(
            {"epochs": 5, "batch_size": 8, "fingerprint": "x"}, some, labels, epochs=20, rate=0.1, checkpoint=tmp_path
        )

    first, second = options(torch.tensor([0, 1, 2])), options(torch.tensor([1, 0, 2]))
    assert first["fingerprint"] != second["fingerprint"] and first["batch_size"] == 8
    assert first["epochs"] == first["lr_step"] == 20 and first["augmentation"] == "none"

"""Features of a map, facts of a picture, and the jackknife, held to cases computed by hand."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from madefaces.people import make_families, nuisance_of, render
from studies.abstention import FEATURES, centroid_distance, half_mass, map_features
from studies.groups import actors, facescrub_list_of, made_facts, made_splits, picture_facts, picture_splits, upper_half
from studies.jackknife import corrected, difference_of, jackknife, mean_of
from studies.shares import share
from xfrlib import protocol
from xfrlib.controls import disc
from xfrlib.intervals import Estimate, mean_interval
from xfrlib.sdd import Divergence


def test_half_of_the_mass_and_the_centroid_by_hand():
    maps = torch.zeros(3, 2, 4)
    maps[0, 0, 0] = 1.0  # one pixel holds all
    maps[1] = 1.0  # half of the pixels hold half
    maps[2, 0] = torch.tensor([4.0, 3.0, 2.0, 1.0])  # 4 of 10 is less than half, 7 is more
    assert half_mass(maps).tolist() == [1 / 8, 4 / 8, 2 / 8]
    masks = torch.zeros(2, 5, 7, dtype=torch.bool)
    masks[0, 2, 3] = True  # the middle
    masks[1, 2, 6] = masks[1, 0, 3] = True  # centroid 1 up and 1.5 right
    assert centroid_distance(masks).tolist() == pytest.approx([0, np.hypot(1, 1.5)])
    assert float(centroid_distance(torch.from_numpy(disc(12, (8, 8)))[None])) == pytest.approx(0, abs=1e-9)


def test_features_of_the_regions_that_the_evaluation_uses(classifier, images):
    loader = DataLoader(TensorDataset(images, torch.zeros(5)), 2)
    settings = {"top_k": 4, "divergence": Divergence(delta=0.7, form="product")}
    plain = protocol.map_regions(classifier, loader, progress=False, **settings)
    features = map_features(classifier, loader, plain.regions, temperature=2.0, **settings)
    assert list(features) == list(FEATURES) and len(features) == 5 and np.isfinite(features.to_numpy()).all()
    p = (plain.logits.double() / 2).softmax(1).amax(1)
    assert features["probability"].tolist() == pytest.approx(p.tolist())
    sdd, cam = plain.regions["sdd"], plain.regions["cam"]
    assert features["overlap_cam"].tolist() == pytest.approx([(a & b).sum() / a.sum() for a, b in zip(sdd, cam)])  # noqa: B905
    shares = features[["half_mass", "overlap_disc", "overlap_cam", "overlap_forms"]].to_numpy()
    assert (shares >= 0).all() and (shares <= 1).all() and (features["scale"] > 0).all()


def test_facts_of_a_picture_by_hand():
    images = torch.zeros(3, 3, 2, 2)
    images[0] = 0.5
    images[1, :, :, 1] = 1.0  # dark left, bright right
    images[2, 1] = 1.0  # green
    facts = picture_facts(images)
    assert facts["brightness"].tolist() == pytest.approx([0.5, 0.5, 0.587])
    assert facts["contrast"].tolist() == pytest.approx([0, 0.5, 0], abs=1e-7)
    assert facts["asymmetry"].tolist() == pytest.approx([0, 2, 0], abs=1e-6)
    whole = (images * 255).round().byte()
    assert picture_facts(whole)["asymmetry"].tolist() == pytest.approx([0, 2, 0], abs=1e-6)


def test_facts_of_a_made_picture_are_those_it_was_rendered_with():
    seeds = list(range(60))
    facts = made_facts(seeds)
    people = make_families(1, 1, seed=0)
    _, parts = render(people * 60, seeds)
    shown = (parts == 12).any(axis=(1, 2))  # the occluder
    assert (facts["occluded"] >= shown).all() and shown.sum() >= 0.7 * facts["occluded"].sum() > 0
    n = nuisance_of(7)
    assert facts["turn"][7] == pytest.approx(np.hypot(n["yaw"], n["pitch"])) and -6 <= n["yaw"] <= 6
    assert nuisance_of(7, nuisance=0)["noise"] == 0 and nuisance_of(7, nuisance=0)["yaw"] == 0


def test_the_upper_half_keeps_equal_values_together():
    assert upper_half([1, 2, 3, 4]).tolist() == [False, False, True, True]
    assert upper_half([5, 5, 5]).tolist() == [False] * 3 and upper_half([1, 2, 2, 2]).tolist() == [False] * 4
    assert upper_half([]).tolist() == []


def test_the_list_of_a_person_is_read_from_the_names(tmp_path):
    line = "{}\t1\t2\thttp://x/y.jpg\t1,2,30,40\t" + "a" * 64 + "\n"
    (tmp_path / "facescrub_actors.txt").write_text(line.format("Al One"))
    (tmp_path / "facescrub_actresses.txt").write_text(line.format("Bea Two") + line.format("Cy Three"))
    assert facescrub_list_of(["Bea_Two", "Al_One", "Nobody"], tmp_path) == {"Bea_Two": "actresses", "Al_One": "actors"}
    assert facescrub_list_of(["Al_One"], tmp_path / "none") == {}


def test_what_the_lists_say_of_the_people_is_a_split_and_a_note(tmp_path):
    line = "{}\t1\t2\thttp://x/y.jpg\t1,2,30,40\t" + "a" * 64 + "\n"
    (tmp_path / "facescrub_actors.txt").write_text(line.format("Al One"))
    assert actors(["Al_One"], tmp_path)[0] is None
    (tmp_path / "facescrub_actresses.txt").write_text(line.format("Bea Two"))
    split, note = actors(["Bea_Two", "Al_One", "Nobody"], tmp_path)
    assert split.tolist() == [False, True, False]
    assert "1 of these people as actors, 1 as actresses and 1 not at all" in note


def test_splits_of_made_and_of_any_pictures():
    images = torch.linspace(0, 1, 4).view(4, 1, 1, 1).expand(4, 3, 2, 2)
    assert picture_splits(images)["brighter pictures"].tolist() == [False, False, True, True]
    record = {"seed": 3, "identities": [{"genes": {"glasses": [0]}}, {"genes": {"glasses": [1]}}]}
    splits = made_splits(record, np.array([0, 0, 1]), ["a/000.png", "a/001.png", "b/000.png"])
    assert splits["people with glasses"].tolist() == [False, False, True]
    assert all(len(members) == 3 and members.dtype == bool for members in splits.values())


def rows(effect=0.0, people=12, networks=4, seed=0):
    rng = np.random.default_rng(seed)
    who, net = (a.ravel() for a in np.meshgrid(np.repeat(range(people), 5), range(networks)))
    values = effect + rng.normal(size=people)[who] + 0.5 * rng.normal(size=networks)[net] + rng.normal(size=len(who))
    return values, who, net


def test_the_jackknife_of_a_mean_is_its_interval_where_people_are_not_skewed():
    values, who, net = rows()
    both = np.concatenate([values, -values]), np.concatenate([who, who + 12]), np.concatenate([net, net])
    assert jackknife(mean_of(both[0] + 1), *both[1:]) == pytest.approx(mean_interval(both[0] + 1, *both[1:]))
    by_hand = [values[who != k].mean() for k in range(12)]
    alone = jackknife(mean_of(values), who)
    error = np.sqrt(11 / 12 * np.square(by_hand - np.mean(by_hand)).sum())
    assert alone.high - alone.value == pytest.approx(2.20098516 * error)  # t for 11 degrees of freedom


def test_the_jackknife_covers_the_truth_about_as_often_as_it_says():
    inside = []
    for seed in range(200):
        found = jackknife(mean_of(rows(1.0, seed=seed)[0]), *rows(seed=seed)[1:])
        inside.append(found.low <= 1.0 <= found.high)
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
    assert 0.9 <= np.mean(inside) <= 1


def test_a_difference_within_people_is_surer_than_the_means_it_is_made_of():
    values, who, net = rows(people=20)
    group = np.arange(len(values)) % 2 == 0
    shifted = values + 2.0 * group
    found = jackknife(difference_of(shifted, group, ~group), who, net)
    assert found.low < 2 < found.high and found.p < 0.01
    assert (
        found.high - found.low < jackknife(mean_of(shifted), who, net).high - jackknife(mean_of(shifted), who, net).low
    )


def test_what_does_not_exist_without_one_person_has_no_interval():
    values, who, net = rows()
    alone = jackknife(difference_of(values, who == 0, who != 0), who, net)
    assert np.isfinite(alone.value) and np.isnan([alone.low, alone.high, alone.p]).all()
    nobody = jackknife(mean_of(values, np.zeros(len(values), bool)), who)
    assert np.isnan(nobody.value)
    constant = jackknife(mean_of(np.ones(len(values))), who, net)
    assert constant.value == 1 and np.isnan(constant[1:]).all()  # no spread is not certainty
    with pytest.raises(ValueError, match="at least two identities"):
        jackknife(mean_of(values), np.zeros(len(values)))
    with pytest.raises(ValueError, match="of one length"):
        jackknife(mean_of(values), who, net[1:])


def test_the_nuisance_that_is_reported_is_what_the_renderer_drew():
    """A change of the order in which numbers are drawn would show here: the picture without any is the neutral one."""
    people = make_families(1, 1, seed=0)
    neutral = [render(people, [seed], nuisance=0)[1] for seed in (1, 2)]
    assert np.array_equal(*neutral)
    assert (
        pd.Series(nuisance_of(1, nuisance=0)).drop("noise").equals(pd.Series(nuisance_of(2, nuisance=0)).drop("noise"))
    )


def test_a_question_without_an_answer_is_not_counted_and_shares_lie_between():
    found = corrected({"a": 0.01, "b": np.nan, "c": 0.04})
    assert found["a"] == pytest.approx(0.02) and found["c"] == pytest.approx(0.04) and np.isnan(found["b"])
    assert share(Estimate(0.5, -0.2, 1.3, 0.1)) == "50 % [0, 100]"
    assert share(Estimate(0.5, np.nan, np.nan, np.nan)) == "50 % (no interval)"

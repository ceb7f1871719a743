"""The planted sign is at the pixels claimed and nowhere else, and who carries it is what the plan says."""

import numpy as np
import pandas as pd
import pytest
import torch

from madefaces.people import picture_seed, render
from studies import sign_scores
from studies.shortcut import (
    CORNER,
    SIDE,
    SIGNS,
    as_batch,
    carries,
    plant,
    shortcut_people,
    shortcut_pictures,
    training_set,
)
from xfrlib.intervals import mean_interval

PEOPLE, CARRIERS = shortcut_people(3, 3, seed=0)


@pytest.mark.parametrize("sign", SIGNS)
def test_the_two_versions_differ_at_the_mask_and_nowhere_else(sign):
    planted, labels = shortcut_pictures(PEOPLE, range(4), sign=sign)
    differs = (planted.without != planted.with_sign).any(axis=3)
    assert not (differs & ~planted.mask).any()
    assert differs.sum() > 0.99 * planted.mask.sum()  # a pixel of the corner may chance to have the sign's colour
    assert planted.mask.any(axis=(1, 2)).all() and planted.mask.mean() < 0.08
    assert labels.tolist() == np.repeat(range(9), 4).tolist()


def test_the_corner_is_a_square_of_one_colour_over_the_picture_as_rendered():
    planted = plant([PEOPLE[1], PEOPLE[4]], [3, 9], "corner")
    assert np.array_equal(planted.without, render([PEOPLE[1], PEOPLE[4]], [3, 9])[0])
    assert (planted.with_sign[:, :SIDE, :SIDE] == CORNER).all()
    assert planted.mask.sum() == 2 * SIDE**2 and planted.mask[:, :SIDE, :SIDE].all()


def test_glasses_are_taken_from_those_who_wear_their_own():
    worn = next(who for seed in range(9) for who in shortcut_people(6, 2, seed=seed)[0] if who.genes["glasses"][0] == 1)
    bare = plant([worn], [5], "glasses")
    own, _ = render([worn], [5])
    assert (own != bare.without).any() and (own != bare.with_sign).any()
    other = plant([PEOPLE[0]], [5], "glasses")
    assert (other.mask & bare.mask).sum() > 0.8 * bare.mask.sum()  # one place, whoever wears them


def test_pictures_of_other_numbers_are_other_pictures_and_the_same_numbers_the_same():
    first, _ = shortcut_pictures(PEOPLE, range(2))
    again, _ = shortcut_pictures(PEOPLE, range(2))
    later, _ = shortcut_pictures(PEOPLE, range(2, 4))
    assert np.array_equal(first.with_sign, again.with_sign)
    assert not any((a == b).all() for a in first.without for b in later.without)
    assert np.array_equal(first.without[3], render([PEOPLE[1]], [picture_seed(0, 1, 1)])[0][0])


def test_plans_give_the_sign_to_carriers_to_as_many_by_lot_or_to_nobody():
    labels = np.repeat(range(9), 20)
    assert CARRIERS == [0, 3, 6]
    shortcut, control = (carries(plan, labels, CARRIERS) for plan in ("shortcut", "control"))
    assert shortcut.tolist() == [label in CARRIERS for label in labels]
    assert control.sum() == shortcut.sum()
    of_carriers = control[np.isin(labels, CARRIERS)].mean()
    assert 0.15 < of_carriers < 0.5  # a third by chance
    assert not carries("none", labels, CARRIERS).any()
    assert (carries("control", labels, CARRIERS, seed=1) != control).any()


def test_the_training_set_holds_the_version_chosen_for_each_picture():
    planted, labels = shortcut_pictures(PEOPLE, range(1))
    signed = carries("shortcut", labels, CARRIERS)
    data = training_set(planted, labels, signed)
    assert len(data) == 9
    for (image, label), i in zip(data, range(9), strict=True):
        expected = planted.with_sign[i] if i % 3 == 0 else planted.without[i]
        assert label == i and torch.equal(image, torch.from_numpy(expected).permute(2, 0, 1) / 255)
    assert as_batch(planted.without).shape == (9, 3, 112, 112)


def test_what_cannot_be_planted_is_refused():
    with pytest.raises(ValueError, match="sign = 'hat': use one of corner, glasses"):
        plant(PEOPLE[:1], [0], "hat")
    with pytest.raises(ValueError, match="plan = 'all': use one of shortcut, control, none"):
        carries("all", [0], [0])
    with pytest.raises(ValueError, match="a carrier needs a look-alike"):
        shortcut_people(3, 1)
    planted, labels = shortcut_pictures(PEOPLE[:2], range(1))
    with pytest.raises(ValueError, match="not one each"):
        training_set(planted, labels, np.ones(3, bool))


def sign_table(energy):
    """Ten families of two pictures; `energy` is that of the two networks for each explainer, all other scores too.

    The gap between the networks is larger in some families; a map that knows nothing is the same in all pictures."""
    return pd.DataFrame([
        {"method": name, "plan": plan, "case": case, "family": case // 2, **dict.fromkeys(sign_scores.SCORES, value)}
        for name, (taken, control) in energy.items() for case in range(20)
        for plan, value in (("shortcut", taken + (taken - control) * (case % 4 // 2 - 0.5) / 5), ("control", control))
    ])  # fmt: skip


def test_the_scores_of_explainers_by_hand_and_in_words():
    energy = {"sdd_sum": (0.6, 0.1), "cam": (0.2, 0.1), "area": (0.05, 0.05), "centre": (0.0, 0.0), "rise": (0.9, 0.3)}
    scores = sign_table(energy)
    scores = scores[(scores["method"] != "rise") | (scores["case"] < 4)]
    titles = {"sdd_sum": "SDD", "cam": "CAM", "rise": "RISE"} | sign_scores.KNOW_NOTHING
    found = sign_scores.found_by(scores, titles, area=0.04)
    assert found.scores["sdd_sum"]["top_20"]["difference"].value == pytest.approx(0.5)
    assert found.scores["sdd_sum"]["told_apart"] == 1 and found.scores["area"]["told_apart"] == 0.5
    assert found.ranked[:2] == ["rise", "sdd_sum"] and found.whole == ["sdd_sum", "cam"]
    assert found.minus["energy", "cam"].value == pytest.approx(0.4) and len(found.minus) == 2 * 3
    assert found.find_it == found.point_at_it == ["SDD"] and found.find_it_on_average == []
    assert found.false_alarms == [], "the control is the same in all pictures: no spread is not certainty"
    assert np.isnan(found.scores["area"]["energy"]["shortcut"].low)
    assert found.rows()[0]["explainer"] == "RISE (4 pictures)"
    few = scores[(scores["method"] != "cam") | (scores["case"] < 4)].replace({"energy": {0.9: 1.0}})
    shares = sign_scores.found_by(few.assign(energy=few["energy"].clip(upper=1)), titles, area=0.04).scores
    ends = [bound for one in shares.values() for bound in one["energy"]["shortcut"][1:3] if np.isfinite(bound)]
    assert ends and min(ends) >= 0 and max(ends) == 1, "a share of all is the most that there is"
    said = sign_scores.sign_findings(found)
    assert "Of the sign, 60 % (10 % in the control) lies in SDD's top 20 %" in said
    assert "By energy it is better than CAM" in said and "; hill about the centre, and worse than none." in said
    assert "RISE 90 %, control 30 % (4 pictures)" in said
    most = "the top 20 % hold most of the sign, and more of it than in the control, for SDD."
    assert f"By the whole interval, {most}" in said


def test_a_question_under_two_names_counts_once():
    flat = dict.fromkeys(sign_scores.KNOW_NOTHING, (0.05, 0.05))  # one question: has SDD more than the control?
    alone = sign_table({"sdd_sum": (0.6, 0.1), "cam": (0.2, 0.1), "saliency": (0.4, 0.1)} | flat)
    clone = alone[alone["method"] == "cam"].assign(method="gradcam")
    clone[list(sign_scores.SCORES)] += 1e-9  # rounding
    by_one = clone.assign(method="exp_cam", energy=clone["energy"] * np.where(clone["case"] < 9, 1, 0.9))

    def found(*more):
        scores = pd.concat([alone, *more])
        return sign_scores.found_by(scores, {name: name for name in scores["method"].unique()}, area=0.04)

    once, twice, some = found(), found(clone), found(clone, by_one)
    assert once.questions == twice.questions == 2 * 3 and len(once.p) == 2 * 4 and len(twice.p) == 2 * 5
    assert {key: twice.p[key] for key in once.p} == once.p, "a second name makes no test stricter"
    assert all(twice.p[score, "gradcam"] == once.p[score, "cam"] for score in sign_scores.ASKED)
    assert some.questions == 7 and some.p["top_20", "exp_cam"] == some.p["top_20", "cam"]
    assert some.minus["energy", "exp_cam"] != some.minus["energy", "cam"], "by one score the two differ"
    assert "corrected for 6 questions;" in sign_scores.sign_findings(twice)


def test_most_of_the_sign_is_certain_only_where_the_whole_interval_is_above_a_half():
    scores = sign_table({"sdd_sum": (0.52, 0.1), "cam": (0.2, 0.1), "area": (0.05, 0.05), "centre": (0.0, 0.0)})
    found = sign_scores.found_by(scores, {"sdd_sum": "SDD", "cam": "CAM"} | sign_scores.KNOW_NOTHING, area=0.04)
    top = found.scores["sdd_sum"]["top_20"]
    assert top["shortcut"].low < 0.5 < top["shortcut"].value and top["difference"].low > 0
    assert found.find_it == [] and found.find_it_on_average == ["SDD"]
    said = sign_scores.sign_findings(found)
    assert "**For no explainer does the whole interval say" in said
    assert "On average, but not by the whole interval, they hold most for SDD." in said


def test_the_highest_pixel_is_in_the_sign_or_not_which_is_a_share():
    scores = sign_table({"sdd_sum": (0.6, 0.1), "cam": (0.2, 0.1), "area": (0.05, 0.05), "centre": (0.0, 0.0)})
    scores.loc[scores["method"] == "sdd_sum", "pointing"] = 1.0
    titles = {"sdd_sum": "SDD", "cam": "CAM"} | sign_scores.KNOW_NOTHING
    found = sign_scores.found_by(scores, titles, area=0.04).scores
    always = found["sdd_sum"]["pointing"]["shortcut"]
    assert [always.value, always.high] == pytest.approx([1, 1]) and 0.6 < always.low < 0.8, "of ten families"
    assert np.isnan(found["area"]["pointing"]["shortcut"].low)


def test_reliance_on_the_sign_by_hand():
    true = torch.tensor([0, 1, 2, 3, 4, 5])
    carrier = true - true % 3
    named = {"with": carrier, "without": true}
    found = sign_scores.reliance(np.array([3.0, 1, 3, 5, 0, 0]), named, carrier, true)
    assert found["carriers"] == mean_interval([3.0, 5.0], [0, 3])
    assert found["others"] == mean_interval([1.0, 3.0, 0.0, 0.0], [0, 0, 3, 3]), "a family is one draw"
    assert found["others"].value == 1 and found["taken_for_carrier_with"] == 1 and found["carriers_right_with"] == 1
    assert found["taken_for_carrier_without"] == 0
    row = sign_scores.reliance_rows({"shortcut": found})[0]
    assert row["others taken for the carrier: without, with"] == "0\u00a0%, 100\u00a0%"

"""Abstention: verdicts, the rule and its reason, risk and coverage, each held to cases computed by hand."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from studies import groups, rules
from studies.abstention import (
    agreement_over_chance,
    choose_threshold,
    direction,
    least_area,
    picture_verdicts,
    risk_area,
    risk_coverage,
    verdict_agreement,
)
from xfrlib.controls import disc
from xfrlib.explanation import select_classes
from xfrlib.intervals import Estimate
from xfrlib.trust import gains, should_show


class Corners(nn.Module):
    """Logits are the mean brightness of the left and of the right half, times 20."""

    def forward(self, images):
        return 20 * torch.stack([images[..., :4].mean(dim=(1, 2, 3)), images[..., 4:].mean(dim=(1, 2, 3))], dim=1)


def half(side):
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[..., slice(0, 4) if side == "left" else slice(4, 8)] = True
    return mask


def test_the_rule_shows_the_half_that_decides_and_keeps_back_the_other():
    image = torch.full((1, 3, 8, 8), 0.1)
    image[..., :4] = 0.9  # the left half decides: log-odds 20 (0.9 - 0.1) = 16
    good = should_show(Corners().eval(), image, half("left"))[0]
    # Deleted with grey (0.5) the odds are 20 (0.5 - 0.1) = 8, retained 20 (0.9 - 0.5) = 8. The disc of 32 pixels has 16
    # in each half, so that each mean moves halfway to grey: 20 (0.7 - 0.3) = 8 both ways.
    assert (good.deletion, good.retention) == pytest.approx((0, 0), abs=1e-4) and not good.show
    black = should_show(Corners().eval(), image, half("left"), fill="black")[0]
    # black: deleted -2, retained 18; the disc leaves 20 (0.45 - 0.05) = 8 both ways
    assert black == (True, black.reason, pytest.approx(10, abs=1e-4), pytest.approx(10, abs=1e-4))
    assert black.reason == (
        "Shown: under a black fill, deleting the region takes 10.0 log-odds more of the lead over the rivals than "
        "deleting a centred disc, and keeping only it leaves 10.0 log-odds more than keeping only the disc."
    )
    bad = should_show(Corners().eval(), image, half("right"), fill="black")[0]
    assert not bad.show and (bad.deletion, bad.retention) == pytest.approx((-10, -10), abs=1e-4)
    assert bad.reason.startswith("Not shown: the region beats the disc in neither of two measures: under a black fill")


def test_a_threshold_and_a_temperature_are_in_log_odds():
    image = torch.full((1, 3, 8, 8), 0.1)
    image[..., :4] = 0.9
    half_as_sure = should_show(Corners().eval(), image, half("left"), fill="black", temperature=2.0, threshold=6.0)[0]
    assert half_as_sure.deletion == pytest.approx(5, abs=1e-4) and not half_as_sure.show
    assert "by more than 6 in neither of two measures" in half_as_sure.reason


@pytest.mark.parametrize(
    ("gain", "threshold", "shown", "said"),
    [
        (0.06, 0.0, True, "takes 0.1 log-odds more of the lead over the rivals than deleting a centred disc"),
        (0.04, 0.0, False, "takes as much of the lead over the rivals as deleting a centred disc, and keeping only it"),
        (0.04, 0.0, False, "leaves as much as keeping only the disc."),
        (-0.04, -1.0, True, "takes as much of the lead over the rivals as deleting a centred disc"),
        (-0.06, 0.0, False, "takes 0.1 log-odds less of the lead over the rivals than deleting a centred disc"),
        (-0.06, -1.0, True, "takes 0.1 log-odds less of the lead over the rivals than deleting a centred disc"),
    ],
)
def test_a_gain_that_rounds_to_nothing_is_none(gain, threshold, shown, said):
    image = torch.full((1, 3, 8, 8), 0.1)
    image[..., :4] = 0.9
    mask = half("left" if gain > 0 else "right")  # worth 10 or -10 log-odds at temperature 1, see above
    options = {"fill": "black", "temperature": 10 / abs(gain), "threshold": threshold}
    found = should_show(Corners().eval(), image, mask, **options)[0]
    assert (found.deletion, found.retention) == pytest.approx((gain, gain), abs=1e-5)
    assert found.show == shown and said in found.reason


def strongest(z, target):
    """The best rival of a class in the logits of one picture, as a list"""
    return [max((c for c in range(len(z)) if c != target), key=lambda c: z[c])]


@torch.no_grad()
def test_the_rule_goes_by_the_lead_over_fixed_rivals_not_over_whoever_comes_next(classifier, images):
    """Held to a loop over pictures, on which the best rival changes, so that the margin gives another number."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.stack([torch.randperm(256, generator=generator).view(16, 16) < 51 for _ in images])
    centre = torch.from_numpy(disc(51, (16, 16)))
    pairs = select_classes(classifier(images), top_k=3)
    options = {"fill": "black", "temperature": 0.5}
    found = should_show(classifier, images, masks, pairs=pairs, **options)
    default = should_show(classifier, images, masks, **options)
    by_margin = []
    for image, mask, classes, judged, by_next in zip(images, masks, pairs.tolist(), found, default, strict=True):
        target, *rivals = classes
        kept = (~mask, mask, ~centre, centre)
        z = [classifier((image * pixels)[None])[0].double() for pixels in kept]

        def taken_and_left(against, z=z, target=target):
            after = [float(one[target] - one[c].mean()) / 0.5 for one, c in zip(z, against, strict=True)]
            return after[2] - after[0], after[1] - after[3]

        fixed = taken_and_left([rivals] * 4)
        assert (judged.deletion, judged.retention) == pytest.approx(fixed, abs=1e-4)
        assert judged.show == (min(fixed) >= 0.05)
        assert (by_next.deletion, by_next.retention) == pytest.approx(taken_and_left([rivals[:1]] * 4), abs=1e-4)
        by_margin.append(taken_and_left([strongest(one, target) for one in z]))
    assert np.abs(np.subtract(by_margin, [judged[2:] for judged in default])).max() > 0.1, "the best rival changes"


def test_the_disc_does_not_beat_itself_and_known_logits_change_nothing():
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    masks = torch.from_numpy(disc(13, (8, 8))).expand(3, 8, 8)
    model = Corners().eval()
    found = should_show(model, images, masks)
    assert not any(j.show for j in found) and all(j.deletion == j.retention == 0 for j in found)
    masks = torch.zeros(3, 8, 8, dtype=torch.bool)
    masks[:, 2:4] = True
    assert should_show(model, images, masks) == should_show(model, images, masks, logits=model(images))


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        (torch.zeros(2, 8, 8, dtype=torch.bool), "same number of pixels"),
        (torch.cat([half("left"), ~torch.zeros(1, 8, 8, dtype=torch.bool)]), "same number of pixels"),
        (torch.ones(8, 8, dtype=torch.bool), "masks must be bool"),
        (half("left").expand(2, 8, 8).float(), "masks must be bool"),
    ],
)
def test_masks_that_cannot_be_judged_are_refused(masks, said):
    with pytest.raises(ValueError, match=said):
        should_show(Corners().eval(), torch.rand(2, 3, 8, 8), masks)
    with pytest.raises(ValueError, match="training mode"):
        should_show(Corners().train(), torch.rand(1, 3, 8, 8), half("left"))


def table():
    rows = []
    for image, (own, other) in enumerate(
        [((5, 1), (3, 2)), ((1, 5), (3, 2)), ((5, 5), (3, 2)), ((3, 2), (3, 2)), ((3, 3), (3, 2))]
    ):
        for method, (deleted, retained) in (("sdd", own), ("disc", other)):
            rows.append({
                "network": 0, "image": image, "fill": "black", "label": image % 2, "correct": True, "method": method,
                "deletion_lead_drop": float(deleted), "retention_lead_drop": float(retained),
                "deletion_margin_drop": float(retained), "retention_margin_drop": float(deleted),
            })  # fmt: skip
    return pd.DataFrame(rows)


def test_verdicts_by_hand_a_tie_wins_nothing_and_loses_nothing():
    found = picture_verdicts(table().sample(frac=1, random_state=0)).set_index("image")
    assert found["deletion"].tolist() == [2, -2, 2, 0, 0] and found["retention"].tolist() == [1, -3, -3, 0, -1]
    assert found["verdict"].tolist() == ["wins both", "loses both", "mixed", "mixed", "mixed"]
    assert found["worst"].tolist() == [1, -3, -3, 0, -1]
    other_way = picture_verdicts(table(), method="disc", reference="sdd").set_index("image")
    assert (other_way["deletion"] == -found["deletion"]).all()
    by_margin = picture_verdicts(table(), score="margin_drop").set_index("image")
    assert (by_margin["deletion"] == -found["retention"]).all(), "the columns of the other score"


def test_a_gain_that_rounds_to_nothing_is_a_tie():
    rows = table()[lambda t: t["image"] == 0].reset_index(drop=True)
    for own, said in ((0.06, "wins both"), (0.04, "mixed"), (-0.04, "mixed"), (-0.06, "loses both")):
        rows[["deletion_lead_drop", "retention_lead_drop"]] = [[own, -own], [0.0, 0.0]]
        assert picture_verdicts(rows)["verdict"].tolist() == [said]


def test_a_table_that_does_not_pair_is_refused():
    with pytest.raises(ValueError, match="no method 'rise'; it has disc, sdd"):
        picture_verdicts(table(), method="rise")
    with pytest.raises(ValueError, match="more than once"):
        picture_verdicts(pd.concat([table(), table()]))
    with pytest.raises(ValueError, match="not measured on the same"):
        picture_verdicts(table().iloc[1:].assign(method=lambda t: t["method"]))
    with pytest.raises(ValueError, match="2 rows against 1"):
        gains(table().iloc[:2], table().iloc[:1])


def test_risk_and_coverage_by_hand():
    # shown in the order good, bad, good, bad
    curve = risk_coverage([4, 3, 2, 1], [False, True, False, True])
    assert curve["coverage"].tolist() == [0.25, 0.5, 0.75, 1] and curve["threshold"].tolist() == [4, 3, 2, 1]
    assert curve["risk"].tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    # two pictures of equal trust cannot be told apart by a threshold
    tied = risk_coverage([2, 1, 1, 0], [False, True, False, True])
    assert tied["coverage"].tolist() == [0.25, 0.75, 1] and tied["risk"].tolist() == pytest.approx([0, 1 / 3, 1 / 2])


def test_a_perfect_rule_has_risk_zero_until_only_failures_are_left():
    failed = np.array([True] * 6 + [False] * 4)
    curve = risk_coverage(~failed, failed)
    assert curve["risk"].iloc[0] == 0 and curve["coverage"].iloc[0] == pytest.approx(0.4)
    # after coverage 0.4 the risk is (c - 0.4) / c: its integral is 0.6 + 0.4 log 0.4
    assert least_area(failed) == pytest.approx(0.6 + 0.4 * np.log(0.4))
    assert least_area(np.zeros(5, bool)) == 0 and least_area(np.ones(5, bool)) == pytest.approx(1)
    assert choose_threshold(~failed, failed) == 1.0


def test_no_news_is_the_share_of_failures_and_every_rule_lies_between_best_and_worst():
    rng = np.random.default_rng(0)
    failed = rng.random(300) < 0.7
    assert risk_area(np.zeros(300), failed) == pytest.approx(failed.mean())
    assert risk_area(rng.random(300), failed) == pytest.approx(failed.mean(), abs=0.08)
    helpful = rng.random(300) - 0.5 * failed
    assert least_area(failed) < risk_area(helpful, failed) < failed.mean() < risk_area(-helpful, failed)
    assert direction(helpful, failed) == 1 and direction(-helpful, failed) == -1


def test_ties_in_a_block_count_as_random_order():
    trust, failed = np.array([1, 1, 1, 0, 0, 0.0]), np.array([0, 1, 0, 1, 1, 0], bool)
    rng, steps = np.random.default_rng(1), 400  # each picture as many, so that a sum comes near the integral
    many = [risk_area(np.repeat(trust, steps) + 1e-6 * rng.random(6 * steps), np.repeat(failed, steps)) for _ in "abc"]
    assert risk_area(trust, failed) == pytest.approx(np.mean(many), abs=0.01)
    assert risk_area(trust, failed) == pytest.approx(risk_area(np.repeat(trust, 3), np.repeat(failed, 3)))


def test_the_threshold_shows_as_many_as_the_allowed_risk_permits():
    trust = [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    failed = np.array([0, 0, 1, 0, 1, 1, 1, 1, 1, 1], bool)  # risk of all 0.7, so that 0.35 is allowed
    assert choose_threshold(trust, failed) == 6.0  # 1 of 4; with the next it would be 2 of 5
    assert choose_threshold(trust, failed, risk_factor=1.0) == 0.0
    assert choose_threshold(trust, ~failed, risk_factor=0.1) is None
    assert choose_threshold([1, 0, 0, 0], [False, True, True, True], least_coverage=0.3) is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([1, 2], [True]), "give one of each"),
        (([], []), "give one of each"),
        (([np.nan, 1], [True, False]), "1 of 2 values of trust are NaN"),
    ],
)
def test_impossible_input_is_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        risk_coverage(*arguments)
    with pytest.raises(ValueError, match="risk_factor"):
        choose_threshold([1], [True], risk_factor=0)


def test_agreement_by_hand_and_beyond_chance():
    verdicts = pd.DataFrame(
        {"black": ["wins both", "mixed", "mixed", "loses both"], "blur": ["wins both"] + ["mixed"] * 3}
    )
    found = verdict_agreement(verdicts)
    assert found == (0.75, pytest.approx(1 / 4 * 1 / 4 + 1 / 2 * 3 / 4))
    assert found.beyond_chance == pytest.approx((0.75 - 0.4375) / (1 - 0.4375))
    assert verdict_agreement(verdicts[["black"]]) is None


def test_the_agreement_over_chance_is_above_zero_only_where_verdicts_repeat():
    rng, families = np.random.default_rng(0), np.arange(240) // 8
    said = np.array(["wins both", "mixed", "loses both"])
    first, second = said[rng.integers(0, 3, 240)], said[rng.integers(0, 3, 240)]
    again = agreement_over_chance(pd.DataFrame({"black": first, "blur": first}), families)
    by_lot = agreement_over_chance(pd.DataFrame({"black": first, "blur": second}), families)
    assert again.value == pytest.approx(1 - np.square(pd.Series(first).value_counts() / 240).sum()) and again.low > 0.5
    assert by_lot.low < 0 < by_lot.high
    assert agreement_over_chance(pd.DataFrame({"black": first}), families) is None


@pytest.fixture
def judged():
    """Two fills, twelve people of five pictures; "knows" shows the winners alone, "all" shows every map."""
    won = np.random.default_rng(0).random(60) < 0.3
    rows = pd.DataFrame({"network": 0, "image": range(60), "family": np.arange(60) // 5})
    rows["verdict"] = np.where(won, "wins both", "loses both")
    at = pd.MultiIndex.from_frame(rows[["network", "image"]])
    trust = pd.DataFrame({"knows": won.astype(float), "all": 0.0}, index=at)
    titles = {"knows": "a rule that knows", "all": "a rule that shows all"}
    return won, rules.judge_rules({"black": rows, "blur": rows}, trust >= [1.0, 0.0], trust, titles)


def test_a_rule_that_knows_stands_and_one_that_shows_all_gains_nothing(judged):
    won, found = judged
    knows, shows_all = (found.worth["black"][name] for name in ("knows", "all"))
    assert (
        knows["coverage"].value == pytest.approx(won.mean()) and knows["beat"].value == 1 and knows["lose"].value == 0
    )
    assert knows["gain"].value == pytest.approx(1 - won.mean()) and shows_all["gain"].value == 0
    assert knows["area"].value == pytest.approx(least_area(~won))
    assert shows_all["area_gain"].value == pytest.approx(0, abs=1e-12)
    assert found.standing("gain") == found.standing("area_gain") == ["knows"]
    assert [row["stands"] for row in found.rows("blur")] == ["share, area", "no"]
    assert found.as_json()["blur"]["firm"] is None and np.isnan(shows_all["gain"].p)
    assert found.as_json()["blur"]["all"]["p_gain"] is None, "a gain that nobody changes has no p"
    assert 0.5 < knows["beat"].low < 0.9 and knows["beat"].value == 1, "all shown maps won, which is no certainty"
    assert shows_all["coverage"].low < 1 and len(found.p) == 4


def test_a_rank_correlation_over_people_is_sure_of_families_and_networks():
    rng, label = np.random.default_rng(0), np.repeat(np.arange(24), 4)
    rows = pd.DataFrame({"label": label, "family": label, "network": np.tile([0, 1], 48), "same": 1.0})
    rows["gain"] = rng.normal(size=24)[label] + 0.1 * rng.normal(size=96)
    rows["distance"] = rows["gain"] + rng.normal(size=96)
    people = rows.groupby("label").mean()
    found = groups.goes_with(rows, "distance")
    assert found.value == pytest.approx(people["distance"].corr(people["gain"], method="spearman"))
    assert found.low > 0 and found.p < 0.01
    related = groups.goes_with(rows.assign(family=label // 6), "distance")
    assert related.value == found.value and related.p > found.p, "relatives are one draw"
    assert np.isnan(groups.goes_with(rows, "same").value)
    said = groups.why_rows({"distance": found}, {("why", "distance"): 0.004})[0]
    assert said["rank correlation with the gain, over people"] == f"{found.value:+.2f}"
    assert said["p after Holm"] == "0.004"


def test_findings_say_which_rules_stand_and_what_the_self_test_is_worth(judged):
    _, found = judged
    worth = {fill: {**one, "self_test": one["knows"]} for fill, one in found.worth.items()}
    judged_rules = rules.JudgedRules(found.titles | {"self_test": "self-test"}, worth, found.p)
    shares = {fill: dict.fromkeys(("wins both", "loses both"), one["all"]["beat"]) for fill, one in found.worth.items()}
    said = rules.rule_findings(judged_rules, shares, {}, None)
    assert "stands under every judging fill: a rule that knows." in said and "of these 100\u00a0% beat the disc" in said
    assert "no network that had no part in the choice. The firm self-test is the self-test here" in said
    assert "not under all" not in said


def test_a_gain_under_one_fill_alone_is_said_beside_those_under_all(judged):
    _, found = judged
    worth = {fill: {"self_test": one["knows"]} for fill, one in found.worth.items()}
    p = {(fill, "self_test", what): 0.01 if fill == "black" else 0.5 for fill in worth for what in rules.GAINS}
    shares = {fill: dict.fromkeys(("wins both", "loses both"), one["all"]["beat"]) for fill, one in found.worth.items()}
    said = rules.rule_findings(rules.JudgedRules({"self_test": "self-test"}, worth, p), shares, {}, None)
    assert "no gain stands under every judging fill." in said
    assert "not under all: self-test, by the share under black; self-test, by the area under black." in said


@pytest.mark.parametrize(
    ("black", "blur", "said"),
    [
        ((0.6, 0.55, 0.7), (0.8, 0.7, 0.9), "So most of the maps that it shows beat the disc, under every judging"),
        ((0.6, 0.55, 0.7), (0.6, 0.4, 0.8), "The intervals of these shares do not tell whether most"),
        ((0.6, 0.55, 0.7), (0.3, 0.2, 0.4), "most do not beat the disc under blur**, which the self-test did not use"),
        ((0.3, 0.2, 0.4), (0.3, 0.2, 0.4), "most do not beat the disc under black and blur**"),
        ((np.nan,) * 3, (np.nan,) * 3, "The intervals of these shares do not tell whether most"),
    ],
)
def test_what_the_self_test_is_worth_is_said_as_far_as_its_intervals_reach(judged, black, blur, said):
    _, found = judged
    worth = {
        fill: {"self_test": found.worth[fill]["knows"] | {"beat": Estimate(*beat, np.nan)}}
        for fill, beat in (("black", black), ("blur", blur))
    }
    shares = {
        fill: dict.fromkeys(("wins both", "loses both"), one["self_test"]["coverage"]) for fill, one in worth.items()
    }
    assert said in rules.rule_findings(rules.JudgedRules({"self_test": "self-test"}, worth, {}), shares, {}, None)

"""Intervals: by hand where there is nothing random, by coverage where there is, and the summary of a table."""

import json

import jsonschema
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import results
from studies.explainers_compared import area_under
from studies.full_evaluation import change_tests, per_image, summarise
from studies.jackknife import holm
from studies.paper import AGREEMENT, MEASURES
from studies.report import markdown, plain
from studies.shares import share_interval
from xfrlib.intervals import Estimate, Interval, mean_interval
from xfrlib.profile import project_root
from xfrlib.tables import SIGN, in_text, verdict


def test_one_value_a_person_is_a_t_interval_where_nothing_is_skewed():
    found = mean_interval([1.0, 2, 3, 4, 5], range(5))
    test = stats.ttest_1samp([1, 2, 3, 4, 5], 0)
    assert found == pytest.approx((3, *test.confidence_interval(), test.pvalue))
    assert mean_interval([1.0, 4], [0, 1]).low == pytest.approx(2.5 - 12.7062 * 1.5, rel=1e-4)  # no skewness of two


def test_skewness_moves_both_ends_to_where_the_long_tail_is():
    """The skewness of a mean of n values is theirs over the square root of n; more than 0.3 is not believed."""
    for values in (np.array([0.0, 0, 1, 1, 2, 3, 2, 1, 2, 4]), np.array([0.0, 0, 0, 4])):
        n, mean, error = len(values), values.mean(), stats.sem(values)
        skew = min(stats.skew(values, bias=False) / np.sqrt(n), 0.3)
        assert (skew == 0.3) == (n == 4)
        t = stats.t.ppf(0.975, n - 1)
        ends = [mean - error * 3 / skew * (np.cbrt(1 + skew * (q - skew / 6)) - 1) for q in (t, -t)]
        found = mean_interval(values, range(n))
        assert found[:3] == pytest.approx((mean, *ends))
        assert found.high - mean > mean - found.low
    mirrored = mean_interval(-values, range(4))
    assert mirrored == pytest.approx((-1, -found.high, -found.low, found.p))


def test_the_value_is_the_mean_over_pictures_not_over_people():
    found = mean_interval([0.0, 0, 0, 8], ["a", "a", "a", "b"])
    assert found.value == 2
    half = 12.7062 * np.sqrt(2 * (1.5**2 + 1.5**2))  # each adds 6 / 4 to the mean
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half), rel=1e-4)


def test_pictures_that_repeat_their_person_do_not_narrow_the_interval():
    means = np.random.default_rng(0).normal(size=20)
    people = np.repeat(np.arange(20), 50)
    once = mean_interval(means, np.arange(20))
    assert mean_interval(np.repeat(means, 50), people) == pytest.approx(once)
    naive = mean_interval(np.repeat(means, 50), np.arange(1000))
    assert naive.high - naive.low < 0.3 * (once.high - once.low)
    assert share_interval(np.repeat(means > 0, 50), people) == pytest.approx(share_interval(means > 0, np.arange(20)))


def test_one_network_is_over_people_alone_and_more_widen_the_interval():
    rng = np.random.default_rng(1)
    who, net = np.tile(np.repeat(np.arange(12), 10), 3), np.repeat(np.arange(3), 120)
    values = rng.normal(size=360) + rng.normal(size=12)[who]
    assert mean_interval(values, who, np.zeros(360)) == mean_interval(values, who)
    alike, apart = (mean_interval(values + shift * net, who, net) for shift in (0.0, 3.0))
    assert apart.high - apart.low > 3 * (alike.high - alike.low)
    # the networks' part by hand: three means 3 apart, with 2 degrees of freedom
    by_network = mean_interval(3.0 * net, who, net)
    assert by_network.high - 3 == pytest.approx(stats.t.ppf(0.975, 2) * 3 / np.sqrt(3))


@pytest.mark.parametrize("draw", ["normal", "exponential"])
def test_the_interval_covers_the_truth_with_twelve_people(draw):
    rng, people = np.random.default_rng(1), np.repeat(np.arange(12), 5)
    truth = 0 if draw == "normal" else 1
    inside = []
    for _ in range(800):
        found = mean_interval(getattr(rng, draw)(size=12)[people] + rng.normal(size=60), people)
        inside.append(found.low <= truth <= found.high)
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
    assert 0.92 <= np.mean(inside) <= 0.98


def test_the_interval_over_people_and_networks_covers_as_often_as_it_says():
    """20 people, 4 networks, the three spreads alike."""
    rng = np.random.default_rng(2)
    who, net = np.tile(np.arange(20), 4), np.repeat(np.arange(4), 20)
    inside = []
    for _ in range(800):
        values = rng.normal(size=20)[who] + rng.normal(size=4)[net] + rng.normal(size=80)
        found = mean_interval(values, who, net)
        inside.append(found.low <= 0 <= found.high)
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
    assert 0.92 <= np.mean(inside) <= 0.98


@pytest.mark.parametrize("values", [[3.0] * 6, [0.0] * 6, [0.1] * 6])
def test_no_spread_is_not_certainty(values):
    people, networks = [0, 0, 1, 1, 2, 2], [0, 1] * 3
    for found in (mean_interval(values, people), mean_interval(values, people, networks)):
        assert found.value == pytest.approx(values[0]) and np.isnan(found[1:]).all()
        assert verdict(found) == "undecided" and in_text(found, 1).endswith("(no interval)")


@pytest.mark.parametrize("interval", [mean_interval, share_interval])
@pytest.mark.parametrize(
    ("values", "people", "networks", "said"),
    [
        ([1.0, 0.0], [0, 0], None, "at least two people"),
        ([], [], None, "at least two people"),
        ([1.0, np.nan], [0, 1], None, "1 of 2 values are not finite"),
        ([1.0, 0.0], [0], None, "one length"),
        ([1.0, 0.0], [0, 1], [0], "networks must be of one length"),
    ],
)
def test_bad_input_is_named(interval, values, people, networks, said):
    with pytest.raises(ValueError, match=said):
        interval(values, people, networks)


def test_shares_by_hand():
    """Wilson's interval for n hits of m is (n + z² / 2 ± z sqrt(n (m - n) / m + z² / 4)) / (m + z²)."""
    people = np.repeat(np.arange(12), 5)
    z2 = stats.norm.ppf(0.975) ** 2
    everybody = share_interval(np.ones(60), people)
    assert everybody == pytest.approx((1, 12 / (12 + z2), 1)) and 0.7 < everybody.low < 0.8
    assert share_interval(np.zeros(60), people) == pytest.approx((0, 0, z2 / (12 + z2)))
    # half of the people: their mean has the variance of 11 trials, as the m - 1 of a sample has it
    half = share_interval(np.repeat([0.0, 1], 30), people)
    reach = np.sqrt(z2 * (11 / 4 + z2 / 4)) / (11 + z2)
    assert half == pytest.approx((0.5, 0.5 - reach, 0.5 + reach))


def test_the_interval_of_a_share_stays_between_0_and_1_and_covers_it():
    """A hit has a probability of 0.9 on average, of each person another; four networks."""
    rng = np.random.default_rng(3)
    who, net = np.tile(np.repeat(np.arange(20), 3), 4), np.repeat(np.arange(4), 60)
    inside = []
    for _ in range(400):
        hits = rng.random(240) < rng.beta(9, 1, size=20)[who]
        found = share_interval(hits, who, net)
        assert 0 <= found.low <= found.value <= found.high <= 1
        inside.append(found.low <= 0.9 <= found.high)
    assert 0.92 <= np.mean(inside) <= 1


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])


def table():
    rows = []
    for image in range(6):
        for method, draws, level in (("sdd", 1, 10.0), ("random_map", 2, 4.0)):
            for draw in range(draws):
                row = {"image": image, "label": image // 2, "method": method, "draw": draw, "fill": "black"}
                for kind in ("deletion", "retention"):
                    for measure in ("drop_points", "drop_relative", "prediction_change"):
                        row[f"{kind}_{measure}"] = level + image + 2 * draw
                rows.append(row)
    return pd.DataFrame(rows)


def test_draws_are_averaged_and_differences_are_paired():
    wide = per_image(table(), "deletion_drop_points", fill="black")
    assert wide["sdd"].tolist() == [10, 11, 12, 13, 14, 15]
    assert wide["random_map"].tolist() == [5, 6, 7, 8, 9, 10]
    result = summarise(table(), [0, 1, 2])
    assert result["methods"]["random_map"]["black"]["draws"] == 2
    assert result["methods"]["sdd"]["black"]["images"] == 6
    drop = result["methods"]["sdd"]["black"]["deletion"]["drop_points"]
    assert drop == mean_interval(wide["sdd"], [0, 0, 1, 1, 2, 2])
    # every picture differs by 5: pairing leaves no spread, and what has none has no interval
    difference = result["differences"]["sdd_minus_random_map"]["black"]["retention"]["prediction_change"]
    assert plain(difference) == {"value": 5.0, "low": None, "high": None, "p": None}
    # relatives count as one: two families of three pictures each
    kin = summarise(table().assign(label=lambda rows: rows["image"]), [0, 0, 0, 1, 1, 1])
    assert kin["methods"]["sdd"]["black"]["deletion"]["drop_points"] == mean_interval(wide["sdd"], [0, 0, 0, 1, 1, 1])
    with pytest.raises(ValueError, match="no fill 'grey'; it has black"):
        per_image(table(), "deletion_drop_points", fill="grey")


def test_verdicts():
    assert verdict(Interval(5, 1, 9)) == "better"
    assert verdict(Interval(-5, -9, -1), AGREEMENT) == "differs"
    assert verdict(Interval(-5, -9, -1), AGREEMENT, sign=-1) == "agrees"
    assert verdict(Interval(5, 1, 9), ("yes", "no", "undecided"), sign=-1) == "no"
    assert verdict(Interval(1, -1, 3)) == verdict(Interval(np.nan, np.nan, np.nan)) == "undecided"


def test_an_interval_as_text_has_true_minus_signs_and_says_what_is_missing() -> None:
    assert in_text(Interval(0.684, -0.001, 0.77)) == "0.68 [0.00, 0.77]"
    assert in_text({"value": -12.34, "low": -20, "high": 1.5}, 1, signed=True) == "−12.3 [−20.0, +1.5]"
    assert in_text(Interval(0.5, 0.25, 0.75), 0, factor=100, unit=" %") == "50 % [25, 75]"
    assert in_text(Estimate(0.5, np.nan, np.nan, np.nan)) == "0.50 (no interval)"
    assert in_text(Interval(np.nan, np.nan, np.nan), missing="—") == "—"


def test_a_table_writes_its_intervals_and_leaves_other_cells_alone() -> None:
    lines = markdown([{"map": "SDD", "score": Interval(1, 0, 2), "as text": "0.50", "n": 30}], 1).splitlines()
    assert [cell.strip() for cell in lines[-1].strip("|").split("|")] == ["SDD", "1.0 [0.0,\u00a02.0]", "0.50", "30"]
    assert lines[1].endswith("-:|")  # numbers stand on the right
    assert "−0.50" in markdown([{"as text": "-0.50"}]) and "a-b" in markdown([{"word": "a-b"}])
    assert markdown([]) == ""


def test_what_a_results_file_holds_is_nested_and_has_no_nan() -> None:
    found = {("a", 1): Interval(1, 0, 2), ("a", "p"): np.float64("nan"), "b": [np.int64(3), (Interval(np.nan, 0, 1),)]}
    assert plain(found) == {
        "a": {"1": {"value": 1, "low": 0, "high": 2}, "p": None},
        "b": [3, [{"value": None, "low": 0, "high": 1}]],
    }


def test_changed_predictions_are_tested_by_their_differences_and_corrected_together() -> None:
    """Three people of two pictures: CAM changes what SDD does, the control in one of two draws, the disc one more."""
    rows = []
    for image in range(6):
        for method, changes in (
            ("sdd", [100.0 * (image < 5)]), ("random_map", [0.0, 100.0 * (image < 3)]),
            ("cam", [100.0 * (image < 5)]), ("disc", [100.0]),
        ):  # fmt: skip
            for draw, change in enumerate(changes):
                row = {"image": image, "label": image // 2, "method": method, "draw": draw, "fill": "grey"}
                measures = {f"{kind}_{m}": 0.0 for kind in SIGN for m in MEASURES}
                rows.append(row | measures | {"deletion_prediction_change": change})
    found = summarise(pd.DataFrame(rows), [0, 1, 2])
    # by picture SDD less the mean of the draws is 50, 50, 50, 100, 100 and 0
    by_hand = mean_interval([50.0, 50, 50, 100, 100, 0], [0, 0, 1, 1, 2, 2])
    assert found["differences"]["sdd_minus_random_map"]["grey"]["deletion"]["prediction_change"] == by_hand
    share = share_interval([1, 1, 1, 1, 1, 0], [0, 0, 1, 1, 2, 2])
    assert found["methods"]["sdd"]["grey"]["deletion"]["prediction_change"] == tuple(100 * bound for bound in share)
    tests = change_tests(found["differences"])
    alike = {"p": np.nan, "p_holm": np.nan}  # no test where nothing varies: not of CAM, not in retention
    np.testing.assert_equal(tests["sdd_minus_cam"]["grey"], {"deletion": alike, "retention": alike})
    disc = mean_interval([0.0, 0, 0, 0, 0, -100], [0, 0, 1, 1, 2, 2])
    both = holm([by_hand.p, disc.p])
    assert tests["sdd_minus_random_map"]["grey"]["deletion"] == {"p": by_hand.p, "p_holm": both[0]}
    assert tests["sdd_minus_disc"]["grey"]["deletion"] == {"p": disc.p, "p_holm": both[1]}
    alone = change_tests(found["differences"], ["disc"])
    assert alone["sdd_minus_disc"]["grey"]["deletion"] == {"p": disc.p, "p_holm": disc.p}


def test_what_has_no_interval_is_null_in_a_results_file_and_said_by_a_page() -> None:
    same, apart = mean_interval([2.0, 2], [0, 1]), Estimate(2.3, 1.9, 7.0, 0.01)
    schema = json.loads((project_root() / "notebooks/studies/results.schema.json").read_text(encoding="utf-8"))
    for found, said in ((same, "2.0 (no interval)"), (apart, "2.3 [1.9, 7.0]")):
        node = json.loads(json.dumps(plain(found), allow_nan=False))
        jsonschema.validate(node, schema["$defs"]["interval"])
        assert results.text_of(node, "ci") == said and results.text_of(node, ".0f") == "2"
    assert results.judged_text(plain(same), AGREEMENT) == "undecided: 2.0 (no interval)"
    assert results.judged_text(plain(apart), AGREEMENT, 0) == "agrees: 2 [2, 7]"
    assert results.judged_text(plain(apart) | {"verdict": "better"}, AGREEMENT, 0) == "better: 2 [2, 7]"
    with pytest.raises(results.ResultError, match="is not a number with its interval"):
        results.judged_text(plain(Interval(np.nan, np.nan, np.nan)), AGREEMENT)


def test_areas_by_hand() -> None:
    assert area_under([0, 0.5, 1], [0, 1, 1]) == pytest.approx(0.75)
    assert area_under([0, 0.2, 1], [2, 2, 2]) == pytest.approx(2)
    with pytest.raises(ValueError, match="0 to 1"):
        area_under([0.1, 1], [0, 1])

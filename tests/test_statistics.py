"""Intervals: by hand where there is nothing random, by coverage where there is, and the summary of a table."""

import numpy as np
import pandas as pd
import pytest

from studies.explainers_compared import area_under
from studies.full_evaluation import change_tests, summarise
from xfrlib.intervals import Estimate, Interval, bootstrap_interval, crossed_interval, holm, sign_flip_test
from xfrlib.tables import AGREEMENT, in_text, markdown, per_image, plain, verdict


def test_equal_values_have_an_interval_of_no_width():
    assert bootstrap_interval([3.0] * 6, [0, 0, 1, 1, 2, 2]) == Interval(3.0, 3.0, 3.0)


def test_the_value_is_the_mean_over_pictures_not_over_identities():
    assert bootstrap_interval([0.0, 0.0, 0.0, 8.0], ["a", "a", "a", "b"]).value == 2.0


def test_pictures_that_repeat_their_identity_do_not_narrow_the_interval():
    rng = np.random.default_rng(0)
    means = rng.normal(size=20)
    once = bootstrap_interval(means, np.arange(20))
    repeated = bootstrap_interval(np.repeat(means, 50), np.repeat(np.arange(20), 50))
    assert repeated.high - repeated.low == pytest.approx(once.high - once.low, rel=1e-6)
    naive = bootstrap_interval(np.repeat(means, 50), np.arange(1000))
    assert naive.high - naive.low < 0.3 * (once.high - once.low)


def test_the_interval_covers_the_truth_with_twelve_identities():
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(300):
        offsets = np.repeat(rng.normal(size=12), 5)
        interval = bootstrap_interval(
            offsets + rng.normal(size=60), np.repeat(np.arange(12), 5), resamples=300, seed=trial
        )
        covered += interval.low <= 0 <= interval.high
    assert 0.91 <= covered / 300 <= 0.99


@pytest.mark.parametrize(
    ("values", "clusters", "said"),
    [
        ([1.0, 2.0], [0, 0], "at least two identities"),
        ([1.0, np.nan], [0, 1], "1 of 2 values are not finite"),
        ([1.0, 2.0], [0], "one length"),
    ],
)
def test_bad_input_is_named(values, clusters, said):
    with pytest.raises(ValueError, match=said):
        bootstrap_interval(values, clusters)


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
    result = summarise(table())
    assert result["methods"]["random_map"]["black"]["draws"] == 2
    assert result["methods"]["sdd"]["black"]["images"] == 6
    assert result["methods"]["sdd"]["black"]["deletion"]["drop_points"]["value"] == 12.5
    # every picture differs by 5, so pairing leaves no uncertainty
    difference = result["differences"]["sdd_minus_random_map"]["black"]["retention"]["prediction_change"]
    assert difference == {"value": 5.0, "low": 5.0, "high": 5.0}
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
    assert markdown([]) == ""


def test_what_a_results_file_holds_is_nested_and_has_no_nan() -> None:
    found = {("a", 1): Interval(1, 0, 2), ("a", "p"): np.float64("nan"), "b": [np.int64(3), (Interval(np.nan, 0, 1),)]}
    assert plain(found) == {
        "a": {"1": {"value": 1, "low": 0, "high": 2}, "p": None},
        "b": [3, [{"value": None, "low": 0, "high": 1}]],
    }


def test_one_network_is_the_bootstrap_over_identities_and_more_widen_it() -> None:
    rng = np.random.default_rng(1)
    who, net = np.tile(np.repeat(np.arange(12), 10), 3), np.repeat(np.arange(3), 120)
    values = rng.normal(size=360) + rng.normal(size=12)[who]
    assert crossed_interval(values, who, np.zeros(360)) == bootstrap_interval(values, who)
    alike, apart = (crossed_interval(values + shift * net, who, net) for shift in (0.0, 3.0))
    assert apart.high - apart.low > 3 * (alike.high - alike.low)
    with pytest.raises(ValueError, match="networks must be of one length"):
        crossed_interval(values, who, net[:3])


def test_the_crossed_interval_covers_as_often_as_it_says() -> None:
    """20 people, 4 networks, the three spreads alike: the mean lies inside in about 95 of 100 trials."""
    rng = np.random.default_rng(2)
    who, net = np.tile(np.arange(20), 4), np.repeat(np.arange(4), 20)
    inside = 0
    for trial in range(150):
        values = rng.normal(size=20)[who] + rng.normal(size=4)[net] + rng.normal(size=80)
        found = crossed_interval(values, who, net, resamples=200, seed=trial)
        inside += found.low <= 0 <= found.high
    assert 0.9 <= inside / 150 <= 1.0


def test_the_sign_flip_test_by_hand_and_by_clusters() -> None:
    # Three identities: of 8 equally likely signs two are as extreme as all positive.
    assert sign_flip_test([1.0, 2.0, 3.0], [0, 1, 2]) == pytest.approx(2 / 8)
    # Repeating pictures within an identity is no new evidence.
    assert sign_flip_test([1.0] * 30, [0] * 10 + [1] * 10 + [2] * 10) == pytest.approx(2 / 8)
    assert sign_flip_test([0.0, 0.0], [0, 1]) == 1.0
    with pytest.raises(ValueError, match="finite"):
        sign_flip_test([np.nan, 1.0], [0, 1])


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])


def test_changed_predictions_are_tested_by_people_and_corrected_together() -> None:
    """Three people of two pictures: CAM changes what SDD does, the control in one of two draws, the disc one more."""
    rows = []
    for image in range(6):
        for method, changes in (
            ("sdd", [100.0 * (image < 5)]), ("random_map", [0.0, 100.0 * (image < 3)]),
            ("cam", [100.0 * (image < 5)]), ("disc", [100.0]),
        ):  # fmt: skip
            for draw, change in enumerate(changes):
                row = {"image": image, "label": image // 2, "method": method, "draw": draw, "fill": "grey"}
                rows.append(row | {"deletion_prediction_change": change, "retention_prediction_change": 0.0})
    tests = change_tests(pd.DataFrame(rows))
    # by person SDD less the mean of the draws is 50 + 50, 50 + 100, 100 + 0: of 8 signs two are as extreme
    assert tests["sdd_minus_random_map"]["grey"]["deletion"]["p"] == pytest.approx(2 / 8)
    assert tests["sdd_minus_cam"]["grey"]["deletion"] == {"p": 1.0, "p_holm": 1.0}
    assert tests["sdd_minus_disc"]["grey"]["deletion"]["p"] == 1.0  # 0, 0, -100: of either sign as extreme
    assert tests["sdd_minus_random_map"]["grey"]["deletion"]["p_holm"] == 1.0  # six questions
    assert {kind: one["p"] for kind, one in tests["sdd_minus_disc"]["grey"].items()} == {"deletion": 1, "retention": 1}
    alone = change_tests(pd.DataFrame(rows).assign(retention_prediction_change=0.0), others=("random_map",))
    assert alone["sdd_minus_random_map"]["grey"]["deletion"]["p_holm"] == pytest.approx(2 * 2 / 8)


def test_areas_by_hand() -> None:
    assert area_under([0, 0.5, 1], [0, 1, 1]) == pytest.approx(0.75)
    assert area_under([0, 0.2, 1], [2, 2, 2]) == pytest.approx(2)
    with pytest.raises(ValueError, match="0 to 1"):
        area_under([0.1, 1], [0, 1])

"""Scores become means, differences and words: the right rows, paired by case, and without the cases that have none."""

import numpy as np
import pandas as pd
import pytest

from studies import score_tables
from studies.score_tables import by_verdict, known_mean, mean_score
from studies.shares import share_interval
from xfrlib.intervals import Interval, mean_interval

KINDS, SCORES, TITLES = {"family": "look-alikes"}, {"auc": "AUC"}, {"sdd": "SDD", "cam": "CAM"}
FOUND = {("family", "sdd", "auc"): Interval(0.9, 0.8, 1.0), ("family", "cam", "auc"): Interval(0.8, 0.7, 0.9)}
APART = {("family", "cam", "auc"): Interval(0.1, 0.05, 0.2)}
FAMILIES = {"families": [0, 1, 2]}


@pytest.fixture
def table() -> pd.DataFrame:
    """Three people of two pictures on two networks; SDD is 0.1 above CAM."""
    rows = [
        {
            "kind": kind,
            "method": method,
            "target": case // 2,
            "network": network,
            "auc": level + case + network,
            "pointing": case % 3 > 0,
            "seam": 1,
        }
        for network in (0, 1)
        for kind in ("family", "stranger")
        for method, level in (("sdd", 0.1), ("cam", 0.0))
        for case in range(6)
    ]
    return pd.DataFrame(rows).astype({"auc": float, "pointing": float})


def test_a_mean_is_of_the_rows_asked_for_and_differences_are_paired(table: pd.DataFrame) -> None:
    own = table[(table["kind"] == "family") & (table["method"] == "sdd")]
    whole = mean_score(table, "family", "sdd", "auc", **FAMILIES)
    assert whole == mean_interval(own["auc"], own["target"], own["network"])
    less = mean_score(table, "family", "sdd", "auc", less="cam", **FAMILIES)
    assert less.value == pytest.approx(0.1) and np.isnan(less.low)  # the same in every case
    above = mean_score(table, "family", "sdd", "auc", minus="seam", **FAMILIES)
    assert above.value == pytest.approx(whole.value - 1)
    alone = table[table["network"] == 0].drop(columns="network")
    first = own[own["network"] == 0]
    assert mean_score(alone, "family", "sdd", "auc", **FAMILIES) == mean_interval(first["auc"], first["target"])
    kin = mean_score(alone, "family", "sdd", "auc", families=[7, 7, 8])
    assert kin == mean_interval(first["auc"], [7] * 4 + [8] * 2)
    hits = mean_score(alone, "family", "sdd", "pointing", **FAMILIES)
    assert hits == share_interval(first["pointing"], first["target"]) and hits.high <= 1


def test_cases_without_a_score_are_left_out_and_one_person_gives_no_interval() -> None:
    values, people = [1.0, np.nan, 3.0, 5.0], [0, 0, 1, 2]
    assert known_mean(values, people) == mean_interval([1.0, 3.0, 5.0], [0, 1, 2])
    assert np.isnan(known_mean([1.0, 2.0, np.nan], [0, 0, 1])).all()


def test_tables_panels_and_words() -> None:
    sdd, cam = score_tables.score_rows(FOUND, "family", SCORES, TITLES)
    assert (sdd["map"], cam["map"]) == ("SDD", "CAM") and sdd["AUC"] == FOUND["family", "sdd", "auc"]
    drawn = score_tables.panels(FOUND, KINDS, SCORES, TITLES)
    assert drawn["measure"].unique().tolist() == ["look-alikes: AUC"] and drawn["low"].tolist() == [0.8, 0.7]
    assert by_verdict(APART, "family", "auc", TITLES) == {"better": ["CAM"], "worse": [], "undecided": []}
    assert score_tables.tally([Interval(1, 0.5, 2), Interval(0, -1, 1)]) == "better on 1, worse on 0, undecided on 1"
    (row,) = score_tables.difference_rows(APART, KINDS, SCORES, {"cam": "CAM"})
    assert row == {"rival": "look-alikes", "SDD minus": "CAM", "AUC": "0.10 [0.05, 0.20] better"}


def test_an_aim_is_reached_by_the_interval_or_by_the_mean_alone() -> None:
    reached, by_mean = score_tables.reaching(FOUND, "family", TITLES, SCORES, goal=0.75)
    assert (reached, by_mean) == ("by SDD in AUC", "by CAM in AUC")
    ends = [score_tables.aim(Interval(value, value - 0.1, value + 0.1), goal=0.5) for value in (0.7, 0.55, 0.45, 0.3)]
    assert ends[0] == "is reached" and ends[3] == "is not reached"
    assert "is met by the mean" in ends[1] and "is missed by the mean" in ends[2]
    alone = score_tables.aim(Interval(0.9, np.nan, np.nan))
    assert alone == "is met by the mean, but the interval leaves it open"

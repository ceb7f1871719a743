"""Candidates for a better map, their gains by hand, and the sentences of the verdict."""

import numpy as np
import pandas as pd
import pytest

from studies import candidates
from studies.candidates import CONSTANT, ELLIPSE, PERSON, Candidate
from xfrlib.intervals import Interval


def table(methods, networks=(0, 1), fills=("black", "blur")):
    """Twelve pictures of six families, a little apart: `methods` have (deletion, retention) beside a disc of (1, 1)."""
    spread = {method: np.random.default_rng(i).permutation(6) - 2.5 for i, method in enumerate(["disc", *methods])}
    return pd.DataFrame([
        {"network": network, "image": image, "family": image // 2, "fill": fill, "method": method,
         "deletion_margin_drop": deletion + image + spread[method][image // 2] / 100,
         "retention_margin_drop": retention + spread[method][image // 2] / 1000}
        for network in networks for image in range(12) for fill in fills
        for method, (deletion, retention) in {"disc": (1.0, 1.0), **methods}.items()
    ])  # fmt: skip


def test_candidates_have_titles_and_the_best_is_that_of_the_smaller_gain():
    titles = [c.title for c in (Candidate("sdd"), Candidate("sdd", "person"), CONSTANT, PERSON, ELLIPSE)]
    assert titles == ["SDD", "person's prior + SDD", "prior alone", "person's prior alone", "best ellipse"]
    found = candidates.trials({ELLIPSE: [3.0, 0.1], CONSTANT: [0.5, 0.6], PERSON: [-1.0, 9.0]})
    assert found["candidate"].tolist() == [CONSTANT, ELLIPSE, PERSON]
    assert found["smaller gain"].tolist() == [0.5, 0.1, -1.0]


def test_gains_by_hand_deletion_up_and_retention_down_are_good():
    rows = table({"better": (3.0, 0.5)})
    gain = candidates.gains(rows.sample(frac=1, random_state=0), "better")
    assert len(gain) == 2 * 12 * 2
    assert np.allclose(gain[["deletion", "retention", "balance"]], [2, 0.5, 2.5], atol=0.06)
    found = candidates.gained(rows, "better")
    assert {name: one.value for name, one in found.items()} == pytest.approx(
        {"deletion": 2, "retention": 0.5, "balance": 2.5}
    )
    assert candidates.side(found) == "above" and candidates.stands(found) == "is above the disc in both measures"


@pytest.mark.parametrize(
    ("deletion", "retention", "side", "said"),
    [
        ((1, 2), (-2, -1), "neither", "is above the disc in deletion and below the disc in retention"),
        ((-1, 1), (1, 2), "neither", "is above the disc in retention alone"),
        ((-2, -1), (-2, -1), "below", "is below the disc in both measures"),
        ((-1, 1), (-1, 1), "neither", "is not clearly different from the disc in either measure"),
    ],
)
def test_where_a_map_stands_is_said_of_both_measures(deletion, retention, side, said):
    gain = {"deletion": Interval(0, *deletion), "retention": Interval(0, *retention)}
    assert candidates.side(gain) == side and candidates.stands(gain) == said


def test_another_picture_is_the_next_one_of_the_person():
    assert candidates.next_of_the_same(np.array([0, 1, 0, 1, 0, 2])).tolist() == [4, 3, 0, 1, 2, 5]


def test_a_share_is_one_for_the_search_itself_and_not_defined_where_it_gains_nothing():
    rows = table({"search": (3.0, 0.5), "better": (2.0, 0.75)}, networks=(0,))
    found = candidates.shares(rows, ["search", "better"])
    assert found["search"].value == pytest.approx(1) and found["better"].value == pytest.approx(0.5)
    assert np.isnan(found["search"][1:]).all()  # of itself it has the same share in every picture
    assert candidates.shares(table({"search": (1.0, 1.0)}), ["search"]) == {"search": None}


def test_a_gain_without_spread_is_not_told_apart():
    rows = table({"better": (3.0, 0.5)}).assign(deletion_margin_drop=1.0)
    found = candidates.gained(rows, "better")
    assert np.isnan(found["deletion"][1:]).all() and found["retention"].low > 0
    assert candidates.stands(found) == "is above the disc in retention alone"
    said = candidates.compared({"balance": found["deletion"]}, "the prior")
    assert said == "not clearly different from that of the prior (difference 0.00 (no interval))"


def test_what_is_left_of_the_search_is_a_percentage_or_nothing():
    def gain(value):
        return {"balance": Interval(value, value, value)}

    found = {(0, "grey"): gain(4.0), (0, "black"): gain(1.0), (1, "grey"): gain(2.0), (1, "black"): gain(-0.5)}
    assert candidates.left_of_search(found, ["black"]) == (
        "25 % is left with other fills on the same network; nothing is left with other fills on another network: there "
        "its region is 0.50 behind the disc"
    )


def verdict_of(chosen, networks=(0, 1)):
    names = [*candidates.SINGLE, "better", "ellipse", "prior", "person", "better_same_identity"]
    rows = table({name: (2.0 if name == "better" else 1.0, 0.5) for name in names}, networks)
    against = {"ellipse": "the best ellipse", "prior": "the prior alone", "person": "the person's prior alone",
               "better_same_identity": "another picture's region"}  # fmt: skip
    found = candidates.judge_chosen(rows, names, list(against))
    return found, candidates.findings(found, chosen, against, promised=-0.5)


def test_the_verdict_counts_networks_and_says_what_the_map_adds():
    found, said = verdict_of(Candidate("sdd", "person"))
    assert found.won == [0, 1] and list(found.by_fill) == ["black", "blur"] and found.unseen is not None
    assert [row["network"] for row in found.rows()] == [
        "0 (chose)", "1", "all, fill black", "all, fill blur", "all", "all but the one that chose"
    ]  # fmt: skip
    assert said[0].startswith("**person's prior + SDD is above the disc in both measures**, over people")
    assert "it is above in both on 2 of 2 networks." in said[0] and "it gained −0.50 in balance" in said[3]
    assert "than that of the best ellipse by 1.00 [0.98, 1.02] and higher than that of the prior alone" in said[4]
    assert "Without its map, as person's prior alone, it would be worth less (the map adds 1.00" in said[5]


def test_a_map_without_a_prior_and_a_prior_without_a_map_are_told_apart():
    found, said = verdict_of(Candidate("sdd"), networks=(0,))
    assert found.unseen is None and "of others nothing is known" in said[1]
    assert "over people, on one network, and in the mean over the judging fills" in said[0]
    assert said[5].startswith("It has no prior, and its balance is higher than that of the prior alone")
    assert verdict_of(PERSON)[1][5].startswith("It reads no map")
    assert [candidates.own_prior(c) for c in (Candidate("sdd"), PERSON, Candidate("sdd", "prior"))] == [
        None,
        None,
        "prior",
    ]

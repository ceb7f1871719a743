"""Candidates for a better map, their gains by hand, and the sentences of the verdict."""

import re
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch

from studies import candidates
from studies.candidates import CONSTANT, ELLIPSE, PERSON, Candidate, JudgedGain
from xfrlib.explanation import select_classes
from xfrlib.intervals import Interval
from xfrlib.judge import evaluate


def table(methods, networks=(0, 1), fills=("black", "blur"), opposed=()):
    """Twelve pictures of six families, a little apart: `methods` have (deletion, retention) beside a disc of (1, 1).

    Those `opposed` change sides of the disc in deletion under blur. The margin falls by twice as much as the lead.
    """
    spread = {method: np.random.default_rng(i).permutation(6) - 2.5 for i, method in enumerate(["disc", *methods])}
    rows = pd.DataFrame([
        {"network": network, "image": image, "family": image // 2, "fill": fill, "method": method,
         "deletion_lead_drop": (2 - deletion if fill == "blur" and method in opposed else deletion)
         + image + spread[method][image // 2] / 100,
         "retention_lead_drop": retention + spread[method][image // 2] / 1000}
        for network in networks for image in range(12) for fill in fills
        for method, (deletion, retention) in {"disc": (1.0, 1.0), **methods}.items()
    ])  # fmt: skip
    return rows.assign(**{f"{side}_margin_drop": 2 * rows[f"{side}_lead_drop"] for side in candidates.SIDES})


def test_candidates_have_titles_and_the_best_is_that_of_the_smaller_gain():
    titles = [c.title for c in (Candidate("sdd"), Candidate("sdd", "person"), CONSTANT, PERSON, ELLIPSE)]
    assert titles == ["SDD", "person's prior + SDD", "prior alone", "person's prior alone", "best ellipse"]
    found = candidates.trials({ELLIPSE: [3.0, 0.1], CONSTANT: [0.5, 0.6], PERSON: [-1.0, 9.0]})
    assert found["candidate"].tolist() == [CONSTANT, ELLIPSE, PERSON]
    assert found["smaller gain"].tolist() == [0.5, 0.1, -1.0]


def test_gains_by_hand_deletion_up_and_retention_down_are_good():
    rows = table({"better": (3.0, 0.5)})
    gain = candidates.paired_gains(rows.sample(frac=1, random_state=0), "better")
    assert len(gain) == 2 * 12 * 2
    assert np.allclose(gain[["deletion", "retention", "balance"]], [2, 0.5, 2.5], atol=0.06)
    found = candidates.gained(rows, "better")
    assert {name: one.value for name, one in found.items()} == pytest.approx(
        {"deletion": 2, "retention": 0.5, "balance": 2.5}
    )
    assert candidates.side(found) == "above" and candidates.stands(found) == "is above the disc in both measures"


@torch.no_grad()
def test_gains_are_those_of_a_loop_over_fixed_rivals_and_the_margins_are_others(classifier, images):
    small, large = torch.zeros(2, 5, 16, 16, dtype=torch.bool)
    small[:, 4:9, 6:11], large[:, 2:13, 2:13] = True, True
    before, temperature = classifier(images), 2.0
    regions = {"better": large.numpy(), "other": small.numpy()}
    options = {"logits": before, "pairs": select_classes(before, top_k=3), "temperature": temperature, "controls": ()}
    found = evaluate(classifier, images, np.zeros(5, int), regions, progress=False, fills=("grey",), **options)
    expected, of_margin = [], []
    for i, z in enumerate(before.tolist()):
        target, *rivals = sorted(range(7), key=lambda c: -z[c])
        lead, margin = [], []
        for one, sign in ((large, 1), (small, -1)):
            for gone, better in ((one[i], 1), (~one[i], -1)):
                after = classifier(torch.where(gone, torch.tensor(0.5), images[i])[None])[0].tolist()
                falls = [(z[target] - z[c]) - (after[target] - after[c]) for c in rivals[:2]]
                lead.append(sign * better * sum(falls) / 2 / temperature)
                highest = max(after[c] for c in rivals)
                margin.append(sign * better * (z[target] - z[rivals[0]] - after[target] + highest) / temperature)
        expected.append(sum(lead))
        of_margin.append(sum(margin))
    gain = candidates.paired_gains(found.assign(family=found["image"]), "better", "other")
    assert gain["balance"].tolist() == pytest.approx(expected, abs=1e-5)
    by_margin = candidates.paired_gains(found.assign(family=found["image"]), "better", "other", score="margin_drop")
    assert by_margin["balance"].tolist() == pytest.approx(of_margin, abs=1e-5)
    assert not np.isclose(expected, of_margin, rtol=0, atol=1e-3).any()  # the best rival is another afterwards


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
    rows = table({"better": (3.0, 0.5)}).assign(deletion_lead_drop=1.0)
    found = candidates.gained(rows, "better")
    assert np.isnan(found["deletion"][1:]).all() and found["retention"].low > 0
    assert candidates.stands(found) == "is above the disc in retention alone"
    said = candidates.compared(found | {"balance": found["deletion"]}, "the prior")
    assert said == "not clearly different from that of the prior (difference 0.00 (no interval))"


def test_two_measures_that_disagree_for_certain_give_no_verdict_by_their_sum():
    rows = table({"better": (3.0, 2.5)})
    found = candidates.gained(rows, "better")
    assert found["deletion"].low > 0 > found["retention"].high
    assert candidates.compared(found, "the prior").startswith("no measure against the prior, because deletion and ret")


def test_what_is_left_of_the_search_is_a_percentage_or_nothing():
    def gain(value):
        return {"balance": Interval(value, value, value)}

    found = {(0, "grey"): gain(4.0), (0, "black"): gain(1.0), (1, "grey"): gain(2.0), (1, "black"): gain(-0.5)}
    found |= {(0, "blur"): gain(3.0), (1, "blur"): gain(0.4)}  # fills are not averaged
    assert candidates.left_of_search(found, ["black", "blur"]) == (
        "on the same network 25 % under black and 75 % under blur; "
        "on another network nothing (its region is 0.50 behind the disc) under black and 10 % under blur"
    )


def test_a_mean_over_fills_is_claimed_only_where_they_agree_in_sign():
    rows = table({"better": (5.0, 0.5)}, opposed=["better"])
    found = JudgedGain.of(rows, "better")
    assert [gain["deletion"].value for gain in found.fills.values()] == pytest.approx([4, -4])
    assert not found.agree() and found.agree(["retention"])
    assert found.side() == "neither"
    words = (
        "is above the disc in both measures under black; is above the disc in retention and below the disc in deletion"
    )
    assert found.said(candidates.stands, candidates.SIDES) == f"{words} under blur"
    together = JudgedGain.of(table({"better": (5.0, 0.5)}), "better")
    assert together.agree() and together.side() == "above"
    assert together.said(candidates.stands, candidates.SIDES) == "is above the disc in both measures"


def test_the_verdicts_of_two_scores_are_compared_case_by_case():
    rows = table({"better": (3.0, 0.5), "cam": (2.0, 0.5)})
    lead, margin = (
        {n: JudgedGain.of(rows, n, score=s) for n in ("better", "cam")} for s in ("lead_drop", "margin_drop")
    )
    assert margin["cam"].mean["deletion"].value == pytest.approx(2 * lead["cam"].mean["deletion"].value)
    titles = {"better": "chosen", "cam": "CAM"}
    assert candidates.other_verdicts(lead, margin, titles).startswith("The lead and the margin agree in all 4 cases")
    rows.loc[(rows["method"] == "cam") & (rows["fill"] == "blur"), "deletion_margin_drop"] -= 50
    margin["cam"] = JudgedGain.of(rows, "cam", score="margin_drop")
    assert candidates.other_verdicts(lead, margin, titles) == (
        "The lead and the margin disagree in 1 of 4 cases:\n\n"
        "- CAM, under blur: it is above the disc in both measures by the lead, "
        "and is above the disc in retention and below the disc in deletion by the margin."
    )


@pytest.mark.parametrize(
    ("truth", "opposed", "said"),
    [
        ((3.0, 0.5), (), "above the disc in both measures under blur. So the test credits a map that is right."),
        (
            (3.0, 0.5),
            ("truth",),
            "Under blur the test does not credit even the truth in both measures: a map that is not",
        ),
        ((0.0, 2.0), (), "Under black and blur the test does not credit even the truth in both measures"),
    ],
)
def test_the_positive_control_judges_the_test(truth, opposed, said):
    assert said in candidates.what_the_test_credits(JudgedGain.of(table({"truth": truth}, opposed=opposed), "truth"))


AGAINST = {"ellipse": "the best ellipse", "prior": "the prior alone", "person": "the person's prior alone",
           "prior_cam": "prior + CAM", "better_same_identity": "another picture's region"}  # fmt: skip


@cache
def judged(networks, opposed):
    names = [*candidates.SINGLE, "better", "truth", *AGAINST]
    rows = table({name: (2.0 if name == "better" else 1.0, 0.5) for name in names}, networks, opposed=opposed)
    return candidates.judge_chosen(rows, names, list(AGAINST))


def verdict_of(chosen, networks=(0, 1), opposed=()):
    found = judged(networks, opposed)
    if chosen.map == "cam":  # the chosen map is not set against itself
        found = found._replace(minus={name: one for name, one in found.minus.items() if name != "prior_cam"})
    return found, candidates.verdict_findings(found, chosen, AGAINST, promised=-0.5)


def test_the_verdict_counts_networks_and_says_what_the_map_adds():
    found, said = verdict_of(Candidate("sdd", "person"))
    assert found.won == [0, 1] and list(found.over_disc["sdd"].fills) == ["black", "blur"] and found.unseen is not None
    assert [row["network"] for row in found.rows()] == [
        "0 (chose)", "1", "all", "all but the one that chose"
    ]  # fmt: skip
    assert list(found.rows()[0]) == [
        "network",
        "deletion, black",
        "retention, black",
        "deletion, blur",
        "retention, blur",
    ]
    assert said[0].startswith("**person's prior + SDD is above the disc in both measures**, over people")
    assert "above the disc in both measures on 2 of 2 networks." in said[2] and "it gained −0.50 in balance" in said[4]
    assert "higher than that of the best ellipse by 1.00 [" in said[5]
    assert said[6].startswith("It is higher than that of the prior alone by 1.00")
    assert "Without its map, as person's prior alone, it would be worth less (the map adds 1.00" in said[7]
    assert "The picture adds something that its prior does not have." in said[7]
    assert said[8].startswith("Plain CAM with its better prior (prior + CAM) is above the disc in retention alone.")
    assert "balance is higher than that of plain CAM with its prior by 1.00" in said[8]


def test_where_the_fills_disagree_no_sentence_claims_their_mean():
    found, said = verdict_of(Candidate("sdd", "person"), opposed=("better",))
    assert found.won == []
    assert (
        said[0]
        == "**person's prior + SDD has no one verdict**: the judging fills disagree in sign, and a mean would hide it."
    )
    assert "under black; is above the disc in retention and below the disc in deletion (" in said[1]
    assert "on 0 of 2 networks" in said[2]
    by_fill = (
        r"than that of the best ellipse by 1\.0\d \[\S+ \S+ under black; lower than that of the best ellipse by 1\.0"
    )
    assert re.search(by_fill, said[5])
    assert "under black; would not be clearly worth less (the map adds −1.0" in said[7]
    assert "does not have under black, and not clearly elsewhere." in said[7]
    assert not any("in the mean over" in sentence for sentence in said)


def test_a_map_without_a_prior_and_a_prior_without_a_map_are_told_apart():
    found, said = verdict_of(Candidate("sdd"), networks=(0,))
    assert found.unseen is None and "of others nothing is known" in said[3]
    assert "over people, on one network, and in the mean over the judging fills" in said[0]
    assert said[6].startswith("It has no prior, and its balance is higher than that of the prior alone")
    assert not any("Plain CAM" in sentence for sentence in said)
    assert said[-2] == (
        "Which maps without a prior are above the disc in both measures? Under black: no map. Under blur: no map."
    )
    assert said[-1].startswith("The positive control")
    assert verdict_of(PERSON)[1][7].startswith("It reads no map")
    assert not any("Plain CAM" in sentence for sentence in verdict_of(Candidate("cam", "prior"))[1])
    assert [candidates.own_prior(c) for c in (Candidate("sdd"), PERSON, Candidate("sdd", "prior"))] == [
        None,
        None,
        "prior",
    ]

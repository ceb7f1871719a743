"""A part transplanted: the pictures change where they should, cases are sound, and a map that moves rightly wins."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import mannwhitneyu
from torch import nn

from studies.pair_maps import CONTRAST, compared_maps, contrast_maps
from studies.transplant import (
    PART_BOXES,
    choose_cases,
    map_change,
    move_rows,
    odds_moved,
    part_alpha,
    prior_changes,
    score_move,
    score_transplants,
    transplant_part,
    transplants,
)
from xfrlib import FaceClassifier
from xfrlib.intervals import Interval

LABELS = np.repeat([0, 1, 2, 3], 3)


class ColourBackbone(nn.Module):
    """Cells of 4 x 4 pixels whose channels are their mean colours: evidence lies exactly where the colour does."""

    out_channels = 3
    name = "colour"

    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU()  # changes no colour; guided backpropagation asks for one

    def forward(self, images):
        return self.relu(nn.functional.avg_pool2d(images, 4))


@pytest.fixture
def model() -> FaceClassifier:
    model = FaceClassifier(ColourBackbone(), 4, seed=0)
    model.head.weight.data = 80 * torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    model.head.bias.data.zero_()
    return model.eval()


@pytest.fixture
def pictures() -> torch.Tensor:
    """Grey noise, tinted by the person: red, green, blue and none."""
    grey = 0.5 + 0.1 * torch.rand(12, 1, 112, 112, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1)
    tint = torch.eye(4, 3)[torch.from_numpy(LABELS)][:, :, None, None]
    return grey + 0.3 * tint


def test_alpha_is_one_inside_half_at_the_side_and_zero_far_away():
    for part, (left, top, right, bottom) in PART_BOXES.items():
        alpha = part_alpha(part)
        y, x = (top + bottom) // 2, (left + right) // 2
        assert alpha[y, x] > 0.97 and alpha[0].max() == 0 and alpha.min() >= 0 and alpha.max() <= 1
        assert (alpha[y, left] + alpha[y, left - 1]).item() == pytest.approx(1, abs=0.02)  # symmetric about the side
        assert torch.allclose(alpha, part_alpha(part, (224, 224))[::2, ::2], atol=0.15)
    with pytest.raises(ValueError, match="'ears': choose from eyes"):
        part_alpha("ears")
    with pytest.raises(ValueError, match="feather = 0"):
        part_alpha("nose", feather=0)


def test_a_transplant_by_hand():
    image, donor = torch.full((1, 3, 2, 3), 0.5), torch.full((1, 3, 2, 3), 0.9)
    alpha = torch.tensor([[0.0, 0.5, 1.0], [0.0, 0.5, 1.0]])
    plain = transplant_part(image, donor, alpha, match_colour=False)
    assert torch.allclose(plain, (0.5 + 0.4 * alpha).expand_as(plain))
    donor[..., 2] = 0.7  # 0.2 darker than in the seam: what is left when the seam's colour is matched
    matched = transplant_part(image, donor, alpha)
    assert torch.allclose(matched[0, 0, 0], torch.tensor([0.5, 0.5, 0.3]))


def test_outside_nothing_changes_to_the_bit_and_own_part_gives_the_picture_back(pictures):
    alpha = part_alpha("nose")
    made = transplant_part(pictures[:3], pictures[3:6], alpha)
    assert torch.equal(made[:, :, alpha == 0], pictures[:3][:, :, alpha == 0])
    assert (made - pictures[:3]).abs().amax(dim=1)[:, alpha > 0.9].mean() > 0.01
    assert torch.equal(transplant_part(pictures, pictures, alpha), pictures)
    with pytest.raises(ValueError, match="do not fit"):
        transplant_part(pictures[:3], pictures[:2], alpha)


def test_cases_are_balanced_and_never_take_a_part_from_the_picture_itself_or_a_duplicate():
    logits = torch.randn(12, 4, generator=torch.Generator().manual_seed(1))
    groups = np.full(12, -1)
    groups[[0, 1]] = 7
    cases = choose_cases(LABELS, logits, pictures=6, groups=groups, seed=3)
    assert len(cases) == 6 * 2 * 3 and cases["part"].nunique() == 3
    assert cases.groupby("target")["picture"].nunique().sort_values().tolist() == [1, 1, 2, 2]
    assert (LABELS[cases["picture"]] == cases["target"]).all() and (LABELS[cases["donor"]] == cases["rival"]).all()
    assert (LABELS[cases["own"]] == cases["target"]).all() and (cases["own"] != cases["picture"]).all()
    assert (cases["rival"] != cases["target"]).all()
    assert set(cases[cases["picture"] < 2]["own"]) == {2}  # pictures 0 and 1 are duplicates
    for row in cases.itertuples():
        others = logits[row.picture].clone()
        others[row.target] = -torch.inf
        assert (int(others.argmax()) == row.rival) == (row.kind == "look-alike")
    pd.testing.assert_frame_equal(cases, choose_cases(LABELS, logits, pictures=6, groups=groups, seed=3))
    with pytest.raises(ValueError, match="three people"):
        choose_cases(LABELS[:6], logits[:6], pictures=6)
    with pytest.raises(ValueError, match="three people"):
        choose_cases([0, 1, 2], logits[:3], pictures=3)


def test_odds_equal_a_naive_loop_and_only_the_rivals_part_moves_them(model, pictures):
    logits = model(pictures).detach()
    made = transplants(pictures, choose_cases(LABELS, logits, pictures=8), match_colour=False)
    table = odds_moved(model, made, batch_size=5, temperature=2.0, progress=False)
    for row in table.itertuples():
        odds = []
        for images in (made.images, made.transplanted, made.control):
            p = model(images[row.Index][None].float() / 255).double().softmax(dim=1)[0]
            odds.append(float((p[row.rival] / p[row.target]).log().detach()) / 2)
        assert row.before == pytest.approx(odds[0], abs=1e-5)
        assert row.rise == pytest.approx(odds[1] - odds[0], abs=1e-5)
        assert row.control_rise == pytest.approx(odds[2] - odds[0], abs=1e-5)
        assert row.moved == (row.rise >= 1 and abs(row.control_rise) < 0.5)
    assert table["control_rise"].abs().max() < 0.05
    eyes = table[(table["part"] == "eyes")]
    assert eyes["moved"].all()
    strict = odds_moved(model, made, threshold=1e6, progress=False)
    assert not strict["moved"].any()
    some = made.select(table["moved"])
    assert len(some.cases) == table["moved"].sum() == len(some.images) == len(some.regions)


def test_a_control_that_falls_is_no_control(model, pictures):
    """A control that lowers the odds would draw a map away from the part, and flatter every map."""
    cases = choose_cases(LABELS, model(pictures).detach(), pictures=8)
    made = transplants(pictures, cases.query("target < 3").reset_index(drop=True), match_colour=False)
    more = made.images.clone()  # still more of A's colour
    more[torch.arange(len(more)), made.classes[:, 1]] = 255
    before, after = (odds_moved(model, one, progress=False) for one in (made, made._replace(control=more)))
    assert before["moved"].any() and (after["control_rise"] < -0.5).all() and not after["moved"].any()


def test_the_difference_gains_what_the_odds_gain_and_moves_into_the_part(model, pictures):
    """The network's evidence is where the colour is, so the plain difference is the truth and scores at the top."""
    made = transplants(pictures, choose_cases(LABELS, model(pictures).detach(), pictures=8), match_colour=False)
    table = odds_moved(model, made, progress=False)
    before, after, control = (
        contrast_maps(model, images, made.classes)["difference"]
        for images in (made.images, made.transplanted, made.control)
    )
    # An enlarged map has the mean of the small one but for its border, where all is zero here.
    change = map_change(before, after, shares=False)
    assert change.mean(dim=(1, 2)).numpy() == pytest.approx(table["rise"].to_numpy(), abs=5e-3)
    scores, seam = (score_move(before, maps, made.regions, shares=False) for maps in (after, control))
    assert (scores["auc"] > 0.97).all() and (seam["auc"] < 0.9).all()
    assert (scores["inflow"] > 0.7).all() and seam["inflow"].abs().mean() < 0.3
    beyond = score_move(control, after, made.regions, shares=False)
    assert (beyond["pointing"] == 1).all() and (beyond["energy"] > 0.75).all()  # the soft edge lies outside


def test_a_random_map_scores_by_chance():
    rng = torch.Generator().manual_seed(0)
    regions = torch.stack([part_alpha(part) >= 0.5 for part in PART_BOXES] * 5)
    scores = score_move(*torch.rand(2, 15, 112, 112, generator=rng), regions, shares=True)
    area = regions.double().mean(dim=(1, 2)).numpy()
    assert abs(scores["auc"].mean() - 0.5) < 0.01 and scores["inflow"].abs().max() < 0.05
    assert scores["energy"].to_numpy() == pytest.approx(area, abs=0.01)


def test_scores_equal_naive_ones_and_a_uniform_change_scores_by_chance():
    rng = torch.Generator().manual_seed(2)
    before, after = torch.randn(2, 4, 6, 7, generator=rng).double().round(decimals=1)  # with ties
    regions = torch.rand(4, 6, 7, generator=rng) < 0.3
    scores = score_move(before, after, regions, shares=False)
    for row, a, b, region in zip(scores.itertuples(), before, after, regions, strict=True):
        inside, outside = (b - a)[region].numpy(), (b - a)[~region].numpy()
        statistic = mannwhitneyu(inside, outside).statistic
        assert row.auc == pytest.approx(statistic / (len(inside) * len(outside)))
        assert row.energy == pytest.approx(inside.clip(0).sum() / (b - a).clamp(min=0).sum().item())
        assert row.pointing == pytest.approx(region[b - a == (b - a).max()].double().mean().item())
        most = max((b - a).clamp(min=0).sum().item(), (a - b).clamp(min=0).sum().item())
        assert row.inflow == pytest.approx(inside.sum() / most)
    ones, area = torch.ones(4, 6, 7), regions.double().mean(dim=(1, 2)).numpy()
    flat = score_move(0 * ones, ones, regions, shares=False)
    assert flat["energy"].to_numpy() == pytest.approx(area) and flat["pointing"].to_numpy() == pytest.approx(area)
    assert (flat["auc"] == 0.5).all() and flat["inflow"].to_numpy() == pytest.approx(area)
    still = score_move(ones, ones, regions, shares=True)
    assert (still["inflow"] == 0).all() and still["energy"].isna().all() and (still["auc"] == 0.5).all()


def test_shares_are_of_each_maps_own_sum_and_need_maps_without_negative_values():
    before, after = torch.tensor([[[1.0, 1.0], [1.0, 1.0]]]), torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    assert map_change(before, after, shares=True).tolist() == [[[0.75, -0.25], [-0.25, -0.25]]]
    assert map_change(before, after, shares=False).tolist() == [[[0.0, -1.0], [-1.0, -1.0]]]
    with pytest.raises(ValueError, match="shares=False"):
        map_change(before, -after, shares=True)
    with pytest.raises(ValueError, match="two maps"):
        map_change(before, after[:, :1], shares=False)


def test_the_table_of_scores_holds_transplant_control_and_what_lies_between_them():
    rng = torch.Generator().manual_seed(4)
    regions = torch.rand(3, 8, 8, generator=rng) < 0.3
    maps = [{name: torch.rand(3, 8, 8, generator=rng) for name in ("one", "two")} for _ in range(3)]
    table = pd.DataFrame({"target": [5, 6, 7]}, index=[9, 4, 2])
    scores = score_transplants(table, *maps, regions, shares={"two"})
    assert scores["method"].tolist() == ["one"] * 3 + ["two"] * 3 and scores["target"].tolist() == [5, 6, 7] * 2
    before, after, control = (m["two"] for m in maps)
    own, seam, beyond = (
        score_move(a, b, regions, shares=True) for a, b in ((before, after), (before, control), (control, after))
    )
    second = scores[scores["method"] == "two"].reset_index(drop=True)
    pd.testing.assert_frame_equal(second[["inflow", "auc"]], own[["inflow", "auc"]])
    assert second["seam_inflow"].tolist() == seam["inflow"].tolist()
    assert second["seam_auc"].tolist() == seam["auc"].tolist()
    pd.testing.assert_frame_equal(second[["energy", "pointing"]], beyond[["energy", "pointing"]])


def test_two_changes_that_know_nothing_of_the_part():
    priors = prior_changes(torch.zeros(2, 5, 9, dtype=torch.bool))
    assert (priors["uniform"] == 1).all() and priors["centre"].shape == (2, 5, 9)
    assert priors["centre"][1].argmax() == 2 * 9 + 4 and priors["centre"][0, 0, 0] == pytest.approx(np.exp(-4))


def test_the_rows_leave_the_control_out_where_a_change_cannot_differ():
    moves = ("inflow", "auc", "energy", "pointing", "seam_inflow", "seam_auc")
    scores = {("stranger", name, score): Interval(0.5, 0.25, 0.75) for name in ("sdd", "uniform") for score in moves}
    above = {("stranger", "sdd", score): Interval(0.1, 0.0, 0.2) for score in ("inflow", "auc")}
    sdd, uniform = move_rows(scores, above, "stranger", {"sdd": "SDD", "uniform": "the same everywhere"})
    assert sdd["AUC"] == sdd["AUC, control"] == uniform["AUC"] == "0.50" and uniform["AUC, control"] == ""
    assert sdd["AUC, difference"] == above["stranger", "sdd", "auc"] and uniform["AUC, difference"] == ""
    assert sdd["energy"] == scores["stranger", "sdd", "energy"]


def test_all_maps_of_a_pair_stand_under_their_names(model, pictures):
    images, classes = (255 * pictures[:3]).byte(), torch.tensor([[1, 0], [2, 1], [0, 2]])
    maps = compared_maps(model, images, classes, batch_size=2)
    assert list(maps) == list(CONTRAST) and all(found.shape == (3, 112, 112) for found in maps.values())
    torch.testing.assert_close(maps["exp_cam"].log(), maps["cam"] - maps["cam"].amax(dim=(1, 2), keepdim=True))

"""Ground truth on made faces: the exchange changes what it says, scores equal naive loops, the truth scores best."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TinyBackbone
from scipy import stats
from torch import Tensor

from madefaces.people import DIFFERING, GENES, PARTS, make_families, part_differs, render, swap_parts
from studies.ground_truth import (
    PartImportance,
    area_map,
    hill_map,
    mean_scores,
    oracle_map,
    part_importance,
    score_maps,
    uniform_map,
)
from studies.pair_maps import contrast_maps
from studies.part_scores import (
    attainable_correlation,
    concordance,
    energy_in,
    part_density,
    part_mass,
    precision_at,
    rank_correlation,
)
from xfrlib import Divergence, FaceClassifier, explain, top_fraction_mask

PEOPLE = make_families(5, 2, seed=0)
TARGETS, SEEDS = [0, 2, 5, 6, 8, 9], [3, 4, 5, 6, 7, 8]
RIVALS = [[1, 4], [3, 9], [4, 0], [7, 2], [9, 5], [8, 1]]  # the other of the family, and a stranger


@pytest.fixture(scope="module")
def model() -> FaceClassifier:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        backbone = TinyBackbone()
    model = FaceClassifier(backbone, len(PEOPLE), seed=1)
    model.head.weight.data *= 50
    return model.eval()


@pytest.fixture(scope="module")
def truth(model: FaceClassifier) -> PartImportance:
    return part_importance(model, PEOPLE, TARGETS, RIVALS, SEEDS, batch_size=7, progress=False)


def naive_odds(model: FaceClassifier, person, seed: int, target: int, rival: int) -> tuple[float, np.ndarray]:
    image, mask = render([person], [seed])
    with torch.no_grad():
        p = model(torch.from_numpy(image).permute(0, 3, 1, 2) / 255).double().softmax(dim=1)[0]
    return float((p[target] / p[rival]).log()), mask[0]


def test_the_truth_equals_a_naive_loop_over_every_picture_rival_and_part(model, truth):
    rows = iter(truth.table.itertuples())
    for i, (t, row, seed) in enumerate(zip(TARGETS, RIVALS, SEEDS, strict=True)):
        for r, c in enumerate(row):
            before, own = naive_odds(model, PEOPLE[t], seed, t, c)
            for p, part in enumerate(DIFFERING):
                after, other = naive_odds(model, swap_parts(PEOPLE[t], PEOPLE[c], [part]), seed, t, c)
                mask = (own == PARTS.index(part)) | (other == PARTS.index(part))
                found, case = next(rows), 2 * i + r
                assert (found.picture, found.seed, found.target, found.rival, found.part) == (i, seed, t, c, part)
                assert found.kind == ("family" if r == 0 else "stranger")
                assert found.before == pytest.approx(before, abs=1e-4)
                assert found.after == pytest.approx(after, abs=1e-4)
                assert found.importance == float(truth.importance[case, p]) == found.before - found.after
                assert np.array_equal(truth.masks[case, p].numpy(), mask) and found.area == mask.sum()
                assert truth.pictures[case] == i and truth.classes[case].tolist() == [t, c]
    assert next(rows, None) is None


def test_parts_that_do_not_differ_leave_the_picture_as_it_is_and_have_importance_zero(truth):
    table = truth.table
    equal = table[~table.differs]
    assert len(equal) > 20 and (equal.importance == 0).all()
    for row in equal.itertuples():
        t, c = PEOPLE[row.target], PEOPLE[row.rival]
        pair = [render([who], [row.seed]) for who in (t, swap_parts(t, c, [row.part]))]
        assert np.array_equal(pair[0][0], pair[1][0]) and np.array_equal(pair[0][1], pair[1][1])
    family = table[(table.kind == "family") & table.differs]
    assert {(r.target, r.part) for r in family.itertuples()} <= {(t, p) for t in TARGETS for p in PEOPLE[t].differs}
    assert (table[table.differs].importance != 0).mean() > 0.9


def test_two_who_have_no_beard_do_not_differ_in_its_colour():
    genes = PEOPLE[0].genes
    bald = replace(PEOPLE[0], genes=genes | {"beard": (0.0, 0.1, 0.2, 0.3, 0.4)})
    other = replace(bald, genes=genes | {"beard": (0.0, 0.9, 0.2, 0.3, 0.4)})
    bearded = replace(bald, genes=genes | {"beard": (1.0, 0.1, 0.2, 0.3, 0.4)})
    assert not part_differs(bald, other, "beard")
    assert part_differs(bald, bearded, "beard") and part_differs(bearded, bald, "beard")
    assert "head" in GENES and part_differs(PEOPLE[0], PEOPLE[4], "head")


def test_what_cannot_be_measured_is_refused_by_name(model):
    def measure(**changed):
        given = {"people": PEOPLE, "targets": [0], "rivals": [[1]], "seeds": [0], "progress": False} | changed
        return part_importance(model, **given)

    for changed, sentence in (
        ({"rivals": [[0]]}, "picture 0: 0 is its own rival"),
        ({"rivals": [[10]]}, "class 10 is not one of 10 people"),
        ({"rivals": [[]]}, "at least one"),
        ({"rivals": [[1], [1, 2]], "targets": [0, 3], "seeds": [0, 1]}, "same number of classes"),
        ({"seeds": [0, 1]}, "1 targets, 1 rows of rivals, 2 seeds"),
        ({"targets": [], "rivals": [], "seeds": []}, "0 targets"),
        ({"parts": ["chin"]}, "no genes for chin"),
        ({"parts": []}, "no part"),
        ({"people": PEOPLE[:5]}, "10 classes but there are 5 people"),
    ):
        with pytest.raises(ValueError, match=sentence):
            measure(**changed)
    model.train()
    try:
        with pytest.raises(ValueError, match="training mode"):
            measure()
    finally:
        model.eval()


# A map of 2 x 2 and two parts, the second of one pixel: positive values sum to 8, of which 6 and 2 lie in the parts.
HAND = torch.tensor([[[6.0, -4.0], [2.0, -1.0]]])
HAND_PARTS = torch.tensor([[[[True, True], [False, False]], [[False, False], [True, False]], [[False] * 2] * 2]])


def test_mass_density_and_energy_by_hand():
    assert part_mass(HAND, HAND_PARTS).tolist() == [[0.75, 0.25, 0.0]]
    assert part_density(HAND, HAND_PARTS)[0, :2].tolist() == [1.0, 2.0]  # a negative value lowers a density
    assert part_density(HAND, HAND_PARTS)[0, 2].isnan()
    assert energy_in(HAND, HAND_PARTS[:, 1]).tolist() == [0.25]
    assert part_mass(-HAND.abs(), HAND_PARTS).isnan().all() and energy_in(-HAND.abs(), HAND_PARTS[:, 0]).isnan().all()


def test_precision_by_hand_and_its_largest_value():
    maps = torch.arange(16.0).view(1, 4, 4)
    region = torch.zeros(1, 4, 4, dtype=torch.bool)
    region[0, 3, 3] = region[0, 3, 1] = region[0, 0, 0] = True
    for fraction, hits, best in ((0.25, 2 / 4, 3 / 4), (0.125, 1 / 2, 1.0), (0.5, 2 / 8, 3 / 8)):
        found = precision_at(maps, region, fraction)
        assert [x.item() for x in found] == [hits, best]
    tied = maps.clamp(max=12)  # the last four are equal: two of them taken hold one of the region's two, on average
    assert precision_at(tied, region, 0.125)[0].item() == 0.5
    assert precision_at(torch.ones(1, 4, 4), region, 0.25)[0].item() == pytest.approx(3 / 16)


def test_rank_measures_by_hand():
    valid = torch.ones(1, 4, dtype=torch.bool)
    truth = torch.tensor([[0.0, 0.0, 0.0, 5.0]])
    up, down, constant = (torch.tensor([row]) for row in ([1.0, 2, 3, 4], [4.0, 3, 2, 1], [2.0, 2, 2, 2]))
    # Ranks of the truth 2 2 2 4, of the map 1 2 3 4: covariance 3, squares 3 and 5.
    assert rank_correlation(up, truth, valid).item() == pytest.approx(3 / 15**0.5)
    assert attainable_correlation(truth, valid).item() == pytest.approx(3 / 15**0.5)
    assert rank_correlation(truth, truth, valid).item() == pytest.approx(1)
    assert rank_correlation(constant, truth, valid).isnan() and rank_correlation(truth, constant, valid).isnan()
    assert [concordance(x, truth, valid).item() for x in (up, down, constant)] == [1, -1, 0]
    assert concordance(truth, constant, valid).isnan()
    hole = torch.tensor([[1.0, 2, 3, torch.nan]])
    assert rank_correlation(hole, truth, valid).isnan() and concordance(hole, truth, valid).isnan()
    assert rank_correlation(hole, up, valid & ~hole.isnan()).item() == pytest.approx(1)
    eight = torch.zeros(1, 8).index_fill(1, torch.tensor([2]), 1.0)
    assert attainable_correlation(eight, eight >= 0).item() == pytest.approx(0.577, abs=1e-3)


def test_scores_equal_naive_loops():
    rng = torch.Generator().manual_seed(0)
    maps = torch.randn(8, 12, 12, generator=rng)
    masks = torch.rand(8, 7, 12, 12, generator=rng) < 0.2
    masks[2, 3] = False
    truth = torch.randn(8, 7, generator=rng).round()  # with ties
    valid = masks.any(-1).any(-1)
    mass, density = part_mass(maps, masks), part_density(maps, masks)
    rho, d = rank_correlation(mass, truth, valid), concordance(mass, truth, valid)
    energy, (precision, best) = energy_in(maps, masks[:, 0]), precision_at(maps, masks[:, 0], 0.2)
    top = top_fraction_mask(maps, 0.2)
    for b in range(8):
        positive = maps[b].double().clamp(min=0)
        for p in range(7):
            inside = masks[b, p]
            assert mass[b, p].item() == pytest.approx(float(positive[inside].sum() / positive.sum()))
            if inside.any():
                assert density[b, p].item() == pytest.approx(float(maps[b][inside].double().mean()))
        own, other = mass[b][valid[b]].numpy(), truth[b][valid[b]].numpy()
        assert rho[b].item() == pytest.approx(stats.spearmanr(own, other).statistic)
        pairs = [(i, j) for i in range(len(own)) for j in range(i) if other[i] != other[j]]
        order = [np.sign(own[i] - own[j]) * np.sign(other[i] - other[j]) for i, j in pairs]
        assert d[b].item() == pytest.approx(np.mean(order))
        assert energy[b] == mass[b, 0]
        assert precision[b].item() == pytest.approx(float(masks[b, 0][top[b]].double().mean()))
        assert best[b].item() == min(1, float(masks[b, 0].sum()) / int(top[b].sum()))


def test_bad_maps_are_named():
    masks = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"\(2, 7, 7\) do not fit masks"):
        part_mass(torch.zeros(2, 7, 7), masks)
    maps = torch.zeros(2, 4, 4)
    maps[1, 0, 0] = torch.inf
    with pytest.raises(ValueError, match="sample 1"):
        precision_at(maps, masks[:, 0], 0.2)


def random_maps(truth: PartImportance, draws: int) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return {f"random {k}": torch.rand(len(truth.masks), 112, 112, generator=rng) for k in range(draws)}


@pytest.fixture(scope="module")
def scores(truth: PartImportance):
    maps = {
        "uniform": uniform_map(truth),
        "centre": hill_map(truth),
        "area": area_map(truth),
        "oracle": oracle_map(truth),
        "oracle, density": oracle_map(truth, per_pixel=True),
    }
    return score_maps(maps | random_maps(truth, 20), truth)


def test_the_oracle_scores_at_the_top(truth, scores):
    means = scores.groupby("method").mean(numeric_only=True)
    others = means.drop(["oracle", "oracle, density"])
    assert means.loc["oracle", "spearman_mass"] > 0.8 and means.loc["oracle, density", "spearman_density"] > 0.9
    for column, method in (("mass", "oracle"), ("density", "oracle, density")):
        for name in (f"spearman_{column}", f"concordance_{column}"):
            assert means.loc[method, name] > others[name].max() + 0.3
    # Of differing parts only: every positive value lies in the region, and it wins each pixel that it can.
    helpful = (truth.importance > 0).logical_or(~truth.differs).all(dim=1).numpy()
    best = scores[(scores.method == "oracle") & np.tile(helpful, len(scores) // len(helpful))]
    assert len(best) >= 2 and (best.energy == 1).all()
    for share in ("05", "10", "20"):
        few = best[best[f"precision_{share}_attainable"] == 1]
        assert (few[f"precision_{share}"] == 1).all()
        assert means.loc["oracle", f"precision_{share}"] > others.loc["uniform", f"precision_{share}"]


def test_without_overlap_the_oracle_is_perfect(truth):
    claimed = truth.masks.cumsum(dim=1) == 1
    apart = truth._replace(masks=truth.masks & claimed, importance=truth.importance.abs())
    scores = score_maps({"mass": oracle_map(apart), "density": oracle_map(apart, per_pixel=True)}, apart)
    for name in ("mass", "density"):
        own = scores[scores.method == name]
        assert own[f"spearman_{name}"].to_numpy() == pytest.approx(1)
        assert (own[f"concordance_{name}"] == 1).all()


def test_a_random_map_scores_at_chance(scores):
    drawn = scores[scores.method.str.startswith("random")]
    assert abs(drawn.spearman_density.mean()) < 0.06  # 240 cases of about 8 parts: a standard error of 0.024
    assert abs(drawn.concordance_density.mean()) < 0.06
    for column in ("energy", "precision_05", "precision_10", "precision_20"):
        assert drawn[column].mean() == pytest.approx(drawn.region.mean(), abs=0.005)


def test_priors_are_what_they_say(truth, scores):
    areas = truth.masks.sum(dim=(2, 3)).double()
    assert torch.allclose(part_mass(uniform_map(truth), truth.masks), areas / 112**2)
    uniform = scores[scores.method == "uniform"]
    assert uniform.spearman_density.isna().all() and (uniform.energy == uniform.region).all()
    assert uniform.precision_05.to_numpy() == pytest.approx(uniform.region.to_numpy())
    hill = hill_map(truth)[0]
    assert hill.argmax().item() in (55 * 112 + 55, 55 * 112 + 56) and hill[0, 0] < hill[55, 0] < hill[55, 27] < 1
    assert torch.equal(hill, hill.flip(0)) and torch.equal(hill, hill.T)


def test_the_table_has_a_row_for_each_case_and_method_and_counts_what_has_no_score(truth, scores):
    assert len(scores) == 12 * 25 and not scores.duplicated(["picture", "rival", "method"]).any()
    first = scores.iloc[:12]
    assert first[["target", "rival"]].to_numpy().tolist() == truth.classes.tolist()
    means = mean_scores(scores)
    assert means.loc[("family", "uniform"), ("undefined", "spearman_density")] == 6
    assert np.isnan(means.loc[("family", "uniform"), ("mean", "spearman_density")])
    assert means.loc[("stranger", "centre"), ("undefined", "spearman_density")] == 0
    by_hand = scores[(scores.kind == "family") & (scores.method == "centre")].energy.mean()
    assert means.loc[("family", "centre"), ("mean", "energy")] == pytest.approx(by_hand)
    with pytest.raises(ValueError, match="do not fit"):
        score_maps({"short": uniform_map(truth)[:5]}, truth)


def test_contrast_maps_are_those_of_explain(model, truth):
    sharp = Divergence(delta=2.0)
    maps = contrast_maps(model, truth.images, truth.classes, truth.pictures, batch_size=4, divergence=sharp)
    for case in (0, 5, 11):
        target, rival = truth.classes[case].tolist()
        image = truth.images[truth.pictures[case]][None] / 255
        e = explain(model, image, target=target, competitors=[[rival]], divergence=sharp)
        assert torch.allclose(maps["sdd"][case], e.sdd[0], atol=1e-5)
        assert torch.allclose(maps["log_sdd"][case], e.log_sdd[0], atol=1e-4)
        cams = e.upsampled_cams[0]
        assert torch.allclose(maps["cam"][case], cams[0], atol=1e-4)
        assert torch.allclose(maps["difference"][case], cams[0] - cams[1], atol=1e-4)

"""Masks, controls, deletion and retention: counted by hand, held to a naive loop, and the same however they are run."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torchvision.transforms.v2.functional import gaussian_blur

from studies.explainers_compared import clones, curve_areas, probability_curves
from studies.full_evaluation import drawn_random_map
from xfrlib import deletion_retention, explain, top_fraction_mask
from xfrlib.controls import CONTROLS, Draw, another_picture, box, control_masks, disc, random_map, shifted
from xfrlib.judge import blurred, evaluate, fill_picture, perturbed
from xfrlib.regions import pixel_count

SIZE = (112, 112)


def test_top_fraction_by_hand_with_ties_in_reading_order():
    maps = torch.tensor([[[0.0, 5.0], [5.0, 1.0]], [[2.0, 2.0], [2.0, 2.0]]])
    assert top_fraction_mask(maps, 0.5).tolist() == [[[False, True], [True, False]], [[True, True], [False, False]]]
    assert top_fraction_mask(maps, 0.25).tolist() == [[[False, True], [False, False]], [[True, False], [False, False]]]


def test_the_count_is_exact_even_for_a_map_that_is_zero_almost_everywhere():
    maps = torch.zeros(2, *SIZE)
    maps[0, 50:53, 50:53] = 1
    assert top_fraction_mask(maps).sum((1, 2)).tolist() == [2509, 2509]
    assert top_fraction_mask(maps)[0, 50:53, 50:53].all()


def test_nan_and_bad_fractions_are_named():
    maps = torch.zeros(2, 4, 4)
    for fraction in (0.0, 1.0, -0.1, 20):
        with pytest.raises(ValueError, match="fraction"):
            top_fraction_mask(maps, fraction)
    maps[1, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="sample 1"):
        top_fraction_mask(maps)


def test_the_random_map_that_is_drawn_is_the_one_whose_region_the_control_takes():
    for draw, picture in ((0, 0), (1, 3)):
        own, labels = np.zeros((4, *SIZE), dtype=bool), np.arange(4)
        mask = control_masks("random_map", draw, [picture], own=own, labels=labels, fraction=0.2, seed=5)
        values = drawn_random_map(picture, SIZE, seed=5, draw=draw)
        assert torch.equal(top_fraction_mask(values[None], 0.2), mask)


def test_clones_are_maps_of_the_same_regions_on_every_network():
    first, second = (torch.rand(4, 50, 50, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    one, two = (top_fraction_mask(maps).numpy() for maps in (first, second))  # 4 x 500 pixels each
    rounded, moved = one.copy(), one.copy()
    for number, changed in ((2, rounded), (3, moved)):  # of 2 000 pixels a thousandth is two
        inside, outside = np.argwhere(one)[:number], np.argwhere(~one)[:number]
        changed[tuple(inside.T)], changed[tuple(outside.T)] = False, True
    maps = {"a": one, "b": two, "like a": rounded, "nearly a": moved, "like b": two.copy()}
    assert clones([maps]) == {"like a": "a", "like b": "b"}
    assert clones([maps, maps | {"like a": two}]) == {"like b": "b"}  # alike on one network only
    assert clones([{"b": two, "like b": two, "third": two}]) == {"like b": "b", "third": "b"}


@pytest.fixture
def own():
    noise = torch.rand(6, *SIZE, generator=torch.Generator().manual_seed(0))
    return top_fraction_mask(noise).numpy()


LABELS = np.array([0, 0, 0, 1, 1, 1])


def one_draw(seed, own, picture, labels=LABELS):
    return Draw(np.random.default_rng(seed), picture, 2509, own, labels)


@pytest.mark.parametrize("name", CONTROLS)
def test_every_control_has_the_exact_count_and_depends_on_its_own_names_alone(own, name):
    def draw(number, indices, seed=0):
        return control_masks(name, number, indices, own=own, labels=LABELS, fraction=0.2, seed=seed)

    masks = draw(0, list(range(6)))
    assert masks.sum((1, 2)).tolist() == [2509] * 6
    assert torch.equal(draw(0, [4, 1]), masks[[4, 1]])  # neither order nor batch matters
    if name != "disc":
        assert not torch.equal(draw(1, list(range(6))), masks)
        assert not torch.equal(draw(0, list(range(6)), seed=1), masks)


def test_box_is_a_square_and_nine_pixels_beside_it():
    for seed in range(20):
        mask = box(one_draw(seed, np.zeros((1, *SIZE), dtype=bool), 0))
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert len(rows) == 50 and len(columns) == 51
        square = mask[rows[0] : rows[0] + 50, columns[0] : columns[0] + 50]
        assert square.all() and mask[:, columns[-1]].sum() == 9


def test_disc_is_the_nearest_to_the_middle_and_random_maps_are_blobs():
    mask = disc(2509, SIZE)
    y, x = np.nonzero(mask)
    radius = np.hypot(y - 55.5, x - 55.5).max()
    assert radius == pytest.approx(np.sqrt(2509 / np.pi), abs=0.5)
    blob = random_map(one_draw(0, mask[None], 0))
    inside = blob[1:-1, 1:-1] & blob[:-2, 1:-1] & blob[2:, 1:-1] & blob[1:-1, :-2] & blob[1:-1, 2:]
    assert inside.sum() > 0.7 * blob.sum()  # scattered pixels would have almost none


def test_shifted_moves_by_a_quarter_to_three_quarters():
    own = np.zeros((12, 20), dtype=bool)
    own[0, 0] = True
    places = [np.argwhere(shifted(one_draw(s, own[None], 0)))[0] for s in range(300)]
    assert set(np.array(places)[:, 0]) == set(range(3, 10)) and set(np.array(places)[:, 1]) == set(range(5, 16))


def test_another_identity_is_never_the_same_one(own):
    for seed in range(50):
        mask = another_picture(one_draw(seed, own, 2), same=False)
        assert any(np.array_equal(mask, own[i]) for i in (3, 4, 5))
    with pytest.raises(ValueError, match="one identity"):
        another_picture(one_draw(0, own, 2, np.zeros(6, dtype=int)), same=False)


def test_another_picture_is_of_the_same_identity_and_never_the_same_picture(own):
    drawn = [another_picture(one_draw(seed, own, 2), same=True) for seed in range(50)]
    assert {next(i for i in range(6) if np.array_equal(mask, own[i])) for mask in drawn} == {0, 1}
    with pytest.raises(ValueError, match="picture 0 is the only one of its identity"):
        another_picture(one_draw(0, own, 0, np.arange(6)), same=True)


def test_fills_by_hand():
    images = torch.tensor([0.2, 0.4, 0.9]).view(1, 3, 1, 1).expand(1, 3, 24, 24)
    assert (fill_picture(images, "black") == 0).all() and (fill_picture(images, "grey") == 0.5).all()
    assert fill_picture(images, "mean", mean=torch.tensor([0.1, 0.2, 0.3]))[0, :, 5, 5].tolist() == pytest.approx(
        [0.1, 0.2, 0.3]
    )
    torch.testing.assert_close(fill_picture(images, "blur"), images)  # a flat picture stays as it is
    with pytest.raises(ValueError, match="mean colour"):
        fill_picture(images, "mean")
    with pytest.raises(ValueError, match="fill = 'pink': use one of black"):
        fill_picture(images, "pink")


def test_blurring_one_axis_after_the_other_is_torchvisions_blur():
    images = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(blurred(images, 4.0), gaussian_blur(images, kernel_size=[17, 17], sigma=[4.0, 4.0]))


def test_linear_infill_keeps_a_ramp_and_what_is_not_removed():
    ramp = torch.linspace(0.2, 0.8, 12).expand(1, 3, 12, 12).clone()
    removed = torch.zeros(1, 12, 12, dtype=torch.bool)
    removed[0, 4:8, 4:8] = True
    filled = perturbed(ramp, removed, "linear")
    assert torch.equal(filled[:, :, ~removed[0]], ramp[:, :, ~removed[0]])
    assert (filled - ramp).abs().max() < 0.06  # the noise, and nothing else
    assert torch.equal(filled, perturbed(ramp, removed, "linear"))


class Sum(nn.Module):
    """Logits of a 2 x 2 picture that can be followed by hand: the left and the right column of its first channel."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.0))

    def forward(self, images):
        return self.factor * torch.stack([images[:, 0, :, 0].sum(1), images[:, 0, :, 1].sum(1)], dim=1)


def test_two_by_two_by_hand():
    images = torch.zeros(1, 3, 2, 2)
    images[0, 0] = torch.tensor([[1.0, 0.0], [0.5, 0.25]])  # logits 1.5 and 0.25: class 0
    mask = torch.tensor([[[True, False], [False, False]]])  # the pixel of value 1
    row = deletion_retention(Sum().eval(), images, mask).iloc[0]

    def p(margin):
        return 1 / (1 + np.exp(-margin))

    assert row["predicted"] == 0 and row["removed"] == 0.25
    assert row["probability"] == pytest.approx(p(1.25))
    assert row["deletion_probability"] == pytest.approx(p(0.25))  # logits 0.5 and 0.25
    assert row["retention_probability"] == pytest.approx(p(1.0))  # logits 1 and 0
    assert row["deletion_drop_points"] == pytest.approx(100 * (p(1.25) - p(0.25)))
    assert row["deletion_drop_relative"] == pytest.approx(100 * (1 - p(0.25) / p(1.25)))
    assert row["deletion_margin"] == pytest.approx(0.25) and row["margin"] == pytest.approx(1.25)
    assert row["deletion_margin_drop"] == pytest.approx(1.0) == row["deletion_lead_drop"]
    warm = deletion_retention(Sum().eval(), images, mask, temperature=2.0).iloc[0]
    assert warm["deletion_margin_drop"] == pytest.approx(0.5) and warm["probability"] == row["probability"]
    assert warm["deletion_calibrated_drop_points"] == pytest.approx(100 * (p(0.625) - p(0.125)))
    assert row["deletion_prediction_change"] == 0 and row["retention_prediction_change"] == 0
    both = torch.tensor([[[True, False], [True, False]]])
    row = deletion_retention(Sum().eval(), images, both).iloc[0]
    assert row["deletion_prediction_change"] == 100 and row["retention_prediction_change"] == 0


def test_a_fixed_pair_stays_the_pair():
    """Deletion makes another class the best rival: the margin asks about it, the pair does not."""

    class Three(torch.nn.Module):
        def forward(self, images):
            first, second = images[:, 0, 0, 0], images[:, 0, 0, 1]
            return torch.stack([3 * first, 2 * first, 5 * second - 1], dim=1)

    images = torch.zeros(1, 3, 1, 2)
    images[0, 0, 0] = torch.tensor([1.0, 0.4])  # logits 3, 2, 1
    mask = torch.tensor([[[True, False]]])  # deleted: 0, 0, 1; retained alone: 3, 2, -1
    model = Three().eval()
    row = deletion_retention(model, images, mask).iloc[0]
    assert row["deletion_lead_drop"] == pytest.approx(1) and row["deletion_margin_drop"] == pytest.approx(2)
    both = deletion_retention(model, images, mask, pairs=torch.tensor([[0, 2, 1]]), temperature=2.0).iloc[0]
    assert both["deletion_lead_drop_1"] == pytest.approx(1.5) and both["deletion_lead_drop_2"] == pytest.approx(0.5)
    assert both["deletion_lead_drop"] == pytest.approx(1.0) and both["retention_lead_drop_1"] == pytest.approx(-1)


def test_bad_masks_and_a_model_in_training_mode_are_named(classifier, images):
    with pytest.raises(ValueError, match=r"masks must be bool \(5, 16, 16\), got torch.float32"):
        deletion_retention(classifier, images, torch.ones(5, 16, 16))
    with pytest.raises(ValueError, match="masks must be bool"):
        deletion_retention(classifier, images, torch.ones(5, 8, 8, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"call model.eval\(\) first"):
        deletion_retention(classifier.train(), images, torch.ones(5, 16, 16, dtype=torch.bool))


@pytest.fixture
def evaluation(classifier):
    images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    explanation = explain(classifier, images)
    regions = {
        "sdd": top_fraction_mask(explanation.log_sdd).numpy(),
        "cam": top_fraction_mask(explanation.upsampled_cams[:, 0]).numpy(),
    }
    arguments = {"logits": explanation.logits, "fills": ("black", "grey"), "draws": 2, "seed": 3, "progress": False}
    return images, np.arange(8) % 3, regions, arguments


def test_the_table_equals_a_naive_loop(classifier, evaluation):
    images, labels, regions, arguments = evaluation
    pairs = torch.tensor([[i % 3, (i + 1) % 3, (i + 2) % 3] for i in range(8)])
    table = evaluate(classifier, images, labels, regions, batch_size=3, temperature=1.5, pairs=pairs, **arguments)
    rows = []

    def lead(z: torch.Tensor, c: int) -> float:
        return float(z[c] - max(z[k] for k in range(len(z)) if k != c))

    with torch.no_grad():
        for i in range(8):
            z = classifier(images[i : i + 1])[0]
            p, c = z.softmax(0), int(z.argmax())
            for method in [*regions, *CONTROLS]:
                for draw in range(1 if method in (*regions, "disc") else 2):
                    for fill, level in (("black", 0.0), ("grey", 0.5)):
                        if method in regions:
                            mask = torch.from_numpy(regions[method][i])
                        else:
                            mask = control_masks(
                                method, draw, [i], own=regions["sdd"], labels=labels, fraction=0.2, seed=3
                            )[0]
                        row = {"image": i, "method": method, "draw": draw, "fill": fill}
                        for kind, gone in (("deletion", mask), ("retention", ~mask)):
                            picture = images[i].clone()
                            picture[:, gone] = level
                            y = classifier(picture[None])[0]
                            q = y.softmax(0)
                            row[f"{kind}_drop_points"] = 100 * float(p[c] - q[c])
                            row[f"{kind}_drop_relative"] = 100 * float((p[c] - q[c]) / p[c])
                            row[f"{kind}_prediction_change"] = 100.0 * (int(q.argmax()) != c)
                            row[f"{kind}_margin"] = lead(y, c)
                            row[f"{kind}_margin_drop"] = (lead(z, c) - lead(y, c)) / 1.5
                            t, *rivals = pairs[i].tolist()
                            falls = [float((z[t] - z[r]) - (y[t] - y[r])) / 1.5 for r in rivals]
                            row[f"{kind}_lead_drop"] = sum(falls) / 2
                            row |= {f"{kind}_lead_drop_{n}": fall for n, fall in enumerate(falls, start=1)}
                            warm = (z / 1.5).softmax(0)[c] - (y / 1.5).softmax(0)[c]
                            row[f"{kind}_calibrated_drop_points"] = 100 * float(warm)
                        rows.append(row)
    keys = ["image", "method", "draw", "fill"]
    naive = pd.DataFrame(rows).sort_values(keys, ignore_index=True)
    fast = table.sort_values(keys, ignore_index=True)[naive.columns]
    pd.testing.assert_frame_equal(fast, naive, check_dtype=False, rtol=1e-4, atol=1e-3)
    assert (table["removed"] == pixel_count(0.2, (16, 16)) / 256).all()


def test_the_curves_equal_a_naive_loop_and_their_areas_a_sum_of_trapezia(classifier):
    """Four pictures, a map of noise and a control of two draws, black; the probability is calibrated with T = 1.5."""
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(7))
    maps = torch.rand(4, 16, 16, generator=torch.Generator().manual_seed(8))
    labels, shares = np.arange(4) % 2, (0.1, 0.5, 0.8)
    with torch.no_grad():
        logits = classifier(images)

        def percent(picture: torch.Tensor, i: int) -> float:
            z = classifier(picture[None])[0]
            return 100 * float((z.double() / 1.5).softmax(0)[logits[i].argmax()])

        naive: dict[str, dict[int, list[float]]] = {"deletion": {}, "insertion": {}}
        for i in range(4):
            ranked = sorted(range(256), key=lambda pixel: -float(maps[i].flatten()[pixel]))
            for kind, start in (("deletion", images[i]), ("insertion", torch.zeros(3, 16, 16))):
                naive[kind][i] = [percent(start, i)]
                for share in (*shares, 1.0):
                    picture = start.clone()
                    for pixel in ranked[: round(share * 256)]:
                        y, x = divmod(pixel, 16)
                        picture[:, y, x] = 0 if kind == "deletion" else images[i, :, y, x]
                    naive[kind][i].append(percent(picture, i))
    whole, blank = ([naive["deletion"][i][end] for i in range(4)] for end in (0, -1))
    table = pd.concat([
        evaluate(
            classifier, images, labels, {"noise": top_fraction_mask(maps, share).numpy()}, logits=logits, draws=2,
            fraction=share, controls=("scattered",), temperature=1.5, batch_size=3, progress=False,
        )
        for share in shares
    ])  # fmt: skip
    for kind, by_hand in naive.items():
        curves = probability_curves(table, whole, blank, kind=kind)
        assert list(curves.columns) == [0, *shares, 1] and len(curves) == 2 * 4
        np.testing.assert_allclose(curves.loc["noise"], list(by_hand.values()), atol=1e-3)
        # both draws of the control end where the map does
        np.testing.assert_allclose(curves.loc["scattered"][[0.0, 1.0]], curves.loc["noise"][[0.0, 1.0]])
        areas = curve_areas(curves)
        for i, (a, b, c, d, e) in by_hand.items():
            trapezia = 0.1 * (a + b) / 2 + 0.4 * (b + c) / 2 + 0.3 * (c + d) / 2 + 0.2 * (d + e) / 2
            assert areas.loc[i, "noise"] == pytest.approx(trapezia, abs=1e-3)
    assert not np.allclose(areas["noise"], areas["scattered"], atol=1e-2)
    with pytest.raises(ValueError, match=r"kind = 'retention'"):
        probability_curves(table, whole, blank, kind="retention")


def test_passes_are_the_stated_minimum(classifier, evaluation):
    images, labels, regions, arguments = evaluation
    passes = []
    classifier.backbone.register_forward_hook(lambda _, inputs, __: passes.append(len(inputs[0])))
    evaluate(classifier, images, labels, regions, batch_size=3, **arguments)
    drawn = [(name, draw) for name in CONTROLS for draw in range(1 if name == "disc" else 2)]
    of_maps = {"own": regions["sdd"], "labels": labels, "fraction": 0.2, "seed": 3}
    masks = [*regions.values(), *(control_masks(*one, list(range(8)), **of_maps).numpy() for one in drawn)]
    different = sum(len({mask[picture].tobytes() for mask in masks}) for picture in range(8))
    assert different < 8 * (2 + 6 * 2 + 1)  # two draws of a control may be one, and then share their passes
    assert sum(passes) == 2 * len(arguments["fills"]) * different


@pytest.mark.parametrize("name", ["labels", "logits", "cam"])
@pytest.mark.parametrize("rows", [7, 9])
def test_what_is_not_of_the_same_pictures_is_refused(classifier, evaluation, name, rows):
    """Rows too many would be those of other pictures, from some place on."""
    images, labels, regions, arguments = evaluation
    given = {"labels": labels, "logits": arguments.pop("logits"), **regions}
    given[name] = given[name][torch.arange(rows) % 8]
    labels, logits = given.pop("labels"), given.pop("logits")
    with pytest.raises(ValueError, match=f"must have 8 rows, one for each of the images, got .*'{name}': {rows}"):
        evaluate(classifier, images, labels, given, logits=logits, **arguments)


def test_only_the_controls_that_are_wanted_and_possible(classifier, evaluation):
    images, _, regions, arguments = evaluation
    alone = np.arange(8) // 1  # one picture of each person
    for labels, wanted, found in (
        (alone, ("same_identity", "disc"), {"disc"}),
        (alone // 2, ("same_identity", "disc"), {"same_identity", "disc"}),
        (alone, (), set()),
    ):
        table = evaluate(classifier, images, labels, regions, controls=wanted, network=4, **arguments)
        assert set(table["method"]) == {*regions, *found} and set(table["network"]) == {4}


def test_batches_integers_and_an_interrupted_run_give_the_same_table(classifier, evaluation, tmp_path):
    images, labels, regions, arguments = evaluation
    images = (images * 255).round() / 255
    whole = evaluate(classifier, images, labels, regions, batch_size=8, **arguments)
    as_bytes = evaluate(classifier, (images * 255).round().byte(), labels, regions, batch_size=8, **arguments)
    pd.testing.assert_frame_equal(whole, as_bytes, rtol=1e-5, atol=1e-4)

    calls = 0

    def stop(*_):
        nonlocal calls
        calls += 1
        if calls > 60:
            raise KeyboardInterrupt

    handle = classifier.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        evaluate(classifier, images, labels, regions, batch_size=3, shards=tmp_path, **arguments)
    handle.remove()
    finished = sorted(p.name for p in tmp_path.iterdir())
    assert finished == ["0000000-3.parquet"]
    again = evaluate(classifier, images, labels, regions, batch_size=3, shards=tmp_path, **arguments)
    keys = ["image", "method", "draw", "fill"]
    pd.testing.assert_frame_equal(
        again.sort_values(keys, ignore_index=True), whole.sort_values(keys, ignore_index=True), rtol=1e-4, atol=1e-3
    )

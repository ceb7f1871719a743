"""Matching: a gallery asked as a classifier, error rates by hand, and maps of a pair held to what they should be."""

import json
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_match import draw, pictures
from torch import Tensor, nn

from facedata.align import TEMPLATE
from matching.faces import realigned, template_for
from matching.maps import match_maps
from recognisers import as_recogniser, load_recogniser
from studies import match_game, matching, transplant
from xfrlib import explain_match
from xfrlib.judge import blurred
from xfrlib.models import load_backbone
from xfrlib.profile import project_root
from xfrlib.run import NotebookRun, ParameterError


@pytest.fixture(scope="module")
def gallery() -> matching.TemplateGallery:
    return matching.TemplateGallery(load_recogniser("slim", "builtin"), F.normalize(draw(6, 160), dim=1)).eval()


def test_a_gallery_says_the_similarities_of_explain_match(gallery: matching.TemplateGallery) -> None:
    probes, templates = pictures(2, 112), gallery.get_buffer("templates")
    found = explain_match(load_recogniser("slim", "builtin"), probes, templates[0], templates[1:])
    with torch.no_grad():
        torch.testing.assert_close(gallery(probes), found.similarities, atol=1e-5, rtol=0)


def test_a_backbone_without_a_head_of_its_own_has_the_average_of_its_map() -> None:
    bare, headed = load_backbone("slim", "builtin"), load_backbone("mobilefacenet")
    assert as_recogniser(headed).embedding_layers == ("gdc", "fc", "bn")
    with torch.no_grad():
        f = bare(pictures(1, 112))
        torch.testing.assert_close(as_recogniser(bare).embed(f), f.mean((2, 3)))


def test_the_mate_comes_first_and_then_who_is_most_similar() -> None:
    similarities = torch.tensor([[0.9, 0.1, 0.5, 0.7], [0.2, 0.3, 0.8, 0.1]])
    assert matching.mate_first(similarities, np.array([1, 2]), 2).tolist() == [[1, 0, 3], [2, 1, 0]]


def test_error_rates_by_hand() -> None:
    """Mates .9 .8 .2, non-mates .1 .3 .4 .5 .25 .6: at a threshold of .8 a third is missed and none is let through,
    at .5 a third is missed and a third let through: the equal error rate."""
    similarities = torch.tensor([[0.9, 0.1, 0.3], [0.4, 0.8, 0.5], [0.25, 0.6, 0.2]])
    rates, threshold = matching.error_rates(similarities, np.arange(3), np.arange(3), false=0.5)
    assert rates.first.value == pytest.approx(2 / 3)
    assert threshold == pytest.approx(0.35) and rates.missed.value == pytest.approx(1 / 3)
    assert rates.equal_error.value == pytest.approx(1 / 3)
    assert rates.missed.low == 0 and rates.missed.high <= 1  # of three people the jackknife alone reaches below 0
    sure, _ = matching.error_rates(torch.eye(4) + 0.1, np.arange(4), np.arange(4))
    assert (sure.first.value, sure.equal_error.value, sure.missed.value) == (1, 0, 0)
    assert np.isnan(sure.equal_error.low)  # no spread is not certainty


def test_a_threshold_finds_mates_misses_them_and_lets_non_mates_through() -> None:
    similarities = torch.tensor([[0.9, 0.1, 0.3], [0.6, 0.8, 0.5], [0.25, 0.6, 0.2], [0.5, 0.1, 0.1]])
    found = matching.decision_of_each(similarities, np.array([0, 1, 2, 0]), 0.5)
    assert found.tolist() == ["mate found alone", "a non-mate found too", "mate missed", "mate found alone"]


def test_a_recogniser_is_chosen_by_name_and_refused_for_whom_it_has_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    quick, learnt = NotebookRun("09_matching", "quick"), NotebookRun("09_matching", "facescrub12")
    assert matching.choose(quick, "", "").name == "slim"
    assert matching.choose(quick, "slim", "").checkpoint_sha256 is not None
    for run, name, checkpoint, said in (
        (learnt, "dlib", "", "has learnt people of facescrub12; judge it on others"),
        (quick, "dlip", "", "unknown recogniser_name = 'dlip'; did you mean 'dlib'?"),
        (quick, "faceres", "", "give its weights as recogniser_checkpoint"),
        (quick, "faceres", "nowhere", "There is no checkpoint of 'faceres'"),
    ):
        with pytest.raises(ParameterError, match=re.escape(said)):
            matching.choose(run, name, checkpoint)
    places: list[object] = []
    monkeypatch.setattr(matching, "load_recogniser", lambda _, place: places.append(place) or torch.nn.Identity())
    for checkpoint in ("hub:someone/weights", "builtin", "weights/some.safetensors"):
        matching.choose(quick, "ir_18", checkpoint)
    assert places == ["hub:someone/weights", "builtin", quick.data_root / "weights/some.safetensors"]


def test_realigned_pictures_have_eyes_nose_and_mouth_where_a_recogniser_wants_them() -> None:
    """A bright square at each of the five points is found again at the other template, and nowhere else."""
    image = torch.zeros(1, 3, 112, 112)
    for x, y in TEMPLATE.round().astype(int):
        image[:, :, y - 1 : y + 2, x - 1 : x + 2] = 1
    for name in ("dlib", "faceres"):
        recogniser = load_recogniser(name)
        found, template = realigned(image, recogniser), template_for(recogniser)
        assert found.shape == (1, 3, recogniser.size, recogniser.size)
        rows, columns = np.mgrid[: recogniser.size, : recogniser.size]
        near = np.stack([np.hypot(columns - x, rows - y) < 8 for x, y in template])
        bright = found[0].mean(0).numpy()
        for one, (x, y) in zip(near, template, strict=True):
            weight = bright * one
            centre = (weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()
            np.testing.assert_allclose(centre, (x, y), atol=1)
        assert float((bright * ~near.any(0)).max()) < 0.1
    slim = load_recogniser("slim", "builtin")
    assert realigned(image, slim) is image
    with pytest.raises(ValueError, match=r"give aligned pictures, \(B, 3, 112, 112\)"):
        realigned(torch.zeros(1, 3, 150, 150), slim)


def test_a_recogniser_of_four_cells_has_maps_of_an_earlier_block() -> None:
    """Each is that of the report for the same pair; similarities stay those of the last map."""
    dlib = load_recogniser("dlib", seed=1)
    probes, templates = pictures(2, 150), F.normalize(draw(2, 4, 128), dim=2)
    found = matching.lay_maps(dlib, probes, templates)
    assert found.cams.shape == (2, 4, 150, 150) and found.log_sdd.shape == (2, 150, 150)
    alone = match_maps(dlib, probes[1], templates[1, 0], templates[1, 1:])
    assert alone.layer == "blocks.9"
    torch.testing.assert_close(found.cams[1], alone.laid())
    torch.testing.assert_close(found.log_sdd[1], alone.log_sdd)
    exact = explain_match(dlib, probes, templates[:, 0], templates[:, 1:])
    torch.testing.assert_close(found.similarities, exact.similarities)


def test_the_passes_of_a_map_are_those_announced() -> None:
    """Counted in pictures that go through the last map."""
    gallery = matching.TemplateGallery(load_recogniser("slim"), F.normalize(draw(1, 5, 160)[0], dim=1)).eval()
    count = 0

    def note(_: nn.Module, given: tuple[Tensor, ...], __: Tensor) -> None:
        nonlocal count
        count += len(given[0])

    probe, pair = pictures(1, 112), torch.tensor([[0, 1, 2, 3, 4]])
    announced = matching.passes_by_method("", 4, 9)
    explain_match(gallery.recogniser, probe, gallery.get_buffer("templates")[:1])  # finds once where cells look
    with gallery.recogniser.register_forward_hook(note):
        for name, work in {
            "sdd": lambda: matching.lay_maps(gallery.recogniser, probe, gallery.get_buffer("templates")[pair]),
            "gradient": lambda: matching.gradient_of_lead(gallery, probe, pair),
            "corr_rise": lambda: matching._corr_rise(gallery, probe[0], pair[0], 9, 0, 4),
        }.items():
            count = 0
            work()
            assert announced[name].split(",")[0] == str(count), name
    assert matching.passes_by_method("blocks.9", 4, 9)["difference"] == "14, 24 back"


class Sums(nn.Module):
    """Its embedding is the sum of the left and of the right half of the picture's red, on a map of 8 x 8."""

    size = 16

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2)

    def forward(self, images: Tensor) -> Tensor:
        return self.pool(images[:, :1])

    def embed(self, feature_map: Tensor) -> Tensor:
        return torch.stack([half.sum(dim=(1, 2, 3)) for half in feature_map.split(4, dim=3)], dim=1)


def test_every_map_of_a_pair_finds_the_side_that_tells_two_people_apart() -> None:
    """The mate's template is all left, that of the non-mate all right; the others lie between."""
    angles = torch.tensor([0.0, 90, 30, 60]).deg2rad()
    gallery = matching.TemplateGallery(Sums(), torch.stack([angles.cos(), angles.sin()], dim=1)).eval()
    probes = 0.5 + 0.5 * torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([[0, 1, 2, 3]]).expand(2, -1)
    found = matching.maps_by_method(gallery, probes, classes, batch_size=2, masks=200, seed=0, progress=False)
    assert list(found) == list(matching.MATCH_MAPS) and {tuple(one.shape) for one in found.values()} == {(2, 16, 16)}
    for name in ("difference", "cam", "sdd", "corr_rise"):
        left, right = (half.mean(dim=(1, 2)) for half in found[name].split(8, dim=2))
        assert (left > right).all(), name
    torch.testing.assert_close(found["difference"].mean(dim=(1, 2)), _leads(gallery, probes), atol=0.05, rtol=0)


def _leads(gallery: matching.TemplateGallery, probes: Tensor) -> Tensor:
    with torch.no_grad():
        similarities = gallery(probes)
    return similarities[:, 0] - similarities[:, 1]


def test_the_gradient_of_the_lead_is_that_of_its_difference_quotient(gallery: matching.TemplateGallery) -> None:
    """The map is smoothed, so that its sum is that of the absolute gradient but for what the border keeps."""
    probe, pair = pictures(1, 112), torch.tensor([[0, 1]])
    exact = probe.clone().requires_grad_()
    similarities = gallery(exact)
    (gradient,) = torch.autograd.grad(similarities[0, 0] - similarities[0, 1], exact)
    found = matching.gradient_of_lead(gallery, probe, pair)
    assert found.shape == (1, 112, 112) and bool((found >= 0).all())
    assert float(found.sum()) == pytest.approx(float(gradient.abs().sum()), rel=0.05)


def test_feature_guided_gradients_are_their_formula_and_sum_to_the_lead() -> None:
    """The embedding's two numbers are sums over halves: each gradient is flat over its half."""
    gallery = matching.TemplateGallery(Sums(), torch.tensor([[1.0, 0], [0, 1]])).eval()
    probes, pair = 0.5 + 0.5 * torch.rand(2, 3, 16, 16), torch.tensor([[0, 1]]).expand(2, -1)
    found = matching.feature_guided_gradients(gallery, probes, pair, progress=False)
    e = gallery.recogniser.embed(gallery.recogniser(probes))
    left, right = (e / e.norm(dim=1, keepdim=True)).T
    assert (found[:, 8, 2] / found[:, 8, 13] + left / right).abs().max() < 1e-3  # far from the border and the middle
    torch.testing.assert_close(found.sum(dim=(1, 2)), _leads(gallery, probes), atol=0.02, rtol=0)


def test_feature_guided_gradients_of_a_network_against_the_naive_loop(gallery: matching.TemplateGallery) -> None:
    probes, pairs = pictures(2, 112), torch.tensor([[0, 1], [3, 2]])
    found = matching.feature_guided_gradients(gallery, probes, pairs, progress=False)
    for probe, (mate, other), values in zip(probes, pairs, found, strict=True):
        image = probe[None].clone().requires_grad_()
        e, naive = gallery.recogniser.embed(gallery.recogniser(image))[0], torch.zeros(112, 112)
        g, h = gallery.get_buffer("templates")[torch.stack([mate, other])]
        for k in range(len(e)):
            (gradient,) = torch.autograd.grad(e[k], image, retain_graph=True)
            size = gradient.abs().sum(dim=(0, 1))
            naive += (e[k] / e.norm() * (g[k] - h[k])).detach() * size / size.sum()
        torch.testing.assert_close(values, blurred(naive[None, None], 4)[0, 0], atol=1e-7, rtol=1e-4)


class Nose(nn.Module):
    """Its embedding is the mean colour of the nose, and of nothing else."""

    size, name, input_mean, input_std = 112, "nose", 0.0, 1.0

    def forward(self, images: Tensor) -> Tensor:
        left, top, right, bottom = transplant.PART_BOXES["nose"]
        return images[:, :, top:bottom, left:right]

    def embed(self, feature_map: Tensor) -> Tensor:
        return feature_map.mean(dim=(2, 3))


def noses(pictures: int) -> Tensor:
    """Three people, each with a nose of one colour in a grey face, of another length in each picture."""
    faces = torch.full((3, pictures, 3, 112, 112), 0.5)
    for person, number in np.ndindex(3, pictures):
        faces[person, number, :, 64 : 75 - number, 48:64] = 0.1
        faces[person, number, person, 64 : 75 - number, 48:64] = 0.9
    return faces


def test_the_inpainting_game_of_a_recogniser_that_sees_the_nose_alone() -> None:
    """Two pictures of each person play, the third is the mate."""
    faces = noses(3)
    cases = transplant.choose_cases(np.repeat(np.arange(3), 2), torch.rand(6, 3), pictures=6)
    rounds = match_game.rounds_of(Nose(), faces[:, :2].flatten(0, 1), faces[:, 2], cases)
    of_nose = (rounds.cases["part"] == "nose").to_numpy()
    assert rounds.decided[torch.tensor(of_nose)].all()
    torch.testing.assert_close(rounds.templates[~of_nose, 0], rounds.templates[~of_nose, 1], atol=1e-2, rtol=0)

    played = rounds._replace(decided=torch.tensor(of_nose)).played()
    assert played.cases["part"].eq("nose").all()
    knows = played.regions.float()
    half = knows.clone()
    half[:, :, 56:] = 0  # knows the left half of the nose
    scores = match_game.game_scores(Nose(), played, {"knows": knows, "half": half, "opposite": -knows})
    mean = scores.groupby("method").mean(numeric_only=True)
    assert mean.loc["knows", ["area", "found 0.01", "turned 0.05"]].tolist() == [1, 1, 1]
    assert mean.loc["opposite", ["area", "found 0.05", "turned 0.05"]].tolist() == [0, 0, 0]
    left = float((half.sum(dim=(1, 2)) / knows.sum(dim=(1, 2)))[0])
    assert mean.loc["half", ["area", "found 0.05"]].tolist() == pytest.approx([(1 + left) / 2, left])
    assert len(scores) == 3 * len(played.cases) and set(scores.columns) >= {"kind", "part", "target", "rival"}


def test_what_came_of_the_inpainting_game() -> None:
    faces = noses(3)
    cases = transplant.choose_cases(np.repeat(np.arange(3), 2), torch.rand(6, 3), pictures=6, parts=["nose"])
    rounds = match_game.rounds_of(Nose(), faces[:, :2].flatten(0, 1), faces[:, 2], cases).played()
    others = F.normalize(torch.rand(len(rounds.cases), 2, 3), dim=2)
    maps, of_seam = match_game.game_maps(Nose(), rounds, others, masks=20, seed=0, fggb=7, progress=False)
    assert len(maps["fggb"]) == 7 and "sdd" not in maps
    assert set(of_seam) == {"difference", "gradient", "corr_rise", "fggb"} == set(maps) - {"cam", "wrong_pair", "parts"}
    assert maps["parts"][0, 70, 56] > 0.9 > 0.1 > maps["parts"][0, 5, 56]
    with torch.no_grad():  # the seam's map speaks for whomever the probe is nearer to
        assert (of_seam["difference"].mean(dim=(1, 2)) > 0).all() and (maps["difference"].mean(dim=(1, 2)) > 0).all()

    table, seams = (match_game.game_scores(Nose(), rounds, some) for some in (maps, of_seam))
    area = table.groupby("method")["area"].mean()
    assert area["difference"] > 0.9  # it looks at the nose alone
    found = match_game.game_result(table, seams, [0, 1, 2], tried=36)
    assert found[:4] == (36, len(rounds.cases), 3, 3) and found.by_part == {"nose": len(rounds.cases)}
    assert found.fggb_rounds == 7 and found.scores["difference", "area"].value == pytest.approx(area["difference"])
    assert found.area_minus["parts"].value == pytest.approx(area["difference"] - area["parts"])
    firsts = table.groupby("method")["area"].apply(lambda rows: rows.iloc[:7].mean())  # FGGB has seven rounds alone
    assert found.area_minus["fggb"].value == pytest.approx(firsts["difference"] - firsts["fggb"])
    above = area["gradient"] - seams.loc[seams["method"] == "gradient", "area"].mean()
    assert found.scores["gradient", "above seam"].value == pytest.approx(above)
    assert ("cam", "above seam") not in found.scores
    assert match_game.game_result(table[table["target"] == 0], seams, [0, 0, 0], tried=36).scores == {}
    assert len(match_game.game_figure(rounds, maps, {"difference": "the CAM difference"}).axes) == 3


def test_a_round_is_decided_only_if_the_owner_of_the_part_turns_it() -> None:
    """Where A's own other nose turns the decision too, nothing is learnt of whose nose it is."""
    faces = noses(4)
    cases = transplant.choose_cases([0, 0, 1, 2], torch.rand(4, 3), pictures=1, parts=["nose"])
    pictures = torch.cat([faces[0, :2], faces[1:, 0]])
    mates = faces[:, 2]
    assert match_game.rounds_of(Nose(), pictures, mates, cases).decided.all()
    pictures[int(cases["own"][0])] = faces[int(cases["rival"][0]), 3]  # a picture of A that looks like B
    assert not match_game.rounds_of(Nose(), pictures, mates, cases)[5][: len(cases) // 2].any()


def test_false_alarms_bound_what_a_map_may_mark_outside() -> None:
    """Of 100 x 112 unchanged pixels, 1 % are marked before the level; a map that ranks them first finds nothing."""
    rounds = match_game.rounds_of(
        Nose(), torch.rand(4, 3, 112, 112), torch.rand(3, 3, 112, 112),
        transplant.choose_cases([0, 0, 1, 2], torch.rand(4, 3), pictures=1),
    )  # fmt: skip
    values = torch.rand(len(rounds.cases), 112, 112)
    values[rounds.regions] = 0.97
    found = match_game.game_scores(Nose(), rounds, {"map": values})
    assert found["found 0.05"].eq(1).all() and found["found 0.01"].eq(0).all()


def test_published_results_of_all_recognisers_answer_the_same_questions() -> None:
    folder = project_root() / "results"
    files = [file for name in ("quick", "lfw", "facescrub12") for file in (folder / name).glob("matching*.json")]
    found = {file: json.loads(file.read_text(encoding="utf-8")) for file in files}
    assert len(found) == 5
    for file, values in found.items():
        assert set(values) == set(found[folder / "lfw" / "matching.json"]), file
        assert values["game"]["rounds"] > 0 and set(values["decisions"]) == set(matching.DECISIONS), file
        for method in ("difference", "fggb", "same_identity", "truth"):
            assert set(values["gain_over_disc"][method]) == {"black", "blur", "grey"}, (file, method)

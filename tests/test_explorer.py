"""The explorer without a browser: what it computes, that nothing is computed twice, and that its controls work."""

import base64
import io
import json
import os
import re
import shutil
import sys
from datetime import datetime
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image

pytest.importorskip("ipywidgets")

from xfrlib import FaceClassifier, deletion_retention, explain, scaled_directed_divergence, top_fraction_mask
from xfrlib.artifacts import commit
from xfrlib.cam import pooled_features
from xfrlib.data.faces import open_folder
from xfrlib.data.images import FaceImageError
from xfrlib.explorer import Calculator, Pictures, Settings, explorer
from xfrlib.explorer.panel import CROPPED
from xfrlib.explorer.tiles import Thumbnails
from xfrlib.explorer.views import common_colours, map_views, place_of_peak
from xfrlib.geometry import Geometry, upsampled
from xfrlib.look_alikes import look_alikes
from xfrlib.models.backbones import IResNet
from xfrlib.sdd import Divergence
from xfrlib.trust import should_show

DISC = 2  # passes of the disc that a region has to beat


class Faces(torch.utils.data.Dataset):
    """Two pictures of each of four people, of seven that the model knows."""

    def __init__(self):
        self.identities = [f"person_{i}" for i in range(7)]
        self.images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(5))
        rows = [{"label": i // 2, "path": f"person_{i // 2}/{i:03d}.png"} for i in range(8)]
        self.table = pd.DataFrame(rows)

    def __len__(self):
        return 8

    def __getitem__(self, row):
        return self.images[row], int(self.table["label"][row]), row


@pytest.fixture
def seen(classifier):
    """How many pictures have gone through the network: a list that grows by the size of each batch."""
    sizes = []
    pooled_features(classifier, torch.zeros(1, 3, 16, 16))  # finds once where the cells look, by a pass of its own
    classifier.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    return sizes


@pytest.fixture
def pictures(classifier, seen):
    return Pictures(classifier, Faces())


@pytest.fixture
def panel(classifier, seen, tmp_path):
    return explorer(classifier, Faces(), top_k=3, delta=0.5, folder=tmp_path)


def tile(panel, name, side=0):
    image = re.search(r"src='data:image/png;base64,(.+?)' alt='.+?' title='.+?'", panel.tiles[side].tiles[name].value)
    return base64.b64decode(image[1])


def encoded(size, kind="PNG", mode="RGB"):
    buffer = io.BytesIO()
    Image.new(mode, size, "grey").save(buffer, kind)
    return buffer.getvalue()


def upload(panel, name, content):
    file = {"name": name, "type": "", "size": len(content), "content": memoryview(content)}
    panel.upload.value = ({**file, "last_modified": datetime.now()},)


# --- pictures


def test_filters_agree_with_a_plain_loop(pictures, classifier):
    chances = classifier(pictures.dataset.images).softmax(dim=1).detach()
    labels, right, wrong = [i // 2 for i in range(8)], [], []
    for row in range(8):
        (right if int(chances[row].argmax()) == labels[row] else wrong).append(row)
    assert right and wrong  # else the next lines hold nothing
    assert pictures.matching(outcome="right") == right
    assert pictures.matching(outcome="wrong") == wrong
    middle = float(chances.amax(dim=1).median())
    sure = [row for row in range(8) if float(chances[row].max()) >= middle]
    assert pictures.matching(confidence=(middle - 1e-6, 1.0)) == sure
    assert pictures.matching(name="PERSON 2") == pictures.matching(name="person_2") == [4, 5]
    assert pictures.matching(name="007.png") == [7]
    assert pictures.matching(subject=1) == [2, 3]
    with pytest.raises(ValueError, match="no picture passes the filter name 'nobody'; 2 pass those before it"):
        pictures.matching(name="nobody", subject=1)
    with pytest.raises(ValueError, match="the filter probability 0% to 0%; 8 pass"):
        pictures.matching(confidence=(0, 0))
    with pytest.raises(ValueError, match="outcome = 'maybe': use one of all, right, wrong"):
        pictures.matching(outcome="maybe")


def test_a_filter_asks_the_network_once_about_each_picture(pictures, seen):
    said = []
    pictures.pooled(3)
    pictures.matching(name="person")
    assert sum(seen) == 2  # the first, and number 3: a name needs no network
    pictures.say = said.append
    pictures.matching(outcome="wrong")
    assert sum(seen) == 8
    assert said == ["looking for pictures: asking the network about every picture, 0 of 6 …"]
    pictures.matching(outcome="right", confidence=(0.1, 1.0))
    for row in range(8):
        pictures.pooled(row)
    assert sum(seen) == 8


def test_what_is_known_already_is_not_asked_for(classifier, seen):
    faces = Faces()
    pooled = pooled_features(classifier, faces.images)
    pictures = Pictures(classifier, faces, pooled)
    seen.clear()
    pictures.matching(outcome="right")
    assert torch.equal(pictures.pooled(5).features, pooled.features[5:6]) and not seen
    row = pictures.add("own.png", encoded((40, 40)))
    pictures.pooled(row)
    assert seen == [1]


def test_features_beyond_the_memory_are_made_again_but_predictions_stay(pictures, seen, monkeypatch):
    monkeypatch.setattr("xfrlib.explorer.pictures._MEMORY", 3 * pictures.pooled(0).features.numel() * 4)
    for row in range(8):
        pictures.pooled(row)
    assert len(pictures._features) == 3 and sum(seen) == 8
    pictures.predicted(0)
    assert sum(seen) == 8
    expected = pooled_features(pictures.model, pictures.dataset.images[:1])
    torch.testing.assert_close(pictures.pooled(0).features, expected.features)


def test_look_alikes_are_computed_once_for_each_target(pictures, seen, monkeypatch):
    with pytest.raises(ValueError, match="there is no picture of person 5 here"):
        pictures.look_alikes(5)
    assert sum(seen) == 1  # what cannot be answered asks nothing
    targets, pictures.say = [], (said := []).append
    monkeypatch.setattr(
        "xfrlib.explorer.pictures.look_alikes", lambda *given: targets.append(given[-1]) or look_alikes(*given)
    )
    first = pictures.look_alikes(1)
    assert list(first) == look_alikes(embeddings_of(pictures), pictures.labels, 1) and len(pictures.look_alikes(2)) == 3
    assert pictures.look_alikes(1) == first and targets == [1, 2]
    assert said == ["looking for look-alikes: asking the network about every picture, 0 of 7 …"] and sum(seen) == 8
    pictures.add("own.png", encoded((40, 40)))  # of nobody who is known: it changes nothing
    assert pictures.look_alikes(1) == first and sum(seen) == 8


def embeddings_of(pictures):
    features = pictures.model.features(pictures.dataset.images)
    return F.normalize(features.mean(dim=(2, 3)), dim=1).detach()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "bad.png: empty file"),
        (b"just text", "bad.png: not a picture of a known format"),
        (encoded((64, 64))[:60], "bad.png: "),
        (encoded((20, 64)), "bad.png: 20 x 64 pixels, at least 32 each way are needed"),
    ],
    ids=["empty", "text", "cut off", "small"],
)
def test_a_bad_upload_is_a_sentence_and_changes_nothing(panel, pictures, content, said):
    with pytest.raises(FaceImageError, match=said):
        pictures.add("bad.png", content)
    assert len(pictures) == 8
    before = tile(panel, "picture")
    upload(panel, "bad.png", content)
    assert f"Cannot do this: {said}" in panel.status.value
    assert tile(panel, "picture") == before and len(panel.pictures) == 8 and panel.upload.value == ()


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "LA"), ("JPEG", "L"), ("WEBP", "RGB"), ("GIF", "P")])
def test_an_own_picture_is_cut_to_the_shape_of_the_others(pictures, kind, mode):
    row = pictures.add("own", encoded((90, 50), kind, mode))
    assert row == 8 and pictures.image(row).shape == (3, 16, 16)
    assert pictures.person(row) == "unknown" and pictures.labels[row] == -1
    assert row in pictures.matching() and row not in pictures.matching(outcome="wrong")
    assert pictures.cropped == {row}


def test_a_folder_is_opened_with_its_people_or_with_the_models(tmp_path, classifier):
    for name in ("beta", "alpha", "stranger"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 40, 3), np.uint8)).save(
            tmp_path / name / "1.png"
        )
    (tmp_path / "alpha" / "broken.png").write_bytes(b"nothing")
    faces = open_folder(tmp_path)
    assert faces.identities == ["alpha", "beta", "stranger"] and len(faces) == 3
    with pytest.raises(ValueError, match="the model has 7 classes and the data set names 3: give identities"):
        explorer(classifier, tmp_path, size=112)
    with pytest.raises(ValueError, match="identities: 'beta' is the name of more than one class"):
        explorer(classifier, tmp_path, identities=["zeta", "beta", "beta", *"defg"], size=112)
    names = ["zeta", "beta", "alpha", *"defg"]
    with pytest.raises(ValueError, match="families has 2 entries for 7 classes"):
        explorer(classifier, tmp_path, identities=names, families=[0, 1], size=112)
    panel = explorer(classifier, str(tmp_path), identities=names, size=112)
    assert panel.pictures.labels == [2, 1, -1]
    assert [panel.pictures.person(row) for row in range(3)] == ["alpha", "beta", "stranger"]
    panel.picture.value = 2
    assert "who this is is not known" in panel.status.value
    assert panel.pictures.outcome(2) == "unknown"


def test_a_folder_is_opened_without_suffixes_and_names_that_no_table_takes(tmp_path):
    (tmp_path / "ann").mkdir()
    Image.new("RGB", (40, 40), "grey").save(tmp_path / "ann" / "4f3a", format="PNG")
    (tmp_path / "ann" / "README").write_text("no picture")
    if sys.platform == "linux":  # other systems refuse such a name
        shutil.copytree(os.fsencode(tmp_path / "ann"), os.fsencode(tmp_path) + b"/J\xf6rg")
    faces = open_folder(tmp_path)
    assert faces.identities == ["ann"] and faces.table["path"].tolist() == ["ann/4f3a"]


@pytest.fixture
def folder(tmp_path):
    """A folder of one person with one picture."""
    (tmp_path / "faces" / "person").mkdir(parents=True)
    Image.new("RGB", (250, 250), "grey").save(tmp_path / "faces" / "person" / "1.png")
    return tmp_path / "faces"


@pytest.mark.parametrize(("given", "told", "side"), [({}, 96, 96), ({"size": 64}, 96, 64), ({"size": 48}, None, 48)])
def test_pictures_of_a_folder_have_the_size_that_the_network_was_made_for(folder, classifier, given, told, side):
    if told:  # as networks of timm have it
        classifier.backbone.pretrained_cfg = {"input_size": (3, told, told)}
    panel = explorer(classifier, folder, identities=["person", *"abcdef"], **given)
    assert panel.pictures.size == (side, side)


def test_a_backbone_of_ours_says_its_size(folder):
    model = FaceClassifier(IResNet("tiny", {4: 1, 6: 1}, embedding_size=3), 2).eval()
    assert explorer(model, folder, identities=["person", "other"]).pictures.size == (112, 112)


def test_a_foreign_network_that_says_no_size_is_fed_none_that_it_was_not_trained_on(folder, classifier):
    resnet = torchvision.models.resnet18(num_classes=2).eval()
    seen = []
    resnet.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape[2:])))
    for model in (resnet, classifier):
        with pytest.raises(ValueError, match=f"{type(model).__name__} does not say the size of its pictures: give"):
            explorer(model, folder, identities=["person", "other"])
    assert not seen
    panel = explorer(resnet, folder, identities=["person", "other"], size=224)
    upload(panel, "own.png", encoded((300, 260)))
    assert len(panel.pictures) == 2 and set(seen) == {(224, 224)}


@pytest.mark.parametrize("part", [lambda model: model, lambda model: model.backbone.layers])
def test_a_network_in_training_mode_is_refused_at_once(classifier, part):
    part(classifier).train()
    with pytest.raises(ValueError, match="in training mode"):
        explorer(classifier, Faces())


# --- maps and answers


@pytest.fixture
def calculator(pictures):
    return Calculator(pictures, temperature=2.0)


def test_maps_are_those_of_explain_and_answers_those_of_the_package(calculator, classifier):
    settings = Settings(top_k=4, delta=0.7, scale=3.0, form="product", fraction=0.3, fill="grey")
    image = calculator.pictures.dataset.images[2:3]
    maps = calculator.maps(2, settings)
    expected = explain(classifier, image, top_k=4, divergence=Divergence(0.7, 3.0, form="product"))
    torch.testing.assert_close(maps.explanation.sdd, expected.sdd)
    assert maps.classes == expected.classes[0].tolist()
    assert torch.equal(maps.mask, top_fraction_mask(expected.log_sdd, 0.3))
    answers = calculator.answers(maps)
    asked = torch.tensor([maps.classes])
    row = deletion_retention(classifier, image, maps.mask, fill="grey", temperature=2.0, pairs=asked).iloc[0]
    assert answers.measures == pytest.approx(row.to_dict(), rel=1e-5, abs=1e-5)
    for kind, removed in (("deletion", maps.mask), ("retention", ~maps.mask)):
        picture = torch.where(removed[:, None], torch.tensor(0.5), image)
        assert torch.equal(answers.pictures[kind], picture[0])
        chances = classifier(picture).softmax(dim=1)[0].double()
        torch.testing.assert_close(answers.chances[kind], chances, rtol=1e-5, atol=1e-6)
    verdict = should_show(classifier, image, maps.mask, fill="grey", temperature=2.0, pairs=asked)[0]
    assert answers.verdict.show == verdict.show and answers.verdict.deletion == pytest.approx(
        verdict.deletion, abs=1e-5
    )


def test_only_what_changed_is_computed(calculator, seen):
    def ask(**changes):
        before = sum(seen)
        calculator.answers(calculator.maps(1, Settings(form="product", **changes)))
        return sum(seen) - before

    calculator.pictures.pooled(1)
    assert ask() == 2 + DISC  # deletion and retention of the region, and of the disc that judges it
    assert ask(delta=3.0) == 0  # for "product" another delta is the same mask
    assert ask(fraction=0.5) == 2 + DISC
    assert ask() == ask(fraction=0.5) == 0
    assert ask(top_k=2) == 2  # another region; the disc is the same
    assert ask(target=(calculator.pictures.predicted(1)[0] + 1) % 7) == 2  # no verdict on another target
    calculator.pictures.model.train()
    with pytest.raises(ValueError, match="training mode"):
        ask(fraction=0.45)


def test_rivals_are_chosen_by_rule_or_by_hand(calculator):
    first, second, third = (label for label, _ in calculator.pictures.ranking(0)[:3])
    assert calculator.classes(0, Settings(top_k=3)) == [first, second, third]
    assert calculator.classes(0, Settings(top_k=2, target=second)) == [second, first]
    alike = Settings(top_k=3, rivals="look-alikes", target=1)
    assert calculator.classes(0, alike) == [1, *calculator.pictures.look_alikes(1)[:2]]
    assert calculator.maps(0, Settings(rivals="by hand", chosen=(third,))).classes == [first, third]
    for settings, said in (
        (Settings(rivals="by hand"), "no rival is chosen"),
        (Settings(top_k=9), "top_k = 9: must be between 2 and 7"),
        (Settings(rivals="by hand", chosen=(first,)), "without the target"),
    ):
        with pytest.raises(ValueError, match=said):
            calculator.maps(0, settings)
    with pytest.raises(ValueError, match="rivals = 'all': use one of most probable"):
        Settings(rivals="all")


def test_the_exponential_before_the_upsampling(calculator):
    before = calculator.maps(0, Settings(resolution="before", top_k=3))
    coarse = explain(calculator.pictures.model, calculator.pictures.image(0)[None], top_k=3)
    small = scaled_directed_divergence(coarse.cams)
    large = upsampled(small, (16, 16), coarse.geometry)
    torch.testing.assert_close(before.explanation.sdd.float(), large / large.max(), rtol=1e-4, atol=1e-6)
    assert not torch.equal(before.mask, calculator.maps(0, Settings(top_k=3)).mask)


def test_maps_lie_where_their_cells_look(calculator):
    maps = calculator.maps(0, Settings(top_k=3))
    assert maps.explanation.geometry == calculator.pictures.pooled(0).geometry == Geometry((4, 4), (0, 0))
    views = map_views(calculator.pictures, maps, "", *common_colours([maps]))
    for i, cam in enumerate(maps.explanation.cams[0]):
        torch.testing.assert_close(views[f"cam {i}"].over[0], upsampled(cam, (16, 16), Geometry((4, 4), (0, 0))))


@pytest.mark.parametrize(
    ("place", "words"), [((0, 0), "top left"), ((4, 4), "middle"), ((8, 4), "bottom middle"), ((4, 8), "middle right")]
)
def test_a_peak_is_told_in_words(place, words):
    values = torch.zeros(9, 9)
    values[place] = 1
    assert place_of_peak(values) == words


# --- the panel


def test_the_first_picture_is_explained_at_once(panel, classifier):
    expected = explain(classifier, panel.pictures.dataset.images[:1], top_k=3, divergence=Divergence(0.5))
    maps, answers = panel.shown[0]
    torch.testing.assert_close(maps.explanation.sdd, expected.sdd)
    assert set(panel.chosen.value) == set(expected.classes[0, 1:].tolist())
    names = ["picture", "sdd", "mask", "deletion", "retention", "cam 0", "cam 1", "cam 2"]
    assert list(panel.tiles[0].tiles) == names
    assert all(tile(panel, name).startswith(b"\x89PNG") for name in names)
    assert answers.measures["probability"] == pytest.approx(float(expected.probabilities[0, 0]), rel=1e-5)
    begins, _, why = answers.verdict.reason.partition(": ")
    says = f"✓ {begins}" if answers.verdict.show else begins.replace("Not shown", "✗ The rule would hold this map back")
    assert f"{says}: {why}" in panel.tiles[0].verdict.value, "a map that is seen is not called unseen"
    assert "Predicted: person" in panel.status.value


def test_a_slider_moves_the_map_and_only_another_mask_asks_the_network(panel, seen):
    panel.form.value = "product"
    before, calls, mask = tile(panel, "sdd"), sum(seen), tile(panel, "mask")
    panel.delta.value = 3.0
    assert tile(panel, "sdd") != before and tile(panel, "mask") == mask and sum(seen) == calls
    panel.fraction.value = 0.5
    assert tile(panel, "mask") != mask and sum(seen) == calls + 2 + DISC


def test_every_control_reaches_its_setting(panel):
    maps = {tile(panel, "sdd")}
    values = {
        "delta": 2.0, "scale_min": 5.0, "scale": 30.0, "form": "local_softmax", "resolution": "before", "top_k": 5,
        "rivals": "look-alikes", "target": 3,
    }  # fmt: skip
    for name, value in values.items():
        getattr(panel, name).value = value
        assert getattr(panel.sides[0], name) == value
        maps.add(tile(panel, "sdd"))
    assert len(maps) >= len(values)
    deleted = tile(panel, "deletion")
    panel.fill.value = "blur"
    assert tile(panel, "deletion") != deleted


def test_a_picture_goes_through_the_network_once(panel, seen):
    first = tile(panel, "picture")
    panel.picture.value = 1
    assert tile(panel, "picture") != first
    calls = sum(seen)
    panel.picture.value = 0
    assert tile(panel, "picture") == first and sum(seen) == calls


def test_a_subject_brings_its_pictures_and_a_thumbnail_chooses_one(panel):
    panel.subject.value = 2
    assert [row for _, row in panel.picture.options] == [4, 5] and panel.row == 4
    shown = [button for button in panel.thumbnails.buttons if button.layout.display != "none"]
    assert [button.tooltip.split(",")[0] for button in shown] == ["person 2: 004.png", "person 2: 005.png"]
    shown[1].click()
    assert panel.picture.value == panel.row == 5
    panel.outcome.value = "right"
    none = "no picture passes the filter predictions" in panel.status.value
    assert none or panel.rows == panel.pictures.matching(subject=2, outcome="right")


def test_thumbnails_come_in_pages(pictures):
    pressed = []
    thumbnails = Thumbnails(pictures, pressed.append)
    thumbnails.show(list(range(8)) * 4, 0)  # 32 places
    assert thumbnails.earlier.disabled and "1 to 12 of 32" in thumbnails.sheet.value
    for _ in range(2):
        thumbnails.later.click()
    assert thumbnails.later.disabled and "25 to 32 of 32" in thumbnails.sheet.value
    assert sum(button.layout.display != "none" for button in thumbnails.buttons) == 8
    thumbnails.buttons[3].click()
    assert pressed == [3]


def test_the_chosen_thumbnail_is_named(panel):
    panel.picture.value = 3
    shown = [button.tooltip for button in panel.thumbnails.buttons if button.layout.display != "none"]
    assert [title.split(",")[0] for title in shown if title.endswith(", chosen")] == ["person 1: 003.png"]


def test_what_look_alikes_cost_is_said_and_paid_once(panel, seen):
    said = []
    panel.status.observe(lambda change: said.append(change.new), "value")
    panel.rivals.value = "look-alikes"
    assert said[:3] == [
        "computing the maps …",
        "looking for look-alikes: asking the network about every picture, 0 of 7 …",
        "computing the maps …",
    ]
    said.clear()
    panel.delta.value = 3.0
    panel.picture.value = 5
    assert not [sentence for sentence in said if "every picture" in sentence]


def test_target_and_rivals_by_hand_until_another_picture(panel):
    first = panel.shown[0][0].classes[0]
    rival, other = (label for _, label in panel.chosen.options[-2:])
    panel.chosen.value = (rival, other)
    assert panel.rivals.value == "by hand" and panel.shown[0][0].classes == [first, rival, other]
    panel.target.value = rival
    assert panel.shown[0][0].classes == [rival, other]
    assert rival not in [label for _, label in panel.chosen.options]
    assert "No verdict" in panel.tiles[0].verdict.value
    panel.target.value = other
    assert panel.rivals.value == "most probable" and len(panel.shown[0][0].classes) == 3
    panel.picture.value = 3
    assert (
        panel.sides[0].target is None
        and panel.target.label.startswith("predicted")
        and panel.rivals.value == "most probable"
    )
    assert panel.shown[0][0].classes[0] == panel.pictures.predicted(3)[0]


def test_two_settings_side_by_side(panel):
    panel.compare.value = True
    assert len(panel._tiles.children) == 2 and tile(panel, "sdd", 0) == tile(panel, "sdd", 1)
    panel.delta.value = 5.0
    assert [side.delta for side in panel.sides] == [0.5, 5.0] and tile(panel, "sdd", 0) != tile(panel, "sdd", 1)
    panel.side.value = "A"
    assert panel.delta.value == 0.5
    panel.fraction.value = 0.4
    assert [side.fraction for side in panel.sides] == [0.4, 0.2]
    masks = [maps.mask for maps, _ in panel.shown]
    share = 100 * float((masks[0] & masks[1]).sum() / masks[0].sum())
    assert f"B&#x27;s mask covers {share:.0f}\u00a0% of A" in panel.status.value
    panel.side.value = "B"
    panel.compare.value = False
    assert len(panel._tiles.children) == 1 and panel.sides[0].delta == 5.0 == panel.delta.value


def test_an_own_picture_is_shown(panel):
    panel.subject.value = 1
    upload(panel, "me.jpg", encoded((64, 48), "JPEG"))
    assert panel.row == 8 == panel.picture.value and "own picture: me.jpg" in panel.status.value
    assert panel.subject.label == "everybody" and panel.upload.value == ()


def test_a_picture_of_another_size_is_said_to_be_cropped_and_not_aligned(classifier, tmp_path):
    (tmp_path / "alpha").mkdir()
    pixels = np.random.default_rng(1).integers(0, 255, (40, 40, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "alpha" / "1.png")
    panel = explorer(classifier, tmp_path, identities=["alpha", *"bcdefg"], size=112)
    assert "aligned" not in panel.status.value
    upload(panel, "me.jpg", encoded((64, 48), "JPEG"))
    assert escape(CROPPED) in panel.status.value
    upload(panel, "ready.png", encoded((112, 112)))  # the size that the folder is read at
    assert "own picture: ready.png" in panel.status.value and "aligned" not in panel.status.value
    how_to = Path(__file__).resolve().parents[1] / "book" / "how_to" / "own_faces.md"
    assert f"{CROPPED.partition('run: ')[2]}\n" in how_to.read_text(encoding="utf-8")


def test_a_status_is_text_for_the_element_that_stays(panel):
    assert "xfr-status" in panel.status._dom_classes and "<" not in panel.status.value
    panel.name.value = "nobody of that name"
    assert "no picture passes" in panel.status.value and "<" not in panel.status.value


def test_errors_are_sentences_and_go_away(panel):
    chosen = panel.chosen.value
    panel.chosen.value = ()
    assert "no rival is chosen" in panel.status.value
    panel.chosen.value = chosen
    assert "Cannot" not in panel.status.value
    panel.name.value = "nobody of that name"
    assert "no picture passes the filter name &#x27;nobody of that name&#x27;" in panel.status.value
    panel.name.value = ""
    assert "Cannot" not in panel.status.value
    panel.pictures.model.train()
    panel.fraction.value = 0.4
    assert "training mode" in panel.status.value


def test_names_are_shown_as_text_not_as_markup(classifier):
    faces = Faces()
    faces.identities = ["<b>bold</b>"] * 7
    panel = explorer(classifier, faces, top_k=2)
    shown = panel.tiles[0]
    assert "<b>bold" not in panel.status.value + shown.tiles["picture"].value + shown.table.value
    assert "&lt;b&gt;bold" in shown.tiles["picture"].value and "&lt;b&gt;bold" in shown.table.value


def test_figure_and_numbers_are_saved_with_their_origin(classifier, tmp_path):
    panel = explorer(classifier, Faces(), top_k=3, delta=1.0, folder=tmp_path, provenance=lambda: {"profile": "tiny"})
    panel.compare.value = True
    panel.delta.value = 2.0
    panel.save.click()
    picture, numbers = (next(tmp_path.glob(f"person_0_000-*{suffix}")) for suffix in (".png", ".json"))
    assert str(picture) in panel.status.value and str(numbers) in panel.status.value
    with Image.open(picture) as drawn:
        assert drawn.format == "PNG" and min(drawn.size) > 300
    saved = json.loads(numbers.read_text(encoding="utf-8"))
    assert saved["picture"] == "person_0/000.png" and saved["person"] == "person 0"
    assert [side["delta"] for side in saved["settings"]] == [1.0, 2.0]
    side, (maps, answers) = saved["settings"][1], panel.shown[1]
    names = [f"person {label}" for label in maps.classes]
    assert list(side["probabilities"]) == names and side["target"] == names[0] and side["mask_pixels"] == 51
    assert side["probabilities"][names[1]]["deletion"] == float(answers.chances["deletion"][maps.classes[1]])
    assert side["deletion_retention"] == answers.measures
    assert side["verdict"] == answers.verdict._asdict()
    origin = saved["provenance"]
    assert origin["commit"] == commit() and origin["profile"] == "tiny" and {"torch", "pixels_sha256"} < origin.keys()
    before = origin["weights_sha256"]
    panel.save.click()
    assert len(list(tmp_path.iterdir())) == 2  # the same settings are the same files
    classifier.head.bias.data += 1
    assert panel.pictures.provenance(0)["weights_sha256"] != before


def test_people_have_the_names_and_the_look_alikes_that_are_given(classifier, pictures):
    names, families = ["Ada", "Anan", "Bela", "Dov", "Ebele", "Farid", "Gita"], [0, 0, 1, 2, 3, 4, 5]
    given = Pictures(classifier, pictures.dataset, names=names, families=families)
    assert given.title(2).startswith("Anan: ") and given.matching(name="anan") == [2, 3]
    assert [given.look_alikes(k) for k in range(3)] == [(1,), (0,), ()]
    calculator = Calculator(given)
    assert calculator.classes(0, Settings(target=1, rivals="look-alikes", top_k=3)) == [1, 0]
    with pytest.raises(ValueError, match="Dov is alone in the family"):
        calculator.classes(0, Settings(target=3, rivals="look-alikes", top_k=3))


def test_the_panel_opens_with_more_than_a_dot(classifier, pictures):
    panel = explorer(classifier, pictures.dataset)
    log = panel.shown[0][0].explanation.log_sdd
    assert 0.5 < float(-log.min()) / 4 < 2 and panel.delta.value == pytest.approx(panel.sides[0].delta)
    assert explorer(classifier, pictures.dataset, delta=2.0).delta.value == 2.0


def test_the_region_is_outlined_on_the_map_and_the_mask_has_an_edge(calculator):
    maps = calculator.maps(0, Settings(top_k=3))
    views = map_views(calculator.pictures, maps, "", *common_colours([maps]))
    assert torch.equal(views["sdd"].line, maps.mask[0]) and views["picture"].line is None
    mask = views["mask"].picture
    assert (mask[:, 0] == 0.5).all() and (mask[:, :, -1] == 0.5).all()
    assert torch.equal(mask[0, 1:-1, 1:-1] == 1, maps.mask[0, 1:-1, 1:-1])


def test_a_picture_of_nobody_carries_the_warning(panel):
    assert "nobody" not in panel.status.value
    upload(panel, "ellipse.png", encoded((64, 64)))
    assert "the network knows no “nobody”" in panel.status.value

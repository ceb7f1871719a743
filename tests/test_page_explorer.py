"""The explorer in the page: its arithmetic held to xfrlib in node, and the page itself driven in Chromium."""

import base64
import copy
import dataclasses
import io
import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import make_book
import numpy as np
import pydata_sphinx_theme
import pytest
import sphinx_book_theme
import torch
from browser import SCRIPTS, console_errors, lay_out_explorer, needs_chromium, open_browser, requests
from PIL import Image
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace
from test_site_in_browser import barriers

from explore import (
    PageFace,
    difference,
    explain_options,
    export_explorer,
    gentle_delta,
    neutral,
    pack_faces,
    passes,
    rule_page,
    templates,
    write_explorer,
)
from madefaces.face_paint import PARTS
from madefaces.names import given_name
from madefaces.people import make_families, picture_seed, render
from network import WEIGHTS_LIMIT, pack_classifier
from recognisers import as_recogniser
from xfrlib import FaceClassifier, deletion_retention, explain, explain_match, load_backbone, top_fraction_mask
from xfrlib.controls import disc
from xfrlib.geometry import Geometry, upsampled
from xfrlib.match import template
from xfrlib.plots import gentle_power, percent
from xfrlib.profile import FORMS
from xfrlib.regions import pixel_count
from xfrlib.trust import LEAST, _judged, should_show

ROOT = Path(__file__).resolve().parents[1]
STATIC = ROOT / "book" / "page"
NODE = shutil.which("node")
SETTINGS: dict[str, Any] = {
    "top_k": 5, "delta": 1.0, "scale": 1.0, "scale_min": 1.0, "scale_max": 50.0, "form": "sum", "centre": True,
    "fraction": 0.2,
}  # fmt: skip
TEMPERATURE = 0.7
TOLERANCE = 1e-3  # relative to the largest value

needs_node = pytest.mark.skipif(
    NODE is None, reason="there is no node here (https://nodejs.org): apt-get install nodejs"
)


@pytest.fixture(scope="module")
def people():
    return make_families(3, 3, seed=0)


@pytest.fixture(scope="module")
def faces(people):
    return [PageFace(i, picture_seed(0, i, 7)) for i in range(len(people))]


@pytest.fixture(scope="module")
def model(people):
    """A classifier that is sure of some pictures and torn over others, without training: class means as weights."""
    model = FaceClassifier(load_backbone("slim", "builtin"), len(people)).eval()
    with torch.no_grad():
        shown = [who for who in people for _ in range(4)]
        pictures, _ = render(shown, [picture_seed(0, i, k) for i in range(len(people)) for k in range(4)])
        means = model.features(as_tensor(pictures)).mean(dim=(2, 3)).view(len(people), 4, -1).mean(dim=1)
        weight = means - means.mean(dim=0)
        model.head.weight.copy_(weight * 2 / weight.norm(dim=1, keepdim=True) + 0.3)  # a common offset, to be centred
        model.head.bias.copy_(-model.head.weight @ means.mean(dim=0))
    return model


@pytest.fixture(scope="module")
def images(people, faces):
    return as_tensor(render([people[f.identity] for f in faces], [f.seed for f in faces])[0])


def as_tensor(pictures):
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255


def recogniser_of(model):
    """The recogniser of the page: the classifier's backbone, and the average of its map for an embedding."""
    return as_recogniser(copy.deepcopy(model.backbone))


def as_bytes(images):
    return (255 * images).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def relative(found, expected) -> float:
    expected = np.asarray(expected)
    return float(np.abs(np.asarray(found) - expected).max() / np.abs(expected).max())


# --- what Python writes


def test_the_weights_fit_and_the_scripts_too(model):
    description, weights = pack_classifier(model)
    assert len(weights) <= WEIGHTS_LIMIT == 4_000_000
    assert sum((STATIC / name).stat().st_size for name in SCRIPTS) < 90_000
    assert len(description["blocks"]) == 6 and description["head"]["bias"]["size"] == model.num_classes


def test_a_row_of_weights_is_read_back_to_half_a_step(model):
    description, weights = pack_classifier(model)
    conv, norm, _ = model.backbone.input_layer
    folded = conv.weight * (norm.weight / torch.sqrt(norm.running_var + norm.eps))[:, None, None, None]
    where = description["stem"]["weight"]
    rows, columns = where["shape"]
    whole = np.frombuffer(weights, "<i2", rows * columns, where["at"]).reshape(rows, columns)
    scale = np.frombuffer(weights, "<f4", rows, where["scale"]["at"])
    assert (np.abs(whole).max(axis=1) == 32767).all()
    error = np.abs(whole * scale[:, None].astype(np.float64) - folded.detach().flatten(1).double().numpy())
    assert (error <= 0.501 * scale[:, None] + 1e-7).all()


def test_other_networks_are_refused(classifier):
    with pytest.raises(ValueError, match="TinyBackbone cannot be run in the page"):
        pack_classifier(classifier)
    with pytest.raises(ValueError, match="'ir_18' takes"):
        pack_classifier(FaceClassifier(load_backbone("ir_18"), 4))


def test_faces_carry_their_pixels_parts_and_true_differences(people, faces):
    packed = pack_faces(people, faces)
    pictures, parts = render(people, [f.seed for f in faces])
    assert base64.b64decode(packed["pixels"]) == pictures.tobytes()
    both = np.frombuffer(base64.b64decode(packed["parts"]), np.uint8)
    assert (np.stack([both >> 4, both & 15], axis=1).ravel() == parts.ravel()).all()
    regions = base64.b64decode(packed["regions"])
    for face in packed["faces"]:
        own = people[face["identity"]]
        assert sorted(face["differences"]) == [
            n for n, who in enumerate(people) if who.family == own.family and who != own
        ]
        for rival, found in face["differences"].items():
            assert found["parts"] and set(found["parts"]) <= set(own.differs)
            bits = np.unpackbits(np.frombuffer(regions, np.uint8, 112 * 112 // 8, found["at"]))
            assert bits.any() == found["visible"]
            names, region = difference(own, people[rival], faces[face["identity"]].seed)
            assert names == found["parts"] and (bits == region.ravel()).all()


def test_a_difference_holds_the_part_before_and_after(people, faces):
    own, moved = people[0], [PARTS.index("nose"), PARTS.index("mouth")]
    genes = {part: tuple((gene + 0.5) % 1 for gene in own.genes[part]) for part in ("nose", "mouth")}
    other = dataclasses.replace(own, name="another", genes=own.genes | genes)
    parts, region = difference(own, other, faces[0].seed)
    assert parts == ["nose", "mouth"]
    _, (before, after) = render([own, other], [faces[0].seed] * 2)
    assert (region == np.isin(before, moved) | np.isin(after, moved)).all()
    assert region.any() and (before[region] != after[region]).any(), "the parts lie elsewhere in the other"
    names, nothing = difference(own, dataclasses.replace(own, name="a twin"), faces[0].seed)
    assert names == [] and not nothing.any()


def test_portraits_are_neutral_and_small(people, faces):
    files = [base64.b64decode(portrait) for portrait in pack_faces(people, faces)["portraits"]]
    portraits = np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files])
    assert (portraits == render(people, [3] * len(people), nuisance=0)[0]).all(), "no seed changes a neutral picture"
    assert max(map(len, files)) < 112 * 112, "a byte a pixel at most"
    assert len({portrait.tobytes() for portrait in portraits}) == len(people), "look-alikes can be told apart"


def test_the_gallery_has_a_template_of_every_neutral_picture(model, people):
    found, pictures = templates(model, people), as_tensor(neutral(people))
    assert "pool" not in dict(model.backbone.named_children()), "the classifier stays as it is"
    for own, picture in zip(found, pictures, strict=True):
        torch.testing.assert_close(own, template(recogniser_of(model), picture[None]))


def test_what_passes_is_what_the_rule_would_show(model, people, faces, images):
    found = explain(model, images, **explain_options(SETTINGS))
    mask = top_fraction_mask(found.log_sdd, SETTINGS["fraction"])
    judged = should_show(model, images, mask, fill="black", temperature=TEMPERATURE, pairs=found.classes)
    shown = passes(model, images, SETTINGS, TEMPERATURE)
    assert shown == [one.show for one in judged] and len(set(shown)) == 2


def test_the_chapter_of_the_rule_is_found_by_its_name(tmp_path):
    assert rule_page() == {"chapter": 11, "page": "../notebooks/11_when_not_to_show_it.html"}
    with pytest.raises(FileNotFoundError, match="no chapter NN_when_not_to_show_it"):
        rule_page(tmp_path)
    (tmp_path / "09_when_not_to_show_it.ipynb").touch()
    assert rule_page(tmp_path)["chapter"] == 9


def test_a_gentle_delta_shows_more_than_a_peak(model, people, faces, images):
    delta = gentle_delta(model, people, faces, SETTINGS)
    assert round(20 * np.log10(delta), 6) % 1 == 0
    gentle = explain(model, images, **explain_options(SETTINGS | {"delta": delta}))
    depth = -gentle.log_sdd.amin(dim=(1, 2)).median()
    assert 2 < depth < 8


class Profile:
    name, dataset, shows_real_people = "twelve", "folder", True


def test_real_people_do_not_travel_with_a_page(tmp_path):
    with pytest.raises(ValueError, match="'twelve' shows real people"):
        export_explorer(type("Run", (), {"profile": Profile})(), tmp_path)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("profile", "written"),
    [("dataset: synthetic\nshows_real_people: false", True), ("dataset: folder\nfolder: x", False)],
)
def test_the_site_has_the_explorer_of_made_faces_only(tmp_path, monkeypatch, profile, written):
    (tmp_path / "profile.yaml").write_text(profile, encoding="utf-8")
    ran: list[list[str]] = []
    monkeypatch.setattr(make_book.subprocess, "run", lambda command, check: ran.append(command))
    make_book.write_page_data("some", tmp_path)
    assert bool(ran) == written
    if written:
        assert ran[0][-4:] == ["--profile", "some", "--folder", str(tmp_path / "book" / "_static" / "explore")]


@pytest.mark.parametrize(
    ("dataset", "real", "shown"),
    [("folder", "true", False), ("folder", "false", False), ("synthetic", "false", True)],
)
def test_the_page_of_other_pictures_says_that_there_is_no_explorer(tmp_path, dataset, real, shown):
    profile = f"dataset: {dataset}\nshows_real_people: {real}"
    (tmp_path / "profile.yaml").write_text(profile, encoding="utf-8")
    (tmp_path / "results.json").write_text('{"identities": 9}', encoding="utf-8")
    shutil.copy(ROOT / "book" / "explore.md", tmp_path / "index.md")
    config = {
        "extensions": ["myst_parser", "results"],
        "master_doc": "index",
        "html_theme": "pydata_sphinx_theme",
        "myst_enable_extensions": ["colon_fence"],
    }
    with docutils_namespace():  # what the page refers to elsewhere is not here, so warnings do not count
        out = str(tmp_path / "_build")
        Sphinx(str(tmp_path), None, out, out, "html", config, status=None, warning=None).build()
    page = (tmp_path / "_build" / "index.html").read_text(encoding="utf-8")
    assert ("explore_core.js" in page) == ('id="explorer"' in page) == shown
    assert ("exists only for made faces" in page) != shown


# --- the arithmetic, in node

RUN_CORE = """
const core = require(process.argv[1])();
const { description, weights, requests } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const session = core.session(core.readNetwork(description, core.decodeBase64(weights)), 112);
const list = (values) => Array.from(values);
const answer = async (request) => {
  const pixels = core.decodeBase64(request.pixels);
  const found = session.explain({ ...request, pixels });
  const masked = await session.masked(pixels, found.mask);
  const before = session.passes();
  const judged = request.judge ? await session.besideDisc(pixels, found, request.temperature) : null;
  return { classes: found.classes, logits: list(found.logits), probabilities: list(found.probabilities), s: found.s,
    cams: found.cams.map(list), log: list(found.log), mask: list(found.mask), deletion: list(masked.deletion),
    retention: list(masked.retention), passes: session.passes(), judged: judged && { verdict: judged.verdict,
      disc: list(judged.disc), deletion: list(judged.deletion), retention: list(judged.retention) },
    spent: session.passes() - before };
};
(async () => {
  const answers = [];
  for (const request of requests) answers.push(await answer(request));
  console.log(JSON.stringify(answers));
})();
"""
RUN_MATCH = """
const core = require(process.argv[1])();
const { description, weights, templates, requests } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const session = core.session(core.readNetwork(description, core.decodeBase64(weights)), 112);
const list = (values) => Array.from(values), gallery = Float32Array.from(templates.flat());
console.log(JSON.stringify(requests.map((given) => {
  const found = session.matched({ ...given, pixels: core.decodeBase64(given.pixels), templates: gallery });
  const power = core.gentlePower(found.log);
  for (const name of ["similarities", "map", "difference", "log"]) found[name] = list(found[name]);
  return { ...found, cams: found.cams.map(list), power };
})));
"""
CALL = """
const core = require(process.argv[1])();
const [what, ...calls] = JSON.parse(require("fs").readFileSync(0, "utf8"));
console.log(JSON.stringify(calls.map((given) => {
  try {
    const answer = core[what](...given);
    return ArrayBuffer.isView(answer) ? Array.from(answer) : answer;
  } catch (error) {
    return error.message;
  }
})));
"""


def node(script: str, given: Any) -> Any:
    command = [str(NODE), "-e", script, str(STATIC / "explore_core.js")]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def call(what: str, *calls: list[Any]) -> list[Any]:
    """The answers of one function of the core to several lists of arguments."""
    return node(CALL, [what, *calls])


def request(pixels, **changes) -> dict[str, Any]:
    """What the page sends to its worker, with the pictures as base64."""
    names = {"scale_min": "scaleMin", "scale_max": "scaleMax", "fraction": "share", "top_k": "topK"}
    settings = {names.get(name, name): value for name, value in (SETTINGS | changes).items()}
    return {"target": None, "rivals": None, **settings, "pixels": base64.b64encode(pixels.tobytes()).decode()}


def in_node(model, requests) -> list[dict[str, Any]]:
    description, weights = pack_classifier(model)
    given = {"description": description, "weights": base64.b64encode(weights).decode(), "requests": requests}
    return node(RUN_CORE, given)


def assert_as_xfrlib(found, model, image, **changes) -> None:
    """Hold one answer to `xfrlib` on the picture (3, 112, 112): logits, maps and what the masks do."""
    settings = SETTINGS | changes
    fraction = settings["fraction"]
    expected = explain(model, image[None], **explain_options(settings))
    classes = expected.classes[0].tolist()
    assert found["classes"] == classes
    with torch.no_grad():
        assert relative(found["logits"], model(image[None])[0]) < TOLERANCE
    np.testing.assert_allclose(np.array(found["probabilities"])[classes], expected.probabilities[0], atol=TOLERANCE)
    assert relative(found["cams"], expected.cams[0].flatten(1)) < TOLERANCE
    assert relative(found["log"], expected.log_sdd[0].flatten()) < TOLERANCE
    mask = torch.tensor(found["mask"]).bool().view(1, 112, 112)
    own = torch.tensor(found["log"], dtype=torch.float32).view(1, 112, 112)
    assert (mask == top_fraction_mask(own, fraction)).all()  # pixel for pixel, ties included
    wanted = top_fraction_mask(expected.log_sdd, fraction)
    values, cut = expected.log_sdd, expected.log_sdd[wanted].min()  # only pixels at the cut may change sides
    assert ((values - cut).abs()[mask != wanted] <= 2 * TOLERANCE * values.abs().max()).all()
    answer = deletion_retention(model, image[None], mask).iloc[0]
    for kind in ("deletion", "retention"):
        assert found[kind][int(answer["predicted"])] == pytest.approx(answer[f"{kind}_probability"], abs=TOLERANCE)


def assert_judged_as_xfrlib(found, judged, model, image) -> None:
    """Hold an answer beside the disc to `xfrlib` on the picture (3, 112, 112), for the region that was found."""
    mask = torch.tensor(found["mask"]).bool().view(1, 112, 112)
    centre = disc(int(mask.sum()), (112, 112))
    assert (np.array(judged["disc"]).reshape(112, 112) == centre).all()
    answer = deletion_retention(model, image[None], torch.from_numpy(centre)[None]).iloc[0]
    for kind in ("deletion", "retention"):
        assert judged[kind][int(answer["predicted"])] == pytest.approx(answer[f"{kind}_probability"], abs=TOLERANCE)
    if found["classes"][0] != int(answer["predicted"]):
        assert judged["verdict"] is None
        return
    pairs = torch.tensor([found["classes"]])
    (expected,) = should_show(model, image[None], mask, fill="black", temperature=TEMPERATURE, pairs=pairs)
    verdict = judged["verdict"]
    gains = verdict["deletion"], verdict["retention"]
    assert gains == pytest.approx((expected.deletion, expected.retention), abs=0.02)
    if min(abs(value - LEAST) for value in (*gains, *expected[2:])) > 0.02:  # no rounding decides
        assert verdict["show"] == expected.show
    assert (verdict["show"], verdict["reason"]) == _judged(*gains, 0.0, "black")[:2]


def assert_matched_as_xfrlib(found, model, image, gallery, own) -> None:
    """Hold one answer of the comparison to `explain_match` on the picture (3, 112, 112) and templates (N, C)."""
    others = [n for n in range(len(gallery)) if n != own]
    how: dict[str, Any] = {"top_k": len(found["classes"])}
    expected = explain_match(recogniser_of(model), image[None], gallery[own], gallery[others], **how)
    assert found["classes"] == [own, *(others[n] for n in expected.chosen[0].tolist())]
    similarities, cams = expected.similarities[0], expected.cams[0]
    assert relative(np.array(found["similarities"])[found["classes"]], similarities) < TOLERANCE
    assert found["constant"] == 0 and not expected.constants.any()
    sums = np.array(found["cams"]).mean(axis=1) + found["constant"]
    np.testing.assert_allclose(sums, np.array(found["similarities"])[found["classes"]], atol=1e-6)
    assert relative(found["cams"], cams.flatten(1)) < TOLERANCE
    laid = expected.upsampled_cams[0]
    assert relative(found["map"], laid[0].flatten()) < TOLERANCE
    np.testing.assert_allclose(
        found["difference"], (laid[0] - laid[1]).flatten(), atol=TOLERANCE * float(cams.abs().max())
    )
    assert relative(found["log"], expected.log_sdd[0].flatten()) < 5 * TOLERANCE  # of small differences of large maps


@needs_node
class TestTwoPictures:
    @pytest.mark.parametrize("top_k", [2, 5, 9])
    def test_matches_as_xfrlib_explains_them(self, model, people, images, top_k):
        description, weights = pack_classifier(model)
        gallery = templates(model, people)
        asked = [
            {"pixels": base64.b64encode(pixels.tobytes()).decode(), "own": own, "topK": top_k}
            for n, pixels in enumerate(as_bytes(images))
            for own in (n, (n + 1) % len(people))
        ]
        given = {"description": description, "weights": base64.b64encode(weights).decode()}
        answers = node(RUN_MATCH, {**given, "templates": gallery.tolist(), "requests": asked})
        for n, (one, found) in enumerate(zip(asked, answers, strict=True)):
            assert len(found["classes"]) == top_k
            assert_matched_as_xfrlib(found, model, images[n // 2], gallery, one["own"])
            log_sdd = torch.tensor(found["log"]).view(1, 112, 112)
            assert found["power"] == pytest.approx(float(gentle_power(log_sdd)), rel=1e-5)
        first = [found["similarities"].index(max(found["similarities"])) for found in answers[::2]]
        assert 0 < sum(n == own for n, own in enumerate(first)) < len(first), "some mates lead, and some do not"

    def test_by_hand(self):
        """Two channels on two cells, 3 1 and 4 -4: the embedding is (2, 0), of length 2."""
        features = {"channels": 2, "h": 1, "w": 2, "data": [3, 1, 4, -4]}
        geometry = {"stride": [1, 1], "offset": [0, 0]}
        (found,) = call("match", [features, [1, 0, 0, 1, 0.6, 0.8], {"own": 1, "topK": 2}, 2, geometry])
        assert list(found["similarities"].values()) == pytest.approx([1, 0, 0.6])
        assert found["classes"] == [1, 0]
        assert [list(cam.values()) for cam in found["cams"]] == [[2, -2], [1.5, 0.5]]
        assert list(found["difference"].values()) == [0.5, -2.5, 0.5, -2.5]

    def test_a_comparison_ends_no_request_and_is_ended_by_none(self, model, people, images):
        script = """
        const core = require(process.argv[1])();
        const { start, pixels, templates } = JSON.parse(require("fs").readFileSync(0, "utf8"));
        const said = [], picture = core.decodeBase64(pixels.pixels);
        const scope = { postMessage: (message) => said.push([message.kind, message.id]) };
        core.startWorker(scope);
        scope.onmessage({ data: { kind: "start", ...start } });
        const match = { kind: "match", own: 0, topK: 2, templates: Float32Array.from(templates.flat()) };
        scope.onmessage({ data: { ...pixels, pixels: picture, id: 4 } });
        scope.onmessage({ data: { ...match, pixels: picture, id: 1 } });
        process.on("exit", () => console.log(JSON.stringify(said)));
        """
        description, weights = pack_classifier(model)
        start = {"description": description, "weights": base64.b64encode(weights).decode(), "size": 112}
        given = {"start": start, "pixels": request(as_bytes(images)[0]), "templates": templates(model, people).tolist()}
        assert node(script, given) == [["ready", None], ["maps", 4], ["matched", 1], ["masked", 4]]


@needs_node
class TestArithmetic:
    def test_a_disc_is_xfrlibs_pixel_for_pixel(self):
        cases = [(count, size) for size in (1, 4, 7, 112) for count in {0, 1, size, size * size // 5, size * size}]
        for (count, size), found in zip(cases, call("disc", *map(list, cases)), strict=True):
            assert (np.array(found).reshape(size, size) == disc(count, (size, size))).all(), (count, size)

    def test_percentages_are_written_as_in_the_figures(self):
        halves = [0.125, 0.135, 0.0025, 0.0075, 0.9925, 0.9975, 0.005, 0.015, 0.0005, 0.9995]
        edges = [0.0, 1e-9, 0.0001, 0.0004999, 0.00996, 0.01, 0.5, 0.99, 0.9904, 0.9994, 0.9999, 1 - 1e-12, 1.0]
        values = [*edges, *halves, *np.random.default_rng(0).random(200), *np.random.default_rng(1).random(50) / 50]
        found = call("percent", *([float(value)] for value in values))
        assert found == [percent(value) for value in values]
        assert found[2] == "<\u00a00.1\u00a0%" and found[10] == ">\u00a099.9\u00a0%"

    @pytest.mark.parametrize("fraction", [0.05, 0.2])
    def test_a_map_is_judged_beside_the_disc_as_xfrlib_judges_it(self, model, images, fraction):
        asked = [request(p, fraction=fraction) | {"judge": True, "temperature": TEMPERATURE} for p in as_bytes(images)]
        stranger = asked[0] | {"target": 5, "rivals": [2, 7]}
        first, other, *answers = in_node(model, [asked[0], stranger, *asked[1:]])
        for found, image in zip([first, *answers], images, strict=True):
            assert_judged_as_xfrlib(found, found["judged"], model, image)
            assert found["spent"] == 2, "the region's own answers are known"
        assert_judged_as_xfrlib(other, other["judged"], model, images[0])
        assert other["judged"]["verdict"] is None and other["spent"] == 0, "the disc is where it was"
        assert len({found["judged"]["verdict"]["show"] for found in [first, *answers]}) == 2, "neither all win nor none"

    @pytest.mark.parametrize(
        ("region", "other", "says"),
        [
            ([[0, 3], [3, 0]], [[2, 0], [0, 1]], "Shown: under a black fill, deleting the region takes 5.0 log-odds"),
            ([[0, 3], [0, 3]], [[2, 0], [0, 1]], "Not shown: the region beats the disc in only one of two measures: "),
            ([[3, 0], [0, 3]], [[2, 0], [0, 1]], "Not shown: the region beats the disc in neither of two measures: "),
            ([[2, 0], [0, 1]], [[2, 0], [0, 1]], "Not shown: the region beats the disc in neither of two measures: "),
        ],
    )
    def test_verdicts_by_hand(self, region, other, says):
        script = """
        const core = require(process.argv[1])();
        const [region, other] = JSON.parse(require("fs").readFileSync(0, "utf8"))
          .map(([deletion, retention]) => ({ deletion, retention }));
        console.log(JSON.stringify(core.judge([0, 1], region, other, 1)));
        """
        found = node(script, [region, other])
        assert found["reason"].startswith(says) and found["show"] == says.startswith("Shown")
        assert found["reason"] == _judged(found["deletion"], found["retention"], 0.0, "black").reason

    def test_pictures_as_xfrlib_sees_them(self, model, images):
        answers = in_node(model, [request(pixels) for pixels in as_bytes(images)])
        for found, image in zip(answers, images, strict=True):
            assert_as_xfrlib(found, model, image)
        sure = [max(found["probabilities"]) for found in answers]
        assert min(sure) < 0.9 < max(sure), "the pictures of this test are neither all easy nor all hard"

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize(
        "changes",
        [
            {"delta": 20.0},
            {"scale": 3.0, "scale_min": 0.1, "fraction": 0.07},
            {"scale": 100.0, "scale_max": 2.0},
            {"centre": False, "top_k": 2},
        ],
    )
    def test_settings(self, model, images, form, changes):
        (found,) = in_node(model, [request(as_bytes(images)[4], form=form, **changes)])
        assert_as_xfrlib(found, model, images[4], form=form, **changes)
        if "scale_min" in changes:
            assert found["s"]["used"] == found["s"]["free"] != 1

    def test_channel_order_and_normalisation_belong_to_the_model(self, people, images):
        backbone = load_backbone("slim")
        backbone.set_input({"channel_order": "BGR", "mean": "0.4", "std": "0.3"}, "test")
        model = FaceClassifier(backbone, len(people)).eval()
        (found,) = in_node(model, [request(as_bytes(images)[0])])
        with torch.no_grad():
            assert relative(found["logits"], model(images[:1])[0]) < TOLERANCE

    def test_target_and_rivals_by_hand(self, model, images):
        asked = request(as_bytes(images)[0]) | {"target": 5, "rivals": [2, 7]}
        (found,) = in_node(model, [asked])
        expected = explain(model, images[:1], target=5, competitors=[2, 7])
        assert found["classes"] == [5, 2, 7]
        assert relative(found["log"], expected.log_sdd[0].flatten()) < TOLERANCE

    def test_a_picture_goes_through_the_network_once(self, model, images):
        pixels = as_bytes(images)
        same = [
            request(pixels[0]),
            request(pixels[0], delta=0.3, form="product"),
            request(pixels[1]),
            request(pixels[0]),
        ]
        first, other_setting, other_picture, again = in_node(model, same)
        assert first["passes"] == 3  # the picture, without its top share, with it alone
        assert other_setting["passes"] <= 5 and other_picture["passes"] <= other_setting["passes"] + 3
        assert again["passes"] == other_picture["passes"] and again["log"] == first["log"]

    @pytest.mark.parametrize(
        ("small", "size", "geometry"),
        [
            ((7, 7), 112, Geometry((16, 16), (0, 0))),
            ((7, 7), 112, Geometry((15.3, 17), (3.7, -9))),
            ((4, 6), 112, Geometry((32, 20), (15.5, 2))),
            ((7, 7), 10, Geometry.drawn((7, 7), (10, 10))),
            ((3, 3), 5, Geometry((2, 2), (0.5, 40))),
            ((1, 1), 4, Geometry((4, 4), (0, 0))),
        ],
    )
    def test_a_map_lies_where_its_cells_look(self, small, size, geometry):
        maps = torch.randn(*small, generator=torch.Generator().manual_seed(1))
        (found,) = call("upsample", [maps.flatten().tolist(), *small, size, geometry._asdict()])
        np.testing.assert_allclose(found, upsampled(maps, (size, size), geometry).flatten(), atol=1e-6)

    def test_a_map_falls_off_towards_the_right_and_the_bottom(self):
        # Cells that look at 0 and 3 along each side, by hand: 1, 2/3, 1/3, 0 and then held, times 4.
        (found,) = call("upsample", [[4, 0, 0, 0], 2, 2, 6, {"stride": [3, 3], "offset": [0, 0]}])
        side = np.array([1, 2 / 3, 1 / 3, 0, 0, 0])
        np.testing.assert_allclose(found, 4 * np.outer(side, side).ravel(), rtol=1e-6)

    def test_pixels_beyond_the_border_are_equal(self, model, images):
        """To the last digit: what is beyond the last cell is ranked in reading order, here as in the package."""
        (found,) = in_node(model, [request(as_bytes(images)[0])])
        log = np.array(found["log"]).reshape(112, 112)
        assert (log[97:] == log[96]).all() and (log[:, 97:] == log[:, 96:97]).all()
        assert (log[1] != log[0]).any() and (log[95] != log[96]).any()

    @pytest.mark.parametrize(
        ("stride", "padding", "geometry"),
        [(2, 1, Geometry((16, 16), (0, 0))), (2, 0, Geometry((16, 16), (1, 1))), (1, 2, Geometry((8, 8), (-1, -1)))],
    )
    def test_where_the_cells_look_is_the_networks_own(self, model, images, stride, padding, geometry):
        other = copy.deepcopy(model).train()
        other.backbone.input_layer[0].stride, other.backbone.input_layer[0].padding = (stride,) * 2, (padding,) * 2
        before = copy.deepcopy(other.state_dict())
        description, _ = pack_classifier(other)
        assert json.loads(json.dumps(description["geometry"])) == json.loads(json.dumps(geometry._asdict()))
        assert other.training and all(torch.equal(value, before[key]) for key, value in other.state_dict().items())
        (found,) = in_node(other.eval(), [request(as_bytes(images)[0])])
        assert_as_xfrlib(found, other, images[0])

    def test_equal_values_are_taken_in_reading_order(self):
        maps = [[3, 1, 3, 3, 1, 0], [0, 0, 0, 0, 0, 0], [-1, -0.0, 0.0, -2, 5, -0.0]]
        assert call("topMask", [maps[0], 1 / 3])[0] == [1, 0, 1, 0, 0, 0]
        for fraction in (0.17, 1 / 3, 0.5, 0.9):
            expected = top_fraction_mask(torch.tensor(maps).view(3, 2, 3), fraction).int().flatten(1).tolist()
            assert call("topMask", *([values, fraction] for values in maps)) == expected

    def test_counts_are_rounded_as_python_rounds(self):
        cases = [(0.5, (1, 5)), (0.5, (1, 7)), (0.25, (1, 10)), (0.2, (112, 112)), (0.07, (112, 112)), (0.9, (3, 5))]
        expected = [pixel_count(fraction, size) for fraction, size in cases]
        assert call("pixelCount", *([fraction, h * w] for fraction, (h, w) in cases)) == expected

    def test_softmax_does_not_overflow(self):
        (found,) = call("softmax", [[1000, 999, -1000]])
        np.testing.assert_allclose(found, [1 / (1 + np.exp(-1)), np.exp(-1) / (1 + np.exp(-1)), 0])

    def test_a_target_without_a_map_is_named(self):
        (said,) = call("sddScale", [[[0, 0], [1, 2]], {"scale": 1, "scaleMin": 1, "scaleMax": 50}])
        assert said == "the target's map is zero everywhere, so no scale can be computed"

    @pytest.mark.parametrize("judge", [False, True])
    def test_the_newest_request_wins(self, model, images, judge):
        script = """
        const core = require(process.argv[1])();
        const { start, requests } = JSON.parse(require("fs").readFileSync(0, "utf8"));
        const said = [];
        const scope = { postMessage: (message) => said.push([message.kind, message.id]) };
        core.startWorker(scope);
        scope.onmessage({ data: { kind: "start", ...start } });
        for (const request of requests) {
          scope.onmessage({ data: { ...request, pixels: core.decodeBase64(request.pixels) } });
        }
        process.on("exit", () => console.log(JSON.stringify(said)));
        """
        description, weights = pack_classifier(model)
        start = {"description": description, "weights": base64.b64encode(weights).decode(), "size": 112}
        more = {"judge": judge, "temperature": 1}
        asked = [request(as_bytes(images)[0], delta=1 + n) | {"id": n, **more} for n in range(5)]
        said = node(script, {"start": start, "requests": asked})
        assert said == [["ready", None], ["maps", 0], ["maps", 4], ["masked", 4], *[["judged", 4]] * judge]


@needs_node
class TestWords:
    @pytest.fixture
    def parts(self, people):
        return render([people[0]], [0], nuisance=0)[1][0]

    def said(self, mask, parts) -> str:
        script = """
        const core = require(process.argv[1])();
        const { mask, parts, names } = JSON.parse(require("fs").readFileSync(0, "utf8"));
        console.log(JSON.stringify(core.inWords(core.strongest(mask, core.places(parts, names, 112)))));
        """
        return node(script, {"mask": mask.ravel().tolist(), "parts": parts.ravel().tolist(), "names": PARTS})

    def box(self, top, bottom, left, right):
        mask = np.zeros((112, 112), np.uint8)
        mask[top:bottom, left:right] = 1
        return mask

    def test_left_is_the_viewers(self, parts):
        rows, columns = np.nonzero(np.isin(parts, [PARTS.index("eyes"), PARTS.index("brows")]))
        top, bottom = rows.min(), rows.max() + 1
        assert self.said(self.box(top, bottom, columns.min() - 2, 56), parts) == "the left eye and brow"
        assert self.said(self.box(top, bottom, 56, columns.max() + 2), parts) == "the right eye and brow"

    @pytest.mark.parametrize("part", ["mouth", "nose"])
    def test_a_part_is_named_before_the_skin_around_it(self, parts, part):
        rows, columns = np.nonzero(parts == PARTS.index(part))
        mask = self.box(rows.min(), rows.max() + 1, columns.min(), columns.max() + 1)
        assert self.said(mask, parts).startswith(f"the {part}")

    def test_bare_skin_and_background_have_names(self, parts):
        skin = (parts == PARTS.index("head")).astype(np.uint8)
        brows = np.nonzero(parts == PARTS.index("brows"))[0].min()
        assert self.said(skin * self.box(0, brows - 2, 0, 112), parts) == "the forehead"
        assert self.said(self.box(0, 20, 0, 12), parts) == "the background on the left"
        assert self.said(self.box(0, 0, 0, 0), parts) == "no place"


# --- the page, in Chromium

STATE = """
const e = document.getElementById("explorer").explorer, list = (values) => Array.from(values);
return { classes: list(e.answer.classes), logits: list(e.answer.logits), probabilities: list(e.answer.probabilities),
  cams: e.answer.cams.map(list), log: list(e.answer.log), mask: list(e.answer.mask), passes: e.answer.passes,
  deletion: list(e.masked.deletion), retention: list(e.masked.retention), pixels: list(e.pixels), s: e.answer.s,
  settings: e.settings, said: e.sayText.textContent, table: e.table.innerText, sent: e.sent,
  drawn: e.canvas.toDataURL(), verdict: e.verdictText.textContent, judged: { verdict: e.judged.verdict,
    disc: list(e.judged.disc), deletion: list(e.judged.deletion), retention: list(e.judged.retention) } };
"""
SETTLED = """
const e = document.getElementById("explorer").explorer;
return Boolean(e && [e.answer, e.masked, e.judged].every((message) => message && message.id === e.sent));
"""
COMPARED = """
const box = document.querySelector(".xe-match");
return box.childElementCount > 0 && !box.hasAttribute("aria-busy");
"""
COMPARISON = """
const e = document.getElementById("explorer").explorer, { found } = e.match, list = (values) => Array.from(values);
const maps = ["similarities", "map", "difference", "log"].map((name) => [name, list(found[name])]);
const { classes, constant } = found, said = document.getElementById("xe-match-says").textContent;
return { classes, constant, said, ...Object.fromEntries(maps), cams: found.cams.map(list),
  pictures: [...document.querySelectorAll(".xe-match-pictures p")].map((text) => text.textContent),
  drawn: [...document.querySelectorAll(".xe-match-pictures canvas")].map((canvas) => canvas.toDataURL()).join() };
"""
# The pixels of a picture, row by row, as the browser has read it.
PIXELS = """
const [picture] = arguments, canvas = document.createElement("canvas");
canvas.width = canvas.height = picture.naturalWidth;
canvas.getContext("2d").drawImage(picture, 0, 0);
const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
return Array.from(data).filter((_, i) => i % 4 < 3);
"""
# What the page does before the first answer for a face. A busy worker takes up the newest request alone: `release`.
KEEP_BACK = """
const e = document.getElementById("explorer").explorer, { worker } = e, kept = [];
e.worker = { postMessage: (request) => kept.push(structuredClone(request)) };
window.release = () => { e.worker = worker; worker.postMessage(kept.at(-1)); };
e.choose(arguments[0]);
"""
# A pointer that never rests: it moves whenever an answer arrives, which is thereby of a moment ago. `rest` ends it.
RESTLESS = """
const e = document.getElementById("explorer").explorer, { canvas, brush, worker } = e, listen = worker.onmessage;
const box = canvas.getBoundingClientRect(), before = e.answer;
window.seen = { answers: 0, maps: 0, changed: false };
const move = () => {
  const place = { clientX: box.left + box.width * (0.3 + 0.01 * seen.answers), clientY: box.top + box.height / 2 };
  canvas.dispatchEvent(new PointerEvent("pointermove", { pointerId: brush.pointer, ...place }));
};
worker.onmessage = (event) => {
  seen.answers++;
  move();
  const last = e.answer.id;
  listen(event);
  if (e.answer.id === last) return;
  seen.maps++;
  seen.changed ||= Math.abs(e.answer.probabilities[e.target] - before.probabilities[e.target]) > 1e-3;
};
window.rest = () => { worker.onmessage = listen; };
move();
"""


def theme_styles() -> str:
    """The theme's style sheets as one, without the fonts and pictures that they fetch."""
    sheets = [
        Path(pydata_sphinx_theme.__file__).parent / "theme/pydata_sphinx_theme/static/styles/pydata-sphinx-theme.css",
        Path(sphinx_book_theme.__file__).parent / "theme/sphinx_book_theme/static/styles/sphinx-book-theme.css",
    ]
    fetched = r"""@import[^;]*;|url\((?:"[^"]*"|'[^']*'|[^)]*)\)"""
    return re.sub(fetched, "", "\n".join(sheet.read_text(encoding="utf-8") for sheet in sheets))


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, "rgb(0, 114, 178)", from 1 to 21 (WCAG 2.2, relative luminance)."""

    def luminance(colour: str) -> float:
        shares = np.array([float(value) for value in re.findall(r"[\d.]+", colour)[:3]]) / 255
        linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.fixture(scope="module")
def site(tmp_path_factory, model, people, faces):
    """A folder with the page and what it reads, laid out as Sphinx does."""
    folder = lay_out_explorer(tmp_path_factory.mktemp("site"), model, people, faces, SETTINGS)
    write_explorer(folder / "_static" / "explore", model, people, faces, SETTINGS, temperature=TEMPERATURE)
    return folder


@pytest.fixture(scope="module")
def browser():
    with open_browser() as driver:
        yield driver


@needs_chromium
class TestPage:
    @pytest.fixture
    def page(self, browser, site):
        """The page, opened from its folder; at the end, no complaint in the console and no address outside the site."""
        console_errors(browser), requests(browser)
        browser.get((site / "book" / "explore.html").as_uri())
        self.wait(browser)
        yield browser
        assert console_errors(browser) == []
        asked = requests(browser)
        assert any(url.endswith("weights.js") for url in asked)
        assert [url for url in asked if not url.startswith(site.as_uri())] == []

    def wait(self, browser, script=SETTLED, *given, seconds=30) -> None:
        until = time.monotonic() + seconds
        while not browser.execute_script(script, *given):
            assert time.monotonic() < until, "the page did not get there"
            time.sleep(0.05)

    def state(self, browser) -> dict[str, Any]:
        self.wait(browser)
        return browser.execute_script(STATE)

    def target(self, browser, label: int) -> None:
        choose = "const s = document.getElementById('xe-target'); s.value = arguments[0]; s.onchange({ target: s });"
        browser.execute_script(choose, label)

    def mark_only(self, browser, label: int) -> None:
        """Leave one rival marked, as somebody would by hand."""
        mark = """
        for (const box of document.querySelectorAll(".xe-rivals input")) {
          const wanted = box.id === `xe-rival-${arguments[0]}`;
          if (box.checked !== wanted) { box.checked = wanted; box.onchange(); }
        }
        """
        browser.execute_script(mark, label)

    def open_constants(self, browser) -> None:
        browser.find_element("css selector", ".xe-expert summary").click()

    def element(self, browser, name):
        return browser.find_element("id", name)

    def settings(self, browser) -> dict[str, Any]:
        names = {"scaleMin": "scale_min", "scaleMax": "scale_max", "share": "fraction"}
        found = browser.execute_script("return document.getElementById('explorer').explorer.settings")
        return {names.get(name, name): value for name, value in found.items()}

    def picture(self, state):
        pixels = torch.tensor(state["pixels"], dtype=torch.uint8).view(112, 112, 3)
        return pixels.permute(2, 0, 1).float() / 255

    def test_it_computes_what_xfrlib_computes(self, page, model, images, people):
        state = self.state(page)
        assert (self.picture(state) == images[0]).all()
        assert_as_xfrlib(state, model, images[0], **self.settings(page))
        name = given_name(people[int(np.argmax(state["logits"]))].name)
        assert name in state["table"] and "named" in state["table"]
        self.wait(page, "return document.getElementById('xe-say').textContent.includes(arguments[0])", f"names {name}")
        assert "strongest over the" in page.execute_script("return document.getElementById('xe-say').textContent")
        assert not page.find_element("css selector", "#explorer figure").is_displayed(), "it has made way"

    def test_it_judges_the_map_as_xfrlib_does(self, page, model, images):
        state = self.state(page)
        assert_judged_as_xfrlib(state, state["judged"], model, images[0])
        verdict = state["judged"]["verdict"]
        does = "✓ {} would show this map" if verdict["show"] else "✗ {} would hold this map back"
        said, why = does.format("The rule of chapter 11"), verdict["reason"].partition(": ")[2]
        assert state["verdict"] == f"{said}: {why}"
        link = page.find_element("css selector", "#xe-verdict a").get_attribute("href")
        assert link.endswith("/notebooks/11_when_not_to_show_it.html")
        pictures = [text.text for text in page.find_elements("css selector", ".xe-masked div p")]
        best = percent(max(state["judged"]["retention"])).replace("\u00a0", " ")  # as the driver reads it
        assert len(pictures) == 4 and pictures[3].startswith("only a disc as large: ") and pictures[3].endswith(best)
        other = next(n for n in range(len(images)) if n != state["classes"][0])
        self.target(page, other)
        assert self.state(page)["verdict"] == "No verdict: it judges maps of the predicted person."

    def test_paper_shows_the_figure_and_nothing_to_press(self, page):
        panel, figure = (page.find_element("css selector", f"#explorer {name}") for name in (".xe", "figure"))
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        try:
            assert figure.is_displayed() and not panel.is_displayed()
            controls = page.find_elements("css selector", "button, input, select")
            assert controls and not any(control.is_displayed() for control in controls)
        finally:
            page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
        assert panel.is_displayed() and not figure.is_displayed()

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("compare", [False, True])
    def test_the_panel_puts_no_barrier_before_a_reader(self, page, scheme, compare):
        dress = """
        document.head.prepend(Object.assign(document.createElement("style"), { textContent: arguments[0] }));
        document.documentElement.dataset.theme = arguments[1];
        document.body.prepend(Object.assign(document.createElement("h1"), { textContent: "Explore it here" }));
        """
        page.execute_script(dress, theme_styles(), scheme)
        self.state(page)
        if compare:
            self.element(page, "xe-compare").click()
            self.compared(page)
        else:
            self.element(page, "xe-truth").send_keys(" ")
        background = "return getComputedStyle(document.body).backgroundColor"
        assert (contrast(page.execute_script(background), "rgb(0, 0, 0)") < 2) == (scheme == "dark"), "the theme's"
        assert barriers(page) == []

        def ring(name: str, drawn_on: str) -> float:
            self.element(page, name).send_keys("\ue008")  # Shift: focus from the keyboard
            ringed = page.find_element("css selector", drawn_on)
            assert ringed.value_of_css_property("outline-style") == "solid"
            colour = ringed.value_of_css_property("outline-color")
            surface = "return getComputedStyle(document.querySelector('.xe-family')).backgroundColor"
            return min(contrast(colour, page.execute_script(text)) for text in (background, surface))

        own = [("xe-second", "#xe-second")] if compare else [("xe-target", "#xe-target"), ("xe-canvas", "#xe-canvas")]
        for name, drawn_on in [*own, ("xe-face-0", ".xe-family input:checked + canvas")]:
            assert ring(name, drawn_on) >= 3, name

    def test_what_means_nothing_before_the_first_answer_is_barred(self, page):
        barred = """
        return [...document.querySelectorAll(".xe-classes select, .xe-classes button, .xe-classes input, #xe-map")]
          .map((control) => control.disabled);
        """
        assert not any(page.execute_script(barred))
        page.execute_script(KEEP_BACK, 3)
        states = page.execute_script(barred)
        assert len(states) > 4 and all(states)
        for name in ("xe-truth", "xe-start"):  # what is not barred, works
            self.element(page, name).send_keys(" ")
        page.execute_script("release()")
        self.state(page)
        assert not any(page.execute_script(barred))

    def test_paint_before_the_first_answer_does_not_count_as_the_picture(self, page, model, images):
        page.execute_script(KEEP_BACK, 4)
        page.execute_script("arguments[0].focus()", self.element(page, "xe-canvas"))
        self.element(page, "xe-canvas").send_keys("\ue015" * 6 + " ")  # down, as far as the mouth, and a spot
        page.execute_script("release()")
        state = self.state(page)
        painted = self.picture(state)
        assert (painted != images[4]).any()
        own, changed = (explain(model, picture[None]) for picture in (images[4], painted))
        original = page.execute_script("return Array.from(document.getElementById('explorer').explorer.original)")
        target = int(own.classes[0, 0])
        assert original[target] == pytest.approx(float(own.probabilities[0, 0]), abs=TOLERANCE)
        assert state["classes"] == own.classes[0].tolist(), "whom it is about, the picture as it was made decides"
        assert relative(state["logits"], changed.logits[0]) < TOLERANCE

    def test_a_stroke_shows_its_maps_while_it_lasts(self, page):
        from selenium.webdriver import ActionChains

        before, canvas = self.state(page), self.element(page, "xe-canvas")
        page.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
        ActionChains(page, duration=30).move_to_element_with_offset(canvas, -60, 0).click_and_hold().perform()
        page.execute_script(RESTLESS)
        self.wait(page, "return seen.maps > 2 && seen.changed")
        page.execute_script("rest()")
        self.wait(page, "return !document.getElementById('explorer').hasAttribute('aria-busy')")
        now = """
        const e = document.getElementById("explorer").explorer;
        return [e.painting, e.masked.id === e.sent, e.verdictText.textContent];
        """
        assert page.execute_script(now) == [True, True, ""], "the pointer is down, and nothing is judged"
        ActionChains(page, duration=0).release().perform()
        after = self.state(page)
        assert after["verdict"] and after["classes"] == before["classes"]

    def test_the_browsers_keys_stay_the_browsers(self, page):
        from selenium.webdriver.common.keys import Keys

        before, canvas = self.state(page), self.element(page, "xe-canvas")
        canvas.send_keys(" ")
        press = """
        const event = new KeyboardEvent("keydown", { ...arguments[1], cancelable: true });
        return arguments[0].dispatchEvent(event);
        """
        for held in ("ctrlKey", "metaKey", "altKey"):
            assert page.execute_script(press, canvas, {"key": "u", held: True}), "not taken"
        assert self.state(page)["pixels"] != before["pixels"]
        canvas.send_keys(Keys.CONTROL + "z")
        assert self.state(page)["pixels"] == before["pixels"]

    def test_another_person(self, page, model, images):
        self.element(page, "xe-face-4").send_keys(" ")
        state = self.state(page)
        assert (self.picture(state) == images[4]).all()
        assert_as_xfrlib(state, model, images[4], **self.settings(page))

    def test_sliders_answer_without_a_new_pass(self, page, model, images):
        from selenium.webdriver.common.keys import Keys

        before = self.state(page)
        assert not self.element(page, "xe-delta").is_displayed(), "what is for experts is folded"
        self.open_constants(page)
        self.element(page, "xe-delta").send_keys(Keys.ARROW_RIGHT * 4)
        self.element(page, "xe-scaleMin").send_keys(Keys.ARROW_LEFT * 10)
        self.element(page, "xe-scale").send_keys(Keys.ARROW_RIGHT * 5)
        self.element(page, "xe-share").send_keys(Keys.ARROW_LEFT * 6)
        state, settings = self.state(page), self.settings(page)
        assert settings["delta"] == pytest.approx(before["settings"]["delta"] * 10**0.2)
        assert settings["scale"] == pytest.approx(10**0.25) and settings["fraction"] == pytest.approx(0.14)
        assert state["passes"] == 0 and state["drawn"] != before["drawn"]
        assert_as_xfrlib(state, model, images[0], **settings)
        assert self.element(page, "xe-share").get_attribute("aria-valuetext").split() == ["14", "%"]
        self.element(page, "xe-book").click()
        self.wait(page)
        assert self.settings(page) == {k: v for k, v in SETTINGS.items() if k != "top_k"}

    @pytest.mark.parametrize("form", FORMS)
    def test_forms(self, page, model, images, form):
        self.open_constants(page)
        self.element(page, "xe-form").send_keys(form.replace("_", " "))
        state, settings = self.state(page), self.settings(page)
        assert settings["form"] == form
        assert_as_xfrlib(state, model, images[0], **settings)

    def test_the_opening_settings_come_back(self, page):
        from selenium.webdriver.common.keys import Keys

        before = self.state(page)
        self.element(page, "xe-share").send_keys(Keys.ARROW_LEFT * 6)
        self.element(page, "xe-family").click()
        self.target(page, before["classes"][2])
        self.open_constants(page)
        self.element(page, "xe-book").click()
        changed = self.state(page)
        assert changed["settings"] != before["settings"] and changed["classes"] != before["classes"]
        self.element(page, "xe-start").click()
        after = self.state(page)
        assert (after["settings"], after["classes"]) == (before["settings"], before["classes"])
        assert after["mask"] == before["mask"]

    def test_another_target_costs_no_rival(self, page):
        before = self.state(page)["classes"]
        for change in (None, "xe-family"):
            if change:
                self.element(page, change).click()
            classes = self.state(page)["classes"]
            self.target(page, classes[1])
            other = self.state(page)["classes"]
            assert other[0] == classes[1] and len(other) == len(classes), "as many rivals, by the same rule"
            self.target(page, classes[0])
            assert self.state(page)["classes"] == classes
        self.element(page, f"xe-rival-{before[4]}").send_keys(" ")  # by hand
        marked = self.state(page)["classes"]
        self.target(page, marked[1])
        assert set(self.state(page)["classes"]) == set(marked[1:])
        self.target(page, marked[0])
        assert self.state(page)["classes"] == marked

    def test_rivals_unticked_fast_leave_the_sentence_that_asks_for_one(self, page):
        self.state(page)
        untick = """
        const e = document.getElementById("explorer").explorer;
        for (const box of e.rivalList.querySelectorAll("input:checked")) { box.checked = false; box.onchange(); }
        """
        page.execute_script(untick)
        says = "return document.getElementById('xe-say').textContent"
        for _ in range(8):  # what was under way would have come by now, and its sentence
            time.sleep(0.25)
        assert page.execute_script(says).startswith("Mark at least one rival")

    def test_everybody_who_is_named_has_a_row(self, page):
        rows = """
        const cells = (row) => [...row.children].map((cell) => cell.textContent);
        const rows = [...document.querySelectorAll(".xe-scroll tbody tr")].map(cells);
        return [rows.slice(0, -1).map((row) => row[0]), rows.at(-1).slice(1)];
        """
        seen = set()
        for number in range(4):
            self.element(page, f"xe-face-{number}").send_keys(" ")
            self.mark_only(page, self.state(page)["classes"][1])
            self.state(page)
            people, named = page.execute_script(rows)
            assert set(named) <= set(people) and len(people) == len(set(people))
            seen |= set(people[2:])
        assert seen, "in some case somebody is named who is neither target nor rival"

    def test_where_a_map_says_nothing_the_paint_is_seen(self, page):
        state = self.state(page)
        y, x = divmod(int(np.argmin(state["log"])), 112)
        share = np.exp(np.min(state["log"]))
        assert share < 0.2
        look = """
        const e = document.getElementById("explorer").explorer, [x, y] = arguments;
        e.showTop = false;
        e.draw();
        const copy = document.createElement("canvas"), pen = copy.getContext("2d", { willReadFrequently: true });
        pen.drawImage(e.canvas, -4 * x - 2, -4 * y - 2);
        return Array.from(pen.getImageData(0, 0, 1, 1).data).slice(0, 3);
        """
        picture = np.array(state["pixels"]).reshape(112, 112, 3)
        assert np.abs(np.array(page.execute_script(look, x, y)) - picture[y, x]).max() < 255 * share
        peak = divmod(int(np.argmax(state["log"])), 112)
        assert np.abs(np.array(page.execute_script(look, peak[1], peak[0])) - picture[peak]).max() > 40

    def test_guessing_hides_the_answers_and_counts_beside_who_does_not_look(self, page, people):
        from selenium.webdriver.common.keys import Keys

        self.element(page, "xe-share").send_keys(Keys.ARROW_LEFT * 6)
        self.open_constants(page)
        page.execute_script("document.getElementById('explorer').explorer.guess.next([2, 5])")
        self.element(page, "xe-guess").click()
        shown = "return [...document.querySelectorAll('.xe-open')].filter((e) => e.checkVisibility()).length"
        hidden_text = """
        const e = document.getElementById("explorer").explorer;
        const options = [...e.mapChoice.options].map((option) => option.text);
        return [e.canvas.getAttribute("aria-label"), ...options, e.sayText.textContent].join();
        """
        expected = {"whom": [0, 0.0], "survives": [0, 0], "beats": [0, 0]}
        for count, (number, honest) in enumerate([(5, True), (2, False)], start=1):
            state = self.state(page)
            assert state["settings"]["share"] == 0.2, "everybody guesses at the opening settings"
            assert page.execute_script("return document.getElementById('explorer').explorer.face.identity") == number
            assert page.execute_script(shown) == 0
            assert not any(given_name(who.name) in page.execute_script(hidden_text) for who in people)
            named = int(np.argmax(state["probabilities"]))
            family = [n for n, who in enumerate(people) if who.family == people[number].family]
            survives = int(np.argmax(state["deletion"])) == named
            beats = state["judged"]["verdict"]["show"]
            truth = {"whom": named if named in family else "other", "survives": int(survives), "beats": int(beats)}
            show = self.element(page, "xe-guess-show")
            assert not show.is_enabled()
            for name, value in truth.items():
                wrong = next(n for n in family if n != value) if name == "whom" else 1 - int(value)
                self.element(page, f"xe-guess-{name}-{value if honest else wrong}").send_keys(" ")
                expected[name][0] += honest
            expected["whom"][1] += (named in family) / len(family)
            expected["survives"][1] += not survives
            expected["beats"][1] += not beats
            assert show.is_enabled()
            show.click()
            score = page.execute_script("return document.getElementById('explorer').explorer.guess.score")
            assert score["cases"] == count and page.execute_script(shown) > 3
            assert {name: score[name] for name in expected} == {n: pytest.approx(v) for n, v in expected.items()}
            assert self.element(page, "xe-guess-says").text.startswith(f"{3 * honest} of 3 right")
            if count == 1:
                self.element(page, "xe-guess-next").click()
        self.element(page, "xe-guess").click()
        assert not page.find_elements("id", "xe-guess-says"), "the guessing is left"

    def test_two_pictures_are_compared_as_xfrlib_compares_them(self, page, model, images, people):
        from selenium.webdriver.common.keys import Keys

        gallery, names = templates(model, people), [given_name(who.name) for who in people]
        self.state(page)
        self.element(page, "xe-compare").send_keys(Keys.ENTER)
        for own in (0, 1, 3):  # the mate, a look-alike and somebody else
            found = self.compared(page, own)
            assert page.switch_to.active_element.get_attribute("id") == "xe-second", "the next key chooses"
            assert_matched_as_xfrlib(found, model, images[0], gallery, own)
            other, similarities = found["classes"][1], found["similarities"]
            first, last = (own, other) if similarities[own] > similarities[other] else (other, own)
            for n in (own, other):
                nearest = n == int(np.argmax([-1, *similarities[1:]]))
                role = "its mate" if n == 0 else "the nearest non-mate" if nearest else "a non-mate"
                alike = " and a look-alike" if n and people[n].family == people[0].family else ""
                assert re.search(rf"{similarities[n]:.3f} to {names[n]}, {role}{alike}\b", found["said"])
            gap = similarities[first] - similarities[last]
            assert f"{names[first]} leads {names[last]} by {gap:.3f}: the two pictures " in found["said"]
            assert ("pictures match" in found["said"]) == (first == own)
            assert ("which is right" in found["said"]) == ((first == own) == (own == 0))
            assert len(found["pictures"]) == 6 and all(found["pictures"]), "each has words"
        assert not page.find_element("css selector", ".xe-main").is_displayed()
        portrait = "return document.querySelectorAll('.xe-match-pictures img')[0]"
        shown = page.execute_script(PIXELS, page.execute_script(portrait))
        assert shown == neutral(people)[3].ravel().tolist(), "the picture of which the template was made"

    def test_what_is_compared_follows_the_person_and_the_paint(self, page, model, images, people):
        gallery = templates(model, people)
        self.state(page)
        page.execute_script("arguments[0].focus()", self.element(page, "xe-canvas"))
        self.element(page, "xe-canvas").send_keys("\ue015" * 6 + " ")  # down, as far as the mouth, and a spot
        painted = self.picture(self.state(page))
        self.element(page, "xe-compare").click()
        found = self.compared(page)
        assert (painted != images[0]).any() and "painted over" in found["pictures"][0]
        assert_matched_as_xfrlib(found, model, painted, gallery, 0)
        self.element(page, "xe-face-4").send_keys(" ")
        found = self.compared(page)
        assert_matched_as_xfrlib(found, model, images[4], gallery, 4)
        plain = found["drawn"]
        self.element(page, "xe-match-truth").send_keys(" ")
        assert self.compared(page)["drawn"] != plain
        self.element(page, "xe-match-back").click()
        assert page.switch_to.active_element.get_attribute("id") == "xe-compare", "where the reader came from"
        assert not page.find_elements("id", "xe-second")
        state = self.state(page)
        assert_as_xfrlib(state, model, images[4], **self.settings(page))

    def compared(self, page, own=None) -> dict[str, Any]:
        """What the comparison shows, of the second picture of a person if one is given, chosen by the keyboard."""
        self.wait(page, COMPARED)
        if own is not None:
            options = "return [...document.getElementById('xe-second').options].map((option) => Number(option.value))"
            order, second = page.execute_script(options), self.element(page, "xe-second")
            at = page.execute_script("return arguments[0].selectedIndex", second)
            step = order.index(own) - at
            if step:
                second.send_keys(("\ue015" if step > 0 else "\ue013") * abs(step))
            self.wait(page, COMPARED)
        return page.execute_script(COMPARISON)

    def test_it_says_for_how_many_pictures_the_rule_would_show_the_map(self, page, model, images):
        first = self.state(page)["settings"]
        changes = {"delta": first["delta"], "fraction": first["share"]}
        shown = passes(model, images, SETTINGS | changes, TEMPERATURE)
        text = self.element(page, "xe-passes").text
        assert f"would show the map of {sum(shown)} of these {len(images)} pictures" in text
        assert text.endswith("would show." if shown[0] else "would hold back.")
        assert self.state(page)["judged"]["verdict"]["show"] == shown[0]

    def test_rivals_by_the_keyboard_and_true_differences(self, page, model, images, people):
        target, *rivals = self.state(page)["classes"]
        self.element(page, "xe-family").send_keys("\n")
        state = self.state(page)
        family = {n for n, who in enumerate(people) if who.family == people[target].family} - {target}
        assert set(state["classes"][1:]) == family
        expected = explain(
            model, images[:1], target=target, competitors=state["classes"][1:], **explain_options(self.settings(page))
        )
        assert relative(state["log"], expected.log_sdd[0].flatten()) < TOLERANCE
        plain = state["drawn"]
        self.element(page, "xe-truth").send_keys(" ")
        assert self.state(page)["drawn"] != plain
        text = self.element(page, "xe-truth-text").text
        assert all(part in text for part in difference(people[0], people[1], 0)[0])
        first, *others = state["classes"][1:]
        self.element(page, f"xe-rival-{first}").send_keys(" ")
        assert self.state(page)["classes"] == [target, *others]
        for other in others:
            self.element(page, f"xe-rival-{other}").send_keys(" ")
        self.wait(page, "return document.getElementById('xe-say').textContent.startsWith('Mark at least one rival')")
        self.element(page, f"xe-rival-{rivals[0]}").send_keys(" ")
        assert self.state(page)["classes"] == [target, rivals[0]]

    def test_a_stroke_of_the_mouse_changes_the_decision_and_can_be_undone(self, page, model, images):
        from selenium.webdriver import ActionChains

        before, canvas = self.state(page), self.element(page, "xe-canvas")
        page.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
        stroke = ActionChains(page, duration=30).move_to_element_with_offset(canvas, -60, 20).click_and_hold()
        stroke.move_by_offset(60, 10).move_by_offset(60, -10).move_by_offset(0, 60).release().perform()
        after = self.state(page)
        changed = (self.picture(after) != images[0]).any(dim=0)
        assert 300 < changed.sum() < 4000 and (self.picture(after)[:, changed] == 0).all()
        target = before["classes"][0]
        assert abs(after["probabilities"][target] - before["probabilities"][target]) > 0.01
        expected = explain(
            model,
            self.picture(after)[None],
            target=target,
            competitors=before["classes"][1:],
            **explain_options(self.settings(page)),
        )
        assert relative(after["logits"], expected.logits[0]) < TOLERANCE
        assert relative(after["log"], expected.log_sdd[0].flatten()) < TOLERANCE
        assert "painted" in after["table"] and "painted" not in before["table"]
        self.element(page, "xe-undo").click()
        undone = self.state(page)
        assert undone["pixels"] == before["pixels"] and undone["passes"] == 0
        assert undone["log"] == before["log"] and not self.element(page, "xe-undo").is_enabled()

    def test_a_finger_paints_the_rivals_face_and_rubs_it_out(self, page, images):
        before, canvas = self.state(page), self.element(page, "xe-canvas")

        def swipe(ink):
            self.element(page, f"xe-ink-{ink}").send_keys(" ")
            page.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
            box = page.execute_script("return arguments[0].getBoundingClientRect().toJSON()", canvas)
            steps = [("touchStart", 0.3), ("touchMove", 0.5), ("touchMove", 0.7), ("touchEnd", None)]
            for kind, at in steps:
                place = at and {"x": box["x"] + box["width"] * at, "y": box["y"] + box["height"] / 2}
                given = {"type": kind, "touchPoints": [place] if place else []}
                page.execute_cdp_cmd("Input.dispatchTouchEvent", given)

        swipe("rival")
        painted = self.picture(self.state(page))
        changed = (painted != images[0]).any(dim=0)
        assert changed.sum() > 300
        rival = images[before["classes"][1]]
        assert (painted[:, changed] == rival[:, changed]).all()
        swipe("original")
        assert self.state(page)["pixels"] == before["pixels"]

    def test_the_keyboard_paints(self, page, images):
        from selenium.webdriver.common.keys import Keys

        before, canvas = self.state(page), self.element(page, "xe-canvas")
        canvas.send_keys(Keys.ARROW_UP * 3 + " ")
        spot = self.picture(self.state(page))
        rows, columns = torch.nonzero((spot != images[0]).any(dim=0), as_tuple=True)
        assert abs(rows.double().mean() + 0.5 - 50) < 0.6 and abs(columns.double().mean() + 0.5 - 56) < 0.6
        canvas.send_keys("p" + Keys.ARROW_RIGHT * 5 + "p")
        line = (self.picture(self.state(page)) != images[0]).any(dim=0)
        assert line.sum() > len(rows) and line.nonzero()[:, 1].max() == columns.max() + 10
        hidden = page.execute_script("return document.getElementById('explorer').explorer.brushText.textContent")
        assert hidden.startswith("Brush over the ")
        canvas.send_keys("uu")
        assert self.state(page)["pixels"] == before["pixels"]
        canvas.send_keys(" ")
        self.element(page, "xe-clear").click()
        assert self.state(page)["pixels"] == before["pixels"]

    def test_every_control_has_a_name_and_the_map_has_words(self, page):
        tree = page.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        focusable = [
            n for n in tree if any(p["name"] == "focusable" and p["value"]["value"] for p in n.get("properties", []))
        ]
        named = {n["role"]["value"]: n["name"]["value"] for n in focusable if n["role"]["value"] != "RootWebArea"}
        assert {"slider", "checkbox", "radio", "combobox", "application"} <= set(named)
        assert all(n["name"]["value"].strip() for n in focusable if n["role"]["value"] != "RootWebArea")
        pictures = [n["name"]["value"] for n in tree if n["role"]["value"] == "image" and not n["ignored"]]
        assert any("without the top" in text for text in pictures) and any("only the top" in text for text in pictures)

    def test_what_is_drawn_over_the_face(self, page):
        before = self.state(page)
        options = page.execute_script("return [...document.getElementById('xe-map').options].map((o) => o.value)")
        assert options == ["sdd", *map(str, before["classes"]), "none"]
        seen = {before["drawn"]}
        for value in options[1:]:
            choose = "const s = document.getElementById('xe-map'); s.value = arguments[0]; s.onchange({ target: s });"
            page.execute_script(choose, value)
            seen.add(self.state(page)["drawn"])
        assert len(seen) == len(options)

    @pytest.mark.parametrize("compare", [False, True])
    @pytest.mark.parametrize("width", [360, 390])
    def test_a_phone_shows_all_of_it(self, page, width, compare):
        if compare:
            self.element(page, "xe-compare").click()
            self.compared(page)
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 2, "mobile": True}
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        try:
            assert page.execute_script("return document.documentElement.scrollWidth") <= width
            small = page.execute_script(
                "return [...document.querySelectorAll('.xe button, .xe select, .xe-family label')]"
                ".filter((e) => e.checkVisibility()).map((e) => e.getBoundingClientRect())"
                ".filter((box) => box.height < 38 || box.width < 38).length"
            )
            assert small == 0, "a finger needs room"
        finally:
            page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    def test_without_scripts_a_figure_stands_there(self, browser, site):
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        try:
            browser.get((site / "book" / "explore.html").as_uri())
            figure = browser.find_element("css selector", "#explorer figure")
            assert figure.is_displayed() and "needs a browser that runs scripts" in figure.text
            image = figure.find_element("tag name", "img")
            assert int(image.get_property("naturalWidth")) > 500 and "made face" in image.get_attribute("alt")
        finally:
            browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})

    def test_missing_data_are_named(self, browser, site, tmp_path):
        shutil.copytree(site, tmp_path / "copy")
        (tmp_path / "copy" / "_static" / "explore" / "weights.js").unlink()
        browser.get((tmp_path / "copy" / "book" / "explore.html").as_uri())
        says = (
            "return document.getElementById('explorer').textContent.includes('explore/weights.js could not be loaded')"
        )
        self.wait(browser, says)
        assert browser.find_element("css selector", "#explorer figure").is_displayed()
        console_errors(browser)

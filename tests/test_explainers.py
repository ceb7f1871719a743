"""The explainers: each equals its definition or a peer, acts on PReLU, and leaves the network as it was."""

import dataclasses
import json
import re
import sys

import numpy as np
import pytest
import torch
from conftest import TinyBackbone
from torch import nn
from torch.nn import functional

from studies import taught_explainers  # noqa: F401 - enters two explainers
from studies.explainers_compared import passes_per_picture
from xfrlib import FaceClassifier, class_activation_maps, explain, top_fraction_mask
from xfrlib.cam import pooled_features
from xfrlib.explainers import EXPLAINERS, explain_with, lime_and_shap
from xfrlib.explainers.job import draw_seed, explained_output
from xfrlib.explainers.lime_and_shap import over_superpixels, superpixels
from xfrlib.explainers.rise import rise_masks
from xfrlib.geometry import Geometry, upsampled
from xfrlib.models.weights import seeded
from xfrlib.profile import project_root

pytest.importorskip("captum", reason="captum is not installed: pip install 'xfrlib[explainers]'")
pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed: pip install 'xfrlib[explainers]'")

SMALL = {  # budgets that keep the tests short
    "rise": {"masks": 30, "cells": 4},
    "lime": {"samples": 40, "segments": 9},
    "kernel_shap": {"samples": 40, "segments": 9},
    "integrated_gradients": {"steps": 8},
    "guided_gradcam": {"rectify": False},  # else the map of a picture that nothing speaks for is empty
}
GRAD_CAM = {"gradcam": "GradCAM", "gradcam++": "GradCAMPlusPlus", "layercam": "LayerCAM", "scorecam": "ScoreCAM"}


class Linear(nn.Module):
    """A backbone without any non-linearity: the logits are sums over pixels."""

    out_channels = 4

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1, bias=False)

    def forward(self, images):
        return self.conv(images)


@pytest.fixture
def classes():
    return torch.tensor([[0, 1, 2], [3, 6, 5], [2, 0, 4], [6, 1, 3], [5, 4, 0]])


@pytest.fixture
def linear():
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return FaceClassifier(Linear(), 7, seed=2).eval()


def run(name, model, images, classes, **budget):
    return explain_with(name, model, images, classes, progress=False, **{**SMALL.get(name, {}), **budget})


def raw_cams(model, images, classes):
    return class_activation_maps(model.features(images), model.weight, classes).detach()


def laid(maps):
    """Maps of the classifier, (b, 4, 4), whose cells look at every fourth pixel, the first at the first."""
    return upsampled(maps, (16, 16), Geometry((4, 4), (0, 0)))


def drawn(maps):
    """The same as libraries draw it."""
    return upsampled(maps, (16, 16))


# --- every explainer ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPLAINERS)
def test_every_map_has_the_size_of_the_picture_and_the_network_is_left_as_it_was(name, classifier, images, classes):
    classifier.train()
    classifier.backbone.layers[1].eval()
    classifier.head.bias.requires_grad_(False)
    classifier.head.weight.grad = torch.ones_like(classifier.head.weight)
    modes = [module.training for module in classifier.modules()]
    state = {key: value.clone() for key, value in classifier.state_dict().items()}
    original, random = images.clone(), torch.get_rng_state()
    with torch.no_grad():  # whatever the caller has switched off
        maps = run(name, classifier, images, classes)
    assert maps.shape == (5, 16, 16) and maps.dtype == torch.float32 and not maps.requires_grad
    assert torch.isfinite(maps).all() and (maps.flatten(1).std(1) > 0).all()
    assert [module.training for module in classifier.modules()] == modes
    assert torch.equal(classifier.head.weight.grad, torch.ones_like(classifier.head.weight))
    assert [p.grad is None for p in classifier.parameters()] == [n != "head.weight" for n in state]
    assert [p.requires_grad for p in classifier.parameters()] == [n != "head.bias" for n in state]
    assert all(torch.equal(value, state[key]) for key, value in classifier.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in classifier.modules())
    assert torch.equal(images, original) and not images.requires_grad and torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("name", EXPLAINERS)
def test_a_map_depends_on_seed_and_picture_alone(name, classifier, images, classes):
    whole = run(name, classifier, images, classes)
    assert torch.equal(run(name, classifier, images, classes), whole)
    part = run(name, classifier, images[2:4], classes[2:4], indices=[2, 3], batch_size=3)
    tolerance = {"rtol": 1e-3, "atol": 1e-4 * float(whole.abs().max())}
    torch.testing.assert_close(part, whole[2:4], **tolerance)
    other = run(name, classifier, images, classes, seed=1)
    drawn = {"rise", "lime", "kernel_shap"}
    assert torch.allclose(other, whole, **tolerance) == (name not in drawn)
    if name in drawn:  # another index, other draws
        assert not torch.allclose(run(name, classifier, images[2:4], classes[2:4]), whole[2:4], **tolerance)


@pytest.mark.parametrize("name", EXPLAINERS)
def test_the_passes_are_those_announced(name, classifier, images, classes):
    seen = []
    pooled_features(classifier, images)  # where cells look is found once for a network, by a pass of its own
    classifier.backbone.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    run(name, classifier, images, classes, batch_size=3)
    assert sum(seen) == 5 * passes_per_picture(name, classifier, **SMALL.get(name, {}))[0]
    assert max(seen) <= 3


@pytest.mark.parametrize("name", EXPLAINERS)
def test_only_contrastive_maps_change_with_the_rivals(name, classifier, images, classes):
    others = torch.cat([classes[:, :1], (classes[:, :1] + torch.tensor([1, 2])) % 7], dim=1)
    same = torch.allclose(run(name, classifier, images, others), run(name, classifier, images, classes), atol=1e-6)
    assert same != EXPLAINERS[name].contrastive
    if not EXPLAINERS[name].contrastive:
        assert run(name, classifier, images[:1], classes[:1, 0]).shape == (1, 16, 16)


@pytest.mark.parametrize("name", EXPLAINERS)
def test_an_error_inside_leaves_modes_and_hooks_as_they_were(name, classifier, images, classes):
    def fail(*_):
        raise IndexError("the last layer fails")

    classifier.train()
    last = classifier.backbone.layers[-1]
    last.register_forward_pre_hook(fail)
    with pytest.raises(IndexError, match="the last layer fails"):
        run(name, classifier, images, classes)
    assert all(module.training for module in classifier.modules())
    assert all(p.requires_grad and p.grad is None for p in classifier.parameters())
    hooks = [m for m in classifier.modules() if m._forward_hooks or m._forward_pre_hooks or m._backward_hooks]
    assert hooks == [last]


@pytest.mark.parametrize("name", ["gradcam", "saliency", "integrated_gradients", "rise"])
def test_maps_can_be_asked_for_in_inference_mode(name, classifier, images, classes):
    with torch.inference_mode():
        inside = run(name, classifier, images.clone(), classes)
    torch.testing.assert_close(inside, run(name, classifier, images, classes))


def of_the_book():
    """What the package and chapter 7 enter; another test may have entered more."""
    ours = ("xfrlib", "studies.taught")
    return {name: e for name, e in EXPLAINERS.items() if getattr(e.make, "func", e.make).__module__.startswith(ours)}


def test_every_entry_says_what_it_is():
    own = of_the_book()
    assert [name for name, e in own.items() if e.contrastive] == [
        "finercam", "sdd_sum", "sdd_product", "sdd_local_softmax",
    ]  # fmt: skip
    assert [name for name, e in own.items() if not e.compared] == ["guided_gradcam", "deep_lift"]
    assert {name for name, e in EXPLAINERS.items() if e.slow} == {"scorecam", "rise", "lime", "kernel_shap"}
    assert len({e.title for e in EXPLAINERS.values()}) == len(EXPLAINERS)
    assert all(e.source and e.library for e in EXPLAINERS.values())
    assert EXPLAINERS["rise"].budget["masks"] == 1000


def table_on_the_page(name):
    """Rows of a table of the page that sets the explainers side by side, as lists of cells."""
    page = (project_root() / "book/explainers.md").read_text(encoding="utf-8")
    table = page.partition(f":name: {name}\n")[2].partition("\n```")[0]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def test_the_page_of_explainers_has_a_row_for_each_and_says_what_it_is(classifier, linear, images, classes):
    own = of_the_book()
    rows = {re.search(r"`([^`]+)`", row[0])[1]: row for row in table_on_the_page("tab-explainers")}
    assert rows.keys() == own.keys()
    titles = [own[name].title for name in rows]
    assert [row[0] for row in table_on_the_page("tab-explainers-limits")] == titles
    assert [row[0] for row in table_on_the_page("tab-explainers-measured")] == [*titles, "centred disc", "random map"]
    blind = nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(3 * 16 * 16, 7)).eval()  # without a last map
    for name, (title, _, forward, back, needs, signed, *_) in rows.items():
        method = own[name]
        assert title.startswith(f"{method.title}, `{name}`")
        told = [f"`{n}` ({method.budget[n]})" if n in method.budget else str(n) for n in method.passes]
        assert [forward, back] == told, name
        assert ("rivals" in needs) == method.contrastive, name
        default = {"rectify": method.budget["rectify"]} if name == "guided_gradcam" else {}  # SMALL has another
        models = (classifier, linear)[: 1 if "ReLU" in needs else 2]
        maps = torch.cat([run(name, model, images, classes, **default) for model in models])
        assert (signed == "yes") == (not method.logarithm and bool((maps < 0).any())), name
        if "last map" in needs:
            with pytest.raises(ValueError, match="average"):
                run(name, blind, images, classes)
        else:
            assert run(name, blind, images, classes).isfinite().all(), name


def test_what_the_page_of_explainers_says_of_random_weights_holds_for_the_committed_results():
    found = json.loads((project_root() / "results/quick/sanity.json").read_text(encoding="utf-8"))["parameters"]
    kept = {name for name, of in found.items() if of["head_minus_two_strangers"]["low"] > 0}
    assert kept == {"saliency", "guided_backpropagation"}
    page = (project_root() / "book/explainers.md").read_text(encoding="utf-8")
    assert "the whole interval is above zero for saliency and guided backpropagation" in page


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("grad_cam", {}, "unknown explainer 'grad_cam'; did you mean 'gradcam'"),
        ("rise", {"mask": 3}, "rise has no setting 'mask'; did you mean 'masks'"),
        ("cam", {"output": "logit"}, "cam has no setting 'output'"),
        ("saliency", {"output": "logits"}, "output = 'logits'; did you mean 'logit'"),
        ("lime", {"superpixel": "slic"}, "superpixel = 'slic'"),
        ("lime", {"segments": 1}, "segments = 1"),
        ("saliency", {"images": torch.rand(3, 16, 16)}, r"images must be \(B, 3, H, W\)"),
        ("saliency", {"images": torch.zeros(5, 3, 16, 16, dtype=torch.uint8)}, "saliency takes floats"),
        ("saliency", {"classes": torch.zeros(4, 2, dtype=torch.long)}, r"classes must be \(5, K\)"),
        ("saliency", {"classes": torch.rand(5, 2)}, "classes must be class indices"),
        ("saliency", {"classes": torch.full((5,), 7)}, "classes must lie in 0 to 6, got 7 to 7"),
        ("sdd_sum", {"classes": torch.zeros(5, dtype=torch.long)}, "sdd_sum compares the target with rivals"),
        ("saliency", {"classes": torch.zeros(5, dtype=torch.long), "output": "contrast"}, "compares the target"),
        ("finercam", {"classes": torch.tensor([[0, 1]] * 4 + [[2, 2]])}, "classes of sample 4"),
        ("saliency", {"indices": [1, 2]}, "indices has 2 entries for 5 images"),
        ("saliency", {"batch_size": 0}, "batch_size = 0: must be a whole number, at least 1"),
        ("saliency", {"batch_size": "8"}, "batch_size = '8': must be a whole number"),
        ("lime", {"samples": 0}, "samples = 0: must be a whole number"),
        ("integrated_gradients", {"steps": 0}, "steps = 0: must be a whole number"),
        ("rise", {"masks": 2.5}, "masks = 2.5: must be a whole number"),
        (
            "saliency",
            {"images": torch.full((5, 3, 16, 16), torch.nan)},
            "sample 0, 1, 2, 3, 4 of the batch has a NaN or infinite value in images",
        ),
    ],
)
def test_bad_arguments_are_named(name, changes, said, classifier, images, classes):
    arguments = {"images": images, "classes": classes, "progress": False, **changes}
    with pytest.raises(ValueError, match=said):
        explain_with(name, classifier, **arguments)


def test_whole_numbers_of_numpy_are_whole_numbers(classifier, images, classes):
    steps, batch_size = np.arange(2, 5)[1], np.int32(2)
    given = explain_with("integrated_gradients", classifier, images, classes, steps=steps, batch_size=batch_size)
    plain = explain_with("integrated_gradients", classifier, images, classes, steps=3, batch_size=2)
    torch.testing.assert_close(given, plain)


WITHOUT_MAP = {
    "saliency": {},
    "integrated_gradients": {"steps": 2},
    "lime": {"samples": 6, "segments": 4},
    "kernel_shap": {"samples": 6, "segments": 4},
    "rise": {"masks": 4},
}


def test_a_network_that_gives_no_logits_is_refused(images, classes):
    with pytest.raises(ValueError, match="not logits"):
        explain_with("cam", nn.Conv2d(3, 7, 3), images, classes)
    with pytest.raises(ValueError, match="model must be a torch.nn.Module, got function"):
        explain_with("saliency", lambda pictures: pictures, images, classes)


def test_every_explainer_takes_a_network_of_timm():
    """As `explain` does: with the weights of its last layer, and its own logits."""
    timm = pytest.importorskip("timm")
    with seeded(3):
        model = timm.create_model("resnet18", num_classes=5).eval()
        pictures = torch.rand(2, 3, 64, 64)
    wanted = torch.tensor([[1, 0, 4], [3, 2, 0]])
    small = WITHOUT_MAP | {"integrated_gradients": {"steps": 2}}
    for name in EXPLAINERS.keys() - {"scorecam"}:  # which has a pass for each of 512 channels
        maps = explain_with(name, model, pictures, wanted, progress=False, **small.get(name, {}))
        assert maps.shape == (2, 64, 64) and maps.isfinite().all(), name
    cams = explain(model, pictures, target=wanted[:, 0], competitors=wanted[:, 1:]).upsampled_cams[:, 0]
    torch.testing.assert_close(explain_with("cam", model, pictures, wanted, progress=False), cams)
    grad = explain_with("gradcam", model, pictures, wanted, progress=False)  # CAM over the number of cells
    torch.testing.assert_close(4 * grad, cams, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="classes"):
        explain_with("saliency", model, pictures, wanted + 3, progress=False)


def test_a_vision_transformer_gets_what_needs_no_map_and_a_sentence_for_the_rest():
    timm = pytest.importorskip("timm")
    size = {"img_size": 32, "patch_size": 16, "embed_dim": 12, "depth": 1, "num_heads": 2}
    with seeded(3):
        model = timm.create_model("vit_tiny_patch16_224", num_classes=4, **size).eval()
        pictures = torch.rand(2, 3, 32, 32)
    wanted = torch.tensor([[1, 0], [3, 2]])
    for name, budget in WITHOUT_MAP.items():
        maps = explain_with(name, model, pictures, wanted, progress=False, **budget)
        assert maps.shape == (2, 32, 32) and maps.isfinite().all(), name
    for name in ("cam", "gradcam", "sdd_sum", "layercam", "scorecam"):
        with pytest.raises(ValueError, match="VisionTransformer does not feed the global average"):
            explain_with(name, model, pictures, wanted, progress=False)
    with pytest.raises(ValueError, match="needs ReLU or PReLU: without any, it is the plain gradient"):
        explain_with("guided_backpropagation", model, pictures, wanted, progress=False)


def test_a_missing_library_names_the_extra(monkeypatch, classifier, images, classes):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ImportError, match=r'needs captum: pip install "xfrlib\[explainers\]"'):
        run("saliency", classifier, images, classes)


# --- maps from the last feature map ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("registered", "large"), [(True, laid), (False, drawn)])
def test_cam_and_sdd_are_those_of_explain(registered, large, classifier, images, classes):
    expected = explain(classifier, images, target=classes[:, 0], competitors=classes[:, 1:], registered=registered)
    given = {"classes": classes, "registered": registered}
    cam = run("cam", classifier, images, **given)
    torch.testing.assert_close(cam, expected.upsampled_cams[:, 0])
    torch.testing.assert_close(cam, large(expected.cams[:, 0]))
    torch.testing.assert_close(run("sdd_sum", classifier, images, **given), expected.log_sdd)
    raw = large(raw_cams(classifier, images, classes)[:, 0])
    torch.testing.assert_close(run("cam", classifier, images, centre=False, **given), raw)
    exponential = run("exp_cam", classifier, images, delta=2.0, **given).exp()
    torch.testing.assert_close(exponential, (2 * cam).exp() / (2 * cam).exp().amax((1, 2), keepdim=True))


def test_maps_of_pixels_are_the_same_however_cells_are_laid(classifier, images, classes):
    ours = [run("saliency", classifier, images, classes, registered=flag) for flag in (True, False)]
    assert torch.equal(*ours)


def test_grad_cam_on_a_pooled_head_is_cam_over_the_number_of_positions(classifier, images, classes):
    for output, centre in (("centred_logit", True), ("logit", False)):
        ours = run("gradcam", classifier, images, classes, output=output)
        torch.testing.assert_close(ours * 16, run("cam", classifier, images, classes, centre=centre))


def test_layercam_keeps_the_positive_weights_only(classifier, images, classes):
    positive = classifier.weight.clamp(min=0)
    expected = class_activation_maps(classifier.features(images), positive, classes[:, :1]).detach()[:, 0] / 16
    torch.testing.assert_close(run("layercam", classifier, images, classes, output="logit"), laid(expected))


def library_maps(method, classifier, images, targets):
    """grad-cam hooked into the network itself, before it rectifies its maps and scales them to [0, 1]."""
    import pytorch_grad_cam

    class Signed(getattr(pytorch_grad_cam, "GradCAM" if method == "FinerCAM" else method)):
        def compute_cam_per_layer(self, pictures, targets, eigen_smooth):
            kept = self.activations_and_grads
            gradients = kept.gradients[0].numpy() if self.uses_gradients else None
            layer = self.target_layers[0]
            return self.get_cam_image(pictures, layer, targets, kept.activations[0].numpy(), gradients, eigen_smooth)

        def aggregate_multi_layers(self, maps):
            return maps

    layers = [classifier.backbone.layers[-1]]
    finer = pytorch_grad_cam.FinerCAM(classifier, layers, base_method=Signed) if method == "FinerCAM" else None
    base = finer.base_cam if finer else Signed(classifier, layers)
    maps = torch.from_numpy((finer or base)(images, targets))
    base.activations_and_grads.release()
    return drawn(maps)


@pytest.mark.parametrize("output", ["logit", "centred_logit", "contrast"])
@pytest.mark.parametrize("name", GRAD_CAM)
def test_maps_are_those_of_grad_cam_before_it_rectifies_and_scales(name, output, classifier, images, classes):
    def target_of(row):
        return lambda logits: explained_output(logits[None], row[None], output)[0]

    theirs = library_maps(GRAD_CAM[name], classifier, images, [target_of(row) for row in classes])
    ours = run(name, classifier, images, classes, output=output, registered=False)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    if name != "scorecam":  # whose passes are split into other batches
        assert torch.equal(top_fraction_mask(ours, 0.2), top_fraction_mask(theirs, 0.2))


def test_grad_cam_is_captums(classifier, images, classes):
    from captum.attr import LayerGradCam

    theirs = LayerGradCam(classifier, classifier.backbone).attribute(images, target=classes[:, 0])[:, 0]
    torch.testing.assert_close(run("gradcam", classifier, images, classes, output="logit"), laid(theirs.detach()))


def test_rectified_is_before_the_upsampling(classifier, images, classes):
    positive = class_activation_maps(classifier.features(images), classifier.weight, classes[:, :1]).clamp(min=0) / 16
    ours = run("gradcam", classifier, images, classes, output="logit", rectify=True)
    torch.testing.assert_close(ours, laid(positive[:, 0].detach()))


def test_finer_cam_against_one_rival_is_cam_minus_alpha_cam(classifier, images, classes):
    cams = raw_cams(classifier, images, classes)
    ours = run("finercam", classifier, images, classes[:, :2], alpha=0.6, centre=False)
    torch.testing.assert_close(ours * 16, laid(cams[:, 0] - 0.6 * cams[:, 1]), rtol=1e-3, atol=1e-4)
    sdd = run("sdd_sum", classifier, images, classes[:, :2], scale=1e-6)  # so that s is its lower bound, 1
    finer = 16 * run("finercam", classifier, images, classes[:, :2])
    torch.testing.assert_close(sdd, finer - finer.amax((1, 2), keepdim=True), rtol=1e-3, atol=1e-4)


def test_finer_cam_against_several_rivals_by_hand(classifier, images, classes):
    cams = raw_cams(classifier, images, classes)
    shares = classifier(images).gather(1, classes[:, 1:]).softmax(1).detach()
    expected = cams[:, 0] - 0.6 * (shares[..., None, None] * cams[:, 1:]).sum(1)
    ours = run("finercam", classifier, images, classes, alpha=0.6, centre=False)
    torch.testing.assert_close(ours * 16, laid(expected))


def test_finer_cam_holds_where_the_rivals_have_no_probability_to_speak_of(classifier, images, classes):
    """grad-cam adds 1e-9 to the sum of the rivals' probabilities: below that its gradient turns round."""
    with torch.no_grad():
        classifier.head.bias[0] += 40
    classes[:, 0], classes[:, 1:] = 0, torch.tensor([3, 5])
    assert classifier(images).softmax(1)[:, 1:].sum(1).max() < 1e-12
    fixed = run("finercam", classifier, images, classes[:, :2], registered=False)
    cams = raw_cams(classifier, images, classes)
    torch.testing.assert_close(fixed * 16, drawn(cams[:, 0] - cams[:, 1]), rtol=1e-3, atol=1e-4)
    theirs = library_maps("FinerCAM", classifier, images, finer_targets(classes[:, :2]))
    assert not torch.allclose(theirs, fixed, atol=0.1 * float(fixed.abs().max()))


def finer_targets(classes):
    from pytorch_grad_cam.utils.model_targets import FinerWeightedTarget

    return [FinerWeightedTarget(row[0], row[1:], 1.0) for row in classes.tolist()]


def test_finer_cam_of_the_library_differentiates_its_weights(classifier, images, classes):
    ours, several = (
        run("finercam", classifier, images, some, centre=False, registered=False) for some in (classes[:, :2], classes)
    )
    theirs = library_maps("FinerCAM", classifier, images, finer_targets(classes[:, :2]))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    theirs = library_maps("FinerCAM", classifier, images, finer_targets(classes))
    assert not torch.allclose(several, theirs, atol=0.05 * float(theirs.abs().max()))


@pytest.mark.parametrize("registered", [True, False])
def test_score_cam_by_a_naive_loop(registered, classifier, images, classes, capsys):
    ours = run("scorecam", classifier, images[:2], classes[:2], registered=registered)
    assert capsys.readouterr() == ("", "")  # none of the library's bars
    features = classifier.features(images[:2]).detach()
    for index in range(2):
        scores = []
        for channel in features[index]:
            mask = laid(channel[None])
            if not registered:  # as the authors' code has it
                mask = functional.interpolate(channel[None, None], size=(16, 16), mode="bilinear", align_corners=True)
            mask = (mask - mask.min()) / (mask.max() - mask.min())
            logits = classifier(images[index : index + 1] * mask)[0]
            scores.append(logits[classes[index, 0]] - logits.mean())
        weights = torch.stack(scores).softmax(0).detach()
        expected = (laid if registered else drawn)((weights[:, None, None] * features[index]).sum(0)[None])[0]
        torch.testing.assert_close(ours[index], expected, rtol=1e-4, atol=1e-6)


# --- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["centred_logit", "logit", "contrast", "probability"])
def test_saliency_is_the_gradient_of_what_is_explained(output, classifier, images, classes):
    pictures = images.clone().requires_grad_()
    logits = classifier(pictures)
    own = logits.gather(1, classes[:, :1])[:, 0]
    explained = {
        "centred_logit": own - logits.mean(1),
        "logit": own,
        "contrast": own - (logits.gather(1, classes[:, 1:2]) + logits.gather(1, classes[:, 2:]))[:, 0] / 2,
        "probability": logits.softmax(1).gather(1, classes[:, :1])[:, 0],
    }[output]
    torch.testing.assert_close(explained_output(logits, classes, output), explained)
    gradient = torch.autograd.grad(explained.sum(), pictures)[0]
    ours = run("saliency", classifier, images, classes, output=output)
    torch.testing.assert_close(ours, gradient.abs().amax(1))


class TwoUnits(nn.Module):
    """Two 1x1 filters and PReLU with slopes 0.25 and -0.5."""

    out_channels = 2

    def __init__(self, activation):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1, bias=False)
        self.conv.weight.data = torch.tensor([[1.0, 2.0, -1.0], [-3.0, 1.0, 0.5]])[..., None, None]
        self.activation = activation

    def forward(self, images):
        return self.activation(self.conv(images))


def test_guided_backpropagation_acts_on_prelu_as_computed_by_hand():
    activation = nn.PReLU(2)
    activation.weight.data = torch.tensor([0.25, -0.5])
    model = FaceClassifier(TwoUnits(activation), 2)
    model.head.weight.data = torch.tensor([[1.0, 4.0], [-2.0, -8.0]])
    # Pixel 0: units at 1 and -3; pixel 1: units at -1 and 0.5.
    image = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]).view(1, 3, 1, 2)
    # Class 0, two positions: gradients before the PReLU are (1, 4) / 2 times its slope there.
    # Pixel 0: (0.5, 2 * -0.5 = -1 -> 0), so the picture gets 0.5 (1, 2, -1): 1. The plain gradient is
    # 0.5 (1, 2, -1) - (-3, 1, 0.5) = (3.5, 0, -1): 3.5.
    # Pixel 1: (0.5 * 0.25 = 0.125, 2), both kept: (0.125 - 6, 0.25 + 2, -0.125 + 1): 5.875.
    for target, guided, plain in ((0, [1.0, 5.875], [3.5, 5.875]), (1, [6.0, 0.0], [7.0, 11.75])):
        # Class 1, gradients (-2, -8) / 2. Pixel 0: (-1 -> 0, -4 * -0.5 = 2): 2 (-3, 1, 0.5): 6. Pixel 1: both < 0: 0.
        # The plain gradient: -(1, 2, -1) + 2 (-3, 1, 0.5) = (-7, 0, 2); twice the one of class 0 at pixel 1.
        classes = torch.tensor([target])
        ours = run("guided_backpropagation", model, image, classes, output="logit")
        torch.testing.assert_close(ours, torch.tensor(guided).view(1, 1, 2))
        ours = run("saliency", model, image, classes, output="logit")
        torch.testing.assert_close(ours, torch.tensor(plain).view(1, 1, 2))


def test_captum_alone_passes_over_prelu(classifier, images, classes):
    from captum.attr import GuidedBackprop, Saliency

    pictures = images.clone().requires_grad_()
    plain = Saliency(classifier).attribute(pictures, target=classes[:, 0], abs=False)
    with pytest.warns(UserWarning, match="backward hooks on ReLU"):
        theirs = GuidedBackprop(classifier).attribute(pictures, target=classes[:, 0])
    assert torch.equal(theirs, plain)
    ours = run("guided_backpropagation", classifier, images, classes, output="logit")
    assert not torch.allclose(ours, plain.abs().amax(1), atol=0.1 * float(plain.abs().max()))


def test_with_slope_zero_the_rule_for_prelu_is_the_one_for_relu(images, classes):
    backbone = TinyBackbone()
    for index in (1, 3):
        backbone.layers[index].weight.data.zero_()
    model = FaceClassifier(backbone, 7).eval()
    prelu = run("guided_backpropagation", model, images, classes)
    for index in (1, 3):
        backbone.layers[index] = nn.ReLU()
    torch.testing.assert_close(run("guided_backpropagation", model, images, classes), prelu)


@pytest.mark.parametrize("fill", ["black", "grey"])
def test_integrated_gradients_sum_to_the_change_of_the_output(fill, classifier, images, classes):
    maps = run("integrated_gradients", classifier, images, classes, steps=128, fill=fill, batch_size=32)
    start = torch.full_like(images, {"black": 0.0, "grey": 0.5}[fill])
    change = [explained_output(classifier(x), classes, "centred_logit") for x in (images, start)]
    torch.testing.assert_close(maps.sum((1, 2)), (change[0] - change[1]).detach(), rtol=0.02, atol=0.01)


def test_deep_lift_sums_to_the_change_of_the_output_where_captum_alone_does_not(classifier, images, classes):
    from captum.attr import DeepLift

    start = torch.zeros_like(images)
    target = classes[:, 0]
    change = (classifier(images) - classifier(start)).gather(1, classes[:, :1])[:, 0].detach()
    ours = run("deep_lift", classifier, images, classes, output="logit")
    torch.testing.assert_close(ours.sum((1, 2)), change, rtol=1e-3, atol=1e-3)
    with pytest.warns(UserWarning):
        theirs = DeepLift(classifier).attribute(images, start, target=target).sum((1, 2, 3)).detach()
    assert (theirs - change).abs().max() > 0.1 * change.abs().max()  # the table is as it was: PReLU is passed over
    grey = run("deep_lift", classifier, images, classes, output="logit", fill="grey")
    assert not torch.allclose(grey, ours, atol=0.1 * float(ours.abs().max()))


def test_guided_grad_cam_is_the_product_of_its_two(classifier, images, classes):
    coarse = run("gradcam", classifier, images, classes, rectify=True)
    fine = run("guided_backpropagation", classifier, images, classes)
    torch.testing.assert_close(run("guided_gradcam", classifier, images, classes, rectify=True), coarse * fine)


def test_integrated_gradients_of_a_linear_network_are_exact(linear, images, classes):
    weight = (linear.weight - linear.weight.mean(0)) @ linear.backbone.conv.weight[:, :, 0, 0]
    expected = torch.einsum("bc,bchw->bhw", weight[classes[:, 0]], images).detach() / 256
    torch.testing.assert_close(run("integrated_gradients", linear, images, classes, steps=3), expected)


# --- perturbed pictures -----------------------------------------------------------------------------------------------


def test_rise_is_the_mean_of_masks_weighted_by_the_output(classifier, images, classes):
    ours = run("rise", classifier, images[:1], classes[:1], masks=25, cells=4, keep=0.3, batch_size=7)
    generator = torch.Generator().manual_seed(draw_seed("rise", 0, 0))
    expected = torch.zeros(16, 16)
    for mask in next(rise_masks(25, (16, 16), generator, cells=4, keep=0.3)):
        expected += classifier(images[:1] * mask).softmax(1)[0, classes[0, 0]].detach() * mask / (25 * 0.3)
    torch.testing.assert_close(ours[0], expected)


def test_rise_masks_have_the_mean_they_should_at_every_pixel():
    masks = torch.cat(list(rise_masks(4000, (16, 20), torch.Generator().manual_seed(0), cells=4, keep=0.3)))
    assert masks.shape == (4000, 16, 20) and masks.min() >= 0 and masks.max() <= 1 + 1e-6
    error = masks.std(0) / 4000**0.5
    assert ((masks.mean(0) - 0.3).abs() < 5 * error).all()
    whole = torch.cat(list(rise_masks(10, (16, 20), torch.Generator().manual_seed(0), batch_size=3)))
    assert torch.equal(whole, next(rise_masks(10, (16, 20), torch.Generator().manual_seed(0), batch_size=10)))


def test_rise_finds_the_only_pixels_that_count(linear, images, classes):
    """On a linear network and one bright spot the expectation is the spot's share times how masks vary together."""
    linear.head.bias.data.zero_()
    image = torch.zeros(1, 3, 16, 16)
    image[:, :, 4:6, 10:12] = 1
    found = run("rise", linear, image, classes[:1], masks=3000, cells=4, output="centred_logit")[0]
    effect = explained_output(linear(image), classes[:1], "centred_logit").detach()
    masks = torch.cat(list(rise_masks(20000, (16, 16), torch.Generator().manual_seed(5), cells=4)))
    together = (masks[:, 4:6, 10:12].mean((1, 2))[:, None, None] * masks).mean(0) / 0.5
    torch.testing.assert_close(found, effect * together, rtol=0.1, atol=0.02 * float(effect.abs()))


def segment_sums(model, images, classes, **settings):
    """What each superpixel adds to the centred logit of a linear network, and the segments."""
    weight = (model.weight - model.weight.mean(0)) @ model.backbone.conv.weight[:, :, 0, 0]
    pixels = torch.einsum("bc,bchw->bhw", weight[classes[:, 0]], images).detach() / 256
    maps = []
    for image, values in zip(images, pixels, strict=True):
        parts = superpixels(image, 9, **settings)
        sums = torch.zeros(int(parts.max()) + 1).index_add(0, parts.flatten(), values.flatten())
        maps.append(sums[parts])
    return torch.stack(maps)


@pytest.mark.parametrize("kind", ["grid", "kmeans"])
def test_lime_and_shap_recover_what_each_superpixel_adds_to_a_linear_network(
    kind, linear, images, classes, monkeypatch
):
    expected = segment_sums(linear, images, classes, kind=kind)
    tolerance = {"rtol": 1e-2, "atol": 2e-3 * float(expected.abs().max())}
    settings = {"samples": 80, "segments": 9, "superpixel": kind}
    torch.testing.assert_close(run("kernel_shap", linear, images, classes, **settings), expected, **tolerance)
    monkeypatch.setattr(lime_and_shap, "LIME_RIDGE", 1e-6)
    torch.testing.assert_close(run("lime", linear, images, classes, **settings), expected, **tolerance)


def test_shap_values_sum_to_the_change_of_the_output(classifier, images, classes):
    maps = run("kernel_shap", classifier, images, classes, superpixel="grid", samples=60)
    parts = superpixels(images[0], 9, kind="grid")
    sizes = torch.bincount(parts.flatten())[parts]
    change = [explained_output(classifier(x), classes, "centred_logit") for x in (images, torch.zeros_like(images))]
    torch.testing.assert_close((maps / sizes).sum((1, 2)), (change[0] - change[1]).detach(), rtol=1e-2, atol=1e-3)


def test_superpixels_follow_the_colours():
    image = torch.zeros(3, 24, 24)
    image[0, :, 9:] = 1  # an edge that no grid of three columns has
    grid, kmeans = (superpixels(image, 9, kind=kind).numpy() for kind in ("grid", "kmeans"))
    assert np.unique(grid).tolist() == list(range(9)) and (np.bincount(grid.ravel()) == 64).all()
    assert kmeans.min() == 0 and len(np.unique(kmeans)) == kmeans.max() + 1
    assert not set(kmeans[:, :9].ravel()) & set(kmeans[:, 9:].ravel())
    assert set(grid[:, :9].ravel()) & set(grid[:, 9:].ravel())


def test_paired_samples_of_shap_agree_better_than_captums_own(classifier, images, classes, monkeypatch):
    from captum.attr import KernelShap

    plain = dataclasses.replace(EXPLAINERS["kernel_shap"], make=over_superpixels(lambda: KernelShap))
    monkeypatch.setitem(EXPLAINERS, "plain", plain)
    settings = {"samples": 80, "segments": 16, "superpixel": "grid"}
    classifier.head.weight.data *= 3
    spread = {
        name: (
            run(name, classifier, images, classes, **settings)
            - run(name, classifier, images, classes, seed=1, **settings)
        ).norm()
        for name in ("kernel_shap", "plain")
    }
    assert spread["kernel_shap"] < 0.7 * spread["plain"]

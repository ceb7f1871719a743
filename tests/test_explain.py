"""explain: one pass, the right classes, maps that do not depend on an arbitrary shift of the weights, bad input."""

import pytest
import torch
import torch.nn.functional as F

from xfrlib import class_activation_maps, deletion_retention, explain, scaled_directed_divergence
from xfrlib.geometry import Geometry, cell_geometry
from xfrlib.sdd import Divergence

FIVE = Divergence(scale=5.0)


def test_the_parts_agree_with_the_functions_they_come_from(classifier, images):
    result = explain(classifier, images, top_k=4)
    logits = classifier(images)
    assert torch.equal(result.classes, logits.topk(4, dim=1).indices)
    torch.testing.assert_close(result.probabilities, logits.softmax(1).gather(1, result.classes))
    weight = classifier.weight - classifier.weight.mean(0)
    cams = class_activation_maps(classifier.features(images), weight, result.classes)
    torch.testing.assert_close(result.cams, cams)
    log_sdd = scaled_directed_divergence(cams, size=(16, 16), geometry=result.geometry, log=True)
    torch.testing.assert_close(result.log_sdd, log_sdd)
    torch.testing.assert_close(result.sdd, result.log_sdd.exp())
    assert result.sdd.shape == (5, 16, 16) and not result.sdd.requires_grad


def test_maps_lie_where_their_cells_look_or_as_libraries_draw_them(classifier, images):
    """The cells of the classifier look at every fourth pixel, the first at the first."""
    at_one = Divergence(scale_min=1.0, scale_max=1.0)  # s is computed from the cells, before they are laid
    result, drawn = (explain(classifier, images, registered=flag, divergence=at_one) for flag in (True, False))
    assert result.geometry == cell_geometry(classifier.features, images) == Geometry((4, 4), (0, 0))
    assert torch.equal(result.upsampled_cams[..., ::4, ::4], result.cams)
    differences = (result.upsampled_cams[:, :1] - result.upsampled_cams[:, 1:]).logsumexp(dim=1)
    torch.testing.assert_close(result.log_sdd, differences - differences.amax((1, 2), keepdim=True))
    assert drawn.geometry == Geometry.drawn((4, 4), (16, 16)) and torch.equal(drawn.cams, result.cams)
    large = F.interpolate(drawn.cams, size=(16, 16), mode="bilinear", align_corners=False)
    torch.testing.assert_close(drawn.upsampled_cams, large, rtol=0, atol=1e-5)
    log_sdd = scaled_directed_divergence(large, at_one, log=True)
    torch.testing.assert_close(drawn.log_sdd, log_sdd, rtol=0, atol=1e-5)


def test_only_one_forward_pass_and_none_backward(classifier, images):
    pictures = []
    classifier.backbone.register_forward_hook(lambda _, __, output: pictures.append(len(output)))
    explain(classifier, images)
    assert sorted(pictures) == [1, 5]  # one picture more finds where the cells of a new network look
    explain(classifier, images)
    assert pictures[2:] == [5]
    assert all(p.grad is None for p in classifier.parameters())


def test_the_batch_does_not_matter(classifier, images):
    whole = explain(classifier, images)
    for index in range(len(images)):
        torch.testing.assert_close(explain(classifier, images[index : index + 1]).log_sdd[0], whole.log_sdd[index])


def test_a_target_and_rivals_by_hand(classifier, images):
    result = explain(classifier, images, target=3, competitors=[0, 6])
    assert result.classes.tolist() == [[3, 0, 6]] * 5
    result = explain(classifier, images, target=[0, 1, 2, 3, 4], competitors=torch.tensor([[5], [6], [5], [6], [5]]))
    assert result.classes.tolist() == [[0, 5], [1, 6], [2, 5], [3, 6], [4, 5]]
    result = explain(classifier, images, target=3, top_k=7)
    assert (
        result.classes[:, 0].tolist() == [3] * 5 and result.classes.sort(dim=1).values.tolist() == [list(range(7))] * 5
    )


def test_a_shift_of_all_weight_rows_changes_nothing_unless_maps_are_asked_for_raw(classifier, images):
    before, raw_before = (
        explain(classifier, images, divergence=Divergence(scale=5.0)),
        explain(classifier, images, divergence=Divergence(scale=5.0), centre=False),
    )
    classifier.head.weight.data += torch.randn(6, generator=torch.Generator().manual_seed(1)) * 3
    after, raw_after = (
        explain(classifier, images, divergence=Divergence(scale=5.0)),
        explain(classifier, images, divergence=Divergence(scale=5.0), centre=False),
    )
    torch.testing.assert_close(before.probabilities, after.probabilities, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(before.log_sdd, after.log_sdd, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(raw_before.log_sdd, raw_after.log_sdd, atol=0.1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"top_k": 1}, "top_k = 1: must be between 2 and the number of classes, 7"),
        ({"top_k": 8}, "top_k = 8"),
        ({"target": 7}, "target must lie in 0 to 6, got 7 to 7"),
        ({"target": [1, 2]}, r"target has shape \(2,\); it must broadcast to \(5,\)"),
        ({"target": 1.5}, "target must be class indices"),
        ({"target": 1, "competitors": [1, 2]}, "without the target 1"),
        ({"target": 1, "competitors": [2, 2]}, "must be distinct"),
        ({"competitors": []}, "competitors"),
        ({"competitors": 3}, "competitors"),
        ({"detla": 1.0}, "detla"),
    ],
)
def test_bad_arguments_are_named(classifier, images, arguments, said):
    with pytest.raises((ValueError, TypeError), match=said):
        explain(classifier, images, **arguments)


def test_one_picture_without_its_batch_axis_says_how_to_add_it(classifier, images):
    with pytest.raises(ValueError, match=r"images\[None\]"):
        explain(classifier, images[0])


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (lambda model: None, "NoneType"),
        (lambda model: "model.pth", "str"),
        (lambda model: lambda pictures: model(pictures), "function"),
        (lambda model: type(model), "type"),
        (lambda model: model.state_dict(), "OrderedDict"),
    ],
)
def test_what_is_no_network_is_named(classifier, images, made, kind):
    masks = torch.zeros(5, 16, 16, dtype=torch.bool)
    for asked in (lambda model: explain(model, images), lambda model: deletion_retention(model, images, masks)):
        with pytest.raises(ValueError, match=f"model must be a torch.nn.Module, got {kind}"):
            asked(made(classifier))


@pytest.mark.parametrize("spoilt", [lambda x: x.to_sparse(), lambda x: x.to("meta"), lambda x: x.to(torch.complex64)])
def test_tensors_that_hold_no_plain_numbers_are_refused(classifier, images, spoilt):
    masks = torch.zeros(5, 16, 16, dtype=torch.bool)
    with pytest.raises(ValueError, match="images must be dense and real"):
        explain(classifier, spoilt(images))
    with pytest.raises(ValueError, match="images must be dense and real"):
        deletion_retention(classifier, spoilt(images), masks)
    with pytest.raises(ValueError, match="masks must be dense and real"):
        deletion_retention(classifier, images, spoilt(masks))

"""Figures: what is drawn is what was given, on the scale that the labels say, and no global state changes."""

import io
import re
import types

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from studies import figures
from xfrlib import explain, plots, top_fraction_mask
from xfrlib.geometry import upsampled

HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2, 3],
        "train_loss": [2.0, 1.0, 0.5],
        "validation_loss": [2.5, 1.5, 1.6],
        "train_accuracy": [0.3, 0.6, 0.9],
        "validation_accuracy": [0.2, 0.7, 0.7],
    }
)


def picture_axes(figure):
    return [axis for axis in figure.axes if axis.images]


def as_grey(image):
    return (image * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=0)[..., None].numpy()


def test_style_and_figures_leave_matplotlib_as_it_was(images):
    import matplotlib.pyplot as plt

    before = dict(mpl.rcParams)
    with plots.style():
        assert mpl.rcParams["svg.hashsalt"] == "xfrlib"
    figure = figures.contact_sheet(images)
    assert isinstance(figure, Figure)
    figure._repr_mimebundle_()
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []


def test_pictures_are_the_same_from_tensors_and_arrays():
    array = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    tensor = torch.from_numpy(array).movedim(-1, 1)
    expected = array.astype(np.float32) / 255
    for given in (array, tensor, tensor.float() / 255, expected):
        np.testing.assert_allclose(plots.as_pictures(given), expected, atol=1e-7)
    np.testing.assert_array_equal(plots.as_pictures(array[0])[0], plots.as_pictures(tensor[0])[0])


@pytest.mark.parametrize("bad", [torch.zeros(4, 5), torch.zeros(2, 1, 4, 5), np.zeros((2, 3, 4, 5))])
def test_pictures_of_another_shape_are_refused(bad):
    with pytest.raises(ValueError, match="tensors \\(n, 3, H, W\\) or arrays \\(n, H, W, 3\\)"):
        plots.as_pictures(bad)


def test_overlay_draws_each_pixel_and_scales_signed_maps_about_zero(images):
    _, axis = plots.subplots()
    values = upsampled(torch.tensor([[-3.0, 1.0], [0.0, 2.0]]), (16, 16))
    drawn = plots.overlay(axis, images[0], values, cmap=plots.DIVERGING)
    colour = mpl.colormaps[plots.DIVERGING]((values.numpy() + 3) / 6)[..., :3]
    cover = 0.85 * values.abs().numpy()[..., None] / 3  # where the map says nothing, the picture shows
    np.testing.assert_allclose(axis.images[0].get_array(), (1 - cover) * as_grey(images[0]) + cover * colour, atol=1e-6)
    assert drawn.get_clim() == (-3.0, 3.0)
    grey, red = drawn.to_rgba([0.0, 3.0])[:, :3]  # the bar has the colours that lie over light grey
    np.testing.assert_allclose(grey, 0.75, atol=0.01)
    np.testing.assert_allclose(red, 0.15 * 0.75 + 0.85 * np.array(mpl.colormaps[plots.DIVERGING](1.0))[:3], atol=1e-6)
    assert plots.overlay(axis, images[0], values.abs()).get_clim() == (0.0, 3.0)
    assert plots.overlay(axis, images[0], values, limits=(-1, 5)).get_clim() == (-1, 5)
    for bad in (values[None], values[:7, :7], values[:, 1:]):  # a map of cells says not where they look
        with pytest.raises(ValueError, match=r"expected one map \(16, 16\), of the picture's size, got"):
            plots.overlay(axis, images[0], bad)


def test_signed_maps_tell_their_sign_without_colour(images):
    _, axis = plots.subplots()
    values = upsampled(torch.tensor([[-4.0, 4.0], [-4.0, 4.0]]), (16, 16))
    plots.overlay(axis, images[0], values, cmap=plots.DIVERGING)
    negative, positive = axis.collections
    assert [line.levels.tolist() for line in (negative, positive)] == [[-2.0], [2.0]]
    dashed, solid = (line.get_linestyle()[0][1] for line in (negative, positive))
    assert dashed and not solid
    for line, left in ((negative, True), (positive, False)):
        assert ((line.get_paths()[0].vertices[:, 0] < 7.5) == left).all()  # each on its side of the middle
    _, plain = plots.subplots()
    plots.overlay(plain, images[0], torch.rand(16, 16))
    plots.overlay(plain, images[0], torch.rand(16, 16) * 0.1, cmap=plots.DIVERGING, limits=(-1, 1))
    assert not plain.collections  # maps from zero up have none, nor what stays below half the scale


def test_a_gentle_map_runs_from_e_to_the_minus_four_to_one():
    log_sdd = torch.tensor([[[0.0, -40.0], [-10.0, -1.0]], [[-2.0, 0.0], [-1.0, -0.5]], [[0.0, 0.0], [0.0, 0.0]]])
    gentle = log_sdd * plots.gentle_power(log_sdd)
    assert gentle.amin(dim=(1, 2)).tolist() == [-4.0, -4.0, 0.0]
    torch.testing.assert_close(gentle[0], log_sdd[0] / 10)


def test_contact_sheet_shows_every_picture_once(images):
    masks = torch.zeros(5, 16, 16, dtype=torch.bool)
    masks[3, 4:9, 4:9] = True
    figure = figures.contact_sheet(images, list("abcde"), columns=3, rows=["first", "second"], outlines=masks)
    shown = picture_axes(figure)
    assert [axis.get_title() for axis in shown] == list("abcde")
    np.testing.assert_array_equal(shown[3].images[0].get_array(), plots.as_pictures(images)[3])
    assert [len(axis.collections) for axis in shown] == [0, 0, 0, 2, 0]  # an outline and its black edge
    assert [text.get_text() for axis in figure.axes for text in axis.texts] == ["first", "second"]


def test_cams_share_one_labelled_scale(images):
    cams = torch.stack([torch.full((16, 16), -4.0), torch.full((16, 16), 1.0)])
    figure = figures.cam_row(images[0], cams, ["one", "two"])
    first, *maps = picture_axes(figure)[:3]
    assert [axis.get_title() for axis in (first, *maps)] == ["picture", "one", "two"]
    red, blue = ScalarMappable(Normalize(-4, 4), plots.DIVERGING).to_rgba([1.0, -4.0])[:, :3]
    grey = as_grey(images[0])
    np.testing.assert_allclose(maps[0].images[0].get_array(), 0.15 * grey + 0.85 * blue, atol=1e-6)
    cover = 0.85 / 4
    np.testing.assert_allclose(maps[1].images[0].get_array(), (1 - cover) * grey + cover * red, atol=1e-6)
    assert plots.CAM_UNIT + plots.HALVES in [axis.get_xlabel() for axis in figure.axes]


def test_subject_figure_has_what_figure_3_of_the_paper_has(classifier, images):
    explanation = explain(classifier, images, top_k=4)
    names = [f"person {i}" for i in range(7)]
    samples = torch.rand(4, 3, 16, 16)
    figure = figures.subject_figure(samples, images[2], explanation, names, index=2)
    (picture, sdd), *people = np.array(picture_axes(figure)[:10]).reshape(5, 2)
    np.testing.assert_array_equal(picture.images[0].get_array(), plots.as_pictures(images)[2])
    heat = plots.tint(images[2], explanation.sdd[2], ScalarMappable(Normalize(0, 1)))
    np.testing.assert_allclose(sdd.images[0].get_array(), heat, atol=1e-6)
    assert len(sdd.collections) == 2  # the outline of the top pixels
    high = float(explanation.cams[2].abs().max())
    signed = ScalarMappable(Normalize(-high, high), plots.DIVERGING)
    for i, (label, (face, place)) in enumerate(zip(explanation.classes[2].tolist(), people, strict=True)):
        probability = plots.percent(explanation.probabilities[2, i])
        assert face.get_title().split("\n") == [f"person {label}", probability]
        np.testing.assert_array_equal(face.images[0].get_array(), plots.as_pictures(samples)[i])
        cam = plots.tint(images[2], explanation.upsampled_cams[2, i], signed)
        np.testing.assert_allclose(place.images[0].get_array(), cam, atol=1e-6)
    assert {axis.get_xlabel() for axis in figure.axes} == {"", plots.CAM_UNIT + plots.HALVES, "SDD (relative)"}
    with pytest.raises(ValueError, match="3 samples for 4 classes"):
        figures.subject_figure(samples[:3], images[2], explanation, names, index=2)


def test_training_curves_mark_the_first_of_equally_good_epochs():
    figure = figures.training_curves(HISTORY)
    loss, accuracy = figure.axes
    np.testing.assert_allclose(accuracy.lines[0].get_ydata(), [30, 60, 90])
    np.testing.assert_allclose(loss.lines[1].get_ydata(), HISTORY["validation_loss"])
    assert list(accuracy.lines[2].get_xdata()) == [2, 2]
    assert "best epoch (3)" in figures.training_curves(HISTORY, best_epoch=3).axes[0].get_legend().texts[2].get_text()


def test_deletion_figure_shows_what_was_deleted_and_kept(classifier, images):
    explanation = explain(classifier, images, top_k=3)
    mask = top_fraction_mask(explanation.log_sdd)[0]
    row = figures.MaskedPicture("SDD", explanation.sdd[0], mask, images[0] * ~mask, images[0] * mask, 0.25, 0.5)
    shown = picture_axes(figures.deletion_figure(images[0], 0.75, [row]))[:4]
    share = plots.percent(float(mask.float().mean()))
    titles = ["original 75 %", f"SDD line: top {share}", "deleted 25 %", "retained 50 %"]
    titles = [title.replace("\u00a0", " ") for title in titles]
    assert [" ".join(axis.get_title().split()) for axis in shown] == titles
    together = shown[2].images[0].get_array() + shown[3].images[0].get_array()
    np.testing.assert_allclose(together, plots.as_pictures(images)[0], atol=1e-6)


def interval_table():
    return pd.DataFrame(
        [
            {"method": "SDD", "measure": "drop", "value": 60.0, "low": 55.0, "high": 63.0, "paper": 62.33},
            {"method": "disc", "measure": "drop", "value": 70.0, "low": 68.0, "high": 75.0, "paper": np.nan},
            {"method": "disc", "measure": "change", "value": 30.0, "low": 28.0, "high": 35.0, "paper": np.nan},
        ]
    )


def test_interval_plot_puts_every_number_on_its_line():
    figure = figures.interval_plot(interval_table(), better={"drop": "higher"})
    drop, change = figure.axes
    assert (drop.get_title(), change.get_title()) == ("drop\n(higher is better)", "change")
    assert [text.get_text() for text in drop.get_yticklabels()] == ["SDD", "disc"]
    assert drop.get_ylim()[0] > drop.get_ylim()[1]  # the first method is above
    points = [(list(line.get_xdata()), list(line.get_ydata())) for line in drop.lines]
    for expected in (([55, 63], [0, 0]), ([60], [0]), ([62.33], [0]), ([68, 75], [1, 1]), ([70], [1])):
        assert expected in points
    hollow = [line for line in drop.lines if line.get_marker() == "D"]
    assert [line.get_markerfacecolor() for line in hollow] == ["none"] * len(hollow)
    sdd, disc = [line for line in drop.lines if line.get_marker() in ("o", "s")]
    assert sdd.get_color() != disc.get_color() and sdd.get_marker() != disc.get_marker()  # SDD is set off
    assert [list(line.get_ydata()) for line in change.lines if line.get_marker() == "o"] == [[1]]


def test_notebooks_get_vectors_for_curves_and_pixels_for_pictures(images):
    vector = figures.training_curves(HISTORY)._repr_mimebundle_()
    assert list(vector) == ["image/svg+xml"] and vector["image/svg+xml"].startswith("<?xml")
    assert vector == figures.training_curves(HISTORY)._repr_mimebundle_()  # no date, no random names
    pixels = figures.contact_sheet(images)._repr_mimebundle_()
    assert list(pixels) == ["image/png"] and pixels["image/png"].startswith(b"\x89PNG")
    buffer = io.BytesIO()
    plots.save(figures.training_curves(HISTORY), buffer, "svg")
    assert buffer.getvalue().decode() == vector["image/svg+xml"]


def named(name):
    figure, axis = plots.subplots(size=(2, 1))
    axis.set_title(name)
    return figure, axis.title


def test_a_name_is_drawn_with_an_installed_font_that_has_its_letters(monkeypatch):
    fonts = {"DejaVu Sans": set("Zoë"), "Han": {"王"}, "Last Resort": {"王", "明", "ش"}}
    entries = [types.SimpleNamespace(name=name, fname=name) for name in fonts]
    drawn = {name: named(name) for name in ("Zoë", "Zoë 王", "王 明")}
    monkeypatch.setattr(plots.font_manager.fontManager, "ttflist", entries)
    monkeypatch.setattr(plots.font_manager, "findfont", lambda wanted: wanted.get_family()[0])
    monkeypatch.setattr(plots, "_letters", lambda font: frozenset(fonts[font]))
    for name, families, lost in (
        ("Zoë", ["DejaVu Sans"], []),
        ("Zoë 王", ["DejaVu Sans", "Han"], []),
        ("王 明", ["DejaVu Sans", "Han"], [f"{plots._LOST} U+660E"]),
    ):
        figure, title = drawn[name]
        for _ in range(2):  # a figure may be saved twice, and says it once
            plots._find_fonts(figure)
        assert title.get_fontfamily() == families
        assert [text.get_text() for text in figure.texts] == lost


def test_a_figure_with_letters_that_no_font_has_says_so_in_its_file():
    plain = named("Zoë")[0]._repr_mimebundle_()["image/svg+xml"]
    with pytest.warns(UserWarning, match="missing from font.s. DejaVu Sans.$"):  # matplotlib's own
        lacking = named("\U00012000")[0]._repr_mimebundle_()["image/svg+xml"]  # cuneiform
    height = [float(re.search(r'height="([\d.]+)pt"', svg)[1]) for svg in (plain, lacking)]
    assert height[1] > height[0] + 5  # a line more


@pytest.mark.parametrize(
    ("own", "used"),
    [({}, ["DejaVu Sans"]), ({"font.family": "STIXGeneral"}, ["STIXGeneral"]), ({"font.family": "serif"}, ["serif"])],
)
def test_a_font_that_the_reader_has_set_stays(own, used):
    with mpl.rc_context(own), plots.style():
        assert mpl.rcParams["font.family"] == used
        assert named("Ann")[1].get_fontfamily() == used
        with plots.style():
            assert mpl.rcParams["font.family"] == used


@pytest.mark.parametrize(
    ("probability", "text"),
    [
        *((0, "0 %"), (0.0004, "< 0.1 %"), (0.004, "0.4 %"), (0.01, "1 %"), (0.5, "50 %")),
        *((0.99, "99 %"), (0.996, "99.6 %"), (0.9999, "> 99.9 %"), (1, "100 %")),
    ],
)
def test_percent_never_rounds_to_certainty(probability, text):
    assert plots.percent(probability) == text.replace(" ", "\u00a0")


def test_a_text_of_a_generic_family_is_drawn() -> None:
    figure, axes = plots.subplots(size=(2, 1))
    axes.text(0.5, 0.5, "generic", family="sans-serif")  # a hyphen means something else in a pattern of fontconfig
    buffer = io.BytesIO()
    plots.save(figure, buffer, "svg")
    assert b"<svg" in buffer.getvalue()

"""The panel without a browser: controls change pictures, errors are sentences, and nothing is computed twice."""

import pandas as pd
import pytest
import torch

pytest.importorskip("ipywidgets")

from xfrlib import explain
from xfrlib.explorer import explorer


class Faces(torch.utils.data.Dataset):
    """Two pictures of each of four people."""

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
def panel(classifier):
    calls = []
    classifier.register_forward_hook(lambda *_: calls.append(1))
    made = explorer(classifier, Faces(), top_k=3, delta=0.5)
    made.calls = calls
    return made


def tile(panel, name):
    return bytes(panel.tiles[name].value)


def test_the_first_picture_is_explained_at_once(panel, classifier):
    expected = explain(classifier, panel.dataset.images[:1], top_k=3, delta=0.5)
    torch.testing.assert_close(panel.explanation.sdd, expected.sdd)
    assert panel.explanation.classes.tolist() == expected.classes.tolist()
    assert set(panel.rivals.value) == set(expected.classes[0, 1:].tolist())
    assert list(panel.tiles) == ["picture", "sdd", "mask", "deleted", "retained", "cam 0", "cam 1", "cam 2"]
    assert all(tile(panel, name).startswith(b"\x89PNG") for name in panel.tiles)
    assert panel.answers["probability"] == pytest.approx(float(expected.probabilities[0, 0]), rel=1e-5)


def test_map_settings_need_no_pass_unless_the_mask_changes(panel):
    panel.form.value = "product"  # its order of pixels, so its mask, is the same for every delta
    calls, before, mask = len(panel.calls), tile(panel, "sdd"), tile(panel, "mask")
    panel.delta.value = 3.0
    assert tile(panel, "sdd") != before
    assert tile(panel, "mask") == mask
    assert len(panel.calls) == calls
    panel.fraction.value = 0.5
    assert tile(panel, "mask") != mask
    assert len(panel.calls) == calls + 2  # deletion and retention, not the picture again


def test_every_setting_reaches_the_map(panel):
    maps = {tile(panel, "sdd")}
    for name, value in {"delta": 2.0, "scale_min": 5.0, "scale": 30.0, "form": "local_softmax"}.items():
        getattr(panel, name).value = value
        maps.add(tile(panel, "sdd"))
    assert len(maps) == 5


def test_a_picture_goes_through_the_network_once(panel):
    first = tile(panel, "picture")
    panel.picture.value = 1
    assert tile(panel, "picture") != first
    calls = len(panel.calls)
    panel.picture.value = 0
    assert tile(panel, "picture") == first
    assert len(panel.calls) == calls + 2  # its masks only


def test_another_subject_brings_its_pictures_and_rivals(panel):
    panel.subject.value = 2
    assert [row for _, row in panel.picture.options] == [4, 5]
    assert panel.picture.value == 4
    target = int(panel.explanation.classes[0, 0])
    assert target not in [label for _, label in panel.rivals.options]
    rival = panel.rivals.options[-1][1]
    panel.rivals.value = (rival,)
    assert panel.explanation.classes.tolist() == [[target, rival]]
    assert len(panel._maps.children) == 2


def test_errors_are_sentences_and_go_away(panel):
    chosen = panel.rivals.value
    panel.rivals.value = ()
    assert "no rival is chosen" in panel.status.value
    panel.rivals.value = chosen
    assert "Cannot" not in panel.status.value
    panel.model.train()
    panel.fraction.value = 0.4
    assert "training mode" in panel.status.value


def test_names_are_shown_as_text_not_as_markup(classifier):
    faces = Faces()
    faces.identities = ["<b>bold</b>"] * 7
    panel = explorer(classifier, faces, top_k=2)
    assert "<b>bold" not in panel.status.value + panel._captions["picture"].value
    assert "&lt;b&gt;bold" in panel._captions["picture"].value

"""Profiles: every field is checked, and an error names the field and the mend."""

import re

import pytest

from xfrlib.profile import Profile, data_root, load_profile, project_root


@pytest.mark.parametrize("path", sorted((project_root() / "profiles").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_profile_in_the_repository_loads(path):
    profile = load_profile(path.stem)
    assert profile.name == path.stem
    assert profile.title != profile.name


def test_real_profiles_use_the_papers_recipe():
    for name in ("facescrub12", "lfw"):
        profile = load_profile(name)
        recipe = (
            profile.learning_rate,
            profile.epochs,
            profile.lr_step,
            profile.lr_gamma,
            profile.backbone_learning_rate,
        )
        assert recipe == (0.005, 20, 10, 0.1, None)
        assert profile.shows_real_people and not profile.publishable


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"top_k": 0}, "top_k = 0: must be at least 2"),
        ({"top_k": 2.5}, "top_k = 2.5: must be int"),
        ({"top_k": True}, "must be int, not bool"),
        ({"tpo_k": 3}, "unknown parameter 'tpo_k'; did you mean 'top_k'"),
        ({"delta": -1}, "delta = -1.0: must be a positive"),
        ({"delta": float("nan")}, "delta = nan"),
        ({"weight_decay": float("inf")}, "weight_decay = inf: must be at least 0 and finite"),
        ({"max_images": 0}, "max_images = 0: must not be below min_images"),
        ({"judging_fills": ["grey"]}, "grey chooses the settings"),
        ({"form": "summe"}, "use one of sum, product, local_softmax"),
        ({"fills": ["black", "pink"]}, "fills"),
        ({"fills": []}, "fills"),
        (
            {"fills": "black, grey"},
            "fills = 'black, grey': must be a list, as in papermill -y \"fills: [black, grey]\"",
        ),
        ({"fills": 3}, 'must be a list, as in papermill -y "fills: [3]"'),
        ({"fills": "[black, pink]"}, "fills = 'pink': use one of"),
        ({"fractions": "[0.9, 0.2, -0.1]"}, "fractions = -0.1: must lie between 0 and 1"),
        ({"fraction": 1}, "fraction = 1.0"),
        ({"fractions": [0.8, 0.1]}, "fractions"),
        ({"scale_max": 0.5}, "scale_max = 0.5: must not be below scale_min"),
        ({"max_images": 2}, "max_images = 2"),
        ({"dataset": "folder"}, "folder = ''"),
    ],
)
def test_an_impossible_value_is_named(change, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        load_profile("quick").replace(**change)


def test_whole_numbers_pass_as_floats_and_lists_as_tuples():
    profile = load_profile("quick").replace(delta=2, fills=["grey"])
    assert profile.delta == 2.0 and isinstance(profile.delta, float)
    assert profile.fills == ("grey",)
    assert Profile(**profile.as_dict()) == profile
    assert load_profile("quick").replace(weight_decay="1e-4").weight_decay == 1e-4  # as YAML reads 1e-4
    for text in ("5", "0.5"):  # put in quotes, which nobody does who means a number
        with pytest.raises(ValueError, match=f"weight_decay = '{text}': must be float, not str"):
            load_profile("quick").replace(weight_decay=text)


@pytest.mark.parametrize("text", ["[black, grey]", "['black','grey']", ' ["black", "grey"] '])
def test_a_list_may_come_as_the_text_that_papermill_makes_of_it(text):
    assert load_profile("quick").replace(fills=text).fills == ("black", "grey")
    assert load_profile("quick").replace(fractions="[0.7, 0.2, .1]").fractions == (0.7, 0.2, 0.1)


def test_a_file_with_an_unknown_field_or_no_dataset_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("dataset: synthetic\nepoch: 3\n")
    with pytest.raises(ValueError, match="mine.yaml.*'epoch'; did you mean 'epochs'"):
        load_profile(path)
    path.write_text("epochs: 3\n")
    with pytest.raises(ValueError, match="dataset is missing"):
        load_profile(path)
    path.write_text("- 3\n")
    with pytest.raises(ValueError, match="mapping"):
        load_profile(path)


def test_an_unknown_profile_lists_the_known_ones():
    with pytest.raises(FileNotFoundError, match="facescrub12, heads, lfw.*quick"):
        load_profile("quik")


def test_data_root_prefers_the_argument_then_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XFR_DATA", str(tmp_path))
    assert data_root() == tmp_path
    assert data_root(tmp_path / "mine") == tmp_path / "mine"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_root("~/faces") == tmp_path / "faces"
    (tmp_path / "p.yaml").write_text("dataset: synthetic\n")
    assert load_profile("~/p.yaml").name == "p"
    monkeypatch.delenv("XFR_DATA")
    assert data_root() == project_root() / "data"

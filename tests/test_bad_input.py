"""What ``bad_input.py`` found is mended: one sentence each."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bad_input import KINDS
from faults import WORKS, of_all
from parameters import start
from safetensors.torch import save_file
from test_any_model import HALF, Net
from torch import Tensor

from xfrlib import Divergence, class_activation_maps, deletion_retention, explain, should_show, top_fraction_mask
from xfrlib.artifacts import project_root
from xfrlib.models.backbones import IResNet
from xfrlib.models.weights import read_safetensors
from xfrlib.profile import load_profile
from xfrlib.run import ParameterError

MAPS, FEATURES, WEIGHT, CLASSES = (
    torch.rand(2, 8, 8),
    torch.rand(2, 4, 3, 3),
    torch.rand(5, 4),
    torch.zeros(2, 2).long(),
)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: top_fraction_mask(MAPS.numpy()), "maps must be a tensor"),
        (lambda: top_fraction_mask(MAPS[:, :, :0]), "expected maps"),
        (lambda: top_fraction_mask(MAPS, "0.2"), "fraction = '0.2': must lie between 0 and 1"),
        (lambda: class_activation_maps(FEATURES, WEIGHT, [[0, 1]]), "classes must be a tensor"),
        (lambda: class_activation_maps(FEATURES, WEIGHT, CLASSES.bool()), "classes must be class indices"),
        (lambda: class_activation_maps(FEATURES.half(), WEIGHT, CLASSES), "floats of one kind"),
        (lambda: class_activation_maps(FEATURES / 0, WEIGHT, CLASSES), "sample 0, 1 .* in its maps: features and"),
        (lambda: Divergence(delta="1"), "delta = '1': must be a positive number"),
    ],
)
def test_what_is_no_map_or_number_is_named(call: Callable[[], Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"temperature": 0.0}, "temperature = 0.0: must be a positive number"),
        ({"logits": torch.rand(5, 4)}, r"logits must be those of the model, \(5, 5\), got \(5, 4\)"),
        ({"logits": torch.rand(5, 1)}, "fewer than two classes"),
        ({"pairs": torch.tensor(5 * [[0, 9]])}, "pairs must lie in 0 to 4, got 0 to 9"),
        ({"pairs": torch.zeros(5, 1).long()}, r"pairs must be \(5, K\), K at least 2"),
        ({"fill": torch.rand(4, 1, 1)}, r"fill must be \(3, 1, 1\) or as the images"),
        ({"fill": torch.full((3, 1, 1), torch.nan)}, "NaN or infinite value in fill"),
        ({"fill": np.ones((3, 1, 1))}, r"fill must be a tensor \(3, 1, 1\) or a name, got ndarray"),
        ({"fill": "mean", "mean": torch.rand(2)}, r"mean must be \(3,\)"),
        ({"images": torch.rand(5, 3, 16, 16).double()}, "Net does not take images .5, 3, 16, 16. of torch.float64"),
    ],
)
def test_what_cannot_be_judged_is_named(wrong: dict[str, Any], said: str, images: Tensor) -> None:
    given = {"images": images, "masks": HALF, "fill": "black"} | wrong
    for measure in (deletion_retention, should_show):
        with pytest.raises(ValueError, match=said):
            measure(Net().eval(), **given)


def test_arguments_of_an_explanation_are_named(images: Tensor) -> None:
    for wrong, said in (({"top_k": 2.5}, "top_k = 2.5"), ({"target": {}}, "target must be class indices, got {}")):
        with pytest.raises(ValueError, match=said):
            explain(Net(), images, **wrong)
    with pytest.raises(ValueError, match="Net does not take images .* of torch.uint8"):
        explain(Net(), (255 * images).byte())


@pytest.mark.parametrize(
    ("text", "said"), [(b"a: [", "no YAML"), (b"\xff", "no YAML"), (b"3: 1", "unknown field .* '3'")]
)
def test_a_profile_that_is_no_yaml_is_named(text: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(text)
    with pytest.raises(ValueError, match=f"mine.yaml.*{said}|{said}"):
        load_profile(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"run_name": 2024}, "run_name = 2024: must be text, which papermill -r gives"),
        ({"data_root": "~no such user/x"}, "data_root = '~no such user/x': "),
        ({"data_root": "a\0b"}, "no path holds a zero byte"),
    ],
)
def test_parameters_that_are_no_paths_are_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        start("06_full_evaluation", **given)


@pytest.mark.parametrize("metadata", ["{", "[1]"])
def test_metadata_that_are_no_names_and_values_are_told(metadata: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"a": WEIGHT}, path, {"xfrlib": metadata})
    with pytest.raises(ValueError, match="weights.safetensors: its metadata 'xfrlib' are no JSON object"):
        read_safetensors(path)
    with pytest.raises(ValueError, match="finite mean"):
        IResNet("tiny", {4: 1}).set_input({"std": None}, path)  # type: ignore[dict-item]


def test_no_kill_of_the_committed_counts_lost_a_result() -> None:
    found = json.loads((project_root() / "results/faults.json").read_text(encoding="utf-8"))
    works = [counts for name, work in found.items() if name != "all" for counts in work.values()]
    assert sum(counts.get("kills", 0) for counts in works) == found["all"]["kills"] == found["all"]["same"]


def test_the_committed_counts_are_of_ten_thousand_inputs_and_none_ended_otherwise() -> None:
    counts = json.loads((project_root() / "results/bad_input.json").read_text(encoding="utf-8"))["all"]
    assert counts["inputs"] >= 10_000 and counts["right_result"] + counts["clear_error"] == counts["inputs"]


def test_every_committed_fault_ended_as_an_undisturbed_run_and_the_page_shows_each_kind_of_kill() -> None:
    """As the page says in words: no kill lost a result, a full or read-only disk was named, two at once ended well."""
    found = json.loads((project_root() / "results/faults.json").read_text(encoding="utf-8"))
    assert found.pop("all").items() >= of_all(found).items()  # and where they come from
    faults = {(work, kind): counts for work, kinds in found.items() for kind, counts in kinds.items()}
    faults = {key: counts for key, counts in faults.items() if key[1] != "provenance"}
    kills = {key: counts for key, counts in faults.items() if "kills" in counts}
    assert {work for work, _ in faults} == set(WORKS)
    for key, counts in kills.items():
        assert counts["same"] == counts["kills"] == counts.get("stopped", counts["kills"]) > 0, key
    once = {key: counts for key, counts in faults.items() if key not in kills}
    for (work, kind), counts in once.items():
        good = {"ended_well": 2, "same": True} if kind == "twice_at_once" else {"stopped": True, "same": True}
        assert counts.items() >= good.items(), (work, kind)
    assert all(counts.get("says_why", True) for counts in faults.values())

    page = (project_root() / "book/how_it_was_tested.md").read_text(encoding="utf-8")
    rows = [
        re.findall(r"`faults:(\w+)\.(\w+)\.(\w+)`", line) for line in page.splitlines() if "| {result}`faults:" in line
    ]
    assert rows == [[(*row[0][:2], "kills"), (*row[0][:2], "same")] for row in rows]  # a row: times, and same files
    assert sorted(row[0][:2] for row in rows) == sorted(kills)
    assert "were tried on the first four, once each" in page
    assert {work for work, _ in once} == {row[0][0] for row in rows[:4]} and len(once) == 4 * 3


def test_every_kind_of_bad_input_has_its_row_and_its_counts_add_up() -> None:
    found = json.loads((project_root() / "results/bad_input.json").read_text(encoding="utf-8"))
    kinds = {name: counts for name, counts in found.items() if name not in ("all", "provenance")}
    assert kinds.keys() == KINDS.keys()
    for name, counts in kinds.items():
        assert counts["inputs"] == counts.get("right_result", 0) + counts.get("clear_error", 0) > 0, name
    for end, total in found["all"].items():
        assert total == sum(counts.get(end, 0) for counts in kinds.values()), end
    page = (project_root() / "book/how_it_was_tested.md").read_text(encoding="utf-8")
    rows = re.findall(r"`bad_input:(\w+)\.(\w+)", page)
    ends = ("inputs", "right_result", "clear_error")
    assert sorted(row for row in rows if row[0] != "all") == sorted((name, end) for name in kinds for end in ends)

"""Benchmarks: other libraries compute the same where the same exists, and the file has what its page needs.

No test measures time.
"""

import importlib.util
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bench_neighbours
import neighbours
import pytest
import speed
import timing
import torch
import works
from sphinx_build import sphinx_build
from test_environment import BENCH
from timing import Beside, Work
from torch import Tensor, nn

from results import load_results
from studies.cell_truth import cell_effects, cell_squares, pair_effects
from xfrlib import explain
from xfrlib.geometry import Geometry, upsampled

ROOT = Path(__file__).resolve().parents[1]


def needs(module: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not importlib.util.find_spec(module), reason=f"{module} is not installed: extra bench")


@pytest.fixture
def classes(classifier, images) -> Tensor:
    return explain(classifier, images, top_k=3).classes


def raw_cams(classifier, images, classes) -> Tensor:
    found = explain(classifier, images, target=classes[:, 0], competitors=classes[:, 1:], centre=False)
    return found.cams


@needs("torchcam")
def test_cams_of_torchcam_are_ours(classifier, images, classes) -> None:
    theirs = neighbours.torchcam_maps(classifier, images, classes)
    torch.testing.assert_close(theirs.clone(), raw_cams(classifier, images, classes))


def test_grad_cams_of_captum_are_ours_over_the_number_of_places(classifier, images, classes) -> None:
    theirs = neighbours.captum_maps(classifier, images, classes)
    torch.testing.assert_close(theirs * 16, raw_cams(classifier, images, classes))


def test_grad_cams_of_grad_cam_are_ours_rectified_and_scaled(classifier, images, classes) -> None:
    theirs = neighbours.gradcam_maps(classifier, images, classes)
    ours = raw_cams(classifier, images, classes).clamp(min=0)

    def scaled(maps: Tensor) -> Tensor:
        maps = maps - maps.amin((2, 3), keepdim=True)
        return maps / (1e-7 + maps.amax((2, 3), keepdim=True))

    torch.testing.assert_close(theirs, scaled(upsampled(scaled(ours), (16, 16))), rtol=0, atol=1e-3)


def test_covered_cells_are_those_of_captums_occlusion(classifier, images, classes) -> None:
    squares = cell_squares(Geometry.drawn((4, 4), (16, 16)), (4, 4), (16, 16))
    fills = [torch.full_like(images, 0.5), images.mean(dim=(2, 3), keepdim=True).expand_as(images)]
    theirs = neighbours.captum_cells(classifier, images, classes, fills, side=4)
    for fill, found in zip(fills, theirs, strict=True):
        for index, image in enumerate(images):
            effects = cell_effects(classifier, image[None], squares, {"": fill[index]}, progress=False)[0]
            ours = pair_effects(effects, classes[index][None])
            torch.testing.assert_close(found[index], ours[0], rtol=1e-4, atol=1e-4)


@contextmanager
def seen(model: nn.Module) -> Iterator[list[Tensor]]:
    """The pictures that go through a network, batch by batch."""
    batches: list[Tensor] = []
    handle = model.register_forward_hook(lambda _, given, __: batches.append(given[0].clone()))
    try:
        yield batches
    finally:
        handle.remove()


def test_road_of_grad_cam_makes_as_many_passes_as_deletion_and_retention(classifier, images, classes) -> None:
    maps = torch.rand(2, len(images), 16, 16, generator=torch.Generator().manual_seed(0))
    with seen(classifier) as batches:
        found = neighbours.gradcam_road(classifier, images, maps, classes[:, 0])
    assert sum(map(len, batches)) == len(images) * (1 + 2 * len(maps))
    assert found.shape == (2, 2, len(images)) and found.abs().max() > 0


@needs("quantus")
def test_quantus_makes_as_many_passes_of_the_same_changed_pictures(classifier, images, classes) -> None:
    maps = torch.rand(1, len(images), 16, 16, generator=torch.Generator().manual_seed(0))
    with seen(classifier) as batches:
        neighbours.quantus_deletion(classifier, images.clamp(min=0.01), maps, classes[:, 0], share=25)
    top = maps[0] > maps[0].flatten(1).quantile(0.75, dim=1)[:, None, None]
    for removed, pictures in zip((top, ~top), batches, strict=True):
        assert torch.equal((pictures == 0).all(dim=1), removed)


@needs("torchcam")
def test_curves_of_torchcam_make_as_many_passes_as_ours(classifier, images, classes) -> None:
    with seen(classifier) as batches:
        areas = neighbours.torchcam_curves(classifier, images, classes[:, 0], steps=4)
    assert sum(map(len, batches)) == len(images) * (1 + 1 + 2 * 3)  # whole, blank, three shares of each curve
    assert set(areas) == {"deletion_auc", "insertion_auc"}


def test_ways_run_in_turns_and_ratios_are_paired() -> None:
    now, log = [0.0], list[str]()

    def way(name: str, seconds: list[float]) -> Any:
        left = iter([0.0, *seconds])  # the first does not count

        def run() -> None:
            log.append(name)
            now[0] += next(left)

        return run

    ours = way("ours", [1, 10, 2, 4])
    bare = Beside("bare", way("bare", [1, 8, 2, 4]), 1.05, passes=True)
    slow = Beside("slow", way("slow", [3, 30, 8]), 3.5)
    none = Beside("absent", None, 2.0)
    work = Work("work", "net", 8, ours, {"bare": bare, "slow": slow, "absent": none}, rate=3.5)
    found = timing.measured(work, 4, limit=20, clock=lambda: now[0])
    assert log[:3] == ["ours", "bare", "slow"] and log[3:9] == ["ours", "bare", "slow", "bare", "slow", "ours"]
    assert log.count("slow") == 4 and found["neighbours"]["slow"]["rounds"] == 3  # it sits out the fourth round
    assert found["passes"]["bare"]["ratio"] == {"median": 1.0, "lower_quartile": 1.0, "upper_quartile": 1.0625}
    assert found["passes"]["bare"]["met"] and not found["neighbours"]["slow"]["met"]
    assert found["neighbours"]["slow"]["ratio"]["median"] == 3.0  # theirs over ours, round by round: 3, 3, 4
    assert found["neighbours"]["absent"] == {"title": "absent", "installed": False}
    assert found["seconds"]["median"] == 3.0 and found["rate"]["met"] is False  # 8, 0.8, 4 and 2 a second


def test_a_written_file_names_what_is_missed(tmp_path: Path) -> None:
    ratio = {"ratio": {"median": 1.0}, "seconds": {"median": 1.0}, "installed": True}
    row = {"title": "other", "aim": 2.0, "met": False, **ratio}
    work = {"title": "work", "network": "", "pictures": 1, "passes": {"bare": row | {"title": "bare", "met": True}},
            "neighbours": {"one": row, "two": row | {"aim": None, "met": None}}, "parts": {}}  # fmt: skip
    bench_neighbours.write(tmp_path / "found.json", {"it": work}, {"repeats": 2})
    written = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert (written["aims"], written["met"], written["missed"]) == (2, 1, ["work (other)"])


def test_the_committed_file_has_what_the_page_shows() -> None:
    found = load_results(ROOT, "benchmarks")
    assert set(found["works"]) == set(bench_neighbours.all_works(8)) and found["repeats"] >= timing.LEAST
    assert set(found["provenance"]["beside"]) >= {"captum", "grad-cam"}
    rows = {kind: speed.speed_rows(found, kind) for kind in speed.KINDS}
    assert {len({len(row) for row in table}) for table in rows.values()} == {1}  # all rows as wide as the head
    assert len(rows["passes"]) > 7 and len(rows["neighbours"]) > 8 and len(rows["parts"]) > 8
    aimed = [row for work in found["works"].values() for row in bench_neighbours.both(work).values() if row.get("aim")]
    assert found["aims"] == len(aimed) + sum("rate" in work for work in found["works"].values())
    assert bench_neighbours.summary(found["works"]).items() <= found.items()


def test_the_page_is_built_from_the_committed_file(tmp_path: Path) -> None:
    text = (ROOT / "book" / "benchmarks.md").read_text(encoding="utf-8")
    (tmp_path / "index.md").write_text(re.sub(r"\[([^]]+)\]\(\S+\.md\)", r"\1", text), encoding="utf-8")
    (tmp_path / "profile.yaml").write_text("shows_real_people: false", encoding="utf-8")
    (tmp_path / "results").mkdir()
    shutil.copy(ROOT / "results" / "benchmarks.json", tmp_path / "results")
    config = {"extensions": ["myst_parser", "results", "speed"], "master_doc": "index", "numfig": True}
    status, warnings = sphinx_build(tmp_path, config)
    assert status == 0, warnings
    page = (tmp_path / "_build" / "html" / "index.html").read_text(encoding="utf-8")
    assert page.count("<table") == 3 and "torch-cam" in page and "aim: at most" in page


def test_a_library_that_is_not_installed_is_named_so() -> None:
    work = {"title": "a work", "network": "slim", "pictures": 1, "seconds": {"median": 1.0}, "passes": {}, "parts": {},
            "neighbours": {"x": {"title": "X", "installed": False}}}  # fmt: skip
    assert speed.speed_rows({"works": {"a": work}}, "neighbours")[1][2:] == ["X", "not installed", "", ""]


def test_every_library_of_the_extra_is_one_of_the_neighbours() -> None:
    assert {requirement.name for requirement in BENCH} <= set(neighbours.LIBRARIES.values())


def test_pictures_from_disk_are_those_of_image_folder() -> None:
    with works.folder_of(3, ".jpg", 200) as folder:
        mine, theirs = works.datasets(folder)
        assert len(mine) == len(theirs) == 3
        for ours, other in zip(mine, theirs, strict=True):
            torch.testing.assert_close(ours[0], other[0], rtol=0, atol=1e-6)

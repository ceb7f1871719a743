"""Benchmarks: other libraries compute the same where the same exists, and the file has what its page needs.

No test measures time.
"""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import bench_make
import bench_neighbours
import bench_size
import neighbours
import numpy as np
import pandas as pd
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
from xfrlib.judge import evaluate

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
    names = [*found["works"], *found["left_out"]]
    assert sorted(names) == sorted(bench_neighbours.all_works(8)) and found["repeats"] >= timing.LEAST
    assert set(found["provenance"]["beside"]) >= {"captum", "grad-cam"}
    files = dict.fromkeys(speed.KINDS, found) | {
        "sizes": load_results(ROOT, "size"), "cells": load_results(ROOT, "make"),
    }  # fmt: skip
    rows = {kind: speed.speed_rows(files[kind], kind) for kind in speed.KINDS}
    assert {len({len(row) for row in table}) for table in rows.values()} == {1}  # all rows as wide as the head
    assert len(rows["passes"]) > 7 and len(rows["neighbours"]) > 8 and len(rows["parts"]) > 8
    assert len(rows["rates"]) == 3 and len(rows["cells"]) == 1 + len(bench_make.CASES)
    aimed = [row for work in found["works"].values() for row in bench_neighbours.both(work).values() if row.get("aim")]
    assert found["aims"] == len(aimed) + sum("rate" in work for work in found["works"].values())
    assert bench_neighbours.summary(found["works"]).items() <= found.items()


def test_the_page_is_built_from_the_committed_file(tmp_path: Path) -> None:
    text = (ROOT / "book" / "benchmarks.md").read_text(encoding="utf-8")
    (tmp_path / "index.md").write_text(re.sub(r"\[([^]]+)\]\(\S+\.(?:md|ipynb)\)", r"\1", text), encoding="utf-8")
    (tmp_path / "profile.yaml").write_text("shows_real_people: false", encoding="utf-8")
    (tmp_path / "results").mkdir()
    for name in ("benchmarks", "size", "make", "match_report"):
        shutil.copy(ROOT / "results" / f"{name}.json", tmp_path / "results")
    config = {"extensions": ["myst_parser", "results", "speed"], "master_doc": "index", "numfig": True}
    status, warnings = sphinx_build(tmp_path, config)
    assert status == 0, warnings
    page = (tmp_path / "_build" / "html" / "index.html").read_text(encoding="utf-8")
    assert page.count("<table") == 7 and "torch-cam" in page and "aim: at most" in page
    assert page.count("<svg") == 1 and 'id="fig-size"' in page
    assert load_results(ROOT, "size")["provenance"]["state"] in page


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


def test_a_work_without_its_package_is_left_out_and_the_table_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_neighbours, "find_spec", lambda _: None)
    found = {"works": {}, "left_out": bench_neighbours.left_out()}
    (row,) = speed.speed_rows(found, "rates")[1:]
    assert row[0] == "heads" and "not measured: the package anny is not installed" in row[1]
    monkeypatch.setattr(bench_neighbours, "find_spec", lambda _: "there")
    assert not bench_neighbours.left_out()
    rate = {"median": 11.6, "lower_quartile": 10.0, "upper_quartile": 12.0, "aim": 10.0, "met": True}
    found = {"works": {"heads": {"title": "heads drawn", "rate": rate}}, "left_out": {}}
    assert speed.speed_rows(found, "rates")[1:] == [["heads drawn", "12 [10, 12]", "10: met"]]


# --- size


def test_repeated_rows_are_those_of_the_few() -> None:
    few = torch.arange(12).view(3, 2, 2)
    many = bench_size.Repeated(few, 8)
    assert len(many) == 8 and many.shape == (8, 2, 2)
    assert torch.equal(many[[0, 4, 7]], few[[0, 1, 1]])
    assert np.array_equal(bench_size.Repeated(few.numpy(), 8)[5], few[2].numpy())


def test_pictures_judged_share_by_share_are_those_judged_at_once_and_finished_batches_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"BATCH": 4, "PER_SHARE": 2, "DISTINCT": 5, "held": lambda _: 1.0}.items():
        monkeypatch.setattr(bench_size, name, value)
    given: dict[str, Any] = {}

    def watched(model: nn.Module, images: Any, labels: Any, regions: Any, **settings: Any) -> pd.DataFrame:
        table = evaluate(model, images, labels, regions, **settings)
        assert table["image"].nunique() <= 8  # of 18: a share holds no more
        given.update(model=model, images=images, labels=labels, regions=regions, settings=settings)
        return table

    monkeypatch.setattr(bench_size, "evaluate", watched)
    assert bench_size.evaluation(str(tmp_path), "18")["rows"] == 18 * 3
    whole = bench_size.finished(tmp_path)
    assert len(whole) == 5
    settings = given["settings"] | {"shards": None, "share": (0, 1)}
    settings |= {name: settings[name][range(18)] for name in ("logits", "pairs")}
    regions = {name: region[range(18)] for name, region in given["regions"].items()}
    at_once = evaluate(given["model"], given["images"][range(18)], given["labels"], regions, **settings)
    parts = pd.concat([pd.read_parquet(tmp_path / name) for name in whole], ignore_index=True)
    pd.testing.assert_frame_equal(parts, at_once[parts.columns], check_dtype=False)
    first, *others = sorted(tmp_path.iterdir())
    when = first.stat().st_mtime_ns
    for path in others[1:]:
        path.unlink()
    bench_size.evaluation(str(tmp_path), "18")
    assert bench_size.finished(tmp_path) == whole and first.stat().st_mtime_ns == when


def test_explain_is_set_beside_the_bare_pass(classifier: Any, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_size, "beyond", lambda run: run() is None)  # the bare pass returns nothing
    row = bench_size.beside_bare(classifier, images, 2)
    assert (row["explain"]["mebibytes"], row["bare"]["mebibytes"]) == (False, True)
    for spread in (row["explain"]["seconds"], row["bare"]["seconds"], row["ratio"]):
        assert 0 < spread["lower_quartile"] <= spread["median"] <= spread["upper_quartile"]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read from /proc, which Linux has")
def test_memory_of_a_call_is_what_it_takes_beyond_the_process() -> None:
    ballast = np.ones(2**22)  # 32 MiB that are there already
    taken = bench_size.beyond(lambda: np.ones(2**23))
    assert 60 < taken < 80 and ballast.all()
    assert bench_size.beyond(lambda: None) < 4


def test_what_is_projected_is_the_divided_computing_and_the_exchange() -> None:
    found = bench_size.projection(8.0, 5.0, (2, 4, 8))  # 1 s of exchange
    assert {n: row["seconds"]["median"] for n, row in found.items()} == {"2": 5.0, "4": 2 + 1.5, "8": 1 + 1.75}
    assert bench_size.projection(8.0, 3.5, (4,))["4"]["seconds"]["median"] == 2.0  # never less than nothing


def test_the_committed_sizes_are_drawn_and_hold_what_the_page_says() -> None:
    found = load_results(ROOT, "size")
    svg = speed.draw_size(found)
    ElementTree.fromstring(svg)
    words = set(re.findall(r"<text[^>]*>([^<]*)</text>", svg))
    assert {"explain", "the bare pass"} <= words
    assert not re.search("#0[1-9]0[1-9]0[1-9]", svg) and svg == speed.draw_size(found), "the same at each build"
    missing = set(bench_size.PARTS) - set(found)
    assert not missing or found["provenance"]["state"].startswith("provisional")
    assert svg.count(speed.NOT_YET) == len(missing)
    rows = speed.speed_rows(found, "sizes")
    assert {len(row) for row in rows} == {6} and sum(speed.NOT_YET in row for row in rows) == len(missing)
    if "pictures" in found:
        resumed = found["pictures"]["resumed"]
        assert resumed["same_table"] and resumed["finished_were_kept"]
        assert 0 < resumed["finished_before"] < resumed["batches"]
        assert found["pictures"]["growth_mebibytes"] < 0.1 * found["pictures"]["most"]["mebibytes"]
        assert found["pictures"]["at_a_time"] == 1000  # as the page says
    assert {"state", "commit", "device", "seed"} <= found["provenance"].keys()


def test_all_parts_of_a_file_of_sizes_are_drawn_and_in_the_table() -> None:
    spread = {"median": 0.5, "lower_quartile": 0.4, "upper_quartile": 0.6}
    way = {"seconds": spread, "mebibytes": 7.6}
    rows = {10: {"explain": way, "bare": way, "ratio": spread}, 1000: {"explain": way, "bare": way, "ratio": spread}}
    found: dict[str, Any] = {part: bench_size.by_size(rows, network="net", pictures=2) for part in ("classes", "cells")}
    resumed = {"count": 100, "mebibytes": 300.0, "finished_before": 3, "batches": 8, "compared": "byte for byte"}
    found["pictures"] = bench_size.by_size({100: {"mebibytes": 301.0}, 1000: {"mebibytes": 302.4}}, resumed=resumed)
    steps, beyond = {1: {"seconds": spread}, 2: {"seconds": spread}}, bench_size.projection(0.5, 0.5, (4,))
    found["processes"] = bench_size.by_size(steps, pictures=32, projection=beyond)
    words = re.findall(r"<text[^>]*>([^<]*)</text>", speed.draw_size(found))
    assert {"killed and resumed", "projected, not measured", "processes"} <= set(words) and speed.NOT_YET not in words
    table = speed.speed_rows(found, "sizes")[1:]
    assert table[0][1:3] == ["10", "1000"] and table[0][-1] == "0.50 [0.40, 0.60]" and table[1][-1] == "8 and 8"
    assert table[4][1:] == ["100", "1000", "MiB at the peak", "301", "302"]
    assert "3 of 8 batches" in table[5][3] and table[5][-1].startswith("byte for byte")
    assert table[6][1:] == ["1", "2", "milliseconds of a step of 32 pictures", "500", "500"]


# --- a whole book


def test_time_in_which_a_cell_ran_counts_once() -> None:
    assert bench_make.covered([(5, 7), (0, 2), (1, 3), (1, 2)]) == 3 + 2
    assert bench_make.covered([]) == 0


def notebook(path: Path, *spans: tuple[float, float]) -> None:
    stamps = [[datetime.fromtimestamp(at, UTC).isoformat() for at in span] for span in spans]
    cells = [{"metadata": {"execution": {"shell.execute_reply": b, "iopub.status.busy": a}}} for a, b in stamps]
    path.write_text(json.dumps({"cells": [*cells, {"metadata": {}}]}), encoding="utf-8")


def test_only_cells_of_this_make_are_counted(tmp_path: Path) -> None:
    notebook(tmp_path / "a.ipynb", (100.5, 102), (102, 103))
    notebook(tmp_path / "b.ipynb", (50, 60), (101, 104))
    assert bench_make.cells(sorted(tmp_path.iterdir()), 100) == [(100.5, 102), (102, 103), (101, 104)]


def test_a_make_in_a_clone_is_set_beside_its_cells(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "book").mkdir(parents=True)
    (source / "book" / "limits.md").write_text("prose", encoding="utf-8")
    (source / "pyproject.toml").touch()
    write = (
        "import datetime, json, pathlib; now = datetime.datetime.now(datetime.UTC); "
        "later = now + datetime.timedelta(milliseconds=1); stamps = dict(a=now.isoformat(), b=later.isoformat()); "
        "pathlib.Path('_build/tiny/notebooks/1.ipynb').write_text("
        "json.dumps(dict(cells=[dict(metadata=dict(execution=stamps))])))"
    )
    rule = f'\tmkdir -p _build/tiny/notebooks\n\t{sys.executable} -c "{write}"\n'
    rules = f".PHONY: book\nbook: _build/tiny/notebooks/1.ipynb\n%/1.ipynb: book/limits.md\n{rule}"
    (source / "Makefile").write_text(rules, encoding="utf-8")
    for command in ("init -q", "add -A", "-c user.name=a -c user.email=a@example.org commit -qm one"):
        subprocess.run(["git", *command.split()], cwd=source, check=True)
    folder, cases = tmp_path / "clone", bench_make.CASES
    bench_make.clone(folder, source)
    assert (folder / "pyproject.toml").stat().st_mtime == 0  # nothing is installed again
    assert bench_make.chosen(["nothing"], folder) == ["cold", "nothing"]
    cold, nothing, prose = (
        bench_make.made(folder, cases[name], "tiny", tmp_path) for name in ("cold", "nothing", "prose")
    )
    assert (cold["number_of_cells"], nothing["number_of_cells"], prose["number_of_cells"]) == (1, 0, 1)
    assert cold["cells"] == pytest.approx(0.001, abs=1e-6) and cold["overhead"] == cold["seconds"] - cold["cells"]
    assert bench_make.chosen(["nothing"], folder) == ["nothing"] and bench_make.chosen([], folder) == list(cases)
    (folder / "Makefile").write_text(".PHONY: book\nbook:\n\texit 3\n")
    with pytest.raises(RuntimeError, match="make book stopped with code 2 in .*clone, nothing changed"):
        bench_make.made(folder, cases["nothing"], "tiny", tmp_path)


def test_cases_of_make_are_kept_until_they_are_measured_again(tmp_path: Path) -> None:
    path, row = tmp_path / "make.json", {"seconds": 2.0, "cells": 0.5, "overhead": 1.5, "met": False}
    path.write_text(json.dumps(bench_make.updated(path, {"nothing": row})), encoding="utf-8")
    found = bench_make.updated(path, {"prose": row | {"met": True}}, profile="quick")
    assert [one["measured"] for one in found["cases"].values()] == [False, True, True, False]
    rows = speed.speed_rows(found, "cells")[1:]
    assert rows[1:3] == [
        ["nothing changed", "2.0", "0.5", "1.5", "1: missed"],
        ["a page of prose touched", "2.0", "0.5", "1.5", "15: met"],
    ]
    assert rows[0] == ["nothing built yet", "not measured yet", "", "", "60"]


def test_what_is_touched_by_a_case_is_there() -> None:
    for case in bench_make.CASES.values():
        assert case.touched is None or (ROOT / case.touched).is_file()

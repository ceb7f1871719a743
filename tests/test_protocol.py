"""What the comparing chapters share: stratified samples, equal tuning budgets, resumable judging, a null case."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from studies import explainers_compared
from studies.explainers_compared import GRIDS, smoothed
from xfrlib import prediction, protocol, top_fraction_mask
from xfrlib.explainers import EXPLAINERS, explain_with
from xfrlib.intervals import mean_interval
from xfrlib.judge import evaluate
from xfrlib.profile import load_profile


class Few:
    """Seven pictures of three people, the third with one picture."""

    table = pd.DataFrame({"label": [0, 0, 0, 1, 1, 1, 2]})

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full((3, 8, 8), index / 10), int(self.table["label"][index])


def test_a_sample_takes_turns_and_a_smaller_one_is_its_beginning() -> None:
    whole = protocol.stratified(Few())  # type: ignore[arg-type]
    assert whole.indices == [0, 3, 6, 1, 4, 2, 5] and whole.labels.tolist() == [0, 1, 2, 0, 1, 0, 1]
    few = protocol.stratified(Few(), 4)  # type: ignore[arg-type]
    assert few.indices == whole.indices[:4] and torch.equal(few.images, whole.images[:4])
    assert protocol.stratified(Few(), 100).indices == whole.indices  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one"):
        protocol.stratified(Few(), 0)  # type: ignore[arg-type]


def test_every_explainer_may_choose_from_six_different_settings(classifier, images) -> None:
    assert explainers_compared._OWN.keys() <= GRIDS.keys()  # no misspelt one, which would get widths instead
    classes = torch.tensor([[0, 1, 2]]).expand(len(images), -1)
    for name, grid in GRIDS.items():
        assert len(grid) == 6 and len({tuple(sorted(options.items())) for options in grid}) == 6
        for options in grid:
            own = {key: value for key, value in options.items() if key != "smooth"}
            if not EXPLAINERS[name].slow:  # which are only smoothed
                explain_with(name, classifier, images[:2], classes[:2], progress=False, **own)  # every setting is known
            assert own.keys() <= EXPLAINERS[name].budget.keys()


def test_smoothing_keeps_the_sum_inside_and_nothing_is_nothing() -> None:
    maps = torch.zeros(1, 41, 41)
    maps[0, 20, 20] = 1
    assert smoothed(maps, 0) is maps
    wide = smoothed(maps, 3)
    assert float(wide.sum()) == pytest.approx(1, abs=1e-4)
    assert int(wide.flatten().argmax()) == 20 * 41 + 20
    assert float(wide[0, 20, 20] / wide[0, 20, 23]) == pytest.approx(np.exp(0.5), rel=1e-3)


def test_judging_goes_on_where_it_stopped_and_knows_other_maps(classifier, images, tmp_path) -> None:
    run = SimpleNamespace(
        profile=SimpleNamespace(seed=0, eval_batch_size=2),
        temperature=lambda network: 2.0,
        output=lambda name: tmp_path / name,
    )
    labels, logits = np.arange(len(images)) % 2, prediction.all_logits(classifier, images)
    noise = torch.rand(2, *images[:, 0].shape, generator=torch.Generator().manual_seed(0))
    regions = [{"mine": top_fraction_mask(one).numpy()} for one in noise]
    options = {"logits": logits, "fills": ("black",), "controls": (), "progress": False}
    first = protocol.judged(run, classifier, images, labels, regions[0], network=1, **options)
    assert set(first["network"]) == {1}
    drop = (first["margin"] - first["deletion_margin"]) / 2
    np.testing.assert_allclose(first["deletion_margin_drop"], drop)
    passes: list[int] = []
    hook = classifier.register_forward_hook(lambda *_: passes.append(1))
    pd.testing.assert_frame_equal(
        protocol.judged(run, classifier, images, labels, regions[0], network=1, **options), first
    )
    assert not passes  # from the finished batches
    other = protocol.judged(run, classifier, images, labels, regions[1], network=1, **options)
    assert passes and not other["deletion_margin_drop"].equals(first["deletion_margin_drop"])
    pairs = logits.argsort(dim=1, descending=True)
    for few in (pairs[:, :2], pairs[:, :3]):  # other pairs are another question, of the same pictures and regions
        passes.clear()
        asked = protocol.judged(run, classifier, images, labels, regions[0], network=1, pairs=few, **options)
        assert passes and [name for name in asked if name.startswith("deletion_lead_drop_")] == [
            f"deletion_lead_drop_{k}" for k in range(1, few.shape[1])
        ]
    passes.clear()
    twins = {"one": regions[0]["mine"], "two": regions[1]["mine"], "three": regions[0]["mine"].copy()}
    table = protocol.judged(run, classifier, images, labels, twins, **options).set_index("method")
    sides = 2 * -(-len(images) // 2)  # deletion and retention of every batch
    assert len(passes) == 2 * sides and set(table.index) == set(twins)
    pd.testing.assert_frame_equal(table.loc["one"].reset_index(drop=True), table.loc["three"].reset_index(drop=True))
    hook.remove()


def part_of(chapter, tmp_path, table):
    """Write a chapter's part of the per-image table"""
    protocol.write_table(SimpleNamespace(notebook=chapter, output=lambda name: tmp_path / name), table)


def test_equal_keys_of_the_per_image_table_mean_equal_rows(tmp_path) -> None:
    one = {"network": 0, "image": 3, "method": "cam", "draw": 0, "fill": "black", "fraction": 0.2, "path": "a/3.jpg"}
    plain = pd.DataFrame([one | {"deletion_margin_drop": 1.0}, one | {"draw": 1, "deletion_margin_drop": 2.0}])
    tuned = pd.DataFrame([one | {"deletion_margin_drop": 3.0, "settings": "smooth 4"}])
    part_of("06_one", tmp_path, plain)
    part_of("07_other", tmp_path, tuned)
    whole = pd.read_parquet(tmp_path / "evaluation.parquet")
    assert not whole.duplicated(list(protocol.KEY)).any() and len(whole) == 3
    assert whole.duplicated([name for name in protocol.KEY if name != "chapter"]).any()  # what the chapter is there for
    found = whole.set_index(["chapter", "draw"])
    assert found["settings"].to_dict() == {("06_one", 0): "", ("06_one", 1): "", ("07_other", 0): "smooth 4"}
    assert found.loc[("07_other", 0), "deletion_margin_drop"] == 3.0
    assert "chapter" not in plain and "settings" not in plain  # what is given stays as it is
    with pytest.raises(ValueError, match=r"1 row\(s\) .* chapter 08_third, network 0, image 3, method cam, draw 0"):
        part_of("08_third", tmp_path, pd.concat([plain, tuned]))
    assert sorted(path.name for path in (tmp_path / "evaluation.parquet").iterdir()) == [
        "06_one.parquet", "07_other.parquet",
    ]  # fmt: skip


def test_an_evaluation_goes_on_where_it_stopped_and_knows_other_regions(classifier, images, tmp_path) -> None:
    run = SimpleNamespace(
        profile=dataclasses.replace(load_profile("quick"), draws=1, fills=("black",)),
        temperature=lambda network: 1.0,
        output=lambda name: tmp_path / name,
    )
    names = pd.DataFrame({"label": np.arange(len(images)) % 2, "identity": "somebody", "path": "a.png"})
    noise = torch.rand(2, *images[:, 0].shape, generator=torch.Generator().manual_seed(0))
    logits = prediction.all_logits(classifier, images)

    def evaluated(maps):
        region = top_fraction_mask(maps).numpy()
        classes = logits.argsort(dim=1, descending=True)[:, :3]
        mapped = protocol.MappedPictures((images * 255).byte(), logits, classes, {"sdd": region, "cam": region})
        return protocol.evaluation_table(run, classifier, SimpleNamespace(table=names), mapped, progress=False)

    first = evaluated(noise[0])
    passes: list[int] = []
    classifier.register_forward_hook(lambda *_: passes.append(1))
    pd.testing.assert_frame_equal(evaluated(noise[0]), first)
    assert not passes and len(list((tmp_path / "evaluation_shards").iterdir())) == 1
    other = evaluated(noise[1])
    assert passes and len(list((tmp_path / "evaluation_shards").iterdir())) == 2
    own = first["method"] == "sdd"
    assert not np.allclose(first.loc[own, "deletion_margin"], other.loc[own, "deletion_margin"])


def test_a_random_explainer_is_no_better_than_the_random_control(classifier) -> None:
    """Its interval over people, with draws of fixed seeds, contains the value of the control."""
    images = torch.rand(60, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(60, 1, 7, 7, generator=torch.Generator().manual_seed(2))
    maps = torch.nn.functional.interpolate(noise, size=(16, 16), mode="bilinear", align_corners=False)[:, 0]
    labels = np.arange(60) % 20
    table = evaluate(
        classifier, images, labels, {"random_explainer": top_fraction_mask(maps).numpy()},
        logits=prediction.all_logits(classifier, images), controls=("random_map",), draws=5, progress=False,
    )  # fmt: skip
    for kind in ("deletion", "retention"):
        wide = table.pivot_table(index="image", columns="method", values=f"{kind}_margin_drop")
        found = mean_interval(wide["random_explainer"], labels)
        assert found.low <= wide["random_map"].mean() <= found.high
        assert found.low < found.high

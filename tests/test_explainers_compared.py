"""Chapter 7's study: maps by name, ranks, verdicts and the rounds of the inpainting game."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from studies import explainers_compared as study
from studies.inpainting import one_round
from xfrlib import FaceClassifier
from xfrlib.intervals import Estimate, mean_interval
from xfrlib.profile import project_root

TITLES = {"sdd_sum": "SDD", "cam": "CAM", "rise": "RISE"}
FAMILIES = np.array([0, 0, 1, 1])


@pytest.fixture
def table() -> pd.DataFrame:
    """Four pictures on two networks: SDD falls deepest in deletion, RISE least in retention."""
    rows = []
    for network in (0, 1):
        for image in range(4):
            for place, method in enumerate(TITLES):
                row = {"network": network, "image": image, "method": method, "fill": "grey"}
                for measure in ("lead_drop", "margin_drop"):
                    row |= {f"deletion_{measure}": 9.0 - place + image, f"retention_{measure}": 5.0 - place + image}
                rows.append(row)
    return pd.DataFrame(rows)


@pytest.fixture
def mean() -> study.Mean:
    return partial(study.mean_with_interval, families=FAMILIES)


def test_a_mean_goes_over_people_and_networks(table: pd.DataFrame, mean: study.Mean) -> None:
    falls = study.per_picture(table, "deletion", "lead_drop", "grey")
    assert falls.shape == (8, 3) and list(falls.index.names) == ["network", "image"]
    changed = falls["cam"] + np.arange(8) % 3
    assert mean(changed) == mean_interval(changed, [0, 0, 1, 1] * 2, [0] * 4 + [1] * 4)
    assert mean(changed.loc[[0]]) == mean_interval(changed.loc[[0]], [0, 0, 1, 1])
    alone = mean(changed.loc[[0]][:2])
    assert alone.value == changed.iloc[:2].mean() and np.isnan([alone.low, alone.high, alone.p]).all()


def test_rows_come_best_first_and_slow_methods_stand_beside_sdd(table: pd.DataFrame, mean: study.Mean) -> None:
    rows = study.result_rows(table, "grey", mean, TITLES)
    assert [row["method"] for row in rows] == list(TITLES.values())
    assert rows[0]["deletion: lead falls by"].value == 10.5
    assert [row["method"] for row in study.result_rows(table, "grey", mean, {"cam": "CAM"})] == ["CAM"]
    found = study.slow_results(table, ["grey"], ["rise"], mean)
    assert found["grey", "rise", "pictures"] == 4 and found["grey", "rise", "networks"] == 2
    difference = found["grey", "rise", "sdd_sum_minus", "deletion"]
    assert difference.value == 2 and np.isnan(difference.low), "the same in all pictures: no spread, no interval"


def test_what_the_chosen_settings_gain_on_the_defaults_is_positive_for_better(
    table: pd.DataFrame, mean: study.Mean
) -> None:
    tuned = table.replace({"method": {"rise": "sdd_sum_default"}})  # two lower in deletion, two lower in retention
    (row,) = study.tuned_rows(tuned, ["grey"], mean, TITLES)
    assert row["chosen settings less defaults"] == "SDD"
    assert row["deletion, grey"].value == 2 and row["retention, grey"].value == -2


def test_ranks_leave_clones_out_and_the_smaller_fall_is_better_in_retention(
    table: pd.DataFrame, mean: study.Mean
) -> None:
    ranked = study.mean_ranks(table, ["grey", "grey"], ["cam"], mean, TITLES)
    values = ranked.set_index(["measure", "method"])["value"]
    assert values["deletion, rank"].to_dict() == {"SDD": 1, "RISE": 2}
    assert values["retention, rank"].to_dict() == {"SDD": 2, "RISE": 1}


def test_verdicts_in_words_need_all_fills() -> None:
    compared = pd.DataFrame(
        [
            {"fill": fill, "kind": "deletion", "method": method, "value": 1, "low": 0, "high": 2, "verdict": word}
            for method, words in {"rise": ("better", "better"), "cam": ("worse", "undecided")}.items()
            for fill, word in zip(("black", "mean"), words, strict=True)
        ]
    )
    assert study.comparison_in_words(compared, "deletion", TITLES) == "in deletion SDD is better than RISE"
    assert study.comparison_in_words(compared[:0], "deletion", TITLES).endswith("neither better nor worse than any")
    cam, rise = study.verdict_rows(compared, TITLES)
    assert list(rise) == ["SDD against", "deletion, black", "deletion, mean"]
    assert cam["deletion, mean"] == "+1.00 [+0.00, +2.00], **undecided**"
    (silent, _) = study.verdict_rows(compared.assign(verdict=""), TITLES)
    assert silent["deletion, mean"] == "+1.00 [+0.00, +2.00]"


def test_tables_turn_differences_of_retention_round_so_that_plus_is_good() -> None:
    kept = {"fill": "black", "kind": "retention", "method": "cam", "value": -1.0, "low": -3.0, "high": 2.0}
    (row,) = study.verdict_rows(pd.DataFrame([kept | {"verdict": "better"}]), TITLES)
    assert row == {"SDD against": TITLES["cam"], "retention, black": "+1.00 [−2.00, +3.00], **better**"}
    found = {("black", "rise", "sdd_sum_minus", kind): Estimate(-1, -3, 2, 0.5) for kind in ("deletion", "retention")}
    (row,) = study.slow_rows(found, ["black"], ["rise"], TITLES)
    assert row == {
        "SDD against": TITLES["rise"],
        "deletion, black": (-1, -3, 2),
        "retention, black": (1, -2, 3),
    }


def test_only_the_questions_named_beforehand_are_corrected_for_and_judged() -> None:
    rows = [("deletion", 1.0, 0.01), ("retention", -1.0, 0.01), ("retention", 1.0, 0.012), ("deletion", 1.0, 0.04)]
    compared = pd.DataFrame([*rows, ("deletion", 1.0, np.nan)], columns=["kind", "value", "p"])
    found = study.judged_by_holm(compared.assign(method="disc"))
    assert found["p_holm"].tolist()[:4] == pytest.approx([0.04, 0.04, 0.04, 0.04])
    assert found["verdict"].tolist() == ["better", "better", "worse", "better", "undecided"]
    assert study.judged_by_holm(compared.assign(p=0.02, method="cam"))["verdict"].tolist() == ["undecided"] * 5
    beside = pd.concat([compared.assign(method="disc"), compared.assign(method="saliency", p=0.0)], ignore_index=True)
    both = study.judged_by_holm(beside)
    pd.testing.assert_frame_equal(both[:5], found)  # who was not asked about costs nothing
    assert both["p_holm"][5:].isna().all() and (both["verdict"][5:] == "").all()


def test_the_random_controls_of_the_chapter_have_as_many_draws_as_the_profile_says() -> None:
    chapter = next((project_root() / "notebooks").glob("07_*.ipynb")).read_text(encoding="utf-8")
    assert "draws=settings.draws," in chapter and "// settings.networks" not in chapter


def test_the_same_ranking_whatever_the_scale() -> None:
    one = torch.rand(2, 5, 5, generator=torch.Generator().manual_seed(0))
    maps = {"one": one, "twice": 2 * one + 1, "other": one.flip(1)}
    shared = pd.DataFrame(1.0, index=list(maps), columns=list(maps))
    assert study.same_rankings(maps, shared) == [("one", "twice")]
    assert study.same_rankings(maps, shared - 0.5) == []


def test_a_tinted_map_ends_at_its_quantile() -> None:
    picture, values = torch.full((3, 8, 8), 0.5), torch.arange(64.0).view(8, 8)
    whole, cut = study.tinted("cam", picture, values), study.tinted("cam", picture, values, top=0.5)
    assert whole.shape == cut.shape == (8, 8, 3)
    assert (cut[4:] == cut[7, 7]).all() and not (whole[4:] == whole[7, 7]).all()
    assert not np.allclose(study.tinted("sdd_sum", picture, values), whole), "its logarithm is undone"


def test_a_round_of_the_inpainting_game() -> None:
    class Means(torch.nn.Module):
        out_channels, name = 3, "means"

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images

    model = FaceClassifier(Means(), 3, seed=0).eval()
    model.head.weight.data = torch.eye(3)
    model.head.bias.data.zero_()
    probe, twin = torch.zeros(3, 4, 4), torch.zeros(3, 4, 4)
    probe[0], twin[0], twin[1, :2] = 0.1, 0.1, 1.0  # the twin is green above

    def play(values: torch.Tensor, probe: torch.Tensor, twin: torch.Tensor) -> tuple[torch.Tensor, float, float]:
        return torch.where(values > 0, twin, probe), float(values.mean()), 0.5

    above = torch.zeros(4, 4)
    above[:2] = 1
    rows, pasted = one_round(play, model, {"above": above, "below": 1 - above}, probe, twin, torch.tensor([0, 1]))
    assert rows.to_dict("list") == {
        "method": ["above", "below"], "found": [0.5, 0.5], "area": [0.5, 0.5], "turned": [True, False],
    }  # fmt: skip
    assert torch.equal(pasted["above"], twin) and torch.equal(pasted["below"], probe)


def test_what_is_kept_is_made_once_for_each_key(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(study, "read_manifest", lambda path: path)
    monkeypatch.setattr(study, "data_hash", str)
    (tmp_path / "classifier.safetensors").write_text("weights")
    run = SimpleNamespace(need=lambda name, _: tmp_path / name, output=lambda name: tmp_path / name)
    made: list[int] = []

    def make() -> torch.Tensor:
        made.append(1)
        return torch.full((2, 3), float(len(made)))

    first = study.kept(run, {"name": "rise", "masks": 5}, make)
    assert torch.equal(study.kept(run, {"name": "rise", "masks": 5}, make), first) and len(made) == 1
    assert not torch.equal(study.kept(run, {"name": "rise", "masks": 6}, make), first)
    (tmp_path / "classifier.safetensors").write_text("other weights")
    study.kept(run, {"name": "rise", "masks": 5}, make)
    assert len(made) == 3

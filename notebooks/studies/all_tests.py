"""How to add an explainer: one function that puts explainers through the tests of the chapters, and one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from madefaces.people import picture_seed, read_people
from studies import candidates, cell_truth, sanity
from studies.ground_truth import PartImportance, part_importance, score_maps
from xfrlib.explainers import EXPLAINERS, explain_with
from xfrlib.explanation import select_classes
from xfrlib.geometry import map_geometry
from xfrlib.intervals import mean_interval
from xfrlib.judge import evaluate
from xfrlib.prediction import all_logits, as_floats
from xfrlib.protocol import Sample, stratified
from xfrlib.regions import top_fraction_mask
from xfrlib.run import NotebookRun
from xfrlib.tables import in_text


def all_tests(
    run: NotebookRun, names: Sequence[str], *, pictures: int = 60, fills: Sequence[str] = ("black", "blur")
) -> pd.DataFrame:
    """Explainers on network 0 and the same test pictures: a row a test, a column an explainer, intervals over people.

    Parameters
    ----------
    run : the classifier, pictures and settings are its own; chapters 1 and 2 of its profile must have run.
    names : of `EXPLAINERS`, with their defaults.
    pictures : how many test pictures, in turn of all people.
    fills : that judge deletion and retention.

    Returns
    -------
    The gain over the centred disc in deletion and in retention under each fill, in log-odds of the lead, and in
    balance (chapters 7 and 10); the rank correlation with the truth per cell, covered with the mean face (chapter 8);
    for made faces the concordance of the parts' order with their worth, against a look-alike, by the means of the map
    over them (chapter 8); and what a random head leaves of the region, less what the maps of two strangers share
    (chapter 12): above 0 is bad.
    """
    model, sample = run.classifier(), stratified(run.dataset("test"), pictures)
    logits, images = all_logits(model, sample.images), as_floats(sample.images).to(run.device)
    classes, people = select_classes(logits, top_k=run.profile.top_k), run.families()[sample.labels]

    def maps_of(name: str, network: object = model) -> Tensor:
        return explain_with(name, network, images, classes, seed=run.profile.seed).cpu()  # type: ignore[arg-type]

    maps = {name: maps_of(name) for name in names}
    table = evaluate(
        model, sample.images, sample.labels,
        {name: top_fraction_mask(found, run.profile.fraction).numpy() for name, found in maps.items()},
        logits=logits, pairs=classes, fills=tuple(fills), fraction=run.profile.fraction, controls=("disc",),
        temperature=run.temperature(), progress=False,
    )  # fmt: skip
    table["family"] = run.families()[table["label"]]
    down, right = model.features(images[:1]).shape[2:]
    place, size = map_geometry(model, images[:1], model.features), (images.shape[2], images.shape[3])
    squares = cell_truth.cell_squares(place, (down, right), size)
    effects = cell_truth.cell_effects(model, sample.images, squares, {"mean face": sample.images.mean(dim=0)})
    truth = cell_truth.pair_effects(effects, classes)[0]
    _, random_head = next(iter(sanity.cascade(model, images, seed=run.profile.seed, stops=2)))
    strangers = sanity.other_pictures(sample.labels, same_identity=False, seed=run.profile.seed)
    exchanged = exchanged_parts(run, sample) if run.profile.dataset == "synthetic" else None
    columns: dict[str, dict[str, str]] = {}
    for name, own in maps.items():
        column = columns[EXPLAINERS[name].title] = {}
        for fill, rows in candidates.paired_gains(table, name).groupby("fill", sort=False):
            for measure in candidates.GAIN_MEASURES:
                found = candidates.interval(rows, measure)
                column[f"gain over the disc, {measure}, {fill}"] = in_text(found, signed=True)
        agreement = cell_truth.agreement(cell_truth.on_cells(own, squares), truth)
        column["rank correlation with the truth per cell"] = in_text(mean_interval(np.asarray(agreement), people))
        if exchanged:
            shown = exchanged.images[exchanged.pictures].float().to(run.device) / 255
            against = explain_with(name, model, shown, exchanged.classes, seed=run.profile.seed).cpu()
            rows = score_maps({name: against}, exchanged, fractions=()).dropna(subset="concordance_density")
            families = run.families()[rows["target"]]
            column["order of the parts, against look-alikes"] = in_text(
                mean_interval(rows["concordance_density"].to_numpy(), families), signed=True
            )
        shared = [
            sanity.map_similarity(own, other, fraction=run.profile.fraction)["overlap"].to_numpy()
            for other in (maps_of(name, random_head), own[strangers])
        ]
        column["overlap after a random head, less two strangers"] = in_text(
            mean_interval(np.subtract(*shared), people), signed=True
        )
    return pd.DataFrame(columns).rename_axis("test")


def exchanged_parts(run: NotebookRun, sample: Sample) -> PartImportance:
    """What each part of made faces is worth to network 0, each picture against one look-alike, drawn by lot."""
    record, targets, family = run.read_json("faces_families.json", "01_data_preparation"), sample.labels, run.families()
    paths, rng = run.dataset("test").table.loc[sample.indices, "path"], np.random.default_rng(run.profile.seed)
    seeds = [picture_seed(record["seed"], t, int(Path(path).stem)) for t, path in zip(targets, paths, strict=True)]
    kin = [np.flatnonzero((family == family[t]) & (np.arange(len(family)) != t)) for t in targets]
    rivals = [[int(rng.choice(relatives))] for relatives in kin]
    return part_importance(run.classifier(), read_people(record), targets.tolist(), rivals, seeds, progress=False)

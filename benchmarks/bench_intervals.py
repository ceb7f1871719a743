"""How often the intervals and tests of xfrlib.intervals are right, by simulation; the book quotes what this writes.

python benchmarks/bench_intervals.py                       about a minute
python benchmarks/bench_intervals.py --trials 500 --json somewhere.json

Coverage is the share of trials whose 95 % interval holds the truth, beside that of Student's t over people. An error is
a question answered "better" or "worse" where there is nothing: of one question, and of any in a family of five after
Holm, beside the same when networks are left out. For each set of pictures of the book, with its number of people and of
networks, the family has the twenty comparisons that the book corrects together.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from tqdm import tqdm

from xfrlib import artifacts
from xfrlib.intervals import mean_interval

sys.path.append(str(Path(__file__).resolve().parents[1] / "notebooks"))  # what is imported from there is the chapters'
from studies.jackknife import holm
from studies.shares import share_interval

Draw = Callable[[np.random.Generator, int], np.ndarray]
PEOPLE: dict[str, tuple[Draw, float]] = {  # how people differ, and their true mean
    "normal": (lambda rng, n: rng.normal(size=n), 0.0),
    "exponential": (lambda rng, n: rng.exponential(size=n), 1.0),
    "lognormal": (lambda rng, n: rng.lognormal(size=n), float(np.exp(0.5))),
}
QUESTIONS = 5  # of a family
DESIGNS = {"made faces": (10, 5), "FaceScrub": (12, 3), "LFW": (62, 3)}  # people, or families, and networks
COMPARISONS = 20  # that the book corrects together: five questions, two measures, two fills


def main() -> None:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=4000)
    parser.add_argument("--json", type=Path, default=Path("results/intervals.json"), help="file to write to")
    given = parser.parse_args()
    found: dict[str, Any] = {"trials": given.trials, "people": {}, "shares": {}, "networks": {}}
    for kind, count in product(PEOPLE, (6, 10, 12, 24, 62)):
        found["people"].setdefault(kind, {})[str(count)] = skewed(kind, count, given.trials)
    for share, count in product((0.5, 0.9, 0.98), (12, 62)):
        found["shares"].setdefault(f"{100 * share:.0f}", {})[str(count)] = shares(share, count, given.trials)
    for (name, spread), count in product({"none": 0.0, "small": 0.2, "large": 0.5}.items(), (3, 5, 8)):
        found["networks"].setdefault(name, {})[str(count)] = crossed(62, count, spread, given.trials // 4)
    found["designs"] = {
        name: {"people": people, "networks": count} | crossed(people, count, 0.5, given.trials // 4, COMPARISONS)
        for name, (people, count) in DESIGNS.items()
    }
    artifacts.write_json(given.json, found | {"provenance": {"commit": artifacts.commit()} | artifacts.environment()})
    print(f"{given.json} written")


def skewed(kind: str, count: int, trials: int) -> dict[str, float]:
    """Coverage with `count` people of three pictures each."""
    draw, truth = PEOPLE[kind]
    rng, who, inside = np.random.default_rng(count), np.repeat(np.arange(count), 3), np.zeros(2)
    for _ in tqdm(range(trials), f"{kind}, {count} people", mininterval=1, leave=False):
        people = draw(rng, count)
        plain = stats.ttest_1samp(people, truth).confidence_interval()
        ours = mean_interval(people[who] + rng.normal(size=3 * count) * 1e-3, who)
        inside += [one.low <= truth <= one.high for one in (ours, plain)]
    return {"ours": float(inside[0] / trials), "student": float(inside[1] / trials)}


def shares(share: float, count: int, trials: int) -> float:
    """Coverage of a share among `count` people of one picture each."""
    rng, who, inside = np.random.default_rng(count), np.arange(count), 0
    for _ in tqdm(range(trials), f"share {share}, {count} people", mininterval=1, leave=False):
        one = share_interval(rng.random(count) < share, who)
        inside += one.low <= share <= one.high
    return inside / trials


def crossed(people: int, networks: int, spread: float, trials: int, questions: int = QUESTIONS) -> dict[str, float]:
    """People of spread 1 on networks of another spread: coverage, and errors of one question and of a family."""
    rng = np.random.default_rng(networks)
    who, net = np.tile(np.arange(people), networks), np.repeat(np.arange(networks), people)
    inside, errors, family, blind = 0, 0, 0, 0
    for _ in tqdm(
        range(trials), f"{people} people, {networks} networks of spread {spread}", mininterval=1, leave=False
    ):
        asked = [
            rng.normal(size=people)[who] + spread * rng.normal(size=networks)[net] + 0.5 * rng.normal(size=len(who))
            for _ in range(questions)
        ]
        ours = [mean_interval(values, who, net) for values in asked]
        inside += ours[0].low <= 0 <= ours[0].high
        errors += ours[0].p < 0.05
        family += min(holm([one.p for one in ours])) < 0.05
        blind += min(holm([mean_interval(values, who).p for values in asked])) < 0.05
    names = ("coverage", "one_question", "family", "family_without_networks")
    return {name: float(n / trials) for name, n in zip(names, (inside, errors, family, blind), strict=True)}


if __name__ == "__main__":
    main()

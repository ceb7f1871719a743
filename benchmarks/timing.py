"""Times of the same work done in several ways, taken in turns so that a busy machine slows all of them alike."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter, process_time
from typing import Any

import torch

from xfrlib import artifacts

Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": perf_counter, "cpu": process_time}
LEAST = 3  # rounds that even a slow way takes part in, so that there are quartiles


@dataclass(frozen=True)
class Beside:
    """What a work is held against."""

    title: str
    run: Callable[[], object] | None  #: None: its library is not installed
    #: The largest ratio ours over theirs for the passes that the work is made of, the least ratio theirs over ours for
    #: another library; None where nothing was aimed at.
    aim: float | None = None
    passes: bool = False  #: whether these are the bare passes of the network, or the bare loop


@dataclass(frozen=True)
class Work:
    """Something that this project does, ways to do the same, and what it consists of."""

    title: str
    network: str
    pictures: int
    ours: Callable[[], object]
    beside: Mapping[str, Beside] = field(default_factory=dict)
    parts: Mapping[str, Callable[[], object]] = field(default_factory=dict)  #: timed each by itself
    rate: float | None = None  #: the least number of pictures a second that was aimed at


def in_turns(
    ways: Mapping[str, Callable[[], object]], repeats: int, limit: float, clock: Clock = perf_counter
) -> dict[str, dict[int, float]]:
    """Seconds of each way by round, after one run of each that does not count.

    Each round runs all ways, one after another, and begins with another one. A way that has taken more than `limit`
    seconds in all sits out after `LEAST` rounds.
    """
    for run in ways.values():
        run()
    names, times = list(ways), {name: dict[int, float]() for name in ways}
    for number in range(repeats):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            if len(times[name]) >= LEAST and sum(times[name].values()) > limit:
                continue
            began = clock()
            ways[name]()
            times[name][number] = clock() - began
    return times


def quartiles(values: list[float]) -> dict[str, float]:
    """Median and quartiles, as they stand in the results; one value is all three."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else 3 * values
    return {"median": middle, "lower_quartile": low, "upper_quartile": high}


def paired(above: Mapping[int, float], below: Mapping[int, float]) -> dict[str, float]:
    """`quartiles` of the ratio of two ways, round by round, over the rounds in which both ran."""
    return quartiles([above[number] / below[number] for number in above if number in below])


def measured(work: Work, repeats: int, limit: float, clock: Clock = perf_counter) -> dict[str, Any]:
    """The results of a work: seconds, and ratios with whether the aim was met (None: no aim)."""
    run = {f"beside {name}": way.run for name, way in work.beside.items() if way.run}
    ways = {"ours": work.ours, **run, **{f"part {name}": part for name, part in work.parts.items()}}
    times = in_turns(ways, repeats, limit, clock)
    ours = times["ours"]
    found: dict[str, Any] = {"title": work.title, "network": work.network, "pictures": work.pictures}
    found |= {"rounds": len(ours), "seconds": quartiles(list(ours.values())), "passes": {}, "neighbours": {}}
    for name, way in work.beside.items():
        row: dict[str, Any] = {"title": way.title, "installed": way.run is not None}
        if way.run:
            theirs = times[f"beside {name}"]
            row |= {"seconds": quartiles(list(theirs.values())), "rounds": len(theirs)}
            row["ratio"] = paired(ours, theirs) if way.passes else paired(theirs, ours)
            row |= _judged(row["ratio"]["median"], way.aim, at_most=way.passes)
        found["passes" if way.passes else "neighbours"][name] = row
    found["parts"] = {name: {"percent": 100 * paired(times[f"part {name}"], ours)["median"]} for name in work.parts}
    if work.rate is not None:
        rates = quartiles([work.pictures / seconds for seconds in ours.values()])
        found["rate"] = rates | _judged(rates["median"], work.rate, at_most=False)
    return found


def _judged(value: float, aim: float | None, *, at_most: bool) -> dict[str, Any]:
    met = None if aim is None else (value <= aim if at_most else value >= aim)
    return {"aim": aim, "met": met}


def provenance() -> dict[str, Any]:
    """Commit, device, versions and machine, which every file of measured times carries."""
    machine = {"cores": os.cpu_count(), "instructions": torch.backends.cpu.get_cpu_capability()}
    return {"commit": artifacts.commit(), **artifacts.environment(), **machine}

"""Made faces: people in families of look-alikes, and colour pictures of them with a part mask for each.

An identity is a point of the unit cube, a few genes for each part of the face (`madefaces.face_paint.GENES`). A picture
adds nuisance drawn from its own seed. Members of a family share all genes but those of one or two parts, which the
identity records, so that where two of them differ is known to the pixel."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from madefaces.face_paint import GENES, NUISANCE, PARTS, SIZE, draw

OPTIONAL = ("beard", "glasses", "mole")  # present in some people only


DIFFERING = ("hair", "brows", "eyes", "nose", "mouth", "ears", "beard", "glasses", "mole")  # may set a family apart


PURPOSES = {"book": 0, "pretraining": 1}  # first word of every seed, so that no stream of one is a stream of the other


@dataclass(frozen=True)
class Identity:
    """One made person.

    `genes` maps each part to its gene values in [0, 1], in the order of `GENES[part]`; `differs` names the parts by
    which the members of `family` differ from one another.
    """

    name: str
    family: int
    genes: dict[str, tuple[float, ...]]
    differs: tuple[str, ...]


class Kind(NamedTuple):
    """A kind of made people: how one is drawn from chance, and how pictures are made of them."""

    genes: Mapping[str, Mapping[str, tuple[float, float, float]]]  #: as `madefaces.face_paint.GENES`
    differing: tuple[str, ...]  #: parts by which members of a family may differ
    parts: tuple[str, ...]  #: what the values of a mask mean
    #: genes of a part that suit the parts already drawn, from chance
    draw_part: Callable[[str, dict[str, tuple[float, ...]], np.random.Generator], tuple[float, ...]]
    #: pictures and masks of identities and seeds, as `render`
    render: Callable[[Sequence[Identity], Sequence[int]], tuple[NDArray[np.uint8], NDArray[np.uint8]]]


def make_families(
    n_families: int, family_size: int, *, seed: int, purpose: str = "book", kind: Kind | None = None
) -> list[Identity]:
    """Identities in families of look-alikes, family after family.

    Members of a family have equal genes but for the one or two parts in `differs`, which are drawn to lie far apart.
    Family i depends on (purpose, seed, i) only. `purpose` "pretraining" draws from streams disjoint from the book's.
    `kind` is `DRAWN` unless given, or `madefaces.heads.HEADS`.
    Raises ValueError for impossible sizes, a negative seed or an unknown purpose.
    """
    kind = kind or DRAWN
    if n_families < 1 or not 1 <= family_size <= 26:
        raise ValueError(f"{n_families} families of {family_size}: give at least 1 family of 1 to 26 members")
    if purpose not in PURPOSES:
        raise ValueError(f"unknown purpose {purpose!r}: choose one of {', '.join(PURPOSES)}")
    root = [PURPOSES[purpose], _checked_seed(seed)]
    order = np.random.default_rng(np.random.SeedSequence([*root, 0])).permutation(len(kind.differing))
    families = [_family(kind, i, family_size, order, np.random.default_rng([*root, 1, i])) for i in range(n_families)]
    return [member for family in families for member in family]


def _family(kind: Kind, number: int, size: int, order: NDArray[np.int64], rng: np.random.Generator) -> list[Identity]:
    """One family; the first differing part goes through all parts in turn, so that few families already show each."""
    base: dict[str, tuple[float, ...]] = {}
    for part in kind.genes:
        base[part] = kind.draw_part(part, base, rng)
    first = kind.differing[order[number % len(kind.differing)]]
    second = str(rng.choice([part for part in kind.differing if part != first]))
    differs = (first, second) if rng.random() < 0.5 else (first,)
    variants = {part: _far_apart(kind, part, base, size, rng) for part in differs}
    return [
        Identity(
            f"family{number:02d}_{chr(97 + m)}", number, base | {part: variants[part][m] for part in differs}, differs
        )
        for m in range(size)
    ]


def _draw_part(part: str, base: dict[str, tuple[float, ...]], rng: np.random.Generator) -> tuple[float, ...]:
    """Random genes of one part that suit the parts already drawn (colours that occur together)."""
    genes = dict(zip(GENES[part], rng.random(len(GENES[part])).round(4).tolist(), strict=True))
    if part in ("hair", "eyes") and base["head"][0] > 0.55:
        genes["colour"] = round(genes["colour"] * 0.4, 4)
    if part in ("brows", "beard"):
        genes["colour"] = round(base["hair"][0] * (0.6 + 0.3 * genes["colour"]), 4)
    if part == "mole" and base["hair"][1] > 0.4:
        genes["place"] = round(0.25 + 0.75 * genes["place"], 4)  # below the forehead, which a low hairline hides
    if part in OPTIONAL:
        genes["present"] = float(genes["present"] < 0.3)
    return tuple(genes.values())


def _far_apart(
    kind: Kind, part: str, base: dict[str, tuple[float, ...]], size: int, rng: np.random.Generator
) -> list[tuple[float, ...]]:
    """`size` gene sets of one part by farthest-point choice among random ones, the base's own first."""
    weights = np.array([weight for *_, weight in kind.genes[part].values()])
    chosen, candidates = [base[part]], [kind.draw_part(part, base, rng) for _ in range(40 * size)]
    seen = np.array(candidates) * weights
    if part in OPTIONAL:
        seen[:, 1:] *= np.array(candidates)[:, :1]  # who has no beard has no colour of it either
    if part in OPTIONAL and chosen[0][0] == 0:
        nearest = np.linalg.norm(seen, axis=1)
    else:
        nearest = np.linalg.norm(seen - np.array(chosen[0]) * weights, axis=1)
    while len(chosen) < size:
        best = int(nearest.argmax())
        chosen.append(candidates[best])
        nearest = np.minimum(nearest, np.linalg.norm(seen - seen[best], axis=1))
    return chosen


def swap_parts(identity: Identity, other: Identity, parts: Sequence[str]) -> Identity:
    """`identity` with the genes of `parts` taken from `other`; rendered with the same seed, only those parts change."""
    unknown = [part for part in parts if part not in identity.genes]
    if unknown:
        raise ValueError(f"no genes for {', '.join(unknown)}: choose from {', '.join(identity.genes)}")
    genes = identity.genes | {part: other.genes[part] for part in parts}
    return replace(identity, name=f"{identity.name}+{'+'.join(parts)}", genes=genes)


def render(
    identities: Sequence[Identity], seeds: Sequence[int], *, nuisance: float = 1.0, chunk: int = 4
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pictures (B, 112, 112, 3) RGB and part masks (B, 112, 112) whose values are positions in `PARTS`, both uint8.

    Picture i shows `identities[i]` under the nuisance drawn from `seeds[i]` alone: the same seed gives the same pose,
    light, background and noise to anyone, and neither batch size nor order matters. `nuisance` in [0, 1] scales its
    strength, 0 is the neutral picture. `chunk` pictures are worked on at once (4 stay in the processor's cache).
    Raises ValueError when the two sequences differ in length, a seed is negative or `nuisance` is out of range.
    """
    if len(identities) != len(seeds):
        raise ValueError(f"{len(identities)} identities but {len(seeds)} seeds: give one seed for each picture")
    if not 0 <= nuisance <= 1:
        raise ValueError(f"nuisance is {nuisance}: give a strength from 0 to 1")
    images = np.empty((len(seeds), SIZE, SIZE, 3), np.uint8)
    masks = np.empty((len(seeds), SIZE, SIZE), np.uint8)
    for start in range(0, len(seeds), chunk):
        rows = slice(start, start + chunk)
        genes = {part: np.array([who.genes[part] for who in identities[rows]]) for part in GENES}
        rngs = [np.random.default_rng(_checked_seed(seed)) for seed in seeds[rows]]
        drawn = np.stack([_draw_nuisance(rng, nuisance) for rng in rngs])
        grain = [np.frombuffer(rng.bytes(6 * SIZE * SIZE), np.uint8).reshape(2, 3, SIZE, SIZE) for rng in rngs]
        images[rows], masks[rows] = draw(genes, drawn, np.stack(grain, axis=2))
    return images, masks


def _draw_nuisance(rng: np.random.Generator, strength: float) -> NDArray[np.float64]:
    """Unit values of one picture's nuisance, in the order of `NUISANCE`: the first numbers of its stream."""
    drawn = strength * (rng.random(len(NUISANCE)) - 0.5) + 0.5
    drawn[list(NUISANCE).index("noise")] -= 0.5 - 0.5 * strength  # neutral is no noise, not the middle
    return drawn


def nuisance_of(seed: int, *, nuisance: float = 1.0) -> dict[str, float]:
    """What `render` draws from a picture's seed: pose, light, expression, ..., in the units of `NUISANCE`."""
    drawn = _draw_nuisance(np.random.default_rng(_checked_seed(seed)), nuisance)
    return {
        name: low + (high - low) * float(unit)
        for (name, (low, high)), unit in zip(NUISANCE.items(), drawn, strict=True)
    }


def picture_seed(seed: int, identity: int, picture: int) -> int:
    """The nuisance seed of the given picture of the given identity, for all three numbers from 0."""
    return int(np.random.SeedSequence([_checked_seed(seed), identity, picture]).generate_state(1, np.uint64)[0])


def write_faces(
    folder: Path,
    *,
    families: int,
    family_size: int,
    pictures_per_identity: int,
    seed: int,
    progress: bool = True,
    kind: Kind | None = None,
) -> None:
    """Write the book's faces to disk as PNG.

    `<folder>/<identity>/<nnn>.png` are the pictures, `<folder>_parts/<identity>/<nnn>.png` the part masks (grey value =
    position in the kind's parts), `<folder>_families.json` names the parts and records family, differing parts and
    genes. `kind` is as for `make_families`.
    """
    kind = kind or DRAWN
    if pictures_per_identity < 1:
        raise ValueError(f"pictures_per_identity is {pictures_per_identity}: give at least 1")
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder: name another for the pictures")
    identities = make_families(families, family_size, seed=seed, kind=kind)
    parts_folder = folder.with_name(folder.name + "_parts")
    for number, identity in enumerate(tqdm(identities, desc="made faces", unit="person", disable=not progress)):
        seeds = [picture_seed(seed, number, k) for k in range(pictures_per_identity)]
        for base, pictures in zip((folder, parts_folder), kind.render([identity] * len(seeds), seeds), strict=True):
            (base / identity.name).mkdir(parents=True, exist_ok=True)
            for k, picture in enumerate(pictures):
                Image.fromarray(picture).save(base / identity.name / f"{k:03d}.png", compress_level=3)
    record = {"seed": seed, "parts": kind.parts, "identities": [asdict(identity) for identity in identities]}
    folder.with_name(folder.name + "_families.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def read_people(record: Mapping[str, Any]) -> list[Identity]:
    """The people that `write_faces` recorded, in the order of the classes; `record` is the content of its JSON file."""
    return [
        Identity(
            who["name"],
            who["family"],
            {part: tuple(genes) for part, genes in who["genes"].items()},
            tuple(who["differs"]),
        )
        for who in record["identities"]
    ]


def _checked_seed(seed: int) -> int:
    if seed < 0:
        raise ValueError(f"seed is {seed}: give a whole number of at least 0")
    return int(seed)


def part_differs(identity: Identity, other: Identity, part: str) -> bool:
    """Whether two people differ in `part`. Who has no beard has no colour of it either: two absent ones are equal."""
    absent = part in OPTIONAL and identity.genes[part][0] == other.genes[part][0] == 0
    return not absent and identity.genes[part] != other.genes[part]


DRAWN = Kind(GENES, DIFFERING, PARTS, _draw_part, render)

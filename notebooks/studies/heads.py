"""Chapter 13: what the parts of a head are worth to a recogniser in use, measured by exchanging them.

A *pair* is a picture of one head, its mate's template and the template of another head. The *lead* is the similarity to
the mate less that to the other. The renderer gives the picture parts of the other head and leaves all else as it is:
how far the lead falls is what those parts are worth. What is measured is kept at once, so that a rerun goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from facedata.align import TEMPLATE, align
from madefaces.heads import PARTS, render
from madefaces.people import Identity, part_differs, picture_seed, swap_parts
from matching.face_parts import part_masks
from matching.faces import template_for
from matching.shapley import covered_scores, shapley
from studies.matching import TemplateGallery, maps_by_method
from xfrlib.artifacts import fingerprint, write_atomic
from xfrlib.data.faces import FaceDataset
from xfrlib.models import Backbone

Arrays = dict[str, NDArray[Any]]
#: What is exchanged, and whose genes that are: together all of a head. The first two have no place of their own.
EXCHANGED: dict[str, tuple[str, ...]] = {
    "head": ("head",), "skin": ("skin",), "hair": ("hair", "beard"), "forehead": ("forehead",), "brows": ("brows",),
    "eyes": ("eyes",), "nose": ("nose",), "mouth": ("mouth",), "cheeks": ("cheeks",), "chin": ("chin",),
    "ears": ("ears",),
}  # fmt: skip
PLACED = tuple(name for name in EXCHANGED if name not in ("head", "skin"))  # what a map can point at
#: Seven groups of them, few enough that all 128 coalitions are rendered for exact Shapley values.
GROUPS: dict[str, tuple[str, ...]] = {
    "shape of the head": ("head", "forehead", "ears"), "skin and hair": ("skin", "hair", "beard"), "brows": ("brows",),
    "eyes": ("eyes",), "nose": ("nose",), "mouth": ("mouth",), "cheeks and chin": ("cheeks", "chin"),
}  # fmt: skip
#: Maps held to the truth, and how a reader sees them.
HEAD_MAPS = {
    "difference": "map difference",
    "sdd": "SDD against several heads",
    "cam": "map of the mate alone",
    "gradient": "gradient of the lead",
    "wrong_pair": "map difference, two other heads",
    "corr_rise": "CorrRISE",
}
MASKS = 100  # random ones of CorrRISE, as in chapter 9
#: One neutral picture under each condition: its name, and what replaces the neutral values of `NUISANCE`.
CONDITIONS: dict[str, dict[str, float]] = {
    "ahead": {}, "turned 20": {"yaw": np.radians(20)}, "turned 40": {"yaw": np.radians(40)},
    "turned 60": {"yaw": np.radians(60)}, "turned 90": {"yaw": np.radians(90)},
    "light from one side": {"light_x": 1, "light_y": 0.3, "lamp": 0.8}, "smile": {"smile": 1.1, "squint": 0.3},
}  # fmt: skip
TONES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of skin, from light to dark


class Pair(NamedTuple):
    """Two heads by number, and what the second is to the first."""

    first: int
    second: int
    kind: str  #: "look-alike", of its family; "nearest", the most similar stranger; or "stranger", by chance


class Sizes(NamedTuple):
    """How many of each are measured: heads, pictures and pairs cost most of the time."""

    families: int  #: of two look-alikes each
    enrolled: int  #: pictures of each head that make its template
    probes: int  #: further pictures of each head, on which errors are counted
    strangers: int  #: that each head is held against, the nearest one included
    pairs: int  #: of all those, how many are measured
    turned: int  #: pairs that are measured under several conditions
    games: int  #: pairs with exact Shapley values, 128 pictures each
    tables: int  #: pairs of strangers, and as many of look-alikes, with the black box's table of parts, 256 passes each
    toned: int  #: heads in all `TONES`, one of a family at most
    conditions: tuple[str, ...] = tuple(CONDITIONS)  #: of `CONDITIONS`, the first of which is "ahead"

    def scaled(self, pairs: int) -> Sizes:
        """As many pairs, and of all that is measured of some pairs or heads the same share, at least that of a look."""
        names = ("turned", "games", "tables", "toned")
        shares = {name: max(getattr(SMALL, name), round(getattr(self, name) * pairs / self.pairs)) for name in names}
        return self._replace(pairs=pairs, **shares)


#: For a first look, in about two minutes on one processor; and what the book quotes, in about an hour.
SMALL = Sizes(families=5, enrolled=2, probes=1, strangers=1, pairs=7, turned=2, games=1, tables=2, toned=3,
              conditions=("ahead", "turned 40", "turned 90"))  # fmt: skip
FULL = Sizes(families=30, enrolled=3, probes=2, strangers=3, pairs=200, turned=40, games=20, tables=20, toned=30)


class PairJob(NamedTuple):
    """A picture of the first head, held against the second, both by number."""

    first: int
    second: int
    seed: int  #: of the picture
    nuisance: float = 1.0  #: its strength
    condition: str = ""  #: of `CONDITIONS`; "": as the seed has it

    @property
    def name(self) -> str:
        """What its file is called."""
        return "_".join(map(str, (self.first, self.second, *self.condition.split())))


def jobs_of(pairs: Sequence[Pair], seed: int) -> list[PairJob]:
    """A picture of the first of each pair, with a seed that no enrolled picture has."""
    return [PairJob(one, other, picture_seed(seed, one, 1000 + other)) for one, other, _ in pairs]


def turned_jobs(pairs: Sequence[Pair], sizes: Sizes, seed: int) -> list[PairJob]:
    """The first pairs of nearest strangers, each in a neutral picture under each condition of `sizes`."""
    chosen = jobs_of([pair for pair in pairs if pair.kind == "nearest"][: sizes.turned], seed)
    return [job._replace(nuisance=0.0, condition=name) for job in chosen for name in sizes.conditions]


def frame_of(recogniser: Backbone) -> str:
    """The cut, one of `madefaces.heads.FRAMES`, that a recogniser's own alignment makes."""
    if recogniser.name == "dlib":
        return "dlib"
    return "arcface224" if recogniser.size == 224 else "arcface"


def as_input(images: NDArray[np.uint8], size: int) -> Tensor:
    """Pictures (n, S, S, 3) uint8 as a recogniser takes them: (n, 3, size, size) in [0, 1]."""
    pictures = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return pictures if pictures.shape[-1] == size else F.interpolate(pictures, (size, size), mode="bilinear")


@torch.no_grad()
def picture_embeddings(recogniser: Backbone, images: NDArray[np.uint8], batch_size: int = 16) -> Tensor:
    """Embeddings as the recogniser gives them, not of unit length: (n, S, S, 3) uint8 -> (n, D)."""
    device = next(recogniser.parameters()).device
    pictures = as_input(images, recogniser.size).split(batch_size)
    return torch.cat([recogniser.embed(recogniser(part.to(device))).cpu() for part in pictures])


def folder_of(root: Path, recogniser: Backbone, sizes: Sizes, seed: int) -> Path:
    """Where what is measured is kept: another recogniser, gallery or program finds nothing of this one's."""
    this, settings = sys.modules[__name__], (recogniser.name, recogniser.checkpoint_sha256, *sizes[:2], seed)
    return root / "heads" / fingerprint(settings, this)


def kept_one_by_one(folder: Path, jobs: Mapping[str, Any], measure: Callable[[Any], Arrays], what: str) -> list[Arrays]:
    """What `measure` finds of each job, in a file of its name as soon as it is found: a rerun measures the rest."""
    found = []
    for name, job in tqdm(jobs.items(), what, unit="one", mininterval=1):
        file = folder / f"{name}.npz"
        if not file.is_file():
            with write_atomic(file) as part, part.open("wb") as out:
                np.savez_compressed(out, **measure(job))  # type: ignore[arg-type]
        with np.load(file) as kept:
            found.append(dict(kept))
    return found


def enrolled(
    recogniser: Backbone, people: Sequence[Identity], pictures: int, folder: Path, *, seed: int, condition: str = ""
) -> NDArray[np.float32]:
    """Embeddings (N, pictures, D), not of unit length, of pictures of each of N heads, each with a seed of its own.

    With a `condition` of `CONDITIONS` all are under it, and pose, light and expression differ by half as much.
    """
    given: dict[str, Any] = {"nuisance": 0.5, "fixed": CONDITIONS[condition]} if condition else {}

    def measure(number: int) -> Arrays:
        seeds = [picture_seed(seed, number, k) for k in range(pictures)]
        images = render([people[number]] * pictures, seeds, frame=frame_of(recogniser), **given)[0]
        return {"embeddings": picture_embeddings(recogniser, images).numpy()}

    jobs = {person.name: number for number, person in enumerate(people)}
    found = kept_one_by_one(folder, jobs, measure, f"heads enrolled {condition}".strip())
    return np.stack([one["embeddings"] for one in found])


def gallery_of(recogniser: Backbone, found: NDArray[np.float32]) -> TemplateGallery:
    """The gallery of templates of embeddings (N, pictures, D): each the mean of a head's, brought to length 1."""
    unit = F.normalize(torch.from_numpy(found), dim=2).mean(dim=1)
    return TemplateGallery(recogniser, F.normalize(unit, dim=1)).eval()


def pairs_of(people: Sequence[Identity], similar: NDArray[np.float32], *, strangers: int, seed: int) -> list[Pair]:
    """Each head against every member of its family and some strangers, in an order by chance: any beginning will do.

    `similar` (N, N) are the similarities of templates; `strangers`, at least 1, counts the nearest one too.
    """
    family, rng, pairs = np.array([who.family for who in people]), np.random.default_rng([seed, 13]), list[Pair]()
    for one in range(len(people)):
        relatives = np.flatnonzero((family == family[one]) & (np.arange(len(people)) != one))
        others = np.flatnonzero(family != family[one])
        nearest, *rest = others[similar[one, others].argsort()[::-1]].tolist()
        drawn = rng.permutation(rest)[: strangers - 1]
        pairs += [Pair(one, int(other), "look-alike") for other in relatives]
        pairs += [Pair(one, nearest, "nearest"), *(Pair(one, int(other), "stranger") for other in drawn)]
    return [pairs[number] for number in rng.permutation(len(pairs))]


def differing(first: Identity, second: Identity, parts: Sequence[str]) -> bool:
    """Whether two heads differ in some of `parts`."""
    return any(part_differs(first, second, part) for part in parts)


def lead(gallery: TemplateGallery, images: NDArray[np.uint8], first: int, second: int) -> NDArray[np.float64]:
    """Similarity of each picture to the template of one head less that to the other's: (n, S, S, 3) -> (n,)."""
    unit = F.normalize(picture_embeddings(gallery.recogniser, images), dim=1)
    one, other = gallery.get_buffer("templates")[[first, second]].cpu()
    return (unit @ (one - other)).double().numpy()


def worth_of_exchanges(
    gallery: TemplateGallery, people: Sequence[Identity], job: PairJob,
    exchanges: Mapping[str, Sequence[str]] = EXCHANGED,
) -> Arrays:  # fmt: skip
    """What each exchange is worth in a picture, in units of similarity, and where its parts are.

    Parameters
    ----------
    gallery : TemplateGallery
        Templates of `people`, in their order.
    people : sequence of Identity
        Of `madefaces.heads.HEADS`.
    job : PairJob
        The picture and the two heads.
    exchanges : mapping
        A name for each of P exchanges, and the parts whose genes it exchanges.

    Returns
    -------
    dict
        ``image`` (S, S, 3) and ``labels`` (S, S) of the picture, uint8; ``own`` and ``others``, its lead and that of
        the second head in its pose and light; ``last_out`` (P,), what the lead loses if the parts become those of the
        second head; ``first_in`` (P,), what it gains if they alone are the first head's; ``masks`` (P, S, S) bool, the
        pixels that show the parts before or after the exchange. What does not differ is worth 0 without a pass.
    """
    first, second = people[job.first], people[job.second]
    differ = [k for k, parts in enumerate(exchanges.values()) if differing(first, second, parts)]
    names = list(exchanges)
    out = [swap_parts(first, second, exchanges[names[k]]) for k in differ]
    into = [swap_parts(second, first, exchanges[names[k]]) for k in differ]
    images, labels = drawn_alike([first, second, *out, *into], first, second, job, gallery)
    leads = lead(gallery, images, job.first, job.second)
    found: Arrays = {"image": images[0], "labels": labels[0], "own": leads[0], "others": leads[1]}
    found["last_out"], found["first_in"] = np.zeros((2, len(names)))
    found["last_out"][differ] = leads[0] - leads[2 : 2 + len(differ)]
    found["first_in"][differ] = leads[2 + len(differ) :] - leads[1]
    wanted = [[PARTS.index(part) for part in parts if part in PARTS] for parts in exchanges.values()]
    found["masks"] = np.stack([np.isin(labels[0], numbers) for numbers in wanted])
    for row, k in enumerate(differ):
        found["masks"][k] |= np.isin(labels[2 + row], wanted[k])
    return found


def drawn_alike(
    who: Sequence[Identity], first: Identity, second: Identity, job: PairJob, gallery: TemplateGallery
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """`render` of mixtures of two heads in one picture's pose and light, each cut as is whose head it has.

    So exchanging a part moves nothing else, and exchanging the head moves the cut, as an aligner would: by the other's
    landmarks, in whose place a head of another height would not be in the picture.
    """
    fixed = CONDITIONS[job.condition] if job.condition else None
    placed_as = [first if one.genes["head"] == first.genes["head"] else second for one in who]
    given: dict[str, Any] = {"nuisance": job.nuisance, "fixed": fixed, "placed_as": placed_as}
    return render(who, [job.seed] * len(who), frame=frame_of(gallery.recogniser), **given)


def coalitions(gallery: TemplateGallery, people: Sequence[Identity], job: PairJob) -> Arrays:
    """The lead with each set of `GROUPS` the first head's and the rest the second's: ``leads`` (128,).

    Bit i of a row's number says that group i is the first head's. A head is drawn once for each.
    """
    first, second, groups = people[job.first], people[job.second], list(GROUPS.values())
    who = [
        swap_parts(second, first, [part for k, parts in enumerate(groups) if row >> k & 1 for part in parts])
        for row in range(2 ** len(groups))
    ]
    return {"leads": lead(gallery, drawn_alike(who, first, second, job, gallery)[0], job.first, job.second)}


def ends_of(leads: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """First in and last out of a game of all 2^P coalitions, as `matching.shapley.shapley` takes it: (P,) each."""
    players, full = len(leads).bit_length() - 1, len(leads) - 1
    bits = [1 << player for player in range(players)]
    return leads[bits] - leads[0], leads[full] - leads[[full - bit for bit in bits]]


def maps_of(
    gallery: TemplateGallery, image: NDArray[np.uint8], job: PairJob, rivals: int = 4
) -> dict[str, NDArray[np.float32]]:
    """The maps of `HEAD_MAPS` of one picture (S, S, 3), each (H, W) at the recogniser's size.

    Rivals are the second head and, of the others, those most similar to the picture, `rivals` in all, from 3.
    """
    picture, templates = as_input(image[None], gallery.recogniser.size), gallery.get_buffer("templates")
    near = torch.from_numpy(templates.numpy() @ picture_embeddings(gallery.recogniser, image[None])[0].numpy())
    order = [who for who in near.argsort(descending=True).tolist() if who not in (job.first, job.second)]
    classes = torch.tensor([[job.first, job.second, *order[: rivals - 1]]])
    maps = maps_by_method(gallery, picture, classes, batch_size=20, masks=MASKS, seed=job.seed, progress=False)
    maps["sdd"] = maps["sdd"].exp()
    return {name: maps[name][0].detach().float().numpy() for name in HEAD_MAPS}


def measured_pair(gallery: TemplateGallery, people: Sequence[Identity], job: PairJob) -> Arrays:
    """`worth_of_exchanges`, and each of `maps_of` under its name."""
    found = worth_of_exchanges(gallery, people, job)
    return found | maps_of(gallery, found["image"], job)


def table_of_parts(
    gallery: TemplateGallery, image: NDArray[np.uint8], job: PairJob, template: NDArray[np.float64]
) -> Arrays:
    """What a black box says of this lead: exact Shapley values (8,) of `matching.face_parts.FACE_PARTS`, each blurred.

    The shapes of the parts are those of `matching.face_parts.part_masks`, around the places of eyes, nose and mouth in
    `template` (5, 2); the renderer's masks are not asked.
    """
    size, templates = gallery.recogniser.size, gallery.get_buffer("templates")
    way = templates[job.first] - templates[job.second]

    def score(pictures: Tensor) -> Tensor:
        found = gallery.recogniser.embed(gallery.recogniser(pictures))
        return (F.normalize(found, dim=1) @ way)[:, None]

    leads = covered_scores(score, as_input(image[None], size)[0], part_masks(template, size))
    return {"worth": shapley(leads.numpy())[:, 0]}


def toned(person: Identity, tone: float) -> Identity:
    """A head with another tone of skin, from 0, light, to 1, dark, and all else its own."""
    return replace(person, genes=person.genes | {"skin": (tone, *person.genes["skin"][1:])})


def in_all_tones(recogniser: Backbone, person: Identity, seeds: Sequence[int]) -> Arrays:
    """``embeddings`` (tones, pictures, D), not of unit length, of one head in each of `TONES` in the same pictures."""
    who = [toned(person, tone) for tone in TONES for _ in seeds]
    images = render(who, [*seeds] * len(TONES), frame=frame_of(recogniser), placed_as=[person] * len(who))[0]
    return {"embeddings": picture_embeddings(recogniser, images).numpy().reshape(len(TONES), len(seeds), -1)}


def cut_again(recogniser: Backbone, images: Tensor) -> NDArray[np.uint8]:
    """Pictures (n, 3, 112, 112) in [0, 1], aligned to ArcFace's places, as the recogniser's own alignment cuts them."""
    pictures = (images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    if frame_of(recogniser) == "arcface":
        return pictures
    place: dict[str, Any] = {"template": template_for(recogniser), "size": recogniser.size}
    return np.stack([align(picture, TEMPLATE, **place) for picture in pictures])


def two_of_each(dataset: FaceDataset) -> Tensor:
    """Two pictures of everybody who has two, (2 n, 3, H, W) in [0, 1]: first all first ones, then all second ones."""
    rows = (
        dataset.table.groupby("label")
        .filter(lambda own: len(own) > 1)
        .groupby("label")
        .head(2)
        .sort_values("label", kind="stable")
    )
    return torch.stack([dataset[int(row)][0] for half in (0, 1) for row in rows.index[half::2]])


def distances(found: NDArray[np.float32]) -> NDArray[np.float64]:
    """Euclidean distances of each two of n embeddings (n, D), dlib's own measure of them: (n * (n - 1) / 2,)."""
    return np.array([np.linalg.norm(found[a] - found[b]) for a, b in combinations(range(len(found)), 2)])

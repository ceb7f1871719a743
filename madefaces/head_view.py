"""The picture of a head: camera, layers from skin to hair, mask and landmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from madefaces import head_hair, head_paint
from madefaces.head_paint import grain, highlight, ramp, step
from madefaces.head_shapes import LAYERS, load_shapes
from madefaces.head_surface import REGIONS, load_surface, normals
from madefaces.raster import Seen, facing, rasterise

Array = NDArray[Any]

PARTS: tuple[str, ...] = ("background", *REGIONS, "hair", "beard", "clothes")
LANDMARKS = ("right_pupil", "left_pupil", "nose_tip", "mouth_right", "mouth_left", "left_outer", "left_inner",
             "right_outer", "right_inner", "nose_base")  # fmt: skip
_FINER = 2  # pixels drawn for the side of each pixel of the picture
_PORTRAIT = 3.4  # decimetres that a portrait shows at the distance of the head
_EYES = ("left eye", "right eye")


@dataclass(frozen=True)
class Person:
    """One head: where its vertices are, without expression, and the values of its looks."""

    #: (V, 3) in decimetres
    points: NDArray[np.float32]
    #: (3,) about which it turns, and the middle of its skull: of the head alone, so that no other part moves the camera
    pivot: NDArray[np.float32]
    skull: NDArray[np.float32]
    #: part -> values of what is not shape
    looks: Mapping[str, SimpleNamespace]


@dataclass(frozen=True)
class Camera:
    """A pinhole before the head."""

    #: (3, 3) the head's axes to the camera's: x right, y up, z to the camera
    turn: NDArray[np.float32]
    #: (3,) the point of the head at `distance` before the camera, in decimetres
    pivot: NDArray[np.float32]
    distance: float
    #: (2, 3) from x / z and -y / z to pixels
    plane: NDArray[np.float64]

    def project(self, points: Array) -> NDArray[np.float32]:
        """Points (V, 3) of the head to x and y in pixels, 0 the centre of the first, and distance along the axis."""
        seen = (points - self.pivot) @ self.turn.T
        away = self.distance - seen[:, 2]
        flat = seen[:, :2] * [1, -1] / away[:, None]
        return np.column_stack([flat @ self.plane[:, :2].T + self.plane[:, 2], away]).astype(np.float32)

    def aligned(self, points: Array, template: Array) -> Camera:
        """The camera whose picture has the landmarks `points` (L, 3) nearest to `template` (L, 2), in pixels.

        The similarity of least squares, as an aligner finds it (Umeyama 1991), without reflection.
        """
        plain = Camera(self.turn, self.pivot, self.distance, np.eye(2, 3))
        source, goal = (
            value[:, :2] @ [1, 1j] for value in (plain.project(points).astype(np.float64), np.asarray(template))
        )
        away, ahead = source - source.mean(), goal - goal.mean()
        factor = np.vdot(away, ahead) / np.vdot(away, away)
        shift = goal.mean() - factor * source.mean()
        plane = np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])
        return Camera(self.turn, self.pivot, self.distance, plane)

    def finer(self, times: int) -> Camera:
        """The camera of the same picture with `times` pixels for each side of one."""
        return Camera(
            self.turn, self.pivot, self.distance, self.plane * times + np.array([[0, 0, (times - 1) / 2]] * 2)
        )


def portrait(person: Person, n: SimpleNamespace, size: int) -> Camera:
    """The camera of a portrait of size x size pixels, for the pose, the distance and the place of the nuisance."""
    (cy, sy), (cp, sp), (cr, sr) = ((np.cos(angle), np.sin(angle)) for angle in (n.yaw, n.pitch, n.roll))
    yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    pitch = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    scale = size / _PORTRAIT * n.scale * n.distance
    middle = (size - 1) / 2
    plane = np.array([[scale, 0, middle + size * n.shift_x], [0, scale, middle + size * (n.shift_y + 0.01)]])
    return Camera((roll @ pitch @ yaw).astype(np.float32), person.pivot, n.distance, plane)


def express(person: Person, n: SimpleNamespace) -> NDArray[np.float32]:
    """The vertices (V, 3) of a person with the expression of the nuisance; what is below 0 is none."""
    points = person.points
    for name, way in load_shapes().units.items():
        if (amount := getattr(n, name)) > 0:
            points = points + np.float32(amount) * way
    return points


def _ball(points: Array, side: str) -> tuple[Array, float]:
    """Centre (3,) and radius of an eyeball."""
    shapes = load_shapes()
    ball = points[np.unique(shapes.triangles[shapes.layers == LAYERS.index(side)])]
    return (ball.max(0) + ball.min(0)) / 2, float(np.ptp(ball[:, 1])) / 2


def landmarks(points: Array) -> NDArray[np.float32]:
    """The places (10, 3) of `LANDMARKS` on a head; a pupil is the foremost point of its eyeball."""
    named = {name: points[vertex] for name, vertex in load_surface().landmarks.items()}
    for side in _EYES:
        centre, radius = _ball(points, side)
        named[f"{side.split()[0]}_pupil"] = centre + np.array([0, 0, radius], np.float32)
    return np.stack([named[name] for name in LANDMARKS])


class _Canvas:
    """Light, label and depth of each pixel."""

    def __init__(self, n: SimpleNamespace, side: int) -> None:
        self.side = side
        self.light = head_paint.background(n, side).reshape(-1, 3)
        self.label = np.zeros(side * side, np.int64)
        self.depth = np.full(side * side, np.inf, np.float32)

    def put(self, pixels: Array, colour: Array, label: Any, cover: Array | None = None) -> None:
        """Paint pixels, through a cover in [0, 1]; they get the label where it covers more than half."""
        if cover is None:
            self.light[pixels], self.label[pixels] = colour, label
        else:
            self.light[pixels] += cover[:, None] * (colour - self.light[pixels])
            self.label[pixels[cover > 0.5]] = label

    def result(self) -> tuple[Array, NDArray[np.uint8]]:
        """The picture (S, S, 3), its light averaged over finer pixels, and their most frequent label (S, S)."""
        size = self.side // _FINER
        blocks = self.light.reshape(size, _FINER, size, _FINER, 3).transpose(1, 3, 0, 2, 4).reshape(-1, size, size, 3)
        labels = self.label.reshape(size, _FINER, size, _FINER).transpose(0, 2, 1, 3).reshape(size * size, -1)
        votes = np.zeros((size * size, len(PARTS)), np.uint8)
        for column in labels.T:
            votes[np.arange(size * size), column] += 1
        return head_paint.encode(blocks.sum(0) / len(blocks)), votes.argmax(1).reshape(size, size).astype(np.uint8)


def draw(person: Person, n: SimpleNamespace, camera: Camera, size: int) -> tuple[Array, NDArray[np.uint8]]:
    """A picture (size, size, 3) in [0, 255] of a person under the nuisance `n`, and its mask, positions in `PARTS`."""
    points, camera, canvas = express(person, n), camera.finer(_FINER), _Canvas(n, size * _FINER)
    sky = head_paint.surroundings(load_surface().directions @ camera.turn.T, n)
    scene = SimpleNamespace(n=n, camera=camera, lamp=head_paint.lamp(n), sky=sky, who=person.looks)
    _draw_body(canvas, scene, points)
    _draw_lashes(canvas, scene, points)
    _draw_hair(canvas, scene, points, person.skull)
    return canvas.result()


def _lit(normal: Array, arrives: Array, sky: Array, directions: Array, wraps: Sequence[float]) -> Array:
    """Light (V, 3) that surfaces of unit normals (V, 3) get of the `sky` (D, 3) in `directions` (D, 3).

    `wraps` is how far red, green and blue get around the edge of a shadow, by scattering in the skin.
    """
    cosine = normal @ directions.T
    return np.stack(
        [(np.maximum(cosine + wrap, 0) * arrives) @ sky[:, k] / (1 + wrap) for k, wrap in enumerate(wraps)], axis=1
    )


def _between(seen: Seen, **values: Array) -> SimpleNamespace:
    """Values of vertices, (V, K) or (V,), at the pixels seen, by name."""
    columns = [value.reshape(len(value), -1) for value in values.values()]
    ends = np.cumsum([column.shape[1] for column in columns])
    found = seen.between(np.concatenate(columns, axis=1).astype(np.float32))
    parts = np.split(found, ends[:-1], axis=1)
    named = zip(values, parts, strict=True)
    return SimpleNamespace(**{name: part if values[name].ndim > 1 else part[:, 0] for name, part in named})


def _draw_body(canvas: _Canvas, scene: SimpleNamespace, points: Array) -> None:
    """Skin, mouth, teeth, eyes and clothes."""
    shapes, surface = load_shapes(), load_surface()
    screen, normal = scene.camera.project(points), normals(points, shapes.triangles)
    shown = facing(screen, shapes.triangles)
    shown = shown[shapes.layers[shown] != LAYERS.index("lashes")]
    seen = rasterise(screen, shapes.triangles[shown], canvas.side, canvas.side)
    canvas.depth[seen.pixels] = seen.depth
    here = _between(
        seen,
        light=_lit(normal, surface.arrives, scene.sky, surface.directions, (0.28, 0.1, 0.06)),
        normal=normal @ scene.camera.turn.T,
        at=shapes.mean,
        place=shapes.places,
        lips=shapes.textures["lips"],
        inner=shapes.textures["inside-mouth"],
        open=surface.arrives.mean(1),
        ground=head_paint.skin_ground(shapes.mean, scene.who["skin"]),
    )
    here.normal /= np.linalg.norm(here.normal, axis=1, keepdims=True)
    here.pixels, here.region = seen.pixels, surface.regions[shown[seen.triangles]]
    layer = shapes.layers[shown[seen.triangles]]
    skin = layer == LAYERS.index("skin")
    x, y, z = here.at.T
    clothes = skin & (y < 5.72 + 0.35 * x * x - 0.25 * np.maximum(z - 0.3, 0))
    mouth = skin & ~clothes & (here.inner > 0.5)
    _draw_skin(canvas, scene, _rows(here, skin & ~clothes & ~mouth))
    for name, own, colour in (
        ("clothes", clothes, ramp(head_paint.CLOTHES, scene.n.clothes_hue)),
        ("mouth", mouth, np.array([0.2, 0.05, 0.05], np.float32)),
        ("mouth", layer == LAYERS.index("teeth"), np.array([0.62, 0.56, 0.47], np.float32)),
    ):
        part = _rows(here, own)
        weave = 1 + 0.05 * grain(900 * part.at[:, 0], 900 * part.at[:, 1])
        canvas.put(part.pixels, colour * part.light * weave[:, None], PARTS.index(name))
    for side in _EYES:
        _draw_eye(canvas, scene, points, _rows(here, layer == LAYERS.index(side)), side)


def _rows(here: SimpleNamespace, own: NDArray[np.bool_]) -> SimpleNamespace:
    """The pixels for which `own` is true, of all that is known of each."""
    rows = np.flatnonzero(own)
    return SimpleNamespace(**{name: value[rows] for name, value in vars(here).items()})


def _draw_skin(canvas: _Canvas, scene: SimpleNamespace, here: SimpleNamespace) -> None:
    colour, brows, beard = head_paint.skin(here.at, here.place, here.lips, here.ground, scene.who)
    hairy = np.maximum(brows, beard)
    gloss = 0.04 * highlight(here.normal, scene.lamp, 12) + 0.035 * highlight(here.normal, scene.lamp, 50)
    gloss *= scene.n.lamp * np.minimum(2 * here.open, 1) * (1 - 0.8 * hairy) * (1 + step(here.lips, 0.3, 0.7))
    gloss += 0.04 * (1 - np.clip(here.normal[:, 2], 0, 1)) ** 3 * (1 - hairy)
    label = 1 + here.region
    label[brows > 0.5] = PARTS.index("brows")
    label[beard > 0.5] = PARTS.index("beard")
    canvas.put(here.pixels, (colour + gloss[:, None]) * here.light, label)


def _draw_eye(canvas: _Canvas, scene: SimpleNamespace, points: Array, here: SimpleNamespace, side: str) -> None:
    """An eyeball, a sphere whatever its mesh, that looks half to the camera and half ahead."""
    camera, n = scene.camera, scene.n
    centre, radius = _ball(points, side)
    # Where the ray through a pixel meets the sphere, in the camera's axes and in radii from its centre.
    middle = camera.turn @ (centre - camera.pivot) + [0, 0, -camera.distance]
    row, column = np.divmod(here.pixels, canvas.side)
    flat = (np.stack([column, row], axis=1) - camera.plane[:, 2]) @ np.linalg.inv(camera.plane[:, :2]).T
    ray = np.column_stack([flat * [1, -1], -np.ones(len(flat))])
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    along = ray @ middle
    meets = along - np.sqrt(np.maximum(along**2 - middle @ middle + radius**2, 0))
    ball = (ray * meets[:, None] - middle) / radius
    ball /= np.linalg.norm(ball, axis=1, keepdims=True)
    gaze = -0.5 * middle / np.linalg.norm(middle) + 0.5 * camera.turn[:, 2] + [n.gaze_x, n.gaze_y, 0]
    colour = head_paint.eyeball(ball, gaze / np.linalg.norm(gaze), scene.who["eyes"]) * here.light
    spark = 0.7 * highlight(ball, scene.lamp * np.array([0.7, 0.7, 1], np.float32), 300)
    canvas.put(here.pixels, colour + spark[:, None], PARTS.index("eyes"))


def _draw_lashes(canvas: _Canvas, scene: SimpleNamespace, points: Array) -> None:
    shapes = load_shapes()
    triangles = shapes.triangles[shapes.layers == LAYERS.index("lashes")]
    seen = rasterise(scene.camera.project(points), triangles, canvas.side, canvas.side, hide=canvas.depth + 0.02)
    cover = np.full(len(seen.pixels), 0.7, np.float32)
    canvas.put(seen.pixels, canvas.light[seen.pixels] * 0.1, PARTS.index("eyes"), cover)


def _draw_hair(canvas: _Canvas, scene: SimpleNamespace, points: Array, skull: Array) -> None:
    surface, style = load_surface(), scene.who["hair"]
    grid, cover = head_hair.strands(points, skull, surface, style)
    along = np.gradient(grid, axis=0)
    arrives = (surface.arrives[surface.roots] * surface.root_weights[..., None]).sum(2)
    rows = np.broadcast_to(np.arange(len(grid))[:, None], cover.shape)
    grid, cover, along, arrives, rows = (
        head_hair.closed(value.reshape(*rows.shape, -1)) for value in (grid, cover, along, arrives, rows)
    )
    triangles = head_hair.grid_triangles(*grid.shape[:2])
    triangles = triangles[(cover.ravel()[triangles] > 0).any(1)]
    vertices = grid.reshape(-1, 3).astype(np.float32)
    normal = normals(vertices, triangles)
    seen = rasterise(scene.camera.project(vertices), triangles, canvas.side, canvas.side, hide=canvas.depth)
    shadow = 0.35 + 0.65 * arrives.reshape(len(vertices), -1)
    columns = np.broadcast_to(np.arange(grid.shape[1]), grid.shape[:2])
    here = _between(
        seen,
        light=_lit(normal, shadow, scene.sky, surface.directions, 3 * (0.3,)),
        along=along.reshape(-1, 3) @ scene.camera.turn.T,
        cover=cover.ravel(),
        row=rows.ravel(),
        strand=columns.ravel(),
    )
    here.along /= np.maximum(np.linalg.norm(here.along, axis=1, keepdims=True), 1e-9)
    shine = scene.n.lamp * head_hair.hair_highlight(here.along, scene.lamp)
    colour = (head_hair.hair_colour(here.strand, here.row, style) + shine[:, None]) * here.light
    edge = step(here.cover + 0.15 * grain(30 * here.strand, 2.2 * here.row) * (here.cover < 0.999), 0.3, 0.8)
    canvas.put(seen.pixels, colour, PARTS.index("hair"), edge)

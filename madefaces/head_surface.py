"""What holds for every head, found on the mean head: regions of the parts, landmarks, arriving light, the scalp."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from madefaces.head_shapes import LAYERS, SHAPE_CONTROLS, HeadShapes, load_shapes
from madefaces.raster import rasterise

REGIONS = tuple(SHAPE_CONTROLS)  # "head" first: what belongs to no other
_SHARE = 0.4  # of the farthest way of a part's vertices: what moves less belongs to no part
_DIRECTIONS, _SHADOW = 96, 160  # directions from which light is followed, and pixels of each shadow's picture
HAIR_ROUND, HAIR_LONG = 72, 32  # strands of the hair, and points along each


@dataclass(frozen=True)
class HeadSurface:
    """The mean head's surface: V vertices, T triangles, D directions of light."""

    #: (T,) position in `REGIONS` of the part that moves the triangle most
    regions: NDArray[np.int64]
    #: (D, 3) directions to the light, evenly over the sphere
    directions: NDArray[np.float32]
    #: (V, D) whether light from there arrives, smoothed over the mesh, in [0, 1]
    arrives: NDArray[np.float32]
    #: landmark -> its vertex
    landmarks: dict[str, int]
    #: (HAIR_LONG, HAIR_ROUND, 3) vertices of the triangle of the scalp at each place of the grid of strands
    roots: NDArray[np.int64]
    #: (HAIR_LONG, HAIR_ROUND, 3) and their weights
    root_weights: NDArray[np.float32]
    #: (3,) from the mean of the roots to the middle of the skull
    skull_offset: NDArray[np.float32]


def normals(points: NDArray[np.float32], triangles: NDArray[np.int64]) -> NDArray[np.float32]:
    """Unit normals of vertices (V, 3): the mean of their triangles', by area."""
    a, b, c = points[triangles.T]
    flat = np.cross(b - a, c - a)
    total = np.stack(
        [
            sum(np.bincount(triangles[:, corner], flat[:, axis], len(points)) for corner in range(3))
            for axis in range(3)
        ],
        axis=1,
    )
    return (total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def _regions(shapes: HeadShapes) -> NDArray[np.int64]:
    """For each triangle the part whose controls move it most, relative to the twenty vertices that they move farthest.

    The two triangles of a face of four corners belong to one part.
    """
    way = np.array([np.linalg.norm(shapes.targets[part], axis=-1).mean((0, 1)) for part in REGIONS[1:]])
    way /= np.sort(way, axis=1)[:, -20:].mean(1, keepdims=True)
    faces = way[:, shapes.triangles.reshape(-1, 6)].mean(-1)
    return np.repeat(np.where(faces.max(0) > _SHARE, faces.argmax(0) + 1, 0), 2)


def sphere(count: int) -> NDArray[np.float32]:
    """`count` directions spread evenly over the sphere, (count, 3): the golden spiral."""
    up = 1 - (2 * np.arange(count) + 1) / count
    turn = np.arange(count) * np.pi * (3 - np.sqrt(5))
    level = np.sqrt(1 - up * up)
    return np.stack([level * np.cos(turn), up, level * np.sin(turn)], axis=1).astype(np.float32)


def _arrives(shapes: HeadShapes, directions: NDArray[np.float32]) -> NDArray[np.float32]:
    """Shadows of the mean head on itself: a picture of it from each direction, and who stands behind another there."""
    points, triangles = shapes.mean, shapes.triangles[shapes.layers != LAYERS.index("lashes")]
    middle = points[triangles].mean((0, 1))
    reach = np.linalg.norm(points - middle, axis=1).max()
    lit = np.empty((len(points), len(directions)), np.float32)
    for column, toward in enumerate(directions):
        aside = np.cross([0, 1, 0], toward)
        aside /= np.linalg.norm(aside)
        axes = np.stack([aside, np.cross(toward, aside), -toward])
        seen = (points - middle) @ axes.T + [0, 0, 2 * reach]
        seen[:, :2] = (seen[:, :2] / reach + 1) * (_SHADOW - 1) / 2
        shadow = rasterise(seen, triangles, _SHADOW, _SHADOW)
        depth = np.full(_SHADOW * _SHADOW, np.inf)
        depth[shadow.pixels] = shadow.depth
        x, y = seen[:, :2].astype(np.int64).T
        near = np.stack([depth.reshape(_SHADOW, _SHADOW)[y + j, x + i] for i in (0, 1) for j in (0, 1)])
        lit[:, column] = (seen[:, 2] < near + 0.06).mean(0)
    return smooth(lit, triangles, 2)


def smooth(values: NDArray[np.float32], triangles: NDArray[np.int64], times: int) -> NDArray[np.float32]:
    """Values (V, K) with each vertex drawn to its neighbours' mean, `times` times."""
    edges = np.concatenate([triangles[:, [k, (k + 1) % 3]] for k in range(3)])
    for _ in range(times):
        total, count = values.copy(), np.ones(len(values), np.float32)
        np.add.at(total, edges[:, 0], values[edges[:, 1]])
        np.add.at(count, edges[:, 0], 1)
        values = total / count[:, None]
    return values


def _landmarks(shapes: HeadShapes) -> dict[str, int]:
    """Vertices at corners of the eyes, tip and base of the nose and corners of the mouth; left is the person's left."""
    points, found = shapes.mean, {}
    skin = np.zeros(len(points), bool)
    skin[shapes.triangles[shapes.layers == 0]] = True
    for side, sign in (("left", 1), ("right", -1)):
        ball = points[np.unique(shapes.triangles[shapes.layers == LAYERS.index(f"{side} eye")])]
        centre = (ball.max(0) + ball.min(0)) / 2
        radius = (ball.max(0) - ball.min(0))[1] / 2
        away = np.linalg.norm(points - centre, axis=1)
        rim = np.flatnonzero(skin & (away < 1.12 * radius) & (points[:, 2] > centre[2]))
        along = sign * points[rim, 0]
        found[f"{side}_outer"], found[f"{side}_inner"] = int(rim[along.argmax()]), int(rim[along.argmin()])
        lips = np.flatnonzero(skin & (shapes.textures["lips"] > 0.5) & (shapes.textures["inside-mouth"] < 0.5))
        found[f"mouth_{side}"] = int(lips[(sign * points[lips, 0]).argmax()])
    midline = np.flatnonzero(skin & (np.abs(points[:, 0]) < 1e-3) & (points[:, 2] > 1))
    found["nose_tip"] = int(midline[points[midline, 2].argmax()])
    lip = points[found["mouth_left"], 1]
    below = midline[(points[midline, 1] < points[found["nose_tip"], 1]) & (points[midline, 1] > lip + 0.1)]
    found["nose_base"] = int(below[points[below, 2].argmin()])
    return found


@lru_cache(maxsize=1)
def load_surface() -> HeadSurface:
    """What is found on the mean head, once in a process, which takes some seconds."""
    shapes = load_shapes()
    regions = _regions(shapes)
    directions = sphere(_DIRECTIONS)
    roots, weights = _scalp(shapes)
    offset = np.array(SKULL, np.float32) - shapes.mean[roots].mean((0, 1, 2))
    return HeadSurface(regions, directions, _arrives(shapes, directions), _landmarks(shapes), roots, weights, offset)


#: The middle of the skull, about which strands are counted, in decimetres of the mean head.
SKULL = (0.0, 7.55, 0.25)
HAIR_LOW, HAIR_HIGH = -1.15, 1.5  # elevation of the lowest and of the highest row of roots, in radians


def _scalp(shapes: HeadShapes) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Where rays from the middle of the skull leave the mean head, ears aside: a grid by elevation and azimuth."""
    skin = shapes.triangles[shapes.layers == 0]
    skin = skin[(shapes.textures["ears"][skin] < 0.5).all(1)]
    ray = shapes.mean - np.array(SKULL, np.float32)
    distance = np.linalg.norm(ray, axis=1)
    up = np.arcsin(ray[:, 1] / distance)
    around = np.arctan2(ray[:, 0], ray[:, 2])[skin]  # 0 in front, positive to the person's left
    across = np.ptp(around, axis=1) > np.pi
    around[across] = np.where(around[across] < 0, around[across] + 2 * np.pi, around[across])
    corners = np.stack([around, up[skin], 10 - distance[skin]], axis=-1)
    corners = np.concatenate([corners, corners[across] - [2 * np.pi, 0, 0]])
    skin = np.concatenate([skin, skin[across]])
    corners[..., 0] = (corners[..., 0] + np.pi) / (2 * np.pi) * HAIR_ROUND - 0.5
    corners[..., 1] = (HAIR_HIGH - corners[..., 1]) / (HAIR_HIGH - HAIR_LOW) * (HAIR_LONG - 1)
    flat = np.arange(3 * len(skin)).reshape(-1, 3)
    seen = rasterise(corners.reshape(-1, 3), flat, HAIR_LONG, HAIR_ROUND)
    # Where an ear stands there is no scalp: the nearest place of the same row stands in.
    known = np.full(HAIR_LONG * HAIR_ROUND, -1)
    known[seen.pixels] = np.arange(len(seen.pixels))
    for row in known.reshape(HAIR_LONG, HAIR_ROUND):
        there = np.flatnonzero(row >= 0)
        gap = np.abs((np.arange(HAIR_ROUND)[:, None] - there + HAIR_ROUND // 2) % HAIR_ROUND - HAIR_ROUND // 2)
        row[:] = row[there[gap.argmin(1)]]
    shape = (HAIR_LONG, HAIR_ROUND, 3)
    return skin[seen.triangles[known]].reshape(shape), seen.weights[known].reshape(shape)

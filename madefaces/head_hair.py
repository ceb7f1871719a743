"""Hair of heads: a grid of strands that grow from the scalp, and what it looks like."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from madefaces.head_paint import HAIR, grain, ramp, step
from madefaces.head_surface import HAIR_HIGH, HAIR_LONG, HAIR_LOW, HAIR_ROUND, HeadSurface

Array = NDArray[Any]

_ROUND = (np.arange(HAIR_ROUND) + 0.5) / HAIR_ROUND * 2 * np.pi - np.pi  # azimuth of each strand, 0 in front
_UP = np.linspace(HAIR_HIGH, HAIR_LOW, HAIR_LONG)[:, None]  # elevation of each row
_HANGS = int(np.abs(_UP + 0.05).argmin())  # from this row on long hair hangs


def _hairline(h: SimpleNamespace) -> Array:
    """Elevation (HAIR_ROUND,) at which hair begins, from the forehead past the temple and the ear to the nape."""
    recede = max(h.recede, 0)
    knots = {0: h.line, 0.35: h.line + 0.22 * recede, 0.6: h.line - 0.08 + 0.24 * recede, 0.72: 0.05, 0.82: -0.18,
             0.9: -0.44 + 0.2 * recede, 1.0: -0.5 + 0.2 * recede, 1.08: -0.28, 1.4: -0.28, 1.52: -0.5, 1.75: -0.78,
             2.2: -0.92, np.pi: -0.96}  # fmt: skip
    return np.interp(np.abs(_ROUND), list(knots), list(knots.values()))


def strands(points: Array, middle: Array, surface: HeadSurface, h: SimpleNamespace) -> tuple[Array, Array]:
    """The hair of a head with vertices `points` (V, 3): its grid (HAIR_LONG, HAIR_ROUND, 3), and its cover in [0, 1].

    `middle` (3,) is the middle of its skull.
    """
    scalp = (points[surface.roots] * surface.root_weights[..., None]).sum(2)
    out = scalp - middle
    out /= np.linalg.norm(out, axis=-1, keepdims=True)
    beyond = _UP - _hairline(h)
    wave = grain(24 * _ROUND + 13 * h.seed, 40 * _UP + 7 * h.seed)
    crown, curl, parting = step(_UP, 0.2, 1.1), max(h.curl, 0), max(h.parting, 0)
    long = h.length > 0.55
    volume = h.side * (1 if long else 0.15 + 0.85 * step(_UP, -0.8, 0.5)) + (h.top - h.side) * crown
    volume = volume * (1 - 0.6 * parting * crown * np.exp(-np.square((_ROUND - h.part_side) / 0.3)))
    # Between its points the grid is flat and the scalp round: at its edge too hair stands off a little.
    edge = 0.035 * step(beyond, -0.06, 0.02) - 0.04 * step(beyond, 0.0, -0.08)
    depth = edge + volume * step(beyond, -0.03, 0.42) * (1 + 0.25 * curl * wave)
    grid, cover = scalp + out * depth[..., None], step(beyond, -0.05, 0.07)
    if long:
        _hang(grid, cover, middle, wave, h)
    return grid, cover


def _hang(grid: Array, cover: Array, middle: Array, wave: Array, h: SimpleNamespace) -> None:
    """Let strands at the sides and the back fall from where the head is widest, `h.length` far."""
    side = np.flatnonzero(np.abs(_ROUND) > 0.74)
    drop = np.linspace(0, 1, HAIR_LONG - _HANGS)[:, None]
    start = grid[_HANGS, side]
    level = (start - middle) * [1, 0, 1]
    # Out over the ear, then in or out to the ends; in front they go back a little, from the cheek to the neck.
    spread = 1 + 0.05 * step(drop, 0, 0.2) + h.flare * np.square(drop)
    spread = spread + 0.05 * max(h.curl, 0) * wave[_HANGS:, side] * drop
    hanging = middle * [1, 0, 1] + level * spread[..., None]
    hanging[..., 2] -= 0.12 * drop * h.length * step(np.abs(_ROUND[side]), 1.6, 0.8)
    hanging[..., 1] = start[:, 1] - drop * h.length * (1 + 0.06 * wave[_HANGS, side])
    grid[_HANGS:, side] = hanging
    cover[_HANGS:, side] = step(drop, 1.0, 0.8) * step(np.abs(_ROUND[side]), 0.72, 0.86)


def closed(grid: Array) -> Array:
    """The grid (HAIR_LONG, HAIR_ROUND, K) with the crown as a first row and the first strand again as the last."""
    crown = np.broadcast_to(grid[0].mean(0), grid[:1].shape)
    grid = np.concatenate([crown, grid])
    return np.concatenate([grid, grid[:, :1]], axis=1)


def grid_triangles(rows: int, columns: int) -> NDArray[np.int64]:
    """Triangles of a grid of vertices, row after row, anticlockwise as seen from outside the head."""
    place = np.arange(rows * columns).reshape(rows, columns)
    quads = np.stack([place[:-1, :-1], place[1:, :-1], place[1:, 1:], place[:-1, 1:]], axis=-1).reshape(-1, 4)
    return quads[:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3)


def hair_colour(strand: Array, row: Array, h: SimpleNamespace) -> Array:
    """Colour (N, 3) of hair at strand and row (N,) of the grid: streaks along the strands."""
    fine = grain(34 * strand + 11 * h.seed, (1.1 + 3 * max(h.curl, 0)) * row)
    broad = grain(6 * strand, 0.8 * row + 9 * h.seed)
    return ramp(HAIR, h.colour) * np.clip(1 + 0.26 * fine + 0.2 * broad, 0.3, 2)[:, None]


def hair_highlight(tangents: Array, toward: Array) -> Array:
    """The highlight of Kajiya and Kay (1989) on strands along the unit vectors (N, 3), from a lamp, (N,)."""
    half = toward + np.array([0, 0, 1], np.float32)
    across = np.sqrt(np.clip(1 - np.square(tangents @ (half / np.linalg.norm(half))), 0, 1))
    return 0.015 * across**20 + 0.035 * across**90

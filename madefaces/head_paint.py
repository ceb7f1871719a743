"""Colours of heads: the light that arrives, and skin, brows, beard, eyes and clothes.

All colours are linear light, red, green and blue, until `encode` makes a picture of them. What is painted on the skin
lies at places of the mean head, in decimetres, which each vertex keeps: so it moves with the shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# The ten tones of the Monk Skin Tone Scale (Monk 2023, https://skintone.google), from its lightest to its darkest.
MONK = ("f6ede4", "f3e7db", "f7ead0", "eadaba", "d7bd96", "a07e56", "825c43", "604134", "3a312a", "292420")
HAIR = ("16110f", "2b1d16", "4a2f20", "6b4027", "8a4b2a", "a8834f", "cdb387", "9a9896")  # black to blond, and grey
IRIS = ("2e1a10", "4a2c16", "6b4a24", "66683a", "4c6b5a", "4a7396", "8296a0")
LIPS = ("b0695f", "9c4f4f", "94424a")
CLOTHES = ("8c8f94", "27364d", "5b2830", "3b4a38", "c9c4b8", "7a5f48", "202226", "7d8aa0")
BACKGROUNDS = ("9aa3ad", "b9b2a6", "6e7f8f", "8f9b86", "c9cdd2", "595f68", "a98f86", "d8d2c4")
# A tone says what a face looks like, light included. Ours is lit again: it is darker, and redder by what it scatters.
_WARMTH, _BELOW = np.array([0.8, 0.71, 0.65], np.float32), np.array([0.035, 0.02, 0.013], np.float32)
_NOISE = 512  # pixels of a side of the table of noise; a power of two


def linear(colour: str) -> NDArray[np.float32]:
    """An sRGB colour, six hexadecimal digits, as linear light (3,) in [0, 1] (IEC 61966-2-1)."""
    value = np.array([int(colour[k : k + 2], 16) for k in (0, 2, 4)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)


def encode(light: Array) -> Array:
    """Linear light to sRGB in [0, 255]; what is brighter than white is white."""
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** np.float32(1 / 2.4) - 0.055)


@lru_cache(maxsize=64)
def _stops(palette: tuple[str, ...]) -> NDArray[np.float32]:
    return np.stack([linear(colour) for colour in palette])


def ramp(palette: tuple[str, ...], where: float) -> NDArray[np.float32]:
    """The colour (3,) at a position, 0 to 1, along a palette."""
    stops = np.linspace(0, 1, len(palette))
    return np.array([np.interp(where, stops, channel) for channel in _stops(palette).T], np.float32)


@lru_cache(maxsize=1)
def _noise() -> NDArray[np.float32]:
    """Smooth noise of mean 0 and deviation 1 that goes on beyond its edges."""
    white = np.fft.rfft2(np.random.default_rng(7).standard_normal((_NOISE, _NOISE)))
    radius = np.hypot(np.fft.fftfreq(_NOISE)[:, None], np.fft.rfftfreq(_NOISE))
    white *= np.exp(-np.square(radius / 0.22)) / (radius + 0.02) ** 0.6
    white[0, 0] = 0
    table = np.fft.irfft2(white)
    return (table / table.std()).astype(np.float32).ravel()


def grain(x: Array, y: Array) -> NDArray[np.float32]:
    """Noise at places x, y, in pixels of its table."""
    row, column = (np.floor(value).astype(np.int32) & (_NOISE - 1) for value in (y, x))
    return _noise()[row * _NOISE + column]


def step(value: Array, low: float, high: float) -> Array:
    """0 at `low` and before, 1 at `high` and beyond, smooth between; `low` may be the larger."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def hill(x: Array, y: Array, rx: float, ry: float) -> Array:
    """A smooth hill: 1 in the middle, 0 outside the ellipse."""
    return np.square(np.maximum(1 - np.square(x / rx) - np.square(y / ry), 0))


def lamp(n: SimpleNamespace) -> NDArray[np.float32]:
    """Unit vector (3,) to the lamp, in the camera's axes: x right, y up, z to the camera."""
    return np.array(
        [np.sin(n.light_x) * np.cos(n.light_y), np.sin(n.light_y), np.cos(n.light_x) * np.cos(n.light_y)], np.float32
    )


def surroundings(directions: Array, n: SimpleNamespace) -> NDArray[np.float32]:
    """Light (D, 3) that comes from directions (D, 3): sky and floor, a soft lamp and what fills its shadows.

    Scaled so that a surface that faces the camera in the open gets `n.exposure`.
    """
    toward = lamp(n)
    sky = (0.65 + 0.35 * directions[:, 1:2]) * [0.96, 1.0, 1.06]
    beam = np.exp(9 * (directions @ toward - 1))[:, None] * [1 + n.warmth, 1.0, 1 - n.warmth]
    fill = np.exp(4 * (directions @ (toward * [-0.8, 0.3, 0.9]) - 1))[:, None]
    light = sky + 9 * n.lamp * beam + 0.5 * fill
    return (light * (n.exposure / (np.clip(directions[:, 2], 0, None) @ light).mean())).astype(np.float32)


def highlight(normals: Array, toward: Array, sharpness: float) -> Array:
    """Blinn's highlight (1977), (N,): a power of the cosine between the normal and the way halfway to the camera."""
    half = toward + np.array([0, 0, 1], np.float32)
    return np.clip(normals @ (half / np.linalg.norm(half)), 0, 1) ** np.float32(sharpness)


def skin_ground(at: Array, s: SimpleNamespace) -> NDArray[np.float32]:
    """Colour (V, 3) of bare skin at places of the mean head (V, 3): redder where blood is near, dark under the eyes."""
    a, y, z = np.abs(at[:, 0]), at[:, 1], at[:, 2]
    red = (
        hill(a - 0.42, y - 6.86, 0.34, 0.3)
        + 0.9 * hill(a, y - 6.86, 0.22, 0.16) * (z > 1.35)
        + 0.5 * (a > 0.66) * (z < 0.7)
    )
    dark = 0.2 * s.circles * hill(a - 0.27, y - 7.1, 0.2, 0.1)
    ground = ramp(MONK, s.tone) * _WARMTH + _BELOW
    return (
        ground * (1 + s.redness * red[:, None] * [0.05, -0.11, -0.1]) * (1 - dark[:, None] * [0.8, 1.0, 0.9])
    ).astype(np.float32)


def skin(
    at: Array, place: Array, lips: Array, ground: Array, who: Mapping[str, SimpleNamespace]
) -> tuple[Array, Array, Array]:
    """Skin with what grows on it: colour (N, 3), and how far brows and beard cover it, (N,) each.

    `at` (N, 3) are places of the mean head, `place` (N, 2) of the plane of textures, `lips` (N,) the lips' texture.
    """
    s, m = who["skin"], who["mouth"]
    a, y, z = np.abs(at[:, 0]), at[:, 1], at[:, 2]
    u, v = place.T * np.float32(_NOISE)
    fine = grain(2.3 * u + 97 * s.seed, 2.3 * v)
    colour = (
        ground * (1 + np.float32(0.03) * fine + np.float32(0.018) * grain(0.35 * u, 0.35 * v + 61 * s.seed))[:, None]
    )
    if s.freckles > 0:
        spots = step(grain(3.1 * u, 3.1 * v + 31 * s.seed), 1.2, 1.8) * hill(a - 0.25, y - 6.98, 0.5, 0.3)
        colour *= 1 - s.freckles * spots[:, None] * np.array([0.25, 0.4, 0.5], np.float32)
    own = np.flatnonzero(lips > 0.2)
    bare = ramp(MONK, s.tone) * _WARMTH + _BELOW
    light = min(1, 5 * bare.mean())  # lips are near in tone to dark skin, and their red is deep in it
    rosy = bare * [0.84, 0.55, 0.53] + light * np.array([0.03, 0.006, 0.006], np.float32)
    tint = ramp(LIPS, m.colour) * (0.25 * light + 1.1 * bare.mean())
    colour[own] += step(lips[own], 0.25, 0.75)[:, None] * (
        (rosy + 0.55 * m.tint * (tint - rosy)) * (1 + 0.05 * fine[own])[:, None] - colour[own]
    )
    brows, beard = np.zeros_like(a), np.zeros_like(a)
    own = np.flatnonzero((z > 0.8) & (np.abs(y - 7.46) < 0.22))
    brows[own] = _brows(a[own], y[own], grain(2.2 * (u + v)[own], 7 * (u - v)[own]), who["brows"])
    if who["beard"].present:
        own = np.flatnonzero((y < 6.95) & (y > 5.9))
        beard[own] = _beard(a[own], y[own], z[own], lips[own], grain(3.7 * u[own], 3.7 * v[own]), who["beard"])
    for cover, hair in ((beard, who["beard"]), (brows, who["brows"])):
        own = np.flatnonzero(cover > 0)
        shade = 0.85 * ramp(HAIR, hair.colour) * (1 + 0.3 * fine[own])[:, None]
        colour[own] += cover[own, None] * (shade - colour[own])
    return colour, brows, beard


def _brows(a: Array, y: Array, strands: Array, b: SimpleNamespace) -> Array:
    """Cover of brows at distance `a` from the middle and height `y`: an arch that begins blunt and ends thin."""
    t = (a - b.start) / b.length
    peak = (t - 0.6) / np.where(t < 0.6, 0.65, 0.42)
    middle = 7.44 + b.arch * (1 - np.square(peak)) + b.tilt * (t - 0.4)
    thick = b.thick * (0.6 + 0.7 * step(t, -0.05, 0.3)) * np.sqrt(step(t, 1.05, 0.5)) + 1e-3
    cover = step(np.abs(y - middle) / thick, 1.2, 0.4) * step(t, -0.12, 0.1) * step(t, 1.05, 0.9)
    return np.clip(cover * (b.density + 0.14 * strands), 0, 0.92)


def _beard(a: Array, y: Array, z: Array, lips: Array, rough: Array, b: SimpleNamespace) -> Array:
    """Cover of the beard: along the jaw up to a line on the cheek, from the chin only to the ears; and a moustache."""
    line = 6.5 + 0.1 * b.extent + np.square(np.maximum(a - 0.22, 0)) * (0.5 + 1.7 * b.extent)
    wide = 0.24 + 0.7 * b.extent
    jaw = step(line - y, -0.05, 0.1) * step(y, 5.98, 6.2) * step(a, wide, wide - 0.16)
    whiskers = max(b.moustache, 0) * np.sqrt(hill(a - 0.1, y - 6.72, 0.27, 0.14)) * step(y, 6.6, 6.66)
    below_lip = 1 - 0.7 * hill(a, y - 6.43, 0.12, 0.07)
    cover = np.maximum(jaw, np.minimum(whiskers, 1)) * step(z, 0.1, 0.4) * step(lips, 0.35, 0.1) * below_lip
    return np.clip(cover * (b.density + 0.12 * rough), 0, 0.95)


def eyeball(normals: Array, gaze: Array, e: SimpleNamespace) -> Array:
    """Colour (N, 3) of an eye that looks along the unit vector `gaze`, where it has the normals (N, 3)."""
    angle = np.arccos(np.clip(normals @ gaze, -1, 1))
    white = np.array([0.62, 0.56, 0.53], np.float32) * (1 - 0.3 * step(angle, 0.6, 1.1))[:, None]
    spokes = grain(90 * np.arctan2(normals[:, 1] - gaze[1], normals[:, 0] - gaze[0]), 30 * angle)
    iris = ramp(IRIS, e.colour) * (0.95 + 0.15 * spokes - 0.6 * step(angle / e.iris, 0.7, 1.0))[:, None]
    iris *= step(angle, 0.36 * e.iris, 0.44 * e.iris)[:, None]
    return white + step(angle, e.iris + 0.04, e.iris - 0.03)[:, None] * (iris + 0.004 - white)


def background(n: SimpleNamespace, side: int) -> NDArray[np.float32]:
    """A plain wall (side, side, 3), brighter to one side and darker to its corners."""
    across = np.linspace(-1, 1, side, dtype=np.float32)
    down = across[:, None]
    level = (
        n.back_light * (1 + n.back_slope * down + n.back_side * across) * (1 - 0.12 * (down * down + across * across))
    )
    return (np.maximum(level, 0)[..., None] * ramp(BACKGROUNDS, n.back_hue)).astype(np.float32)

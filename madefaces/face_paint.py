"""The face painter behind `madefaces.people`: parts as signed distances, painted from back to front.

A face is given by unit values: for each part a few *genes*, which `GENES` maps to pixels, colours or shares, and the
*nuisance* of the picture (pose, light, expression, ...), which `NUISANCE` maps. Shapes live in canonical coordinates,
u right of the face's axis and v down, in pixels of an aligned 112x112 crop; a signed distance becomes coverage with a
soft edge. A part reads its own genes, the head's and the nuisance, and paints only itself: that is what makes two faces
with one part in difference differ in that part's pixels alone. (Glasses and ears sit at fixed places for that reason.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

SIZE = 112
PARTS: tuple[str, ...] = (
    *("background", "head", "ears", "hair", "brows", "eyes", "nose", "mouth", "beard", "glasses", "mole"),
    *("clothes", "occluder"),
)

# part -> gene -> (value at 0, value at 1, weight when members of a family are chosen to lie far apart)
GENES: dict[str, dict[str, tuple[float, float, float]]] = {
    "head": {"tone": (0, 1, 0), "width": (35, 40, 0), "chin": (103, 110, 0), "square": (0, 0.8, 0),
             "taper": (0.05, 0.3, 0)},
    "hair": {"colour": (0, 1, 2), "line": (17, 33, 1.5), "top": (1, 9, 1), "side": (0, 6, 1), "length": (0, 1, 2),
             "curl": (0, 1, 1.5), "tilt": (-0.22, 0.22, 0), "fringe": (0, 5, 0.5), "recede": (0, 9, 1)},
    "brows": {"colour": (0, 1, 0.3), "height": (43, 38, 1), "thick": (1.0, 3.4, 2), "arch": (0, 5, 1),
              "tilt": (-2.5, 2.5, 1.5), "length": (7.5, 11.5, 1), "centre": (17, 19.5, 0.5)},
    "eyes": {"colour": (0, 1, 2), "spacing": (16, 20.5, 1.5), "width": (6.6, 9.6, 1.5), "upper": (3, 5.6, 1.5),
             "lower": (2, 3.4, 0.5), "tilt": (-1.6, 1.6, 1), "lash": (0.5, 1.7, 0.5), "iris": (3.3, 4.5, 0.5)},
    "nose": {"width": (6, 13, 2), "tip": (68, 77, 2), "bridge": (1.8, 4.6, 1), "nostril": (0.1, 1, 1),
             "bulb": (2.5, 6, 1)},
    "mouth": {"colour": (0, 1, 1.5), "width": (10, 17.5, 2), "upper": (1.6, 5, 1.5), "lower": (2.4, 6.5, 1.5),
              "bow": (0, 1, 0.5), "height": (88, 93, 0.5)},
    "ears": {"size": (6, 14, 2), "out": (1.5, 9.5, 2), "height": (56, 63, 1)},
    "beard": {"present": (0, 1, 2), "colour": (0, 1, 0.3), "extent": (0, 1, 2), "moustache": (0, 1, 1.5),
              "density": (0.65, 1, 0.5)},
    "glasses": {"present": (0, 1, 2), "colour": (0, 1, 1.5), "width": (9.5, 13.5, 1), "height": (6.5, 11, 1.5),
                "round": (0, 1, 1.5), "thick": (0.7, 1.9, 1)},
    "mole": {"present": (0, 1, 2), "place": (0, 1, 2), "side": (0, 1, 0), "radius": (1.6, 2.5, 0.5)},
}  # fmt: skip
# nuisance -> (lowest, highest); drawn uniformly, its middle is the neutral picture
NUISANCE: dict[str, tuple[float, float]] = {
    "shift_x": (-3, 3), "shift_y": (-3, 3), "scale": (0.9, 1.02), "roll": (-0.12, 0.12), "yaw": (-6, 6),
    "pitch": (-3, 3), "light_x": (-0.75, 0.75), "light_y": (-0.75, 0.15), "ambient": (0.84, 1.06),
    "warmth": (-0.06, 0.06), "smile": (-1.5, 4), "open": (-6, 5), "brow_lift": (-2, 2), "lids": (0.75, 1.15),
    "gaze_x": (-2, 2), "gaze_y": (-0.8, 0.8),
    "back_hue": (0, 1), "back_light": (60, 235), "back_slope": (-50, 50), "back_blob": (-40, 40), "blob_x": (-56, 56),
    "blob_y": (0, 112), "clothes_hue": (0, 1), "clothes_light": (40, 225), "noise": (0, 9),
    "occlusion": (0.35, 1.15), "occluder_angle": (0.1, 3.04), "occluder_hue": (0, 1),
}  # fmt: skip

_TONES = (
    (255, 224, 200),
    (246, 205, 175),
    (232, 184, 148),
    (212, 158, 118),
    (178, 122, 84),
    (138, 90, 60),
    (98, 64, 44),
)
_HAIR = ((26, 22, 24), (58, 38, 28), (102, 64, 38), (146, 70, 36), (190, 138, 72), (226, 192, 124), (178, 176, 178))
_IRIS = ((62, 36, 22), (118, 76, 34), (126, 128, 50), (58, 128, 84), (56, 118, 178), (136, 160, 182))
_LIPS = ((214, 132, 118), (200, 96, 92), (176, 62, 72), (150, 58, 62), (124, 66, 58))
_FRAMES = ((24, 24, 28), (92, 54, 28), (196, 152, 62), (170, 34, 44), (36, 70, 150), (206, 208, 214))
_HUES = (
    (1.08, 0.96, 0.9),
    (0.92, 1.05, 0.92),
    (0.86, 0.98, 1.12),
    (1.0, 1.0, 1.0),
    (1.1, 0.92, 1.02),
    (0.9, 1.04, 1.06),
)
_MOLES = ((11.0, 30.0), (27.0, 70.0), (19.0, 84.0), (8.0, 101.0))  # forehead, outer cheek, beside the mouth, chin


class _Scene(SimpleNamespace):
    """What a part needs: u, v, a = |u| and labels (B, h, w), canvas (3, B, h, w), nuisance n, and genes by part."""

    u: Array
    v: Array
    a: Array
    canvas: Array
    labels: NDArray[np.uint8]

    def window(self, top: int, bottom: int, left: int = 0, right: int = SIZE) -> _Scene:
        """The scene within fixed pixel rows and columns that hold a part in any pose; painting writes through."""
        cut = {key: getattr(self, key)[..., top:bottom, left:right] for key in ("u", "v", "a", "canvas", "labels")}
        return _Scene(**(self.__dict__ | cut))

    def paint(self, part: str, alpha: Array, colour: Sequence[Any] | Array) -> None:
        for channel, value in zip(self.canvas, colour, strict=True):
            channel += alpha * (value - channel)
        np.copyto(self.labels, PARTS.index(part), where=alpha > 0.5)

    def dim(self, amount: Array) -> None:
        """Multiply by 1 - amount; shading that has no label of its own."""
        self.canvas *= 1 - amount


def draw(
    genes: Mapping[str, NDArray[np.float64]], nuisance: NDArray[np.float64], grain: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pictures (B, 112, 112, 3) and part masks (B, 112, 112), both uint8, of B faces at once.

    `genes` maps each part to unit values (B, genes of the part), `nuisance` is (B, len(NUISANCE)), and `grain` holds
    two random bytes (2, 3, B, 112, 112) for each value of the pictures, whose sum becomes the noise.
    """
    n = _decode({name: (*bounds, 0) for name, bounds in NUISANCE.items()}, nuisance)
    u, v = _coordinates(n)
    canvas, labels = np.empty((3, *u.shape), np.float32), np.zeros(u.shape, np.uint8)
    parts = {part: _decode(GENES[part], values) for part, values in genes.items()}
    scene = _Scene(u=u, v=v, a=np.abs(u), canvas=canvas, labels=labels, n=n, **parts)
    for layer in _LAYERS:
        layer(scene)
    # Whole numbers, not a normal: exact on any machine. The sum of two bytes is triangular with deviation 104.
    noise = (grain[0].astype(np.float32) + grain[1] - 255) * (n.noise / 104)
    return np.clip(canvas + noise + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 3, 0), labels


def _decode(table: dict[str, tuple[float, float, float]], unit: NDArray[np.float64]) -> SimpleNamespace:
    """Unit values (B, genes) to named arrays (B, 1, 1)."""
    columns = unit.astype(np.float32).T[:, :, None, None]
    values = {
        name: np.float32(lo) + np.float32(hi - lo) * c
        for (name, (lo, hi, _)), c in zip(table.items(), columns, strict=True)
    }
    return SimpleNamespace(**values)


def _coordinates(n: SimpleNamespace) -> tuple[Array, Array]:
    """Canonical (u, v) of every pixel: similarity about the face's middle, then the bulge of a turned head."""
    grid = np.arange(SIZE, dtype=np.float32)
    x, y = grid[None, None, :] - 55.5 - n.shift_x, grid[None, :, None] - 62 - n.shift_y
    cos, sin = np.cos(n.roll) / n.scale, np.sin(n.roll) / n.scale
    u, v = cos * x + sin * y, cos * y - sin * x
    near = np.maximum(1 - (u * u + v * v) * np.float32(1 / 55**2), 0)  # the middle of the face is nearest to the camera
    return u - n.yaw * near, v - n.pitch * near + 62


def _cover(distance: Array, soft: float = 1.0) -> Array:
    """Signed distance in pixels to coverage in [0, 1], with an edge `soft` pixels wide."""
    return np.clip(0.5 - distance * np.float32(1 / soft), 0, 1)


def _ellipse(x: Array, y: Array, rx: Any, ry: Any) -> Array:
    return (np.sqrt((x / rx) ** 2 + (y / ry) ** 2) - 1) * np.minimum(rx, ry)


def _bump(x: Array, y: Array, rx: Any, ry: Any) -> Array:
    """A smooth hill: 1 in the middle, 0 outside the ellipse."""
    return np.square(np.maximum(1 - ((x / rx) ** 2 + (y / ry) ** 2), 0))


def _ramp(palette: Sequence[tuple[float, ...]], where: Array) -> Array:
    """Colours (3, B, 1, 1) at positions 0 to 1 along a palette."""
    stops = np.linspace(0, 1, len(palette))
    return np.stack([np.interp(where, stops, channel) for channel in np.array(palette).T]).astype(np.float32)


def _background(s: _Scene) -> None:
    grid = np.linspace(-1, 1, SIZE, dtype=np.float32)
    blob = _bump(grid[None, None, :] * 56 - s.n.blob_x, grid[None, :, None] * 56 + 56 - s.n.blob_y, 60, 50)
    level = s.n.back_light + s.n.back_slope * grid[None, :, None] + s.n.back_blob * blob
    s.canvas[:] = level * _ramp(_HUES, s.n.back_hue)


def _outline(s: _Scene) -> Array:
    """Norm of the head: below 1 inside. An egg, between an ellipse and a rounder square, that narrows to the chin."""
    below = np.maximum(s.v - 54, 0)
    y = np.where(s.v > 54, below / (s.head.chin - 54), (s.v - 54) * np.float32(1 / 45))
    x = s.a / (s.head.width * (1 - s.head.taper * np.minimum(below * np.float32(1 / 50), 1.2)))
    xx, yy = x * x, y * y
    oval, box = np.sqrt(xx + yy), np.sqrt(np.sqrt(xx * xx + yy * yy))
    return oval + s.head.square * (box - oval) * (y > 0)


def _head(s: _Scene) -> None:
    tone = _ramp(_TONES, s.head.tone)
    norm = _outline(s)
    s.norm = norm  # beard reads it
    inside = _cover((norm - 1) * 38)
    s.paint("head", inside, tone)
    s.dim(np.square(np.square(norm)) * inside * (0.20 - 0.06 * s.head.tone))  # cheeks and jaw turn away at the edge
    face, inside = s.window(20, 112), inside[:, 20:]
    hollow = _bump(face.a - 18, face.v - 50, 13, 9) * 0.16 + _bump(face.u, face.v - 99, 12, 4) * 0.10
    face.dim(hollow * inside * (1 - 0.3 * s.head.tone))
    blush = _bump(face.a - 22, face.v - 76, 13, 10) * inside * (1 - 0.6 * s.head.tone)
    shine = (_bump(face.u, face.v - 34, 26, 10) + _bump(face.a - 20, face.v - 67, 10, 6)) * inside
    for channel, pink in zip(face.canvas, (6, -14, -10), strict=True):
        channel += blush * pink + shine * 10


def _clothes(s: _Scene) -> None:
    low = s.window(84, 112)
    neck = _cover(np.maximum(low.a - 21 - np.square(np.maximum(low.v - 104, 0)) * 0.08, 80 - low.v))
    low.paint("head", neck, _ramp(_TONES, s.head.tone) * 0.72)
    cloth = _ellipse(low.u, low.v - 134, 66, 27)
    collar = -_ellipse(low.u, low.v - 100, 24, 15)
    colour = np.clip(s.n.clothes_light * _ramp(_HUES, s.n.clothes_hue) ** 3, 0, 255)
    low.paint("clothes", _cover(np.maximum(cloth, collar)), colour)


def _ears(s: _Scene) -> None:
    e, band = s.ears, s.window(36, 92)
    outside = _cover((1 - s.norm[:, 36:92]) * 38 - 1)  # overlaps the cheek's soft edge: no seam of hair between
    x, y = band.a - s.head.width - e.out * 0.45 + 1.5, band.v - e.height
    tone = _ramp(_TONES, s.head.tone)
    x = x + 0.12 * y
    band.paint("ears", outside * _cover(_ellipse(x, y, 2.5 + e.out * 0.55, e.size)), tone * (1.02 - 0.03 * np.abs(x)))
    band.paint(
        "ears", outside * 0.45 * _cover(_ellipse(x - 0.8, y + 1, 0.8 + e.out * 0.3, e.size * 0.62), 2), tone * 0.55
    )


def _locks(s: _Scene) -> tuple[Array, Array]:
    """Hair texture in [-1, 1], from straight strands to curls, and the signed distance of the hair's outer shape."""
    h = s.hair
    strands = np.sin(0.75 * s.u + 2.2 * np.sin(0.05 * s.v + 0.03 * s.u)) + 0.5 * np.sin(0.31 * s.u + 0.04 * s.v)
    curls = np.sin(0.5 * s.u + 1.6 * np.sin(0.27 * s.v + 0.11 * s.u)) * np.sin(
        0.55 * s.v + 1.7 * np.sin(0.23 * s.u - 0.09 * s.v)
    )
    texture = strands * (1 - h.curl) * 0.5 + curls * h.curl
    outer = _ellipse(s.u, s.v - 50, s.head.width + 1.5 + h.side, 45 + h.top) + curls * (h.curl * 1.6)
    return texture, outer


def _hair(s: _Scene) -> None:
    """The hair behind head and ears."""
    s.texture, s.outer = _locks(s)
    half = s.head.width + 2 + s.hair.side + (s.v - 50) * 0.10 * s.hair.curl
    fall = np.maximum(s.a - half, s.v - (46 + 84 * s.hair.length)) + s.texture * 1.2
    shade = 0.68 + 0.14 * s.texture
    back = np.minimum(np.maximum(fall, 46 - s.v), np.maximum(s.outer, s.v - 56))
    s.paint("hair", _cover(back), _ramp(_HAIR, s.hair.colour) * shade)


def _fringe(s: _Scene) -> None:
    """The hair in front: the crown down to the hairline, with temples that fall to the ears."""
    top, h = s.window(0, 76), s.hair
    x = top.u / s.head.width
    sides = np.square(np.square(np.square(x)))
    line = h.line + h.tilt * top.u + (60 - h.line) * sides - h.recede * _bump(top.a - 20, 0 * top.a, 14, 1)
    line += h.fringe * np.abs(np.sin(0.21 * top.u + 0.6))
    front = np.maximum(s.outer[:, :76], top.v - line)
    glow = _bump(top.u - 8 * s.n.light_x, top.v - 14, 34, 14)
    shade = 0.92 + 0.2 * s.texture[:, :76] + 0.22 * glow - 0.22 * _cover(line - top.v - 1, 6)
    top.paint("hair", _cover(front), _ramp(_HAIR, h.colour) * shade)


def _beard(s: _Scene) -> None:
    b, low = s.beard, s.window(62, 112)
    norm = s.norm[:, 62:]
    reach = 10 + 34 * b.extent
    jaw = np.maximum(low.a - reach, 96 - 2 * b.extent - 30 * b.extent * np.square(low.a * np.float32(1 / 34)) - low.v)
    lip = np.maximum(np.abs(low.v - 83 - 0.02 * np.square(low.u)) - 2.8, low.a - 16)
    chops = np.where(b.moustache > 0.4, np.minimum(jaw, lip), jaw)
    hairs = np.sin(1.9 * low.u + 1.3 * np.sin(0.9 * low.v)) * np.sin(1.7 * low.v)
    alpha = _cover(np.maximum(chops, (norm - 1.03) * 38), 3) * b.density * b.present * (0.88 + 0.12 * hairs)
    low.paint("beard", alpha, _ramp(_HAIR, b.colour) * (0.85 - 0.4 * s.head.tone))


def _mole(s: _Scene) -> None:
    m, n_places = s.mole, len(_MOLES)
    place = np.array(_MOLES, np.float32)[np.minimum(m.place * n_places, n_places - 1).astype(int)[:, 0, 0]]
    x = np.where(m.side > 0.5, s.u, -s.u) - place[:, :1, None]
    spot = _ellipse(x, s.v - place[:, 1:, None], m.radius, m.radius)
    brown = [0.32 * tone + shift for tone, shift in zip(_ramp(_TONES, s.head.tone), (8, -2, -6), strict=True)]
    s.paint("mole", _cover(spot) * m.present, brown)


def _nose(s: _Scene) -> None:
    o, w = s.nose, s.window(36, 96, 22, 90)
    u = w.u - s.n.yaw * 0.35  # the tip stands out, so it moves more than the rest
    a = np.abs(u)
    t = np.clip((w.v - 50) / (o.tip - 50), 0, 1)
    half = o.bridge + (o.width - o.bridge) * (0.25 * t + 0.75 * np.square(t * t * t))
    body = _cover(np.maximum(np.maximum(a - half, w.v - o.tip - 3.2 + 3 * np.square(u / o.width)), 52 - w.v), 2)
    side = u / half
    shadow = np.clip(side * -s.n.light_x, 0, 1) * 0.3 + np.square(np.square(side)) * (0.05 + 0.25 * t * t)
    under = np.clip((w.v - o.tip) * np.float32(0.33), 0, 1) * 0.30
    w.dim(body * np.minimum(shadow + under, 0.5))
    light = (_bump(u, w.v - 62, o.bridge, 13) * 12 + _bump(u, w.v - o.tip + 2, o.bulb, o.bulb) * 26) * body
    w.canvas += light
    np.copyto(w.labels, PARTS.index("nose"), where=body > 0.5)
    hole = _cover(_ellipse(a - 0.52 * o.width, w.v - o.tip - 1, 0.24 * o.width, 1.7)) * o.nostril * body
    w.paint("nose", 0.85 * hole, _ramp(_TONES, s.head.tone) * np.float32(0.25))


def _mouth(s: _Scene) -> None:
    m, w = s.mouth, s.window(70, 112, 14, 98)
    x = np.square(w.u / m.width)
    taper, gap = np.maximum(1 - x, 0), np.maximum(s.n.open, 0)
    meet = m.height + 1.2 - (s.n.smile + 0.6) * x - gap * 0.3
    bow = 1 - 0.45 * m.bow * _bump(w.u, 0 * w.u, 4, 1)
    top, bottom = meet - m.upper * taper * bow, meet + gap * taper
    end = w.a - m.width
    colour = _ramp(_LIPS, m.colour)
    upper = _cover(np.maximum(np.maximum(top - w.v, w.v - meet), end))
    lower = _cover(np.maximum(np.maximum(bottom - w.v, w.v - bottom - m.lower * taper), end))
    inner = _cover(np.maximum(np.maximum(meet - 0.5 - w.v, w.v - bottom - 0.5), end))
    w.paint("mouth", 0.8 * upper, colour * 0.84)
    w.paint("mouth", 0.8 * lower, colour * (1 + 0.25 * _bump(w.u, w.v - bottom - 0.45 * m.lower, 0.5 * m.width, 1.6)))
    teeth = (w.v < meet + 0.55 * gap) * np.minimum(gap, 1)
    w.paint("mouth", 0.85 * inner, [70 + 160 * teeth, 24 + 200 * teeth, 26 + 190 * teeth])


def _eyes(s: _Scene) -> None:
    e, w = s.eyes, s.window(28, 80)
    r = w.a - e.spacing
    x = r / e.width
    taper = 1 - x * x
    lift = 52 - e.tilt * x
    upper, lower = lift - e.upper * s.n.lids * taper, lift + e.lower * taper
    opening = np.maximum(upper - w.v, w.v - lower)
    white, shade = _cover(opening), _cover(w.v - upper - 1.5, 2)  # the upper lid throws a shade on the white
    w.paint("eyes", white, [238 - 36 * shade, 233 - 38 * shade, 228 - 38 * shade])
    side = np.sign(w.u)
    dx, dy = r * side - s.n.gaze_x, w.v - 51.5 - s.n.gaze_y
    radius = np.sqrt(dx * dx + dy * dy)
    iris = _ramp(_IRIS, e.colour) * (1.15 - 0.55 * np.square(radius / e.iris))
    w.paint("eyes", white * _cover(radius - e.iris), iris)
    w.paint("eyes", white * _cover(radius - 0.42 * e.iris), (12, 10, 12))
    w.paint("eyes", white * _cover(_ellipse(dx + 1.3, dy + 1.4, 0.9, 0.9)), (250, 250, 250))
    lash = np.maximum(np.abs(w.v - upper) - e.lash, np.abs(r) - e.width)
    w.paint("eyes", 0.9 * _cover(lash), (34, 24, 22))
    crease = np.maximum(np.abs(w.v - upper + 2.6 - 0.8 * x) - 0.35, np.abs(r) - e.width * 0.9)
    w.dim(0.22 * _cover(crease))


def _brows(s: _Scene) -> None:
    b, w = s.brows, s.window(18, 70)
    x = (w.a - b.centre) / b.length
    curve = b.height + 1.5 - s.n.brow_lift - b.arch * (0.7 - np.square(x - 0.2)) - b.tilt * x
    thick = b.thick * (1 - 0.4 * x) * (1 - np.square(np.square(x)))
    stroke = np.maximum(np.abs(w.v - curve) - thick, (np.abs(x) - 1) * b.length)
    hairs = 0.82 + 0.12 * np.sin(2.1 * w.a + 1.1 * w.v)
    w.paint("brows", _cover(stroke, 1.6) * hairs, _ramp(_HAIR, b.colour) * (0.8 - 0.35 * s.head.tone))


def _light(s: _Scene) -> None:
    """Light on the dome of the head, over everything painted so far; it depends on no part's genes."""
    x, y = s.u * np.float32(1 / 52), (s.v - 58) * np.float32(1 / 62)
    z = 1 / (1 + x * x + y * y)  # smooth beyond the head too, so that the background shows no rim
    shade = s.n.ambient * (0.70 + 0.34 * z + 0.30 * s.n.light_x * x + 0.26 * s.n.light_y * y)
    s.canvas[0] *= shade * (1 + s.n.warmth)
    s.canvas[1] *= shade
    s.canvas[2] *= shade * (1 - s.n.warmth)


def _glasses(whole: _Scene) -> None:
    s, g = whole.window(22, 86), whole.glasses
    x, y = s.a - 18.3, s.v - 53
    corner = np.minimum(g.width, g.height) * (0.15 + 0.85 * g.round)
    qx, qy = np.abs(x) - g.width + corner, np.abs(y) - g.height + corner
    box = (
        np.sqrt(np.square(np.maximum(qx, 0)) + np.square(np.maximum(qy, 0)))
        + np.minimum(np.maximum(qx, qy), 0)
        - corner
    )
    rim = np.abs(box) - g.thick
    arms = np.maximum(np.abs(y + 2) - 0.7 * g.thick, 18.3 + g.width - s.a)
    arms = np.maximum(arms, s.a - s.head.width - 2)
    bridge = np.maximum(np.abs(y + 2 - 0.05 * s.u * s.u) - 0.8 * g.thick, s.a - 18.3 + g.width)
    frame = np.minimum(np.minimum(rim, arms), bridge)
    s.paint("glasses", _cover(frame) * g.present, _ramp(_FRAMES, g.colour) * (0.9 + 0.1 * s.n.ambient))


def _occluder(s: _Scene) -> None:
    """A bar from outside that covers a corner of the picture in about one picture of five."""
    grid = np.arange(SIZE, dtype=np.float32)
    angle = s.n.occluder_angle
    along = np.cos(angle) * (grid[None, None, :] - 55.5) + np.sin(angle) * (grid[None, :, None] - 55.5)
    reach = 70 - 90 * np.maximum(s.n.occlusion - 1, 0)
    alpha = _cover(reach - along, 1.5) * (s.n.occlusion > 1)
    s.paint("occluder", alpha, 150 * _ramp(_HUES, s.n.occluder_hue) ** 2 * (1 - 0.004 * (along - reach)))


# From back to front.
_LAYERS = (
    *(_background, _hair, _clothes, _head, _beard, _mole, _nose, _mouth, _eyes, _brows, _fringe, _ears),
    *(_light, _glasses, _occluder),
)

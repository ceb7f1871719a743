"""A rasteriser of triangles: which one each pixel shows, and where on it.

Points are (x, y) in pixels, 0 the centre of the first pixel, x to the right and y down, and z the distance from the
camera along its axis.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_EDGE = 1e-5  # a centre on the edge of two triangles belongs to both: rounding leaves no hole between them


class Seen(NamedTuple):
    """What N pixels of a picture show."""

    pixels: NDArray[np.int64]  #: (N,) places in the flattened picture, in rising order
    triangles: NDArray[np.int64]  #: (N,) the triangle that is seen there
    corners: NDArray[np.int64]  #: (N, 3) its vertices
    weights: NDArray[np.float32]  #: (N, 3) their weights, which sum to 1
    depth: NDArray[np.float32]  #: (N,) distance from the camera along its axis

    def between(self, values: Array) -> Array:
        """Values of vertices (V, K) at the pixels, (N, K): linear on each triangle in space."""
        total = self.weights[:, :1] * values[self.corners[:, 0]]
        total += self.weights[:, 1:2] * values[self.corners[:, 1]]
        total += self.weights[:, 2:] * values[self.corners[:, 2]]
        return total


def rasterise(points: Array, triangles: Array, height: int, width: int, *, hide: Array | None = None) -> Seen:
    """The nearest triangle at the centre of each pixel; weights are correct in perspective.

    Parameters
    ----------
    points : array (V, 3)
        x, y and distance z > 0 of each vertex.
    triangles : integer array (T, 3)
        Vertices of each triangle. Both sides are seen: leave out those that face away.
    height, width : int
        Size of the picture in pixels.
    hide : array (height * width,), optional
        A distance for each pixel, from which on nothing is seen there.

    Returns
    -------
    Seen
        Pixels where there is a triangle. Of several at one distance the first is seen.
    """
    corners: Array = np.asarray(points, np.float32)[triangles]
    x, y, z = corners[..., 0], corners[..., 1], corners[..., 2]
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    top = np.maximum(np.ceil(y.min(1)), 0).astype(np.int32)
    rows = np.minimum(np.floor(y.max(1)), height - 1).astype(np.int32) - top + 1
    kept = np.flatnonzero((area != 0) & (rows > 0) & (x.max(1) >= 0) & (x.min(1) <= width - 1))
    x, y, z, area, top, rows = x[kept], y[kept], z[kept], area[kept], top[kept], rows[kept]
    # A line is a row of pixels of one triangle. There the weight of a corner is linear in x, and none may be negative.
    owner, row = _spread(rows)
    row = row + top[owner]
    low, high = np.zeros(len(row), np.float32), np.full(len(row), width - 1, np.float32)
    starts, slopes = [], []
    for i, j in ((1, 2), (2, 0), (0, 1)):  # the corners of the edge opposite
        across, along = (y[:, i] - y[:, j]) / area, (x[:, j] - x[:, i]) / area
        slope = across[owner]
        start = (along * -y[:, i] - across * x[:, i])[owner] + along[owner] * row.astype(np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            bound = (-_EDGE - start) / slope
        low = np.where(slope > 0, np.maximum(low, bound), low)
        high = np.where(slope < 0, np.minimum(high, bound), high)
        high[(slope == 0) & (start < -_EDGE)] = -1
        starts.append(start)
        slopes.append(slope)
    left = np.ceil(low).astype(np.int32)
    line, column = _spread(np.maximum(np.floor(high).astype(np.int32) - left + 1, 0))
    column = column + left[line]
    box, pixel = owner[line], row[line] * width + column
    first, second = (starts[k][line] + slopes[k][line] * column.astype(np.float32) for k in (0, 1))
    # Weights on the screen over distance are linear in space; their sum is one over the distance of the pixel.
    shares: Array = np.stack([first, second, 1 - first - second], axis=1) / z[box]
    nearness = shares.sum(1)
    nearest = np.zeros(height * width, np.float32) if hide is None else (1 / hide).astype(np.float32)
    np.maximum.at(nearest, pixel, nearness)
    winners = np.flatnonzero(nearness == nearest[pixel])[::-1]
    shown = np.full(height * width, -1)
    shown[pixel[winners]] = winners  # the last one written is the first in the order of the triangles
    pixels = np.flatnonzero(shown >= 0)
    best = shown[pixels]
    owner = kept[box[best]]
    return Seen(pixels, owner, triangles[owner], shares[best] / nearness[best, None], 1 / nearness[best])


def _spread(counts: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Each number k, `counts[k]` times, and beside it 0, 1, 2 and so on up to that."""
    whole = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    begins = np.cumsum(counts, dtype=np.int32) - counts
    return whole, np.arange(len(whole), dtype=np.int32) - begins[whole]


def facing(points: Array, triangles: Array) -> NDArray[np.int64]:
    """The triangles (K,) that show the camera their outside: the one from which their corners go anticlockwise."""
    a, b, c = (points[triangles[:, corner], :2] for corner in range(3))
    # y goes down on the screen, so that anticlockwise has a negative area.
    return np.flatnonzero((b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) < (c[:, 0] - a[:, 0]) * (b[:, 1] - a[:, 1]))

"""The picture of the landing page that can be moved: both made faces of a decision, their maps, and what differs.

    python -m landing --profile quick --folder FOLDER

writes ``face0.webp``, ``target0.webp``, ``rival0.webp``, ``sdd0.webp`` (the face explained, alone and under each map),
the same with a 1 of the look-alike in the same pose and light, ``differs.webp`` (the outline of what truly differs, one
for both) and ``data.js`` (names, probabilities and colour bars), which ``book/page/landing.js`` lays over each other.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_hex
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from explore import PageFace, command_line, difference, drawn_people, face_images, test_logits
from madefaces.names import given_name
from madefaces.people import Identity
from xfrlib import plots
from xfrlib.artifacts import write_atomic
from xfrlib.explanation import Explanation, explain
from xfrlib.geometry import upsampled
from xfrlib.models.classifier import FaceClassifier
from xfrlib.run import NotebookRun

ENLARGED = 4  # a pixel of the face becomes 4 x 4, so that the maps look smooth


class Decision(NamedTuple):
    """A right decision between two look-alikes."""

    face: PageFace
    rival: int  # class of the look-alike
    margin: float  # logit of the person less that of the rival


def region_of(people: Sequence[Identity], face: PageFace, rival: int) -> NDArray[np.bool_]:
    """The pixels (112, 112) of a face in which the person shown and the rival truly differ."""
    return difference(people[face.identity], people[rival], face.seed)[1]


def median_between_look_alikes(logits: Tensor, faces: Sequence[PageFace], people: Sequence[Identity]) -> Decision:
    """The right decision of median margin among those whose strongest rival is a look-alike that visibly differs.

    The median, because a picture chosen by its looks would show what its author hoped for.

    Parameters
    ----------
    logits : (n, N) logits of the pictures.
    faces : the n pictures.
    people : the N classes, in order.
    """
    found = []
    for row, face in zip(logits, faces, strict=True):
        (first, second), (best, rival) = (part.tolist() for part in row.topk(2))
        related = people[int(rival)].family == people[face.identity].family
        if best == face.identity and related and region_of(people, face, int(rival)).any():
            found.append(Decision(face, int(rival), first - second))
    if not found:
        raise ValueError("no test picture is named rightly with a look-alike as its strongest rival: nothing to show")
    return sorted(found, key=lambda decision: decision.margin)[len(found) // 2]


def shown_maps(explanation: Explanation) -> dict[str, tuple[NDArray[np.float32], ScalarMappable]]:
    """Values (B, H, W) and colours of the three maps of B pictures; all CAMs on one scale. SDD maps are drawn gently.

    The first CAM is of the first picture's target on every picture, the second of its rival: one question to all.
    """
    high = float(explanation.cams.abs().max())
    signed = ScalarMappable(Normalize(-high, high), plots.DIVERGING)
    target, rival = (explanation.upsampled_cams[explanation.classes == c] for c in explanation.classes[0])
    gentle = (explanation.log_sdd * plots.gentle_power(explanation.log_sdd)).exp()
    relative = ScalarMappable(Normalize(0, 1), plots.SEQUENTIAL)
    return {
        "target": (target.numpy(), signed),
        "rival": (rival.numpy(), signed),
        "sdd": (gentle.numpy(), relative),
    }


def bar(colours: ScalarMappable) -> str:
    """The colours from the lowest value to the highest, as they lie over light grey: the stops of a CSS gradient."""
    low, high = colours.get_clim()
    ramp = plots.tint(np.full((1, 17, 3), 0.75), np.linspace(low, high, 17)[None], colours)
    return ", ".join(to_hex(colour) for colour in ramp[0])


def _write_picture(path: Path, pixels: NDArray[np.float32]) -> None:
    """Write (H, W, 3 or 4) values in [0, 1] as WebP."""
    content = io.BytesIO()
    image = Image.fromarray((255 * pixels.clip(0, 1)).round().astype(np.uint8))
    image.save(content, "webp", quality=85, lossless=pixels.shape[-1] == 4)
    with write_atomic(path) as part:
        part.write_bytes(content.getvalue())


def border(region: NDArray[np.bool_], enlarged: int = ENLARGED) -> NDArray[np.float32]:
    """The border of a region (H, W), two pixels wide after the enlargement, as (H * e, W * e, 4) colour and opacity."""
    large = torch.from_numpy(region).repeat_interleave(enlarged, 0).repeat_interleave(enlarged, 1)[None, None].float()
    inner = -F.max_pool2d(-large, 5, stride=1, padding=2)
    edge = (large - inner)[0, 0].numpy()
    colour = np.broadcast_to(np.array([1.0, 1.0, 1.0]), (*edge.shape, 3))
    return np.concatenate([colour, edge[..., None]], axis=2).astype(np.float32)


def write_landing(folder: Path, model: FaceClassifier, people: Sequence[Identity], decision: Decision) -> None:
    """Write the pictures and the data of the landing page to `folder`; see the top of this file."""
    seed, pair = decision.face.seed, [decision.face.identity, decision.rival]
    images = face_images(people, [PageFace(c, seed) for c in pair])  # one seed: only what truly differs does so
    explanation = explain(model, images, target=pair, competitors=torch.tensor(pair[::-1])[:, None])
    maps = shown_maps(explanation)
    large = F.interpolate(images, scale_factor=ENLARGED, mode="bicubic", align_corners=False).clamp(0, 1)
    for side, picture in enumerate(large):
        _write_picture(folder / f"face{side}.webp", plots.as_pictures(picture)[0])
        for name, (values, colours) in maps.items():
            size = (large.shape[2], large.shape[3])
            smooth = upsampled(torch.from_numpy(values[side]), size)  # pixels, unlike cells, tile the picture
            _write_picture(folder / f"{name}{side}.webp", plots.tint(picture, smooth, colours))
    parts, region = difference(people[pair[0]], people[pair[1]], seed)
    _write_picture(folder / "differs.webp", border(region))
    data = {
        "names": [given_name(people[c].name) for c in pair],
        "chances": [[plots.percent(p) for p in row] for row in explanation.probabilities.tolist()],  # own name first
        "parts": parts,
        "bars": {name: bar(colours) for name, (_, colours) in maps.items()},
    }
    with write_atomic(folder / "data.js") as path:
        path.write_text(f"var landingData = {json.dumps(data)};\n", encoding="utf-8")


def export_landing(run: NotebookRun, folder: Path) -> None:
    """Write the landing page's picture of a run on made faces; see `write_landing`.

    Raises ValueError for a profile of photographs, whose pictures may not travel with a page.
    """
    people, faces = drawn_people(run)
    model = run.classifier().cpu()
    write_landing(folder, model, people, median_between_look_alikes(test_logits(run, model), faces, people))


if __name__ == "__main__":
    command_line(__doc__, export_landing)

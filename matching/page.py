"""The report as one page that fetches nothing: its pictures lie in it."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from matching.face_parts import FACE_PARTS
from matching.report import Report
from matching.trust import FRACTION
from xfrlib.regions import top_fraction_mask

SHOWN = 300  # pixels of a side of a picture on the page
FOR, AGAINST = (230, 97, 1), (44, 123, 182)  # orange and blue, told apart with any colour vision


def page(report: Report) -> str:
    """The HTML of one pair."""
    return _template("page.html").render(said=report.said, pictures=_pictures(report))


def framed_page(report: Report, height: int) -> str:
    """`page` within another page or a notebook, `height` pixels high: neither reaches the other's style."""
    style = f'width="100%" height="{height}" style="border: 1px solid #888888"'
    # Within a block, since IPython advises against an iframe that stands alone.
    return f'<div><iframe sandbox="" title="Report" srcdoc="{escape(page(report))}" {style}></iframe></div>'


def overview(rows: Sequence[Mapping[str, Any]]) -> str:
    """The HTML of several pairs: each has its ``name``, and either ``said`` and ``page`` or an ``error``."""
    return _template("overview.html").render(rows=rows)


@cache
def _template(name: str) -> Template:
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"signed": lambda x: f"{x:+z.3f}".replace("-", "\u2212"), "plain": _plain, "factor": _factor}
    environment.filters["address"] = lambda file: quote(os.fsencode(file))  # its name may be no UTF-8
    return environment.get_template(name)


def _plain(value: float, digits: int = 3) -> str:
    """A number with a minus that is one; what rounds to nothing has none."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "\u2212")


def _factor(log10: float) -> str:
    """A likelihood ratio in words of numbers: 5 300 or 1/5 300."""
    size = 10 ** abs(log10)
    rounded = f"{float(f'{size:.2g}'):,.10g}".replace(",", "\u202f")
    return rounded if log10 >= 0 else f"1/{rounded}"


def _pictures(report: Report) -> dict[str, str]:
    face, maps = report.probe.face, report.maps
    region = top_fraction_mask(maps.log_sdd[None], FRACTION)[0]
    return {
        "probe": _data(_bytes(face)),
        "mate": _data(_bytes(report.mates[0].face)),
        "match": _data(signed_overlay(face, maps.laid()[0])),
        "separates": _data(outlined(signed_overlay(face, maps.separating()), region)),
        "parts": _data(_with_parts(face, report.parts)),
    }


def signed_overlay(face: Tensor, values: Tensor) -> NDArray[np.uint8]:
    """A signed map (H, W) over its picture (3, H, W) in grey: orange speaks for the mate, blue against; (H, W, 3)."""
    grey = face.mean(dim=0).numpy()[..., None] * 255
    strength = (values / values.abs().max().clamp(min=1e-12)).numpy()[..., None]
    colour = np.where(strength > 0, FOR, AGAINST)
    alpha = 0.75 * np.abs(strength)
    return (grey * (1 - alpha) + colour * alpha).round().astype(np.uint8)


def outlined(picture: NDArray[np.uint8], region: Tensor) -> NDArray[np.uint8]:
    """The picture with the inner border of a region, bool (H, W), in white."""
    inside = np.pad(region.numpy(), 1)
    core = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    return np.where((region.numpy() & ~core)[..., None], np.uint8(255), picture)


def _with_parts(face: Tensor, masks: Tensor) -> NDArray[np.uint8]:
    """The picture with the borders of all parts."""
    picture = _bytes(face)
    for number in range(len(FACE_PARTS)):
        picture = outlined(picture, masks[number])
    return picture


def _bytes(face: Tensor) -> NDArray[np.uint8]:
    return (face.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


def _data(picture: NDArray[np.uint8]) -> str:
    """A picture as an address that holds it, enlarged: JPEG, so that a page stays small."""
    out = io.BytesIO()
    Image.fromarray(picture).resize((SHOWN, SHOWN), Image.Resampling.BICUBIC).save(out, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"

"""The explorer in the page: a classifier and made faces as scripts that a browser can read from a folder.

A page that is opened from a folder may load scripts, and nothing else. So the weights, one binary file, and the faces
travel as base64 in scripts of one assignment each; ``book/_static/explore_core.js`` reads them and repeats there what
`xfrlib.explain` and `xfrlib.top_fraction_mask` do here.

    python -m xfrlib.page_explorer --profile quick --folder FOLDER
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from xfrlib import plots
from xfrlib.artifacts import write_atomic
from xfrlib.data.face_parts import PARTS, SIZE
from xfrlib.data.synthetic import DIFFERING, Identity, make_families, picture_seed, render, swap_parts
from xfrlib.evaluation.ground_truth import part_differs
from xfrlib.evaluation.masks import top_fraction_mask
from xfrlib.evaluation.perturbation import deletion_retention
from xfrlib.explain import explain
from xfrlib.models.classifier import FaceClassifier
from xfrlib.models.iresnet import IRBlock, IResNet
from xfrlib.notebook import NotebookRun

WEIGHTS_LIMIT = 4_000_000  # bytes of the binary file
_LEVELS = 32767  # a weight is a whole number of 16 bits times the scale of its row


class PageFace(NamedTuple):
    """One picture of the page."""

    identity: int  # class that it shows
    seed: int  # its nuisance seed, see `xfrlib.data.synthetic.picture_seed`


class _Writer:
    """Appends arrays to one binary file, each at a multiple of four bytes, and remembers where."""

    def __init__(self) -> None:
        self.content = bytearray()

    def put(self, values: NDArray[Any]) -> int:
        start = len(self.content)
        self.content += values.astype(values.dtype.newbyteorder("<")).tobytes()
        self.content += bytes(-len(self.content) % 4)
        return start

    def floats(self, values: Tensor) -> dict[str, Any]:
        return {"at": self.put(values.detach().cpu().numpy().astype(np.float32)), "size": values.numel()}

    def rows(self, weight: Tensor) -> dict[str, Any]:
        """A matrix (rows, columns) as whole numbers of 16 bits and one scale a row."""
        matrix = weight.detach().cpu().double().flatten(1)
        scale = (matrix.abs().amax(dim=1) / _LEVELS).float()
        whole = (matrix / scale.double().clamp(min=1e-30)[:, None]).round().clamp(-_LEVELS, _LEVELS)
        return {"at": self.put(whole.numpy().astype(np.int16)), "scale": self.floats(scale), "shape": [*matrix.shape]}


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift of a BatchNorm in evaluation mode, (C,) each, in float64."""
    mean, var = cast(Tensor, norm.running_mean).double(), cast(Tensor, norm.running_var).double()
    scale = norm.weight.double() / torch.sqrt(var + norm.eps)
    return scale, norm.bias.double() - mean * scale


def _convolution(writer: _Writer, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> dict[str, Any]:
    """A convolution with the BatchNorm after it folded in."""
    scale, shift = _affine(norm)
    folded = conv.weight.double() * scale[:, None, None, None]
    geometry = {"kernel": conv.kernel_size[0], "stride": conv.stride[0], "padding": conv.padding[0]}
    return {**geometry, "weight": writer.rows(folded), "bias": writer.floats(shift)}


def _block(writer: _Writer, block: IRBlock) -> dict[str, Any]:
    before, first, after, prelu, second, last = cast("list[Any]", list(block.res_layer))
    # The first BatchNorm stands before a padded convolution: its shift must not reach the padding, so it is not folded.
    scale, shift = _affine(before)
    shortcut = None
    if isinstance(block.shortcut_layer, nn.Sequential):
        shortcut = _convolution(writer, *cast("list[Any]", list(block.shortcut_layer)))
    return {
        "scale": writer.floats(scale),
        "shift": writer.floats(shift),
        "first": _convolution(writer, first, after),
        "prelu": writer.floats(prelu.weight),
        "second": _convolution(writer, second, last),
        "shortcut": shortcut,
    }


@torch.no_grad()
def pack_classifier(model: FaceClassifier) -> tuple[dict[str, Any], bytes]:
    """The network as a description and one binary file, for ``explore_core.js``.

    Weights of convolutions, their BatchNorm folded in, are whole numbers of 16 bits with a scale for each output
    channel (half the size of float32; the rounding is 1/65 534 of the largest weight of the channel, against 1/2 048 of
    each weight in float16). All else is float32, little-endian.
    Raises ValueError for a backbone that is no IR network, or one that does not fit the page.
    """
    backbone = model.backbone
    if not isinstance(backbone, IResNet):
        raise ValueError(f"{type(backbone).__name__} cannot be run in the page: it reads IR networks, such as 'slim'")
    writer = _Writer()
    conv, norm, prelu = cast("list[Any]", list(backbone.input_layer))
    description = {
        "mean": backbone.mean,
        "std": backbone.std,
        "bgr": backbone.channel_order == "BGR",
        "stem": _convolution(writer, conv, norm),
        "prelu": writer.floats(prelu.weight),
        "blocks": [_block(writer, cast(IRBlock, block)) for block in backbone.body],
        "head": {"weight": writer.floats(model.weight), "bias": writer.floats(model.bias)},
    }
    if len(writer.content) > WEIGHTS_LIMIT:
        raise ValueError(f"{backbone.name!r} takes {len(writer.content):,} bytes; the page takes {WEIGHTS_LIMIT:,}")
    return description, bytes(writer.content)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def difference(person: Identity, other: Identity, seed: int) -> tuple[list[str], NDArray[np.bool_]]:
    """The parts in which two people differ, and their pixels (112, 112) in the picture of `person` with `seed`.

    A pixel counts if it shows such a part before or after `person` is given the parts of `other`, so that glasses that
    only one of them wears have a place; none does where something hides the part.
    """
    parts = [part for part in DIFFERING if part_differs(person, other, part)]
    _, labels = render([person, swap_parts(person, other, parts)], [seed, seed])
    return parts, np.isin(labels, [PARTS.index(part) for part in parts]).any(axis=0)


def pack_faces(people: Sequence[Identity], faces: Sequence[PageFace]) -> dict[str, Any]:
    """Pictures, part masks and true differences within families, as ``explore.js`` reads them.

    `people` are in the order of the model's classes. Each of the n `faces` has 112 * 112 * 3 bytes in ``pixels`` (RGB)
    and 112 * 112 in ``parts`` (two pixels a byte, positions in ``part_names``, the first pixel in the upper half); a
    difference has one bit a pixel in ``regions``, from the byte ``at``.
    """
    pictures, parts = render([people[face.identity] for face in faces], [face.seed for face in faces])
    pairs = parts.reshape(len(faces), -1, 2)
    regions, described = bytearray(), []
    for face in faces:
        person, found = people[face.identity], {}
        for rival, other in enumerate(people):
            if other.family == person.family and rival != face.identity:
                names, region = difference(person, other, face.seed)
                found[rival] = {"parts": names, "at": len(regions), "visible": bool(region.any())}
                regions += np.packbits(region).tobytes()
        described.append({"identity": face.identity, "differences": found})
    return {
        "size": SIZE,
        "names": [person.name.replace("_", " ") for person in people],
        "family": [person.family for person in people],
        "part_names": list(PARTS),
        "faces": described,
        "pixels": _base64(pictures.tobytes()),
        "parts": _base64((pairs[..., 0] << 4 | pairs[..., 1]).tobytes()),
        "regions": _base64(bytes(regions)),
        "colours": {"sdd": _colours(plots.SEQUENTIAL), "cam": _colours(plots.DIVERGING)},
    }


def _colours(name: str) -> str:
    """256 colours of a map, three bytes each."""
    return _base64((255 * colormaps[name](np.arange(256))[:, :3]).round().astype(np.uint8).tobytes())


def write_explorer(
    folder: Path,
    model: FaceClassifier,
    people: Sequence[Identity],
    faces: Sequence[PageFace],
    settings: dict[str, Any],
) -> None:
    """Write ``weights.js``, ``faces.js`` and ``static.webp`` for the page.

    Parameters
    ----------
    folder : where they go; it is made.
    model : the classifier, of an IR backbone.
    people : its classes, in order.
    faces : the pictures that a reader can choose.
    settings : where the controls stand at first: ``top_k``, ``delta``, ``scale``, ``scale_min``, ``scale_max``,
        ``form`` and ``fraction``.
    """
    if model.num_classes != len(people):
        raise ValueError(f"the model has {model.num_classes} classes but there are {len(people)} people: give one each")
    description, weights = pack_classifier(model)
    _write_script(folder / "weights.js", "explorerWeights", {"network": description, "binary": _base64(weights)})
    _write_script(folder / "faces.js", "explorerFaces", {**pack_faces(people, faces), "settings": settings})
    with write_atomic(folder / "static.webp") as path:
        plots.save(static_figure(model, people, faces[0], settings), path, "webp")


def _write_script(path: Path, name: str, value: dict[str, Any]) -> None:
    with write_atomic(path) as part:
        part.write_text(f"var {name} = {json.dumps(value, separators=(',', ':'))};\n", encoding="utf-8")


def static_figure(
    model: FaceClassifier, people: Sequence[Identity], face: PageFace, settings: dict[str, Any]
) -> Figure:
    """What the explorer shows first, for a reader whose browser runs no scripts."""
    picture = render([people[face.identity]], [face.seed])[0]
    image = torch.from_numpy(picture).permute(0, 3, 1, 2).float() / 255
    sdd = {key: value for key, value in settings.items() if key != "fraction"}
    explanation = explain(model, image, **sdd)
    mask = top_fraction_mask(explanation.log_sdd, settings["fraction"])
    answer = deletion_retention(model, image, mask).iloc[0]
    names = [people[c].name.replace("_", " ") for c in explanation.classes[0].tolist()]
    figure, (axes,) = plots.picture_grid(1, 5, (10, 2.9))
    plots.show(axes[0], image, f"the picture\n{names[0]}: {plots.percent(answer['probability'])}")
    high = float(explanation.cams[0, 0].abs().max())
    cam = plots.overlay(
        axes[1],
        image,
        explanation.cams[0, 0],
        cmap=plots.DIVERGING,
        limits=(-high, high),
        title="evidence for\n" + names[0],
    )
    heat = plots.overlay(
        axes[2], image, explanation.sdd[0], limits=(0, 1), title=f"SDD against\n{len(names) - 1} rivals"
    )
    for axis, kind, kept in zip(axes[3:], ("deletion", "retention"), (~mask, mask), strict=True):
        share = plots.percent(settings["fraction"])
        title = f"without the top {share}" if kind == "deletion" else f"only the top {share}"
        plots.show(axis, image * kept[:, None], f"{title}\n{plots.percent(answer[f'{kind}_probability'])}")
    plots.colour_bar(figure, cam, axes[1], plots.CAM_UNIT, width=0.9)
    plots.colour_bar(figure, heat, axes[2], "SDD (relative)", width=0.9)
    return figure


def closest_decisions(run: NotebookRun, people: Sequence[Identity], model: FaceClassifier) -> list[PageFace]:
    """For each person the test picture whose two highest logits lie closest together, right or wrong."""
    dataset = run.dataset("test")
    with torch.no_grad():
        logits = torch.cat([model(dataset[row][0][None].to(run.device)).cpu() for row in range(len(dataset))])
    best = logits.topk(2, dim=1).values
    table = dataset.table.assign(margin=(best[:, 0] - best[:, 1]).numpy())
    chosen = table.loc[table.groupby("label")["margin"].idxmin()]
    numbers = {person.name: number for number, person in enumerate(_drawn(run))}
    return [
        PageFace(label, picture_seed(run.profile.seed, numbers[people[label].name], int(Path(path).stem)))
        for label, path in zip(chosen["label"].tolist(), chosen["path"], strict=True)
    ]


def _drawn(run: NotebookRun) -> list[Identity]:
    return make_families(run.profile.families, run.profile.family_size, seed=run.profile.seed)


def export_explorer(run: NotebookRun, folder: Path) -> None:
    """Write the explorer of a run on made faces to `folder`; see `write_explorer`.

    Raises ValueError for a profile of photographs: neither they nor what was trained on them may travel with a page.
    """
    profile = run.profile
    if profile.dataset != "synthetic" or profile.shows_real_people:
        raise ValueError(f"the profile {profile.name!r} shows real people: the explorer in the page is for made faces")
    model = run.classifier().cpu()
    by_name = {person.name: person for person in _drawn(run)}
    people = [by_name[name] for name in run.dataset("test").identities]
    names = ("top_k", "delta", "scale", "scale_min", "scale_max", "form", "fraction")
    settings = {name: getattr(profile, name) for name in names}
    write_explorer(folder, model, people, closest_decisions(run, people, model), settings)


def main() -> None:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", required=True, help="name or path of a profile of made faces")
    parser.add_argument("--folder", required=True, type=Path, help="where the scripts go")
    given = parser.parse_args()
    try:
        export_explorer(NotebookRun("05_subject_visuals", given.profile), given.folder)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

"""The explorer in the page: a classifier and made faces as scripts that a browser can read from a folder.

A page that is opened from a folder may load scripts, and nothing else. So the weights, one binary file, and the faces
travel as base64 in scripts of one assignment each; ``book/page/explore_core.js`` reads them and repeats there what
`xfrlib.explain`, `xfrlib.explain_match`, `xfrlib.top_fraction_mask` and `xfrlib.trust.should_show` do here.

    python -m explore --profile quick --folder FOLDER
"""

from __future__ import annotations

import argparse
import base64
import copy
import io
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from madefaces.face_paint import PARTS, SIZE
from madefaces.names import given_name
from madefaces.people import DIFFERING, Identity, make_families, part_differs, picture_seed, render, swap_parts
from network import pack_classifier
from recognisers import as_recogniser
from xfrlib import plots
from xfrlib.artifacts import write_atomic
from xfrlib.explanation import Explanation, explain
from xfrlib.judge import deletion_retention
from xfrlib.match import unit_embeddings
from xfrlib.models import Backbone
from xfrlib.models.classifier import FaceClassifier
from xfrlib.regions import top_fraction_mask
from xfrlib.run import NotebookRun
from xfrlib.sdd import Divergence
from xfrlib.trust import should_show

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


class PageFace(NamedTuple):
    """One picture of the page."""

    identity: int  # class that it shows
    seed: int  # its nuisance seed, see `madefaces.people.picture_seed`


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def difference(person: Identity, other: Identity, seed: int) -> tuple[list[str], NDArray[np.bool_]]:
    """The parts in which two people differ, and their pixels (112, 112) in the picture of `person` with `seed`.

    A pixel counts if it shows such a part before or after `person` is given the parts of `other`, so that glasses that
    only one of them wears have a place; none does where something hides the part.
    """
    parts = [part for part in DIFFERING if part_differs(person, other, part)]
    _, labels = render([person, swap_parts(person, other, parts)], [seed, seed])
    shown: NDArray[np.bool_] = np.isin(labels, [PARTS.index(part) for part in parts])
    return parts, shown[0] | shown[1]


def pack_faces(people: Sequence[Identity], faces: Sequence[PageFace]) -> dict[str, Any]:
    """Pictures, part masks and true differences within families, as ``explore.js`` reads them.

    `people` are in the order of the model's classes. Each of the n `faces` has 112 * 112 * 3 bytes in ``pixels`` (RGB)
    and 112 * 112 in ``parts`` (two pixels a byte, positions in ``part_names``, the first pixel in the upper half); a
    difference has one bit a pixel in ``regions``, from the byte ``at``. ``portraits`` are the `neutral` pictures of
    all people, a WebP file without loss each.
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
        "names": [given_name(person.name) for person in people],
        "family": [person.family for person in people],
        "part_names": list(PARTS),
        "faces": described,
        "pixels": _base64(pictures.tobytes()),
        "portraits": [_webp(picture) for picture in neutral(people)],
        "parts": _base64((pairs[..., 0] << 4 | pairs[..., 1]).tobytes()),
        "regions": _base64(bytes(regions)),
        "colours": {"sdd": _colours(plots.SEQUENTIAL), "cam": _colours(plots.DIVERGING)},
    }


def neutral(people: Sequence[Identity]) -> NDArray[np.uint8]:
    """A picture (112, 112, 3) of everybody in even light, looking straight ahead, as in a passport."""
    return render(people, [0] * len(people), nuisance=0)[0]


def _webp(picture: NDArray[np.uint8]) -> str:
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "webp", lossless=True, quality=100, method=6)
    return _base64(content.getvalue())


def templates(model: FaceClassifier, people: Sequence[Identity]) -> torch.Tensor:
    """Templates (N, C) of length 1, each from the `neutral` picture of a person: the gallery of two pictures' question.

    The embedding is the average of the classifier's last map.
    """
    recogniser = as_recogniser(copy.deepcopy(cast(Backbone, model.backbone)))
    return unit_embeddings(recogniser, _as_images(neutral(people)))


def _as_images(pictures: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255


def _colours(name: str) -> str:
    """256 colours of a map, three bytes each."""
    return _base64((255 * colormaps[name](np.arange(256))[:, :3]).round().astype(np.uint8).tobytes())


def write_explorer(
    folder: Path,
    model: FaceClassifier,
    people: Sequence[Identity],
    faces: Sequence[PageFace],
    settings: dict[str, Any],
    *,
    temperature: float = 1.0,
) -> None:
    """Write ``weights.js``, ``faces.js`` and ``static.webp`` for the page.

    Parameters
    ----------
    folder : where they go; it is made.
    model : the classifier, of an IR backbone.
    people : its classes, in order.
    faces : the pictures that a reader can choose.
    settings : ``top_k``, ``delta``, ``scale``, ``scale_min``, ``scale_max``, ``form``, ``centre`` and ``fraction``, as
        the figures of the book use them. At first the page shows a smaller delta, see `gentle_delta`.
    temperature : of the verdict's log-odds (chapter 2 fits it); above 0.
    """
    if model.num_classes != len(people):
        raise ValueError(f"the model has {model.num_classes} classes but there are {len(people)} people: give one each")
    shown = settings | {"delta": gentle_delta(model, people, faces, settings)}
    description, weights = pack_classifier(model)
    _write_script(folder / "weights.js", "explorerWeights", {"network": description, "binary": _base64(weights)})
    _write_script(
        folder / "faces.js",
        "explorerFaces",
        {
            **pack_faces(people, faces),
            "templates": _base64(templates(model, people).numpy().astype("<f4").tobytes()),
            "settings": settings,
            "delta_shown": shown["delta"],
            "temperature": temperature,
            "rule": rule_page(),
            "passes": passes(model, face_images(people, faces), shown, temperature),
        },
    )
    with write_atomic(folder / "static.webp") as path:
        plots.save(static_figure(model, people, faces[0], shown), path, "webp")


def face_images(people: Sequence[Identity], faces: Sequence[PageFace]) -> torch.Tensor:
    """The pictures as (n, 3, 112, 112) in [0, 1]."""
    pictures, _ = render([people[face.identity] for face in faces], [face.seed for face in faces])
    return _as_images(pictures)


def explain_options(settings: dict[str, Any]) -> dict[str, Any]:
    """The explorer's flat settings as `xfrlib.explain` takes them."""
    options = {name: settings[name] for name in ("top_k", "centre") if name in settings}
    return options | {"divergence": Divergence(**{field.name: settings[field.name] for field in fields(Divergence)})}


def _explain(model: FaceClassifier, images: torch.Tensor, settings: dict[str, Any]) -> Explanation:
    return explain(model, images, **explain_options(settings))


def gentle_delta(
    model: FaceClassifier, people: Sequence[Identity], faces: Sequence[PageFace], settings: dict[str, Any]
) -> float:
    """The delta with which the maps of half the faces run from about e^-4 to 1, so that more than a peak is seen.

    Rounded to a step of the page's slider, a twentieth of a power of ten.
    """
    log_sdd = _explain(model, face_images(people, faces), settings).log_sdd
    steps = round(20 * math.log10(settings["delta"] * float(plots.gentle_power(log_sdd).median())))
    return 10 ** (max(-40, min(steps, 40)) / 20)


def passes(model: FaceClassifier, images: torch.Tensor, settings: dict[str, Any], temperature: float) -> list[bool]:
    """Whether `xfrlib.trust.should_show` would show the map of each picture (n, 3, 112, 112), under a black fill."""
    found = _explain(model, images, settings)
    mask = top_fraction_mask(found.log_sdd, settings["fraction"])
    how: dict[str, Any] = {"fill": "black", "temperature": temperature, "logits": found.logits, "pairs": found.classes}
    return [judged.show for judged in should_show(model, images, mask, **how)]


def rule_page(notebooks: Path = NOTEBOOKS) -> dict[str, Any]:
    """The number of the chapter whose rule says when to show no map, and its page as seen from the explorer's.

    Raises FileNotFoundError where no chapter is called so.
    """
    found = sorted(notebooks.glob("[0-9][0-9]_when_not_to_show_it.ipynb"))
    if not found:
        raise FileNotFoundError(
            f"there is no chapter NN_when_not_to_show_it.ipynb in {notebooks}, whose rule is quoted"
        )
    return {"chapter": int(found[0].name[:2]), "page": f"../notebooks/{found[0].stem}.html"}


def _write_script(path: Path, name: str, value: dict[str, Any]) -> None:
    with write_atomic(path) as part:
        part.write_text(f"var {name} = {json.dumps(value, separators=(',', ':'))};\n", encoding="utf-8")


def static_figure(
    model: FaceClassifier, people: Sequence[Identity], face: PageFace, settings: dict[str, Any]
) -> Figure:
    """What the explorer shows first, for a reader whose browser runs no scripts."""
    image = face_images(people, [face])
    explanation = _explain(model, image, settings)
    mask = top_fraction_mask(explanation.log_sdd, settings["fraction"])
    answer = deletion_retention(model, image, mask).iloc[0]
    names = [given_name(people[c].name) for c in explanation.classes[0].tolist()]
    figure, (axes,) = plots.picture_grid(1, 5, (10, 2.9))
    plots.show(axes[0], image, f"the picture\n{names[0]}: {plots.percent(answer['probability'])}")
    high = float(explanation.cams[0, 0].abs().max())
    cam = plots.overlay(
        axes[1],
        image,
        explanation.upsampled_cams[0, 0],
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


def closest_decisions(run: NotebookRun, faces: Sequence[PageFace], model: FaceClassifier) -> list[PageFace]:
    """For each person the test picture whose two highest logits lie closest together, right or wrong; on the CPU."""
    best = test_logits(run, model).topk(2, dim=1).values
    table = run.dataset("test").table.assign(margin=(best[:, 0] - best[:, 1]).numpy()).reset_index(drop=True)
    return [faces[row] for row in table.groupby("label")["margin"].idxmin()]


def test_logits(run: NotebookRun, model: FaceClassifier) -> torch.Tensor:
    """Logits (n, N) of the test pictures, on the CPU."""
    dataset = run.dataset("test")
    with torch.no_grad():
        return torch.cat([model(dataset[row][0][None]) for row in range(len(dataset))])


def drawn_people(run: NotebookRun) -> tuple[list[Identity], list[PageFace]]:
    """The classes of a run on made faces, in order, and its test pictures, in theirs.

    Raises ValueError for a profile of photographs: neither they nor what was trained on them may travel with a page.
    """
    profile = run.profile
    if profile.dataset != "synthetic" or profile.shows_real_people:
        raise ValueError(f"the profile {profile.name!r} shows real people: what runs in a page is for made faces")
    dataset = run.dataset("test")
    drawn = make_families(profile.families, profile.family_size, seed=profile.seed)
    numbers = {person.name: number for number, person in enumerate(drawn)}
    order = [numbers[name] for name in dataset.identities]
    faces = [
        PageFace(label, picture_seed(profile.seed, order[label], int(Path(path).stem)))
        for label, path in zip(dataset.table["label"].tolist(), dataset.table["path"], strict=True)
    ]
    return [drawn[number] for number in order], faces


def export_explorer(run: NotebookRun, folder: Path) -> None:
    """Write the explorer of a run on made faces to `folder`; see `write_explorer` and `drawn_people`."""
    people, faces = drawn_people(run)
    model = run.classifier().cpu()
    names = ("top_k", "delta", "scale", "scale_min", "scale_max", "form", "centre", "fraction")
    settings = {name: getattr(run.profile, name) for name in names}
    closest = closest_decisions(run, faces, model)
    write_explorer(folder, model, people, closest, settings, temperature=run.temperature())


def command_line(description: str | None, export: Callable[[NotebookRun, Path], None]) -> None:
    """What a command that writes a part of a page does: `export` a run into a folder, or stop with a sentence."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", required=True, help="name or path of a profile of made faces")
    parser.add_argument("--folder", required=True, type=Path, help="where the files go")
    given = parser.parse_args()
    try:
        export(NotebookRun("05_subject_visuals", given.profile), given.folder)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    command_line(__doc__, export_explorer)

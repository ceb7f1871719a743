"""The gallery: a page for each of some people, from one notebook, and what such a page needs to know.

    python notebooks/gallery/subjects.py --profile quick

lists the people chosen, as JSON. ``tools/make_book.py gallery`` runs ``notebooks/gallery/subject.ipynb`` for each."""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import re
import shlex
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from xfrlib import plots
from xfrlib.artifacts import write_atomic
from xfrlib.cam import pooled_features
from xfrlib.data.faces import FaceDataset, read_manifest
from xfrlib.geometry import upsampled
from xfrlib.look_alikes import embeddings, look_alikes
from xfrlib.prediction import all_logits
from xfrlib.run import NotebookRun, ParameterError

NOTEBOOK = "gallery/subject"
_THUMBNAIL = 224  # pixels
_LOOKED_AT = 4  # pictures of each person, to know who is like whom
_EDGES = {
    "part": (86, 180, 233),
    "top": (230, 159, 0),
}  # sky blue and orange, as the figures of the book have them


class Subject(NamedTuple):
    """Somebody who has a page in the gallery."""

    identity: str
    page: str  #: name of the page's files, without suffix
    family: int | None  #: None: of a photograph nobody knows the look-alikes


def page_name(identity: str) -> str:
    """A name for files and addresses, different for different identities: the identity itself if it is plain ASCII.

    Anything else is spelled in ASCII, with six digits of the identity's hash so that no two spellings meet.
    """
    plain = unicodedata.normalize("NFKD", identity).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9_]+", "_", plain).strip("_")[:60]
    return (
        plain
        if plain == identity
        else f"{plain or 'subject'}-{hashlib.sha256(identity.encode()).hexdigest()[:6]}"
    )


def choose_subjects(
    identities: Sequence[str], families: Sequence[int] | None, count: int
) -> list[Subject]:
    """The first `count` people: one of each family, then a second of each, and so on; without families, in their order.

    The rule looks at nothing that a network says of them. `families` holds the family of each identity. They are
    returned family by family.
    """
    turns: Counter[int] = Counter()
    chosen: list[tuple[int, int, Subject]] = []
    known: Sequence[int | None] = families or [None] * len(identities)
    for identity, family in zip(identities, known, strict=True):
        turn = len(chosen) if family is None else turns[family]
        turns.update([] if family is None else [family])
        chosen.append(
            (turn, len(chosen), Subject(identity, page_name(identity), family))
        )
    return [
        subject
        for _, _, subject in sorted(sorted(chosen)[:count], key=lambda entry: entry[1])
    ]


def subjects_of(run: NotebookRun) -> list[Subject]:
    """The people of a run who have a page; as many as its profile's `gallery_subjects`."""
    table = read_manifest(run.need("manifest.csv", "01_data_preparation"))
    used = (
        table[table["status"] == "used"].drop_duplicates("label").sort_values("label")
    )
    identities, people = used["identity"].tolist(), made_people(run)
    families = [people[name]["family"] for name in identities] if people else None
    return choose_subjects(identities, families, run.profile.gallery_subjects)


def made_people(run: NotebookRun) -> dict[str, Any]:
    """Family and differing parts of each made person; empty for photographs."""
    if run.profile.dataset != "synthetic":
        return {}
    record = run.read_json("faces_families.json", "01_data_preparation")
    return {person["name"]: person for person in record["identities"]}


@torch.no_grad()
def rivals_of(
    run: NotebookRun, model: nn.Module, test: FaceDataset, label: int
) -> list[int]:
    """The labels of those to tell a person from: the rest of the family, or the most like by embedding.

    On photographs, and for a made person without family, these are the ``top_k - 1`` most like over the first four
    test pictures of each.
    """
    people = made_people(run)
    family = [people[name]["family"] for name in test.identities] if people else []
    siblings = [
        other
        for other, own in enumerate(family)
        if own == family[label] and other != label
    ]
    if siblings:
        return siblings
    table, device = test.table.groupby("label").head(_LOOKED_AT), run.device
    few = DataLoader(Subset(test, table.index.tolist()), run.profile.eval_batch_size)
    embedded = [
        embeddings(pooled_features(model, images.to(device)).features).cpu()
        for images, *_ in few
    ]
    order = look_alikes(torch.cat(embedded), table["label"].tolist(), label)
    return order[: run.profile.top_k - 1]


def find_subject(
    run: NotebookRun, identity: str | None, identities: Sequence[str]
) -> int:
    """The label of an identity; None: the first that has a page. Raises `ParameterError` naming those nearest to it."""
    identity = subjects_of(run)[0].identity if identity is None else str(identity)
    if identity in identities:
        return identities.index(identity)
    near = difflib.get_close_matches(identity, identities, n=3, cutoff=0.5)
    hint = (
        f"did you mean {' or '.join(map(repr, near))}?"
        if near
        else f"such as {identities[0]!r}"
    )
    raise ParameterError(
        f"subject = {identity!r}: none of the {len(identities)} people is called that; {hint}"
    )


def papermill_command(
    profile: str, subject: str, target: str, **parameters: Any
) -> str:
    """The command that runs the notebook for one subject, quoted for a shell; parameters that are None are left out."""
    given = [("-r", "subject", subject)]  # as text: an identity may be called 007
    given += [
        ("-r" if isinstance(v, str) else "-p", k, str(v))
        for k, v in parameters.items()
        if v not in (None, "")
    ]
    words = [".venv/bin/papermill", f"notebooks/{NOTEBOOK}.ipynb", target]
    words += ["--cwd", "notebooks/gallery", "-r", "profile", profile]
    return shlex.join([*words, *(word for one in given for word in one)])


def sample_faces(
    model: nn.Module, train: FaceDataset, labels: Sequence[int]
) -> list[int]:
    """The row of `train` that stands for each person: of the first eight, the one where the network is surest."""
    rows = []
    for label in labels:
        first = np.flatnonzero(train.table["label"] == label)[:8].tolist()
        logits = all_logits(model, torch.stack([train[row][0] for row in first]))
        rows.append(first[int(logits.softmax(dim=1)[:, label].argmax())])
    return rows


# --- where they differ


class KnownParts(NamedTuple):
    """The parts of n pictures of made faces."""

    names: tuple[str, ...]  #: P parts, the background among them
    masks: Tensor  #: (n, P, H, W) bool
    differs: tuple[str, ...]  #: the parts that set the person apart from the family
    region: Tensor  #: (n, H, W) bool, their pixels; all False where they cannot be seen


def known_parts(
    run: NotebookRun, dataset: FaceDataset, rows: Sequence[int]
) -> KnownParts | None:
    """The parts of some pictures, all of members of one family; None for photographs."""
    people = made_people(run)
    if not people:
        return None
    names = tuple(run.read_json("faces_families.json", "01_data_preparation")["parts"])
    root, table = (
        run.need("faces_parts", "01_data_preparation"),
        dataset.table.loc[list(rows)],
    )
    codes = torch.from_numpy(
        np.stack([np.asarray(Image.open(root / path)) for path in table["path"]])
    )
    masks = codes[:, None] == torch.arange(len(names))[:, None, None]
    differs = tuple(people[table["identity"].iloc[0]]["differs"])
    return KnownParts(
        names,
        masks,
        differs,
        masks[:, [names.index(part) for part in differs]].any(dim=1),
    )


def covered(masks: Tensor, region: Tensor) -> Tensor:
    """The share of each region that a mask covers: bool (n, H, W) twice -> (n,) in [0, 1], NaN for an empty region."""
    return (masks & region).sum(dim=(1, 2)) / region.sum(dim=(1, 2))


# --- what is drawn


def write_thumbnail(
    path: Path, image: Tensor, values: Tensor, top: Tensor, region: Tensor | None = None
) -> None:
    """Write a picture (3, H, W) under its map (H, W) in [0, 1] as a small PNG.

    The map covers the more, the higher it is: where it says nothing, the face is seen. The border of `top` (H, W) is
    drawn in orange, that of `region` in blue.
    """
    colours = ScalarMappable(Normalize(0, 1), plots.SEQUENTIAL)
    tinted = torch.from_numpy(plots.tint(image, values, colours))
    pixels = (
        image.permute(1, 2, 0).float().lerp(tinted.float(), values.float()[..., None])
    )
    scale = max(1, _THUMBNAIL // max(values.shape))
    height, width = (scale * side for side in values.shape)
    # Pixels, unlike cells, are tiles that fill the picture.
    smooth = upsampled(pixels.permute(2, 0, 1), (height, width)).permute(1, 2, 0)
    large = smooth.mul(255).round().byte().numpy()
    for mask, colour in ((region, _EDGES["part"]), (top, _EDGES["top"])):
        if mask is not None and bool(mask.any()):
            inside = (
                mask.float().repeat_interleave(scale, 0).repeat_interleave(scale, 1)
            )
            dark = _grown(inside) > inside  # a line outside shows it on any ground
            large[dark.numpy()] = 0
            large[(inside > -_grown(-inside, 2)).numpy()] = colour
    with write_atomic(path) as part:
        Image.fromarray(large).quantize(128, dither=Image.Dither.NONE).save(
            part, "png", optimize=True
        )


def _grown(mask: Tensor, by: int = 1) -> Tensor:
    return F.max_pool2d(mask[None], 2 * by + 1, stride=1, padding=by)[0]


def main() -> None:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", required=True, help="name or path of a profile")
    given = parser.parse_args()
    try:
        chosen = subjects_of(NotebookRun(NOTEBOOK, given.profile))
    except (ValueError, FileNotFoundError) as error:
        sys.exit(str(error))
    print(
        json.dumps([subject._asdict() for subject in chosen], indent=1)
    )  # a line a value: make reads it


if __name__ == "__main__":
    main()

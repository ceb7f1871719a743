"""Who looks like whom to a network."""

from __future__ import annotations

from typing import Any

from torch import nn

from xfrlib.data.faces import FaceDataset
from xfrlib.run import NotebookRun

# --- who is compared


def _made_people(run: NotebookRun) -> dict[str, Any]:
    """Family and differing parts of each made person; empty for photographs."""
    if run.profile.dataset != "synthetic":
        return {}
    record = run.read_json("faces_families.json", "01_data_preparation")
    return {person["name"]: person for person in record["identities"]}


def look_alikes(run: NotebookRun, model: nn.Module, test: FaceDataset, label: int) -> list[int]:
    """The labels of those to tell a person from: the rest of the family, or the most like by embedding.

    On photographs, and for a made person without family, these are the ``top_k - 1`` people whose mean embedding has
    the largest cosine with the person's, over the first four test pictures of each.
    """
    people = _made_people(run)
    family = [people[name]["family"] for name in test.identities] if people else []
    siblings = [other for other, own in enumerate(family) if own == family[label] and other != label]
    if siblings:
        return siblings
    from xfrlib.explorer.pictures import Pictures  # brings widgets with it

    few = FaceDataset(test.root, test.table.groupby("label").head(4), "test")
    few.identities, few.num_classes = test.identities, test.num_classes
    return Pictures(model, few).look_alikes(label)[: run.profile.top_k - 1]

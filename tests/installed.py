"""Run by the Python of an environment with the wheel: the method, with none of the extras' packages."""

import importlib.metadata
import json
import sys
from importlib.abc import MetaPathFinder
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def hard() -> set[str]:
    """The distributions that ``pip install xfrlib`` brings."""
    found, todo = set[str](), ["xfrlib"]
    while todo:
        name = canonicalize_name(todo.pop())
        if name in found:
            continue
        found.add(name)
        try:
            requirements = [Requirement(text) for text in importlib.metadata.requires(name) or []]
        except importlib.metadata.PackageNotFoundError:  # torch's own for GPUs, beside a CPU build
            continue
        todo += [r.name for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


class Absent(MetaPathFinder):
    """Makes every package of another distribution look as if it were not installed, and notes who is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        there = hard()
        providers = importlib.metadata.packages_distributions()
        self.names = {
            module for module, names in providers.items() if not there & {canonicalize_name(name) for name in names}
        }

    def find_spec(self, name: str, *_: Any) -> None:
        if name in self.names:
            self.asked.append(name)
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


if __name__ == "__main__":
    absent = Absent()
    sys.meta_path.insert(0, absent)

    import torch
    import torchvision  # noqa: F401

    before, absent.asked = set(sys.modules), []
    import xfrlib

    new = {module.partition(".")[0] for module in set(sys.modules) - before}
    loaded, asked = sorted(new & {"pandas", "pyarrow", "PIL"}), absent.asked
    model = xfrlib.FaceClassifier(xfrlib.load_backbone("slim"), 3)
    pictures = torch.rand(2, 3, 112, 112)
    masks = xfrlib.top_fraction_mask(xfrlib.explain(model, pictures, top_k=3).log_sdd, 0.2)
    drops = xfrlib.deletion_retention(model, pictures, masks)

    from madefaces.people import make_families, render
    from xfrlib.artifacts import build_root, commit
    from xfrlib.profile import data_root

    faces, _ = render(make_families(1, 2, seed=0), [0, 1])
    told = {
        "absent": sorted(absent.names),
        "loaded": loaded,
        "asked": asked,
        "xfrlib": xfrlib.__file__,
        "rows": len(drops),
    }
    told |= {"faces": len(faces), "profile": xfrlib.load_profile("quick").name, "commit": commit()}
    print(json.dumps(told | {"data": str(data_root()), "build": str(build_root())}))

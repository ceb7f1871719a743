"""Run by the Python of an environment with the wheel: the method, with none of the extras' packages."""

import contextlib
import importlib.metadata
import io
import json
import runpy
import sys
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any, ClassVar

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def brought(extra: str = "") -> set[str]:
    """The distributions that ``pip install xfrlib`` brings, or with one of its extras."""
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
        wanted = {"extra": extra if name == "xfrlib" else ""}
        todo += [r.name for r in requirements if r.marker is None or r.marker.evaluate(wanted)]
    return found


class HardOnly(PathFinder):
    """Finds no package of another distribution, as where it is not installed, and notes which ones are asked for."""

    absent: ClassVar[set[str]] = set()
    asked: ClassVar[list[str]] = []

    @classmethod
    def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname in cls.absent:
            cls.asked.append(fullname)
            return None
        return super().find_spec(fullname, path, target)


def usage(module: str) -> str:
    """What ``python -m module --help`` prints."""
    sys.argv = [module, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        runpy.run_module(module, run_name="__main__")
    return said.getvalue()


def not_of(there: set[str]) -> set[str]:
    """The modules that are here and come with none of these distributions."""
    modules = importlib.metadata.packages_distributions().items()
    return {module for module, names in modules if not there & {canonicalize_name(name) for name in names}}


if __name__ == "__main__":
    HardOnly.absent = not_of(brought())
    sys.meta_path[sys.meta_path.index(PathFinder)] = HardOnly

    import torch

    before, HardOnly.asked = set(sys.modules), []
    import xfrlib

    new = {module.partition(".")[0] for module in set(sys.modules) - before}
    told: dict[str, Any] = {"loaded": sorted(new & {"pandas", "pyarrow", "PIL"}), "asked": [*HardOnly.asked]}
    model = xfrlib.FaceClassifier(xfrlib.load_backbone("slim"), 3).eval()
    pictures = torch.rand(2, 3, 112, 112)
    masks = xfrlib.top_fraction_mask(xfrlib.explain(model, pictures, top_k=3).log_sdd, 0.2)
    drops = xfrlib.deletion_retention(model, pictures, masks)

    from madefaces.people import make_families, render
    from xfrlib.artifacts import build_root, commit
    from xfrlib.profile import data_root

    faces, _ = render(make_families(1, 2, seed=0), [0, 1])
    told |= {"absent": sorted(HardOnly.absent), "xfrlib": xfrlib.__file__, "rows": len(drops)}
    told["usage"] = usage("xfrlib.training")
    for extra, command in (("match", "matching"), ("photos", "facedata.align"), ("photos", "facedata.facescrub")):
        HardOnly.absent = not_of(brought(extra))
        told[command] = usage(command)
    told |= {"faces": len(faces), "profile": xfrlib.load_profile("quick").name, "commit": commit()}
    print(json.dumps(told | {"data": str(data_root()), "build": str(build_root())}))

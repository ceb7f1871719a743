"""What a module depends on is read from its source: a made-up package, and the project's own."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import xfrlib
from xfrlib import source_files as module
from xfrlib.source_files import source_files

ROOT = Path(__file__).resolve().parents[1]
FILES = {
    "house/__init__.py": "from house.kitchen import cook, taste as try_it\nfrom house.hall import greet\nWALLS = 4\n",
    "house/kitchen.py": "from house.store import shelf\n",
    "house/hall.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.attic import Box\n",
    "house/store.py": "def shelf():\n    from . import cellar\n",
    "house/cellar.py": "name = f'{1}{2}-{3}.wine'",
    "house/red-1.wine": "",
    "house/notes.txt": "",
    "house/attic.py": "from house.store import *\nBox = open('notes.txt')\n",
    "house/garden/__init__.py": "from house.garden.shed import rake\nfrom house.garden.pond import Fish\n",
    "house/garden/__main__.py": "from ..attic import Box\n",
    "house/garden/shed.py": "",
    "house/garden/pond.py": "",
    "yard/__init__.py": "",
    "yard/gate.py": "import house.hall as entry\n",
}
KITCHEN = {"kitchen", "store", "cellar", "red-1.wine"}
ATTIC = {"attic", "store", "cellar", "red-1.wine", "notes.txt"}
GARDEN = {"garden/__init__", "garden/shed", "garden/pond"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def below(folder: Path, found: list[Path]) -> set[str]:
    """Files as they stand in `FILES`, without "house/" and ".py"."""
    return {path.relative_to(folder).as_posix().removesuffix(".py").removeprefix("house/") for path in found}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import numpy, os.path", None),
        ("import house\nhouse.cook()", KITCHEN),
        ("import house\nhouse.try_it()", KITCHEN),
        ("import house\nhouse.greet()", {"hall"}),
        ("import house\nhouse.hall.greet()", {"hall"}),
        ("import house as h\nh.hall.greet()", {"hall"}),
        ("from house import hall", {"hall"}),
        ("from house import greet", {"hall"}),
        ("import house.hall", {"hall"}),
        ("from house import *", {"hall"} | KITCHEN),
        ("import house", {"hall"} | KITCHEN),
        ("import house\ngetattr(house, 'x')", {"hall"} | KITCHEN),
        ("import house\nhouse.WALLS", {"hall"} | KITCHEN),
        ("def late():\n    from house import cellar", {"cellar", "red-1.wine"}),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import house", None),
        ("import house.attic\nhouse.greet()", {"hall"} | ATTIC),
        ("from house import garden\ngarden.rake()", GARDEN),
        ("from house import garden\nprint(garden)", GARDEN),
        ("import house.garden\nhouse.garden.Fish()", GARDEN),
        ("from house.garden import Fish", {"garden/__init__", "garden/pond"}),
        ("import house\nf'{house.garden.Fish()}'", {"garden/__init__", "garden/pond"}),
        ("import house\nfrom house.garden import Fish", {"garden/__init__", "garden/pond", "hall"} | KITCHEN),
        ("from house import kitchen\ndef f(x: kitchen.T): ...", KITCHEN),
        ("run('house.hall')", {"hall"}),
        ("run('the house.hall is open')", None),
        ("run('house.garden')", {"garden/__main__"} | GARDEN | ATTIC),
        ("from yard import gate", {"yard/__init__", "yard/gate", "hall"}),
    ],
)  # fmt: skip
def test_what_counts(folder: Path, code: str, expected: set[str] | None) -> None:
    found = below(folder, source_files(code=code, folders=[folder]))
    assert found == (expected | {"__init__"} if expected else set())


def test_a_module_counts_itself_and_a_changed_source_is_read_again(folder: Path) -> None:
    hall, garden = ModuleType("house.hall"), ModuleType("house.garden")
    hall.__file__, garden.__file__ = str(folder / "house/hall.py"), str(folder / "house/garden/__init__.py")
    assert below(folder, source_files(hall)) == {"__init__", "hall"}
    assert below(folder, source_files(garden)) == {"__init__"} | GARDEN
    (folder / "house/hall.py").write_text("import house.store", encoding="utf-8")
    found = source_files(hall)
    assert below(folder, found) == {"__init__", "hall", "store", "cellar", "red-1.wine"} and found == sorted(found)


def test_of_what_is_installed_beside_the_package_nothing_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROOT", folder)
    assert source_files(code="import house") == []
    monkeypatch.setattr(module, "PACKAGES", ("house",))
    assert below(folder, source_files(code="import house.hall, yard.gate")) == {"__init__", "hall"}


def test_what_python_loads_is_found() -> None:
    code = "import sys, xfrlib; print(*(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'xfrlib'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= set(map(str, source_files(xfrlib)))


def test_make_can_use_it_without_torch() -> None:
    code = "import runpy, sys; runpy.run_path(sys.argv[1]); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-I", "-S", "-c", code, str(module.__file__)], check=True)

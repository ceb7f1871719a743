"""Small sites for tests, each built in a process of its own: Sphinx, myst-nb and autodoc leave their mark on Python."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from xfrlib.profile import project_root

_EXTENSIONS = project_root() / "book" / "_ext"


def sphinx_build(folder: Path, config: dict[str, Any], builder: str = "html") -> tuple[int, str]:
    """Build `folder` into ``_build/<builder>``, doctrees beside it: exit status (1 for a warning), and the warnings."""
    lines = ["import sys", f"sys.path[:0] = {[str(_EXTENSIONS), str(folder)]!r}"]
    lines += [f"{name} = {value!r}" for name, value in config.items()]
    (folder / "conf.py").write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-q", "-N", "-W", "--keep-going", "-b", builder]
    folders = [str(folder), str(folder / "_build" / builder)]
    done = subprocess.run(
        [*command, "-d", str(folder / "_build" / "doctrees"), *folders], capture_output=True, text=True
    )
    return done.returncode, done.stderr

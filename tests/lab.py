"""A JupyterLab of the tests' own, with folders of its own, and a notebook in it that is run by keyboard."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parents[1]
TOKEN = secrets.token_hex(16)
SECONDS = 90  # a kernel that imports torch beside other work


# Runs the whole notebook that is open, once its kernel is there.
RUN_ALL = """
const shell = window.jupyterapp?.shell, panel = shell && [...shell.widgets("main")].find((widget) => widget.context);
if (!panel?.context.isReady || panel.sessionContext.session?.kernel?.status !== "idle") return false;
shell.activateById(panel.id);
window.jupyterapp.commands.execute("notebook:run-all-cells");
return true;
"""


def write_notebook(path: Path, *cells: str) -> None:
    """A notebook of code cells."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)


@contextmanager
def jupyterlab(folder: Path) -> Iterator[str]:
    """The address of a JupyterLab that serves `folder` and is closed at the end; it reads no settings of the user.

    A browser opens it with ``?token=`` and `TOKEN`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = folder / ".jupyter"
    (own / "labconfig").mkdir(parents=True)
    silent = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}  # it asks another host
    (own / "labconfig" / "page_config.json").write_text(json.dumps(silent), encoding="utf-8")
    whole = {"windowingMode": "none"}  # cells out of sight stay on the page
    settings = own / "settings" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps(whole), encoding="utf-8")
    places = {f"JUPYTER_{kind}_DIR": str(own) for kind in ("CONFIG", "DATA", "RUNTIME")}
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = (
        os.environ | places | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "IPYTHONDIR": str(own / "ipython")}
    )
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1"]
    command += [f"--IdentityProvider.token={TOKEN}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}"]
    command += ["--LabApp.extension_manager=readonly", "--ServerApp.terminals_enabled=False"]
    command += ["--LabApp.expose_app_in_browser=True"]
    with (own / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            wait(
                lambda: _answers(f"{address}/api/status?token={TOKEN}", server),
                f"JupyterLab did not start, see {own}/server.log",
            )
            yield address
        finally:
            server.terminate()  # it ends its kernels
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                server.kill()


def _answers(address: str, server: subprocess.Popen[bytes]) -> bool:
    if server.poll() is not None:
        raise AssertionError(f"JupyterLab stopped with code {server.returncode}")
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def wait(found: Callable[[], Any], complaint: str, state: Callable[[], str] = str, seconds: float = SECONDS) -> Any:
    """What `found` returns once it is true; fails with `complaint` and the state then if that takes too long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := found():
            return result
        time.sleep(0.1)
    raise AssertionError(f"{complaint} {state()}")

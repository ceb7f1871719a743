"""A notebook's start without the notebook: what its cell of parameters would leave behind."""

from typing import Any

from xfrlib.run import NotebookRun, start_notebook


def start(notebook: str, namespace: dict[str, Any] | None = None, **parameters: Any) -> NotebookRun:
    """`start_notebook` after a cell that declares `parameters`; whatever else `namespace` holds was injected."""
    declared = {"profile": "quick", "data_root": "", "run_name": "", **parameters}
    namespace = {} if namespace is None else namespace
    namespace |= {**declared, "__annotations__": dict.fromkeys(declared, object)}
    return start_notebook(notebook, namespace)

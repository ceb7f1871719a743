"""Chapters 2 and 6: what takes long is divided among processes, one for each GPU."""

from __future__ import annotations

import os
import subprocess
import sys

import torch

from xfrlib.run import NotebookRun


def launch(run: NotebookRun, module: str, processes: int | None = None) -> None:
    """Run ``python -m <module>`` with the settings of `run` in several processes, through ``accelerate launch``.

    `processes` None: one per GPU. With one nothing is launched: the caller works itself.
    """
    processes = processes or max(1, torch.cuda.device_count())
    if processes == 1:
        return
    # --multi_gpu chooses the launcher that starts processes, also where they then compute on a CPU
    options = "--multi_gpu --num_machines=1 --main_process_port=0 --mixed_precision=no --dynamo_backend=no"
    launcher = ["accelerate.commands.launch", f"--num_processes={processes}", *options.split(), "-m", module]
    on_cpu = {"ACCELERATE_USE_CPU": "true"} if run.device.type == "cpu" else {}
    command = [sys.executable, "-m", *launcher, *run.arguments()]
    if code := subprocess.run(command, env=os.environ | on_cpu).returncode:
        raise RuntimeError(f"{module} stopped with code {code} in one of {processes} processes; see above.")

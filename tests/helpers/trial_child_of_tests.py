"""A trial's child process whose kernel ends the process in the way that the argument names."""

from __future__ import annotations

import json
import os
import runpy
import sys
import time
from pathlib import Path

runpy.run_path(str(Path(__file__).resolve().parent.parent / "conftest.py"))
sys.path.insert(0, str(Path(__file__).parent))

import torch  # noqa: E402
from comfyui_creps.kernels import trial_child  # noqa: E402
from flawed_kernel import flawed  # noqa: E402

mode = sys.argv[1]
job = json.loads(sys.stdin.read())


def paint(*arguments) -> bool:
    if mode == "aborts":
        os.abort()
    if mode == "hangs":
        time.sleep(1000)
    if mode == "says nothing":
        os._exit(0)
    if mode == "prints and fails":
        sys.stdout.write("Segmentation fault\n")
        sys.stdout.flush()
        os._exit(1)
    return flawed("right")(*arguments)


trial_child.LAUNCHES, trial_child.TRIAL_IMAGES = 2, ((1, 1, 1), (2, 11, 21))
trial_child.answer(job, lambda: trial_child.find_fault(paint, job["dtype"], 16, 3, torch.device("cpu")))

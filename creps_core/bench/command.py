"""`creps bench`: runs the measurements in fresh processes and makes a record of their results."""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...common.command import Command
from .tables import record_table, training_table

log: logging.Logger = logging.getLogger("CREPS")

HEAP_KEPT = {
    "MALLOC_MMAP_THRESHOLD_": str(8 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
}
"""Makes glibc keep freed memory; without this the unfused formulation mostly waits for fresh pages."""
_PACKAGE = __package__ or ""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    p = parser
    p.add_argument("--quick", action="store_true", help="3 runs, 4 frames, nothing at 4096 x 4096")
    p.add_argument("--training", action="store_true", help="measure training instead: milliseconds of each phase")
    p.add_argument("--runs", type=int, help="runs per figure, whose median is reported; default 5")
    p.add_argument("--frames", type=int, help="of the interpolation; default 120, about ten minutes on two cores")
    p.add_argument("--results", type=Path, metavar="FILE", help="append the record here, as a line of JSON")


def _run(args: argparse.Namespace) -> str:
    """Measure this machine, append the record if asked to, and return its table.

    Raises:
        ValueError: an argument is out of range, or the images are wrong; nothing is recorded then.
    """
    if args.training:
        found = measure_training()
        record = {**machine_record(), "training": found}
        _append(record, args.results)
        return training_table(record, found)
    runs = args.runs if args.runs is not None else 3 if args.quick else 5
    frames = args.frames if args.frames is not None else 4 if args.quick else 120
    if runs < 1 or frames < 2:
        raise ValueError(f"--runs must be at least 1, not {runs}, and --frames at least 2, not {frames}")
    record = measure_machine(runs, frames, (512, 1024) if args.quick else (512, 4096))
    _append(record, args.results)
    return record_table(record)


def _append(record: dict[str, Any], results: Path | None) -> None:
    if results is not None:
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        log.info("appended to %s", results)


BENCH_COMMAND = Command(
    "bench", "measure speed and memory on this machine against the plain formulation", _add_arguments, _run
)


def measure_machine(runs: int, frames: int, sides: tuple[int, ...]) -> dict[str, Any]:
    """A record: speed on the CPU (and on a GPU if there is one), an interpolation, and memory at the given sides."""
    import torch

    speed = ("speed", "--runs", str(runs))
    log.info("correctness, then %d runs of each contestant", runs)
    record: dict[str, Any] = {**machine_record(), "runs": runs, "cpu": _child(*speed)}
    if sys.platform == "linux":
        log.info("the same with the heap kept")
        record["heap_kept"] = _child(*speed, environment=HEAP_KEPT)
    if torch.cuda.is_available():
        log.info("the same on the GPU")
        record["gpu"] = _child(*speed, "--device", "cuda")
    log.info("%d frames of an interpolation, before and after", frames)
    record["film"] = _child("speed", "--film", str(frames))
    if sys.platform == "linux":
        log.info("memory")
        precisions = [name for name in record["cpu"]["pixels"] if name in ("float32", "bfloat16")]
        record["memory"] = [
            _child("memory", "--side", str(side), "--precision", name) for name in precisions for side in sides
        ]
    return record


def measure_training(
    seconds: float | None = None,
    progress: Callable[[str], object] = log.info,
    command: Sequence[str] = (sys.executable, "-m", f"{_PACKAGE}.training"),
) -> dict[str, Any]:
    """The cases of `training.py`, measured in a fresh process.

    Args:
        seconds: time limit, after which the process is ended; the results so far are returned.
        progress: called with each result, a line of JSON, as soon as it is measured.
        command: the process, which prints a line of JSON with `case` or `gate` per result.

    Raises:
        ValueError: the process failed; its last line of output is the message.
    """
    found: dict[str, Any] = {"gate": {}, "cases": []}
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        alarm = threading.Timer(seconds, process.kill) if seconds else None
        if alarm:
            alarm.start()
        assert process.stdout is not None
        for line in process.stdout:
            part = json.loads(line)
            found["gate"] |= part.get("gate", {})
            found["cases"] += [part["case"]] if "case" in part else []
            progress(line.strip())
        code = process.wait()
        timed_out = alarm is not None and not alarm.is_alive()
        if alarm:
            alarm.cancel()
        errors.seek(0)
        output = errors.read().strip()
    if code and not timed_out:
        raise ValueError(output.splitlines()[-1] if output else f"training failed with {code}")
    return found


def _child(module: str, *arguments: str, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """The JSON that a module of this folder prints, run in a fresh process."""
    command = [sys.executable, "-m", f"{_PACKAGE}.{module}", *arguments]
    result = subprocess.run(
        command, env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise ValueError(result.stderr.strip().splitlines()[-1] if result.stderr.strip() else f"{module} failed")
    return json.loads(result.stdout)


def machine_record() -> dict[str, Any]:
    import torch

    from .. import __version__

    record: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "version": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
    }
    if hasattr(os, "getloadavg"):
        record["load"] = os.getloadavg()[0]
    if torch.cuda.is_available():
        record["gpu_name"] = torch.cuda.get_device_name()
    return record


def _processor() -> str:
    """The processor's name and vector instructions, as far as the system reports them."""
    import torch

    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        name = names[0] if names else name
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"

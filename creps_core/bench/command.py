"""The command: children that measure, a record of what they found, and the table of a record."""

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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ...common.command import Command

log = logging.getLogger("CREPS")

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results.jsonl"
"""A record per line, in git; an installation without the repository has no such folder."""
HEAP_KEPT = {
    "MALLOC_MMAP_THRESHOLD_": str(8 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
}
"""Makes glibc keep freed memory: without it the unfused formulation waits for fresh pages most of the time."""
_PACKAGE = __package__ or ""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    p = parser
    p.add_argument("--quick", action="store_true", help="3 runs, 4 frames, no picture of 4096 x 4096, and no record")
    p.add_argument(
        "--training", action="store_true", help="measure training instead: milliseconds of each phase; keeps no record"
    )
    p.add_argument("--runs", type=int, help="of which the medians are; default 5")
    p.add_argument("--frames", type=int, help="of the interpolation; default 120, some ten minutes on two cores")
    p.add_argument(
        "--results",
        type=Path,
        metavar="FILE",
        help="append the record here; default benchmarks/results.jsonl of the repository, with --quick none",
    )


def _run(args: argparse.Namespace) -> str:
    """Measure this machine, append the record, and return its table.

    Raises:
        ValueError: an argument is out of range, or the pictures are wrong; nothing is recorded then.
    """
    if args.training:
        found = measure_training()
        if args.results is not None:
            with args.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**_machine(), "training": found}) + "\n")
        return training_table(_machine(), found)
    runs = args.runs if args.runs is not None else 3 if args.quick else 5
    frames = args.frames if args.frames is not None else 4 if args.quick else 120
    if runs < 1 or frames < 2:
        raise ValueError(f"--runs must be at least 1, not {runs}, and --frames at least 2, not {frames}")
    results = args.results or (RESULTS if RESULTS.parent.is_dir() and not args.quick else None)
    record = measure(runs, frames, (512, 1024) if args.quick else (512, 4096))
    if results is not None:
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        log.info("appended to %s", results)
    return table(record)


BENCH_COMMAND = Command(
    "bench", "measure speed and memory on this machine against the plain formulation", _add_arguments, _run
)


def measure(runs: int, frames: int, sides: tuple[int, ...]) -> dict[str, Any]:
    """A record: speed on the CPU (and on a GPU if there is one), an interpolation, and memory at some sides."""
    import torch

    speed = ("speed", "--runs", str(runs))
    log.info("correctness, then %d runs of each contestant", runs)
    record: dict[str, Any] = {**_machine(), "runs": runs, "cpu": _child(*speed)}
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


def measure_training(seconds: float | None = None, say: Callable[[str], object] = log.info) -> dict[str, Any]:
    """What `training.py` measures, in a fresh process.

    Args:
        seconds: after so many the process is ended, and what it has measured is returned.
        say: is told what was measured as soon as it is.

    Raises:
        ValueError: a step of the published trainer comes out wrong, or the process failed.
    """
    found: dict[str, Any] = {"gate": {}, "cases": []}
    command = [sys.executable, "-m", f"{_PACKAGE}.training"]
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
            say(line.strip())
        code = process.wait()
        late = alarm is not None and not alarm.is_alive()
        if alarm:
            alarm.cancel()
        errors.seek(0)
        said = errors.read().strip()
    if code and not late:
        raise ValueError(said.splitlines()[-1] if said else f"training failed with {code}")
    return found


def training_table(machine: dict[str, Any], found: dict[str, Any]) -> str:
    """What `measure_training` found, in Markdown."""
    place = machine.get("gpu_name", f"{machine['processor']}, {machine['threads']} threads")
    lines = [
        f"Training on {place}, torch {machine['torch']}, {machine['date']}.",
        "",
        "| milliseconds | batch | | Gmain | Greg | Dmain | Dreg | rest of a step | pictures a second | peak MiB |",
        "| - | - | - | - | - | - | - | - | - | - |",
    ]
    for case in found["cases"]:
        batch = str(case["batch"]) + (f" in parts of {case['micro_batch']}" if case["micro_batch"] else "")
        for way in ("eager", "graph"):
            if way in case:
                ms = case[way]["ms"]
                times = " | ".join(
                    f"{ms[p]:.1f}" if p in ms else "" for p in ("Gmain", "Greg", "Dmain", "Dreg", "rest")
                )
                peak = f"{case['peak']:.0f}" if "peak" in case else ""
                lines.append(
                    f"| {case['name']} | {batch} | {way} | {times} | {case[way]['images_per_second']:.1f} | {peak} |"
                )
        if "refused" in case:
            lines.append(f"| {case['name']} | {batch} | no graph: {case['refused']} | | | | | | | |")
    lines.append("")
    for way, precisions in found["gate"].items():
        each = (f"{name} {loss:.1e}, {gradient:.1e}" for name, (loss, gradient) in precisions.items())
        lines.append(f"- {way}: largest errors of losses and of gradients of the published steps: {'; '.join(each)}.")
    return "\n".join(lines)


def _child(module: str, *arguments: str, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """The JSON that a module of this package prints, run in a fresh process."""
    command = [sys.executable, "-m", f"{_PACKAGE}.{module}", *arguments]
    result = subprocess.run(
        command, env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise ValueError(result.stderr.strip().splitlines()[-1] if result.stderr.strip() else f"{module} failed")
    return json.loads(result.stdout)


def _machine() -> dict[str, Any]:
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
    """Its name and vector instructions, as far as the system says."""
    import torch

    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        name = names[0] if names else name
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


def table(record: dict[str, Any]) -> str:
    """A record in Markdown."""
    load = f", load {record['load']:.1f} at the beginning" if "load" in record else ""
    head = (
        f"{record['processor']}, {record['threads']} threads, torch {record['torch']}, Python {record['python']}, "
        f"{record['date']}{load}; medians of {record['runs']} runs, lowest and highest in brackets."
    )
    lines = [
        head,
        "",
        "| 512 x 512 | seconds | times the unfused | heap kept | of torch's product |",
        "| - | - | - | - | - |",
    ]
    lines += _speed_rows(record["cpu"], record.get("heap_kept"))
    if "gpu" in record:
        lines += ["", f"On {record['gpu_name']}:", "", *lines[2:4], *_speed_rows(record["gpu"], None)]
    return "\n".join([*lines, "", *_notes(record)])


def _speed_rows(speed: dict[str, Any], kept: dict[str, Any] | None) -> Iterator[str]:
    for name, section in speed.items():
        if name in ("gate", "trained", "refused"):
            continue
        title = "per-pixel stage" if name == "pixels" else f"whole picture, widths {name}"
        for contestant, row in section.items():
            if contestant == "gemm_gflops":
                continue
            seconds = _spread(row["seconds"], row["seconds_range"], 3)
            if contestant == "unfused":
                kept_seconds = f"{kept[name]['unfused']['seconds']:.3f} s" if kept else ""
                yield f"| {title}, unfused | {seconds} | 1 | {kept_seconds} | {100 * row['of_gemm']:.0f} % |"
                continue
            ratio = _spread(row["ratio"], row["ratio_range"], 1)
            other = kept[name].get(contestant) if kept else None
            beside = _spread(other["ratio"], other["ratio_range"], 1) if other else ""
            yield f"| {title}, {contestant} | {seconds} | {ratio} | {beside} | {100 * row['of_gemm']:.0f} % |"


def _spread(median: float, between: list[float], digits: int) -> str:
    low, high = between
    return f"{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _notes(record: dict[str, Any]) -> Iterator[str]:
    film = record["film"]
    yield (
        f"- {film['frames']} frames of a latent interpolation, widths {film['widths']}: {film['before']:.1f} s before, "
        f"{film['after']:.1f} s after ({film['before'] / film['after']:.1f} times)."
    )
    for memory in record.get("memory", []):
        yield (
            f"- Memory at {memory['side']} x {memory['side']}, {memory['precision']}: {memory['peak']:.0f} MiB in all, "
            f"{memory['growth']:.0f} beyond weights, picture and lines."
        )
    for device, speed in (("CPU", record["cpu"]), ("GPU", record.get("gpu"))):
        if speed is None:
            continue
        yield f"- {device}, largest errors relative to float64, and 8-bit values within 1:"
        for title, errors in {
            **{f"widths {w}": e for w, e in speed["gate"].items()},
            "`alpine`": speed["trained"],
        }.items():
            each = (f"{p} {relative:.1e}, {100 * within:.1f} %" for p, (relative, within) in errors.items())
            yield f"  {title}: {'; '.join(each)}."
        for precision, reason in speed["refused"].items():
            yield f"- {device}, {precision} is not timed: {reason}."

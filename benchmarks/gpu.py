"""Tests and measures a GPU in at most six minutes: `make gpu`, or

    python benchmarks/gpu.py [--out FILE] [--results FILE] [--skip PARTS]

Needs torch, Triton and pytest; nothing is installed. In this order: the machine; the trial of the kernel in every
precision and width; the tests marked `gpu`, each in a process of its own, since one failure can end the CUDA context of
its process; the errors of images; the times of images, in turns with the unfused formulation; training. Without a GPU
it prints what it would do. If an image is wrong, none is timed. The record is appended to `benchmarks/results.jsonl`;
everything printed goes to `--out` as well.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import package
import torch
from comfyui_creps.creps_core import __version__
from comfyui_creps.creps_core.bench.command import machine_record, measure_training
from comfyui_creps.creps_core.bench.tables import training_table
from comfyui_creps.kernels import TrialCase, TrialResult, driver_version, missing_triton, settle_trial
from gpu_images import images

ROOT = package.ROOT
SECONDS = 330.0
"""No further part begins after this time."""
TRAINING_SECONDS = 90.0
CASES = [(dtype, channels, 3) for channels in (32, 64) for dtype in (torch.float16, torch.float32, torch.bfloat16)]
CASES += [(torch.float16, 16, 3), (torch.float32, 16, 3), (torch.float16, 32, 1), (torch.float32, 32, 4)]


class Report:
    """Prints lines, also to a file, and holds the record."""

    def __init__(self, path: Path | None):
        self.path, self.began = path, time.monotonic()
        self.record: dict[str, Any] = {}
        if path is not None:
            path.write_text("")

    def write(self, line: str = "") -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    @property
    def left(self) -> float:
        return SECONDS - (time.monotonic() - self.began)


def main(argv: list[str] | None = None) -> int:
    """Returns 0 if all tests passed and all images were right."""
    parser = argparse.ArgumentParser(description="Tests and measures this machine's GPU.")
    parser.add_argument("--out", type=Path, help="also write everything here")
    parser.add_argument("--results", type=Path, help="append the record here; default benchmarks/results.jsonl")
    parser.add_argument("--skip", default="", help="parts to skip: trials, tests, pictures, training")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    report = Report(args.out)
    parts: dict[str, Callable[[Report], bool]] = {
        "trials": trials, "tests": tests, "pictures": images, "training": training,
    }  # fmt: skip
    if not torch.cuda.is_available():
        report.write(f"torch {torch.__version__} sees no CUDA GPU here. With one this would:")
        for name, part in parts.items():
            report.write(f"- {name}: {(part.__doc__ or '').splitlines()[0]}")
        return 0
    report.record = {**machine(), "parts": {}}
    report.write(", ".join(f"{key} {value}" for key, value in machine().items()))
    well = True
    for name, part in parts.items():
        if name in args.skip.split(","):
            continue
        if report.left < 0:
            report.write(f"{name}: skipped, {SECONDS:.0f} s are over")
            continue
        start = time.monotonic()
        report.write(f"\n## {name}\n")
        well = part(report) and well
        report.write(f"({name}: {time.monotonic() - start:.0f} s)")
    results = args.results or ROOT / "benchmarks" / "results.jsonl"
    if results.parent.is_dir():
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(report.record) + "\n")
    report.write("\nall is well" if well else "\nNOT all is well: see above")
    return 0 if well else 1


def machine() -> dict[str, Any]:
    """The card, its driver, and versions."""
    found: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "version": __version__, "torch": torch.__version__}
    found |= {"python": platform.python_version(), "gpu": torch.cuda.get_device_name(), "driver": driver_version()}
    try:
        import triton  # pyright: ignore[reportMissingImports]

        found["triton"] = triton.__version__
    except ImportError:
        found["triton"] = "none"
    return found


def trials(report: Report) -> bool:
    """The trial of the kernel in every precision and width, in child processes: the first correct configuration."""
    reason = missing_triton()
    if reason:
        report.write(reason)
        return False
    cases = [TrialCase(torch.cuda.current_device(), str(dtype), *shape) for dtype, *shape in CASES]
    start = time.monotonic()

    def settle(case: TrialCase) -> tuple[TrialResult, float]:
        return settle_trial(case), time.monotonic() - start

    with ThreadPoolExecutor(len(cases)) as pool:
        found = list(pool.map(settle, cases))
    for case, (result, seconds) in zip(cases, found, strict=True):
        config = tuple(result.config) if result.config else "none"
        name = f"{case.dtype.removeprefix('torch.')}, {case.channels} channels, {case.image_channels} of the image"
        report.write(f"{name}: {config} {result.reason or ''} ({seconds:.0f} s)")
        report.record["parts"].setdefault("trials", {})[name] = [str(config), result.reason]
    return all(result.config is not None for result, _ in found)


def tests(report: Report) -> bool:
    """The tests marked `gpu`, each in a process of its own."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    listed = subprocess.run([*command, "--collect-only"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = [line for line in listed.stdout.splitlines() if "::" in line]
    if not names:
        report.write(listed.stdout[-2000:] + listed.stderr[-2000:])
        return False

    environment = {**os.environ, "OMP_NUM_THREADS": "2"}

    def run(name: str) -> tuple[str, str, float]:
        start = time.monotonic()
        try:
            found = subprocess.run(
                [*command, name], cwd=ROOT, capture_output=True, text=True, timeout=150, check=False, env=environment
            )
        except subprocess.TimeoutExpired:
            return name, "took more than 150 s", 150.0
        output = "" if found.returncode == 0 else found.stdout[-1500:] + found.stderr[-300:]
        return name, output, time.monotonic() - start

    failed, slowest = [], (0.0, "")
    with ThreadPoolExecutor(max(2, min(12, (os.cpu_count() or 4) - 2))) as pool:
        for done in as_completed([pool.submit(run, name) for name in names]):
            name, output, seconds = done.result()
            slowest = max(slowest, (seconds, name))
            if output:
                failed.append(name)
                report.write(f"FAILED {name}\n{output}")
    passed = len(names) - len(failed)
    report.write(f"{passed} of {len(names)} passed; the slowest took {slowest[0]:.0f} s: {slowest[1]}")
    report.record["parts"]["tests"] = {"passed": passed, "failed": failed}
    return not failed


def training(report: Report) -> bool:
    """Images per second of training, eager and as graphs, after the published steps: benchmarks/training_speed.py."""
    try:
        script = [sys.executable, str(ROOT / "benchmarks" / "training_speed.py")]
        found = measure_training(TRAINING_SECONDS, lambda line: None, script)
    except ValueError as error:
        report.write(f"training: {error}")
        return False
    report.record["parts"]["training"] = found
    report.write(training_table(machine_record(), found))
    for case in found["cases"]:
        if "refused" in case:
            report.write(f"{case['name']}: {case['refused']}")
    return len(found["cases"]) > 0 and all("graph" in case for case in found["cases"])


if __name__ == "__main__":
    raise SystemExit(main())

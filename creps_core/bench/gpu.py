"""What a GPU does with all of it, in at most six minutes: `make gpu`, or

    python -m comfyui_creps.creps_core.bench.gpu [--out FILE] [--quick]

In this order: the machine; the trial of the kernel in every precision and width; the tests marked `gpu`, each in a
process of its own, since one failure can end the CUDA context of its process; the errors of pictures; the times of
pictures in turns with the unfused formulation. Without a GPU it says what it would do. A picture that is wrong is not
timed. The record goes to `benchmarks/results.jsonl`, everything that is printed to a file as well.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from ...kernels import OverflowFlag, TrialCase, TrialResult, driver_version, missing_triton, settle_trial
from ..checkpoints import BUILTINS, load_builtin
from ..latents import sample
from ..network import RANK, Generator
from ..rendering import View, device, picture_graphs, render, render_path, render_view
from . import command, unfused
from .networks import random_generator, random_latent
from .speed import error

log = logging.getLogger("CREPS")

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 330.0
"""After so many no further part begins."""
TRAINING_SECONDS = 90.0
SIDES = (256, 512, 1024, 2048, 4096, 8192)
UNFUSED_BYTES = 2400
"""What the unfused formulation takes per pixel: larger pictures are left out where the memory is smaller."""
CASES = [(dtype, channels, 3) for channels in (32, 64) for dtype in (torch.float16, torch.float32, torch.bfloat16)]
CASES += [(torch.float16, 16, 3), (torch.float32, 16, 3), (torch.float16, 32, 1), (torch.float32, 32, 4)]
_RUNS, _LEAST_SECONDS = 7, 0.05


class Report:
    """What is printed, also as a file; and the record."""

    def __init__(self, path: Path | None):
        self.path, self.began = path, time.monotonic()
        self.record: dict[str, Any] = {}
        if path is not None:
            path.write_text("")

    def say(self, line: str = "") -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    @property
    def left(self) -> float:
        return SECONDS - (time.monotonic() - self.began)


def main(argv: list[str] | None = None) -> int:
    """Returns 0 if all tests passed and all pictures were right."""
    parser = argparse.ArgumentParser(description="Tests and measures this machine's GPU.")
    parser.add_argument("--out", type=Path, help="also write everything here")
    parser.add_argument("--results", type=Path, help="append the record here; default benchmarks/results.jsonl")
    parser.add_argument("--skip", default="", help="parts to leave out: trials, tests, pictures, training")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    report = Report(args.out)
    parts: dict[str, Callable[[Report], bool]] = {
        "trials": trials, "tests": tests, "pictures": pictures, "training": training,
    }  # fmt: skip
    if not torch.cuda.is_available():
        report.say(f"torch {torch.__version__} sees no CUDA GPU here. With one this would:")
        for name, part in parts.items():
            report.say(f"- {name}: {(part.__doc__ or '').splitlines()[0]}")
        return 0
    report.record = {**machine(), "parts": {}}
    report.say(", ".join(f"{key} {value}" for key, value in machine().items()))
    well = True
    for name, part in parts.items():
        if name in args.skip.split(","):
            continue
        if report.left < 0:
            report.say(f"{name}: left out, {SECONDS:.0f} s are over")
            continue
        start = time.monotonic()
        report.say(f"\n## {name}\n")
        well = part(report) and well
        report.say(f"({name}: {time.monotonic() - start:.0f} s)")
    results = args.results or ROOT / "benchmarks" / "results.jsonl"
    if results.parent.is_dir():
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(report.record) + "\n")
    report.say("\nall is well" if well else "\nNOT all is well: see above")
    return 0 if well else 1


def machine() -> dict[str, Any]:
    """Card and versions."""
    from .. import __version__

    found: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "version": __version__, "torch": torch.__version__}
    found |= {"python": platform.python_version(), "gpu": torch.cuda.get_device_name(), "driver": driver_version()}
    try:
        import triton  # pyright: ignore[reportMissingImports]

        found["triton"] = triton.__version__
    except ImportError:
        found["triton"] = "none"
    return found


# Parts


def trials(report: Report) -> bool:
    """The kernel in every precision and width, tried in other processes: which configuration is right."""
    reason = missing_triton()
    if reason:
        report.say(reason)
        return False
    cases = [TrialCase(torch.cuda.current_device(), str(dtype), *shape) for dtype, *shape in CASES]
    start = time.monotonic()

    def settle(case: TrialCase) -> tuple[TrialResult, float]:
        return settle_trial(case), time.monotonic() - start

    with ThreadPoolExecutor(len(cases)) as pool:
        verdicts = list(pool.map(settle, cases))
    for case, (verdict, seconds) in zip(cases, verdicts, strict=True):
        config = tuple(verdict.config) if verdict.config else "none"
        name = f"{case.dtype.removeprefix('torch.')}, {case.channels} channels, {case.image_channels} of the image"
        report.say(f"{name}: {config} {verdict.reason or ''} ({seconds:.0f} s)")
        report.record["parts"].setdefault("trials", {})[name] = [str(config), verdict.reason]
    return all(verdict.config is not None for verdict, _ in verdicts)


def tests(report: Report) -> bool:
    """The tests marked `gpu`, each in a process of its own."""
    if not (ROOT / "tests").is_dir():
        report.say("an installation without tests")
        return True
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    listed = subprocess.run([*command, "--collect-only"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = [line for line in listed.stdout.splitlines() if "::" in line]
    if not names:
        report.say(listed.stdout[-2000:] + listed.stderr[-2000:])
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
                report.say(f"FAILED {name}\n{output}")
    report.say(f"{len(names) - len(failed)} of {len(names)} passed; the slowest took {slowest[0]:.0f} s: {slowest[1]}")
    report.record["parts"]["tests"] = {"passed": len(names) - len(failed), "failed": failed}
    return not failed


def pictures(report: Report) -> bool:
    """Errors of pictures, then their times in turns with the unfused formulation, a film, and memory."""
    found: dict[str, Any] = {}
    report.record["parts"]["pictures"] = found
    generator = random_generator("65536/1024").to("cuda")
    ws = random_latent(generator)
    well = True
    well &= _errors(report, found, "512 model", generator, ws)
    for name in BUILTINS:
        builtin = load_builtin(name).to("cuda")
        well &= _errors(report, found, name, builtin, sample(builtin, [42]))
    if not well:
        return False
    report.say("\n| side | unfused | auto, eager | replayed | float32, eager | replayed | lines | pixels |")
    report.say("| - | - | - | - | - | - | - | - |")
    for side in SIDES:
        if report.left > 0:
            found[f"512 model, {side}"] = _times(report, generator, ws, side)
    alpine = load_builtin("alpine").to("cuda")
    report.say("\n| alpine | auto, eager | replayed | float32, eager | replayed |\n| - | - | - | - | - |")
    for side in (512, 1024, 2048, 4096):
        row = _whole_times(alpine, sample(alpine, [42]), side)
        found[f"alpine, {side}"] = row
        report.say(f"| {side} | " + " | ".join(_ms(v) for v in row.values()) + " |")
    found["film"] = _film(report, generator)
    found["memory"] = {side: _memory(report, generator, ws, side) for side in (1024, 4096)}
    found["operations"] = _operations(report, generator, ws)
    found["turned"] = _turned(report, generator, ws)
    return True


def training(report: Report) -> bool:
    """Pictures per second of training, eager and as graphs: see `creps bench --training`."""
    try:
        found = command.measure_training(TRAINING_SECONDS, say=lambda line: None)
    except ValueError as error:
        report.say(f"training: {error}")
        return False
    report.record["parts"]["training"] = found
    report.say(command.training_table(command._machine(), found))
    for case in found["cases"]:
        if "refused" in case:
            report.say(f"{case['name']}: {case['refused']}")
    return len(found["cases"]) > 0 and all("graph" in case for case in found["cases"])


# Pictures


def _errors(report: Report, found: dict, name: str, generator: Generator, ws: Tensor) -> bool:
    """Every way to a picture against the specification in float64. Designed weights (`textures`) fold: they amplify."""
    side, limits = 160, {"float32": 1e-3 if name == "textures" else 2e-5, "auto": 2e-2}
    positions = torch.linspace(0, 1, side, dtype=torch.float64, device="cuda")
    generator.double()
    exact = generator.synthesis(ws.double(), positions, positions)
    generator.float()
    well = True
    chosen = device.probe_precision(generator)
    report.say(f"{name}: auto is {chosen.precision}; float16 is within 1 for {100 * chosen.share:.3f} %")
    found[f"{name}, auto"] = [str(chosen.precision), chosen.share]
    for precision, limit in limits.items():
        for way in ("eager", "recorded", "replayed"):
            picture_graphs.allow_graphs(way != "eager")
            worst, within = error(render(generator, ws, height=side, width=side, precision=precision), exact)
            good = worst <= limit and (precision != "auto" or within >= 0.99)
            if way != "recorded":
                report.say(f"  {precision}, {way}: error {worst:.1e}, {100 * within:.3f} % within 1")
            if not good:
                report.say(f"  WRONG: {precision}, {way}: {worst:.1e}, {within}")
            well &= good
    return well


def _times(report: Report, generator: Generator, ws: Tensor, side: int) -> dict[str, Any]:
    row: dict[str, Any] = {}
    free = torch.cuda.mem_get_info()[0]
    if side * side * UNFUSED_BYTES < 0.8 * free:
        row["unfused"] = clock({"unfused": lambda: unfused.picture(generator, ws, side)}, 3)["unfused"]
        torch.cuda.empty_cache()
    row |= _whole_times(generator, ws, side)
    row["lines"], row["pixels"] = _parts(generator, ws, side)
    order = ("unfused", "auto, eager", "auto, replayed", "float32, eager", "float32, replayed", "lines", "pixels")
    report.say(f"| {side} | " + " | ".join(_ms(row.get(name)) for name in order) + " |")
    return row


def _whole_times(generator: Generator, ws: Tensor, side: int) -> dict[str, list[float]]:
    """Milliseconds of whole pictures: median, least, most."""
    row = {}
    out = torch.empty((1, generator.config.img_channels, side, side), device="cuda")
    for precision in ("auto", "float32"):
        for way in ("eager", "replayed"):
            picture_graphs.allow_graphs(way == "replayed")
            if way == "replayed" and side * side > device.GRAPH_SAMPLES:
                continue

            def work(precision: str = precision) -> None:
                render(generator, ws, height=side, width=side, precision=precision, out=out)

            row[f"{precision}, {way}"] = clock({"it": work}, _RUNS)["it"]
    picture_graphs.allow_graphs(True)
    return row


def _parts(generator: Generator, ws: Tensor, side: int) -> tuple[list[float], list[float]]:
    """Milliseconds of the lines (a latent's application included) and of the per-pixel stage, in float16."""
    renderer = device.renderer_of(generator)
    dtype = torch.float16
    stage = renderer.stage("auto", dtype)
    positions = torch.linspace(0, 1, side, dtype=torch.float64, device="cuda")
    lines = stage.reserve(2 * side, RANK)
    out, overflow = torch.empty(3, side, side, device="cuda"), OverflowFlag(torch.device("cuda", 0))

    def evaluate() -> None:
        with renderer.synthesis.latent(ws[0]) as latent:
            stage.fill(latent)
            latent.lines(positions, positions, lines, dtype)

    def paint() -> None:
        stage.paint(lines[:, :side], lines[:, side:], out, overflow)

    found = clock({"lines": evaluate, "pixels": paint}, _RUNS)
    return found["lines"], found["pixels"]


def _film(report: Report, generator: Generator) -> dict[str, float]:
    """120 frames of 1024 x 1024 to the host, as a node fills an IMAGE."""
    frames, side = 120, 1024
    ends = random_latent(generator, 2)
    ws = torch.lerp(ends[:1], ends[1:], torch.linspace(0, 1, frames, device="cuda")[:, None, None])
    out = rearrange(torch.zeros(frames, side, side, 3), "n h w c -> n c h w")
    views, seconds = [View()] * frames, {}
    for run in ("first", "second"):
        torch.cuda.synchronize()
        start = time.perf_counter()
        render_path(generator, ws, views, height=side, width=side, out=out)
        torch.cuda.synchronize()
        seconds[run] = time.perf_counter() - start
    report.say(
        f"\n{frames} frames of {side} x {side} to the host: {seconds['first']:.2f} s, again {seconds['second']:.2f} s"
    )
    return seconds


def _memory(report: Report, generator: Generator, ws: Tensor, side: int) -> dict[str, float]:
    """MiB at the peak beyond weights, picture and lines."""
    found = {}
    for precision in ("auto", "float32"):
        device.release_renderers()
        torch.cuda.empty_cache()
        out = torch.empty(1, 3, side, side, device="cuda")
        for way in ("eager", "replayed"):
            picture_graphs.allow_graphs(way == "replayed")
            if way == "replayed" and side * side > device.GRAPH_SAMPLES:
                continue
            render(generator, ws, height=side, width=side, precision=precision, out=out)
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            device.release_renderers()
            torch.cuda.empty_cache()
            before = torch.cuda.memory_allocated()
            for _ in range(3):
                render(generator, ws, height=side, width=side, precision=precision, out=out)
            chosen = device.precision_of(generator, precision)
            lines = len(generator.config.biline_levels) * 2 * side * RANK * 32 * chosen.pixels.itemsize
            found[f"{precision}, {way}"] = (torch.cuda.max_memory_allocated() - before - lines) / 2**20
    picture_graphs.allow_graphs(True)
    report.say(
        f"memory at {side} beyond weights, picture and lines, MiB: " + str({k: round(v) for k, v in found.items()})
    )
    return found


def _operations(report: Report, generator: Generator, ws: Tensor) -> dict[str, int]:
    """Operations that torch dispatches for a picture."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counter(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            Counter.count += 1
            return func(*args, **(kwargs or {}))

    found = {}
    picture_graphs.allow_graphs(False)
    for name, subject, latent in (
        ("512 model", generator, ws),
        *((n, g, sample(g, [1])) for n in ("alpine",) for g in [load_builtin(n).to("cuda")]),
    ):
        render(subject, latent, height=1024, width=1024)
        Counter.count = 0
        with Counter():
            render(subject, latent, height=1024, width=1024)
        found[name] = Counter.count
    picture_graphs.allow_graphs(True)
    report.say(f"operations a picture of 1024: {found}")
    return found


def _turned(report: Report, generator: Generator, ws: Tensor) -> list[float]:
    """Milliseconds of a view that is turned by 30 degrees, which takes the torch path."""
    view = View(rotation=30.0)
    found = clock({"turned": lambda: render_view(generator, ws, view, height=1024, width=1024)}, 3)["turned"]
    report.say(f"1024 turned by 30 degrees: {_ms(found)} ms")
    return found


# Tools


def clock(contestants: dict[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    """Milliseconds of each, in turns: median, least and most. Three warm-up runs; short work is repeated within one."""
    repeats = {}
    for name, work in contestants.items():
        for _ in range(3):
            work()
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        repeats[name] = max(1, min(50, int(_LEAST_SECONDS / max(time.perf_counter() - start, 1e-6))))
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(runs):
        for name, work in contestants.items():
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(repeats[name]):
                work()
            torch.cuda.synchronize()
            found[name].append((time.perf_counter() - start) * 1e3 / repeats[name])
    return {name: [statistics.median(values), min(values), max(values)] for name, values in found.items()}


def _ms(values: list[float] | None) -> str:
    return "-" if values is None else f"{values[0]:.2f} ({values[1]:.2f} to {values[2]:.2f})"


if __name__ == "__main__":
    raise SystemExit(main())

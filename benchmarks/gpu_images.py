"""Errors, times, memory and operations of images on a GPU, for `benchmarks/gpu.py`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import package  # noqa: F401
import torch
from comfyui_creps.creps_core.bench.networks import random_generator, random_latent
from comfyui_creps.creps_core.bench.speed import image_error
from comfyui_creps.creps_core.bench.unfused import unfused_image
from comfyui_creps.creps_core.checkpoints import BUILTINS, load_builtin
from comfyui_creps.creps_core.latents import sample
from comfyui_creps.creps_core.network import RANK, Generator
from comfyui_creps.creps_core.rendering import View, device, picture_graphs, render, render_path, render_view
from comfyui_creps.kernels import OverflowFlag
from einops import rearrange
from torch import Tensor

if TYPE_CHECKING:
    from gpu import Report

SIDES = (256, 512, 1024, 2048, 4096, 8192)
UNFUSED_BYTES = 2400
"""Per pixel, of the unfused formulation; larger images are skipped where the memory is smaller."""
_RUNS, _LEAST_SECONDS = 7, 0.05


def images(report: Report) -> bool:
    """Errors of images, then their times in turns with the unfused formulation, a film, and memory."""
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
    report.write("\n| side | unfused | auto, eager | replayed | float32, eager | replayed | lines | pixels |")
    report.write("| - | - | - | - | - | - | - | - |")
    for side in SIDES:
        if report.left > 0:
            found[f"512 model, {side}"] = _times(report, generator, ws, side)
    alpine = load_builtin("alpine").to("cuda")
    report.write("\n| alpine | auto, eager | replayed | float32, eager | replayed |\n| - | - | - | - | - |")
    for side in (512, 1024, 2048, 4096):
        row = _whole_times(alpine, sample(alpine, [42]), side)
        found[f"alpine, {side}"] = row
        report.write(f"| {side} | " + " | ".join(_ms(v) for v in row.values()) + " |")
    found["film"] = _film(report, generator)
    found["memory"] = {side: _memory(report, generator, ws, side) for side in (1024, 4096)}
    found["operations"] = _operations(report, generator, ws)
    found["turned"] = _turned(report, generator, ws)
    return True


def _errors(report: Report, found: dict, name: str, generator: Generator, ws: Tensor) -> bool:
    """Every render mode against the reference in float64; `textures`, whose designed weights amplify, may err more."""
    side, limits = 160, {"float32": 1e-3 if name == "textures" else 2e-5, "auto": 2e-2}
    positions = torch.linspace(0, 1, side, dtype=torch.float64, device="cuda")
    generator.double()
    exact = generator.synthesis(ws.double(), positions, positions)
    generator.float()
    well = True
    chosen = device.probe_precision(generator)
    report.write(f"{name}: auto is {chosen.precision}; float16 is within 1 for {100 * chosen.share:.3f} %")
    found[f"{name}, auto"] = [str(chosen.precision), chosen.share]
    for precision, limit in limits.items():
        for mode in ("eager", "recorded", "replayed"):
            picture_graphs.allow_graphs(mode != "eager")
            worst, within = image_error(render(generator, ws, height=side, width=side, precision=precision), exact)
            good = worst <= limit and (precision != "auto" or within >= 0.99)
            if mode != "recorded":
                report.write(f"  {precision}, {mode}: error {worst:.1e}, {100 * within:.3f} % within 1")
            if not good:
                report.write(f"  WRONG: {precision}, {mode}: {worst:.1e}, {within}")
            well &= good
    return well


def _times(report: Report, generator: Generator, ws: Tensor, side: int) -> dict[str, Any]:
    row: dict[str, Any] = {}
    free = torch.cuda.mem_get_info()[0]
    if side * side * UNFUSED_BYTES < 0.8 * free:
        row["unfused"] = clock({"unfused": lambda: unfused_image(generator, ws, side)}, 3)["unfused"]
        torch.cuda.empty_cache()
    row |= _whole_times(generator, ws, side)
    row["lines"], row["pixels"] = _parts(generator, ws, side)
    order = ("unfused", "auto, eager", "auto, replayed", "float32, eager", "float32, replayed", "lines", "pixels")
    report.write(f"| {side} | " + " | ".join(_ms(row.get(name)) for name in order) + " |")
    return row


def _whole_times(generator: Generator, ws: Tensor, side: int) -> dict[str, list[float]]:
    """Milliseconds of whole images: median, least, most."""
    row = {}
    out = torch.empty((1, generator.config.img_channels, side, side), device="cuda")
    for precision in ("auto", "float32"):
        for mode in ("eager", "replayed"):
            picture_graphs.allow_graphs(mode == "replayed")
            if mode == "replayed" and side * side > device.GRAPH_SAMPLES:
                continue

            def work(precision: str = precision) -> None:
                render(generator, ws, height=side, width=side, precision=precision, out=out)

            row[f"{precision}, {mode}"] = clock({"it": work}, _RUNS)["it"]
    picture_graphs.allow_graphs(True)
    return row


def _parts(generator: Generator, ws: Tensor, side: int) -> tuple[list[float], list[float]]:
    """Milliseconds of the lines (applying a latent included) and of the pixel stage, in float16."""
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
    """Seconds of 120 frames of 1024 x 1024 to the host, as a node fills an IMAGE."""
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
    report.write(
        f"\n{frames} frames of {side} x {side} to the host: {seconds['first']:.2f} s, again {seconds['second']:.2f} s"
    )
    return seconds


def _memory(report: Report, generator: Generator, ws: Tensor, side: int) -> dict[str, float]:
    """Peak MiB beyond weights, image and lines."""
    found = {}
    for precision in ("auto", "float32"):
        device.release_renderers()
        torch.cuda.empty_cache()
        out = torch.empty(1, 3, side, side, device="cuda")
        for mode in ("eager", "replayed"):
            picture_graphs.allow_graphs(mode == "replayed")
            if mode == "replayed" and side * side > device.GRAPH_SAMPLES:
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
            found[f"{precision}, {mode}"] = (torch.cuda.max_memory_allocated() - before - lines) / 2**20
    picture_graphs.allow_graphs(True)
    report.write(
        f"memory at {side} beyond weights, picture and lines, MiB: " + str({k: round(v) for k, v in found.items()})
    )
    return found


def _operations(report: Report, generator: Generator, ws: Tensor) -> dict[str, int]:
    """Operations that torch dispatches for an image."""
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
    report.write(f"operations a picture of 1024: {found}")
    return found


def _turned(report: Report, generator: Generator, ws: Tensor) -> list[float]:
    """Milliseconds of a view rotated by 30 degrees, which the torch path renders."""
    view = View(rotation=30.0)
    found = clock({"turned": lambda: render_view(generator, ws, view, height=1024, width=1024)}, 3)["turned"]
    report.write(f"1024 turned by 30 degrees: {_ms(found)} ms")
    return found


def clock(contestants: dict[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    """Milliseconds of each, in turns: median, least and most. Three warm-up runs; short work repeats within a run."""
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

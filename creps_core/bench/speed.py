"""Rendering speed relative to the unfused formulation, in a process of its own.

    python -m comfyui_creps.creps_core.bench.speed              per-pixel stage and whole pictures at 512 x 512
    python -m comfyui_creps.creps_core.bench.speed --film 120   frames of a latent interpolation, before and after

All contestants run in turns in one process. Prints a line of JSON. A precision whose error exceeds its limit is not
timed; if that is float32, nothing is. How much a precision loses depends on the weights, so the errors of a trained
generator are reported beside those of random weights.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ... import kernels
from ..checkpoints import load_builtin
from ..latents import sample
from ..network import COLUMNS, RANK, ROWS, Generator
from ..rendering import render
from .networks import MODEL_SIDE, random_generator, random_latent
from .unfused import unfused_image, unfused_pixels

BENCH_WIDTHS = ("65536/1024", "32768/512")
"""channel_base/channel_max: the published ones, and half of them."""
ERROR_LIMITS = {"float32": (1e-5, 1.0), "bfloat16": (2.5e-2, 0.98), "float16": (4e-3, 0.98)}
"""By precision: the largest permitted error relative to float64, and the least share of 8-bit values within 1."""
TRAINED_BUILTIN = "alpine"
"""The built-in generator on which half precision is checked as well."""
_TRAINED_IMAGES = 4
_GATE = (160, 208)  # height and width of the picture that is checked
_GEMM = 2048


def trained_errors(device: torch.device, precisions: list[str]) -> dict[str, tuple[float, float]]:
    """By precision, the worst `image_error` of some images of the trained built-in."""
    generator = load_builtin(TRAINED_BUILTIN).to(device)
    found = [image_errors(generator, sample(generator, [seed]), precisions) for seed in range(_TRAINED_IMAGES)]
    return {p: (max(f[p][0] for f in found), min(f[p][1] for f in found)) for p in precisions}


def untimed_reasons(device: torch.device) -> dict[str, str | None]:
    """By precision: why it is not timed on a device, or None."""
    if device.type == "cpu":
        return {"float32": None, "bfloat16": kernels.fused_bfloat16_missing()}
    return {"float32": None, "float16": None}


def image_error(found: Tensor, exact: Tensor) -> tuple[float, float]:
    """Largest error relative to the largest value, and the share of 8-bit values that differ by at most 1."""
    levels = lambda x: (x.double() * 127.5 + 128).clamp(0, 255).floor()  # noqa: E731
    relative = ((found - exact).abs().max() / exact.abs().max()).item()
    return relative, ((levels(found) - levels(exact)).abs() <= 1).double().mean().item()


def image_errors(generator: Generator, ws: Tensor, precisions: list[str]) -> dict[str, tuple[float, float]]:
    """By precision, the `image_error` of a whole render, modulation and lines included, against float64."""
    height, width = _GATE
    positions = [torch.linspace(0, 1, n, dtype=torch.float64, device=ws.device) for n in _GATE]
    exact = copy.deepcopy(generator).double().synthesis(ws.double(), *positions)
    return {p: image_error(render(generator, ws, height=height, width=width, precision=p), exact) for p in precisions}


def within_limits(precision: str, measured: tuple[float, float]) -> bool:
    """Whether an `image_error` is within the limits of its precision."""
    relative, within = ERROR_LIMITS[precision]
    return measured[0] <= relative and measured[1] >= within


def time_each(contestants: dict[str, Callable[[], object]], device: torch.device) -> dict[str, float]:
    """Seconds of one run of each contestant."""
    seconds = {}
    for name, work in contestants.items():
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds[name] = time.perf_counter() - start
    return seconds


def time_in_turns(
    contestants: dict[str, Callable[[], object]], runs: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of every run: one warm-up each, then A B C A B C..."""
    time_each(contestants, device)
    turns = [time_each(contestants, device) for _ in range(runs)]
    return {name: [seconds[name] for seconds in turns] for name in contestants}


def speed_summary(seconds: dict[str, list[float]], flops: float) -> dict[str, Any]:
    """Median and [lowest, highest] of the seconds, and of the ratios to the unfused run of the same turn."""
    rate = 2 * _GEMM**3 / statistics.median(seconds["gemm"])
    result: dict[str, Any] = {"gemm_gflops": rate / 1e9}
    for name, values in seconds.items():
        if name == "gemm":
            continue
        median = statistics.median(values)
        ratios = [a / b for a, b in zip(seconds["unfused"], values, strict=True)]
        result[name] = {
            "seconds": median,
            "seconds_range": [min(values), max(values)],
            "ratio": statistics.median(ratios),
            "ratio_range": [min(ratios), max(ratios)],
            "of_gemm": flops / median / rate,
        }
    return result


def pixel_flops(generator: Generator, side: int) -> float:
    """Of the pixel stage: decoders, image layer, and two pixel blocks."""
    config = generator.config
    b, c = config.biline_channels, config.img_channels
    decoders = len(config.biline_levels) * (RANK * b + 20 * b * b)
    return 2.0 * side**2 * (decoders + (4 + 16 + 8 + 4) * b * b + (1 + 4 + 2) * b * c)


def line_flops(generator: Generator, side: int) -> float:
    """Of the column line and the row line."""
    config = generator.config
    widths = [config.channels(level) for level in config.levels]
    layers = widths[0] ** 2 + sum(b * (a + b + config.biline_channels) for a, b in pairwise(widths))
    return 2.0 * 2 * side * RANK * layers


def measure_speed(widths: tuple[str, ...], side: int, runs: int, device: torch.device) -> dict[str, Any]:
    """Errors, then times of the pixel stage (with the lines of the first widths) and of whole images.

    Raises:
        ValueError: the float32 image is wrong: no figure of wrong images is reported.
    """
    refused = {name: reason for name, reason in untimed_reasons(device).items() if reason is not None}
    names = list(untimed_reasons(device))
    result: dict[str, Any] = {"gate": {}, "trained": trained_errors(device, names), "refused": refused}
    a = torch.randn(_GEMM, _GEMM, device=device)
    for i, width in enumerate(widths):
        generator = random_generator(width).to(device)
        ws = random_latent(generator)
        errors = image_errors(generator, ws, names)
        result["gate"][width] = errors
        if not within_limits("float32", errors["float32"]):
            raise ValueError(f"float32 at {width} is off by {errors['float32'][0]:.1e}: no figures of wrong pictures")
        for name, (relative, within) in errors.items():
            if name not in refused and not within_limits(name, (relative, within)):
                refused[name] = f"its error is {relative:.1e}, {100 * within:.1f} % of 8-bit values within 1"
        timed = [name for name in names if name not in refused]
        common: dict[str, Callable[[], object]] = {"gemm": lambda: a @ a}
        if i == 0:
            contestants = common | _pixel_contestants(generator, ws, side, timed)
            result["pixels"] = speed_summary(time_in_turns(contestants, runs, device), pixel_flops(generator, side))
        contestants = common | _whole_contestants(generator, ws, side, timed)
        flops = pixel_flops(generator, side) + line_flops(generator, side)
        result[width] = speed_summary(time_in_turns(contestants, runs, device), flops)
    return result


def _pixel_contestants(
    generator: Generator, ws: Tensor, side: int, precisions: list[str]
) -> dict[str, Callable[[], object]]:
    synthesis = generator.synthesis
    positions = torch.linspace(0, 1, side, dtype=torch.float64, device=ws.device)
    styles, stage = synthesis.line_styles(ws), synthesis.pixel_stage(ws).sample(0)
    columns, rows = (synthesis.bilines(styles, positions, line)[0] for line in (COLUMNS, ROWS))
    out = torch.empty(stage.image_channels, side, side, device=ws.device)

    def fused(precision: str) -> Callable[[], object]:
        dtype = kernels.PRECISIONS[precision]
        lines = columns.to(dtype), rows.to(dtype)
        prepared = kernels.prepare(stage, ws.device, dtype=dtype)
        return lambda: prepared.paint(*lines, out)

    return {"unfused": lambda: unfused_pixels(columns, rows, stage)} | {p: fused(p) for p in precisions}


def _whole_contestants(
    generator: Generator, ws: Tensor, side: int, precisions: list[str]
) -> dict[str, Callable[[], object]]:
    def fused(precision: str) -> Callable[[], object]:
        return lambda: render(generator, ws, height=side, width=side, precision=precision)

    return {"unfused": lambda: unfused_image(generator, ws, side)} | {p: fused(p) for p in precisions}


def time_interpolation(widths: str, frames: int, side: int, device: torch.device) -> dict[str, Any]:
    """Seconds of a latent interpolation, `before` (unfused) and `after` (float32), frame by frame in turn."""
    generator = random_generator(widths).to(device)
    ends = random_latent(generator, 2)
    total = {"unfused": 0.0, "float32": 0.0}
    for frame in range(frames):
        ws = torch.lerp(ends[:1], ends[1:], frame / max(frames - 1, 1))
        contestants = _whole_contestants(generator, ws, side, ["float32"])
        if frame == 0:
            time_each(contestants, device)  # warm-up
        for name, seconds in time_each(contestants, device).items():
            total[name] += seconds
    return {"widths": widths, "side": side, "frames": frames, "before": total["unfused"], "after": total["float32"]}


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--side", type=int, default=MODEL_SIDE)
    parser.add_argument("--widths", default=",".join(BENCH_WIDTHS))
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--film", type=int, metavar="FRAMES")
    args = parser.parse_args()
    widths = tuple(args.widths.split(","))
    if args.film:
        result = time_interpolation(widths[0], args.film, args.side, args.device)
    else:
        result = measure_speed(widths, args.side, args.runs, args.device)
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    _main()

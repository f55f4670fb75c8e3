"""How much faster rendering is than the unfused formulation, in a process of its own.

    python -m comfyui_creps.creps_core.bench.speed              per-pixel stage and whole pictures at 512 x 512
    python -m comfyui_creps.creps_core.bench.speed --film 120   frames of a latent interpolation, before and after

All contestants take turns in one process. Prints a line of JSON; a precision whose error is beyond its limit is not
timed, and if that is float32, nothing is. How much a precision loses depends on the weights: beside the errors of the
random ones stand those of a trained generator.
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
from . import unfused
from .networks import SIDE, random_generator, random_latent

WIDTHS = ("65536/1024", "32768/512")
"""channel_base/channel_max: the published ones, and half of them."""
LIMITS = {"float32": (1e-5, 1.0), "bfloat16": (2.5e-2, 0.98), "float16": (4e-3, 0.98)}
"""By precision: the largest relative error to float64, and the least share of 8-bit values within 1."""
TRAINED = "alpine"
"""The built-in generator on which half precision is judged as well."""
_PICTURES = 4
_GATE = (160, 208)  # height and width of the picture that is checked
_GEMM = 2048


def trained_errors(device: torch.device, precisions: list[str]) -> dict[str, tuple[float, float]]:
    """By precision the worst `error` of some pictures of the trained built-in."""
    generator = load_builtin(TRAINED).to(device)
    found = [gate(generator, sample(generator, [seed]), precisions) for seed in range(_PICTURES)]
    return {p: (max(f[p][0] for f in found), min(f[p][1] for f in found)) for p in precisions}


def candidates(device: torch.device) -> dict[str, str | None]:
    """Precision -> why it is not worth timing on a device, or None."""
    if device.type == "cpu":
        return {"float32": None, "bfloat16": kernels.explain(device)["bfloat16"]["onednn"]}
    return {"float32": None, "float16": None}


def error(found: Tensor, exact: Tensor) -> tuple[float, float]:
    """Largest error relative to the largest value, and the share of 8-bit values that differ by at most 1."""
    levels = lambda x: (x.double() * 127.5 + 128).clamp(0, 255).floor()  # noqa: E731
    relative = ((found - exact).abs().max() / exact.abs().max()).item()
    return relative, ((levels(found) - levels(exact)).abs() <= 1).double().mean().item()


def gate(generator: Generator, ws: Tensor, precisions: list[str]) -> dict[str, tuple[float, float]]:
    """By precision the `error` of a picture, lines and modulation included, to the specification in float64."""
    height, width = _GATE
    positions = [torch.linspace(0, 1, n, dtype=torch.float64, device=ws.device) for n in _GATE]
    exact = copy.deepcopy(generator).double().synthesis(ws.double(), *positions)
    return {p: error(render(generator, ws, height=height, width=width, precision=p), exact) for p in precisions}


def passes(precision: str, measured: tuple[float, float]) -> bool:
    """Whether an `error` is within the limits of its precision."""
    relative, within = LIMITS[precision]
    return measured[0] <= relative and measured[1] >= within


def turn(contestants: dict[str, Callable[[], object]], device: torch.device) -> dict[str, float]:
    """Seconds of one run of each."""
    seconds = {}
    for name, work in contestants.items():
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds[name] = time.perf_counter() - start
    return seconds


def interleaved(
    contestants: dict[str, Callable[[], object]], runs: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of every run; one warm-up each, then A B C A B C..."""
    turn(contestants, device)
    turns = [turn(contestants, device) for _ in range(runs)]
    return {name: [seconds[name] for seconds in turns] for name in contestants}


def summary(seconds: dict[str, list[float]], flops: float) -> dict[str, Any]:
    """Medians and, as [lowest, highest], spreads: of the seconds, and of the ratios to the unfused run beside each."""
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
    """Of the per-pixel stage: decoders, the picture off the last feature, and two blocks."""
    config = generator.config
    b, c = config.biline_channels, config.img_channels
    decoders = len(config.biline_levels) * (RANK * b + 20 * b * b)
    return 2.0 * side**2 * (decoders + (4 + 16 + 8 + 4) * b * b + (1 + 4 + 2) * b * c)


def line_flops(generator: Generator, side: int) -> float:
    """Of both lines."""
    config = generator.config
    widths = [config.channels(level) for level in config.levels]
    layers = widths[0] ** 2 + sum(b * (a + b + config.biline_channels) for a, b in pairwise(widths))
    return 2.0 * 2 * side * RANK * layers


def measure(widths: tuple[str, ...], side: int, runs: int, device: torch.device) -> dict[str, Any]:
    """Gate, per-pixel stage (with the lines of the first widths) and whole pictures.

    Raises:
        ValueError: the float32 picture is wrong, so no figure is worth having.
    """
    refused = {name: reason for name, reason in candidates(device).items() if reason is not None}
    names = list(candidates(device))
    result: dict[str, Any] = {"gate": {}, "trained": trained_errors(device, names), "refused": refused}
    a = torch.randn(_GEMM, _GEMM, device=device)
    for i, width in enumerate(widths):
        generator = random_generator(width).to(device)
        ws = random_latent(generator)
        errors = gate(generator, ws, names)
        result["gate"][width] = errors
        if not passes("float32", errors["float32"]):
            raise ValueError(f"float32 at {width} is off by {errors['float32'][0]:.1e}: no figures of wrong pictures")
        for name, (relative, within) in errors.items():
            if name not in refused and not passes(name, (relative, within)):
                refused[name] = f"its error is {relative:.1e}, {100 * within:.1f} % of 8-bit values within 1"
        timed = [name for name in names if name not in refused]
        common: dict[str, Callable[[], object]] = {"gemm": lambda: a @ a}
        if i == 0:
            contestants = common | _pixel_contestants(generator, ws, side, timed)
            result["pixels"] = summary(interleaved(contestants, runs, device), pixel_flops(generator, side))
        contestants = common | _whole_contestants(generator, ws, side, timed)
        flops = pixel_flops(generator, side) + line_flops(generator, side)
        result[width] = summary(interleaved(contestants, runs, device), flops)
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

    return {"unfused": lambda: unfused.entangle_unfused(columns, rows, stage)} | {p: fused(p) for p in precisions}


def _whole_contestants(
    generator: Generator, ws: Tensor, side: int, precisions: list[str]
) -> dict[str, Callable[[], object]]:
    def fused(precision: str) -> Callable[[], object]:
        return lambda: render(generator, ws, height=side, width=side, precision=precision)

    return {"unfused": lambda: unfused.picture(generator, ws, side)} | {p: fused(p) for p in precisions}


def film(widths: str, frames: int, side: int, device: torch.device) -> dict[str, Any]:
    """Seconds of a latent interpolation, `before` (unfused) and `after` (float32), frame by frame in turn."""
    generator = random_generator(widths).to(device)
    ends = random_latent(generator, 2)
    total = {"unfused": 0.0, "float32": 0.0}
    for frame in range(frames):
        ws = torch.lerp(ends[:1], ends[1:], frame / max(frames - 1, 1))
        contestants = _whole_contestants(generator, ws, side, ["float32"])
        if frame == 0:
            turn(contestants, device)  # warm-up
        for name, seconds in turn(contestants, device).items():
            total[name] += seconds
    return {"widths": widths, "side": side, "frames": frames, "before": total["unfused"], "after": total["float32"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--side", type=int, default=SIDE)
    parser.add_argument("--widths", default=",".join(WIDTHS))
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--film", type=int, metavar="FRAMES")
    args = parser.parse_args()
    widths = tuple(args.widths.split(","))
    if args.film:
        result = film(widths[0], args.film, args.side, args.device)
    else:
        result = measure(widths, args.side, args.runs, args.device)
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()

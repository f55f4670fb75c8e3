"""How much faster rendering is than the unfused formulation, on this machine.

    python benchmarks/speed.py --sides 256,512,1024          full width (65536/1024), random weights
    python benchmarks/speed.py --sides 512 --widths 32768/512
    python benchmarks/speed.py --sides 512 --precisions float32,bfloat16

All contestants take turns in one process; the table gives the medians, and their ratio to the unfused one. For its
fairer opponent, memory that is kept instead of returned to the system:
    MALLOC_MMAP_THRESHOLD_=8589934592 MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_TOP_PAD_=268435456 python ...
"""

from __future__ import annotations

import argparse
import copy
import platform
import statistics
import time
from collections.abc import Callable
from itertools import pairwise

import package  # noqa: F401
import torch
import unfused
from comfyui_creps import kernels
from comfyui_creps.creps_core import Generator, GeneratorConfig, render
from comfyui_creps.creps_core.lines import COLUMNS, ROWS
from comfyui_creps.kernels import reference
from torch import Tensor


def interleaved(contestants: dict[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    """Seconds of every run; one warm-up each, then A B C A B C..."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for run in range(runs + 1):
        for name, work in contestants.items():
            start = time.perf_counter()
            work()
            if run > 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def gemm_rate(size: int = 2048) -> Callable[[], object]:
    """A matrix product of the machine's best rate, as a yardstick."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    return lambda: a @ b


def report(title: str, seconds: dict[str, list[float]], flops: float) -> None:
    print(title)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    peak = 2 * 2048**3 / medians.pop("gemm") / 1e9
    for name, median in medians.items():
        ratio = statistics.median(a / b for a, b in zip(seconds["unfused"], seconds[name], strict=True))
        rate = flops / median / 1e9
        share = 100 * rate / peak
        print(f"  {name:10} {median:8.3f} s  {ratio:6.2f} x  {rate:6.0f} GFLOP/s, {share:3.0f} % of {peak:.0f}")


def in_double(stage: kernels.PixelStage) -> kernels.PixelStage:
    """The stage in float64."""
    layers = lambda group: tuple(kernels.Layer(*(t.double() for t in layer)) for layer in group)  # noqa: E731
    return kernels.PixelStage(
        tuple(layers(decoder) for decoder in stage.decoders),
        layers([stage.image])[0],
        tuple(kernels.PixelBlock(*layers(block)) for block in stage.blocks),
    )


def error(found: Tensor, exact: Tensor) -> str:
    levels = lambda x: (x.double() * 127.5 + 128).clamp(0, 255).floor()  # noqa: E731
    relative = ((found - exact).abs().max() / exact.abs().max()).item()
    within = ((levels(found) - levels(exact)).abs() <= 1).double().mean().item()
    return f"relative error {relative:.1e}, {100 * within:.2f} % of 8-bit values within 1"


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", default="256,512,1024")
    parser.add_argument("--widths", default="65536/1024", help="channel_base/channel_max")
    parser.add_argument("--precisions", default="float32")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    base, most = map(int, args.widths.split("/"))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}, widths {args.widths}")

    torch.manual_seed(0)
    generator = Generator(GeneratorConfig(512, channel_base=base, channel_max=most)).eval().requires_grad_(False)
    double_generator = copy.deepcopy(generator).double()
    ws = generator.mapping(torch.randn(1, 512))
    synthesis = generator.synthesis
    stage = synthesis.pixel_stage(ws).sample(0)
    widths = [generator.config.channels(level) for level in generator.config.levels]
    line_flops = 2 * 8 * (widths[0] ** 2 + sum(b * (a + b + 32) for a, b in pairwise(widths)))

    for side in map(int, args.sides.split(",")):
        positions = torch.linspace(0, 1, side, dtype=torch.float64)
        styles = synthesis.line_styles(ws)
        columns, rows = (synthesis.bilines(styles, positions, line)[0] for line in (COLUMNS, ROWS))
        out = torch.empty(3, side, side)

        def pixels(precision: str, columns=columns, rows=rows, out=out) -> Callable[[], None]:
            dtype = kernels.PRECISIONS[precision]
            a, b = columns.to(dtype), rows.to(dtype)
            prepared = kernels.prepare(stage, a.device, dtype=dtype)
            return lambda: kernels.entangle(a, b, prepared, out)

        names = args.precisions.split(",")
        contestants = {"gemm": gemm_rate(), "unfused": lambda c=columns, r=rows: unfused.entangle(c, r, stage)}
        contestants |= {name: pixels(name) for name in names}
        flops = 2 * 178592 * side**2
        report(f"{side} x {side}, per-pixel stage", interleaved(contestants, args.runs), flops)
        double = [tensor.double() for tensor in (columns, rows)]
        exact = reference.entangle(*double, in_double(stage))
        for name in names:
            pixels(name)()
            print(f"  {name:10} {error(out, exact)}")

        exact = double_generator.synthesis(ws.double(), positions, positions)
        contestants = {"gemm": gemm_rate(), "unfused": lambda n=side: unfused.picture(generator, ws, n)}
        for name in names:
            contestants[name] = lambda n=side, p=name: render(generator, ws, height=n, width=n, precision=p)
        report(f"{side} x {side}, whole", interleaved(contestants, args.runs), flops + 2 * side * line_flops)
        for name in names:
            print(f"  {name:10} {error(render(generator, ws, height=side, width=side, precision=name), exact)}")


if __name__ == "__main__":
    main()

"""Peak memory of a render, in a process of its own.

    python benchmarks/memory.py --side 4096          full width (65536/1024, 512 model), random weights
    python benchmarks/memory.py --side 4096 --small  a small network, for the tests

Prints, in MiB, resident memory before, its peak, and the growth beyond the picture and the lines (the width's line
is kept whole, 7 KB per column; the height's is evaluated in pieces).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import package  # noqa: F401
import torch
from comfyui_creps.creps_core import Generator, GeneratorConfig, render


def status(field: str) -> float:
    """A field of /proc/self/status, in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise KeyError(field)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, required=True)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--precision", default="float32")
    args = parser.parse_args()

    torch.manual_seed(0)
    widths = {"channel_base": 4096, "channel_max": 64} if args.small else {}
    generator = Generator(GeneratorConfig(512, **widths)).eval().requires_grad_(False)
    ws = generator.mapping(torch.randn(1, 512))
    # What libraries load at first use is not the picture's.
    render(generator, ws, height=64, width=64, precision=args.precision)
    before = status("VmRSS")
    start = time.perf_counter()
    picture = render(generator, ws, height=args.side, width=args.side, precision=args.precision)
    seconds = time.perf_counter() - start
    peak = status("VmHWM")
    size = picture.numel() * 4 / 2**20
    line = 7 * 32 * 8 * 4 * args.side / 2**20
    print(f"{args.side} x {args.side} in {seconds:.1f} s; before {before:.0f}, peak {peak:.0f}, picture {size:.0f}")
    print(f"beyond picture and lines: {peak - before - size - line:.1f} MiB")


if __name__ == "__main__":
    main()

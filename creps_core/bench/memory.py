"""Peak memory of a render, in a process of its own.

    python -m comfyui_creps.creps_core.bench.memory --side 4096            widths 65536/1024, 512 model
    python -m comfyui_creps.creps_core.bench.memory --side 16384 --strips  band by band, as for files
    python -m comfyui_creps.creps_core.bench.memory --side 4096 --small    a small network, for the tests

Prints a line of JSON: `seconds`, and in MiB the resident memory `before`, its `peak`, the `picture` (or one band of it)
and the `growth` beyond the picture and the lines (the column line is kept whole, 7 KB per column; the row line is
evaluated band by band). With --strips, a line is printed for every 16th of the rows.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch

from ..network import RANK
from ..rendering import render, render_bands
from .networks import random_generator, random_latent

_WIDTHS, _SMALL = "65536/1024", "4096/64"


def memory_status(field: str) -> float:
    """A field of /proc/self/status, in MiB; Linux only."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise KeyError(field)


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, required=True)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--strips", action="store_true", help="8-bit bands, each discarded at once")
    parser.add_argument("--precision", default="float32")
    args = parser.parse_args()

    generator = random_generator(_SMALL if args.small else _WIDTHS)
    ws, side, precision = random_latent(generator), args.side, args.precision
    # Libraries load code at first use; that is not part of the image's memory.
    render(generator, ws, height=64, width=64, precision=precision)
    before, start = memory_status("VmRSS"), time.perf_counter()
    config = generator.config
    line = len(config.biline_levels) * config.biline_channels * RANK * 4 * side / 2**20

    def report(rows: int, picture: float) -> None:
        peak = memory_status("VmHWM")
        result = {"side": side, "rows": rows, "precision": precision, "seconds": time.perf_counter() - start}
        result |= {"before": before, "peak": peak, "picture": picture, "growth": peak - before - picture - line}
        sys.stdout.write(json.dumps({k: round(v, 1) if isinstance(v, float) else v for k, v in result.items()}) + "\n")
        sys.stdout.flush()

    if not args.strips:
        picture = render(generator, ws, height=side, width=side, precision=precision)
        report(side, picture.numel() * 4 / 2**20)
        return
    for top, pixels in render_bands(generator, ws, height=side, width=side, precision=precision):
        rows = top + pixels.shape[1]
        if rows // (side // 16) > top // (side // 16):
            report(rows, pixels.numel() / 2**20)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    _main()

"""How sharp and how even the built-in landscapes are, beside the scenes that recipes/alpine.py draws.

python benchmarks/builtins.py
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch
from comfyui_creps.creps_core import load_builtin, render, sample
from comfyui_creps.creps_core.latents import interpolate, sample_latents

sys.path.append(str(Path(__file__).resolve().parent.parent / "recipes"))
import alpine

SIDE, PICTURES, EDGES = 2048, 2, 400
LOOPS = ([3, 8, 16, 22, 30, 48], [1, 2, 3, 4, 5, 6])


def edge_width(picture: np.ndarray) -> float:
    """Height over steepest slope of the strongest edges of a grey picture of 0..255, along rows and columns: pixels."""
    widths = []
    for lines in (picture, picture.T):
        slopes = np.diff(lines, axis=1)
        for place in np.argsort(np.abs(slopes).ravel())[::-1][: EDGES * 50 : 50]:
            row, middle = divmod(int(place), slopes.shape[1])
            rising = slopes[row] * np.sign(slopes[row, middle]) > 0.3
            first, last = middle, middle
            while first > max(middle - 40, 0) and rising[first - 1]:
                first -= 1
            while last < min(middle + 40, len(rising) - 1) and rising[last + 1]:
                last += 1
            height = abs(lines[row, last + 1] - lines[row, first])
            if height >= 8:
                widths.append(height / abs(slopes[row, middle]))
    return float(np.median(widths))


def main() -> None:
    drawn = [edge_width(alpine.draw(1000000 + i, SIDE, "simple").mean(2)) for i in range(PICTURES)]
    say(f"drawn scenes: edges of {np.median(drawn):.1f} pixels at {SIDE}")
    for name in ("alpenglow", "alpine"):
        generator, widths, times = load_builtin(name), [], []
        for seed in range(PICTURES):
            began = time.process_time()
            picture = render(generator, sample(generator, [seed]), height=SIDE, width=SIDE)[0]
            times.append(time.process_time() - began)
            widths.append(edge_width(((picture.clamp(-1, 1) + 1) * 127.5).mean(0).numpy()))
        say(f"{name}: edges of {np.median(widths):.1f} pixels at {SIDE}, {min(times):.1f} s of CPU time a picture")
    generator = load_builtin("alpenglow")
    for seeds in LOOPS:
        for easing in ("linear", "even"):
            keys = sample_latents(generator, seeds)
            ws = interpolate(generator, keys, frames=20, curve="linear", easing=easing, closed=True).ws
            shown = render(generator, ws, height=128, width=128, supersample=2).clamp(-1, 1)
            steps = torch.cat([shown, shown[:1]]).diff(dim=0).square().mean((1, 2, 3)).sqrt()
            say(f"alpenglow, seeds {seeds}, {easing}: largest step {steps.max() / steps.median():.2f} medians")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

"""Speed of cutting windows: by Pillow in threads and by `creps_core/data/window_cutter.py` on a device, in turns.

    python benchmarks/windows.py                                   on this machine's GPU, or its CPU
    python benchmarks/windows.py --side 512 --resolution 64 --batch 64 --threads 8

Both ways must give the same bits before anything is timed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import package  # noqa: F401
import torch
from comfyui_creps.creps_core.data import WindowCutter, from_images
from comfyui_creps.creps_core.training import random_box


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--patches", type=float, default=0.6)
    parser.add_argument("--threads", type=int, default=8, help="of the host")
    parser.add_argument("--batches", type=int, default=8, help="per turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    images = torch.rand(args.pictures, args.side, args.side, 3, generator=torch.Generator().manual_seed(0))
    dataset = from_images(images, resolution=args.resolution, max_side=args.side)
    rng = np.random.default_rng(0)

    def draw_batch() -> tuple[list[int], list[tuple[float, float, float, float]]]:
        indices = rng.integers(len(dataset), size=args.batch).tolist()
        return indices, [random_box(rng, args.side, args.resolution, args.patches) for _ in indices]

    batches = [draw_batch() for _ in range(args.batches)]
    cutters = {"resident": WindowCutter(dataset, device, 1 << 40), "copied": WindowCutter(dataset, device, 0)}
    with ThreadPoolExecutor(args.threads) as pool:

        def cut_by_pillow() -> list[torch.Tensor]:
            found = list(pool.map(lambda batch: dataset.images(batch[0], windows=batch[1]), batches))
            return [windows.to(device) for windows in found]

        def cut_by(cutter: WindowCutter) -> list[torch.Tensor]:
            return [cutter.cut(plan) for plan in pool.map(lambda batch: cutter.plan(*batch), batches)]

        runs = {"Pillow": cut_by_pillow} | {name: partial(cut_by, cutter) for name, cutter in cutters.items()}
        expected = cut_by_pillow()
        for name, cutter in cutters.items():
            differing = sum(int((a != b).sum()) for a, b in zip(cut_by(cutter), expected, strict=True))
            assert not differing, f"{name}: {differing} values differ from Pillow's"
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(args.turns):
            for name, run in runs.items():
                start = time.perf_counter()
                run()[-1].cpu()
                seconds[name].append(time.perf_counter() - start)
    print(f"{args.resolution} of {args.side} pixels, batches of {args.batch}, on {device}; {args.threads} threads")
    for name, times in seconds.items():
        rates = [args.batch * args.batches / each for each in times]
        print(f"{name:10}{statistics.median(rates):10.0f} windows per second ({min(rates):.0f} to {max(rates):.0f})")


if __name__ == "__main__":
    main()

"""How near projection comes to pictures that the generator itself made, and in what time.

    python benchmarks/projection.py

None of the seeds should be among the candidates that projection begins with (0 to 1023 by default): then it would only
recognise them.
"""

from __future__ import annotations

import argparse
import time

import torch
from comfyui_creps.creps_core import BUILTINS, load_builtin, render, sample
from comfyui_creps.creps_core.latents import project


def main() -> None:
    parser = argparse.ArgumentParser(description="Projects pictures of the generator back into its latent space.")
    parser.add_argument("--builtin", default="alpine", choices=BUILTINS)
    parser.add_argument("--seeds", default="2001,5000,77777", help="of the pictures to find")
    parser.add_argument("--side", type=int, default=128, help="of the pictures, in pixels")
    parser.add_argument("--steps", type=int, default=300)
    args = parser.parse_args()
    generator = load_builtin(args.builtin)
    for seed in map(int, args.seeds.split(",")):
        picture = torch.empty(1, 3, args.side, args.side, dtype=torch.uint8)  # 8 bits, as a saved picture has
        render(generator, sample(generator, [seed]), height=args.side, width=args.side, out=picture)
        wall, cpu = time.perf_counter(), time.process_time()
        (psnr,) = project(generator, picture / 127.5 - 1, steps=args.steps).psnr
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"seed {seed}: {psnr:.1f} dB, {wall:.0f} s ({cpu:.0f} s of CPU time)", flush=True)


if __name__ == "__main__":
    main()

"""Peak memory and time of a generator's training step, in a process of its own.

    python benchmarks/training_memory.py                           full width (65536/1024, 512 model) at 1024 x 1024
    python benchmarks/training_memory.py --path-length             the double backward pass of path lengths
    python benchmarks/training_memory.py --alone --side 2048       without the discriminator's share
    python benchmarks/training_memory.py --small --side 64         small networks, for the tests
    python benchmarks/training_memory.py --count 32                tensors of a step of the default recipe on a GPU

The step is one picture through generator and discriminator (of the picture's size, 32768/512) and back; with
--path-length, through the generator alone, differentiated twice. Prints seconds, by the clock and of all processor
cores together, and resident memory in MiB: with the networks and room for their gradients, and its peak. With --count,
the MiB that the tensors of each phase of a batch take at their peak, counted without computing them.
"""

from __future__ import annotations

import argparse
import math
import time

import package  # noqa: F401
import torch
import torch.nn.functional as F
from comfyui_creps.creps_core import Generator, GeneratorConfig
from comfyui_creps.creps_core.bench.memory import memory_status
from comfyui_creps.creps_core.bench.training import BenchCase
from comfyui_creps.creps_core.network import Discriminator, DiscriminatorConfig
from comfyui_creps.creps_core.training import Recipe, TileSizes, synthesize
from live_memory import live_bytes
from torch import Tensor


def step(generator: Generator, judge: Discriminator | None, side: int, path_length: bool) -> None:
    """One picture forwards and backwards; the generator's parameters get their gradients."""
    positions = torch.linspace(0, 1, side, dtype=torch.float64)
    ws = generator.mapping(torch.randn(1, generator.config.z_dim))
    image = synthesize(generator.synthesis, ws, positions, positions)
    if path_length:
        loss = length(image, ws)
    elif judge is None:
        loss = image.square().mean()
    else:
        loss = F.softplus(-judge(image)).mean()
    loss.backward()


def length(image: Tensor, ws: Tensor) -> Tensor:
    """How far the picture moves with ws, differentiable."""
    noise = torch.randn_like(image) / math.sqrt(image.shape[2] * image.shape[3])
    (gradient,) = torch.autograd.grad((image * noise).sum(), ws, create_graph=True)
    return gradient.square().sum(2).mean(1).sqrt().mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--path-length", action="store_true")
    parser.add_argument("--alone", action="store_true", help="without a discriminator")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--count", type=int, metavar="BATCH")
    parser.add_argument("--micro-batch", type=int, default=0, help="with --count")
    parser.add_argument("--tile-pixels", type=int, default=1 << 18, help="with --count: as for an H200")
    args = parser.parse_args()
    if args.count:
        config = GeneratorConfig(args.side if args.side < 1024 else 512)
        case = BenchCase("", config, Recipe(batch=args.count, micro_batch=args.micro_batch))
        for phase, found in live_bytes(case, TileSizes(args.tile_pixels, 8 * args.tile_pixels)).items():
            print(f"{phase:6}{found / 2**20:8.0f} MiB", flush=True)
        return

    torch.manual_seed(0)
    g_widths = {"channel_base": 4096, "channel_max": 64} if args.small else {}
    d_widths = {"channel_base": 1024, "channel_max": 32} if args.small else {}
    generator = Generator(GeneratorConfig(512, **g_widths))
    judge = None
    if not (args.alone or args.path_length):
        judge = Discriminator(DiscriminatorConfig(args.side, **d_widths)).requires_grad_(False)
        judge.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for parameter in generator.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = memory_status("VmRSS")
    start, worked = time.perf_counter(), time.process_time()
    step(generator, judge, args.side, args.path_length)
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    peak = memory_status("VmHWM")
    print(f"{args.side} x {args.side} in {seconds:.1f} s, of the processors {worked:.1f} s")
    print(f"before {before:.0f}, peak {peak:.0f} MiB")
    print(f"growth: {peak - before:.0f} MiB")


if __name__ == "__main__":
    main()

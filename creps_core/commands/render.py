"""`creps render`: one image of any size, to a file."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ...common.command import Command
from ...common.devices import device_of
from ...common.duration import Pace
from ...common.errors import printable
from ...common.files import check_target
from ...common.progress import Progress
from ..rendering import BITS, FITS, RENDER_PRECISIONS

if TYPE_CHECKING:
    from ..network import Generator

log: logging.Logger = logging.getLogger("CREPS")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    p = parser
    p.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="official .pkl or our .safetensors; default: a built-in"
    )
    p.add_argument("--builtin", metavar="NAME", help="built-in generator; default: the first")
    p.add_argument(
        "--weights",
        default="G_ema",
        choices=("G_ema", "G"),
        help="of a snapshot: the average (default), or G in training",
    )
    p.add_argument("--seed", type=int, default=0, help="0 to 2^64 - 1; below 2^32 as in the authors' tools")
    p.add_argument(
        "--label",
        help="for a generator with labels: a class number, a class name, or numbers such as 0.5,25; default: drawn by "
        "the seed with the frequencies of the training data; seed %% classes where these are not known",
    )
    p.add_argument("--psi", type=float, default=1.0, help="truncation: 1 none, 0 the average image")
    p.add_argument("--cutoff", type=int, metavar="N", help="truncate only the first N styles")
    p.add_argument(
        "--size",
        type=_size,
        metavar="WIDTHxHEIGHT",
        help="in pixels, or one number for a square; default: the longer side 1024, the other by the "
        "generator's aspect",
    )
    p.add_argument(
        "--window",
        type=_window,
        default=(0.0, 0.0, 1.0, 1.0),
        metavar="T,L,B,R",
        help="part of the frame; default 0,0,1,1",
    )
    p.add_argument("--fit", default="crop", choices=FITS, help="for images that are not square")
    p.add_argument("--supersample", type=int, default=1, metavar="K", help="K x K samples per pixel")
    p.add_argument("--precision", default="auto", choices=RENDER_PRECISIONS)
    p.add_argument("--device", default=None, help="cpu, cuda, mps...; default: a GPU if there is one")
    p.add_argument("--bits", type=int, default=8, choices=BITS, help="per channel of the file")
    p.add_argument(
        "--out",
        type=Path,
        default=Path("picture.png"),
        metavar="FILE",
        help=".png, or .tif for a tiled BigTIFF with a pyramid, for images too large for viewers to open whole",
    )
    p.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="resume the same image where an earlier run was stopped",
    )


def _run(args: argparse.Namespace) -> None:
    from ...kernels import settle_trials
    from ..latents import sample
    from ..rendering import frame_size, render_to_file, shape_of

    device = device_of(args.device)
    check_target(args.out)
    generator = _load(args).to(device)
    # The kernel's trial is awaited: the process ends too soon to run it in the background.
    settle_trials(generator.mapping.w_avg.device, shape_of(generator.config))
    height, width = args.size[::-1] if args.size else frame_size(1024, generator.aspect)
    ws = sample(generator, [args.seed], label=args.label, truncation_psi=args.psi, truncation_cutoff=args.cutoff)
    start = time.perf_counter()
    file = render_to_file(
        generator,
        ws,
        args.out,
        height=height,
        width=width,
        window=args.window,
        fit=args.fit,
        supersample=args.supersample,
        precision=args.precision,
        bits=args.bits,
        text={"creps": f"{generator.name} seed {args.seed} {width}x{height}"},
        resume=args.resume,
        progress=_progress_line(height * width),
    )
    if file.resumed_row:
        log.info("resumed an earlier run from row %d", file.resumed_row)
    log.info(
        "%s: %s, seed %d, %d x %d pixels, %.1f MB in %.1f s",
        args.out,
        generator.name,
        args.seed,
        width,
        height,
        file.size / 1e6,
        time.perf_counter() - start,
    )


RENDER_COMMAND = Command("render", "render an image of any size to a file", _add_arguments, _run)


def _load(args: argparse.Namespace) -> Generator:
    from ..checkpoints import load_builtin, load_generator

    if args.checkpoint and args.builtin:
        raise ValueError("give --checkpoint or --builtin, not both")
    if args.checkpoint:
        return load_generator(args.checkpoint, args.weights)
    return load_builtin(args.builtin) if args.builtin else load_builtin()


def _progress_line(pixels: int) -> Progress:
    """A progress callback that rewrites one line of a terminal; elsewhere it logs a line per minute."""
    terminal = sys.stderr.isatty()
    interval = 0.2 if terminal else 60.0
    pace, last = Pace(), time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        left, now = pace.at(done, total), time.monotonic()
        if now - last < interval and (done < total or not terminal):
            return
        last = now
        line = f"{100 * done / total:5.1f} %  {pace.speed * pixels / total / 1e6:.2f} MP/s  {left} left"
        if terminal:
            sys.stderr.write(f"\r{line:<50}" + ("\n" if done == total else ""))
            sys.stderr.flush()
        else:
            log.info("%s", line)

    return progress


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(p.isdecimal() and len(p) < 100 and int(p) > 0 for p in parts):
        raise argparse.ArgumentTypeError(f"{printable(text, 60)!r} is not WIDTHxHEIGHT in pixels, such as 2048x1152")
    return int(parts[0]), int(parts[-1])


def _window(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(v) for v in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 4:
        raise argparse.ArgumentTypeError(
            f"{printable(text, 60)!r} is not TOP,LEFT,BOTTOM,RIGHT, such as 0.25,0.25,0.75,0.75"
        )
    return values

"""`creps convert`: an official snapshot or one of our own as a small file that loads fast."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from ...common.command import Command
from ...common.files import check_target

log: logging.Logger = logging.getLogger("CREPS")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    p = parser
    p.add_argument("source", type=Path, metavar="IN")
    p.add_argument("target", type=Path, metavar="OUT")
    p.add_argument("--weights", default="G_ema", choices=("G_ema", "G"), help="the average (default), or G in training")
    p.add_argument(
        "--ema",
        type=float,
        metavar="WIDTH",
        help="for a snapshot of `creps train`: convert the average of this width instead (0.01 to 0.28 of the run)",
    )
    p.add_argument("--half", action="store_true", help="store float16: half the size")
    p.add_argument("--keep-discriminator", action="store_true", help="so that fine-tuning can start from it")


def _run(args: argparse.Namespace) -> None:
    from ..checkpoints import read_checkpoint, save_generator
    from ..training import rebuild

    check_target(args.target)
    checkpoint = read_checkpoint(args.source)
    generator = checkpoint.generator(args.weights) if args.ema is None else rebuild(args.source, args.ema, log.info)
    discriminator = checkpoint.discriminator() if args.keep_discriminator else None
    if args.keep_discriminator and discriminator is None:
        raise ValueError(f"{args.source} holds no discriminator: leave out --keep-discriminator")
    details = {"source": args.source.name, "weights": args.weights if args.ema is None else f"average of {args.ema}"}
    save_generator(generator, args.target, half=args.half, details=details, discriminator=discriminator)
    log.info("%s: %.1f MB", args.target, args.target.stat().st_size / 1e6)


CONVERT_COMMAND = Command(
    "convert", "convert an official .pkl to .safetensors, which loads fast and anywhere", _add_arguments, _run
)

"""The command line: `creps render | unfinished | explore | info | convert | data | train | evaluate | bench`."""

from __future__ import annotations

import argparse
import io
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ..common.devices import device_of
from ..common.duration import Pace
from ..common.errors import TrainingError, out_of_memory, printable, shown
from ..common.files import check_target
from . import __version__
from .bench import command as bench
from .data import prepare as data
from .evaluation import command as evaluate
from .serving import command as explore
from .training import add_arguments, train_command

log = logging.getLogger("CREPS")

_EXPLAINED = (ValueError, OverflowError, OSError, MemoryError, ImportError, TrainingError)
"""Errors with a message for the user."""
_SHOWN_DETAILS = 60


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 1 it failed, 2 the arguments are wrong."""
    args = _parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a letter shows its number
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_plain)
    try:
        args.run(args)
    except KeyboardInterrupt:
        log.error("stopped")
        return 130
    except _EXPLAINED as error:
        log.error("creps %s: %s", args.command, str(error) or "out of memory: lower the size, or close other programs")
        return 1
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        log.error("creps %s: out of memory (%s): lower the size, or close other programs", args.command, shown(error))
        return 1
    return 0


def _plain(record: logging.LogRecord) -> bool:
    """Escapes what names out of files may hold beside letters, before it reaches a terminal; lines stay lines."""
    text = record.getMessage()
    if not text.replace("\n", "").isprintable():
        record.msg, record.args = "\n".join(printable(line, 10_000) for line in text.split("\n")), ()
    return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="creps", description="Any-scale image generation.")
    parser.add_argument("--version", action="version", version=f"creps {__version__}")
    commands = parser.add_subparsers(
        dest="command",
        required=True,
        metavar="render | unfinished | explore | info | convert | data | train | evaluate | bench",
    )

    p = commands.add_parser("render", help="render a picture of any size to a file")
    p.set_defaults(run=_render)
    p.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="official .pkl or our .safetensors; default: a built-in",
    )
    p.add_argument("--builtin", metavar="NAME", help="built-in generator; default: the first")
    p.add_argument("--weights", default="G_ema", choices=("G_ema", "G"), help="of an official snapshot")
    p.add_argument("--seed", type=int, default=0, help="0 to 2^64 - 1; below 2^32 as in the authors' tools")
    p.add_argument(
        "--label",
        help="for a generator with labels: a class, the name of one, or numbers such as 0.5,25; default: drawn by the "
        "seed, as often as in the training; seed %% classes where that is not known",
    )
    p.add_argument("--psi", type=float, default=1.0, help="truncation: 1 none, 0 the average picture")
    p.add_argument("--cutoff", type=int, help="truncate only the first so many styles")
    p.add_argument(
        "--size",
        type=_size,
        metavar="WIDTHxHEIGHT",
        help="in pixels; default: the longer side 1024, the other by the generator's aspect",
    )
    p.add_argument(
        "--window",
        type=_window,
        default=(0.0, 0.0, 1.0, 1.0),
        metavar="T,L,B,R",
        help="part of the frame; default 0,0,1,1",
    )
    p.add_argument(
        "--fit", default="crop", choices=("crop", "extend", "stretch"), help="for frames that are not square"
    )
    p.add_argument("--supersample", type=int, default=1, metavar="K", help="K x K samples per pixel")
    p.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16", "float16"))
    p.add_argument("--device", default=None, help="cpu, cuda, mps...; default: a GPU if there is one")
    p.add_argument("--bits", type=int, default=8, choices=(8, 16), help="per channel of the file")
    p.add_argument(
        "--out",
        type=Path,
        default=Path("picture.png"),
        metavar="FILE",
        help=".png, or .tif for a tiled BigTIFF with a pyramid, for pictures that no viewer opens whole",
    )
    p.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="go on with the same picture where an earlier run of it was stopped",
    )

    p = commands.add_parser("unfinished", help="list the renders to files that were stopped, or remove them")
    p.set_defaults(run=_unfinished)
    p.add_argument("folder", type=Path, metavar="FOLDER", nargs="?", default=Path(), help="default: this one")
    p.add_argument("--clear", action="store_true", help="remove those that nobody renders now")

    p = commands.add_parser("explore", help="fly through a generator in the browser")
    p.set_defaults(run=explore.explore_command)
    explore.add_arguments(p)

    p = commands.add_parser("info", help="say what a checkpoint holds, or what this machine can do")
    p.set_defaults(run=_info)
    p.add_argument("checkpoint", type=Path, metavar="FILE", nargs="?")
    p.add_argument("--backends", action="store_true", help="which backends can run here, and why not the others")

    p = commands.add_parser("convert", help="official .pkl -> .safetensors that loads fast and anywhere")
    p.set_defaults(run=_convert)
    p.add_argument("source", type=Path, metavar="IN")
    p.add_argument("target", type=Path, metavar="OUT")
    p.add_argument("--weights", default="G_ema", choices=("G_ema", "G"))
    p.add_argument(
        "--ema",
        type=float,
        metavar="WIDTH",
        help="of a snapshot of `creps train`: the average of this width (0.01 to 0.28 of the training) instead",
    )
    p.add_argument("--half", action="store_true", help="store float16: half the size")
    p.add_argument("--keep-discriminator", action="store_true", help="so that fine-tuning can begin with it")

    p = commands.add_parser("data", help="cut pictures to one size and pack them, as the trainer would cut them")
    p.set_defaults(run=data.data_command)
    data.add_arguments(p)

    p = commands.add_parser("train", help="train a generator, or fine-tune one on your pictures")
    p.set_defaults(run=_train)
    add_arguments(p)

    p = commands.add_parser("evaluate", help="measure a generator against pictures that it has not seen")
    p.set_defaults(run=_evaluate)
    evaluate.add_arguments(p)

    p = commands.add_parser("bench", help="measure speed and memory on this machine against the plain formulation")
    p.set_defaults(run=_bench)
    bench.add_arguments(p)
    return parser


def _render(args: argparse.Namespace) -> None:
    from ..kernels import settle
    from .checkpoints import load_builtin, load_generator
    from .latents import sample
    from .rendering import frame_size, render_to_file, shape_of

    device = device_of(args.device)
    check_target(args.out)
    if args.checkpoint and args.builtin:
        raise ValueError("give --checkpoint or --builtin, not both")
    if args.checkpoint:
        generator = load_generator(args.checkpoint, args.weights)
    else:
        generator = load_builtin(args.builtin) if args.builtin else load_builtin()
    generator.to(device)
    settle(generator.mapping.w_avg.device, shape_of(generator.config))  # a program that ends cannot check it meanwhile
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
        log.info("went on from row %d of an earlier run", file.resumed_row)
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


def _unfinished(args: argparse.Namespace) -> None:
    from .rendering import clear_unfinished, unfinished_in

    if not args.folder.is_dir():
        raise ValueError(f"{args.folder} is no folder: name the one that the pictures were rendered to")
    found = clear_unfinished(args.folder) if args.clear else unfinished_in(args.folder)
    for leftover in found:
        print(f"{'removed: ' * args.clear}{printable(str(leftover))} ({leftover.partial.name})")
    if not found:
        print("no unfinished renders")


def _info(args: argparse.Namespace) -> None:
    import torch

    from .checkpoints import inspect_checkpoint, load_generator
    from .rendering import look_at

    if args.backends:
        _show_backends()
    if args.checkpoint is None:
        if not args.backends:
            raise ValueError("give a checkpoint, or --backends")
        return
    info = inspect_checkpoint(args.checkpoint)
    print(f"{printable(str(args.checkpoint))}: {info.format}")
    print(f"networks: {', '.join(info.networks)}; parameters of the generator: {info.parameters:,}")
    values = {**info.config.to_dict(), "num_ws": info.config.num_ws, **info.details}
    for key, value in list(values.items())[:_SHOWN_DETAILS]:
        print(f"  {printable(str(key), 60)}: {printable(str(value))}")
    if len(values) > _SHOWN_DETAILS:
        print(f"  and {len(values) - _SHOWN_DETAILS} more")
    if torch.cuda.is_available() and "G_ema" in info.networks:
        found = look_at(load_generator(args.checkpoint).to("cuda"))
        share = f"float16 gives {100 * found.share:.2f} % of the 8-bit values of its pictures within 1 of float32's"
        print(f"  precision auto on {torch.cuda.get_device_name()}: {found.precision} ({share})")


def _show_backends() -> None:
    import torch

    from ..kernels import explain

    devices = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    for device in devices:
        for precision, reasons in explain(torch.device(device)).items():
            chosen = next((name for name, reason in reasons.items() if reason is None), "none")
            print(f"{device} {precision}: {chosen}")
            for name, reason in reasons.items():
                if reason is not None:
                    print(f"  not {name}: {reason}")


def _convert(args: argparse.Namespace) -> None:
    from .checkpoints import read_checkpoint, save_generator
    from .training import rebuild

    check_target(args.target)
    checkpoint = read_checkpoint(args.source)
    generator = checkpoint.generator(args.weights) if args.ema is None else rebuild(args.source, args.ema, log.info)
    discriminator = checkpoint.discriminator() if args.keep_discriminator else None
    if args.keep_discriminator and discriminator is None:
        raise ValueError(f"{args.source} holds no discriminator: leave out --keep-discriminator")
    details = {"source": args.source.name, "weights": args.weights if args.ema is None else f"average of {args.ema}"}
    save_generator(generator, args.target, half=args.half, details=details, discriminator=discriminator)
    log.info("%s: %.1f MB", args.target, args.target.stat().st_size / 1e6)


def _train(args: argparse.Namespace) -> None:
    from .evaluation import judge_of_run

    train_command(args, judge_of_run)


def _evaluate(args: argparse.Namespace) -> None:
    print(evaluate.evaluate_command(args))


def _bench(args: argparse.Namespace) -> None:
    print(bench.bench_command(args))


def _progress_line(pixels: int) -> Callable[[int, int], None]:
    """A progress callback that rewrites one line of a terminal; elsewhere it writes a line a minute."""
    terminal = sys.stderr.isatty()
    pause = 0.2 if terminal else 60.0
    pace, shown = Pace(), time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal shown
        left, now = pace.at(done, total), time.monotonic()
        if now - shown < pause and (done < total or not terminal):
            return
        shown = now
        line = f"{100 * done / total:5.1f} %  {pace.speed * pixels / total / 1e6:.2f} MP/s  {left} left"
        if terminal:
            line, end = f"\r{line:<50}", "\n" if done == total else ""
            print(line, end=end, file=sys.stderr, flush=True)
        else:
            log.info("%s", line)

    return show


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(p.isdecimal() and len(p) < 100 and int(p) > 0 for p in parts):
        raise argparse.ArgumentTypeError(f"{printable(text, 60)!r} is not WIDTHxHEIGHT in pixels, such as 2048x1152")
    return int(parts[0]), int(parts[1])


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


if __name__ == "__main__":
    raise SystemExit(main())

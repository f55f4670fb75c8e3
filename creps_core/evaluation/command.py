"""`creps evaluate`: how far a generator's pictures are from real ones, by several measures, and whether it copies."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...common.command import Command
from ...common.duration import duration
from ...common.files import check_target, read_json, write_json, write_png
from ..rendering import RENDER_PRECISIONS

if TYPE_CHECKING:
    import torch

    from ..network import Generator
    from ..training import Process
    from .measure import Wanted
    from .metrics import Metric
    from .sets import PictureSet, Real

log = logging.getLogger("CREPS")

GRID = 8  # columns and rows
RESULT, TABLE = "metrics.json", "distances.json"
_COUNT = 4096  # pictures of each kind, for distances


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    p = parser
    g = p.add_mutually_exclusive_group(required=True)
    g.add_argument("--checkpoint", type=Path, metavar="FILE", help="official .pkl, our .safetensors, or a snapshot")
    g.add_argument("--builtin", metavar="NAME", help="built-in generator")
    g.add_argument("--pictures", type=Path, metavar="PATH", help="folder or zip of pictures to judge instead")
    p.add_argument("--data", type=Path, metavar="PATH", help="folder or zip that it was trained on")
    p.add_argument("--held-out", type=Path, metavar="PATH", help="folder or zip of such pictures kept from it")
    p.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="for the numbers as JSON, and the pictures"
    )
    p.add_argument(
        "--metrics",
        metavar="NAME,NAME...",
        help="fid, kid, prc (precision and recall), isc, ppl: as the papers measure, by torch-fidelity; swd, scale: "
        "without any weights. fid5k is fid with 5,000 pictures. Default: the table of distances, and copies",
    )
    p.add_argument(
        "--count",
        type=int,
        help=f"pictures of each kind, fewer where the data have fewer; default {_COUNT} for distances, 50000 for the "
        "metrics of the papers",
    )
    p.add_argument("--sides", type=_sides, default=(64, 128), metavar="N,N...", help="of distances; default 64,128")
    p.add_argument("--crop", default="center", choices=("center", "resize"), help="cut out the middle, or squeeze")
    p.add_argument(
        "--normalise",
        default="reference",
        choices=("reference", "own"),
        help="reference: in deviations of the held-out pictures, palette and contrast count; own: as in the paper, "
        "each set by its own mean and deviation; default reference",
    )
    p.add_argument("--nearest", type=int, default=16, metavar="N", help="pictures to find the nearest of; default 16")
    p.add_argument("--grid-side", type=int, default=128, help="of each of the 8 x 8 pictures of grid.png")
    p.add_argument("--seed", type=int, default=0, help="the first of the pictures, and of all that is chosen at random")
    p.add_argument("--device", help="cpu, cuda...; default: a GPU if there is one")
    m = p.add_argument_group("metrics of the papers", "Their weights are not part of this package; docs/evaluation.md.")
    m.add_argument("--inception", type=Path, metavar="FILE", help="torch-fidelity's Inception, for fid, kid, prc, isc")
    m.add_argument("--vgg", type=Path, metavar="FILE", help="torchvision's VGG-16, for prc as in the papers, and ppl")
    m.add_argument("--lpips", type=Path, metavar="FILE", help="torch-fidelity's LPIPS, for ppl")
    m.add_argument("--download", action="store_true", help="fetch what is missing of them, from where it is published")
    m.add_argument(
        "--mirror",
        action=argparse.BooleanOptionalAction,
        help="compare with flipped real pictures too; default: as in the run.json beside the checkpoint, else no",
    )
    m.add_argument("--side", type=int, help="of the pictures; default: what the generator was trained at")
    m.add_argument("--precision", default="auto", choices=RENDER_PRECISIONS)
    m.add_argument("--largest", type=int, default=8192, help="size for scale; default 8192")
    m.add_argument("--cache", type=Path, metavar="FOLDER", help="for statistics of real pictures; default: the user's")


def _run(args: argparse.Namespace) -> str:
    """Evaluate, from the command's arguments; writes the files and returns the tables."""
    from ...common.devices import device_of
    from .metrics import Metric, parse_metrics

    for name, least in (("count", 1), ("nearest", 1), ("grid_side", 1), ("seed", 0), ("side", 8), ("largest", 127)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, not {value}")
    metrics = parse_metrics(args.metrics, args.count) if args.metrics else [Metric("swd", args.count or _COUNT)]
    _check_sources(args, metrics)
    device = device_of(args.device)
    for name in (RESULT, TABLE, "nearest.png", "grid.png"):
        check_target(args.out / name)
    if not args.metrics:
        return _distances(args, _generator(args, device), metrics[0].count)
    return _measured(args, metrics, device)


EVALUATE_COMMAND = Command(
    "evaluate", "measure a generator against images that it was not trained on", _add_arguments, _run
)


def _check_sources(args: argparse.Namespace, metrics: Sequence[Metric]) -> None:
    """Raises ValueError: pictures are missing that are needed, or the same for two purposes."""
    if args.metrics is None and (args.data is None or args.held_out is None):
        raise ValueError("give --data and --held-out: the pictures that it was trained on, and such as it has not seen")
    if args.metrics is None and args.pictures:
        raise ValueError("--pictures is for --metrics: distances and copies are those of a generator")
    if args.data is None and any(metric.about.reals for metric in metrics):
        names = ", ".join(metric.name for metric in metrics if metric.about.reals)
        raise ValueError(f"give --data, the real pictures that {names} compares with")
    if args.data and args.held_out and args.data.resolve() == args.held_out.resolve():
        raise ValueError(
            "--data and --held-out are the same pictures; held-out ones are such as the training has not seen"
        )


def _generator(args: argparse.Namespace, device: torch.device) -> Generator:
    from ..checkpoints import load_builtin, load_generator

    generator = load_generator(args.checkpoint) if args.checkpoint else load_builtin(args.builtin)
    return generator.to(device)


def _measured(args: argparse.Namespace, metrics: Sequence[Metric], device: torch.device) -> str:
    """The metrics by name: their numbers, and why there are none of the others."""
    import torch

    from ..training import join, leave

    process = join()
    try:
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", process.local_rank)
            torch.cuda.set_device(device)
        if not process.is_first:
            log.setLevel(logging.WARNING)
        try:
            return _measure(args, metrics, device, process)
        except KeyboardInterrupt:
            log.info("stopped; the same command goes on")
            raise
    finally:
        leave()


def _measure(args: argparse.Namespace, metrics: Sequence[Metric], device: torch.device, process: Process) -> str:
    from ...kernels import cache_folder
    from .evaluate import evaluate

    start = time.monotonic()
    generator = None if args.pictures else _generator(args, device)
    judged, real = _sets(args, generator)
    found = evaluate(
        judged,
        real,
        metrics,
        wanted=_wanted(args),
        device=device,
        folder=args.out / "unfinished",
        cache=args.cache or cache_folder() / "metrics",
        held_out=args.held_out,
        sides=args.sides,
        normalise=args.normalise,
        largest=args.largest,
        process=process,
        progress=progress_log(),
    )
    if not process.is_first:
        return ""
    result = {
        "judged": generator.name if generator else str(args.pictures),
        **found.to_dict(),
        "seconds": round(time.monotonic() - start, 1),
    }
    write_json(args.out / RESULT, result)
    return str(found)


def _sets(args: argparse.Namespace, generator: Generator | None) -> tuple[PictureSet, Real | None]:
    """What is judged, and what it is compared with."""
    from .evaluate import generator_set
    from .sets import Real

    if generator is None and args.side is None:
        raise ValueError("give --side, the size at which --pictures are compared with the real ones")
    side = args.side or (generator.config.img_resolution if generator else 0)
    real = None
    if args.data is not None:
        aspect = ":".join(map(str, generator.aspect)) if generator else "1:1"
        channels = generator.config.img_channels if generator else 3
        mirror = args.mirror if args.mirror is not None else _trained_mirrored(args.checkpoint)
        real = Real(args.data, side=side, channels=channels, crop=args.crop, aspect=aspect, mirror=mirror)
    if generator is None:
        return Real(args.pictures, side=side, crop=args.crop), real
    return generator_set(generator, real, side=side, first=args.seed, precision=args.precision), real


def _trained_mirrored(checkpoint: Path | None) -> bool:
    """Whether the run that a checkpoint lies in shows flipped pictures too."""
    try:
        run = read_json(checkpoint.parent / "run.json") if checkpoint else {}
    except (OSError, ValueError):
        return False
    data = run.get("data")
    return isinstance(data, dict) and data.get("mirror") is True


def _wanted(args: argparse.Namespace) -> Wanted:
    from .measure import Wanted

    return Wanted(args.inception, args.vgg, args.lpips, download=args.download)


def _distances(args: argparse.Namespace, generator: Generator, count: int) -> str:
    """The table of distances, and copies; writes their files."""
    from ..training import sample_grid
    from .unseen import Unseen, row_to_dict, table, verdict

    unseen = Unseen(generator, args.data, args.held_out, args.crop, args.seed)
    spoken = progress_log()
    rows, enlarged = unseen.distances(
        args.sides,
        count,
        normalise=args.normalise,
        progress=lambda done, total: spoken("generated pictures", done, total),
    )
    log.info("nearest pictures")
    copies, sheet = unseen.copies(args.nearest, min(args.sides))
    result = {
        "generator": generator.name,
        "normalise": args.normalise,
        "seed": args.seed,
        "distances": [row_to_dict(row) for row in rows],
        "nearest": copies,
        "enlarged": enlarged,
    }
    write_json(args.out / TABLE, result)
    write_png(args.out / "nearest.png", sheet)
    write_png(args.out / "grid.png", sample_grid(generator, args.grid_side, GRID, GRID))
    return f"{table(rows)}\n\n{verdict(copies)}"


def progress_log() -> Callable[[str, int, int], None]:
    """Says every ten seconds how far it is, and how much time is left of what is worked on."""
    said = time.monotonic()
    what, first, start = "", 0, said

    def progress(of: str, done: int, total: int) -> None:
        nonlocal said, what, first, start
        now = time.monotonic()
        if of != what:
            what, first, start = of, done, now
            if done and done < total:
                log.info("%s: going on from %s of %s", of, f"{done:,}", f"{total:,}")
        if now - said > 10 and done < total:
            said = now
            rate = (done - first) / max(now - start, 1e-9)
            left = f", {rate:.1f} per second, {duration((total - done) / rate)} left" if rate else ""
            log.info("%s: %s of %s%s", of, f"{done:,}", f"{total:,}", left)

    return progress


def _sides(text: str) -> tuple[int, ...]:
    """64,128"""
    try:
        sides = tuple(int(part) for part in text.split(","))
    except ValueError:
        sides = ()
    if not sides or min(sides) < 16:
        raise argparse.ArgumentTypeError(f"{text!r} are not sides in pixels, 16 or more, such as 64,128")
    return sides

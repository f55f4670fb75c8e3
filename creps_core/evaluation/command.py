"""`creps evaluate`: metrics of a generator against real images, and whether it copies training images."""

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
from ...common.links import DOCS
from ..rendering import RENDER_PRECISIONS

if TYPE_CHECKING:
    import torch

    from ..network import Generator
    from ..training import Process
    from .metrics import Metric
    from .sets import ImageSet, RealImages

log: logging.Logger = logging.getLogger("CREPS")

_GRID = 8  # columns and rows of grid.png
_METRICS_FILE, _DISTANCES_FILE = "metrics.json", "distances.json"
_COUNT = 4096  # images of each kind, for distances
_LOG_INTERVAL = 10.0  # seconds


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `creps evaluate`."""
    p = parser
    g = p.add_mutually_exclusive_group(required=True)
    g.add_argument("--checkpoint", type=Path, metavar="FILE", help="official .pkl, our .safetensors, or a snapshot")
    g.add_argument("--builtin", metavar="NAME", help="built-in generator")
    g.add_argument("--pictures", type=Path, metavar="PATH", help="folder or zip of pictures to measure instead")
    p.add_argument("--data", type=Path, metavar="PATH", help="folder or zip that it was trained on")
    p.add_argument("--held-out", type=Path, metavar="PATH", help="folder or zip of others like them, kept from it")
    p.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="folder for the values as JSON, and the pictures"
    )
    p.add_argument(
        "--metrics",
        metavar="NAME,NAME...",
        help="fid, kid, prc (precision and recall), isc, ppl: as in the papers, by torch-fidelity; swd, scale: need no "
        "weights. fid5k is fid with 5,000 pictures. Default: the table of distances, and copies",
    )
    p.add_argument(
        "--count",
        type=int,
        help=f"pictures of each kind, fewer where the data have fewer; default {_COUNT} for distances, 50000 for the "
        "metrics of the papers",
    )
    p.add_argument(
        "--sides", type=_sides, default=(64, 128), metavar="N,N...", help="sizes for distances; default 64,128"
    )
    p.add_argument(
        "--crop", default="center", choices=("center", "resize"), help="center: cut out the middle; resize: squeeze"
    )
    p.add_argument(
        "--normalise",
        default="reference",
        choices=("reference", "own"),
        help="reference (default): in deviations of the held-out pictures, so palette and contrast count; own: each "
        "set by its own mean and deviation, as in the paper",
    )
    p.add_argument(
        "--nearest",
        type=int,
        default=16,
        metavar="N",
        help="pictures to find the nearest training picture of; default 16",
    )
    p.add_argument("--grid-side", type=int, default=128, help="size of each of the 8 x 8 pictures of grid.png")
    p.add_argument("--seed", type=int, default=0, help="seed of the first picture, and of all random choices")
    p.add_argument("--device", help="cpu, cuda...; default: a GPU if there is one")
    _add_network_arguments(p)


def _add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the metrics of the papers."""
    m = parser.add_argument_group(
        "metrics of the papers", f"Their weights are not part of this package: {DOCS}/evaluation.md."
    )
    m.add_argument("--inception", type=Path, metavar="FILE", help="torch-fidelity's Inception, for fid, kid, prc, isc")
    m.add_argument("--vgg", type=Path, metavar="FILE", help="torchvision's VGG-16, for prc as in the papers, and ppl")
    m.add_argument("--lpips", type=Path, metavar="FILE", help="torch-fidelity's LPIPS, for ppl")
    m.add_argument("--download", action="store_true", help="download missing weight files from their publishers")
    m.add_argument(
        "--mirror",
        action=argparse.BooleanOptionalAction,
        help="compare with mirrored real pictures too; default: as in the run.json beside the checkpoint, else no",
    )
    m.add_argument("--side", type=int, help="size of the pictures; default: the generator's training resolution")
    m.add_argument("--precision", default="auto", choices=RENDER_PRECISIONS)
    m.add_argument("--largest", type=int, default=8192, help="largest size for scale; default 8192")
    m.add_argument("--cache", type=Path, metavar="FOLDER", help="for statistics of real pictures; default: the user's")


def _run(args: argparse.Namespace) -> str:
    """Run the command: write its files and return the tables."""
    from ...common.devices import device_of
    from .metrics import METRICS, Metric, parse_metrics

    for name, least in (("count", 1), ("nearest", 1), ("grid_side", 1), ("seed", 0), ("side", 8), ("largest", 127)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, not {value}")
    metrics = (
        parse_metrics(args.metrics, args.count) if args.metrics else [Metric(METRICS["swd"], args.count or _COUNT)]
    )
    _check_sources(args, metrics)
    device = device_of(args.device)
    for name in (_METRICS_FILE, _DISTANCES_FILE, "nearest.png", "grid.png"):
        check_target(args.out / name)
    if not args.metrics:
        return _run_distances(args, _load(args, device), metrics[0].count)
    return _run_metrics(args, metrics, device)


EVALUATE_COMMAND = Command(
    "evaluate", "measure a generator against images that it was not trained on", _add_arguments, _run
)


def _check_sources(args: argparse.Namespace, metrics: Sequence[Metric]) -> None:
    """Raises ValueError: images are missing, or the same ones are given for two purposes."""
    if args.metrics is None and (args.data is None or args.held_out is None):
        raise ValueError(
            "give --data and --held-out: the pictures that it was trained on, and others that it has not seen"
        )
    if args.metrics is None and args.pictures:
        raise ValueError("--pictures is for --metrics: distances and copies are those of a generator")
    if args.data is None and any(metric.kind.needs_reals for metric in metrics):
        names = ", ".join(metric.name for metric in metrics if metric.kind.needs_reals)
        raise ValueError(f"give --data, the real pictures that {names} compares with")
    if args.data and args.held_out and args.data.resolve() == args.held_out.resolve():
        raise ValueError(
            "--data and --held-out are the same pictures; held-out ones are those that the training has not seen"
        )


def _load(args: argparse.Namespace, device: torch.device) -> Generator:
    from ..checkpoints import load_builtin, load_generator

    generator = load_generator(args.checkpoint) if args.checkpoint else load_builtin(args.builtin)
    return generator.to(device)


def _run_metrics(args: argparse.Namespace, metrics: Sequence[Metric], device: torch.device) -> str:
    """Measure the metrics of `--metrics`, on all processes of torchrun."""
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
            log.info("stopped; the same command resumes")
            raise
    finally:
        leave()


def _measure(args: argparse.Namespace, metrics: Sequence[Metric], device: torch.device, process: Process) -> str:
    from ...common.cache import cache_folder
    from .evaluate import evaluate
    from .networks import WeightFiles
    from .request import EvaluationRequest, Workspace

    start = time.monotonic()
    generator = None if args.pictures else _load(args, device)
    images, reals = _image_sets(args, generator)
    found = evaluate(
        EvaluationRequest(
            images,
            reals,
            metrics,
            held_out=args.held_out,
            sides=args.sides,
            normalise=args.normalise,
            largest=args.largest,
        ),
        WeightFiles(args.inception, args.vgg, args.lpips, download=args.download),
        device,
        Workspace(args.out / "unfinished", args.cache or cache_folder() / "metrics", process, progress_logger()),
    )
    if not process.is_first:
        return ""
    result = {
        "judged": generator.name if generator else str(args.pictures),
        **found.to_dict(),
        "seconds": round(time.monotonic() - start, 1),
    }
    write_json(args.out / _METRICS_FILE, result)
    return str(found)


def _image_sets(args: argparse.Namespace, generator: Generator | None) -> tuple[ImageSet, RealImages | None]:
    """The images to measure, and those to compare with."""
    from .evaluate import generator_set
    from .sets import RealImages

    if generator is None and args.side is None:
        raise ValueError("give --side, the size at which --pictures are compared with the real ones")
    side = args.side or (generator.config.img_resolution if generator else 0)
    reals = None
    if args.data is not None:
        aspect = ":".join(map(str, generator.aspect)) if generator else "1:1"
        channels = generator.config.img_channels if generator else 3
        mirror = args.mirror if args.mirror is not None else _trained_with_mirror(args.checkpoint)
        reals = RealImages(args.data, side=side, channels=channels, crop=args.crop, aspect=aspect, mirror=mirror)
    if generator is None:
        return RealImages(args.pictures, side=side, crop=args.crop), reals
    return generator_set(generator, reals, side=side, first=args.seed, precision=args.precision), reals


def _trained_with_mirror(checkpoint: Path | None) -> bool:
    """Whether the run in whose folder a checkpoint lies trains with mirrored images."""
    try:
        run = read_json(checkpoint.parent / "run.json") if checkpoint else {}
    except (OSError, ValueError):
        return False
    data = run.get("data")
    return isinstance(data, dict) and data.get("mirror") is True


def _run_distances(args: argparse.Namespace, generator: Generator, count: int) -> str:
    """Measure distances and search for copies."""
    from ..training import sample_grid
    from .distance_table import format_distance_table
    from .held_out import HeldOutComparison, describe_copies

    comparison = HeldOutComparison(generator, args.data, args.held_out, args.crop, args.seed)
    progress = progress_logger()
    report = comparison.distances(
        args.sides,
        count,
        normalise=args.normalise,
        progress=lambda done, total: progress("generated pictures", done, total),
    )
    log.info("nearest pictures")
    copies, sheet = comparison.copies(args.nearest, min(args.sides))
    result = {
        "generator": generator.name,
        "normalise": args.normalise,
        "seed": args.seed,
        "distances": [row.to_dict() for row in report.rows],
        "nearest": copies,
        "enlarged": report.enlarged,
    }
    write_json(args.out / _DISTANCES_FILE, result)
    write_png(args.out / "nearest.png", sheet)
    write_png(args.out / "grid.png", sample_grid(generator, args.grid_side, _GRID, _GRID))
    return f"{format_distance_table(report.rows)}\n\n{describe_copies(copies)}"


def progress_logger() -> Callable[[str, int, int], None]:
    """A callback progress(task, done, total) that logs the progress and the time left every ten seconds."""
    last_log = time.monotonic()
    task, first, start = "", 0, last_log

    def progress(name: str, done: int, total: int) -> None:
        nonlocal last_log, task, first, start
        now = time.monotonic()
        if name != task:
            task, first, start = name, done, now
        if now - last_log > _LOG_INTERVAL and done < total:
            last_log = now
            rate = (done - first) / max(now - start, 1e-9)
            left = f", {rate:.1f} per second, {duration((total - done) / rate)} left" if rate else ""
            log.info("%s: %s of %s%s", name, f"{done:,}", f"{total:,}", left)

    return progress


def _sides(text: str) -> tuple[int, ...]:
    """Parse "64,128"."""
    try:
        sides = tuple(int(part) for part in text.split(","))
    except ValueError:
        sides = ()
    if not sides or min(sides) < 16:
        raise argparse.ArgumentTypeError(f"{text!r} are not sides in pixels, 16 or more, such as 64,128")
    return sides

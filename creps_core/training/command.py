"""`creps train`."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from ...common.command import Command
from ...common.devices import device_of
from ...common.errors import CheckpointError, printable
from ...common.files import path_of
from ...common.links import DOCS
from ..checkpoints import BUILTINS, load_builtin
from ..data import ImageDataset, open_dataset
from .allocator import keep_freed_memory
from .begin import open_run
from .identity import DATA_OPTIONS
from .loop import train
from .parallel import Process, join, leave
from .presets import PRESETS
from .recipe import FINE_TUNING, LOSSES, TRAINING_PRECISIONS, Recipe
from .request import RunRequest, finished_note
from .run import Run
from .snapshot_metrics import SnapshotMetrics
from .start import StartNetworks, load_networks, networks_of
from .status import Status
from .stopping import StopSignals
from .trial_phase import estimate_step_seconds, time_note

log: logging.Logger = logging.getLogger("CREPS")

_MOST = 10**15  # of images, and of bytes
_LOG_SECONDS = 10  # from one line of progress to the next
_SHAPE = {
    "channel_base": 65536,
    "channel_max": 1024,
    "z_dim": 512,
    "w_dim": 512,
    "mapping_layers": 8,
    "biline_channels": 32,
}


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    _add_data_arguments(parser)
    _add_recipe_arguments(
        parser.add_argument_group(
            "recipe",
            "The defaults are the authors' and those of the preset. A run that is resumed keeps its own, except for "
            "what is given.",
        )
    )
    _add_network_arguments(parser.add_argument_group("new networks"))
    _add_metrics_arguments(
        parser.add_argument_group(
            "metrics", "Measured at every snapshot, of the moving average; a run that is resumed keeps them."
        )
    )
    r = parser.add_argument_group("run")
    r.add_argument("--tick", type=_count, metavar="N", help=f"pictures between lines of statistics; default {Run.tick}")
    r.add_argument(
        "--snapshot", type=_count, metavar="N", help=f"pictures between snapshots; default {Run.snapshot_every}"
    )
    r.add_argument("--keep", type=int, help=f"snapshots to keep; default {Run.keep}")
    r.add_argument("--device", help="cpu, cuda...; default: a GPU if there is one")


def _add_data_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--data", type=Path, metavar="PATH", help="folder or zip of pictures; default: those of the run")
    p.add_argument(
        "--out", type=Path, required=True, metavar="RUN", help="folder of the run; an existing run is resumed"
    )
    p.add_argument(
        "--start", metavar="FILE", help="checkpoint, snapshot or name of a built-in to fine-tune; default: new"
    )
    p.add_argument(
        "--new-data", action="store_true", help="resume a run on other pictures, or on the same ones cut otherwise"
    )
    p.add_argument(
        "--resolution", type=int, help="of the training pictures, along their longer side; default: that of the start"
    )
    p.add_argument(
        "--aspect", metavar="W:H", help="of the pictures, such as 16:9; they are cut to it; default 1:1, square"
    )
    c = p.add_mutually_exclusive_group()
    c.add_argument("--gray", action="store_const", dest="channels", const=1, help="one channel")
    c.add_argument("--alpha", action="store_const", dest="channels", const=4, help="transparency as a fourth channel")
    p.add_argument("--crop", choices=("center", "resize"), help="cut out the middle (default), or squeeze")
    p.add_argument("--mirror", action=argparse.BooleanOptionalAction, help="show flipped pictures too; default: no")
    p.add_argument(
        "--labels",
        nargs="?",
        const="file",
        choices=("file", "folders", "none"),
        help="file (also the meaning of --labels alone): those of dataset.json; folders: a picture's folder is its "
        "class",
    )
    p.add_argument("--max-side", type=int, help="with --patches: pictures are kept up to this side")
    p.add_argument("--max-pictures", type=int, help="train on a random choice of this many pictures")


def _add_recipe_arguments(g: argparse._ArgumentGroup) -> None:
    g.add_argument(
        "--images", type=_count, metavar="N", help="real pictures to show: 300000, 300k; default: by the preset"
    )
    g.add_argument(
        "--loss", choices=LOSSES, help="default nonsaturating; relativistic (experimental): R3GAN's, with R1 and R2"
    )
    g.add_argument("--batch", type=int, help="default 32, or by the preset")
    g.add_argument("--micro-batch", type=int, help="pictures at a time in a process, when memory is short")
    g.add_argument(
        "--memory", type=_bytes, metavar="N", help="choose the micro-batch so that training takes at most this: 8G"
    )
    g.add_argument("--gamma", type=float, dest="r1_gamma", help="R1; default 0.5 at 128 pixels, 2 at 256, 8 at 512")
    g.add_argument("--g-lr", type=float, help="learning rate of the generator; default 0.002")
    g.add_argument("--d-lr", type=float, help="learning rate of the discriminator; default 0.002")
    g.add_argument("--path-length", type=float, dest="pl_weight", metavar="WEIGHT", help="default 2")
    g.add_argument("--ema-images", type=float, help="longest half-life of the average; default batch * 10000 / 32")
    g.add_argument("--augment", choices=("ada", "fixed", "none"), help="default ada")
    g.add_argument("--augment-p", type=float, help="probability at the start; default 0")
    g.add_argument("--ada-target", type=float, help="default 0.6")
    g.add_argument("--freeze-d", type=int, metavar="LAYERS", help="first layers of the discriminator; default 0")
    g.add_argument("--patches", type=float, metavar="SHARE", help="of windows, for pictures that are larger; default 0")
    g.add_argument(
        "--tell-place", action="store_const", const=1, dest="d_places",
        help="with --patches: condition the discriminator on the window of the picture that it sees (experimental)",
    )  # fmt: skip
    g.add_argument(
        "--samples", type=int, help="along a pixel of generated pictures, averaged (experimental); default 1"
    )
    g.add_argument("--precision", choices=TRAINING_PRECISIONS, help="default auto: bfloat16 and TF32 on GPUs")
    g.add_argument("--seed", type=int, help="default 0")


def _add_network_arguments(n: argparse._ArgumentGroup) -> None:
    n.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        help="networks and recipe; default: what suits device, resolution and length, and published where widths are "
        "given",
    )
    n.add_argument("--model-resolution", type=int, help="levels of the generator; default: --resolution")
    for name, value in _SHAPE.items():
        n.add_argument(f"--{name.replace('_', '-')}", type=int, help=f"default {value}")
    n.add_argument("--d-channel-base", type=int, help="of the discriminator; default: half the generator's")
    n.add_argument("--d-channel-max", type=int, help="default: half the generator's")
    n.add_argument(
        "--bandwidth",
        type=float,
        help="of the Fourier frequencies, periods per picture; default: 1 per 32 pixels, up to 10",
    )


def _add_metrics_arguments(m: argparse._ArgumentGroup) -> None:
    m.add_argument(
        "--metrics", metavar="NAME,NAME...", help="such as fid5k,swd; the first decides which snapshot is best; or none"
    )
    m.add_argument(
        "--held-out",
        type=Path,
        metavar="PATH",
        help="folder or zip of pictures to measure against, which are not trained on; the generator is then that of "
        "the best snapshot. Default: the training pictures",
    )
    m.add_argument(
        "--inception", type=Path, metavar="FILE", help=f"weights for fid, kid, prc, isc: {DOCS}/evaluation.md"
    )
    m.add_argument("--vgg", type=Path, metavar="FILE", help="weights for prc as in the papers, and ppl")
    m.add_argument("--lpips", type=Path, metavar="FILE", help="weights for ppl")
    m.add_argument("--download", action="store_true", help="fetch missing weights from where they are published")


MetricsMaker = Callable[[argparse.Namespace, Run, torch.device], SnapshotMetrics | None]


def run_training(args: argparse.Namespace, make_metrics: MetricsMaker | None = None) -> None:
    """Train, from the command's arguments.

    Args:
        args: the arguments.
        make_metrics: makes what is measured of the snapshots of a run, on a device, from the arguments.
    """
    run = Run(args.out)
    with (
        StopSignals() as stop,
        _process_and_device(args) as (process, device),
        run.lock if process.is_first else nullcontext(),
    ):
        _set_intervals(run, args)
        run.metrics = make_metrics(args, run, device) if make_metrics else None
        request = request_from_arguments(args, stopped=stop)
        opened = open_run(run, request, device=device, process=process)
        trainer = opened.trainer
        log.info("%s", opened.dataset.report)
        for note in opened.notes:
            log.warning("%s", note)
        if opened.finished:
            log.info("%s", finished_note(run, trainer, request.terms))
        elif process.world == 1 and device.type == "cpu":
            stop.step_seconds = estimate_step_seconds(trainer)
            log.info("%s", time_note(trainer, stop.step_seconds))
        stop.step_begins()
        train(run, trainer, opened.dataset, progress=_progress_log(stop), stop=stop)
    if stop() and trainer.num_images < trainer.recipe.total:
        log.info("stopped after %s pictures; the same command resumes the run", f"{trainer.num_images:,}")
        raise KeyboardInterrupt
    log.info("the generator is %s", run.generator_file)


TRAIN_COMMAND = Command(
    "train", "train a generator, or fine-tune one on your images", _add_arguments, lambda args: run_training(args)
)


@contextmanager
def _process_and_device(args: argparse.Namespace) -> Iterator[tuple[Process, torch.device]]:
    """This process among those of `torchrun`, and its device, set up for training."""
    device = device_of(args.device)
    try:
        process = join()
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", process.local_rank)
            torch.cuda.set_device(device)
        torch.set_flush_denormal(True)
        if device.type == "cpu":
            keep_freed_memory()
        if args.memory and device.type == "cuda":
            total = torch.cuda.get_device_properties(device).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, args.memory / total), device)
        if not process.is_first:
            log.setLevel(logging.WARNING)
        yield process, device
    finally:
        leave()


def _progress_log(stop: StopSignals) -> Callable[[Status], None]:
    """Logs the status every few seconds, and measures steps."""
    last = 0.0

    def progress(status: Status) -> None:
        nonlocal last
        stop.step_done()
        if time.monotonic() - last > _LOG_SECONDS:
            last = time.monotonic()
            log.info("%s", status)

    return progress


def request_from_arguments(args: argparse.Namespace, stopped: Callable[[], bool] = lambda: False) -> RunRequest:
    """What the arguments ask of a run.

    Args:
        args: of the command.
        stopped: called while images are opened; True ends that with KeyboardInterrupt.
    """

    def given(names: Iterable[str], prefix: str = "") -> dict[str, Any]:
        values = {name: getattr(args, prefix + name, None) for name in names}
        return {name: value for name, value in values.items() if value is not None}

    def open_start() -> StartNetworks:
        if args.start in BUILTINS:
            return networks_of(load_builtin(args.start))
        if not Path(args.start).exists():
            names = ", ".join(BUILTINS)
            raise CheckpointError(
                f"--start names a file or a built-in ({names}); no such file: {printable(args.start, 200)}"
            )
        return load_networks(args.start)

    def check_stopped(done: int, total: int) -> None:
        if stopped():
            raise KeyboardInterrupt

    def open_data(source: str, labels: str = "none", **options: Any) -> ImageDataset:
        return open_dataset(source, use_labels=labels, progress=check_stopped, **options)

    source = str(path_of(str(args.data), Path.cwd())) if args.data else ""
    if source and not Path(source).exists():
        raise FileNotFoundError(f"--data names a folder or a zip of pictures; there is no {printable(source, 200)}")
    recipe = given(field.name for field in dataclasses.fields(Recipe))
    if args.images is not None:
        recipe["total"] = args.images
    if args.memory and args.micro_batch:
        raise ValueError("--memory chooses the --micro-batch: give one of them")
    generator = given(_SHAPE)
    if args.model_resolution:
        generator["img_resolution"] = args.model_resolution
    return RunRequest(
        open_data,
        source=source,
        start=args.start,
        open_start=open_start if args.start else None,
        recipe=recipe,
        computed=dict(FINE_TUNING) if args.start else {},
        data=given((*DATA_OPTIONS, "max_side")),
        shape=given(("resolution", "channels")),
        generator=generator,
        discriminator=given(("channel_base", "channel_max", "places"), "d_"),
        bandwidth=args.bandwidth,
        preset=args.preset,
        new_data=args.new_data,
        memory=args.memory,
    )


def _set_intervals(run: Run, args: argparse.Namespace) -> None:
    """Set how often the run is written to: as asked for, else as before."""
    before = run.description()[0].get("intervals")
    before = before if isinstance(before, dict) else {}
    for name, asked, default in (
        ("tick", args.tick, Run.tick),
        ("snapshot_every", args.snapshot, Run.snapshot_every),
        ("keep", args.keep, Run.keep),
    ):
        known = before.get(name)
        setattr(run, name, asked if asked is not None else known if type(known) is int and known > 0 else default)
    run.check()


def _bytes(text: str) -> int:
    """Bytes, such as 8G or 500M."""
    factor = {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}.get(text[-1:], 1.0)
    try:
        number = float(text[:-1] if factor > 1 else text) * factor
        if not 1 <= number <= _MOST:
            raise ValueError(f"not from 1 to {_MOST}")
        return round(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{printable(text, 60)!r} is not a size such as 8G or 500M") from None


def _count(text: str) -> int:
    """A number of images, such as 300000, 300k or 25M."""
    factor = {"k": 1000, "K": 1000, "M": 1_000_000}.get(text[-1:], 1)
    try:
        number = float(text[:-1] if factor > 1 else text) * factor
        if not 0 <= number <= _MOST:
            raise ValueError(f"beyond {_MOST}")
        return round(number)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{printable(text, 60)!r} is not a number of pictures such as 300000, 300k or 25M"
        ) from None

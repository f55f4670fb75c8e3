"""`creps train`."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...common.command import Command
from ...common.files import path_of
from .recipe import LOSSES, PRECISIONS

if TYPE_CHECKING:
    import torch

    from .begin import RunRequest
    from .run import Run
    from .snapshot_metrics import Judge

from ...common.errors import printable

log = logging.getLogger("CREPS")

_MOST = 10**15  # pictures
_SHAPE = {
    "channel_base": 65536,
    "channel_max": 1024,
    "z_dim": 512,
    "w_dim": 512,
    "mapping_layers": 8,
    "biline_channels": 32,
}
TICK, SNAPSHOT, KEEP = 1000, 20_000, 2


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    p = parser
    p.add_argument("--data", type=Path, metavar="PATH", help="folder or zip of pictures; default: those of the run")
    p.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder of the run; goes on if there is one")
    p.add_argument(
        "--start", metavar="FILE", help="checkpoint, snapshot or name of a built-in to fine-tune; default: new"
    )
    p.add_argument(
        "--new-data", action="store_true", help="go on with a run on other pictures, or on the same ones cut otherwise"
    )
    p.add_argument(
        "--resolution", type=int, help="of the pictures shown, along their longer side; default: that of the start"
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
        help="file, which is meant without a word: those of dataset.json; folders: a picture's folder is its class",
    )
    p.add_argument("--max-side", type=int, help="with --patches: pictures are kept up to this side")
    p.add_argument("--max-pictures", type=int, help="a random choice of so many")
    g = p.add_argument_group(
        "recipe", "The defaults are the authors'. A run that goes on keeps its own, except for what is given."
    )
    g.add_argument("--images", type=_count, metavar="N", help="real pictures to show: 300000, 300k; default 25M")
    g.add_argument("--loss", choices=LOSSES, help="default nonsaturating; relativistic: R3GAN's, with R1 and R2")
    g.add_argument("--batch", type=int, help="default 32")
    g.add_argument("--micro-batch", type=int, help="pictures at a time in a process, when memory is short")
    g.add_argument(
        "--memory", type=_bytes, metavar="N", help="work on as many pictures at a time as fit into so much: 8G"
    )
    g.add_argument("--gamma", type=float, dest="r1_gamma", help="R1; default 0.5 at 128 pixels, 2 at 256, 8 at 512")
    g.add_argument("--g-lr", type=float, help="default 0.002")
    g.add_argument("--d-lr", type=float, help="default 0.002")
    g.add_argument("--path-length", type=float, dest="pl_weight", metavar="WEIGHT", help="default 2")
    g.add_argument("--ema-images", type=float, help="half-life of the average; default batch * 10000 / 32")
    g.add_argument("--augment", choices=("ada", "fixed", "none"), help="default ada")
    g.add_argument("--augment-p", type=float, help="probability at the start; default 0")
    g.add_argument("--ada-target", type=float, help="default 0.6")
    g.add_argument("--freeze-d", type=int, metavar="LAYERS", help="first layers of the discriminator; default 0")
    g.add_argument("--patches", type=float, metavar="SHARE", help="of windows, for pictures that are larger; default 0")
    g.add_argument(
        "--tell-place", action="store_const", const=1, dest="d_places",
        help="with --patches: tell the discriminator which window of the picture it sees",
    )  # fmt: skip
    g.add_argument("--samples", type=int, help="along a pixel of generated pictures, averaged; default 1")
    g.add_argument("--precision", choices=PRECISIONS, help="default auto: bfloat16 and TF32 on GPUs")
    g.add_argument("--seed", type=int, help="default 0")
    n = p.add_argument_group("new networks")
    n.add_argument("--model-resolution", type=int, help="levels of the generator; default: --resolution")
    for name, value in _SHAPE.items():
        n.add_argument(f"--{name.replace('_', '-')}", type=int, help=f"default {value}")
    n.add_argument("--d-channel-base", type=int, help="of the discriminator; default: half the generator's")
    n.add_argument("--d-channel-max", type=int, help="default: half the generator's")
    n.add_argument("--bandwidth", type=float, help="of the Fourier frequencies, periods per picture; default 10")
    m = p.add_argument_group(
        "metrics", "Measured at every snapshot, of the moving average; a run that goes on keeps them."
    )
    m.add_argument(
        "--metrics", metavar="NAME,NAME...", help="such as fid5k,swd, of which the first says which is best; or none"
    )
    m.add_argument(
        "--held-out",
        type=Path,
        metavar="PATH",
        help="folder or zip of pictures to measure against, which the training does not see; then the generator is "
        "that of the best snapshot. Default: the training pictures",
    )
    m.add_argument("--inception", type=Path, metavar="FILE", help="weights for fid, kid, prc, isc; docs/evaluation.md")
    m.add_argument("--vgg", type=Path, metavar="FILE", help="weights for prc as in the papers, and ppl")
    m.add_argument("--lpips", type=Path, metavar="FILE", help="weights for ppl")
    m.add_argument("--download", action="store_true", help="fetch what is missing of them, from where it is published")
    r = p.add_argument_group("run")
    r.add_argument("--tick", type=_count, metavar="N", help=f"pictures between lines of statistics; default {TICK}")
    r.add_argument("--snapshot", type=_count, metavar="N", help=f"pictures between snapshots; default {SNAPSHOT}")
    r.add_argument("--keep", type=int, help=f"snapshots to keep; default {KEEP}")
    r.add_argument("--device", help="cpu, cuda...; default: a GPU if there is one")


JudgeMaker = Callable[[argparse.Namespace, "Run", "torch.device"], "Judge | None"]


def run_training(args: argparse.Namespace, judge: JudgeMaker | None = None) -> None:
    """Train, from the command's arguments.

    Args:
        args: the arguments.
        judge: makes what measures the snapshots of a run, on a device, from the arguments.
    """
    import torch

    from ...common.devices import device_of
    from .begin import begin, finished_note
    from .heap import keep_heap
    from .parallel import join, leave
    from .run import Run, Status, train

    device = device_of(args.device)
    asked: list[int] = []
    previous = {
        s: signal.signal(s, lambda number, frame: asked.append(number)) for s in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        process = join()
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", process.local_rank)
            torch.cuda.set_device(device)
        torch.set_flush_denormal(True)
        if device.type == "cpu":
            keep_heap()
        if not process.is_first:
            log.setLevel(logging.WARNING)
        run = Run(args.out)
        with run.lock if process.is_first else nullcontext():
            _set_intervals(run, args)
            run.judge = judge(args, run, device) if judge else None
            if args.memory and device.type == "cuda":
                total = torch.cuda.get_device_properties(device).total_memory
                torch.cuda.set_per_process_memory_fraction(min(1.0, args.memory / total), device)
            request = request_of(args, stopped=lambda: bool(asked))
            begun = begin(run, request, device=device, process=process)
            trainer = begun.trainer
            log.info("%s", begun.pictures.report)
            for note in begun.notes:
                log.warning("%s", note)
            if begun.finished:
                log.info("%s", finished_note(run, trainer, request.terms))
            said = [0.0]

            def progress(status: Status) -> None:
                if time.monotonic() - said[0] > 10:
                    said[0] = time.monotonic()
                    log.info("%s", status)

            train(run, trainer, begun.pictures, progress=progress, stop=lambda: bool(asked))
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        leave()
    if asked and not begun.finished:
        log.info("stopped after %s pictures; the same command goes on", f"{trainer.num_images:,}")
        raise KeyboardInterrupt
    log.info("the generator is %s", run.generator_file)


TRAIN_COMMAND = Command(
    "train", "train a generator, or fine-tune one on your images", _add_arguments, lambda args: run_training(args)
)


def request_of(args: argparse.Namespace, stopped: Callable[[], bool] = lambda: False) -> RunRequest:
    """What the arguments ask of a run.

    Args:
        args: of the command.
        stopped: asked while pictures are opened; True ends that with KeyboardInterrupt.
    """
    from ..checkpoints import BUILTINS, load_builtin
    from ..data import ImageDataset, open_dataset
    from .begin import RunRequest
    from .identity import DATA_OPTIONS
    from .recipe import Recipe
    from .start import Networks, load_networks, networks_of

    def given(names: Iterable[str], prefix: str = "") -> dict[str, Any]:
        values = {name: getattr(args, prefix + name, None) for name in names}
        return {name: value for name, value in values.items() if value is not None}

    def open_start() -> Networks:
        return networks_of(load_builtin(args.start)) if args.start in BUILTINS else load_networks(args.start)

    def opened(done: int, total: int) -> None:
        if stopped():
            raise KeyboardInterrupt

    def open_data(source: str, labels: str = "none", **options: Any) -> ImageDataset:
        return open_dataset(source, use_labels=labels, progress=opened, **options)

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
        source=str(path_of(str(args.data), Path.cwd())) if args.data else "",
        start=args.start,
        open_start=open_start if args.start else None,
        recipe=recipe,
        computed={"ema_rampup": 0.0, "ada_images": 100_000.0} if args.start else {},
        data=given((*DATA_OPTIONS, "max_side")),
        shape=given(("resolution", "channels")),
        generator=generator,
        discriminator=given(("channel_base", "channel_max", "places"), "d_"),
        bandwidth=args.bandwidth,
        new_data=args.new_data,
        memory=args.memory,
    )


def _set_intervals(run: Run, args: argparse.Namespace) -> None:
    """How often the run is written to, as asked for, else as before."""
    before = run.description()[0].get("intervals")
    before = before if isinstance(before, dict) else {}
    for name, asked, default in (
        ("tick", args.tick, TICK),
        ("snapshot_every", args.snapshot, SNAPSHOT),
        ("keep", args.keep, KEEP),
    ):
        known = before.get(name)
        setattr(run, name, asked if asked is not None else known if type(known) is int and known > 0 else default)
    run.check()


def _bytes(text: str) -> int:
    """8G or 500M, of bytes."""
    factor = {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}.get(text[-1:], 1.0)
    try:
        number = float(text[:-1] if factor > 1 else text) * factor
        if not 1 <= number <= _MOST:
            raise ValueError(f"not from 1 to {_MOST}")
        return round(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{printable(text, 60)!r} is not a size such as 8G or 500M") from None


def _count(text: str) -> int:
    """300000, 300k or 25M."""
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

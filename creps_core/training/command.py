"""`creps train`."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import signal
import time
from pathlib import Path

log = logging.getLogger("CREPS")

_SHAPE = {
    "channel_base": 65536,
    "channel_max": 1024,
    "z_dim": 512,
    "w_dim": 512,
    "mapping_layers": 8,
    "biline_channels": 32,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    p = parser
    p.add_argument("--data", type=Path, required=True, metavar="PATH", help="folder or zip of pictures")
    p.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder of the run; goes on if there is one")
    p.add_argument(
        "--start", metavar="FILE", help="checkpoint, snapshot or name of a built-in to fine-tune; default: new"
    )
    p.add_argument("--resolution", type=int, help="of the pictures shown; default: that of the start")
    p.add_argument("--gray", action="store_true", help="one channel")
    p.add_argument("--crop", default="center", choices=("center", "resize"), help="how pictures become square")
    p.add_argument("--mirror", action="store_true", help="show flipped pictures too")
    p.add_argument("--labels", action="store_true", help="use the labels of dataset.json")
    p.add_argument("--max-side", type=int, help="with --patches: pictures are kept up to this side")
    p.add_argument("--max-pictures", type=int, help="a random choice of so many")
    g = p.add_argument_group("recipe; the defaults are the authors'")
    g.add_argument(
        "--images", type=_count, default=25_000_000, metavar="N", help="real pictures to show: 300000, 300k, 25M"
    )
    g.add_argument("--batch", type=int, default=32)
    g.add_argument("--micro-batch", type=int, default=0, help="pictures at a time in a process, when memory is short")
    g.add_argument("--gamma", type=float, dest="r1_gamma", help="R1; default 0.5 at 128 pixels, 2 at 256, 8 at 512")
    g.add_argument("--g-lr", type=float, default=0.002)
    g.add_argument("--d-lr", type=float, default=0.002)
    g.add_argument("--path-length", type=float, default=2.0, dest="pl_weight", metavar="WEIGHT")
    g.add_argument("--ema-images", type=float, default=0.0, help="half-life of the average; default batch * 10000 / 32")
    g.add_argument("--augment", default="ada", choices=("ada", "fixed", "none"))
    g.add_argument("--augment-p", type=float, default=0.0)
    g.add_argument("--ada-target", type=float, default=0.6)
    g.add_argument("--freeze-d", type=int, default=0, metavar="LAYERS")
    g.add_argument(
        "--patches", type=float, default=0.0, metavar="SHARE", help="of windows, for pictures that are larger"
    )
    g.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16"))
    g.add_argument("--seed", type=int, default=0)
    n = p.add_argument_group("new networks")
    n.add_argument("--model-resolution", type=int, help="levels of the generator; default: --resolution")
    for name, value in _SHAPE.items():
        n.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    n.add_argument("--d-channel-base", type=int, help="of the discriminator; default: half the generator's")
    n.add_argument("--d-channel-max", type=int, help="default: half the generator's")
    n.add_argument("--bandwidth", type=float, default=10.0, help="of the Fourier frequencies, periods per picture")
    r = p.add_argument_group("run")
    r.add_argument("--tick", type=_count, default=1000, metavar="N", help="pictures between lines of statistics")
    r.add_argument("--snapshot", type=_count, default=20_000, metavar="N", help="pictures between snapshots")
    r.add_argument("--keep", type=int, default=2, help="snapshots to keep")
    r.add_argument("--device", help="cpu, cuda...; default: a GPU if there is one")


def train_command(args: argparse.Namespace) -> None:
    """Train, from the arguments of `add_arguments`."""
    import torch

    from ..data import open_pictures
    from .parallel import join, leave
    from .run import Run, Status, train

    process = join()
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", process.local_rank)
        torch.cuda.set_device(device)
    torch.set_flush_denormal(True)
    if not process.is_first:
        log.setLevel(logging.WARNING)

    run = Run(
        args.out, args.tick, args.snapshot, args.keep, {"data_source": str(args.data), "start": args.start or "new"}
    )
    trainer, open_again = _trainer(args, run, device, process)
    d = trainer.D.config
    pictures = open_again or open_pictures(args.data, **_data(args, d.img_resolution, d.img_channels))
    log.info("%s", pictures.report)
    said = [0.0]

    def progress(status: Status) -> None:
        if time.monotonic() - said[0] > 10:
            said[0] = time.monotonic()
            log.info("%s", status)

    asked: list[int] = []
    previous = {
        s: signal.signal(s, lambda number, frame: asked.append(number)) for s in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        train(run, trainer, pictures, progress=progress, stop=lambda: bool(asked))
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        leave()
    if asked:
        log.info("stopped after %s pictures; the same command goes on", f"{trainer.shown:,}")
        raise KeyboardInterrupt
    log.info("the generator is %s", args.out / "generator.safetensors")


def _trainer(args: argparse.Namespace, run, device, process):
    """The trainer of a run that is there already, or a new one (and its pictures, if they had to be opened)."""
    from ..checkpoints import BUILTINS, load_builtin
    from ..data import open_pictures
    from ..network import GeneratorConfig
    from .recipe import Recipe, r1_gamma_for
    from .snapshots import load_snapshot
    from .start import Networks, discriminator_config_for, judge_for, load_networks, networks_of, new_generator
    from .trainer import Trainer

    names = {field.name for field in dataclasses.fields(Recipe)}
    values = {name: value for name, value in vars(args).items() if name in names and value is not None}
    values["total"] = args.images
    if args.start:
        values.update(ema_rampup=0.0, ada_images=100_000.0)

    def recipe(resolution: int) -> Recipe:
        return Recipe(**{"r1_gamma": r1_gamma_for(resolution), **values})

    if found := run.snapshots():
        import json

        resolution = json.loads((run.folder / "run.json").read_text())["discriminator"]["img_resolution"]
        log.info("going on from %s", found[-1])
        return load_snapshot(found[-1], recipe=recipe(resolution), device=device, process=process), None

    networks = None
    if args.start in BUILTINS:
        networks = networks_of(load_builtin(args.start))
    elif args.start:
        networks = load_networks(args.start)
    resolution = args.resolution or (networks.G.config.img_resolution if networks else 0)
    if not resolution:
        raise ValueError(
            "--resolution is needed for a new network: a power of two, 64 or 128 on a CPU, 256 to 1024 on GPUs"
        )
    channels = networks.G.config.img_channels if networks else 1 if args.gray else 3
    pictures = open_pictures(args.data, **_data(args, resolution, channels))
    if networks is None:
        config = GeneratorConfig(
            args.model_resolution or resolution,
            img_channels=channels,
            c_dim=pictures.c_dim,
            **{name: getattr(args, name) for name in _SHAPE},
        )
        generator = new_generator(config, args.seed, args.bandwidth)
        networks = Networks(generator, generator, None)
    wanted = discriminator_config_for(networks.G.config, resolution)
    given = {"channel_base": args.d_channel_base, "channel_max": args.d_channel_max}
    wanted = dataclasses.replace(wanted, c_dim=pictures.c_dim, **{k: v for k, v in given.items() if v is not None})
    discriminator = judge_for(networks, wanted, args.seed)
    trainer = Trainer(
        networks.G, discriminator, recipe(resolution), generator_ema=networks.G_ema, device=device, process=process
    )
    return trainer, pictures


def _data(args: argparse.Namespace, resolution: int, channels: int) -> dict:
    return {
        "resolution": resolution,
        "channels": channels,
        "crop": args.crop,
        "mirror": args.mirror,
        "use_labels": args.labels,
        "max_side": args.max_side if args.patches else None,
        "max_pictures": args.max_pictures,
        "seed": args.seed,
    }


def _count(text: str) -> int:
    """300000, 300k or 25M."""
    factor = {"k": 1000, "K": 1000, "M": 1_000_000}.get(text[-1:], 1)
    try:
        return round(float(text[:-1] if factor > 1 else text) * factor)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of pictures such as 300000, 300k or 25M") from None

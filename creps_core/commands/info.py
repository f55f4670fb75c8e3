"""`creps info`: the contents of a checkpoint, and the backends of this machine."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from ...common.command import Command
from ...common.errors import printable

_MAX_DETAILS = 60


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, metavar="FILE", nargs="?")
    parser.add_argument(
        "--backends", action="store_true", help="which backends can run here, and why the others cannot"
    )


def _run(args: argparse.Namespace) -> str:
    if args.checkpoint is None and not args.backends:
        raise ValueError("give a checkpoint, or --backends")
    lines = list(_backends()) if args.backends else []
    if args.checkpoint is not None:
        lines += _checkpoint(args.checkpoint)
    return "\n".join(lines)


INFO_COMMAND = Command("info", "show what a checkpoint holds, or what this machine can do", _add_arguments, _run)


def _checkpoint(path: Path) -> Iterator[str]:
    import torch

    from ..checkpoints import inspect_checkpoint, load_generator
    from ..rendering import probe_precision

    info = inspect_checkpoint(path)
    yield f"{printable(str(path))}: {info.format}"
    yield f"networks: {', '.join(info.networks)}; parameters of the generator: {info.parameters:,}"
    values = {**info.config.to_dict(), "num_ws": info.config.num_ws, **info.details}
    for key, value in list(values.items())[:_MAX_DETAILS]:
        yield f"  {printable(str(key), 60)}: {printable(str(value))}"
    if len(values) > _MAX_DETAILS:
        yield f"  and {len(values) - _MAX_DETAILS} more"
    if torch.cuda.is_available() and "G_ema" in info.networks:
        found = probe_precision(load_generator(path).to("cuda"))
        share = f"with float16, {100 * found.share:.2f} % of the 8-bit values are within 1 of those with float32"
        yield f"  precision auto on {torch.cuda.get_device_name()}: {found.precision} ({share})"


def _backends() -> Iterator[str]:
    import torch

    from ...kernels import explain

    devices = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    for device in devices:
        for precision, reasons in explain(torch.device(device)).items():
            chosen = next((name for name, reason in reasons.items() if reason is None), "none")
            yield f"{device} {precision}: {chosen}"
            yield from (f"  not {name}: {reason}" for name, reason in reasons.items() if reason is not None)

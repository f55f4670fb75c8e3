"""`creps evaluate`: how far a generator's pictures are from real ones that it has not seen, and whether it copies."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from einops import repeat

from ..files import check_target, write_json, write_png

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ..data import Pictures
    from ..network import Generator
    from .distance import Nearest, Row

log = logging.getLogger("CREPS")

GRID = 8  # columns and rows
_SHOWN = 16  # on the sheet of nearest pictures
_SHEET_SIDE = 128  # smaller pictures are enlarged on it
_SHEET_TYPE = 14
_BATCH = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    p = parser
    g = p.add_mutually_exclusive_group(required=True)
    g.add_argument("--checkpoint", type=Path, metavar="FILE", help="official .pkl, our .safetensors, or a snapshot")
    g.add_argument("--builtin", metavar="NAME", help="built-in generator")
    p.add_argument("--data", type=Path, required=True, metavar="PATH", help="folder or zip that it was trained on")
    p.add_argument(
        "--held-out", type=Path, required=True, metavar="PATH", help="folder or zip of such pictures kept from it"
    )
    p.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for distances.json and the pictures")
    p.add_argument(
        "--count", type=int, default=4096, help="pictures of each kind; fewer where the data have fewer; default 4096"
    )
    p.add_argument(
        "--sides", type=_sides, default=(64, 128), metavar="N,N...", help="of the pictures compared; default 64,128"
    )
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
    p.add_argument("--seed", type=int, default=0, help="of all that is chosen at random")
    p.add_argument("--device", help="cpu, cuda...; default: a GPU if there is one")


def evaluate_command(args: argparse.Namespace) -> str:
    """Evaluate, from the arguments of `add_arguments`; writes the files and returns the table."""
    from ..checkpoints import load_builtin, load_generator
    from ..devices import device_of
    from ..training import sample_grid
    from .distance import distance_table

    for name, least in (("count", 1), ("nearest", 1), ("grid_side", 1), ("seed", 0)):
        if getattr(args, name) < least:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, not {getattr(args, name)}")
    if args.data.resolve() == args.held_out.resolve():
        raise ValueError(
            "--data and --held-out are the same pictures; held-out ones are such as the training has not seen"
        )
    device = device_of(args.device)
    for name in ("distances.json", "nearest.png", "grid.png"):
        check_target(args.out / name)
    generator = load_generator(args.checkpoint) if args.checkpoint else load_builtin(args.builtin)
    generator.to(device)
    enlarged: dict[str, dict[int, int]] = {"training": {}, "held_out": {}}

    def at(path: Path, small: dict[int, int]) -> Callable[[int], Iterator[Tensor]]:
        def pictures(side: int) -> Iterator[Tensor]:
            log.info("%s at %d pixels", path, side)
            with closing(_open(args, generator, path, side, args.count)) as chosen:
                many = sum(number for note, number in chosen.report.notes.items() if "enlarged" in note)
                if many:
                    small[side] = many
                    log.warning("%d of them are smaller: enlarged ones lack the detail that is to be compared", many)
                yield from _batches(chosen)

        return pictures

    rows = distance_table(
        generator,
        at(args.data, enlarged["training"]),
        at(args.held_out, enlarged["held_out"]),
        args.sides,
        normalise=args.normalise,
        seed=args.seed,
        progress=_progress(),
    )
    log.info("nearest pictures")
    side = min(args.sides)
    with (
        closing(_open(args, generator, args.data, side, None)) as training,
        closing(_open(args, generator, args.held_out, side, args.nearest)) as fresh,
    ):
        copies, sheet = _nearest(generator, training, fresh, args.nearest, side)
    result = {
        "generator": generator.name,
        "normalise": args.normalise,
        "seed": args.seed,
        "distances": [_row(row) for row in rows],
        "nearest": copies,
        "enlarged": enlarged,
    }
    write_json(args.out / "distances.json", result)
    write_png(args.out / "nearest.png", sheet)
    write_png(args.out / "grid.png", sample_grid(generator, args.grid_side, GRID, GRID))
    return f"{table(rows)}\n\n{_verdict(copies)}"


def table(rows: Sequence[Row]) -> str:
    """Distances as text: a line for the generated pictures of each side, and one for the training pictures."""
    levels = sorted({level for row in rows for level in row.fakes.levels}, reverse=True)
    head = f"{'side':>5}  {'pictures':<16}" + "".join(f"{level:>8}" for level in levels) + f"{'mean':>9}"
    lines = [
        f"sliced Wasserstein distances x 1000 from {rows[0].held_out} held-out pictures, by level of the pyramid",
        head,
    ]
    for row in rows:
        for name, found in ((f"{row.count} generated", row.fakes), (f"{row.count} training", row.reals)):
            cells = "".join(f"{found.levels[k]:8.1f}" if k in found.levels else " " * 8 for k in levels)
            lines.append(f"{row.side:>5}  {name:<16}{cells}{found.mean:9.1f}")
    return "\n".join(lines)


def _row(row: Row) -> dict[str, Any]:
    return {
        "side": row.side,
        "count": row.count,
        "held_out": row.held_out,
        "generated": row.fakes.to_dict(),
        "training": row.reals.to_dict(),
    }


def _open(args: argparse.Namespace, generator: Generator, path: Path, side: int, count: int | None) -> Pictures:
    from ..data import open_pictures

    return open_pictures(
        path,
        resolution=side,
        channels=generator.config.img_channels,
        crop=args.crop,
        aspect=":".join(map(str, generator.aspect)),
        max_pictures=count,
        seed=args.seed,
    )


def _batches(pictures: Pictures) -> Iterator[Tensor]:
    for start in range(0, len(pictures), _BATCH):
        yield pictures.pictures(range(start, min(start + _BATCH, len(pictures))))


def _nearest(
    generator: Generator, training: Pictures, fresh: Pictures, count: int, side: int
) -> tuple[dict[str, Any], np.ndarray]:
    """The nearest training pictures of generated and of held-out ones: for JSON, and as a sheet."""
    import torch

    from ..comparison import grid, labelled
    from .distance import fakes, nearest

    made, kept = torch.cat(list(fakes(generator, range(count), side))), fresh.pictures(range(len(fresh)))
    found = nearest(torch.cat([made, kept]), _batches(training))
    of_made, of_kept = (type(found)(*(field[part] for field in found)) for part in (slice(count), slice(count, None)))

    def described(names: Sequence[tuple[str, Any]], found: Nearest) -> dict[str, Any]:
        return {
            "median": found.distance.median().item(),
            "least": found.distance.min().item(),
            "pictures": [
                {key: name, "nearest": training.names[place], "mirrored": flipped, "distance": distance}
                for (key, name), place, flipped, distance in zip(
                    names, found.place.tolist(), found.mirrored.tolist(), found.distance.tolist(), strict=True
                )
            ],
        }

    def cells(pictures: Tensor, found: Nearest, titles: Sequence[str], number: int) -> list[np.ndarray]:
        twin = training.pictures([int(found.place[number])])[0]
        flipped = bool(found.mirrored[number])
        note = f"{found.distance[number].item():.4f}{', mirrored' if flipped else ''}"
        texts = (f"{titles[number]}\n", f"its nearest\n{note}")
        shown = (pictures[number], twin.flip(2) if flipped else twin)
        return [labelled(_shown(p), text, size=_SHEET_TYPE) for p, text in zip(shown, texts, strict=True)]

    pieces: list[np.ndarray] = []
    for number in range(min(_SHOWN, len(made), len(kept))):
        pieces += cells(made, of_made, [f"seed {seed}" for seed in range(count)], number)
        pieces += cells(kept, of_kept, ["held out"] * len(kept), number)
    result = {
        "training": len(training),
        "distance": "mean squared difference of pictures of 0..1 reduced to 32 pixels",
        "generated": described([("seed", seed) for seed in range(count)], of_made),
        "held_out": described([("picture", name) for name in fresh.names], of_kept),
    }
    if result["held_out"]["least"] == 0:
        log.warning("a held-out picture is among the training pictures: what is measured by it flatters the generator")
    return result, grid(pieces, 8 if len(pieces) > 4 else 4, gap=8)


def _shown(picture: Tensor) -> np.ndarray:
    """uint8 [C, S, S] as [side, side, 3], enlarged to about the side of the sheet's pictures."""
    from ..comparison import opaque

    picture = picture.expand(3, -1, -1) if len(picture) == 1 else picture
    factor = max(1, _SHEET_SIDE // picture.shape[1])
    return opaque(repeat(picture, "c h w -> (h fy) (w fx) c", fy=factor, fx=factor).contiguous().numpy())


def _verdict(copies: dict[str, Any]) -> str:
    lines = [f"mean squared difference from the nearest of {copies['training']} training pictures"]
    for key, name in (("generated", "generated"), ("held_out", "held-out")):
        found = copies[key]
        lines.append(f"{len(found['pictures']):>5} {name}: median {found['median']:.4f}, least {found['least']:.4f}")
    return "\n".join(lines)


def _progress() -> Callable[[int, int], None]:
    """Says how far it is every ten seconds."""
    said = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said > 10 and done < total:
            said = time.monotonic()
            log.info("generated %s of %s pictures", f"{done:,}", f"{total:,}")

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

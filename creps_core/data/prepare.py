"""`creps data`: a data set as the trainer would cut it, as one archive; the authors have `dataset_tool.py` for it.

Names and layout are theirs, 00000/img00000000.png and a `dataset.json` beside them, so their tools read it as well.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from ...common.command import Command
from ...common.duration import duration
from ...common.errors import DatasetError
from ...common.files import check_target, replace_file
from .dataset import ImageDataset, open_dataset
from .decode import CROPS
from .labels import FROM_FILE, FROM_FOLDERS, LABELS_FILE, NO_LABELS

log = logging.getLogger("CREPS")

_PER_FOLDER = 1000
_AT_ONCE = 64
_WHEN = (1980, 1, 1, 0, 0, 0)  # the same pictures make the same archive


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    p = parser
    p.add_argument("source", type=Path, metavar="SRC", help="folder or zip of pictures")
    p.add_argument("target", type=Path, metavar="OUT", help="the archive to write, a .zip")
    p.add_argument("--side", type=int, required=True, help="of the pictures in pixels, such as 512")
    p.add_argument("--crop", default="center", choices=CROPS, help="cut out the middle (default), or squeeze")
    c = p.add_mutually_exclusive_group()
    c.add_argument("--gray", action="store_const", dest="channels", const=1, help="one channel")
    c.add_argument("--alpha", action="store_const", dest="channels", const=4, help="with transparency")
    p.add_argument(
        "--labels",
        nargs="?",
        const=FROM_FILE,
        default=NO_LABELS,
        choices=(FROM_FILE, FROM_FOLDERS, NO_LABELS),
        help="file, which is meant without a word: those of dataset.json; folders: a picture's folder is its class",
    )
    p.add_argument("--max-pictures", type=int, help="a random choice of so many")
    p.add_argument("--seed", type=int, default=0, help="of that choice")


def _run(args: argparse.Namespace) -> None:
    """Prepare, from the command's arguments."""
    said, start = time.monotonic(), time.monotonic()

    def progress(what: str, done: int, total: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said > 10 and 0 < done < total:
            said = now
            left = duration((now - start) * (total - done) / done)
            log.info("%s: %s of %s, about %s left", what, f"{done:,}", f"{total:,}", left)

    pictures = prepare(
        args.source,
        args.target,
        side=args.side,
        channels=args.channels or 3,
        crop=args.crop,
        labels=args.labels,
        max_pictures=args.max_pictures,
        seed=args.seed,
        progress=progress,
    )
    log.info("%s", pictures.report)
    log.info("%s: %d pictures of %d x %d", args.target, len(pictures), args.side, args.side)


DATA_COMMAND = Command(
    "data", "crop images to one size and pack them, exactly as the trainer would crop them", _add_arguments, _run
)


def prepare(
    source: Path,
    target: Path,
    *,
    side: int,
    channels: int = 3,
    crop: str = "center",
    labels: str = NO_LABELS,
    max_pictures: int | None = None,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> ImageDataset:
    """Write the pictures of a folder or zip, cut as `open_dataset` cuts them, into an uncompressed zip of PNGs.

    Opened again at that side they are the same pictures, to the bit.

    Args:
        source: folder or zip.
        target: the zip file, which is there as a whole or not at all.
        side, channels, crop, max_pictures, seed: as of `open_dataset`.
        labels: its `use_labels`.
        progress: called with what is worked on, done and total; what it raises stops the work.

    Returns:
        The pictures as opened, closed.

    Raises:
        DatasetError: there is no usable picture, or the labels do not fit.
        ValueError: an argument is outside its range.
        OSError: the archive cannot be written.
    """
    if target.suffix.lower() != ".zip":
        raise ValueError(f"{target}: the archive is a zip file: give it a name that ends with .zip")
    check_target(target)
    if target.exists() and source.exists() and target.samefile(source):
        raise DatasetError(f"{target}: cannot be made of itself: give it another name")
    pictures = open_dataset(
        source,
        resolution=side,
        channels=channels,
        crop=crop,
        use_labels=labels,
        max_pictures=max_pictures,
        seed=seed,
        progress=None if progress is None else lambda done, total: progress("looked at", done, total),
    )
    with closing(pictures):
        replace_file(target, lambda file: _write(file, pictures, progress))
    return pictures


def _write(file: BinaryIO, pictures: ImageDataset, progress: Callable[[str, int, int], None] | None) -> None:
    count = len(pictures)
    names = [f"{n // _PER_FOLDER:05d}/img{n:08d}.png" for n in range(count)]
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive, ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, count, _AT_ONCE):
            some = range(start, min(start + _AT_ONCE, count))
            for number, data in zip(some, pool.map(_png, pictures.pictures(some).numpy()), strict=True):
                archive.writestr(zipfile.ZipInfo(names[number], _WHEN), data)
            if progress is not None:
                progress("written", some.stop, count)
        archive.writestr(zipfile.ZipInfo(LABELS_FILE, _WHEN), json.dumps(_labels(pictures, names)))


def _png(picture: np.ndarray) -> bytes:
    """A picture uint8 [C, side, side] as a file."""
    file = io.BytesIO()
    pixels = picture[0] if len(picture) == 1 else np.ascontiguousarray(picture.transpose(1, 2, 0))
    Image.fromarray(pixels).save(file, "PNG", compress_level=3)
    return file.getvalue()


def _labels(pictures: ImageDataset, names: list[str]) -> dict[str, object]:
    found = pictures.all_labels()
    if found is None:
        return {"labels": None}
    rows = [list(row) for row in zip(names, found.tolist(), strict=True)]
    classes = {"classes": {str(number): name for number, name in pictures.class_names.items()}}
    return {"labels": rows, **(classes if pictures.class_names else {})}

"""Draws stylised alpine scenes: sky, sun or moon, mountains, firs and a lake that mirrors them, at any hour of the day.

They are the training images of the built-in generator `alpine`. As they are drawn, nobody holds rights to them, their
number is unlimited, and each one exists at every size: a scene is a function of continuous coordinates.

    python recipes/alpine.py pictures.zip --count 20000 --side 128 --workers 2
    python recipes/alpine.py --sheet sheet.png --columns 8 --rows 8 --style simple

`draw(seed, side)` is the image of one seed: `alpine_scene`, or `alpine_simple` with few and large shapes, composes the
scene, and `alpine_paint` paints it.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))
from alpine_paint import paint
from alpine_scene import make_scene
from alpine_simple import make_simple_scene


def draw(seed: int, side: int, style: str = "rich") -> np.ndarray:
    """The scene of a seed as uint8 [side, side, 3]; the same scene at every side. A style is one of `STYLES`."""
    return paint(STYLES[style](seed), side)


STYLES = {"rich": make_scene, "simple": make_simple_scene}


def _png(seed: int, side: int, style: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(draw(seed, side, style)).save(buffer, "PNG")
    return buffer.getvalue()


def _png_of(job: tuple[int, int, str]) -> tuple[int, bytes]:
    return job[0], _png(*job)


def _pictures(seeds: range, side: int, style: str, workers: int) -> Iterator[tuple[int, bytes]]:
    jobs = ((seed, side, style) for seed in seeds)
    if workers == 1:
        yield from map(_png_of, jobs)
        return
    for library in ("OPENBLAS", "OMP", "MKL"):  # one thread in each of the workers, which read this as they start
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(_png_of, jobs, chunksize=16)


def _name(seed: int) -> str:
    return f"{seed // 1000:05d}/img{seed:08d}.png"


def write_pictures(out: Path, seeds: range, side: int, style: str, workers: int) -> None:
    """Write one PNG per seed into a folder or a .zip. The zip, or each file, gets its name only when complete."""
    pictures = _counted(_pictures(seeds, side, style, workers), len(seeds))
    if out.suffix != ".zip":
        for seed, png in pictures:
            path = out / _name(seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".partial").write_bytes(png)
            os.replace(path.with_suffix(".partial"), path)
        return
    partial = out.with_name(out.name + ".partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            for seed, png in pictures:
                archive.writestr(zipfile.ZipInfo(_name(seed)), png)  # such a ZipInfo has no timestamp
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)


def _counted(pictures: Iterator[tuple[int, bytes]], count: int) -> Iterator[tuple[int, bytes]]:
    began = time.monotonic()
    for done, picture in enumerate(pictures, 1):
        yield picture
        if done % 100 == 0 or done == count:
            rate = done / (time.monotonic() - began)
            print(f"\r{done} of {count} pictures, {rate:.0f} per second", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


def write_sheet(path: Path, first: int, columns: int, rows: int, side: int, style: str) -> None:
    sheet = Image.new("RGB", (columns * side, rows * side))
    for index in range(columns * rows):
        corner = (index % columns * side, index // columns * side)
        sheet.paste(Image.fromarray(draw(first + index, side, style)), corner)
    sheet.save(path)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draws alpine scenes: training pictures, or a sheet to look at.")
    parser.add_argument("out", nargs="?", type=Path, help="a folder, or a .zip file")
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument(
        "--style", default="rich", choices=STYLES, help="simple: few and large shapes, for small networks"
    )
    parser.add_argument("--first-seed", type=int, default=0, help="training set: 0; held-out sets: 1000000")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--sheet", type=Path, help="write a contact sheet instead")
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--rows", type=int, default=8)
    given = parser.parse_args(arguments)
    if (given.out is None) == (given.sheet is None):
        parser.error("give either OUT or --sheet")
    for name in ("count", "workers", "columns", "rows"):
        if getattr(given, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if not 16 <= given.side <= 8192:
        parser.error("--side must lie between 16 and 8192")
    if given.first_seed < 0:
        parser.error("--first-seed must not be negative")
    if given.out is not None and given.out.exists() and given.out.is_dir() == (given.out.suffix == ".zip"):
        parser.error(f"{given.out} exists and is not a {'file' if given.out.suffix == '.zip' else 'folder'}")
    if not (given.sheet or given.out).absolute().parent.is_dir():
        parser.error(f"the folder {(given.sheet or given.out).parent} does not exist")
    if given.sheet is not None and given.sheet.suffix.lower() not in (".png", ".jpg", ".webp"):
        parser.error("--sheet must end with .png, .jpg or .webp")
    if given.sheet is not None:
        write_sheet(given.sheet, given.first_seed, given.columns, given.rows, given.side, given.style)
    else:
        seeds = range(given.first_seed, given.first_seed + given.count)
        write_pictures(given.out, seeds, given.side, given.style, given.workers)


if __name__ == "__main__":
    main()

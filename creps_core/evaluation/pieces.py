"""Rows that take long to compute, piece by piece: kept in a folder meanwhile, so that work can be stopped and goes on,
and shared by processes that have that folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ...common.errors import TrainingError
from ...common.files import replace_file
from ..training import Process

PIECE = 64  # rows

Progress = Callable[[int, int], None]
Step = Callable[[int], None]
Work = Callable[[int, int, Step], Mapping[str, Tensor]]
"""Of the first row and the one after the last: columns by their names, [rows, ...] on the CPU. It says meanwhile how
many of its rows are done."""


def key_of(identity: Mapping[str, Any]) -> str:
    """A name for all that rows depend on."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]


def collect(
    work: Work,
    count: int,
    folder: Path,
    columns: tuple[str, ...],
    *,
    process: Process | None = None,
    progress: Progress | None = None,
    piece: int = PIECE,
) -> dict[str, Tensor]:
    """The rows 0 to `count`, from the folder as far as they are there.

    Args:
        work: computes some rows, at least the columns that are asked for.
        count: of rows.
        folder: for the pieces; everything that the rows depend on must be in its name.
        columns: those wanted.
        process: one of several that call this at once with the same folder; each computes its share.
        progress: called as progress(done, total); what it raises stops the work, and the pieces that are whole stay.
        piece: rows at a time.

    Returns:
        The columns; in processes but the first, nothing.

    Raises:
        TrainingError: what another process computed is not in the folder.
    """
    process = process or Process()
    starts = list(range(0, count, piece))
    missing = [start for start in starts if not _has(folder, start, min(start + piece, count), columns)]
    done = count - sum(min(start + piece, count) - start for start in missing)
    process.wait()  # before any of them writes
    if progress is not None:
        progress(done, count)
    for start in missing[process.rank :: process.world]:
        stop = min(start + piece, count)

        def step(rows: int, before: int = done) -> None:
            if progress is not None:
                progress(min(before + rows * process.world, count), count)

        made = work(start, stop, step)
        rows = {name: made[name].contiguous() for name in columns}
        replace_file(_file(folder, start), lambda file, rows=rows: file.write(save(rows)))
        done = min(done + (stop - start) * process.world, count)
    if progress is not None:
        progress(done, count)
    process.wait()
    if not process.is_first:
        return {}
    found: dict[str, list[Tensor]] = {name: [] for name in columns}
    for start in starts:
        stop = min(start + piece, count)
        if not _has(folder, start, stop, columns):
            raise TrainingError(
                f"{folder}: lacks the rows {start} to {stop - 1}: processes of torchrun need one folder that all see"
            )
        with safe_open(_file(folder, start), "pt") as file:
            for name in columns:
                found[name].append(file.get_slice(name)[: stop - start])
    return {name: torch.cat(parts) for name, parts in found.items()}


def forget(folder: Path) -> None:
    """Remove the pieces and what else lies in their folder."""
    shutil.rmtree(folder, ignore_errors=True)


def _file(folder: Path, start: int) -> Path:
    return folder / f"rows-{start:09d}.safetensors"


def _has(folder: Path, start: int, stop: int, columns: tuple[str, ...]) -> bool:
    with suppress(OSError, SafetensorError), safe_open(_file(folder, start), "pt") as file:
        names = set(file.keys())
        return all(name in names and file.get_slice(name).get_shape()[0] >= stop - start for name in columns)
    return False

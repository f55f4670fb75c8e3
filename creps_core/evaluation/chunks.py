"""Rows that take long to compute, in chunks that are files: so work can be stopped and resumed, and shared between
processes that see the same folder."""

from __future__ import annotations

import hashlib
import json
import logging
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
from ...common.files import remove_dead_partials, replace_file
from ...common.progress import Progress
from ..training import Process

log: logging.Logger = logging.getLogger("CREPS")

CHUNK_ROWS = 64

RowsDone = Callable[[int], None]
"""Called with the number of rows of the current chunk that are done."""
RowFunction = Callable[[int, int, RowsDone], Mapping[str, Tensor]]
"""Computes the rows from a first one up to, but not including, a last one: columns by name, [rows, ...] on the CPU."""


def hash_of(identity: Mapping[str, Any]) -> str:
    """24 hex digits that identify all that rows depend on."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]


def collect_rows(
    compute: RowFunction,
    count: int,
    folder: Path,
    columns: tuple[str, ...],
    *,
    process: Process | None = None,
    progress: Progress | None = None,
    chunk: int = CHUNK_ROWS,
) -> dict[str, Tensor]:
    """The rows 0 to `count` - 1, read from the folder as far as they are there.

    Args:
        compute: computes some rows, at least the given columns.
        count: number of rows.
        folder: for the chunks; its name must identify everything that the rows depend on.
        columns: the columns wanted.
        process: one of several that make this call at once with the same folder; each computes its share.
        progress: called as progress(done, total); an exception it raises stops the work, and complete chunks remain.
        chunk: rows per chunk.

    Returns:
        The columns; nothing in processes other than the first.

    Raises:
        TrainingError: what another process computed is not in the folder.
    """
    process = process or Process()
    remove_dead_partials(folder)
    starts = list(range(0, count, chunk))
    missing = [start for start in starts if not _has_rows(folder, start, min(start + chunk, count), columns)]
    done = count - sum(min(start + chunk, count) - start for start in missing)
    if 0 < done < count:
        log.info("resuming: %s of %s are done", f"{done:,}", f"{count:,}")
    process.wait()  # before any of them writes
    if progress is not None:
        progress(done, count)
    for start in missing[process.rank :: process.world]:
        stop = min(start + chunk, count)

        def rows_done(rows: int, before: int = done) -> None:
            if progress is not None:
                progress(min(before + rows * process.world, count), count)

        made = compute(start, stop, rows_done)
        rows = {name: made[name].contiguous() for name in columns}
        replace_file(_chunk_file(folder, start), lambda file, rows=rows: file.write(save(rows)))
        done = min(done + (stop - start) * process.world, count)
    if progress is not None:
        progress(done, count)
    process.wait()
    if not process.is_first:
        return {}
    return _read_rows(folder, count, columns, chunk)


def _read_rows(folder: Path, count: int, columns: tuple[str, ...], chunk: int) -> dict[str, Tensor]:
    """Rows 0 to `count` - 1 from the chunks. Raises TrainingError: some are missing."""
    found: dict[str, list[Tensor]] = {name: [] for name in columns}
    for start in range(0, count, chunk):
        stop = min(start + chunk, count)
        if not _has_rows(folder, start, stop, columns):
            raise TrainingError(
                f"{folder}: lacks the rows {start} to {stop - 1}: processes of torchrun need one folder that all see"
            )
        with safe_open(_chunk_file(folder, start), "pt") as file:
            for name in columns:
                found[name].append(file.get_slice(name)[: stop - start])
    return {name: torch.cat(chunks) for name, chunks in found.items()}


def remove_rows(folder: Path) -> None:
    """Remove the folder with its chunks."""
    shutil.rmtree(folder, ignore_errors=True)


def _chunk_file(folder: Path, start: int) -> Path:
    return folder / f"rows-{start:09d}.safetensors"


def _has_rows(folder: Path, start: int, stop: int, columns: tuple[str, ...]) -> bool:
    with suppress(OSError, SafetensorError), safe_open(_chunk_file(folder, start), "pt") as file:
        names = set(file.keys())
        return all(name in names and file.get_slice(name).get_shape()[0] >= stop - start for name in columns)
    return False

"""The statistics of a run: means over a tick, lines of `stats.jsonl`, and TensorBoard's where it is installed."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...common.files import open_file, replace_file

STATS_FILE = "stats.jsonl"
_MOST_LINE = 1 << 16  # characters
_MOST_IMAGES = 1 << 48
_MOST_VALUE = 1e30  # beyond any loss, and far from overflow in plots


def read_stats(folder: str | os.PathLike[str]) -> list[dict[str, float]]:
    """The lines of a run's `stats.jsonl`. It is a log: bad lines and bad values are skipped.

    Every line has `shown`, an int; all other values are finite numbers. Raises OSError if the file cannot be read.
    """
    return list(_lines(Path(folder) / STATS_FILE))


def forget_stats_after(folder: Path, num_images: int) -> None:
    """Drop the lines of steps that a killed run took after its last snapshot: these steps are taken again."""
    path = folder / STATS_FILE
    if path.exists():
        text = "".join(json.dumps(line) + "\n" for line in _lines(path) if line["shown"] <= num_images)
        replace_file(path, lambda file: file.write(text.encode()))


class TickMeans:
    """Means of the reports of steps since the last tick, over finite values: reports of skipped steps are not."""

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor]] = {}

    def add(self, stats: Mapping[str, Tensor]) -> None:
        """Add the reports of a step, scalars on the device."""
        for name, value in stats.items():
            self._values.setdefault(name, []).append(value)

    def take(self) -> dict[str, float]:
        """The means by name, of those that are finite, and start over. Waits for the device."""
        means = {}
        for name, scalars in self._values.items():
            values = torch.stack(scalars).cpu()
            means[name] = float(values[values.isfinite()].mean())  # nan when nothing is finite
        self._values.clear()
        return {name: mean for name, mean in means.items() if math.isfinite(mean)}


class StatsLog:
    """Appends to `stats.jsonl`, and to TensorBoard's events where `tensorboard` is installed."""

    def __init__(self, folder: Path):
        self._path = folder / STATS_FILE
        self._board = _tensorboard(folder)

    def append(self, line: Mapping[str, float], values: Mapping[str, float]) -> None:
        """Append a line, which has `shown`; TensorBoard gets the values alone.

        Raises:
            OSError: the file cannot be written.
        """
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self._board:
            for name, value in values.items():
                self._board.add_scalar(name, value, line["shown"])

    def close(self) -> None:
        """Flush what TensorBoard's writer holds."""
        if self._board:
            self._board.close()


def _lines(path: Path) -> Iterator[dict[str, float]]:
    try:
        with open_file(path) as file, io.TextIOWrapper(io.BufferedReader(file), "utf-8", "replace") as lines:
            while text := lines.readline(_MOST_LINE):
                if line := _parse_line(text):
                    yield line
    except FileNotFoundError:
        return


def _parse_line(text: str) -> dict[str, float] | None:
    """The finite numbers of a line; None if it is no line of statistics."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or type(shown := line.get("shown")) is not int or not 0 <= shown <= _MOST_IMAGES:
        return None
    return {name: value for name, value in line.items() if type(value) in (int, float) and abs(value) <= _MOST_VALUE}


def _tensorboard(folder: Path):
    """TensorBoard's writer; None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))

"""Labels of a data set: `dataset.json` beside the pictures."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import DatasetError
from .sources import Source, Unusable, printable

LABELS_FILE = "dataset.json"
MAX_CLASSES = 1 << 16
"""Classes, or numbers of a label."""
_MAX_LABELS_FILE = 1 << 28  # bytes


@dataclass(frozen=True)
class Labels:
    """Labels by the name of the picture: rows of `values`, class numbers [K] or vectors [K, c_dim]."""

    rows: dict[str, int]
    values: np.ndarray
    c_dim: int


def is_labels(name: str) -> bool:
    """Whether a file of this name holds the labels of a data set."""
    return name.rpartition("/")[2] == LABELS_FILE


def read_labels(files: Source, names: Collection[str]) -> Labels:
    """Labels of `dataset.json`; beside the pictures, or in the one folder that holds everything.

    Args:
        files: the folder or archive.
        names: its pictures.

    Raises:
        DatasetError: there is no such file, or it does not fit the pictures; names the entry.
    """
    tops = {name.partition("/")[0] for name in names if "/" in name}
    inside = f"{tops.pop()}/" if len(tops) == 1 and all("/" in name for name in names) else ""
    place = next((place for place in ("", inside) if place + LABELS_FILE in files.names), None)
    example = '{"labels": [["picture.png", 3], ...]}, with a class number or a list of numbers for each picture'
    if place is None:
        raise DatasetError(
            f"{files.path}: labels are wanted, but there is no {LABELS_FILE}; put one beside the pictures: {example}"
        )
    where = f"{files.path}: {place}{LABELS_FILE}"
    try:
        content = json.loads(files.read(place + LABELS_FILE, _MAX_LABELS_FILE))
    except (Unusable, ValueError, RecursionError) as error:
        raise DatasetError(f"{where} cannot be read: {error}") from error
    entries = content.get("labels") if isinstance(content, dict) else None
    if entries is None:
        raise DatasetError(f"{where} has no labels; it should be {example}")
    if not isinstance(entries, list):
        raise DatasetError(f"{where}: its labels are {_short(entries)}, not a list; it should be {example}")
    # Pictures that cannot be used may have labels all the same.
    return _parsed(entries, place, {*names, *(name for name, _ in files.skipped)}, where)


def _parsed(entries: Sequence[Any], place: str, names: Collection[str], where: str) -> Labels:
    rows: dict[str, int] = {}
    classes: list[int] = []
    vectors: list[np.ndarray] = []
    for entry in entries:
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
            raise DatasetError(f"{where}: {_short(entry)} is not a name with a label, [name, label]")
        # Some tools write them on Windows.
        name, label = place + entry[0].replace("\\", "/"), entry[1]
        if name not in names:
            raise DatasetError(
                f"{where}: a label for {_short(entry[0])}, but there is no such picture; names are relative to "
                f"{LABELS_FILE}, with / between folders"
            )
        if name in rows:
            raise DatasetError(f"{where}: two labels for {_short(entry[0])}; leave one of them out")
        if label is None:
            continue
        rows[name] = len(rows)
        if type(label) is int and 0 <= label < MAX_CLASSES:
            classes.append(label)
        elif not isinstance(label, list):
            raise DatasetError(
                f"{where}: the label of {_short(entry)} must be a class number from 0 to {MAX_CLASSES - 1}, or a list "
                "of numbers"
            )
        elif not all(_is_number(value) for value in label):
            raise DatasetError(f"{where}: the label of {_short(entry)} has values that are not finite numbers")
        else:
            length = len(vectors[0]) if vectors else len(label)
            if len(label) != length or not 1 <= length <= MAX_CLASSES:
                expected = length if vectors else f"1 to {MAX_CLASSES}"
                raise DatasetError(f"{where}: the label of {_short(entry)} has {len(label)} numbers, not {expected}")
            vectors.append(np.array(label, np.float32))
        if classes and vectors:
            raise DatasetError(
                f"{where}: class numbers and lists of numbers are mixed, the first time in {_short(entry)}"
            )
    if not rows:
        raise DatasetError(f"{where} has no labels; give one to each picture, or train without labels")
    if classes:
        return Labels(rows, np.array(classes, np.int64), max(classes) + 1)
    return Labels(rows, np.stack(vectors), len(vectors[0]))


def _is_number(value: object) -> bool:
    if type(value) is float:
        return abs(value) <= float(np.finfo(np.float32).max)  # not so for what is not a number
    return type(value) is int and abs(value) < 1 << 64


def _short(value: object) -> str:
    text = printable(json.dumps(value))
    return text if len(text) <= 80 else text[:77] + "..."

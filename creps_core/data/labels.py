"""Labels of a data set: `dataset.json` beside the pictures, or the folders that they lie in."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...common.errors import DatasetError
from .kinds import canonical, printable
from .sources import Source, Unusable

LABELS_FILE = "dataset.json"
FROM_FILE, FROM_FOLDERS, NO_LABELS = "file", "folders", "none"
LABELS = (NO_LABELS, FROM_FILE, FROM_FOLDERS)
"""Where labels may come from."""
MAX_CLASSES = 1 << 16
"""Classes, or numbers of a label."""
_MAX_LABELS_FILE = 1 << 28  # bytes
_EXAMPLE = '{"labels": [["picture.png", 3], ...]}, with a class number or a list of numbers for each picture'


@dataclass(frozen=True)
class Labels:
    """Labels by the name of the picture: rows of `values`, class numbers [K] or vectors [K, c_dim]."""

    rows: dict[str, int]
    values: np.ndarray
    c_dim: int
    names: dict[int, str] = field(default_factory=dict)
    """Of classes, as far as they have any."""


def is_labels(name: str) -> bool:
    """Whether a file of this name holds the labels of a data set."""
    return name.rpartition("/")[2] == LABELS_FILE


def holds_labels(files: Source) -> bool:
    """Whether one of these files is a `dataset.json` with labels; also where it cannot be read."""
    for name in filter(is_labels, files.names):
        try:
            content = json.loads(files.read(name, _MAX_LABELS_FILE))
        except (Unusable, ValueError, RecursionError):
            return True
        if not isinstance(content, dict) or content.get("labels", True):
            return True
    return False


def labels_from_folders(files: Source, names: Sequence[str]) -> Labels:
    """The outermost folder of each picture as its class; folders around everything do not count.

    Classes are numbered in the order of their names, or by their names where all are numbers. Pictures beside the
    folders have none.

    Raises:
        DatasetError: there are no folders to tell the pictures apart.
    """
    around = _around_everything(names)
    folders = {name: name[len(around) :].partition("/")[0] for name in names if "/" in name[len(around) :]}
    found = sorted(set(folders.values()), key=lambda name: (canonical(name).lower(), name))
    if len(found) < 2:
        raise DatasetError(
            f"{files.path.name}: labels are wanted from folders, and the pictures lie in {len(found) or 'no'} folder"
            f"{f', {printable(found[0])!r}' if found else ''}; put those of each class into a folder of its own"
        )
    numbers = {name: int(name) for name in found if re.fullmatch(r"\d{1,5}", name)}
    if len(numbers) < len(found) or len(set(numbers.values())) < len(found) or max(numbers.values()) >= MAX_CLASSES:
        numbers = {name: number for number, name in enumerate(found)}
    rows = {name: row for row, name in enumerate(folders)}
    values = np.array([numbers[folder] for folder in folders.values()], np.int64)
    named = {number: canonical(name) for name, number in numbers.items()}
    return Labels(rows, values, max(numbers.values()) + 1, named)


def read_labels(files: Source, names: Collection[str]) -> Labels:
    """Labels of `dataset.json`: of the one beside the pictures, or else the only one that there is.

    Args:
        files: the folder or archive.
        names: its pictures.

    Raises:
        DatasetError: there is no such file, or it does not fit the pictures; names the entry.
    """
    places = sorted(name.removesuffix(LABELS_FILE) for name in files.names if is_labels(name))
    if not places:
        raise DatasetError(
            f"{files.path.name}: labels are wanted, but there is no {LABELS_FILE}; put one beside the pictures: "
            f"{_EXAMPLE}"
        )
    if "" not in places and len(places) > 1:
        raise DatasetError(
            f"{files.path.name}: labels are wanted, and there is a {LABELS_FILE} in {len(places)} folders, "
            f"{', '.join(printable(place) for place in places[:3])} among them: put one for all at the top"
        )
    place = places[0]
    where = f"{files.path.name}: {place}{LABELS_FILE}"
    try:
        content = json.loads(files.read(place + LABELS_FILE, _MAX_LABELS_FILE))
    except (Unusable, ValueError, RecursionError) as error:
        raise DatasetError(f"{where} cannot be read: {error}") from error
    entries = content.get("labels") if isinstance(content, dict) else None
    if entries is None:
        raise DatasetError(f"{where} has no labels; it should be {_EXAMPLE}")
    if not isinstance(entries, list):
        raise DatasetError(f"{where}: its labels are {_short(entries)}, not a list; it should be {_EXAMPLE}")
    # Pictures that cannot be used may have labels all the same.
    labels = _parsed(entries, place, [*names, *(name for name, _ in files.skipped)], where)
    return Labels(labels.rows, labels.values, labels.c_dim, _class_names(content, labels))


def _class_names(content: dict[str, Any], labels: Labels) -> dict[int, str]:
    """{"classes": ["cat", "dog"]} or {"classes": {"10": "cat"}} of a file of labels, as far as it can be read."""
    found = content.get("classes")
    pairs = enumerate(found) if isinstance(found, list) else found.items() if isinstance(found, dict) else ()
    if labels.values.ndim > 1:
        return {}
    names = {int(number): name for number, name in pairs if str(number).isdecimal() and isinstance(name, str)}
    return {number: canonical(name)[:200] for number, name in names.items() if number < labels.c_dim and name}


def _around_everything(names: Collection[str]) -> str:
    """The folders that all pictures lie in, with "/" at the end: "a/b/"."""
    parts = [name.split("/")[:-1] for name in names]
    common = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        common.append(level[0])
    return "".join(f"{part}/" for part in common)


def _parsed(entries: Sequence[Any], place: str, names: Sequence[str], where: str) -> Labels:
    known = set(names)
    # As their systems write them, letters with accents may be one character or two.
    spellings = Counter(canonical(name) for name in known)
    by_canonical = {canonical(name): name for name in known if spellings[canonical(name)] == 1}
    rows: dict[str, int] = {}
    classes: list[int] = []
    vectors: list[np.ndarray] = []
    for entry in entries:
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
            raise DatasetError(f"{where}: {_short(entry)} is not a name with a label, [name, label]")
        label = entry[1]
        # Some tools write them on Windows, or as a shell completes them.
        parts = entry[0].replace("\\", "/").split("/")
        name = place + "/".join(part for part in parts if part not in ("", "."))
        name = name if name in known else by_canonical.get(canonical(name), name)
        if name not in known:
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
    text = printable(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= 80 else text[:77] + "..."

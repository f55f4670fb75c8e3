"""Labels of a dataset, from `dataset.json` beside the images or from the names of their folders."""

from __future__ import annotations

import json
import re
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...common.errors import DatasetError
from .file_types import mask_unprintable, normalize_name
from .labels_file import iterate_labels_file
from .sources import ImageSource, UnusableFile

LABELS_FILE = "dataset.json"
FROM_FILE, FROM_FOLDERS, NO_LABELS = "file", "folders", "none"
LABEL_SOURCES = (NO_LABELS, FROM_FILE, FROM_FOLDERS)
"""Where labels may come from."""
MAX_CLASSES = 1 << 16
"""Limit of the number of classes, or of the length of a label vector."""
_MAX_LABELS_FILE = 1 << 28  # bytes
_EXAMPLE = '{"labels": [["picture.png", 3], ...]}, with a class number or a list of numbers for each picture'


@dataclass(frozen=True)
class Labels:
    """Labels of images.

    Attributes:
        rows: row of `values` by the name of the image.
        values: class numbers, int64 [K], or vectors, float32 [K, c_dim].
        c_dim: number of classes, or length of the vectors.
        names: of the classes that have one, by number.
    """

    rows: dict[str, int]
    values: np.ndarray
    c_dim: int
    names: dict[int, str] = field(default_factory=dict)


def is_labels_file(name: str) -> bool:
    """Whether a file of this name is `dataset.json`, in any folder."""
    return name.rpartition("/")[2] == LABELS_FILE


def has_labels_file(files: ImageSource) -> bool:
    """Whether there is a `dataset.json` with labels, or one that cannot be read."""
    for name in filter(is_labels_file, files.names):
        named = False
        try:
            for key, is_entry, value in iterate_labels_file(files.read(name, _MAX_LABELS_FILE)):
                if key == "labels":
                    named = True
                    if is_entry or value:
                        return True
        except (UnusableFile, ValueError, RecursionError):
            return True
        if not named:
            return True
    return False


def labels_from_folders(files: ImageSource, names: Sequence[str]) -> Labels:
    """The outermost folder of each image as its class, below any folders that contain all images.

    Classes are numbered in the order of their names, or by their names if all are numbers. Images outside the folders
    have no label.

    Raises:
        DatasetError: there are fewer than two folders.
    """
    prefix = _common_folder(names)
    folders = {name: name[len(prefix) :].partition("/")[0] for name in names if "/" in name[len(prefix) :]}
    found = sorted(set(folders.values()), key=lambda name: (normalize_name(name).lower(), name))
    if len(found) < 2:
        raise DatasetError(
            f"{files.path.name}: labels are wanted from folders, and the pictures lie in {len(found) or 'no'} folder"
            f"{f', {mask_unprintable(found[0])!r}' if found else ''}; put those of each class into a folder of its own"
        )
    numbers = {name: int(name) for name in found if re.fullmatch(r"\d{1,5}", name)}
    if len(numbers) < len(found) or len(set(numbers.values())) < len(found) or max(numbers.values()) >= MAX_CLASSES:
        numbers = {name: number for number, name in enumerate(found)}
    rows = {name: row for row, name in enumerate(folders)}
    values = np.array([numbers[folder] for folder in folders.values()], np.int64)
    named = {number: normalize_name(name) for name, number in numbers.items()}
    return Labels(rows, values, max(numbers.values()) + 1, named)


def read_labels(files: ImageSource, names: Collection[str]) -> Labels:
    """Labels from the `dataset.json` at the top, or else from the only one that there is.

    Args:
        files: the folder or archive.
        names: its images.

    Raises:
        DatasetError: there is no such file, or an entry, which is named, does not fit the images.
    """
    folders = sorted(name.removesuffix(LABELS_FILE) for name in files.names if is_labels_file(name))
    if not folders:
        raise DatasetError(
            f"{files.path.name}: labels are wanted, but there is no {LABELS_FILE}; put one beside the pictures: "
            f"{_EXAMPLE}"
        )
    if "" not in folders and len(folders) > 1:
        raise DatasetError(
            f"{files.path.name}: labels are wanted, and there is a {LABELS_FILE} in {len(folders)} folders, "
            f"{', '.join(mask_unprintable(folder) for folder in folders[:3])} among them: put one for all at the top"
        )
    folder = folders[0]
    where = f"{files.path.name}: {folder}{LABELS_FILE}"
    content: dict[str, Any] = {}

    def entries() -> Iterable[Any]:
        for key, is_entry, value in iterate_labels_file(files.read(folder + LABELS_FILE, _MAX_LABELS_FILE)):
            if is_entry:
                yield value
            elif key in ("labels", "classes"):
                if key == "labels" and content.get(key) is not None:
                    raise ValueError('two lists of "labels"')
                content[key] = value

    try:
        # Unusable images may have labels too.
        labels = _parse_labels(entries(), folder, [*names, *(name for name, _ in files.skipped)], where)
    except DatasetError:
        raise
    except (UnusableFile, ValueError, RecursionError) as error:
        raise DatasetError(f"{where} cannot be read: {error}") from error
    found = content.get("labels")
    if found is None:
        raise DatasetError(f"{where} has no labels; it should be {_EXAMPLE}")
    if not isinstance(found, list):
        raise DatasetError(f"{where}: its labels are {_quote_json(found)}, not a list; it should be {_EXAMPLE}")
    if labels is None:
        raise DatasetError(f"{where} has no labels; give one to each picture, or train without labels")
    return Labels(labels.rows, labels.values, labels.c_dim, _class_names(content, labels))


def _class_names(content: dict[str, Any], labels: Labels) -> dict[int, str]:
    """Class names from {"classes": ["cat", "dog"]} or {"classes": {"10": "cat"}}; what is malformed is ignored."""
    found = content.get("classes")
    pairs = enumerate(found) if isinstance(found, list) else found.items() if isinstance(found, dict) else ()
    if labels.values.ndim > 1:
        return {}
    names = {int(number): name for number, name in pairs if str(number).isdecimal() and isinstance(name, str)}
    return {number: normalize_name(name)[:200] for number, name in names.items() if number < labels.c_dim and name}


def _common_folder(names: Collection[str]) -> str:
    """The innermost folder that contains all images, such as "a/b/"."""
    parts = [name.split("/")[:-1] for name in names]
    common = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        common.append(level[0])
    return "".join(f"{part}/" for part in common)


def _parse_labels(entries: Iterable[Any], folder: str, names: Sequence[str], where: str) -> Labels | None:
    """The labels of images; None: no image has one."""
    known = set(names)
    # The name in the file and that on the disk may differ in Unicode normalization.
    spellings = Counter(normalize_name(name) for name in known)
    by_canonical = {normalize_name(name): name for name in known if spellings[normalize_name(name)] == 1}
    rows: dict[str, int] = {}
    classes: list[int] = []
    vectors, length = array("f"), 0
    seen: set[str] = set()
    for entry in entries:
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
            raise DatasetError(f"{where}: {_quote_json(entry)} is not a name with a label, [name, label]")
        label = entry[1]
        # Tools write backslashes on Windows, and "./" as a shell completes it.
        parts = entry[0].replace("\\", "/").split("/")
        name = folder + "/".join(part for part in parts if part not in ("", "."))
        name = name if name in known else by_canonical.get(normalize_name(name), name)
        if name not in known:
            raise DatasetError(
                f"{where}: a label for {_quote_json(entry[0])}, but there is no such picture; names are relative to "
                f"{LABELS_FILE}, with / between folders"
            )
        if name in seen:
            raise DatasetError(f"{where}: two labels for {_quote_json(entry[0])}; leave one of them out")
        seen.add(name)
        if label is None:
            continue
        rows[name] = len(rows)
        if type(label) is int and 0 <= label < MAX_CLASSES:
            classes.append(label)
        elif not isinstance(label, list):
            raise DatasetError(
                f"{where}: the label of {_quote_json(entry)} must be a class number from 0 to {MAX_CLASSES - 1}, or a "
                "list of numbers"
            )
        elif not all(_is_number(value) for value in label):
            raise DatasetError(f"{where}: the label of {_quote_json(entry)} has values that are not finite numbers")
        else:
            if len(label) != (length or len(label)) or not 1 <= len(label) <= MAX_CLASSES:
                expected = length or f"1 to {MAX_CLASSES}"
                raise DatasetError(
                    f"{where}: the label of {_quote_json(entry)} has {len(label)} numbers, not {expected}"
                )
            length = len(label)
            vectors.extend(label)
        if classes and vectors:
            raise DatasetError(
                f"{where}: class numbers and lists of numbers are mixed, the first time in {_quote_json(entry)}"
            )
    if not rows:
        return None
    if classes:
        return Labels(rows, np.array(classes, np.int64), max(classes) + 1)
    return Labels(rows, np.frombuffer(vectors, np.float32).reshape(len(rows), length), length)


def _is_number(value: object) -> bool:
    if type(value) is float:
        return abs(value) <= float(np.finfo(np.float32).max)  # False for NaN
    return type(value) is int and abs(value) < 1 << 64


def _quote_json(value: object) -> str:
    text = mask_unprintable(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= 80 else text[:77] + "..."

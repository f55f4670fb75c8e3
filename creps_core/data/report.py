"""What was done with each file of a dataset, summarized on one screen."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .file_types import mask_unprintable

_EXAMPLES, _GROUPS, _CLASSES = 3, 8, 12


@dataclass(frozen=True)
class DatasetReport:
    """What was done with each file of a dataset.

    Attributes:
        used: number of images.
        skipped: names and reasons.
        notes: unexpected changes to images, such as a conversion, with the number of images.
        duplicates: groups of names with identical files.
        classes: description of the labels.
        hints: options that the user may have forgotten.
    """

    used: int
    skipped: list[tuple[str, str]]
    notes: dict[str, int]
    duplicates: list[list[str]] = field(default_factory=list)
    classes: str = ""
    hints: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """One screen: reasons and notes with counts and three examples each."""
        lines = [f"{self.used:,} {'picture' if self.used == 1 else 'pictures'}"]
        notes = sorted(self.notes.items(), key=lambda entry: -entry[1])
        lines += _limit([f"  {count:,} {note}" for note, count in notes], "notes")
        if self.duplicates:
            count = sum(len(names) - 1 for names in self.duplicates)
            examples = [" = ".join(names[:2]) for names in self.duplicates]
            lines.append(f"  {count:,} the same as others: {_examples(examples)}")
        if self.skipped:
            lines.append(f"{len(self.skipped):,} skipped")
            lines += _limit([f"  {line}" for line in _grouped(self.skipped)], "reasons")
        return "\n".join([*lines, *([self.classes] if self.classes else []), *self.hints])


def describe_labels(values: np.ndarray, c_dim: int, names: Mapping[int, str]) -> str:
    """The classes with their numbers of images, or the number of distinct label vectors, in one or two lines.

    Args:
        values: labels of the images, int64 [n] classes or float32 [n, c_dim].
        c_dim: number of classes, or length of a label vector.
        names: of classes, by number.
    """
    found, counts = np.unique(values, axis=0, return_counts=True)
    if values.ndim > 1:
        return f"labels of {c_dim} numbers, {len(found):,} different ones"
    titles = {number: f" ({mask_unprintable(name)})" for number, name in names.items()}
    pairs = zip(found.tolist(), counts.tolist(), strict=True)
    lines = [f"{number}{titles.get(number, '')}: {count:,}" for number, count in pairs]
    rest = f" and {len(lines) - _CLASSES:,} more" if len(lines) > _CLASSES else ""
    text = f"{len(found):,} of {c_dim:,} classes have pictures: {', '.join(lines[:_CLASSES])}{rest}"
    missing = c_dim - len(found)
    if not missing:
        return text.replace(f"{len(found):,} of {c_dim:,} classes have pictures", f"{c_dim:,} classes")
    present = set(found.tolist())
    without = [number for number in range(c_dim) if number not in present]
    return f"{text}\n  without pictures: {_ranges(without)}; they will not be learnt"


def _grouped(skipped: Sequence[tuple[str, str]]) -> list[str]:
    """One line per reason, the most frequent first. Reasons that differ only in numbers or details are merged."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, reason in skipped:
        key = re.sub(r"\d+", "#", reason.partition(" (")[0])
        groups.setdefault(key, []).append((name, reason))
    ordered = sorted(groups.values(), key=len, reverse=True)
    return [f"{len(group):,} {group[0][1]}: {_examples([name for name, _ in group])}" for group in ordered]


def _examples(names: Sequence[str]) -> str:
    return ", ".join(names[:_EXAMPLES]) + (", ..." if len(names) > _EXAMPLES else "")


def _limit(lines: list[str], what: str) -> list[str]:
    return lines[:_GROUPS] + ([f"  and {len(lines) - _GROUPS} other {what}"] if len(lines) > _GROUPS else [])


def _ranges(numbers: Sequence[int]) -> str:
    """Numbers as ranges, such as 0-9, 11, 13-19; the first few."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    texts = [f"{first}-{last}" if last > first else f"{first}" for first, last in runs]
    return ", ".join(texts[:_CLASSES]) + (", ..." if len(texts) > _CLASSES else "")

"""What became of the files of a data set, on one screen."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .kinds import printable

_EXAMPLES, _GROUPS, _CLASSES = 3, 8, 12


@dataclass(frozen=True)
class Report:
    """What became of the files of a data set.

    Attributes:
        used: pictures.
        skipped: names and reasons.
        notes: what was done to pictures that one may not expect, and to how many.
        duplicates: names of pictures whose files are the same.
        classes: which labels there are, in words.
        hints: what the user may have forgotten.
    """

    used: int
    skipped: list[tuple[str, str]]
    notes: dict[str, int]
    duplicates: list[list[str]] = field(default_factory=list)
    classes: str = ""
    hints: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """One screen: reasons and notes with their counts, three examples each."""
        lines = [f"{self.used:,} {'picture' if self.used == 1 else 'pictures'}"]
        notes = sorted(self.notes.items(), key=lambda entry: -entry[1])
        lines += _first([f"  {count:,} {note}" for note, count in notes], "notes")
        if self.duplicates:
            count = sum(len(names) - 1 for names in self.duplicates)
            examples = [" = ".join(names[:2]) for names in self.duplicates]
            lines.append(f"  {count:,} the same as others: {_examples(examples)}")
        if self.skipped:
            lines.append(f"{len(self.skipped):,} skipped")
            lines += _first([f"  {line}" for line in _grouped(self.skipped)], "reasons")
        return "\n".join([*lines, *([self.classes] if self.classes else []), *self.hints])


def described_labels(values: np.ndarray, c_dim: int, names: Mapping[int, str]) -> str:
    """The classes of pictures with their counts, or the different lists of numbers, in one line or two.

    Args:
        values: int64 [n] classes or float32 [n, c_dim] of the pictures.
        c_dim: classes, or numbers of a label.
        names: of classes.
    """
    found, counts = np.unique(values, axis=0, return_counts=True)
    if values.ndim > 1:
        return f"labels of {c_dim} numbers, {len(found):,} different ones"
    titles = [f"{number}{f' ({printable(names[number])})' if number in names else ''}" for number in found.tolist()]
    shown = [f"{title}: {count:,}" for title, count in zip(titles, counts.tolist(), strict=True)]
    rest = f" and {len(shown) - _CLASSES:,} more" if len(shown) > _CLASSES else ""
    text = f"{len(found):,} of {c_dim:,} classes have pictures: {', '.join(shown[:_CLASSES])}{rest}"
    missing = c_dim - len(found)
    if not missing:
        return text.replace(f"{len(found):,} of {c_dim:,} classes have pictures", f"{c_dim:,} classes")
    taken = set(found.tolist())
    without = [number for number in range(c_dim) if number not in taken]
    return f"{text}\n  without pictures: {_ranges(without)}; they will not be learnt"


def _grouped(skipped: Sequence[tuple[str, str]]) -> list[str]:
    """One line a reason, the most frequent first. Reasons that differ in numbers or details are one."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, reason in skipped:
        key = re.sub(r"\d+", "#", reason.partition(" (")[0])
        groups.setdefault(key, []).append((name, reason))
    ordered = sorted(groups.values(), key=len, reverse=True)
    return [f"{len(group):,} {group[0][1]}: {_examples([name for name, _ in group])}" for group in ordered]


def _examples(names: Sequence[str]) -> str:
    return ", ".join(names[:_EXAMPLES]) + (", ..." if len(names) > _EXAMPLES else "")


def _first(lines: list[str], what: str) -> list[str]:
    return lines[:_GROUPS] + ([f"  and {len(lines) - _GROUPS} other {what}"] if len(lines) > _GROUPS else [])


def _ranges(numbers: Sequence[int]) -> str:
    """0-9, 11, 13-19 and so on; the first few of them."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    texts = [f"{first}-{last}" if last > first else f"{first}" for first, last in runs]
    return ", ".join(texts[:_CLASSES]) + (", ..." if len(texts) > _CLASSES else "")

"""Labels of a conditional generator: those of its training images, how frequent each is, and their names."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ...common.class_names import composed_name, folded_name
from ...common.errors import quoted

Label = int | str | Sequence[float]
"""A class by number or name, or the numbers of a label vector, also as text: "0.5, -1"."""
_NAMED, _LISTED = 5, 12  # in messages
_DRAW = 0x1ABE1  # separates the random stream of labels from those of latents


@dataclass(frozen=True)
class LabelSet:
    """The labels of the images that a generator was trained on.

    Attributes:
        values: distinct labels: classes int64 [K], or vectors float32 [K, c_dim].
        counts: number of images of each, [K].
        names: of classes that have one.
    """

    values: Tensor
    counts: Tensor
    names: Mapping[int, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """A description for messages: the first classes with their counts."""
        if self.values.ndim > 1:
            return f"{len(self.values):,} different ones of {self.values.shape[1]} numbers"
        pairs = list(zip(self.values.tolist(), self.counts.tolist(), strict=True))
        listed = [
            f"{n}{f' ({self.names[n]})' if n in self.names else ''}: {count:,.0f}" for n, count in pairs[:_LISTED]
        ]
        return ", ".join(listed) + (f" and {len(pairs) - _LISTED:,} more" if len(pairs) > _LISTED else "")

    def draw(self, seed: int, c_dim: int) -> Tensor:
        """The label of a seed, float32 [c_dim], distributed as among the training images."""
        return self.sample(np.random.RandomState([seed & 0xFFFFFFFF, seed >> 32, _DRAW]), 1, c_dim)[0]

    def sample(self, rng: np.random.RandomState, count: int, c_dim: int) -> Tensor:
        """Labels drawn at random, float32 [count, c_dim]."""
        ends = self.counts.double().cumsum(0).numpy()
        rows = np.searchsorted(ends, rng.random_sample(count) * ends[-1], "right").clip(0, len(ends) - 1)
        return torch.stack([self.vector(row, c_dim) for row in rows.tolist()])

    def vector(self, row: int, c_dim: int) -> Tensor:
        """A row of `values` as the generator's input, float32 [c_dim]."""
        value = self.values[row]
        return one_hot(int(value), c_dim) if self.values.ndim == 1 else value.float()

    def mean(self, c_dim: int) -> Tensor:
        """The mean label, float32 [c_dim]."""
        weights = (self.counts.double() / self.counts.sum()).float()
        if self.values.ndim > 1:
            return weights @ self.values.float()
        return torch.zeros(c_dim).index_add_(0, self.values, weights)

    def title(self, c: Tensor) -> str:
        """The title of a label c [c_dim]: the name or number of its class; empty for label vectors."""
        if self.values.ndim > 1:
            return ""
        number = int(c.argmax())
        return self.names.get(number, f"class {number}")


def one_hot(label: int, classes: int) -> Tensor:
    """The label vector of a class, [classes] float32.

    Raises:
        ValueError: there is no such class.
    """
    if not 0 <= label < classes:
        raise ValueError(f"label must be from 0 to {classes - 1} for this generator, not {label}")
    vector = torch.zeros(classes)
    vector[label] = 1
    return vector


def label_vector(label: Label, c_dim: int, known: LabelSet | None) -> Tensor:
    """A label as a user gives it -> the generator's input, float32 [c_dim].

    Args:
        label: a class, a name, or `c_dim` numbers; text may hold any of these, and is tried as a name first: as it is
            spelled, then without regard to case and Unicode normalization if only one class fits.
        c_dim: of the generator.
        known: labels of the generator, if its checkpoint holds them.

    Raises:
        ValueError: there is no such label, or the name fits several classes; names the choices.
    """
    vectors = known is not None and known.values.ndim > 1
    if isinstance(label, str):
        text = label.strip()
        number = _class_of(text, known)
        if number is not None:
            return one_hot(number, c_dim)
        parts = [part for part in re.split(r"[\s,;]+", text.strip("[]()")) if part]
        try:
            numbers = [float(part) for part in parts]
        except ValueError:
            numbers = []
        if not numbers:
            raise ValueError(f"there is no label {label!r}; {_choice(c_dim, known)}")
        whole = len(numbers) == 1 and numbers[0].is_integer()
        label = int(numbers[0]) if whole and not (vectors and c_dim == 1) else numbers
    if isinstance(label, int):
        if vectors:
            raise ValueError(f"label {label} is a class, and {_choice(c_dim, known)}")
        return one_hot(label, c_dim)
    values = [float(value) for value in label]
    if len(values) != c_dim or not all(math.isfinite(value) for value in values):
        raise ValueError(f"a label of {len(values)} numbers, {values[:_NAMED]}: {_choice(c_dim, known)}")
    return torch.tensor(values)


def _class_of(text: str, known: LabelSet | None) -> int | None:
    """The class of a name: as it is spelled, else in another normalization, else in another case.

    Raises:
        ValueError: several classes fit; names them.
    """
    names: Mapping[int, str] = {} if known is None else known.names
    found: list[int] = []
    for form in (str.strip, composed_name, folded_name):
        found = found or [number for number, name in names.items() if form(name) == form(text)]
    if len(found) < 2:
        return found[0] if found else None
    listed = ", ".join(f"{number} ({quoted(names[number])})" for number in found[:_NAMED])
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    raise ValueError(f"give the number of the class: the label {quoted(text)} fits {listed}{more}")


def _choice(c_dim: int, known: LabelSet | None) -> str:
    if known is not None and known.values.ndim > 1:
        example = ", ".join(f"{value:g}" for value in known.values[0, :_NAMED].tolist())
        more = ", ..." if c_dim > _NAMED else ""
        return f"this generator takes {c_dim} {'number' if c_dim == 1 else 'numbers'}, such as {example}{more}"
    names = list(known.names.values()) if known is not None else []
    called = f", or one of {', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''}" if names else ""
    return f"give a class from 0 to {c_dim - 1} for this generator{called}"

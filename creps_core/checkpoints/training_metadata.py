"""Training metadata in our checkpoints: labels and aspect of the training images, and named directions.

Labels are the tensors `labels.values` ([K] classes or [K, c_dim]) and `labels.counts` [K], both float32, with class
names in the header. Directions are the tensor `directions.vectors` [K, w_dim] float32, with their names in the header.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..network import Generator, LabelSet

_PREFIX, _DIRECTIONS = "labels.", "directions.vectors"
_MAX_NAMES = 1 << 19  # characters in the header


def is_training_metadata(name: str) -> bool:
    """Whether a tensor of this name holds training metadata and belongs to no network."""
    return name.startswith(_PREFIX) or name == _DIRECTIONS


def write_training_metadata(generator: Generator) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header fields and tensors of a generator's training metadata."""
    header: dict[str, Any] = {}
    if generator.aspect != (1, 1):
        header["aspect"] = list(generator.aspect)
    tensors: dict[str, Tensor] = {}
    if generator.directions:
        header["directions"] = list(generator.directions)
        tensors[_DIRECTIONS] = torch.stack([v.to("cpu", torch.float32) for v in generator.directions.values()])
    if (labels := generator.labels) is None:
        return header, tensors
    names = {str(number): name for number, name in labels.names.items()}
    header["classes"] = names if len(json.dumps(names)) <= _MAX_NAMES else {}
    return header, tensors | {
        f"{_PREFIX}values": labels.values.to("cpu", torch.float32).contiguous(),
        f"{_PREFIX}counts": labels.counts.to("cpu", torch.float32).contiguous(),
    }


def read_training_metadata(generator: Generator, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Generator:
    """Set a generator's training metadata from its file; returns the generator.

    Raises:
        ValueError: labels, directions or aspect are invalid, or do not fit this generator.
    """
    aspect = header.get("aspect", [1, 1])
    if not (isinstance(aspect, list) and len(aspect) == 2 and all(type(v) is int and 0 < v < 1 << 16 for v in aspect)):
        raise ValueError(f"its aspect is {str(aspect)[:60]}, not two whole numbers")
    generator.aspect = (aspect[0], aspect[1])
    generator.directions = _read_directions(generator, header.get("directions", []), tensors.get(_DIRECTIONS))
    values, counts = (tensors.get(f"{_PREFIX}{name}") for name in ("values", "counts"))
    if values is None or counts is None:
        return generator
    c_dim = generator.config.c_dim
    good = values.shape[1:] in ((), (c_dim,)) and counts.shape == values.shape[:1] and len(values) > 0 and c_dim > 0
    good = good and bool(torch.isfinite(values).all()) and bool((counts > 0).all() and torch.isfinite(counts).all())
    if good and values.ndim == 1:
        good = bool(((values >= 0) & (values < c_dim) & (values == values.round())).all())
        values = values.long() if good else values
    if not good:
        raise ValueError(f"its labels do not belong to a generator with labels of {c_dim} numbers")
    names = header.get("classes")
    pairs = names.items() if isinstance(names, dict) else ()
    known = {int(k): v for k, v in pairs if str(k).isdecimal() and len(str(k)) < 6 and isinstance(v, str)}
    generator.labels = LabelSet(values, counts, known)
    return generator


def _read_directions(generator: Generator, names: Any, vectors: Tensor | None) -> dict[str, Tensor]:
    if vectors is None:
        return {}
    good = isinstance(names, list) and all(isinstance(name, str) and 0 < len(name) <= 80 for name in names)
    good = good and 0 < len(names) == len(set(names)) and vectors.shape == (len(names), generator.config.w_dim)
    if not (good and torch.isfinite(vectors).all() and (vectors.norm(dim=1) > 0).all()):
        raise ValueError("its directions do not belong to this generator")
    return dict(zip(names, vectors.float(), strict=True))

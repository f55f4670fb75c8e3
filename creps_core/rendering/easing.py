"""Easings: how progress along a path runs with time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

EASINGS: dict[str, Callable[[Any], Any]] = {
    "linear": lambda t: t,
    "ease in and out": lambda t: t * t * (3 - 2 * t),
    "ease in": lambda t: t * t,
    "ease out": lambda t: t * (2 - t),
}
"""Progress along a path as a function of time, both from 0 to 1: of a number, or of each value of a tensor."""

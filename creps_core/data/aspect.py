"""Aspect ratios as text, such as 16:9."""

from __future__ import annotations

import re
from fractions import Fraction


def parse_aspect(text: str) -> tuple[int, int]:
    """Width and height in lowest terms: "16:9" and "32:18" give (16, 9), "1.7778" the nearest fraction.

    Raises:
        ValueError: the text is not an aspect ratio.
    """
    match = re.fullmatch(r"\s*(\d{1,5}(?:\.\d{1,6})?)\s*(?:[:x/]\s*(\d{1,5}(?:\.\d{1,6})?))?\s*", text)
    if match is None or not all(float(number or 1) for number in match.groups()):
        raise ValueError(f"{text!r} is no aspect: give width:height, such as 16:9")
    ratio = (Fraction(match[1]) / Fraction(match[2] or 1)).limit_denominator(10_000)
    return ratio.numerator, ratio.denominator


def format_aspect(aspect: tuple[int, int]) -> str:
    """Inverse of `parse_aspect`: (16, 9) gives "16:9"."""
    return f"{aspect[0]}:{aspect[1]}"


def normalize_aspect(text: str) -> str:
    """The spelling used in `ImageDataset.options`: "32:18" gives "16:9". Raises ValueError as `parse_aspect`."""
    return format_aspect(parse_aspect(text))

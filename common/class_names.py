"""Compare names of classes: users type them, and files spell them, in more than one way."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping


def composed_name(name: str) -> str:
    """A name in Unicode NFC, without the space around it."""
    return unicodedata.normalize("NFC", name.strip())


def folded_name(name: str) -> str:
    """A name without its case, its Unicode normalization and the space around it."""
    return composed_name(unicodedata.normalize("NFD", name).casefold())


def equal_names(names: Mapping[int, str]) -> list[list[int]]:
    """Groups of two or more classes whose names differ at most in case or Unicode normalization."""
    groups: dict[str, list[int]] = {}
    for number, name in names.items():
        groups.setdefault(folded_name(name), []).append(number)
    return [group for group in groups.values() if len(group) > 1]

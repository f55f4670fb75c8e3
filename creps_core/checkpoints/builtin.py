"""Generators that come with the package: usable without any file from the user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..network import Generator
from .alpenglow import build_alpenglow
from .own import load_generator
from .textures import build_textures


@dataclass(frozen=True)
class Builtin:
    """An entry of `BUILTINS`: a generator that needs no file from the user."""

    name: str
    description: str
    build: Callable[[], Generator]


_ALPINE = Path(__file__).parent / "alpine.safetensors"  # holds its discriminator too: fine-tuning begins with both

BUILTINS: dict[str, Builtin] = {
    builtin.name: builtin
    for builtin in [
        Builtin("alpenglow", "A mountain lake at any hour, sharp at any size: written weights.", build_alpenglow),
        Builtin("alpine", "Mountain lakes at any hour: trained with this package.", partial(load_generator, _ALPINE)),
        Builtin("textures", "Abstract textures: designed random weights, not trained.", build_textures),
    ]
}
"""What the loader lists, in this order."""


def load_builtin(name: str = next(iter(BUILTINS))) -> Generator:
    """A built-in generator by its name in `BUILTINS`, by default the first; on the CPU and ready to render.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in BUILTINS:
        raise ValueError(f"there is no built-in generator {name!r}; there are {list(BUILTINS)}")
    return BUILTINS[name].build()

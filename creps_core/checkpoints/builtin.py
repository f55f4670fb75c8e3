"""Generators that come with the package: usable without any file from the user.

They are ordinary files of `save_generator`. `alpenglow` and `textures` are written by the programs of the same names in
the repository's `recipes/`; `alpine` was trained, and its file holds its discriminator too, for fine-tuning.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..network import Generator
from .own import load_generator

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Builtin:
    """A generator that comes with the package."""

    name: str
    description: str

    @property
    def path(self) -> Path:
        """Its checkpoint file."""
        return _FOLDER / f"{self.name}.safetensors"


BUILTINS: dict[str, Builtin] = {
    builtin.name: builtin
    for builtin in [
        Builtin("alpenglow", "A mountain lake at any hour, sharp at any size: written weights."),
        Builtin("alpine", "Mountain lakes at any hour: trained with this package."),
        Builtin("textures", "Abstract textures: designed random weights, not trained."),
    ]
}
"""The built-in generators by name, in the order in which the loader lists them."""


def load_builtin(name: str = next(iter(BUILTINS))) -> Generator:
    """Load a built-in generator by its name in `BUILTINS`, by default the first; on the CPU and ready to render.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in BUILTINS:
        raise ValueError(f"there is no built-in generator {name!r}; there are {list(BUILTINS)}")
    return load_generator(BUILTINS[name].path)

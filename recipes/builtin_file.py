"""Command line of the recipes that compute the weights of a built-in generator. Makes `comfyui_creps` importable."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))
import package  # the repository as `comfyui_creps`, without installing it
from comfyui_creps.creps_core import Generator, save_generator

FOLDER = package.ROOT / "creps_core" / "checkpoints"
"""The folder of the built-in generators."""


def write_builtin(build: Callable[[], Generator], recipe: str, arguments: list[str] | None = None) -> None:
    """Build a generator and save it as float32, by default in place of the file that ships."""
    parser = argparse.ArgumentParser(description=f"Compute the weights of the built-in generator {Path(recipe).stem}.")
    parser.add_argument(
        "--out", type=Path, default=FOLDER / f"{Path(recipe).stem}.safetensors", help="default: the file that ships"
    )
    given = parser.parse_args(arguments)
    save_generator(build(), given.out, details={"weights": f"computed by recipes/{Path(recipe).name}"})
    print(given.out)

"""CREPS: column-row entangled pixel synthesis. One latent, any size; runs without ComfyUI.

generator = load_generator("creps-ffhq-512x512.pkl")
picture = render(generator, sample(generator, [2]), height=1080, width=1920)
"""

__version__ = "0.1.0"

from .builtin import BUILTINS, load_builtin
from .checkpoint import inspect_checkpoint, load_generator, save_generator
from .config import GeneratorConfig
from .errors import CheckpointError
from .generator import Generator
from .latents import sample, seed_to_z
from .mapping import truncate
from .render import render
from .window import FITS, WHOLE_FRAME, Window, fit_window, sample_positions

__all__ = [
    "BUILTINS",
    "FITS",
    "WHOLE_FRAME",
    "CheckpointError",
    "Generator",
    "GeneratorConfig",
    "Window",
    "fit_window",
    "inspect_checkpoint",
    "load_builtin",
    "load_generator",
    "render",
    "sample",
    "sample_positions",
    "save_generator",
    "seed_to_z",
    "truncate",
]

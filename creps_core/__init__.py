"""CREPS: column-row entangled pixel synthesis. One latent, any size; runs without ComfyUI.

generator = load_generator("creps-ffhq-512x512.pkl")
picture = render(generator, sample(generator, [2]), height=1080, width=1920)
"""

__version__ = "0.2.0"

from ..common.errors import CheckpointError
from .checkpoints import BUILTINS, inspect_checkpoint, load_builtin, load_generator, save_generator
from .latents import sample, seed_to_z
from .network import Generator, GeneratorConfig, truncate
from .rendering import FITS, WHOLE_FRAME, Window, fit_window, render, sample_positions

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

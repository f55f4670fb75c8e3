"""Latents: from seeds, in batches, between each other, along directions, back from pictures, and in files.

Read `sampling.py` first.
"""

from .directions import METHODS, Directions, edit, find_directions, strip
from .files import IF_DIFFERENT, load_directions, load_latents, save_directions, save_latents
from .interpolation import CURVES, EASINGS, interpolate, random_walk
from .mixing import mix_grid, mix_pairs
from .projection import SPACES, project, projection_estimate
from .ranges import LAYER_NAMES, parse_seeds
from .sampling import MAX_SEED, Latents, sample, sample_latents, seed_to_z, seeds_to_inputs, truncate_latents
from .selection import average, concatenate, select

__all__ = [
    "CURVES",
    "EASINGS",
    "IF_DIFFERENT",
    "LAYER_NAMES",
    "MAX_SEED",
    "METHODS",
    "SPACES",
    "Directions",
    "Latents",
    "average",
    "concatenate",
    "edit",
    "find_directions",
    "interpolate",
    "load_directions",
    "load_latents",
    "mix_grid",
    "mix_pairs",
    "parse_seeds",
    "project",
    "projection_estimate",
    "random_walk",
    "sample",
    "sample_latents",
    "save_directions",
    "save_latents",
    "seed_to_z",
    "seeds_to_inputs",
    "select",
    "strip",
    "truncate_latents",
]

"""Latents: sampled from seeds, in batches, interpolated, moved along directions, projected from images, and in files.

Read `sampling.py` first.
"""

from .directions import DIRECTION_METHODS, Directions, direction_strip, edit, find_directions
from .files import IF_DIFFERENT, load_directions, load_latents, save_directions, save_latents
from .interpolation import CURVES, INTERPOLATION_SPACES, LATENT_EASINGS, interpolate, random_walk
from .mixing import mix_grid, mix_pairs
from .projection import PROJECTION_SPACES, Projection, project, projection_estimate
from .ranges import LAYER_NAMES, parse_seeds
from .sampling import MAX_SEED, Latents, sample, sample_latents, seed_to_z, seeds_to_inputs, truncate_latents
from .selection import average_latents, concatenate, select

__all__ = [
    "CURVES",
    "DIRECTION_METHODS",
    "IF_DIFFERENT",
    "INTERPOLATION_SPACES",
    "LATENT_EASINGS",
    "LAYER_NAMES",
    "MAX_SEED",
    "PROJECTION_SPACES",
    "Directions",
    "Latents",
    "Projection",
    "average_latents",
    "concatenate",
    "direction_strip",
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
    "truncate_latents",
]

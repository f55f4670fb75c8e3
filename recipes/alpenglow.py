"""The built-in `alpenglow`: a mountain lake at any hour. Its weights are computed from formulas, not trained.

    python recipes/alpenglow.py  writes creps_core/checkpoints/alpenglow.safetensors

Read `program.py` first: it compiles formulas into layers. `alpenglow_meaning.py` assigns properties of the scene to
latents, `alpenglow_lines.py` writes the column/row network, which computes fields of x and y, `alpenglow_pixels.py` the
pixel stage, which turns fields into shares of colours, and `alpenglow_colours.py` lists the colours. Every edge is a
formula, so it is sharp at any size; every outline is a sum of waves, so the land continues beyond the frame.
"""

from __future__ import annotations

import builtin_file  # first: makes comfyui_creps importable
import numpy as np
import torch
from alpenglow_lines import write_lines
from alpenglow_meaning import W_DIM, Z_DIM, Meaning
from alpenglow_pixels import write_pixels
from comfyui_creps.creps_core.network import Generator, GeneratorConfig
from program import State

_SEED = 4  # of the numbers that are nobody's choice; this one by eye
_CONFIG = GeneratorConfig(16, z_dim=Z_DIM, w_dim=W_DIM, mapping_layers=1, channel_base=640, channel_max=116)


def build_alpenglow() -> Generator:
    """The generator, on the CPU and ready to render."""
    rng = np.random.RandomState(_SEED)
    state, meaning = State(W_DIM), Meaning(rng)
    state.connected("mapping.fc0", meaning.layer, np.ones(Z_DIM), W_DIM, rate=0.01)
    state["mapping.w_avg"] = meaning.average()
    fields = write_lines(state, meaning, _CONFIG, rng)
    write_pixels(state, meaning, fields, _CONFIG)
    with torch.random.fork_rng(devices=[]):  # the usual initialisation must not move torch's random stream
        generator = Generator(_CONFIG, "alpenglow")
    generator.load_state_dict(state.tensors())
    generator.directions = {
        name: torch.from_numpy(vector.astype(np.float32)) for name, vector in meaning.directions().items()
    }
    return generator.eval().requires_grad_(False)


if __name__ == "__main__":
    builtin_file.write_builtin(build_alpenglow, __file__)

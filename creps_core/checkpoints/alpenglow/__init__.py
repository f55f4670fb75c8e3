"""The built-in `alpenglow`: a mountain lake at any hour, whose weights are written, not trained.

Read `../program.py` first: it turns formulas into layers. `meaning.py` says what the latents mean, `lines.py` what the
column/row network computes of them, `pixels.py` what a pixel makes of the fields that columns and rows span, and
`colours.py` what that looks like. As every edge is a formula, it is sharp at any size; as every outline is a sum of
waves, the land goes on beyond the frame.
"""

from __future__ import annotations

import numpy as np
import torch

from ...network import Generator, GeneratorConfig
from ..program import State
from .lines import write_lines
from .meaning import W_DIM, Z_DIM, Meaning
from .pixels import write_pixels

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

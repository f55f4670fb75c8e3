"""The networks: generator and discriminator, from their hyperparameters to their layers. Reads and writes no files.

Read `generator.py` first: latents become styles (`mapping.py`), styles and positions become lines (`lines.py`), and
lines become pixels (`kernels`). `styles.py` applies latents in few operations for training, `fused_synthesis.py` for
rendering on a GPU; both by `layout.py`. Parameter names are those of the official checkpoints.
"""

from .config import RANK, GeneratorConfig
from .discriminator import BRANCH_GAIN, FOLDED_SMOOTHING, WINDOW_CODE, Block, Discriminator, DiscriminatorConfig
from .fused_synthesis import AppliedLatent, FusedSynthesis
from .generator import Generator, LineStyles, Synthesis
from .labels import Label, LabelSet, label_vector
from .layers import FullyConnected, ModulatedLinear
from .lines import BANDWIDTH, COLUMNS, ROWS
from .mapping import truncate
from .styles import Styles, styles_of, tensors_of

__all__ = [
    "BANDWIDTH",
    "BRANCH_GAIN",
    "COLUMNS",
    "FOLDED_SMOOTHING",
    "RANK",
    "ROWS",
    "WINDOW_CODE",
    "AppliedLatent",
    "Block",
    "Discriminator",
    "DiscriminatorConfig",
    "FullyConnected",
    "FusedSynthesis",
    "Generator",
    "GeneratorConfig",
    "Label",
    "LabelSet",
    "LineStyles",
    "ModulatedLinear",
    "Styles",
    "Synthesis",
    "label_vector",
    "styles_of",
    "tensors_of",
    "truncate",
]

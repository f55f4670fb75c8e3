"""Load, check and save generators as files.

Read `own.py` first: every reader goes through `read_checkpoint`. `container.py` reads and writes tensors, `build.py`
makes networks of them, `official.py` reads official snapshots as data, `builtin.py` lists the generators that come with
the package. To add a file format, add a module next to `official.py`.
"""

from .blend import blend_weights, swap_levels
from .build import build_discriminator, build_generator, check_finite, shapes_of
from .builtin import BUILTINS, load_builtin
from .container import SEAL, TensorFile, open_tensors, read_header, write_tensors
from .official import Network, is_pickle, read_snapshot
from .own import (
    FORMAT_VERSION,
    HEADER_KEY,
    Checkpoint,
    digest,
    fingerprint,
    inspect_checkpoint,
    is_training,
    load_generator,
    network_of,
    read_checkpoint,
    read_own,
    save_generator,
)
from .training_metadata import read_training_metadata, write_training_metadata

__all__ = [
    "BUILTINS",
    "FORMAT_VERSION",
    "HEADER_KEY",
    "SEAL",
    "Checkpoint",
    "Network",
    "TensorFile",
    "blend_weights",
    "build_discriminator",
    "build_generator",
    "check_finite",
    "digest",
    "fingerprint",
    "inspect_checkpoint",
    "is_pickle",
    "is_training",
    "load_builtin",
    "load_generator",
    "network_of",
    "open_tensors",
    "read_checkpoint",
    "read_header",
    "read_own",
    "read_snapshot",
    "read_training_metadata",
    "save_generator",
    "shapes_of",
    "swap_levels",
    "write_tensors",
    "write_training_metadata",
]

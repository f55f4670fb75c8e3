"""Generators as files: what comes in is checked, what goes out is safetensors. Here a checkpoint is refused.

Read `own.py` first; official snapshots are read as data by `official.py`, the generators that come with the package are
in `builtin.py`. A new file format begins beside `official.py`.
"""

from .blend import blend_weights, swap_levels
from .builtin import BUILTINS, load_builtin
from .official import Network, is_pickle, read_snapshot
from .own import (
    FORMAT_VERSION,
    HEADER_KEY,
    build_generator,
    digest,
    fingerprint,
    inspect_checkpoint,
    is_training,
    load_generator,
    network_of,
    read_own,
    save_generator,
)
from .taught import read_taught, write_taught

__all__ = [
    "BUILTINS",
    "FORMAT_VERSION",
    "HEADER_KEY",
    "Network",
    "blend_weights",
    "build_generator",
    "digest",
    "fingerprint",
    "inspect_checkpoint",
    "is_pickle",
    "is_training",
    "load_builtin",
    "load_generator",
    "network_of",
    "read_own",
    "read_snapshot",
    "read_taught",
    "save_generator",
    "swap_levels",
    "write_taught",
]

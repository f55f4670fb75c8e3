"""Data sets: pictures that users bring, checked once, cut square, and drawn in endless batches. Knows no network.

Read `dataset.py` first: here a picture is refused. `decode.py` reads one, `sources.py` folders and archives.
"""

from .batches import Batches
from .dataset import ImageDataset, from_images, open_dataset, same_aspect, written_aspect
from .labels import LABELS
from .stamp import stamp
from .windows import Windows, cuts_on

__all__ = [
    "LABELS",
    "Batches",
    "ImageDataset",
    "Windows",
    "cuts_on",
    "from_images",
    "open_dataset",
    "same_aspect",
    "stamp",
    "written_aspect",
]

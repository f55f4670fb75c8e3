"""Datasets: images that users bring, validated once, cropped square, drawn in endless batches. Independent of networks.

Start with `opening.py`, which decides what becomes of each file. `decode.py` reads one image, `sources.py` folders and
archives, `dataset.py` serves the images.
"""

from .aspect import format_aspect, normalize_aspect
from .batches import Batches
from .dataset import ImageDataset
from .labels import LABEL_SOURCES
from .opening import from_images, open_dataset, with_mask
from .stamp import stamp
from .window_cutter import WindowCutter, can_cut_on

__all__ = [
    "LABEL_SOURCES",
    "Batches",
    "ImageDataset",
    "WindowCutter",
    "can_cut_on",
    "format_aspect",
    "from_images",
    "normalize_aspect",
    "open_dataset",
    "stamp",
    "with_mask",
]

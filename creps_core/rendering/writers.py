"""The file formats that images are written in."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from .image_writer import ImageWriter
from .png_writer import PngWriter
from .tiff_writer import TiffWriter


class FileFormat(NamedTuple):
    """A kind of image file that can be written row by row."""

    name: str
    endings: tuple[str, ...]  # of the file's name, the usual one first
    writer: type[ImageWriter]

    @property
    def ending(self) -> str:
        """The usual ending of the file's name, such as `.png`."""
        return self.endings[0]


FILE_FORMATS = (FileFormat("png", (".png",), PngWriter), FileFormat("tiff", (".tif", ".tiff"), TiffWriter))
WRITERS = {ending: format.writer for format in FILE_FORMATS for ending in format.endings}
"""Writers by the ending of the file's name."""
BITS = (8, 16)
"""Bits per channel of a file."""


def writer_for(path: Path, bits: int) -> type[ImageWriter]:
    """The writer for a file, by the ending of its name.

    Raises:
        ValueError: the ending or `bits` is unknown.
        ImportError: the format needs a library that is not installed; says how to install it.
    """
    if path.suffix.lower() not in WRITERS:
        raise ValueError(f"{path}: the name of the file must end in one of {', '.join(WRITERS)}")
    if bits not in BITS:
        raise ValueError(f"bits must be one of {list(BITS)}, not {bits!r}")
    writer = WRITERS[path.suffix.lower()]
    writer.require()
    return writer

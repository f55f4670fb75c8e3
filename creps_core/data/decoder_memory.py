"""Upper estimates of the memory that the decoder of each image format takes, measured and from its source."""

from __future__ import annotations

import re
import struct

from PIL import Image

from .bit_depth import largest_chunk
from .file_types import sniff_format

_COPIES_FILE = {"WEBP", "AVIF", "HEIF", "JXL"}
"""Formats whose plugins read the whole file once more when it is opened."""
_EXTRA = {"WEBP": 16, "AVIF": 10, "HEIF": 16, "JXL": 32}
"""Bytes per pixel that a decoder takes beside Pillow's image: canvases of animations, planes, references."""
_STREAMED = {"PNG", "JPEG", "MPO", "BMP", "DIB", "GIF", "PPM", "TGA", "TIFF"}
"""Formats that are decoded straight into Pillow's image."""
_CODE_BLOCK = 320  # bytes of OpenJPEG's structures for each code block, with its share of the tag trees
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # tags of TIFF
_INNER_PNG = re.compile(rb"\x89PNG\r\n\x1a\n....IHDR(.{8})", re.S)
_INNER_JPEG2000 = re.compile(rb"ihdr(.{8})|\xff\x4f\xff\x51....(.{8})", re.S)


def opening_memory(data: bytes) -> int:
    """Bytes that reading the header of a file may take, beside its own."""
    kind = sniff_format(data[:512])
    if kind == "PNG":  # a chunk is read whole, but for pixels
        return largest_chunk(data)
    return len(data) if kind in _COPIES_FILE else 0


def decoding_memory(image: Image.Image, pixels: int, data: bytes) -> int:
    """Bytes that decoding an image and converting its colours take: copies made by Pillow, and its decoder's own.

    Args:
        image: opened, to be decoded at `image.size`.
        pixels: of the file, before any reduced decoding.
        data: bytes of its file.
    """
    deep = image.mode.startswith(("I", "F")) or ";16" in str(getattr(image, "tile", ""))
    layers = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    bytes_each = 24 if deep else 20 if layers else 2 if image.mode in ("1", "L") else 8
    if image.info.get("icc_profile"):
        bytes_each += 8
    size, kind = image.width * image.height, str(image.format)
    if kind in ("ICO", "CUR", "ICNS"):  # the image inside may be larger than the icon says
        size = max(size, _inner_pixels(data))
        bytes_each = max(bytes_each, 20) + (16 if kind == "ICNS" else 0)
    own = 6 * pixels if image.info.get("progressive") else 0  # coefficients, of the full size
    if kind == "JPEG2000":
        own += _jpeg2000_memory(image, size, pixels, data)
    elif kind == "TIFF":
        own += _tiff_memory(image, data)
    elif kind not in _STREAMED:
        own += _EXTRA.get(kind, 8) * size
    return size * bytes_each + own


def _jpeg2000_memory(image: Image.Image, size: int, pixels: int, data: bytes) -> int:
    """Samples of 32 bits in OpenJPEG's tile and image, and its structures for the code blocks of all resolutions."""
    channels = len(image.getbands())
    return 8 * channels * size + channels * pixels * _CODE_BLOCK // _code_block_area(data)


def _code_block_area(data: bytes) -> int:
    """Samples of the smallest code block that the main header of a JPEG 2000 file states."""
    at = data.find(b"\xff\x4f\xff\x51")
    area, at = 64 * 64, at + 2
    while at >= 2 and at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0x90:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        # COD: style, 4 bytes, then levels, width, height, style, transform, precincts. COC: component
        # (1 byte: there are at most 4), style, then the same.
        skip = {0x52: 5, 0x53: 2}.get(marker)
        if skip is not None and len(body) >= skip + 5:
            width, height = (body[skip + 1] & 15) + 2, (body[skip + 2] & 15) + 2
            has_precincts = body[0 if marker == 0x52 else 1] & 1
            for precinct in body[skip + 5 :] if has_precincts else b"":
                width, height = min(width, precinct & 15), min(height, precinct >> 4)
            area = min(area, 1 << width + height)
        at += 2 + max(length, 2)
    return area


def _tiff_memory(image: Image.Image, data: bytes) -> int:
    """libtiff reads a copy of the file, and holds a whole tile, which may be larger than the image."""
    if not any(tile[0] == "libtiff" for tile in getattr(image, "tile", ())):
        return 0
    tags = getattr(image, "tag_v2", {})
    sides = [tags.get(number, 0) for number in (_TILE_WIDTH, _TILE_LENGTH)]
    width, length = (value if isinstance(value, int) else 0 for value in sides)
    return len(data) + 8 * max(width * length, 0)


def _inner_pixels(data: bytes) -> int:
    """Pixels of the largest PNG or JPEG 2000 inside an icon."""
    found = [struct.unpack(">II", match[1]) for match in _INNER_PNG.finditer(data)]
    found += [struct.unpack(">II", match[1] or match[2]) for match in _INNER_JPEG2000.finditer(data)]
    return max((width * height for width, height in found), default=0)

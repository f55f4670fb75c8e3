"""Pictures of more than 8 bits per channel, by the depth that the file or its values show. Pillow keeps 8 of 16."""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from .sources import Unusable

_WHITE_IS_ZERO, _PHOTOMETRIC, _MAX_SAMPLE = 0, 262, 281  # of TIFF
_PNG = b"\x89PNG\r\n\x1a\n"
_OTHER_BYTE = {";16B": ";16L", ";16L": ";16B", ";16N": ";16B" if sys.byteorder == "little" else ";16L"}
_DEPTHS = (8, 10, 12)  # that values alone show: nothing of a picture of 16 bits is that dark everywhere


def load_deep(image: Image.Image, again: Callable[[], Image.Image]) -> np.ndarray | None:
    """Load a picture; if it has several channels of 16 bits, of which Pillow keeps the upper bytes, all of them.

    Args:
        image: opened, not loaded.
        again: opens the same file once more.

    Returns:
        uint16 [height, width, 3 or 4], or None.
    """
    raw = _raw_mode(image)
    tiles = list(getattr(image, "tile", ()))
    image.load()
    if not raw or image.mode not in ("RGB", "RGBA"):
        return None
    other = raw[:-4] + _OTHER_BYTE[raw[-4:]]
    with again() as lower:
        lower.tile = [_with_raw_mode(tile, raw, other) for tile in tiles]  # type: ignore[attr-defined]
        try:
            lower.load()
        except (ValueError, OSError):  # this Pillow does not unpack it so
            return None
        if lower.mode != image.mode or lower.size != image.size:
            return None
        return np.asarray(image).astype(np.uint16) << 8 | np.asarray(lower)


def eight_bits(image: Image.Image, deep: np.ndarray | None, data: bytes, notes: list[str]) -> Image.Image:
    """A loaded picture with 8 bits per channel.

    Whole numbers are scaled by the depth that the file states (sBIT, MaxSampleValue), else by the least of 8, 10 and 12
    bits that holds all of its values, 14 where they come near its end, else 16.

    Args:
        image: loaded.
        deep: what `load_deep` gave for it.
        data: of its file.
        notes: what was done is added.

    Raises:
        Unusable: values that have no agreed meaning.
    """
    values = np.asarray(image) if deep is None and image.mode.startswith("I") else deep
    if values is not None:
        flat = _scaled(values, _stated_bits(image, data), notes)
    elif image.mode == "F":
        values = np.asarray(image)
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 255):  # not a number fails as well
            raise Unusable(f"floating-point values from {low:g} to {high:g}; only 0 to 1 and 0 to 255 are read")
        if high > 1:
            notes.append("floating-point values of 0 to 255")
        flat = np.rint(values * (255 if high <= 1 else 1)).astype(np.uint8)
    else:
        return image
    if image.format == "TIFF" and deep is None and _tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO:
        flat = 255 - flat  # Pillow turns 8 bits only
    result = Image.fromarray(flat)
    result.info = {key: value for key, value in image.info.items() if key == "icc_profile"}
    return result


def _scaled(values: np.ndarray, stated: int, notes: list[str]) -> np.ndarray:
    """Whole numbers [h, w] or [h, w, channels] as uint8."""
    low, high = int(values.min()), int(values[..., :3].max() if values.ndim > 2 else values.max())
    if low < 0 or high > 65535:
        raise Unusable(f"whole numbers from {low} to {high}; of more than 8 bits, only 0 to 65535 is read")
    bits = stated if high < 1 << stated else _shown_bits(high)
    if bits < 16:
        notes.append(f"stored with more than their {bits} bits, scaled")
    most = np.full(values.shape[2:], (1 << bits) - 1, np.uint32)
    if values.shape[2:] == (4,) and values[..., 3].max() > most[3]:
        most[3] = 65535
    flat = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), 256):  # not a large picture at once
        flat[top : top + 256] = (values[top : top + 256].astype(np.uint32) * 255 + most // 2) // most
    return flat


def _raw_mode(image: Image.Image) -> str:
    """How several channels of 16 bits lie in the file, such as RGB;16B; empty for others."""
    for tile in getattr(image, "tile", ())[:1]:
        raw = tile[3][0] if isinstance(tile[3], tuple) else tile[3]
        if isinstance(raw, str) and raw[-4:] in _OTHER_BYTE and raw[:-4] in ("RGB", "RGBA"):
            return raw
    return ""


def _with_raw_mode(tile: tuple, raw: str, other: str) -> tuple:
    args = (other, *tile[3][1:]) if isinstance(tile[3], tuple) else other if tile[3] == raw else tile[3]
    parts = (*tile[:3], args)
    return type(tile)._make(parts) if hasattr(tile, "_make") else parts  # type: ignore[attr-defined]


def _shown_bits(high: int) -> int:
    for bits in _DEPTHS:
        if high < 1 << bits:
            return bits
    return 14 if 0.8 * (1 << 14) <= high < 1 << 14 else 16


def _stated_bits(image: Image.Image, data: bytes) -> int:
    """The depth that the file states; 0: none."""
    if image.format == "PNG":
        content = next((content for kind, content in _chunks(data) if kind == b"sBIT"), b"")
        bits = max(content[:3], default=0)
        return bits if 8 <= bits <= 16 else 0
    if image.format == "TIFF":
        value = _tag(image, _MAX_SAMPLE)
        value = max(value) if isinstance(value, tuple) and value else value
        if isinstance(value, int) and 255 <= value <= 65535:
            return math.ceil(math.log2(value + 1))
    return 0


def _tag(image: Image.Image, number: int) -> object:
    try:
        return getattr(image, "tag_v2", {}).get(number)
    except Exception:  # a damaged directory takes nothing away from the pixels
        return None


def without_texts(data: bytes) -> bytes | None:
    """A PNG file without what it says beside the pixels: texts, and a profile; None: there is nothing of it."""
    if not data.startswith(_PNG):
        return None
    kept, place, dropped = [data[:8]], 8, False
    for kind, content in _chunks(data):
        whole = data[place : place + 12 + len(content)]
        place += 12 + len(content)
        if kind in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
            dropped = True
        else:
            kept.append(whole)
    return b"".join(kept) if dropped else None


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kinds and contents of the chunks of a PNG file, as far as it is whole."""
    place = len(_PNG)
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        if place + 12 + length > len(data):
            return
        yield data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        place += 12 + length

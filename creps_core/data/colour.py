"""Colour: any 8-bit image as grey, RGB or RGBA in the colours of sRGB."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from typing import Any, cast

from PIL import Image, ImageCms

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's mode by the number of channels."""
_NO_PIXEL_CACHE = 0x40  # flag of LittleCMS: a transform without a one-pixel cache may be shared by threads


def convert_channels(image: Image.Image, channels: int, notes: list[str]) -> Image.Image:
    """An 8-bit image of any mode as L, RGB or RGBA in sRGB.

    Args:
        image: loaded.
        channels: a key of MODES. Without alpha, transparent images are composited on white.
        notes: what was done to the image is appended.
    """
    profile = image.info.get("icc_profile")
    grey, alpha = image.mode in ("1", "L", "LA", "La"), None
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("LA") if image.mode == "La" else image
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("L" if grey else "RGB")
        if alpha.getextrema()[0] == 255:
            alpha = None
    if profile:
        image = _to_srgb(image, profile, notes)
    if image.mode == "CMYK":
        notes.append("CMYK, converted to RGB")
    if grey and channels > 1:
        notes.append("grey, shown as colour")
    elif not grey and channels == 1:
        notes.append("colour, shown as grey")
    if channels == 4:
        image = _in_mode(image, "RGBA" if alpha is None else "RGB")
        if alpha is not None:
            image.putalpha(alpha)
        return image
    if alpha is not None:
        notes.append("transparent, laid on white")
        image = _in_mode(image, "RGB")
        image = Image.composite(image, Image.new("RGB", image.size, "white"), alpha)
        if min(low for low, _ in cast("tuple[tuple[int, int], ...]", image.getextrema())) == 255:
            notes.append("nothing but white once laid on white: empty, or drawn in white")
    return _in_mode(image, MODES[channels])


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)


def _to_srgb(image: Image.Image, profile: bytes, notes: list[str]) -> Image.Image:
    """L, RGB or CMYK with a colour profile as RGB; unchanged if it is sRGB already or the profile is unusable."""
    if image.mode not in ("L", "RGB", "CMYK"):
        image = _in_mode(image, "L" if image.mode == "1" else "RGB")
    try:
        transform = _transform(profile, image.mode)
        if transform is None:
            return image
        mode, apply = transform
        converted = ImageCms.applyTransform(_in_mode(image, mode), apply)
    except Exception:  # also where Pillow comes without LittleCMS
        notes.append("colour profile ignored: damaged, or of another kind of picture")
        return image
    if converted is None:
        return image
    notes.append("colours converted to sRGB by the profile" if image.mode != "CMYK" else "CMYK, converted to RGB")
    return converted


@lru_cache(32)
def _transform(profile: bytes, mode: str) -> tuple[str, ImageCms.ImageCmsTransform] | None:
    """The transform from a profile to sRGB, with the mode of its input; None if there is nothing to convert."""
    source: Any = ImageCms.ImageCmsProfile(BytesIO(profile))
    text = ImageCms.getProfileDescription(source).lower()
    if "srgb" in text and "linear" not in text and mode != "CMYK":
        return None
    space = source.profile.xcolor_space.strip()
    accepted = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}.get(space, "")
    if accepted != mode and (accepted, mode) != ("RGB", "L"):
        raise ValueError(f"a profile for {space} in a picture of mode {mode}")
    target = ImageCms.createProfile("sRGB")
    build: Any = ImageCms.buildTransform  # the type of its flags differs between versions
    return accepted, build(source, target, accepted, "RGB", ImageCms.Intent.PERCEPTUAL, _NO_PIXEL_CACHE)

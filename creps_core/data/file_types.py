"""File types by name and first bytes: an image, something that contains images, or neither."""

from __future__ import annotations

import importlib
import re
import unicodedata
from collections.abc import Callable
from functools import cache

from PIL import Image

HEAD = 512
"""Bytes at the beginning of a file that identify its type."""

# Reading these starts other programs (EPS) or calls the operating system (WMF); the others Pillow only identifies.
_NOT_READ = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"}
_TRIED_FIRST = ("PNG", "JPEG", "WEBP")
# Signatures long enough to override the file's name, with Pillow's name of the format.
_SIGNATURES = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "PNG"),
    (re.compile(rb"\xff\xd8\xff"), "JPEG"),
    (re.compile(rb"GIF8[79]a"), "GIF"),
    (re.compile(rb"RIFF....WEBP", re.S), "WEBP"),
    (re.compile(rb"BM.{4}\0{4}.{4}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.S), "BMP"),
    (re.compile(rb"II\*\0|MM\0\*|II\+\0\x08|MM\0\+\0\x08"), "TIFF"),
    (re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51\0"), "JPEG2000"),
    (re.compile(rb"....ftyp(avif|avis)", re.S), "AVIF"),
    (re.compile(rb"....ftyp(hei[cfsmx]|hev[cmsx]|mif1|msf1)", re.S), "HEIF"),
    (re.compile(rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n"), "JXL"),
    (re.compile(rb"qoif"), "QOI"),
    (re.compile(rb"8BPS\0\x01"), "PSD"),
)
_ARCHIVE_SUFFIXES = {".zip", ".cbz", ".rar", ".cbr", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".tbz", ".xz", ".txz"}
_RAW_SUFFIXES = {
    ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".orf", ".rw2", ".raf", ".srw", ".pef", ".raw",
}  # fmt: skip
_PLUGINS = {"HEIF": ("pillow_heif", "pillow-heif"), "JXL": ("pillow_jxl", "pillow-jxl-plugin")}
_PLUGIN_SUFFIXES = {
    ".heic": "HEIF", ".heif": "HEIF", ".hif": "HEIF", ".avif": "AVIF", ".avifs": "AVIF", ".jxl": "JXL",
}  # fmt: skip
# Folders of network drives, recycle bins and file managers: thumbnails and deleted files.
_SYSTEM_FOLDERS = {
    "__macosx", "@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "recycler",
    "recycled", "system volume information", "lost+found", "network trash folder", "temporary items",
}  # fmt: skip


@cache
def load_plugins() -> None:
    """Register the formats of installed Pillow plugins."""
    Image.init()
    for module, _ in _PLUGINS.values():
        try:
            plugin = importlib.import_module(module)
            if register := getattr(plugin, "register_heif_opener", None):
                register()
        except Exception:  # not installed, or made for another version of Pillow
            continue


def readable_formats() -> tuple[str, ...]:
    """The formats that are read, by Pillow's names, the most common first."""
    load_plugins()
    # Not cached: other code in the program may register formats.
    known = [name for name in Image.ID if name not in _NOT_READ]
    first = [name for name in _TRIED_FIRST if name in known]
    return (*first, *(name for name in known if name not in first))


def image_suffixes() -> frozenset[str]:
    """Lower-case file name suffixes, with the dot, of the formats that can be read."""
    known = {*readable_formats(), "MPO"}  # read by Pillow as JPEG
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in known)


def sniff_format(head: bytes) -> str:
    """Pillow's name of the image format that a file begins with; empty if it is not a known one."""
    return next((name for signature, name in _SIGNATURES if signature.match(head)), "")


def classify_file(name: str, head: Callable[[], bytes], known: frozenset[str]) -> bool | str:
    """Whether to try reading a file as an image.

    Args:
        name: of the file.
        head: returns its first bytes; called only where the name does not decide.
        known: `image_suffixes()`.

    Returns:
        True: try it; False: it is no image. A text: it seems to be an image or to contain some, and why it is not used.
    """
    end = suffix(name)
    if end in known or not end:
        return True
    kind = sniff_format(head())
    if end in _RAW_SUFFIXES and kind in ("", "TIFF"):  # a TIFF reader would find a thumbnail in it
        return "raw data of a camera: develop them to TIFF or JPEG"
    if end in _ARCHIVE_SUFFIXES and archive_type(head()):
        return "an archive among the pictures: unpack it, or give it alone"
    kind = kind or _PLUGIN_SUFFIXES.get(end, "")
    return why_unreadable(kind) or bool(kind)


def why_unreadable(kind: str) -> str:
    """Why images of a format are not read, and what to do; empty if they are."""
    if not kind or kind in readable_formats():
        return ""
    if kind in _PLUGINS:
        return f"{kind}: pip install {_PLUGINS[kind][1]}, or save them as JPEG or PNG"
    return f"{kind}: this Pillow does not read it; save them as JPEG or PNG"


def describe_non_image(head: bytes) -> str:
    """What a file is that turned out not to be a readable image; empty if unknown."""
    if why := why_unreadable(sniff_format(head)):
        return why
    return "an archive, not a picture" if archive_type(head) else ""


def archive_type(head: bytes) -> str:
    """The type of archive that a file begins with; empty if none."""
    signatures = {
        b"PK\x03\x04": "zip",
        b"Rar!": "rar",
        b"7z\xbc": "7z",
        b"\x1f\x8b": "gzip",
        b"BZh": "bzip2",
        b"\xfd7zXZ": "xz",
    }
    kind = next((kind for start, kind in signatures.items() if head.startswith(start)), "")
    return kind or ("tar" if head[257:262] == b"ustar" else "")


def is_hidden(part: str) -> bool:
    """Whether to ignore a file or folder of this name: hidden, or belonging to the system."""
    return part.startswith(".") or part.lower() in _SYSTEM_FOLDERS or part in ("Icon\r", "Icon\uf00d")


def mask_unprintable(text: str) -> str:
    """The text with "?" for each unprintable character: names in archives may contain terminal control sequences."""
    return "".join(c if c.isprintable() else "?" for c in text)


def suffix(name: str) -> str:
    """The lower-case suffix of a file's name with its dot; empty if there is none."""
    stem, dot, end = name.rpartition("/")[2].rpartition(".")
    return f".{end}".lower() if dot and stem and end else ""


def normalize_name(name: str) -> str:
    """A name in Unicode NFC, for comparison: macOS stores accented letters decomposed, other systems composed."""
    return unicodedata.normalize("NFC", name)

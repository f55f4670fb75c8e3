"""What a file is, by its name and its first bytes: a picture, something that holds pictures, or neither."""

from __future__ import annotations

import importlib
import re
import unicodedata
from collections.abc import Callable
from functools import cache

from PIL import Image

HEAD = 512
"""Bytes at the beginning of a file that tell what it is."""

# These formats start other programs (EPS), ask the operating system (WMF), or can only be recognised.
_NOT_READ = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"}
_FIRST = ("PNG", "JPEG", "WEBP")  # tried first
# Signatures long enough to be believed whatever the name says, and the format as Pillow calls it.
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
_ARCHIVE_ENDINGS = {".zip", ".cbz", ".rar", ".cbr", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".tbz", ".xz", ".txz"}
_RAW = {".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".orf", ".rw2", ".raf", ".srw", ".pef", ".raw"}
_PLUGINS = {"HEIF": ("pillow_heif", "pillow-heif"), "JXL": ("pillow_jxl", "pillow-jxl-plugin")}
_WITH_PLUGIN = {
    ".heic": "HEIF", ".heif": "HEIF", ".hif": "HEIF", ".avif": "AVIF", ".avifs": "AVIF", ".jxl": "JXL",
}  # fmt: skip
# Of network drives, wastebaskets and file managers: thumbnails, and what was thrown away.
_NO_DATA = {
    "__macosx", "@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "recycler",
    "recycled", "system volume information", "lost+found", "network trash folder", "temporary items",
}  # fmt: skip


@cache
def load_plugins() -> None:
    """Let Pillow know the formats of the plugins that are installed."""
    Image.init()
    for module, _ in _PLUGINS.values():
        try:
            plugin = importlib.import_module(module)
            if register := getattr(plugin, "register_heif_opener", None):
                register()
        except Exception:  # not there, or made for another version of Pillow
            continue


def formats() -> tuple[str, ...]:
    """The formats that are read, as Pillow calls them."""
    load_plugins()
    # Asked for each time: other parts of the program may add formats.
    known = [name for name in Image.ID if name not in _NOT_READ]
    return tuple(sorted(known, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST)))


def endings() -> frozenset[str]:
    """Endings of the names of pictures that can be read, in small letters with the dot."""
    known = {*formats(), "MPO"}  # which Pillow reads as JPEG
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in known)


def format_of(head: bytes) -> str:
    """The format of a picture by its first bytes, as Pillow calls it; empty if they are not those of a picture."""
    return next((name for signature, name in _SIGNATURES if signature.match(head)), "")


def judge(name: str, head: Callable[[], bytes], known: frozenset[str]) -> bool | str:
    """Whether a file may be a picture that can be read; a text: it seems to be or to hold pictures, and why they are
    not used.

    Args:
        name: of the file.
        head: gives its first bytes; is asked only where the name does not settle it.
        known: `endings()`.
    """
    end = ending(name)
    if end in known or not end:
        return True
    kind = format_of(head())
    if end in _RAW and kind in ("", "TIFF"):  # what a reader of TIFF finds in it is a thumbnail
        return "raw data of a camera: develop them to TIFF or JPEG"
    if end in _ARCHIVE_ENDINGS and archive_kind(head()):
        return "an archive among the pictures: unpack it, or give it alone"
    kind = kind or _WITH_PLUGIN.get(end, "")
    return unreadable(kind) or bool(kind)


def unreadable(kind: str) -> str:
    """Why pictures of a format are not read, and what to do; empty if they are."""
    if not kind or kind in formats():
        return ""
    if kind in _PLUGINS:
        return f"{kind}: pip install {_PLUGINS[kind][1]}, or save them as JPEG or PNG"
    return f"{kind}: this Pillow does not read it; save them as JPEG or PNG"


def what_else(head: bytes) -> str:
    """What a file is that was taken for a picture and is none; empty if it is not known."""
    if why := unreadable(format_of(head)):
        return why
    return "an archive, not a picture" if archive_kind(head) else ""


def archive_kind(head: bytes) -> str:
    """What kind of archive a file is by its first bytes; empty if it is none."""
    starts = {
        b"PK\x03\x04": "zip",
        b"Rar!": "rar",
        b"7z\xbc": "7z",
        b"\x1f\x8b": "gzip",
        b"BZh": "bzip2",
        b"\xfd7zXZ": "xz",
    }
    kind = next((kind for start, kind in starts.items() if head.startswith(start)), "")
    return kind or ("tar" if head[257:262] == b"ustar" else "")


def hidden(part: str) -> bool:
    """Whether a file or folder of this name is nobody's picture: hidden, or kept by a system for itself."""
    return part.startswith(".") or part.lower() in _NO_DATA or part in ("Icon\r", "Icon\uf00d")


def printable(text: str) -> str:
    """Names in archives may hold anything, such as what moves the cursor of a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def ending(name: str) -> str:
    """The ending of a file's name in small letters with its dot; empty if there is none."""
    stem, dot, end = name.rpartition("/")[2].rpartition(".")
    return f".{end}".lower() if dot and stem and end else ""


def canonical(name: str) -> str:
    """A name as it is compared: macOS takes letters with accents apart, other systems do not."""
    return unicodedata.normalize("NFC", name)

"""Whether pictures are still the same ones, told without reading them."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

from ...common.errors import DatasetError


def stamp(source: str | os.PathLike[str]) -> str:
    """A name for the files of a folder or zip archive, which changes when one of them does: 32 hex digits.

    Of a folder it is made of names, sizes and times of change, of an archive of names, sizes and checksums; so an
    archive may be moved or copied.

    Raises:
        DatasetError: it is neither, or cannot be read.
    """
    path = Path(source)
    rows: list[tuple[str, int, int]] = []
    try:
        if path.is_dir():
            for folder, _, files in os.walk(path):
                for name in files:
                    full = Path(folder, name)
                    if full.is_file():
                        state = full.stat()
                        rows.append((full.relative_to(path).as_posix(), state.st_size, state.st_mtime_ns))
        elif path.is_file() and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                rows = [(entry.filename, entry.file_size, entry.CRC) for entry in archive.infolist()]
        else:
            raise DatasetError(f"{path}: there is no such folder or zip file")
    except DatasetError:
        raise
    except Exception as error:  # a damaged table of contents raises nearly anything
        raise DatasetError(f"{path}: cannot be read ({error})") from error
    return hashlib.blake2b(repr(sorted(rows)).encode(), digest_size=16).hexdigest()

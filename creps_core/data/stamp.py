"""A cheap fingerprint of a folder or archive: detects changed files without reading them."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

from ...common.errors import DatasetError


def stamp(source: str | os.PathLike[str]) -> str:
    """A hash of a folder or zip archive that changes when one of its files does: 32 hex digits.

    It covers names, sizes and modification times of a folder, names, sizes and checksums of an archive. So an archive
    keeps its hash when it is moved or copied.

    Raises:
        DatasetError: the source is neither, or cannot be read.
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
    except Exception as error:  # zipfile raises nearly anything on a damaged directory
        raise DatasetError(f"{path}: cannot be read ({error})") from error
    return hashlib.blake2b(repr(sorted(rows)).encode(), digest_size=16).hexdigest()

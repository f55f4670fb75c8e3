"""Scanning: every file of a dataset is decoded once, by threads, to find out whether it can be used."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from ...common.cache import LruCache
from ...common.progress import Progress
from .crop import CropSpec
from .decode import EMPTY_FILE, NOT_READ, NotAnImage, decode_image
from .file_types import suffix
from .sources import ImageSource, UnusableFile

_NAMES_PER_JOB = 8


@dataclass(frozen=True)
class ScannedFile:
    """Result for one file.

    Attributes:
        side: of the stored image, in pixels.
        notes: what was done to it.
        digest: of its bytes.
        error: why it cannot be used; None: it can.
    """

    side: int = 0
    notes: list[str] = field(default_factory=list)
    digest: bytes = b""
    error: UnusableFile | None = None

    def is_no_image(self, name: str) -> bool:
        """Whether to ignore the file without a report: it has no suffix and turned out not to be an image."""
        not_image = str(self.error) == EMPTY_FILE or (
            isinstance(self.error, NotAnImage) and str(self.error) == NOT_READ
        )
        return not_image and not suffix(name)


def scan_files(
    names: Sequence[str],
    count: int,
    decode: Callable[[str], ScannedFile],
    *,
    workers: int,
    progress: Progress | None = None,
) -> tuple[list[str], dict[str, ScannedFile]]:
    """Decode files until `count` of them are usable, or none is left.

    Args:
        names: candidates, in the order in which they are tried.
        count: usable images wanted.
        decode: decodes one file and caches the image; called by the threads.
        workers: threads.
        progress: called as progress(done, total) in the calling thread; an exception it raises stops the scan.

    Returns:
        Names of the usable images, in order, and the results of all files that were tried.
    """
    results: dict[str, ScannedFile] = {}
    usable: list[str] = []
    remaining = iter(names)
    # Each further round replaces the unusable files of the one before it.
    while len(usable) < count and (chosen := list(islice(remaining, count - len(usable)))):
        with closing(_map_ordered(decode, chosen, workers)) as scanned:
            for name, result in scanned:
                results[name] = result
                if result.error is None:
                    usable.append(name)
                if progress is not None:
                    progress(*(len(usable), count) if len(names) > count else (len(results), len(names)))
    return usable, results


def file_decoder(source: ImageSource, spec: CropSpec, cache: LruCache[str, np.ndarray]) -> Callable[[str], ScannedFile]:
    """A function for `scan_files` that decodes a file of the source and stores the image in the cache."""

    def decode(name: str) -> ScannedFile:
        digest = b""

        def read() -> bytes:
            nonlocal digest
            data = source.read(name)
            digest = content_digest(data)
            return data

        try:
            stored, notes = decode_image(read, source.size(name), spec)
        except UnusableFile as error:
            return ScannedFile(error=type(error)(str(error)))  # without its traceback, whose frames hold kilobytes
        cache.put(name, stored)
        return ScannedFile(stored.shape[1], notes, digest)

    return decode


def shuffle_names(names: Sequence[str], seed: int) -> list[str]:
    """A random permutation of the names."""
    order: list[int] = np.random.default_rng(seed).permutation(len(names)).tolist()
    return [names[i] for i in order]


def content_digest(data: bytes) -> bytes:
    """16 bytes that identify the content of a file."""
    return hashlib.blake2b(data, digest_size=16).digest()


def _map_ordered(
    decode: Callable[[str], ScannedFile], names: list[str], workers: int
) -> Generator[tuple[str, ScannedFile]]:
    """Names with their results, in order, computed by threads. Work stops when the generator is closed."""
    jobs = iter([names[start : start + _NAMES_PER_JOB] for start in range(0, len(names), _NAMES_PER_JOB)])
    with ThreadPoolExecutor(workers, "creps-open") as pool:
        pending: deque[tuple[list[str], Future[list[ScannedFile]]]] = deque()
        try:
            while True:
                for job in islice(jobs, 4 * workers - len(pending)):
                    pending.append((job, pool.submit(lambda job: [decode(name) for name in job], job)))
                if not pending:
                    return
                job, future = pending.popleft()
                yield from zip(job, future.result(), strict=True)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

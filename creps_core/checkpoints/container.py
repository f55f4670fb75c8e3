"""Read and write tensors as safetensors files with our JSON object in the header, and detect damaged files.

The format is that of the safetensors library (https://huggingface.co/docs/safetensors): eight bytes of length, a JSON
header, the data. We read it ourselves because the library maps files into memory (truncating the file kills the
process), accepts dtypes that torch cannot check, and any number of names and axes. We write it ourselves because the
library's files are readable by their owner only and its errors name no file. Both directions are tested against the
library.

Two checksums protect a file: `sha256` covers the tensors, `header_sha256` the rest of our JSON object. Files of version
0.1.0 lack the second one (and those of latents both); they may have only the fields that 0.1.0 wrote.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from io import FileIO
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ...common.errors import AGAIN, CHECK_FILE, CHECK_NAME, FileError, printable, quoted
from ...common.files import Path_, open_file, parse_json, read_exactly, replace_file

DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""The dtypes of our files by their safetensors names, in the order in which a file stores them."""
SEAL = "header_sha256"
HEADER_LIMIT = 1 << 24  # bytes; names and labels of a hundred thousand latents
TENSOR_LIMIT = 20_000  # a snapshot of a 1024 model has about 1000
AXES_LIMIT = 8
NAME_LIMIT = 200  # characters
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_LATER = "Read it again when nothing writes to it"

MakeError = Callable[..., Exception]
"""Makes the error to raise: (found, advice = the usual one) -> exception."""


@dataclass(frozen=True)
class Entry:
    """Where a file stores a tensor, in bytes behind the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class TensorFile:
    """An open file whose header has been read and checked, and whose tensors have not.

    Attributes:
        metadata: texts by name.
        entries: the tensors by name.
    """

    file: FileIO
    refuse: MakeError
    newer: MakeError

    def __init__(self, file: FileIO, refuse: MakeError, newer: MakeError):
        self.file, self.refuse, self.newer = file, refuse, newer
        self.size: int = os.fstat(file.fileno()).st_size
        text = self._header_text()
        try:
            header = parse_json(text.decode())
            self.metadata: dict[str, str] = _metadata(header.pop("__metadata__", {}))
            self.data_start: int = 8 + len(text)
            self.entries: dict[str, Entry] = _entries(header, self.size - self.data_start)
        except ValueError as error:
            raise refuse(f"not a whole safetensors file ({error})") from error

    def read(self) -> dict[str, Tensor]:
        """All tensors, copied into memory: later changes of the file do not reach them."""
        return {name: self._tensor(entry) for name, entry in self.entries.items()}

    def require_dtypes(self) -> None:
        """Raise the file's error unless all dtypes are in `DTYPES`."""
        for name, entry in self.entries.items():
            if entry.dtype not in DTYPES:
                raise self.refuse(f"holds {name} as {entry.dtype}; known are {', '.join(DTYPES)}")

    def _header_text(self) -> bytes:
        head = bytearray(min(8, self.size))
        if len(head) < 8 or not read_exactly(self.file, head):
            raise self.refuse(f"not a whole safetensors file (it has {self.size} bytes)")
        (length,) = struct.unpack("<Q", head)
        if length > min(HEADER_LIMIT, self.size - 8):
            found = f"its header claims {length} bytes, and {self.size - 8} follow"
            raise self.refuse(f"not a whole safetensors file ({found})")
        text = bytearray(length)
        if not read_exactly(self.file, text):
            raise self.refuse("became shorter while it was read", _LATER)
        return bytes(text)

    def _tensor(self, entry: Entry) -> Tensor:
        dtype = DTYPES[entry.dtype]
        if entry.start == entry.stop:
            return torch.empty(entry.shape, dtype=dtype)
        try:
            data = bytearray(entry.stop - entry.start)
        except MemoryError:
            size = f"{(self.size - self.data_start) / 1e9:.1f} GB of numbers do not fit into the free memory"
            raise self.refuse(size, "Close other programs, or choose a smaller file") from None
        self.file.seek(self.data_start + entry.start)
        if not read_exactly(self.file, data):
            raise self.refuse("became shorter while it was read", _LATER)
        return torch.frombuffer(data, dtype=dtype).reshape(entry.shape)


def open_tensors(path: Path_, error: type[FileError], newer: type[FileError] | None = None) -> TensorFile:
    """Open a safetensors file and check its header. Close its `file` after use.

    Args:
        path: the file.
        error: class to raise for a file that cannot be used.
        newer: class to raise for a file of a later format version, see `read_header`; None: `error`.

    Raises:
        error: the file is missing, cannot be read, or is not a whole safetensors file.
    """

    def refuse(found: str, advice: str = AGAIN) -> FileError:
        return error.about(path, found, advice)

    def refuse_newer(found: str, advice: str = AGAIN) -> FileError:
        return (newer or error).about(path, found, advice)

    try:
        file = open_file(path)
    except FileNotFoundError:
        raise refuse("there is no such file", CHECK_NAME) from None
    except OSError as problem:
        raise refuse(f"cannot be read ({problem.strerror})", CHECK_FILE) from problem
    try:
        return TensorFile(file, refuse, refuse_newer)
    except BaseException as problem:
        file.close()
        if isinstance(problem, OSError):
            raise refuse(f"cannot be read ({problem.strerror})", CHECK_FILE) from problem
        raise


def write_tensors(path: Path_, tensors: Mapping[str, Tensor], key: str, header: Mapping[str, Any]) -> None:
    """Write a file atomically: contiguous CPU tensors of `DTYPES`, and the sealed header under `key`.

    Raises:
        OSError: the file cannot be written; one sentence.
    """
    # The library's order: larger dtypes first, so that all tensors are aligned, then by name.
    ranks = {dtype: rank for rank, dtype in enumerate(DTYPES.values())}
    order = sorted(tensors, key=lambda name: (ranks[tensors[name].dtype], name))
    entries: dict[str, Any] = {"__metadata__": {key: json.dumps(sealed(header))}}
    start = 0
    for name in order:
        tensor = tensors[name]
        stop = start + tensor.nbytes
        entries[name] = {
            "dtype": _DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)

    def write(file: BinaryIO) -> None:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            file.write(as_bytes(tensors[name]))

    replace_file(path, write)


def as_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, without a copy."""
    return tensor.detach().view(-1).view(torch.uint8).numpy().data


def sealed(header: Mapping[str, Any]) -> dict[str, Any]:
    """A header with a checksum of its other fields: a damaged counter or learning rate would look valid."""
    rest = {name: value for name, value in header.items() if name != SEAL}
    return {**rest, SEAL: _seal(rest)}


def read_header(
    file: TensorFile, key: str, limit: int, version: int, old_fields: Collection[str], check: Callable[[dict], None]
) -> dict[str, Any]:
    """Read and check our JSON object in the header of a file.

    Args:
        file: must have the key.
        key: name of the object in the metadata.
        limit: maximum length in characters.
        version: newest known format version.
        old_fields: the only fields allowed without a seal.
        check: raises ValueError, KeyError or TypeError for a header with invalid fields.
    """
    try:
        text = file.metadata[key]
        if len(text) > limit:
            raise ValueError(f"it is {len(text)} characters long")
        header = parse_json(text)
        found = header.get("version")
        if type(found) is not int or found < 1:
            raise ValueError("it has no version")
        check(header)
    except (ValueError, TypeError, KeyError) as error:
        raise file.refuse(f"its header cannot be read ({_error_text(error)})") from error
    if found > version:
        raise file.refuse(
            f"written in version {quoted(found)} of the format, and this program knows {version}", "Update this program"
        )
    if SEAL in header:
        good = _seal({name: value for name, value in header.items() if name != SEAL}) == header[SEAL]
    else:
        good = header.keys() <= set(old_fields)
    if not good:
        raise file.refuse("its header does not match its checksum")
    return header


def _seal(rest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(json.loads(json.dumps(rest)), sort_keys=True).encode()).hexdigest()


def _error_text(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"there is no {printable(str(error.args[0]))} in it"
    return printable(str(error), 100)


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ValueError("its metadata are not texts")
    return value


def _entries(header: dict[str, Any], size: int) -> dict[str, Entry]:
    """The tensors of a header; they must fill the data without gap or overlap."""
    if len(header) > TENSOR_LIMIT:
        raise ValueError(f"it has {len(header)} tensors, more than {TENSOR_LIMIT}")
    entries = {name: _entry(name, value) for name, value in header.items()}
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start != end:
            raise ValueError(f"{quoted(name)} begins at byte {entry.start} instead of {end}")
        end = entry.stop
    if end != size:
        raise ValueError(f"its tensors take {end} bytes, and there are {size}")
    return entries


def _entry(name: str, value: Any) -> Entry:
    match value:
        case {"dtype": str() as dtype, "shape": list() as shape, "data_offsets": [int() as start, int() as stop]}:
            pass
        case _:
            raise ValueError(f"{quoted(name)} is described in an unknown way")
    if not name or len(name) > NAME_LIMIT:
        raise ValueError(f"the name {quoted(name)} is empty or too long")
    numbers = [start, stop, *shape]
    if (
        len(shape) > AXES_LIMIT
        or any(type(n) is not int or not 0 <= n < 1 << 63 for n in numbers)
        or stop < start
        or (start == stop and math.prod(max(n, 1) for n in shape) > 1 << 31)  # torch cannot make it
    ):
        raise ValueError(f"{quoted(name)} has an impossible shape")
    if dtype in DTYPES and math.prod(shape) * DTYPES[dtype].itemsize != stop - start:
        raise ValueError(f"{quoted(name)} has {stop - start} bytes, which is not what its shape takes")
    return Entry(printable(dtype, 20), tuple(shape), start, stop)

"""Read official CREPS snapshots (`creps-*.pkl`, `network-snapshot-*.pkl`) as data; no code in a file is executed.

A snapshot is a pickle of {G, D, G_ema, augment_pipe, training_set_kwargs}. Its networks are "persistent objects": a
class name, attributes, and the Python source of the class, which the authors' loader compiles. Here the source is
dropped and the attributes are kept as data: `pickle_reader` reads the stream, `pickle_objects` provides stand-ins for
the objects that it names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from ...common.errors import CHECK_FILE, CHECK_NAME, CheckpointError, printable
from ...common.files import open_file
from .hyperparameters import CHECKED
from .pickle_objects import TORCH_MAGIC, WRAPPER, Module, Objects, Unused
from .pickle_reader import BufferedFile, Interpreter, Stream, StreamError, escaped

INSTRUCTION_LIMIT = 250_000  # a snapshot needs about 150 per tensor: 80,000 at 1024 x 1024
ENTRY_LIMIT = 20_000  # tensors, modules and arguments, shared ones counted at each use; about 1000 at 1024 x 1024
DEPTH_LIMIT = 24  # modules inside modules, dicts inside dicts
TENSOR_NAME_LIMIT = 200  # characters
_TRAINING_SET = "training_set_kwargs"
_QUOTED_TEXT = 30  # characters of a text file in a message
CHOOSE = "Choose a CREPS snapshot: the .pkl of the training or of its authors, a pickle of G, D and G_ema"


@dataclass(frozen=True)
class Network:
    """One network of a snapshot, as data."""

    class_name: str  # "Generator", "Discriminator", "AugmentPipe"
    init_kwargs: dict[str, Any]  # constructor arguments by name: strings, numbers, lists, dicts
    init_args: tuple[Any, ...]
    tensors: dict[str, torch.Tensor]  # parameters and buffers, on the CPU, under their state-dict names
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)  # attributes in `CHECKED`, by layer


@dataclass(frozen=True)
class Snapshot:
    """A snapshot of the official training loop."""

    networks: dict[str, Network]  # G_ema, and those present of G, D, augment_pipe
    training_set: dict[str, Any]  # arguments of the dataset, {} when missing


def is_pickle(path: str | os.PathLike[str]) -> bool:
    """Whether a file starts like a pickle of protocol 2 to 5; its name does not matter."""
    with open_file(path) as file:
        return _is_pickle(file.read(2) or b"")


def read_snapshot(path: str | os.PathLike[str]) -> Snapshot:
    """Read a snapshot without executing anything in it. Needs the memory of its tensors.

    Raises:
        CheckpointError: the file cannot be used; names it, what was found, and what to do.
    """
    try:
        if not os.path.isfile(path):
            found = "is not a file" if os.path.exists(path) else "does not exist"
            raise StreamError(found, CHECK_NAME)
        with open_file(path) as file:
            head = file.read(512) or b""
            if not _is_pickle(head):
                raise _not_a_pickle(head)
            size = os.fstat(file.fileno()).st_size
            return _SnapshotReader(BufferedFile(file, size)).read()
    except StreamError as error:
        raise CheckpointError.about(path, error.found, error.advice) from None
    except MemoryError:
        raise CheckpointError.about(path, "does not fit into the free memory", "Close other programs") from None
    except OSError as error:
        raise CheckpointError.about(path, f"cannot be read ({error.strerror})", CHECK_FILE) from None
    except Exception as error:  # any other failure of a damaged or crafted file
        raise CheckpointError.about(path, f"is damaged ({type(error).__name__}: {escaped(str(error))})") from None


def _is_pickle(head: bytes) -> bool:
    return len(head) >= 2 and head[0] == 0x80 and 2 <= head[1] <= 5


def _not_a_pickle(head: bytes) -> StreamError:
    """The error for a file that is not a pickle: what it is, and what to do."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return StreamError("is empty", "The download failed; get the file again")
    if head.startswith(b"PK\x03\x04"):
        return StreamError("is a zip archive, as torch.save writes", CHOOSE)
    if head[4:9] == b"\0\0\0\0{":  # behind the length of its header
        return StreamError("is a safetensors file, not a pickle", "Let its name end in .safetensors")
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return StreamError(
            "is a web page, probably the warning that Google Drive shows in place of large files",
            "Open the link in a browser, confirm the download, and use the file that it saves (over 100 MB)",
        )
    if head.startswith(b"version https://git-lfs"):
        return StreamError("is a Git LFS pointer, not the file itself", "Run `git lfs pull`, or download it")
    if head.startswith(b"\x1f\x8b"):
        return StreamError("is a gzip archive", "Unpack it first")
    return StreamError(f"is {_described(head)}, neither a snapshot nor a safetensors file", CHOOSE)


def _described(head: bytes) -> str:
    """A description of a file of another kind, from its first bytes; text is quoted."""
    text = head.decode("utf-8", "replace")
    unprintable = sum(not (c.isprintable() or c.isspace()) or c == "\ufffd" for c in text)
    if 8 * unprintable <= len(text):
        return f'a text file ("{printable(text.strip().split(chr(10))[0][:_QUOTED_TEXT])}...")'
    kinds = {b"\x89PNG": "a PNG picture", b"\xff\xd8\xff": "a JPEG picture", b"RIFF": "a WebP picture or a sound"}
    kinds |= {b"GGUF": "a GGUF file of a language or diffusion model", b"\x93NUMPY": "a NumPy array"}
    return next((kind for start, kind in kinds.items() if head.startswith(start)), "a file of an unknown kind")


class _SnapshotReader:
    """Reads one file; its limits hold for all networks of the file together."""

    def __init__(self, data: BufferedFile):
        self.data = data
        self.entries_left = ENTRY_LIMIT

    def read(self) -> Snapshot:
        interpreter = Interpreter(INSTRUCTION_LIMIT)
        objects = Objects(interpreter, self.data.size)
        root = interpreter.read(Stream(self.data, 0, self.data.size), objects.find)
        if type(root) is int and root == TORCH_MAGIC:
            raise StreamError("was written by torch.save", CHOOSE)
        if not isinstance(root, dict):
            raise StreamError("is a pickle of something else than a dict", CHOOSE)
        if root.get("G_ema") is None:
            found = ", ".join(escaped(str(key)) for key in list(root)[:4]) or "nothing"
            more = f" and {len(root) - 4} more" if len(root) > 4 else ""
            raise StreamError(f"has no network G_ema; it holds {found}{more}", CHOOSE)
        names = [name for name in ("G", "D", "G_ema", "augment_pipe") if root.get(name) is not None]
        networks = {name: self.network(name, root[name]) for name in names}
        training_set = self.plain(_TRAINING_SET, root.get("training_set_kwargs"))
        if not isinstance(training_set, dict | None):
            raise StreamError("has training_set_kwargs that are not a dict")
        return Snapshot(networks, training_set or {})

    def network(self, name: str, module: Any) -> Network:
        if isinstance(module, Module) and module.class_name == WRAPPER:
            module = module.table("_modules").get("module")
        if not isinstance(module, Module):
            raise StreamError(f"has something else than a network as {name}")
        kwargs = self.plain(f"the arguments of {name}", module.table("_init_kwargs"))
        args = self.plain(f"the arguments of {name}", module.state.get("_init_args", ()))
        if not isinstance(args, tuple):
            raise StreamError(f"has arguments of {name} that are not a tuple")
        tensors = dict(self.tensors(name, module, ""))
        # Views can share a storage, so that a few bytes name terabytes; writers store each tensor whole.
        if sum(tensor.nbytes for tensor in tensors.values()) > self.data.size:
            raise StreamError(f"has tensors in {name} that are together larger than the file")
        return Network(module.class_name, kwargs, args, tensors, dict(self.settings(module, "")))

    def settings(self, module: Module, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The stored hyperparameters of the layers, where they are plain values; `tensors` has checked the names."""
        self.count_entry("the layers", name.count("."))
        stored = {key: module.state[key] for key in CHECKED if key in module.state}
        plain = {key: value for key, value in stored.items() if type(value) in (str, int, float, bool, type(None))}
        if plain:
            yield name, plain
        for key, child in module.table("_modules").items():
            if isinstance(child, Module):
                yield from self.settings(child, f"{name}.{key}" if name else key)

    def tensors(self, network: str, module: Module, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
        """Parameters and buffers, then those of the children, as in a state dict."""
        for attribute in ("_parameters", "_buffers", "_modules"):
            for key, value in module.table(attribute).items():
                name = prefix + key
                self.count_entry(network, name.count("."))
                if not key or len(name) > TENSOR_NAME_LIMIT:
                    raise StreamError(f"has a name in {network} that is empty or too long: {escaped(name)}")
                if isinstance(value, torch.Tensor) and attribute != "_modules":
                    yield name, value
                elif isinstance(value, Module) and attribute == "_modules":
                    yield from self.tensors(network, value, name + ".")
                elif value is not None:
                    raise StreamError(f"has neither tensor nor module as {escaped(name)} of {network}")

    def plain(self, where: str, value: Any, depth: int = 0) -> Any:
        """A copy made of dicts with string keys, lists, tuples, strings, numbers, True, False and None."""
        self.count_entry(where, depth)
        if value is None or type(value) in (str, int, float, bool):
            return value
        if isinstance(value, Unused) and where == _TRAINING_SET:
            return None  # such as the path of the pictures
        if isinstance(value, dict) and all(type(key) is str for key in value):
            return {key: self.plain(where, item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.plain(where, item, depth + 1) for item in value)
        raise StreamError(f"has a value in {where} that is not plain data")

    def count_entry(self, where: str, depth: int) -> None:
        # Shared objects count at each use: a small file can name the same child a million times, or itself.
        self.entries_left -= 1
        if self.entries_left < 0:
            raise StreamError(f"unfolds to more than {ENTRY_LIMIT} entries (in {where})")
        if depth > DEPTH_LIMIT:
            raise StreamError(f"is nested more than {DEPTH_LIMIT} deep in {where}")

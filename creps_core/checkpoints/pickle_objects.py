"""Stand-ins for the Python objects that an official snapshot names: modules, tensors, storages, numpy scalars."""

from __future__ import annotations

import math
import struct
from io import BytesIO
from typing import Any

import torch

from .pickle_reader import BufferedFile, Builder, Inert, Interpreter, Stream, StreamError, escaped, pairs_of

TORCH_MAGIC, TORCH_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
UNSAFE = "Do not load the file with other programs; get it again from the CREPS authors"
EMPTY_TENSOR_LIMIT = 1 << 31  # product of the other sizes of a tensor that has a size of 0

_STORAGES = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
_DTYPES = {str(dtype): dtype for dtype in _STORAGES.values()}
# numpy's codes of plain numbers -> those of struct; no "O8", whose bytes would be a pointer
_SCALARS = dict(
    zip(["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"], "?bhiqBHIQefd", strict=True)
)


class Module(Inert):
    """A torch module of the file: its class name, and its attributes as data."""

    __slots__ = ("class_name", "state")

    def __init__(self, class_name: str, state: dict[str, Any]):
        self.class_name: str = class_name
        self.state: dict[str, Any] = state

    def set_state(self, state: Any) -> None:
        if self.state or not isinstance(state, dict):
            raise StreamError(f"gives a {self.class_name} attributes that are not one dict")
        self.state = state

    def table(self, attribute: str) -> dict[str, Any]:
        table = self.state.get(attribute, {})
        if not isinstance(table, dict):
            raise StreamError(f"has a {self.class_name} whose {attribute} is not a dict")
        if not all(type(key) is str for key in table):
            raise StreamError(f"has a {self.class_name} whose {attribute} has keys that are not texts")
        return table


class Unused(Inert):
    """An object that people store beside the networks: a path, a date, arrays, random states. It is empty."""

    __slots__ = ()

    def set_state(self, state: Any) -> None:
        """Nothing is kept."""


WRAPPER = "DataParallel"
_WRAPPERS = ("torch.nn.parallel.data_parallel.DataParallel", "torch.nn.parallel.distributed.DistributedDataParallel")
_UNUSED = (
    *(f"pathlib.{name}" for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")),
    *(f"pathlib._local.{name}" for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")),
    *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
    "argparse.Namespace",
    "types.SimpleNamespace",
    "numpy.ndarray",
    *(f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")),
    *(f"numpy.random._pickle.__{name}_ctor" for name in ("randomstate", "bit_generator", "generator")),
    "numpy.random._mt19937.MT19937",
    "numpy.random._pcg64.PCG64",
)


class _ScalarType(Inert):
    """A numpy dtype of the file, for decoding scalars."""

    __slots__ = ("layout",)

    def __init__(self, code: Any, align: Any, copy: Any):
        if type(code) is not str or code not in _SCALARS:
            raise StreamError("has a numpy value that is not a plain number")
        self.layout = "<" + _SCALARS[code]

    def set_state(self, state: Any) -> None:
        match state:
            case (int(), ("<" | ">" | "|") as order, *_):
                self.layout = (">" if order == ">" else "<") + self.layout[1:]
            case _:
                raise StreamError("has a numpy dtype of an unknown form")


class _Storage:
    """A torch storage: a flat tensor."""

    __slots__ = ("flat",)

    def __init__(self, flat: torch.Tensor):
        self.flat: torch.Tensor = flat


class Objects:
    """Everything that a file may name, each made by our own code. One instance per file, which has `size` bytes."""

    text_left: int

    def __init__(self, interpreter: Interpreter, size: int):
        self.interpreter = interpreter
        self.text_left = size
        self.storages: dict[Stream, _Storage] = {}
        self.named: dict[str, Any] = {
            "torch_utils.persistence._reconstruct_persistent_obj": Builder(_persistent_object),
            "training.networks_creps.SynthesisInput": Builder(lambda: Module("SynthesisInput", {})),
            "torch.nn.modules.container.Sequential": Builder(lambda: Module("Sequential", {})),
            "torch.storage._load_from_bytes": Builder(self.storage),
            "torch._utils._rebuild_tensor_v2": Builder(_tensor),
            "torch._utils._rebuild_parameter": Builder(lambda tensor, grad, hooks: tensor),
            "torch._utils._rebuild_parameter_with_state": Builder(lambda tensor, grad, hooks, state: tensor),
            "torch.Size": Builder(lambda size: size),
            "torch.device": Builder(lambda *parts: None),
            "numpy.dtype": Builder(_ScalarType),
            "numpy.core.multiarray.scalar": Builder(_scalar),
            "numpy._core.multiarray.scalar": Builder(_scalar),
            "collections.OrderedDict": Builder(self.mapping),
            "dnnlib.util.EasyDict": Builder(self.mapping),
            # protocols 2 and 3 write sets and byte strings with these
            "builtins.set": Builder(self.set),
            "__builtin__.set": Builder(self.set),
            "_codecs.encode": Builder(self.encoded),
            **_DTYPES,
            **{name: Builder(lambda *_: Unused()) for name in _UNUSED},
            **{name: Builder(lambda: Module(WRAPPER, {})) for name in _WRAPPERS},
        }

    def find(self, name: str) -> Any:
        """The stand-in for "module.name". Raises StreamError if there is none."""
        if name in self.named:
            return self.named[name]
        found = f"asks for the Python object {escaped(name)}, which no CREPS snapshot needs; nothing of it ran"
        if name.startswith("dnnlib.tflib"):
            raise StreamError(found, "It is a StyleGAN network of TensorFlow; choose a CREPS snapshot")
        if "stylegan" in name.lower() or name.startswith(("dnnlib.", "torch_utils.", "training.")):
            raise StreamError(found, "It belongs to StyleGAN or a relative of it; choose a CREPS snapshot")
        raise StreamError(found, UNSAFE)

    def storage(self, stream: Any) -> _Storage:
        """torch.storage._load_from_bytes: a storage from a byte string of the legacy torch.save."""
        if not isinstance(stream, Stream):
            raise StreamError("has a torch storage that is not a byte string")
        if stream not in self.storages:  # by identity; read once, however often the file names it
            self.storages[stream] = self.read_storage(stream)
        return self.storages[stream]

    def read_storage(self, stream: Stream) -> _Storage:
        """Read the pickles of a legacy storage and the numbers behind them. Raises StreamError."""
        magic, protocol, system, described, keys = (
            self.interpreter.read(stream, _find_storage, references=True) for _ in range(5)
        )
        match magic, protocol, system:
            case int(), int(), {"little_endian": True} if (magic, protocol) == (TORCH_MAGIC, TORCH_PROTOCOL):
                pass
            case _:
                raise StreamError("has a torch storage of an unknown form, or of a big-endian machine")
        match described:
            case ("storage", torch.dtype() as dtype, str() as key, str(), int() as count, *view):
                pass
            case _:
                raise StreamError("has a torch storage without a proper description")
        if keys != [key] or view not in ([], [None]):
            raise StreamError("has a torch storage that is a part of another")
        if stream.number("<q") != count or stream.left != count * dtype.itemsize:
            raise StreamError(f"has a torch storage of {stream.left} bytes that claims another size")
        if count == 0:
            return _Storage(torch.empty(0, dtype=dtype))
        # The one copy of the numbers: the tensor keeps it, and the file can be closed.
        raw = stream.data.into(stream.position, stream.stop)
        if dtype is torch.bool:  # bytes other than 0 and 1 are undefined in torch
            return _Storage(torch.frombuffer(raw, dtype=torch.uint8) != 0)
        return _Storage(torch.frombuffer(raw, dtype=dtype))

    def encoded(self, text: Any, encoding: Any) -> Stream:
        """_codecs.encode: protocol 2 writes byte strings as calls of it."""
        if type(text) is not str or encoding != "latin1":
            raise StreamError("encodes a text in an unexpected way")
        self.text_left -= len(text)  # one text may be encoded many times
        if self.text_left < 0:
            raise StreamError("has byte strings that are together larger than the file")
        return Stream(BufferedFile(BytesIO(text.encode("latin-1")), len(text)), 0, len(text))

    def mapping(self, items: Any = ()) -> dict[str, Any]:
        """A dict from another one or from pairs; each entry is charged as one instruction."""
        if not isinstance(items, dict):
            items = pairs_of(items)
        self.interpreter.charge(len(items))
        return dict(items)

    def set(self, items: Any = ()) -> list[Any]:
        """A set, as a list."""
        if not isinstance(items, list | tuple):
            raise StreamError("makes a set of something that is not a list")
        self.interpreter.charge(len(items))
        return list(items)


def _find_storage(name: str) -> torch.dtype:
    if name not in _STORAGES:
        found = f"asks for the Python object {escaped(name)} in a torch storage; nothing of it ran"
        raise StreamError(found, UNSAFE)
    return _STORAGES[name]


def _persistent_object(meta: Any) -> Module:
    match meta:
        case {"type": "class", "class_name": str() as class_name, "state": dict() as state}:
            return Module(escaped(class_name), state)  # `module_src`, the source text, is dropped
        case _:
            raise StreamError("has a persistent object of an unknown form")


def _scalar(dtype: Any, stream: Any) -> int | float | bool:
    if not isinstance(dtype, _ScalarType) or not isinstance(stream, Stream):
        raise StreamError("has a numpy value of an unknown form")
    return struct.unpack(dtype.layout, stream.rest())[0]


def _tensor(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, metadata: Any = None
) -> torch.Tensor:
    """torch._utils._rebuild_tensor_v2, checked in exact integers before torch receives the numbers."""
    if not isinstance(storage, _Storage) or not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise StreamError("has a tensor of an unknown form")
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or len(size) > 8 or any(type(n) is not int or n < 0 for n in numbers):
        raise StreamError("has a tensor of an impossible shape")
    flat, count = storage.flat, math.prod(size)
    if count == 0:
        if math.prod(max(n, 1) for n in size) > EMPTY_TENSOR_LIMIT:
            raise StreamError("has an empty tensor of an implausible shape")
        return flat.new_empty(size)
    steps = [(n - 1, step) for n, step in zip(size, stride, strict=True)]
    last = offset + sum(n * step for n, step in steps)
    overlaps = any(n and not step for n, step in steps)
    if count > len(flat) or last >= len(flat) or overlaps or max(stride, default=0) > len(flat):
        raise StreamError(
            f"has a tensor that does not fit its storage of {len(flat)} numbers: "
            + escaped(f"size {size}, stride {stride}, offset {offset}")
        )
    return flat.as_strided(size, stride, offset)

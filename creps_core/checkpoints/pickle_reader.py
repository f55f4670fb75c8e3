"""Read pickle streams as data: a small interpreter that imports nothing and calls only what its caller provides.

Python's unpickler imports and calls whatever a stream names, sets attributes on the result, and allocates what a
length or a memo index claims. Here a stream can make dicts, lists, tuples, strings and numbers; every other object
comes from a `find` function of the caller, by name. Instructions without an entry in `_ACTIONS` are refused, only
strings and small numbers are hashed, and no step recurses, so nesting costs no stack. Instructions and copied values
are charged to one budget, which bounds the cost of a file before it is read.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from io import BytesIO, FileIO
from typing import Any

from ...common.files import read_exactly

NAMES = {ord(op.code): op.name for op in pickletools.opcodes}
# Instruction -> struct layout of the number that follows it, or of the length of the bytes that follow it
NUMBERS = {
    "PROTO": "<B",
    "FRAME": "<Q",
    "BININT": "<i",
    "BININT1": "<B",
    "BININT2": "<H",
    "BINFLOAT": ">d",
    "BINGET": "<B",
    "BINPUT": "<B",
    "LONG_BINGET": "<I",
    "LONG_BINPUT": "<I",
}
LENGTHS = {
    "LONG1": "<B",
    "SHORT_BINBYTES": "<B",
    "SHORT_BINUNICODE": "<B",
    "BINBYTES": "<I",
    "BINUNICODE": "<I",
    "BINBYTES8": "<Q",
    "BINUNICODE8": "<Q",
}
# A set becomes a list: hashing values of the file invites deep recursion and crafted collisions.
MAKERS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_SET": list,
}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
LINE_LIMIT = 256
_KEY_LIMIT = 1 << 20
BUFFER = 1 << 16
CUT_OFF = "The download was probably cut off; get the file again"


class StreamError(ValueError):
    """What is wrong with a stream (`found`), and what to do about it (`advice`). The caller adds the file's name."""

    found: str
    advice: str

    def __init__(
        self,
        found: str,
        advice: str = "It is damaged or not a CREPS snapshot; get it again from the CREPS authors",
    ):
        super().__init__(f"{found}. {advice}")
        self.found, self.advice = found, advice


def escaped(text: str) -> str:
    """Text of a file for a message: ASCII, printable, at most 100 characters."""
    line = ascii(text[:101])[1:-1]
    return line if len(line) <= 100 else line[:97] + "..."


class BufferedFile:
    """A file of `size` bytes, read on demand. It is not mapped: truncating a mapped file would kill the process."""

    file: FileIO | BytesIO
    size: int

    def __init__(self, file: FileIO | BytesIO, size: int):
        self.file, self.size = file, size
        self.start, self.buffer = 0, b""

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from start to stop, at most `size`; short reads are buffered."""
        if start < self.start or stop > self.start + len(self.buffer):
            if stop - start >= BUFFER:
                return bytes(self.into(start, stop))
            self.buffer: bytes = bytes(self.into(start, min(start + BUFFER, self.size)))
            self.start: int = start
        return self.buffer[start - self.start : stop - self.start]

    def into(self, start: int, stop: int) -> bytearray:
        """The same bytes, unbuffered, in memory that the caller may keep and write to."""
        data = bytearray(stop - start)
        self.file.seek(start)
        if not read_exactly(self.file, data):
            raise StreamError("became shorter while it was read", CUT_OFF)
        return data


class Stream:
    """A range of a file, read front to back. Byte strings inside it are streams too, not copies."""

    __slots__ = ("data", "position", "stop")

    def __init__(self, data: BufferedFile, start: int, stop: int):
        self.data: BufferedFile = data
        self.position = start
        self.stop: int = stop

    @property
    def left(self) -> int:
        """Bytes that follow the position."""
        return self.stop - self.position

    def skip(self, count: int) -> int:
        """Skip `count` bytes; returns where they start. Raises StreamError if fewer are left."""
        start = self.position
        if count > self.stop - start:
            raise StreamError(f"ends too early: {count} bytes should follow at byte {start}, {self.left} do", CUT_OFF)
        self.position: int = start + count
        return start

    def window(self, count: int) -> Stream:
        """The next `count` bytes as a stream of their own."""
        start = self.skip(count)
        return Stream(self.data, start, start + count)

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        start = self.skip(count)
        return self.data.read(start, start + count)

    def number(self, layout: str) -> Any:
        """The next number, of a struct layout."""
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def line(self) -> str:
        """The next line, without its end."""
        end = self.data.read(self.position, min(self.stop, self.position + LINE_LIMIT)).find(b"\n")
        if end < 0:
            raise StreamError(f"has no end of line within {LINE_LIMIT} bytes after byte {self.position}")
        return self.take(end + 1)[:-1].decode()

    def rest(self) -> bytes:
        """All bytes that follow, leaving the position as it is."""
        return self.data.read(self.position, self.stop)


class Builder:
    """A function of ours that a stream may call, in place of an object that it names."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[..., Any]):
        self.make = make


class Inert:
    """Base of the objects whose state a stream may set after a Builder made them."""

    __slots__ = ()

    def set_state(self, state: Any) -> None:
        raise StreamError("sets the state of an object that has none")


class Interpreter:
    """Reads pickles of protocols 2 to 5 within one budget of instructions and copied values for all of them."""

    left: int

    def __init__(self, limit: int):
        self.limit = limit
        self.left = limit

    def charge(self, count: int) -> None:
        """Charge `count` instructions, or values that an instruction copies. Raises StreamError beyond the budget."""
        self.left -= count
        if self.left < 0:
            raise StreamError(f"has more than {self.limit} instructions, far more than a CREPS snapshot")

    def read(self, stream: Stream, find: Callable[[str], Any], *, references: bool = False) -> Any:
        """Read the pickle at the start of `stream`, and leave the stream behind it.

        Args:
            stream: where to read.
            find: maps "module.name" to an object, or raises.
            references: allow persistent ids, whose value is the id that the writer stored.
        """
        state = _PickleState(self, stream, find, references)
        while True:
            self.charge(1)
            code = stream.take(1)[0]
            name = NAMES.get(code, "")
            argument: Any = None
            if name in NUMBERS:
                argument = stream.number(NUMBERS[name])
            elif name in LENGTHS:
                argument = stream.window(stream.number(LENGTHS[name]))
            elif name in MAKERS:
                argument = MAKERS[name]()
            elif name in TUPLES:
                argument = TUPLES[name]
            if name == "STOP":
                return state.result()
            if name not in _ACTIONS or (name == "BINPERSID" and not references):
                raise StreamError(f"uses the pickle instruction {name or hex(code)}, unlike any snapshot")
            _ACTIONS[name](state, argument)


class _PickleState:
    """Stack and memo while one pickle is read. A method executes an instruction with its argument."""

    def __init__(self, interpreter: Interpreter, stream: Stream, find: Callable[[str], Any], references: bool):
        self.interpreter, self.stream, self.find, self.references = interpreter, stream, find, references
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # the stacks below each open MARK
        self.memo: dict[int, Any] = {}  # a dict, so that a large index costs nothing

    def result(self) -> Any:
        if len(self.stack) != 1 or self.outer:
            raise StreamError("ends with values left over")
        return self.stack[0]

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def push_text(self, window: Stream) -> None:
        self.stack.append(window.rest().decode())

    def push_long(self, window: Stream) -> None:
        self.stack.append(int.from_bytes(window.rest(), "little", signed=True))

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise StreamError(f"recalls the value number {index}, which it never stored")
        self.stack.append(self.memo[index])

    def memoize(self, _: None) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def store(self, index: int) -> None:
        if index > self.interpreter.limit:  # writers count from 0
            raise StreamError(f"stores a value under the implausible number {index}")
        self.memo[index] = self.stack[-1]

    def mark(self, _: None) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def items(self) -> list[Any]:
        """The values since the last MARK, which are taken off the stack."""
        items, self.stack = self.stack, self.outer.pop()
        return items

    def make_marked_tuple(self, _: None) -> None:
        items = self.items()
        self.stack.append(tuple(items))

    def make_tuple(self, count: int) -> None:
        if len(self.stack) < count:
            raise StreamError("makes a tuple of values that are not there")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def set_items(self, _: None) -> None:
        items = self.items()
        _set_items(self.stack[-1], items)

    def set_item(self, _: None) -> None:
        item, key = self.stack.pop(), self.stack.pop()
        _set_items(self.stack[-1], [key, item])

    def extend(self, _: None) -> None:
        items = self.items()
        _extend(self.stack[-1], items)

    def append(self, _: None) -> None:
        item = self.stack.pop()
        _extend(self.stack[-1], [item])

    def find_by_lines(self, _: None) -> None:
        self.stack.append(self.find(f"{self.stream.line()}.{self.stream.line()}"))

    def find_by_stack(self, _: None) -> None:
        attribute, module = self.stack.pop(), self.stack.pop()
        if type(module) is not str or type(attribute) is not str:
            raise StreamError("names a Python object by something else than texts")
        self.stack.append(self.find(f"{module}.{attribute}"))

    def call(self, _: None) -> None:
        arguments, builder = self.stack.pop(), self.stack.pop()
        if not isinstance(builder, Builder) or not isinstance(arguments, tuple):
            raise StreamError("calls something that cannot be called")
        self.stack.append(builder.make(*arguments))

    def set_state(self, _: None) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, Inert):
            raise StreamError("sets the state of an object that has none")
        target.set_state(state)

    def check_protocol(self, protocol: int) -> None:
        if not 2 <= protocol <= 5:
            raise StreamError(f"is written in pickle protocol {protocol}; 2 to 5 are known")

    def check_frame(self, size: int) -> None:
        if size > self.stream.left:
            self.stream.window(size)  # raises, with the sizes

    def keep_reference(self, _: None) -> None:
        """A persistent id stands for itself: it stays on the stack."""


_ACTIONS: dict[str, Callable[[_PickleState, Any], None]] = {
    **dict.fromkeys(("BININT1", "BININT2", "BININT", "BINFLOAT"), _PickleState.push),
    **dict.fromkeys(("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"), _PickleState.push),  # windows, not copies
    **dict.fromkeys(MAKERS, _PickleState.push),
    **dict.fromkeys(("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"), _PickleState.push_text),
    "LONG1": _PickleState.push_long,
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _PickleState.recall),
    "MEMOIZE": _PickleState.memoize,
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _PickleState.store),
    "MARK": _PickleState.mark,
    "TUPLE": _PickleState.make_marked_tuple,
    **dict.fromkeys(TUPLES, _PickleState.make_tuple),
    "SETITEMS": _PickleState.set_items,
    "SETITEM": _PickleState.set_item,
    **dict.fromkeys(("APPENDS", "ADDITEMS"), _PickleState.extend),
    "APPEND": _PickleState.append,
    "GLOBAL": _PickleState.find_by_lines,
    "STACK_GLOBAL": _PickleState.find_by_stack,
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _PickleState.call),
    "BUILD": _PickleState.set_state,
    "BINPERSID": _PickleState.keep_reference,
    "PROTO": _PickleState.check_protocol,
    "FRAME": _PickleState.check_frame,
}


def pairs_of(value: Any) -> list[tuple[str, Any]]:
    """A list of (key, value) pairs, checked: every key is a string, as nothing else is ever hashed."""
    if not isinstance(value, list | tuple):
        raise StreamError("makes a dict of something that is not a dict or a list of pairs")
    for pair in value:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or type(pair[0]) is not str:
            raise StreamError("fills a dict wrongly: pairs are needed, and every key a text")
    return value  # type: ignore[return-value]


def _is_key(key: Any) -> bool:
    # Numbers of parameters, as in the state of an optimizer; large ones could be made to collide.
    return type(key) is str or (type(key) is int and 0 <= key < _KEY_LIMIT)


def _set_items(target: Any, items: list[Any]) -> None:
    keys = items[::2]
    if not isinstance(target, dict) or len(items) % 2 or not all(map(_is_key, keys)):
        raise StreamError("fills a dict wrongly: pairs are needed, and every key a text")
    target.update(zip(keys, items[1::2], strict=True))


def _extend(target: Any, items: list[Any]) -> None:
    if not isinstance(target, list):
        raise StreamError("appends to something that is not a list")
    target.extend(items)

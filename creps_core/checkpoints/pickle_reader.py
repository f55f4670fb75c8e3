"""Pickle streams read as data: a small interpreter that imports nothing and calls only what it is handed.

Python's unpickler imports and calls whatever a stream names, sets attributes on the result, and allocates
what a length or a memo index claims. Here a stream can make dicts, lists, tuples, texts and numbers; every
other object comes from a `find` function of the caller, which knows it by name. Instructions outside the
list below are refused, nothing is hashed but texts, and no step recurses, so that nesting costs no stack.
Instructions and copied values are charged to one budget: what a file may cost is known before it is read.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from io import BytesIO, FileIO
from typing import Any

from ...common.files import read_exactly

NAMES = {ord(op.code): op.name for op in pickletools.opcodes}
# Instruction -> struct layout of the number that follows it, or of the length of the bytes that follow it.
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
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
# A set becomes a list: hashing values of the file invites deep recursion and crafted collisions.
EMPTY: dict[str, type] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": list}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
LINE_LIMIT = 256
BUFFER = 1 << 16
CUT_OFF = "The download was probably cut off; get the file again"


class StreamError(ValueError):
    """What was found in a stream, and what to do about it; whoever opened the file adds its name."""

    def __init__(
        self,
        found: str,
        advice: str = "It is damaged or not a CREPS snapshot; get it again from the CREPS authors",
    ):
        super().__init__(f"{found}. {advice}")
        self.found, self.advice = found, advice


def shown(text: str) -> str:
    """A text out of a file as it may appear in a message: short and printable."""
    line = ascii(text[:101])[1:-1]
    return line if len(line) <= 100 else line[:97] + "..."


class Source:
    """A file, read in pieces as they are asked for: not mapped into memory, since a file that is cut while it is read
    would end the process."""

    def __init__(self, file: FileIO | BytesIO, size: int):
        self.file, self.size = file, size
        self.start, self.buffer = 0, b""

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from start to stop, which is at most `size`."""
        if start < self.start or stop > self.start + len(self.buffer):
            if stop - start >= BUFFER:
                return bytes(self.into(start, stop))
            self.buffer = bytes(self.into(start, min(start + BUFFER, self.size)))
            self.start = start
        return self.buffer[start - self.start : stop - self.start]

    def into(self, start: int, stop: int) -> bytearray:
        """The same in memory of its own, which may be kept and written to."""
        data = bytearray(stop - start)
        self.file.seek(start)
        if not read_exactly(self.file, data):
            raise StreamError("became shorter while it was read", CUT_OFF)
        return data


class Stream:
    """A window of a source, read front to back; byte strings inside it are windows too, not copies."""

    __slots__ = ("data", "position", "stop")

    def __init__(self, data: Source, start: int, stop: int):
        self.data = data
        self.position = start
        self.stop = stop

    @property
    def left(self) -> int:
        return self.stop - self.position

    def skip(self, count: int) -> int:
        """Go on behind so many bytes, which must be there; where they begin."""
        start = self.position
        if count > self.stop - start:
            raise StreamError(f"ends too early: {count} bytes should follow at byte {start}, {self.left} do", CUT_OFF)
        self.position = start + count
        return start

    def window(self, count: int) -> Stream:
        start = self.skip(count)
        return Stream(self.data, start, start + count)

    def take(self, count: int) -> bytes:
        start = self.skip(count)
        return self.data.read(start, start + count)

    def number(self, layout: str) -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def line(self) -> str:
        end = self.data.read(self.position, min(self.stop, self.position + LINE_LIMIT)).find(b"\n")
        if end < 0:
            raise StreamError(f"has no end of line within {LINE_LIMIT} bytes after byte {self.position}")
        return self.take(end + 1)[:-1].decode()

    def rest(self) -> bytes:
        return self.data.read(self.position, self.stop)


class Builder:
    """What a stream may call: a function of ours, standing for an object that the stream names."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[..., Any]):
        self.make = make


class Inert:
    """What a Builder may return to stand for an object whose state follows later."""

    __slots__ = ()

    def set_state(self, state: Any) -> None:
        raise StreamError("sets the state of an object that has none")


class Interpreter:
    """Reads pickles, protocols 2 to 5, within one budget of instructions and copied values for them all."""

    def __init__(self, limit: int):
        self.limit = limit
        self.left = limit

    def charge(self, count: int) -> None:
        """Take so many instructions, or values that an instruction copies, off the budget."""
        self.left -= count
        if self.left < 0:
            raise StreamError(f"has more than {self.limit} instructions, far more than a CREPS snapshot")

    def read(self, stream: Stream, find: Callable[[str], Any], *, references: bool = False) -> Any:
        """The value of the pickle at the start of `stream`, which afterwards stands behind it.

        `find` answers "module.name" or raises. With `references`, persistent ids are allowed and stand
        for themselves: the value is then the id that the writer put there.
        """
        stack: list[Any] = []
        outer: list[list[Any]] = []  # the stacks below each open MARK
        memo: dict[int, Any] = {}  # a dict, so that an index costs nothing
        while True:
            self.charge(1)
            code = stream.take(1)[0]
            name = NAMES.get(code, "")
            value: Any = None
            if name in NUMBERS:
                value = stream.number(NUMBERS[name])
            elif name in LENGTHS:
                value = stream.window(stream.number(LENGTHS[name]))
            match name:
                case "BINGET" | "LONG_BINGET":
                    if value not in memo:
                        raise StreamError(f"recalls the value number {value}, which it never stored")
                    stack.append(memo[value])
                case "MEMOIZE":
                    memo[len(memo)] = stack[-1]
                case "BINPUT" | "LONG_BINPUT":
                    if value > self.limit:  # writers count from 0
                        raise StreamError(f"stores a value under the implausible number {value}")
                    memo[value] = stack[-1]
                case "BININT1" | "BININT2" | "BININT" | "BINFLOAT":
                    stack.append(value)
                case "SHORT_BINBYTES" | "BINBYTES" | "BINBYTES8":
                    stack.append(value)  # a window, not a copy
                case "SHORT_BINUNICODE" | "BINUNICODE" | "BINUNICODE8":
                    stack.append(value.rest().decode())
                case "LONG1":
                    stack.append(int.from_bytes(value.rest(), "little", signed=True))
                case "NONE" | "NEWTRUE" | "NEWFALSE" | "EMPTY_TUPLE":
                    stack.append(CONSTANTS[name])
                case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_SET":
                    stack.append(EMPTY[name]())
                case "MARK":
                    outer.append(stack)
                    stack = []
                case "TUPLE":
                    items, stack = stack, outer.pop()
                    stack.append(tuple(items))
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    count = TUPLES[name]
                    if len(stack) < count:
                        raise StreamError("makes a tuple of values that are not there")
                    stack[-count:] = [tuple(stack[-count:])]
                case "SETITEMS":
                    items, stack = stack, outer.pop()
                    _set_items(stack[-1], items)
                case "SETITEM":
                    item, key = stack.pop(), stack.pop()
                    _set_items(stack[-1], [key, item])
                case "APPENDS" | "ADDITEMS":
                    items, stack = stack, outer.pop()
                    _extend(stack[-1], items)
                case "APPEND":
                    item = stack.pop()
                    _extend(stack[-1], [item])
                case "GLOBAL":
                    stack.append(find(f"{stream.line()}.{stream.line()}"))
                case "STACK_GLOBAL":
                    attribute, module = stack.pop(), stack.pop()
                    if type(module) is not str or type(attribute) is not str:
                        raise StreamError("names a Python object by something else than texts")
                    stack.append(find(f"{module}.{attribute}"))
                case "REDUCE" | "NEWOBJ":
                    arguments, builder = stack.pop(), stack.pop()
                    if not isinstance(builder, Builder) or not isinstance(arguments, tuple):
                        raise StreamError("calls something that cannot be called")
                    stack.append(builder.make(*arguments))
                case "BUILD":
                    state, target = stack.pop(), stack[-1]
                    if not isinstance(target, Inert):
                        raise StreamError("sets the state of an object that has none")
                    target.set_state(state)
                case "BINPERSID" if references:
                    pass  # the id on the stack stands for itself
                case "PROTO":
                    if not 2 <= value <= 5:
                        raise StreamError(f"is written in pickle protocol {value}; 2 to 5 are known")
                case "FRAME":
                    if value > stream.left:
                        stream.window(value)  # raises, with the sizes
                case "STOP":
                    if len(stack) != 1 or outer:
                        raise StreamError("ends with values left over")
                    return stack[0]
                case _:
                    raise StreamError(f"uses the pickle instruction {name or hex(code)}, unlike any snapshot")


def pairs_of(value: Any) -> list[tuple[str, Any]]:
    """The pairs of a list of pairs whose first is a text: nothing else is ever hashed."""
    if not isinstance(value, list | tuple):
        raise StreamError("makes a dict of something that is not a dict or a list of pairs")
    for pair in value:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or type(pair[0]) is not str:
            raise StreamError("fills a dict wrongly: pairs are needed, and every key a text")
    return value  # type: ignore[return-value]


def _set_items(target: Any, items: list[Any]) -> None:
    keys = items[::2]
    if not isinstance(target, dict) or len(items) % 2 or any(type(key) is not str for key in keys):
        raise StreamError("fills a dict wrongly: pairs are needed, and every key a text")
    target.update(zip(keys, items[1::2], strict=True))


def _extend(target: Any, items: list[Any]) -> None:
    if not isinstance(target, list):
        raise StreamError("appends to something that is not a list")
    target.extend(items)

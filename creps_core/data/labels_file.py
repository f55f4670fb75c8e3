"""`dataset.json`, read one entry at a time: a short file may hold millions of values, which take far more memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_MAX_VALUE = 1 << 22
"""Bytes of one value: enough for a vector of 65536 numbers, or for as many names of classes."""
_MAX_KEYS = 256
_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_SPACE = re.compile(rb"[ \t\r\n]*")
_KEY = re.compile(rb"[ \t\r\n]*(" + _STRING + rb")[ \t\r\n]*:[ \t\r\n]*", re.S)
_ENTRY = re.compile(
    rb"\[[ \t\r\n]*" + _STRING + rb"[ \t\r\n]*,[ \t\r\n]*(?:\[[^\[\]{}\"]*\]|[^\[\]{}\",]*)\]", re.S
)  # [name, number or null], [name, [number, ...]]: the usual entry, found without building anything


def iterate_labels_file(data: bytes) -> Iterator[tuple[str, bool, Any]]:
    """The content of a `dataset.json`, in its order.

    Nothing if it is no object.

    Yields:
        Key, whether the value is one entry of its list, value. Of the key "labels" first an empty list, then each
        entry; any other value whole.

    Raises:
        ValueError: the content is not JSON, or a value is larger than any that has a meaning.
    """
    encoding = json.detect_encoding(data)
    if encoding == "utf-8-sig":
        data = data[3:]
    elif encoding != "utf-8":
        data = data.decode(encoding).encode()
    at = _skip_space(data, 0)
    if data[at : at + 1] != b"{":
        _value(data, at)
        return
    at += 1
    for number in range(_MAX_KEYS + 1):
        at = _skip_space(data, at)
        if not number and data[at : at + 1] == b"}":
            break
        if number == _MAX_KEYS:
            raise ValueError(f"more than {_MAX_KEYS} keys")
        match = _KEY.match(data, at)
        if match is None or len(match[1]) > _MAX_VALUE:
            raise ValueError(f"no key of a JSON object at byte {at}")
        key, at = json.loads(match[1]), match.end()
        if key == "labels" and data[at : at + 1] == b"[":
            yield key, False, []
            at = _skip_space(data, at + 1)
            while data[at : at + 1] != b"]":
                entry, at = _value(data, at)
                yield key, True, entry
                at = _skip_space(data, at)
                if data[at : at + 1] == b",":
                    at = _skip_space(data, at + 1)
                elif data[at : at + 1] != b"]":
                    raise ValueError(f"no comma at byte {at}")
            at += 1
        else:
            value, at = _value(data, at)
            yield key, False, value
        at = _skip_space(data, at)
        if data[at : at + 1] == b"}":
            break
        at = _expect(data, at, b",")
    if _skip_space(data, at + 1) < len(data):
        raise ValueError(f"more than one JSON object, from byte {at + 1}")


def _value(data: bytes, at: int) -> tuple[Any, int]:
    """The value that starts at a byte, and where it ends."""
    match = _ENTRY.match(data, at)
    if match is not None and match.end() - at <= _MAX_VALUE:
        return json.loads(match[0]), match.end()
    for length in (1 << 12, _MAX_VALUE):  # most are short
        text = data[at : at + length].decode(errors="ignore" if at + length < len(data) else "strict")
        try:
            value, end = json.JSONDecoder().raw_decode(text)
        except ValueError:
            continue
        if end < len(text) or at + length >= len(data):  # else a number may continue
            return value, at + len(text[:end].encode())
    raise ValueError(f"no JSON value at byte {at}, or one of more than {_MAX_VALUE} bytes")


def _skip_space(data: bytes, at: int) -> int:
    match = _SPACE.match(data, at)
    return match.end() if match else at


def _expect(data: bytes, at: int, sign: bytes) -> int:
    at = _skip_space(data, at)
    if data[at : at + 1] != sign:
        raise ValueError(f"no {sign.decode()!r} at byte {at}")
    return at + 1

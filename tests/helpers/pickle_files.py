"""Official snapshots put together byte by byte, good and hostile ones."""

from __future__ import annotations

import struct

MARK, STOP = b"(", b"."


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def integer(value: int) -> bytes:
    body = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(body)]) + body


def many(*values: bytes) -> bytes:
    """A tuple."""
    return MARK + b"".join(values) + b"t"


def pairs(**values: bytes) -> bytes:
    """A dict."""
    return b"}(" + b"".join(text(key) + value for key, value in values.items()) + b"u"


def call(module: str, attribute: str, *arguments: bytes) -> bytes:
    return name(module, attribute) + many(*arguments) + b"R"


def module(**state: bytes) -> bytes:
    meta = pairs(type=text("class"), class_name=text("Generator"), state=pairs(**state))
    return call("torch_utils.persistence", "_reconstruct_persistent_obj", meta)


def snapshot(**state: bytes) -> bytes:
    return b"\x80\x04" + pairs(G_ema=module(**state)) + STOP


def storage(numel: int = 4, count: int | None = None, data: bytes = bytes(16), kind=("torch", "FloatStorage")) -> bytes:
    """The call for a torch storage of `numel` numbers, which says `count` before the data."""
    key = text("0")
    stream = b"\x80\x02" + integer(0x1950A86A20F9469CFC6C) + STOP + b"\x80\x02" + integer(1001) + STOP
    stream += b"\x80\x02" + pairs(little_endian=b"\x88") + STOP
    stream += b"\x80\x02" + many(text("storage"), name(*kind), key, text("cpu"), integer(numel), b"N") + b"Q" + STOP
    stream += b"\x80\x02](" + key + b"e" + STOP + struct.pack("<q", numel if count is None else count) + data
    return call("torch.storage", "_load_from_bytes", b"B" + struct.pack("<I", len(stream)) + stream)


def tensor(store: bytes, offset=0, size=(4,), stride=(1,)) -> bytes:
    numbers = [many(*map(integer, values)) for values in (size, stride)]
    return call("torch._utils", "_rebuild_tensor_v2", store, integer(offset), *numbers, b"\x89", b"}")


def weights(*arguments, **options) -> bytes:
    return snapshot(_parameters=pairs(w=tensor(*arguments, **options)))


def scalar(code: str, data: bytes, state: bytes = b"") -> bytes:
    dtype = call("numpy", "dtype", text(code), b"\x89", b"\x88") + state
    return call("numpy.core.multiarray", "scalar", dtype, b"C" + bytes([len(data)]) + data)


def opcode(code: bytes) -> bytes:
    return b"\x80\x04N" + code + bytes(40)


def doubled(seed: bytes, template: bytes, levels: int = 20) -> bytes:
    """Each level holds the one before (IN, then memo M) twice."""
    for level in range(levels):
        seed = template.replace(b"IN", seed + b"q%c" % level).replace(b"M", b"h%c" % level)
    return seed

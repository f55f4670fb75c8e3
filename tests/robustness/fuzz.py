"""Mutated files: bits, lengths, pickle instructions, headers (sealed again, so that what is behind the checksums is
reached), tensors. A case is a kind of file and a number; the same number is the same file.

    python tests/robustness/fuzz.py --count 100000     as `make fuzz N=100000`
    python tests/robustness/fuzz.py --only official/77 what one case does, with its traceback
"""

from __future__ import annotations

import argparse
import json
import os
import pickletools
import random
import runpy
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).parent.parent / "conftest.py"))
    sys.path.insert(0, str(Path(__file__).parent.parent / "helpers"))

import harness
import torch
from hostile import MOMENT, WEIGHT, packed, seeds, unpacked
from paths import GOLDEN
from readers import OF_KIND, READERS

KEYS = {"latents": "creps_latents", "directions": "creps_directions"}
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 10**400, 0.5, -0.0, 1e308, float("inf"), float("nan")),
    *("", "x", "\x1b[2J", "x" * 100_000, [], {}, [[]], [1] * 1000, {"a": {}}, 65536, 65535, 3, 1e-320),
]
DTYPES = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.uint8, torch.complex64]
DTYPES += [torch.float8_e4m3fn, torch.float8_e5m2, torch.int32]


def good_files(folder: Path) -> dict[str, bytes]:
    """What is mutated, by kind."""
    files = {kind: path.read_bytes() for kind, path in seeds(folder).items()}
    return {**files, "official": (GOLDEN / "official_layout.pkl").read_bytes()}


def mutated(files: dict[str, bytes], kind: str, number: int) -> bytes:
    """The file of a case."""
    rng = random.Random(f"{kind} {number}")
    data = files[kind]
    ways = [_bits, _length, _splice]
    ways += [_instructions] * 4 if kind == "official" else [_header, _header, _tensors]
    return rng.choice(ways)(rng, data, kind, files)


def flipped(data: bytes, number: int) -> bytes:
    """One bit changed."""
    place = random.Random(number).randrange(8 * len(data))
    changed = bytearray(data)
    changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


def read_all(data: bytes, kind: str, folder: Path) -> None:
    """Every reader of a kind of file; the first error but a documented one is raised, or the last documented one."""
    path = folder / f"{os.getpid()}.{'pkl' if kind == 'official' else 'safetensors'}"
    path.write_bytes(data)
    refusal = None
    for name in OF_KIND[kind]:
        try:
            READERS[name](path)
        except harness.DOCUMENTED as error:
            refusal = error
            if len(str(error)) > harness.MESSAGE_LIMIT or not str(error).isprintable():
                raise AssertionError(f"a message of {len(str(error))} characters, printable: no") from error
    if refusal is not None:
        raise refusal


def cases(files: dict[str, bytes], folder: Path, kind: str, numbers: range):
    """For `harness.isolated`; files are made in the child."""

    def call(number: int) -> None:
        read_all(mutated(files, kind, number), kind, folder)

    return [(f"{kind}/{number}", partial(call, number)) for number in numbers]


def _bits(rng: random.Random, data: bytes, kind: str, files: dict[str, bytes]) -> bytes:
    changed = bytearray(data)
    near = rng.choice([len(data), min(len(data), 4000)])  # headers are at the beginning
    for _ in range(rng.choice([1, 1, 2, 8])):
        changed[rng.randrange(near)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _length(rng: random.Random, data: bytes, kind: str, files: dict[str, bytes]) -> bytes:
    place = rng.randrange(len(data))
    return rng.choice([data[:place], data + rng.randbytes(rng.randrange(1, 5000)), data[:place] + data[place + 1 :]])


def _splice(rng: random.Random, data: bytes, kind: str, files: dict[str, bytes]) -> bytes:
    other = files[rng.choice(sorted(files))]
    place, start, size = rng.randrange(len(data)), rng.randrange(len(other)), rng.randrange(1, 3000)
    return data[:place] + other[start : start + size] + data[place + rng.choice([0, size]) :]


def _instructions(rng: random.Random, data: bytes, kind: str, files: dict[str, bytes]) -> bytes:
    """Pickle instructions dropped, doubled, exchanged, moved, or of another code or number."""
    found = [place for _, _, place in pickletools.genops(data)] + [len(data)]
    parts = [data[a:b] for a, b in pairwise(found)]
    for _ in range(rng.choice([1, 1, 2, 4])):
        i, j = rng.randrange(len(parts)), rng.randrange(len(parts))
        match rng.randrange(7):
            case 0:
                parts.pop(i)
            case 1:
                parts.insert(j, parts[i])
            case 2:
                parts[i], parts[j] = parts[j], parts[i]
            case 3:
                parts[i] = bytes([rng.choice(pickletools.opcodes).code.encode("latin-1")[0]]) + parts[i][1:]
            case 4:
                parts[i] *= rng.choice([2, 100, 20_000]) if len(parts[i]) < 10 else 2
            case 5:
                parts[i:i] = parts[j : j + rng.randrange(60)]
            case _:
                part = bytearray(parts[i])
                part[rng.randrange(min(len(part), 12))] = rng.randrange(256)
                parts[i] = bytes(part)
    return b"".join(parts)


def _header(rng: random.Random, data: bytes, kind: str, files: dict[str, bytes]) -> bytes:
    """Some values of our header changed, and sealed again."""
    key = KEYS.get(kind, "creps")
    tensors, header = unpacked(data, key)
    for _ in range(rng.choice([1, 1, 1, 3])):
        _change(rng, header)
    result = packed(tensors, header, key)
    return result.replace(b"header_sha256", b"header_sha255") if rng.random() < 0.1 else result


def _change(rng: random.Random, header: dict[str, Any]) -> None:
    places: list[tuple[Any, Any]] = []

    def collect(value: Any) -> None:
        for name in value if isinstance(value, dict) else range(len(value)):
            places.append((value, name))
            if isinstance(value[name], dict | list):
                collect(value[name])

    collect(header)
    owner, name = rng.choice(places)
    match rng.randrange(6):
        case 0 if isinstance(owner, dict):
            del owner[name]
        case 1 if isinstance(owner, dict):
            owner[rng.choice(["\x1b", "x" * 300, name + " "])] = owner.pop(name)
        case 2 if type(owner[name]) is int:
            owner[name] = owner[name] * rng.choice([2, -1, 10**20]) + rng.choice([0, 1])
        case _:
            owner[name] = json.loads(json.dumps(rng.choice(VALUES)))


def _tensors(rng: random.Random, data: bytes, kind: str, files: dict[str, bytes]) -> bytes:
    """A tensor of another dtype, shape or name, or with other values, under right checksums."""
    key = KEYS.get(kind, "creps")
    tensors, header = unpacked(data, key)
    favourites = [name for name in (f"G.{WEIGHT}", MOMENT, "state.signs", "D.b4.out.weight") if name in tensors]
    name = rng.choice(favourites) if favourites and rng.random() < 0.5 else rng.choice(sorted(tensors))
    tensor = tensors[name].clone()
    match rng.randrange(8):
        case 0:
            tensor = tensor.nan_to_num().to(rng.choice(DTYPES))
        case 1:
            tensor = tensor.reshape([1] * rng.choice([1, 9, 60]) + list(tensor.shape))
        case 2:
            tensor.fill_(rng.choice([float("nan"), float("inf"), 3e38, 1e-45, 1e19, -1.0, 0.0]))
        case 3:
            tensor = tensor.new_zeros(rng.choice([(), (0,), (1,), (0, 1 << 30), (3, 5)]))
        case 4:
            del tensors[name]
        case 5:
            tensors[rng.choice(["x", "", "\x1b[2J", "G.x", "adam.G.x.step", "a" * 500])] = tensor
        case 6:
            tensor = tensor.flatten()[: max(1, tensor.numel() // 2)]
        case _:
            tensor = torch.cat([tensor.flatten(), tensor.flatten()])
    if name in tensors:
        tensors[name] = tensor
    return packed(tensors, header, key)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="files, of all kinds together")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--only", help="one case, KIND/NUMBER, in this process")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        files = good_files(folder / "good")
        if args.only:
            kind, number = args.only.split("/")
            read_all(mutated(files, kind, int(number)), kind, folder)
            return 0
        start, bad, kinds = time.monotonic(), [], Counter()
        share = -(-args.count // len(files))
        worst = {"seconds": 0.0, "megabytes": 0.0}
        for low in range(args.first, args.first + share, 500):
            for kind in files:
                numbers = range(low, min(low + 500, args.first + share))
                for outcome in harness.isolated(cases(files, folder, kind, numbers)):
                    kinds[outcome.kind] += 1
                    worst = {name: max(worst[name], getattr(outcome, name)) for name in worst}
                    if outcome.kind in harness.BAD:
                        bad.append(outcome)
                        sys.stdout.write(f"{outcome}\n")
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        sys.stdout.write(
            f"{sum(kinds.values())} files in {time.monotonic() - start:.0f} s: {counts}; at most "
            f"{worst['seconds']:.2f} s and {worst['megabytes']:.0f} MB for one\n"
        )
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())

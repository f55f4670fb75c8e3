"""Files made by hand to crash, hang or swell their reader, each of a kind that once did."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from comfyui_creps.creps_core.checkpoints import digest, save_generator
from comfyui_creps.creps_core.latents import find_directions, sample_latents, save_directions, save_latents
from comfyui_creps.creps_core.network import Discriminator, DiscriminatorConfig, GeneratorConfig
from comfyui_creps.creps_core.training import Recipe, Trainer
from comfyui_creps.creps_core.training.snapshots import save_snapshot
from networks import make_generator
from pickle_files import STOP, integer, module, name, pairs, snapshot, storage, tensor, text
from safetensors.torch import load, save

DEEP = 60_000


def seeds(folder: Path) -> dict[str, Path]:
    """A small good file of each kind."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = make_generator(img_resolution=16, channel_max=8, z_dim=8, w_dim=8, mapping_layers=2)
    discriminator = Discriminator(DiscriminatorConfig(16, channel_base=128, channel_max=8))
    files = {kind: folder / f"{kind}.safetensors" for kind in ("generator", "snapshot", "latents", "directions")}
    save_generator(generator, files["generator"], details={"note": "small"}, discriminator=discriminator)
    trainer = Trainer(generator, discriminator, Recipe(batch=2, total=8, pl_interval=0, r1_interval=0))
    trainer.step(torch.zeros(2, 3, 16, 16))
    save_snapshot(trainer, files["snapshot"], {"note": "small"})
    save_latents(sample_latents(generator, [1, 2, 3]), files["latents"])
    save_directions(find_directions(generator, count=4, samples=64), files["directions"])
    return files


# -- official pickles ---------------------------------------------------------------------------------


def _pickle(body: bytes) -> bytes:
    return b"\x80\x04" + body + STOP


def _list(count: int, item: bytes = b"N") -> bytes:
    return b"](" + item * count + b"e"


def _copies(source: bytes, copier: bytes, count: int) -> bytes:
    """A list of so many copies of one object."""
    return _pickle(source + b"q\0" + copier + b"q\1" + b"](" + b"h\1h\0\x85R" * count + b"e")


ORDERED, SET = name("collections", "OrderedDict"), name("builtins", "set")
PICKLES: dict[str, bytes] = {
    "deep key in pairs": _pickle(ORDERED + _list(1, b"(" + b"N" + b"\x85" * DEEP + b"Nt") + b"\x85R"),
    "deep key of a tuple in pairs": _pickle(ORDERED + b"(N" + b"\x85" * 140_000 + b"N\x86t\x85R"),
    "colliding keys in pairs": _pickle(
        ORDERED + b"](" + b"".join(integer(n * ((1 << 61) - 1)) + b"N\x86" for n in range(20_000)) + b"e\x85R"
    ),
    "a set copied": _copies(_list(60_000), SET, 4000),
    "a set copied from a tuple": _copies(b"(" + b"N" * 60_000 + b"t", SET, 4000),
    "pairs copied": _copies(_list(2000, text("k") + b"N\x86"), ORDERED, 30_000),
    "a dictionary copied": _copies(
        b"}(" + b"".join(text(f"k{n}") + b"N" for n in range(5000)) + b"u", ORDERED, 8000
    ),
    "a state copied": _pickle(b"](" + module(a=_list(10)) * 500 + b"e"),
    "many tensors": _pickle(storage() + b"q\0" + b"](" + tensor(b"h\0") * 2500 + b"e"),
    "many storages": _pickle(b"](" + storage() * 1500 + b"e"),
    "many modules": _pickle(b"](" + module() * 2500 + b"e"),
    "many dictionaries": _pickle(b"](" + b"}" * 240_000 + b"e"),
    "many marks": _pickle(b"(" * 200_000),
    "long numbers": _pickle(b"](" + (b"\x8a\xff" + b"\x7f" * 255) * 3000 + b"e"),
    "wide texts": _pickle(b"](" + text("\U0001f600" + "a" * 900) * 900 + b"e"),
    "mapping arguments as a list": snapshot(
        _init_kwargs=pairs(
            **{
                key: integer(value)
                for key, value in {
                    "z_dim": 8, "c_dim": 0, "w_dim": 8, "img_resolution": 16, "img_channels": 3,
                    "channel_base": 128, "channel_max": 8,
                }.items()
            },
            mapping_kwargs=b"](K\1e",
        ),
        _modules=pairs(
            synthesis=module(
                _modules=pairs(b4=module(_modules=pairs(input=module(_buffers=pairs(freqs=tensor(storage()))))))
            )
        ),
    ),
}  # fmt: skip


# -- our own formats ----------------------------------------------------------------------------------


def unpacked(data: bytes, key: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors, and our part of the header."""
    (length,) = struct.unpack("<Q", data[:8])
    return load(data), json.loads(json.loads(data[8 : 8 + length])["__metadata__"][key])


def packed(tensors: dict[str, torch.Tensor], header: dict[str, Any], key: str) -> bytes:
    """A file whose checksums are right, whatever it holds."""
    if "config" in header:
        try:
            header["sha256"] = digest(GeneratorConfig.from_dict(header["config"]), tensors)
        except (ValueError, TypeError, AttributeError):
            header["sha256"] = ""
    header.pop("header_sha256", None)
    rest = json.dumps(json.loads(json.dumps(header)), sort_keys=True).encode()
    header["header_sha256"] = hashlib.sha256(rest).hexdigest()
    return save({k: t.contiguous().clone() for k, t in tensors.items()}, {key: json.dumps(header)})


def raw(entries: dict[str, Any], metadata: dict[str, str], data: bytes = b"") -> bytes:
    """A safetensors file from the words of its header."""
    text = json.dumps({"__metadata__": metadata, **entries}).encode()
    return struct.pack("<Q", len(text)) + text + data


def _changed(kind: str, change: Callable[[dict[str, torch.Tensor], dict[str, Any]], None], key: str = "creps"):
    def make(files: dict[str, Path]) -> bytes:
        tensors, header = unpacked(files[kind].read_bytes(), key)
        change(tensors, header)
        return packed(tensors, header, key)

    return make


def _header(kind: str, key: str = "creps", /, **fields: Any):
    return _changed(kind, lambda tensors, header: header.update(fields), key)


def _inner(kind: str, name: str, /, **fields: Any):
    return _changed(kind, lambda tensors, header: header[name].update(fields))


def _tensor(kind: str, name: str, value: Callable[[torch.Tensor], torch.Tensor], key: str = "creps"):
    return _changed(kind, lambda tensors, header: tensors.update({name: value(tensors[name])}), key)


def _huge(tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
    for weights in tensors.values():
        weights.mul_(3e38).clamp_(-3e38, 3e38)


def _nan(x: torch.Tensor) -> torch.Tensor:
    x = x.clone()
    x.view(-1)[0] = torch.nan
    return x


def _empty_tensors(count: int) -> Callable[[dict[str, Path]], bytes]:
    def make(files: dict[str, Path]) -> bytes:
        _, header = unpacked(files["generator"].read_bytes(), "creps")
        entries = {f"t{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(count)}
        return raw(entries, {"creps": json.dumps(header)})

    return make


D_HUGE = {"img_resolution": 65536, "channel_base": 65536, "channel_max": 65536, "c_dim": 65536}
D_WIDE = {"img_resolution": 8, "channel_base": 65536, "channel_max": 8192}
MOMENT = "adam.G.synthesis.b4.input.weight.exp_avg"
WEIGHT = "synthesis.b4.input.weight"

OWN: dict[str, Callable[[dict[str, Path]], bytes]] = {
    "huge discriminator": _inner("generator", "discriminator", **D_HUGE),
    "wide discriminator": _inner("generator", "discriminator", **D_WIDE),
    "wide discriminator in a snapshot": _inner("snapshot", "discriminator", **D_WIDE),
    "deep mapping": _inner("generator", "config", mapping_layers=65536),
    "deep mapping in a snapshot": _inner("snapshot", "config", mapping_layers=65536),
    "huge generator": _inner("generator", "config", channel_base=65536, channel_max=65536, biline_channels=65536),
    "ten thousand empty tensors": _empty_tensors(12_000),
    "details a list": _header("generator", details=[1, 2]),
    "details a text": _header("generator", details="\x1b[2J" * 1000),
    "details of controls": _header("generator", details={"\x1b]0;x\x07" * 50: "\x1b[31m\r\n" * 50}),
    "discriminator a list": _header("generator", discriminator=[1]),
    "discriminator a text": _header("snapshot", discriminator="x"),
    "config a number": _header("generator", config={"img_resolution": float("inf")}),
    "version of a million digits": lambda files: files["generator"].read_bytes().replace(
        b'\\"version\\": 1', b'\\"version\\": 1e9999', 1
    ),
    "version true": _header("generator", version=True),
    "version -1": _header("generator", version=-1),
    "checksum of controls": _header("generator", sha256="\x1b[2J"),
    "recipe a list": _header("snapshot", recipe=[1]),
    "recipe of lists": _inner("snapshot", "recipe", augment=[], batch=[]),
    "recipe of enormous numbers": _inner("snapshot", "recipe", g_lr=10**400, total=10**400, batch=10**30),
    "recipe without end": _inner("snapshot", "recipe", ema_images=1e308, ada_images=1e308, r1_gamma=1e308),
    "counters a list": _header("snapshot", counters=[1, 2]),
    "infinite counter": _inner("snapshot", "counters", shown=float("inf")),
    "enormous counter": _inner("snapshot", "counters", shown=10**4000),
    "counter of 1e30": _inner("snapshot", "counters", steps=1e30),
    "negative counter": _inner("snapshot", "counters", shown=-4),
    "counter nan": _inner("snapshot", "counters", skipped=float("nan")),
    "counter a text": _inner("snapshot", "counters", shown="4"),
    "kind a list": _header("snapshot", kind=["training"]),
    "nan in D": _tensor("snapshot", "D.b4.out.weight", _nan),
    "nan in D of a generator": _tensor("generator", "D.b4.out.weight", _nan),
    "nan in Adam": _tensor("snapshot", MOMENT, _nan),
    "nan in the state": _tensor("snapshot", "state.pl_mean", _nan),
    "Adam of another shape": _tensor("snapshot", MOMENT, lambda x: x.new_zeros(3)),
    "Adam's count of another shape": _tensor("snapshot", MOMENT[:-7] + "step", lambda x: x.new_zeros(1000)),
    "state of another shape": _tensor("snapshot", "state.signs", lambda x: x.new_zeros(7)),
    "G of another shape": _tensor("snapshot", f"G.{WEIGHT}", lambda x: x.new_zeros(3)),
    "G_ema of another shape": _tensor("snapshot", f"G_ema.{WEIGHT}", lambda x: x.new_zeros(3)),
    "D of another shape": _tensor("snapshot", "D.b4.out.weight", lambda x: x.new_zeros(3)),
    "D of a generator of another shape": _tensor("generator", "D.b4.out.weight", lambda x: x.new_zeros(3)),
    "float8": _tensor("generator", WEIGHT, lambda x: x.to(torch.float8_e4m3fn)),
    "float8 latents": _tensor("latents", "ws", lambda x: x.to(torch.float8_e5m2), "creps_latents"),
    "complex": _tensor("generator", WEIGHT, lambda x: x.to(torch.complex64)),
    "complex latents": _tensor("latents", "ws", lambda x: x.to(torch.complex64), "creps_latents"),
    "whole numbers": _tensor("generator", WEIGHT, lambda x: x.to(torch.int64)),
    "70 axes": _tensor("generator", WEIGHT, lambda x: x.new_zeros([1] * 60)),
    "float64 beyond float32": _tensor("generator", WEIGHT, lambda x: x.double().fill_(1e300)),
    "huge weights": _changed("generator", _huge),
    "latents of axes": lambda files: raw(
        {"ws": {"dtype": "F32", "shape": [1] * 100, "data_offsets": [0, 4]}}, {"creps_latents": "{}"}, bytes(4)
    ),
    "seeds of enormous numbers": _header("latents", "creps_latents", seeds=[10**4000] * 3),
    "name of controls": _header("latents", "creps_latents", name="\x1b[2J\n" * 100_000, fingerprint="x"),
    "version of latents": _header("latents", "creps_latents", version=10**4000),
    "layers of enormous numbers": _header("directions", "creps_directions", layers=[10**400, -1, 2**63]),
    "million layers": _header("directions", "creps_directions", layers=[1] * 200_000),
    "method of controls": _header("directions", "creps_directions", method="\x1b" * 1000),
    "header of a megabyte": lambda files: raw({"\x1b" * 900_000: {"dtype": "X"}}, {"creps": "{}"}),
    "nested header": lambda files: struct.pack("<Q", 900_000) + b"{" + b'"a":{' * 179_000 + b" " * 4999,
    "metadata a list": lambda files: raw({}, [1]),  # type: ignore[arg-type]
    "metadata of numbers": lambda files: raw({}, {"creps": 5}),  # type: ignore[dict-item]
    "entry a list": lambda files: raw({"w": [1]}, {"creps": "{}"}),
    "overlapping": lambda files: raw(
        {n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"}, {"creps": "{}"}, bytes(4)
    ),
    "length without end": lambda files: struct.pack("<Q", 1 << 63) + b"{}",
}  # fmt: skip


def hostile_files(folder: Path, files: dict[str, Path]) -> dict[str, Path]:
    """All of them, written to a folder."""
    made: dict[str, Path] = {}
    for title, data in PICKLES.items():
        made[title] = folder / f"{title}.pkl"
        made[title].write_bytes(data)
    for title, make in OWN.items():
        made[title] = folder / f"{title}.safetensors"
        made[title].write_bytes(make(files))
    return made

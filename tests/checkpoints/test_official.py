"""Official snapshots are read as data: the golden one, newer writers, damaged files, and hostile ones."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import pickletools
import random
import struct
import sys
import time
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_creps.common.errors import CheckpointError
from comfyui_creps.creps_core.checkpoints import is_pickle, read_snapshot
from paths import GOLDEN
from pickle_files import (
    MARK,
    STOP,
    call,
    doubled,
    integer,
    many,
    module,
    name,
    opcode,
    pairs,
    scalar,
    snapshot,
    storage,
    tensor,
    text,
    weights,
)
from safetensors import safe_open

OFFICIAL = GOLDEN / "official_layout.pkl"
SECONDS = 10.0  # no file may take longer; the worst takes about 0.5 s on an idle core


def refused(path: Path, match: str = "") -> str:
    """Reads a file that must be refused, in bounded time; returns the message."""
    start = time.perf_counter()
    with pytest.raises(CheckpointError, match=match) as info:
        read_snapshot(path)
    assert time.perf_counter() - start < SECONDS
    message = str(info.value)
    assert f". {path.name}: " in message  # after the advice, and alone
    assert str(path.parent) not in message
    assert len(message) <= 300
    assert message.isprintable()
    return message


# -- the golden file --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def official():
    return read_snapshot(OFFICIAL)


@pytest.mark.parametrize("name", ["G", "D", "G_ema"])
def test_official_tensors(official, name):
    with safe_open(GOLDEN / "official_layout_outputs.safetensors", "pt") as file:
        keys = [key for key in file.keys() if key.startswith(f"{name}.")]  # noqa: SIM118
        expected = {key.removeprefix(f"{name}."): file.get_tensor(key) for key in keys}
    tensors = official.networks[name].tensors
    assert set(tensors) == set(expected)
    for key, found in tensors.items():
        assert found.dtype == expected[key].dtype
        assert torch.equal(found, expected[key]), key
        assert not found.requires_grad
        assert type(found) is torch.Tensor
        found.mul_(1)  # writable


def test_official_arguments(official):
    with safe_open(GOLDEN / "official_layout_outputs.safetensors", "pt") as file:
        facts = json.loads(file.metadata()["creps"])
    assert list(official.networks) == ["G", "D", "G_ema", "augment_pipe"]
    assert official.networks["G_ema"].class_name == "Generator"
    assert official.networks["G_ema"].init_kwargs == facts["init_kwargs"]
    assert official.networks["G_ema"].init_args == ()
    assert official.networks["D"].class_name == "Discriminator"
    assert official.networks["augment_pipe"].class_name == "AugmentPipe"
    assert official.networks["augment_pipe"].tensors["p"].item() == facts["augment_p"]
    assert official.training_set == facts["training_set_kwargs"]
    assert json.loads(json.dumps(official.networks["D"].init_kwargs)) == official.networks["D"].init_kwargs


def test_is_pickle(tmp_path):
    assert is_pickle(OFFICIAL)
    assert not is_pickle(GOLDEN / "official_layout_outputs.safetensors")
    (tmp_path / "empty.pkl").touch()
    assert not is_pickle(tmp_path / "empty.pkl")


# -- what newer versions of Python, torch and numpy write -------------------------------------------


@contextlib.contextmanager
def official_modules():
    """Modules under the names that snapshots use, for writing only."""
    names = [
        "torch_utils",
        "torch_utils.persistence",
        "training",
        "training.networks_creps",
        "dnnlib",
        "dnnlib.util",
    ]
    modules = {name: types.ModuleType(name) for name in names}
    before = {name: sys.modules.get(name) for name in names}

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("a snapshot was run")

    class SynthesisInput(torch.nn.Module):
        pass

    class EasyDict(dict):
        pass

    for item, home in [
        (_reconstruct_persistent_obj, "torch_utils.persistence"),
        (SynthesisInput, "training.networks_creps"),
        (EasyDict, "dnnlib.util"),
    ]:
        item.__module__, item.__qualname__ = home, item.__name__
        setattr(modules[home], item.__name__, item)
    sys.modules.update(modules)
    try:
        yield types.SimpleNamespace(Input=SynthesisInput, EasyDict=EasyDict, rebuild=_reconstruct_persistent_obj)
    finally:
        for old, kept in before.items():
            sys.modules.pop(old)
            if kept is not None:
                sys.modules[old] = kept


def new_snapshot(protocol: int, source: str = "") -> tuple[bytes, dict[str, torch.Tensor], dict]:
    """A snapshot written by the installed torch and numpy, its tensors, and its constructor arguments."""
    with official_modules() as fake:

        class Persistent(torch.nn.Module):
            def __reduce__(self):
                meta = {
                    "type": "class",
                    "version": 6,
                    "module_src": source,
                    "class_name": type(self).__name__,
                }
                return fake.rebuild, ({**meta, "state": self.__getstate__()},)

        class Generator(Persistent):
            pass

        class Layer(Persistent):
            pass

        torch.manual_seed(0)
        net, layer, first = Generator(), Layer(), fake.Input()
        first.weight = torch.nn.Parameter(torch.randn(1, 3, 1, 4))
        first.register_buffer("coords", torch.linspace(0, 1, 6).reshape(1, 3, 2, 1).transpose(1, 2))
        layer.weight = torch.nn.Parameter(torch.randn(3, 2))
        layer.weight.note = "an attribute"  # torch writes _rebuild_parameter_with_state
        layer.register_parameter("bias", None)
        for kind in ("float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"):
            layer.register_buffer(kind, (torch.randn(2, 3) * 9).abs().to(getattr(torch, kind)))
        layer.register_buffer("brain", torch.randn(3).bfloat16())
        layer.register_buffer("scalar", torch.tensor(3.5))
        layer.register_buffer("empty", torch.zeros(0, 4))
        layer.register_buffer("part", torch.arange(12.0).reshape(3, 4)[1:, ::2])
        layer.gains = [np.float64(0.5), np.float32(2), np.int64(7), np.bool_(True)]
        layer.dtype, layer.size, layer.names = torch.float16, torch.Size([1, 2]), {"a", "b"}
        layer.device = torch.device("cpu")
        net.first, net.rest = first, torch.nn.Sequential(layer, torch.nn.Sequential())
        kwargs = {
            "z_dim": 8,
            "mapping_kwargs": fake.EasyDict(num_layers=2),
            "gain": np.float64(0.25),
            "x": None,
        }
        net._init_kwargs, net._init_args = fake.EasyDict(kwargs), (1, [2.5, "three"], True)
        root = OrderedDict(G=None, D=None, G_ema=net, augment_pipe=None)
        return pickle.dumps(root, protocol), dict(net.state_dict()), kwargs


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_new_writers(tmp_path, protocol):
    path, trace = tmp_path / "new.pkl", tmp_path / "ran"
    data, tensors, kwargs = new_snapshot(protocol, source=f"open({str(trace)!r}, 'w')")
    path.write_bytes(data)
    snapshot = read_snapshot(path)
    assert list(snapshot.networks) == ["G_ema"]
    assert snapshot.training_set == {}
    network = snapshot.networks["G_ema"]
    assert network.class_name == "Generator"
    assert network.init_kwargs == kwargs
    assert type(network.init_kwargs["mapping_kwargs"]) is dict
    assert type(network.init_kwargs["gain"]) is float
    assert network.init_args == (1, [2.5, "three"], True)
    assert list(network.tensors) == list(tensors)
    for key, found in network.tensors.items():
        assert found.dtype == tensors[key].dtype
        assert torch.equal(found, tensors[key]), key
    assert not trace.exists()
    assert "training" not in sys.modules


# -- files that are something else ------------------------------------------------------------------


def torch_file(value, zipped: bool) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


TENSORS = {"synthesis.b4.input.weight": torch.ones(2)}
OTHERS = {
    "empty": (b"", "is empty"),
    "zip": (torch_file(TENSORS, True), "zip archive"),
    "old torch.save": (torch_file(TENSORS, False), "torch.save"),
    "safetensors": ((GOLDEN / "official_layout_outputs.safetensors").read_bytes()[:600], "safetensors file"),
    "web page": (
        b"\n<!DOCTYPE html><html><title>Google Drive - Virus scan warning",
        "Open the link in a browser",
    ),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 370000000\n", "git lfs pull"),
    "gzip": (b"\x1f\x8b\x08\0\0\0\0\0", "Unpack"),
    "text": (b"hello\x1b[0m", r"a text file \(.hello\\x1b"),
    "protocol 0": (pickle.dumps({"G_ema": 1}, 0), "neither a snapshot nor a safetensors file"),
    "protocol 6": (b"\x80\x06N.", "neither a snapshot nor a safetensors file"),
    "weights": (pickle.dumps(TENSORS), "Choose.* no network G_ema.* it holds synthesis.b4.input.weight"),
    "no networks": (pickle.dumps({f"k{n}": n for n in range(9)}), "holds k0, k1, k2, k3 and 5 more"),
    "list": (pickle.dumps([1, 2]), "something else than a dict"),
    "G_ema of None": (pickle.dumps({"G_ema": None}), "no network G_ema"),
    "G_ema of numbers": (pickle.dumps({"G_ema": {"w": 1}}), "something else than a network as G_ema"),
    "tensorflow": (b"\x80\x03cdnnlib.tflib.network\nNetwork\n)\x81.", "StyleGAN network of TensorFlow"),
    "stylegan2": (b"\x80\x03ctraining.networks_stylegan2\nGenerator\n)\x81.", "belongs to StyleGAN"),
    "truncated": (OFFICIAL.read_bytes()[:200_000], "cut off.* ends too early"),
    "half a header": (OFFICIAL.read_bytes()[:3], "ends too early"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_files(tmp_path, name):
    data, match = OTHERS[name]
    path = tmp_path / "file.pkl"
    path.write_bytes(data)
    refused(path, match)


def test_no_file(tmp_path):
    refused(tmp_path / "missing.pkl", "does not exist")
    refused(tmp_path, "is not a file")


# -- hostile files ----------------------------------------------------------------------------------

DEEP = 190_000
HOSTILE = {
    "system": (b"\x80\x04" + call("os", "system", text("true")) + STOP, r"Python object os\.system"),
    "stack global": (b"\x80\x04" + text("builtins") + text("getattr") + b"\x93.", r"builtins\.getattr"),
    "dotted": (b"\x80\x04" + text("collections") + text("OrderedDict.fromkeys") + b"\x93.", "fromkeys"),
    "torch.load": (
        b"\x80\x04" + call("torch.serialization", "load", text("x")) + STOP,
        "torch.serialization.load",
    ),
    "long name": (b"\x80\x04" + text("a" * 100_000) + text("b") + b"\x93.", r"aaa ?\.\.\."),
    "terminal": (b"\x80\x04" + text("a\x1b[2J\n") + text("b") + b"\x93.", r"a\\x1b\[2J\\n"),
    "endless name": (b"\x80\x04c" + b"a" * 10_000, "no end of line"),
    "number as name": (b"\x80\x04K\1K\2\x93.", "something else than texts"),
    "inst": (opcode(b"(ios\nsystem\n"), "instruction INST"),
    "obj": (opcode(b"o"), "instruction OBJ"),
    "ext1": (opcode(b"\x82\1"), "instruction EXT1"),
    "ext4": (opcode(b"\x84\1\0\0\0"), "instruction EXT4"),
    "persid": (opcode(b"Pos.system\n"), "instruction PERSID"),
    "binpersid": (opcode(b"Q"), "instruction BINPERSID"),
    "newobj_ex": (opcode(b"\x92"), "instruction NEWOBJ_EX"),
    "long4": (opcode(b"\x8b\xff\xff\xff\x7f"), "instruction LONG4"),
    "dup": (opcode(b"2"), "instruction DUP"),
    "buffer": (opcode(b"\x97"), "instruction NEXT_BUFFER"),
    "bytearray": (opcode(b"\x96" + b"\xff" * 8), "instruction BYTEARRAY8"),
    "unknown": (opcode(b"\xfe"), "instruction 0xfe"),
    "memo index": (opcode(b"r\xff\xff\xff\x7f"), "implausible number"),
    "memo gap": (opcode(b"h\7"), "never stored"),
    "bytes size": (opcode(b"\x8e" + struct.pack("<Q", 1 << 62)), "ends too early: 4611686018427387904"),
    "text size": (opcode(b"\x8d" + struct.pack("<Q", 1 << 62)), "ends too early"),
    "frame size": (opcode(b"\x95" + struct.pack("<Q", 1 << 62)), "ends too early"),
    "inner protocol": (opcode(b"\x80\x63"), "protocol 99"),
    "no stop": (b"\x80\x04N", "ends too early"),
    "stop on nothing": (b"\x80\x04.", "left over"),
    "two values": (b"\x80\x04NN.", "left over"),
    "open mark": (b"\x80\x04(N.", "left over"),
    "empty stack": (b"\x80\x04u.", "damaged"),
    "tuple of nothing": (b"\x80\x04\x86.", "values that are not there"),
    "bad text": (b"\x80\x04X\2\0\0\0\xff\xfe.", "damaged"),
    "instructions": (b"\x80\x04" + b"N" * 500_000 + STOP, "more than 250000 instructions"),
    "dicts": (b"\x80\x04" + b"}\x94" * 250_000 + STOP, "more than 250000 instructions"),
    "marks": (b"\x80\x04" + b"(N" * 250_000 + STOP, "more than 250000 instructions"),
    "deep root": (b"\x80\x04N" + b"\x85" * DEEP + STOP, "something else than a dict"),
    "deep list": (
        b"\x80\x04" + b"](" * (DEEP // 3) + b"e" * (DEEP // 3) + STOP,
        "something else than a dict",
    ),
    "deep key": (b"\x80\x04}N" + b"\x85" * DEEP + b"Ns.", "every key a text"),
    "deep set": (b"\x80\x04N" + b"\x85" * DEEP + b"q\0\x8f(h\0\x90.", "left over"),
    "deep argument": (snapshot(_init_kwargs=pairs(a=b"N" + b"\x85" * DEEP)), "nested more than 24 deep"),
    "deep network": (
        b"\x80\x04" + pairs(G_ema=b"N" + b"\x85" * DEEP) + STOP,
        "something else than a network as G_ema",
    ),
    "deep size": (
        weights(storage(), size=()).replace(b"(t(t", b"N" + b"\x85" * 9999 + b"(t"),
        "impossible shape",
    ),
    "deep class name": (
        b"\x80\x04" + call("torch_utils.persistence", "_reconstruct_persistent_obj", b"N" + b"\x85" * DEEP) + STOP,
        "persistent object of an unknown form",
    ),
    "list in itself": (snapshot(_init_kwargs=pairs(a=b"]q\0h\0a")), "nested more than 24 deep"),
    "dict in itself": (snapshot(_init_kwargs=b"}q\0" + text("a") + b"h\0s"), "nested more than 24 deep"),
    "module in itself": (
        snapshot(_modules=b"}q\0" + text("a") + module(_modules=b"h\0") + b"s"),
        "nested more than",
    ),
    "billion laughs": (
        snapshot(_init_kwargs=pairs(a=doubled(b"]", b"](INMe"))),
        "more than 20000 entries",
    ),
    "billion tuples": (snapshot(_init_args=doubled(b")", b"INM\x86")), "more than 20000 entries"),
    "billion modules": (
        snapshot(_modules=pairs(a=doubled(module(), module(_modules=pairs(a=b"IN", b=b"M"))))),
        "more than 20000 entries",
    ),
    "wide sharing": (
        snapshot(_init_args=b"((" + b"]" * 300 + b"tq\0" + b"h\0" * 300 + b"t"),
        "entries",
    ),
    "long names": (
        snapshot(_modules=pairs(**{"a" * 150: module(_buffers=pairs(**{"b" * 60: b"N"}))})),
        "too long",
    ),
    "empty name": (snapshot(_buffers=b"}" + text("") + b"Ns"), "empty or too long"),
    "text as tensor": (snapshot(_parameters=pairs(w=text("x"))), "neither tensor nor module as w"),
    "tensor as module": (snapshot(_modules=pairs(w=tensor(storage()))), "neither tensor nor module as w"),
    "list of parameters": (snapshot(_parameters=b"]"), "_parameters is not a dict"),
    "tensor as argument": (snapshot(_init_kwargs=pairs(a=tensor(storage()))), "not plain data"),
    "object as argument": (snapshot(_init_kwargs=pairs(a=name("torch", "Size"))), "not plain data"),
    "list of arguments": (snapshot(_init_args=b"]"), "not a tuple"),
    "number as G": (
        b"\x80\x04" + pairs(G=b"K\1", G_ema=module()) + STOP,
        "something else than a network as G",
    ),
    "training set": (
        b"\x80\x04" + pairs(training_set_kwargs=b"K\1", G_ema=module()) + STOP,
        "training_set_kwargs",
    ),
    "build on class": (
        b"\x80\x04" + name("torch", "Size") + pairs(__reduce__=b"N") + b"b.",
        "state of an object",
    ),
    "build on dict": (b"\x80\x04}" + pairs(keys=b"N") + b"b.", "state of an object"),
    "build on tensor": (b"\x80\x04" + tensor(storage()) + pairs(data=b"N") + b"b.", "state of an object"),
    "build twice": (b"\x80\x04" + module(a=b"N") + pairs(a=b"N") + b"b.", "not one dict"),
    "build slots": (b"\x80\x04" + module() + b"N" + pairs(class_name=b"N") + b"\x86b.", "not one dict"),
    "call a text": (b"\x80\x04" + text("os") + b")R.", "cannot be called"),
    "call a dtype": (b"\x80\x04" + name("torch", "float32") + b")R.", "cannot be called"),
    "call without tuple": (b"\x80\x04" + name("collections", "OrderedDict") + b"]R.", "cannot be called"),
    "too many arguments": (b"\x80\x04" + call("torch", "Size", b"N", b"N") + STOP, "damaged"),
    "append to dict": (b"\x80\x04}(Ne.", "not a list"),
    "items for list": (b"\x80\x04]" + text("a") + b"Ns.", "dict wrongly"),
    "odd items": (b"\x80\x04}(" + text("a") + b"u.", "dict wrongly"),
    "number keys": (
        b"\x80\x04}(" + b"".join(integer(n * ((1 << 61) - 1)) + b"N" for n in range(999)) + b"u.",
        "key",
    ),
    "object number": (snapshot(_init_kwargs=pairs(a=scalar("O8", bytes(8)))), "not a plain number"),
    "void number": (snapshot(_init_kwargs=pairs(a=scalar("V8", bytes(8)))), "not a plain number"),
    "short number": (snapshot(_init_kwargs=pairs(a=scalar("f8", bytes(7)))), "damaged"),
    "odd order": (
        snapshot(_init_kwargs=pairs(a=scalar("f8", bytes(8), many(b"K\3", b"]") + b"b"))),
        "numpy dtype",
    ),
    "encode often": (
        b"\x80\x02"
        + text("x" * 10_000)
        + b"q\0"
        + text("latin1")
        + b"q\1"
        + (name("_codecs", "encode") + b"h\0h\1\x86R") * 5000
        + STOP,
        "byte strings that are together larger",
    ),
    "other codec": (b"\x80\x02" + call("_codecs", "encode", text("x"), text("zip")) + STOP, "unexpected way"),
    "storage of 2**62": (weights(storage(1 << 62)), "claims another size"),
    "storage of -1": (weights(storage(-1)), "claims another size"),
    "storage, two counts": (weights(storage(4, count=3)), "claims another size"),
    "storage too short": (weights(storage(data=bytes(15))), "claims another size"),
    "storage too long": (weights(storage(data=bytes(17))), "claims another size"),
    "storage of objects": (weights(storage(kind=("torch", "Tensor"))), r"torch\.Tensor in a torch storage"),
    "storage of system": (weights(storage(kind=("os", "system"))), r"os\.system in a torch storage"),
    "storage of storage": (
        weights(storage(kind=("torch.storage", "_load_from_bytes"))),
        "in a torch storage",
    ),
    "storage of text": (
        b"\x80\x04" + call("torch.storage", "_load_from_bytes", text("x")) + STOP,
        "byte string",
    ),
    "storage of nothing": (
        b"\x80\x04" + call("torch.storage", "_load_from_bytes", b"C\0") + STOP,
        "ends too early",
    ),
    "storage of zip": (
        b"\x80\x04" + call("torch.storage", "_load_from_bytes", b"C\4PK\3\4") + STOP,
        "0x4|PK|instr",
    ),
    "negative stride": (weights(storage(), offset=3, stride=(-1,)), "impossible shape"),
    "negative size": (weights(storage(), size=(-4,)), "impossible shape"),
    "negative offset": (weights(storage(), offset=-1), "impossible shape"),
    "ranks differ": (weights(storage(), size=(2, 2)), "impossible shape"),
    "many dimensions": (weights(storage(), size=(1,) * 99, stride=(1,) * 99), "impossible shape"),
    "view past the end": (weights(storage(), offset=1), "does not fit its storage of 4"),
    "wide stride": (weights(storage(), size=(2,), stride=(1 << 62,)), "does not fit"),
    "stride of one": (weights(storage(), size=(1,), stride=(1 << 70,)), "does not fit"),
    "expanded": (weights(storage(), size=(4, 1), stride=(0, 1)), "does not fit"),
    "expanded to terabytes": (weights(storage(), size=(1 << 40,), stride=(0,)), "does not fit"),
    "overflowing": (weights(storage(), size=(1 << 32, 1 << 32), stride=(1 << 32, 1)), "does not fit"),
    "empty and huge": (weights(storage(), size=(0, 1 << 62), stride=(1, 1)), "implausible shape"),
    "tensor of a list": (weights(b"]"), "unknown form"),
    "size of a list": (
        b"\x80\x04" + call("torch._utils", "_rebuild_tensor_v2", *[b"]"] * 6) + STOP,
        "unknown form",
    ),
    "many views": (
        snapshot(
            _buffers=pairs(a=tensor(storage(4000, data=bytes(16000)) + b"q\0", size=(4000,)))
            + MARK
            + b"".join(text(f"b{n}") + tensor(b"h\0", size=(4000,)) for n in range(300))
            + b"u"
        ),
        "together larger than the file",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile(tmp_path, case):
    data, match = HOSTILE[case]
    path = tmp_path / "hostile.pkl"
    path.write_bytes(data)
    refused(path, match)


def test_builders_of_the_hostile_files(tmp_path):
    """The same pieces, put together well, load: the refusals above are not due to the pieces."""
    path = tmp_path / "good.pkl"
    number = scalar("f8", struct.pack(">d", 0.5), many(b"K\3", text(">")) + b"b")
    store = storage(data=struct.pack("<4f", 1, 2, 3, 4))
    path.write_bytes(
        snapshot(_init_kwargs=pairs(a=number), _parameters=pairs(w=tensor(store, size=(2, 2), stride=(1, 2))))
    )
    network = read_snapshot(path).networks["G_ema"]
    assert network.init_kwargs == {"a": 0.5}
    assert network.tensors["w"].tolist() == [[1, 3], [2, 4]]


# -- damaged files ----------------------------------------------------------------------------------


def skeleton(data: bytes) -> list[int]:
    """The positions outside the weights, where a changed byte changes the program."""
    weights = set()
    for op, value, position in pickletools.genops(data):
        if op.name == "BINBYTES" and position is not None:
            weights.update(range(position + 500, position + len(value)))
    return [position for position in range(len(data)) if position not in weights]


def test_damaged(tmp_path):
    """Each either loads or is refused; a flipped bit may well leave a legal file."""
    original = OFFICIAL.read_bytes()
    generator, places = random.Random(0), skeleton(original)
    path = tmp_path / "damaged.pkl"
    outcomes = {"loads": 0, "refused": 0}
    for number in range(240):
        data = bytearray(original)
        if number % 3 == 0:
            del data[generator.randrange(len(data)) :]
        else:
            position = generator.choice(places) if number % 3 == 1 else generator.randrange(len(data))
            data[position] ^= 1 << generator.randrange(8)
        path.write_bytes(data)
        start = time.perf_counter()
        try:
            read_snapshot(path)
            outcomes["loads"] += 1
        except CheckpointError:
            outcomes["refused"] += 1
        assert time.perf_counter() - start < SECONDS
    assert outcomes["refused"] >= 100
    assert outcomes["loads"] >= 20

"""Safetensors read and written by ourselves, against the library."""

from __future__ import annotations

import json
import os
import random
import stat
from pathlib import Path

import pytest
import safetensors
import torch
from comfyui_creps.common.errors import CheckpointError
from comfyui_creps.creps_core.checkpoints import open_tensors, write_tensors
from safetensors.torch import load, save

TENSORS = {
    "b": torch.randn(3, 4),
    "a": torch.randn(5).bfloat16(),
    "c": torch.randn(2, 2, 2).half(),
    "d.e": torch.randn(7).double(),
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 4),
    "\u20ac": torch.randn(1),
}


def test_the_bytes_are_those_of_the_library(tmp_path: Path):
    path = tmp_path / "t.safetensors"
    write_tensors(path, TENSORS, "creps", {"note": '\u20ac \\ "'})
    header = open_tensors(path, CheckpointError).metadata["creps"]
    assert path.read_bytes() == save(TENSORS, {"creps": header})
    assert json.loads(header)["note"] == '\u20ac \\ "'


def test_what_the_library_writes_is_read(tmp_path: Path):
    path = tmp_path / "t.safetensors"
    path.write_bytes(save(TENSORS, {"x": "y"}))
    file = open_tensors(path, CheckpointError)
    with file.file:
        tensors = file.read()
    assert file.metadata == {"x": "y"}
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in tensors.items():
        assert (tensor.dtype, tensor.shape) == (TENSORS[name].dtype, TENSORS[name].shape)
        assert torch.equal(tensor, TENSORS[name])


def test_what_the_library_refuses_is_refused(tmp_path: Path):
    """Headers with a changed byte or another length."""
    data, path, rng = save(TENSORS, {"x": "y"}), tmp_path / "t.safetensors", random.Random(0)
    refused = 0
    for _ in range(300):
        changed = bytearray(data)
        changed[rng.randrange(len(data))] = rng.choice(b'0123456789[]{},:"xF \0')
        if rng.random() < 0.2:
            del changed[rng.randrange(len(changed)) :]
        try:
            load(bytes(changed))
        except (safetensors.SafetensorError, ValueError, KeyError):
            refused += 1
            path.write_bytes(changed)
            with pytest.raises(CheckpointError):
                open_tensors(path, CheckpointError).require_dtypes()
    assert refused > 100


@pytest.mark.skipif(os.name == "nt", reason="modes")
def test_the_mode_is_that_of_the_umask(tmp_path: Path):
    before = os.umask(0o027)
    try:
        write_tensors(tmp_path / "t.safetensors", TENSORS, "creps", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "t.safetensors").stat().st_mode) == 0o640


def test_beyond_the_memory_and_a_zero_byte_in_the_path(tmp_path):
    """A sparse file of 2^60 bytes of numbers cannot exist, but its reader can be told that it does."""
    import io

    from comfyui_creps.common.errors import CheckpointError
    from comfyui_creps.creps_core.checkpoints import load_generator
    from comfyui_creps.creps_core.checkpoints.container import Entry, TensorFile

    file = TensorFile.__new__(TensorFile)
    file.refuse = lambda found, advice: CheckpointError.about("x", found, advice)
    file.size, file.data_start = 1 << 60, 8
    file.file, file.entries = io.BytesIO(), {"w": Entry("F32", (1 << 58,), 0, 1 << 60)}
    with pytest.raises(CheckpointError, match="GB of numbers do not fit into the free memory"):
        file.read()
    with pytest.raises(CheckpointError, match="zero byte"):
        load_generator(f"{tmp_path}/a\0b.safetensors")

"""Hyperparameters that no shape shows: a snapshot with others than we build is refused by their name."""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path

import pytest
from comfyui_creps.common.errors import CheckpointError
from comfyui_creps.creps_core.checkpoints import read_checkpoint
from paths import GOLDEN

OFFICIAL = (GOLDEN / "official_layout.pkl").read_bytes()
MEMO = rb"(?:q.|r....|\x94)?"


def number(value: float) -> bytes:
    return b"G" + struct.pack(">d", value)


def numpy_number(value: float) -> bytes:
    return struct.pack("<d", value)


def changed(pattern: bytes, new: bytes) -> bytes:
    """The golden snapshot with other bytes of the same length."""
    data, count = re.subn(pattern, lambda match: match[1] + new, OFFICIAL, flags=re.DOTALL)
    assert count > 0
    assert len(data) == len(OFFICIAL)
    return data


CHANGES = {
    "mapping": (
        b"()" + re.escape(numpy_number(0.0025)),
        numpy_number(0.025),
        "mapping.fc0 has weight_gain 0.025, .* 0.0025",
    ),
    "bias gain": (b"()" + re.escape(number(0.01)), number(1.0), "mapping.fc0 has bias_gain 1.0.* builds 0.01"),
    "gain": (
        b"()" + re.escape(numpy_number(math.sqrt(2))),
        numpy_number(2.0),
        "act_gain 2.0, and this program builds 1.41421",
    ),
    "clamp": (b"(fc_clamp" + MEMO + b")M\x00\x01", b"M\x00\x02", "fc_clamp 512, and this program builds 256"),
    "activation": (b"(\x8c\x05)lrelu", b"swish", "activation 'swish', and this program builds lrelu"),
    "argument": (b"(\x8c\x0fbiline_channel)s", b"z", "argument biline_channelz = 8"),
    "inner argument": (b"(\x8c\x0anum_layer)s", b"z", "argument mapping_kwargs.num_layerz = 8"),
}


def read(path: Path, data: bytes):
    path.write_bytes(data)
    return read_checkpoint(path)


@pytest.mark.parametrize("name", CHANGES)
def test_other_hyperparameters_are_refused(tmp_path: Path, name: str):
    pattern, new, match = CHANGES[name]
    with pytest.raises(CheckpointError, match=match) as error:
        read(tmp_path / "x.pkl", changed(pattern, new))
    assert str(error.value).isprintable()


def test_equal_ones_are_read(tmp_path: Path):
    checkpoint = read(tmp_path / "x.pkl", OFFICIAL)
    assert checkpoint.generator().config.mapping_layers == 8
    assert checkpoint.discriminator() is not None


def test_the_bandwidth_is_in_the_frequencies(tmp_path: Path):
    other = read(tmp_path / "x.pkl", changed(b"(bandwidth" + MEMO + b")K\x0a", b"K\x0b")).generator()
    assert other.synthesis.b4.input.freqs.equal(read(tmp_path / "y.pkl", OFFICIAL).generator().synthesis.b4.input.freqs)


def test_a_discriminator_with_others_leaves_the_generator(tmp_path: Path):
    data = changed(b"(conv_clamp" + MEMO + b")M\x00\x01", b"M\x00\x02")
    checkpoint = read(tmp_path / "x.pkl", data)
    checkpoint.generator()
    with pytest.raises(CheckpointError, match="conv_clamp 512"):
        checkpoint.discriminator()

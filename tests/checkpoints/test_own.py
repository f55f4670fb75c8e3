"""Loading, saving, and what is said of files that cannot be used."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from comfyui_creps.creps_core import (
    CheckpointError,
    GeneratorConfig,
    inspect_checkpoint,
    load_generator,
    render,
    sample,
    save_generator,
)
from comfyui_creps.creps_core.checkpoints import Network, build_generator
from comfyui_creps.creps_core.checkpoints.own import official_config
from networks import make_generator, make_ws
from paths import GOLDEN
from safetensors import safe_open
from safetensors.torch import save_file

OFFICIAL = GOLDEN / "official_layout.pkl"


@pytest.fixture(scope="module")
def official() -> dict[str, torch.Tensor]:
    with safe_open(GOLDEN / "official_layout_outputs.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def assert_close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    assert (found - wanted).abs().max() <= 2e-4 * max(1.0, wanted.std().item())


def test_official_snapshot_gives_the_official_pictures(official):
    generator = load_generator(OFFICIAL)
    assert generator.config == GeneratorConfig(
        16, z_dim=16, w_dim=16, channel_base=256, channel_max=16, biline_channels=8
    )
    assert not any(p.requires_grad for p in generator.parameters())
    assert not generator.training
    assert torch.equal(sample(generator, [0, 1]), generator.mapping(official["in.z"]))
    ws = generator.mapping(official["in.z"])
    assert_close(ws, official["out.ws"])
    for tag, side in (("s1", 16), ("s2", 32), ("s1p5", 24)):
        assert_close(render(generator, ws, height=side, width=side), official[f"out.img_{tag}"])
    for cutoff in (None, 3):
        ws = generator.mapping(official["in.z"], truncation_psi=0.7, truncation_cutoff=cutoff)
        assert_close(ws, official[f"out.ws_psi0.7_cut{cutoff}"])
        assert_close(render(generator, ws, height=16, width=16), official[f"out.img_psi0.7_cut{cutoff}"])


def test_the_generator_without_averaging_on_request(official):
    generator = load_generator(OFFICIAL, "G")
    picture = render(generator, generator.mapping(official["in.z"]), height=16, width=16)
    assert_close(picture, official["out.img_G_s1"])
    with pytest.raises(ValueError, match="'D'"):
        load_generator(OFFICIAL, "D")


@pytest.mark.parametrize(
    "fields", [{}, {"c_dim": 3}, {"img_resolution": 4}, {"img_channels": 1}, {"z_dim": 0, "c_dim": 2}]
)
def test_round_trip(tmp_path: Path, fields: dict):
    generator = make_generator(**fields)
    save_generator(generator, tmp_path / "g.safetensors", details={"note": "test"})
    loaded = load_generator(tmp_path / "g.safetensors")
    assert loaded.config == generator.config
    assert loaded.name == "g"
    for (name, a), (again, b) in zip(generator.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert name == again
        assert torch.equal(a, b)
    info = inspect_checkpoint(tmp_path / "g.safetensors")
    assert info.config == generator.config
    assert info.details["note"] == "test"
    assert info.parameters == sum(p.numel() for p in generator.parameters())
    assert [path.name for path in tmp_path.iterdir()] == ["g.safetensors"]


def test_half_storage_is_half_the_size_and_nearly_the_same(tmp_path: Path):
    generator = make_generator()
    save_generator(generator, tmp_path / "full.safetensors")
    save_generator(generator, tmp_path / "half.safetensors", half=True)
    full, half = ((tmp_path / f"{name}.safetensors").stat().st_size for name in ("full", "half"))
    assert half < 0.6 * full
    loaded, ws = load_generator(tmp_path / "half.safetensors"), make_ws(generator)
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    a, b = (render(g, ws, height=32, width=32) for g in (generator, loaded))
    assert 0 < (a - b).abs().max() <= 2e-2 * a.abs().max()
    generator.synthesis.decoder_img.weight[0, 0] = 1e5
    with pytest.raises(ValueError, match="65504"):
        save_generator(generator, tmp_path / "half.safetensors", half=True)
    load_generator(tmp_path / "half.safetensors")  # the failed save left the old file whole


def test_conversion_keeps_the_pictures(tmp_path: Path):
    generator = load_generator(OFFICIAL)
    save_generator(generator, tmp_path / "g.safetensors")
    loaded, ws = load_generator(tmp_path / "g.safetensors"), make_ws(generator)
    assert torch.equal(render(loaded, ws, height=9, width=9), render(generator, ws, height=9, width=9))


def change_header(source: Path, target: Path, change) -> Path:
    """Copy a safetensors file with another header (a function of the parsed one)."""
    data = source.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = change(json.loads(data[8 : 8 + length]))
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    target.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    return target


def change_creps(source: Path, target: Path, change) -> Path:
    """The same for our part of the header."""

    def apply(header: dict) -> dict:
        creps = change(json.loads(header["__metadata__"]["creps"]))
        header["__metadata__"]["creps"] = creps if isinstance(creps, str) else json.dumps(creps)
        return header

    return change_header(source, target, apply)


def with_config(**fields):
    return lambda creps: {**creps, "config": {**creps["config"], **fields}}


def far_offsets(header: dict) -> dict:
    entry = next(value for key, value in header.items() if key != "__metadata__")
    entry["data_offsets"] = [0, 1 << 60]
    return header


def huge_shape(header: dict) -> dict:
    entry = next(value for key, value in header.items() if key != "__metadata__")
    entry["shape"] = [1 << 40, 1 << 40]
    return header


HEADERS = {
    "config not JSON": (change_creps, lambda creps: "{", "cannot be read"),
    "config nested too deeply": (change_creps, lambda creps: "[" * 100_000, "cannot be read"),
    "config a list": (change_creps, lambda creps: [1], "not a JSON object"),
    "no version": (change_creps, lambda creps: {"config": creps["config"]}, "no version"),
    "a later version": (change_creps, lambda creps: {**creps, "version": 99}, "Update"),
    "odd first level": (change_creps, with_config(channel_max=31), "even number"),
    "no power of two": (change_creps, with_config(img_resolution=48), "power of two"),
    "another width": (change_creps, with_config(w_dim=17), "checksum"),
    "more levels": (change_creps, with_config(img_resolution=64), "checksum"),
    "giant widths": (change_creps, with_config(channel_base=65536, channel_max=65536), "checksum"),
    "text for a number": (change_creps, with_config(z_dim="16"), "z_dim"),
    "true for a number": (change_creps, with_config(c_dim=True), "c_dim"),
    "an unknown field": (change_creps, with_config(noise=1), "noise"),
    "offsets beyond the end": (change_header, far_offsets, "safetensors"),
    "a huge shape": (change_header, huge_shape, "safetensors"),
    "not ours": (
        change_header,
        lambda header: {k: v for k, v in header.items() if k != "__metadata__"},
        "without a CREPS config",
    ),
    "not JSON at all": (change_header, lambda header: "{{{{", "safetensors"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_headers_that_lie(tmp_path: Path, case: str):
    edit, change, message = HEADERS[case]
    save_generator(make_generator(), tmp_path / "good.safetensors")
    bad = edit(tmp_path / "good.safetensors", tmp_path / "bad.safetensors", change)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_generator(bad)
    assert f". {bad.name}: " in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_damage_anywhere_is_noticed(tmp_path: Path):
    """A flipped bit at any of 200 places, and a cut at any length."""
    save_generator(make_generator(), tmp_path / "good.safetensors")
    good, bad = (tmp_path / "good.safetensors").read_bytes(), tmp_path / "bad.safetensors"
    random = torch.Generator().manual_seed(0)
    for place in torch.randint(len(good), (200,), generator=random).tolist():
        data = bytearray(good)
        data[place] ^= 1 << place % 8
        bad.write_bytes(data)
        with pytest.raises(CheckpointError):
            load_generator(bad)
    for length in (0, 1, 7, 8, 9, 100, len(good) // 2, len(good) - 1):
        bad.write_bytes(good[:length])
        with pytest.raises(CheckpointError):
            load_generator(bad)


def test_files_of_other_kinds(tmp_path: Path):
    cases = {
        "missing.safetensors": (None, "no such file"),
        "empty.pkl": (b"", "empty"),
        "page.pkl": (b"<!DOCTYPE html><html><title>Google Drive - Virus scan warning</title>", "download"),
        "noise.safetensors": (bytes(range(256)) * 40, "neither"),
        "text.safetensors": (b"this is no checkpoint, but\na text" * 100, r'a text file \("this is no checkpoint'),
        "picture.pkl": (b"\x89PNG\r\n\x1a\n" + bytes(99), "a PNG picture"),
        "archive.pkl": (b"PK\x03\x04" + bytes(2000), "zip"),
    }
    for name, (content, message) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            load_generator(tmp_path / name)
    with pytest.raises(CheckpointError):
        load_generator(tmp_path)


def test_weights_of_other_models(tmp_path: Path):
    path = tmp_path / "other.safetensors"
    save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(4, 4)}, path)
    with pytest.raises(CheckpointError, match="without a CREPS config"):
        load_generator(path)


def test_weights_that_do_not_fit_their_config():
    """Names and shapes are compared before any memory is taken: the widest config costs nothing."""
    tensors = make_generator().state_dict()
    for fields, message in (
        ({"w_dim": 17}, "Wrong shape"),
        ({"img_resolution": 64}, "Missing: synthesis.b64"),
        ({"img_resolution": 16}, "Not expected: synthesis.b32"),
        ({"channel_base": 65536, "channel_max": 65536, "biline_channels": 65536}, "Wrong shape"),
    ):
        config = GeneratorConfig(**{**make_generator().config.to_dict(), **fields})
        with pytest.raises(ValueError, match=message):
            build_generator(config, tensors)


def test_weights_that_are_not_finite(tmp_path: Path):
    generator = make_generator()
    generator.synthesis.b8.fc0.weight[3, 3] = torch.nan
    save_generator(generator, tmp_path / "nan.safetensors")
    with pytest.raises(CheckpointError, match=r"b8\.fc0\.weight holds values that are not finite"):
        load_generator(tmp_path / "nan.safetensors")


def test_official_arguments_are_checked():
    arguments = {
        "z_dim": 16, "c_dim": 0, "w_dim": 16, "img_resolution": 16, "img_channels": 3, "channel_base": 256,
        "channel_max": 16, "mapping_kwargs": {"num_layers": 2},
    }  # fmt: skip
    assert official_config(Network("Generator", arguments, (), {})).mapping_layers == 2
    with pytest.raises(ValueError, match="lack z_dim"):
        official_config(Network("Generator", {k: v for k, v in arguments.items() if k != "z_dim"}, (), {}))
    with pytest.raises(ValueError, match="channel_max"):
        official_config(Network("Generator", {**arguments, "channel_max": 15}, (), {}))

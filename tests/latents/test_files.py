"""Latents and directions in files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from comfyui_creps.common.errors import LatentsError
from comfyui_creps.creps_core import save_generator
from comfyui_creps.creps_core.checkpoints import fingerprint, load_generator
from comfyui_creps.creps_core.latents import (
    average_latents,
    find_directions,
    load_directions,
    load_latents,
    mix_grid,
    sample_latents,
    save_directions,
    save_latents,
)
from networks import make_generator, make_relative
from safetensors.torch import save_file

GENERATOR = make_generator()
CLASSES = make_generator(c_dim=3)
OTHER = make_generator(img_resolution=64)
NUM_WS = GENERATOR.config.num_ws


def test_latents_survive_a_file(tmp_path: Path):
    file = tmp_path / "new" / "latents.safetensors"
    for latents in (
        sample_latents(CLASSES, [4, 1 << 40], truncation_psi=0.7),
        average_latents(sample_latents(CLASSES, [4, 5])),
        mix_grid(sample_latents(CLASSES, [1]), sample_latents(CLASSES, [2, 3]), "fine"),
    ):
        save_latents(latents, file)
        loaded = load_latents(file, CLASSES)
        for field in dataclasses.fields(latents):
            ours, theirs = getattr(latents, field.name), getattr(loaded, field.name)
            if field.name == "ws":
                assert torch.equal(ours, theirs)
            elif field.name == "origin":
                assert (ours is None) == (theirs is None)
                assert ours is None or all(torch.equal(getattr(ours, k), getattr(theirs, k)) for k in ("z", "psi", "c"))
            else:
                assert theirs == ours
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_latents_of_another_generator(tmp_path: Path):
    file = tmp_path / "l.safetensors"
    latents = sample_latents(GENERATOR, [4, 5])
    save_latents(latents, file)
    twin = make_relative(GENERATOR)
    with pytest.raises(LatentsError, match=r"adapt.*: made with random, not with other"):
        load_latents(file, twin)
    assert torch.equal(load_latents(file, twin, "adapt").ws, latents.ws)
    longer = load_latents(file, OTHER, "adapt")
    assert torch.equal(longer.ws[:, :NUM_WS], latents.ws)
    assert torch.equal(longer.ws[:, -1], latents.ws[:, -1])
    assert longer.fingerprint == fingerprint(OTHER)
    assert longer.titles() == ["seed 4", "seed 5"]
    assert (longer.seeds, longer.origin) == ([], None)
    shorter = load_latents(file, make_generator(img_resolution=16), "adapt")
    assert torch.equal(shorter.ws, latents.ws[:, : shorter.ws.shape[1]])
    for choice in ("refuse", "adapt"):
        with pytest.raises(LatentsError, match="16 numbers"):
            load_latents(file, make_generator(w_dim=8), choice)
    assert torch.equal(load_latents(file).ws, latents.ws)
    with pytest.raises(ValueError, match="if_different"):
        load_latents(file, GENERATOR, "maybe")


def test_a_stored_generator_keeps_its_fingerprint(tmp_path: Path):
    save_generator(GENERATOR, tmp_path / "g.safetensors")
    assert fingerprint(load_generator(tmp_path / "g.safetensors")) == fingerprint(GENERATOR)


def test_directions_survive_a_file(tmp_path: Path):
    file = tmp_path / "d.safetensors"
    directions = find_directions(GENERATOR, layers="3-5", count=4)
    save_directions(directions, file)
    loaded = load_directions(file, GENERATOR)
    assert torch.equal(loaded.vectors, directions.vectors)
    assert torch.equal(loaded.steps, directions.steps)
    assert (loaded.layers, loaded.method, loaded.name) == ([3, 4, 5], "SeFa", "random")
    with pytest.raises(LatentsError, match="adapt"):
        load_directions(file, OTHER)
    assert load_directions(file, make_generator(img_resolution=8), "adapt").layers == [3, 4]


def test_files_that_are_something_else(tmp_path: Path):
    file = tmp_path / "x.safetensors"
    save_generator(GENERATOR, file)
    with pytest.raises(LatentsError, match="holds a generator"):
        load_latents(file)
    save_latents(sample_latents(GENERATOR, [0]), file)
    with pytest.raises(LatentsError, match="holds latents"):
        load_directions(file)
    file.write_bytes(b"junk" * 50)
    with pytest.raises(LatentsError, match="not a whole"):
        load_latents(file)
    with pytest.raises(LatentsError, match="no such file"):
        load_latents(tmp_path / "none.safetensors")


GOOD_HEADER = {"version": 1, "name": "n", "fingerprint": "f"}


@pytest.mark.parametrize(
    ("tensors", "header", "match"),
    [
        ({"ws": torch.zeros(1, 9, 16)}, "[]", "header"),
        ({"ws": torch.zeros(1, 9, 16)}, "{" * 10, "header"),
        ({"ws": torch.zeros(1, 9, 16)}, json.dumps({**GOOD_HEADER, "name": 5}), "header"),
        ({"ws": torch.zeros(1, 9, 16)}, json.dumps({**GOOD_HEADER, "version": 2}), "version 2"),
        ({"z": torch.zeros(1, 9)}, json.dumps(GOOD_HEADER), "ws is missing"),
        ({"ws": torch.zeros(9, 16)}, json.dumps(GOOD_HEADER), "shape"),
        ({"ws": torch.full((1, 9, 16), torch.nan)}, json.dumps(GOOD_HEADER), "finite"),
        ({"ws": torch.zeros(1, 9, 16, dtype=torch.int32)}, json.dumps(GOOD_HEADER), "ws as I32"),
    ],
)
def test_damaged_files_are_explained(tmp_path: Path, tensors: dict, header: str, match: str):
    file = tmp_path / "x.safetensors"
    save_file(tensors, file, metadata={"creps_latents": header})
    with pytest.raises(LatentsError, match=match):
        load_latents(file)


def test_what_does_not_fit_the_latents_is_left_out(tmp_path: Path):
    file = tmp_path / "x.safetensors"
    header = {**GOOD_HEADER, "seeds": [1], "labels": [1, 2], "grid": [["a"], ["b", 3]]}
    tensors = {"ws": torch.zeros(2, 9, 16), "z": torch.zeros(3, 16), "psi": torch.ones(2, 9)}
    save_file(tensors, file, metadata={"creps_latents": json.dumps(header)})
    loaded = load_latents(file)
    assert (loaded.seeds, loaded.labels, loaded.grid, loaded.origin) == ([], [], None, None)

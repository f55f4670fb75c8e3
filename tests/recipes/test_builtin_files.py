"""The built-in generators that ship are what their recipes compute, bit for bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from alpenglow import build_alpenglow
from comfyui_creps.creps_core import load_builtin, load_generator
from paths import ROOT
from textures import build_textures

BUILDERS = {"alpenglow": build_alpenglow, "textures": build_textures}


@pytest.mark.parametrize("name", BUILDERS)
def test_the_shipped_file_is_what_the_recipe_computes(name: str):
    shipped, built = load_builtin(name), BUILDERS[name]()
    assert shipped.config == built.config
    weights, expected = shipped.state_dict(), built.state_dict()
    assert weights.keys() == expected.keys()
    for key, tensor in expected.items():  # as integers: -0.0 is not 0.0
        assert torch.equal(weights[key].view(torch.int32), tensor.view(torch.int32)), key
    assert list(shipped.directions) == list(built.directions)
    for (
        title,
        direction,
    ) in built.directions.items():  # a pseudo-inverse: LAPACK rounds as the machine does
        torch.testing.assert_close(shipped.directions[title], direction, rtol=1e-5, atol=1e-6)
    assert shipped.aspect == built.aspect
    assert shipped.labels is built.labels is None


@pytest.mark.parametrize("name", BUILDERS)
def test_building_leaves_the_random_stream_alone(name: str):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    BUILDERS[name]()
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", BUILDERS)
def test_the_command_writes_the_shipped_file(name: str, tmp_path: Path):
    """Run as documented, from another folder, without an installation."""
    out = tmp_path / "g.safetensors"
    command = [sys.executable, ROOT / "recipes" / f"{name}.py", "--out", out]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    written, shipped = load_generator(out), load_builtin(name)
    assert all(torch.equal(tensor, shipped.state_dict()[key]) for key, tensor in written.state_dict().items())

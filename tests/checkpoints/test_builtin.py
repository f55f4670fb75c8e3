"""The built-in generators: the same weights everywhere, and pictures worth looking at."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys

import pytest
import torch
from comfyui_creps.creps_core import BUILTINS, load_builtin, render, sample
from comfyui_creps.creps_core.checkpoints import fingerprint
from paths import ROOT

SIZE = 256
SEEDS = range(8)
PAIRS = list(itertools.combinations(range(len(SEEDS)), 2))


@pytest.fixture(scope="module")
def textures():
    return load_builtin("textures")


@pytest.fixture(scope="module")
def pictures(textures):
    """[N, 3, SIZE, SIZE] of the seeds."""
    return render(textures, sample(textures, SEEDS), height=SIZE, width=SIZE)


@pytest.fixture(scope="module")
def thumbnails(pictures):
    return torch.nn.functional.avg_pool2d(pictures, SIZE // 16)


FINGERPRINTS = {  # those of version 0.2.0; latents, runs and partial renders refer to generators by them
    "alpenglow": "f78f6dbd997ad3ca98866984a7c0993029bd19da638310496eea5c8602aa0a1e",
    "alpine": "d5ec9087200f0d8b1500b96663837850534c617fb6a85c342072458bf7e837de",
    "textures": "a91dc2069d1bbd5d6f54d5fae7bacb8f6f43afe632d6d153e9ee14ab3f24aa3c",
}
DIGESTS = {  # of the float32 values alone
    "alpenglow": "059ed6e1413698a1ea72ae5645cbd5c1a8ed7b278d0b90d1a0583ea967b9c031",
    "textures": "73d4e20dc29c7ba946d6a6f4bed631b788bb79016d42c887b86eea74ec3666b3",
}


def digest(generator):
    total = hashlib.sha256()
    for name, tensor in sorted(generator.state_dict().items()):
        total.update(name.encode() + tensor.numpy().astype("<f4").tobytes())
    return total.hexdigest()


@pytest.mark.parametrize("name", BUILTINS)
def test_the_weights_are_those_of_version_0_2_0(name):
    generator = load_builtin(name)
    assert fingerprint(generator) == FINGERPRINTS[name]
    assert name not in DIGESTS or digest(generator) == DIGESTS[name]


def test_no_file_is_without_an_entry():
    folder = next(iter(BUILTINS.values())).path.parent
    assert {path.stem for path in folder.glob("*.safetensors")} == set(BUILTINS)


def test_building_leaves_the_random_stream_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    load_builtin()  # imports what it needs
    torch.manual_seed(1)
    load_builtin()
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", BUILTINS)
def test_a_builtin_is_ready_to_render(name):
    generator = load_builtin(name)
    assert BUILTINS[name].name == generator.name == name
    assert BUILTINS[name].description
    assert not generator.training
    assert not any(parameter.requires_grad for parameter in generator.parameters())
    assert all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in generator.state_dict().values())


def test_the_default_is_the_first():
    assert load_builtin().name == next(iter(BUILTINS))


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'faces'.*'textures'"):
        load_builtin("faces")


def test_seeds_differ_in_form_and_colour(pictures, thumbnails):
    grey = thumbnails.mean(1).flatten(1)
    forms = (grey - grey.mean(1, keepdim=True)) / grey.std(1, keepdim=True)
    assert max(abs((forms[i] * forms[j]).mean().item()) for i, j in PAIRS) < 0.6
    assert min((thumbnails[i] - thumbnails[j]).abs().mean().item() for i, j in PAIRS) > 0.25
    means = pictures.mean((2, 3))
    hues = means - means.mean(1, keepdim=True)
    assert hues.std(0).min() > 0.08


def test_pictures_are_neither_flat_nor_noisy(pictures):
    deviations = pictures.std((1, 2, 3))
    assert deviations.min() > 0.3
    assert deviations.max() < 0.7
    across, down = pictures.diff(dim=3).abs().mean((1, 2, 3)), pictures.diff(dim=2).abs().mean((1, 2, 3))
    assert max(across.max(), down.max()) < 0.08
    spread = (pictures - pictures.mean(1, keepdim=True)).abs().mean((1, 2, 3))
    assert spread.min() > 0.08  # none is grey


def test_pictures_have_no_preferred_axes(pictures):
    """A tartan varies along the axes, and is nearly the same as its mean over rows plus its mean over columns."""
    grey = pictures.mean(1)
    grey = grey - grey.mean((1, 2), keepdim=True)
    stripes = grey.mean(1, keepdim=True) + grey.mean(2, keepdim=True)
    shares = stripes.square().mean((1, 2)) / grey.square().mean((1, 2))
    assert shares.mean() < 0.4


def test_hardly_a_value_is_clipped(pictures):
    assert (pictures.abs() > 1).float().mean() < 0.01
    assert pictures.abs().max() < 1.25


def test_twice_the_size_shows_the_same_picture(textures, pictures):
    ws = sample(textures, [0])
    large = render(textures, ws, height=2 * SIZE - 1, width=2 * SIZE - 1)
    torch.testing.assert_close(large[..., ::2, ::2], pictures[:1], atol=1e-3, rtol=0)


def test_truncation_calms_and_ends_in_one_picture(textures, pictures):
    none = render(textures, sample(textures, SEEDS[:3], truncation_psi=0.0), height=32, width=32)
    assert torch.equal(none, none[:1].expand_as(none))
    assert none.std() > 0.1
    calm = render(textures, sample(textures, SEEDS[:4], truncation_psi=0.7), height=SIZE, width=SIZE)
    assert calm.diff(dim=3).abs().mean() < 0.9 * pictures[:4].diff(dim=3).abs().mean()
    assert calm.std((1, 2, 3)).min() > 0.25


def test_w_avg_is_the_mean_of_w(textures):
    w = sample(textures, range(2000))[:, 0]
    torch.testing.assert_close(w.mean(0), textures.mapping.w_avg, atol=0.08, rtol=0)


def test_interpolation_of_alpine_moves_smoothly():
    """No step is far from the median one: nothing jumps."""
    generator = load_builtin("alpine")
    first, last = sample(generator, [10, 42])
    ws = torch.stack([first.lerp(last, k / 63) for k in range(64)])
    pictures = render(generator, ws, height=128, width=128).clamp(-1, 1) * 127.5
    steps = (pictures[1:] - pictures[:-1]).square().mean((1, 2, 3)).sqrt()
    print(f"rms of a step, in levels of 255: median {steps.median():.1f}, largest {steps.max():.1f}")
    assert steps.max() < 2 * steps.median()
    assert (pictures[-1] - pictures[0]).square().mean().sqrt() > 10 * steps.median()


def test_loading_does_not_import_torchs_compiler():
    """It takes over a second, and arithmetic on the meta device would import it."""
    code = "import sys; from comfyui_creps.creps_core import load_builtin; load_builtin('alpine'); "
    code = f"import package; {code}assert 'torch._dynamo' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / "benchmarks", check=True)

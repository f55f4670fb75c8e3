"""Fine-tuning to labels, to other classes, to other channels and to pictures that are not square."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_creps.creps_core import load_generator, render, sample
from comfyui_creps.creps_core.cli import main
from comfyui_creps.creps_core.network import Discriminator, DiscriminatorConfig, Generator
from comfyui_creps.creps_core.training import discriminator_for
from comfyui_creps.creps_core.training.refit import channel_matrix
from comfyui_creps.creps_core.training.start import StartNetworks, refit
from networks import make_generator
from picture_files import encoded, write
from PIL import Image
from torch import Tensor

SIDE = 8
QUICK = "--device=cpu --batch=8 --tick=100 --snapshot=100000 --path-length=0 --augment=none --d-channel-base=256"
QUICK = QUICK.split()
FAST = ["--g-lr", "0.01", "--d-lr", "0.01", "--ema-images", "100", "--gamma", "0.05", "--seed", "1"]
COLOURS = {10: (220, 40, 40), 20: (40, 60, 220)}


def networks(resolution: int = SIDE, channels: int = 3, c_dim: int = 0) -> StartNetworks:
    generator = make_generator(img_resolution=resolution, img_channels=channels, c_dim=c_dim)
    torch.manual_seed(5)
    d = Discriminator(DiscriminatorConfig(resolution, channels, c_dim, channel_base=256, channel_max=32))
    return StartNetworks(generator, generator, d)


def drawn(generator: Generator, z: Tensor, c: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        return render(generator, generator.mapping(z, c), height=SIDE, width=SIDE)


@pytest.mark.parametrize(("before", "after"), [(0, 5), (3, 5), (5, 0)])
def test_what_fits_is_taken_over(before: int, after: int):
    old = networks(c_dim=before)
    new = refit(old, after, 3, seed=1)
    assert new.G.config.c_dim == after
    ours, theirs = new.G.state_dict(), old.G.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs if name.startswith("synthesis."))
    assert torch.equal(new.G.mapping.w_avg, old.G.mapping.w_avg)
    same = {name for name in theirs if name in ours and torch.equal(ours[name], theirs[name])}
    missing = {name for name in theirs if name not in same}
    assert missing <= {f"mapping.{name}" for name in ("embed.weight", "embed.bias", "fc0.weight", "fc0.bias")}
    if before and after:
        assert "mapping.fc0.weight" in same
    wanted = DiscriminatorConfig(SIDE, 3, after, channel_base=256, channel_max=32)
    d, old_d = discriminator_for(new, wanted, 1).state_dict(), old.D.state_dict()
    assert all(torch.equal(d[name], old_d[name]) for name in old_d if "conv" in name or "rgb" in name)


def test_z_means_the_same_with_labels_and_without():
    """What the first layer gets of z is what it got; the label comes on top, weaker."""
    old = networks()
    new = refit(old, 4, 3, seed=1)
    z = torch.randn(64, old.G.config.z_dim, generator=torch.Generator().manual_seed(0))

    def first(generator: Generator, inputs: Tensor) -> Tensor:
        return generator.mapping.fc0(inputs) - generator.mapping.fc0.bias * generator.mapping.fc0.bias_gain

    z = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
    embedded = new.G.mapping.embedded(torch.eye(4))
    zeros = torch.zeros(len(z), embedded.shape[1])
    assert torch.allclose(first(new.G, torch.cat([z, zeros], 1)), first(old.G, z), atol=1e-6)
    of_label = first(new.G, torch.cat([torch.zeros(4, z.shape[1]), embedded], 1))
    ratio = of_label.square().mean() / first(old.G, z).square().mean()
    assert 0.2 < ratio < 1.2
    # And back: what a usual label brought stays.
    back = refit(new, 0, 3, seed=2)
    mean = first(new.G, torch.cat([zeros[:1, : z.shape[1]], new.G.mapping.embedded(torch.full((1, 4), 0.25))], 1))
    with_mean = first(new.G, torch.cat([z, zeros], 1)) + mean + new.G.mapping.fc0.bias * new.G.mapping.fc0.bias_gain
    assert torch.allclose(back.G.mapping.fc0(z), with_mean, atol=1e-5)


@pytest.mark.parametrize(("before", "after"), [(3, 4), (1, 4), (4, 3), (1, 3), (3, 1)])
def test_other_channels_show_the_same_pictures(before: int, after: int):
    old = networks(channels=before)
    new = refit(old, 0, after, seed=1)
    z = torch.randn(3, old.G.config.z_dim, generator=torch.Generator().manual_seed(0))
    plain = drawn(old.G, z)
    wanted = torch.einsum("ij,njhw->nihw", channel_matrix(before, after), plain)
    if after == 4:
        wanted[:, 3] = 1  # opaque
    assert (drawn(new.G, z) - wanted).abs().max() < 1e-4
    d = discriminator_for(new, DiscriminatorConfig(SIDE, after, 0, channel_base=256, channel_max=32), 1)
    pictures = torch.randn(4, after, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    seen = torch.einsum("ij,njhw->nihw", channel_matrix(after, before), pictures)
    assert (d(pictures) - old.D(seen)).abs().max() < 1e-4


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small generator without labels, not trained: what is tested is that it learns labels."""
    folder = tmp_path_factory.mktemp("plain")
    write(folder / "pics", {f"{k}.png": encoded(np.full((SIDE, SIDE, 3), 30 * k, np.uint8)) for k in range(8)})
    new = "--resolution=8 --z-dim=16 --w-dim=16 --mapping-layers=2 --channel-base=512 --channel-max=32"
    command = ["train", "--data", str(folder / "pics"), "--out", str(folder / "run"), "--images", "8"]
    assert main([*command, *new.split(), "--biline-channels=8", *QUICK]) == 0
    return folder / "run" / "generator.safetensors"


def two_classes(folder: Path, labels: str = "file") -> Path:
    rng = np.random.default_rng(0)
    files: dict[str, bytes] = {}
    entries = []
    for number, colour in COLOURS.items():
        for k in range(6 if number == 10 else 2):
            shade = np.clip(np.array(colour) + rng.integers(-30, 30, 3), 0, 255).astype(np.uint8)
            name = f"{number}/{k}.png"
            files[name] = encoded(np.broadcast_to(shade, (SIDE, SIDE, 3)).copy())
            entries.append([name, number])
    if labels == "file":
        content = {"labels": entries, "classes": {"10": "Fire", "20": "water"}}
        files["dataset.json"] = json.dumps(content).encode()
    return write(folder, files)


def test_a_generator_without_labels_learns_two_classes(plain: Path, tmp_path: Path, caplog):
    """And its grid shows only these, as often as the pictures do."""
    out = tmp_path / "tuned"
    command = ["train", "--data", str(two_classes(tmp_path / "pics")), "--labels", "--start", str(plain)]
    with caplog.at_level("INFO"):
        assert main([*command, "--out", str(out), "--images", "800", *FAST, *QUICK]) == 0
    assert "2 of 21 classes have pictures: 10 (Fire): 6, 20 (water): 2" in caplog.text
    assert "without pictures: 0-9, 11-19" in caplog.text
    generator = load_generator(out / "generator.safetensors")
    assert generator.config.c_dim == 21
    assert generator.labels is not None
    assert generator.labels.values.tolist() == [10, 20]
    assert generator.labels.counts.tolist() == [6, 2]

    def mean(label) -> Tensor:
        return render(generator, sample(generator, range(16), label=label), height=4, width=4).mean((0, 2, 3))

    fire, water = mean("fire"), mean(20)
    assert torch.equal(fire, mean(10))
    assert fire[0] - fire[2] > 0.3
    assert water[2] - water[0] > 0.3
    with Image.open(sorted(out.glob("fakes-*.png"))[-1]) as grid:
        cells = np.asarray(grid).astype(float).reshape(4, SIDE, 8, SIDE, 3).mean((1, 3)).reshape(32, 3)
    red = cells[:, 0] > cells[:, 2]
    assert 0.55 < red.mean() < 0.95  # six of eight
    info = main(["info", str(out / "generator.safetensors")])
    assert info == 0


def test_labels_that_were_never_trained_are_not_drawn(tmp_path: Path, plain: Path, caplog):
    out = tmp_path / "run"
    command = ["train", "--data", str(two_classes(tmp_path / "pics", "folders")), "--labels", "folders"]
    assert main([*command, "--start", str(plain), "--out", str(out), "--images", "8", *QUICK]) == 0
    generator = load_generator(out / "snapshot-0000000008.safetensors")
    from comfyui_creps.creps_core.latents import sample_latents

    latents = sample_latents(generator, range(400))
    assert latents.origin is not None
    assert latents.origin.c is not None
    drawn = latents.origin.c.argmax(1)
    assert set(drawn.tolist()) == {10, 20}
    assert 0.65 < (drawn == 10).float().mean() < 0.85
    assert latents.labels[0] == f"seed 0, {drawn[0]}"
    again = sample_latents(generator, [7])
    assert torch.equal(again.origin.c[0], latents.origin.c[7])  # of a seed, whatever is beside it
    assert main(["train", "--out", str(out), "--images", "16", "--device", "cpu"]) == 0
    tuned = load_generator(out / "generator.safetensors")
    assert tuned.labels.names == {10: "10", 20: "20"}
    # Fewer classes than the start has: their numbers keep their meaning. None: it continues without.
    grey = {f"{k}/{i}.png": encoded(np.full((8, 8, 3), 9 * i, np.uint8)) for k in (3, 5) for i in (0, 1)}
    few = write(tmp_path / "few", grey)
    start = ["--start", str(out / "generator.safetensors"), "--images", "8", *QUICK]
    assert main(["train", "--data", str(few), "--labels", "folders", *start, "--out", str(tmp_path / "a")]) == 0
    again = load_generator(tmp_path / "a" / "generator.safetensors")
    assert (again.config.c_dim, again.labels.values.tolist()) == (21, [3, 5])
    caplog.clear()
    assert main(["train", "--data", str(few), *start, "--out", str(tmp_path / "b")]) == 0
    assert "the start has labels and these pictures have none: the run continues without labels" in caplog.text
    assert load_generator(tmp_path / "b" / "generator.safetensors").config.c_dim == 0


def test_labels_of_numbers_can_be_asked_for(tmp_path: Path, plain: Path, caplog):
    files = {f"{k}.png": encoded(np.full((SIDE, SIDE, 3), 20 * k, np.uint8)) for k in range(8)}
    labels = {"labels": [[name, [k / 8, 25.0]] for k, name in enumerate(files)]}
    data = write(tmp_path / "pics", {**files, "dataset.json": json.dumps(labels).encode()})
    out = tmp_path / "run"
    command = ["train", "--data", str(data), "--labels", "--start", str(plain), "--out", str(out), "--images", "8"]
    assert main([*command, *QUICK]) == 0
    file = out / "generator.safetensors"
    generator = load_generator(file)
    assert sorted(generator.labels.values[:, 0].tolist()) == [k / 8 for k in range(8)]
    picture = [
        "render",
        "--checkpoint",
        str(file),
        "--size",
        "8x8",
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "x.png"),
    ]
    assert main([*picture, "--label", "0.125, 25"]) == 0
    ws = sample(generator, [0], label="0.125 25")
    assert torch.equal(ws, sample(generator, [0], label=[0.125, 25.0]))
    for bad, message in (
        ("3", "label 3 is a class, and this generator takes 2 numbers, such as 0, 25"),
        ("1,2,3", "a label of 3 numbers"),
        ("cat", "there is no label 'cat'; this generator takes 2 numbers"),
        ("nan,1", "this generator takes 2 numbers"),
    ):
        caplog.clear()
        assert main([*picture, "--label", bad]) == 1
        assert message in caplog.text


def test_unknown_classes_are_explained(tmp_path: Path, plain: Path, caplog):
    out = tmp_path / "run"
    command = ["train", "--data", str(two_classes(tmp_path / "pics")), "--labels", "--start", str(plain)]
    assert main([*command, "--out", str(out), "--images", "8", *QUICK]) == 0
    picture = ["render", "--checkpoint", str(out / "generator.safetensors"), "--size", "8x8", "--device", "cpu"]
    for bad, message in (
        ("earth", "there is no label 'earth'; give a class from 0 to 20 for this generator, or one of Fire, water"),
        ("21", "label must be from 0 to 20 for this generator, not 21"),
        ("-1", "label must be from 0 to 20 for this generator, not -1"),
    ):
        caplog.clear()
        assert main([*picture, "--out", str(tmp_path / "x.png"), f"--label={bad}"]) == 1
        assert message in caplog.text


def test_transparency_is_learnt(tmp_path: Path, plain: Path):
    """Four channels through discriminator, augmentation, sheets and files; what begins opaque does not stay so."""
    files = {f"{k}.png": encoded(np.full((SIDE, SIDE, 4), (60 + 20 * k, 100, 100, 60), np.uint8)) for k in range(8)}
    out = tmp_path / "run"
    command = ["train", "--data", str(write(tmp_path / "pics", files)), "--alpha", "--start", str(plain)]
    fixed = ["--augment", "fixed", "--augment-p", "0.1"]
    assert main([*command, "--out", str(out), "--images", "600", *FAST, *QUICK, *fixed]) == 0
    generator = load_generator(out / "generator.safetensors")
    assert generator.config.img_channels == 4
    alpha = render(generator, sample(generator, range(8)), height=SIDE, width=SIDE)[:, 3].mean()
    assert alpha < 0.5  # from 1, towards 60 / 127.5 - 1
    for name in ("reals.png", "fakes-0000000600.png"):
        with Image.open(out / name) as sheet:
            assert sheet.mode == "RGBA"
    file = tmp_path / "x.png"
    checkpoint = ["--checkpoint", str(out / "generator.safetensors"), "--device", "cpu"]
    assert main(["render", *checkpoint, "--size", "32x32", "--out", str(file)]) == 0
    with Image.open(file) as picture:
        assert picture.mode == "RGBA"


def test_wide_pictures_stay_wide(tmp_path: Path, plain: Path):
    """16:9 in, 16:9 out: in the grid, by default in `render`, and not squeezed where another shape is asked for."""
    wide = np.zeros((36, 64, 3), np.uint8)
    data = write(tmp_path / "pics", {f"{k}.png": encoded(wide + 20 * k) for k in range(8)})
    out = tmp_path / "run"
    command = ["train", "--data", str(data), "--aspect", "16:9", "--start", str(plain), "--out", str(out)]
    assert main([*command, "--images", "8", *QUICK]) == 0
    generator = load_generator(out / "generator.safetensors")
    assert generator.aspect == (16, 9)
    with Image.open(out / "reals.png") as sheet:
        assert sheet.size == (8 * SIDE, SIDE // 2)
    with Image.open(out / "fakes-0000000008.png") as sheet:
        assert sheet.size == (8 * SIDE, 4 * SIDE // 2)
    file = tmp_path / "x.png"
    checkpoint = ["--checkpoint", str(out / "generator.safetensors"), "--device", "cpu", "--out", str(file)]
    assert main(["render", *checkpoint]) == 0
    with Image.open(file) as picture:
        assert picture.size == (1024, 576)
    # A square picture of it is the middle of the frame, upright.
    ws = sample(generator, [0])
    square = render(generator, ws, height=65, width=65, fit="crop")
    middle = (0.0, 0.5 - 9 / 32, 1.0, 0.5 + 9 / 32)
    assert (square - render(generator, ws, height=65, width=65, window=middle)).abs().max() < 1e-5
    # It resumes in this aspect, and starts others in it.
    assert main(["train", "--out", str(out), "--images", "16", "--device", "cpu"]) == 0
    again = ["--start", str(out / "generator.safetensors"), "--out", str(tmp_path / "again"), "--images", "8"]
    assert main(["train", "--data", str(data), *again, *QUICK]) == 0
    assert load_generator(tmp_path / "again" / "generator.safetensors").aspect == (16, 9)

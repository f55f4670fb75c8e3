"""The command line, as a user types it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_creps.creps_core import load_builtin, load_generator, render, sample, save_generator
from comfyui_creps.creps_core.cli import COMMANDS, main
from comfyui_creps.creps_core.training import load_networks
from networks import make_generator
from paths import GOLDEN
from PIL import Image

OFFICIAL = GOLDEN / "official_layout.pkl"


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_every_command_is_listed_and_has_help(capsys):
    names = ["render", "unfinished", "explore", "info", "convert", "data", "train", "evaluate", "bench"]
    assert [command.name for command in COMMANDS] == names
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = capsys.readouterr().out
    for command in COMMANDS:
        assert command.help.split()[0] in listed
        with pytest.raises(SystemExit) as caught:
            main([command.name, "--help"])
        assert caught.value.code == 0
        assert f"usage: creps {command.name}" in capsys.readouterr().out


def test_render_a_builtin(tmp_path: Path):
    out = tmp_path / "new folder" / "picture.png"
    assert main(["render", "--seed", "3", "--size", "96x54", "--out", str(out)]) == 0
    generator = load_builtin()
    picture = render(generator, sample(generator, [3]), height=54, width=96, fit="crop")
    wanted = (picture[0].permute(1, 2, 0) * 127.5 + 128).clamp(0, 255).to(torch.uint8).numpy()
    assert np.array_equal(read(out), wanted)
    with Image.open(out) as image:
        assert "seed 3" in image.text["creps"]


def test_render_a_checkpoint_with_every_option(tmp_path: Path):
    out = tmp_path / "p.png"
    arguments = "--seed 2 --psi 0.7 --cutoff 3 --size 20x30 --fit stretch --supersample 2 --window=-0.5,0,0.5,1"
    command = [
        "render",
        "--checkpoint",
        str(OFFICIAL),
        *arguments.split(),
        "--precision",
        "float32",
        "--out",
        str(out),
    ]
    assert main(command) == 0
    assert read(out).shape == (30, 20, 3)


def test_grey_pictures_are_grey_files(tmp_path: Path):
    save_generator(make_generator(img_channels=1), tmp_path / "grey.safetensors")
    command = ["render", "--checkpoint", str(tmp_path / "grey.safetensors"), "--size", "9x8"]
    assert main([*command, "--out", str(tmp_path / "p.png")]) == 0
    assert read(tmp_path / "p.png").shape == (8, 9)


def test_convert_and_info(tmp_path: Path, capsys):
    target = tmp_path / "g.safetensors"
    assert main(["convert", str(OFFICIAL), str(target), "--half"]) == 0
    assert load_generator(target).config == load_generator(OFFICIAL).config
    for path, words in (
        (target, ["version 1", "float16", "official_layout.pkl"]),
        (OFFICIAL, ["G, D, G_ema", "xflip"]),
    ):
        assert main(["info", str(path)]) == 0
        text = capsys.readouterr().out
        assert all(word in text for word in [*words, "img_resolution: 16", "num_ws: 7"])


def test_convert_keeps_the_discriminator_if_asked_to(tmp_path: Path, caplog):
    target, alone = tmp_path / "both.safetensors", tmp_path / "alone.safetensors"
    assert main(["convert", str(OFFICIAL), str(target), "--keep-discriminator"]) == 0
    found, wanted = load_networks(target).D, load_networks(OFFICIAL).D
    assert found is not None
    assert wanted is not None
    for name, tensor in wanted.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor)
    assert main(["convert", str(OFFICIAL), str(alone)]) == 0
    assert load_networks(alone).D is None
    assert main(["convert", str(alone), str(tmp_path / "more.safetensors"), "--keep-discriminator"]) != 0
    assert "holds no discriminator" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["render", "--checkpoint", "nowhere.pkl"], "nowhere.pkl: there is no such file"),
        (["render", "--builtin", "nothing"], "'nothing'"),
        (["render", "--seed", "-1"], "seed"),
        (["render", "--window", "0,0,0,1"], "empty"),
        (["info", __file__], "neither a snapshot nor a safetensors file"),
    ],
)
def test_failures_say_what_to_do(arguments: list[str], message: str, tmp_path: Path, caplog):
    out = tmp_path / "p.png"
    if arguments[0] == "render":
        arguments = [*arguments, "--size", "8x8", "--out", str(out)]
    assert main(arguments) == 1
    assert message in caplog.text
    assert not out.exists()


def test_info_explains_the_backends(capsys):
    assert main(["info", "--backends"]) == 0
    text = capsys.readouterr().out
    assert "cpu float32: tiled" in text
    assert "not triton: it needs a CUDA GPU, not cpu" in text
    assert main(["info"]) == 1


@pytest.mark.parametrize("size", ["2048x", "0x5", "axb", "10x-3", "1x2x3", "0"])
def test_sizes_that_are_none(size: str, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["render", "--size", size])
    assert caught.value.code == 2
    assert "2048x1152" in capsys.readouterr().err


def test_training_on_a_folder_that_is_missing_names_it(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    assert main(["train", "--data", str(tmp_path / "nosuch"), "--out", str(tmp_path / "run")]) == 1
    assert "nosuch" in caplog.text
    assert "--resolution" not in caplog.text


def test_one_number_is_a_square(tmp_path: Path):
    assert main(["render", "--size", "24", "--out", str(tmp_path / "square.png")]) == 0
    with Image.open(tmp_path / "square.png") as image:
        assert image.size == (24, 24)

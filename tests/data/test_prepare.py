"""`creps data`: an archive with the same images that training on the source would see."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_creps.creps_core.cli import main
from comfyui_creps.creps_core.data import open_dataset
from picture_files import colours, encoded, smooth, write
from PIL import Image


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Image files of many kinds, and two that are no usable images."""
    rng = np.random.default_rng(0)
    wide = Image.fromarray(smooth(90, 50))
    turned = wide.copy()
    turned.getexif()[0x0112] = 6
    file = io.BytesIO()
    turned.save(file, "JPEG", exif=turned.getexif())
    files = {
        "b/wide.png": encoded(wide),
        "b/turned.jpg": file.getvalue(),
        "a/small.png": encoded(colours(1, 20, 24)),
        "a/clear.png": encoded(colours(2, 40, 60, 4)),
        "a/grey.png": encoded(rng.integers(0, 256, (64, 48), dtype=np.uint8)),
        "a/notes.txt": b"none",
        "a/broken.png": b"\x89PNG\r\n\x1a\n and nothing else",
    }
    return write(tmp_path / "source", files)


def prepare(source: Path, *words: object) -> Path:
    target = source.parent / "out.zip"
    assert main([str(word) for word in ("data", source, target, *words)]) == 0
    return target


@pytest.mark.parametrize("crop", ["center", "resize"])
@pytest.mark.parametrize(("channels", "word"), [(3, []), (1, ["--gray"]), (4, ["--alpha"])])
def test_the_pictures_of_the_trainer(source: Path, crop: str, channels: int, word: list[str]):
    target = prepare(source, "--side", 32, "--crop", crop, *word)
    before = open_dataset(source, resolution=32, channels=channels, crop=crop)
    after = open_dataset(target, resolution=32, channels=channels)
    assert len(after) == len(before) == 5
    assert torch.equal(after.images(range(5)), before.images(range(5)))
    assert after.report.notes == {}
    assert after.report.hints == []  # it has no labels
    with zipfile.ZipFile(target) as archive:
        names = archive.namelist()
        assert names == [f"00000/img{n:08d}.png" for n in range(5)] + ["dataset.json"]
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        assert json.loads(archive.read("dataset.json")) == {"labels": None}
        with Image.open(io.BytesIO(archive.read(names[0]))) as picture:
            assert (picture.size, picture.mode) == ((32, 32), {1: "L", 3: "RGB", 4: "RGBA"}[channels])
    again = target.read_bytes()
    assert prepare(source, "--side", 32, "--crop", crop, *word).read_bytes() == again


def test_labels_come_along(source: Path):
    target = prepare(source, "--side", 16, "--labels", "folders")
    before = open_dataset(source, resolution=16, use_labels="folders")
    after = open_dataset(target, resolution=16, use_labels=True)
    assert torch.equal(after.labels(range(5)), before.labels(range(5)))
    assert after.class_names == before.class_names == {0: "a", 1: "b"}
    vectors = {"labels": [["b/wide.png", [0.5, 1.0]], ["a/small.png", [0.25, -1.0]]]}
    (source / "dataset.json").write_text(json.dumps(vectors))
    after = open_dataset(prepare(source, "--side", 16, "--labels"), resolution=16, use_labels=True)
    assert after.labels(range(2)).tolist() == [[0.25, -1.0], [0.5, 1.0]]


def test_a_choice(source: Path):
    words = ["--side", 16, "--max-pictures", 3, "--seed", 5]
    before = open_dataset(source, resolution=16, max_pictures=3, seed=5)
    after = open_dataset(prepare(source, *words), resolution=16)
    assert torch.equal(after.images(range(3)), before.images(range(3)))


def test_what_is_refused(source: Path, caplog):
    target = prepare(source, "--side", 16)
    for words, message in (
        ((source, source.parent / "out.tar", "--side", 16), "ends with .zip"),
        ((target, target, "--side", 8), "another name"),
        ((source.parent / "nowhere", source.parent / "other.zip", "--side", 16), "no such folder"),
        ((source, source.parent / "other.zip", "--side", 4), "resolution must be 8 or more"),
        ((source, source.parent / "other.zip", "--side", 16, "--labels"), "dataset.json"),
    ):
        assert main([str(word) for word in ("data", *words)]) == 1
        assert message in caplog.text
        caplog.clear()
    assert sorted(path.name for path in source.parent.iterdir()) == ["out.zip", "source"]

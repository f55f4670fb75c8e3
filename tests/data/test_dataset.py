"""Datasets: folders and archives, memory limit, random choice, mirroring and windows."""

from __future__ import annotations

import errno
import os
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_creps.common.errors import DatasetError
from comfyui_creps.creps_core.data import Batches, from_images, open_dataset, with_mask
from picture_files import SIDE, array, colours, encoded, numbered, opened, write, zipped
from PIL import Image

# --- Folders and archives


def test_a_folder_and_archives_of_it(tmp_path: Path):
    files = numbered(10)
    folder = open_dataset(write(tmp_path / "folder", files), resolution=SIDE, workers=3)
    assert (len(folder), folder.resolution, folder.channels, folder.c_dim) == (10, SIDE, 3, 0)
    assert (folder.report.used, folder.report.skipped, folder.report.notes) == (10, [], {})
    assert str(folder.report) == "10 pictures"
    assert folder.names == sorted(files)
    everything = folder.images(range(10))
    assert everything.shape == (10, 3, SIDE, SIDE)
    assert everything.dtype == torch.uint8
    for index in range(10):
        assert np.array_equal(array(folder, index), colours(index))
    assert folder.labels([3, 4]).shape == (2, 0)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        reverse = dict(reversed(files.items()))
        archive = open_dataset(zipped(tmp_path / f"{method}.zip", reverse, method), resolution=SIDE, workers=2)
        assert archive.names == folder.names
        assert torch.equal(archive.images(range(10)), everything)
    with pytest.raises(IndexError, match="no picture 10"):
        folder.images([10])
    with pytest.raises(IndexError, match="no picture -1"):
        folder.labels([-1])


def test_files_that_are_no_images_are_ignored(tmp_path: Path):
    others = dict.fromkeys(("a.txt", "b.json", "Thumbs.db", ".hidden.png", "README", "sub/inner.zip"), b"text")
    others |= {"__MACOSX/._x.png": b"?", ".git/x.png": b"?", "sub/notes.PDF": b"%PDF"}
    files = {"NAMELESS": encoded(colours(1)), "b.PNG": encoded(colours(2))}
    for source in (write(tmp_path / "f", files | others), zipped(tmp_path / "f.zip", files | others)):
        dataset = open_dataset(source, resolution=SIDE)
        assert dataset.names == ["NAMELESS", "b.PNG"]
        assert dataset.report.skipped == []


def test_links(tmp_path: Path):
    folder = write(tmp_path / "f", {"a.png": encoded(colours(0)), "deep/b.png": encoded(colours(1))})
    outside = write(tmp_path / "other", {"c.png": encoded(colours(2))})
    try:
        (folder / "to_file.png").symlink_to(outside / "c.png")
        (folder / "to_folder").symlink_to(outside)
        (folder / "deep" / "loop").symlink_to(folder)
        (folder / "nowhere.png").symlink_to(tmp_path / "missing")
    except OSError:
        pytest.skip("no links here")
    dataset = open_dataset(folder, resolution=SIDE)
    assert dataset.names == ["a.png", "deep/b.png", "to_file.png"]
    followed = "link to a folder, not followed: give that folder, or copy it"
    assert dataset.report.skipped == [
        ("deep/loop/", followed),
        ("nowhere.png", "not a file, or a link that leads nowhere"),
        ("to_folder/", followed),
    ]
    with zipfile.ZipFile(tmp_path / "l.zip", "w") as archive:
        archive.writestr("a.png", encoded(colours(0)))
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/hostname")
    assert open_dataset(tmp_path / "l.zip", resolution=SIDE).report.skipped == [("link.png", "a symbolic link")]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the administrator may read everything")
def test_unreadable_files(tmp_path: Path):
    folder = write(tmp_path, {"a.png": encoded(colours(0)), "b.png": encoded(colours(1)), "locked/c.png": b""})
    (folder / "b.png").chmod(0)
    (folder / "locked").chmod(0)
    try:
        report = open_dataset(folder, resolution=SIDE).report
    finally:
        (folder / "locked").chmod(0o700)
    assert report.skipped == [(name, "cannot be read (Permission denied)") for name in ("b.png", "locked/")]


def test_no_pictures(tmp_path: Path):
    def fails(source: Path, match: str, **options: object) -> None:
        with pytest.raises(DatasetError, match=match):
            open_dataset(source, **{"resolution": SIDE, **options})  # type: ignore

    fails(tmp_path / "missing", "there is no such folder or zip")
    fails(write(tmp_path, {"x.png": encoded(colours(0))}) / "x.png", "not a zip file; give a folder")
    fails(zipped(tmp_path / "empty.zip", {}), r"there are no pictures in it$")
    texts = write(tmp_path / "texts", {"a.txt": b"", "b.txt": b"", "README": b"hello"})
    fails(texts, r"no pictures in it, only other files \(2 .txt, 1 without ending\)")
    broken = write(tmp_path / "broken", {f"{letter}.png": b"" for letter in "abcde"})
    fails(broken, "none of 5 pictures can be used: a.png: empty file; b.png: empty file; .*; and 2 more")
    damaged = (tmp_path / "x.png").with_suffix(".zip")
    data = bytearray(zipped(damaged, numbered(3)).read_bytes())
    table = data.index(b"PK\x01\x02")
    data[table : table + 4] = b"????"
    damaged.write_bytes(data)
    fails(damaged, "the zip file is damaged")


def test_arguments(tmp_path: Path):
    write(tmp_path, numbered(2))
    for options, match in (
        ({"resolution": 4}, "resolution must be 8 or more, not 4"),
        ({"channels": 2}, r"channels must be one of \[1, 3, 4\]"),
        ({"crop": "left"}, "crop must be one of .*'left'"),
        ({"max_side": 8}, "max_side must be the resolution, 16, or more, not 8"),
        ({"max_pictures": 0}, "max_pictures must be 1"),
        ({"seed": -1}, "seed must be 0"),
        ({"cache_bytes": -1}, "cache_bytes must be 0"),
        ({"workers": 0}, "workers must be 1"),
    ):
        with pytest.raises(ValueError, match=match):
            open_dataset(tmp_path, **{"resolution": SIDE, **options})  # type: ignore


# --- Memory, choice, progress


def test_memory_is_bounded(tmp_path: Path):
    files = numbered(20)
    size = SIDE * SIDE * 3
    whole = open_dataset(zipped(tmp_path / "x.zip", files), resolution=SIDE)
    assert whole._cache.size == 20 * size
    assert whole._source is None  # the archive is closed
    for limit in (0, 5 * size + 1):
        bounded = open_dataset(tmp_path / "x.zip", resolution=SIDE, cache_bytes=limit)
        order = [*range(20), 3, 3, *range(19, -1, -1)]
        for index in order:
            assert torch.equal(bounded.images([index]), whole.images([index]))
            assert bounded._cache.size <= limit
        assert bounded._cache.size == limit // size * size
        with Batches(bounded, 6, workers=3) as one, Batches(whole, 6) as other:
            for _ in range(10):
                assert torch.equal(next(one).images, next(other).images)
        bounded.close()
        with pytest.raises(DatasetError, match="was all right when the data set was opened, and is not now"):
            bounded.images(range(20))


def test_files_that_change(tmp_path: Path):
    folder = write(tmp_path, numbered(2, side=32))
    dataset = open_dataset(folder, resolution=SIDE, max_side=32, cache_bytes=0)
    (folder / dataset.names[0]).write_bytes(encoded(colours(0)))
    with pytest.raises(DatasetError, match="another picture than when the data set was opened"):
        dataset.images([0])
    (folder / dataset.names[0]).unlink()
    with Batches(dataset, 2) as batches, pytest.raises(DatasetError, match="is not now: cannot be read"):
        next(batches)


def test_a_random_choice_of_images(tmp_path: Path):
    files = numbered(20) | {f"bad{number}.png": b"" for number in range(5)}
    folder = write(tmp_path, files)
    chosen = [open_dataset(folder, resolution=SIDE, max_pictures=8, seed=seed, workers=2) for seed in (0, 0, 1)]
    assert [len(dataset) for dataset in chosen] == [8, 8, 8]
    assert chosen[0].names == chosen[1].names == sorted(chosen[0].names)
    assert chosen[0].names != chosen[2].names
    assert len(open_dataset(folder, resolution=SIDE, max_pictures=22)) == 20
    assert len(open_dataset(folder, resolution=SIDE, max_pictures=99)) == 20


def test_progress_and_interruption(tmp_path: Path):
    folder = write(tmp_path, numbered(100, side=8))
    seen: list[tuple[int, int]] = []
    open_dataset(folder, resolution=8, workers=3, progress=lambda *now: seen.append(now))
    assert seen == [(done, 100) for done in range(1, 101)]
    mine = threading.current_thread()

    def stop(done: int, total: int) -> None:
        assert threading.current_thread() is mine
        if done == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        open_dataset(folder, resolution=8, workers=3, progress=stop)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("creps-open")]


# --- Mirror, windows, images in memory


def test_mirror(tmp_path: Path):
    dataset = open_dataset(write(tmp_path, numbered(3, side=32)), resolution=SIDE, mirror=True, max_side=32)
    assert len(dataset) == 6
    plain, flipped = dataset.images(range(3)), dataset.images(range(3, 6))
    assert (flipped.int() - plain.flip(3).int()).abs().max() <= 1
    window = (0.1, 0.2, 0.7, 0.9)
    other = (1 - 0.7, 0.2, 1 - 0.1, 0.9)
    cut = dataset.images([4], windows=[window]).int() - dataset.images([1], windows=[other]).flip(3).int()
    assert cut.abs().max() <= 1
    exact = open_dataset(tmp_path, resolution=32, mirror=True)
    assert torch.equal(exact.images([5]), exact.images([2]).flip(3))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_windows(tmp_path: Path, channels: int):
    data = colours(5, 64, 64, 4)
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    stored = Image.fromarray(data).convert(mode)
    dataset = opened(tmp_path, encoded(stored), channels=channels, max_side=64)
    windows = [(0.0, 0.0, 1.0, 1.0), (0.11, 0.23, 0.57, 0.97), (0.9, 0.0, 1.0, 0.1), (0.25, 0.5, 0.5, 0.75)]
    found = dataset.images([0] * 4, windows=windows).permute(0, 2, 3, 1).numpy().astype(int)
    for window, ours in zip(windows, found, strict=True):
        pixels = tuple(64 * edge for edge in window)
        expected = stored.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=pixels)
        difference = np.abs(ours - np.asarray(expected).reshape(SIDE, SIDE, channels))
        # A window that is a whole number of pixels is copied; Pillow's alpha goes through a product even then.
        assert difference[..., :3].max() <= (1 if channels < 4 or window != windows[3] else 255)
    aligned = np.asarray(stored).reshape(64, 64, channels)[32:48, 16:32]
    assert np.array_equal(found[3], aligned)
    assert np.array_equal(array(dataset), found[0])
    for bad in ((0.5, 0, 0.5, 1), (0, 0, 1.1, 1), (-0.1, 0, 1, 1), (0, 1, 1, 0), (0, 0, float("nan"), 1)):
        with pytest.raises(ValueError, match="a window must be"):
            dataset.images([0], windows=[bad])
    with pytest.raises(ValueError, match="2 windows for 1 pictures"):
        dataset.images([0], windows=windows[:2])


def test_pictures_in_memory_are_as_those_in_files(tmp_path: Path):
    for channels in (1, 3, 4):
        images = [colours(seed, 40, 56, channels) for seed in range(3)]
        files = {f"{n}.png": encoded(image if channels > 1 else image[..., 0]) for n, image in enumerate(images)}
        folder = write(tmp_path / str(channels), files)
        batch = torch.from_numpy(np.stack(images)).float() / 255
        for options in ({}, {"crop": "resize"}, {"channels": 4, "mirror": True}, {"channels": 1, "max_side": 30}):
            ours = from_images(batch, resolution=SIDE, **options)  # type: ignore
            theirs = open_dataset(folder, resolution=SIDE, **options)  # type: ignore
            assert torch.equal(ours.images(range(len(ours))), theirs.images(range(len(theirs))))
            assert (ours.stored_side(0), ours.report.notes) == (theirs.stored_side(0), theirs.report.notes)


def test_bad_batches_of_pictures():
    for images in (torch.zeros(2, 8, 8), torch.zeros(1, 8, 8, 2), torch.zeros(1, 8, 8, 3, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="images must be floating point"):
            from_images(images, resolution=SIDE)
    with pytest.raises(DatasetError, match="no pictures"):
        from_images(torch.zeros(0, 8, 8, 3), resolution=SIDE)
    with pytest.raises(DatasetError, match="no usable picture in the batch: image 0: 9 x 4 pixels"):
        from_images(torch.zeros(2, 4, 9, 3), resolution=SIDE)
    wild = torch.tensor([float("nan"), -1.0, 2.0]).expand(1, 16, 16, 3)
    assert from_images(wild, resolution=SIDE).images([0])[0, :, 0, 0].tolist() == [0, 0, 255]


def test_being_out_of_descriptors_ends_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Else a half of the pictures is left out, and the archive made of the rest looks like a success."""
    from comfyui_creps.creps_core.data import sources

    for name in "ab":
        Image.new("RGB", (16, 16), (name == "a" and "red") or "blue").save(tmp_path / f"{name}.png")
    plain = sources.open_file

    def scarce(path):
        if path.name == "b.png":
            raise OSError(errno.EMFILE, "Too many open files")
        return plain(path)

    monkeypatch.setattr(sources, "open_file", scarce)
    with pytest.raises(DatasetError, match=r"^Allow more open files"):
        open_dataset(tmp_path, resolution=16)


def test_errors_about_datasets_are_short_and_printable(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("../" + "\x1b[2J" * 15_000 + ".png", b"x" * 50)
    with pytest.raises(DatasetError) as caught:
        open_dataset(tmp_path / "a.zip", resolution=16)
    assert len(str(caught.value)) <= 300
    assert str(caught.value).isprintable()


def test_transparency_gives_the_same_image_by_any_way_in(tmp_path: Path):
    """A file, a zip, an IMAGE with alpha, an IMAGE with a MASK: white, never the hidden colour."""
    pixels = np.full((16, 16, 4), (0, 255, 0, 0), np.uint8)
    pixels[4:12, 4:12] = (200, 10, 30, 255)
    pixels[4:12, 12:] = (9, 99, 199, 131)
    data = encoded(Image.fromarray(pixels))
    image = torch.from_numpy(pixels)[None] / 255
    ways = {
        "folder": open_dataset(write(tmp_path / "folder", {"a.png": data}), resolution=16),
        "zip": open_dataset(zipped(tmp_path / "a.zip", {"a.png": data}), resolution=16),
        "RGBA": from_images(image, resolution=16),
        "mask": from_images(with_mask(image[..., :3], 1 - image[..., 3]), resolution=16),
    }
    colour = torch.from_numpy(pixels).double().permute(2, 0, 1).numpy()
    expected = colour[:3] * (colour[3:] / 255) + 255 * (1 - colour[3:] / 255)
    for name, dataset in ways.items():
        assert np.abs(array(dataset, 0).transpose(2, 0, 1) - expected).max() <= 0.51, name
        assert np.array_equal(array(dataset, 0), array(ways["folder"], 0)), name
        assert "laid on white" in str(dataset.report), name


def test_masks_that_do_not_fit():
    image = torch.rand(2, 16, 16, 3)
    assert with_mask(image, torch.zeros(1, 64, 64)) is image  # Load Image: no alpha
    assert with_mask(image, torch.ones(16, 16))[..., 3].max() == 0
    with pytest.raises(ValueError, match="link the mask of these images"):
        with_mask(image, torch.ones(1, 8, 16))
    with pytest.raises(ValueError, match="link images as well"):
        with_mask(None, torch.ones(1, 8, 16))


def test_files_left_out_by_pattern_and_blank_pictures(tmp_path: Path):
    clear = encoded(Image.new("RGBA", (16, 16), (9, 9, 9, 0)))
    plain = encoded(Image.new("RGB", (16, 16), "red"))
    folder = write(tmp_path / "a", {"blank.png": clear, "wall.png": plain, "wall_nm.png": plain})
    dataset = open_dataset(folder, resolution=16, exclude=["*_nm*"])
    assert dataset.names == ["blank.png", "wall.png"]
    assert dataset.report.skipped == [("wall_nm.png", "excluded")]
    assert dataset.report.notes["nothing but white once laid on white: empty, or drawn in white"] == 1

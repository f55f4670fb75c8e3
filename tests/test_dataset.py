"""Data sets: what becomes of every kind of file, archives that do harm, labels, and the order of batches."""

from __future__ import annotations

import contextlib
import io
import json
import os
import struct
import threading
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_creps.creps_core.errors import DatasetError
from comfyui_creps.creps_core.training import decode, sources
from comfyui_creps.creps_core.training.dataset import Batches, Pictures, from_images, open_pictures
from PIL import Image, ImageCms, ImageFile

SIDE = 16
DAMAGED = "damaged in the archive"


def colours(seed: int, height: int = SIDE, width: int = SIDE, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def smooth(width: int, height: int) -> np.ndarray:
    """Red grows to the right and green downwards: survives resizing and JPEG."""
    out = np.zeros((height, width, 3), np.uint8)
    out[..., 0] = np.linspace(0, 255, width)
    out[..., 1] = np.linspace(0, 255, height)[:, None]
    return out


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, kind, **options)
    return file.getvalue()


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def zipped(path: Path, files: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def numbered(count: int, side: int = SIDE) -> dict[str, bytes]:
    return {f"{number // 4:05}/img{number:03}.png": encoded(colours(number, side, side)) for number in range(count)}


def array(pictures: Pictures, index: int = 0) -> np.ndarray:
    return pictures.pictures([index])[0].permute(1, 2, 0).numpy()


def opened(tmp_path: Path, data: bytes, name: str = "x.png", **options: object) -> Pictures:
    """The data set of one picture."""
    return open_pictures(write(tmp_path / "one", {name: data}), **{"resolution": SIDE, **options})  # type: ignore


def reason(tmp_path: Path, data: bytes, name: str = "x.png") -> str:
    """Why a picture beside a good one is skipped."""
    pictures = open_pictures(write(tmp_path, {"good.png": encoded(colours(0)), name: data}), resolution=SIDE)
    assert pictures.names == ["good.png"]
    ((skipped, why),) = pictures.report.skipped
    assert skipped == name
    return why


# --- Folders and archives


def test_a_folder_and_archives_of_it(tmp_path: Path):
    files = numbered(10)
    folder = open_pictures(write(tmp_path / "folder", files), resolution=SIDE, workers=3)
    assert (len(folder), folder.resolution, folder.channels, folder.c_dim) == (10, SIDE, 3, 0)
    assert (folder.report.used, folder.report.skipped, folder.report.notes) == (10, [], {})
    assert str(folder.report) == "10 pictures"
    assert folder.names == sorted(files)
    everything = folder.pictures(range(10))
    assert everything.shape == (10, 3, SIDE, SIDE)
    assert everything.dtype == torch.uint8
    for index in range(10):
        assert np.array_equal(array(folder, index), colours(index))
    assert folder.labels([3, 4]).shape == (2, 0)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        reverse = dict(reversed(files.items()))
        archive = open_pictures(zipped(tmp_path / f"{method}.zip", reverse, method), resolution=SIDE, workers=2)
        assert archive.names == folder.names
        assert torch.equal(archive.pictures(range(10)), everything)
    with pytest.raises(IndexError, match="no picture 10"):
        folder.pictures([10])
    with pytest.raises(IndexError, match="no picture -1"):
        folder.labels([-1])


def test_what_is_no_picture_is_passed_over(tmp_path: Path):
    others = dict.fromkeys(("a.txt", "b.json", "Thumbs.db", ".hidden.png", "README", "sub/inner.zip"), b"text")
    others |= {"__MACOSX/._x.png": b"?", ".git/x.png": b"?", "sub/notes.PDF": b"%PDF"}
    files = {"NAMELESS": encoded(colours(1)), "b.PNG": encoded(colours(2))}
    for source in (write(tmp_path / "f", files | others), zipped(tmp_path / "f.zip", files | others)):
        pictures = open_pictures(source, resolution=SIDE)
        assert pictures.names == ["NAMELESS", "b.PNG"]
        assert pictures.report.skipped == []


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
    pictures = open_pictures(folder, resolution=SIDE)
    assert pictures.names == ["a.png", "deep/b.png", "to_file.png"]
    assert pictures.report.skipped == [("nowhere.png", "not a file, or a link that leads nowhere")]
    with zipfile.ZipFile(tmp_path / "l.zip", "w") as archive:
        archive.writestr("a.png", encoded(colours(0)))
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/hostname")
    assert open_pictures(tmp_path / "l.zip", resolution=SIDE).report.skipped == [("link.png", "a symbolic link")]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the administrator may read everything")
def test_unreadable_files(tmp_path: Path):
    folder = write(tmp_path, {"a.png": encoded(colours(0)), "b.png": b"", "locked/c.png": b""})
    (folder / "b.png").chmod(0)
    (folder / "locked").chmod(0)
    try:
        report = open_pictures(folder, resolution=SIDE).report
    finally:
        (folder / "locked").chmod(0o700)
    assert report.skipped == [(name, "cannot be read (Permission denied)") for name in ("b.png", "locked/")]


def test_no_pictures(tmp_path: Path):
    def fails(source: Path, match: str, **options: object) -> None:
        with pytest.raises(DatasetError, match=match):
            open_pictures(source, **{"resolution": SIDE, **options})  # type: ignore

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
            open_pictures(tmp_path, **{"resolution": SIDE, **options})  # type: ignore


# --- What becomes of each kind of picture


def test_broken_pictures(tmp_path: Path):
    whole = encoded(colours(0, 64, 64))
    jpeg = encoded(colours(0, 64, 64), "JPEG")
    assert reason(tmp_path / "0", b"") == "empty file"
    assert reason(tmp_path / "1", b"<html>not found</html>") == "not a picture that can be read, or cut off"
    assert reason(tmp_path / "2", whole[: len(whole) // 2]).startswith("broken or cut off")
    assert reason(tmp_path / "3", jpeg[: len(jpeg) // 2], "x.jpg").startswith("broken or cut off")
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    assert reason(tmp_path / "4", bytes(flipped)).startswith("broken or cut off")
    # PostScript would be run by another program.
    postscript = encoded(colours(0), "EPS")
    assert reason(tmp_path / "5", postscript) == "not a picture that can be read, or cut off"
    assert open_pictures(write(tmp_path / "0", {"x.eps": postscript, "x.png": whole}), resolution=SIDE).report.used == 2


@pytest.mark.parametrize(("kind", "name"), [("PNG", "x.png"), ("JPEG", "x.jpg"), ("GIF", "x.gif"), ("BMP", "x.bmp")])
def test_the_host_fills_in_cut_off_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encoded(colours(0, 64, 64), kind)
    assert opened(tmp_path, data, name).report.used == 1
    assert reason(tmp_path / "cut", data[: len(data) // 2], name).startswith("broken or cut off")
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_small_and_large_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert reason(tmp_path, encoded(colours(0, 7, 40))) == "40 x 7 pixels; the shorter side must have at least 8"
    small = opened(tmp_path, encoded(smooth(8, 8)), resolution=32)
    assert small.report.notes == {"smaller than 32 pixels, enlarged": 1}
    assert small.side(0) == 32
    monkeypatch.setattr(decode, "MAX_PIXELS", 1000)
    assert reason(tmp_path / "large", encoded(colours(0, 40, 40))) == "40 x 40 pixels, more than 1000"
    # A header that promises more than Pillow opens; the limit of the host is left as it is.
    huge = bytearray(encoded(colours(0)))
    huge[16:24] = struct.pack(">II", 60000, 60000)
    huge[29:33] = struct.pack(">I", zlib.crc32(huge[12:29]))
    limit = Image.MAX_IMAGE_PIXELS
    assert reason(tmp_path / "huge", bytes(huge)).startswith("too many pixels")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert reason(tmp_path / "huge", bytes(huge)).startswith("60000 x 60000 pixels, more than")
    assert limit


@pytest.mark.parametrize("filled_in", [False, True])
def test_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filled_in: bool):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", filled_in)
    Image.init()
    picture = smooth(32, 32)
    files = {}
    for name in ("png", "jpg", "gif", "bmp", "tif", "webp", "jp2", "ppm", "tga", "ico", "pcx", "sgi", "dds", "avif"):
        kind = Image.registered_extensions().get(f".{name}")
        if kind in Image.SAVE:
            options = {"sizes": [(32, 32)]} if name == "ico" else {}
            files[f"x.{name}"] = encoded(picture, kind, **options)
    pictures = open_pictures(write(tmp_path, files), resolution=32)
    assert pictures.report.skipped == []
    assert len(pictures.names) == len(files) > 9
    for index, name in enumerate(pictures.names):
        assert np.abs(array(pictures, index).astype(int) - picture).max() < 40, name


def test_a_large_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sources._Folder.read, "__defaults__", (1000,))
    assert reason(tmp_path, encoded(colours(0, 64, 64))) == "larger than 1000 bytes"


def test_crops(tmp_path: Path):
    wide = smooth(64, 32)
    center = opened(tmp_path, encoded(wide), max_side=100)
    assert center.side(0) == 32
    stored = Image.fromarray(wide[:, 16:48])
    expected = np.asarray(stored.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    assert np.array_equal(array(center), expected)
    assert np.array_equal(array(opened(tmp_path, encoded(wide))), expected)
    stretched = opened(tmp_path, encoded(wide), crop="resize")
    expected = np.asarray(Image.fromarray(wide).resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    assert np.array_equal(array(stretched), expected)
    assert opened(tmp_path, encoded(wide), max_side=24).side(0) == 24


def test_grey_and_colour(tmp_path: Path):
    grey = colours(0)[..., 0]
    as_colour = opened(tmp_path, encoded(grey))
    assert as_colour.report.notes == {"grey, shown as colour": 1}
    assert np.array_equal(array(as_colour), np.repeat(grey[..., None], 3, 2))
    as_grey = opened(tmp_path, encoded(grey), channels=1)
    assert as_grey.report.notes == {}
    assert np.array_equal(array(as_grey)[..., 0], grey)
    colour = opened(tmp_path, encoded(colours(1)), channels=1)
    assert colour.report.notes == {"colour, shown as grey": 1}
    assert np.array_equal(array(colour)[..., 0], np.asarray(Image.fromarray(colours(1)).convert("L")))
    bits = encoded(Image.fromarray(grey).convert("1"))
    assert set(np.unique(array(opened(tmp_path, bits)))) == {0, 255}
    palette = Image.fromarray(smooth(SIDE, SIDE)).quantize(16)
    assert np.array_equal(array(opened(tmp_path, encoded(palette))), np.asarray(palette.convert("RGB")))


def test_transparency(tmp_path: Path):
    clear = colours(0, channels=4)
    clear[:8, :, 3], clear[8:, :, 3] = 0, 255
    half = colours(0, channels=4)
    half[..., 3] = 128
    on_white = clear[..., :3].copy()
    on_white[:8] = 255
    laid = {"transparent, laid on white": 1}
    for kind, name in (("PNG", "x.png"), ("TIFF", "y.tif")):
        pictures = opened(tmp_path / kind, encoded(clear, kind), name)
        assert pictures.report.notes == laid
        assert np.array_equal(array(pictures), on_white)
    blended = array(opened(tmp_path, encoded(half))).astype(float)
    assert np.abs(blended - (half[..., :3] * (128 / 255) + 127)).max() <= 1
    kept = opened(tmp_path, encoded(clear), channels=4)
    assert kept.report.notes == {}
    assert np.array_equal(array(kept), clear)
    assert (array(opened(tmp_path, encoded(colours(0)), channels=4))[..., 3] == 255).all()
    opaque = clear.copy()
    opaque[..., 3] = 255
    assert opened(tmp_path, encoded(opaque)).report.notes == {}
    grey = Image.fromarray(clear).convert("LA")
    pictures = opened(tmp_path, encoded(grey), channels=1)
    assert pictures.report.notes == laid
    assert (array(pictures)[:8] == 255).all()
    assert np.array_equal(array(pictures)[8:, :, 0], np.asarray(grey)[8:, :, 0])
    # One colour of a palette, and one colour of a picture without, stand for "clear".
    palette = Image.new("P", (SIDE, SIDE), 0)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.paste(1, (0, 0, 8, SIDE))
    pictures = opened(tmp_path, encoded(palette, transparency=0))
    assert pictures.report.notes == laid
    assert [array(pictures)[0, column].tolist() for column in (0, 8)] == [[200, 100, 50], [255, 255, 255]]
    plain = Image.new("RGB", (SIDE, SIDE), (1, 2, 3))
    assert (array(opened(tmp_path, encoded(plain, transparency=(1, 2, 3)))) == 255).all()


def test_deep_pictures(tmp_path: Path):
    values = np.linspace(0, 65535, SIDE * SIDE).reshape(SIDE, SIDE)
    deep = values.astype(np.uint16)
    for kind, name in (("PNG", "a.png"), ("TIFF", "b.tif")):
        pictures = opened(tmp_path / kind, encoded(deep, kind), name, channels=1)
        assert np.array_equal(array(pictures)[..., 0], np.rint(deep / 257).astype(np.uint8))
    big_endian = Image.frombytes("I;16B", (SIDE, SIDE), deep.astype(">u2").tobytes())
    assert np.array_equal(np.asarray(decode._eight_bits(big_endian)), np.rint(deep / 257).astype(np.uint8))
    whole = Image.fromarray(values.astype(np.int32))
    pictures = opened(tmp_path / "int", encoded(whole, "TIFF"), "c.tif", channels=1)
    assert np.array_equal(array(pictures)[..., 0], np.rint(deep / 257).astype(np.uint8))
    assert opened(tmp_path / "int", encoded(whole, "TIFF"), "c.tif").report.notes == {"grey, shown as colour": 1}
    unit = (values / 65535).astype(np.float32)
    pictures = opened(tmp_path / "float", encoded(unit, "TIFF"), "d.tif", channels=1)
    assert np.array_equal(array(pictures)[..., 0], np.rint(unit * 255).astype(np.uint8))
    for bad, why in (
        (unit * 300, "floating-point values from 0 to 300; only 0 to 1 is read"),
        (unit * np.float32(np.nan), "floating-point values from nan to nan; only 0 to 1 is read"),
        (values.astype(np.int32) * 2, "whole numbers from 0 to 131070; of more than 8 bits, only 0 to 65535 is read"),
    ):
        assert reason(tmp_path / why[:30], encoded(bad, "TIFF"), "e.tif") == why


def test_cmyk(tmp_path: Path):
    pictures = opened(tmp_path, encoded(Image.new("CMYK", (SIDE, SIDE), (0, 255, 255, 0)), "TIFF"), "x.tif")
    assert pictures.report.notes == {"CMYK, converted to RGB": 1}
    assert array(pictures)[0, 0].tolist() == [255, 0, 0]
    jpeg = encoded(Image.new("CMYK", (SIDE, SIDE), (0, 255, 255, 0)), "JPEG")
    assert np.abs(array(opened(tmp_path / "jpeg", jpeg, "x.jpg")) - np.array([255.0, 0, 0])).max() < 8


def test_animations(tmp_path: Path):
    frames = [Image.fromarray(colours(seed)).quantize(64).convert("RGB") for seed in range(3)]
    for kind in ("GIF", "WEBP", "PNG"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
        pictures = opened(tmp_path / kind, data, f"x.{kind.lower()}")
        assert pictures.report.notes == {"animated, first frame": 1}
        assert np.array_equal(array(pictures), np.asarray(frames[0]))
    pages = encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    pictures = opened(tmp_path / "tiff", pages, "x.tif")
    assert pictures.report.notes == {"several pages, first page": 1}
    assert np.array_equal(array(pictures), np.asarray(frames[0]))


@pytest.mark.parametrize(("kind", "name"), [("PNG", "x.png"), ("TIFF", "x.tif"), ("JPEG", "x.jpg")])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path: Path, kind: str, name: str, orientation: int):
    stored = smooth(48, 32)
    exif = Image.Exif()
    exif[0x0112] = orientation
    pictures = opened(tmp_path, encoded(stored, kind, exif=exif), name, crop="resize")
    # As the standard words it: where the first row and the first column of the file are to be seen.
    turned = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.swapaxes(0, 1),
        6: stored.swapaxes(0, 1)[:, ::-1],
        7: stored.swapaxes(0, 1)[::-1, ::-1],
        8: stored.swapaxes(0, 1)[::-1],
    }[orientation]
    expected = Image.fromarray(np.ascontiguousarray(turned)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    assert np.abs(array(pictures).astype(int) - np.asarray(expected)).max() < (12 if kind == "JPEG" else 2)
    assert pictures.report.notes == ({} if orientation == 1 else {"turned by EXIF": 1})


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_is_ignored(tmp_path: Path):
    pictures = opened(tmp_path, encoded(colours(0), exif=b"Exif\0\0II*\0" + b"\xff" * 9))
    assert pictures.report.notes == {}
    assert np.array_equal(array(pictures), colours(0))


def test_large_jpegs_are_decoded_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sizes = []
    plain = Image.Image.crop
    monkeypatch.setattr(Image.Image, "crop", lambda self, box: sizes.append(self.size) or plain(self, box))
    data = encoded(smooth(500, 300), "JPEG", quality=95)
    pictures = opened(tmp_path, data, "x.jpg")
    assert sizes == [(63, 38)]  # an eighth, more than twice the side
    whole = Image.open(io.BytesIO(data)).convert("RGB")
    middle = plain(whole, (100, 0, 400, 300)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    assert np.abs(array(pictures).astype(int) - np.asarray(middle)).max() < 6
    assert opened(tmp_path, data, "x.jpg", max_side=300).side(0) == 300
    assert sizes[1:] == [(500, 300)]


def gamma_profile(gamma: float = 1.0) -> bytes:
    """sRGB's colours on another curve: every curve of Pillow's own profile replaced."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for number in range(struct.unpack(">I", data[128:132])[0]):
        tag, offset, _ = struct.unpack(">4sII", data[132 + 12 * number : 144 + 12 * number])
        if tag.endswith(b"TRC"):
            data[offset : offset + 16] = b"curv" + struct.pack(">IIHH", 0, 1, round(gamma * 256), 0)
        elif tag == b"desc":
            text = bytes(data).find("sRGB".encode("utf-16-be"), offset)
            data[text : text + 8] = "mine".encode("utf-16-be")
    return bytes(data)


def test_colour_profiles(tmp_path: Path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    same = opened(tmp_path, encoded(colours(0), icc_profile=srgb))
    assert same.report.notes == {}
    assert np.array_equal(array(same), colours(0))
    linear = opened(tmp_path, encoded(np.full((SIDE, SIDE, 3), 55, np.uint8), icc_profile=gamma_profile()))
    assert linear.report.notes == {"colours converted to sRGB by the profile": 1}
    assert np.abs(array(linear).astype(int) - 128).max() <= 2  # linear 0.216 is 0.5 in sRGB
    clear = colours(0, channels=4)
    kept = array(opened(tmp_path, encoded(clear, icc_profile=gamma_profile()), channels=4))
    assert np.array_equal(kept[..., 3], clear[..., 3])
    grey = opened(tmp_path, encoded(np.full((SIDE, SIDE), 55, np.uint8), icc_profile=gamma_profile()), channels=1)
    assert np.abs(array(grey).astype(int) - 128).max() <= 2
    for profile, image in ((b"nonsense", colours(0)), (srgb, Image.new("CMYK", (SIDE, SIDE), (0, 255, 255, 0)))):
        data = encoded(image, "TIFF", icc_profile=profile)
        notes = opened(tmp_path / "tiff", data, "x.tif").report.notes
        assert notes["colour profile ignored: damaged, or of another kind of picture"] == 1


def test_report(tmp_path: Path):
    files = {f"{number:02}.png": b"" for number in range(12)}
    files |= {"a.png": encoded(colours(0)[..., 0]), "b.png": encoded(colours(1)[..., 0]), "c\x1b[2J.png": b""}
    lines = str(open_pictures(zipped(tmp_path / "x.zip", files), resolution=SIDE).report).splitlines()
    assert lines[:4] == ["2 pictures", "  2 grey, shown as colour", "13 skipped", "  00.png: empty file"]
    assert lines[-1] == "  and 3 more"
    names = [name for name, _ in open_pictures(tmp_path / "x.zip", resolution=SIDE).report.skipped]
    assert names[-1] == "c?[2J.png"


# --- Archives that do harm


@pytest.mark.parametrize("name", ["../x.png", "a/../../x.png", "/x.png", "C:/x.png", "a\\..\\x.png", "\\x.png", "../x"])
def test_archives_that_lead_out(tmp_path: Path, name: str):
    archive = zipped(tmp_path / "x.zip", {"good.png": encoded(colours(0)), name: encoded(colours(1))})
    with pytest.raises(DatasetError, match="leads out of the archive"):
        open_pictures(archive, resolution=SIDE)
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]


def patched(path: Path, name: str, offset: int, value: bytes, table_only: bool = False) -> Path:
    """An archive with other bytes in the headers of an entry; the offset is that within the local header."""
    data = bytearray(path.read_bytes())
    if not table_only:
        start = data.index(b"PK\x03\x04" + data[4:26]) if name is None else data.index(name.encode()) - 30
        data[start + offset : start + offset + len(value)] = value
    start = data.rindex(name.encode()) - 46
    data[start + offset + 2 : start + offset + 2 + len(value)] = value
    path.write_bytes(data)
    return path


FLAGS, METHOD, CHECKSUM, PACKED, SIZE = 6, 8, 14, 18, 22


def test_encrypted_archives(tmp_path: Path):
    archive = patched(zipped(tmp_path / "x.zip", {"x.png": encoded(colours(0))}), "x.png", FLAGS, b"\1")
    with pytest.raises(DatasetError, match=r"x.png is encrypted; pack the pictures without a password"):
        open_pictures(archive, resolution=SIDE)


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fails(archive: Path, match: str) -> None:
        with pytest.raises(DatasetError, match=match):
            open_pictures(archive, resolution=SIDE)

    zeros = {"zeros.bmp": bytes(1 << 21)}
    fails(zipped(tmp_path / "ratio.zip", zeros, zipfile.ZIP_DEFLATED), "unpacks from .* more than 200 times as many")
    plain = {"x.png": encoded(colours(0))}
    large = patched(zipped(tmp_path / "large.zip", plain), "x.png", SIZE, struct.pack("<I", 1 << 30))
    fails(large, "x.png has 1073741824 bytes, at most")
    monkeypatch.setattr(sources, "_MAX_ENTRIES", 3)
    fails(zipped(tmp_path / "many.zip", numbered(4)), "4 entries, at most 3")
    monkeypatch.undo()
    monkeypatch.setattr(sources, "_MAX_TOTAL", 1000)
    fails(zipped(tmp_path / "many.zip", numbered(4)), "unpacks to .* bytes, at most 1000")
    monkeypatch.undo()
    # Many names for the same bytes.
    path = zipped(tmp_path / "same.zip", {"x1.png": encoded(colours(0)), "x2.png": encoded(colours(0))})
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"x2.png") - 46
    data[entry + 42 : entry + 46] = bytes(4)
    path.write_bytes(data)
    fails(path, "the entries 'x1.png' and 'x2.png' overlap")


def test_a_lying_header_does_not_explode(tmp_path: Path):
    """The entry says 5000 bytes and unpacks to 20 million; what is unpacked is bounded by what is said."""
    good = {"good.png": encoded(colours(0))}
    huge = zipped(tmp_path / "x.zip", good | {"x.bmp": bytes(20_000_000)}, zipfile.ZIP_DEFLATED)
    patched(huge, "x.bmp", SIZE, struct.pack("<I", 5000))
    produced = []

    class Counting:
        def __init__(self, wbits: int):
            self.inner = zlib.decompressobj(wbits)

        def decompress(self, data: bytes, limit: int) -> bytes:
            produced.append(self.inner.decompress(data, limit))
            return produced[-1]

    fake = type("Zlib", (), {"decompressobj": Counting, "MAX_WBITS": zlib.MAX_WBITS, "error": zlib.error})
    fake.crc32 = staticmethod(zlib.crc32)  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "zlib", fake)
        report = open_pictures(huge, resolution=SIDE, workers=1).report
    assert report.skipped == [("x.bmp", f"{DAMAGED} (its length is not the one stated)")]
    assert max(len(part) for part in produced) <= 5001


def test_damaged_entries_are_skipped(tmp_path: Path):
    def skipped(method: int, offset: int | None, value: bytes, where: str = "x.png") -> str:
        path = zipped(tmp_path / "x.zip", {"good.png": encoded(colours(0)), "x.png": encoded(colours(1))}, method)
        if offset is None:
            data = bytearray(path.read_bytes())
            data[data.index(b"x.png") - 30] = 0
            path.write_bytes(data)
        else:
            patched(path, where, offset, value)
        pictures = open_pictures(path, resolution=SIDE)
        assert pictures.names == ["good.png"]
        assert pictures.report.skipped[0][0] == where
        return pictures.report.skipped[0][1]

    stored, deflated = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
    assert skipped(stored, CHECKSUM, b"\0\0\0\0") == f"{DAMAGED} (its checksum is wrong)"
    assert skipped(stored, SIZE, b"\1\0\0\0") == f"{DAMAGED} (its length is not the one stated)"
    assert skipped(deflated, SIZE, b"\0\1\1\0") == f"{DAMAGED} (its length is not the one stated)"
    assert skipped(stored, PACKED, struct.pack("<I", 1 << 20)) == "cut off in the archive"
    assert skipped(stored, METHOD, b"\x0c\0").startswith("packed by method 12; only")
    assert skipped(stored, METHOD, b"\x08\0").startswith(DAMAGED)
    assert skipped(stored, None, b"") == f"{DAMAGED} (its header is missing)"
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        archive.writestr("x.png", encoded(colours(0)))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("x.png", encoded(colours(1)))
    labels = json.dumps({"labels": [["good.png", 0], ["x.png", 1]]}).encode()
    files = {"good.png": encoded(colours(0)), "x.png": encoded(colours(1)), "dataset.json": labels}
    path = patched(zipped(tmp_path / "labels.zip", files), "x.png", METHOD, b"\x0c\0")
    assert open_pictures(path, resolution=SIDE, use_labels=True).c_dim == 2
    pictures = open_pictures(tmp_path / "twice.zip", resolution=SIDE)
    assert pictures.report.skipped == [("x.png", "another entry has the same name")]
    assert np.array_equal(array(pictures), colours(0))


# --- Labels


def labelled(tmp_path: Path, labels: object, **options: object) -> Pictures:
    files = numbered(5) | {"dataset.json": json.dumps(labels).encode()}
    return open_pictures(write(tmp_path, files), resolution=SIDE, use_labels=True, **options)  # type: ignore


def test_classes(tmp_path: Path):
    names = list(numbered(5))
    entries = [[names[0], 2], [names[1].replace("/", "\\"), 0], [names[3], 4], [names[4], None]]
    write(tmp_path, {"README": b"hello"})
    pictures = labelled(tmp_path, {"labels": entries}, mirror=True)
    assert pictures.c_dim == 5
    assert pictures.names == [names[0], names[1], names[3]]
    assert pictures.report.skipped == [(names[2], "no label"), (names[4], "no label")]
    labels = pictures.labels([0, 1, 2, 3])
    assert labels.dtype == torch.float32
    assert labels.argmax(1).tolist() == [2, 0, 4, 2]
    assert labels.sum(1).tolist() == [1, 1, 1, 1]
    with Batches(pictures, 7) as batches:
        batch = next(batches)
        indices = [int(batches._order(0)[k]) for k in range(6)]
        assert torch.equal(batch.labels[:6], pictures.labels(indices))
        drawn = batches.random_labels(3, 200)
        assert drawn.shape == (200, 5)
        assert set(drawn.argmax(1).tolist()) == {0, 2, 4}
        assert torch.equal(drawn, batches.random_labels(3, 200))
        assert not torch.equal(drawn, batches.random_labels(4, 200))
        assert batches.random_labels(np.random.default_rng(0), 2).shape == (2, 5)
    assert open_pictures(tmp_path, resolution=SIDE).c_dim == 0
    # A picture with a label may turn out to be none.
    write(tmp_path, {names[3]: b""})
    fewer = open_pictures(tmp_path, resolution=SIDE, use_labels=True)
    assert (fewer.names, fewer.c_dim) == ([names[0], names[1]], 5)
    assert (names[3], "empty file") in fewer.report.skipped


def test_vectors(tmp_path: Path):
    names = list(numbered(5))
    pictures = labelled(tmp_path, {"labels": [[name, [number, -0.5]] for number, name in enumerate(names)]})
    assert pictures.c_dim == 2
    assert pictures.labels([4, 0]).tolist() == [[4, -0.5], [0, -0.5]]


def test_labels_in_the_one_folder_of_an_archive(tmp_path: Path):
    content = json.dumps({"labels": [["a.png", 0], ["b.png", 1]]}).encode()
    files = {"mine/dataset.json": content, "mine/a.png": encoded(colours(0)), "mine/b.png": encoded(colours(1))}
    pictures = open_pictures(zipped(tmp_path / "x.zip", files), resolution=SIDE, use_labels=True)
    assert pictures.labels([0, 1]).tolist() == [[1, 0], [0, 1]]


def test_labels_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(DatasetError, match=r"there is no dataset.json; put one beside the pictures: \{\"labels\""):
        open_pictures(write(tmp_path, numbered(5)), resolution=SIDE, use_labels=True)
    one, two = list(numbered(5))[:2]
    for content, match in (
        ({}, "has no labels; it should be"),
        ([], "has no labels; it should be"),
        ({"labels": None}, "has no labels; it should be"),
        ({"labels": []}, "has no labels; give one"),
        ({"labels": {"a": 1}}, "not a list"),
        ({"labels": [[one]]}, "is not a name with a label"),
        ({"labels": [[1, one]]}, "is not a name with a label"),
        ({"labels": [[one, 1], [one, 2]]}, "two labels for"),
        ({"labels": [["other.png", 1]]}, 'a label for "other.png", but there is no such picture'),
        ({"labels": [[one, -1]]}, "must be a class number from 0 to 65535"),
        ({"labels": [[one, 1 << 16]]}, "must be a class number from 0 to 65535"),
        ({"labels": [[one, True]]}, "must be a class number"),
        ({"labels": [[one, 1.0]]}, "must be a class number"),
        ({"labels": [[one, "cat"]]}, "must be a class number"),
        ({"labels": [[one, 1], [two, [1]]]}, "mixed"),
        ({"labels": [[one, [1, 2]], [two, [1]]]}, "has 1 numbers, not 2"),
        ({"labels": [[one, []]]}, "has 0 numbers, not 1 to 65536"),
        ({"labels": [[one, [float("nan")]]]}, "not finite"),
        ({"labels": [[one, [1e39]]]}, "not finite"),
        ({"labels": [[one, [True]]]}, "not finite numbers"),
        ({"labels": [[one, [10**400]]]}, "not finite"),
    ):
        with pytest.raises(DatasetError, match=match):
            labelled(tmp_path, content)
    for data in (b"{", b"\xff\xfe\xfd", b"[" * 200_000, b'{"labels": [["x", ' + b"9" * 10_000 + b"]]}"):
        write(tmp_path, {"dataset.json": data})
        with pytest.raises(DatasetError, match="cannot be read"):
            open_pictures(tmp_path, resolution=SIDE, use_labels=True)
    monkeypatch.setattr("comfyui_creps.creps_core.training.dataset._MAX_LABELS_FILE", 10)
    with pytest.raises(DatasetError, match="larger than 10 bytes"):
        labelled(tmp_path, {"labels": [[one, 1]]})
    assert open_pictures(tmp_path, resolution=SIDE).report.used == 5


# --- Memory, choice, progress


def test_memory_is_bounded(tmp_path: Path):
    files = numbered(20)
    size = SIDE * SIDE * 3
    whole = open_pictures(zipped(tmp_path / "x.zip", files), resolution=SIDE)
    assert whole._cache.bytes == 20 * size
    assert whole._source is None  # the archive is closed
    for limit in (0, 5 * size + 1):
        bounded = open_pictures(tmp_path / "x.zip", resolution=SIDE, cache_bytes=limit)
        order = [*range(20), 3, 3, *range(19, -1, -1)]
        for index in order:
            assert torch.equal(bounded.pictures([index]), whole.pictures([index]))
            assert bounded._cache.bytes <= limit
        assert bounded._cache.bytes == limit // size * size
        with Batches(bounded, 6, workers=3) as one, Batches(whole, 6) as other:
            for _ in range(10):
                assert torch.equal(next(one).pictures, next(other).pictures)
        bounded.close()
        with pytest.raises(DatasetError, match="was all right when the data set was opened, and is not now"):
            bounded.pictures(range(20))


def test_files_that_change(tmp_path: Path):
    folder = write(tmp_path, numbered(2, side=32))
    pictures = open_pictures(folder, resolution=SIDE, max_side=32, cache_bytes=0)
    (folder / pictures.names[0]).write_bytes(encoded(colours(0)))
    with pytest.raises(DatasetError, match="another picture than when the data set was opened"):
        pictures.pictures([0])
    (folder / pictures.names[0]).unlink()
    with Batches(pictures, 2) as batches, pytest.raises(DatasetError, match="is not now: cannot be read"):
        next(batches)


def test_a_choice_of_pictures(tmp_path: Path):
    files = numbered(20) | {f"bad{number}.png": b"" for number in range(5)}
    folder = write(tmp_path, files)
    chosen = [open_pictures(folder, resolution=SIDE, max_pictures=8, seed=seed, workers=2) for seed in (0, 0, 1)]
    assert [len(pictures) for pictures in chosen] == [8, 8, 8]
    assert chosen[0].names == chosen[1].names == sorted(chosen[0].names)
    assert chosen[0].names != chosen[2].names
    assert len(open_pictures(folder, resolution=SIDE, max_pictures=22)) == 20
    assert len(open_pictures(folder, resolution=SIDE, max_pictures=99)) == 20


def test_progress_and_interruption(tmp_path: Path):
    folder = write(tmp_path, numbered(100, side=8))
    seen: list[tuple[int, int]] = []
    open_pictures(folder, resolution=8, workers=3, progress=lambda *now: seen.append(now))
    assert seen == [(done, 100) for done in range(1, 101)]
    mine = threading.current_thread()

    def stop(done: int, total: int) -> None:
        assert threading.current_thread() is mine
        if done == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        open_pictures(folder, resolution=8, workers=3, progress=stop)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("creps-open")]


# --- Mirror, boxes, pictures in memory


def test_mirror(tmp_path: Path):
    pictures = open_pictures(write(tmp_path, numbered(3, side=32)), resolution=SIDE, mirror=True, max_side=32)
    assert len(pictures) == 6
    plain, flipped = pictures.pictures(range(3)), pictures.pictures(range(3, 6))
    assert (flipped.int() - plain.flip(3).int()).abs().max() <= 1
    box = (0.1, 0.2, 0.7, 0.9)
    other = (1 - 0.7, 0.2, 1 - 0.1, 0.9)
    cut = pictures.pictures([4], boxes=[box]).int() - pictures.pictures([1], boxes=[other]).flip(3).int()
    assert cut.abs().max() <= 1
    exact = open_pictures(tmp_path, resolution=32, mirror=True)
    assert torch.equal(exact.pictures([5]), exact.pictures([2]).flip(3))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_boxes(tmp_path: Path, channels: int):
    data = colours(5, 64, 64, 4)
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    stored = Image.fromarray(data).convert(mode)
    pictures = opened(tmp_path, encoded(stored), channels=channels, max_side=64)
    boxes = [(0.0, 0.0, 1.0, 1.0), (0.11, 0.23, 0.57, 0.97), (0.9, 0.0, 1.0, 0.1), (0.25, 0.5, 0.5, 0.75)]
    found = pictures.pictures([0] * 4, boxes=boxes).permute(0, 2, 3, 1).numpy().astype(int)
    for box, ours in zip(boxes, found, strict=True):
        pixels = tuple(64 * edge for edge in box)
        expected = stored.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=pixels)
        difference = np.abs(ours - np.asarray(expected).reshape(SIDE, SIDE, channels))
        # A box that is a whole number of pixels is copied; Pillow's alpha goes through a product even then.
        assert difference[..., :3].max() <= (1 if channels < 4 or box != boxes[3] else 255)
    aligned = np.asarray(stored).reshape(64, 64, channels)[32:48, 16:32]
    assert np.array_equal(found[3], aligned)
    assert np.array_equal(array(pictures), found[0])
    for bad in ((0.5, 0, 0.5, 1), (0, 0, 1.1, 1), (-0.1, 0, 1, 1), (0, 1, 1, 0), (0, 0, float("nan"), 1)):
        with pytest.raises(ValueError, match="a box must be"):
            pictures.pictures([0], boxes=[bad])
    with pytest.raises(ValueError, match="2 boxes for 1 pictures"):
        pictures.pictures([0], boxes=boxes[:2])


def test_pictures_in_memory_are_as_those_in_files(tmp_path: Path):
    for channels in (1, 3, 4):
        images = [colours(seed, 40, 56, channels) for seed in range(3)]
        files = {f"{n}.png": encoded(image if channels > 1 else image[..., 0]) for n, image in enumerate(images)}
        folder = write(tmp_path / str(channels), files)
        batch = torch.from_numpy(np.stack(images)).float() / 255
        for options in ({}, {"crop": "resize"}, {"channels": 4, "mirror": True}, {"channels": 1, "max_side": 30}):
            ours = from_images(batch, resolution=SIDE, **options)  # type: ignore
            theirs = open_pictures(folder, resolution=SIDE, **options)  # type: ignore
            assert torch.equal(ours.pictures(range(len(ours))), theirs.pictures(range(len(theirs))))
            assert (ours.side(0), ours.report.notes) == (theirs.side(0), theirs.report.notes)


def test_bad_batches_of_pictures():
    for images in (torch.zeros(2, 8, 8), torch.zeros(1, 8, 8, 2), torch.zeros(1, 8, 8, 3, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="images must be floating point"):
            from_images(images, resolution=SIDE)
    with pytest.raises(DatasetError, match="no pictures"):
        from_images(torch.zeros(0, 8, 8, 3), resolution=SIDE)
    with pytest.raises(DatasetError, match="no usable picture in the batch: image 0: 9 x 4 pixels"):
        from_images(torch.zeros(2, 4, 9, 3), resolution=SIDE)
    wild = torch.tensor([float("nan"), -1.0, 2.0]).expand(1, 16, 16, 3)
    assert from_images(wild, resolution=SIDE).pictures([0])[0, :, 0, 0].tolist() == [0, 0, 255]


# --- Batches


def make(count: int = 7, mirror: bool = False) -> Pictures:
    """Pictures whose every value is their number."""
    values = torch.arange(count).view(-1, 1, 1, 1).expand(-1, 8, 8, 3) / 255
    return from_images(values, resolution=8, mirror=mirror)


def numbers(batches: Batches, count: int) -> list[int]:
    return [int(value) for _ in range(count) for value in next(batches).pictures[:, 0, 0, 0]]


def test_order():
    pictures = make()
    with Batches(pictures, 3, seed=5) as batches:
        seen = numbers(batches, 14)
    expected = [int(i) for epoch in range(6) for i in np.random.default_rng([5, epoch]).permutation(7)]
    assert seen == expected
    with Batches(pictures, 50, seed=5) as batches:  # several times the data set at once
        assert numbers(batches, 1)[:42] == expected
    with Batches(pictures, 3, seed=6) as batches:
        assert numbers(batches, 14) != expected
    with Batches(make(mirror=True), 14) as batches:
        assert sorted(numbers(batches, 1)) == sorted(2 * [*range(7)])


def test_a_run_goes_on_where_it_stopped():
    def box(rng: np.random.Generator, side: int) -> tuple[float, float, float, float]:
        assert side == 8
        left, top = rng.uniform(0, 0.5, 2)
        return left, top, left + 0.5, top + 0.5

    pictures = from_images(torch.rand(7, 8, 8, 3), resolution=8)
    with Batches(pictures, 4, seed=1, box=box) as batches:
        whole = [next(batches) for _ in range(12)]
    assert len({tuple(part.tolist()) for batch in whole for part in batch.boxes}) == 48
    for workers, prefetch, seen in ((1, 1, 0), (4, 9, 5), (3, 2, 11)):
        with Batches(pictures, 4, seed=1, box=box, start=4 * seen, workers=workers, prefetch=prefetch) as batches:
            for expected in whole[seen:]:
                batch = next(batches)
                assert torch.equal(batch.pictures, expected.pictures)
                assert torch.equal(batch.boxes, expected.boxes)
                assert batch.boxes.dtype == torch.float64
    # Other sizes of batches, such as after a change of the settings.
    with Batches(pictures, 8, seed=1, box=box, start=8) as batches:
        assert torch.equal(next(batches).pictures, torch.cat([whole[2].pictures, whole[3].pictures]))


def test_processes_share_one_order():
    pictures = make()
    with Batches(pictures, 6, start=12) as batches:
        alone = [next(batches) for _ in range(5)]
    with contextlib.ExitStack() as stack:
        ranks = [stack.enter_context(Batches(pictures, 2, start=12, rank=rank, world=3)) for rank in range(3)]
        for expected in alone:  # every third picture each
            together = torch.stack([next(batches).pictures for batches in ranks], 1).flatten(0, 1)
            assert torch.equal(together, expected.pictures)


def test_without_boxes_all_is_shown():
    with Batches(make(), 2) as batches:
        batch = next(iter(batches))
        assert batch.boxes.tolist() == [[0, 0, 1, 1]] * 2
        assert batch.labels.shape == (2, 0)
        assert batches.random_labels(0, 5).shape == (5, 0)


def test_errors_of_threads_surface():
    fail = threading.Event()

    def box(rng: np.random.Generator, side: int) -> tuple[float, float, float, float]:
        if fail.is_set():
            raise RuntimeError("out of order")
        return 0, 0, 1, 1

    pictures = make()
    with Batches(pictures, 3) as batches:
        expected = numbers(batches, 8)
    with Batches(pictures, 3, box=box) as batches:
        seen = numbers(batches, 2)
        fail.set()

        def go_on() -> None:  # what was prepared before comes first
            for _ in range(6):
                seen.extend(numbers(batches, 1))

        with pytest.raises(RuntimeError, match="out of order"):
            go_on()
        fail.clear()
        seen += numbers(batches, 8 - len(seen) // 3)
    assert seen == expected
    with pytest.raises(ValueError, match="closed"):
        next(batches)
    with (
        Batches(pictures, 3, box=lambda rng, side: (0.0, 0.0, 2.0, 1.0)) as batches,
        pytest.raises(ValueError, match="a box must"),
    ):
        next(batches)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("creps-batch")]


def test_arguments_of_batches():
    pictures = make()
    for options, match in (
        ({"batch": 0}, "batch must be 1"),
        ({"seed": -1}, "seed must be 0"),
        ({"start": -1}, "start must be 0"),
        ({"rank": 2, "world": 2}, "rank must be from 0 to world - 1, not 2 of 2"),
        ({"workers": 0}, "workers and prefetch"),
        ({"prefetch": 0}, "workers and prefetch"),
    ):
        with pytest.raises(ValueError, match=match):
            Batches(pictures, **{"batch": 2, **options})  # type: ignore

"""Decoding of every kind of image."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from comfyui_creps.creps_core.data import decode, open_dataset, sources
from comfyui_creps.creps_core.data.bit_depth import to_8_bit
from picture_files import SIDE, array, colours, encoded, opened, reason, smooth, write, zipped
from PIL import Image, ImageCms, ImageFile


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
    assert open_dataset(write(tmp_path / "0", {"x.eps": postscript, "x.png": whole}), resolution=SIDE).report.used == 2


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
    assert small.stored_side(0) == 32
    monkeypatch.setattr(decode, "MAX_PIXELS", 1000)
    assert reason(tmp_path / "large", encoded(colours(0, 40, 40))) == "40 x 40 pixels, more than 1000"
    # A header that states more than Pillow opens; the host's limit is not changed.
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
    dataset = open_dataset(write(tmp_path, files), resolution=32)
    assert dataset.report.skipped == []
    assert len(dataset.names) == len(files) > 9
    for index, name in enumerate(dataset.names):
        assert np.abs(array(dataset, index).astype(int) - picture).max() < 40, name


def test_a_large_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sources._Folder.read, "__defaults__", (1000,))
    assert reason(tmp_path, encoded(colours(0, 64, 64))) == "larger than 1000 bytes"


def test_crops(tmp_path: Path):
    wide = smooth(64, 32)
    center = opened(tmp_path, encoded(wide), max_side=100)
    assert center.stored_side(0) == 32
    stored = Image.fromarray(wide[:, 16:48])
    expected = np.asarray(stored.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    assert np.array_equal(array(center), expected)
    assert np.array_equal(array(opened(tmp_path, encoded(wide))), expected)
    stretched = opened(tmp_path, encoded(wide), crop="resize")
    expected = np.asarray(Image.fromarray(wide).resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    assert np.array_equal(array(stretched), expected)
    assert opened(tmp_path, encoded(wide), max_side=24).stored_side(0) == 24


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
        dataset = opened(tmp_path / kind, encoded(clear, kind), name)
        assert dataset.report.notes == laid
        assert np.array_equal(array(dataset), on_white)
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
    dataset = opened(tmp_path, encoded(grey), channels=1)
    assert dataset.report.notes == laid
    assert (array(dataset)[:8] == 255).all()
    assert np.array_equal(array(dataset)[8:, :, 0], np.asarray(grey)[8:, :, 0])
    # A palette entry, or a colour of an image without palette, can mean "transparent".
    palette = Image.new("P", (SIDE, SIDE), 0)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.paste(1, (0, 0, 8, SIDE))
    dataset = opened(tmp_path, encoded(palette, transparency=0))
    assert dataset.report.notes == laid
    assert [array(dataset)[0, column].tolist() for column in (0, 8)] == [[200, 100, 50], [255, 255, 255]]
    plain = Image.new("RGB", (SIDE, SIDE), (1, 2, 3))
    assert (array(opened(tmp_path, encoded(plain, transparency=(1, 2, 3)))) == 255).all()


def test_deep_pictures(tmp_path: Path):
    values = np.linspace(0, 65535, SIDE * SIDE).reshape(SIDE, SIDE)
    deep = values.astype(np.uint16)
    for kind, name in (("PNG", "a.png"), ("TIFF", "b.tif")):
        dataset = opened(tmp_path / kind, encoded(deep, kind), name, channels=1)
        assert np.array_equal(array(dataset)[..., 0], np.rint(deep / 257).astype(np.uint8))
    big_endian = Image.frombytes("I;16B", (SIDE, SIDE), deep.astype(">u2").tobytes())
    assert np.array_equal(np.asarray(to_8_bit(big_endian, None, b"", [])), np.rint(deep / 257).astype(np.uint8))
    whole = Image.fromarray(values.astype(np.int32))
    dataset = opened(tmp_path / "int", encoded(whole, "TIFF"), "c.tif", channels=1)
    assert np.array_equal(array(dataset)[..., 0], np.rint(deep / 257).astype(np.uint8))
    assert opened(tmp_path / "int", encoded(whole, "TIFF"), "c.tif").report.notes == {"grey, shown as colour": 1}
    unit = (values / 65535).astype(np.float32)
    dataset = opened(tmp_path / "float", encoded(unit, "TIFF"), "d.tif", channels=1)
    assert np.array_equal(array(dataset)[..., 0], np.rint(unit * 255).astype(np.uint8))
    for bad, why in (
        (unit * 300, "floating-point values from 0 to 300; only 0 to 1 and 0 to 255 are read"),
        (unit * np.float32(np.nan), "floating-point values from nan to nan; only 0 to 1 and 0 to 255 are read"),
        (values.astype(np.int32) * 2, "whole numbers from 0 to 131070; of more than 8 bits, only 0 to 65535 is read"),
    ):
        assert reason(tmp_path / why[:30], encoded(bad, "TIFF"), "e.tif") == why


def test_cmyk(tmp_path: Path):
    dataset = opened(tmp_path, encoded(Image.new("CMYK", (SIDE, SIDE), (0, 255, 255, 0)), "TIFF"), "x.tif")
    assert dataset.report.notes == {"CMYK, converted to RGB": 1}
    assert array(dataset)[0, 0].tolist() == [255, 0, 0]
    jpeg = encoded(Image.new("CMYK", (SIDE, SIDE), (0, 255, 255, 0)), "JPEG")
    assert np.abs(array(opened(tmp_path / "jpeg", jpeg, "x.jpg")) - np.array([255.0, 0, 0])).max() < 8


def test_animations(tmp_path: Path):
    frames = [Image.fromarray(colours(seed)).quantize(64).convert("RGB") for seed in range(3)]
    for kind in ("GIF", "WEBP", "PNG"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
        dataset = opened(tmp_path / kind, data, f"x.{kind.lower()}")
        assert dataset.report.notes == {"animated, first frame": 1}
        assert np.array_equal(array(dataset), np.asarray(frames[0]))
    pages = encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    dataset = opened(tmp_path / "tiff", pages, "x.tif")
    assert dataset.report.notes == {"several pages, first page": 1}
    assert np.array_equal(array(dataset), np.asarray(frames[0]))


@pytest.mark.parametrize(("kind", "name"), [("PNG", "x.png"), ("TIFF", "x.tif"), ("JPEG", "x.jpg")])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path: Path, kind: str, name: str, orientation: int):
    stored = smooth(48, 32)
    exif = Image.Exif()
    exif[0x0112] = orientation
    dataset = opened(tmp_path, encoded(stored, kind, exif=exif), name, crop="resize")
    # By the EXIF standard: where the file's first row and first column appear.
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
    assert np.abs(array(dataset).astype(int) - np.asarray(expected)).max() < (12 if kind == "JPEG" else 2)
    assert dataset.report.notes == ({} if orientation == 1 else {"turned by EXIF": 1})


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_is_ignored(tmp_path: Path):
    dataset = opened(tmp_path, encoded(colours(0), exif=b"Exif\0\0II*\0" + b"\xff" * 9))
    assert dataset.report.notes == {}
    assert np.array_equal(array(dataset), colours(0))


def test_large_jpegs_are_decoded_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sizes = []
    plain = Image.Image.crop
    monkeypatch.setattr(Image.Image, "crop", lambda self, box: sizes.append(self.size) or plain(self, box))
    data = encoded(smooth(500, 300), "JPEG", quality=95)
    dataset = opened(tmp_path, data, "x.jpg")
    assert sizes == [(63, 38)]  # an eighth, more than twice the side
    whole = Image.open(io.BytesIO(data)).convert("RGB")
    middle = plain(whole, (100, 0, 400, 300)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    assert np.abs(array(dataset).astype(int) - np.asarray(middle)).max() < 6
    assert opened(tmp_path, data, "x.jpg", max_side=300).stored_side(0) == 300
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
    lines = str(open_dataset(zipped(tmp_path / "x.zip", files), resolution=SIDE).report).splitlines()
    assert lines == [
        "2 pictures",
        "  2 grey, shown as colour",
        "13 skipped",
        "  13 empty file: 00.png, 01.png, 02.png, ...",
    ]
    names = [name for name, _ in open_dataset(tmp_path / "x.zip", resolution=SIDE).report.skipped]
    assert names[-1] == "c?[2J.png"

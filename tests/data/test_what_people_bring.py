"""Folders, archives and images as produced by phones, network drives, cameras and download managers."""

from __future__ import annotations

import json
import struct
import sys
import types
import unicodedata
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from comfyui_creps.common.errors import DatasetError
from comfyui_creps.creps_core.data import ImageDataset, file_types, open_dataset
from picture_files import SIDE, array, colours, encoded, numbered, opened, reason, smooth, write, zipped
from PIL import Image, PngImagePlugin

PNG, JPEG = encoded(colours(0)), encoded(smooth(SIDE, SIDE), "JPEG")
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)
LABELS = {"labels": [["a.png", 0], ["b.png", 1]]}


def both(tmp_path: Path, files: dict[str, bytes], **options: object) -> list[ImageDataset]:
    """The datasets of a folder and of an archive with the same files."""
    sources = write(tmp_path / "folder", files), zipped(tmp_path / "x.zip", files)
    return [open_dataset(source, **{"resolution": SIDE, **options}) for source in sources]  # type: ignore


# --- Archives


def test_a_dark_picture_is_no_bomb(tmp_path: Path):
    """Compressed 1000 : 1, as night skies, masks and line drawings are."""
    dark = encoded(np.zeros((1000, 1000, 3), np.uint8), "TIFF")
    lines = np.full((1500, 1500), 255, np.uint8)
    lines[::100] = 0
    files = {"a.png": PNG, "dark.tif": dark, "lines.bmp": encoded(lines, "BMP")}
    dataset = open_dataset(zipped(tmp_path / "x.zip", files, zipfile.ZIP_DEFLATED), resolution=SIDE)
    assert dataset.names == ["a.png", "dark.tif", "lines.bmp"]
    assert array(dataset, 1).max() == 0


@pytest.mark.parametrize(
    "name", ["/", "//", "../notes.txt", "a/../../notes.txt", "C:/Users/me/notes.txt", "/etc/motd.txt"]
)
def test_a_strange_entry_does_not_spoil_the_archive(tmp_path: Path, name: str):
    dataset = open_dataset(zipped(tmp_path / "x.zip", {"a.png": PNG, name: b"text"}), resolution=SIDE)
    assert dataset.names == ["a.png"]
    assert [reason for _, reason in dataset.report.skipped] == (
        [] if name.strip("/") == "" else ["leads out of the archive: not read"]
    )


def test_a_colon_in_a_name_is_no_drive(tmp_path: Path):
    dataset = open_dataset(zipped(tmp_path / "x.zip", {"a:b.png": PNG, "2021-03-04 10:11.png": PNG}), resolution=SIDE)
    assert dataset.names == ["2021-03-04 10:11.png", "a:b.png"]


def test_names_that_begin_where_they_are(tmp_path: Path):
    files = {"./pics/a.png": PNG, ".//pics/./b.png": JPEG, "./dataset.json": json.dumps(
        {"labels": [["./pics/a.png", 1], ["pics//b.png", 0]]}).encode()}  # fmt: skip
    dataset = open_dataset(zipped(tmp_path / "x.zip", files), resolution=SIDE, use_labels=True)
    assert dataset.names == ["pics/a.png", "pics/b.png"]
    assert dataset.labels([0, 1]).argmax(1).tolist() == [1, 0]


def test_folders_are_no_empty_pictures(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for attributes in (0o040755 << 16, 0x10):
            folder = zipfile.ZipInfo(f"folder{attributes}.png")
            folder.external_attr = attributes
            archive.writestr(folder, b"")
        archive.writestr("a.png", PNG)
    assert open_dataset(tmp_path / "x.zip", resolution=SIDE).report.skipped == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "an empty file; give a folder or a zip"),
        (b"PK\x03\x04" + bytes(2000), "cut off, or one part of several.*copy or download it again"),
        (b"PK00PK\x03\x04" + bytes(50), "cut off, or one part of several"),
        (b"Rar!\x1a\x07\x01" + bytes(50), "a rar archive, which is not read: unpack it"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(50), "a 7z archive"),
        (b"\x1f\x8b\x08" + bytes(50), "a gzip archive"),
        (bytes(257) + b"ustar" + bytes(250), "a tar archive"),
        (PNG, "not a zip file; give a folder or a zip file"),
    ],
)
def test_what_is_no_whole_zip_file(tmp_path: Path, data: bytes, message: str):
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(DatasetError, match=message):
        open_dataset(tmp_path / "x.zip", resolution=SIDE)


def test_an_archive_that_was_cut_off(tmp_path: Path):
    path = zipped(tmp_path / "x.zip", numbered(5))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DatasetError, match="copy or download it again"):
        open_dataset(path, resolution=SIDE)


# --- Names and endings


def test_pictures_are_known_by_what_is_in_them(tmp_path: Path):
    names = ["photo.jpg?width=640", "photo.jpg_large", "x.jpg.1", "img.jpg~", "shot.v2", "bild.JPG ", "x.dng",
             "Screenshot 2021-03-04 at 10.11.12", "picture.txt", "a.bak", "b.jfif-tbnl"]  # fmt: skip
    for dataset in both(tmp_path, dict.fromkeys(names, JPEG) | {"notes.md": b"# notes", "z.part": b"\0" * 99}):
        assert dataset.names == sorted(names)
        assert dataset.report.skipped == []


def test_what_seems_to_be_pictures_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        file_types,
        "readable_formats",
        lambda real=file_types.readable_formats: tuple(n for n in real() if n not in ("HEIF", "JXL")),
    )
    tiff = encoded(colours(1), "TIFF")
    files = {
        "a.png": PNG, "1.HEIC": HEIC, "2.heic": b"?", "named.jpg": HEIC, "NONAME": HEIC, "4.dng": tiff, "5.NEF": tiff,
        "6.cr3": b"?", "3.jxl": b"\xff\x0a" + bytes(90), "more.zip": b"PK\x03\x04" + bytes(90),
        "7.tar.gz": b"\x1f\x8b\x08" + bytes(9), "8.tar": bytes(257) + b"ustar" + bytes(300),
    }  # fmt: skip
    if "HEIF" in Image.ID:
        pytest.skip("pillow-heif reads them here")
    for dataset in both(tmp_path, files):
        assert dataset.names == ["a.png"]
        why = dict(dataset.report.skipped)
        assert set(why) == set(files) - {"a.png"}
        for name in ("1.HEIC", "2.heic", "named.jpg", "NONAME"):
            assert why[name] == "HEIF: pip install pillow-heif, or save them as JPEG or PNG"
        assert why["3.jxl"].startswith("JXL: pip install pillow-jxl-plugin")
        assert {why[name] for name in ("4.dng", "5.NEF", "6.cr3")} == {
            "raw data of a camera: develop them to TIFF or JPEG"
        }
        assert {why[name] for name in ("more.zip", "7.tar.gz", "8.tar")} == {
            "an archive among the pictures: unpack it, or give it alone"
        }
        assert "  4 HEIF: pip install pillow-heif, or save them as JPEG or PNG: 1.HEIC, 2.heic, NONAME, ..." in str(
            dataset.report
        )


def test_plugins_of_pillow_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With a fake pillow-heif that reads any file with a HEIC signature."""

    class Heif(Image.Image):
        def __init__(self) -> None:
            super().__init__()

    def opener(file, name):
        image = Image.new("RGB", (SIDE, SIDE), (10, 20, 30))
        image.format = "HEIF"
        return image

    def register() -> None:
        Image.register_open("HEIF", opener, lambda head: head[4:12] == b"ftypheic")
        Image.register_extension("HEIF", ".heic")

    monkeypatch.setattr(Image, "ID", list(Image.ID))
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "EXTENSION", dict(Image.EXTENSION))
    monkeypatch.setitem(sys.modules, "pillow_heif", types.SimpleNamespace(register_heif_opener=register))
    file_types.load_plugins.cache_clear()
    try:
        for dataset in both(tmp_path, {"1.HEIC": HEIC, "2.jpg": HEIC}):
            assert dataset.names == ["1.HEIC", "2.jpg"]
            assert array(dataset)[0, 0].tolist() == [10, 20, 30]
    finally:
        file_types.load_plugins.cache_clear()


@pytest.mark.parametrize(
    "place",
    ["@eaDir/a.jpg", "#recycle", "$RECYCLE.BIN/S-1-5-21", ".Trash-1000/files", "lost+found",
     "System Volume Information",
     "#Recycle", "deep/@eaDir/b.jpg", "__MACOSX", "@Recycle", "Network Trash Folder"],
)  # fmt: skip
def test_wastebaskets_and_thumbnails_are_no_data(tmp_path: Path, place: str):
    for dataset in both(tmp_path, {"a.jpg": JPEG, f"{place}/SYNOPHOTO_THUMB_M.jpg": JPEG}):
        assert dataset.names == ["a.jpg"]
        assert dataset.report.skipped == []


def test_what_has_no_ending_is_reported_by_nobody(tmp_path: Path):
    files = {"a.png": PNG, "Icon\r": b"", "sub/Icon\r": b"", "Makefile": b"", "LICENSE": b"MIT", "empty": b""}
    for dataset in both(tmp_path, files):
        assert dataset.names == ["a.png"]
        assert dataset.report.skipped == []


def test_letters_with_accents_meet_their_labels(tmp_path: Path):
    names = ["Z\u00fcrich.png", "caf\u00e9/na\u00efve.png", "\u30e2\u30c7\u30eb.png"]
    labels = json.dumps({"labels": [[name, number] for number, name in enumerate(names)]}).encode()
    for form in ("NFC", "NFD"):
        files = {unicodedata.normalize(form, name): encoded(colours(number)) for number, name in enumerate(names)}
        for dataset in both(tmp_path / form, {**files, "dataset.json": labels}, use_labels=True):
            found = {unicodedata.normalize("NFC", name): k for k, name in enumerate(dataset.names)}
            assert set(found) == set(names)
            assert [dataset.labels([found[name]]).argmax().item() for name in names] == [0, 1, 2]
    with pytest.raises(DatasetError, match=r'a label for "Z\u00fcrich\.png", but there is no such'):
        both(tmp_path / "other", {"a.png": PNG, "dataset.json": labels}, use_labels=True)


def test_utf8_without_the_flag_that_says_so(tmp_path: Path):
    path = zipped(
        tmp_path / "x.zip",
        {"Z\u00fcrich.png": PNG, "dataset.json": json.dumps({"labels": [["Z\u00fcrich.png", 1]]}).encode()},
    )
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.find(signature)
        while place >= 0:
            data[place + offset + 1] &= ~0x08
            place = data.find(signature, place + 4)
    path.write_bytes(data)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist()[0] != "Z\u00fcrich.png"
    dataset = open_dataset(path, resolution=SIDE, use_labels=True)
    assert dataset.names == ["Z\u00fcrich.png"]


# --- Labels


@pytest.mark.parametrize("beside", ["LICENSE", "cover.jpg", "readme.txt", "other/cover.jpg"])
def test_labels_are_found_beside_other_things(tmp_path: Path, beside: str):
    files = {"mine/a.png": PNG, "mine/b.png": JPEG, "mine/dataset.json": json.dumps(LABELS).encode(), beside: JPEG}
    for dataset in both(tmp_path, files, use_labels=True):
        assert dataset.names == ["mine/a.png", "mine/b.png"]
        assert dataset.labels([0, 1]).argmax(1).tolist() == [0, 1]


def test_several_files_of_labels_are_named(tmp_path: Path):
    files = {f"{place}/{name}": PNG for place in ("one", "two") for name in ("a.png", "b.png")}
    files |= {f"{place}/dataset.json": json.dumps(LABELS).encode() for place in ("one", "two")}
    with pytest.raises(
        DatasetError, match=r"dataset.json in 2 folders, one/, two/ among them: put one for all at the top"
    ):
        both(tmp_path, files, use_labels=True)


def test_labels_that_are_not_asked_for_are_said(tmp_path: Path):
    for dataset in both(tmp_path, {"a.png": PNG, "b.png": JPEG, "dataset.json": json.dumps(LABELS).encode()}):
        assert str(dataset.report).count("dataset.json") == 1
        assert dataset.c_dim == 0


def test_folders_as_labels(tmp_path: Path):
    files = {f"all/{place}/{k}.png": encoded(colours(k)) for place in ("cat", "Ape", "dog/brown") for k in range(2)}
    for dataset in both(tmp_path, {**files, "all/stray.png": PNG}, use_labels="folders"):
        assert dataset.class_names == {0: "Ape", 1: "cat", 2: "dog"}
        named = {name: dataset.labels([k]).argmax().item() for k, name in enumerate(dataset.names)}
        assert named == {name: {"A": 0, "c": 1, "d": 2}[name[4]] for name in files}
        assert dataset.report.skipped == [("all/stray.png", "no label")]
        assert "3 classes: 0 (Ape): 2, 1 (cat): 2, 2 (dog): 2" in str(dataset.report)
    numbers = {f"{place}/{k}.png": encoded(colours(k)) for place in ("10", "20") for k in range(3)}
    for dataset in both(tmp_path / "numbers", numbers, use_labels="folders"):
        assert (dataset.c_dim, set(dataset.labels(range(6)).argmax(1).tolist())) == (21, {10, 20})
        assert "without pictures: 0-9, 11-19" in str(dataset.report)
    with pytest.raises(DatasetError, match="the pictures lie in no folder"):
        both(tmp_path / "flat", {"a.png": PNG}, use_labels="folders")
    with pytest.raises(ValueError, match="use_labels must be one of"):
        both(tmp_path / "flat", {"a.png": PNG}, use_labels="both")


def test_names_of_classes_in_the_file(tmp_path: Path):
    content = {**LABELS, "classes": {"0": "cat", "1": "dog", "7": "none"}}
    (dataset, _) = both(
        tmp_path, {"a.png": PNG, "b.png": JPEG, "dataset.json": json.dumps(content).encode()}, use_labels=True
    )
    assert dataset.class_names == {0: "cat", 1: "dog"}


# --- Runs among the data


def test_runs_are_no_data(tmp_path: Path):
    run = {"run.json": b"{}", "stats.jsonl": b"", "reals.png": PNG, "fakes-0000000008.png": PNG, "losses.png": PNG}
    files = {"a.png": PNG, **{f"runs/mine/{name}": data for name, data in run.items()}, "runs/mine/more/grid.png": PNG}
    for dataset in both(tmp_path, files):
        assert dataset.names == ["a.png"]
        assert dataset.report.skipped == [("runs/mine/", "folder of a training run, no data")]
    for dataset in both(tmp_path / "beside", {"a.png": PNG, "sub/b.png": PNG, **run}):
        assert dataset.names == ["a.png", "sub/b.png"]


# --- Depth


def deep(kind: str, values: np.ndarray, **options: object) -> tuple[str, bytes]:
    return f"x.{kind.lower()[:3]}", encoded(Image.fromarray(values), kind, **options)


def png_of(values: np.ndarray, bits: bytes = b"") -> bytes:
    """A PNG of 16 bits per channel, [H, W, C] of 1 to 4 channels; Pillow writes grey ones only."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, channels = values.shape
    rows = np.zeros((height, 1 + 2 * width * channels), np.uint8)
    rows[:, 1:] = np.ascontiguousarray(values.astype(">u2")).view(np.uint8).reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0)
    middle = chunk(b"sBIT", bits) if bits else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + middle
        + chunk(b"IDAT", zlib.compress(rows.tobytes()))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_few_bits_in_sixteen_are_seen_at_their_brightness(tmp_path: Path, bits: int, channels: int):
    values = np.random.default_rng(0).integers(0, 1 << bits, (SIDE, SIDE, channels))
    values[0, 0] = (1 << bits) - 1
    expected = np.rint(values / ((1 << bits) - 1) * 255)
    dataset = opened(tmp_path, png_of(values), channels=channels)
    # The image has the stored size, so no resizing premultiplies alpha.
    assert np.abs(array(dataset) - expected).max() <= 1
    noted = [note for note in dataset.report.notes if "scaled" in note]
    assert noted == ([] if bits == 16 else [f"stored with more than their {bits} bits, scaled"])


def test_the_depth_that_a_file_states(tmp_path: Path):
    values = np.full((SIDE, SIDE, 3), 1000)
    stated = array(opened(tmp_path / "1", png_of(values, bytes([12, 12, 12]))))
    assert (stated == round(1000 / 4095 * 255)).all()
    dark = array(opened(tmp_path / "2", png_of(np.full((SIDE, SIDE, 3), 3000), bytes([16, 16, 16]))))
    assert (dark == round(3000 / 65535 * 255)).all()


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_eight_bits_in_larger_numbers(tmp_path: Path, dtype: type):
    values = colours(3)[..., 0]
    values[0, 0] = 255
    name, data = deep("TIFF", values.astype(dtype))
    assert np.array_equal(array(opened(tmp_path, data, name, channels=1))[..., 0], values)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_white(tmp_path: Path, dtype: type):
    """TIFF in which zero is white, as scanners write it."""
    values = np.linspace(0, np.iinfo(dtype).max, SIDE * SIDE).reshape(SIDE, SIDE).astype(dtype)
    name, data = deep("TIFF", values, tiffinfo={262: 0})
    shown = array(opened(tmp_path, data, name, channels=1))[..., 0].astype(int)
    if dtype is np.uint8:  # Pillow inverts them on writing, too
        with Image.open(tmp_path / "one" / name) as image:
            assert np.array_equal(shown, np.asarray(image))
    else:
        assert np.abs(shown - (255 - np.rint(values / 257))).max() <= 1


def test_sixteen_bits_of_colour_keep_their_precision(tmp_path: Path):
    """The upper byte alone would truncate instead of rounding."""
    values = np.random.default_rng(1).integers(0, 65536, (SIDE, SIDE, 3))
    assert np.array_equal(array(opened(tmp_path, png_of(values))), np.rint(values / 257))


# --- Metadata


def test_long_texts_do_not_spoil_a_picture(tmp_path: Path):
    def png(**texts) -> bytes:
        info = PngImagePlugin.PngInfo()
        for name, (text, packed) in texts.items():
            info.add_text(name, text, zip=packed)
        return encoded(colours(0), pnginfo=info)

    long = "x" * (PngImagePlugin.MAX_TEXT_CHUNK + 10)
    international = PngImagePlugin.PngInfo()
    international.add_itxt("prompt", long, zip=True)
    many = png(**{f"t{k}": ("x" * 1_000_000, True) for k in range(70)})
    profile = bytes(PngImagePlugin.MAX_TEXT_CHUNK + 10)
    for number, data in enumerate(
        (
            png(t=(long, True)),
            encoded(colours(0), pnginfo=international),
            many,
            encoded(colours(0), icc_profile=profile),
        )
    ):
        dataset = opened(tmp_path / str(number), data)
        assert np.array_equal(array(dataset), colours(0))
        assert dataset.report.notes == {"long texts or a long profile in the file, ignored": 1}
    cut = many[: len(many) // 2]
    assert "broken or cut off" in reason(tmp_path / "cut", cut) or "empty" in reason(tmp_path / "cut", cut)


# --- Identity of a dataset


def test_the_same_pictures_have_the_same_fingerprint(tmp_path: Path):
    files = {f"{name}.png": encoded(colours(k)) for k, name in enumerate(("a", "b", "caf\u00e9"))}
    folder, archive = both(tmp_path, files)
    assert folder.fingerprint == archive.fingerprint
    assert len(folder.fingerprint) == 64
    apart = {unicodedata.normalize("NFD", name): data for name, data in files.items()}
    assert both(tmp_path / "apart", apart)[0].fingerprint == folder.fingerprint
    large = open_dataset(tmp_path / "folder", resolution=32, mirror=True)
    assert large.fingerprint == folder.fingerprint
    for number, change in enumerate(({"a.png": PNG[:-1] + b"?"}, {"a.png": encoded(colours(9))}, {"d.png": PNG})):
        if number:
            assert both(tmp_path / str(number), {**files, **change})[0].fingerprint != folder.fingerprint
    renamed = {("z.png" if name == "a.png" else name): data for name, data in files.items()}
    assert both(tmp_path / "renamed", renamed)[0].fingerprint != folder.fingerprint


def test_the_report_is_one_screen(tmp_path: Path):
    files = {f"{k}.png": encoded(colours(k)) for k in range(4)} | {
        "copy.png": encoded(colours(1)),
        "again.png": encoded(colours(1)),
    }
    files |= {f"small{k}.png": encoded(colours(k, 5, 20 + k)) for k in range(30)}
    files |= {f"broken{k}.png": b"?" for k in range(30)}
    text = str(both(tmp_path, files)[0].report)
    assert text.splitlines() == [
        "6 pictures",
        "  2 the same as others: 1.png = again.png",
        "60 skipped",
        "  30 not a picture that can be read, or cut off: broken0.png, broken1.png, broken10.png, ...",
        "  30 20 x 5 pixels; the shorter side must have at least 8: small0.png, small1.png, small10.png, ...",
    ]


# --- Aspect


def test_pictures_that_are_not_square(tmp_path: Path):
    """16:9 is cropped from the middle and stretched to a square of the longer side."""
    wide = smooth(64, 64)
    dataset = opened(tmp_path / "wide", encoded(wide), aspect="16:9", resolution=SIDE)
    assert dataset.options["aspect"] == "16:9"
    expected = Image.fromarray(wide[14:50]).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    assert np.array_equal(array(dataset), np.asarray(expected))
    tall = opened(tmp_path / "tall", encoded(wide), aspect="9:16", resolution=SIDE)
    expected = Image.fromarray(np.ascontiguousarray(wide[:, 14:50])).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    assert np.array_equal(array(tall), np.asarray(expected))
    assert opened(tmp_path / "small", encoded(smooth(64, 36)), aspect="16:9", resolution=64).report.notes == {}
    assert "enlarged" in str(opened(tmp_path / "smaller", encoded(smooth(60, 60)), aspect="16:9", resolution=64).report)
    for bad in ("16", "0:9", "wide", "100:1", "-1:2", "1:2:3"):
        with pytest.raises(ValueError, match="aspect"):
            opened(tmp_path / "bad", PNG, aspect=bad)

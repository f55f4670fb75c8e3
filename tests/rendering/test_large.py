"""Pictures straight to a file: content, pyramid, going on after a stop, full disks, flat memory."""

from __future__ import annotations

import builtins
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_creps.common.locks import lock_file
from comfyui_creps.creps_core import cli, render, save_generator
from comfyui_creps.creps_core.commands import render as render_command
from comfyui_creps.creps_core.rendering import (
    AreaPreview,
    find_partial_renders,
    large,
    png_writer,
    render_bands,
    render_to_file,
    writers,
)
from comfyui_creps.creps_core.rendering.image_writer import ImageWriter
from networks import make_generator, make_ws
from paths import TESTS
from PIL import Image

tifffile = pytest.importorskip("tifffile", reason="pip install -e '.[test]'")


# The pictures are small: threads cost more than they bring.
pytestmark = pytest.mark.usefixtures("one_thread")


GENERATOR = make_generator()
WS = make_ws(GENERATOR)
KINDS = ["png", "tif"]


def read(path: Path) -> np.ndarray:
    """[height, width, C]"""
    if path.suffix == ".png":
        with Image.open(path) as image:
            pixels = np.asarray(image)
    else:
        pixels = tifffile.imread(path)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def rendered(generator=GENERATOR, ws=WS, *, height: int, width: int, **options) -> np.ndarray:
    """The same in memory, uint8."""
    pixels = torch.empty(1, height, width, generator.config.img_channels, dtype=torch.uint8)
    render(generator, ws, height=height, width=width, out=pixels.permute(0, 3, 1, 2), **options)
    return pixels[0].numpy()


def assert_same(a: np.ndarray, b: np.ndarray) -> None:
    """Equal but for roundings: bands of other heights make matrix products of other shapes."""
    assert a.shape == b.shape
    assert abs(a.astype(int) - b).max() <= 1
    assert (a != b).mean() <= 1e-3


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def hidden(folder: Path, kind: str) -> Path:
    """The one partial or journal in a folder."""
    (path,) = folder.glob(f".*.{kind}")
    return path


def halved(picture: np.ndarray) -> np.ndarray:
    """Means of 2 x 2; an odd edge is repeated."""
    height, width = (-(-n // 2) for n in picture.shape[:2])
    padded = np.pad(
        picture, ((0, 2 * height - picture.shape[0]), (0, 2 * width - picture.shape[1]), (0, 0)), mode="edge"
    )
    return padded.reshape(height, 2, width, 2, -1).mean((1, 3))


@pytest.mark.parametrize("band", [1, 7, 64])
@pytest.mark.parametrize("supersample", [1, 3])
def test_bands_are_the_picture(band: int, supersample: int):
    size = {"height": 45, "width": 31, "supersample": supersample, "window": (-0.2, 0.1, 0.9, 1)}
    wanted = render(GENERATOR, WS, **size)[0]
    for first_row in (0, 13, 45):
        picture, calls = torch.full_like(wanted, torch.nan), []
        bands = render_bands(
            *(GENERATOR, WS),
            **size,
            dtype=torch.float32,
            band=band,
            first_row=first_row,
            progress=lambda done, total, calls=calls: calls.append((done, total)),
        )
        for top, rows in bands:
            picture[:, top : top + rows.shape[1]] = rows
        assert torch.allclose(picture[:, first_row:], wanted[:, first_row:], rtol=0, atol=1e-5 * wanted.abs().max())
        assert picture[:, :first_row].isnan().all()
        assert calls[-1][0] == calls[-1][1] >= 45 * 31


def test_bands_keep_the_grad_mode_of_the_caller():
    bands = render_bands(GENERATOR, WS, height=4, width=4, band=2)
    next(bands)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("arguments", [{"band": 0}, {"first_row": 9}, {"ws": WS.repeat(2, 1, 1)}, {"width": 0}])
def test_bands_refuse_at_once(arguments: dict):
    with pytest.raises(ValueError, match=r"band|first_row|latent|width"):
        render_bands(GENERATOR, **{"ws": WS, "height": 8, "width": 8, **arguments})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (256, 256), (257, 255), (700, 523)])
def test_the_file_is_the_picture(size: tuple[int, int], kind: str, tmp_path: Path):
    path = tmp_path / "new folder" / f"picture.{kind}"
    file = render_to_file(GENERATOR, WS, path, height=size[0], width=size[1], text={"creps": "seed 1, \u20ac"})
    assert_same(read(path), rendered(height=size[0], width=size[1]))
    assert (file.path, file.size, file.resumed_row) == (path, path.stat().st_size, 0)
    assert left_behind(path.parent) == [path.name]
    if kind == "png":
        with Image.open(path) as image:
            image.verify()
        with Image.open(path) as image:
            image.load()
            assert image.text == {"creps": "seed 1, \u20ac"}
        with Image.open(path) as image:  # before the pixels: readers that do not decode them see it
            assert image.info["creps"] == "seed 1, \u20ac"
    else:
        with tifffile.TiffFile(path) as tiff:
            assert tiff.is_bigtiff
            assert tiff.pages[0].description == "creps: seed 1, \u20ac"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bits", [8, 16])
def test_channels_and_depths(channels: int, bits: int, kind: str, tmp_path: Path, monkeypatch):
    generator = make_generator(img_channels=channels)
    ws, options = make_ws(generator), {"height": 300, "width": 40, "supersample": 2, "window": (0.1, 0, 0.6, 1.3)}
    monkeypatch.setattr(png_writer, "_CHUNK", 2000)
    path = tmp_path / f"picture.{kind}"
    render_to_file(generator, ws, path, bits=bits, **options)
    if bits == 8:
        assert_same(read(path), rendered(generator, ws, **options))
    elif kind == "tif" or channels == 1:  # Pillow reads colour with 8 bits only
        exact = render(generator, ws, **options)[0].permute(1, 2, 0).numpy()
        assert abs(read(path) - (exact * 32767.5 + 32768).clip(0, 65535)).max() <= 2
    else:
        assert abs(read(path).astype(int) - rendered(generator, ws, **options)).max() <= 1
    if kind == "tif":
        with tifffile.TiffFile(path) as tiff:
            assert (tiff.pages[0].samplesperpixel, tiff.pages[0].bitspersample) == (channels, bits)


def test_noise_fits_into_the_estimate(tmp_path: Path):
    noise = np.random.RandomState(0).randint(0, 256, (512, 768, 3), np.uint8)
    for ending in (".png", ".tif"):
        with (tmp_path / f"noise{ending}").open("w+b", buffering=0) as file:
            writer = writers.WRITERS[ending](file, 512, 768, 3)
            writer.begin()
            for top in (0, 256):
                writer.write(noise[top : top + 256])
            writer.finish(lambda rows: None)
            writer.close()
        assert np.array_equal(read(tmp_path / f"noise{ending}"), noise)
        size, most = (tmp_path / f"noise{ending}").stat().st_size, writer.max_bytes(512, 768, 3, 8)
        assert 0.8 * most < size < most + 4000


def test_slide_viewers_see_every_level(tmp_path: Path):
    """OpenSlide (and GDAL) take top-level directories with NewSubfileType 1 for levels, and see no SubIFDs."""
    openslide = pytest.importorskip("openslide", reason="pip install -e '.[test]'")
    render_to_file(GENERATOR, WS, tmp_path / "p.tif", height=777, width=1090)
    sizes = [(1090, 777), (545, 389), (273, 195), (137, 98)]
    with tifffile.TiffFile(tmp_path / "p.tif") as tiff:
        levels = [page.asarray() for page in tiff.pages]
        assert [(page.subfiletype, page.subifds) for page in tiff.pages] == [(0, None)] + [(1, None)] * 3
        assert [(level.shape[1], level.shape[0]) for level in levels] == sizes
    with openslide.OpenSlide(tmp_path / "p.tif") as slide:
        assert slide.level_dimensions == tuple(sizes)
        for number, size in enumerate(sizes):
            seen = np.asarray(slide.read_region((0, 0), number, size))
            assert np.array_equal(seen[..., :3], levels[number])


@pytest.mark.parametrize("bits", [8, 16])
def test_pyramid_levels_are_area_means(bits: int, tmp_path: Path):
    render_to_file(GENERATOR, WS, tmp_path / "p.tif", height=777, width=1090, bits=bits)
    with tifffile.TiffFile(tmp_path / "p.tif") as tiff:
        levels = [level.asarray() for level in tiff.series[0].levels]
    assert [level.shape[:2] for level in levels] == [(777, 1090), (389, 545), (195, 273), (98, 137)]
    mean = levels[0].astype(float)
    for level in levels[1:]:
        mean = halved(mean)
        assert abs(level - mean).max() <= (0.52 if bits == 8 else 2)


@pytest.mark.parametrize("size", [(1, 1), (300, 200), (31, 1501), (2101, 40)])
def test_preview_is_the_area_mean(size: tuple[int, int], tmp_path: Path):
    file = render_to_file(GENERATOR, WS, tmp_path / "p.png", height=size[0], width=size[1])
    factor = -(-max(size) // 1024)
    picture = read(tmp_path / "p.png")
    means = [
        [picture[y : y + factor, x : x + factor].mean((0, 1)) for x in range(0, size[1], factor)]
        for y in range(0, size[0], factor)
    ]
    assert file.preview.shape == (*np.shape(means)[:2], 3)
    assert max(file.preview.shape[:2]) <= 1024
    assert abs(file.preview.numpy() - (np.array(means) / 127.5 - 1)).max() <= 1e-5


class Cancelled(BaseException):
    """Like ComfyUI's interrupt: not an Exception."""


def stop_at(share: float):
    def progress(done: int, total: int) -> None:
        if done >= share * total:
            raise Cancelled

    return progress


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [8, 16])
def test_a_stopped_render_goes_on(kind: str, bits: int, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(large, "JOURNAL_SECONDS", 0)
    size, path = {"height": 900, "width": 90, "bits": bits}, tmp_path / f"p.{kind}"
    whole = render_to_file(GENERATOR, WS, tmp_path / f"whole.{kind}", **size)
    for share in (0.5, 0.8, 0.999):
        with pytest.raises(Cancelled):
            render_to_file(GENERATOR, WS, path, progress=stop_at(share), **size)
        assert len(left_behind(tmp_path)) == 3
        assert hidden(tmp_path, "journal").stat().st_size < 5000
    with hidden(tmp_path, "partial").open("ab") as file:
        file.write(b"what came after the journal")
    shown = AreaPreview(900, 90, 3)
    calls = []
    file = render_to_file(GENERATOR, WS, path, progress=lambda *call: calls.append(call), preview=shown, **size)
    assert file.resumed_row == (900 if kind == "tif" else 768)  # the last stop was in a TIFF's pyramid
    assert path.read_bytes() == (tmp_path / f"whole.{kind}").read_bytes()
    assert torch.equal(file.preview, whole.preview)
    assert file.preview is shown.image
    assert calls[0][0] >= 768 / 900 * 0.9 * calls[0][1]
    assert calls[-1][0] == calls[-1][1]
    assert left_behind(tmp_path) == [f"p.{kind}", f"whole.{kind}"]


def test_early_stops_leave_nothing(tmp_path: Path):
    for kind in KINDS:
        with pytest.raises(Cancelled):
            render_to_file(GENERATOR, WS, tmp_path / f"p.{kind}", height=600, width=50, progress=stop_at(0.9))
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize(
    "change", ["seed", "weights", "size", "window", "bits", "precision", "resume", "damage", "loss"]
)
def test_only_the_same_picture_goes_on(change: str, tmp_path: Path, monkeypatch, caplog):
    monkeypatch.setattr(large, "JOURNAL_SECONDS", 0)
    options, path = {"height": 600, "width": 50}, tmp_path / "p.png"
    stopped(path)
    generator, ws = GENERATOR, WS
    if change == "seed":
        ws = ws + 1e-3
    elif change == "weights":
        generator = make_generator()
        generator.synthesis.b4.input.freqs.add_(1e-3)
    elif change == "damage":
        journal = hidden(tmp_path, "journal")
        journal.write_bytes(journal.read_bytes()[:-100])
    elif change == "loss":
        os.truncate(hidden(tmp_path, "partial"), 100)
    else:
        options |= {
            "size": {"width": 51},
            "window": {"window": (0, 0, 1, 0.5)},
            "bits": {"bits": 16},
            "precision": {"precision": "bfloat16"},
            "resume": {"resume": False},
        }[change]
    file = render_to_file(generator, ws, path, **options)
    assert file.resumed_row == 0
    # That of another picture is not dropped, and said to be there.
    if change in ("resume", "damage", "loss"):
        assert left_behind(tmp_path) == ["p.png"]
    else:
        assert len(left_behind(tmp_path)) == 3
        assert "unfinished render of another picture" in caplog.text
        path.unlink()
        assert render_to_file(GENERATOR, WS, path, height=600, width=50).resumed_row > 0
        return
    if "bits" not in options:
        options.pop("resume", None)
        assert_same(read(path), rendered(generator, ws, **options))


def stopped(path: Path, ws: torch.Tensor = WS, **options) -> None:
    """Render until nearly the end."""
    with pytest.raises(Cancelled):
        render_to_file(GENERATOR, ws, path, progress=stop_at(0.9), **{"height": 600, "width": 50, **options})


def test_a_stopped_render_belongs_to_its_picture_not_to_a_name(tmp_path: Path, monkeypatch):
    """Another picture takes the name meanwhile, as in ComfyUI, where files of one prefix are numbered."""
    monkeypatch.setattr(large, "JOURNAL_SECONDS", 0)
    stopped(tmp_path / "large_00001_.png")
    other = render_to_file(GENERATOR, WS + 0.5, tmp_path / "large_00001_.png", height=600, width=50)
    assert [left.rows for left in other.others] == [(512, 600)]
    file = render_to_file(GENERATOR, WS, tmp_path / "large_00002_.png", height=600, width=50)
    assert file.resumed_row == 512
    assert_same(read(file.path), rendered(height=600, width=50))
    assert left_behind(tmp_path) == ["large_00001_.png", "large_00002_.png"]


def test_unfinished_pictures_are_listed_and_cleared_when_that_is_said(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(large, "JOURNAL_SECONDS", 0)
    stopped(tmp_path / "a.png")
    stopped(tmp_path / "b.tif", bits=16)
    # What earlier versions left, what another kind of file did, and a partial of a process that was killed at once.
    for name in (".old.png.0123.partial", ".old.png.0123.journal", ".run.json.1.partial", ".creps-00.partial"):
        (tmp_path / name).write_bytes(b"{}")
    listed = {left.partial.name: left for left in find_partial_renders(tmp_path)}
    assert {".old.png.0123.partial", ".creps-00.partial"} < listed.keys()
    assert len(listed) == 4
    said = "\n".join(map(str, listed.values()))
    assert re.search(r"50 x 600 of \w+, 8 bits, .png, begun as a.png: 512 of 600 rows, 0\.\d MB", said)
    assert re.search(r"50 x 600 of \w+, 16 bits, .tif, begun as b.tif: 512 of 600 rows", said)
    assert "nothing to resume from" in said

    assert cli.main(["unfinished", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("512 of 600 rows") == 2
    file = render_to_file(GENERATOR, WS, tmp_path / "c.png", height=600, width=50, clear_others=True)
    assert file.resumed_row == 512
    assert len(file.others) == 3
    assert left_behind(tmp_path) == [".run.json.1.partial", "c.png"]

    stopped(tmp_path / "a.png")
    with hidden(tmp_path, "journal").with_suffix(".partial").open("rb") as busy:
        assert lock_file(busy)
        assert cli.main(["unfinished", "--clear", str(tmp_path)]) == 0
        assert "no unfinished renders" in capsys.readouterr().out
        assert [left.in_use for left in find_partial_renders(tmp_path)] == [True]
    assert cli.main(["unfinished", "--clear", str(tmp_path)]) == 0
    assert "removed: 50 x 600" in capsys.readouterr().out
    assert left_behind(tmp_path) == [".run.json.1.partial", "c.png"]
    assert cli.main(["unfinished", str(tmp_path / "nowhere")]) == 1


KILLED = """
import sys
sys.path[:0] = sys.argv[2:]
import conftest, torch
from comfyui_creps.creps_core.rendering import large
from networks import make_generator, make_ws
large.JOURNAL_SECONDS = 0
torch.set_num_threads(1)
generator = make_generator()
large.render_to_file(generator, make_ws(generator), sys.argv[1], height=12000, width=80)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_render_goes_on(kind: str, tmp_path: Path):
    path = tmp_path / f"p.{kind}"
    command = [sys.executable, "-c", KILLED, str(path), str(TESTS), str(TESTS / "helpers")]
    process = subprocess.Popen(command)
    while process.poll() is None and not list(tmp_path.glob(".*.journal")):
        time.sleep(0.02)
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not path.exists()
    assert hidden(tmp_path, "journal").exists()
    subprocess.run(command, check=True)
    whole = tmp_path / f"whole.{kind}"
    render_to_file(GENERATOR, WS, whole, height=12000, width=80)
    assert path.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_no_room_is_said_before(kind: str, tmp_path: Path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**12, 10**12 - 10**9, 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"may take \d+\.\d\d GB of disk .* 1\.00 GB are free"):
        render_to_file(GENERATOR, WS, tmp_path / f"p.{kind}", height=32768, width=32768)
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_that_becomes_full(kind: str, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(large, "JOURNAL_SECONDS", 0)
    size, path, append = {"height": 700, "width": 60}, tmp_path / f"p.{kind}", ImageWriter.append

    def full(self: ImageWriter, data: bytes) -> None:
        if self.rows >= 512:
            append(self, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(ImageWriter, "append", full)
        with pytest.raises(OSError, match=r"disk is full. 512 rows are kept: free up to \d\.\d MB and render"):
            render_to_file(GENERATOR, WS, path, **size)
    assert not path.exists()
    assert render_to_file(GENERATOR, WS, path, **size).resumed_row == 512
    assert_same(read(path), rendered(**size))


def test_arguments_are_checked_before_files_are_touched(tmp_path: Path):
    for name, options, message in [
        ("p.jpg", {}, r"must end in one of \.png, \.tif, \.tiff"),
        ("p.png", {"bits": 12}, "bits"),
        ("p.png", {"height": 0}, "height"),
        ("p.png", {"supersample": 99}, "supersample"),
        ("p.png", {"window": (0, 0, 0, 1)}, "empty"),
    ]:
        with pytest.raises(ValueError, match=message):
            render_to_file(GENERATOR, WS, tmp_path / "new" / name, **{"height": 4, "width": 4, **options})
    assert left_behind(tmp_path) == []


def test_missing_tifffile_is_explained(tmp_path: Path, monkeypatch, caplog):
    original = builtins.__import__

    def without(name: str, *args, **kwargs):
        if name == "tifffile":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert cli.main(["render", "--size", "8x8", "--out", str(tmp_path / "p.tif")]) == 1
    assert f'"{sys.executable}" -m pip install tifffile' in caplog.text
    assert left_behind(tmp_path) == []
    assert cli.main(["render", "--size", "8x8", "--out", str(tmp_path / "p.png")]) == 0


@pytest.mark.parametrize(("resume", "message"), [("--resume", "from row 256"), ("--no-resume", "p.tif: g, seed")])
def test_command_line(resume: str, message: str, tmp_path: Path, monkeypatch, caplog):
    monkeypatch.setattr(large, "JOURNAL_SECONDS", 0)
    save_generator(GENERATOR, tmp_path / "g.safetensors")
    command = ["render", "--checkpoint", str(tmp_path / "g.safetensors"), "--size", "64x500", "--bits", "16"]
    command += ["--out", str(tmp_path / "p.tif"), resume]
    with monkeypatch.context() as patch:
        patch.setattr(render_command, "_progress_line", lambda pixels: stop_at(0.9))
        with pytest.raises(Cancelled):
            cli.main(command)
    caplog.clear()
    caplog.set_level("INFO", "CREPS")
    assert cli.main(command) == 0
    assert message in caplog.messages[0]
    assert read(tmp_path / "p.tif").dtype == np.uint16
    assert left_behind(tmp_path) == ["g.safetensors", "p.tif"]


def test_progress_line(monkeypatch, caplog):
    now = [100.0]
    monkeypatch.setattr(render_command.time, "monotonic", lambda: now[0])
    caplog.set_level("INFO", "CREPS")
    show = render_command._progress_line(10**8)
    show(500, 1000)  # half of it an earlier run did
    now[0] += 100
    show(600, 1000)
    now[0] += 1
    show(601, 1000)
    assert caplog.messages == [" 60.0 %  0.10 MP/s  6 min 40 s left"]


MEMORY = """
import sys
sys.path[:0] = sys.argv[2:]
import conftest, torch
from pathlib import Path
from comfyui_creps.creps_core.rendering import large
from networks import make_generator, make_ws
torch.set_num_threads(1)
generator = make_generator(biline_channels=4, channel_max=8)
ws = make_ws(generator)
for height in (512, 8192):
    for name in ("p.png", "p.tif"):
        large.render_to_file(generator, ws, sys.argv[1] + "/" + name, height=height, width=1024)
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            print(int(line.split()[1]) / 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux")
def test_memory_does_not_grow_with_the_height(tmp_path: Path):
    """Pictures of 24 MB, after ones of 1.5 MB in the same process, which set the mark."""
    command = [sys.executable, "-c", MEMORY, str(tmp_path), str(TESTS), str(TESTS / "helpers")]
    low, high = map(float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert high - low <= 12, (low, high)

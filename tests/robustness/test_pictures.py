"""Pictures and labels that were made to take time or memory."""

from __future__ import annotations

import io
import os
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import harness
import numpy as np
import pytest
import torch
from comfyui_creps.creps_core.data import open_dataset
from comfyui_creps.creps_core.data.memory_budget import MemoryBudget
from comfyui_creps.creps_core.data.sources import UnusableFile
from picture_files import encoded
from PIL import Image

LINUX = pytest.mark.skipif(not harness.AVAILABLE, reason="Linux: forks, and /proc")


def chained(count: int) -> bytes:
    """A TIFF whose directory is followed by so many copies of it."""
    data = bytearray(encoded(Image.new("RGB", (32, 32)), "TIFF"))
    (place,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, place)
    directory = bytes(data[place : place + 2 + 12 * entries])
    struct.pack_into("<I", data, place + len(directory), len(data))
    for number in range(count):
        after = len(data) + len(directory) + 4
        data += directory + struct.pack("<I", after if number < count - 1 else 0)
    return bytes(data)


@LINUX
def test_files_made_to_take_time_or_memory(tmp_path: Path):
    """docs/reliability.md has the figures of before there was a budget."""
    cases = {}
    for name, data in {
        "chain.tif": chained(10_000),
        "large.png": encoded(Image.new("RGBA", (8_000, 8_000), (9, 9, 9, 100)), compress_level=1),
    }.items():
        cases[name] = tmp_path / name.split(".")[0]
        cases[name].mkdir()
        (cases[name] / name).write_bytes(data)
        (cases[name] / "good.png").write_bytes(encoded(np.full((16, 16, 3), 99, np.uint8)))
    cases["empty.zip"] = tmp_path / "empty.zip"
    with zipfile.ZipFile(cases["empty.zip"], "w") as archive:
        archive.writestr("good.png", encoded(np.full((16, 16, 3), 99, np.uint8)))
        for number in range(5_000):
            archive.writestr(f"{number}.png", b"")
    calls = [(name, partial(open_dataset, path, resolution=16)) for name, path in cases.items()]
    outcomes = harness.isolated(calls, seconds=60)
    assert {outcome.kind for outcome in outcomes} == {"loaded"}, outcomes
    assert all(outcome.seconds < 20 and outcome.megabytes < 600 for outcome in outcomes), outcomes


def test_what_was_left_out_is_said(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("good.png", encoded(np.full((16, 16, 3), 99, np.uint8)))
        for number in range(1500):
            archive.writestr(f"folder/{number}.png", b"")
        archive.mkdir("folder") if hasattr(archive, "mkdir") else None
    with closing(open_dataset(tmp_path / "a.zip", resolution=16)) as pictures:
        assert "1,500 entries" in str(pictures.report)
        assert pictures.names == ["good.png"]


def test_a_budget_is_shared_and_never_exceeded():
    budget, taken, most = MemoryBudget(100), 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal taken, most
        for _ in range(50):
            with budget.reserve(40, "a picture"):
                with lock:
                    taken += 40
                    most = max(most, taken)
                with lock:
                    taken -= 40

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most <= 100
    assert budget.free == 100
    with pytest.raises(UnusableFile, match="a picture takes about"), budget.reserve(101, "a picture"):
        pass
    assert budget.free == 100


def test_classes_stay_numbers(tmp_path: Path):
    """Vectors of 65,536 numbers for each of 20,000 pictures would be 5 GB."""
    (tmp_path / "a.png").write_bytes(encoded(np.full((16, 16, 3), 99, np.uint8)))
    (tmp_path / "dataset.json").write_text('{"labels": [["a.png", 65535]]}')
    with closing(open_dataset(tmp_path, resolution=16, use_labels=True)) as pictures:
        labels = pictures.all_labels()
        assert labels is not None
        assert (labels.dtype, labels.tolist()) == (torch.int64, [65535])
        assert "1 of 65,536 classes" in str(pictures.report)


@LINUX
def test_a_picture_that_became_a_pipe_does_not_hang(tmp_path: Path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(encoded(np.full((16, 16, 3), ord(name[0]), np.uint8)))

    def call() -> None:
        with closing(open_dataset(tmp_path, resolution=16, cache_bytes=0)) as pictures:
            (tmp_path / "a.png").unlink()
            os.mkfifo(tmp_path / "a.png")
            pictures.images([0])

    (outcome,) = harness.isolated([("pipe", call)], seconds=30)
    assert outcome.kind == "refused"


def test_a_progressive_jpeg_of_many_passes_is_left_out(tmp_path: Path):
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    start = data.index(b"\xff\xda")
    (tmp_path / "a.jpg").write_bytes(data[:-2] + data[start:-2] * 200 + data[-2:])
    (tmp_path / "b.png").write_bytes(encoded(np.full((16, 16, 3), 99, np.uint8)))
    with closing(open_dataset(tmp_path, resolution=16)) as pictures:
        assert pictures.names == ["b.png"]
        assert "passes" in str(pictures.report)


@LINUX
@pytest.mark.parametrize("use_labels", [False, True])
@pytest.mark.parametrize(
    "content",
    ['{"labels":[' + "[]," * 20_000_000 + "[]]}", '{"classes":[' + "[]," * 20_000_000 + "[]]}"],
    ids=["labels", "classes"],
)
def test_a_labels_file_of_millions_of_empty_lists_takes_no_memory(tmp_path: Path, content: str, use_labels: bool):
    """20 million lists are 1.4 GB once parsed, of a zip of 60 kB."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", encoded(np.full((16, 16, 3), 99, np.uint8)))
        archive.writestr("dataset.json", content)
    call = partial(open_dataset, tmp_path / "a.zip", resolution=16, use_labels=use_labels)
    (outcome,) = harness.isolated([("labels", call)], seconds=60)
    assert outcome.kind == ("refused" if use_labels else "loaded"), outcome
    assert outcome.megabytes < 250, outcome


def _jpeg2000() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (7000, 7000)).save(file, "JPEG2000")
    return file.getvalue()


def _webp() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8000, 8000)).save(file, "WEBP", lossless=True, quality=0, method=0)
    return file.getvalue()


def _long_chunk() -> bytes:
    """A PNG with a chunk of 300 MB, which Pillow reads whole."""
    good, content = encoded(np.full((16, 16, 3), 99, np.uint8), "PNG"), bytes(300 << 20)
    chunk = b"juNk" + content
    return good[:33] + struct.pack(">I", len(content)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + good[33:]


@LINUX
@pytest.mark.parametrize("make", [_webp, _jpeg2000, _long_chunk])
@pytest.mark.parametrize("side", [16, 4096])
def test_no_format_takes_more_than_the_budget(tmp_path: Path, make: Callable[[], bytes], side: int):
    """The promise of SECURITY.md, by the growth of the process; several threads want the same at once."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good.png", encoded(np.full((16, 16, 3), 99, np.uint8)))
        data = make()
        for number in range(2):
            archive.writestr(f"folder/{number}.{make.__name__}", data)
        del data
    call = partial(open_dataset, tmp_path / "a.zip", resolution=side, workers=4)
    (outcome,) = harness.isolated([(make.__name__, call)], seconds=120)
    assert outcome.kind == "loaded", outcome
    assert outcome.megabytes < 1074 + 3 * (side * side * 3) / 1e6, outcome  # what is kept of them is apart


def test_many_short_entries_are_counted(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("good.png", encoded(np.full((16, 16, 3), 99, np.uint8)))
        for number in range(1500):
            archive.writestr(f"{number}.png", b"x")
    with closing(open_dataset(tmp_path / "a.zip", resolution=16)) as pictures:
        assert "1,500 entries" in str(pictures.report)
        assert "too short to be a picture" in str(pictures.report)

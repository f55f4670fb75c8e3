"""Malicious archives: path traversal, zip bombs, false headers."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from comfyui_creps.common.errors import DatasetError
from comfyui_creps.creps_core.data import open_dataset, sources
from picture_files import SIDE, array, colours, encoded, numbered, zipped

DAMAGED = "damaged in the archive"


@pytest.mark.parametrize("name", ["../x.png", "a/../../x.png", "/x.png", "C:/x.png", "a\\..\\x.png", "\\x.png", "../x"])
def test_archives_that_lead_out(tmp_path: Path, name: str):
    archive = zipped(tmp_path / "x.zip", {"good.png": encoded(colours(0)), name: encoded(colours(1))})
    with pytest.raises(DatasetError, match="leads out of the archive"):
        open_dataset(archive, resolution=SIDE)
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]


def patched(path: Path, name: str, offset: int, value: bytes, table_only: bool = False) -> Path:
    """Change bytes in both headers of an entry, at an offset within the local header."""
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
        open_dataset(archive, resolution=SIDE)


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fails(archive: Path, match: str) -> None:
        with pytest.raises(DatasetError, match=match):
            open_dataset(archive, resolution=SIDE)

    # A single one costs what it unpacks to; many of them exhaust memory.
    zeros = {f"{number}.bmp": bytes(1 << 21) for number in range(4)}
    many = zipped(tmp_path / "ratio.zip", zeros, zipfile.ZIP_DEFLATED)
    fails(many, "none of 4 pictures can be used: 0.bmp: not a picture")
    monkeypatch.setattr(sources, "_MAX_INFLATED", 1 << 22)
    fails(many, "4 entries, '0.bmp' the first, unpack to more than 200 times their size, 8388608 bytes in all")
    monkeypatch.undo()
    plain = {"x.png": encoded(colours(0))}
    large = patched(zipped(tmp_path / "large.zip", plain), "x.png", SIZE, struct.pack("<I", 1 << 30))
    fails(large, "x.png: has 1073741824 bytes, at most")
    monkeypatch.setattr(sources, "_MAX_ENTRIES", 3)
    fails(zipped(tmp_path / "many.zip", numbered(4)), "4 entries, at most 3")
    monkeypatch.undo()
    monkeypatch.setattr(sources, "_MAX_TOTAL", 1000)
    fails(zipped(tmp_path / "many.zip", numbered(4)), "unpacks to .* bytes, at most 1000")
    monkeypatch.undo()
    # Two names for the same bytes.
    path = zipped(tmp_path / "same.zip", {"x1.png": encoded(colours(0)), "x2.png": encoded(colours(0))})
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"x2.png") - 46
    data[entry + 42 : entry + 46] = bytes(4)
    path.write_bytes(data)
    fails(path, "the entries 'x1.png' and 'x2.png' overlap")


def test_a_lying_header_does_not_explode(tmp_path: Path):
    """The entry states 5000 bytes and unpacks to 20 million; the stated size bounds what is unpacked."""
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
        report = open_dataset(huge, resolution=SIDE, workers=1).report
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
        dataset = open_dataset(path, resolution=SIDE)
        assert dataset.names == ["good.png"]
        assert dataset.report.skipped[0][0] == where
        return dataset.report.skipped[0][1]

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
    assert open_dataset(path, resolution=SIDE, use_labels=True).c_dim == 2
    dataset = open_dataset(tmp_path / "twice.zip", resolution=SIDE)
    assert dataset.report.skipped == [("x.png", "another entry has the same name")]
    assert np.array_equal(array(dataset), colours(0))

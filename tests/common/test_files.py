"""What people type for paths, and what they are told about files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from comfyui_creps.common import errors, files
from comfyui_creps.common.files import path_of, replace_file


@pytest.mark.skipif(os.name == "nt", reason="names that Windows does not have")
@pytest.mark.parametrize("name", ["it's '", 'the "best"', "'quoted'", "~", "file:", " spaces "])
def test_a_name_that_is_there_is_meant_as_it_is_written(name: str, tmp_path: Path):
    (tmp_path / name).mkdir()
    assert path_of(name, tmp_path) == tmp_path / name
    assert path_of(str(tmp_path / name), "/") == tmp_path / name


def test_quotes_addresses_and_the_home_folder_are_understood(tmp_path: Path, monkeypatch):
    folder = tmp_path / "my pictures"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for text in (f'"{folder}"', f" '{folder}' ", folder.as_uri(), f'"{folder.as_uri()}"', "~/my pictures"):
        assert path_of(text, "/elsewhere") == folder
    assert path_of("my pictures", tmp_path) == path_of("./my pictures/", tmp_path) == folder
    for text in ("nowhere", "nowhere\0", "x" * 5000):
        assert not path_of(text, tmp_path).name.startswith("my")


def test_errors_are_of_a_short_module_and_begin_with_what_to_do(tmp_path: Path):
    for name in ("FileError", "CheckpointError", "NewerFormatError", "LatentsError", "DatasetError", "TrainingError"):
        assert getattr(errors, name).__module__ == "creps"
    error = errors.CheckpointError.about(tmp_path / "x.pkl", "is empty")
    assert str(error) == f"{errors.AGAIN}. x.pkl: is empty"
    assert len(str(errors.LatentsError.about("n" * 9999, "f" * 9999, "a" * 100))) <= errors.MESSAGE_LIMIT


def test_what_cannot_be_written_begins_with_what_to_do(tmp_path: Path):
    with pytest.raises(OSError, match=r"^Choose a shorter name. n+ \.\.\. n+ cannot be written: its name is too long$"):
        replace_file(tmp_path / ("n" * 300), lambda file: None)


def test_a_write_that_is_always_swept_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Such as on a file system whose inode numbers change from look to look."""
    monkeypatch.setattr(files, "is_at", lambda *_: False)
    with pytest.raises(OSError, match="keep removing"):
        replace_file(tmp_path / "a.txt", lambda file: file.write(b"new"))
    assert list(tmp_path.iterdir()) == []

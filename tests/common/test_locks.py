"""Locks between processes; the calls for Windows with a stand-in for its module."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from comfyui_creps.common import locks
from comfyui_creps.common.locks import lock_file
from paths import ROOT


@pytest.fixture(params=["this system", "Windows"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    if request.param == "this system":
        return
    fcntl = pytest.importorskip("fcntl", reason="this is Windows: the other case tests it")

    def locking(number: int, mode: int, size: int) -> None:
        """As `msvcrt.locking`: locks a range from the position on, or raises PermissionError."""
        assert (mode, size, os.lseek(number, 0, os.SEEK_CUR)) == (2, 1, 1 << 40)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise PermissionError(errno.EACCES, "Permission denied") from error

    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setattr(locks, "msvcrt", SimpleNamespace(LK_NBLCK=2, locking=locking))


def test_one_handle_holds_a_file(system: None, tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with path.open("r+b") as first, path.open("r+b", buffering=0) as second:
        first.seek(3)
        assert lock_file(first)
        assert first.read(2) == b"34"  # the position stays
        assert not lock_file(second)
        assert second.read() == b"0123456789"  # the lock hides nothing
        first.close()
        assert lock_file(second)
    assert path.stat().st_size == 10


def test_a_lock_is_waited_for(system: None, tmp_path: Path):
    path = tmp_path / "file"
    with path.open("wb") as first, path.open("rb+") as second:
        assert lock_file(first)
        began = time.monotonic()
        assert not lock_file(second, patience=0.05)
        assert time.monotonic() - began >= 0.05
        threading.Timer(0.1, first.close).start()
        assert lock_file(second, patience=30)


def test_a_file_system_without_locks_locks_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(file: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks, "_try_lock", refuse)
    told = []
    with (tmp_path / "file").open("wb") as file:
        assert lock_file(file)
        assert lock_file(file, unsupported=lambda: told.append(1))
    assert told == [1]


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path):
    path = tmp_path / "file"
    path.touch()
    code = (
        "import package, sys, time; from comfyui_creps.common.locks import lock_file; file = open(sys.argv[1], 'r+b'); "
        "print(lock_file(file), flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, path]
    with (
        subprocess.Popen(command, cwd=ROOT / "benchmarks", stdout=subprocess.PIPE, text=True) as child,
        path.open("r+b") as file,
    ):
        assert child.stdout is not None
        assert child.stdout.readline() == "True\n"
        assert not lock_file(file)
        child.kill()
        child.wait()
        assert lock_file(file, patience=5)

"""Writing: faults of the system at any step, many at once, targets that cannot be, going on from damaged files."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_creps.common.files import check_target, open_file, write_json
from comfyui_creps.common.locks import lock_file
from comfyui_creps.creps_core import cli, save_generator
from comfyui_creps.creps_core.latents import sample_latents, save_latents
from comfyui_creps.creps_core.rendering import large, render_to_file
from faults import KINDS, Ends, Faults, injected
from networks import make_generator, make_ws
from PIL import Image
from torch.overrides import TorchFunctionMode

GENERATOR = make_generator(img_resolution=16)
WS = make_ws(GENERATOR)
SIZE = {"height": 300, "width": 8}


pytestmark = pytest.mark.usefixtures("one_thread")


def save(path: Path) -> None:
    save_generator(GENERATOR, path)


def latents(path: Path) -> None:
    save_latents(sample_latents(GENERATOR, [1]), path)


def picture(path: Path) -> None:
    render_to_file(GENERATOR, WS, path, **SIZE)


WRITERS: dict[str, Callable[[Path], None]] = {"g.safetensors": save, "l.safetensors": latents, "p.png": picture}
WRITERS["p.tif"] = picture


def sentence_of(call: Callable[[], None]) -> str:
    """What the OSError of a call says; nothing where there is none."""
    try:
        call()
    except OSError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("number", KINDS)
def test_a_fault_at_any_step(name: str, number: int, tmp_path: Path, monkeypatch):
    """One sentence, the old file as it was, and the same call works once the fault is gone."""
    monkeypatch.setattr(large, "JOURNAL_SECONDS", 0)
    write, path = WRITERS[name], tmp_path / "out" / name
    write(path)
    good = path.read_bytes()
    with injected(Faults(tmp_path)) as counted:
        write(path)
    assert counted.steps >= 4
    every = max(1, counted.steps // 8)
    for at in range(1, counted.steps + 1, every):
        path.write_bytes(b"old")
        with injected(Faults(tmp_path, at, number)):
            said = sentence_of(lambda: write(path))
        if not said:  # what failed was the syncing of the folder, say
            assert path.read_bytes() == good
            continue
        assert path.name in said
        assert "\n" not in said
        assert len(said) < 300
        assert path.read_bytes() in (b"old", good)
        write(path)
        assert path.read_bytes() == good
        assert [file.name for file in path.parent.iterdir()] == [name]


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, None], ids=["interrupted", "killed"])
def test_an_end_at_every_step(name: str, error: type[BaseException] | None, tmp_path: Path, monkeypatch):
    """Ctrl-C or a kill before and after every call that changes a file: the final name has the old file or the new
    one, all of it, and the same call then leaves just the new one."""
    monkeypatch.setattr(large, "JOURNAL_SECONDS", 0)
    write, path = WRITERS[name], tmp_path / "out" / name
    write(path)
    good, published = path.read_bytes(), 0
    with injected(Ends(tmp_path, 0, error)) as counted:
        write(path)
    assert counted.steps >= 8
    for at in range(1, counted.steps + 1):
        path.write_bytes(b"old")
        with injected(Ends(tmp_path, at, error)):
            if error is not None:
                with pytest.raises(error):
                    write(path)
            elif (child := os.fork()) == 0:
                try:
                    write(path)
                finally:
                    os._exit(1)  # not reached
            else:
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        assert path.read_bytes() in (b"old", good), at
        published += path.read_bytes() == good
        write(path)
        assert path.read_bytes() == good
        assert [file.name for file in path.parent.iterdir()] == [name], at
    assert published >= 2


@pytest.mark.parametrize("kind", ["partial", "journal"])
@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_a_link_under_the_name_of_a_partial(ending: str, link: Callable[..., None], kind: str, tmp_path: Path, caplog):
    """The names are predictable: somebody may have placed a link there. The file it leads to stays as it is."""
    path = tmp_path / f"p.{ending}"

    def stop(done: int, total: int) -> None:
        raise Stop

    picture(path)
    good = path.read_bytes()
    path.unlink()
    names = []
    with pytest.raises(Stop):
        render_to_file(GENERATOR, WS, path, progress=lambda *_: (names.extend(tmp_path.iterdir()), stop(0, 0)), **SIZE)
    place = names[0].with_suffix(f".{kind}")
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious" * 99)
    link(victim, place)
    picture(path)
    assert path.read_bytes() == good
    assert victim.read_bytes() == b"precious" * 99
    assert ("left alone" in caplog.text) == (link is os.symlink or kind == "partial")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root gives files away")
def test_a_partial_of_another_user_is_left_alone(tmp_path: Path):
    names = []
    path = tmp_path / "p.png"
    render_to_file(GENERATOR, WS, path, progress=lambda *_: names.extend(tmp_path.iterdir()), **SIZE)
    names[0].write_bytes(b"theirs")
    os.chown(names[0], 12345, 12345)
    picture(path)
    assert names[0].read_bytes() == b"theirs"


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_a_damaged_journal_begins_anew(ending: str, tmp_path: Path, monkeypatch, caplog):
    """Whatever a journal says: the render starts over, says so, and the file is right."""
    monkeypatch.setattr(large, "JOURNAL_SECONDS", 0)
    path = tmp_path / f"p.{ending}"
    picture(path)
    good = path.read_bytes()

    def stop(done: int, total: int) -> None:
        if done > 0.9 * total:
            raise Stop

    values = [10**30, -1, 1.5, None, [], {}, "x", [10**30], [-1, 2], True]
    fields = ["rows", "size", "parts", "state", "job", "first", "sizes" if ending == "tif" else "checksum"]
    with pytest.raises(Stop):
        render_to_file(GENERATOR, WS, path, progress=stop, **SIZE)
    (journal,), (partial,) = tmp_path.glob(".*.journal"), tmp_path.glob(".*.partial")
    text, data = journal.read_text(), partial.read_bytes()
    for field in fields:
        for value in [KeyError, *values]:
            entries = json.loads(text)
            place = entries if field in entries else entries["state"]
            place.pop(field) if value is KeyError else place.update({field: value})
            journal.write_text(json.dumps(entries))
            partial.write_bytes(data)
            caplog.clear()
            file = render_to_file(GENERATOR, WS, path, **SIZE)
            assert file.resumed_row == 0, (field, value)
            assert "starting over" in caplog.text
            assert path.read_bytes() == good
            assert [found.name for found in tmp_path.iterdir()] == [path.name]


def _dead(path: Path) -> Path:
    """A temporary file of `path` as a killed process leaves it."""
    dead = path.with_name(f".{path.name}.999999.0123abcd.partial")
    dead.write_bytes(b"x" * 1000)
    return dead


def test_every_kind_of_leftover_is_listed_and_cleared(tmp_path: Path, capsys):
    _dead(tmp_path / "set.zip")
    _dead(tmp_path / ".creps-0123.journal")
    (tmp_path / ".creps-4567.journal").write_text("{}")
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "rows-000000000.safetensors").write_bytes(b"x")
    (tmp_path / "mine.partial").touch()
    busy = tmp_path / ".run.json.5.01234567.partial"
    with busy.open("wb") as file:
        assert lock_file(file)
        assert cli.main(["unfinished", str(tmp_path)]) == 0
        said = capsys.readouterr().out
        for part in (
            "set.zip: nothing to resume from",
            ".creps-0123.journal: nothing",
            "run.json: being written",
            "the journal of a finished render (.creps-4567.journal)",
            "features of an evaluation",
        ):
            assert part in said
        assert cli.main(["unfinished", "--clear", str(tmp_path)]) == 0
        assert sorted(path.name for path in tmp_path.iterdir()) == [busy.name, "mine.partial", "unfinished"]


def test_the_next_command_removes_what_killed_ones_left(tmp_path: Path):
    """A render, `creps data`, and whatever writes the same file; never what a living process writes."""
    living = tmp_path / ".other.zip.5.01234567.partial"
    (tmp_path / "images").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "images" / "a.png")
    data = ["data", str(tmp_path / "images"), str(tmp_path / "new.zip"), "--side", "16"]
    with living.open("wb") as file:
        assert lock_file(file)
        for work in (lambda: picture(tmp_path / "p.png"), lambda: cli.main(data)):
            dead = [_dead(tmp_path / "set.zip"), _dead(tmp_path / ".creps-0123.journal")]
            work()
            assert not [path for path in dead if path.exists()]
        for path in (tmp_path / ".creps-4567.journal", tmp_path / ".creps-89ab.partial"):  # killed after, before
            path.write_text("{}")
        picture(tmp_path / "p.png")
        dead = _dead(tmp_path / "f.json")
        write_json(tmp_path / "f.json", {})
    assert not dead.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [living.name, "f.json", "images", "new.zip", "p.png"]


class _Short(TorchFunctionMode):
    """Memory that runs out at one call of torch's, in the words of torch."""

    def __init__(self, at: int = 0):
        super().__init__()
        self.at, self.calls = at, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        if self.calls == self.at:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["g.safetensors", "p.png"])
def test_memory_that_runs_out_at_any_step(name: str, tmp_path: Path, caplog):
    """One sentence of the command, the old file as it was, nothing left over."""
    save(tmp_path / "in.safetensors")
    path = tmp_path / "out" / name
    command = ["convert", str(tmp_path / "in.safetensors"), str(path)]
    if name == "p.png":
        command = ["render", "--checkpoint", str(tmp_path / "in.safetensors"), "--size", "9x9", "--out", str(path)]
    assert cli.main(command) == 0
    good = path.read_bytes()
    with _Short() as counted:
        assert cli.main(command) == 0
    for at in range(1, counted.calls, max(1, counted.calls // 8)):
        path.write_bytes(b"old")
        caplog.clear()
        # It may run out where torch leaves `no_grad`, which then stays on.
        with torch.set_grad_enabled(torch.is_grad_enabled()), _Short(at):
            status = cli.main(command)
        if status:
            assert path.read_bytes() == b"old"
            assert len(caplog.records[-1].getMessage()) < 400
        assert cli.main(command) == 0
        assert path.read_bytes() == good
        assert [file.name for file in path.parent.iterdir()] == [name]


def test_many_threads_write_one_file(tmp_path: Path):
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(5):
                write_json(tmp_path / "f.json", {"number": number, "long": "x" * 50_000})
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert json.loads((tmp_path / "f.json").read_text())["number"] in range(24)
    assert [path.name for path in tmp_path.iterdir()] == ["f.json"]


@pytest.mark.parametrize("same", [True, False])
def test_two_renders_to_one_file(same: bool, tmp_path: Path, monkeypatch):
    """Both end well; what is left is a whole picture of one of them."""
    monkeypatch.setattr(large, "JOURNAL_SECONDS", 0)
    path, wss = tmp_path / "p.png", [WS, WS if same else WS + 0.5]
    wanted = []
    for number, ws in enumerate(wss):
        render_to_file(GENERATOR, ws, tmp_path / f"{number}.png", **SIZE)
        wanted.append((tmp_path / f"{number}.png").read_bytes())
        (tmp_path / f"{number}.png").unlink()
    barrier, errors = threading.Barrier(2), []

    def work(ws: torch.Tensor) -> None:
        first = True

        def together(done: int, total: int) -> None:
            nonlocal first
            if first:
                first = False
                barrier.wait(60)

        try:
            render_to_file(GENERATOR, ws, path, progress=together, **SIZE)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(ws,)) for ws in wss]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert path.read_bytes() in wanted
    assert [file.name for file in tmp_path.iterdir()] == ["p.png"]


class Stop(BaseException):
    pass


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_going_on_from_damaged_files(kind: str, tmp_path: Path, monkeypatch, caplog):
    """A byte of the partial or the journal changed, anywhere: the picture is whole all the same, and it is said."""
    monkeypatch.setattr(large, "JOURNAL_SECONDS", 0)
    path = tmp_path / f"p.{kind}"
    picture(path)
    good = path.read_bytes()
    path.unlink()

    def stop(done: int, total: int) -> None:
        if done > 0.9 * total:
            raise Stop

    rng, begun_anew = np.random.default_rng(0), 0
    for trial in range(12):
        with pytest.raises(Stop):
            render_to_file(GENERATOR, WS, path, progress=stop, **SIZE)
        (victim,) = tmp_path.glob(".*.partial" if trial % 2 else ".*.journal")
        data = bytearray(victim.read_bytes())
        match trial % 5:
            case 0:
                del data[int(rng.integers(len(data))) :]
            case 1:
                data = bytearray(b'{"job": 1, "rows": [], "size": -1, "parts": {}, "state": 5}')
            case _:
                data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        victim.write_bytes(data)
        caplog.clear()
        file = render_to_file(GENERATOR, WS, path, **SIZE)
        assert path.read_bytes() == good
        assert [found.name for found in tmp_path.iterdir()] == [path.name]
        if file.resumed_row == 0:
            begun_anew += 1
            assert "starting over" in caplog.text
        path.unlink()
    assert begun_anew >= 10


def test_targets_that_cannot_be_are_refused_before_the_work(tmp_path: Path, caplog, monkeypatch):
    monkeypatch.setattr("comfyui_creps.creps_core.checkpoints.load_builtin", lambda *_: pytest.fail("work was done"))
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "none" / "x.png")
    os.mkfifo(tmp_path / "pipe.png")
    for name, said in [
        ("folder.png", "it is a folder"),
        ("x" * 300 + ".png", "name is too long"),
        ("loop.png", "leads nowhere"),
        ("nowhere.png", "leads nowhere"),
        ("file/p.png", "is a file, not a folder"),
        ("pipe.png", "a device or a pipe"),
    ]:
        caplog.clear()
        assert cli.main(["render", "--builtin", "textures", "--size", "8x8", "--out", str(tmp_path / name)]) == 1
        assert said in caplog.text
        with pytest.raises(OSError, match=said):
            check_target(tmp_path / name)


def test_links_are_followed_and_long_names_have_room(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "f.json").write_text("old")
    (tmp_path / "link.json").symlink_to(tmp_path / "real" / "f.json")
    write_json(tmp_path / "link.json", {"a": 1})
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "real" / "f.json").read_text()) == {"a": 1}
    long = tmp_path / ("n" * 251 + ".png")
    picture(long)
    with Image.open(long) as image:
        assert image.size == (8, 300)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--size", "99999999999999999999x10"],
        ["--size", "131073x10"],
        ["--psi", "nan"],
        ["--psi", "inf"],
        ["--psi", "1e38"],
        ["--device", "nope"],
        ["--device", "meta"],
        ["--device", "\x1b[2J"],
        ["--window", "0,0,1e308,1"],
        ["--window", "nan,0,1,1"],
        ["--seed", str(10**30)],
    ],
    ids=str,
)
def test_arguments_beyond_use(arguments: list[str], tmp_path: Path, caplog):
    command = ["render", "--builtin", "textures", "--size", "8x8", "--out", str(tmp_path / "p.png"), *arguments]
    assert cli.main(command) == 1
    (record,) = caplog.records
    assert record.getMessage().replace("\x1b", "").isprintable()
    assert len(record.getMessage()) < 300
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--images", "inf"],
        ["--images", "nan"],
        ["--snapshot", "inf"],
        ["--tick", "1e400"],
        ["--resolution", "65536", "--channel-base", "65536"],
        ["--resolution", str(10**20)],
        ["--bandwidth", "nan"],
        ["--batch", str(10**12)],
        ["--g-lr", "inf"],
        ["--seed", str(1 << 63)],
    ],
    ids=str,
)
def test_arguments_of_a_training_beyond_use(arguments: list[str], tmp_path: Path, caplog, capsys):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    command = ["train", "--data", str(tmp_path), "--out", str(tmp_path / "run"), "--resolution", "16"]
    command += ["--channel-base", "128", "--channel-max", "8", "--images", "2", "--batch", "2", "--device", "cpu"]
    try:
        status = cli.main([*command, *arguments])
        said = caplog.records[-1].getMessage()
    except SystemExit as error:  # of argparse
        status = error.code
        said = capsys.readouterr().err.strip().splitlines()[-1]
    assert status in (1, 2)
    assert len(said) < 400
    assert not (tmp_path / "run" / "generator.safetensors").exists()


def test_only_regular_files_are_opened(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", ""):
        with pytest.raises(OSError, match=r"not a file|directory"):
            open_file(tmp_path / name)

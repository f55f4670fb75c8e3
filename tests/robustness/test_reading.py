"""Files that were made or changed to do harm: each ends in a documented error, in bounded time and memory."""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

import fuzz
import harness
import pytest
import torch
from comfyui_creps.common.errors import CheckpointError, LatentsError
from comfyui_creps.creps_core.checkpoints import load_generator
from comfyui_creps.creps_core.latents import load_latents
from hostile import hostile_files, packed, seeds, unpacked
from paths import GOLDEN
from readers import OF_KIND, READERS
from safetensors.torch import save

pytestmark = pytest.mark.skipif(not harness.AVAILABLE, reason="Linux: forks, and /proc")

SECONDS, MEGABYTES = 20.0, 256.0
"""Of the processor, generous: 1 second is promised, on a machine that does nothing else."""
NOT_LOOKED_AT = {
    "Adam of another shape", "Adam's count of another shape", "state of another shape", "infinite counter",
    "enormous counter", "counter of 1e30", "negative counter", "counter nan", "counter a text",
}  # fmt: skip
"""By those who take the networks of a snapshot."""


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    torch.set_num_threads(1)
    return seeds(tmp_path_factory.mktemp("good"))


def judged(outcomes: list[harness.Outcome]) -> None:
    """Nothing raw, crashed, hung or large; messages are short and printable."""
    bad = [
        outcome
        for outcome in outcomes
        if outcome.kind in harness.BAD
        or outcome.seconds > SECONDS
        or outcome.megabytes > MEGABYTES
        or (outcome.kind == "refused" and len(outcome.message) > harness.MESSAGE_LIMIT)
        or not outcome.message.isprintable()
    ]
    assert not bad, bad[:5]


def test_good_files_load(files: dict[str, Path]):
    cases = [(f"{kind} {name}", partial(READERS[name], path)) for kind, path in files.items() for name in OF_KIND[kind]]
    assert {outcome.kind for outcome in harness.isolated(cases)} == {"loaded"}


def test_files_made_by_hand(files: dict[str, Path], tmp_path: Path):
    """By every reader that may be given such a file."""
    cases = []
    for title, path in hostile_files(tmp_path, files).items():
        readers = ("networks",) if path.suffix == ".pkl" else ("networks", "snapshot", "latents", "directions")
        cases += [(f"{title}: {name}", partial(READERS[name], path)) for name in readers]
    outcomes = harness.isolated(cases)
    judged(outcomes)
    loaded = {outcome.name.split(": ")[0] for outcome in outcomes if outcome.kind == "loaded"}
    wrong = {title for title in loaded if any(word in title for word in ("nan", "counter", "shape", "float8"))}
    assert wrong <= NOT_LOOKED_AT


@pytest.mark.parametrize("kind", ["generator", "snapshot", "latents", "directions", "official"])
def test_mutated_files(kind: str, tmp_path: Path):
    good = fuzz.good_files(tmp_path / "good")
    outcomes = harness.isolated(fuzz.cases(good, tmp_path, kind, range(24)))
    judged(outcomes)
    assert sum(outcome.kind == "refused" for outcome in outcomes) >= 8


@pytest.mark.parametrize("kind", ["generator", "snapshot", "latents", "directions"])
def test_every_flipped_bit_is_noticed(kind: str, files: dict[str, Path], tmp_path: Path):
    data, path = files[kind].read_bytes(), tmp_path / "flipped.safetensors"

    def call(number: int) -> None:
        path.write_bytes(fuzz.flipped(data, number))
        READERS["networks" if kind == "snapshot" else OF_KIND[kind][0]](path)

    outcomes = harness.isolated([(f"{kind} {number}", partial(call, number)) for number in range(100)])
    assert {outcome.kind for outcome in outcomes} == {"refused"}


def test_a_file_that_is_cut_while_it_is_read(files: dict[str, Path], tmp_path: Path):
    """Mapped into memory, it would end the process."""
    official = (GOLDEN / "official_layout.pkl").read_bytes()
    own = files["generator"].read_bytes()
    path = tmp_path / "cut"

    def call(data: bytes) -> None:
        stop = threading.Event()

        def cut() -> None:
            while not stop.is_set():
                path.write_bytes(data)
                os.truncate(path, 9000)

        thread = threading.Thread(target=cut)
        thread.start()
        try:
            for _ in range(30):
                with suppress(CheckpointError):
                    load_generator(path)
        finally:
            stop.set()
            thread.join()

    outcomes = harness.isolated([("official", partial(call, official)), ("own", partial(call, own))], seconds=60)
    assert {outcome.kind for outcome in outcomes} == {"loaded"}, outcomes


def test_pipes_and_folders_are_not_waited_for(tmp_path: Path):
    pipe = tmp_path / "pipe.safetensors"
    os.mkfifo(pipe)
    cases = [
        (f"{name} {path.name}", partial(READERS[name], path))
        for name in ("draw", "networks", "snapshot", "latents", "directions")
        for path in (pipe, tmp_path, tmp_path / "none")
    ]
    assert {outcome.kind for outcome in harness.isolated(cases, seconds=10)} == {"refused"}


def test_messages_are_short_and_printable():
    for error in (CheckpointError, LatentsError):
        text = str(error("/a/path/of/a/file.pkl: " + "\x1b[2J\n\u202e" * 200 + ". Get the file again"))
        assert text.startswith("/a/path/of/a/file.pkl: ")
        assert text.endswith("Get the file again")
        assert len(text) <= 300
        assert text.isprintable()
    assert str(CheckpointError("d\u00e9j\u00e0.pkl: is empty")) == "d\u00e9j\u00e0.pkl: is empty"


def test_a_file_of_0_1_0_without_seal_loads(files: dict[str, Path], tmp_path: Path):
    """And not with a field that it did not have."""
    tensors, header = unpacked(files["latents"].read_bytes(), "creps_latents")
    old = {name: value for name, value in header.items() if name not in ("sha256", "header_sha256")}
    path = tmp_path / "old.safetensors"
    path.write_bytes(save(tensors, {"creps_latents": json.dumps(old)}))
    assert torch.equal(load_latents(path).ws, tensors["ws"])
    path.write_bytes(packed(tensors, header, "creps_latents").replace(b"header_sha256", b"header_sha255"))
    with pytest.raises(LatentsError, match="checksum"):
        load_latents(path)

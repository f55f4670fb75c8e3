"""Snapshots with harmless extras load; nothing of the extras is kept or run."""

from __future__ import annotations

import argparse
import datetime
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_creps.common.errors import CheckpointError
from comfyui_creps.creps_core.checkpoints import read_snapshot
from pickle_files import STOP, module, name, pairs, storage, tensor, text


def item(value: object) -> bytes:
    """The instructions that push a value: its pickle of protocol 2, without start and stop."""
    return pickle.dumps(value, 2)[2:-1]


MODEL = torch.nn.Linear(2, 2)
OPTIMIZER = torch.optim.Adam(MODEL.parameters())
EXTRAS = {
    "numbers as keys": {0: {"step": 1}, 1: {"step": 2}},
    "groups": OPTIMIZER.state_dict(),
    "array": np.arange(4),
    "random state": np.random.RandomState(0).get_state(),
    "random": np.random.RandomState(0),
    "path": Path("/data/pictures"),
    "date": datetime.datetime(2026, 1, 1),
    "duration": datetime.timedelta(1),
    "namespace": argparse.Namespace(lr=0.1, path=Path("x")),
}
NETWORK = module(_parameters=pairs(w=tensor(storage())))


@pytest.mark.parametrize("extra", EXTRAS)
def test_extras(tmp_path: Path, extra: str):
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x02" + pairs(extra=item(EXTRAS[extra]), G_ema=NETWORK) + STOP)
    network = read_snapshot(path).networks["G_ema"]
    assert network.tensors["w"].tolist() == [0, 0, 0, 0]


def test_wrapped_network(tmp_path: Path):
    state = pairs(_modules=pairs(module=NETWORK))
    wrapped = name("torch.nn.parallel.data_parallel", "DataParallel") + b")\x81" + state + b"b"
    (tmp_path / "x.pkl").write_bytes(b"\x80\x02" + pairs(G_ema=wrapped) + STOP)
    assert list(read_snapshot(tmp_path / "x.pkl").networks["G_ema"].tensors) == ["w"]


def test_a_path_of_the_pictures(tmp_path: Path):
    kwargs = pairs(path=item(Path("/data")), name=text("pictures"))
    (tmp_path / "x.pkl").write_bytes(b"\x80\x02" + pairs(training_set_kwargs=kwargs, G_ema=NETWORK) + STOP)
    assert read_snapshot(tmp_path / "x.pkl").training_set == {"path": None, "name": "pictures"}


def test_extras_are_no_weights(tmp_path: Path):
    bad = module(_parameters=pairs(w=item(np.arange(4))))
    (tmp_path / "x.pkl").write_bytes(b"\x80\x02" + pairs(G_ema=bad) + STOP)
    with pytest.raises(CheckpointError, match="neither tensor nor module as w"):
        read_snapshot(tmp_path / "x.pkl")

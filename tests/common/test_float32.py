"""The guard of torch's precision switches, on a machine without a GPU: the switches are there in every build."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from comfyui_creps.common.float32 import float32_products

CUDA, BACKENDS = torch.device("cuda"), torch.backends
LEGACY: dict[str, Any] = {
    "nothing": lambda: None,
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "allow_tf32": lambda: setattr(BACKENDS.cuda.matmul, "allow_tf32", True),
    "cudnn.allow_tf32": lambda: setattr(BACKENDS.cudnn, "allow_tf32", False),
}
NEW = ["", "cudnn", "cuda.matmul", "cudnn.conv", "mkldnn"]
NEW_SWITCHES = ["", "cuda.matmul", "cudnn", "cudnn.conv", "cudnn.rnn", "mkldnn", "mkldnn.matmul", "mkldnn.conv"]
has_new = hasattr(BACKENDS.cudnn, "fp32_precision")


def switch(name: str) -> Any:
    found: Any = BACKENDS
    for part in filter(None, name.split(".")):
        found = getattr(found, part)
    return found


def state() -> list[object]:
    """What a process can read of all switches; the older ones raise where both generations are mixed."""
    found: list[object] = [switch(name).fp32_precision for name in NEW_SWITCHES if has_new]
    for read in (
        lambda: BACKENDS.cuda.matmul.allow_tf32,
        lambda: BACKENDS.cudnn.allow_tf32,
        torch.get_float32_matmul_precision,
    ):
        try:
            found.append(read())
        except RuntimeError:
            found.append("raises")
    return found


@pytest.fixture(autouse=True)
def restored():
    values = {name: switch(name).fp32_precision for name in NEW_SWITCHES if has_new}
    yield
    torch.set_float32_matmul_precision("highest")
    BACKENDS.cudnn.allow_tf32 = True
    for name, value in values.items():
        switch(name).fp32_precision = value


def effective() -> list[object]:
    """What CUDA's kernels obey."""
    if has_new:
        return [switch(name).fp32_precision == "tf32" for name in ("cuda.matmul", "cudnn.conv", "cudnn.rnn")]
    return [BACKENDS.cuda.matmul.allow_tf32, BACKENDS.cudnn.allow_tf32, BACKENDS.cudnn.allow_tf32]


def check(tf32: bool) -> None:
    before = state()
    with float32_products(CUDA, tf32):
        assert effective() == [tf32] * 3
        inside = state()
        with float32_products(CUDA, not tf32):
            assert effective() == [not tf32] * 3
        assert state() == inside
    assert state() == before
    with pytest.raises(KeyError), float32_products(CUDA, tf32):
        raise KeyError
    assert state() == before


@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("choice", LEGACY)
def test_precision_holds_inside_the_block_and_is_restored(choice: str, tf32: bool):
    LEGACY[choice]()
    check(tf32)


@pytest.mark.skipif(not has_new, reason="torch before 2.9 has one generation of switches")
@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("name", NEW)
def test_the_newer_switches_are_guarded_too(name: str, tf32: bool):
    switch(name).fp32_precision = "tf32" if name != "mkldnn" else "bf16"
    check(tf32)
    if name != "cuda.matmul":
        switch("cudnn.conv").fp32_precision = "ieee"  # unlike the rest: even `cudnn.allow_tf32` raises now
        check(tf32)


def test_switches_are_restored_when_concurrent_blocks_end_in_any_order():
    before = state()
    first, second = float32_products(CUDA, True), float32_products(CUDA, False)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert state() == before


def test_other_devices_leave_the_switches_alone(monkeypatch):
    monkeypatch.setattr(BACKENDS, "cuda", None)
    monkeypatch.setattr(BACKENDS, "cudnn", None)
    with float32_products(torch.device("cpu"), True), float32_products(torch.device("mps"), False):
        pass

"""Makes the repository importable as `comfyui_creps`, as an installation does, and reports why tests were skipped."""

from __future__ import annotations

import runpy
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

_PACKAGE = runpy.run_path(str(Path(__file__).resolve().parent.parent / "benchmarks" / "package.py"))
"""Kept, because it owns the folder in which child processes find the package."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("CREPS")
    group.addoption("--update-api", action="store_true", help="test_browser: rewrite workflows/api/*.json")
    group.addoption("--update-object-info", action="store_true", help="test_host: rewrite tests/host/object_info.json")


_FIXTURES_OF_MARKERS = {"host": {"start_comfyui"}, "browser": {"ui", "graph_view", "browser"}}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by what they need: a ComfyUI, a Chromium. Those are slow, too."""
    for item in items:
        for marker, fixtures in _FIXTURES_OF_MARKERS.items():
            if fixtures & set(getattr(item, "fixturenames", ())):
                item.add_marker(marker)
                item.add_marker("slow")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One thread of torch: sums are equal to the last bit, and small tensors gain nothing from more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was skipped, grouped by the reason, which says what is missing and how to get it."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped)
    if reasons:
        terminalreporter.section("skipped")
    for reason, count in reasons.most_common():
        terminalreporter.line(f"{count:4} x {reason}")

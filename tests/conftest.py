"""Makes the repository importable as `comfyui_creps`, as an installation does, and reports why tests were skipped."""

from __future__ import annotations

import runpy
from collections import Counter
from pathlib import Path

import pytest

_PACKAGE = runpy.run_path(str(Path(__file__).resolve().parent.parent / "benchmarks" / "package.py"))
"""Kept, because it owns the folder in which child processes find the package."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("CREPS")
    group.addoption("--update-api", action="store_true", help="test_browser: rewrite workflows/api/*.json")
    group.addoption("--update-object-info", action="store_true", help="test_host: rewrite tests/host/object_info.json")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was skipped, grouped by the reason, which says what is missing and how to get it."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped)
    if reasons:
        terminalreporter.section("skipped")
    for reason, count in reasons.most_common():
        terminalreporter.line(f"{count:4} x {reason}")

"""Makes the root of the repository importable as `comfyui_creps`, as an installation does; says what was skipped."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _register_package() -> None:
    if importlib.util.find_spec("comfyui_creps") is not None:
        return
    spec = importlib.util.spec_from_file_location(
        "comfyui_creps", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["comfyui_creps"] = module
    spec.loader.exec_module(module)


_register_package()


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

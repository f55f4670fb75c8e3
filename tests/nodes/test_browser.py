"""Tier 1: the bundled workflows in ComfyUI's own web UI, in a real Chromium, without ComfyUI itself.

The UI learns the nodes from tests/host/object_info.json, which test_host.py compares with a running ComfyUI.
`pytest tests/nodes/test_browser.py --update-api` rewrites workflows/api/*.json, as recipes/templates.py does.
Pictures of the opened workflows go to CREPS_SCREENSHOTS, if set.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from paths import ROOT

if TYPE_CHECKING:
    from web_ui import WebUI

FOLDER = ROOT / "workflows"
WORKFLOWS = sorted(FOLDER.glob("*.json"))


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chosen = os.environ.get("CREPS_SCREENSHOTS")
    return Path(chosen).absolute() if chosen else tmp_path_factory.mktemp("screenshots")


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_workflow_opens_and_exports(
    file: Path, ui: WebUI, renderer: str, screenshots: Path, request: pytest.FixtureRequest
) -> None:
    ui.errors.clear()
    ui.load(json.loads(file.read_text(encoding="utf-8")), file.stem)
    ui.wait_for_renderer(vue=renderer == "vue")
    ui.screenshot(screenshots / f"{file.stem} ({renderer}).png")

    assert ui.missing_types() == []
    exported = ui.to_api()
    for node in exported.values():  # the page of 1.58 adds the pack and its version
        node["_meta"] = {"title": node["_meta"]["title"]}
    target = FOLDER / "api" / file.name
    if request.config.getoption("--update-api") and renderer == "classic":
        target.write_text(json.dumps(exported, indent=2) + "\n", encoding="utf-8")
    assert exported == json.loads(target.read_text(encoding="utf-8"))
    assert ui.errors == []


def test_api_folder_mirrors_the_workflows() -> None:
    assert {file.name for file in (FOLDER / "api").glob("*.json")} == {file.name for file in WORKFLOWS}

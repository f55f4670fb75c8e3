"""ComfyUI's web UI on the stub backend, for tests that need no ComfyUI."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from web_ui import WebUI


def unavailable(reason: str) -> NoReturn:
    """Skip; on CI, where the browser belongs to the set-up, fail."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


def need_browser() -> None:
    """Skip where there is no browser."""
    try:
        from web_ui import NO_CHROMIUM, find_chromium
    except ModuleNotFoundError as error:
        unavailable(f"{error}: pip install -e '.[test]'")
    if find_chromium() is None:
        unavailable(NO_CHROMIUM)


@contextmanager
def stub_ui(*, vue: bool, **options: Any) -> Iterator[WebUI]:
    """The UI in a browser, in the renderer of Vue components ("Nodes 2.0") or on the classic canvas.

    Args:
        vue: which renderer.
        options: of `StubBackend`.
    """
    need_browser()
    from stub_backend import OBJECT_INFO, StubBackend
    from web_ui import open_ui

    nodes = json.loads(OBJECT_INFO.read_text())["nodes"]
    with StubBackend(nodes, {"Comfy.VueNodes.Enabled": vue}, **options) as stub, open_ui(stub.url) as ui:
        yield ui


def renderer_of(ui: WebUI) -> str:
    """classic or vue."""
    return "vue" if ui.page.evaluate("() => app.ui.settings.getSettingValue('Comfy.VueNodes.Enabled')") else "classic"

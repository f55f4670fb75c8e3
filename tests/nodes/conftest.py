"""The real ComfyUI, and its page with a stub server, for all tests of nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import stub_ui
from paths import ROOT

if TYPE_CHECKING:
    from comfy_host import ComfyClient, ComfyHost
    from web_ui import WebUI


@pytest.fixture(scope="session")
def start_comfyui() -> Callable[[Path], AbstractContextManager[ComfyHost]]:
    """Starts a ComfyUI with this pack, in a folder for models, input, output and user files."""
    pytest.importorskip("websocket", reason="pip install -e '.[test]'")
    from comfy_host import NO_HOST, ComfyHost, find_comfyui

    comfyui = find_comfyui()
    if comfyui is None:
        pytest.skip(NO_HOST)
    return lambda base: ComfyHost(comfyui, pack=ROOT, base=base)


@pytest.fixture
def client(host: ComfyHost) -> Iterator[ComfyClient]:
    """A client of the module's `host`."""
    from comfy_host import ComfyClient

    with ComfyClient(host.address) as connected:
        yield connected


@pytest.fixture(scope="module", params=["classic", "vue"])
def renderer(request: pytest.FixtureRequest) -> str:
    """The two ways in which the page draws nodes: the canvas, and Vue components ("Nodes 2.0")."""
    return request.param


@pytest.fixture(scope="module")
def ui(renderer: str) -> Iterator[WebUI]:
    """ComfyUI's page in a Chromium, with a server that answers as the host would."""
    with stub_ui(vue=renderer == "vue") as web_ui:
        yield web_ui

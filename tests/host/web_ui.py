"""ComfyUI's web UI in a headless Chromium: find the browser, open the page, load workflows into it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import ConsoleMessage, Page, ViewportSize, sync_playwright

NO_CHROMIUM = (
    "no Chromium found: `apt-get install chromium` (or have a chromium-browser or google-chrome on PATH), "
    "or set CHROMIUM to its executable"
)
# The host rule keeps browser and page off the network: the UI would ask comfy.org and others, which is no
# part of a test and fails noisily offline.
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
BOOT_TIMEOUT_MS = 120_000
VIEWPORT: ViewportSize = {"width": 1600, "height": 900}

# The start-up ends with a default workflow in a tab; one that is loaded before would share that tab.
_READY = "() => window.app?.vueAppReady && app.extensionManager?.workflow?.activeWorkflow"

# Types without a definition among all nodes of the opened workflow, those inside subgraphs included.
_MISSING = """() => [app.rootGraph, ...app.rootGraph.subgraphs.values()]
    .flatMap(graph => graph.nodes)
    .map(node => node.type)
    .filter(type => !(type in LiteGraph.registered_node_types))"""

# As text, or Playwright would turn JavaScript's undefined into null instead of leaving it out.
_EXPORT = "async () => JSON.stringify((await app.graphToPrompt()).output)"

# The animation of FitView has ended: the view has not moved for some frames.
_VIEW_AT_REST = """() => new Promise(resolve => {
    let last = "", still = 0;
    const look = () => {
        const view = JSON.stringify([app.canvas.ds.scale, ...app.canvas.ds.offset]);
        still = view === last ? still + 1 : 0;
        last = view;
        still < 10 ? requestAnimationFrame(look) : resolve();
    };
    look();
})"""


def find_chromium() -> str | None:
    """Path of a Chromium: the CHROMIUM variable, else the usual names on PATH."""
    chosen = os.environ.get("CHROMIUM")
    names = [chosen] if chosen else ["chromium", "chromium-browser", "google-chrome"]
    return next(filter(None, map(shutil.which, names)), None)


class WebUI:
    """One page with the UI in it. `errors` collects what the page complains about once it has started."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(f"pageerror: {error}"))
        page.goto(url)
        page.wait_for_function(_READY, timeout=BOOT_TIMEOUT_MS)
        # The start-up has console errors of its own (optional files answered by 404): listen from here on.
        page.on("console", self._on_console)

    def _on_console(self, message: ConsoleMessage) -> None:
        # Files that did not arrive are the network's or the stub's matter, not the workflow's.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.errors.append(f"console: {message.text}")

    def load(self, workflow: dict[str, Any], name: str) -> None:
        """Open a workflow in UI format as File > Open does."""
        self.page.evaluate("([graph, name]) => app.loadGraphData(graph, true, true, name)", [workflow, name])

    def screenshot(self, file: Path) -> None:
        """Save the page as a picture, with the whole workflow in view."""
        # An App hides the canvas, and fitting to an empty canvas would make the view NaN.
        if self.page.evaluate("() => app.canvas.canvas.width > 0"):
            self.page.evaluate("() => app.extensionManager.command.execute('Comfy.Canvas.FitView')")
            self.page.evaluate(_VIEW_AT_REST)
        self.page.screenshot(path=file)

    def missing_types(self) -> list[str]:
        """Types of nodes for which the UI has no definition."""
        return self.page.evaluate(_MISSING)

    def wait_for_renderer(self, vue: bool) -> None:
        """Wait until the nodes are drawn as Vue components; or, if not `vue`, as strokes on the canvas."""
        drawn = "vue => (document.querySelector('[data-node-id]') !== null) === vue"
        self.page.wait_for_function(drawn, arg=vue)

    def saved_values(self, type: str) -> list[Any]:
        """The values of the one node of a type, as a saved workflow holds them."""
        find = "type => JSON.stringify(app.rootGraph.nodes.find(node => node.type === type).serialize().widgets_values)"
        return json.loads(self.page.evaluate(find, type))

    def to_api(self) -> dict[str, Any]:
        """The opened workflow in API format, by the UI's own export."""
        return json.loads(self.page.evaluate(_EXPORT))


@contextmanager
def open_ui(url: str) -> Iterator[WebUI]:
    """The UI at `url` in a fresh browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        try:
            yield WebUI(browser.new_page(viewport=VIEWPORT), url)
        finally:
            browser.close()

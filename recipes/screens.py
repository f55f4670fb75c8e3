"""Looks at the templates in a real ComfyUI and its page, at 1366 x 768, before and after a run, in both renderers:

    COMFYUI_DIR=~/ComfyUI python recipes/screens.py OUT [01 02 ...] [--minute]

Writes OUT/NAME (renderer) before.png and after.png, and with --minute six pictures of a newcomer's first minute. They
are for eyes: nothing is judged here.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from template_graph import ROOT
from templates import FOLDER

sys.path.append(str(ROOT / "tests" / "host"))
from comfy_host import NO_HOST, ComfyClient, ComfyHost, find_comfyui
from graph_view import GraphView
from web_ui import WebUI, open_ui

WINDOW = {"width": 1366, "height": 768}
QUIET = {"Comfy.TutorialCompleted": True, "Comfy.Notification.ShowVersionUpdates": False}
LONGEST_S = 900


class Screens:
    """A page at ComfyUI, and a folder for what it shows."""

    def __init__(self, ui: WebUI, client: ComfyClient, out: Path) -> None:
        self.ui, self.page, self.client, self.out = ui, ui.page, client, out
        self.page.set_viewport_size(WINDOW)

    def shoot(self, name: str) -> None:
        """Keep what is on screen."""
        self.page.mouse.move(700, 740)
        self.page.screenshot(path=self.out / f"{name}.png")

    def open(self, name: str, vue: bool) -> None:
        """A template, as the page fits it into the window."""
        self.ui.load(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")), name)
        self.ui.wait_for_renderer(vue)
        GraphView(self.ui).settle()

    def run(self, *, wait: bool = True) -> None:
        """Press Run."""
        before = len(self.client.get("history"))
        self.page.evaluate("() => app.queuePrompt(0, 1)")
        for _ in range(LONGEST_S * 4 if wait else 0):
            if len(self.client.get("history")) > before:
                break
            self.page.wait_for_timeout(250)
        self.page.wait_for_timeout(1500 if wait else 400)

    def minute(self) -> None:
        """From the list of templates to the second picture, and into the explorer."""
        self.page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
        self.page.wait_for_timeout(4000)
        extension = self.page.get_by_text("ComfyUI-CREPS").first
        if extension.is_visible():
            extension.click()
            self.page.wait_for_timeout(3000)
        self.shoot("minute 1, templates")
        self.page.keyboard.press("Escape")
        self.open("01 First picture", vue=False)
        self.shoot("minute 2, opened")
        self.run()
        self.shoot("minute 3, run")
        self.run()
        self.shoot("minute 4, run again")
        self.page.evaluate(
            """() => {
                const node = app.rootGraph.nodes.find(one => one.type === "CREPS_Render");
                node.widgets.find(one => one.name === "preset").callback("4K 16:9: 3840 x 2160");
            }"""
        )
        self.run(wait=False)
        self.page.wait_for_timeout(1200)
        self.shoot("minute 5, larger, while it grows")
        self.client.interrupt()
        self.open("00 Explore", vue=False)
        self.page.wait_for_timeout(6000)
        self.shoot("minute 6, explore")


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", help="beginnings of the templates' names; without any, all")
    parser.add_argument("--minute", action="store_true")
    options = parser.parse_args()
    comfyui = find_comfyui()
    if comfyui is None:
        parser.error(NO_HOST)
    options.out.mkdir(parents=True, exist_ok=True)
    files = [file.stem for file in sorted(FOLDER.glob("*.json"))]
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "comfyui"
        (base / "user" / "default").mkdir(parents=True)
        (base / "user" / "default" / "comfy.settings.json").write_text(json.dumps(QUIET))
        with ComfyHost(comfyui, pack=ROOT, base=base) as host, ComfyClient(host.address) as client:
            for vue in (False, True):
                client._request("api/settings", {"Comfy.VueNodes.Enabled": vue})
                with open_ui(f"http://{host.address}/") as ui:
                    screens = Screens(ui, client, options.out)
                    if options.minute and not vue:
                        screens.minute()
                    chosen = [name for name in files if any(map(name.startswith, options.names))]
                    for name in chosen or ([] if options.minute or options.names else files):
                        screens.open(name, vue)
                        renderer = "vue" if vue else "classic"
                        screens.shoot(f"{name} ({renderer}) before")
                        screens.run()
                        screens.shoot(f"{name} ({renderer}) after")


if __name__ == "__main__":
    main()

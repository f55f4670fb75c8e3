"""What the pack adds to nodes in ComfyUI's own web UI, in both renderers: sizes by name, a contact sheet to click, the
words under which nodes are found."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from paths import ROOT

if TYPE_CHECKING:
    from web_ui import WebUI

FOLDER = ROOT / "workflows"
_NODE = "const node = app.rootGraph.nodes.find(one => one.type === type);"
_VALUES = f"type => {{ {_NODE} return Object.fromEntries(node.widgets.map(one => [one.name, one.value])); }}"
_SET = f"""([type, name, value]) => {{
    {_NODE}
    const widget = node.widgets.find(one => one.name === name);
    widget.value = value;
    widget.callback?.(value);
}}"""
_EXECUTED = f"""([type, output]) => {{
    {_NODE}
    const id = String(node.id);
    app.api.dispatchCustomEvent("executed", {{ node: id, display_node: id, prompt_id: "pretended", output }});
}}"""
_SEARCH = """words => {
    const stores = document.querySelector("#vue-app").__vue_app__.config.globalProperties.$pinia._s;
    return stores.get("nodeDef").nodeSearchService.searchNode(words).map(node => node.name);
}"""


def opened(ui: WebUI, name: str) -> dict[str, Any]:
    workflow = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    ui.errors.clear()
    ui.load(workflow, name)
    ui.page.wait_for_function("() => app.rootGraph.nodes.length")
    return workflow


def test_a_size_by_name_fills_width_and_height(ui: WebUI) -> None:
    """Workflows and prompts hold the numbers, in the places where they always were."""
    workflow = opened(ui, "01 First picture")
    (before,) = (node["widgets_values"] for node in workflow["nodes"] if node["type"] == "CREPS_Render")
    assert ui.page.evaluate(_VALUES, "CREPS_Render")["preset"] == "by hand"
    assert ui.saved_values("CREPS_Render") == before
    ui.page.evaluate(_SET, ["CREPS_Render", "preset", "A4, 300 dpi: 2480 x 3508"])
    shown = ui.page.evaluate(_VALUES, "CREPS_Render")
    assert (shown["width"], shown["height"]) == (2480, 3508)
    assert ui.saved_values("CREPS_Render") == [2480, 3508, *before[2:]]
    assert "preset" not in ui.to_api()["3"]["inputs"]

    ui.load(json.loads(ui.page.evaluate("() => JSON.stringify(app.rootGraph.serialize())")), "again")
    shown = ui.page.evaluate(_VALUES, "CREPS_Render")
    assert (shown["preset"], shown["fit"]) == ("A4, 300 dpi: 2480 x 3508", before[2])
    ui.page.evaluate(_SET, ["CREPS_Render", "width", 2481])
    assert ui.page.evaluate(_VALUES, "CREPS_Render")["preset"] == "by hand"
    assert ui.errors == []


def test_a_click_on_the_sheet_chooses(ui: WebUI) -> None:
    opened(ui, "06 Style mixing sheet")
    cells = [[20 + 200 * i, 30 + 150 * j, 180, 120] for j in range(2) for i in range(3)]
    image = {"filename": "640x320.png", "subfolder": "", "type": "temp"}
    page = {"image": image, "width": 640, "height": 320, "cells": cells}
    ui.page.evaluate(_EXECUTED, ["CREPS_ContactSheet", {"creps_sheet": [page]}])
    sheet = ui.page.locator(".creps-sheet")
    ui.page.wait_for_function("() => document.querySelector('.creps-sheet img')?.complete")
    box = sheet.bounding_box()
    assert box is not None
    scale = min(box["width"] / 640, box["height"] / 320)
    left, top = box["x"] + (box["width"] - 640 * scale) / 2, box["y"] + (box["height"] - 320 * scale) / 2
    for i, (x, y, width, height) in reversed(list(enumerate(cells))):
        ui.page.mouse.click(left + scale * (x + width * 0.7), top + scale * (y + height * 0.3))
        assert ui.page.evaluate(_VALUES, "CREPS_ContactSheet")["choice"] == i
        assert ui.to_api()["5"]["inputs"]["choice"] == i
    ui.page.mouse.click(left + scale * 10, top + scale * 10)  # between pictures
    assert ui.page.evaluate(_VALUES, "CREPS_ContactSheet")["choice"] == 0
    assert ui.saved_values("CREPS_ContactSheet") == [160, 0, 1, 0]
    assert ui.errors == []


def test_the_thumbnail_follows_the_favourite(ui: WebUI) -> None:
    """Set by hand, and by a workflow that is loaded."""
    ui.errors.clear()
    ui.load({"version": 0.4, "nodes": [], "links": []}, "empty")
    thumbnail = "() => document.querySelector('.creps-favourite img')?.src"
    shows = "name => (document.querySelector('.creps-favourite img')?.src ?? '').includes(`filename=${name}.png`)"
    ui.page.evaluate(
        """() => {
            const node = LiteGraph.createNode("CREPS_LoadFavourite");
            app.rootGraph.add(node);
            node.widgets.find(one => one.name === "name").value = "";
        }"""
    )
    ui.page.evaluate(_SET, ["CREPS_LoadFavourite", "name", "64x32"])
    ui.page.wait_for_function(shows, arg="64x32")
    ui.page.evaluate(_SET, ["CREPS_LoadFavourite", "name", "32x64"])
    ui.page.wait_for_function(shows, arg="32x64")
    ui.load(json.loads(ui.page.evaluate("() => JSON.stringify(app.rootGraph.serialize())")), "again")
    ui.page.wait_for_function(shows, arg="32x64")
    assert ui.page.evaluate(thumbnail)
    assert ui.errors == []


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("generate image", "CREPS_Render"),
        ("random picture", "CREPS_SampleLatents"),
        ("landscape", "CREPS_LoadGenerator"),
        ("face", "CREPS_LoadGenerator"),
        ("seed", "CREPS_SampleSeeds"),
        ("pan", "CREPS_View"),
        ("crop", "CREPS_View"),
        ("favorite", "CREPS_LoadFavourite"),
    ],
)
def test_a_word_finds_its_node(ui: WebUI, words: str, wanted: str) -> None:
    """The first of ours: the page puts nodes that bear the word in their own name before all others."""
    ours = [name for name in ui.page.evaluate(_SEARCH, words) if name.startswith("CREPS_")]
    assert ours[0] == wanted


_SAVERS = ["CREPS_RenderToFile", "CREPS_SaveGenerator", "CREPS_SaveLatents", "CREPS_SaveDirections"]


@pytest.mark.parametrize("type", _SAVERS)
def test_names_of_files_are_filled_in_as_in_save_image(ui: WebUI, type: str) -> None:
    """`%date:...%` and `%Node.widget%` become what the page makes of them for Save Image; the widget keeps them."""
    opened(ui, "01 First picture")
    prefix = "on-%date:yyyy-MM-dd%/%CREPS_Render.width%-%nothing%"
    own, ours = ui.page.evaluate(
        """([types, prefix]) => types.map(type => {
            const node = window.LiteGraph.createNode(type);
            app.rootGraph.add(node);
            node.widgets.find(one => one.name === "filename_prefix").value = prefix;
            return String(node.id);
        })""",
        [["SaveImage", type], prefix],
    )
    days = {f"{datetime.now():%Y-%m-%d}"}
    prompt = ui.to_api()
    days.add(f"{datetime.now():%Y-%m-%d}")
    width = ui.page.evaluate(_VALUES, "CREPS_Render")["width"]
    assert prompt[ours]["inputs"]["filename_prefix"] in {f"on-{day}/{width}-%nothing%" for day in days}
    assert prompt[ours]["inputs"]["filename_prefix"] == prompt[own]["inputs"]["filename_prefix"]
    assert ui.page.evaluate(_VALUES, type)["filename_prefix"] == prefix
    assert ui.errors == []

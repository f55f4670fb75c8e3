"""The bundled workflows as one meets them, in ComfyUI's own web UI: text that is drawn, nothing over anything else.

In both renderers, at three sizes of the window, before a run and after one, which is pretended on the stub backend (a
picture or a text wherever there will be one).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import renderer_of, stub_ui
from paths import ROOT
from template_graph import COLOURS, NOTE_WIDTH, PREVIEWED
from templates import TEMPLATES, Template

if TYPE_CHECKING:
    from graph_view import GraphView

FOLDER = ROOT / "workflows"
WORKFLOWS = sorted(FOLDER.glob("*.json"))
WINDOWS = [(1366, 768), (1600, 1000), (1920, 1080)]
EXTENT = 1620, 940  # about 1600 x 900: at 1366 x 768 a scale of 0.6
SCALE = 0.6  # pixels per unit. The page draws no text below 8 pixels, which is 0.57


@pytest.fixture(scope="module", params=["classic", "vue"])
def graph_view(request: pytest.FixtureRequest) -> Iterator[GraphView]:
    with stub_ui(vue=request.param == "vue") as ui:
        from graph_view import GraphView

        yield GraphView(ui)


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_nothing_covers_anything(graph_view: GraphView, file: Path) -> None:
    """And the graph is small enough for its text to be drawn."""
    width, height = WINDOWS[0]
    graph_view.page.set_viewport_size({"width": width, "height": height})
    graph_view.ui.errors.clear()
    graph_view.ui.load(json.loads(file.read_text(encoding="utf-8")), file.stem)
    graph_view.ui.wait_for_renderer(vue=renderer_of(graph_view.ui) == "vue")
    graph_view.settle()
    for size, most in zip(graph_view.extent(), EXTENT, strict=True):
        assert size <= most, graph_view.extent()
    assert graph_view.scale() >= SCALE  # as the page opens it in the smallest window
    for text, hidden in graph_view.notes():
        assert hidden <= 1, f"{hidden} units of the note {text!r} are out of sight"
    assert graph_view.overlaps() == []
    graph_view.pretend_run(PREVIEWED)
    for window in WINDOWS:
        graph_view.resize(*window)
        assert graph_view.overlaps() == [], f"after a run, at {window}"
    assert graph_view.ui.errors == []


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_a_note_says_what_one_sees_what_to_try_and_what_comes_next(file: Path) -> None:
    nodes = json.loads(file.read_text(encoding="utf-8"))["nodes"]
    (note,) = (node for node in nodes if node["type"] == "MarkdownNote")
    assert note["size"][0] == NOTE_WIDTH
    assert note["pos"][0] <= min(node["pos"][0] for node in nodes)
    assert {key: note[key] for key in COLOURS} == COLOURS
    (text,) = note["widgets_values"]
    assert text.startswith("# ")
    assert re.findall(r"^### (\d)\. ", text, re.MULTILINE) == ["1", "2", "3"]
    following = WORKFLOWS[(WORKFLOWS.index(file) + 1) % len(WORKFLOWS)].stem
    assert text.endswith(f"Next: **{following}**")


def test_names_sort_as_they_are_meant() -> None:
    assert [file.stem[:3] for file in WORKFLOWS] == [f"{i:02} " for i in range(len(WORKFLOWS))]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_files_are_what_the_script_writes(template: Template) -> None:
    """After a change:  python recipes/templates.py"""
    graph, _ = template.graph()
    for folder, content in ((FOLDER, graph.workflow()), (FOLDER / "api", graph.prompt())):
        assert json.loads((folder / f"{template.name}.json").read_text(encoding="utf-8")) == content


def test_the_first_picture_is_another_one_on_each_run() -> None:
    """Else a second press on Run changes nothing."""
    nodes = json.loads((FOLDER / "01 First picture.json").read_text(encoding="utf-8"))["nodes"]
    (sampler,) = (node for node in nodes if node["type"] == "CREPS_SampleLatents")
    assert sampler["widgets_values"][1] == "increment"


def test_a_missing_checkpoint_has_an_address() -> None:
    text = (FOLDER / "10 Official checkpoint.json").read_text(encoding="utf-8")
    assert "](https://github.com/VinAIResearch/CREPS)" in text

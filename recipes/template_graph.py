"""Graphs of ComfyUI as Python: nodes by name, laid out in columns, written as workflow and as prompt.

The interfaces of nodes come from tests/host/object_info.json, which a test holds against a running ComfyUI. Positions
are computed here: a column is as wide as its widest node, and under each node there is room for what it will show, in
both renderers of the page (tests/nodes/test_layout.py measures it there).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VERSION = "0.2.0"
CORE = "0.33.0"

WIDTH = 230  # of a node, if not said otherwise
NOTE_WIDTH = 420
GAP = 28
TITLE = 30  # above the position of a node
BADGE = 22  # above the title, on the canvas
COLOURS = {"color": "#233", "bgcolor": "#355"}  # of notes
WIDGETS = {"INT", "FLOAT", "BOOLEAN", "STRING", "COMBO", "COMFY_DYNAMICCOMBO_V3", "CREPS_SCENE"}
PREVIEWED = {  # show the picture while they run, and keep it
    "CREPS_Render",
    "CREPS_RenderPath",
    "CREPS_RenderForUpscaling",
    "CREPS_RenderToFile",
    "CREPS_ProjectImage",
    "CREPS_TrainGenerator",
}

PRESETS = {"CREPS_Render", "CREPS_RenderPath", "CREPS_RenderForUpscaling", "CREPS_RenderToFile"}
SHEETS = {"CREPS_ContactSheet"}

_INFO: dict[str, Any] = json.loads((ROOT / "tests" / "host" / "object_info.json").read_text())["nodes"]


@dataclass(frozen=True)
class Output:
    """One output of a node."""

    node: Node
    slot: int


@dataclass(eq=False)
class Node:
    """A node of a `Graph`: what it is set to, and what feeds it."""

    id: int
    type: str
    title: str
    values: dict[str, Any]
    links: dict[str, Output]
    width: int = WIDTH
    height: int = 0
    collapsed: bool = False
    properties: dict[str, Any] = field(default_factory=dict)
    position: tuple[int, int] = (0, 0)

    @property
    def info(self) -> dict[str, Any]:
        return _INFO[self.type]

    def out(self, name: str) -> Output:
        """An output by its name."""
        return Output(self, self.info["output_name"].index(name))

    def inputs(self) -> Iterator[tuple[str, list[Any], bool]]:
        """(name, specification, whether optional) of each input."""
        for section in ("required", "optional"):
            for name, spec in self.info["input"].get(section, {}).items():
                yield name, spec, section == "optional"

    def sockets(self) -> list[tuple[str, str, bool]]:
        """(name, type, whether optional) of each input that is no widget; growing ones with one to spare."""
        found = []
        for name, spec, optional in self.inputs():
            if spec[0] == "COMFY_AUTOGROW_V3":
                template = spec[1]["template"]
                ((_, inner),) = template["input"]["required"].items()
                linked = sum(link.startswith(f"{name}.") for link in self.links)
                for i in range(max(linked + 1, template["min"])):
                    found.append((f"{name}.{template['prefix']}{i}", inner[0], i >= template["min"]))
            elif kind(spec) not in WIDGETS:
                found.append((name, spec[0], optional))
        return found

    def widgets(self) -> list[tuple[str, list[Any], bool, Any]]:
        """(name, specification, whether optional, value) of each widget, those inside dynamic combos included."""
        found = []

        def add(name: str, spec: list[Any], optional: bool) -> None:
            value = self.values[name] if name in self.values else default(spec)
            found.append((name, spec, optional, value))
            if spec[0] == "COMFY_DYNAMICCOMBO_V3":
                (inner,) = (option["inputs"] for option in spec[1]["options"] if option["key"] == value)
                for section in ("required", "optional"):
                    for key, nested in inner.get(section, {}).items():
                        add(f"{name}.{key}", nested, section == "optional")

        for name, spec, optional in self.inputs():
            if kind(spec) in WIDGETS:
                add(name, spec, optional)
        return found

    def heights(self) -> tuple[int, int]:
        """Of the node before a run and after it, at least, without its title."""
        rows = max(len(self.sockets()), len(self.info["output_name"]))
        canvas, vue = 14 + 20 * rows, 56 + 24 * rows
        for kinds, row in ((PRESETS, 30), (SHEETS, 184)):  # widgets that the page adds
            canvas, vue = (height + row * (self.type in kinds) for height in (canvas, vue))
        for _, spec, _, _ in self.widgets():
            options = spec[1] if len(spec) > 1 else {}
            tall = bool(options.get("multiline"))
            canvas += 24 + 30 * tall + 24 * ("control_after_generate" in options)
            vue += 0 if options.get("advanced") else 30 + 46 * tall
        before = max(canvas, vue, self.height)
        return before, max(before, canvas + 216, vue + 250) if self.type in PREVIEWED else before


def kind(spec: list[Any]) -> str:
    """The type of an input; a list of choices is a COMBO."""
    return spec[0] if isinstance(spec[0], str) else "COMBO"


def default(spec: list[Any]) -> Any:
    """What the page sets a widget to."""
    options = spec[1] if len(spec) > 1 else {}
    if "default" in options:
        return options["default"]
    choices = spec[0] if isinstance(spec[0], list) else options.get("options", [])
    first = choices[0] if choices else ""
    return first["key"] if isinstance(first, dict) else first


class Graph:
    """Nodes, links, and a note at the left."""

    def __init__(self, note: str = "") -> None:
        self.nodes: list[Node] = []
        self.note = note
        self.extra: dict[str, Any] = {}

    def add(
        self,
        type: str,
        title: str = "",
        *,
        size: tuple[int, int] = (WIDTH, 0),
        collapsed: bool = False,
        properties: dict[str, Any] | None = None,
        **inputs: Any,
    ) -> Node:
        """A node, of this width and at least this height.

        Inputs are values, nodes (their first output), outputs, or for growing inputs lists of these; what is not given
        has its default. What a seed becomes after a run is its name with `_then`.

        Raises:
            KeyError: there is no such node, or no such input.
        """
        node = Node(len(self.nodes) + 1, type, title, {}, {}, *size, collapsed, properties or {})
        names = {name: spec for name, spec, _ in node.inputs()}
        for name, value in inputs.items():
            if name.removesuffix("_then") not in names:
                raise KeyError(f"{type} has no input {name}")
            if isinstance(value, list) and names[name][0] == "COMFY_AUTOGROW_V3":
                for i, one in enumerate(value):
                    node.links[f"{name}.{names[name][1]['template']['prefix']}{i}"] = _output(one)
            elif isinstance(value, Node | Output):
                node.links[name] = _output(value)
            else:
                node.values[name] = value
        self.nodes.append(node)
        return node

    def lay(self, *columns: Sequence[Node]) -> None:
        """Put nodes into columns, from the left to the right, beside the note."""
        x = NOTE_WIDTH + GAP if self.note else 0
        for column in columns:
            y = 0
            for node in column:
                node.position = x, y
                _, after = node.heights()
                y += (0 if node.collapsed else after + BADGE) + GAP // 2 + TITLE
            x += max(node.width for node in column) + GAP

    # Files

    def workflow(self) -> dict[str, Any]:
        """What the page opens."""
        links: list[list[Any]] = []
        outputs: dict[tuple[int, int], list[int]] = {}
        nodes = [self._entry(node, links, outputs) for node in self.nodes]
        for node, entry in zip(self.nodes, nodes, strict=True):
            for slot, output in enumerate(entry["outputs"]):
                output["links"] = outputs.get((node.id, slot))
        if self.note:
            nodes.append(self._note_entry())
        return {
            "id": "00000000-0000-0000-0000-000000000000",
            "revision": 0,
            "last_node_id": len(nodes),
            "last_link_id": len(links),
            "nodes": nodes,
            "links": links,
            "groups": [],
            "config": {},
            "extra": self.extra,
            "version": 0.4,
        }

    def prompt(self) -> dict[str, Any]:
        """What the server runs: the workflow in API format, as the page exports it."""
        return {
            str(node.id): {
                "inputs": {
                    **{name: value for name, _, _, value in node.widgets() if name not in node.links},
                    **{name: [str(output.node.id), output.slot] for name, output in node.links.items()},
                },
                "class_type": node.type,
                "_meta": {"title": node.title or node.info["display_name"]},
            }
            for node in self.nodes
        }

    def _entry(self, node: Node, links: list[list[Any]], outputs: dict[tuple[int, int], list[int]]) -> dict[str, Any]:
        entries: list[dict[str, Any]] = []
        for name, type, optional in node.sockets():
            entries.append({"localized_name": name, "name": name, **({"shape": 7} if optional else {}), "type": type})
            if "." in name:
                entries[-1]["label"] = name.partition(".")[2]
        values: list[Any] = []
        named: dict[str, Any] = {}
        for name, spec, optional, value in node.widgets():
            values.append(value)
            named[name] = value
            if len(spec) > 1 and "control_after_generate" in spec[1]:
                values.append(node.values.get(f"{name}_then", "fixed"))
            if len(spec) > 1 and spec[1].get("socketless"):
                continue
            shape = {"shape": 7} if optional else {}
            widget = {"widget": {"name": name}}
            entries.append({"localized_name": name, "name": name, **shape, "type": kind(spec), **widget})
        for slot, entry in enumerate(entries):
            entry["link"] = None
            if (output := node.links.get(entry["name"])) is not None:
                links.append([len(links) + 1, output.node.id, output.slot, node.id, slot, self._type(output)])
                outputs.setdefault((output.node.id, output.slot), []).append(len(links))
                entry["link"] = len(links)
        ours = node.type.startswith("CREPS_")
        origin = {"cnr_id": "creps", "ver": VERSION} if ours else {"cnr_id": "comfy-core", "ver": CORE}
        return {
            "id": node.id,
            "type": node.type,
            "pos": list(node.position),
            "size": [node.width, node.heights()[0]],
            "flags": {"collapsed": True} if node.collapsed else {},
            "order": node.id - 1,
            "mode": 0,
            "inputs": entries,
            "outputs": [
                {"localized_name": name, "name": name, "type": type, "links": None}
                for name, type in zip(node.info["output_name"], node.info["output"], strict=True)
            ],
            "title": node.title or node.info["display_name"],
            "properties": {"Node name for S&R": node.type, **origin, **node.properties},
            "widgets_values": values,
            "widgets_values_named": named,
        }

    @staticmethod
    def _type(output: Output) -> str:
        return output.node.info["output"][output.slot]

    def _note_entry(self) -> dict[str, Any]:
        return {
            "id": len(self.nodes) + 1,
            "type": "MarkdownNote",
            "pos": [0, 0],
            "size": [NOTE_WIDTH, note_height(self.note)],
            "flags": {},
            "order": 0,
            "mode": 0,
            "inputs": [],
            "outputs": [],
            "title": "Note",
            "properties": {},
            "widgets_values": [self.note],
            **COLOURS,
        }


def note_height(text: str) -> int:
    """Room for a note of `NOTE_WIDTH`: lines as both renderers break them, at most."""
    height = 24
    for line in filter(None, text.splitlines()):
        letters, line_height, margin = next(sizes for start, sizes in _LINES.items() if line.startswith(start))
        height += -(-len(line) // letters) * line_height + margin
    return height


_LINES = {"### ": (58, 20, 14), "# ": (34, 27, 20), "": (70, 17, 14)}
"""How a line begins: letters in it, its height, the room around the paragraph."""


def _output(value: Node | Output) -> Output:
    return value if isinstance(value, Output) else Output(value, 0)

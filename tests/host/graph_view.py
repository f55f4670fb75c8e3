"""The opened graph as one sees it: how large it is, and what lies over what, before a run and after a pretended one."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from web_ui import WebUI

TITLE = 30  # above a node's position
PICTURE = "1024x1024.png"

# With the sizes that the renderer has given to the nodes.
_BOXES = """() => app.rootGraph.nodes.map(node => {
    const element = document.querySelector(`[data-node-id="${node.id}"]`);
    const [width, height] = element ? [element.offsetWidth, element.offsetHeight - 30] : node.size;
    const box = node.flags.collapsed ? [element?.offsetWidth ?? node._collapsed_width ?? 80, 0] : [width, height];
    const [x, y] = node.pos;
    return { name: `${node.id} ${node.title}`, type: node.type, x, y, width: box[0], height: box[1] };
})"""

# Previews of nodes that show their picture while they run, results of those that show one at the end.
_RUN = """async ([picture, previewed]) => {
    const blob = await (await fetch(`/api/view?filename=${picture}`)).blob();
    const images = [{ filename: picture, subfolder: "", type: "temp" }];
    for (const node of app.rootGraph.nodes) {
        const id = String(node.id), say = (type, detail) => app.api.dispatchCustomEvent(type, detail);
        const done = (output) => say("executed", { node: id, display_node: id, prompt_id: "pretended", output });
        if (previewed.includes(node.type)) {
            say("b_preview_with_metadata", { blob, nodeId: id, displayNodeId: id, parentNodeId: id, realNodeId: id,
                promptId: "pretended", jobId: "pretended" });
        }
        if (/^(SaveImage|PreviewImage|LossGraphNode|SaveVideo|CREPS_RenderToFile)$/.test(node.type)) done({ images });
        if (node.type === "CREPS_ContactSheet") {
            done({ creps_sheet: [{ image: images[0], width: 1024, height: 1024, cells: [[8, 8, 100, 100]] }] });
        }
        if (/^(PreviewAny|CREPS_TrainGenerator|CREPS_SaveGenerator)$/.test(node.type)) {
            done({ text: ["a line of text\\n".repeat(12)] });
        }
    }
}"""

_NOTES = """() => [...document.querySelectorAll(".tiptap, .comfy-markdown-content, .prose")]
    .filter(one => one.offsetParent && one.textContent.trim())
    .map(one => [one.textContent.slice(0, 40), one.scrollHeight - one.clientHeight])"""

# Until sizes and view have stayed the same for some frames, and pictures have been drawn.
_SETTLED = """() => new Promise(resolve => {
    let last = "", still = 0;
    const look = () => {
        app.canvas.setDirty(true, true);
        const sizes = app.rootGraph.nodes.map(node => {
            const element = document.querySelector(`[data-node-id="${node.id}"]`);
            return [node.size[0], node.size[1], element?.offsetHeight, node.imgs?.length];
        });
        const now = JSON.stringify([sizes, app.canvas.ds.scale]);
        still = now === last ? still + 1 : 0;
        last = now;
        still < 6 ? requestAnimationFrame(look) : resolve();
    };
    look();
})"""


@dataclass(frozen=True)
class Box:
    """A node without its title, in units of the graph."""

    name: str
    type: str
    x: float
    y: float
    width: float
    height: float

    def meets(self, other: Box) -> bool:
        """Whether one covers a part of the other, titles included."""
        across = self.x < other.x + other.width and other.x < self.x + self.width
        return across and self.y - TITLE < other.y + other.height and other.y - TITLE < self.y + self.height


class GraphView:
    """The graph that is open in a page."""

    def __init__(self, ui: WebUI) -> None:
        self.ui = ui
        self.page = ui.page

    def boxes(self) -> list[Box]:
        return [Box(**box) for box in self.page.evaluate(_BOXES)]

    def overlaps(self) -> list[str]:
        """Pairs of nodes that lie over each other."""
        return [f"{a.name} / {b.name}" for a, b in combinations(self.boxes(), 2) if a.meets(b)]

    def extent(self) -> tuple[float, float]:
        """Width and height of the whole, titles included."""
        boxes = self.boxes()
        left, top = min(box.x for box in boxes), min(box.y for box in boxes) - TITLE
        return max(box.x + box.width for box in boxes) - left, max(box.y + box.height for box in boxes) - top

    def scale(self) -> float:
        """Pixels per unit."""
        return self.page.evaluate("() => app.canvas.ds.scale")

    def pretend_run(self, previewed: set[str]) -> None:
        """Show what a run shows: a picture wherever there will be one."""
        self.page.evaluate(_RUN, [PICTURE, sorted(previewed)])
        self.settle()

    def settle(self) -> None:
        """Wait until nothing moves any more."""
        self.page.evaluate(_SETTLED)

    def resize(self, width: int, height: int) -> None:
        """Give the window another size."""
        self.page.set_viewport_size({"width": width, "height": height})
        self.settle()

    def notes(self) -> list[tuple[str, float]]:
        """(beginning, units that do not fit) of each note."""
        return [tuple(note) for note in self.page.evaluate(_NOTES)]

"""A hand on the explorer, wherever it stands: gestures, and what the page shows."""

from __future__ import annotations

import json
from typing import Any

from playwright.sync_api import Locator, Page, TimeoutError

SOON_MS = 60_000  # far more than is needed
_FIND = "const found = [...document.querySelectorAll('*')].map(one => one.explorer).filter(one => one?.scene)[0]"


class ExplorerPage:
    """The one explorer of a page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.page.wait_for_function(f"() => {{ {_FIND}; return found && !found.body.hidden; }}", timeout=SOON_MS)
        self.viewport: Locator = page.locator("canvas.viewport")

    def ask(self, expression: str) -> Any:
        """A value of the explorer `found`, by way of JSON."""
        value = self.page.evaluate(f"() => {{ {_FIND}; return JSON.stringify({expression}); }}")
        return None if value is None else json.loads(value)

    @property
    def scene(self) -> dict[str, Any]:
        return self.ask("found.scene")

    def until(self, condition: str) -> None:
        """Wait for something about the explorer `found`; if it does not come, says what the page shows."""
        try:
            self.page.wait_for_function(f"() => {{ {_FIND}; return {condition}; }}", timeout=SOON_MS)
        except TimeoutError as error:
            state = self.ask(
                "[found.overlay.status.textContent, found.connection.ready, found.source, found.viewport.busy, "
                "found.film.time, {...found.requester, explorer: 0, pending: 0}]"
            )
            raise AssertionError(f"never {condition}: {state}") from error

    def until_sharp(self) -> None:
        """Wait until what is on screen is every pixel of what is wanted."""
        self.until("found.settled")

    def middle(self) -> tuple[float, float]:
        box = self.viewport.bounding_box()
        assert box is not None
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def drag(self, dx: float, dy: float, steps: int = 12) -> None:
        """Drag the picture, and hold still before letting go: no glide."""
        x, y = self.middle()
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + dx, y + dy, steps=steps)
        self.page.wait_for_timeout(100)
        self.page.mouse.move(x + dx, y + dy)
        self.page.wait_for_timeout(80)
        self.page.mouse.up()

    def wheel(self, amount: float, dx: float = 0, dy: float = 0) -> None:
        x, y = self.middle()
        self.page.mouse.move(x + dx, y + dy)
        self.page.mouse.wheel(0, amount)
        self.until("!found.viewport.busy")

    def pad(self, across: float, up: float) -> None:
        """Press the pad at a place, from -1 to 1."""
        box = self.page.locator(".pad-field").bounding_box()
        assert box is not None
        self.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        self.page.mouse.down()
        self.page.mouse.move(
            box["x"] + box["width"] * (1 + across) / 2, box["y"] + box["height"] * (1 - up) / 2, steps=6
        )
        self.page.mouse.up()

    def key(self, name: str) -> None:
        self.viewport.focus()
        self.page.keyboard.press(name)

    def pixels(self, x: int, y: int) -> list[int]:
        """Red, green and blue of the viewport's canvas there, from its middle."""
        return self.ask(
            "(({context, size}) => "
            f"[...context.getImageData(size[0] / 2 + {x}, size[1] / 2 + {y}, 1, 1).data].slice(0, 3))(found.viewport)"
        )


def fly(here: ExplorerPage) -> None:
    """Use everything once, and assert that it does what it says; leaves two key frames."""
    here.until_sharp()
    start = here.scene
    layout = here.ask("found.viewport.layout")
    box = here.viewport.bounding_box()
    assert box is not None
    per_pixel = layout["width"] / box["width"] / (start["view"]["zoom"] * layout["unit"])

    here.drag(60, -24)
    view = here.scene["view"]
    assert abs(view["x"] - (start["view"]["x"] - 60 * per_pixel)) < 2 * per_pixel
    assert abs(view["y"] - (start["view"]["y"] + 24 * per_pixel)) < 2 * per_pixel

    here.wheel(-400, dx=50, dy=20)  # the point under the pointer stays
    after = here.scene["view"]
    assert after["zoom"] > 1.5 * view["zoom"]
    for axis, away in (("x", 50), ("y", 20)):
        point = view[axis] + away * per_pixel
        assert abs(after[axis] + away * per_pixel * view["zoom"] / after["zoom"] - point) < 2 * per_pixel

    here.key("k")
    here.key("n")
    assert here.scene["seed"] == start["seed"] + 1
    here.pad(0.5, 0.25)
    walk = here.scene["walk"]
    assert walk["x"] > 1
    assert walk["y"] > 0.4
    here.page.locator(".pad-field").focus()
    here.page.keyboard.press("ArrowLeft")
    assert abs(here.scene["walk"]["x"] - (walk["x"] - 0.05)) < 1e-3
    here.until_sharp()
    here.key("ArrowRight")
    here.until("!found.viewport.busy")
    assert here.scene["view"]["x"] > after["x"]
    here.key("r")
    assert here.scene["view"]["rotation"] == 90
    here.key("Shift+R")
    assert here.scene["view"]["rotation"] == 0
    here.key("0")
    here.until("!found.viewport.busy")
    assert here.scene["view"] == {"x": 0.5, "y": 0.5, "zoom": 1, "rotation": 0}
    here.key("k")
    assert [key["seed"] for key in here.scene["keys"]] == [start["seed"], start["seed"] + 1]

    here.page.locator(".thumb").first.focus()  # reorder, and back
    here.page.keyboard.press("ArrowRight")
    assert [key["seed"] for key in here.scene["keys"]] == [start["seed"] + 1, start["seed"]]
    here.page.keyboard.press("ArrowLeft")
    here.page.locator("input.seconds").first.fill("0.6")
    here.page.locator("input.seconds").first.press("Enter")
    assert here.scene["keys"][0]["seconds"] == 0.6
    here.key(" ")  # play to the end
    here.until("found.film.time === 0.6 && !found.film.playing")
    here.key("d")
    here.until("!found.overlay.stats.hidden")
    here.wheel(-200)  # out of the film
    assert here.ask("found.film.time") is None
    here.until("found.overlay.stats.children.length > 0")
    here.key("d")
    here.key("p")
    here.viewport.dblclick()
    here.until("!found.viewport.busy")
    assert here.scene["seed"] == start["seed"]
    here.until_sharp()

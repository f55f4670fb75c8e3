"""The page of `creps explore` in a real Chromium: open, fly, save.

Pictures of it go to CREPS_SCREENSHOTS, if set.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from browser import need_browser
from comfyui_creps.creps_core.latents import sample
from comfyui_creps.creps_core.rendering import View, render_view
from networks import make_generator
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    need_browser()
    from playwright.sync_api import sync_playwright
    from web_ui import FLAGS, find_chromium

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        yield running
        running.close()


def complaints(page: Page) -> list[str]:
    """What a page complains about from now on."""
    found: list[str] = []
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("console", lambda message: found.append(message.text) if message.type in ("error", "warning") else None)
    return found


def screenshot(page: Page, name: str) -> None:
    if folder := os.environ.get("CREPS_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def test_open_fly_and_save(browser: Browser, tmp_path: Path):
    from explorer_page import ExplorerPage, fly
    from explorer_server import serving

    context = browser.new_context(viewport={"width": 900, "height": 640}, bypass_csp=True)  # Playwright asks by eval
    with serving(tmp_path) as server:
        page = context.new_page()
        found = complaints(page)
        page.goto(server.url)
        here = ExplorerPage(page)
        fly(here)
        screenshot(page, "standalone")

        kept = here.scene
        page.reload()  # no event
        here = ExplorerPage(page)
        assert here.scene == kept
        here.until_sharp()

        for name, value in (("Width of the final picture", "80"), ("Height of the final picture", "60")):
            page.get_by_label(name).fill(value)
            page.get_by_label(name).press("Enter")
        page.get_by_role("button", name="Save the picture").click()
        page.get_by_role("button", name="Save picture").click()
        page.get_by_text(f"random-seed{kept['seed']}-80x60.png").wait_for()
        assert found == []
    context.close()
    with Image.open(tmp_path / f"random-seed{kept['seed']}-80x60.png") as image:
        saved = np.asarray(image).astype(int)
    generator = make_generator()
    wanted = render_view(generator, sample(generator, [kept["seed"]]), View(), height=60, width=80)[0]
    levels = (wanted.permute(1, 2, 0) * 127.5 + 128).clamp(0, 255).byte().numpy()
    assert np.abs(saved - levels).max() <= 1


def test_what_is_on_screen_is_the_picture(browser: Browser, tmp_path: Path):
    """The canvas within the frame shows `render_view` of the frame's size, but for JPEG."""
    from explorer_page import ExplorerPage
    from explorer_server import serving

    context = browser.new_context(viewport={"width": 800, "height": 600}, bypass_csp=True)
    with serving(tmp_path) as server:
        page = context.new_page()
        page.goto(server.url)
        here = ExplorerPage(page)
        here.until_sharp()
        left, top, width, height = here.ask("found.viewport.frameBox()")
        view = here.scene["view"]
        shown = here.ask(
            f"[...found.viewport.context.getImageData({left}, {top}, {width}, {height}).data]"
            ".filter((_, i) => i % 4 < 3)"
        )
    context.close()
    generator = make_generator()
    wanted = render_view(
        generator, sample(generator, [42]), View(view["y"], view["x"], view["zoom"]), height=height, width=width
    )
    levels = (wanted[0].permute(1, 2, 0) * 127.5 + 128).clamp(0, 255).numpy()
    assert np.abs(np.array(shown).reshape(height, width, 3) - levels).mean() < 2


def test_the_page_runs_under_its_own_policy(browser: Browser, tmp_path: Path):
    """Without help from Playwright, whose questions the policy forbids."""
    from explorer_server import serving

    with serving(tmp_path) as server:
        page = browser.new_page()
        found = complaints(page)
        page.goto(server.url)
        page.get_by_role("button", name="Keep a key frame").click()
        page.locator(".thumb canvas").wait_for()
        assert found == []
        page.close()


def test_an_old_page_says_that_it_must_be_reloaded(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from comfyui_creps.creps_core.serving import conversation, protocol
    from explorer_server import serving

    monkeypatch.setattr(conversation, "PROTOCOL", protocol.PROTOCOL + 1)
    with serving(tmp_path) as server:
        page = browser.new_page()
        page.goto(server.url)
        page.get_by_text("reload this page").wait_for()
        page.close()


def test_two_fingers_zoom_about_the_point_between_them(browser: Browser, tmp_path: Path):
    from explorer_page import ExplorerPage
    from explorer_server import serving

    context = browser.new_context(viewport={"width": 600, "height": 500}, has_touch=True, bypass_csp=True)
    with serving(tmp_path) as server:
        page = context.new_page()
        page.goto(server.url)
        here = ExplorerPage(page)
        here.until_sharp()
        touch = context.new_cdp_session(page)

        def fingers(kind: str, *places: tuple[float, float]) -> None:
            points = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(places)]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        x, y = here.middle()
        fingers("touchStart", (x - 20, y), (x + 20, y))
        for away in (30, 40, 60):
            fingers("touchMove", (x - away, y), (x + away, y))
        fingers("touchEnd")
        here.until("found.scene.view.zoom > 2.9")
        view = here.scene["view"]
        assert view["zoom"] == pytest.approx(3, rel=0.02)
        assert (view["x"], view["y"]) == pytest.approx((0.5, 0.5), abs=0.01)
        here.until_sharp()
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 800), (360, 640), (320, 300)], ids=["large", "phone", "small"])
def test_everything_has_a_name_and_room(browser: Browser, tmp_path: Path, scheme: str, size: tuple[int, int]):
    from explorer_page import ExplorerPage
    from explorer_server import serving

    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,  # type: ignore
        device_scale_factor=2,
        has_touch=True,
        bypass_csp=True,
    )
    with serving(tmp_path) as server:
        page = context.new_page()
        page.goto(server.url)
        here = ExplorerPage(page)
        here.key("k")
        here.until_sharp()
        screenshot(page, f"standalone {scheme} {size[0]}")
        box = here.viewport.bounding_box()
        assert box is not None
        assert box["height"] >= 0.38 * size[1]
        nameless = page.evaluate(
            """() => [...document.querySelector("#explorer").shadowRoot.querySelectorAll(
                "button, input, select, canvas[tabindex]")].filter(one => !one.getAttribute("aria-label")
                && !one.textContent.trim() && !one.closest("label")).map(one => one.outerHTML)"""
        )
        assert nameless == []
        assert here.ask("found.viewport.size[0]") == round(box["width"] * 2)  # every pixel of the screen
    context.close()

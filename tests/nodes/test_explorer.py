"""CREPS Explorer in ComfyUI's web UI, in both renderers: on the stub backend, and on the real ComfyUI.

Pictures of it go to CREPS_SCREENSHOTS, if set.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from browser import need_browser, stub_ui
from comfyui_creps.creps_core import load_builtin, render
from comfyui_creps.creps_core.explorer import Walker, read_scene
from comfyui_creps.creps_core.latents import load_latents
from comfyui_creps.creps_core.rendering import render_view
from networks import make_generator
from paths import ROOT
from PIL import Image

if TYPE_CHECKING:
    from comfy_host import ComfyClient, ComfyHost
    from explorer_page import ExplorerPage
    from web_ui import WebUI

WORKFLOW = ROOT / "workflows" / "00 Explore.json"
PROMPT = ROOT / "workflows" / "api" / "00 Explore.json"
RENDERERS = {"classic": False, "vue": True}
LARGE = {"width": 8192, "height": 8192}


@pytest.fixture(scope="module")
def host(
    start_comfyui: Callable[..., AbstractContextManager[ComfyHost]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ComfyHost]:
    base = tmp_path_factory.mktemp("comfyui")
    settings = base / "user" / "default"
    settings.mkdir(parents=True)
    (settings / "comfy.settings.json").write_text(json.dumps({"Comfy.TutorialCompleted": True}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CREPS_EXPLORER_REST", "2")
        with start_comfyui(base) as running:
            yield running


def fly_in(ui: WebUI, renderer: str, name: str) -> ExplorerPage:
    """Open the workflow, use everything, save it, open it again."""
    from explorer_page import ExplorerPage, fly

    ui.errors.clear()
    ui.load(json.loads(WORKFLOW.read_text(encoding="utf-8")), "00 Explore")
    ui.wait_for_renderer(vue=RENDERERS[renderer])
    if folder := os.environ.get("CREPS_SCREENSHOTS"):
        ExplorerPage(ui.page).until_sharp()
        ui.screenshot(Path(folder) / f"{name} ({renderer}).png")
    here = ExplorerPage(ui.page)
    graph = """JSON.stringify([app.canvas.ds.scale, [...app.canvas.ds.offset],
        app.rootGraph.nodes.map(node => [node.id, ...node.pos]).sort((a, b) => a[0] - b[0])])"""
    before = ui.page.evaluate(graph)
    fly(here)
    here.drag(30, 10)
    here.until_sharp()
    assert ui.page.evaluate(graph) == before, "the canvas has moved"

    kept = here.scene
    saved = json.loads(ui.page.evaluate("() => JSON.stringify(app.rootGraph.serialize())"))
    (node,) = [node for node in saved["nodes"] if node["type"] == "CREPS_Explorer"]
    assert node["widgets_values"] == [kept]
    assert ui.to_api()["2"]["inputs"]["scene"] == kept
    ui.load({**saved, "nodes": [], "links": []}, "empty")
    ui.page.wait_for_function("() => !document.querySelector('.creps-explorer')")
    ui.load(saved, "again")
    ui.wait_for_renderer(vue=RENDERERS[renderer])
    again = ExplorerPage(ui.page)
    assert again.scene == kept
    again.until_sharp()
    assert complaints(ui) == []
    return again


def complaints(ui: WebUI) -> list[str]:
    """What went wrong on the page; that the UI's own questions to other sites are refused is none of it."""
    return [error for error in ui.errors if "Content Security Policy" not in error]


@pytest.mark.parametrize("renderer", RENDERERS)
def test_on_the_stub_backend(renderer: str) -> None:
    need_browser()
    from aiohttp import web
    from comfyui_creps.creps_core.serving.conversation import converse
    from comfyui_creps.creps_core.serving.host import Generators

    generators = Generators({"builtin: alpenglow": make_generator})

    async def explorer(request: web.Request) -> web.StreamResponse:
        return await converse(request, generators)

    with stub_ui(vue=RENDERERS[renderer], explorer=explorer) as ui:
        fly_in(ui, renderer, "stub")
        ui.page.evaluate("() => app.rootGraph.nodes.find(n => n.type === 'CREPS_Explorer').disconnectInput(0)")
        ui.page.get_by_text("link a generator to model").wait_for()


@pytest.mark.parametrize("renderer", RENDERERS)
def test_the_widget_follows_the_graph(renderer: str) -> None:
    """The loader's choice, links, the theme, the zoom of the canvas; and it closes with its node."""
    need_browser()
    from aiohttp import web
    from comfyui_creps.creps_core.serving.conversation import converse
    from comfyui_creps.creps_core.serving.host import Generators
    from explorer_page import ExplorerPage

    generators = Generators({f"builtin: {name}": make_generator for name in ("alpenglow", "alpine")})
    open_sockets: list[int] = []

    async def explorer(request: web.Request) -> web.StreamResponse:
        open_sockets.append(1)
        try:
            return await converse(request, generators)
        finally:
            open_sockets.pop()

    find = "const of = type => app.rootGraph.nodes.find(n => n.type === type);"
    loader, node = "of('CREPS_LoadGenerator')", "of('CREPS_Explorer')"
    with stub_ui(vue=RENDERERS[renderer], explorer=explorer) as ui:
        ui.load(json.loads(WORKFLOW.read_text(encoding="utf-8")), "00 Explore")
        ui.wait_for_renderer(vue=RENDERERS[renderer])
        here = ExplorerPage(ui.page)
        here.until_sharp()

        def act(code: str) -> None:
            ui.page.evaluate(f"() => {{ {find} {code} }}")

        checkpoint = f"{loader}.widgets.find(w => w.name === 'checkpoint')"
        act(f"const w = {checkpoint}; w.value = 'builtin: alpine'; w.callback?.(w.value);")
        here.until("found.source === 'builtin: alpine'")
        here.until_sharp()
        act(f"{node}.disconnectInput(0)")
        here.until("found.problem === 'link a generator to model'")
        act(f"{loader}.connect(0, {node}, 0)")
        here.until("found.problem === ''")
        here.until_sharp()

        for text, theme in (("#000", "light"), ("#fff", "dark")):
            act(f"document.documentElement.style.setProperty('--fg-color', '{text}')")
            act(f"document.body.style.setProperty('--fg-color', '{text}')")
            here.until(f"found.body.dataset.theme === '{theme}'")

        width = here.ask("found.viewport.size[0]")
        act("app.canvas.ds.changeScale(app.canvas.ds.scale * 0.7); app.canvas.setDirty(true, true);")
        here.until(f"Math.abs(found.viewport.size[0] - 0.7 * {width}) <= 2")
        here.until_sharp()

        assert len(open_sockets) == 1
        act(f"app.rootGraph.remove({node})")
        deadline = time.monotonic() + 30
        while open_sockets:
            assert time.monotonic() < deadline
            ui.page.wait_for_timeout(50)
        assert complaints(ui) == []


@pytest.mark.parametrize("renderer", RENDERERS)
def test_in_comfyui(renderer: str, host: ComfyHost, client: ComfyClient) -> None:
    """What is on screen is what comes out of the workflow."""
    need_browser()
    from web_ui import open_ui

    client._request("api/settings", {"Comfy.VueNodes.Enabled": RENDERERS[renderer]})
    with open_ui(f"http://{host.address}/") as ui:
        here = fly_in(ui, renderer, "comfyui")
        here.page.get_by_label("Width of the final picture").fill("192")
        here.page.get_by_label("Width of the final picture").press("Enter")
        here.page.get_by_label("Height of the final picture").fill("128")
        here.page.get_by_label("Height of the final picture").press("Enter")
        shown = read_scene(here.scene)
        before = len(client.get("history"))
        ui.page.evaluate("() => app.queuePrompt(0, 1)")
        deadline = time.monotonic() + 60
        while len(history := client.get("history")) == before:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        newest = max(history.values(), key=lambda entry: entry["prompt"][0])
        (item,) = newest["outputs"]["4"]["images"]
        here.until_sharp()
        assert complaints(ui) == []
    generator = load_builtin()
    wanted = render_view(generator, Walker(generator).latents(shown.shot).ws, shown.shot.view, height=128, width=192)
    levels = (wanted[0].permute(1, 2, 0) * 127.5 + 127.5).clamp(0, 255).numpy()
    with Image.open(io.BytesIO(client.view(item))) as image:
        assert np.abs(np.asarray(image).astype(float) - levels).max() <= 1
        inside = json.loads(image.text["workflow"])  # type: ignore
    (node,) = [node for node in inside["nodes"] if node["type"] == "CREPS_Explorer"]
    assert read_scene(node["widgets_values"][0]) == shown


def explorer_prompt(scene: Any) -> dict[str, Any]:
    prompt = json.loads(PROMPT.read_text(encoding="utf-8"))
    prompt["2"]["inputs"]["scene"] = scene
    return prompt


def test_headless_latents_are_those_of_the_scene(client: ComfyClient) -> None:
    """Without a browser: the latents to 1e-6, the film, and the scene as an object or as text."""
    scene = {
        "seed": 5,
        "psi": 0.8,
        "walk": {"kind": "PCA", "x": 1.5, "y": -1, "layers": "coarse"},
        "view": {"zoom": 3, "x": 0.4, "rotation": 90},
        "width": 96,
        "height": 64,
        "keys": [{"seed": 1, "seconds": 0.25}, {"seed": 2, "view": {"zoom": 4}}],
    }
    generator = load_builtin()
    walker, shown = Walker(generator), read_scene(scene)
    for output, wanted, given in (
        (0, walker.latents(shown.shot), scene),
        (2, walker.film(shown)[0], json.dumps(scene)),
    ):
        prompt = explorer_prompt(given)
        prompt["5"] = {
            "class_type": "CREPS_SaveLatents",
            "inputs": {"latent": ["2", output], "filename_prefix": "explored"},
            "_meta": {},
        }
        history = client.run(prompt)
        assert history["status"]["status_str"] == "success", history["status"]
        found = load_latents(history["outputs"]["5"]["text"][0], generator)
        torch.testing.assert_close(found.ws, wanted.ws, atol=1e-6, rtol=1e-6)
    (item,) = history["outputs"]["4"]["images"]
    view = render_view(generator, walker.latents(shown.shot).ws, shown.shot.view, height=64, width=96)
    levels = (view[0].permute(1, 2, 0) * 127.5 + 127.5).clamp(0, 255).numpy()
    with Image.open(io.BytesIO(client.view(item))) as image:
        assert np.abs(np.asarray(image).astype(float) - levels).max() <= 1


def test_headless_films(client: ComfyClient) -> None:
    keys = [{"seed": 1, "seconds": 0.25}, {"seed": 2, "view": {"zoom": 4}}]
    prompt = explorer_prompt({"keys": keys, "fps": 8})
    prompt["3"] = {
        "class_type": "CREPS_RenderPath",
        "inputs": {
            "model": ["1", 0],
            "latent": ["2", 2],
            "path": ["2", 3],
            "width": 48,
            "height": 48,
            "fit": "crop",
            "supersample": 1,
        },
        "_meta": {},
    }
    history = client.run(prompt)
    assert history["status"]["status_str"] == "success", history["status"]
    frames = history["outputs"]["4"]["images"]
    assert len(frames) == 3
    generator = load_builtin()
    wanted = render(
        generator, Walker(generator).film(read_scene({"keys": keys, "fps": 8}))[0].ws[:1], height=48, width=48
    )
    levels = (wanted[0].permute(1, 2, 0) * 127.5 + 127.5).clamp(0, 255).numpy()
    with Image.open(io.BytesIO(client.view(frames[0]))) as image:
        assert np.abs(np.asarray(image).astype(float) - levels).max() <= 1


@pytest.mark.parametrize(
    ("scene", "words"),
    [
        ({"width": 0}, "width must be a whole number"),
        ("{", "the scene is no JSON"),
        ("[" * 100_000, "the scene is no JSON"),
        ("1" * 5000, "the scene is no JSON"),
        ({"keys": 3}, "keys must be a list"),
    ],
)
def test_a_scene_that_is_none_is_refused_before_anything_runs(client: ComfyClient, scene: Any, words: str) -> None:
    from comfy_host import HostError

    with pytest.raises(HostError, match=words):
        client.queue(explorer_prompt(scene))


def test_it_waits_while_a_prompt_runs(host: ComfyHost, client: ComfyClient) -> None:
    """It says so, then resumes."""
    import aiohttp
    from explorer_server import Page

    show = {"source": "builtin: alpine", "stage": [48, 32, 48]}

    async def act() -> None:
        headers = {"Origin": f"http://{host.address}"}
        url = f"http://{host.address}/creps/explorer/socket"
        async with aiohttp.ClientSession() as session, session.ws_connect(url, headers=headers) as socket:
            page = Page(socket)
            await page.show(1, **show)
            await page.frame(1)
            prompt = explorer_prompt(LARGE)
            prompt_id = client.queue(prompt)
            deadline = time.monotonic() + 60
            number = 1
            while not any(text.get("waiting") for text in page.texts):  # until the prompt has begun
                assert time.monotonic() < deadline
                number += 1
                await page.show(number, **show)
                await page.receive(lambda heard: "waiting" in heard or "image" in heard)
            answer = asyncio.ensure_future(page.frame(number))
            while not answer.done():  # ComfyUI forgets an interruption that comes before the first node
                client.interrupt()
                await asyncio.wait({answer}, timeout=1)
            await answer
            assert page.texts[-1] == {"waiting": False}
            for _ in client.events(prompt_id):
                pass
            for path in ("../../etc/passwd", "builtin: nothing", "shared 0123456789abcdef", ""):
                await page.show(9000, **{**show, "source": path})
                error = await page.error()
                assert "there is no generator" in error or "run the workflow once more" in error
                await page.send({"seen": 9000})

    asyncio.run(act())


@pytest.mark.parametrize("origin", ["http://evil.example", "null"])
def test_another_sites_page_gets_no_socket(host: ComfyHost, origin: str) -> None:
    """A request without Origin is no page: ComfyUI accepts it, and so do we (tests/serving/test_origins.py)."""
    import aiohttp

    async def act() -> None:
        headers = {"Origin": origin}
        for path in ("/creps/explorer/socket", "/api/creps/explorer/socket"):
            async with aiohttp.ClientSession() as session:
                with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                    await session.ws_connect(f"http://{host.address}{path}", headers=headers)
                assert caught.value.status == 403

    asyncio.run(act())


def test_a_generator_of_the_workflow_is_shared(host: ComfyHost, client: ComfyClient) -> None:
    """With directions: what the run shares has a name, and walks go along them."""
    import aiohttp
    from explorer_server import Page

    prompt = explorer_prompt({"width": 64, "height": 64})
    prompt["6"] = {
        "class_type": "CREPS_FindDirections",
        "inputs": {"model": ["1", 0], "method": "SeFa", "layers": "all", "count": 4},
        "_meta": {},
    }
    prompt["2"]["inputs"]["directions"] = ["6", 0]
    history = client.run(prompt)
    (source,) = history["outputs"]["2"]["creps_source"]

    async def act() -> None:
        headers = {"Origin": f"http://{host.address}"}
        url = f"http://{host.address}/creps/explorer/socket"
        async with aiohttp.ClientSession() as session, session.ws_connect(url, headers=headers) as socket:
            page = Page(socket)
            await page.show(1, {"walk": {"kind": "linked", "x": 1}}, source=source)
            about = (await page.receive(lambda heard: "generator" in heard))["generator"]
            assert about["linked"] == 2
            await page.frame(1)

    asyncio.run(act())


def test_memory_is_given_back(host: ComfyHost) -> None:
    """After a rest, and as often as it is taken."""
    import aiohttp
    from explorer_server import Page

    def given() -> int:
        return (host.base / "comfyui.log").read_text(errors="replace").count("the explorer has given its memory back")

    async def act() -> None:
        headers = {"Origin": f"http://{host.address}"}
        url = f"http://{host.address}/creps/explorer/socket"
        async with aiohttp.ClientSession() as session, session.ws_connect(url, headers=headers) as socket:
            page = Page(socket)
            for number in (1, 2):
                before, deadline = given(), time.monotonic() + 60
                await page.show(number, source="builtin: textures")
                await page.frame(number)
                while given() == before:
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.1)

    asyncio.run(act())

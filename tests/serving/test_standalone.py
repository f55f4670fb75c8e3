"""The server of `creps explore`: whom it lets in, and what it gives away."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.request import urlopen

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="pip install -e '.[explore]'")

import aiohttp
from comfyui_creps.creps_core.cli import main
from comfyui_creps.creps_core.explorer import read_scene
from comfyui_creps.creps_core.latents import sample
from comfyui_creps.creps_core.rendering import View, render_view
from comfyui_creps.creps_core.serving.guard import refuse_origin
from comfyui_creps.creps_core.serving.saving import free_path, save_image
from comfyui_creps.creps_core.serving.standalone import PAGE
from explorer_server import TOKEN, Server, talk
from networks import make_generator
from paths import ROOT
from PIL import Image


def request(host: str, origin: str | None, scheme: str = "http") -> SimpleNamespace:
    headers = {"Host": host} | ({} if origin is None else {"Origin": origin})
    return SimpleNamespace(headers=headers, scheme=scheme)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:8188", "http://127.0.0.1:8188"),
        ("localhost:8188", "http://localhost:8188"),
        ("[::1]:8188", "http://[::1]:8188"),
        ("192.168.1.20", "http://192.168.1.20"),
    ],
)
def test_a_page_of_this_server_may_talk(host: str, origin: str):
    assert refuse_origin(request(host, origin)) is None  # type: ignore


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:8188", None),
        ("127.0.0.1:8188", ""),
        ("127.0.0.1:8188", "null"),
        ("127.0.0.1:8188", "http://evil.example"),
        ("127.0.0.1:8188", "http://127.0.0.1:9999"),
        ("127.0.0.1:8188", "http://127.0.0.1"),
        ("127.0.0.1:8188", "http://localhost:8188"),
        ("127.0.0.1:8188", "http://127.0.0.1:8188.evil.example"),
        ("127.0.0.1:8188", "http://127.0.0.1:8188@evil.example"),
        ("127.0.0.1:8188", "file://127.0.0.1:8188"),
        ("evil.example:8188", "http://evil.example:8188"),  # a name that was pointed at this machine
        ("127.0.0.1.evil.example:8188", "http://127.0.0.1.evil.example:8188"),
        ("localhost.evil.example", "http://localhost.evil.example"),
        ("", "http://"),
        ("127.0.0.1:nan", "http://127.0.0.1:nan"),
        ("[::1", "http://[::1"),
    ],
)
def test_other_pages_may_not(host: str, origin: str | None):
    assert refuse_origin(request(host, origin))  # type: ignore


def test_a_server_for_others_has_names():
    known = ["studio.example"]
    assert refuse_origin(request("studio.example:8188", "http://studio.example:8188"), known) is None  # type: ignore
    assert refuse_origin(request("studio.example", "https://studio.example"), known) is None  # type: ignore  # TLS by a proxy
    assert refuse_origin(request("studio.example", "https://evil.example"), known)  # type: ignore
    assert refuse_origin(request("studio.example", "https://studio.example:444"), ["https://studio.example"])  # type: ignore


def test_only_who_knows_the_secret_gets_the_page(tmp_path: Path):
    async def act(server: Server) -> None:
        async with aiohttp.ClientSession() as session:
            names = [path.name for path in PAGE.iterdir()]
            assert {"index.html", "page.mjs", "explorer.mjs", "explorer.css"} <= set(names)
            for name in ["", *names]:
                async with session.get(server.url + name) as answer:
                    assert answer.status == 200, name
                    assert not [header for header in answer.headers if header.startswith("Access-Control")]
                    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
                    assert answer.headers["Referrer-Policy"] == "no-referrer"
                    assert answer.headers["X-Content-Type-Options"] == "nosniff"
                    if name.endswith(".mjs"):
                        assert answer.content_type == "text/javascript"
            other = f"http://{server.address}"
            for path in ("/", "/index.html", f"/{TOKEN}x/", f"/x{TOKEN}/page.mjs", "/socket", "//socket"):
                async with session.get(other + path) as answer:
                    assert answer.status in (403, 404), path
            for path in (
                "none.js",
                "..%2fcreps_explorer.js",
                "%2e%2e/creps_explorer.js",
                "../../pyproject.toml",
                "a/b",
            ):
                async with session.get(server.url + path) as answer:
                    assert answer.status in (403, 404), path
            async with session.get(server.url, headers={"Host": "evil.example"}) as answer:
                assert answer.status == 403
            async with session.post(server.url) as answer:
                assert answer.status in (403, 405)

    talk(tmp_path, act)


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": ""}, {"Host": "evil.example", "Origin": "http://evil.example"}],
)
def test_another_sites_page_gets_no_socket(tmp_path: Path, headers: dict[str, str]):
    async def act(server: Server) -> None:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            async with server.page(**headers):
                pass
        assert caught.value.status == 403

    talk(tmp_path, act)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize("aspect", [(1, 1), (16, 9)])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270, 30])
@pytest.mark.parametrize("kind", ["png", "tif"])
def test_a_saved_picture_is_the_view(tmp_path: Path, rotation: int, kind: str, aspect: tuple[int, int]):
    generator = make_generator()
    generator.aspect = aspect
    view = {"x": 0.4, "zoom": 2, "rotation": rotation}
    scene = read_scene({"seed": 2, "view": view, "width": 50, "height": 30})
    path = free_path(tmp_path, generator.name, kind)
    save_image(generator, scene, path, 8)
    shown = View(center_x=0.4, zoom=2.0, rotation=rotation)
    wanted = render_view(generator, sample(generator, [2]), shown, height=30, width=50)[0]
    levels = (wanted.permute(1, 2, 0) * 127.5 + 128).clamp(0, 255).byte().numpy()
    assert np.abs(read(path).astype(int) - levels).max() <= 1


def test_names_of_files_are_made_here(tmp_path: Path):
    path = free_path(tmp_path, "../../etc/a b\n\x00c", "png")
    assert path.parent == tmp_path
    assert re.fullmatch(r"[A-Za-z0-9_-]+\.png", path.name)


def test_a_turned_view_that_is_too_large_is_refused(tmp_path: Path):
    scene = read_scene({"view": {"rotation": 90}, "width": 16384, "height": 16384})
    with pytest.raises(ValueError, match="turn it back"):
        save_image(make_generator(), scene, tmp_path / "x.png", 8)


@pytest.mark.parametrize(
    ("host", "address"), [("127.0.0.1", r"127\.0\.0\.1"), ("::1", r"\[::1\]"), ("0.0.0.0", r"127\.0\.0\.1")]
)
def test_the_command_writes_its_address(tmp_path: Path, host: str, address: str):
    if host == "::1" and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    code = f"""
import runpy
runpy.run_path({str(ROOT / "tests" / "conftest.py")!r})
from comfyui_creps.creps_core.cli import main
options = ["--no-browser", "--host", {host!r}, "--builtin", "textures", "--out", {str(tmp_path / "new")!r}]
raise SystemExit(main(["explore", *options]))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert re.fullmatch(rf"explore at http://{address}:\d+/[\w-]{{24}}/\n", line), line
        with urlopen(line.split()[-1], timeout=30) as answer:
            assert answer.status == 200
    finally:
        process.terminate()
        process.wait()
    assert (tmp_path / "new").is_dir()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--builtin", "nothing"], "there is no built-in generator 'nothing'"),
        (["--checkpoint", "nowhere.pkl"], "nowhere.pkl: there is no such file"),
        (["--port", "70000"], "--port must be"),
        (["--allow-origin", "https://a/b"], "write --allow-origin as studio.example"),
        (["--device", "toaster"], "there is no device 'toaster'"),
    ],
)
def test_a_command_that_cannot_begin_says_why(arguments: list[str], words: str, caplog: pytest.LogCaptureFixture):
    assert main(["explore", "--no-browser", *arguments]) == 1
    assert words in caplog.text

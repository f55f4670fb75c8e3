"""Which pages get the explorer's WebSocket under ComfyUI and behind proxies: header sets, with ComfyUI's own answer."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("aiohttp", reason="pip install -e '.[explore]'")

import aiohttp
from comfyui_creps.creps_core.serving import guard
from comfyui_creps.creps_core.serving.guard import is_site, refuse_comfyui_origin, refuse_origin
from explorer_server import Server, talk


def request(scheme: str = "http", **headers: str | None) -> SimpleNamespace:
    fields = {name.replace("_", "-"): value for name, value in headers.items() if value is not None}
    return SimpleNamespace(headers=fields, scheme=scheme)


# Host, Origin, further headers, --listen is loopback, --enable-cors-header, ComfyUI 0.33.0 answers 101, we do.
# ComfyUI's answers are of its server with these headers; names that end in .example resolve to public addresses.
TABLE = [
    ("127.0.0.1:8188", "http://127.0.0.1:8188", {}, True, None, True, True),
    ("localhost:8188", "http://localhost:8188", {}, True, None, True, True),
    ("[::1]:8188", "http://[::1]:8188", {}, True, None, True, True),
    # nginx and Caddy on the same machine, which pass Host
    ("studio.example", "https://studio.example", {}, True, None, True, True),
    ("studio.example", "http://studio.example", {}, True, None, True, True),  # another port than ours
    ("studio.example", "http://studio.example:8080", {}, True, None, True, True),  # nginx' $host
    ("studio.lan:8080", "http://studio.lan:8080", {}, True, None, True, True),
    ("studio.example:8188", "https://studio.example", {"X-Forwarded-For": "10.0.0.2"}, True, None, True, True),
    ("127.0.0.1", "http://127.0.0.1:8080", {}, True, None, True, True),  # nginx' $host
    # proxies that put their own name for the server in Host
    ("comfyui:8188", "https://studio.example", {}, True, None, True, True),
    ("comfyui:8188", "http://studio.lan", {}, False, None, True, True),
    ("10.0.0.5:8188", "https://abc-8188.proxy.runpod.example", {}, False, None, True, True),
    ("127.0.0.1:8188", "https://studio.example", {}, True, None, False, False),
    ("127.0.0.1:8188", "https://studio.example", {}, True, "https://studio.example", True, True),
    ("127.0.0.1:8188", "https://studio.example", {}, True, "*", True, True),
    ("127.0.0.1:8188", None, {}, True, None, True, True),  # a proxy that removes Origin
    # names of this network
    ("studio.lan:8188", "http://studio.lan:8188", {}, False, None, True, True),
    ("studio:8188", "http://studio:8188", {}, False, None, True, True),
    # pages of others
    ("127.0.0.1:8188", "http://evil.example", {}, True, None, False, False),
    ("127.0.0.1:8188", "http://evil.example", {}, True, "https://studio.example", True, False),
    ("127.0.0.1:8188", "http://127.0.0.1:9999", {}, True, None, False, False),
    ("localhost:8188", "http://127.0.0.1:8188", {}, True, None, False, False),
    ("127.0.0.1:8188", "null", {}, True, None, True, False),
    ("0.0.0.0:8188", "http://evil.example", {}, False, None, True, False),
    ("[::ffff:127.0.0.1]:8188", "http://evil.example", {}, False, None, True, False),
    ("10.0.0.5:8188", "https://evil.example", {"Sec-Fetch-Site": "cross-site"}, False, None, False, False),
    # a foreign name that was pointed at this machine
    ("evil.example:8188", "http://evil.example:8188", {}, True, None, True, False),
    ("127.0.0.1.evil.example:8188", "http://127.0.0.1.evil.example:8188", {}, True, None, True, False),
    ("[::1", "http://[::1", {}, True, None, False, False),
    ("", "http://studio.example", {}, True, None, True, False),
    ("studio.example@127.0.0.1:8188", "http://studio.example", {}, True, None, False, False),
]


@pytest.mark.parametrize(("host", "origin", "more", "loopback", "cors", "comfyui", "ours"), TABLE)
def test_proxies_and_strangers_under_comfyui(
    host: str, origin: str | None, more: dict[str, str], loopback: bool, cors: str | None, comfyui: bool, ours: bool
):
    asked = request(Host=host, Origin=origin, **more)
    reason = refuse_comfyui_origin(asked, loopback=loopback, port=8188, cors=cors)  # type: ignore[arg-type]
    assert (reason is None) == ours, reason
    assert comfyui or not ours  # never more than ComfyUI accepts
    assert reason is None or (reason.isprintable() and len(reason) < 300)


@pytest.mark.parametrize(
    ("host", "origin", "allowed", "ours"),
    [
        ("studio.example", "https://studio.example", ["studio.example"], True),
        ("studio.example", "https://studio.example", ["https://studio.example"], True),
        ("127.0.0.1:8765", "https://studio.example", ["https://studio.example"], True),
        ("127.0.0.1:8765", "https://studio.example:444", ["https://studio.example"], False),
        ("127.0.0.1:8765", "http://studio.example", ["https://studio.example"], False),
        ("127.0.0.1:8765", "http://studio.example:81", ["studio.example"], True),
        ("127.0.0.1:8765", "https://evil.example", ["studio.example"], False),
        ("evil.example", "https://evil.example", ["studio.example"], False),
        ("[::1]:8765", "http://[::1]:8765", [], True),
        ("127.0.0.1:8765", None, ["studio.example"], False),
    ],
)
def test_allow_origin(host: str, origin: str | None, allowed: list[str], ours: bool):
    asked = request(Host=host, Origin=origin)
    assert (refuse_origin(asked, allowed) is None) == ours  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["studio.example", "studio.example:81", "https://studio.example", "[::1]:8765"])
def test_sites(text: str):
    assert is_site(text)


@pytest.mark.parametrize("text", ["", "*", "ftp://a", "https://a/b", "a b", "https://", "a:b", "u@a"])
def test_what_is_no_site(text: str):
    assert not is_site(text)


def test_a_refusal_is_told_on_the_page_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(guard, "_logged", set())

    async def act(server: Server) -> None:
        async with aiohttp.ClientSession() as session:
            for _ in range(3):
                async with session.post(server.url + "socket", headers={"Origin": "http://evil.example"}) as answer:
                    assert answer.status == 403
                    assert "--allow-origin 'http://evil.example'" in await answer.text()
            async with session.post(server.url + "socket", headers={"Origin": f"http://{server.address}"}) as answer:
                assert answer.status == 204

    with caplog.at_level(logging.WARNING):
        talk(tmp_path, act)
    assert caplog.text.count("refuses a page") == 1

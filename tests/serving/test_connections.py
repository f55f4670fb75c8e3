"""Connections to `creps explore` that never show the secret."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="pip install -e '.[explore]'")

import aiohttp
from comfyui_creps.creps_core.serving import connections
from comfyui_creps.creps_core.serving.standalone import serve
from explorer_server import TOKEN, app_of


@pytest.mark.parametrize(("most", "seconds", "closed"), [(16, 3600.0, 184), (1000, 1.0, 200)])
def test_idle_connections_lock_nobody_out(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    most: int,
    seconds: float,
    closed: int,
):
    """The oldest are closed when there are many, all of them after a time, and nothing is logged."""
    monkeypatch.setattr(connections.ConnectionLimit.__init__, "__defaults__", (most, seconds))

    async def act() -> None:
        async with serve(app_of(tmp_path), "127.0.0.1", 0) as port:
            url = f"http://127.0.0.1:{port}/{TOKEN}/"
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(f"{url}socket", headers={"Origin": f"http://127.0.0.1:{port}"}) as socket,
            ):
                await socket.receive()
                idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(200)]
                idle[-1][1].write(b"GET / HTTP/1.1\r\nX: ")  # and never the rest
                for reader, _ in idle[:closed]:
                    await asyncio.wait_for(read_to_end(reader), 60)
                async with aiohttp.ClientSession() as other, other.get(url) as answer:
                    assert answer.status == 200
                await socket.send_str("{}")  # the page itself stays
                assert "asks for nothing" in (await socket.receive()).data
                for _, writer in idle:
                    writer.close()

    async def read_to_end(reader: asyncio.StreamReader) -> None:
        with suppress(ConnectionError):
            while await reader.read(1000):
                pass

    with caplog.at_level(logging.WARNING):
        asyncio.run(act())
    assert caplog.text == ""

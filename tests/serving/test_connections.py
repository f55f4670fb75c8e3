"""Connections to `creps explore` that never show the secret."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="pip install -e '.[explore]'")

import aiohttp
from comfyui_creps.creps_core.serving import connections
from comfyui_creps.creps_core.serving.standalone import serve
from explorer_server import TOKEN, app_of


def test_idle_connections_lock_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """The oldest are closed when there are many, all of them after a time, and nothing is logged."""
    monkeypatch.setattr(connections.ConnectionLimit.__init__, "__defaults__", (16, 2.0))

    async def act() -> None:
        async with serve(app_of(tmp_path), "127.0.0.1", 0) as port:
            url = f"http://127.0.0.1:{port}/{TOKEN}/"
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(f"{url}socket", headers={"Origin": f"http://127.0.0.1:{port}"}) as socket,
            ):
                await socket.receive()
                idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(200)]
                idle[-1][1].write(b"GET / HTTP/1.1\r\nX: ")  # and goes on never
                start = time.monotonic()
                for reader, _ in idle[:184]:
                    await read_to_end(reader)
                assert time.monotonic() - start < 1.5
                async with aiohttp.ClientSession() as other, other.get(url) as answer:
                    assert answer.status == 200
                for reader, _ in idle[184:]:
                    await read_to_end(reader)
                await asyncio.sleep(0.5)
                await socket.send_str("{}")  # the page itself stays
                assert "asks for nothing" in (await socket.receive()).data
                for _, writer in idle:
                    writer.close()

    async def read_to_end(reader: asyncio.StreamReader) -> None:
        async with asyncio.timeout(20):
            try:
                while await reader.read(1000):
                    pass
            except ConnectionError:
                pass

    with caplog.at_level(logging.WARNING):
        asyncio.run(act())
    assert caplog.text == ""

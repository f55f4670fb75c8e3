"""Conversations over a WebSocket, friendly and hostile ones."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="pip install -e '.[explore]'")

from comfyui_creps.creps_core.latents import sample
from comfyui_creps.creps_core.rendering import View, render_view
from comfyui_creps.creps_core.serving import conversation
from explorer_server import Server, talk
from networks import make_generator

SOON = 30.0
DEEP: list = []
for _ in range(400):
    DEEP = [DEEP]


def explorer_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "creps-explorer"]


async def until_nothing_is_left() -> None:
    deadline = time.monotonic() + SOON
    while conversation._conversations or explorer_threads():
        assert time.monotonic() < deadline, (conversation._conversations, explorer_threads())
        await asyncio.sleep(0.02)


def test_what_is_asked_for_is_shown(tmp_path: Path):
    async def act(server: Server) -> None:
        async with server.page() as page:
            hello = (await page.receive(lambda heard: "hello" in heard))["hello"]
            assert hello["sources"] == ["small", "builtin: grey"]
            await page.show(1, {"seed": 3, "view": {"zoom": 2}})
            frame = await page.frame(1)
            (about,) = [text["generator"] for text in page.texts if "generator" in text]
            assert (about["resolution"], about["device"], about["classes"]) == (32, "cpu", 0)
            assert frame["sharp"]
            assert frame["view"] == {"x": 0.5, "y": 0.5, "zoom": 2.0, "rotation": 0.0}
            generator = make_generator()
            wanted = render_view(generator, sample(generator, [3]), View(zoom=2.0), height=32, width=48)[0]
            levels = (wanted.permute(1, 2, 0) * 127.5 + 128).clamp(0, 255).numpy()
            assert np.abs(np.asarray(frame["image"]).astype(float) - levels).mean() < 3  # it is a JPEG
            await page.show(2, source="builtin: grey", sharp=False)
            assert (await page.frame(2))["image"].size == (48, 32)

    talk(tmp_path, act)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("no json", "Expecting value"),
        ("[" * 60000, ""),
        ("[]", "must be an object"),
        ("{}", "asks for nothing"),
        ({"stop": 1, "id": "x"}, None),
        ({"open": "/etc/passwd"}, "asks for nothing"),
        ({"show": {}, "id": 1, "source": "small"}, "stage must be"),
        ({"show": {}, "id": 1, "source": "small", "stage": [1e9, 1, 1]}, "width of the stage"),
        ({"show": {}, "id": 1, "source": "small", "stage": [8, 8, "8"]}, "frame of the stage"),
        ({"show": {}, "id": 1, "source": ["small"], "stage": [8, 8, 8]}, "source must be the name"),
        ({"show": {}, "id": 1, "source": "../../etc/passwd", "stage": [8, 8, 8]}, "there is no generator"),
        ({"show": {}, "id": 1, "source": "small", "stage": [8, 8, 8], "time": -1}, "time must be"),
        ({"show": {}, "id": 1, "source": "small", "stage": [8, 8, 8], "side": 1 << 20}, "side must be"),
        ({"show": {"view": {"zoom": 1e300}}, "id": 1, "source": "small", "stage": [8, 8, 8]}, "zoom must be"),
        ({"show": {"walk": {"kind": "linked", "x": 1}}, "id": 1, "source": "small", "stage": [8, 8, 8]}, "linked"),
        (
            {"show": {"walk": {"kind": "PCA", "number": 99, "x": 1}}, "id": 1, "source": "small", "stage": [8, 8, 8]},
            "pair",
        ),
        ({"save": {"scene": {}, "source": "small", "format": "../x", "bits": 8}}, "saved as one of"),
        ({"save": {"scene": {}, "source": "small", "format": "png", "bits": 9}}, "saved as one of"),
        ({"save": {"scene": {"width": 1 << 30}, "source": "small", "format": "png", "bits": 8}}, "width must be"),
        ({"save": "x.png"}, "must be an object"),
        ({"save": {"scene": {}, "source": "small", "format": [], "bits": 8}}, "saved as one of"),
        ({"save": {"scene": {}, "source": "small", "format": {}, "bits": {}}}, "saved as one of"),
        ({"save": {"scene": {}, "source": [], "format": "png", "bits": []}}, "saved as one of"),
        ({"save": {"scene": [], "source": "small", "format": "png", "bits": 8}}, "must be an object"),
        ({"show": {"seed": DEEP}, "id": 1, "source": "small", "stage": [8, 8, 8]}, "seed must"),
    ],
)
def test_hostile_messages_are_answered_and_survived(tmp_path: Path, message: object, words: str | None):
    async def act(server: Server) -> None:
        async with server.page() as page:
            await page.send(message)
            if words is not None:
                error = await page.error()
                assert words in error
                assert len(error) < 400
            await page.show(5)
            await page.frame(5)
        await until_nothing_is_left()

    talk(tmp_path, act)
    assert not list(tmp_path.iterdir())


def test_too_long_messages_and_bytes_end_the_conversation(tmp_path: Path):
    async def act(server: Server) -> None:
        for send in (lambda s: s.send_str("x" * (1 << 17)), lambda s: s.send_bytes(b"1234")):
            async with server.page() as page:
                await send(page.socket)
                with pytest.raises(ConnectionError):
                    await page.receive(lambda heard: False)
        await until_nothing_is_left()

    talk(tmp_path, act)


def test_a_thousand_requests_leave_nothing_behind(tmp_path: Path):
    async def act(server: Server) -> None:
        async with server.page() as page:
            for number in range(1, 1001):
                await page.show(number, {"seed": number}, sharp=number % 2 == 0)
            await page.frame(1000)
            assert not [text for text in page.texts if "error" in text]
        await until_nothing_is_left()

    talk(tmp_path, act)


def test_pages_that_go_away_in_the_middle_leave_nothing_behind(tmp_path: Path):
    async def act(server: Server) -> None:
        for _ in range(10):
            async with server.page() as page:
                await page.show(1, stage=[2048, 2048, 2048])
                await page.receive(lambda heard: "generator" in heard)
                page.socket._response.connection.transport.abort()  # type: ignore  # no goodbye
        await until_nothing_is_left()

    talk(tmp_path, act)


def test_a_page_that_never_looks_holds_up_nobody(tmp_path: Path):
    async def act(server: Server) -> None:
        async with server.page() as idle, server.page() as page:
            for number in range(50):
                await idle.show(number)
            await page.show(1)
            await page.frame(1)
            await asyncio.sleep(0.3)
            (talks,) = [one for one in conversation._conversations if one._worker.unacknowledged]
            assert talks._worker.unacknowledged <= 2

    talk(tmp_path, act)


def test_there_are_only_so_many_conversations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(conversation, "MAX_CONVERSATIONS", 2)

    async def act(server: Server) -> None:
        async with server.page(), server.page() as page:
            with pytest.raises(Exception, match="503"):
                async with server.page():
                    pass
            await page.show(1)
            await page.frame(1)
        await until_nothing_is_left()
        async with server.page() as page:
            await page.show(1)
            await page.frame(1)

    talk(tmp_path, act)


def test_no_error_of_ours_ends_the_conversation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fail(*_: object) -> None:
        raise TypeError("unhashable")

    async def act(server: Server) -> None:
        async with server.page() as page:
            with monkeypatch.context() as patch:
                patch.setattr(conversation, "read_request", fail)
                for _ in range(50):
                    await page.show(1)
                    assert "unhashable" in await page.error()
            await page.show(2)
            await page.frame(2)

    monkeypatch.setattr(conversation, "_logged", set())
    talk(tmp_path, act)
    assert sum("could not handle" in record.message for record in caplog.records) == 1


def test_silent_pages_give_their_place_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(conversation, "MAX_CONVERSATIONS", 2)
    monkeypatch.setattr(conversation, "_SILENT_SECONDS", 0.2)

    async def act(server: Server) -> None:
        async with server.page() as silent, server.page() as page:
            await page.show(1)
            await page.frame(1)
            await asyncio.sleep(0.3)
            async with server.page() as third:
                await third.show(1)
                await third.frame(1)
                with pytest.raises(ConnectionError):
                    await silent.receive(lambda heard: False)
                await page.show(2)
                await page.frame(2)

    talk(tmp_path, act)


def test_a_page_that_does_not_read_is_slowed_down_and_then_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its answers are not kept without bound, and its place comes free."""
    monkeypatch.setattr(conversation, "_RATE", 1e9)
    monkeypatch.setattr(conversation, "_BURST", 10**9)
    monkeypatch.setattr(conversation, "_SEND_SECONDS", 1.0)
    most = 0

    async def act(server: Server) -> None:
        nonlocal most
        async with server.page() as page:
            page.socket._response.connection.transport.pause_reading()  # type: ignore
            (talks,) = conversation._conversations

            async def flood() -> None:
                while True:
                    await page.send({"x" * 1000: 1})

            flooding = asyncio.ensure_future(flood())
            deadline = time.monotonic() + SOON
            while conversation._conversations:
                assert time.monotonic() < deadline
                most = max(most, talks._outbox.qsize())
                await asyncio.sleep(0.01)
            flooding.cancel()

    talk(tmp_path, act)
    assert 0 < most <= conversation._OUTBOX + 2


def test_after_a_flood_places_come_free_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(conversation, "_RATE", 10)
    monkeypatch.setattr(conversation, "_BURST", 1)

    async def act(server: Server) -> None:
        async with server.page() as page:
            for _ in range(500):  # 50 seconds' worth
                await page.send("{}")
            await asyncio.sleep(0.3)
            page.socket._response.connection.transport.abort()  # type: ignore
            await asyncio.sleep(1.0)
            assert not conversation._conversations

    talk(tmp_path, act)


def test_a_picture_is_saved_with_progress(tmp_path: Path):
    async def act(server: Server) -> None:
        async with server.page() as page:
            wanted = {"scene": {"seed": 4, "width": 60, "height": 40}, "source": "small", "format": "png", "bits": 16}
            for name in ("random-seed4-60x40.png", "random-seed4-60x40-2.png"):
                await page.send({"save": wanted})
                saved = await page.receive(lambda heard: "file" in heard.get("saving", {}))
                assert Path(saved["saving"]["file"]) == tmp_path / name
            assert any("done" in text.get("saving", {}) for text in page.texts)

    talk(tmp_path, act)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["random-seed4-60x40-2.png", "random-seed4-60x40.png"]


def test_saving_can_be_stopped_and_goes_on(tmp_path: Path):
    big = {"scene": {"width": 4096, "height": 4096}, "source": "small", "format": "png", "bits": 8}

    async def act(server: Server) -> None:
        async with server.page() as page:
            await page.send({"save": big})
            await page.receive(lambda heard: heard.get("saving", {}).get("done", 0) > 0)
            await page.send({"save": big})
            assert "is being saved" in await page.error()
            await page.send({"stop": True})
            await page.receive(lambda heard: heard.get("saving", {}).get("stopped"))

    talk(tmp_path, act)
    assert not list(tmp_path.glob("*.png"))


def test_errors_of_saving_are_told(tmp_path: Path):
    async def act(server: Server) -> None:
        async with server.page() as page:
            await page.send({"save": {"scene": {}, "source": "elsewhere", "format": "png", "bits": 8}})
            saved = await page.receive(lambda heard: "error" in heard.get("saving", {}))
            assert "there is no generator" in saved["saving"]["error"]

    talk(tmp_path, act)

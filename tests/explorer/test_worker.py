"""The worker draws only the newest request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from comfyui_creps.creps_core.explorer import Cancelled, FrameRequest, LatestOnlyWorker, Viewport, read_scene

SCENE, VIEWPORT = read_scene({}), Viewport(8, 8, 8)
SOON = 30.0  # seconds; far more than is needed


class Painter:
    """Draws once `go` is set, and records what it drew."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.cancelled: list[int] = []
        self.changed = threading.Condition()
        self.go = threading.Event()

    def __call__(self, request: FrameRequest, check: Callable[[], None]) -> None:
        self.note(self.begun, request.number)
        try:
            while not self.go.wait(0.005):
                check()
        except Cancelled:
            self.note(self.cancelled, request.number)
            raise
        self.note(self.ended, request.number)

    def note(self, kind: list[int], number: int) -> None:
        with self.changed:
            kind.append(number)
            self.changed.notify_all()

    def until(self, holds: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(holds, SOON)


@pytest.fixture
def painter() -> Painter:
    return Painter()


@pytest.fixture
def worker(painter: Painter) -> Iterator[LatestOnlyWorker]:
    made = LatestOnlyWorker(painter)
    yield made
    made.close()
    assert made.join(SOON)


def request(number: int, sharp: bool = False) -> FrameRequest:
    return FrameRequest(number, SCENE, VIEWPORT, sharp)


def test_of_a_thousand_the_last_is_drawn(painter: Painter, worker: LatestOnlyWorker):
    worker.submit(request(0))
    painter.until(lambda: painter.begun == [0])
    for number in range(1, 1001):
        worker.submit(request(number))
    painter.go.set()
    painter.until(lambda: 1000 in painter.ended)
    assert painter.begun == [0, 1000]


def test_a_sharp_one_gives_way_at_once(painter: Painter, worker: LatestOnlyWorker):
    worker.submit(request(0, sharp=True))
    painter.until(lambda: painter.begun == [0])
    worker.submit(request(1))
    painter.until(lambda: painter.cancelled == [0])
    painter.go.set()
    painter.until(lambda: painter.ended == [1])


def test_a_page_that_does_not_look_gets_two_frames(painter: Painter, worker: LatestOnlyWorker):
    painter.go.set()
    for number in range(2):
        worker.submit(request(number))
        painter.until(lambda number=number: number in painter.ended)
    worker.submit(request(2))
    with painter.changed:
        assert not painter.changed.wait_for(lambda: 2 in painter.begun, 0.3)
    worker.acknowledge()
    painter.until(lambda: 2 in painter.ended)


def test_errors_do_not_end_it(painter: Painter, caplog: pytest.LogCaptureFixture):
    done = threading.Event()

    def draw(request: FrameRequest, check: Callable[[], None]) -> None:
        if request.number < 5:
            raise RuntimeError("no")
        done.set()

    worker = LatestOnlyWorker(draw)
    for number in range(6):
        worker.submit(request(number))
    assert done.wait(SOON)
    worker.close()
    assert worker.join(SOON)


def test_closing_ends_a_drawing(painter: Painter):
    worker = LatestOnlyWorker(painter)
    worker.submit(request(0))
    painter.until(lambda: painter.begun == [0])
    worker.close()
    assert worker.join(SOON)
    assert painter.cancelled == [0]

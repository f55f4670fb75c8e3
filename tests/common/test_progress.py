"""Progress callbacks of a whole and of its parts."""

from __future__ import annotations

import pytest
from comfyui_creps.common.progress import WorkCounter, partial_progress


def test_parts_add_up_to_the_whole():
    seen: list[float] = []
    for begin, end in ((0, 1), (1, 5), (5, 10)):
        report = partial_progress(lambda done, total: seen.append(done / total), begin, end, 10)
        assert report is not None
        for done in range(4):
            report(done, 3)
    assert seen == sorted(seen)
    assert (seen[0], seen[3], seen[7], seen[11]) == (0, 0.1, 0.5, 1)
    assert seen[5] == pytest.approx(0.1 + 0.4 / 3, abs=1e-5)


def test_no_listener_and_no_work():
    assert partial_progress(None, 0, 1, 2) is None
    report = partial_progress(lambda done, total: None, 0, 1, 2)
    assert report is not None
    report(0, 0)


def test_work_is_added_up():
    seen = []
    counter = WorkCounter(lambda *now: seen.append(now))
    counter.total = 10
    counter.add(3)
    counter.add(7)
    assert seen == [(3, 10), (10, 10)]
    WorkCounter(None).add(1)

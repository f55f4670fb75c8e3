"""Choose the size of drafts from the time that earlier ones took."""

from __future__ import annotations

# fmt: off
_SIDES = (48, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448,
          512, 576, 640, 704, 768, 896, 1024, 1280, 1536, 1792, 2048)
# fmt: on
"""Longer sides of frames. A short list, so that the image does not visibly resize and caches are reused."""
_FIRST = 192
_FILL = 0.85  # share of the time per frame that the next larger size may take
_FAST_FRAMES = 3  # consecutive frames with time to spare before the size grows
_LATE_FRAMES = 2  # consecutive late frames before it shrinks; a single one may be another program's fault


class FrameSizer:
    """The size of the next frame.

    Args:
        seconds: available per frame.
    """

    def __init__(self, seconds: float):
        self.seconds = seconds
        self._index = _SIDES.index(_FIRST)
        self._fast, self._late = 0, 0

    def side(self, longest: int) -> int:
        """Longer side of the next frame in pixels, at most `longest`."""
        return min(longest, _SIDES[self._index])

    def record(self, seconds: float, side: int) -> None:
        """Record the duration of a frame with this longer side."""
        if side < _SIDES[self._index]:  # the viewport was smaller: it says nothing about larger frames
            return
        self._late = self._late + 1 if seconds > self.seconds else 0
        if self._late >= _LATE_FRAMES or seconds > 4 * self.seconds:
            self._shrink(seconds)
            return
        larger = _SIDES[min(self._index + 1, len(_SIDES) - 1)]
        fits = seconds * (larger / side) ** 2 < _FILL * self.seconds
        self._fast = self._fast + 1 if fits else 0
        if self._fast >= _FAST_FRAMES:
            self._index, self._fast = min(self._index + 1, len(_SIDES) - 1), 0

    def _shrink(self, seconds: float) -> None:
        scale = (self.seconds / max(seconds, 1e-6)) ** 0.5
        largest = max(_SIDES[self._index] * max(scale, 0.5), _SIDES[0])
        index = max(i for i, side in enumerate(_SIDES) if side <= largest)
        self._index, self._fast, self._late = max(0, min(index, self._index - 1)), 0, 0

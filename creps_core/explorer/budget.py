"""How large a frame may be so that frames come fast enough: measured, not guessed."""

from __future__ import annotations

_SIDES = (
    48,
    64,
    96,
    128,
    160,
    192,
    224,
    256,
    320,
    384,
    448,
    512,
    576,
    640,
    704,
    768,
    896,
    1024,
    1280,
    1536,
    1792,
    2048,
)
"""Longer sides of frames: few sizes, so that pictures do not breathe and what is kept per size serves again."""
_FIRST = 192
_ROOM = 0.85  # of the time that a frame has, before a larger one is tried
_CALM = 3  # frames in a row that have room, before that


class Budget:
    """The size of the next frame, from the time that the last ones took.

    Args:
        seconds: that a frame may take, all in all.
    """

    def __init__(self, seconds: float):
        self.seconds = seconds
        self._step, self._calm, self._slow = _SIDES.index(_FIRST), 0, 0
        self._pace = 0.0  # seconds per pixel, of late

    def side(self, longest: int) -> int:
        """The longer side of the next frame, of a stage of this longest side."""
        return min(longest, _SIDES[self._step])

    def took(self, seconds: float, pixels: int, side: int) -> None:
        """A frame of `pixels` and this longer side took so long.

        One late frame is an accident (another program wanted the processor), two are a reason to shrink.
        """
        pace = seconds / max(pixels, 1)
        self._pace = pace if not self._pace else self._pace + 0.4 * (pace - self._pace)
        if side < _SIDES[self._step]:  # the stage was smaller: nothing is known about larger frames
            return
        self._slow = self._slow + 1 if seconds > self.seconds else 0
        if self._slow >= 2 or seconds > 4 * self.seconds:
            shrink = (self.seconds / max(seconds, 1e-6)) ** 0.5
            wanted = max(_SIDES[self._step] * max(shrink, 0.5), _SIDES[0])
            smaller = max(i for i, size in enumerate(_SIDES) if size <= wanted)
            self._step, self._calm, self._slow = max(0, min(smaller, self._step - 1)), 0, 0
            return
        larger = _SIDES[min(self._step + 1, len(_SIDES) - 1)]
        room = seconds * (larger / side) ** 2 < _ROOM * self.seconds
        self._calm = self._calm + 1 if room else 0
        if self._calm >= _CALM:
            self._step, self._calm = min(self._step + 1, len(_SIDES) - 1), 0

    def predict(self, pixels: int) -> float:
        """Seconds that a picture of so many pixels takes, about."""
        return self._pace * pixels

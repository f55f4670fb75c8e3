"""Times as people write them, and how long is left."""

import time


class Pace:
    """How fast work is done; what was done before the first call of `at` does not count."""

    def __init__(self) -> None:
        self.start, self.first, self.speed = time.monotonic(), -1, 0.0
        """Speed: work in a second, so far."""

    def at(self, done: int, total: int) -> str:
        """How long is left when so much is done: `"3 min 20 s"`, or `"?"` while that is not known."""
        if self.first < 0 or done < self.first:  # begun again, as after memory ran out
            self.start, self.first = time.monotonic(), done
        self.speed = (done - self.first) / max(time.monotonic() - self.start, 1e-3)
        return duration((total - done) / self.speed) if self.speed else "?"


def duration(seconds: float) -> str:
    """`seconds`, finite, as `"2 min 05 s"` or `"24 h 07 min"`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"

"""Format durations, and estimate the time left."""

import time


class Pace:
    """Measures the speed of work. Work done before the first call of `at` is ignored, as after a resume."""

    def __init__(self) -> None:
        self.start, self.first, self.speed = time.monotonic(), -1, 0.0
        """Speed: units of work per second so far."""

    def at(self, done: int, total: int) -> str:
        """The time left after `done` of `total` units, as `"3 min 20 s"`, or `"?"` while it is unknown."""
        if self.first < 0 or done < self.first:  # restarted, as after running out of memory
            self.start, self.first = time.monotonic(), done
        self.speed = (done - self.first) / max(time.monotonic() - self.start, 1e-3)
        return duration((total - done) / self.speed) if self.speed else "?"


def duration(seconds: float) -> str:
    """Format finite `seconds` as `"2 min 05 s"`, `"24 h 07 min"`, `"12 days"` or `"3.1 years"`."""
    days = seconds / 86400
    if days >= 2 * 365:
        return f"{days / 365.25:,.1f} years"
    if days >= 3:
        return f"{round(days)} days"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"

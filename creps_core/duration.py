"""Times as people write them."""


def duration(seconds: float) -> str:
    """`seconds`, finite, as `"2 min 05 s"` or `"24 h 07 min"`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"

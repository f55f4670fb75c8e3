"""A generator under your fingers: what a page shows, drawn as fast as it moves. Knows no server and no browser.

Read `scene.py` first: a `Scene` is all that there is to know. `walk.py` turns it into latents and views, `session.py`
draws it, `budget.py` says how large a frame may be, and `latest.py` lets the newest request win.
"""

from .latest import Cancelled, LatestOnlyWorker
from .scene import MAX_SIDE, WALKS, Key, Look, Scene, Walk, read_look, read_scene
from .session import MAX_STAGE, Frame, Request, Session, Stage
from .walk import Walker, frame_times, length

__all__ = [
    "MAX_SIDE",
    "MAX_STAGE",
    "WALKS",
    "Cancelled",
    "Frame",
    "Key",
    "LatestOnlyWorker",
    "Look",
    "Request",
    "Scene",
    "Session",
    "Stage",
    "Walk",
    "Walker",
    "frame_times",
    "length",
    "read_look",
    "read_scene",
]

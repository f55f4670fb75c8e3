"""Explore a generator interactively: scenes, and frames drawn as fast as they change. Knows no server or browser.

Start with `scene.py`: a `Scene` is the complete state. `walk.py` turns it into latents and views, `session.py` draws
it, `frame_sizer.py` chooses the size of drafts, and `worker.py` draws only the newest request.
"""

from .scene import (
    LAYERS,
    LIMITS,
    MAX_FRAMES,
    MAX_KEYFRAMES,
    WALKS,
    Keyframe,
    Scene,
    Shot,
    Walk,
    read_scene,
    read_shot,
)
from .session import MAX_VIEWPORT, FrameRequest, RenderedFrame, Session, Viewport
from .walk import Walker, frame_times
from .worker import Cancelled, LatestOnlyWorker

__all__ = [
    "LAYERS",
    "LIMITS",
    "MAX_FRAMES",
    "MAX_KEYFRAMES",
    "MAX_VIEWPORT",
    "WALKS",
    "Cancelled",
    "FrameRequest",
    "Keyframe",
    "LatestOnlyWorker",
    "RenderedFrame",
    "Scene",
    "Session",
    "Shot",
    "Viewport",
    "Walk",
    "Walker",
    "frame_times",
    "read_scene",
    "read_shot",
]

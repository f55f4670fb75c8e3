"""Messages between the page of the explorer and the server, over a WebSocket.

The page sends JSON: `{"show": scene, "id", "source", "stage": [width, height, frame], "sharp", "side", "time"}` to
request a frame, `{"seen": id}` to acknowledge each answer, and, where images may be saved, `{"save": {...}}` and
`{"stop": true}`. The server sends JSON (`hello`, `generator`, `waiting`, `error`, `saving`) and frames: the length of a
JSON header (4 bytes, little-endian), the header, and a JPEG.

`hello` contains `PROTOCOL`. A page of another version shows that it must be reloaded.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from ..explorer import MAX_VIEWPORT, FrameRequest, RenderedFrame, Viewport, read_scene
from .host import Lease

PROTOCOL = 1
"""Version of the messages. Increase it with incompatible changes."""


def pack_frame(request: FrameRequest, frame: RenderedFrame) -> bytes:
    """Encode a frame: the length of a JSON header, the header, and a JPEG."""
    start = time.perf_counter()
    jpeg = frame.jpeg()
    height, width, _ = frame.pixels.shape
    view = frame.view
    header = {
        "id": request.number,
        "width": width,
        "height": height,
        "sharp": frame.sharp,
        "quality": frame.quality,
        "view": {"x": view.center_x, "y": view.center_y, "zoom": view.zoom, "rotation": view.rotation},
        "draw": round(1000 * frame.seconds, 2),  # milliseconds
        "encode": round(1000 * (time.perf_counter() - start), 2),
    }
    text = json.dumps(header).encode()
    return len(text).to_bytes(4, "little") + text + jpeg


def describe_generator(lease: Lease, source: str) -> dict[str, Any]:
    """The `generator` message: name, resolution, classes, device, and numbers of directions."""
    generator, directions = lease.generator, lease.directions
    return {
        "name": generator.name,
        "source": source,
        "resolution": generator.config.img_resolution,
        "aspect": list(generator.aspect),
        "classes": generator.config.c_dim,
        "pairs": generator.config.w_dim // 2,
        "device": str(generator.mapping.w_avg.device),
        "linked": 0 if directions is None else len(directions) // 2,
        "directions": {
            "own": generator.config.w_dim,
            "linked": 0 if directions is None else len(directions),
            "Named": len(generator.directions),
        },
        "names": list(generator.directions),
    }


def read_request(message: Mapping[str, Any], number: int) -> FrameRequest:
    """Validate a `show` message.

    Raises:
        ValueError: a value has the wrong type or is out of range; the message names it.
    """
    viewport, source, time = message.get("stage"), message.get("source"), message.get("time")
    if not isinstance(viewport, list) or len(viewport) != 3:
        raise ValueError("stage must be [width, height, frame] in pixels")
    if type(source) is not str:
        raise ValueError("source must be the name of a generator")
    if time is not None and (type(time) not in (int, float) or not 0 <= time <= 1e6):
        raise ValueError(f"time must be a number of seconds, not {str(time)[:40]!r}")
    side = message.get("side", 0)
    if type(side) is not int or not 0 <= side <= MAX_VIEWPORT:
        raise ValueError(f"side must be a whole number from 0 to {MAX_VIEWPORT}, not {str(side)[:40]!r}")
    return FrameRequest(
        number, read_scene(message["show"]), Viewport(*viewport), message.get("sharp") is True, side, time, source
    )

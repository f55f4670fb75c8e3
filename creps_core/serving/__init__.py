"""The explorer behind a WebSocket, for our own server and for ComfyUI's.

It needs aiohttp, an optional dependency: import only `command` where that may be missing.

Start with `protocol.py` and `conversation.py`. `guard.py` checks origins, `host.py` leases generators, `standalone.py`
is the server of `creps explore`, and `saving.py` saves its images.
"""

"""The explorer behind a WebSocket: for a page of our own server, and for ComfyUI's. The only code that knows aiohttp,
which is an optional dependency: import `command` alone where it may be missing.

Read `conversation.py` first; `guard.py` says who may talk, `host.py` where generators come from, `standalone.py` is the
server of `creps explore`, `saving.py` what it saves.
"""

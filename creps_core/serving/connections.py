"""A limit on connections that have not shown the secret: idle ones neither lock the user out nor fill the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

MAX_STRANGERS = 64
STRANGER_SECONDS = 10.0


class ConnectionLimit:
    """Makes the protocols of a server. Closes connections without the secret: after a time, and the oldest when full.

    Args:
        make: makes the protocol of a connection.
        limit: connections without the secret.
        seconds: that one has to show it.
    """

    def __init__(
        self,
        make: Callable[[], asyncio.Protocol],
        limit: int = MAX_STRANGERS,
        seconds: float = STRANGER_SECONDS,
    ):
        self._make, self._limit, self._seconds = make, limit, seconds
        self._strangers: dict[object, asyncio.TimerHandle] = {}  # the oldest first

    def __call__(self) -> asyncio.Protocol:
        """The protocol of a new connection."""
        protocol = self._make()
        timer = asyncio.get_running_loop().call_later(self._seconds, self._close, protocol)
        self._strangers[protocol] = timer
        while len(self._strangers) > self._limit:
            self._close(next(iter(self._strangers)))
        return protocol

    def admit(self, protocol: object) -> None:
        """The connection has shown the secret: it may stay."""
        if timer := self._strangers.pop(protocol, None):
            timer.cancel()

    def _close(self, protocol: object) -> None:
        self.admit(protocol)
        if transport := getattr(protocol, "transport", None):
            transport.abort()

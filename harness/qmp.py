"""A socket to QEMU's monitor in, QMP commands as plain blocking calls out, by qemu.qmp.

qemu.qmp speaks asyncio: one event loop in one thread serves every machine of this process. What the
commands are for, this does not know.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from qemu.qmp import EventListener, Message, QMPClient
from qemu.qmp.error import QMPError

from harness.errors import HarnessError

Answer = TypeVar("Answer")
SECONDS = 5.0


class Monitor:
    """QEMU's monitor. It connects in the background, for a boot must not wait for it."""

    def __init__(self, connection: socket.socket) -> None:
        self.patience = SECONDS
        """How long to wait for QEMU's answer; saving a machine's state takes it a while."""
        self._socket = connection
        self._client = QMPClient("xenverify")
        self._events = EventListener(names="SHUTDOWN")
        self._client.register_listener(self._events)
        self._connected = self._start(self._client.connect(connection))

    def execute(self, command: str, **arguments: object) -> Any:
        """Run one QMP command; underscores in names of arguments stand for dashes."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        try:
            self._connected.result(self.patience)
            return self._start(self._client.execute(command, named or None)).result(self.patience)
        except (QMPError, TimeoutError, OSError) as problem:
            why = str(problem) or f"no answer in {self.patience:g} s"
            raise HarnessError(f"QEMU's monitor does not do {command!r}: {why}") from problem

    def shutdown_reason(self) -> str | None:
        """Why QEMU ended ("guest-reset", "guest-shutdown", …), if it said so before it went."""
        events: list[Message] = []
        with contextlib.suppress(TimeoutError):
            events = self._start(self._history()).result(SECONDS)
        return next((_data(event).get("reason") for event in events), None)

    def close(self) -> None:
        """Hang up; QEMU does not mind."""
        self._connected.cancel()
        with contextlib.suppress(Exception):  # whatever it says, the connection is over
            self._start(self._client.disconnect()).result(1.0)
        self._socket.close()

    async def _history(self) -> list[Message]:
        return list(self._events.clear())

    def _start(self, work: Coroutine[Any, Any, Answer]) -> Future[Answer]:
        return asyncio.run_coroutine_threadsafe(work, _loop(os.getpid()))


def _data(event: Message) -> dict[str, Any]:
    data = event["data"]
    return data if isinstance(data, dict) else {}


@functools.cache
def _loop(process: int) -> asyncio.AbstractEventLoop:
    """The event loop of this process; a fork gets one of its own, for threads do not survive it."""
    del process
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="qmp", daemon=True).start()
    return loop

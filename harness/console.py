"""A socket on which Xen talks in, its text, its signs of death and pexpect's search over it out.

One thread reads, so that a crash is known when it is said, whoever waits for what. What a text
means beyond that, this does not know.
"""

from __future__ import annotations

import codecs
import contextlib
import socket
import threading
import time
from re import Pattern

import pexpect
from pexpect.spawnbase import SpawnBase

from harness.crashes import Crash, Detector

# How far back a search looks when more text comes; without it, through all of it each time.
SEARCH_WINDOW = 4096
CHUNK = 1 << 16
# QEMU sends every character by itself. While little comes at a time, wait for more to come:
# waking up for each costs QEMU and us half as much again as the whole boot.
LITTLE = 256
NAP_SECONDS = 0.002
LONGEST_CRASH = 20  # times the silence that ends it


class Console:
    """Everything Xen and its domains said since they began, kept up to date by a thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._changed = threading.Condition()
        self._pieces: list[str] = []
        self._length = 0
        self._tail = ""
        self._detector = Detector()
        self.closed = False
        """Whether the other end is gone: QEMU has ended."""
        self.last_word = time.monotonic()
        """When something was last said."""
        self._session: _Session | None = None
        self._reader = threading.Thread(target=self._read, name="console", daemon=True)
        self._reader.start()

    @property
    def text(self) -> str:
        """All that was said, with plain newlines."""
        with self._changed:
            self._pieces = ["".join(self._pieces)]
            return self._pieces[0]

    def mark(self) -> int:
        """The place where the text ends now, for `since`."""
        return self._length

    def since(self, mark: int) -> str:
        """What was said after `mark`."""
        return self.text[mark:]

    @property
    def sick(self) -> bool:
        """Whether Xen has begun to crash; cheap enough to ask always."""
        return self._detector.sick

    def crash(self, seconds: float = 0) -> Crash | None:
        """The crash Xen announced, None if there is none.

        Waits for its end until nothing was said for `seconds`, but not for one that never ends.
        """
        deadline = time.monotonic() + LONGEST_CRASH * seconds
        with self._changed:
            while self._detector.sick and not (self._detector.whole or self.closed):
                if not self._changed.wait(seconds) or time.monotonic() > deadline:
                    break
            return self._detector.crash

    def wait_for_text(self, mark: int, seconds: float) -> bool:
        """Wait for text behind `mark`, or for the console's end; tell whether there is any."""
        with self._changed:
            self._changed.wait_for(lambda: self._length > mark or self.closed, seconds)
            return self._length > mark

    def send(self, text: str) -> None:
        """Type `text` on Xen's console."""
        self._connection.sendall(text.encode())

    def expect(self, pattern: str | Pattern[str], seconds: float) -> str:
        """Wait for `pattern` behind what was expected last; return the text up to its end.

        Raises pexpect.TIMEOUT or pexpect.EOF. Only one thread may expect at a time.
        """
        if self._session is None:
            self._session = _Session(self)
        self._session.expect(pattern, timeout=seconds)
        return f"{self._session.before}{self._session.after}"

    def drain(self, seconds: float = 1.0) -> None:
        """After QEMU's end: wait until its last words are read."""
        self._reader.join(seconds)

    def close(self) -> None:
        """Stop listening."""
        # Shutting down, not closing, is what wakes a thread blocked in recv.
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._reader.join(1.0)
        self._connection.close()

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while True:
            try:
                data = self._connection.recv(CHUNK)
            except OSError:
                data = b""
            self._take(decoder.decode(data, final=not data), last=not data)
            if not data:
                return
            if len(data) < LITTLE:
                time.sleep(NAP_SECONDS)

    def _take(self, piece: str, last: bool) -> None:
        piece = piece.replace("\r", "")
        with self._changed:
            self._pieces.append(piece)
            self._length += len(piece)
            self.last_word = time.monotonic()
            *lines, self._tail = (self._tail + piece).split("\n")
            for line in lines:
                self._detector.read(line)
            if last:
                self._detector.read(self._tail)
                self.closed = True
            self._changed.notify_all()


class _Session(SpawnBase):  # type: ignore[type-arg]  # generic in its stubs only
    """pexpect over the text a Console keeps: it has no file descriptor of its own to read."""

    def __init__(self, console: Console) -> None:
        super().__init__(encoding="utf-8", searchwindowsize=SEARCH_WINDOW)
        self._console = console
        self._at = 0

    def read_nonblocking(self, size: int = 1, timeout: float | None = None) -> str:
        """Give pexpect what came since it asked last."""
        del size  # a limit that only matters where reading more would block
        if not self._console.wait_for_text(self._at, -1 if timeout is None else timeout):
            if self._console.closed:
                self.flag_eof = True
                raise pexpect.EOF("QEMU has ended")
            raise pexpect.TIMEOUT("nothing was said")
        piece = self._console.since(self._at)
        self._at += len(piece)
        return piece

"""One command for another machine in, its exit code out, and what it left in a folder here.

Comes in: an address, the words of a command, and what they name. What the command prints appears
here as it does there, Ctrl-C goes there, and the folder it leaves its results in comes back.
Refuses to know: what the command does.
"""

from __future__ import annotations

import io
import os
import shlex
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fabric
from fabric.runners import Remote

from harness.cache import Cache
from harness.errors import HarnessError
from harness.progress import Progress
from harness.remote import attend
from harness.remote.connection import LOST, Address, ask, connected, lost, sh
from harness.remote.project import Installed, install, send_archive
from harness.remote.sending import File, Named, Sender, contents
from harness.reports.folder import UNFINISHED
from harness.sent import Sent

CTRL_C = attend.CTRL_C.decode()
PATIENCE = 3  # times Ctrl-C before it is not the other machine's business any more
# What of our environment is about the terminal, and goes along.
ABOUT_THE_TERMINAL = ("TERM", "COLORTERM", "NO_COLOR")


@dataclass(frozen=True)
class Order:
    """One command for another machine."""

    words: Sequence[str]
    named: Named
    files: Sequence[File]
    results: str = ""  # the folder there, relative to where it runs, that shall come back
    stdin: bytes | None = None


class _Runner(Remote):  # type: ignore[misc]  # fabric has no types
    """Has a Ctrl-C go there, terminal or none; fabric would only hang up without one."""

    presses = 0

    def send_interrupt(self, interrupt: BaseException) -> None:
        """Pass it on, until the one who presses has lost patience."""
        self.presses += 1
        if self.presses > PATIENCE:
            raise interrupt
        self.channel.send(CTRL_C)


def run(
    address: Address, order: Order, folder: Path | None, cache: Cache, say: Progress
) -> tuple[int, bool]:
    """Run it there; return its exit code, and whether it left anything, which is then in `folder`.

    Raises UsageError for what a reference names and there is not, HarnessError if the machine
    cannot be reached or lacks something, or if the connection is lost: then it ends there, too.
    """
    say(f"connecting to {address}")
    with connected(address) as connection:
        installed = install(connection, address, say)
        sent = Sender(connection, address, installed.place, say).send(order.named, cache)
        directory = _make_directory(connection, address, installed, order, sent)
        try:
            say("")
            status = _attend(connection, address, installed, directory, order.words)
            left = folder is not None and _fetch(
                connection, address, f"{directory}/here/{order.results}", folder
            )
        finally:
            if connection.is_connected:
                ask(connection, address, f"rm -rf {shlex.quote(directory)}")
    return status, left


def _make_directory(
    connection: fabric.Connection, address: Address, installed: Installed, order: Order, sent: Sent
) -> str:
    """Make a directory for this command alone, with everything in it that it names."""
    template = shlex.quote(f"{installed.place}/run-XXXXXXXX")
    directory = ask(connection, address, f"mktemp -d {template}").strip()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=3) as archive:
        _add(archive, "sent.json", sent.write().encode())
        if order.stdin is not None:
            _add(archive, attend.STDIN, order.stdin)
        for path, name in contents(order.files):
            archive.add(path, f"here/{name}")
    send_archive(connection, address, buffer.getvalue(), f"{directory}/all")
    there = shlex.quote(directory)
    ask(connection, address, f"cd {there} && mkdir -p all/here && mv all/* . && rmdir all")
    return directory


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def _attend(
    connection: fabric.Connection,
    address: Address,
    installed: Installed,
    directory: str,
    words: Sequence[str],
) -> int:
    """Run the command, with our terminal as its own if we have one."""
    on_terminal = all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))
    variables = {
        "PYTHONPATH": installed.code,
        "PYTHONUNBUFFERED": "1",
        "XENVERIFY_SENT": f"{directory}/sent.json",
        **{name: os.environ[name] for name in ABOUT_THE_TERMINAL if name in os.environ},
    }
    script = f"{installed.code}/harness/remote/attend.py"
    command = shlex.join(
        ["env", *(f"{name}={value}" for name, value in variables.items()),
         installed.python, script, directory, *words]
    )  # fmt: skip
    options: dict[str, Any] = {"pty": True} if on_terminal else {"in_stream": False}
    runner = _Runner(connection)
    try:
        done = runner.run(sh(f"exec {command}"), warn=True, hide=False, **options)
    except LOST as problem:
        raise lost(address, problem) from None
    if done.exited == -1:
        raise lost(address)
    return int(done.exited)


def _fetch(connection: fabric.Connection, address: Address, there: str, folder: Path) -> bool:
    """Bring a folder back, and say whether there is one: the command may not have got so far."""
    packed = f"{there}.tar.gz"
    quoted = shlex.quote(there)
    found = ask(
        connection,
        address,
        f"if [ -d {quoted} ]; then tar -czf {shlex.quote(packed)} --exclude=./{UNFINISHED}"
        f" -C {quoted} . && echo y; fi",
    )
    if not found.strip():
        return False
    buffer = io.BytesIO()
    try:
        connection.get(packed, buffer)
        buffer.seek(0)
        with tarfile.open(fileobj=buffer) as archive:
            archive.extractall(folder, filter="data")
    except LOST as problem:
        raise lost(address, problem) from None
    except tarfile.TarError as problem:
        raise HarnessError(f"the results from {address} are damaged: {problem}") from None
    return True

"""The command as a user runs it, in a process of its own: what it prints, leaves and returns."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

XENVERIFY = Path(sys.executable).parent / "xenverify"
MARK = "XENVERIFY_TEST_MARK"
SECONDS = 900.0  # a cold build on a busy machine takes minutes


@dataclass
class Command:
    """One run of xenverify; its mark is in the environment of whatever it starts."""

    process: subprocess.Popen[str]
    mark: str
    log: Path
    output: str = field(default="")

    def finish(self, seconds: float = SECONDS) -> int:
        """Wait for its end and return its exit code; `output` is then all it printed."""
        status = self.process.wait(seconds)
        self.output = self.log.read_text()
        return status

    def wait_until(self, condition: Callable[[], object], seconds: float = SECONDS) -> None:
        """Wait until something is so while it runs."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)

    def interrupt(self) -> int:
        """Press Ctrl-C, and return the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.finish(60.0)

    def left_running(self, seconds: float = 5.0) -> list[str]:
        """Return the command lines of what it started and has not ended after so long."""
        end = time.monotonic() + seconds
        while (alive := marked(self.mark)) and time.monotonic() < end:
            time.sleep(0.05)
        return alive


def start(*arguments: str | Path, directory: Path, **environment: str) -> Command:
    """Start xenverify in `directory`, where its results go unless --output says otherwise."""
    mark = uuid.uuid4().hex
    log = directory / f"said-{mark}"
    with log.open("w") as out:
        process = subprocess.Popen(
            [XENVERIFY, *arguments],
            cwd=directory,
            env={**os.environ, MARK: mark, **environment},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    return Command(process, mark, log)


def run(*arguments: str | Path, directory: Path, **environment: str) -> tuple[int, str]:
    """Run xenverify to its end; return exit code and everything it printed."""
    command = start(*arguments, directory=directory, **environment)
    try:
        return command.finish(), command.output
    finally:
        command.process.kill()


def marked(mark: str) -> list[str]:
    """Return the command lines of the processes that have the mark in their environment."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it has gone, or is not ours
            continue
    return [line for line in found if line]


def shared_memory() -> set[str]:
    """Return the names of all files in /dev/shm."""
    return {path.name for path in Path("/dev/shm").iterdir()}


def path_without(program: str, directory: Path) -> str:
    """Return a PATH that has everything of this machine but `program`."""
    directory.mkdir()
    for folder in reversed(os.environ["PATH"].split(os.pathsep)):
        for file in Path(folder).iterdir() if Path(folder).is_dir() else ():
            link = directory / file.name
            link.unlink(missing_ok=True)
            if file.name != program:
                link.symlink_to(file)
    return str(directory)

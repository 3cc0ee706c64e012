"""A command line in, a running QEMU out that ends when we do, however we end.

What runs inside, this does not know.
"""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

from harness.errors import HarnessError
from harness.programs import require

SECONDS_TO_END = 1.0

# setpriv asks the kernel to kill this process when the thread that started it ends; the shell then
# makes sure that our process was still there when it asked, and becomes QEMU.
LAST_CHECK = 'test "$PPID" = "$0" && exec "$@"'


class QemuProcess:
    """One QEMU, in a session of its own: a Ctrl-C on our terminal reaches us, and we end it."""

    def __init__(self, command: Sequence[str], log: Path, descriptors: Sequence[int]) -> None:
        """Start `command` with stdout and stderr in `log`, and let it inherit `descriptors`."""
        self.log = log
        guarded = [
            *(str(require("setpriv")), "--pdeathsig", "KILL", "--"),
            *("/bin/sh", "-c", LAST_CHECK, str(os.getpid())),
            *command,
        ]

        def start() -> subprocess.Popen[bytes]:
            with log.open("wb") as output:
                return subprocess.Popen(
                    guarded,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    pass_fds=tuple(descriptors),
                    start_new_session=True,
                )

        self._process = _spawner(os.getpid()).run(start)
        self.pid = self._process.pid

    def status(self, seconds: float = 0) -> int | None:
        """QEMU's exit status (negative: the signal that killed it), or None while it runs.

        Waits up to `seconds` for its end.
        """
        if seconds:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._process.wait(seconds)
        return self._process.poll()

    def cpu_seconds(self) -> dict[int, tuple[float, float]]:
        """By thread: the CPU time it used, and the time it was ready to run but had no CPU."""
        found = {}
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            # Both in nanoseconds (Documentation/scheduler/sched-stats.rst in Linux).
            used, queued = thread.joinpath("schedstat").read_text().split()[:2]
            found[int(thread.name)] = (int(used) / 1e9, int(queued) / 1e9)
        return found

    def refuse_stopped(self) -> None:
        """Raise HarnessError if a signal or a debugger holds it: then nothing of it will answer."""
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # it has gone
            return
        if state in ("T", "t"):
            raise HarnessError("QEMU was stopped from outside, by a signal or a debugger")

    def said(self) -> list[str]:
        """What QEMU itself, not its guest, wrote."""
        return self.log.read_text(errors="replace").splitlines()

    def end(self) -> None:
        """Ask it to end, then make it."""
        if self.status() is not None:
            return
        try:
            self._signal(signal.SIGTERM)
            self.status(SECONDS_TO_END)
        finally:  # also when a Ctrl-C cuts the waiting short
            if self.status() is None:
                self._signal(signal.SIGKILL)
                self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)


class _Spawner:
    """A thread that starts processes and lives as long as we do.

    The kernel sends the signal setpriv asks for when the *thread* that started the process ends,
    not when its process does (prctl(2), PR_SET_PDEATHSIG): a thread that only boots ahead would
    take its QEMU along.
    """

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._serve, name="spawner", daemon=True).start()

    def run(self, start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        """Have `start` called in the thread, and return the process it starts."""
        started: Future[subprocess.Popen[bytes]] = Future()

        def work() -> None:
            if started.set_running_or_notify_cancel():
                try:
                    started.set_result(start())
                except BaseException as problem:
                    started.set_exception(problem)

        self._work.put(work)
        try:
            return started.result()
        except OSError as problem:
            raise HarnessError(f"QEMU cannot be started: {problem}") from problem
        except KeyboardInterrupt:
            if not started.cancel():
                started.add_done_callback(_kill)
            raise

    def _serve(self) -> None:
        while True:
            self._work.get()()


def _kill(started: Future[subprocess.Popen[bytes]]) -> None:
    """End a process whose starter was interrupted before it knew of it."""
    if started.exception() is None:
        process = started.result()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@functools.cache
def _spawner(process: int) -> _Spawner:
    """The spawner of this process; a fork gets one of its own, for threads do not survive it."""
    del process
    return _Spawner()

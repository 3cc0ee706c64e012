"""A command that runs other people's code in, its exit status out; in between it can harm nothing.

Comes in: a command, one directory that it may write, and perhaps one more. Goes out: its exit
status, its output in a log. Refuses to know: what the command is for.

Inside bubblewrap there is no network, no process but its own, no file of the user's; what a build
needs of the system is there read-only, and the directory it may write is always at INSIDE, so that
what it makes is the same wherever that directory really is.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import IO

from harness.cache import NEVER, Cancelled
from harness.errors import HarnessError
from harness.programs import require

INSIDE = Path("/xen")
CCACHE_INSIDE = Path("/ccache")
# What compilers, make and scripts need of the system; not all of /etc, where secrets are.
SYSTEM = (
    "/bin", "/sbin", "/usr", "/opt", "/nix/store", "/gnu/store",
    "/lib", "/lib32", "/lib64", "/libx32",
    "/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d",
)  # fmt: skip
POLL_SECONDS = 0.1
DEATH_SECONDS = 10.0


@dataclass(frozen=True)
class Sandbox:
    """Where a command runs, and what it sees."""

    directory: Path  # it may write here
    readable: tuple[Path, ...] = ()  # it may read these too, at their own paths
    ccache: Path | None = None  # it may read this, at CCACHE_INSIDE
    ccache_writable: bool = False
    confined: bool = True  # False: no bubblewrap, the user says that the code can be trusted

    @property
    def inside(self) -> Path:
        """Return the path by which the command knows its directory."""
        return INSIDE if self.confined else self.directory

    @property
    def ccache_inside(self) -> Path | None:
        """Return the path by which the command knows the compiler cache."""
        return CCACHE_INSIDE if self.confined and self.ccache else self.ccache

    def check(self) -> None:
        """Raise HarnessError unless bubblewrap can do its work on this machine."""
        if not self.confined:
            return
        done = subprocess.run(
            [*self._prefix(), require("true")], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise HarnessError(
                "bubblewrap cannot make a sandbox for the build on this machine",
                evidence=done.stderr.splitlines()[:4],
                advice="User namespaces may be switched off here (a container, or sysctl"
                " kernel.unprivileged_userns_clone). If you trust the code, use --no-sandbox.",
            )

    def run(
        self,
        command: Sequence[str | Path],
        *,
        environment: Mapping[str, str],
        log: IO[bytes],
        cancelled: Event = NEVER,
    ) -> int:
        """Run `command` with its output in `log`, and return its exit status.

        If the caller is interrupted or `cancelled` is set, everything the command started is dead
        before this returns (and raises).
        """
        alive, inherited = os.pipe()
        try:
            process = subprocess.Popen(
                [*self._prefix(), *command],
                cwd=self.directory,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[inherited],
            )
        finally:
            os.close(inherited)
        try:
            return _wait(process, cancelled)
        finally:
            _end(process, alive)
            os.close(alive)

    def _prefix(self) -> list[str | Path]:
        """Return the words before the command."""
        if not self.confined:
            return [require("setpriv"), "--pdeathsig", "KILL"]
        words: list[str | Path] = [
            require("bwrap"), "--unshare-all", "--die-with-parent", "--new-session",
            "--cap-drop", "ALL", "--hostname", "xenverify",
            "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp",
        ]  # fmt: skip
        for path in (*map(Path, SYSTEM), *self.readable):
            if path.is_symlink() and path.parent == Path("/"):  # /bin and the like, merged in /usr
                words += ["--symlink", path.readlink(), path]
            else:
                words += ["--ro-bind-try", path, path]
        words += ["--bind", self.directory, INSIDE]
        if self.ccache is not None:
            bind = "--bind" if self.ccache_writable else "--ro-bind"
            words += [bind, self.ccache, CCACHE_INSIDE]
        return [*words, "--remount-ro", "/", "--chdir", INSIDE, "--"]


def _wait(process: subprocess.Popen[bytes], cancelled: Event) -> int:
    while True:
        try:
            return process.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            if cancelled.is_set():
                raise Cancelled("the command") from None


def _end(process: subprocess.Popen[bytes], alive: int) -> None:
    """Kill what is left, and wait until it is gone.

    Every process the command started holds the other end of the pipe `alive`; its end of file says
    that none is left. bubblewrap's death takes its whole process namespace with it.
    """
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    select.select([alive], [], [], DEATH_SECONDS)

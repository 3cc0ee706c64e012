"""On the other machine: run one command to its end, or end it when nobody is there any more.

Run as `python attend.py DIRECTORY WORD…`, with nothing but Python's own library. A byte 3 on
standard input is a Ctrl-C, and its end is the end of the connection; on a terminal, the terminal
does both by signals. DIRECTORY is removed only if there is nobody left to fetch what is in it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType

SECONDS_TO_END = 30.0
CTRL_C = b"\x03"
STDIN = "stdin"  # beside the directory that the command runs in
COMMAND = "import sys; sys.argv[0] = 'xenverify'; from harness.cli import main; sys.exit(main())"


class Attendant:
    """Runs one command; `lost` once there is nobody to run it for."""

    def __init__(self, directory: Path, words: list[str]) -> None:
        self.lost = False
        self._on_terminal = sys.stdin.isatty()
        stdin = directory / STDIN
        with stdin.open("rb") if stdin.exists() else contextlib.nullcontext() as given:
            self._child = subprocess.Popen(
                [sys.executable, "-c", COMMAND, *words],
                cwd=directory / "here",
                stdin=given or (None if self._on_terminal else subprocess.DEVNULL),
                start_new_session=not self._on_terminal,
            )
        if not self._on_terminal:
            threading.Thread(target=self._listen, daemon=True).start()

    def wait(self) -> int:
        """Return the command's exit code."""
        status = self._child.wait()
        return 128 - status if status < 0 else status

    def hang_up(self, signum: int = 0, frame: FrameType | None = None) -> None:
        """End the command, for nobody is there any more; a signal handler, too."""
        del signum, frame
        if not self.lost:
            self.lost = True
            if not self._on_terminal:  # a terminal that hangs up has told it so itself
                self._tell(signal.SIGTERM)
            killer = threading.Timer(SECONDS_TO_END, self._tell, [signal.SIGKILL])
            killer.daemon = True
            killer.start()

    def _listen(self) -> None:
        while data := os.read(0, 1):
            if data == CTRL_C:
                self._tell(signal.SIGINT)
        self.hang_up()

    def _tell(self, signum: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._child.send_signal(signum)


def _leave_it(signum: int, frame: FrameType | None) -> None:
    del signum, frame


def main() -> int:
    """Attend to one command."""
    directory = Path(sys.argv[1])
    # On a terminal, Ctrl-C is the command's. A handler is not inherited, an ignored signal is.
    signal.signal(signal.SIGINT, _leave_it)
    attendant = Attendant(directory, sys.argv[2:])
    for signum in (signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(signum, attendant.hang_up)
    status = attendant.wait()
    if attendant.lost:
        shutil.rmtree(directory, ignore_errors=True)
    return status


if __name__ == "__main__":
    sys.exit(main())

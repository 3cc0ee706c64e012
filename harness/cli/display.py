"""What goes on, told on standard error: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from harness.suites import Event

WIDTH_ELSEWHERE = 160  # of a pipe or a file, where nothing shall be cut
SECONDS_BETWEEN_LINES = 10.0


def page(*, stderr: bool = False) -> Console:
    """Return a console that prints what it is given; NO_COLOR is rich's to honour."""
    console = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = WIDTH_ELSEWHERE
    return console


class Display:
    """Enter it while there is something to wait for; any thread may `say` and `hear`.

    Whoever prints a result meanwhile calls `clear` first, or the live line is left in it.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._console = page(stderr=True)
        self._lock = threading.Lock()
        self._live: Progress | None = None
        self._cases: dict[int, list[int]] = {}  # suite: done, collected
        self._told = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.clear()

    def clear(self) -> None:
        """Take the live line away; the next `say` or `hear` brings it back."""
        with self._lock:
            if self._live is not None:
                self._live.stop()
                self._live = None

    def say(self, phrase: str) -> None:
        """Show what a stage is doing; a `Progress` of the stages'."""
        with self._lock:
            self._cases.clear()
            if live := self._line():
                live.reset(self._task, total=None, description=phrase)
            elif not self._quiet:
                self._console.print(Text(f"xenverify: {phrase}", style="dim"), soft_wrap=True)

    def hear(self, event: Event) -> None:
        """Count the cases of all suites that run; a `Listener` of the suites'."""
        if event.said:
            self.say(event.said)
            return
        with self._lock:
            counts = self._cases.setdefault(event.suite, [0, 0])
            if event.collected is not None:
                counts[1] = event.collected
            if event.case is not None:
                counts[0] += 1
            done, collected = (sum(column) for column in zip(*self._cases.values(), strict=True))
            self._show(done, collected)

    def _show(self, done: int, collected: int) -> None:
        if live := self._line():
            live.update(self._task, description="cases", completed=done, total=collected)
        elif not self._quiet and time.monotonic() - self._told > SECONDS_BETWEEN_LINES:
            if self._told:
                self._console.print(f"xenverify: {done} of {collected} cases", style="dim")
            self._told = time.monotonic()

    def _line(self) -> Progress | None:
        """Return the live line, begun if need be; None where there is no terminal to show it on."""
        if self._live is None and self._console.is_terminal and not self._quiet:
            self._live = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=self._console,
                transient=True,
            )
            self._task = self._live.add_task("", total=None)
            self._live.start()
        return self._live

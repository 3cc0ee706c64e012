"""A bisection as it goes on, on standard error: a live table on a terminal, lines elsewhere."""

from __future__ import annotations

import math
import threading
import time
from types import TracebackType
from typing import Self

from rich.console import Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from harness.bisection.evaluation import stage
from harness.bisection.history import History
from harness.bisection.laboratory import Event
from harness.bisection.report import clock
from harness.bisection.samples import Reached, Sample
from harness.cli.display import page

ROWS = 12  # of what was seen last
FRAMES_A_SECOND = 8


class SearchView:
    """Enter it while a search runs; `say`, `hear` and `remaining` may be called at any time."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.history: History | None = None
        self._quiet = quiet
        self._console = page(stderr=True)
        self._lock = threading.Lock()
        self._live: Live | None = None
        self._phrase = ""
        self._left: int | None = None
        self._began = time.monotonic()
        self._running: dict[str, tuple[float, Event]] = {}  # since when
        self._seen: dict[str, str] = {}
        self._spinner = Spinner("dots")

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._quiet:
            self._live = Live(
                console=self._console,
                transient=True,
                refresh_per_second=FRAMES_A_SECOND,
                get_renderable=self._picture,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def begin(self, history: History) -> None:
        """Learn which history is searched, to name its commits."""
        self.history = history

    def say(self, phrase: str) -> None:
        """Show what a stage is doing; a `Progress` of the stages'."""
        with self._lock:
            self._phrase = phrase
        self._line(phrase)

    def remaining(self, count: int) -> None:
        """Show how many commits may still be to blame."""
        if count != self._left:
            self._line(_blame(count))
        with self._lock:
            self._left = count

    def hear(self, event: Event) -> None:
        """Show that a commit is being looked at, or what was seen of it."""
        name = self._name(event.commit)
        with self._lock:
            self._phrase = ""
            if event.put_off:
                self._running.pop(event.commit, None)
            elif event.sample is None:
                self._running[event.commit] = (time.monotonic(), event)
            else:
                self._running.pop(event.commit, None)
                self._seen.pop(event.commit, None)
                self._seen[event.commit] = _words(event.sample)
        if event.put_off:
            self._line(f"put off: {name}")
        elif event.sample is None:
            self._line(f"looking at {name}" + (" ahead of time" if event.ahead else ""))
        else:
            again = "remembered: " if event.remembered else ""
            self._line(f"{name}: {again}{_words(event.sample)}")

    def _line(self, text: str) -> None:
        if self._live is None and not self._quiet:
            self._console.print(Text(f"xenverify: {text}", style="dim"), soft_wrap=True)

    def _name(self, commit: str) -> str:
        return str(self.history.describe(commit)) if self.history is not None else commit[:10]

    def _picture(self) -> Group:
        """Return what the terminal shows now."""
        with self._lock:
            grid = Table.grid(padding=(0, 2, 0, 0))
            for commit, words in list(self._seen.items())[-ROWS:]:
                grid.add_row("", Text(self._name(commit)[:70]), Text(words[:60], style="dim"))
            now = time.monotonic()
            for commit, (since, event) in self._running.items():
                what = stage(event.logs) if event.logs is not None else "looking"
                ahead = ", ahead of time" if event.ahead else ""
                text = Text(f"{what}, {now - since:.0f} s{ahead}", style="dim" if ahead else "")
                grid.add_row(self._spinner, Text(self._name(commit)[:70]), text)
            left = _blame(self._left) if self._left is not None else "both ends first"
            elapsed = f"   {clock(now - self._began)}"
            return Group(grid, Text(f"{self._phrase or left}{elapsed}", style="bold"))


def _blame(count: int) -> str:
    if count == 0:
        return "no commit to blame between these ends"
    if count == 1:
        return "1 commit to blame; now the proof"
    looks = math.ceil(math.log2(count))
    return f"{count} commits may be to blame, about {looks} looks to go"


def _words(sample: Sample) -> str:
    """Return what one sample showed, over all its cases."""
    if sample.reached is not Reached.RAN:
        return sample.why("")
    counts: dict[str, int] = {}
    for runs in sample.cases.values():
        steady = len({run.outcome for run in runs}) == 1
        outcome = str(runs[-1].outcome) if steady else "wavering"
        counts[outcome] = counts.get(outcome, 0) + 1
    if not counts:
        return f"boots in {min(sample.boots):.2f} s" if sample.boots else "boots"
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))

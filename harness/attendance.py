"""A build and what to look at in, everything that looks at one host while a case runs on it out.

The tables of Xen (observing.py) and the lines that run (coverage/) are watched from before the
boot to the end of the case. Whatever of it cannot be had on this machine or this Xen is named and
left out: a case never depends on it. Knows no pytest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from harness.booting import Booted
from harness.cache import Cache
from harness.coverage.counters import Counters
from harness.coverage.gathering import RAN_AT_BOOT, RAN_IN_CASE
from harness.coverage.lines import code_range
from harness.coverage.plugin import NoCoverage, plugin
from harness.crash_reports import CrashReport, first_fatal, read_crashes, symbolised
from harness.errors import HarnessError
from harness.inspection import CannotInspect
from harness.observing import Findings, Observer


@dataclass(frozen=True)
class Watch:
    """What to look at."""

    tables: bool = True
    paranoid: bool = False  # hold all rules after every call, not only after the case
    lines: bool = True


class Symbols(Protocol):
    """What of a build is needed to look into it."""

    @property
    def syms(self) -> Path:
        """xen-syms."""


class Attendance:
    """Looks at one host: give `counters` to its boot as the probe, then `meet` it."""

    def __init__(self, build: Symbols, directory: Path, cache: Cache, watch: Watch) -> None:
        """`directory` is the case's folder, where what ran is left."""
        self.counters: Counters | None = None
        self._directory = directory
        self._watch = watch
        self._observer: Observer | None = None
        self._without: list[str] = []
        if watch.lines:
            try:
                self.counters = Counters(plugin_of(cache), *code_range_of(build.syms))
            except NoCoverage as error:
                self._without.append(error.message)

    def meet(self, host: Booted) -> None:
        """Begin to look at a host that has just booted."""
        if self.counters is not None:
            self.counters.ran().save(self._directory / RAN_AT_BOOT)
        if self._watch.tables:
            try:
                self._observer = Observer(host.inspector, host.domains, self._watch.paranoid)
                self._observer.begin()
                host.newcomers.append(self._observer.welcome)
            except CannotInspect as error:
                self._observer = None
                self._without.append("; ".join([error.message, *error.evidence]))

    def begin(self) -> None:
        """Count the case's lines from here on."""
        if self.counters is not None:
            self.counters.clear()

    def finish(self, *, look: bool) -> Findings:
        """Return what was found; `look` at the tables only where Xen is alive."""
        if self.counters is not None:
            with contextlib.suppress(OSError):  # a full disk is told where it matters
                self.counters.ran().save(self._directory / RAN_IN_CASE)
        found = self._observer.finish(look=look) if self._observer is not None else Findings()
        return replace(found, unseen=join([*self._without, found.unseen]))

    def close(self) -> None:
        """Let go of the counters; the host closes its own inspector."""
        if self.counters is not None:
            self.counters.close()


def join(reasons: Iterable[str]) -> str:
    """Return reasons as one, without those that are empty or said before."""
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason))


@lru_cache(maxsize=8)
def code_range_of(syms: Path) -> tuple[int, int]:
    """Return `code_range`, read once in a process."""
    return code_range(syms)


@lru_cache(maxsize=8)
def plugin_of(cache: Cache) -> Path:
    """Return `plugin`, looked for once in a process."""
    return plugin(cache)


def crash_in(console: Path, syms: Path) -> CrashReport | None:
    """Return what Xen died of by its console's log, with its source where that can be told."""
    try:
        report = first_fatal(read_crashes(console.read_text(errors="replace")))
    except OSError:
        return None
    if report is None:
        return None
    with contextlib.suppress(HarnessError):  # no addr2line: the frames keep Xen's own names
        report = symbolised(report, syms)
    return report

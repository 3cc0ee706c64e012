"""A suite's result in, what its cases ran out; kept for each build, to choose cases by line.

What a case ran lies in its folder (harness.attendance leaves it there) and is copied into the cache
under the build, because folders of results go. Knows no change and shows nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from harness.coverage.counters import Ran
from harness.outcomes import CaseResult

#: Files in a case's folder: what ran while Xen booted, and while the case did.
RAN_AT_BOOT = "boot.ran"
RAN_IN_CASE = "case.ran"
#: The name under which what ran while Xen booted is kept.
BOOT = "boot"


class Rooted(Protocol):
    """The part of harness.cache.Cache used here."""

    @property
    def root(self) -> Path:
        """Where everything lies."""


def gather(cases: Iterable[CaseResult]) -> dict[str, Ran]:
    """Return what each case ran, by its id, and under BOOT what ran before any of them."""
    ran: dict[str, Ran] = {}
    for case in cases:
        if not case.directory:
            continue
        boot = Ran.load(Path(case.directory) / RAN_AT_BOOT)
        if boot is not None:
            ran[BOOT] = ran[BOOT] | boot if BOOT in ran else boot
        itself = Ran.load(Path(case.directory) / RAN_IN_CASE)
        if itself is not None:
            ran[case.id] = itself
    return ran


def remember(cache: Rooted, build_id: str, ran: Mapping[str, Ran]) -> None:
    """Keep what cases ran on a build; what was known of the same case is replaced."""
    folder = _folder(cache, build_id)
    with contextlib.suppress(OSError):  # a convenience: a full disk is told where it matters
        folder.mkdir(parents=True, exist_ok=True)
        for case, these in ran.items():
            name = hashlib.sha256(case.encode()).hexdigest()[:24]
            (folder / f"{name}.case").write_text(case)
            these.save(folder / f"{name}.ran")


def recall(cache: Rooted, build_id: str) -> dict[str, Ran]:
    """Return what is known of a build: what each case ran, by its id, and BOOT."""
    known: dict[str, Ran] = {}
    for path in _folder(cache, build_id).glob("*.case"):
        these = Ran.load(path.with_suffix(".ran"))
        if these is not None:
            known[path.read_text()] = these
    return known


def _folder(cache: Rooted, build_id: str) -> Path:
    return cache.root / "ran" / build_id

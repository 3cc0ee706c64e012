"""A suite's result in, what its cases ran out; kept for each build, to choose cases by line.

What a case ran lies in its folder (harness.attendance leaves it there) and is copied into the cache
under the build, because folders of results go. A case is known by its id and by its file's text:
one that was written anew is a new one. Knows no change and shows nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from harness.coverage.counters import Ran
from harness.outcomes import CaseResult
from harness.reports.files import write_json

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


def remember(cache: Rooted, build_id: str, ran: Mapping[str, Ran], root: Path) -> None:
    """Keep what cases ran on a build; what was known of the same case is replaced.

    Their ids begin with the path of their file, as seen from `root`.
    """
    folder = _folder(cache, build_id)
    with contextlib.suppress(OSError):  # a convenience: a full disk is told where it matters
        folder.mkdir(parents=True, exist_ok=True)
        for case, these in ran.items():
            name = hashlib.sha256(f"{root} {case}".encode()).hexdigest()[:24]
            write_json(folder / f"{name}.case", {"id": case, "text": _text_of(case, root)})
            these.save(folder / f"{name}.ran")


def recall(cache: Rooted, build_id: str, root: Path) -> dict[str, Ran]:
    """Return what is known of a build: what each case ran that is below `root`, by id, and BOOT."""
    known: dict[str, Ran] = {}
    for path in _folder(cache, build_id).glob("*.case"):
        try:
            case = json.loads(path.read_text())
            is_same = case["text"] == _text_of(case["id"], root)
        except (OSError, ValueError, KeyError, TypeError):
            continue
        these = Ran.load(path.with_suffix(".ran")) if is_same else None
        if these is not None:
            known[case["id"]] = these
    return known


def _text_of(case: str, root: Path) -> str:
    """Return a digest of the file that a case is in; "" of none, as BOOT has it."""
    file = root / case.partition("::")[0]
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


def _folder(cache: Rooted, build_id: str) -> Path:
    return cache.root / "ran" / build_id

"""Names of Debian suites in, the versions of a package they hold out, looked up once a day.

Comes in: suites and the cache. Goes out: `SourcePackage` values, and what a mirror is known to
lack. Refuses to know: how they are fetched (debian_apt), and what is done with them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

from harness.cache import Cache
from harness.debian_apt import Apt, SourcePackage, find_mirrors
from harness.errors import HarnessError, UsageError
from harness.progress import Progress

# Where a version is looked for, oldest first.
SUITES = ("bullseye", "bookworm", "trixie", "forky", "sid")
FRESH_SECONDS = 24 * 3600.0


def look_up(
    suites: Sequence[str], cache: Cache, progress: Progress, name: str = "xen"
) -> list[SourcePackage]:
    """Return the packages `name` of all `suites`; Debian is asked where the answer is a day old.

    Raises UsageError for a single suite that Debian has not got, HarnessError if it cannot be asked
    and there is no older answer.
    """
    if _stale(suites, cache, name):
        with cache.lock("debian-suites", progress=progress):
            if stale := _stale(suites, cache, name):  # another run may have asked meanwhile
                _ask(stale, cache, progress, name)
    answers = [_read(_record(cache, suite, name)) or [] for suite in suites]
    return [package for answer in answers for package in answer]


def note_missing(cache: Cache, package: SourcePackage, name: str) -> None:
    """Remember for a day that the mirror lacks the package's file `name`.

    Another mirror may have it: security updates list the main archive's tarballs as their own.
    """
    marker = _marker(cache, package, name)
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.touch()


def is_missing(cache: Cache, package: SourcePackage, name: str) -> bool:
    """Say whether the mirror was seen to lack the package's file `name` within a day."""
    return _is_fresh(_marker(cache, package, name))


def _stale(suites: Sequence[str], cache: Cache, name: str) -> list[str]:
    records = {suite: _record(cache, suite, name) for suite in suites}
    return [s for s, record in records.items() if not _is_fresh(record) or _read(record) is None]


def _ask(suites: Sequence[str], cache: Cache, progress: Progress, name: str) -> None:
    """Ask Debian what `suites` hold and keep the answers; an old answer stands in for none."""
    progress(f"asking Debian for {name} in {', '.join(suites)}")
    with cache.scratch("apt") as scratch:
        found, complaints = Apt(scratch, find_mirrors()).packages(name, suites)
    for suite, packages in found.items():
        _write(_record(cache, suite, name), packages)
    for suite in suites:
        if suite in found:
            continue
        record = _record(cache, suite, name)
        refused = _is_refused(suite, complaints)
        if not refused and _read(record) is not None:
            day = time.strftime("%Y-%m-%d", time.localtime(record.stat().st_mtime))
            progress(f"Debian cannot be reached; using what {suite} held on {day}")
        elif not refused:
            raise HarnessError(
                f"Debian's {suite} cannot be looked up",
                evidence=complaints[:6],
                advice="Is the network up?",
            )
        elif len(suites) == 1:
            raise UsageError(
                f"Debian has no suite {suite}",
                evidence=complaints[:3],
                advice=f"Debian's suites are {', '.join(SUITES)}.",
            )
        else:
            _write(record, [])  # a suite that does not exist yet, or no longer


def _is_refused(suite: str, complaints: Sequence[str]) -> bool:
    """Say whether the mirror answered, and said that it has no such suite."""
    said = [line for line in complaints if f" {suite} " in line or f"/{suite}/" in line]
    return any("does not have a Release file" in line or " 404 " in line for line in said)


def _record(cache: Cache, suite: str, name: str) -> Path:
    return cache.root / "debian-suites" / name / f"{suite}.json"


def _marker(cache: Cache, package: SourcePackage, name: str) -> Path:
    place = quote(f"{package.directory}/{name}", safe="")
    return cache.root / "debian-suites" / "missing" / place


def _is_fresh(path: Path) -> bool:
    try:
        return 0 <= time.time() - path.stat().st_mtime < FRESH_SECONDS
    except FileNotFoundError:
        return False


def _read(record: Path) -> list[SourcePackage] | None:
    """Return what was known of a suite; None if nothing was."""
    try:
        return [SourcePackage(**fields) for fields in json.loads(record.read_text())]
    except (OSError, ValueError, TypeError):
        return None


def _write(record: Path, packages: Sequence[SourcePackage]) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    aside = record.with_suffix(".new")
    aside.write_text(json.dumps([asdict(package) for package in packages], indent=1))
    aside.rename(record)

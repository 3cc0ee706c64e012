"""The lock file in, verified Debian packages out.

Comes in: packages.json, which names each package with its version, size and hash. Goes out: files
in the cache. Refuses to know: what is in them.

Debian's mirrors keep only the newest version of a package in a suite. One that the lock names and
the mirror has no longer is taken in the version that the mirror's signed index has now, and that is
said; `python -m harness.linux_dom0.relock` makes a new lock.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from harness.cache import Cache
from harness.debian_apt import Apt, BinaryPackage, NotOnMirrorError, find_mirrors
from harness.errors import HarnessError
from harness.progress import Progress, quiet

LOCK = Path(__file__).with_name("packages.json")
SUITE = "bookworm"
ARCHITECTURE = "arm64"


def read_lock(path: Path = LOCK) -> dict[str, list[BinaryPackage]]:
    """Return the packages of each group of the lock ("dom0", "sysroot")."""
    try:
        groups = json.loads(path.read_text())["groups"]
        return {
            name: [BinaryPackage(**fields) for fields in group] for name, group in groups.items()
        }
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise HarnessError(f"{path} is no list of packages: {problem}") from None


def write_lock(groups: Mapping[str, list[BinaryPackage]], path: Path = LOCK) -> None:
    """Write a lock, a package a line, so that a change of it can be read."""
    parts = []
    for name, group in groups.items():
        lines = (json.dumps(asdict(package)) for package in sorted(group, key=lambda p: p.name))
        parts.append(f' "{name}": [\n  ' + ",\n  ".join(lines) + "\n ]")
    about = json.dumps({"suite": SUITE, "architecture": ARCHITECTURE})[1:-1]
    path.write_text("{" + about + ', "groups": {\n' + ",\n".join(parts) + "\n}}\n")


def fingerprint(packages: Sequence[BinaryPackage]) -> str:
    """Return a hash over what the lock says of `packages`."""
    content = json.dumps([asdict(package) for package in packages])
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def fetch(
    packages: Sequence[BinaryPackage], cache: Cache, progress: Progress = quiet
) -> list[Path]:
    """Return the package files, downloaded now or earlier.

    Raises HarnessError if one cannot be had.
    """

    def make(directory: Path) -> None:
        megabytes = sum(package.size for package in packages) / 1e6
        progress(f"fetching {len(packages)} packages from Debian, {megabytes:.0f} MB")
        with cache.scratch("packages") as scratch:
            apt = Apt(scratch, find_mirrors(), architecture=ARCHITECTURE)
            taken = _download(apt, packages, directory, progress)
        (directory / "taken.json").write_text(json.dumps([package.file for package in taken]))

    entry = cache.entry("debian-packages", fingerprint(packages), make, progress=progress)
    return [entry / name for name in json.loads((entry / "taken.json").read_text())]


def _download(
    apt: Apt, packages: Sequence[BinaryPackage], directory: Path, progress: Progress
) -> list[BinaryPackage]:
    """Download into `directory`; what the mirror has no more, in the version it has instead."""
    taken, gone = [], []
    for package in packages:
        try:
            apt.download_binary(package, directory)
            taken.append(package)
        except NotOnMirrorError:
            gone.append(package)
    if gone:
        apt.fetch_binary_indexes(SUITE)
    for package in gone:
        now = next(iter(apt.binary_packages([package.name])), package)
        try:
            apt.download_binary(now, directory)
        except NotOnMirrorError:
            raise HarnessError(
                f"this system's Debian mirror has no {package.name} of {SUITE}",
                evidence=sorted({package.path, now.path}),
                advice="Another mirror, or a later day, may have it.",
            ) from None
        progress(f"the mirror has {now.name} {now.version}, not {package.version} as locked")
        taken.append(now)
    return taken

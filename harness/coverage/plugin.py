"""A host compiler and a QEMU in, a plugin that it loads out, or why there is none.

Comes in: nothing but the cache. Goes out: the path of the plugin, proven to load. Refuses to know:
what is counted. Coverage is always on where it can be; where it cannot, everything else goes on.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from harness.errors import HarnessError
from harness.programs import require

SOURCE = Path(__file__).parents[2] / "tcg-plugin" / "coverage.c"
FLAGS = ("-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-fvisibility=hidden")
QEMU = "qemu-system-aarch64"
SECONDS_TO_LOAD = 20.0


NOT_COUNTED = "lines are not counted"


class NoCoverage(HarnessError):
    """Lines cannot be counted here; the message says why, and nothing else depends on it."""

    def __init__(self, why: str, *, evidence: Sequence[str] = (), advice: str = "") -> None:
        super().__init__(f"{NOT_COUNTED}: {why}", evidence=evidence, advice=advice)


class EntryStore(Protocol):
    """The part of harness.cache.Cache used here."""

    def entry(self, kind: str, key: str, make: Callable[[Path], None]) -> Path:
        """Return the directory kind/key, made by `make` the first time."""
        ...


def plugin(cache: EntryStore) -> Path:
    """Return the plugin for the QEMU in PATH, built and tried the first time."""
    try:
        compiler, qemu = require("gcc"), require(QEMU)
        source = SOURCE.read_bytes()
    except (HarnessError, OSError) as error:
        raise NoCoverage(str(error)) from error
    version = _run([str(qemu), "--version"]).stdout.splitlines()[:1]
    file = qemu.resolve()
    # Two QEMUs of one version may be built with plugins and without.
    facts = (version, str(file), file.stat().st_size, file.stat().st_mtime_ns, FLAGS)
    key = hashlib.sha256(b"\0".join([source, repr(facts).encode()])).hexdigest()[:24]

    def make(directory: Path) -> None:
        target = directory / "coverage.so"
        done = _run([str(compiler), *FLAGS, "-o", str(target), str(SOURCE)])
        if done.returncode:
            raise NoCoverage(
                "the TCG plugin does not build",
                evidence=done.stderr.splitlines()[:5],
            )
        _try(qemu, target)

    return cache.entry("plugins", key, make) / "coverage.so"


def main() -> None:
    """Build the plugin ahead, as ci/setup does; exit code 1 and a sentence if that cannot be."""
    from harness.cache import default_cache

    try:
        plugin(default_cache())
    except HarnessError as error:
        raise SystemExit("\n".join([error.message, *error.evidence])) from None


def arguments(library: Path, low: int, high: int, counters: str) -> list[str]:
    """Return QEMU's arguments to count what runs from `low` up to `high` into `counters`."""
    path = str(library).replace(",", ",,")
    return ["-plugin", f"{path},low={low:#x},high={high:#x},counters={counters}"]


def _try(qemu: Path, library: Path) -> None:
    """Start a machine without memory or CPU that ends at once, with the plugin in it."""
    file = os.memfd_create("xenverify-counters")
    try:
        os.ftruncate(file, 8192)
        words = arguments(library, 0x1000, 0x2000, f"/proc/self/fd/{file}")
        command = [str(qemu), "-M", "none", "-nodefaults", "-display", "none"]
        done = _run([*command, "-monitor", "stdio", *words], "quit\n", file)
    finally:
        os.close(file)
    if done.returncode:
        raise NoCoverage(
            "this QEMU does not load TCG plugins of interface version 1",
            evidence=(done.stderr or done.stdout).splitlines()[:3],
            advice="QEMU 4.2 to 8.2, built with --enable-plugins as Debian does, loads them.",
        )


def _run(command: list[str], said: str = "", *inherited: int) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            input=said,
            capture_output=True,
            text=True,
            check=False,
            pass_fds=inherited,
            timeout=SECONDS_TO_LOAD,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoCoverage(f"{command[0]} does not run: {error}") from error

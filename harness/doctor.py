"""This machine in, what it has and lacks out: one finding for each need, with what mends it.

Refuses to know: which command will need it.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.cache import default_cache
from harness.coverage.plugin import plugin
from harness.errors import HarnessError
from harness.programs import PACKAGES
from harness.uboot.images import OPENSSL

MODULES = ("drgn", "elftools", "libfdt", "pexpect", "pytest", "qemu.qmp", "rich", "xdist")
# One host maps 256 MiB or more of RAM, and two cores run up to four hosts.
SHARED_MEMORY = 1 << 30
CACHE_ROOM = 2 << 30
OPTIONAL = {"ccache": "builds of similar trees take longer without", "b4": "only lore: needs it"}


@dataclass(frozen=True)
class Finding:
    """One need: whether it is met, and if not, whether that matters."""

    need: str
    met: bool
    detail: str = ""
    package: str = ""  # that mends it
    optional: bool = False


def examine() -> list[Finding]:
    """Look at everything the harness needs from this machine."""
    return [
        *_programs(),
        *_modules(),
        *_python(),
        *_sandbox(),
        *_plugin(),
        *_uboot(),
        *_room(),
        *_system(),
    ]


def apt_line(findings: list[Finding]) -> str:
    """Return the one line that installs what is missing, or nothing."""
    packages = sorted({finding.package for finding in findings if not finding.met} - {""})
    return f"sudo apt install {' '.join(packages)}" if packages else ""


def _programs() -> Iterator[Finding]:
    beside = str(Path(sys.executable).parent)  # b4 is installed beside our Python
    path = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}{beside}"
    for program, package in sorted(PACKAGES.items()):
        found = shutil.which(program, path=path)
        why = OPTIONAL.get(program, "")
        yield Finding(program, found is not None, found or why, package, bool(why))


def _modules() -> Iterator[Finding]:
    for module in MODULES:
        try:
            found = importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:
            found = False
        detail = "" if found else "run ci/setup"
        yield Finding(f"Python module {module}", found, detail)


def _python() -> Iterator[Finding]:
    version = platform.python_version()
    yield Finding("Python 3.11 or newer", sys.version_info >= (3, 11), version, "python3")


def _sandbox() -> Iterator[Finding]:
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        return
    tried = subprocess.run(
        [bwrap, "--ro-bind", "/", "/", "--unshare-all", "--die-with-parent", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    works = tried.returncode == 0
    said = tried.stderr.strip().splitlines()
    detail = "" if works else f"{said[-1] if said else 'bwrap failed'}; --no-sandbox goes without"
    yield Finding("bubblewrap may make namespaces", works, detail)


def _plugin() -> Iterator[Finding]:
    try:
        plugin(default_cache())
        reason = ""
    except HarnessError as error:
        reason = "; ".join([error.message, *error.evidence])
    yield Finding("QEMU that counts lines of Xen", not reason, reason, optional=True)


def _uboot() -> Iterator[Finding]:
    there = OPENSSL.exists()
    detail = "" if there else "`xenverify reproduce` builds U-Boot, which wants them"
    yield Finding("OpenSSL's headers", there, detail, "libssl-dev", optional=True)


def _room() -> Iterator[Finding]:
    shared = _free(Path("/dev/shm"))
    yield Finding("1 GiB in /dev/shm", shared >= SHARED_MEMORY, f"{shared >> 20} MiB free")
    root = default_cache().root
    place = next(path for path in (root, *root.parents) if path.exists())
    writable, free = os.access(place, os.W_OK), _free(place)
    detail = f"{root}: {free >> 20} MiB free" if writable else f"{root} cannot be written"
    yield Finding("2 GiB for the cache", writable and free >= CACHE_ROOM, detail)


def _system() -> Iterator[Finding]:
    debian = Path("/etc/debian_version").exists()
    detail = "" if debian else "references debian:… cannot be fetched here"
    yield Finding("Debian, for debian: references", debian, detail, optional=True)


def _free(path: Path) -> int:
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return 0

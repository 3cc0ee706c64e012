"""Program name in, its path out; a missing one becomes an error with the apt line that mends it."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.errors import HarnessError

# Program: the Debian package that brings it.
PACKAGES = {
    "aarch64-linux-gnu-addr2line": "binutils-aarch64-linux-gnu",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu",
    "aarch64-linux-gnu-objcopy": "binutils-aarch64-linux-gnu",
    "apt-get": "apt",
    "b4": "b4",
    "bison": "bison",
    "bwrap": "bubblewrap",
    "ccache": "ccache",
    "dpkg-source": "dpkg-dev",
    "flex": "flex",
    "git": "git",
    "iasl": "acpica-tools",
    "make": "make",
    "pkg-config": "pkg-config",
    "qemu-system-aarch64": "qemu-system-arm",
    "setpriv": "util-linux",
}


def require(program: str) -> Path:
    """Return the path of `program`, or raise HarnessError naming the package that holds it."""
    found = shutil.which(program)
    if found is None:
        package = PACKAGES.get(program, program)
        raise HarnessError(
            f"the program {program} is not installed",
            advice=f"Install it:  sudo apt install {package}",
        )
    return Path(found)

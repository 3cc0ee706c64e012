"""A Xen's tree in, the toolstack of that very tree out, built for the dom0 of our image.

Comes in: a `Tree`. Goes out: `Tools`, an archive that the kernel unpacks over the image's files.
Refuses to know: how dom0 boots.

Creating a domain takes the exact version of the domctl interface, so Debian's tools serve one Xen
only. Others get libxl, xl, xenstored and what they need from their own tree: configured as for any
distribution, and cross-built against headers and libraries of the Debian that the image is of. All
of it lies in /opt/xen, which the image looks through before its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event

from harness import compiling, domctl
from harness.buildlog import decisive_lines, ran_out_of_room
from harness.cache import NEVER, Cache
from harness.errors import HarnessError
from harness.linux_dom0 import cpio, files
from harness.linux_dom0.cpio import Entry, link, regular
from harness.linux_dom0.files import MERGED, Files, Found, read_packages, select
from harness.linux_dom0.packages import fetch, fingerprint, read_lock
from harness.programs import require
from harness.progress import Progress, quiet
from harness.projects import XEN
from harness.sandbox import Sandbox
from harness.toolchain import HOST_PROGRAMS, Toolchain, find_toolchain
from harness.trees import Tree, read_identity

RECIPE = 1
# The domctl interface of Debian's xen-utils-4.17: xen/include/public/domctl.h there.
DEBIANS_DOMCTL = 0x15
DEBIANS = "Debian's xen-utils-4.17"
# What the build reads; configure looks for xen/common/kernel.c to know where it is.
READ = replace(
    XEN,
    reads=(
        "COPYING", "Config.mk", "Makefile", "config", "config.guess", "config.sub", "configure",
        "docs", "install.sh", "m4", "scripts", "stubdom/configure", "tools", "version.sh", "xen",
    ),
)  # fmt: skip
# Of that, what the tools differ by; the hypervisor's own code is none of them, but for what
# libxenguest takes from it.
DIFFER = replace(
    XEN,
    reads=(
        "Config.mk", "config", "configure", "m4", "scripts", "tools", "version.sh", "xen/Makefile",
        "xen/common/libelf", "xen/include/public",
    ),
)  # fmt: skip
# Directories of tools/ in the order of need, each where there is one: libxc and libxl are in libs/
# since 4.15, xenstore is in two since 4.18.
DIRECTORIES = (
    "include", "libs", "libxc", "xenstore", "xs-clients", "xenstored", "hotplug", "console",
    "libxl", "xl", "helpers",
)  # fmt: skip
PREFIX = "/opt/xen"
CONFIGURE = (
    "--build=x86_64-linux-gnu", "--host=aarch64-linux-gnu",
    f"--prefix={PREFIX}", f"--libdir={PREFIX}/lib", f"--libexecdir={PREFIX}/lib",
    "--sysconfdir=/etc", "--localstatedir=/var",
    "--disable-docs", "--disable-stubdom", "--disable-xen",
    "--disable-golang", "--disable-ipxe", "--disable-ocamltools", "--disable-ovmf",
    "--disable-pvshim", "--disable-qemu-traditional", "--disable-rombios", "--disable-seabios",
    "--disable-systemd", "--disable-xsmpolicy", "--with-system-qemu=/bin/false",
    # Only QEMU wants these, and we build none.
    "glib_CFLAGS=-I.", "glib_LIBS=-lc", "pixman_CFLAGS=-I.", "pixman_LIBS=-lc",
)  # fmt: skip
PROGRAMS = (*HOST_PROGRAMS, "iasl", "perl", "pkg-config")
WANTED = (
    "etc/xen/scripts/*", "opt/xen/bin/*", "opt/xen/sbin/*", "opt/xen/lib/*.so.*",
    "opt/xen/lib/xen/bin/*",
)  # fmt: skip
ARCHIVE = "tools.cpio"
LOG = "build.log"
RECORD = "tools.json"
INSTALLED = "installed"  # in the build's directory
WRAPPERS = "wrappers"


@dataclass(frozen=True)
class Tools:
    """The toolstack of one Xen."""

    archive: Path  # cpio
    identity: str
    seconds: float  # how long the build took


def debians_may_do(tree: Tree) -> bool:
    """Say whether Debian's tools speak the domctl interface of this Xen, by its number."""
    return domctl.interface_version(tree) == DEBIANS_DOMCTL


def tools(
    tree: Tree,
    cache: Cache,
    progress: Progress = quiet,
    *,
    confined: bool = True,
    cancelled: Event = NEVER,
) -> Tools:
    """Return the tools of `tree`, from the cache or by building them.

    Raises HarnessError if they do not build: that says nothing about Xen.
    """
    job = _Job(tree, cache, progress, confined, cancelled)
    entry = cache.entry(
        "linux-dom0-tools", job.key, job.make, progress=progress, cancelled=cancelled
    )
    record = json.loads((entry / RECORD).read_bytes())
    return Tools(entry / ARCHIVE, job.key, record["seconds"])


def sysroot(cache: Cache, progress: Progress = quiet) -> Path:
    """Return a directory with the headers and libraries of the image's Debian."""
    packages = read_lock()["sysroot"]

    def make(directory: Path) -> None:
        found = read_packages(fetch(packages, cache, progress), _is_of_sysroot)
        entries = [file.entry for file in found.values()]
        for entry in [*entries, *(link(name, f"usr/{name}") for name in MERGED)]:
            _unpack(entry, directory)

    key = fingerprint(packages)
    return cache.entry("linux-dom0-sysroot", key, make, progress=progress)


def _is_of_sysroot(path: str) -> bool:
    return path.startswith(("usr/include/", "usr/lib/aarch64-linux-gnu/", "usr/lib/ld-"))


def _unpack(entry: Entry, directory: Path) -> None:
    """Write one file; absolute links are made to lead to where they should in `directory`."""
    path = directory / entry.path
    path.parent.mkdir(parents=True, exist_ok=True)
    if stat.S_ISDIR(entry.mode):
        path.mkdir(exist_ok=True)
    elif stat.S_ISLNK(entry.mode):
        target = entry.data.decode()
        if target.startswith("/"):
            target = posixpath.relpath(files.merged(target), posixpath.dirname(entry.path))
        path.symlink_to(target)
    else:
        path.write_bytes(entry.data)


class _Job:
    """One build: what it depends on, and how it is made in an empty directory of the cache."""

    def __init__(
        self, tree: Tree, cache: Cache, progress: Progress, confined: bool, cancelled: Event
    ) -> None:
        self._tree = replace(tree, project=READ)
        self._cache = cache
        self._progress = progress
        self._confined = confined
        self._cancelled = cancelled
        self._toolchain: Toolchain = find_toolchain("arm64", None)
        lock = read_lock()
        self._packages = lock["sysroot"]
        self._of_image = {package.file for package in lock["dom0"]}

    @property
    def key(self) -> str:
        """Return the hash of everything that the built files depend on."""
        inputs = (
            RECIPE,
            read_identity(self._tree.repository, self._tree.tree, DIFFER),
            self._toolchain.description,
            CONFIGURE,
            fingerprint(self._packages),
            self._confined,
        )
        return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:32]

    def make(self, directory: Path) -> None:
        """Build into `directory`."""
        for program in PROGRAMS:
            require(program)
        libraries = sysroot(self._cache, self._progress)
        self._progress(f"building the tools of {self._tree.label}, which takes a minute")
        with self._cache.scratch("tools") as source:
            place = compiling.place(
                source,
                self._toolchain,
                self._cache,
                trusted=not self._tree.changes,
                confined=self._confined,
            )
            sandbox = replace(place, readable=(*place.readable, libraries))
            sandbox.check()
            self._tree.checkout(source)
            compiling.note_headers(source)
            self._write_wrapper(source, sandbox, libraries)
            started = time.monotonic()
            self._run(sandbox, libraries, directory / LOG, ["./configure", *CONFIGURE])
            for name in DIRECTORIES:
                if (source / "tools" / name).is_dir():
                    self._run(sandbox, libraries, directory / LOG, self._make(sandbox, name))
            seconds = time.monotonic() - started
            entries = self._archive(source / INSTALLED)
        with (directory / ARCHIVE).open("wb") as file:
            cpio.write(entries, file)
        (directory / RECORD).write_text(json.dumps({"seconds": seconds}))

    def _write_wrapper(self, source: Path, sandbox: Sandbox, libraries: Path) -> None:
        """Write a compiler that knows the sysroot: Xen's makefiles take no other from outside."""
        path = source / WRAPPERS / f"{self._toolchain.prefix}gcc"
        path.parent.mkdir()
        compiler = compiling.compiler(self._toolchain, sandbox)
        path.write_text(f'#!/bin/sh\nexec {compiler} --sysroot={libraries} "$@"\n')
        path.chmod(0o755)

    def _make(self, sandbox: Sandbox, name: str) -> list[str | Path]:
        goal = "all" if name == "include" else "install"
        return [
            require("make"), "-C", "tools", f"-j{len(os.sched_getaffinity(0))}",
            "XEN_TARGET_ARCH=arm64", "XEN_COMPILE_ARCH=x86_64",
            f"CROSS_COMPILE={self._toolchain.prefix}",
            f"DESTDIR={sandbox.inside / INSTALLED}",
            f"PKG_CONFIG_DIR={sandbox.inside}/tools/pkg-config",
            f"subdir-{goal}-{name}",
        ]  # fmt: skip

    def _run(self, sandbox: Sandbox, libraries: Path, log: Path, command: list[str | Path]) -> None:
        environment = compiling.environment(sandbox)
        environment |= {
            "PATH": f"{sandbox.inside / WRAPPERS}:{environment['PATH']}",
            "PYTHON": "/usr/bin/python3",
            "PKG_CONFIG_LIBDIR": f"{libraries}/usr/lib/aarch64-linux-gnu/pkgconfig",
            "PKG_CONFIG_SYSROOT_DIR": str(libraries),
            "EXTRA_CFLAGS_XEN_TOOLS": "-Wno-error",  # compilers are newer than some trees
        }
        with log.open("ab") as output:
            status = sandbox.run(
                command, environment=environment, log=output, cancelled=self._cancelled
            )
        if status == 0:
            return
        text = log.read_text(errors="replace")
        if ran_out_of_room(text) or self._cache.is_full():
            raise self._cache.full()
        kept = self._cache.root / "failed-builds" / f"tools-{self.key}.log"
        kept.parent.mkdir(exist_ok=True)
        shutil.copyfile(log, kept)
        raise HarnessError(
            f"the tools of {self._tree.label} do not build for a Linux dom0",
            evidence=decisive_lines(text),
            advice=f"The whole log is {kept}",
        )

    def _archive(self, installed: Path) -> list[Entry]:
        """Return what was installed with the libraries it needs that the image has not."""
        found: Files = read_packages(fetch(self._packages, self._cache), _is_of_sysroot)
        found |= {entry.path: Found(entry, installed) for entry in _installed(installed)}
        chosen = select(found, WANTED)
        return [file.entry for file in chosen.values() if file.package.name not in self._of_image]


def _installed(directory: Path) -> Iterator[Entry]:
    """Yield every file and link below `directory`; what is anything else is not for us."""
    for path in _walk(directory):
        name, mode = str(path.relative_to(directory)), path.lstat().st_mode
        if stat.S_ISLNK(mode):
            yield link(name, str(path.readlink()))
        elif stat.S_ISREG(mode):
            yield regular(name, path.read_bytes(), stat.S_IMODE(mode))


def _walk(directory: Path) -> Iterable[Path]:
    """All files below, without following links, which lead where a tree under test wants."""
    for place, _, names in os.walk(directory):
        links = [path for path in Path(place).iterdir() if path.is_symlink()]
        yield from {*links, *(Path(place) / name for name in names)}

"""Debian packages in, the few of their files that an image wants out, with every library they need.

No maintainer script runs and nothing is unpacked to disk: a package is read as the tar archive it
is. Refuses to know: which files are wanted, and how an image is written.
"""

from __future__ import annotations

import io
import posixpath
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import InterpSegment

from harness.errors import HarnessError
from harness.linux_dom0.cpio import Entry, directory, link, regular
from harness.programs import require

# Debian has merged these into /usr since bookworm; packages still name some files by the old place.
MERGED = ("bin", "sbin", "lib")
LIBRARIES = ("opt/xen/lib", "usr/lib/aarch64-linux-gnu", "usr/lib")  # the order of the image
ELF_MAGIC = b"\x7fELF"
MODULE_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


@dataclass(frozen=True)
class Found:
    """A file, and the package file it came from."""

    entry: Entry
    package: Path


Files = dict[str, Found]


def read_packages(packages: Iterable[Path], wanted: Callable[[str], bool]) -> Files:
    """Return the files of all packages, by path, whose path is `wanted`."""
    return {
        entry.path: Found(entry, package)
        for package in packages
        for entry in _read(package, wanted)
    }


def _read(package: Path, wanted: Callable[[str], bool]) -> Iterator[Entry]:
    command: list[str | Path] = [require("dpkg-deb"), "--fsys-tarfile", package]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                for member in archive:
                    entry = _entry(archive, member, wanted)
                    if entry is not None:
                        yield entry
        except tarfile.TarError as problem:
            said = process.stderr.read().decode(errors="replace").splitlines()
            raise HarnessError(
                f"the package {package.name} cannot be read: {problem}", evidence=said[:4]
            ) from None


def _entry(
    archive: tarfile.TarFile, member: tarfile.TarInfo, wanted: Callable[[str], bool]
) -> Entry | None:
    path = merged(member.name)
    if not wanted(path):
        return None
    if member.issym():
        return link(path, member.linkname)
    if member.isdir():
        return directory(path, member.mode)
    if member.islnk():  # to a file that came earlier
        return link(path, "/" + merged(member.linkname))
    content = archive.extractfile(member)
    return regular(path, content.read(), member.mode) if content is not None else None


def merged(path: str) -> str:
    """Return where a file lies on a system whose /bin, /sbin and /lib are in /usr."""
    path = posixpath.normpath(path).lstrip("/")
    return f"usr/{path}" if path.partition("/")[0] in MERGED else path


def select(files: Files, patterns: Iterable[str]) -> Files:
    """Return the files that match `patterns`, and every library these load.

    Raises HarnessError for a pattern that matches nothing, and for a library that is not there.
    """
    chosen: Files = {}
    for pattern in patterns:
        found = {path: file for path, file in files.items() if fnmatchcase(path, pattern)}
        if not found:
            raise HarnessError(f"no package of the image has {pattern}")
        chosen |= found
    waiting = list(chosen.values())
    while waiting:
        for path in _needs(files, waiting.pop().entry):
            if path not in chosen:
                chosen[path] = files[path]
                waiting.append(files[path])
    return chosen


def _needs(files: Files, entry: Entry) -> Iterator[str]:
    """Yield the paths of what a file cannot be without: a link's target, a program's libraries."""
    if entry.mode == link("", "").mode:
        target = merged(posixpath.join(posixpath.dirname(entry.path), entry.data.decode()))
        if target in files:
            yield target
    for name in _libraries(entry.data):
        places = (name,) if "/" in name else (f"{place}/{name}" for place in LIBRARIES)
        path = next((place for place in map(merged, places) if place in files), None)
        if path is None:
            raise HarnessError(f"/{entry.path} needs {name}, which no package of the image has")
        yield path


def _libraries(data: bytes) -> list[str]:
    """Return the interpreter and the needed libraries of an ELF file, nothing of others."""
    if not data.startswith(ELF_MAGIC):
        return []
    try:
        elf = ELFFile(io.BytesIO(data))
        names = [
            segment.get_interp_name()
            for segment in elf.iter_segments()
            if isinstance(segment, InterpSegment)
        ]
        for section in elf.iter_sections():
            if isinstance(section, DynamicSection):
                names += [str(vars(tag)["needed"]) for tag in section.iter_tags("DT_NEEDED")]
    except ELFError as problem:
        raise HarnessError(f"a program of the image cannot be read: {problem}") from None
    return names


def select_modules(files: Files, names: Iterable[str]) -> list[Entry]:
    """Return kernel modules with those they depend on, and a modules.dep that says so.

    A name that is no module is built into the kernel. busybox' modprobe wants each module's
    dependencies in the order of need, the deepest last.
    """
    by_name = {_module_name(path): file.entry for path, file in files.items() if ".ko" in path}
    if not by_name:
        raise HarnessError("the kernel's package has no modules")
    wanted = [name.replace("-", "_") for name in names]
    depends: dict[str, list[str]] = {}
    while wanted:
        name = wanted.pop()
        if name in depends or name not in by_name:
            continue
        found = MODULE_DEPENDS.search(by_name[name].data)
        listed = found[1].decode().replace("-", "_").split(",") if found else []
        depends[name] = [other for other in listed if other in by_name]
        wanted += depends[name]
    place = "/".join(next(iter(by_name.values())).path.split("/")[:4])  # usr/lib/modules/VERSION
    modules = [replace(by_name[name], path=f"{place}/{name}.ko") for name in depends]
    lines = (
        f"{name}.ko:{''.join(f' {other}.ko' for other in _deep(name, depends))}\n"
        for name in depends
    )
    return [*modules, regular(f"{place}/modules.dep", "".join(lines).encode())]


def _module_name(path: str) -> str:
    return posixpath.basename(path).partition(".ko")[0].replace("-", "_")


def _deep(name: str, depends: dict[str, list[str]]) -> list[str]:
    """Return what a module depends on, however indirectly, what needs others before those."""
    found: dict[str, None] = {}
    for other in depends[name]:
        for one in [other, *_deep(other, depends)]:
            found.pop(one, None)
            found[one] = None
    return list(found)

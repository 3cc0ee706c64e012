"""`VERSION` or `SUITE` of Debian in, the tree of that source package of Xen (or another) out.

Comes in: the text after `debian:`. Goes out: a `Tree`. Refuses to know: apt (debian_apt does).

What a suite holds is looked up once a day and kept; an unpacked source is kept for good. So a
second run needs no network, and a machine without one uses what it knew last.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from debian.deb822 import Deb822
from debian.debian_support import Version

from harness.cache import Cache, DamagedEntryError
from harness.debian_apt import Apt, NotOnMirrorError, SourcePackage, find_mirrors
from harness.debian_suites import SUITES, is_missing, look_up, note_missing
from harness.errors import HarnessError, UsageError
from harness.git import GitError, git
from harness.programs import require
from harness.progress import Progress, quiet
from harness.projects import XEN, Project
from harness.trees import Tree, describe_tree, import_directory, sources

UPSTREAM = "upstream"
COMPLETE = "complete"


class MirrorLacksError(HarnessError):
    """The mirror's indexes list a source package, and the mirror has not got its files."""


def resolve(wanted: str, cache: Cache, progress: Progress = quiet, project: Project = XEN) -> Tree:
    """Return the tree of the newest package in the suite `wanted`, or of that version."""
    is_version = re.fullmatch(r"\d[\w.+~-]*", wanted) is not None
    if not is_version and not re.fullmatch(r"[a-z][a-z-]*", wanted):
        raise UsageError(
            f"debian:{wanted} is neither a version nor a suite",
            advice="Write debian:VERSION, or a suite such as debian:bookworm.",
        )
    suites = SUITES if is_version else (wanted,)
    packages = look_up(suites, cache, progress, project.package)
    found = [p for p in packages if not is_version or matches(p.version, wanted)]
    if not found:
        known = sorted({package.version for package in packages}, key=Version)
        raise UsageError(
            f"Debian has no {project.name} {wanted}"
            if is_version
            else f"Debian's {wanted} has no {project.name}",
            evidence=known,
            advice="Use one of these versions." if known else "",
        )
    newest_first = sorted(found, key=lambda p: Version(p.version), reverse=True)
    return _Sources(cache, progress, project).first_tree(f"debian:{wanted}", newest_first)


def matches(version: str, wanted: str) -> bool:
    """Say whether `wanted` is `version`, or names it down to some dot, dash, plus or tilde."""
    return version == wanted or (version.startswith(wanted) and version[len(wanted)] in ".+~-")


class _Sources:
    """The unpacked source packages in the cache.

    A mirror may lack files that its indexes list. Then the next older version of the suite stands
    in, or else the upstream tarball without Debian's patches; and the label says so.
    """

    def __init__(self, cache: Cache, progress: Progress, project: Project) -> None:
        self._project = project
        self._cache = cache
        self._progress = progress
        self._repository = sources(cache)

    def first_tree(self, reference: str, packages: Sequence[SourcePackage]) -> Tree:
        """Return the tree of the first of `packages` that can be had, whole if possible."""
        trouble: HarnessError | None = None
        for extent in (COMPLETE, UPSTREAM):
            for package in packages:
                try:
                    directory = self._unpacked(package, extent)
                except NotOnMirrorError:
                    continue
                except HarnessError as error:  # no network: perhaps an older one is here already
                    trouble = trouble or error
                    continue
                return self._describe(reference, package, extent, directory)
        if trouble is not None:
            raise trouble
        raise MirrorLacksError(
            f"this system's Debian mirror has no files of {reference}",
            evidence=[f"{package.directory}: {', '.join(package.files)}" for package in packages],
            advice="Its indexes list them; another mirror, or a later day, may have them.",
        )

    def _describe(
        self, reference: str, package: SourcePackage, extent: str, directory: Path
    ) -> Tree:
        label = f"debian {package.version}"
        if extent == UPSTREAM:
            label += " (upstream tarball)"
            self._progress(
                f"the mirror lacks Debian's patches for {package.name} {package.version};"
                " using it unpatched"
            )
        return describe_tree(
            reference=reference,
            repository=self._repository,
            tree=_read_tree(directory),
            label=label,
            project=self._project,
        )

    def _unpacked(self, package: SourcePackage, extent: str) -> Path:
        """Return the entry of a package, unpacked now or earlier; NotOnMirrorError if it cannot."""

        def make(directory: Path) -> None:
            tree = self._fetch(package, _wanted_files(package, extent))
            (directory / "source.json").write_text(json.dumps({"tree": tree}))

        def check(directory: Path) -> None:
            try:
                git(self._repository, "cat-file", "-e", _read_tree(directory))
            except GitError:
                raise DamagedEntryError("its tree is gone") from None

        for name in _wanted_files(package, extent):
            if is_missing(self._cache, package, name):
                raise NotOnMirrorError(name)
        return self._cache.entry(
            "debian",
            f"{package.name}_{package.version}_{extent}",
            make,
            check=check,
            progress=self._progress,
        )

    def _fetch(self, package: SourcePackage, names: Iterable[str]) -> str:
        """Download and unpack; returns the id of the tree."""
        self._progress(f"fetching {package.name} {package.version} from Debian")
        with self._cache.scratch("debian") as scratch:
            private = scratch / "apt"
            private.mkdir()
            apt = Apt(private, find_mirrors())
            try:
                files = [apt.download(package, name, scratch) for name in names]
            except NotOnMirrorError as error:
                self._progress(f"the mirror lists {error}, and has not got it")
                note_missing(self._cache, package, str(error))
                raise
            return import_directory(self._repository, _unpack(package, files))


def _wanted_files(package: SourcePackage, extent: str) -> list[str]:
    """Return the tarballs to fetch: all, or upstream's alone."""
    return [name for name in package.files if extent == COMPLETE or ".orig.tar." in name]


def _unpack(package: SourcePackage, tarballs: Sequence[Path]) -> Path:
    """Unpack a source package with Debian's patches applied, or an upstream tarball alone."""
    scratch = tarballs[0].parent
    source = scratch / "source"
    if len(tarballs) == len(package.files):
        description = _describe_package(package, tarballs)
        command: list[str | Path] = [require("dpkg-source"), "--extract", description, source]
    else:
        source.mkdir()
        strip = "--strip-components=1"
        command = [require("tar"), "--extract", "--directory", source, strip, "--file", tarballs[0]]
    done = subprocess.run(
        command, cwd=scratch, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode != 0:
        said = done.stderr.splitlines()[-5:]
        raise HarnessError(
            f"{package.name} {package.version} of Debian does not unpack", evidence=said
        )
    shutil.rmtree(source / ".pc", ignore_errors=True)  # quilt's notes are no source
    return source


def _describe_package(package: SourcePackage, tarballs: Sequence[Path]) -> Path:
    """Write the .dsc that dpkg-source wants, from the verified index that says the same."""
    fields = Deb822({"Format": package.format, "Source": package.name, "Version": package.version})
    for field, algorithm in (("Files", "md5"), ("Checksums-Sha256", "sha256")):
        lines = [
            f" {_digest(path, algorithm)} {path.stat().st_size} {path.name}" for path in tarballs
        ]
        fields[field] = "\n".join(["", *lines])
    description = tarballs[0].parent / "source.dsc"
    description.write_text(fields.dump())
    return description


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _read_tree(directory: Path) -> str:
    return str(json.loads((directory / "source.json").read_text())["tree"])

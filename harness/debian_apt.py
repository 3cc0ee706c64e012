"""Debian suites in, the source packages they hold out; and downloads of their files.

Comes in: names of suites. Goes out: `SourcePackage` values whose hashes come from indexes that apt
has verified, and downloaded files with those hashes. Refuses to know: what is done with them.

apt itself does all of the fetching and verifying, with private lists and configuration in a scratch
directory: nothing of the system's apt is changed, and no root is needed. The mirrors, and how to
reach them (proxies and the like), are the system's own.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError, UsageError
from harness.programs import require

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
HELPER = Path("/usr/lib/apt/apt-helper")
# Suites without security updates of their own.
WITHOUT_SECURITY = {"experimental", "rc-buggy", "sid", "unstable"}
SECURITY = "-security"


@dataclass(frozen=True)
class SourcePackage:
    """One version of one of Debian's source packages, as a suite's index describes it."""

    name: str  # "xen"
    version: str
    suite: str
    format: str  # "3.0 (quilt)"
    directory: str  # URI
    files: dict[str, str]  # name of a tarball: its SHA256


class NotOnMirrorError(Exception):
    """A mirror has not got a file that its index lists; the message is the file's name."""


@dataclass(frozen=True)
class Mirrors:
    """Where this system gets Debian from."""

    main: str  # URI
    security: str | None  # URI


def find_mirrors() -> Mirrors:
    """Return the mirrors of the system's own apt; raises UsageError off Debian."""
    try:
        apt_get = require("apt-get")
    except HarnessError:
        raise UsageError(
            "this system has no apt, so there are no debian: references",
            advice="Use git:PATH-or-URL@REV or a directory.",
        ) from None
    fields = "$(RELEASE)|$(REPO_URI)|$(ORIGIN)"
    listed = _run([apt_get, "indextargets", "--format", fields]).stdout
    found = [tuple(line.split("|")) for line in listed.splitlines()]
    debian = [(release, uri) for release, uri, origin in found if origin == "Debian"]
    if not found:  # no lists yet: a fresh container image
        debian = _configured_sources(apt_get)
    main = [uri for release, uri in debian if "-" not in release]
    security = [uri for release, uri in debian if release.endswith((SECURITY, "/updates"))]
    if not main:
        raise UsageError(
            "this system's apt has no Debian mirror, so there are no debian: references",
            advice="Use git:PATH-or-URL@REV or a directory.",
        )
    return Mirrors(main[0], security[0] if security else None)


def _configured_sources(apt_get: Path) -> list[tuple[str, str]]:
    """Return release and URI of what a Debian's apt would fetch that has fetched nothing yet."""
    if not re.search(r"(?m)^ID=debian$", Path("/etc/os-release").read_text()):
        return []
    command: list[str | Path] = [apt_get, "-o", "Debug::NoLocking=1", "--print-uris", "update"]
    found = re.findall(r"(?m)^'(\S+?/)dists/(\S+)/InRelease'", _run(command).stdout)
    return [(release, uri) for uri, release in found]


class Apt:
    """apt with its lists and configuration in `directory`, an empty scratch directory."""

    def __init__(self, directory: Path, mirrors: Mirrors) -> None:
        self.directory = directory
        self.mirrors = mirrors
        self._environment = {"LC_ALL": "C", "APT_CONFIG": str(self._write_configuration())}

    def packages(
        self, name: str, suites: Sequence[str]
    ) -> tuple[dict[str, list[SourcePackage]], list[str]]:
        """Fetch the source indexes of `suites`.

        Returns the source packages called `name` by suite (security updates with the suite they
        are for), for every suite that could be fetched; and apt's own complaints.
        """
        sources = [self._source(self.mirrors.main, suite) for suite in suites]
        if self.mirrors.security is not None:
            sources += [
                self._source(self.mirrors.security, suite + SECURITY)
                for suite in suites
                if suite not in WITHOUT_SECURITY
            ]
        (self.directory / "sources.list").write_text("".join(sources))
        update = self._run(["apt-get", "update"])
        complaints = [line for line in update.stderr.splitlines() if line[:2] in ("E:", "W:")]
        fields = "$(RELEASE)|$(REPO_URI)|$(TRUSTED)|$(FILENAME)"
        command = ["apt-get", "indextargets", "--format", fields, "Created-By: Sources"]
        found: dict[str, list[SourcePackage]] = {}
        for line in self._run(command).stdout.splitlines():
            release, uri, trusted, index = line.split("|")
            suite = release.removesuffix(SECURITY)
            if trusted == "yes" and Path(index).exists():
                found.setdefault(suite, []).extend(self._read_index(name, suite, uri, index))
        return found, complaints

    def download(self, package: SourcePackage, name: str, directory: Path) -> Path:
        """Download one of the package's files into `directory`, verified by its hash.

        Raises NotOnMirrorError where a mirror has the index and not the file.
        """
        path = directory / name
        uri = f"{package.directory}/{name}"
        done = self._run([HELPER, "download-file", uri, path, f"SHA256:{package.files[name]}"])
        if done.returncode == 0:
            return path
        said = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        if any(" 404 " in line for line in said):
            raise NotOnMirrorError(name)
        raise HarnessError(
            f"Debian's {name} cannot be downloaded", evidence=said, advice="Is the network up?"
        )

    def _source(self, uri: str, suite: str) -> str:
        signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
        return f"deb-src {signed}{uri} {suite} main\n"

    def _write_configuration(self) -> Path:
        """Write a configuration that takes from the system's only how to acquire files."""
        dump = _run(["apt-config", "dump"]).stdout.splitlines()
        acquire = [line for line in dump if line.startswith("Acquire::")]
        state = self.directory / "state"
        (state / "lists" / "partial").mkdir(parents=True)
        (self.directory / "archives" / "partial").mkdir(parents=True)
        private = {
            "Acquire::Retries": 2,
            "APT::Sandbox::User": "root",  # _apt cannot reach into a user's cache; only root drops
            "Dir::Cache": self.directory,
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
            "Dir::Etc::main": os.devnull,
            "Dir::Etc::parts": os.devnull,
            "Dir::Etc::sourcelist": self.directory / "sources.list",
            "Dir::Etc::sourceparts": os.devnull,
            "Dir::State": state,
            "Dir::State::status": os.devnull,
        }
        path = self.directory / "apt.conf"
        lines = [*acquire, *(f'{name} "{value}";' for name, value in private.items())]
        path.write_text("\n".join(lines) + "\n")
        return path

    def _read_index(self, name: str, suite: str, uri: str, index: str) -> list[SourcePackage]:
        """Return the packages called `name` of one Sources file, however it is compressed."""
        from debian.deb822 import Sources

        found = []
        text = self._run([str(HELPER), "cat-file", index]).stdout
        for start in re.finditer(rf"(?m)^Package: {re.escape(name)}$", text):
            stanza = Sources(text[start.start() : text.find("\n\n", start.start())])
            files = {
                file["name"]: file["sha256"]
                for file in stanza["Checksums-Sha256"]
                if ".tar." in file["name"]
            }
            directory = uri + stanza["Directory"]
            found.append(
                SourcePackage(name, stanza["Version"], suite, stanza["Format"], directory, files)
            )
        return found

    def _run(self, command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
        return _run(command, self._environment)


def _run(
    command: Sequence[str | Path], environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one of apt's programs; its exit code is the caller's to judge."""
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env=os.environ | {"LC_ALL": "C"} | (environment or {}),
        check=False,
    )

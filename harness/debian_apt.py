"""Debian suites in, the packages they hold out; and downloads of their files.

Comes in: names of suites. Goes out: `SourcePackage` and `BinaryPackage` values whose hashes come
from indexes that apt has verified, and downloaded files with those hashes. Refuses to know: what is
done with them.

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


@dataclass(frozen=True)
class BinaryPackage:
    """One version of a binary package, as a suite's index describes it."""

    name: str
    version: str
    path: str  # in its archive: "pool/…"; of the security archive if "pool/updates/…"
    size: int  # bytes
    sha256: str

    @property
    def file(self) -> str:
        """Return the name of its file."""
        return self.path.rpartition("/")[2]


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

    def __init__(self, directory: Path, mirrors: Mirrors, architecture: str | None = None) -> None:
        """`architecture` is that of binary packages; None means this machine's."""
        self.directory = directory
        self.mirrors = mirrors
        self._architecture = architecture
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
        uri = f"{package.directory}/{name}"
        return self._download(uri, package.files[name], directory / name)

    def download_binary(self, package: BinaryPackage, directory: Path) -> Path:
        """Download a binary package into `directory`, verified by its hash.

        Raises NotOnMirrorError where the mirror has it no more.
        """
        of_security = package.path.startswith("pool/updates/") and self.mirrors.security is not None
        mirror = self.mirrors.security if of_security else self.mirrors.main
        uri = f"{(mirror or '').rstrip('/')}/{package.path}"
        return self._download(uri, package.sha256, directory / package.file)

    def fetch_binary_indexes(self, suite: str) -> None:
        """Fetch what `suite` and its security updates hold; raises HarnessError if it cannot."""
        sources = self._source(self.mirrors.main, suite, "deb")
        if self.mirrors.security is not None:
            sources += self._source(self.mirrors.security, suite + SECURITY, "deb")
        (self.directory / "sources.list").write_text(sources)
        update = self._run(["apt-get", "update", "--error-on=any"])
        if update.returncode != 0:
            said = [line for line in update.stderr.splitlines() if line[:2] in ("E:", "W:")]
            raise HarnessError(
                f"Debian's {suite} cannot be looked up", evidence=said, advice="Is the network up?"
            )

    def closure(self, names: Sequence[str]) -> list[str]:
        """Return the names of everything that installing `names` on an empty system installs."""
        command = ["apt-get", "install", "--simulate", "--yes", "--no-install-recommends", *names]
        done = self._run(command)
        if done.returncode != 0:
            raise HarnessError("Debian's packages do not fit", evidence=done.stderr.splitlines())
        return re.findall(r"(?m)^Inst (\S+) ", done.stdout)

    def binary_packages(self, names: Sequence[str]) -> list[BinaryPackage]:
        """Return the newest version of each of `names` that the fetched indexes have."""
        from debian.deb822 import Packages

        text = self._run(["apt-cache", "show", "--no-all-versions", *names]).stdout
        return [
            BinaryPackage(
                stanza["Package"],
                stanza["Version"],
                stanza["Filename"],
                int(stanza["Size"]),
                stanza["SHA256"],
            )
            for stanza in Packages.iter_paragraphs(text, use_apt_pkg=False)
        ]

    def _download(self, uri: str, sha256: str, path: Path) -> Path:
        done = self._run([HELPER, "download-file", uri, path, f"SHA256:{sha256}"])
        if done.returncode == 0:
            return path
        said = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        if any(" 404 " in line for line in said):
            raise NotOnMirrorError(path.name)
        raise HarnessError(
            f"Debian's {path.name} cannot be downloaded", evidence=said, advice="Is the network up?"
        )

    def _source(self, uri: str, suite: str, kind: str = "deb-src") -> str:
        signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
        return f"{kind} {signed}{uri} {suite} main\n"

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
        if self._architecture is not None:
            private |= {"APT::Architecture": self._architecture}
            private |= {"APT::Architectures": self._architecture}
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

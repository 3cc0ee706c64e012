"""This checkout in, the same on another machine out, with a Python that has what it needs.

Comes in: a connection. Goes out: where project and Python are there. The project is kept by its
content, and its Python by what ci/setup installs, so both go over only when they have changed. No
package of the other machine's system is installed: what it lacks is named.
"""

from __future__ import annotations

import hashlib
import io
import shlex
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fabric
import invoke

from harness.errors import HarnessError
from harness.git import GitError, run_git
from harness.progress import Progress
from harness.remote.connection import LOST, Address, ask, lost, sh

PROJECT = Path(__file__).parents[2]
# What ci/setup reads: the stamp in it is a hash over the same.
SETUP = (
    "ci/setup", "ci/build-requirements.txt", "ci/requirements.txt", "pyproject.toml",
    "harness/programs.py", "tcg-plugin/coverage.c",
)  # fmt: skip
NOT_OURS = {".git", ".venv", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache"}
SETUP_SECONDS = 600
# Says where the cache is, as harness.cache finds it, and makes our place in it; what nobody has
# used for a week goes.
FIND_PLACE = """\
set -e
cache=${XENVERIFY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/xenverify}
mkdir -p "$cache/remote"
cd "$cache/remote"
find . -mindepth 1 -maxdepth 1 ! -name '*.git' -mtime +7 -exec rm -rf {} +
pwd
"""


@dataclass(frozen=True)
class Installed:
    """Where everything is on the other machine."""

    place: str  # of ours in the cache there
    code: str
    python: str


def install(connection: fabric.Connection, address: Address, progress: Progress) -> Installed:
    """Bring the project there, unless it is; raises HarnessError for what that machine lacks."""
    place = ask(connection, address, FIND_PLACE).strip()
    files = sorted(project_files())
    code = f"{place}/code-{_digest(files)}"
    if not ask(
        connection, address, f"touch -c {shlex.quote(code)}; ls -d {shlex.quote(code)} || :"
    ):
        progress(f"sending the project to {address}")
        send_archive(connection, address, pack(PROJECT, files), code)
    home = f"{place}/python-{_digest([PROJECT / name for name in SETUP])}"
    _set_up(connection, address, code, home, progress)
    return Installed(place, code, f"{home}/.venv/bin/python")


def project_files() -> Iterator[Path]:
    """Every file of the checkout that is in git or would be added to it."""
    try:
        listing = run_git(
            "-C", PROJECT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"
        )
        names = [PROJECT / name for name in listing.decode().split("\0") if name]
    except GitError:  # an unpacked archive
        names = [p for p in PROJECT.rglob("*") if not NOT_OURS & {*p.relative_to(PROJECT).parts}]
    return (path for path in names if path.is_file())


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        content = path.read_bytes()
        mode = path.stat().st_mode & 0o111
        digest.update(f"{path.relative_to(PROJECT)} {mode} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def pack(root: Path, files: list[Path]) -> bytes:
    """Return files below `root` as an archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=3) as archive:
        for path in files:
            archive.add(path, str(path.relative_to(root)), recursive=False)
    return buffer.getvalue()


def send_archive(
    connection: fabric.Connection, address: Address, archive: bytes, directory: str
) -> None:
    """Have `archive` unpacked as `directory`, whole or not at all; who is there first wins."""
    aside = f"{directory}.{hashlib.sha256(archive).hexdigest()[:8]}.tar.gz"
    try:
        connection.put(io.BytesIO(archive), aside)
    except LOST as problem:
        raise lost(address, problem) from None
    target, sent = shlex.quote(directory), shlex.quote(aside)
    unpack = f"""\
set -e
new=$(mktemp -d {target}.XXXXXX)
trap 'rm -rf "$new" {sent}' EXIT
tar -xzf {sent} -C "$new"
chmod 755 "$new"
mv -T "$new" {target} 2> /dev/null || test -d {target}
"""
    ask(connection, address, unpack)


def _set_up(
    connection: fabric.Connection, address: Address, code: str, home: str, progress: Progress
) -> None:
    """Run ci/setup there, in a copy of the project that stays where its .venv is."""
    script = f"""\
set -e
if ! [ -d {shlex.quote(home)} ]; then
    new=$(mktemp -d {shlex.quote(home)}.XXXXXX)
    cp -a {shlex.quote(code)}/. "$new"
    mv -T "$new" {shlex.quote(home)} 2> /dev/null || rm -rf "$new"
fi
touch {shlex.quote(home)}
XENVERIFY_NO_APT=1 exec {shlex.quote(home)}/ci/setup
"""
    heard = _Heard(address, progress)
    try:
        done = connection.run(
            sh(script), warn=True, in_stream=False, hide="stdout", err_stream=heard,
            timeout=SETUP_SECONDS,
        )  # fmt: skip
    except invoke.exceptions.CommandTimedOut:
        raise HarnessError(f"ci/setup takes too long on {address}") from None
    except LOST as problem:
        raise lost(address, problem) from None
    if done.exited == -1:
        raise lost(address)
    if done.exited:
        words = done.stderr.strip().splitlines()
        raise HarnessError(
            f"{address} lacks what xenverify needs",
            evidence=[line.removeprefix("ci/setup: ") for line in words[-3:]],
            advice=f"Mend that there:  {address.ssh}",
        )


class _Heard(io.StringIO):
    """Tells whoever waits what ci/setup says, as it says it."""

    def __init__(self, address: Address, progress: Progress) -> None:
        super().__init__()
        self._address, self._progress = address, progress

    def write(self, text: str) -> int:
        """Take a piece of what is said."""
        for line in text.splitlines():
            if line.startswith("ci/setup: ") and "done" not in line:
                self._progress(f"{self._address}: {line.removeprefix('ci/setup: ')}")
        return len(text)

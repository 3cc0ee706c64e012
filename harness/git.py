"""git arguments in, its output out; a failure becomes an exception that holds git's own words.

Comes in: a repository and arguments. Goes out: bytes.
Refuses to know: what the repository is for.

Every call names its repository, and none sees the caller's GIT_ variables, hooks, or optional
locks: what a user has set for their own work must not change what a tree is, and a repository that
is only read must stay as it is.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from harness.errors import HarnessError
from harness.programs import require

# Options for every call. safe.directory: we read repositories of other users, run nothing from
# them, and name each by path; fsmonitor and hooks are programs a repository may name.
ALWAYS = (
    "-c", "safe.directory=*",
    "-c", "core.fsmonitor=false",
    "-c", "core.hooksPath=/dev/null",
    "-c", "gc.auto=0",
    "-c", "maintenance.auto=false",
    "-c", "advice.detachedHead=false",
)  # fmt: skip


class GitError(Exception):
    """git failed; the message is what it said, without its prefixes."""

    def __init__(self, stderr: str) -> None:
        self.lines = tuple(line for line in stderr.splitlines() if line.strip())
        prefixes = ("fatal: ", "error: ")
        first = next((line for line in self.lines if line.startswith(prefixes)), None)
        super().__init__(first.split(": ", 1)[1] if first else (self.lines or ("git failed",))[0])


def git(
    repository: Path,
    *arguments: str | Path,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    of_user: bool = False,
    timeout: float | None = None,
) -> bytes:
    """Run git on the bare repository or git directory `repository` and return its standard output.

    `of_user` lets the user's own git configuration count: for fetching (credentials, proxies).
    """
    return run_git(
        "--git-dir",
        repository,
        *arguments,
        stdin=stdin,
        environment=environment,
        of_user=of_user,
        timeout=timeout,
    )


def run_git(
    *arguments: str | Path,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    of_user: bool = False,
    timeout: float | None = None,
) -> bytes:
    """Run git with `arguments`; raises GitError with what it said if it fails.

    After `timeout` seconds subprocess.TimeoutExpired is raised, with what git had printed so far.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    clean |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    if not of_user:
        clean |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    done = subprocess.run(
        [require("git"), *ALWAYS, *arguments],
        input=stdin,
        capture_output=True,
        env=clean | dict(environment or {}),
        check=False,
        timeout=timeout,
    )
    if done.returncode != 0:
        if b"No space left on device" in done.stderr:
            said = done.stderr.decode(errors="replace").splitlines()
            raise HarnessError("git ran out of room", evidence=said[:3], advice="Is the disk full?")
        raise GitError(done.stderr.decode(errors="replace"))
    return done.stdout


def create_bare(repository: Path) -> None:
    """Create an empty bare repository at `repository` unless there is one."""
    if repository.exists():
        return
    repository.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="new-", dir=repository.parent) as aside:
        run_git("init", "--quiet", "--bare", "--template=", Path(aside) / "git")
        (Path(aside) / "git" / "objects" / "info").mkdir(exist_ok=True)
        with suppress(OSError):  # another run was faster
            (Path(aside) / "git").rename(repository)

"""A server for all tests of this folder, and commands that log in there."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.cache import default_cache
from harness.tests.real.commands import MARK, Command, marked, start
from harness.tests.real.sshd import Server, server

NAME = "there"


@dataclass(frozen=True)
class There:
    """The other machine, which is this one."""

    server: Server
    mark: str
    name: str = NAME

    @property
    def environment(self) -> dict[str, str]:
        """Return what makes a command log in with the key made for it, and with no other."""
        return {
            "HOME": str(self.server.home),
            "XENVERIFY_CACHE": str(default_cache().root),
            "SSH_AUTH_SOCK": "",
        }

    def start(self, *arguments: str | Path, directory: Path) -> Command:
        """Start a command on it, from `directory` here."""
        words = (*arguments, "--on-host", self.name)
        return start(*words, directory=directory, **self.environment)

    def run(self, *arguments: str | Path, directory: Path) -> tuple[int, str]:
        """Run a command on it; return exit code and everything it printed here."""
        command = self.start(*arguments, directory=directory)
        try:
            return command.finish(), command.output
        finally:
            command.process.kill()

    def running(self) -> list[str]:
        """Return what runs there for us, login shells and their children."""
        return marked(self.mark)

    def directories(self) -> list[Path]:
        """Return where commands run, or ran."""
        return list((default_cache().root / "remote").glob("run-*"))


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Let Ctrl-C reach what the tests start, even where pytest was started in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[There]:
    """A machine with an sshd, and with the cache that this one has."""
    mark = uuid.uuid4().hex
    environment = {MARK: mark, "XENVERIFY_CACHE": str(default_cache().root)}
    with server(tmp_path_factory.mktemp("there"), NAME, **environment) as running:
        yield There(running, mark)

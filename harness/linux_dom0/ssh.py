"""A dom0's address and keys in, its command line out: run, put, get.

Built on fabric and paramiko. The keys were made for this dom0 alone and its host key is pinned; the
user's own SSH configuration, agent and known hosts are neither read nor written. Refuses to know:
how the machine was started, and what Xen is.
"""

from __future__ import annotations

import io
import shlex
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import fabric
import invoke
import paramiko
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from harness.errors import HarnessError, XenHung

USER = "root"
LOOPBACK = "127.0.0.1"
LOGIN_SECONDS = 60.0
SECONDS = 120.0  # a busy machine takes five times as long as a quiet one
NAP_SECONDS = 0.003
SECONDS_TO_BE_GONE = 2.0
NO_STATUS = -1  # paramiko's word for a command whose end was not told
NEW_MODE = 0o644  # of a file that SFTP makes
# Whatever of these comes out of an SSH library means that the other end cannot be spoken to.
LOST = (paramiko.SSHException, EOFError, OSError)


@dataclass(frozen=True)
class Keys:
    """The private keys of one dom0's SSH server and of its only user, in OpenSSH's format."""

    server: str
    client: str

    @classmethod
    def make(cls) -> Keys:
        """New keys."""
        return cls(_new_key(), _new_key())

    @property
    def authorized(self) -> str:
        """Return the line that lets the client in."""
        key = paramiko.Ed25519Key.from_private_key(io.StringIO(self.client))
        return f"{key.get_name()} {key.get_base64()}\n"


def _new_key() -> str:
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


@dataclass(frozen=True)
class Output:
    """What a command came to."""

    command: str
    status: int
    stdout: str
    stderr: str


class CommandFailed(AssertionError):
    """A command in dom0 ended with an error that nobody expected."""

    def __init__(self, output: Output) -> None:
        self.output = output
        said = (output.stderr.strip() or output.stdout.strip()).splitlines()
        lines = [f"dom0: `{output.command}` ended with status {output.status}", *said[-8:]]
        super().__init__("\n  ".join(lines))


class Shell:
    """A logged-in dom0; close it, or use it as a context manager."""

    def __init__(
        self,
        port: int,
        keys: Keys,
        *,
        seconds: float = LOGIN_SECONDS,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Log in; raises HarnessError if that cannot be, or if another server answers.

        `check` is called while a command runs, to raise what has become of the machine.
        """
        self.port = port
        self._check = check
        self._connection = fabric.Connection(
            LOOPBACK,
            user=USER,
            port=port,
            config=fabric.Config(overrides={"load_ssh_configs": False}),
            connect_timeout=int(seconds),
            connect_kwargs={
                "pkey": paramiko.Ed25519Key.from_private_key(io.StringIO(keys.client)),
                "look_for_keys": False,
                "allow_agent": False,
                "banner_timeout": seconds,
                "auth_timeout": seconds,
            },
        )
        self._pin(keys.server)
        try:
            self._connection.open()
        except paramiko.BadHostKeyException as problem:
            raise HarnessError(
                f"another SSH server than dom0's answers on port {port}",
                evidence=[f"its key is {problem.key.get_base64()[:40]}…"],
            ) from None
        except paramiko.AuthenticationException:
            raise HarnessError("dom0's SSH server does not take the key made for it") from None
        except LOST as problem:
            raise HarnessError(f"dom0 does not answer SSH: {_said(problem)}") from problem

    def _pin(self, server: str) -> None:
        key = paramiko.Ed25519Key.from_private_key(io.StringIO(server))
        client = self._connection.client
        client.get_host_keys().add(f"[{LOOPBACK}]:{self.port}", key.get_name(), key)
        client.set_missing_host_key_policy(paramiko.RejectPolicy())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Log out."""
        self._connection.close()

    def run(self, *command: str | Path, check: bool = True, seconds: float = SECONDS) -> Output:
        """Run a command: one string is for dom0's shell, several are words as they are.

        Raises CommandFailed if it fails (unless `check` is false), XenHung if it takes longer than
        `seconds`, HarnessError if the connection is lost, and what has become of the machine.
        """
        line = str(command[0]) if len(command) == 1 else shlex.join(map(str, command))
        try:
            promise = self._connection.run(
                line, hide=True, warn=True, in_stream=False, timeout=seconds, asynchronous=True
            )
            result = self._join(promise)
        except invoke.exceptions.CommandTimedOut:
            raise XenHung(f"`{line}` in dom0 did not end within {seconds:g} s") from None
        except LOST as problem:
            self._let_machine_speak()
            raise HarnessError(f"the connection to dom0 was lost: {_said(problem)}") from problem
        if result.exited == NO_STATUS:
            self._let_machine_speak()
            raise HarnessError(f"the connection to dom0 was lost while `{line}` ran there")
        output = Output(line, result.exited, result.stdout, result.stderr)
        if check and output.status:
            raise CommandFailed(output)
        return output

    def _let_machine_speak(self) -> None:
        """Raise what has become of the machine: one that is no more has the better reason.

        Its end is seen first by the connection: QEMU closes that before it is gone itself.
        """
        end = time.monotonic() + SECONDS_TO_BE_GONE
        while time.monotonic() < end:
            self._check()
            time.sleep(NAP_SECONDS)

    def _join(self, promise: Any) -> Any:
        """Return a command's result; a machine that dies meanwhile does not cost the whole time."""
        runner = promise.runner
        try:
            while not (runner.process_is_finished or runner.has_dead_threads):
                self._check()
                time.sleep(NAP_SECONDS)
        except BaseException:
            runner.kill()
            raise
        return promise.join()

    def put(self, content: Path | bytes | str, remote: str, mode: int = NEW_MODE) -> None:
        """Copy a file, or write bytes or text, to `remote`."""
        data = content.read_bytes() if isinstance(content, Path) else content
        try:
            sftp = self._connection.sftp()
            with sftp.open(remote, "wb") as file:
                file.set_pipelined(True)
                file.write(data.encode() if isinstance(data, str) else data)
            if mode != NEW_MODE:
                sftp.chmod(remote, mode)
        except LOST as problem:
            raise HarnessError(f"{remote} cannot be written in dom0: {_said(problem)}") from problem

    def get(self, remote: str) -> bytes:
        """Return the content of a file."""
        try:
            with self._connection.sftp().open(remote, "rb") as file:
                file.prefetch()
                return bytes(file.read())
        except LOST as problem:
            raise HarnessError(f"{remote} cannot be read in dom0: {_said(problem)}") from problem


def _said(problem: Exception) -> str:
    if isinstance(problem, EOFError):
        return "it ended"
    if isinstance(problem, TimeoutError | socket.timeout):
        return "it took too long"
    return str(problem) or type(problem).__name__

"""`USER@HOST[:PORT]` in, a fabric connection to it out, or one sentence that says why not.

The user's own SSH configuration, keys, agent and known hosts are what counts, as for ssh itself. A
host whose key is not known is not talked to. Refuses to know: what is done there.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shlex
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fabric
import invoke
import paramiko

from harness.errors import HarnessError, UsageError

ADDRESS = re.compile(
    r"(?:(?P<user>[^@\s]+)@)?(?P<host>\[[0-9a-fA-F:.]+\]|[^@:\s\[\]-][^@:\s\[\]]*)(?::(?P<port>\d+))?"
)
SECONDS_TO_CONNECT = 20
SECONDS_TO_ANSWER = 120.0
# Who says nothing for so long is gone: the network asks every few seconds.
SECONDS_BETWEEN_SIGNS_OF_LIFE = 10
SECONDS_WITHOUT_ANSWER = 30
# Whatever of these comes out of an SSH library means that the other end cannot be spoken to.
LOST = (paramiko.SSHException, EOFError, OSError)


@dataclass(frozen=True)
class Address:
    """Where to log in; what is None is as the user's SSH configuration has it."""

    host: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def read(cls, text: str) -> Address:
        """Read USER@HOST:PORT; raises UsageError if it is none."""
        found = ADDRESS.fullmatch(text)
        port = int(found["port"]) if found and found["port"] else None
        if found is None or (port is not None and not 0 < port < 1 << 16):
            raise UsageError(
                f"{text!r} is no USER@HOST[:PORT]", advice="As in me@big or me@big:22."
            )
        return cls(found["host"].strip("[]"), found["user"], port)

    def __str__(self) -> str:
        return f"{self.user}@{self.host}" if self.user else self.host

    @property
    def ssh(self) -> str:
        """Return the command by which a person logs in there."""
        return f"ssh {f'-p {self.port} ' if self.port else ''}{self}"


@contextlib.contextmanager
def connected(address: Address) -> Iterator[fabric.Connection]:
    """Log in, and out again; raises HarnessError if that cannot be."""
    connection = fabric.Connection(
        address.host, address.user, address.port, connect_timeout=SECONDS_TO_CONNECT
    )
    with connection:
        trust_known_hosts(connection)
        _open(connection, address)
        yield connection


def trust_known_hosts(connection: fabric.Connection) -> None:
    """Talk only to a host whose key is known, as ssh does, and not as fabric."""
    logging.getLogger("paramiko").addHandler(logging.NullHandler())  # what it raises is enough
    client = connection.client
    client.load_system_host_keys()
    for name in connection.ssh_config.get("userknownhostsfile", "").split():
        with contextlib.suppress(OSError):
            client.load_system_host_keys(str(Path(name).expanduser()))
    client.set_missing_host_key_policy(paramiko.RejectPolicy())


def _open(connection: fabric.Connection, address: Address) -> None:
    """Log in; every way in which that fails has a sentence and an advice of its own."""
    try:
        connection.open()
        transport = connection.transport
        transport.set_keepalive(SECONDS_BETWEEN_SIGNS_OF_LIFE)
        with contextlib.suppress(OSError, AttributeError):  # a proxy's is no socket of TCP's
            milliseconds = SECONDS_WITHOUT_ANSWER * 1000
            transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
    except paramiko.BadHostKeyException as problem:
        raise HarnessError(
            f"{address} shows another host key than the one that is known",
            evidence=[f"its key is {problem.key.get_name()} {problem.key.get_base64()[:40]}…"],
            advice=f"If it was set up anew:  ssh-keygen -R {_known_as(connection)}",
        ) from None
    except paramiko.AuthenticationException as problem:
        raise HarnessError(
            f"{address} does not let {connection.user} in: {said(problem)}",
            advice=f"Does this work without a password?  {address.ssh} true",
        ) from None
    except LOST as problem:
        if "not found in known_hosts" in str(problem):
            raise HarnessError(
                f"the host key of {address} is not known",
                advice=f"Log in once, and compare it:  {address.ssh} true",
            ) from None
        raise HarnessError(
            f"{address} cannot be reached by SSH on port {connection.port}: {said(problem)}",
            advice=f"Does this work?  {address.ssh} true",
        ) from None


def _known_as(connection: fabric.Connection) -> str:
    return connection.host if connection.port == 22 else f"'[{connection.host}]:{connection.port}'"


def said(problem: BaseException) -> str:
    """Return what an SSH library meant to say."""
    if isinstance(problem, paramiko.ssh_exception.NoValidConnectionsError):
        problem = next(iter(problem.errors.values()))
    if isinstance(problem, EOFError):
        return "it ended the connection"
    if isinstance(problem, TimeoutError):
        return "no answer"
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror
    return str(problem) or type(problem).__name__


def lost(address: Address, problem: BaseException | None = None) -> HarnessError:
    """Return the error for a connection that broke."""
    why = f": {said(problem)}" if problem is not None else ""
    return HarnessError(
        f"the connection to {address} was lost{why}",
        advice="What ran there ends by itself. Repeat the command: what was built is kept.",
    )


def sh(script: str) -> str:
    """Return a script as one command of any shell."""
    return f"exec sh -c {shlex.quote(script)}"


def ask(
    connection: fabric.Connection,
    address: Address,
    script: str,
    seconds: float = SECONDS_TO_ANSWER,
) -> str:
    """Run a script of sh's there, whatever the user's shell is, and return what it printed.

    Raises HarnessError with its last words if it fails, or if the connection is lost.
    """
    try:
        done = connection.run(sh(script), hide=True, warn=True, in_stream=False, timeout=seconds)
    except invoke.exceptions.CommandTimedOut:
        raise HarnessError(f"{address} has not answered for {seconds:.0f} s") from None
    except LOST as problem:
        raise lost(address, problem) from None
    if done.exited == -1:
        raise lost(address)
    if done.exited:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise HarnessError(f"{address} cannot do its part", evidence=words[-5:])
    return str(done.stdout)

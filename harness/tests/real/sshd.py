"""A directory in, an OpenSSH server on the loopback out, with a user's home that knows it.

It is the server of Debian's package, unpacked and not installed: nothing of the system changes.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import paramiko

SECONDS = 30.0


@dataclass(frozen=True)
class Server:
    """One that runs; `home` is what HOME has to be for ssh and its like to find it."""

    home: Path
    known_hosts: Path
    said: Path


@contextmanager
def server(directory: Path, *names: str) -> Iterator[Server]:
    """Run one, which answers under each of `names`."""
    ssh = directory / "home" / ".ssh"
    ssh.mkdir(parents=True, mode=0o700)
    port = _free_port()
    keys = [paramiko.ECDSAKey.generate() for _ in range(2)]
    for key, path in zip(keys, (directory / "host", ssh / "id_ecdsa"), strict=True):
        key.write_private_key_file(str(path))
    (ssh / "authorized_keys").write_text(f"{keys[1].get_name()} {keys[1].get_base64()}\n")
    (directory / "config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {directory}/host\nPidFile none\n"
        f"AuthorizedKeysFile {ssh}/authorized_keys\nStrictModes no\nUsePAM no\n"
    )
    (ssh / "config").write_text(
        f"Host {' '.join(names)}\n  HostName 127.0.0.1\n  Port {port}\n"
        f"  User {getpass.getuser()}\n  IdentityFile {ssh}/id_ecdsa\n"
    )
    known_hosts = ssh / "known_hosts"
    known_hosts.write_text(f"[127.0.0.1]:{port} {keys[0].get_name()} {keys[0].get_base64()}\n")
    program, libraries = _sshd(directory)
    said = directory / "said"
    with said.open("w") as log:
        process = subprocess.Popen(
            [*_as_root(directory), program, "-D", "-e", "-f", directory / "config"],
            env={**os.environ, "LD_LIBRARY_PATH": libraries},
            stdout=log,
            stderr=log,
        )
    try:
        _wait_for(port, process, said)
        yield Server(directory / "home", known_hosts, said)
    finally:
        process.kill()
        process.wait()


def _sshd(directory: Path) -> tuple[Path, str]:
    """Return the server's program, and where else its libraries are."""
    installed = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if installed:
        return Path(installed), ""
    packages = directory / "packages"
    packages.mkdir()
    subprocess.run(
        ["apt-get", "-qq", "download", "openssh-server", "libwrap0"],
        cwd=packages,
        check=True,
        stderr=subprocess.DEVNULL,
    )
    for package in packages.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, packages], check=True)
    folders = {str(path.parent) for path in packages.rglob("lib*.so*")}
    return packages / "usr/sbin/sshd", ":".join(sorted(folders))


def _as_root(directory: Path) -> list[str]:
    """Return what gives the server of root a user of its own to be less than root."""
    if os.geteuid() != 0:
        return []
    passwd = directory / "passwd"
    others = re.sub(r"^sshd:.*\n", "", Path("/etc/passwd").read_text(), flags=re.MULTILINE)
    passwd.write_text(f"{others}sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n")
    return [
        *("bwrap", "--dev-bind", "/", "/", "--cap-add", "ALL", "--die-with-parent"),
        *("--tmpfs", "/run", "--dir", "/run/sshd", "--ro-bind", str(passwd), "/etc/passwd"),
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int, process: subprocess.Popen[bytes], said: Path) -> None:
    end = time.monotonic() + SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            assert process.poll() is None and time.monotonic() < end, said.read_text()
            time.sleep(0.05)

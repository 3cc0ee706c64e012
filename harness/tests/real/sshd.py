"""A directory in, an OpenSSH server on the loopback out, with a user's home that knows it.

Where no server is installed, Debian's is unpacked into the cache: to install it would start one for
the whole machine.
"""

from __future__ import annotations

import contextlib
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
import psutil

from harness.cache import default_cache

SECONDS = 30.0


@dataclass(frozen=True)
class Server:
    """One that runs; `home` is what HOME has to be for ssh and its like to find it."""

    home: Path
    known_hosts: Path
    key: Path  # of the user
    said: Path
    port: int
    process: subprocess.Popen[bytes]

    def hang_up(self) -> None:
        """Kill whoever serves a connection; what was started over it is not touched."""
        for process in _servants(self.process):
            with contextlib.suppress(psutil.Error):
                if "listener" not in " ".join(process.cmdline()):
                    process.kill()


@contextmanager
def server(directory: Path, *names: str, **environment: str) -> Iterator[Server]:
    """Run one, which answers under each of `names`; its sessions have `environment`."""
    ssh = directory / "home" / ".ssh"
    ssh.mkdir(parents=True, mode=0o700)
    port = _free_port()
    keys = [paramiko.ECDSAKey.generate() for _ in range(2)]
    for key, path in zip(keys, (directory / "host", ssh / "id_ecdsa"), strict=True):
        key.write_private_key_file(str(path))
    (ssh / "authorized_keys").write_text(f"{keys[1].get_name()} {keys[1].get_base64()}\n")
    variables = " ".join(f'"{name}={value}"' for name, value in environment.items())
    (directory / "config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {directory}/host\nPidFile none\n"
        f"AuthorizedKeysFile {ssh}/authorized_keys\nStrictModes no\nUsePAM no\n"
        "Subsystem sftp internal-sftp\n" + (f"SetEnv {variables}\n" if variables else "")
    )
    (ssh / "config").write_text(
        f"Host {' '.join(names)}\n  HostName 127.0.0.1\n  Port {port}\n"
        f"  User {getpass.getuser()}\n  IdentityFile {ssh}/id_ecdsa\n"
    )
    known_hosts = ssh / "known_hosts"
    known_hosts.write_text(f"[127.0.0.1]:{port} {keys[0].get_name()} {keys[0].get_base64()}\n")
    program, libraries = _sshd()
    said = directory / "said"
    with said.open("w") as log:
        process = subprocess.Popen(
            [*_as_root(directory), program, "-D", "-e", "-f", directory / "config"],
            env={**os.environ, "LD_LIBRARY_PATH": libraries},
            stdout=log,
            stderr=log,
        )
    running = Server(directory / "home", known_hosts, ssh / "id_ecdsa", said, port, process)
    try:
        _wait_for(port, process, said)
        yield running
    finally:
        servants = _servants(process)
        process.kill()
        process.wait()
        for servant in servants:
            with contextlib.suppress(psutil.Error):
                servant.kill()


def _servants(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return all the server's own processes below the first."""
    with contextlib.suppress(psutil.Error):
        family = psutil.Process(process.pid).children(recursive=True)
        return [one for one in family if one.is_running() and one.name() == "sshd"]
    return []


def _sshd() -> tuple[Path, str]:
    """Return the server's program, and where else its libraries are."""
    installed = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if installed:
        return Path(installed), ""
    unpacked = default_cache().entry("sshd", "debian", _unpack)
    folders = {str(path.parent) for path in unpacked.rglob("lib*.so*")}
    return unpacked / "usr/sbin/sshd", ":".join(sorted(folders))


def _unpack(directory: Path) -> None:
    packages = directory / "packages"
    (packages / "partial").mkdir(parents=True)
    subprocess.run(
        ["apt-get", "-qq", "-y", "-o", f"Dir::Cache::archives={packages}", "-o",
         "Debug::NoLocking=1", "install", "--download-only", "--no-install-recommends",
         "openssh-server"],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for package in packages.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, directory], check=True)
    shutil.rmtree(packages)


def _as_root(directory: Path) -> list[str]:
    """Return what gives the server of root a user of its own to be less than root."""
    if os.geteuid() != 0:
        return []
    passwd = directory / "passwd"
    others = re.sub(r"^sshd:.*\n", "", Path("/etc/passwd").read_text(), flags=re.MULTILINE)
    passwd.write_text(f"{others}sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n")
    # What else is in /run stays: how names are resolved, for example.
    kept = [word for path in Path("/run").iterdir() for word in ("--dev-bind", path, path)]
    return [
        *("bwrap", "--dev-bind", "/", "/", "--cap-add", "ALL", "--die-with-parent"),
        *("--tmpfs", "/run", *map(str, kept), "--dir", "/run/sshd"),
        *("--ro-bind", str(passwd), "/etc/passwd"),
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

"""The sandbox: what code under review tries, and how it fails. Every attempt here is a real one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness.cache import Cancelled
from harness.errors import HarnessError
from harness.sandbox import Sandbox

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "writable"
    path.mkdir()
    return path


def run(sandbox: Sandbox, *command: str, cancelled: threading.Event | None = None) -> str:
    """Run a command and return its status and output."""
    log = sandbox.directory.parent / "log"
    with log.open("wb") as output:
        status = sandbox.run(
            command, environment=ENVIRONMENT, log=output, cancelled=cancelled or threading.Event()
        )
    return f"{status} {log.read_text()}"


def test_it_writes_its_own_directory(directory: Path) -> None:
    assert run(Sandbox(directory), "touch", "/xen/made").startswith("0")
    assert (directory / "made").exists()


@pytest.mark.parametrize(
    "place", ["/", "/usr", "/etc", str(Path.home()), str(Path(__file__).parent), "/var/tmp"]
)
def test_it_writes_nothing_else(directory: Path, place: str) -> None:
    assert not run(Sandbox(directory), "touch", f"{place}/escaped").startswith("0")
    assert not Path(place, "escaped").exists()


def test_what_it_writes_to_tmp_stays_inside(directory: Path) -> None:
    assert run(Sandbox(directory), "touch", "/tmp/xenverify-escaped").startswith("0")
    assert not Path("/tmp/xenverify-escaped").exists()


def test_it_reads_no_file_of_the_user(directory: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    for path in (secret, Path("/etc/shadow"), Path.home()):
        assert "No such file" in run(Sandbox(directory), "ls", str(path))


def test_it_has_no_network_not_even_this_machine(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        connect = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)"
        assert "refused" in run(Sandbox(directory), "python3", "-c", connect)


def test_it_sees_and_kills_no_process_of_the_machine(directory: Path) -> None:
    assert "No such process" in run(Sandbox(directory), "sh", "-c", f"kill -9 {os.getpid()}")


def test_it_sees_no_environment_of_the_user(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "secret")
    assert "secret" not in run(Sandbox(directory), "sh", "-c", "env; cat /proc/*/environ")


def test_a_compiler_cache_is_read_and_written_only_if_told(directory: Path, tmp_path: Path) -> None:
    ccache = tmp_path / "ccache"
    ccache.mkdir()
    (ccache / "object").write_text("kept")
    reading = Sandbox(directory, ccache=ccache)
    assert "0 kept" in run(reading, "cat", "/ccache/object")
    assert "Read-only" in run(reading, "touch", "/ccache/poison")
    assert run(Sandbox(directory, ccache=ccache, ccache_writable=True), "touch", "/ccache/new")
    assert (ccache / "new").exists()


@pytest.mark.parametrize("confined", [True, False])
def test_when_it_is_no_longer_wanted_every_process_dies(directory: Path, confined: bool) -> None:
    cancelled = threading.Event()
    threading.Timer(0.3, cancelled.set).start()
    script = "for n in 1 2 3; do (while :; do date >> alive; sleep 0.01; done) & done; wait"
    with pytest.raises(Cancelled):
        run(Sandbox(directory, confined=confined), "sh", "-c", script, cancelled=cancelled)
    size = (directory / "alive").stat().st_size
    assert size > 0
    time.sleep(0.1)
    assert (directory / "alive").stat().st_size == size


PARENT = """
import sys
from pathlib import Path
from harness.sandbox import Sandbox
script = "while :; do date >> alive; sleep 0.01; done"
with open("/dev/null", "wb") as log:
    Sandbox(Path(sys.argv[1])).run(["sh", "-c", script], environment={}, log=log)
"""


def test_it_dies_with_us_even_if_we_are_killed(directory: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(directory)])
    alive = directory / "alive"
    deadline = time.monotonic() + 10
    while not alive.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    time.sleep(0.3)
    size = alive.stat().st_size
    time.sleep(0.2)
    assert alive.stat().st_size == size


def test_a_machine_without_user_namespaces_is_told_what_to_do(directory: Path) -> None:
    program = (
        "from pathlib import Path\n"
        "from harness.errors import HarnessError\n"
        "from harness.sandbox import Sandbox\n"
        "try:\n"
        f"    Sandbox(Path({str(directory)!r})).check()\n"
        "except HarnessError as error:\n"
        "    print(error, error.advice)\n"
    )
    # Without privilege, and with namespaces forbidden, bubblewrap has nothing to build from.
    forbidden = ["bwrap", "--unshare-user", "--disable-userns", "--dev-bind", "/", "/"]
    forbidden += ["--uid", "1000", "--cap-drop", "ALL", "--", sys.executable, "-c", program]
    done = subprocess.run(forbidden, capture_output=True, text=True, check=True)
    assert "bubblewrap cannot make a sandbox" in done.stdout, done.stderr
    assert "--no-sandbox" in done.stdout


def test_here_it_can_be_made(directory: Path) -> None:
    try:
        Sandbox(directory).check()
    except HarnessError as error:
        pytest.fail(f"{error} {error.evidence}")

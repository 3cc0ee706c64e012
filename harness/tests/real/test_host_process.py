"""That nothing is left of a host, however its parent ends and whatever is full."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.builds import Build
from harness.errors import HarnessError
from harness.qemu_process import QemuProcess
from harness.ram import Ram
from harness.tests.real import kernels
from harness.tests.real.namespaces import own_mounts
from harness.tests.real.test_hosts import gone, xen

__all__ = ["xen"]  # the fixture

SECONDS_TO_DIE = 2.0
# Where in a boot a Ctrl-C arrives, in seconds behind "begin": RAM, device tree, QEMU, Xen, guest.
MOMENTS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.09, 0.12, 0.16, 0.25, 0.5)


def holder(
    xen: Build, directory: Path, *before: str, booting: str = "thread", host: Path | None = None
) -> subprocess.Popen[str]:
    """Another Python that boots a host in `directory` and holds it."""
    kernel = directory / "kernel"
    kernel.write_bytes(kernels.spinner())
    place = host or directory / "host"
    build = [str(xen.xen), xen.build_id, xen.version, str(kernel), str(place), booting]
    return subprocess.Popen(
        [*before, sys.executable, "-m", "harness.tests.real.hold_host", *build],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def soon(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + SECONDS_TO_DIE
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


def running(directory: Path) -> list[str]:
    """The command lines of processes that name `directory`, without the holder's."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(directory) in command and "hold_host" not in command:
            found.append(command)
    return found


def test_qemu_outlives_the_thread_that_booted_it_but_not_the_process(
    xen: Build, tmp_path: Path
) -> None:
    with holder(xen, tmp_path) as process:
        assert line(process) == "begin"
        pid = int(line(process).removeprefix("up "))
        time.sleep(0.3)
        assert not gone(pid), "it died with the thread"
        process.kill()
    assert soon(lambda: gone(pid))
    assert running(tmp_path) == []


@pytest.mark.parametrize("moment", [0.0, 0.004, 0.008, 0.02, 0.05])
def test_a_parent_killed_while_it_boots_leaves_nothing(
    xen: Build, tmp_path: Path, moment: float
) -> None:
    with holder(xen, tmp_path) as process:
        assert line(process) == "begin"
        time.sleep(moment)
        process.kill()
    assert soon(lambda: running(tmp_path) == [])


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_leaves_nothing_at_any_moment(xen: Build, tmp_path: Path, moment: float) -> None:
    shared = set(Path("/dev/shm").iterdir())
    with holder(xen, tmp_path, booting="here") as process:
        assert line(process) == "begin"
        time.sleep(moment)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT, errors
    assert "KeyboardInterrupt" in errors
    assert running(tmp_path) == []
    assert [path for path in tmp_path.rglob("*") if path.is_socket()] == []
    assert set(Path("/dev/shm").iterdir()) <= shared


def test_a_full_dev_shm_does_not_matter(xen: Build, tmp_path: Path) -> None:
    script = """
        mount -t tmpfs -o size=64k tmpfs /dev/shm || exit
        dd if=/dev/zero of=/dev/shm/full bs=4k 2>/dev/null
        exec "$@"
    """
    with holder(xen, tmp_path, *own_mounts(script)) as process:
        assert line(process) == "begin"
        assert line(process).startswith("up "), process.stderr and process.stderr.read()
        process.kill()


@pytest.mark.parametrize("room", ["4k", "64k"])
def test_a_full_disk_is_our_failure(xen: Build, tmp_path: Path, room: str) -> None:
    place = tmp_path / "full"
    place.mkdir()
    script = f"""
        mount -t tmpfs -o size={room} tmpfs {place} || exit
        dd if=/dev/zero of={place}/full bs=4k 2>/dev/null
        exec "$@"
    """
    host = place / "host"
    with holder(xen, tmp_path, *own_mounts(script), host=host) as process:
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors.startswith("HarnessError: the host cannot be set up: ")
    assert "No space left on device" in errors
    assert running(tmp_path) == []


def test_ram_that_may_not_be_had_is_our_failure() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(HarnessError, match="no 256 MiB for the guest's RAM"):
            Ram(0x40000000, 256 << 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_program_that_cannot_run_says_so_in_its_log(tmp_path: Path) -> None:
    process = QemuProcess([str(tmp_path / "nothing")], tmp_path / "log", [])
    assert process.status(5) == 127
    assert any("not found" in said for said in process.said())


def test_is_its_own_session_so_that_a_terminal_does_not_reach_it(tmp_path: Path) -> None:
    process = QemuProcess(["sleep", "60"], tmp_path / "log", [])
    try:
        assert os.getsid(process.pid) == process.pid != os.getsid(0)
    finally:
        process.end()
    assert process.status() == -signal.SIGTERM

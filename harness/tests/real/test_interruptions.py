"""Ctrl-C at every stage, and worse: one line, exit code 130, and nothing left behind."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from harness.cache import default_cache
from harness.references import resolve
from harness.tests.real.commands import Command, marked, shared_memory, start

BOOKWORM = "debian:bookworm"


def assert_nothing_left(command: Command, directory: Path, memory: set[str]) -> None:
    assert command.left_running() == []
    assert not list(directory.glob("*xenverify-*"))
    assert not {name for name in shared_memory() - memory if "xenverify" in name}


def has_program(command: Command, name: str) -> bool:
    return any(name in line for line in marked(command.mark))


def test_ctrl_c_while_the_command_loads(tmp_path: Path) -> None:
    """On a busy machine that is a second; here a library of its takes a minute."""
    began = tmp_path / "began"
    slow = f"import pathlib, time\npathlib.Path({str(began)!r}).touch()\ntime.sleep(60)\n"
    (tmp_path / "typer.py").write_text(slow)
    command = start("doctor", directory=tmp_path, PYTHONPATH=str(tmp_path))
    command.wait_until(began.exists)
    assert command.interrupt() == 130, command.output
    assert command.output == "xenverify: interrupted; nothing is left behind  (exit 130)\n"


def test_ctrl_c_while_xen_builds(tmp_path: Path) -> None:
    """In a cache that has Xen's source from the user's own, and nothing built."""
    memory, cache = shared_memory(), tmp_path / "cache"
    cache.mkdir()
    resolve(BOOKWORM, default_cache())
    for kind in ("debian", "debian-suites", "git"):
        (cache / kind).symlink_to(default_cache().root / kind)
    command = start("run", "--xen", BOOKWORM, directory=tmp_path, XENVERIFY_CACHE=str(cache))
    command.wait_until(lambda: "building" in command.log.read_text())
    assert command.interrupt() == 130, command.output
    assert command.output.rstrip().endswith("interrupted; nothing is left behind  (exit 130)")
    assert_nothing_left(command, tmp_path, memory)
    assert list(cache.glob("builds/*")) == []
    assert list(cache.glob("scratch/*")) == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_while_cases_run(tmp_path: Path, jobs: int) -> None:
    """With one worker and, by xdist, with two."""
    memory = shared_memory()
    command = start("run", "--xen", BOOKWORM, "--jobs", str(jobs), directory=tmp_path)
    command.wait_until(lambda: len(list(tmp_path.rglob("console.log"))) > 2 * jobs)
    assert has_program(command, "qemu-system-aarch64")
    assert command.interrupt() == 130, command.output
    assert_nothing_left(command, tmp_path, memory)


def test_ctrl_c_while_the_first_xen_boots(tmp_path: Path) -> None:
    memory = shared_memory()
    command = start("run", "--xen", BOOKWORM, "--jobs", "1", directory=tmp_path)
    command.wait_until(lambda: has_program(command, "qemu-system-aarch64"))
    assert command.interrupt() == 130, command.output
    assert_nothing_left(command, tmp_path, memory)


def test_ctrl_c_while_two_xens_are_compared(tmp_path: Path) -> None:
    memory = shared_memory()
    command = start("compare", "debian:bullseye", BOOKWORM, directory=tmp_path)
    command.wait_until(lambda: len(list(tmp_path.rglob("console.log"))) > 4)
    assert command.interrupt() == 130, command.output
    assert_nothing_left(command, tmp_path, memory)


def test_a_terminated_run_goes_as_an_interrupted_one(tmp_path: Path) -> None:
    memory = shared_memory()
    command = start("run", "--xen", BOOKWORM, "--jobs", "1", directory=tmp_path)
    command.wait_until(lambda: len(list(tmp_path.rglob("console.log"))) > 2)
    command.process.send_signal(signal.SIGTERM)
    assert command.finish(60.0) == 130, command.output
    assert_nothing_left(command, tmp_path, memory)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_killed_run_leaves_no_process(tmp_path: Path, jobs: int) -> None:
    """It cannot clean its folder any more, but what it started ends with it."""
    memory = shared_memory()
    command = start("run", "--xen", BOOKWORM, "--jobs", str(jobs), directory=tmp_path)
    command.wait_until(lambda: len(list(tmp_path.rglob("console.log"))) > 2 * jobs)
    command.process.kill()
    command.process.wait()
    assert command.left_running(seconds=20.0) == []
    assert not {name for name in shared_memory() - memory if "xenverify" in name}

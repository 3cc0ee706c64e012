"""What may go wrong while a real bisection runs: each a sentence, and what was seen is kept."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.tests.real.commands import Command, run, shared_memory, start
from harness.tests.real.planted import CASE, History

pytestmark = pytest.mark.xdist_group("bisect")
SMALL = 1700  # bytes: what the command says fits into a file, but no run that failed


def words(history: History, good: str = "panics", bad: str = "b3") -> list[str | Path]:
    """A short search, whose answer is GUILTY."""
    ends = ("--good", history.ids[good], "--bad", history.ids[bad])
    return ["bisect", "--repo", history.path, *ends, CASE, "--output", "out"]


def begin(history: History, cache: Path, directory: Path) -> Command:
    """Start a search, and return when both ends were looked at and kept."""
    command = start(*words(history), directory=directory, XENVERIFY_CACHE=str(cache))
    command.wait_until(lambda: "to blame" in command.log.read_text())
    return command


def resumed(history: History, cache: Path, directory: Path) -> dict[str, Any]:
    """Repeat the search to its end; return the report."""
    status, said = run(*words(history), directory=directory, XENVERIFY_CACHE=str(cache))
    assert status == 0, said
    report: dict[str, Any] = json.loads((directory / "out" / "bisect.json").read_text())
    (finding,) = report["findings"]
    assert finding["commit"]["commit"] == history.ids["GUILTY"]
    return report


def looking(command: Command) -> list[psutil.Process]:
    """The processes that look at commits."""
    children = psutil.Process(command.process.pid).children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def test_ctrl_c_leaves_nothing_but_what_was_seen(
    history: History, forgetful: Path, tmp_path: Path
) -> None:
    memory = shared_memory()
    command = begin(history, forgetful, tmp_path)
    assert command.interrupt() == 130, command.output
    last = command.output.rstrip().splitlines()[-1]
    assert last == "xenverify: interrupted; nothing is left behind  (exit 130)"
    assert command.left_running() == []
    assert not {name for name in shared_memory() - memory if "xenverify" in name}
    assert resumed(history, forgetful, tmp_path)["effort"]["remembered"] >= 2


def test_a_disk_that_fills_up_ends_the_search_and_loses_nothing(
    history: History, forgetful: Path, tmp_path: Path
) -> None:
    command = begin(history, forgetful, tmp_path)
    psutil.Process(command.process.pid).rlimit(resource.RLIMIT_FSIZE, (SMALL, SMALL))
    assert command.finish() == 5, command.output
    assert "no room left" in command.output
    assert "Traceback" not in command.output
    assert command.left_running() == []
    assert resumed(history, forgetful, tmp_path)["effort"]["remembered"] >= 2


def test_a_worker_that_is_killed_is_replaced(
    history: History, forgetful: Path, tmp_path: Path
) -> None:
    command = begin(history, forgetful, tmp_path)
    command.wait_until(lambda: looking(command))
    looking(command)[0].kill()
    assert command.finish() == 0, command.output
    assert history.ids["GUILTY"] in command.output


def test_a_stopped_search_that_is_killed_leaves_no_process(
    history: History, forgetful: Path, tmp_path: Path
) -> None:
    command = begin(history, forgetful, tmp_path)
    command.process.send_signal(signal.SIGSTOP)
    command.process.kill()
    command.process.wait()
    assert command.left_running(seconds=20.0) == []
    resumed(history, forgetful, tmp_path)


def refused(directory: Path, *arguments: str | Path) -> str:
    """Ask what has no answer; return what was said."""
    status, said = run("bisect", *arguments, "--output", "out", directory=directory)
    assert status == 2, said
    assert "Traceback" not in said
    assert not (directory / "out").exists()
    return said


def test_ends_that_cannot_be_searched_between(history: History, tmp_path: Path) -> None:
    ids, repository = history.ids, ("--repo", history.path)
    swapped = refused(tmp_path, *repository, "--good", ids["notes"], "--bad", ids["base"], CASE)
    assert "is an ancestor of the old end" in swapped and "Swap --good and --bad" in swapped
    equal = refused(tmp_path, *repository, "--good", ids["base"], "--bad", ids["base"], CASE)
    assert "are the same commit" in equal
    alike = refused(tmp_path, *repository, "--good", ids["merge-b"], "--bad", ids["notes"], CASE)
    assert "build the same Xen" in alike
    unknown = refused(tmp_path, *repository, "--good", "v1", "--bad", ids["base"], CASE)
    assert "v1" in unknown
    case = refused(
        tmp_path, *repository, "--good", ids["base"], "--bad", ids["notes"], "no_such.py"
    )
    assert "no_such.py" in case


def test_clones_that_hold_too_little(history: History, tmp_path: Path) -> None:
    ids = history.ids
    shallow = tmp_path / "shallow"
    subprocess.run(
        ["git", "clone", "-q", "--depth", "3", f"file://{history.path}", shallow], check=True
    )
    said = refused(tmp_path, "--repo", shallow, "--good", ids["base"], "--bad", ids["notes"], CASE)
    assert "shallow" in said and "git fetch --unshallow" in said

    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", history.path, clone], check=True)
    subprocess.run(["git", "-C", clone, "tag", "text", f"{ids['base']}:README"], check=True)
    said = refused(tmp_path, "--repo", clone, "--good", ids["base"], "--bad", "text", CASE)
    assert f"text in {clone} is a blob, not a commit" in said

    person = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    git = ["git", "-C", str(clone), *person]
    subprocess.run([*git, "checkout", "-q", "--orphan", "other"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "another history"], check=True)
    said = refused(tmp_path, "--repo", clone, "--good", ids["base"], "--bad", "other", CASE)
    assert "no common ancestor" in said

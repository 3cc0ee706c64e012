"""Bisecting on other hosts: here it is this one, by way of an SSH server."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.tests.real.commands import run, start
from harness.tests.real.planted import CASE, History
from harness.tests.real.sshd import server

pytestmark = pytest.mark.xdist_group("bisect")


def test_commits_are_looked_at_on_ssh_hosts(
    history: History, forgetful: Path, tmp_path: Path
) -> None:
    ends = ("--good", history.ids["panics"], "--bad", history.ids["b3"])
    where = ("--repo", history.path, "--workers", "one,two", "--output", "out")
    words: list[str | Path] = ["bisect", *ends, *where, CASE]
    environment = {"XENVERIFY_CACHE": str(forgetful)}
    with server(tmp_path / "ssh", "one", "two", **environment) as host:
        environment["HOME"] = str(host.home)
        command = start(*words, directory=tmp_path, **environment)
        assert command.finish() == 0, command.output
        assert history.ids["GUILTY"] in command.output
        assert not (tmp_path / "out" / "commits").exists(), "nothing is looked at here"
        assert "Accepted publickey" in host.said.read_text()

        host.known_hosts.write_text("")
        status, said = run(*words, directory=tmp_path, **environment)
        assert status == 5, said
        assert "not found in known_hosts" in said
        assert "Traceback" not in said


def test_when_the_connection_breaks_the_search_says_so_and_can_be_repeated(
    history: History, forgetful: Path, tmp_path: Path
) -> None:
    ends = ("--good", history.ids["panics"], "--bad", history.ids["b3"])
    words: list[str | Path] = ["bisect", *ends, "--repo", history.path, CASE, "--output", "out"]
    environment = {"XENVERIFY_CACHE": str(forgetful)}
    with server(tmp_path / "ssh", "one", **environment) as host:
        home = {"HOME": str(host.home)}
        command = start(*words, "--workers", "one", directory=tmp_path, **environment, **home)
        command.wait_until(lambda: "to blame" in command.log.read_text())
        host.hang_up()
        assert command.finish() == 5, command.output
        assert "no connection is left to one" in command.output
        assert command.left_running() == []
    status, said = run(*words, directory=tmp_path, **environment)
    assert status == 0, said
    assert history.ids["GUILTY"] in said

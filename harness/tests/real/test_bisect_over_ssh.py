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
    with server(tmp_path / "ssh", "one", "two") as host:
        (host.home / ".cache").mkdir()
        (host.home / ".cache" / "xenverify").symlink_to(forgetful)
        environment = {"HOME": str(host.home), "XENVERIFY_CACHE": str(forgetful)}
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

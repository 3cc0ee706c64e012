"""Commands on another machine, by a real sshd on the loopback: as here, or one sentence why not."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import paramiko
import pexpect
import pytest

from harness.cache import default_cache
from harness.references import resolve
from harness.tests.edits import make_patch
from harness.tests.real.commands import XENVERIFY, path_without, run
from harness.tests.real.planted import CASE, plant
from harness.tests.real.sshd import server
from harness.tests.remote.conftest import NAME, There

BOOKWORM = "debian:bookworm"
ONE_CASE = ("-k", "shared_info and second_map_is_refused and not domu")
SECONDS = 300.0
# One after the other: what is left behind there is looked for by its name only.
pytestmark = pytest.mark.xdist_group("remote")


def patch(directory: Path, edit: str) -> Path:
    """A patch of Debian's Xen 4.17 that makes it wrong in a known way."""
    path = directory / f"{edit}.patch"
    path.write_bytes(make_patch((edit,), resolve(BOOKWORM, default_cache())))
    return path


def judged(folder: Path) -> dict[str, Any]:
    """What a verdict says, without what differs from run to run."""
    data = json.loads((folder / "verdict.json").read_text())
    cases = [(one["id"], one["before"], one["after"], one["verdict"]) for one in data["cases"]]
    builds = [data[side]["build_id"] for side in ("before", "after")]
    return {"cases": cases, "builds": builds, "summary": data["summary"]}


def assert_nothing_left(there: There, directory: Path, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while (there.running() or there.directories()) and time.monotonic() < end:
        time.sleep(0.1)
    assert there.running() == []
    assert there.directories() == []
    assert not list(directory.glob("*xenverify-*"))


def test_a_verdict_is_the_same_there_as_here(there: There, tmp_path: Path) -> None:
    change = patch(tmp_path, "allow-second-map").name
    words = ("verify", change, "--on", BOOKWORM, *ONE_CASE, "--output")
    here = run(*words, "here", directory=tmp_path)
    over_there = there.run(*words, "there", directory=tmp_path)
    assert (here[0], over_there[0]) == (1, 1), over_there[1]
    assert judged(tmp_path / "there") == judged(tmp_path / "here")
    assert "1 regressed" in over_there[1]
    assert "results in ./there/" in over_there[1]
    left = {path.name for path in (tmp_path / "there").iterdir()}
    assert left == {path.name for path in (tmp_path / "here").iterdir()}
    mails = [(tmp_path / side / "mail.txt").read_text() for side in ("here", "there")]
    assert [f"--on {BOOKWORM}" in mail for mail in mails] == [True, True]
    assert_nothing_left(there, tmp_path)


def test_sources_and_changes_of_this_machine_go_along(there: There, tmp_path: Path) -> None:
    """A directory as it stands, a clone that nobody else has, and a commit of it as the change."""
    cache = default_cache()
    change = patch(tmp_path, "comment-only")
    clone = tmp_path / "xen"
    resolve(BOOKWORM, cache).checkout(clone)
    commands: list[tuple[str, ...]] = [
        ("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "as it is"), ("apply", str(change)),
        ("commit", "-q", "-a", "-m", "with a comment"),
    ]  # fmt: skip
    for one in commands:
        identity = ("-c", "user.name=N", "-c", "user.email=n@example.org")
        subprocess.run(["git", "-C", clone, *identity, *one], check=True)
    status, text = there.run("run", "--xen", "./xen", *ONE_CASE, directory=tmp_path)
    assert status == 0, text
    assert "on       ./xen  directory xen" in text
    words = ("verify", "git:HEAD", "--on", "git:./xen@HEAD~1", *ONE_CASE, "-o", "out")
    status, text = there.run(*words, directory=tmp_path)
    assert status == 0, text
    assert '"with a comment"' in text and "on       git:./xen@HEAD~1" in text
    assert "same binary" in text


def test_a_history_is_searched_there(there: There, tmp_path: Path) -> None:
    """The repository goes over with every commit; its name is what it is called here."""
    history = plant(resolve(BOOKWORM, default_cache()), tmp_path / "xen")
    ends = ("--good", history.ids["panics"], "--bad", history.ids["b3"])
    words = ("bisect", *ends, "--repo", "./xen", CASE, "--output", "out")
    status, text = there.run(*words, directory=tmp_path)
    assert status == 0, text
    assert history.ids["GUILTY"] in text
    assert (tmp_path / "out" / "bisect.json").exists()


def test_a_patch_on_standard_input_goes_along(there: There, tmp_path: Path) -> None:
    change = patch(tmp_path, "comment-only")
    with change.open("rb") as stdin:
        done = subprocess.run(
            [XENVERIFY, "build", BOOKWORM, "--with", "-", "--on-host", there.name],
            stdin=stdin, capture_output=True, text=True, cwd=tmp_path, check=False,
            env={**os.environ, **there.environment},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "build-id" in done.stdout


def test_ctrl_c_ends_it_there_and_leaves_nothing(there: There, tmp_path: Path) -> None:
    command = there.start("run", "--xen", BOOKWORM, "--jobs", "1", directory=tmp_path)
    command.wait_until(lambda: any("qemu-system" in line for line in there.running()))
    assert command.interrupt() == 130, command.output
    assert "interrupted; nothing is left behind  (exit 130)" in command.output
    assert_nothing_left(there, tmp_path)


def test_a_lost_connection_is_said_and_what_ran_there_ends(there: There, tmp_path: Path) -> None:
    command = there.start("run", "--xen", BOOKWORM, "--jobs", "1", directory=tmp_path)
    command.wait_until(lambda: any("qemu-system" in line for line in there.running()))
    there.server.hang_up()
    assert command.finish(60.0) == 5, command.output
    assert "the connection to there was lost" in command.output
    assert_nothing_left(there, tmp_path)


def test_if_this_end_is_killed_the_other_ends(there: There, tmp_path: Path) -> None:
    command = there.start("run", "--xen", BOOKWORM, "--jobs", "1", directory=tmp_path)
    command.wait_until(lambda: any("qemu-system" in line for line in there.running()))
    command.process.kill()
    command.process.wait()
    shutil.rmtree(next(tmp_path.glob("xenverify-*")))  # nobody could, here
    assert_nothing_left(there, tmp_path)


def terminal(there: There, tmp_path: Path, *words: str) -> pexpect.spawn[str]:
    return pexpect.spawn(
        str(XENVERIFY), ["--on-host", there.name, *words],
        env={**os.environ, **there.environment, "TERM": "dumb"},
        cwd=str(tmp_path), encoding="utf-8", timeout=SECONDS,
    )  # fmt: skip


def test_a_prompt_there_is_typed_at_here(there: There, tmp_path: Path) -> None:
    child = terminal(there, tmp_path, "shell", "--xen", BOOKWORM)
    child.expect(">>> ")
    child.sendline("print(domain.xen_version())")
    child.expect(r"\(4, 17\)")
    child.sendline("import time; time.sleep(600)")
    time.sleep(1.0)
    child.sendintr()
    child.expect("KeyboardInterrupt")
    child.sendline("exit()")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert_nothing_left(there, tmp_path)


def test_a_terminal_that_goes_away_ends_what_ran_there(there: There, tmp_path: Path) -> None:
    child = terminal(there, tmp_path, "shell", "--xen", BOOKWORM)
    child.expect(">>> ")
    child.close(force=True)
    assert_nothing_left(there, tmp_path)


def test_usage_is_judged_here(there: There, tmp_path: Path) -> None:
    for words, expected in (
        (("run", "--xne", "x"), "No such option"),
        (("run", "--xen", "/no/such/xen"), "/no/such/xen"),
        (("verify", "no.patch", "--on", BOOKWORM), "no.patch"),
    ):
        status, text = there.run(*words, directory=tmp_path)
        assert status == 2, text
        assert expected in text
        assert "Traceback" not in text
    assert_nothing_left(there, tmp_path)


def refused(tmp_path: Path, address: str, environment: dict[str, str]) -> str:
    """What is said of a host that cannot be used."""
    status, text = run("doctor", "--on-host", address, directory=tmp_path, **environment)
    assert status == 5, text
    assert "Traceback" not in text
    return re.sub(r"^xenverify: connecting to .*\n", "", text)


def test_a_host_that_is_not_there_is_named(there: There, tmp_path: Path) -> None:
    text = refused(tmp_path, "127.0.0.1:1", there.environment)
    assert text.startswith("xenverify: 127.0.0.1 cannot be reached by SSH on port 1: ")
    assert "Connection refused" in text
    text = refused(tmp_path, "me@no-such-host.invalid", there.environment)
    assert "me@no-such-host.invalid cannot be reached by SSH" in text


def test_a_host_with_another_key_is_not_talked_to(there: There, tmp_path: Path) -> None:
    known = there.server.known_hosts.read_text()
    name, *key = known.split()
    other = paramiko.ECDSAKey.generate()
    try:
        there.server.known_hosts.write_text(f"{name} {other.get_name()} {other.get_base64()}\n")
        text = refused(tmp_path, NAME, there.environment)
        assert "there shows another host key than the one that is known" in text
        assert f"ssh-keygen -R '{name}'" in text
        there.server.known_hosts.write_text("")
        text = refused(tmp_path, NAME, there.environment)
        assert "the host key of there is not known" in text
        assert "ssh there true" in text
    finally:
        there.server.known_hosts.write_text(known)
    assert key


def test_a_host_that_does_not_let_us_in_is_named(tmp_path: Path) -> None:
    with server(tmp_path / "other", NAME) as other:
        other.key.unlink()
        paramiko.ECDSAKey.generate().write_private_key_file(str(other.key))
        text = refused(tmp_path, NAME, {"HOME": str(other.home), "SSH_AUTH_SOCK": ""})
    assert "there does not let " in text


def test_what_a_host_lacks_is_named(tmp_path: Path) -> None:
    path = path_without("qemu-system-aarch64", tmp_path / "bin")
    environment = {"PATH": path, "XENVERIFY_CACHE": str(tmp_path / "cache")}
    with server(tmp_path / "bare", NAME, **environment) as bare:
        text = refused(tmp_path, NAME, {"HOME": str(bare.home), "SSH_AUTH_SOCK": ""})
    assert "there lacks what xenverify needs" in text
    assert "please install: qemu-system-arm" in text

"""What can go wrong around a Linux dom0, really done: each is one sentence, and nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from harness import agent
from harness.booting import boot
from harness.builds import Build
from harness.cache import Cache
from harness.errors import HarnessError
from harness.linux_dom0.cpio import regular
from harness.linux_dom0.image import OURS, Image, image, personal
from harness.linux_dom0.machine import LinuxHost, ToolsDoNotFit, _Stage
from harness.linux_dom0.ssh import Keys, Shell
from harness.linux_dom0.tools import tools
from harness.machines import load_machine
from harness.outcomes import SuiteResult
from harness.progress import quiet
from harness.scenarios import named
from harness.tests.real.commands import run, start
from harness.trees import describe_tree, import_directory, sources

SCENARIO = named("linux_dom0")
CASE = """
import pytest
from harness.booting import Booted

@pytest.mark.scenario("linux_dom0")
def test_it(host: Booted) -> None:
    host.dom0_linux.run({command!r})
"""

# One worker has them all, so that dom0 is booted cold once.
pytestmark = pytest.mark.xdist_group("linux_dom0")


@contextmanager
def linux(build: Build, cache: Cache, directory: Path, machine: str = "") -> Iterator[LinuxHost]:
    """A dom0 that goes on from its snapshot."""
    host = boot(build, load_machine(machine or "virt-gicv3"), SCENARIO, directory, cache)
    assert isinstance(host, LinuxHost)
    with host:
        yield host


def cold(build: Build, image: Image, cache: Cache, directory: Path) -> LinuxHost:
    """A host that boots this image and never saw a snapshot."""
    return LinuxHost(
        build,
        load_machine(),
        SCENARIO,
        directory,
        image=image,
        kernel=agent.image(cache),
        cache=cache,
    )


def changed(cache: Cache, directory: Path, old: str, new: str) -> Image:
    """The image with another /init."""
    init = (OURS / "init").read_text()
    assert old in init
    entry = regular("init", init.replace(old, new).encode(), 0o755)
    plain = image(cache)
    return replace(plain, root=personal(plain, [entry], directory / "changed.cpio"))


def test_commands_and_files_go_both_ways(
    bookworm_build: Build, cache: Cache, tmp_path: Path
) -> None:
    with linux(bookworm_build, cache, tmp_path) as host:
        shell = host.dom0_linux
        assert "xen_version            : 4.17" in shell.run("xl", "info").stdout
        content = os.urandom(300_000)
        shell.put(content, "/root/ssh")
        shell.run(host.toolstack.bringing(content[:-1], "/root/tray"))
        assert shell.get("/root/ssh") == content
        assert shell.get("/root/tray") == content[:-1]
        assert shell.run("exit 3", check=False).status == 3
        with pytest.raises(AssertionError, match=r"^dom0: `ls /nowhere` ended with status 1"):
            shell.run("ls", "/nowhere")


def test_two_at_once_have_ports_of_their_own(
    bookworm_build: Build, cache: Cache, tmp_path: Path
) -> None:
    with (
        linux(bookworm_build, cache, tmp_path / "one") as one,
        linux(bookworm_build, cache, tmp_path / "two") as two,
    ):
        assert one.dom0_linux.port != two.dom0_linux.port
        one.dom0_linux.run("touch /root/one")
        assert not two.dom0_linux.run("ls /root").stdout


def test_nobody_else_gets_in_and_no_other_server_is_taken_for_dom0(
    bookworm_build: Build, cache: Cache, tmp_path: Path
) -> None:
    with linux(bookworm_build, cache, tmp_path) as host:
        port, other = host.dom0_linux.port, Keys.make()
        with pytest.raises(
            HarnessError, match=f"another SSH server than dom0's answers on port {port}"
        ):
            Shell(port, replace(host.keys, server=other.server))
        with pytest.raises(HarnessError, match="dom0's SSH server does not take the key made for"):
            Shell(port, replace(host.keys, client=other.client))
        assert host.dom0_linux.run("echo", "well").stdout == "well\n"


def test_an_ssh_server_that_does_not_start_is_told_at_once(
    bookworm_build: Build, cache: Cache, tmp_path: Path
) -> None:
    broken = changed(cache, tmp_path, "/usr/sbin/sshd ||", "/usr/sbin/sshd -o Nonsense=1 ||")
    with (
        pytest.raises(HarnessError, match="dom0 has no SSH server: it ended with status 1"),
        cold(bookworm_build, broken, cache, tmp_path / "host"),
    ):
        pass
    assert "Nonsense" in (tmp_path / "host" / "console.log").read_text()


def test_a_dom0_that_never_answers_is_told(
    bookworm_build: Build, cache: Cache, tmp_path: Path
) -> None:
    mute = changed(cache, tmp_path, "ip addr add 10.0.2.15/24 dev eth0", "true")
    host = cold(bookworm_build, mute, cache, tmp_path / "host")
    host.login_seconds = 3.0
    with pytest.raises(HarnessError, match="dom0 does not answer SSH: "), host:
        pass
    assert host.process.status() is not None
    assert "dom0 listens" in (tmp_path / "host" / "console.log").read_text()


def test_a_connection_that_is_lost_is_nobodys_answer(tmp_path: Path) -> None:
    case = tmp_path / "test_lost.py"
    case.write_text(CASE.format(command="kill $PPID; sleep 60"))
    command = start("run", "--xen", "debian:bookworm", case, directory=tmp_path)
    assert command.finish() == 5, command.output
    assert "the connection to dom0 was lost while `kill $PPID; sleep 60` ran" in command.output
    assert "1 error" in command.output
    (log,) = tmp_path.glob("xenverify-1/**/boot-console.log")
    assert "xenverify: dom0 is up" in log.read_text()
    assert command.left_running() == []


def test_a_dom0_that_dies_is_known_before_its_time_is_up(tmp_path: Path) -> None:
    case = tmp_path / "test_dead.py"
    case.write_text(CASE.format(command="echo c > /proc/sysrq-trigger; sleep 50"))
    status, said = run("run", "--xen", "debian:bookworm", case, directory=tmp_path)
    assert status == 1, said
    assert "1 crashed" in said
    assert "did not end within" not in said


def test_tools_that_do_not_fit_are_found_by_making_a_domain(
    bullseye_build: Build, cache: Cache, tmp_path: Path
) -> None:
    stage = _Stage(bullseye_build, load_machine(), SCENARIO, tmp_path, cache, quiet)
    with pytest.raises(ToolsDoNotFit) as caught:
        stage.host(image(cache), None)
    first, *said = str(caught.value).splitlines()
    assert first == "Debian's xen-utils-4.17 make no domain on Xen 4.14.6"
    assert said
    assert (tmp_path / "cold-boot" / "console.log").stat().st_size > 0


def test_tools_that_do_not_build_are_our_failure(
    bookworm_build: Build, cache: Cache, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    bookworm_build.tree.checkout(source)
    (source / "configure").write_text("#!/bin/sh\necho 'error: no luck today'\nexit 1\n")
    (source / "configure").chmod(0o755)
    repository = sources(cache)
    tree = describe_tree(
        reference="unlucky",
        repository=repository,
        tree=import_directory(repository, source),
        label="an unlucky tree",
    )
    with pytest.raises(HarnessError, match="the tools of an unlucky tree do not build") as caught:
        tools(tree, cache)
    assert "error: no luck today" in caught.value.evidence
    assert "tools-" in caught.value.advice
    assert not list(cache.root.glob("linux-dom0-tools/.making-*"))


def test_a_snapshot_of_another_machine_is_named(
    bookworm_build: Build, cache: Cache, tmp_path: Path
) -> None:
    """Stands for one of another QEMU: the state has what this QEMU has no place for."""
    own = boot(bookworm_build, load_machine(), SCENARIO, tmp_path / "own", cache)
    assert isinstance(own, LinuxHost)
    other = LinuxHost(
        bookworm_build,
        load_machine("virt-gicv2"),
        SCENARIO,
        tmp_path / "other",
        image=image(cache),
        kernel=agent.image(cache),
        cache=cache,
        snapshot=own._snapshot,
    )
    with pytest.raises(HarnessError, match="the snapshot of dom0 is of another QEMU") as caught:
        other.__enter__()
    assert "rm -r" in caught.value.advice
    assert other.process.status() is not None
    assert not list((tmp_path / "other").glob("*.qcow2"))


def test_an_image_whose_making_was_killed_is_made_again(cache: Cache, tmp_path: Path) -> None:
    whole = image(cache)
    for kept in ("debian-packages", "linux-dom0-hypercall"):
        (tmp_path / kept).symlink_to(cache.root / kept)
    code = "from harness.cache import default_cache; from harness.linux_dom0.image import image\n"
    command = [sys.executable, "-c", code + "print(image(default_cache()).root)"]
    environment = {**os.environ, "XENVERIFY_CACHE": str(tmp_path)}
    with subprocess.Popen(command, env=environment) as process:
        while not list(tmp_path.glob("linux-dom0/.making-*")):
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    root = Path(made.stdout.strip())
    assert root.read_bytes() == whole.root.read_bytes()
    assert not list(tmp_path.glob("linux-dom0/.making-*"))


def test_a_first_boot_that_is_interrupted_leaves_nothing(cache: Cache, tmp_path: Path) -> None:
    case = tmp_path / "test_never.py"
    case.write_text(CASE.format(command="true"))
    own = tmp_path / "cache"
    own.mkdir()
    for kept in cache.root.iterdir():
        if kept.name not in ("linux-dom0-snapshots", "locks", "scratch"):
            (own / kept.name).symlink_to(kept)
    words = ["run", "--xen", "debian:bookworm", str(case)]
    command = start(*words, directory=tmp_path, XENVERIFY_CACHE=str(own))
    command.wait_until(lambda: list(tmp_path.glob("xenverify-1/**/cold-boot/console.log")))
    assert command.interrupt() == 130
    assert "interrupted; nothing is left behind" in command.output
    assert command.left_running() == []
    assert not list(own.glob("linux-dom0-snapshots/*/state*"))


@pytest.fixture(scope="module")
def on_414(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the toolstack's cases come to on a Xen with the bugs, with tools of its own."""
    directory = tmp_path_factory.mktemp("414")
    status, said = run(
        *("run", "--xen", "debian:bullseye", "testcases/linux_dom0/test_toolstack_path.py"),
        *("--output", directory / "results"),
        directory=directory,
    )
    assert status == 1, said
    result = SuiteResult.from_json(json.loads((directory / "results/results.json").read_text()))
    assert not any(case.unseen for case in result.cases.values())
    return {case.name: str(case.outcome) for case in result.cases.values()}


@pytest.mark.parametrize(
    ("case", "outcome"),
    [
        ("toolstack_may_map_shared_info_once", "failed"),
        ("toolstack_may_move_what_it_removed", "passed"),
        ("toolstack_may_not_move_the_guests_grant_frame", "failed"),
        ("toolstack_unmaps_the_guests_grant_frame", "failed"),
    ],
)
def test_cases_fail_on_the_xen_that_has_the_bug(
    on_414: dict[str, str], case: str, outcome: str
) -> None:
    assert on_414[case] == outcome

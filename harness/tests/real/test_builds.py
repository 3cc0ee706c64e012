"""Real builds of real Xens: reproducible, confined, cached, and honest about what went wrong."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from harness.builds import Build, BuildOptions, build, build_all, identical, load
from harness.cache import Cache
from harness.errors import BuildError, HarnessError
from harness.references import resolve
from harness.tests.real.namespaces import own_mounts
from harness.tests.toytree import Toy
from harness.trees import Tree

MAKEFILE = "xen/Makefile"
SOURCE = "xen/common/domain.c"
OPTIONS = BuildOptions()


@dataclass(frozen=True)
class Source:
    """A copy of bookworm's Xen to be edited, as a developer's directory is, and a private cache."""

    path: Path
    cache: Cache

    def edit(self, name: str, change: Callable[[str], str]) -> Tree:
        """Change one file and return the tree."""
        file = self.path / name
        file.write_text(change(file.read_text()))
        return self.tree()

    def tree(self) -> Tree:
        """Return the tree as it stands."""
        return resolve(str(self.path), self.cache)


@pytest.fixture
def source(tmp_path: Path, bookworm_build: Build, cache: Cache) -> Source:
    """A source whose builds are quick: it compiles through the compiler cache that all share."""
    private = tmp_path / "cache"
    private.mkdir()
    (private / "ccache").symlink_to(cache.root / "ccache")
    bookworm_build.tree.checkout(tmp_path / "xen")
    return Source(tmp_path / "xen", Cache(private))


def nothing_is_left(cache: Cache) -> bool:
    """Say whether neither a build, nor half of one, nor a scratch directory is there."""
    return not [*cache.root.glob("builds/*"), *cache.root.glob("scratch/*")]


def processes_below(directory: Path) -> list[str]:
    """The command lines of processes that work below `directory`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            mine = (process / "cwd").readlink().is_relative_to(directory)
            mounted = str(directory) in (process / "mountinfo").read_text()
            if mine or mounted:
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


def test_a_build_has_what_later_stages_need(bookworm_build: Build) -> None:
    assert bookworm_build.sandboxed
    assert "CONFIG_DEBUG=y" in bookworm_build.config.read_text().splitlines()
    with bookworm_build.syms.open("rb") as file:
        elf = ELFFile(file)
        assert elf["e_machine"] == "EM_AARCH64"
        debug_info = elf.get_section_by_name(".debug_info")
        assert debug_info is not None
        assert debug_info.data_size > 1_000_000
    assert re.fullmatch("[0-9a-f]{40}", bookworm_build.build_id)
    assert bytes.fromhex(bookworm_build.build_id) in bookworm_build.xen.read_bytes()


def test_a_cached_pair_is_there_and_told_apart(
    bookworm_build: Build, bullseye_build: Build, cache: Cache
) -> None:
    trees = [resolve(reference, cache) for reference in ("debian:bullseye", "debian:bookworm")]
    pair = build_all(trees, OPTIONS, cache)
    assert [one.build_id for one in pair] == [bullseye_build.build_id, bookworm_build.build_id]
    assert all(one.cached for one in pair)
    assert not identical(*pair)
    assert load(pair[0].directory).build_id == pair[0].build_id


@pytest.mark.parametrize("name", ["bookworm_build", "bullseye_build"])  # 4.14 has absolute paths
def test_nothing_of_place_and_time_gets_into_a_build(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Another cache and path, an empty compiler cache, no sandbox, another time: the same bytes."""
    here: Build = request.getfixturevalue(name)
    elsewhere = Cache(tmp_path / "another-place")
    other = build(here.tree, replace(OPTIONS, sandbox=False), elsewhere)
    assert not other.cached
    assert not other.sandboxed
    assert other.build_id == here.build_id
    assert other.xen.read_bytes() == here.xen.read_bytes()
    assert other.syms.read_bytes() == here.syms.read_bytes()
    for word in ("another-place", str(Path.home())):
        assert word.encode() not in other.syms.read_bytes()


def test_a_comment_at_a_files_end_makes_no_difference(
    source: Source, bookworm_build: Build
) -> None:
    tree = source.edit(SOURCE, lambda text: f"{text}/* A remark. */\n")
    assert tree.identity != bookworm_build.tree.identity
    assert identical(build(tree, OPTIONS, source.cache), bookworm_build)


def test_a_change_of_code_makes_a_difference(source: Source, bookworm_build: Build) -> None:
    tree = source.edit(SOURCE, lambda text: f"{text}int remark = 42;\n")
    assert not identical(build(tree, OPTIONS, source.cache), bookworm_build)


def test_a_release_build_has_debug_information_too(source: Source) -> None:
    release = build(source.tree(), replace(OPTIONS, debug=False), source.cache)
    assert "# CONFIG_DEBUG is not set" in release.config.read_text().splitlines()
    with release.syms.open("rb") as file:
        assert ELFFile(file).get_section_by_name(".debug_info") is not None


def test_a_fragment_that_takes_and_one_that_does_not(source: Source, tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text("# CONFIG_LIVEPATCH is not set\nCONFIG_NR_CPUS=8\n")
    built = build(source.tree(), replace(OPTIONS, kconfig=(good,)), source.cache)
    assert "CONFIG_NR_CPUS=8" in built.config.read_text().splitlines()
    bad.write_text("CONFIG_NR_CPUS=8\nCONFIG_NO_SUCH_THING=y\n")
    with pytest.raises(BuildError, match="CONFIG_NO_SUCH_THING=y does not take") as raised:
        build(source.tree(), replace(OPTIONS, kconfig=(good, bad)), source.cache)
    assert f"{bad}:2" in raised.value.evidence[0]


def test_code_that_does_not_compile_shows_why(source: Source) -> None:
    tree = source.edit(SOURCE, lambda text: f"{text}int remark = no_such_thing;\n")
    with pytest.raises(BuildError, match="does not build") as raised:
        build(tree, OPTIONS, source.cache)
    assert "'no_such_thing' undeclared" in raised.value.evidence[0]
    assert raised.value.evidence[1].strip().endswith("int remark = no_such_thing;")
    [log] = source.cache.root.glob("failed-builds/*.log")
    assert str(log) in raised.value.advice
    assert nothing_is_left(source.cache)


def test_a_new_header_that_comes_first_is_noticed(source: Source) -> None:
    """What a compiler cache that only looks at the headers of the last time gets wrong."""
    header = "xen/include/asm/atomic.h"
    (source.path / header).parent.mkdir()
    (source.path / header).write_text("#error this one comes first\n")
    Toy(source.path, source.cache).git("init", "--quiet")
    Toy(source.path, source.cache).git("add", "--force", header)
    with pytest.raises(BuildError) as raised:
        build(source.tree(), OPTIONS, source.cache)
    assert "this one comes first" in raised.value.evidence[0]


def test_a_makefile_that_tries_to_get_out_harms_nothing(source: Source, tmp_path: Path) -> None:
    """Writes to the home, the tests, the cache and /etc; reads a secret; calls out; forges."""
    secret = tmp_path / "secret"
    secret.write_text("my secret\n")
    places = (Path.home(), Path(__file__).parent, source.cache.root, Path("/etc"), Path("/"))
    attempts = "; ".join(
        [
            *(f"touch {place}/escaped" for place in places),
            f"cat {secret}",
            "python3 -c 'import socket; socket.create_connection((\"deb.debian.org\", 80), 3)'",
            "echo forged > /ccache/forged",
            "echo attempted >&2",
        ]
    )
    tree = source.edit(MAKEFILE, lambda text: f"$(shell {attempts})\n$(error stop here)\n{text}")
    with pytest.raises(BuildError) as raised:
        build(replace(tree, changes=("a change under review",)), OPTIONS, source.cache)
    assert "stop here" in raised.value.evidence[-1]
    [log] = source.cache.root.glob("failed-builds/*.log")
    text = log.read_text()
    assert "attempted" in text
    assert "my secret" not in text
    assert "Temporary failure in name resolution" in text or "unreachable" in text
    assert [place for place in places if (place / "escaped").exists()] == []
    assert not (source.cache.root / "ccache" / "forged").exists()


@pytest.mark.parametrize("name", ["xen/.config", "xen/arch/arm/configs/arm64_defconfig"])
def test_a_link_in_the_tree_leads_nowhere(source: Source, tmp_path: Path, name: str) -> None:
    """A tree that has links to the user's files neither reads nor writes them."""
    precious = tmp_path / "precious"
    precious.write_text("CONFIG_PRECIOUS=y\n")
    (source.path / name).unlink(missing_ok=True)
    (source.path / name).symlink_to(precious)
    Toy(source.path, source.cache).git("init", "--quiet")
    Toy(source.path, source.cache).git("add", "--force", name)
    tree = source.edit(MAKEFILE, lambda text: f"$(error stop here)\n{text}")
    with pytest.raises(BuildError, match=r"does not build|there is no file"):
        build(tree, OPTIONS, source.cache)
    assert precious.read_text() == "CONFIG_PRECIOUS=y\n"
    assert nothing_is_left(source.cache)


def test_a_link_in_place_of_a_product_is_not_followed(source: Source, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("CONFIG_DEBUG=y\n")
    trick = f"olddefconfig:\n\t@ln -sf {secret} .config\n"
    tree = source.edit(
        MAKEFILE,
        lambda _: f"{trick}%:\n\t@true\nexport XEN_VERSION = 4\nexport XEN_SUBVERSION = 17\n",
    )
    with pytest.raises(BuildError, match=r"there is no file xen/\.config"):
        build(tree, OPTIONS, source.cache)
    assert nothing_is_left(source.cache)


RUN = """
import sys
from pathlib import Path
from harness.builds import BuildOptions, build
from harness.cache import Cache
from harness.references import resolve
cache = Cache(Path(sys.argv[1]))
print(build(resolve(sys.argv[2], cache), BuildOptions(), cache, print).build_id)
"""


@pytest.fixture
def start(source: Source) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts runs that build the source, and ends those that a failed test leaves."""
    runs: list[subprocess.Popen[str]] = []

    def begin() -> subprocess.Popen[str]:
        command = [sys.executable, "-u", "-c", RUN, str(source.cache.root), str(source.path)]
        pipe = subprocess.PIPE
        runs.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True))
        return runs[-1]

    yield begin
    for run in runs:
        run.kill()
        run.communicate()


def wait_for_line(run: subprocess.Popen[str], start: str) -> None:
    assert run.stdout is not None
    for line in run.stdout:
        if line.startswith(start):
            return
    raise AssertionError(f"no line began with {start}")


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_interrupt_ends_every_process_and_leaves_nothing(
    source: Source, start: Callable[[], subprocess.Popen[str]]
) -> None:
    run = start()
    wait_for_line(run, "building")
    wait_for(lambda: len(processes_below(source.cache.root)) > 2)
    run.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in run.communicate()[1]
    assert processes_below(source.cache.root) == []
    assert nothing_is_left(source.cache)


def test_a_killed_run_takes_its_build_along_and_the_next_one_cleans_up(
    source: Source, start: Callable[[], subprocess.Popen[str]]
) -> None:
    run = start()
    wait_for_line(run, "building")
    wait_for(lambda: len(processes_below(source.cache.root)) > 2)
    run.kill()
    run.communicate()
    wait_for(lambda: processes_below(source.cache.root) == [], seconds=5)
    with source.cache.scratch("test") as mine:
        assert list(source.cache.root.glob("scratch/*")) == [mine]
    assert build(source.tree(), OPTIONS, source.cache).build_id


def test_two_runs_at_once_build_once_and_a_spoiled_build_is_made_again(
    source: Source, start: Callable[[], subprocess.Popen[str]], bookworm_build: Build
) -> None:
    first = start()
    wait_for_line(first, "building")
    second = start()
    wait_for_line(second, "waiting for another run")
    answers = [run.communicate()[0].splitlines()[-1] for run in (first, second)]
    assert answers == [bookworm_build.build_id] * 2

    ready = build(source.tree(), OPTIONS, source.cache)
    assert ready.cached
    os.truncate(ready.xen, 1000)
    said: list[str] = []
    mended = build(source.tree(), OPTIONS, source.cache, said.append)
    assert not mended.cached
    assert mended.xen.read_bytes() == bookworm_build.xen.read_bytes()
    assert "again: xen has 1000 bytes" in said[0]


def test_of_two_builds_at_once_one_that_fails_ends_the_other(source: Source) -> None:
    good = source.tree()
    bad = source.edit(SOURCE, lambda text: f"{text}#error remark\n")
    before = set(threading.enumerate())
    with pytest.raises(BuildError, match="does not build"):
        build_all([good, bad], OPTIONS, source.cache)
    assert not list(source.cache.root.glob("scratch/*"))
    assert set(threading.enumerate()) <= before


FILL = """
import sys
from pathlib import Path
from harness.builds import BuildOptions, build
from harness.cache import Cache, default_cache
from harness.errors import HarnessError
from harness.references import resolve
tree = resolve("debian:bookworm", default_cache())
try:
    build(tree, BuildOptions(), Cache(Path(sys.argv[1])))
except HarnessError as error:
    print(error)
"""


@pytest.mark.parametrize("mebibytes", [4, 60])
def test_a_full_disk_is_never_the_sources_fault(tmp_path: Path, mebibytes: int) -> None:
    """Full at the checkout, and full while it compiles."""
    small = own_mounts(f'mount -t tmpfs -o size={mebibytes}m tmpfs {tmp_path} && exec "$@"')
    command = [*small, sys.executable, "-c", FILL, str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search("no room|out of room", done.stdout), done.stdout + done.stderr


def test_a_missing_program_is_the_machines_fault(
    source: Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for directory in os.environ["PATH"].split(os.pathsep):
        for program in Path(directory).glob("*"):
            link = programs / program.name
            if program.name != "flex" and not link.is_symlink():
                link.symlink_to(program)
    tree = source.tree()
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(HarnessError, match="flex is not installed") as raised:
        build(tree, OPTIONS, source.cache)
    assert "apt install flex" in raised.value.advice

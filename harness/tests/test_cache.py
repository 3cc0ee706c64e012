"""The cache keeps what was made, whole, and gives it to every run; it never keeps half of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Timer

import pytest

from harness.cache import Cache, Cancelled, DamagedEntryError, default_cache
from harness.errors import HarnessError

HOUR = 3600.0


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


class Maker:
    """Writes one file into an entry, and counts how often it was asked to."""

    def __init__(self, content: bytes = b"content") -> None:
        self.content = content
        self.calls = 0

    def __call__(self, directory: Path) -> None:
        self.calls += 1
        (directory / "file").write_bytes(self.content)


def leftovers(cache: Cache) -> list[Path]:
    """Everything below the root that is neither a lock nor an empty directory."""
    return [p for p in cache.root.rglob("*") if p.is_file() and p.parent.name != "locks"]


def test_an_entry_is_made_once(cache: Cache) -> None:
    make = Maker()
    first = cache.entry("kind", "key", make)
    assert cache.entry("kind", "key", make) == first
    assert (first / "file").read_bytes() == b"content"
    assert make.calls == 1


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_nothing_and_the_next_run_makes_it(
    cache: Cache, failure: type[BaseException]
) -> None:
    def fail(directory: Path) -> None:
        (directory / "half").write_text("")
        raise failure

    with pytest.raises(failure):
        cache.entry("kind", "key", fail)
    assert leftovers(cache) == []
    cache.entry("kind", "key", Maker())


def cut(file: Path) -> None:
    os.truncate(file, 3)


def overwrite(file: Path) -> None:
    file.write_bytes(b"CONTENT")


def remove(file: Path) -> None:
    file.unlink()


def spoil_manifest(file: Path) -> None:
    (file.parent / ".manifest.json").write_text("{")


@pytest.mark.parametrize("damage", [cut, overwrite, remove, spoil_manifest])
def test_damage_is_noticed_and_mended(cache: Cache, damage: Callable[[Path], None]) -> None:
    make = Maker()
    damage(cache.entry("kind", "key", make) / "file")
    said: list[str] = []
    mended = cache.entry("kind", "key", make, progress=said.append)
    assert (mended / "file").read_bytes() == b"content"
    assert make.calls == 2
    assert "making kind key again" in said[0]


def test_a_new_time_alone_is_no_damage(cache: Cache) -> None:
    make = Maker()
    os.utime(cache.entry("kind", "key", make) / "file", (1, 1))
    cache.entry("kind", "key", make)
    assert make.calls == 1


def test_the_callers_own_check_can_reject(cache: Cache) -> None:
    make = Maker()
    cache.entry("kind", "key", make)

    def check(_directory: Path) -> None:
        if make.calls == 1:
            raise DamagedEntryError("not as it should be")

    cache.entry("kind", "key", make, check=check)
    assert make.calls == 2


def test_a_thorough_check_finds_what_size_and_time_hide(cache: Cache) -> None:
    file = cache.entry("kind", "key", Maker()) / "file"
    status = file.stat()
    overwrite(file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    [(entry, reason)] = cache.damaged()
    assert (entry.key, reason) == ("key", "the content of file has changed")


RUN = """
import sys
from pathlib import Path
from harness.cache import Cache

def make(directory):
    (directory / "file").write_text("made by " + sys.argv[2])
    print("making", flush=True)
    sys.stdin.readline()

entry = Cache(Path(sys.argv[1])).entry("kind", "key", make, progress=print)
print((entry / "file").read_text())
"""


def start_run(cache: Cache, name: str) -> subprocess.Popen[str]:
    """Start a run that, if it makes the entry, takes until it is told to finish."""
    command = [sys.executable, "-u", "-c", RUN, str(cache.root), name]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def first_word(run: subprocess.Popen[str]) -> str:
    assert run.stdout is not None
    return run.stdout.readline().split()[0]


def test_a_second_run_waits_for_the_first_and_uses_its_result(cache: Cache) -> None:
    first = start_run(cache, "first")
    assert first_word(first) == "making"
    second = start_run(cache, "second")
    assert first_word(second) == "waiting"
    assert first.communicate("finish\n")[0] == "made by first\n"
    assert second.communicate()[0] == "made by first\n"


def test_what_a_killed_run_left_is_made_anew(cache: Cache) -> None:
    dead = start_run(cache, "dead")
    assert first_word(dead) == "making"
    dead.send_signal(signal.SIGKILL)
    dead.communicate()
    assert len(leftovers(cache)) == 1
    entry = cache.entry("kind", "key", Maker())
    assert (entry / "file").read_bytes() == b"content"
    assert all(path.is_relative_to(entry) for path in leftovers(cache))


def test_waiting_ends_when_the_caller_no_longer_wants_it(cache: Cache) -> None:
    cancelled = Event()
    with cache.lock("kind-key"):
        Timer(0.1, cancelled.set).start()
        with pytest.raises(Cancelled):
            Cache(cache.root).entry("kind", "key", Maker(), cancelled=cancelled)


def test_scratch_goes_away_and_so_does_that_of_the_dead(cache: Cache) -> None:
    with cache.scratch("test") as mine:
        (mine / "file").write_text("")
        dead = cache.root / "scratch" / "dead-run"
        dead.mkdir()
        with cache.scratch("test"):
            assert mine.exists()
            assert not dead.exists()
    assert not mine.exists()


def in_sandbox(*options: str, root: Path) -> subprocess.CompletedProcess[str]:
    """Fill a cache entry of 1 MiB below `root` in a mount namespace of its own."""
    program = (
        "from pathlib import Path\n"
        "from harness.cache import Cache\n"
        "from harness.errors import HarnessError\n"
        f"cache = Cache(Path({str(root)!r}))\n"
        "try:\n"
        "    cache.entry('kind', 'key', lambda d: open(d / 'big', 'wb').write(bytes(1 << 20)))\n"
        "except HarnessError as error:\n"
        "    print(error, *cache.root.glob('kind/*'), sep='\\n')\n"
    )
    command = ["bwrap", "--dev-bind", "/", "/", *options, "--", sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def test_a_full_disk_is_the_machines_fault_and_leaves_nothing(tmp_path: Path) -> None:
    done = in_sandbox("--size", "262144", "--tmpfs", str(tmp_path), root=tmp_path)
    assert done.stdout == f"there is no room left for the cache {tmp_path}\n", done.stderr


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    done = in_sandbox("--ro-bind", str(tmp_path), str(tmp_path), root=tmp_path)
    assert done.stdout.startswith(f"the cache {tmp_path} cannot be written"), done.stderr


def test_entries_are_listed_by_last_use(cache: Cache) -> None:
    for key, age in (("old", 2), ("new", 0), ("middle", 1)):
        used = time.time() - age * HOUR
        os.utime(cache.entry("kind", key, Maker(bytes(100))) / ".used", (used, used))
    assert [entry.key for entry in cache.entries()] == ["new", "middle", "old"]
    assert [entry.size for entry in cache.entries()] == [100, 100, 100]
    assert cache.size() > 300


def test_pruning_by_age_by_size_and_everything(cache: Cache) -> None:
    for key, age in (("a", 0), ("b", 1), ("c", 2), ("d", 3)):
        used = time.time() - age * HOUR
        os.utime(cache.entry("kind", key, Maker(bytes(100))) / ".used", (used, used))
    (cache.root / "git").mkdir()
    assert [entry.key for entry in cache.prune(older_than=2.5 * HOUR)] == ["d"]
    assert [entry.key for entry in cache.prune(down_to=250)] == ["c"]
    assert [entry.key for entry in cache.entries()] == ["a", "b"]
    assert {entry.key for entry in cache.prune(everything=True)} == {"a", "b"}
    assert [path.name for path in cache.root.iterdir()] == ["locks"]


def test_the_root_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XENVERIFY_CACHE", str(tmp_path))
    assert default_cache().root == tmp_path
    monkeypatch.delenv("XENVERIFY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache().root == tmp_path / "xenverify"


def test_no_room_names_the_cache(cache: Cache) -> None:
    def fill(_directory: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(HarnessError, match=str(cache.root)):
        cache.entry("kind", "key", fill)

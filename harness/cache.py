"""Named inputs in, a directory of files made from them out: once made, never made again.

Comes in: a kind, a key that says everything the files depend on, and a function that makes them.
Goes out: a directory that is complete, undamaged and shared by every run on this machine.
Refuses to know: what the files are.

Layout below the root:
    KIND/KEY/            a finished entry; never changed, only replaced whole
    KIND/.making-KEY/    an entry being made; a dead run's leftover is removed by the next
    locks/NAME.lock      one lock for each entry, held while it is made
    scratch/             temporary directories, on the same file system as everything else
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from harness.errors import HarnessError
from harness.progress import Progress, quiet

MANIFEST = ".manifest.json"
USED = ".used"
MAKING = ".making-"
# Errors that mean "no room": a full disk, a quota, a file size limit.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_ACCESS = {errno.EACCES, errno.EPERM, errno.EROFS}
LITTLE_ROOM = 8 << 20  # bytes; a compiler that fails for want of room removes what it wrote
LOCK_POLL_SECONDS = 0.05

# Set by a caller whose work is no longer wanted: waiting for a lock ends with Cancelled.
NEVER = Event()


class Cancelled(Exception):
    """The caller that wanted this has gone; nothing was kept."""


class DamagedEntryError(Exception):
    """A finished entry's files are not what its manifest says; the message names the file."""


@dataclass(frozen=True)
class Entry:
    """One finished entry, as `xenverify cache` lists it."""

    kind: str
    key: str
    directory: Path
    size: int  # bytes
    made: float  # seconds since the epoch
    used: float  # seconds since the epoch


@dataclass(frozen=True)
class Cache:
    """Content-addressed directories below `root`, safe against other runs on the same root."""

    root: Path

    def entry(
        self,
        kind: str,
        key: str,
        make: Callable[[Path], None],
        *,
        check: Callable[[Path], None] | None = None,
        progress: Progress = quiet,
        cancelled: Event = NEVER,
    ) -> Path:
        """Return the entry's directory; call `make` on an empty one if it is missing or damaged.

        `check` may raise DamagedEntryError on a finished entry to have it made again. Whatever
        `make` raises is passed on and leaves nothing behind. No room is a HarnessError.
        """
        directory = self.root / kind / key
        with self._explained():
            if _intact(directory, check) is None:
                return _touch(directory)
            with self.lock(f"{kind}-{key}", progress=progress, cancelled=cancelled):
                damage = _intact(directory, check)
                if damage is None:
                    return _touch(directory)
                if directory.exists():
                    progress(f"making {kind} {key[:12]} again: {damage}")
                    shutil.rmtree(directory)
                self._make(directory, make)
                return _touch(directory)

    def _make(self, directory: Path, make: Callable[[Path], None]) -> None:
        """Make the entry aside and rename it into place; the caller holds its lock."""
        aside = directory.parent / f"{MAKING}{directory.name}"
        if aside.exists():  # its run is dead, or we would not hold the lock
            shutil.rmtree(aside)
        aside.mkdir(parents=True)
        try:
            make(aside)
            _write_manifest(aside)
            aside.rename(directory)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise

    @contextmanager
    def lock(
        self, name: str, *, progress: Progress = quiet, cancelled: Event = NEVER
    ) -> Iterator[None]:
        """Hold the lock `name` against every other run; tell `progress` if that means waiting."""
        with self._explained():
            (self.root / "locks").mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root / "locks" / f"{name}.lock", thread_local=False)
            self._acquire(lock, name, progress, cancelled)
        try:
            yield
        finally:
            lock.release()

    def _acquire(self, lock: FileLock, name: str, progress: Progress, cancelled: Event) -> None:
        told = False
        while True:
            try:
                lock.acquire(timeout=0, poll_interval=LOCK_POLL_SECONDS)
                return
            except Timeout:
                if not told:
                    progress(f"waiting for another run that is at work on {name[:24]}")
                    told = True
                if cancelled.wait(LOCK_POLL_SECONDS):
                    raise Cancelled(name) from None

    @contextmanager
    def scratch(self, purpose: str) -> Iterator[Path]:
        """Give an empty directory on the cache's file system, and remove it at the end.

        Those of runs that were killed are removed too: nobody holds their lock.
        """
        with self._explained():
            self._sweep()
            directory = self.root / "scratch" / f"{purpose}-{uuid.uuid4().hex[:16]}"
            held = self._scratch_lock(directory)
            held.acquire()  # before there is anything to sweep
            directory.mkdir(parents=True)
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)
            Path(held.lock_file).unlink(missing_ok=True)
            held.release()

    def _scratch_lock(self, directory: Path) -> FileLock:
        (self.root / "locks").mkdir(parents=True, exist_ok=True)
        return FileLock(self.root / "locks" / f"scratch-{directory.name}.lock", thread_local=False)

    def _sweep(self) -> None:
        """Remove scratch directories whose runs are dead."""
        for directory in self.root.glob("scratch/*"):
            lock = self._scratch_lock(directory)
            with suppress(Timeout, OSError), lock.acquire(timeout=0):
                shutil.rmtree(directory, ignore_errors=True)

    def entries(self) -> list[Entry]:
        """List every finished entry, the one used last first."""
        manifests = self.root.glob(f"*/*/{MANIFEST}")
        found = [entry for path in manifests if (entry := _describe(path.parent)) is not None]
        return sorted(found, key=lambda entry: -entry.used)

    def size(self) -> int:
        """Return the bytes of everything below the root, mirrors and leftovers included."""
        return sum(path.lstat().st_size for path in self.root.rglob("*") if path.is_file())

    def damaged(self) -> list[tuple[Entry, str]]:
        """Hash every file of every entry; return the entries that are damaged, with the reason."""
        found = []
        for entry in self.entries():
            try:
                _verify(entry.directory, thorough=True)
            except DamagedEntryError as damage:
                found.append((entry, str(damage)))
        return found

    def prune(
        self,
        *,
        older_than: float | None = None,
        down_to: int | None = None,
        everything: bool = False,
    ) -> list[Entry]:
        """Remove entries and return them: those unused for `older_than` seconds; then the longest
        unused until all entries together have at most `down_to` bytes; or everything, with mirrors.

        An entry that another run is making is left alone.
        """
        entries = self.entries()
        now = time.time()
        doomed = [
            entry
            for entry in entries
            if everything or (older_than is not None and now - entry.used > older_than)
        ]
        if down_to is not None:
            kept = [entry for entry in entries if entry not in doomed]
            while kept and sum(entry.size for entry in kept) > down_to:
                doomed.append(kept.pop())
        for entry in doomed:
            self._remove(entry.directory)
        self._remove_leftovers()
        if everything:
            self._remove_the_rest()
        return doomed

    def _remove(self, directory: Path) -> None:
        """Remove one entry so that nobody ever sees half of it."""
        with self.scratch("removed") as grave, suppress(FileNotFoundError):
            directory.rename(grave / "entry")

    def _remove_leftovers(self) -> None:
        """Remove what runs that were killed had begun; whoever holds a lock is alive."""
        for aside in self.root.glob(f"*/{MAKING}*"):
            name = f"{aside.parent.name}-{aside.name.removeprefix(MAKING)}"
            lock = FileLock(self.root / "locks" / f"{name}.lock", thread_local=False)
            with suppress(Timeout), lock.acquire(timeout=0):
                shutil.rmtree(aside, ignore_errors=True)

    def _remove_the_rest(self) -> None:
        """Remove mirrors, records and scratch; locks stay, another run may hold one."""
        for path in self.root.iterdir():
            if path.name != "locks":
                shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn "no room" and "no access" into one sentence that names the cache."""
        try:
            yield
        except OSError as error:
            if error.errno in NO_ROOM:
                raise self.full() from error
            if error.errno in NO_ACCESS:
                raise HarnessError(
                    f"the cache {self.root} cannot be written: {error.strerror}",
                    advice="Set XENVERIFY_CACHE to a directory of your own.",
                ) from error
            raise

    def is_full(self) -> bool:
        """Say whether so little room is left that a failure must be put down to it."""
        return shutil.disk_usage(self.root).free < LITTLE_ROOM

    def full(self) -> HarnessError:
        """Return the error that says that the cache's file system has no room."""
        return HarnessError(
            f"there is no room left for the cache {self.root}",
            advice="Free some with `xenverify cache`, or set XENVERIFY_CACHE to a roomier disk.",
        )


def default_cache() -> Cache:
    """Return this user's cache: $XENVERIFY_CACHE, or else xenverify in the XDG cache directory."""
    chosen = os.environ.get("XENVERIFY_CACHE")
    root = Path(chosen).expanduser() if chosen else user_cache_path("xenverify", appauthor=False)
    return Cache(root.absolute())


def _intact(directory: Path, check: Callable[[Path], None] | None) -> str | None:
    """Return what is wrong with a finished entry, None if nothing is."""
    try:
        _verify(directory, thorough=False)
        if check is not None:
            check(directory)
    except DamagedEntryError as damage:
        return str(damage)
    return None


def _verify(directory: Path, *, thorough: bool) -> None:
    """Compare files with the manifest: size and time; content if the time differs, or if asked."""
    try:
        recorded = json.loads((directory / MANIFEST).read_bytes())["files"]
    except (OSError, ValueError, KeyError, TypeError):
        raise DamagedEntryError("its manifest is missing or unreadable") from None
    for name, expected in recorded.items():
        path = directory / name
        try:
            status = path.stat()
        except OSError:
            raise DamagedEntryError(f"{name} is missing") from None
        if status.st_size != expected["size"]:
            raise DamagedEntryError(f"{name} has {status.st_size} bytes, not {expected['size']}")
        same_time = status.st_mtime_ns == expected["mtime_ns"]
        if (thorough or not same_time) and _digest(path) != expected["sha256"]:
            raise DamagedEntryError(f"the content of {name} has changed")


def _write_manifest(directory: Path) -> None:
    """Record every file of a new entry, and flush them: the rename must not outrun the data."""
    files = {}
    for path in sorted(directory.rglob("*")):
        if not path.is_file():
            continue
        with path.open("rb") as file:
            os.fsync(file.fileno())
        status = path.stat()
        files[str(path.relative_to(directory))] = {
            "size": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "sha256": _digest(path),
        }
    manifest = {"made": time.time(), "files": files}
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=1))
    (directory / USED).touch()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _touch(directory: Path) -> Path:
    """Note the use, for pruning; a cache that can only be read is still of use."""
    with suppress(OSError):
        os.utime(directory / USED)
    return directory


def _describe(directory: Path) -> Entry | None:
    """Read one entry for the listing; None if it vanished or cannot be read."""
    try:
        manifest = json.loads((directory / MANIFEST).read_bytes())
        size = sum(file["size"] for file in manifest["files"].values())
        used = (directory / USED).stat().st_mtime
        return Entry(directory.parent.name, directory.name, directory, size, manifest["made"], used)
    except (OSError, ValueError, KeyError, TypeError):
        return None

"""The name of a folder for results in, the folder out; it stays only if the run came to its end."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from harness.errors import HarnessError, UsageError, XenFailure

# In a folder from its beginning to its end; it stays in one whose run was killed, or failed.
UNFINISHED = "unfinished"
# Any of these says that a folder is an earlier run's, and may be replaced by a later one's.
OURS = ("verdict.json", "results.json", "bisect.json", "reproduction.json", UNFINISHED)


@contextlib.contextmanager
def results_folder(wanted: Path | None) -> Iterator[Path]:
    """Give an empty folder: `wanted`, or the next free ./xenverify-N.

    An earlier run's results at `wanted` are replaced, but only once the new ones are complete. If
    an exception leaves the context, the folder goes and the earlier results come back.

    Raises UsageError if something that is not ours is at `wanted`, or it cannot be made.
    """
    try:
        folder, earlier = _make(wanted.absolute()) if wanted else (_next_free(), None)
        unfinished = FileLock(folder / UNFINISHED)
        unfinished.acquire(timeout=0)
    except OSError as error:
        raise UsageError(
            f"the results cannot be written to {wanted or Path.cwd()}: {error.strerror}",
            advice="Name another folder with --output.",
        ) from error
    try:
        yield folder
    except BaseException as problem:
        unfinished.release(force=True)
        logs = [path for path in folder.iterdir() if path.name != UNFINISHED]
        if isinstance(problem, HarnessError | XenFailure) and logs:
            raise  # they are the evidence
        shutil.rmtree(folder, ignore_errors=True)
        if earlier is not None:
            earlier.rename(folder)
        raise
    unfinished.release(force=True)
    (folder / UNFINISHED).unlink(missing_ok=True)
    if earlier is not None:
        shutil.rmtree(earlier, ignore_errors=True)


def _make(folder: Path) -> tuple[Path, Path | None]:
    """Return the new folder, and where the earlier results wait meanwhile."""
    earlier = None
    if folder.is_dir() and any(folder.iterdir()):
        if not any((folder / name).is_file() for name in OURS):
            raise UsageError(
                f"{folder} holds something else already",
                advice="Name a folder that is empty, or not there, with --output.",
            )
        _refuse_busy(folder / UNFINISHED)
        earlier = folder.with_name(f".{folder.name}.earlier-{os.getpid()}")
        folder.rename(earlier)
    folder.mkdir(parents=True, exist_ok=True)
    return folder, earlier


def _refuse_busy(unfinished: Path) -> None:
    """Raise UsageError if the run that began a folder still goes on."""
    if not unfinished.exists():
        return
    try:
        FileLock(unfinished).acquire(timeout=0).lock.release()
    except Timeout:
        raise UsageError(
            f"another run is writing its results to {unfinished.parent}",
            advice="Wait for it, or name another folder with --output.",
        ) from None


def _next_free() -> Path:
    """Make the first ./xenverify-N that is not there; mkdir decides between two runs at once."""
    number = 1
    while True:
        folder = Path.cwd() / f"xenverify-{number}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder
        number += 1

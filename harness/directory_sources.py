"""A directory in, the tree of what it holds at this moment out."""

from __future__ import annotations

from pathlib import Path

from harness.cache import Cache
from harness.errors import UsageError
from harness.progress import Progress, quiet
from harness.trees import Tree


def resolve(_reference: str, _directory: Path, _cache: Cache, _progress: Progress = quiet) -> Tree:
    """Return the tree of `directory` as it stands."""
    raise UsageError("directories are not read yet")

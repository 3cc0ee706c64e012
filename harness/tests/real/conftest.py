"""What tests with real Xens share: the user's own cache, and builds of two Debian suites in it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from harness.builds import Build, BuildOptions, build
from harness.cache import Cache, default_cache
from harness.debian_sources import MirrorLacksError
from harness.references import resolve
from harness.tests.real.planted import History, plant, without_memory
from harness.trees import Tree


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Let Ctrl-C reach what the tests start, even where pytest was started in the background.

    A shell without job control starts `pytest … &` with SIGINT ignored, and children inherit that.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def cache() -> Cache:
    """The cache that the commands use too."""
    return default_cache()


@pytest.fixture(scope="session")
def bookworm_build(cache: Cache) -> Build:
    """Xen 4.17, which has the change to the P2M type info."""
    return build(resolve("debian:bookworm", cache), BuildOptions(), cache)


@pytest.fixture(scope="session")
def bullseye_build(cache: Cache) -> Build:
    """Xen 4.14, which has not."""
    return build(resolve("debian:bullseye", cache), BuildOptions(), cache)


@pytest.fixture(scope="session")
def trixie_tree(cache: Cache) -> Tree:
    """Xen 4.20, whose source some mirrors list and have not got."""
    try:
        return resolve("debian:trixie", cache)
    except MirrorLacksError as error:
        pytest.skip(error.message)


@pytest.fixture(scope="session")
def history(cache: Cache, tmp_path_factory: pytest.TempPathFactory) -> History:
    """Debian's Xen 4.17 and what planted.py made around it."""
    return plant(resolve("debian:bookworm", cache), tmp_path_factory.mktemp("planted") / "xen")


@pytest.fixture
def forgetful(cache: Cache, tmp_path: Path) -> Path:
    """The root of a cache with everything of the user's own but what bisections saw."""
    return without_memory(cache.root, tmp_path / "cache")

"""What tests with real Xens share: the user's own cache, and builds of two Debian suites in it."""

from __future__ import annotations

import pytest

from harness.builds import Build, BuildOptions, build
from harness.cache import Cache, default_cache
from harness.references import resolve


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

"""`debian:` references as far as no network is needed: what is asked for, and what is known."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from harness.cache import Cache
from harness.debian_apt import SourcePackage, find_mirrors
from harness.debian_sources import matches
from harness.debian_suites import SUITES
from harness.errors import HarnessError, UsageError
from harness.references import resolve

DAY = 24 * 3600.0


def package(version: str, suite: str) -> SourcePackage:
    return SourcePackage("xen", version, suite, "3.0 (quilt)", "http://127.0.0.1:1", {})


def know(cache: Cache, suite: str, *versions: str, age: float = 0) -> None:
    """Put a record of what a suite holds where the last look-up would have put it."""
    record = cache.root / "debian-suites" / "xen" / f"{suite}.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps([asdict(package(version, suite)) for version in versions]))
    os.utime(record, (time.time() - age, time.time() - age))


@pytest.mark.parametrize("wanted", ["4", "4.17", "4.17.5", "4.17.5+23"])
def test_a_version_is_matched_down_to_a_separator(wanted: str) -> None:
    assert matches("4.17.5+23-1", wanted)


@pytest.mark.parametrize("wanted", ["4.1", "4.17.5+2", "17", "4.17.5+23-1+b1"])
def test_half_a_number_is_no_match(wanted: str) -> None:
    assert not matches("4.17.5+23-1", wanted)


def test_an_unknown_version_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    held = ("4.14.6-1", "4.17.5-1", "4.9-1", "4.20-1", "4.20-1")
    for suite, version in zip(SUITES, held, strict=True):
        know(cache, suite, version)
    with pytest.raises(UsageError, match=r"Debian has no Xen 4\.11") as raised:
        resolve("debian:4.11", cache)
    assert raised.value.evidence == ("4.9-1", "4.14.6-1", "4.17.5-1", "4.20-1")


def test_a_suite_without_xen_says_so(tmp_path: Path) -> None:
    know(Cache(tmp_path), "experimental")
    with pytest.raises(UsageError, match="Debian's experimental has no Xen"):
        resolve("debian:experimental", Cache(tmp_path))


@pytest.mark.parametrize("wanted", ["", "../../etc", "Bookworm", "book worm", "4.17;ls", "-o"])
def test_what_is_neither_version_nor_suite_is_refused(tmp_path: Path, wanted: str) -> None:
    with pytest.raises(UsageError, match="neither a version nor a suite"):
        resolve(f"debian:{wanted}", Cache(tmp_path))


def test_this_system_has_a_mirror() -> None:
    assert find_mirrors().main.startswith(("http", "file", "mirror"))


def test_without_apt_the_sentence_is_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="this system has no apt"):
        resolve("debian:bookworm", Cache(tmp_path))


def unreachable(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let apt's configuration lead every request to a proxy that is not there."""
    configuration = directory / "apt.conf"
    configuration.write_text('Acquire::http::Proxy "http://127.0.0.1:1";\nAcquire::Retries "0";\n')
    monkeypatch.setenv("APT_CONFIG", str(configuration))


def test_without_network_an_older_answer_is_used_and_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreachable(tmp_path, monkeypatch)
    cache = Cache(tmp_path / "cache")
    know(cache, "bookworm", age=3 * DAY)
    said: list[str] = []
    with pytest.raises(UsageError, match="has no Xen"):
        resolve("debian:bookworm", cache, said.append)
    day = time.strftime("%Y-%m-%d", time.localtime(time.time() - 3 * DAY))
    assert said == [
        "asking Debian for xen in bookworm",
        f"Debian cannot be reached; using what bookworm held on {day}",
    ]


def test_without_network_and_without_an_answer_the_machine_is_at_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreachable(tmp_path, monkeypatch)
    with pytest.raises(HarnessError, match="Debian's bookworm cannot be looked up") as raised:
        resolve("debian:bookworm", Cache(tmp_path / "cache"))
    assert raised.value.evidence
    assert not list((tmp_path / "cache" / "scratch").iterdir())

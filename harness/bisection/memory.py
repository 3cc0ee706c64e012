"""Samples by what made them, kept in the cache: a search that was interrupted goes on where it was.

Comes in: the key of a source, how it is built and run. Goes out: what was seen of it before, and
what was seen of any source that gave the same binary. Refuses to know: commits, and searching.

Layout below the cache's root:
    bisection/HARNESS/sources/KEY.json     how far a source came, and the binary's fingerprint
    bisection/HARNESS/binaries/KEY.json    every run of every case on a binary
HARNESS is a hash of cases, guests, machines and harness: another harness sees other things.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from harness.bisection.samples import Reached, Sample
from harness.cache import NO_ROOM, Cache
from harness.reports.files import write_json

ROOT = Path(__file__).resolve().parent.parent.parent
# What decides what a run shows. How results are told, or searched, does not.
DECIDING = ("testcases", "guest-kernels", "qemu", "harness")
TELLING = ("harness/tests", "harness/cli", "harness/bisection", "harness/reports", "harness/uboot")


@dataclass(frozen=True)
class Memory:
    """What was seen under one way of building and running; `setting` says which, in any words."""

    cache: Cache
    setting: str

    def recall(self, source: str) -> Sample | None:
        """Return what was seen of a source, or of another that gave the same binary."""
        known = self._read(self._source_file(source))
        if known is None or known.reached is not Reached.RAN:
            return known
        same = self._read(self._binary_file(known.fingerprint))
        return known if same is None else replace(known, boots=same.boots, cases=same.cases)

    def recall_binary(self, fingerprint: str) -> Sample | None:
        """Return what was seen of a binary, whatever source it came from."""
        return self._read(self._binary_file(fingerprint))

    def keep(self, source: str, sample: Sample) -> Sample:
        """Keep what was seen in addition to what was known; return both together."""
        name = f"bisection-{hashlib.sha256(source.encode()).hexdigest()[:16]}"
        with self.cache.lock(name):
            if sample.reached is Reached.RAN:
                before = self.recall_binary(sample.fingerprint)
                whole = sample if before is None else before.joined(sample)
                whole = replace(whole, commit=sample.commit, build=sample.build)
                self._write(self._binary_file(sample.fingerprint), whole)
            else:
                whole = sample
            self._write(self._source_file(source), replace(whole, boots=(), cases={}))
        return whole

    @property
    def _directory(self) -> Path:
        return self.cache.root / "bisection" / harness_digest()[:16]

    def _source_file(self, source: str) -> Path:
        return self._file("sources", source)

    def _binary_file(self, fingerprint: str) -> Path:
        return self._file("binaries", fingerprint)

    def _file(self, kind: str, key: str) -> Path:
        digest = _digest(key)[:32]
        return self._directory / kind / f"{_digest(self.setting)[:8]}-{digest}.json"

    def _read(self, path: Path) -> Sample | None:
        """Read one file; one that is damaged is as good as none."""
        try:
            return Sample.from_json(json.loads(path.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _write(self, path: Path, sample: Sample) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, sample.to_json())
        except OSError as error:
            if error.errno in NO_ROOM:
                raise self.cache.full() from error
            raise


@cache
def harness_digest() -> str:
    """Return a hash of everything of ours that decides what a run shows."""
    digest = hashlib.sha256()
    for path in sorted(_deciding()):
        digest.update(f"{path.relative_to(ROOT)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _deciding() -> Iterator[Path]:
    telling = [ROOT / folder for folder in TELLING]
    for path in _files(ROOT / folder for folder in DECIDING):
        hidden = any(part.startswith((".", "__")) for part in path.relative_to(ROOT).parts[:-1])
        if not hidden and not any(path.is_relative_to(folder) for folder in telling):
            yield path


def _files(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        yield from (path for path in folder.rglob("*") if path.is_file())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

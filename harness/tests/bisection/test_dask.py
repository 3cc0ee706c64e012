"""A search over real Dask processes, on the loopback."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from harness.bisection.laboratory import Event
from harness.bisection.workers import Workers, dask
from harness.errors import HarnessError
from harness.tests.bisection.test_campaign import bench, found

SECONDS = 60.0


@contextmanager
def process(module: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", f"distributed.cli.{module}", *words]
    started = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


@contextmanager
def cluster(count: int) -> Iterator[tuple[str, list[subprocess.Popen[str]]]]:
    with ExitStack() as stack:
        scheduler = stack.enter_context(
            process("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        )
        assert scheduler.stderr is not None
        address = ""
        while not address:
            line = scheduler.stderr.readline()
            assert line, "the scheduler says where it is"
            if match := re.search(r"tcp://127\.0\.0\.1:\d+", line):
                address = match[0]
        options = ("--host", "127.0.0.1", "--nthreads", "1", "--no-nanny", "--no-dashboard")
        workers = [
            stack.enter_context(process("dask_worker", address, *options)) for _ in range(count)
        ]
        yield address, workers


@contextmanager
def patiently(address: str, slots: int) -> Iterator[Workers]:
    """Open the workers once they are all there."""
    deadline = time.monotonic() + SECONDS
    while True:
        with ExitStack() as stack, suppress(HarnessError):
            workers = stack.enter_context(dask(address))
            if workers.slots == slots:
                yield workers
                return
        assert time.monotonic() < deadline
        time.sleep(0.2)


def after(count: int, do: Callable[[], None]) -> Callable[[Event], None]:
    """Return a listener that does something when so many samples have come."""
    seen = 0

    def listen(event: Event) -> None:
        nonlocal seen
        seen += event.sample is not None
        if event.sample is not None and seen == count:
            do()

    return listen


TEXTS = ["case passed"] * 9 + ["case failed"] * 8


def test_a_search_over_dask_finds_what_one_here_finds(tmp_path: Path) -> None:
    with (
        bench(tmp_path, *TEXTS) as test,
        cluster(2) as (address, _),
        patiently(address, 2) as crew,
    ):
        campaign = test.campaign("c0", "c16", workers=crew)
        assert found(test, campaign.run()) == {"case": "c9"}


def test_a_dask_worker_that_dies_is_done_without(tmp_path: Path) -> None:
    with (
        bench(tmp_path, *TEXTS) as test,
        cluster(2) as (address, workers),
        patiently(address, 2) as crew,
    ):
        listen = after(3, workers[0].kill)
        campaign = test.campaign("c0", "c16", workers=crew, listen=listen)
        assert found(test, campaign.run()) == {"case": "c9"}


def test_when_every_dask_worker_is_gone_the_search_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.bisection.laboratory.SECONDS_BETWEEN_CHECKS", 0.5)
    with (
        bench(tmp_path, *TEXTS) as test,
        cluster(1) as (address, workers),
        patiently(address, 1) as crew,
    ):
        listen = after(3, workers[0].kill)
        campaign = test.campaign("c0", "c16", workers=crew, listen=listen)
        with pytest.raises(HarnessError, match="no worker left"):
            campaign.run()

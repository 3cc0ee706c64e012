"""A search that is killed, again and again, ends where one that was left alone ends."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import psutil

from harness.tests.bisection.repositories import Made, make
from harness.tests.bisection.test_campaign import states

KILLS = 10


def start(made: Made, directory: Path) -> subprocess.Popen[bytes]:
    directory.mkdir(exist_ok=True)
    ends = (made.ids["c0"], made.ids["c59"])
    command = [sys.executable, "-m", "harness.tests.bisection.search_once"]
    return subprocess.Popen([*command, made.path, directory, *ends])


def test_ten_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    texts = ["case passed"] * 30 + ["!build no compiler"] * 4 + ["case failed wrong"] * 26
    made = make(tmp_path / "r.git", states(*texts))
    alone = start(made, tmp_path / "alone")
    began = time.monotonic()
    assert alone.wait() == 0
    took = time.monotonic() - began
    expected = (tmp_path / "alone" / "report.txt").read_text()
    assert made.ids["c34"][:10] in expected

    moments = random.Random(5)
    orphans: list[psutil.Process] = []
    for _ in range(KILLS):
        search = start(made, tmp_path / "killed")
        try:
            search.wait(timeout=moments.uniform(0.2, 1.0) * took)
        except subprocess.TimeoutExpired:
            orphans += psutil.Process(search.pid).children(recursive=True)
            search.kill()
            search.wait()
    assert start(made, tmp_path / "killed").wait() == 0
    assert (tmp_path / "killed" / "report.txt").read_text() == expected
    _, alive = psutil.wait_procs(orphans, timeout=10)
    assert not alive, "workers end with the search, even if it was killed"

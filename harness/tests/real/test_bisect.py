"""Bisecting real Xens: builds, boots and cases over a history that the test makes from Debian's."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness.bisection.evaluation import Setting
from harness.bisection.history import between
from harness.bisection.laboratory import Laboratory, Need
from harness.bisection.memory import Memory
from harness.bisection.workers import local
from harness.builds import BuildOptions, build
from harness.cache import Cache
from harness.references import resolve
from harness.tests.real.planted import CASE, OTHER_CASE, History, without_memory
from harness.trees import Tree

# One worker of pytest-xdist for all of them: they share a history, and each uses both cores.
pytestmark = pytest.mark.xdist_group("bisect")
KILLS = 10


def xenverify(*words: str | Path) -> list[str]:
    main = "from harness.cli import main; raise SystemExit(main())"
    return [sys.executable, "-c", main, *map(str, words)]


def bisect(
    history: History,
    cache: Path,
    output: Path,
    *words: str,
    old: str = "base",
    new: str = "notes",
    case: str = CASE,
) -> subprocess.CompletedProcess[str]:
    command = xenverify(
        "bisect", "--repo", history.path, "--good", history.ids[old],
        "--bad", history.ids[new], case, "--output", output, *words,
    )  # fmt: skip
    return subprocess.run(
        command,
        env={**os.environ, "XENVERIFY_CACHE": str(cache)},
        cwd=output.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def report(output: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((output / "bisect.json").read_text())
    del data["effort"], data["command"]
    return data


def test_the_guilty_commit_is_found_twice_with_identical_reports(
    history: History, cache: Cache, tmp_path: Path
) -> None:
    (history.path / "xen" / "unfinished.c").write_text("int user_is_at_work;\n")
    before = history.git("status", "--porcelain"), history.git("rev-parse", "HEAD")
    reports = []
    for turn in ("one", "two"):
        output = tmp_path / turn
        done = bisect(history, without_memory(cache.root, tmp_path / f"cache-{turn}"), output)
        assert done.returncode == 0, done.stdout + done.stderr
        reports.append(((output / "bisect.txt").read_text(), report(output)))
    assert reports[0] == reports[1]
    (finding,) = reports[0][1]["findings"]
    assert finding["commit"]["commit"] == history.ids["GUILTY"]
    assert finding["reverted"]["outcome"] == "changed"
    names = {commit: name for name, commit in history.ids.items()}
    assert {names[step["commit"]]: step["mark"] for step in finding["steps"]} == {
        "no-boot": "skipped",
        "still-broken": "skipped",
        "panics": "as old",
        "b2": "as new",
        "GUILTY": "as new",
    }
    why = {names[step["commit"]]: step["why"] for step in finding["steps"]}
    assert "xenverify: no further" in why["no-boot"], why
    assert "what_nobody_declared" in why["still-broken"], why
    twins = {names[s["commit"]]: names.get(s["same_binary_as"]) for s in finding["steps"]}
    assert twins["GUILTY"] == "b2"
    assert reports[0][1]["range"]["sharing"] == {
        "changes nothing the hypervisor is built from": 2,
        "changes other architectures only": 2,
    }
    after = history.git("status", "--porcelain"), history.git("rev-parse", "HEAD")
    assert after == before, "the user's clone is only read"
    (history.path / "xen" / "unfinished.c").unlink()


def test_a_panic_in_another_case_is_a_finding_of_its_own(
    history: History, cache: Cache, tmp_path: Path
) -> None:
    done = bisect(history, cache.root, tmp_path / "out", case=OTHER_CASE)
    assert done.returncode == 0, done.stdout + done.stderr
    (finding,) = report(tmp_path / "out")["findings"]
    assert finding["to"] == "crashed"
    assert finding["commit"]["commit"] == history.ids["panics"]


def test_what_breaks_the_build_is_found_when_asked_for(history: History, tmp_path: Path) -> None:
    done = subprocess.run(
        xenverify(
            "bisect", "--repo", history.path, "--good", history.ids["base"],
            "--bad", history.ids["still-broken"], "--boot", "--output", tmp_path / "out",
        ),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (finding,) = report(tmp_path / "out")["findings"]
    assert finding["commit"]["commit"] == history.ids["broken"]
    assert "what_nobody_declared" in finding["after"]["reason"]


def test_ten_kills_at_random_moments_change_nothing(
    history: History, cache: Cache, forgetful: Path, tmp_path: Path
) -> None:
    """Builds are there from the first test: what is killed is booting, running, and keeping."""
    began = time.monotonic()
    untouched = without_memory(cache.root, tmp_path / "alone-cache")
    alone = bisect(history, untouched, tmp_path / "alone", old="builds")
    took = time.monotonic() - began
    assert alone.returncode == 0, alone.stderr
    expected = (tmp_path / "alone" / "bisect.txt").read_text()
    moments = random.Random(11)
    command = xenverify(
        "bisect", "--repo", history.path, "--good", history.ids["builds"],
        "--bad", history.ids["notes"], CASE, "--quiet", "--output", tmp_path / "killed",
    )  # fmt: skip
    kills = 0
    while kills < KILLS:
        search = subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, "XENVERIFY_CACHE": str(forgetful)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            _, said = search.communicate(timeout=moments.uniform(0.05, 0.5) * took)
        except subprocess.TimeoutExpired:
            search.send_signal(moments.choice([signal.SIGKILL, signal.SIGINT, signal.SIGTERM]))
            _, said = search.communicate()
            kills += 1
            assert search.returncode in (0, 130, -signal.SIGKILL), said
        else:  # the ones before had seen enough: from the start again
            assert search.returncode == 0, said
            assert (tmp_path / "killed" / "bisect.txt").read_text() == expected
            shutil.rmtree(forgetful / "bisection")
    done = bisect(history, forgetful, tmp_path / "resumed", old="builds")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "resumed" / "bisect.txt").read_text() == expected
    assert history.ids["GUILTY"] in expected


def test_git_bisect_run_with_single_steps_ends_at_the_guilty_commit(
    history: History, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", history.path, clone], check=True)
    git = ["git", "-C", str(clone), "bisect"]
    subprocess.run(
        [*git, "start", history.ids["notes"], history.ids["base"], "--", "xen"], check=True
    )
    step = xenverify("bisect-step", "--quiet", CASE)
    done = subprocess.run(
        [*git, "run", *step], cwd=clone, capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    assert f"{history.ids['GUILTY']} is the first bad commit" in said, said


@pytest.mark.parametrize("reference", ["debian:bullseye", "debian:bookworm"])
def test_other_architectures_are_of_no_concern_to_a_build(
    reference: str, cache: Cache, tmp_path: Path
) -> None:
    others_do_not_matter(resolve(reference, cache), cache, tmp_path)


def test_one_binary_from_two_sources_is_run_as_often_as_asked_and_no_more(
    history: History, forgetful: Path, tmp_path: Path
) -> None:
    """`comment` is the same binary as `base`."""
    cache = Cache(forgetful)
    place = f"git:{history.path}"
    repository = resolve(f"{place}@{history.ids['notes']}", cache).repository
    setting = Setting(BuildOptions(), "virt-gicv3")
    with local(1) as workers:
        laboratory = Laboratory(
            between(repository, history.ids["base"], history.ids["notes"]), place, setting,
            workers, Memory(cache, setting.describe()), tmp_path / "logs",
        )  # fmt: skip
        for name, asked, runs in (("base", 2, 2), ("comment", 1, 2), ("comment", 3, 3)):
            (sample,) = laboratory.get(Need(history.ids[name], (CASE,), asked))
            assert sample.runs(CASE) == runs, name
    looks = sorted(path.parent.parent.name for path in tmp_path.glob("logs/commits/*/*/run-*"))
    assert looks == sorted([history.ids["base"][:12]] * 2 + [history.ids["comment"][:12]])


def test_a_step_that_is_repeated_says_the_same(history: History, forgetful: Path) -> None:
    """It does so from memory; an answer that is forgotten must not look like a good one."""
    step = xenverify("bisect-step", "--quiet", "--xen", f"git:{history.path}@{history.ids['b2']}")
    environment = {**os.environ, "XENVERIFY_CACHE": str(forgetful)}

    def judged(case: str) -> tuple[int, str]:
        done = subprocess.run(
            [*step, case], env=environment, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout

    first = judged(CASE)
    assert first[0] == 1, first
    assert judged(CASE) == first
    other = judged(OTHER_CASE)
    assert other[0] == 1 and "crashed" in other[1], other


def test_other_architectures_are_of_no_concern_to_a_newer_xen_either(
    trixie_tree: Tree, cache: Cache, tmp_path: Path
) -> None:
    others_do_not_matter(trixie_tree, cache, tmp_path)


def others_do_not_matter(tree: Tree, cache: Cache, place: Path) -> None:
    """What history.BY_ARCHITECTURE claims: without their folders the very same binary comes out."""
    tree.checkout(place)
    others = [
        path
        for pattern in ("xen/arch/*/", "xen/include/asm-*/")
        for path in place.glob(pattern)
        if path.name not in ("arm", "asm-arm", "asm-generic")
    ]
    assert others
    for path in others:
        for file in path.rglob("*"):
            # makefiles stay: `make clean` walks all folders
            if file.is_file() and file.suffix in (".c", ".h", ".S"):
                file.write_text("#error of no concern to arm64\n")
    changed = build(resolve(str(place), cache), BuildOptions(), cache)
    assert changed.fingerprint == build(tree, BuildOptions(), cache).fingerprint

"""xenverify as a user runs it, on real Xens: every exit code, and what is left in the results.

The changes are our own edits of Debian's Xen (harness/tests/edits.py). Few cases are chosen each
time: whether the whole suite tells two Xens apart, ci/verify shows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.cache import default_cache
from harness.references import resolve
from harness.tests.edits import make_patch
from harness.tests.real.commands import path_without, run, start

BOOKWORM = "debian:bookworm"
ONE_CASE = ("-k", "shared_info and second_map_is_refused and not domu")


def patch(tmp_path: Path, *edits: str) -> Path:
    """A patch of Debian's Xen 4.17 that makes it wrong in known ways."""
    path = tmp_path / f"{'-'.join(edits)}.patch"
    path.write_bytes(make_patch(edits, resolve(BOOKWORM, default_cache())))
    return path


def verdict_of(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / "verdict.json").read_text())
    return data


@pytest.mark.parametrize(
    ("edit", "keyword"),
    [
        ("allow-second-map", "second_map_is_refused and not domu"),
        ("keep-stale-gfn", "removal_forgets_the_gfn and not status"),
    ],
)
def test_what_takes_the_fix_out_regresses_and_its_removal_is_a_fix(
    tmp_path: Path, edit: str, keyword: str
) -> None:
    """Both ways round, with all that is left behind."""
    change = patch(tmp_path, edit)
    common = (change, "--on", BOOKWORM, "-k", keyword, "--output")
    status, text = run("verify", *common, tmp_path / "there", directory=tmp_path)
    assert status == 1, text
    assert "REGRESSED" in text
    assert "passed" in text and "failed" in text
    report = verdict_of(tmp_path / "there")
    assert report["summary"]["regressed"] == len(report["cases"]) > 0
    assert report["before"]["build_id"] != report["after"]["build_id"]

    status, text = run("verify", *common, tmp_path / "back", "--reverse", directory=tmp_path)
    assert status == 0, text
    assert "VERIFIED" in text
    back = verdict_of(tmp_path / "back")
    assert back["summary"]["fixed"] == len(back["cases"]) == len(report["cases"])
    assert back["before"]["build_id"] == report["after"]["build_id"]

    left = {path.name for path in (tmp_path / "there").iterdir()}
    assert left >= {"junit-before.xml", "junit-after.xml", "mail.txt", "before", "after"}
    mail = (tmp_path / "there" / "mail.txt").read_text()
    assert f"--on {BOOKWORM}" in mail
    assert all(len(line) <= 72 for line in mail.splitlines() if str(tmp_path) not in line)
    assert list((tmp_path / "there" / "before").rglob("console.log"))


def test_a_change_that_changes_nothing_is_said_to_be_identical(tmp_path: Path) -> None:
    change = patch(tmp_path, "comment-only")
    status, text = run("verify", change, "--on", BOOKWORM, *ONE_CASE, directory=tmp_path)
    assert status == 0, text
    assert "same binary" in text
    assert "still passing" not in text
    assert verdict_of(tmp_path / "xenverify-1")["identical"] is True


def test_each_patch_of_a_series_is_judged(tmp_path: Path) -> None:
    """The first of the two does nothing, the second breaks."""
    change = patch(tmp_path, "comment-only", "allow-second-map")
    status, text = run("verify", change, "--on", BOOKWORM, "--each", *ONE_CASE, directory=tmp_path)
    assert status == 1, text
    steps = verdict_of(tmp_path / "xenverify-1")["steps"]
    assert [step["identical"] for step in steps] == [True, False]
    assert [step["summary"]["regressed"] for step in steps] == [0, 1]


def test_a_xen_that_panics_while_booting_regresses_soon(tmp_path: Path) -> None:
    """Every case crashes, and not every one is booted for it."""
    change = patch(tmp_path, "panic-at-boot")
    status, text = run("verify", change, "--on", BOOKWORM, "-k", "shared_info", directory=tmp_path)
    assert status == 1, text
    cases = verdict_of(tmp_path / "xenverify-1")["cases"]
    assert {case["after"] for case in cases} == {"crashed"}
    assert "xenverify: no further" in text
    assert "not tried again" in text


@pytest.mark.parametrize(
    ("edit", "outcome"),
    [("panic-on-hypercall", "crashed"), ("hang-on-hypercall", "hung")],
)
def test_what_kills_xen_is_no_mere_failure(tmp_path: Path, edit: str, outcome: str) -> None:
    change = patch(tmp_path, edit)
    status, text = run("run", "--xen", BOOKWORM, "--with", change, *ONE_CASE, directory=tmp_path)
    assert status == 1, text
    results = json.loads((tmp_path / "xenverify-1" / "results.json").read_text())
    assert [case["outcome"] for case in results["cases"]] == [outcome]
    assert f'type="{outcome}"' in (tmp_path / "xenverify-1" / "junit.xml").read_text()


def test_a_case_that_fails_is_exit_code_1_and_tells_how_to_go_on(tmp_path: Path) -> None:
    status, text = run("run", "--xen", "debian:bullseye", *ONE_CASE, directory=tmp_path)
    assert status == 1, text
    for expected in (
        "FAILED",
        "after:",
        "again:",
        "xenverify run --xen debian:bullseye",
        "qemu.sh",
    ):
        assert expected in text
    script = next((tmp_path / "xenverify-1").rglob("qemu.sh"))
    assert script.read_text().startswith("#!/bin/sh")


def test_cases_that_pass_are_exit_code_0(tmp_path: Path) -> None:
    status, text = run("run", "--xen", BOOKWORM, *ONE_CASE, directory=tmp_path)
    assert status == 0, text
    assert "PASSED  1 passed" in text


def test_a_case_with_a_bug_of_its_own_is_not_blamed_on_xen(tmp_path: Path) -> None:
    case = tmp_path / "test_mine.py"
    case.write_text("def test_mine(domain):\n    raise TypeError('a slip')\n")
    status, text = run("run", "--xen", BOOKWORM, case, directory=tmp_path)
    assert status == 5, text
    assert "UNDECIDED" in text
    assert "TypeError: a slip" in text


def test_a_file_that_is_no_case_at_all_is_named(tmp_path: Path) -> None:
    case = tmp_path / "test_mine.py"
    case.write_text("this is no Python\n")
    status, text = run("run", "--xen", BOOKWORM, case, directory=tmp_path)
    assert status == 5, text
    assert "test_mine.py" in text
    assert "SyntaxError" in text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("run", "--xen", "debian:nosuchsuite"), "nosuchsuite"),
        (("run", "--xen", "/no/such/directory"), "/no/such/directory"),
        (("run", "--xen", BOOKWORM, "-k", "no_case_is_called_that"), "no case matches"),
        (("run", "--xen", BOOKWORM, "no/such/case.py"), "no case no/such/case.py"),
        (("run", "--xen", BOOKWORM, "--machine", "pdp11"), "pdp11"),
        (("run", "--xen", BOOKWORM, "--kconfig", "no.config"), "no.config"),
        (("shell", "--xen", BOOKWORM, "--scenario", "mars"), "mars"),
        (("verify", "no.patch", "--on", BOOKWORM), "no.patch"),
        (("cache", "prune", "--down-to", "much"), "much"),
        (("conquer",), "conquer"),
        (("verify",), "CHANGE"),
    ],
)
def test_what_the_user_got_wrong_is_exit_code_2_and_a_sentence(
    tmp_path: Path, arguments: tuple[str, ...], expected: str
) -> None:
    status, text = run(*arguments, directory=tmp_path)
    assert status == 2, text
    assert expected in text
    assert "Traceback" not in text
    assert text.rstrip().endswith("(exit 2)")
    assert not list(tmp_path.glob("xenverify-*"))


def test_a_change_that_does_not_apply_is_exit_code_3(tmp_path: Path) -> None:
    change = patch(tmp_path, "allow-second-map")
    change.write_text(change.read_text().replace("xen/arch/arm/mm.c", "xen/arch/arm/smp.c"))
    status, text = run("verify", change, "--on", BOOKWORM, directory=tmp_path)
    assert status == 3, text
    assert "smp.c" in text
    assert not list(tmp_path.glob("xenverify-*"))


def test_a_xen_that_does_not_build_is_exit_code_4(tmp_path: Path) -> None:
    change = patch(tmp_path, "does-not-build")
    status, text = run("verify", change, "--on", BOOKWORM, *ONE_CASE, directory=tmp_path)
    assert status == 4, text
    assert "what_nobody_declared" in text
    assert not list(tmp_path.glob("xenverify-*"))


@pytest.mark.parametrize(
    ("program", "package"),
    [
        ("qemu-system-aarch64", "qemu-system-arm"),
        ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
        ("git", "git"),
    ],
)
def test_a_program_that_is_missing_is_exit_code_5_and_the_apt_line(
    tmp_path: Path, program: str, package: str
) -> None:
    path = path_without(program, tmp_path / "bin")
    status, text = run("run", "--xen", BOOKWORM, *ONE_CASE, directory=tmp_path, PATH=path)
    assert status == 5, text
    assert f"apt install {package}" in text
    assert "Traceback" not in text
    status, text = run("doctor", directory=tmp_path, PATH=path)
    assert status == 5, text
    assert f"MISSING  {program}" in text
    assert package in text.rpartition("apt install")[2]


def test_the_prompt_holds_a_live_domain(tmp_path: Path) -> None:
    status, text = run(
        "shell", "--xen", BOOKWORM, "-c", "print(domain.xen_version(), d1 is domain)",
        directory=tmp_path,
    )  # fmt: skip
    assert (status, text.splitlines()[-1]) == (0, "(4, 17) True")
    twice = "a, b = d1.hole_pages(2); [d1.add_to_physmap(SHARED_INFO, gfn=g) for g in (a, b)]"
    status, text = run("shell", "--xen", BOOKWORM, "-c", twice, directory=tmp_path)
    assert status == 1
    assert text.splitlines()[-1].startswith("XenError: EBUSY (-16)")
    assert "Traceback" not in text


def test_two_runs_at_once_on_one_cache_both_come_to_their_end(tmp_path: Path) -> None:
    """Both need the same new build: one makes it, the other waits for it."""
    fragment = tmp_path / "odd.config"
    fragment.write_text("CONFIG_NR_CPUS=77\n")
    arguments = ("run", "--xen", BOOKWORM, "--kconfig", fragment, *ONE_CASE)
    commands = [start(*arguments, directory=tmp_path) for _ in range(2)]
    statuses = [command.finish() for command in commands]
    assert statuses == [0, 0], [command.output for command in commands]
    folders = sorted(path.name for path in tmp_path.glob("xenverify-*"))
    assert folders == ["xenverify-1", "xenverify-2"]

"""What a command line with --on-host names, read from what the commands declare."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import app, elsewhere
from harness.errors import UsageError
from harness.remote.connection import Address
from harness.remote.sending import is_local


@pytest.mark.parametrize(
    ("words", "named", "rest"),
    [
        (["run", "--xen", "x"], None, ["run", "--xen", "x"]),
        (["--on-host", "me@big", "run"], "me@big", ["run"]),
        (["run", "--on-host=big:2222", "-k", "x"], "big:2222", ["run", "-k", "x"]),
        (["run", "--", "--on-host", "x"], None, ["run", "--", "--on-host", "x"]),
    ],
)
def test_the_option_may_be_anywhere(words: list[str], named: str | None, rest: list[str]) -> None:
    assert elsewhere.split(words) == (named, rest)


@pytest.mark.parametrize("words", [["run", "--on-host"], ["--on-host", "a", "--on-host", "b"]])
def test_a_host_is_named_once(words: list[str]) -> None:
    with pytest.raises(UsageError, match="--on-host"):
        elsewhere.split(words)


def test_the_command_is_known_before_the_option_is() -> None:
    """git bisect run wants other exit codes, also of a command line that is wrong."""
    assert elsewhere.first_word(["--on-host", "big", "bisect-step", "-k", "x"]) == "bisect-step"
    assert elsewhere.first_word(["bisect-step", "--on-host"]) == "bisect-step"
    assert elsewhere.first_word([]) == ""


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("big", Address("big")),
        ("me@big.example", Address("big.example", "me")),
        ("me@10.0.0.7:2222", Address("10.0.0.7", "me", 2222)),
        ("[fe80::1]:22", Address("fe80::1", None, 22)),
    ],
)
def test_an_address_is_read(text: str, address: Address) -> None:
    assert Address.read(text) == address


@pytest.mark.parametrize(
    "text", ["", "me@", "-oProxyCommand=x", "big:port", "big:0", "a b", "a:1:2"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no USER@HOST"):
        Address.read(text)


@pytest.mark.parametrize(
    ("reference", "local"),
    [
        ("debian:4.17", False),
        ("git:https://host/xen.git@staging", False),
        ("git:~/src/xen@staging", True),
        ("~/src/xen", True),
        (".", True),
    ],
)
def test_what_only_this_machine_knows_is_sent(reference: str, local: bool) -> None:
    assert is_local(reference) is local


def test_files_go_along_by_the_names_they_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below this directory they keep them, elsewhere they get new ones."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    Path("fix.patch").touch()
    (tmp_path / "odd.config").touch()
    words = ["verify", "fix.patch", "git:a..b", "--on", "git:~/xen@x", "--kconfig", "../odd.config"]
    given = elsewhere.read(app, [*words, "-j3", "-o", "out", "-q"])
    assert given.changes == ["fix.patch", "git:a..b"]
    assert given.references == ["git:~/xen@x"]
    assert [file.path.resolve() for file in given.files] == [
        here / "fix.patch", tmp_path / "odd.config",
    ]  # fmt: skip
    names = [file.name for file in given.files]
    assert names[0] == "fix.patch" and names[1].startswith("elsewhere/")
    assert given.words == [
        "verify", "--on", "git:~/xen@x", "--kconfig", names[1], "--jobs", "3", "--quiet",
        "fix.patch", "git:a..b",
    ]  # fmt: skip
    assert (given.output, given.leaves_results, given.quiet) == (Path("out"), True, True)


def test_the_projects_own_cases_are_there_already() -> None:
    case = Path(__file__).parents[3] / "testcases" / "shared_info" / "test_one_mapping.py"
    given = elsewhere.read(app, ["run", "--xen", "debian:4.17", f"{case}::test_second_map"])
    assert given.files == []
    assert given.words[-1] == "testcases/shared_info/test_one_mapping.py::test_second_map"


def test_a_command_below_a_command_is_read() -> None:
    words = ["reproduce", "uboot-shared-info", "--uboot", "git:~/u@v", "--os", "linux", "x", "y"]
    given = elsewhere.read(app, words)
    assert (given.references, given.uboots) == (["x", "y"], ["git:~/u@v"])
    assert given.words == words
    assert elsewhere.read(app, ["doctor"]).leaves_results is False


def test_what_is_no_command_line_is_refused_here() -> None:
    with pytest.raises(Exception, match="No such option"):
        elsewhere.read(app, ["run", "--xne", "debian:4.17"])

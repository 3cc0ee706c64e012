"""Fingerprints: equal for what loads equal bytes, whatever their debug information says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.xenbinary import Identification, NotXenError, identify

SOURCE = "int answer = 42;\nint ask(void) { return answer; }\n"


def link(directory: Path, source: str, *options: str) -> Path:
    """Compile and link a few lines as Xen is: freestanding, with build-id and debug information."""
    (directory / "part.c").write_text(source)
    command = ["aarch64-linux-gnu-gcc", "-nostdlib", "-static", "-g", "-Wl,-e,ask"]
    output = ["-Wl,--build-id=sha1", *options, "-o", "syms", "part.c"]
    subprocess.run([*command, *output], cwd=directory, check=True)
    return directory / "syms"


def identified(directory: Path, source: str) -> Identification:
    return identify(link(directory, source))


def test_equal_sources_are_identified_alike(tmp_path: Path) -> None:
    assert identified(tmp_path, SOURCE) == identified(tmp_path, SOURCE)


def test_the_build_id_is_the_linkers(tmp_path: Path) -> None:
    syms = link(tmp_path, SOURCE)
    notes = subprocess.run(
        ["aarch64-linux-gnu-readelf", "--notes", syms], capture_output=True, text=True, check=True
    )
    assert f"Build ID: {identify(syms).build_id}" in notes.stdout


def test_a_comment_changes_the_build_id_and_not_the_fingerprint(tmp_path: Path) -> None:
    before, after = identified(tmp_path, SOURCE), identified(tmp_path, "/* why */\n" + SOURCE)
    assert before.build_id != after.build_id
    assert before.fingerprint == after.fingerprint


@pytest.mark.parametrize(
    "change",
    [("42", "43"), ("return answer", "return -answer"), ("int answer = 42", "int answer")],
)
def test_a_change_of_code_or_data_changes_the_fingerprint(
    tmp_path: Path, change: tuple[str, str]
) -> None:
    before, after = identified(tmp_path, SOURCE), identified(tmp_path, SOURCE.replace(*change))
    assert before.fingerprint != after.fingerprint


def test_what_lacks_something_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotXenError, match="no build-id"):
        identify(link(tmp_path, SOURCE, "-Wl,--build-id=none"))
    with pytest.raises(NotXenError, match="no debug information"):
        identify(link(tmp_path, SOURCE, "-g0"))
    whole = link(tmp_path, SOURCE).read_bytes()
    for content in (b"", b"\x7fELF", whole[:100], whole[: len(whole) // 2], b"nonsense" * 100):
        (tmp_path / "spoiled").write_bytes(content)
        with pytest.raises(NotXenError):
            identify(tmp_path / "spoiled")

"""Folders for results: never half of one, never somebody else's, never the same one twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.reports.folder import results_folder


def fill(folder: Path, text: str) -> None:
    (folder / "verdict.json").write_text(text)


def test_the_next_free_number_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with results_folder(None) as one, results_folder(None) as other:
        assert (one.name, other.name) == ("xenverify-1", "xenverify-2")


@pytest.mark.parametrize("problem", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_run_leaves_no_folder(tmp_path: Path, problem: type[BaseException]) -> None:
    with pytest.raises(problem), results_folder(tmp_path / "out") as folder:
        fill(folder, "half")
        raise problem
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_run_is_replaced_when_the_new_one_is_complete(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with results_folder(tmp_path / "out") as folder:
            assert [path.name for path in folder.iterdir()] == ["unfinished"]
            fill(folder, text)
    assert (tmp_path / "out" / "verdict.json").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_earlier_run_comes_back_when_the_new_one_is_interrupted(tmp_path: Path) -> None:
    with results_folder(tmp_path / "out") as folder:
        fill(folder, "first")
    with pytest.raises(KeyboardInterrupt), results_folder(tmp_path / "out") as folder:
        fill(folder, "second")
        raise KeyboardInterrupt
    assert (tmp_path / "out" / "verdict.json").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_folder_of_a_run_that_was_killed_is_replaced(tmp_path: Path) -> None:
    script = "from pathlib import Path; from harness.reports.folder import results_folder\n"
    script += "with results_folder(Path('out')) as out: (out / 'log').touch(); import os; "
    script += "os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=False)
    assert (tmp_path / "out" / "log").exists()
    with results_folder(tmp_path / "out") as folder:
        fill(folder, "whole")
    assert sorted(path.name for path in folder.iterdir()) == ["verdict.json"]


def test_the_folder_of_a_run_that_goes_on_is_not_touched(tmp_path: Path) -> None:
    with results_folder(tmp_path / "out") as folder:
        fill(folder, "first")
        with pytest.raises(UsageError, match="another run"), results_folder(tmp_path / "out"):
            pass
    assert (folder / "verdict.json").read_text() == "first"


def test_what_is_not_ours_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(UsageError, match="something else"), results_folder(tmp_path):
        pass
    assert (tmp_path / "thesis.txt").read_text() == "years"


def test_an_empty_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    with results_folder(tmp_path) as folder:
        assert folder == tmp_path


def test_a_file_in_the_way_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UsageError, match="cannot be written"), results_folder(tmp_path / "out"):
        pass

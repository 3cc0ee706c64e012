"""Whole bisections of real git histories, of which each commit's file says what it is like."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.bisection import history as histories
from harness.bisection import record, report
from harness.bisection.campaign import Campaign, Findings
from harness.bisection.criterion import END_RUNS
from harness.bisection.evaluation import Setting, Task
from harness.bisection.history import History
from harness.bisection.laboratory import Effort, Event, Laboratory, Need
from harness.bisection.memory import Memory
from harness.bisection.samples import Aspect, Sample
from harness.bisection.workers import Local, Workers, local
from harness.builds import BuildOptions
from harness.cache import Cache
from harness.errors import ChangeError, HarnessError, UsageError
from harness.tests.bisection import looking
from harness.tests.bisection.repositories import Made, Planned, make


@dataclass
class Here:
    """Workers that are no processes: a task is done when it is submitted."""

    slots: int = 2
    elsewhere: bool = False
    done: list[Task] = field(default_factory=list)

    @property
    def builders(self) -> int:
        return self.slots

    def end(self, task: Future[Sample]) -> bool:
        del task
        return False

    def submit(self, work: Callable[[Task], Sample], task: Task) -> Future[Sample]:
        future: Future[Sample] = Future()
        self.done.append(task)
        try:
            future.set_result(work(task))
        except HarnessError as error:
            future.set_exception(error)
        return future

    def died(self, problem: BaseException) -> bool:
        del problem
        return False

    def check(self) -> None:
        pass


@dataclass
class Bench:
    """A repository made from states, and campaigns on it that share one memory."""

    made: Made
    directory: Path
    runs: int = 0

    def history(self, old: str, new: str) -> History:
        return histories.between(self.made.path, self.made.ids[old], self.made.ids[new])

    def campaign(
        self,
        old: str,
        new: str,
        *,
        workers: Workers | None = None,
        look: Callable[[Task], Sample] = looking.look,
        cases: Sequence[str] = ("case",),
        aspect: Aspect = Aspect.OUTCOME,
        fixed: bool = False,
        listen: Callable[[Event], None] = lambda _: None,
    ) -> Campaign:
        self.runs += 1
        setting = Setting(BuildOptions(), "virt-gicv3")
        memory = Memory(Cache(self.directory / "cache"), "test")
        output = self.directory / f"out-{self.runs}"
        laboratory = Laboratory(
            self.history(old, new), f"git:{self.made.path}", setting, workers or Here(),
            memory, output, look, listen,
        )  # fmt: skip
        return Campaign(laboratory, tuple(cases), aspect, _no_revert, fixed)

    def name(self, commit: str) -> str:
        return self.made.names[commit]


def _no_revert(commit: str) -> bytes:
    raise ChangeError(f"{commit} is not to be taken out here")


def states(*texts: str) -> list[Planned]:
    """Plan one commit after the other with these states."""
    return [
        Planned(
            f"c{number}",
            (f"c{number - 1}",) if number else (),
            {looking.STATE: text, "xen/serial": str(number)},
        )
        for number, text in enumerate(texts)
    ]


@contextmanager
def bench(directory: Path, *texts: str) -> Iterator[Bench]:
    yield Bench(make(directory / "r.git", states(*texts)), directory)


def found(test: Bench, findings: Findings) -> dict[str, str]:
    return {one.criterion.case: test.name(one.answer.first) for one in findings.findings}


def test_the_guilty_commit_is_found_and_proven_three_times(tmp_path: Path) -> None:
    with bench(tmp_path, *["case passed"] * 9, *["case failed wrong"] * 8) as test:
        findings = test.campaign("c0", "c16").run()
        assert found(test, findings) == {"case": "c9"}
        assert findings.certain
        (finding,) = findings.findings
        assert [test.name(sample.commit) for sample in finding.good] == ["c8"]
        assert finding.bad.runs("case") == finding.good[0].runs("case") == END_RUNS
        assert findings.old.runs("case") == findings.new.runs("case") == END_RUNS


def test_a_repeated_bisection_looks_at_nothing_and_says_the_same(tmp_path: Path) -> None:
    with bench(tmp_path, *["case passed"] * 5, *["case failed wrong"] * 4) as test:
        first, again = Here(), Here()
        one = test.campaign("c0", "c8", workers=first)
        other = test.campaign("c0", "c8", workers=again)
        reports = [report.compose(c.run(), context(c)) for c in (one, other)]
        assert reports[0] == reports[1]
        assert first.done
        assert not again.done


def test_what_earlier_searches_saw_does_not_change_the_report(tmp_path: Path) -> None:
    words = ["passed"] * 5 + ["failed"] * 4
    texts = [f"case {word}\nother {words[number // 2]}" for number, word in enumerate(words)]
    texts[8] = "case failed\nother failed"
    with bench(tmp_path, *texts) as test:
        alone = Bench(test.made, tmp_path / "alone").campaign("c0", "c8")
        expected = report_of(alone)
        laboratory = test.campaign("c0", "c8").laboratory
        for name in ("c0", "c5", "c8"):
            laboratory.get(Need(test.made.ids[name], ("case", "other"), 7))
        assert report_of(test.campaign("c0", "c8")) == expected


def report_of(campaign: Campaign) -> dict[str, Any]:
    return record.describe(campaign.run(), context(campaign), Effort(), 0)


def context(campaign: Campaign) -> report.Context:
    laboratory = campaign.laboratory
    return report.Context(
        laboratory.history, laboratory.place, "c0", "new", (), "again", campaign.aspect
    )


@pytest.mark.parametrize("after", range(8))
def test_an_interrupted_bisection_goes_on_where_it_was(tmp_path: Path, after: int) -> None:
    texts = ["case passed"] * 11 + ["!build no"] * 2 + ["case failed wrong"] * 9
    with bench(tmp_path, *texts) as test:
        seen = 0

        def interrupt(event: Event) -> None:
            nonlocal seen
            seen += event.sample is not None
            if seen > after:
                raise KeyboardInterrupt

        whole = Bench(test.made, tmp_path / "whole")
        expected = whole.campaign("c0", "c21")
        wanted = report.compose(expected.run(), context(expected))
        with pytest.raises(KeyboardInterrupt):
            test.campaign("c0", "c21", listen=interrupt).run()
        workers = Here()
        resumed = test.campaign("c0", "c21", workers=workers)
        assert report.compose(resumed.run(), context(resumed)) == wanted
        looked = {task.commit for task in workers.done}
        everything = expected.laboratory.effort.looks
        assert len(looked) < everything


def test_ends_that_do_not_differ_end_the_bisection(tmp_path: Path) -> None:
    with bench(tmp_path, *["case passed"] * 4) as test:
        with pytest.raises(UsageError, match="do not differ") as caught:
            test.campaign("c0", "c3").run()
        assert caught.value.evidence == (
            "old end: case: passed, 3 of 3",
            "new end: case: passed, 3 of 3",
        )


def test_swapped_outcomes_are_named(tmp_path: Path) -> None:
    with bench(tmp_path, "case failed", "case failed", "case passed") as test:
        with pytest.raises(UsageError, match="it got better") as caught:
            test.campaign("c0", "c2").run()
        assert "--fixed" in caught.value.advice
        assert found(test, test.campaign("c0", "c2", fixed=True).run()) == {"case": "c2"}


def test_fixed_does_not_look_for_what_got_worse(tmp_path: Path) -> None:
    with (
        bench(tmp_path, "case passed", "case passed", "case failed") as test,
        pytest.raises(UsageError, match="it got worse"),
    ):
        test.campaign("c0", "c2", fixed=True).run()


def test_a_commit_that_does_not_build_is_never_bad(tmp_path: Path) -> None:
    texts = ["case passed"] * 6 + ["!build no such file"] * 3 + ["case failed"] * 6
    with bench(tmp_path, *texts) as test:
        (finding,) = test.campaign("c0", "c14").run().findings
        assert not finding.answer.certain
        assert [test.name(commit) for commit in finding.answer.suspects] == ["c6", "c7", "c8", "c9"]
        reasons = {seen.reason for _, seen in finding.steps if seen.mark.value == "skip"}
        assert reasons == {"does not build: no such file"}


def test_a_broken_build_can_itself_be_searched_for(tmp_path: Path) -> None:
    texts = ["case passed"] * 6 + ["!build no such file"] * 5
    with bench(tmp_path, *texts) as test:
        findings = test.campaign("c0", "c10").run()
        assert found(test, findings) == {"": "c6"}
        assert findings.findings[0].criterion.bad == "does not build"


def test_with_signature_another_build_failure_is_another_bug(tmp_path: Path) -> None:
    texts = [*["case passed"] * 4, *["!build one way 1"] * 4, *["!build other way 7"] * 4]
    with bench(tmp_path, *texts) as test:
        plain = test.campaign("c0", "c11").run()
        assert found(test, plain) == {"": "c4"}
        findings = test.campaign("c0", "c11", aspect=Aspect.SIGNATURE).run()
        assert found(test, findings) == {"": "c8"}
        assert not findings.certain
        assert len(findings.findings[0].answer.suspects) == 5


def test_with_signature_another_failure_of_the_case_is_another_bug(tmp_path: Path) -> None:
    texts = [*["case failed -22, not 5"] * 4, *["case failed fault at 0x38"] * 4]
    with bench(tmp_path, *texts) as test:
        with pytest.raises(UsageError, match="do not differ"):
            test.campaign("c0", "c7").run()
        findings = test.campaign("c0", "c7", aspect=Aspect.SIGNATURE).run()
        assert found(test, findings) == {"case": "c4"}


def test_a_crash_in_between_is_neither_passed_nor_failed(tmp_path: Path) -> None:
    texts = ["case passed"] * 4 + ["case crashed boom"] + ["case failed"] * 4
    with bench(tmp_path, *texts) as test:
        (finding,) = test.campaign("c0", "c8").run().findings
        assert [test.name(commit) for commit in finding.answer.suspects] == ["c4", "c5"]


def test_cases_that_changed_at_different_commits_share_every_look(tmp_path: Path) -> None:
    texts = [
        f"one {'failed' if number >= 5 else 'passed'}\n"
        f"two {'crashed' if number >= 11 else 'passed'}\n"
        f"same passed"
        for number in range(16)
    ]
    with bench(tmp_path, *texts) as test:
        workers = Here(slots=1)
        campaign = test.campaign("c0", "c15", workers=workers, cases=("one", "two", "same"))
        assert found(test, campaign.run()) == {"one": "c5", "two": "c11"}
        commits = [task.commit for task in workers.done]
        assert len(set(commits)) <= 2 + 2 * 4


def test_a_wavering_case_is_run_until_the_odds_are_clear(tmp_path: Path) -> None:
    random.seed(20)
    texts = ["case passed"] * 7 + ["case failed|passed"] * 7
    with bench(tmp_path, *texts) as test:
        findings = test.campaign("c0", "c13").run()
        (finding,) = findings.findings
        assert finding.criterion.wavers
        assert test.name(finding.answer.first) == "c7"


def test_a_case_that_wavers_alike_at_both_ends_is_not_trusted(tmp_path: Path) -> None:
    random.seed(4)
    with (
        bench(tmp_path, *["case failed|passed"] * 8) as test,
        pytest.raises(UsageError, match="cannot be trusted"),
    ):
        test.campaign("c0", "c7").run()


def test_a_boot_that_slows_is_searched_by_its_time(tmp_path: Path) -> None:
    texts = [f"!boot {0.20 + 0.001 * number:.3f}" for number in range(8)]
    texts += [f"!boot {0.45 + 0.001 * number:.3f}" for number in range(8)]
    with bench(tmp_path, *texts) as test:
        findings = test.campaign("c0", "c15", cases=(), aspect=Aspect.BOOT_SECONDS).run()
        assert found(test, findings) == {"": "c8"}


def test_a_boot_time_that_hardly_differs_is_not_searched(tmp_path: Path) -> None:
    with (
        bench(tmp_path, "!boot 0.200", "!boot 0.2", "!boot 0.210") as test,
        pytest.raises(UsageError, match="do not differ"),
    ):
        test.campaign("c0", "c2", cases=(), aspect=Aspect.BOOT_SECONDS).run()


def test_a_worker_that_dies_is_replaced_and_the_commit_looked_at_again(tmp_path: Path) -> None:
    with (
        bench(tmp_path, *["case passed"] * 3, *["case failed"] * 3) as test,
        local(2) as workers,
    ):
        campaign = test.campaign("c0", "c5", workers=workers, look=looking.die_once)
        assert found(test, campaign.run()) == {"case": "c3"}


def test_a_commit_that_kills_every_worker_stops_the_search_and_keeps_the_rest(
    tmp_path: Path,
) -> None:
    texts = ["case passed"] * 4 + ["case failed"] * 4
    names = ["end-0", *(f"middle-{number}" for number in range(1, 7)), "end-7"]
    renamed = [
        Planned(name, (names[number - 1],) if number else (), one.files)
        for number, (name, one) in enumerate(zip(names, states(*texts), strict=True))
    ]
    test = Bench(make(tmp_path / "r.git", renamed), tmp_path)
    with local(1) as workers:
        campaign = test.campaign("end-0", "end-7", workers=workers, look=looking.always_die)
        with pytest.raises(HarnessError, match="died, twice"):
            campaign.run()
    again = Here(slots=1)
    assert found(test, test.campaign("end-0", "end-7", workers=again).run()) == {"case": "middle-4"}
    assert not {"end-0", "end-7"} & {test.name(task.commit) for task in again.done}


def test_a_fault_of_ours_is_tried_again(tmp_path: Path) -> None:
    with bench(tmp_path, *["case passed"] * 3, *["case failed"] * 3) as test:
        campaign = test.campaign("c0", "c5", look=looking.fail_once)
        assert found(test, campaign.run()) == {"case": "c3"}


def test_a_fault_of_ours_that_stays_stops_the_search(tmp_path: Path) -> None:
    def broken(task: Task) -> Sample:
        if task.commit not in ends:
            raise HarnessError("QEMU was killed from outside")
        return looking.look(task)

    with bench(tmp_path, *["case passed"] * 3, *["case failed"] * 3) as test:
        ends = {test.made.ids["c0"], test.made.ids["c5"]}
        with pytest.raises(HarnessError, match="killed from outside"):
            test.campaign("c0", "c5", look=broken).run()


def test_processes_end_with_the_search(tmp_path: Path) -> None:
    with bench(tmp_path, *["case passed"] * 3, *["case failed"] * 3) as test:
        with local(2) as workers:
            assert isinstance(workers, Local)
            test.campaign("c0", "c5", workers=workers).run()
        import multiprocessing

        assert not multiprocessing.active_children()


def test_what_is_built_ahead_never_changes_the_report(tmp_path: Path) -> None:
    texts = ["case passed"] * 21 + ["!build no"] * 3 + ["case failed"] * 20
    with bench(tmp_path, *texts) as test:
        reports = []
        for slots in (1, 2, 5):
            alone = Bench(test.made, tmp_path / f"slots-{slots}")
            campaign = alone.campaign("c0", "c43", workers=Here(slots=slots))
            reports.append(report.compose(campaign.run(), context(campaign)))
        assert reports[0] == reports[1] == reports[2]


def test_the_report_names_what_a_reader_needs(tmp_path: Path) -> None:
    texts = ["case passed"] * 3 + ["case failed -16 was due"] * 3
    with bench(tmp_path, *texts) as test:
        campaign = test.campaign("c0", "c5")
        text = "\n".join(report.compose(campaign.run(), context(campaign)))
        commit = test.made.ids["c3"]
        for expected in (
            f"COMMIT  {commit}",
            "c3: a planned commit",
            "Ada <ada@example.org>  2020-09-13T12:30:40+00:00",
            "failed 3",
            "-16 was due",
            "cannot be had: it does not come out of the new end",
            f"xenverify run case --xen git:{test.made.path}@{commit[:12]}",
        ):
            assert expected in text, text


def test_a_report_says_how_sure_a_wavering_case_is(tmp_path: Path) -> None:
    random.seed(20)
    texts = ["case passed"] * 7 + ["case failed|passed"] * 7
    with bench(tmp_path, *texts) as test:
        campaign = test.campaign("c0", "c13")
        findings = campaign.run()
        (finding,) = findings.findings
        judged = len(finding.steps)
        text = "\n".join(report.compose(findings, context(campaign)))
        assert "wavers: failed in 0% of the runs at the old end" in text
        assert f"every commit judged rightly: {99.9 - 0.1 * (judged - 1):.1f} %" in text


def test_a_boot_time_that_differs_by_one_lucky_boot_is_not_searched(tmp_path: Path) -> None:
    texts = ["!boot 0.2,0.3,0.3,0.31,0.3", "!boot 0.3", "!boot 0.3"]
    with (
        bench(tmp_path, *texts) as test,
        pytest.raises(UsageError, match="do not differ"),
    ):
        test.campaign("c0", "c2", cases=(), aspect=Aspect.BOOT_SECONDS).run()

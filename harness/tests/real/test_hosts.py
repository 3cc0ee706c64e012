"""Hosts with real Xens on them: that they boot, and that no way to fail is taken for another."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.builds import Build, BuildOptions, build
from harness.cache import default_cache
from harness.errors import HarnessError, UsageError, XenCrashed, XenExited, XenHung
from harness.hosts import BootableXen, Host
from harness.machines import load_machine, machine_names
from harness.references import resolve
from harness.scenarios import SCENARIOS, DomainPlan, Scenario
from harness.tests.real import kernels
from harness.tests.real.kernels import BACK, COUNT, HERE, UNDEFINED
from harness.tests.real.poison import PoisonedXen, diverted, poisoned

# Panics, ends and hangs are to be told a second after their sign; on a machine with more to do than
# it has CPUs, everything takes so much longer.
SOON = 2.0 * max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))
# A QEMU that is stopped while it is being asked something is given this long to answer.
SECONDS_OF_A_LOST_QUESTION = 5.0
AFTER_BOOT = "domain_unpause_by_systemcontroller"  # the last thing Xen does for a domain at boot
BEFORE_DOMAINS = "create_domUs"


def built(reference: str) -> Build:
    cache = default_cache()
    return build(resolve(reference, cache), BuildOptions(), cache)


@pytest.fixture(scope="session")
def xen() -> Build:
    """A Xen that needs no dom0."""
    return built("debian:bookworm")


@pytest.fixture
def old_xen() -> Build:
    """A Xen that does need one."""
    return built("debian:bullseye")


class Bench:
    """Makes hosts, each in a directory of its own, and ends what a test leaves running."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._hosts: list[Host] = []

    def host(
        self,
        xen: BootableXen,
        kernel: bytes = b"",
        *,
        machine: str = "virt-gicv3",
        scenario: Scenario = SCENARIOS["domu"],
        qemu_args: Sequence[str] = (),
    ) -> Host:
        number = len(self._hosts)
        image = self.directory / f"kernel-{number}"
        image.write_bytes(kernel or kernels.talker("hello\n"))
        directory = self.directory / f"host-{number}"
        profile = load_machine(machine)
        host = Host(xen, profile, scenario, directory, default_kernel=image, qemu_args=qemu_args)
        self._hosts.append(host)
        return host

    def close(self) -> None:
        for host in self._hosts:
            host.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def greetings(host: Host, count: int = 1, seconds: float = 10) -> list[str]:
    """Wait for `count` domains to say hello, and tell which did."""

    def said() -> list[str] | None:
        found = re.findall(r"^(\(d\d+\) |)hello$", host.console.text, re.MULTILINE)
        return found if len(found) >= count else None

    return host.wait(said, seconds, "a guest's greeting")


def never() -> None:
    """What does not come."""


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("machine", machine_names())
def test_boots_on_every_machine(bench: Bench, xen: Build, machine: str) -> None:
    with bench.host(xen, machine=machine) as host:
        assert greetings(host) == ["(d1) "]
        assert xen.build_id in host.console.text
        assert 0 < host.boot_seconds < 10
        pid = host.process.pid
    assert gone(pid)


@pytest.mark.parametrize(
    ("name", "speakers"),
    [
        ("domu", ["(d1) "]),
        ("two_domus", ["(d1) ", "(d2) "]),
        ("dom0", [""]),
        ("dom0_and_domu", ["", "(d1) "]),
    ],
)
def test_boots_every_scenario(bench: Bench, xen: Build, name: str, speakers: list[str]) -> None:
    with bench.host(xen, scenario=SCENARIOS[name]) as host:
        assert sorted(greetings(host, len(speakers))) == speakers


def test_gives_a_xen_that_needs_it_an_idle_dom0(bench: Bench, old_xen: Build) -> None:
    with bench.host(old_xen) as host:
        assert list(host.scenario.domains) == [0, 1]
        assert sorted(greetings(host, 2)) == ["", "(d1) "]


def test_does_not_wait_for_a_countdown(bench: Bench, old_xen: Build) -> None:
    with bench.host(old_xen) as host:
        greetings(host, 2)
        assert "3..." not in host.console.text


def test_memory_vcpus_properties_and_bootargs_reach_xen(bench: Bench, xen: Build) -> None:
    plan = DomainPlan(
        memory_mib=300, vcpus=2, bootargs="for the guest", properties={"nothing": b""}
    )
    with bench.host(xen, scenario=Scenario("big", domus=(plan,))) as host:
        greetings(host)
        assert host.machine.cpus == 2
        assert host.machine.ram_mib > 300
        assert "LOADING DOMU cpus=2 memory=4b000KB" in host.console.text.replace("0x", "")


def test_ram_is_shared_and_has_no_name(bench: Bench, xen: Build) -> None:
    marker = os.urandom(16)
    with bench.host(xen, kernels.image(HERE, data=marker)) as host:
        found = host.wait(lambda: list(host.ram.find_all(marker)) or None, 5, "the kernel in RAM")
        assert host.ram.read(host.ram.base + found[0], 16) == marker
        host.ram.write(host.ram.base + found[0], bytes(16))
        assert host.ram.find(marker) != found[0]
        populated = sum(end - start for start, end in host.ram.extents())
        assert populated < host.ram.size // 4, "looking has filled the holes"
        maps = Path(f"/proc/{host.process.pid}/maps").read_text()
        assert "/memfd:xenverify-ram (deleted)" in maps


def test_pauses_and_resumes(bench: Bench, xen: Build) -> None:
    with bench.host(xen, kernels.spinner()) as host:
        host.pause()
        assert host.qmp.execute("query-status")["status"] == "paused"
        host.resume()
        assert host.qmp.execute("query-status")["status"] == "running"


def test_types_and_expects_on_the_console(bench: Bench, xen: Build) -> None:
    with bench.host(xen) as host:
        host.console.expect("init memory", 5)
        said = ""
        while "to Xen" not in said:  # the keyboard goes from each domain to the next
            host.console.send("\x01" * 3)
            said = host.console.expect(r"Serial input to \S+ ", 5)
        host.console.send("h")
        assert "'h' pressed" in host.console.expect("installed handlers", 5)
        before = host.console.mark()
        host.console.send("q")
        host.console.expect("General information for domain", 5)
        assert "domain" in host.console.since(before)


def test_the_command_line_runs_without_us(bench: Bench, xen: Build) -> None:
    with bench.host(xen) as host:
        greetings(host)
    script = host.directory / "qemu.sh"
    with subprocess.Popen([script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as alone:
        assert alone.stdin and alone.stdout
        said = b""
        while b"(d1) hello" not in said:
            piece = os.read(alone.stdout.fileno(), 65536)
            assert piece, said.decode()
            said += piece
        alone.stdin.write(b"\x01x")  # QEMU's own way out of its terminal
    assert alone.returncode == 0


def test_a_panic_before_any_guest_is_a_crash(bench: Bench, xen: Build) -> None:
    sick = poisoned(xen, bench.directory, BEFORE_DOMAINS, UNDEFINED)
    with bench.host(sick) as host:
        began = time.monotonic()
        with pytest.raises(XenCrashed) as caught:
            host.wait(never, 60, "nothing")
    assert time.monotonic() - began < SOON
    assert caught.value.message.startswith("Hypervisor Trap. HSR=")
    text = "\n".join(caught.value.evidence)
    assert "CPU0: Unexpected Trap: Hypervisor" in text
    assert "Xen call trace:" in text
    assert text.rstrip().endswith("Manual reset required ('noreboot' specified)")


def test_a_panic_before_the_build_id_is_a_crash(bench: Bench, xen: Build) -> None:
    sick = poisoned(xen, bench.directory, "xen_build_init", UNDEFINED)
    with pytest.raises(XenCrashed, match="Hypervisor Trap"), bench.host(sick):
        pass


def test_a_machine_that_powers_off_is_no_success(bench: Bench, xen: Build) -> None:
    sick = diverted(xen, bench.directory, BEFORE_DOMAINS, "machine_halt")
    with bench.host(sick) as host, pytest.raises(XenExited, match="guest-shutdown"):
        host.wait(never, 60, "nothing")


def test_a_machine_that_resets_is_no_success(bench: Bench, xen: Build) -> None:
    sick = diverted(xen, bench.directory, BEFORE_DOMAINS, "call_psci_system_reset")
    with bench.host(sick) as host, pytest.raises(XenExited, match="guest-reset"):
        host.wait(never, 60, "nothing")


def test_a_xen_that_spins_is_hung_where_it_spins(bench: Bench, xen: Build) -> None:
    sick = poisoned(xen, bench.directory, AFTER_BOOT, HERE)
    with bench.host(sick) as host:
        began = time.monotonic()
        with pytest.raises(XenHung, match=r"CPU 0 is in Xen at 0x2[0-9a-f]+ and does not get out"):
            host.wait(never, 60, "nothing")
    assert time.monotonic() - began < 2 + SOON


def test_a_xen_that_gets_on_with_a_long_loop_is_hung_after_the_time_limit_only(
    bench: Bench, xen: Build
) -> None:
    sick = poisoned(xen, bench.directory, AFTER_BOOT, COUNT, BACK)
    with bench.host(sick) as host, pytest.raises(XenHung, match="nothing came"):
        host.wait(never, 6, "nothing")


def test_a_large_domain_may_take_its_time_on_a_slow_machine(bench: Bench, xen: Build) -> None:
    """Xen flushes each line of its 2 GiB from the caches: seconds in a short loop."""
    large = SCENARIOS["domu"].with_(memory_mib=2048)
    with bench.host(xen, scenario=large, qemu_args=["-singlestep"]) as host:
        assert greetings(host, seconds=60) == ["(d1) "]


def test_a_machine_that_sleeps_is_hung(bench: Bench, xen: Build) -> None:
    with bench.host(xen, kernels.sleeper()) as host:
        began = time.monotonic()
        with pytest.raises(XenHung, match="every CPU sleeps"):
            host.wait(never, 60, "nothing")
    assert time.monotonic() - began < 1 + SOON


@pytest.mark.parametrize("kernel", [kernels.spinner(), kernels.caller()], ids=["spins", "calls"])
def test_a_guest_that_is_busy_is_hung_after_the_time_limit_only(
    bench: Bench, xen: Build, kernel: bytes
) -> None:
    with bench.host(xen, kernel) as host, pytest.raises(XenHung, match="nothing came"):
        host.wait(never, 6, "nothing")


def test_what_a_guest_says_is_never_xens_panic(bench: Bench, xen: Build) -> None:
    lie = "(XEN) Panic on CPU 0:\n(XEN) Xen BUG at mm.c:1\n(XEN) Manual reset required\nhello\n"
    with bench.host(xen, kernels.talker(lie)) as host:
        greetings(host)
        host.check()
        assert "(d1) (XEN) Panic on CPU 0:" in host.console.text


def test_another_xen_than_the_one_built_is_refused(bench: Bench, xen: Build) -> None:
    other = PoisonedXen(xen.xen, "00" * 20, xen.version)
    with (
        pytest.raises(HarnessError, match="not the one that was built") as caught,
        bench.host(other),
    ):
        pass
    assert any(xen.build_id in line for line in caught.value.evidence)


def test_a_xen_that_dies_before_it_can_say_so_is_hung(bench: Bench, xen: Build) -> None:
    noise = bench.directory / "noise"
    noise.write_bytes(bytes(4096))
    began = time.monotonic()
    with (
        pytest.raises(XenHung, match="faults at 0x200, where no Xen is"),
        bench.host(PoisonedXen(noise, xen.build_id, xen.version)),
    ):
        pass
    assert time.monotonic() - began < 2 + 2 * SOON


def test_a_missing_xen_is_our_failure(bench: Bench, xen: Build) -> None:
    nothing = PoisonedXen(bench.directory / "nothing", xen.build_id, xen.version)
    with pytest.raises(HarnessError) as caught, bench.host(nothing):
        pass
    assert any("nothing" in line and "could not load" in line for line in caught.value.evidence)


def test_a_missing_kernel_is_our_failure(bench: Bench, xen: Build) -> None:
    plan = DomainPlan(kernel=bench.directory / "nothing")
    with (
        pytest.raises(HarnessError, match="image cannot be read"),
        bench.host(xen, scenario=Scenario("none", domus=(plan,))),
    ):
        pass


def test_images_that_do_not_fit_are_our_failure(bench: Bench, xen: Build) -> None:
    huge = bench.directory / "huge"
    huge.touch()
    os.truncate(huge, 300 << 20)
    plan = DomainPlan(kernel=huge)
    with (
        pytest.raises(HarnessError, match="do not fit into 256 MiB"),
        bench.host(xen, scenario=Scenario("huge", domus=(plan,))),
    ):
        pass


def test_a_missing_qemu_names_its_package(
    bench: Bench, xen: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(bench.directory))
    with pytest.raises(HarnessError) as caught, bench.host(xen):
        pass
    assert caught.value.advice.endswith("sudo apt install qemu-system-arm")


def test_a_machine_that_qemu_does_not_make_is_our_failure(bench: Bench, xen: Build) -> None:
    host = bench.host(xen)
    host.machine = replace(host.machine, cpu="cortex-z99")
    with pytest.raises(HarnessError, match="QEMU does not make this machine") as caught, host:
        pass
    assert any("cortex-z99" in line for line in caught.value.evidence)


def test_arguments_that_qemu_refuses_are_our_failure(bench: Bench, xen: Build) -> None:
    host = Host(
        xen,
        load_machine(),
        SCENARIOS["domu"],
        bench.directory / "refused",
        default_kernel=bench.host(xen).directory.with_name("kernel-0"),
        qemu_args=["-device", "no-such-device"],
    )
    with pytest.raises(HarnessError, match="exit status 1") as caught, host:
        pass
    assert any("no-such-device" in line for line in caught.value.evidence)


def test_a_machine_without_a_profile_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no machine called 'virt-gicv9'"):
        load_machine("virt-gicv9")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (signal.SIGKILL, "killed from outside by SIGKILL"),
        (signal.SIGSEGV, "killed from outside by SIGSEGV"),
        (signal.SIGTERM, "told to end: host-signal"),
        (signal.SIGSTOP, "stopped from outside"),
    ],
)
def test_a_signal_from_outside_is_not_xens_fault(
    bench: Bench, xen: Build, what: signal.Signals, message: str
) -> None:
    with bench.host(xen, kernels.spinner()) as host:
        sent = _later(lambda: os.kill(host.process.pid, what))
        with pytest.raises(HarnessError, match=message):
            host.wait(never, 60, "nothing")
        assert time.monotonic() - sent[0] < SECONDS_OF_A_LOST_QUESTION + SOON
        pid = host.process.pid
    assert gone(pid)


def test_a_pause_from_outside_is_not_xens_fault(bench: Bench, xen: Build) -> None:
    with bench.host(xen, kernels.spinner()) as host:
        host.pause()
        with pytest.raises(HarnessError, match="'paused'"):
            host.wait(never, 60, "nothing")


def test_a_qemu_that_ignores_sigterm_is_killed(bench: Bench, xen: Build) -> None:
    with bench.host(xen, kernels.spinner()) as host:
        os.kill(host.process.pid, signal.SIGSTOP)  # SIGTERM stays pending
        began = time.monotonic()
    assert gone(host.process.pid)
    assert time.monotonic() - began < 1 + SOON


def test_closing_twice_does_nothing(bench: Bench, xen: Build) -> None:
    with bench.host(xen, kernels.spinner()) as host:
        descriptors = len(list(Path("/proc/self/fd").iterdir()))
        host.close()
        host.close()
        assert (
            len(list(Path("/proc/self/fd").iterdir())) <= descriptors - 3
        )  # RAM, console, monitor


def _later(act: Callable[[], object]) -> list[float]:
    """Do something in a moment; what is returned will hold the time when it was done."""
    done: list[float] = []

    def work() -> None:
        time.sleep(0.2)
        done.append(time.monotonic())
        act()

    threading.Thread(target=work).start()
    return done

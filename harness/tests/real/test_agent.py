"""The agent on a real Xen: its operations, its faults, its vCPUs, and how it ends."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from harness import agent as protocol
from harness import operations as ops
from harness.agent import AgentDied, SlotState
from harness.booting import AGENT_SECONDS, Booted, boot
from harness.builds import Build, BuildOptions, build
from harness.cache import default_cache
from harness.domain import Domain
from harness.errors import HarnessError
from harness.guest_memory import DOMU_HOLES, memory_of, read_tree
from harness.machines import load_machine
from harness.operations import Code, Fault, Op
from harness.references import resolve
from harness.scenarios import SCENARIOS, DomainPlan, Scenario
from harness.tests.structures import layouts

HOLE = DOMU_HOLES[-1] << 12
RETURN = 0xD65F03C0  # ret
MOVE_42 = 0xD2800540  # mov x0, #42
XEN_VERSION = ops.hypercall(17)

Boot = Callable[..., Booted]


@pytest.fixture(scope="module")
def xen() -> Build:
    cache = default_cache()
    return build(resolve("debian:bookworm", cache), BuildOptions(), cache)


@pytest.fixture(scope="module")
def kernel() -> Path:
    return protocol.image(default_cache())


@pytest.fixture(scope="module")
def start(
    xen: Build, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Scenario | str], Booted]:
    def start(scenario: Scenario | str = "domu") -> Booted:
        chosen = SCENARIOS[scenario] if isinstance(scenario, str) else scenario
        return boot(xen, load_machine(), chosen, tmp_path_factory.mktemp("host"))

    return start


@pytest.fixture(scope="module")
def domain(start: Boot) -> Iterator[Domain]:
    """A domU with two vCPUs that no test may take down."""
    scenario = Scenario("pair", domus=(DomainPlan(vcpus=2),), pcpus=2)
    with start(scenario) as host:
        yield host.domains[0]


@pytest.fixture
def run(domain: Domain) -> Callable[..., ops.Result]:
    """Runs operations and gives the last one's result."""
    return lambda *operations: domain.agent.run(operations)[-1]


def test_layout_is_that_of_the_kernels_debug_information(kernel: Path) -> None:
    with (kernel.parent / "agent").open("rb") as file:
        found = layouts(ELFFile(file), {"mailbox", "slot", "operation"})
    mailbox, slot, operation = found["mailbox"], found["slot"], found["operation"]
    assert mailbox.size == protocol.PAGES * protocol.PAGE_SIZE
    assert mailbox.offsets["idle"] == protocol.IDLE_AT
    assert mailbox.offsets["slot"] == protocol.SLOTS_AT
    assert mailbox.offsets["operation"] == protocol.OPERATIONS_AT
    assert mailbox.offsets["data"] == protocol.DATA_AT
    assert mailbox.offsets["reserved"] == protocol.HEADER.size
    assert slot.size == protocol.SLOT_SIZE
    assert slot.offsets["reserved"] == protocol.SLOT.size
    assert operation.size == ops.OPERATION.size == ops.ANSWER.size
    assert (operation.offsets["fault"], operation.offsets["value"]) == (4, 56)


def test_constants_are_those_of_the_kernels_header() -> None:
    text = (protocol.SOURCES / "mailbox.h").read_text()
    defined = {
        words[1]: words[2]
        for words in (line.split() for line in text.splitlines())
        if words[:1] == ["#define"] and len(words) > 2
    }
    assert {f"OP_{code.name}": str(code.value) for code in Code}.items() <= defined.items()
    assert {f"SLOT_{s.name}": str(s.value) for s in SlotState}.items() <= defined.items()
    assert {f"IDLE_{i.name}": str(i.value) for i in protocol.Idle}.items() <= defined.items()
    assert [defined[f"FAULT_{name}"] for name in ("NONE", "SYNC", "SERROR", "UNKNOWN")] == [
        str(fault.value) for fault in Fault
    ]
    assert int(defined["MAX_VCPUS"]) == protocol.MAX_VCPUS
    assert int(defined["NR_OPERATIONS"]) == protocol.OPERATIONS


def test_no_image_holds_the_magic(kernel: Path) -> None:
    assert protocol.MAGIC not in kernel.read_bytes()
    assert protocol.MAGIC not in (kernel.parent / "agent").read_bytes()


def test_image_is_built_once(kernel: Path) -> None:
    made = kernel.stat()
    assert protocol.image(default_cache()) == kernel
    assert (kernel.stat().st_ino, kernel.stat().st_mtime_ns) == (made.st_ino, made.st_mtime_ns)


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_loads_and_stores_of_any_width_anywhere(domain: Domain, width: int) -> None:
    (gfn,) = domain.ram_pages(1)
    value = 0x1122334455667788 & (1 << 8 * width) - 1
    for address in range(gfn << 12, (gfn << 12) + 9):
        domain.store(address, value, width)
        assert domain.load(address, width) == value


@pytest.mark.parametrize(
    "operation",
    [
        ops.load(HOLE),
        ops.store(HOLE, 1),
        ops.fill(HOLE, 8),
        ops.compare(HOLE, HOLE, 8),
        ops.copy(HOLE, HOLE, 8),
        ops.fetch(HOLE),
        ops.await_value(HOLE, 1, nanoseconds=10**9),
    ],
    ids=lambda operation: operation.code.name.lower(),
)
def test_what_touches_a_hole_is_a_fault_with_its_address(
    run: Callable[..., ops.Result], operation: Op
) -> None:
    result = run(operation)
    assert result.fault is Fault.SYNCHRONOUS
    assert result.far == HOLE
    assert result.esr >> 26 in (0x21, 0x25)  # instruction or data abort, from the same level
    assert run(XEN_VERSION).fault is Fault.NONE


def test_a_copy_that_runs_into_a_hole_says_where(domain: Domain) -> None:
    (gfn,) = domain.ram_pages(1)
    ((start, size),) = memory_of(read_tree(domain.agent))
    end = start + size
    (result,) = domain.agent.run([ops.copy(end - 0x800, gfn << 12, 0x1000)])
    assert (result.fault, result.far) == (Fault.SYNCHRONOUS, end)


@pytest.mark.parametrize("address", [1 << 39, 1 << 40, 1 << 44, 1 << 47])
def test_addresses_beyond_all_ram_are_faults(run: Callable[..., ops.Result], address: int) -> None:
    result = run(ops.load(address))
    assert (result.fault, result.far) == (Fault.SYNCHRONOUS, address)


@pytest.mark.parametrize(
    "operation",
    [ops.load(1 << 48), ops.load(0x40000000, 3), Op(99)],  # type: ignore[arg-type]
    ids=["more than 48 bits", "width 3", "no such operation"],
)
def test_what_the_agent_cannot_do_is_told(run: Callable[..., ops.Result], operation: Op) -> None:
    assert run(operation).fault is Fault.UNKNOWN


def test_code_can_be_executed(domain: Domain) -> None:
    (gfn,) = domain.ram_pages(1)
    domain.store(gfn << 12, RETURN << 32 | MOVE_42)
    assert domain.fetch(gfn << 12) == 42


def test_an_undefined_instruction_is_a_fault(domain: Domain) -> None:
    (gfn,) = domain.ram_pages(1)
    domain.store(gfn << 12, 0)
    (result,) = domain.agent.run([ops.fetch(gfn << 12)])
    assert (result.fault, result.esr >> 26) == (Fault.SYNCHRONOUS, 0)


def test_fill_copy_and_compare(domain: Domain) -> None:
    one, other = (gfn << 12 for gfn in domain.ram_pages(2))
    results = domain.agent.run(
        [
            ops.copy(other, one, 4096),
            ops.compare(one, other, 4096),
            ops.fill(one, 4096, 5, 3),
            ops.load(one + 4088),
            ops.compare(one, other, 4096),
            ops.copy(other + 1, one + 1, 4094),
            ops.compare(one + 1, other + 1, 4095),
        ]
    )
    assert [result.value for result in results] == [0, 4096, 0, 5 + 3 * 511, 0, 0, 4094]


def test_repeat(domain: Domain) -> None:
    address = domain.put(bytes(8))
    began = time.monotonic()
    domain.agent.run([ops.store(address, 7), ops.sleep(1_000_000), ops.repeat(1, 49)])
    assert domain.load(address) == 7
    assert time.monotonic() - began >= 0.05


def test_waiting_ends_by_a_value_or_by_time(domain: Domain) -> None:
    address = domain.put(bytes(8))
    late, there = domain.agent.run(
        [
            ops.await_value(address, 1, nanoseconds=2_000_000),
            ops.await_value(address, 0, nanoseconds=10**9),
        ]
    )
    assert (late.value, there.value) == (0, 1)


def test_more_operations_than_one_batch_holds(domain: Domain) -> None:
    results = domain.agent.run([XEN_VERSION] * (2 * protocol.FIRST_SHARE + 1))
    assert len(results) == 2 * protocol.FIRST_SHARE + 1
    assert {result.value for result in results} == {4 << 16 | 17}


def test_a_hypercall_that_does_not_exist_is_refused(run: Callable[..., ops.Result]) -> None:
    assert run(ops.hypercall(99)).value == -38


def test_second_vcpu_starts_works_and_turns_itself_off(domain: Domain) -> None:
    for _ in range(100):
        assert domain.agent.run([XEN_VERSION], vcpu=1)[0].value == 4 << 16 | 17
    deadline = time.monotonic() + 5
    while domain.agent.state(1) is not SlotState.OFF and time.monotonic() < deadline:
        time.sleep(0.001)
    assert domain.agent.state(1) is SlotState.OFF


def test_a_vcpu_the_domain_does_not_have(domain: Domain) -> None:
    with pytest.raises(HarnessError, match="has no vCPU 2"):
        domain.agent.run([XEN_VERSION], vcpu=2)


def test_an_idle_agent_leaves_the_machine_alone(start: Boot) -> None:
    with start() as host:
        time.sleep(0.1)  # Xen has things to finish
        used, began = _cpu_seconds(host.process.pid), time.monotonic()
        time.sleep(0.5)
        share = (_cpu_seconds(host.process.pid) - used) / (time.monotonic() - began)
        assert share < 0.5
        assert host.domains[0].xen_version() == (4, 17)


def _cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_an_agent_that_loses_its_memory_tells_how_it_died(start: Boot, kernel: Path) -> None:
    """Its interpreter is taken away; the page with the exception vectors stays."""
    with (kernel.parent / "agent").open("rb") as file:
        symbols: Any = ELFFile(file).get_section_by_name(".symtab")
        (interpreter,) = symbols.get_symbol_by_name("run")
    with start() as host:
        (domain,) = host.domains
        gfn = domain.agent.header.image + interpreter["st_value"] >> 12
        with pytest.raises(AgentDied, match=f"the agent of d1 died on vCPU 0 .* ELR {gfn:#x}"):
            domain.remove_from_physmap(gfn)


def test_operations_given_before_boot(xen: Build, kernel: Path, tmp_path: Path) -> None:
    given = [ops.store(0x40400000, 0x1234), ops.load(0x40400000), ops.load(HOLE), XEN_VERSION]
    image = protocol.preloaded_image(kernel, given, tmp_path / "agent.bin")
    plain = SCENARIOS["domu"]
    with Booted(xen, load_machine(), plain, tmp_path / "host", kernel=image) as host:
        assert host.domains[0].load(0x40400000) == 0x1234
    scenario = replace(SCENARIOS["domu"], domus=(DomainPlan(kernel=image),))
    with Booted(xen, load_machine(), scenario, tmp_path / "again", kernel=kernel) as host:
        (agent,) = protocol.find_agents(host.ram, host, image, 1, AGENT_SECONDS)
        _, loaded, missing, version = agent.preloaded_results(len(given))
        assert (loaded.value, version.value) == (0x1234, 4 << 16 | 17)
        assert (missing.fault, missing.far) == (Fault.SYNCHRONOUS, HOLE)


def test_stopped_agent_answers_no_more(start: Boot) -> None:
    with start() as host:
        (domain,) = host.domains
        domain.stop()
        host.wait(lambda: domain.agent.state(0) is SlotState.STOPPED or None, 5, "the stop")

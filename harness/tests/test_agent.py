"""The mailbox protocol and the guest's memory, as far as they need no guest."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import libfdt
import pytest

from harness import agent as protocol
from harness import operations as ops
from harness.agent import Agent, AgentDied
from harness.errors import HarnessError, XenFailure
from harness.guest_memory import Arguments, memory_of, pieces
from harness.hypercalls import Buffer, hypercall
from harness.operations import Code
from harness.ram import Ram

T = TypeVar("T")
BASE = 0x40000000
OFFSET = 0x1E000  # of the mailbox
ADDRESS = 0x80000000 + OFFSET  # of the mailbox, for the guest


class Impatient:
    """Waits for nothing: what is not there at once does not come."""

    def wait(self, predicate: Callable[[], T | None], seconds: float, what: str) -> T:
        del seconds
        found = predicate()
        if found is None:
            raise TimeoutError(what)
        return found


@pytest.fixture
def ram() -> Iterator[Ram]:
    """RAM with the mailbox of an agent that has just come up."""
    ram = Ram(BASE, 4 << 20)
    size = protocol.PAGES * protocol.PAGE_SIZE
    protocol.HEADER.pack_into(
        ram.view,
        OFFSET,
        0,
        protocol.VERSION,
        0,
        ADDRESS,
        size,
        0x80000000,
        0x80200000,
        0x80E00000,
        0,
        1,
    )
    ram.view[OFFSET : OFFSET + 8] = protocol.MAGIC
    for page in range(1, protocol.PAGES):
        struct.pack_into("<Q", ram.view, OFFSET + (page + 1) * protocol.PAGE_SIZE - 8, page)
    yield ram
    ram.close()


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """The part of an image that the harness reads."""
    image = bytearray(12288)
    struct.pack_into("<Q", image, protocol.IMAGE_SIZE_AT, 0x20000)
    struct.pack_into("<Q", image, protocol.MAILBOX_AT, OFFSET)
    path = tmp_path / "agent.bin"
    path.write_bytes(image)
    return path


def agent_in(ram: Ram) -> Agent:
    return Agent(ram, OFFSET, Impatient())


def test_agents_are_found_where_their_image_has_the_mailbox(ram: Ram, kernel: Path) -> None:
    (found,) = protocol.find_agents(ram, Impatient(), kernel, 1, 1.0)
    assert (found.offset, found.header.address) == (OFFSET, ADDRESS)
    with pytest.raises(TimeoutError, match="the agent in 2 domain"):
        protocol.find_agents(ram, Impatient(), kernel, 2, 1.0)


def test_another_version_is_refused(ram: Ram) -> None:
    struct.pack_into("<I", ram.view, OFFSET + 8, protocol.VERSION + 1)
    with pytest.raises(HarnessError, match="version 2"):
        agent_in(ram)


@pytest.mark.parametrize("page", [1, protocol.PAGES // 2, protocol.PAGES - 1])
def test_a_mailbox_in_pieces_is_refused(ram: Ram, page: int) -> None:
    struct.pack_into("<Q", ram.view, OFFSET + (page + 1) * protocol.PAGE_SIZE - 8, 0xC2C2)
    with pytest.raises(HarnessError, match="not contiguous") as error:
        agent_in(ram)
    assert error.value.evidence == (f"page {page} of {protocol.PAGES} holds 0xc2c2",)


def test_a_batch_given_before_boot_may_lie_over_the_first_pages(ram: Ram) -> None:
    struct.pack_into("<QQ", ram.view, OFFSET + protocol.SLOTS_AT, 1, 1)
    struct.pack_into("<Q", ram.view, OFFSET + 2 * protocol.PAGE_SIZE - 8, 0xC2C2)
    assert agent_in(ram).header.image == 0x80000000


def test_operations_as_the_agent_reads_them() -> None:
    data = ops.encode([ops.hypercall(12, 7, -1), ops.store(0x1000, 5, 2)])
    first = ops.OPERATION.unpack_from(data, 0)
    second = ops.OPERATION.unpack_from(data, ops.OPERATION.size)
    assert first == (Code.HYPERCALL, 0, 7, 2**64 - 1, 0, 0, 0, 12, 0, 0, 0)
    assert second[:5] == (Code.STORE, 0, 0x1000, 2, 5)


def test_a_death_is_told_with_its_registers(ram: Ram) -> None:
    agent = agent_in(ram)
    died = protocol.SLOT.pack(
        0, 0, 0, 1, 0, protocol.SlotState.DIED, 5, 0x96000007, 0x123, 0x2000, 0x456
    )
    ram.view[OFFSET + protocol.SLOTS_AT : OFFSET + protocol.SLOTS_AT + len(died)] = died
    with pytest.raises(AgentDied, match="vector 4, ESR 0x96000007, FAR 0x123, ELR 0x2000") as error:
        agent.run([ops.barrier()])
    assert isinstance(error.value, XenFailure)


def test_too_much_at_once_is_refused(ram: Ram) -> None:
    agent = agent_in(ram)
    with pytest.raises(ValueError, match="more than a batch"):
        agent.post([ops.barrier()] * (protocol.FIRST_SHARE + 1))
    with pytest.raises(ValueError, match="not in the data area"):
        agent.write(agent.data - 8, bytes(8))
    with pytest.raises(ValueError, match="not in the data area"):
        agent.read(agent.data + protocol.DATA_SIZE - 4, 8)
    with pytest.raises(ValueError, match="no vCPU 8"):
        agent.state(8)


def test_shares_of_the_vcpus_do_not_overlap(ram: Ram) -> None:
    """The last vCPU's share ends where the operations end, or before."""
    assert (
        protocol.FIRST_SHARE + (protocol.MAX_VCPUS - 1) * protocol.OTHER_SHARE
        <= protocol.OPERATIONS
    )
    assert protocol.DATA_AT % protocol.PAGE_SIZE == 0
    assert agent_in(ram).data == ADDRESS + protocol.DATA_AT


def test_arguments_point_to_each_other(ram: Ram) -> None:
    agent = agent_in(ram)
    arguments = Arguments(agent)
    inner, outer = Buffer(b"inner"), Buffer(bytes(16), ())
    outer.pointers = ((8, inner),)
    placed = arguments.place(hypercall(12, 7, outer))
    address = placed.operation.arguments[1]
    (pointer,) = struct.unpack_from("<8xQ", agent.read(address, 16))
    assert agent.read(pointer, 5) == placed.read(inner) == b"inner"


def test_calls_are_grouped_by_the_room_they_need(ram: Ram) -> None:
    arguments = Arguments(agent_in(ram))
    calls = [hypercall(12, Buffer(bytes(100_000))) for _ in range(10)]
    groups = [len(group) for group in arguments.groups(calls)]
    assert sum(groups) == 10
    assert max(groups) == 4
    with pytest.raises(ValueError, match="need 600000 bytes"):
        list(arguments.groups([hypercall(12, Buffer(bytes(600_000)))]))


def test_what_is_kept_is_not_overwritten(ram: Ram) -> None:
    agent = agent_in(ram)
    arguments = Arguments(agent)
    address = arguments.keep(b"kept", 4096, offset=4094)
    assert address % 4096 == 4094
    for group in arguments.groups([hypercall(12, Buffer(bytes(300_000)))] * 3):
        for call in group:
            arguments.place(call)
    assert agent.read(address, 4) == b"kept"
    with pytest.raises(HarnessError, match="no room"):
        arguments.keep(bytes(60_000))


def test_preloaded_operations_lie_behind_the_image(kernel: Path, tmp_path: Path) -> None:
    given = [ops.barrier(), ops.stop()]
    image = protocol.preloaded_image(kernel, given, tmp_path / "with").read_bytes()
    assert struct.unpack_from("<Q", image, protocol.PRELOADED_AT) == (2,)
    assert image[0x20000:] == ops.encode(given)
    with pytest.raises(ValueError, match="more than"):
        protocol.preloaded_image(
            kernel, [ops.stop()] * (protocol.OPERATIONS + 1), tmp_path / "many"
        )


def test_affinities_come_in_clusters_of_sixteen() -> None:
    assert [protocol.affinity(vcpu) for vcpu in (0, 15, 16, 35)] == [0, 15, 0x100, 0x203]


def test_memory_of_a_device_tree() -> None:
    tree = libfdt.Fdt.create_empty_tree(4096)
    tree.setprop_u32(0, "#address-cells", 2)
    tree.setprop_u32(0, "#size-cells", 1)
    node = tree.add_subnode(0, "memory@40000000")
    tree.setprop_str(node, "device_type", "memory")
    ranges = struct.pack(">QIQI", 0x40000000, 0x1000000, 0x200000000, 0x2000)
    tree.setprop(node, "reg", ranges)
    other = tree.add_subnode(0, "cpus")
    tree.setprop_str(tree.add_subnode(other, "cpu@0"), "device_type", "cpu")
    found = list(memory_of(bytes(tree.as_bytearray())))
    assert found == [(0x40000000, 0x1000000), (0x200000000, 0x2000)]


def test_pieces_cover_a_stretch() -> None:
    assert list(pieces(0x1FFF, 4097)) == [(0x1FFF, 4096), (0x2FFF, 1)]
    assert list(pieces(0, 0)) == []
